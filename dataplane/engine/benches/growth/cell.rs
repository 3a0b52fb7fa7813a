//! What is compared with what: rows of cells, each cell a server of some size under a load of some shape.
//!
//! In a row one thing grows and all others stay. Nothing here measures.

use crate::child::Role;
use crate::plane::Size;

/// Keys of the tables compared; the last is as many as a node can know.
const KEYS: [usize; 3] = [1, 1_000, 1_000_000];

/// Assets of the tables compared: the usual, and as many as a node can price.
const ASSETS: [usize; 2] = [150, 4_096];

/// Connections, or sockets, compared.
const CLIENTS: [usize; 3] = [64, 1_000, 10_000];

/// Requests in flight unless the row says otherwise.
const AT_ONCE: usize = 64;

/// Quotes a second compared with none.
const QUOTES: u64 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// Who asks with which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// All with the first.
    First,
    /// Each client with one of its own, all of them far apart in the table.
    EachClient,
    /// Each request with another, all of them far apart in the table.
    EachRequest,
}

/// The server of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub role: Role,
    pub size: Size,
    /// Whether its feed has a CPU beside the shard's, and quotes come in.
    pub fed: bool,
}

/// The clients of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clients {
    pub protocol: Protocol,
    pub count: usize,
    pub key_use: KeyUse,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub place: Place,
    pub clients: Clients,
    /// Requests in flight: so many of the clients take turns.
    pub at_once: usize,
    pub quotes: u64,
}

impl Cell {
    const fn usual(protocol: Protocol) -> Self {
        Self {
            place: Place { role: Role::Plane, size: Size::USUAL, fed: false },
            clients: Clients { protocol, count: AT_ONCE, key_use: KeyUse::First },
            at_once: AT_ONCE,
            quotes: 0,
        }
    }

    const fn with_keys(mut self, keys: usize, key_use: KeyUse) -> Self {
        self.place.size.keys = keys;
        // One key is the first, whoever asks.
        self.clients.key_use = if keys == 1 { KeyUse::First } else { key_use };
        self
    }

    const fn with_assets(mut self, assets: usize) -> Self {
        self.place.size.assets = assets;
        self
    }

    const fn with_clients(mut self, count: usize, at_once: usize) -> Self {
        self.clients.count = count;
        self.at_once = at_once;
        self
    }

    const fn fed(mut self, quotes: u64) -> Self {
        self.place.fed = true;
        self.quotes = quotes;
        self
    }

    const fn on_floor(mut self) -> Self {
        self.place.role = Role::Floor;
        self
    }
}

/// Cells of which each is compared with the first.
pub struct Row {
    pub protocol: Protocol,
    /// What grows.
    pub name: &'static str,
    /// How far, and what is measured there.
    pub cells: Vec<(usize, Cell)>,
    /// Where the cost of growing comes from, if it is there.
    pub reason: &'static str,
}

// Where the cost comes from. Misses were counted with callgrind's cache model (32 KiB and 512 KiB) over epoll, per answer.

const OF_KEYS: &str = "A million keys are 135 MB, and a key not seen for a while is looked up cold. Counted per answer: over \
    UDP 9.3 misses of a 512 KiB cache instead of 0.2 for 200 instructions more, over TCP 11.5 instead of 0.3: index, record, \
    allowance, the lease of another key that makes room and goes back, a usage sum of its own. Over TCP the head is also \
    parsed and the key hashed anew (1,000 keys show that alone)";
const OF_OWN_KEYS: &str = "Counted per answer: 9.7 misses of a 512 KiB cache instead of 1.8: each connection's record, lease \
    and usage sum, beside the connection itself";
const OF_ASSETS: &str = "Counted per answer: over TCP 11.5 misses of a 512 KiB cache instead of 0.3, over UDP 3.7 instead of \
    0.2: 4,096 rows with their ready replies are 2.8 MB, and each asset has a usage sum of its own";
const OF_CLIENTS: &str = "The kernel's: a TCP connection is some 4 KB of its memory on each side (socket 2,368, inode 832, file, \
    directory entry, watch), cold when its turn comes; the floor, which keeps next to nothing of a connection, grows as much. Ours, \
    counted per answer over TCP: 6.0 misses of a 512 KiB cache at 10,000, 1.8 at 1,000, 0.3 at 64";
const OF_SOCKETS: &str = "Not the shard's, which keeps nothing of a client's socket: counted per answer, 0.3 misses of a 512 KiB \
    cache at 10,000 instead of 0.2 at 64. What is left is the kernel's, and the floor shows its share";
const OF_QUOTES: &str =
    "Each price that changes is taken from the ring, and its ready reply written anew when it is asked for";

/// All rows of one engine.
pub fn rows() -> Vec<Row> {
    [rows_of(Protocol::Tcp), rows_of(Protocol::Udp)].into_iter().flatten().collect()
}

fn rows_of(protocol: Protocol) -> Vec<Row> {
    let usual = Cell::usual(protocol);
    let row = |name, reason, sizes: &[usize], cell: &dyn Fn(usize) -> Cell| Row {
        protocol,
        name,
        cells: sizes.iter().map(|&size| (size, cell(size))).collect(),
        reason,
    };
    let of_clients = if protocol == Protocol::Tcp { OF_CLIENTS } else { OF_SOCKETS };
    let in_turn = |count| usual.with_clients(count, AT_ONCE);
    let quotes = |rate| usual.fed(rate as u64);
    let each_request = |keys| usual.with_keys(keys, KeyUse::EachRequest);
    let mut rows = vec![
        row("keys, another with each request", OF_KEYS, &KEYS, &each_request),
        row("assets", OF_ASSETS, &ASSETS, &|assets| usual.with_assets(assets)),
        row("clients, 64 at a time", of_clients, &CLIENTS, &in_turn),
        row("clients, 64 at a time, on the floor", of_clients, &CLIENTS, &|count| in_turn(count).on_floor()),
        row("quotes a second beside it", OF_QUOTES, &[0, QUOTES as usize], &quotes),
    ];
    // Datagrams have no room to wait for ten thousand at once, so these are rows of connections only.
    if protocol == Protocol::Tcp {
        let own = |keys| in_turn(CLIENTS[1]).with_keys(keys, KeyUse::EachClient);
        let all = |count| usual.with_clients(count, count);
        rows.insert(0, row("keys, one for each of 1,000 clients", OF_OWN_KEYS, &KEYS, &own));
        rows.push(row("clients, all at once", OF_CLIENTS, &CLIENTS, &all));
        rows.push(row("clients, all at once, on the floor", OF_CLIENTS, &CLIENTS, &|count| all(count).on_floor()));
    }
    rows
}
