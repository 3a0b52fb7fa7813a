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
    let in_turn = |count| usual.with_clients(count, AT_ONCE);
    let quotes = |rate| usual.fed(rate as u64);
    let each_request = |keys| usual.with_keys(keys, KeyUse::EachRequest);
    let mut rows = vec![
        row("keys, another with each request", "", &KEYS, &each_request),
        row("assets", "", &ASSETS, &|assets| usual.with_assets(assets)),
        row("clients, 64 at a time", "", &CLIENTS, &in_turn),
        row("clients, 64 at a time, on the floor", "", &CLIENTS, &|count| in_turn(count).on_floor()),
        row("quotes a second beside it", "", &[0, QUOTES as usize], &quotes),
    ];
    // Datagrams have no room to wait for ten thousand at once, so these are rows of connections only.
    if protocol == Protocol::Tcp {
        let own = |keys| in_turn(CLIENTS[1]).with_keys(keys, KeyUse::EachClient);
        let all = |count| usual.with_clients(count, count);
        rows.insert(0, row("keys, one for each of 1,000 clients", "", &KEYS, &own));
        rows.push(row("clients, all at once", "", &CLIENTS, &all));
        rows.push(row("clients, all at once, on the floor", "", &CLIENTS, &|count| all(count).on_floor()));
    }
    rows
}
