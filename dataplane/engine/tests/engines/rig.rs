//! A data plane with one key and a few assets, quotes pushed by hand, and clients that read what comes back.

use dataplane_core::access::{KeyDirectory, hash_text};
use dataplane_core::command::ShardParameters;
use dataplane_core::feed::{FeedInput, FeedParameters};
use dataplane_engine::{
    CONNECTIONS_MAX, DataPlane, DataPlaneSetup, Engine, EngineChoice, FeedSender, ShardStats, StartRefused,
};
use shared::asset::{AssetDirectory, AssetId, Symbol};
use shared::key::{KeyId, KeyRecord, Permissions};
use shared::price::Price;
use shared::quote::{Currency, Field, Quote, Route};
use shared::venue::{Venue, VenueSet};
use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tuning::core_plan::CorePlan;
use tuning::steering::SteeringChoice;

/// The key that every request carries.
pub const KEY: &str = "tb_test_0123456789abcdef";

/// Its UDP secret; its number is 1.
pub const UDP_SECRET: [u8; 16] = [7; 16];

/// Longest a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The assets, in id order.
pub const ASSETS: [&str; 3] = ["BTC", "ETH", "SOL"];

/// Runs `test` on each engine that this machine and this build have.
pub fn on_each_engine(test: impl Fn(EngineChoice)) {
    let refused = tuning::ring_probe::probe().err();
    for engine in Engine::ALL {
        match refused.filter(|_| *engine != Engine::Epoll) {
            Some(refused) => {
                assert!(refused.is_unavailable(), "{refused}: {}", refused.remedy());
                eprintln!("{} skipped: {refused}", engine.name());
            }
            None => test(engine.choice()),
        }
    }
}

/// Asks `question` until it has an answer.
#[track_caller]
pub fn eventually<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a test may want otherwise than usual.
pub struct Wish {
    pub engine: EngineChoice,
    pub shards: usize,
    pub connections_max: usize,
    pub parameters: ShardParameters,
    pub tcp_port: u16,
    /// CPUs to pin shards to; empty: none is pinned.
    pub cpus: Vec<usize>,
    pub steering: SteeringChoice,
    pub counts_usage: bool,
}

impl Wish {
    pub fn of(engine: EngineChoice) -> Self {
        Self {
            engine,
            shards: 1,
            connections_max: CONNECTIONS_MAX,
            parameters: ShardParameters::default(),
            tcp_port: 0,
            cpus: Vec::new(),
            steering: SteeringChoice::Hash,
            counts_usage: true,
        }
    }

    pub fn try_start(self) -> Result<Rig, StartRefused> {
        let shards = (0..self.shards).map(|shard| self.cpus.get(shard).copied()).collect();
        let mut assets = AssetDirectory::new();
        for name in ASSETS {
            assets.add(Symbol::new(name.as_bytes()).expect("a symbol"), true, VenueSet::EMPTY.with(Venue::Kraken));
        }
        let key = KeyRecord {
            id: KeyId(1),
            hash: hash_text(KEY.as_bytes()),
            limit_per_second: 10_000_000,
            expires_at_ms: 0,
            permissions: Permissions(Permissions::PRICES),
            udp_secret: UDP_SECRET,
            rank: 3,
        };
        let plane = DataPlane::start(DataPlaneSetup {
            engine: self.engine,
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            tcp_port: self.tcp_port,
            udp_port: 0,
            plan: CorePlan { shards, control: Vec::new() },
            steering: self.steering,
            connections_max: self.connections_max,
            assets: Arc::new(assets),
            keys: Arc::new(KeyDirectory::build(vec![key], None, self.shards)),
            shard_parameters: self.parameters,
            feed_parameters: FeedParameters { fresh_ms: 600_000, alive_ms: 600_000 },
            simulated: false,
            counts_usage: self.counts_usage,
        })?;
        let feed = plane.feed();
        Ok(Rig { plane, feed, cents: Cell::new(6_700_000) })
    }

    pub fn start(self) -> Rig {
        self.try_start().unwrap_or_else(|refused| panic!("{refused}"))
    }
}

/// A running data plane.
pub struct Rig {
    pub plane: DataPlane,
    feed: FeedSender,
    /// Of the last quote.
    cents: Cell<i64>,
}

impl Rig {
    /// One shard on `engine`, with a price for every asset.
    pub fn priced(engine: EngineChoice) -> Self {
        Self::priced_as(Wish::of(engine))
    }

    pub fn priced_as(wish: Wish) -> Self {
        let shards = wish.shards;
        let rig = wish.start();
        (0..ASSETS.len()).for_each(|asset| rig.quote(asset));
        let all = u64::try_from(ASSETS.len()).expect("few");
        eventually("a price of every asset on every shard", || {
            let stats = rig.plane.stats();
            (stats.len() == shards && stats.iter().all(|shard| shard.counters.ticks >= all)).then_some(())
        });
        rig
    }

    /// A quote one cent above the last.
    pub fn quote(&self, asset: usize) {
        let now = tuning::clock::now();
        self.cents.set(self.cents.get() + 1);
        let price = Field::At(Price::new(self.cents.get(), -2));
        let quote = Quote {
            venue: Venue::Kraken,
            asset: AssetId::new(asset).expect("an asset"),
            currency: Currency::Usd,
            route: Route::Ws,
            snapshot: false,
            last: price,
            bid: price,
            ask: price,
            exchange_time_ms: Some(now.wall_ms),
            venue_sequence: None,
            received_time_ms: now.wall_ms,
            received_mono_ns: now.mono_ns,
        };
        self.feed.try_send(FeedInput::Quote(quote)).expect("room in the channel");
    }

    pub fn connect(&self) -> Client {
        Client::to(self.plane.tcp_address())
    }

    /// A client of the datagram port.
    pub fn datagrams(&self) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.connect(self.plane.udp_address()).expect("a peer");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        socket
    }

    /// The only shard's numbers.
    pub fn stats(&self) -> ShardStats {
        self.plane.stats().swap_remove(0)
    }

    /// Waits until the only shard's numbers are as wanted.
    #[track_caller]
    pub fn await_stats(&self, what: &str, wanted: impl Fn(&ShardStats) -> bool) {
        eventually(what, || wanted(&self.stats()).then_some(()));
    }
}

/// A reply, taken apart.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn sequence(&self) -> u64 {
        self.json()["sequence"].as_u64().expect("a sequence")
    }
}

/// A client connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        Self { stream: BufReader::new(stream) }
    }

    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    pub fn send(&self, text: &str) {
        self.socket().write_all(text.as_bytes()).expect("sent");
    }

    /// Reads one reply; `None` when the server has closed instead.
    pub fn read(&mut self) -> Option<Reply> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            // A reset is an end as well.
            if self.stream.read_line(&mut head).unwrap_or(0) == 0 {
                assert!(head.is_empty(), "a reply that was cut off: {head:?}");
                return None;
            }
        }
        let status = head.get(9..12).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{head:?}"));
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().expect("a number"))
        });
        let mut body = vec![0; if status == 304 { 0 } else { length.unwrap_or(0) }];
        self.stream.read_exact(&mut body).expect("the whole body");
        Some(Reply { status, head, body: String::from_utf8(body).expect("text") })
    }

    /// Asks for one price.
    pub fn price(&mut self, asset: &str) -> Reply {
        self.send(&request(asset, ""));
        self.read().expect("an answer")
    }

    /// Whether the server closes without another byte.
    pub fn is_closed(&mut self) -> bool {
        self.read().is_none()
    }
}

/// The bytes of a price request.
pub fn request(asset: &str, more: &str) -> String {
    get(&format!("/price?asset={asset}{more}"))
}

/// The bytes of a GET.
pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n")
}
