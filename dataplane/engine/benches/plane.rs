//! A data plane as the benches measure it: real keys with a limit nobody reaches, and a priced asset for every turn.

use dataplane_core::access::{KeyDirectory, hash_text};
use dataplane_core::command::ShardParameters;
use dataplane_core::feed::{FeedInput, FeedParameters};
use dataplane_engine::{CONNECTIONS_MAX, DataPlane, DataPlaneSetup, EngineChoice};
use shared::asset::{AssetDirectory, AssetId, Symbol};
use shared::key::{KeyId, KeyRecord, Permissions};
use shared::price::Price;
use shared::quote::{Currency, Field, Quote, Route};
use shared::venue::{Venue, VenueSet};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tuning::clock;
use tuning::core_plan::CorePlan;
use tuning::steering::SteeringChoice;

/// Assets usually priced: as many as the system being replaced had. Their symbols are of one length, so that all requests are.
pub const ASSETS: usize = 150;

/// How much a data plane has to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Keys it knows, at least 1.
    pub keys: usize,
    /// Assets it prices, at least 1.
    pub assets: usize,
}

impl Size {
    /// One key, and the usual assets.
    pub const USUAL: Self = Self { keys: 1, assets: ASSETS };
}

/// Number and secret of the first key, which every client uses unless it says otherwise.
pub const KEY_ID: u32 = 7;
pub const UDP_SECRET: [u8; 16] = *b"bench-udp-secret";

/// The text of the key at `index`; all are of one length.
pub fn key_text(index: usize) -> String {
    format!("tb_live_bench{index:027}")
}

/// Number and secret of the key at `index`.
pub fn udp_key(index: usize) -> (u32, [u8; 16]) {
    let mut secret = UDP_SECRET;
    secret.iter_mut().zip(index.to_le_bytes()).for_each(|(byte, other)| *byte ^= other);
    (KEY_ID + u32::try_from(index).expect("a million keys at most"), secret)
}

fn key(index: usize) -> KeyRecord {
    let (id, udp_secret) = udp_key(index);
    KeyRecord {
        id: KeyId(id),
        hash: hash_text(key_text(index).as_bytes()),
        limit_per_second: 10_000_000,
        expires_at_ms: 0,
        permissions: Permissions(Permissions::PRICES),
        udp_secret,
        rank: 3,
    }
}

/// Symbol of the asset at `index`.
pub fn symbol(index: usize) -> Symbol {
    Symbol::new(format!("T{index:04}").as_bytes()).expect("letters and digits")
}

/// The request for the asset at `index` with the first key.
pub fn request(index: usize) -> Vec<u8> {
    request_with(0, index)
}

/// The request with the key at `key` for the asset at `asset`.
pub fn request_with(key: usize, asset: usize) -> Vec<u8> {
    let (symbol, key) = (symbol(asset), key_text(key));
    let head = format!("GET /price?asset={symbol} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    format!("{head}User-Agent: bench\r\nAccept: */*\r\nX-API-Key: {key}\r\n\r\n").into_bytes()
}

/// A quote of `venue` for `asset`, just received: `cents` is the bid, the ask lies one cent above.
pub fn quote(venue: Venue, asset: AssetId, cents: i64) -> Quote {
    let now = clock::now();
    Quote {
        venue,
        asset,
        currency: Currency::Usd,
        route: Route::Ws,
        snapshot: true,
        last: Field::Unchanged,
        bid: Field::At(Price::new(cents, -2)),
        ask: Field::At(Price::new(cents + 1, -2)),
        exchange_time_ms: Some(now.wall_ms),
        venue_sequence: None,
        received_time_ms: now.wall_ms,
        received_mono_ns: now.mono_ns,
    }
}

/// Starts a data plane of that size on loopback with every asset priced by two venues.
///
/// # Errors
/// Why it did not start.
pub fn start(engine: EngineChoice, plan: CorePlan, size: Size) -> io::Result<DataPlane> {
    let mut assets = AssetDirectory::new();
    for index in 0..size.assets {
        assets.add(symbol(index), true, VenueSet::EMPTY).ok_or_else(|| io::Error::other("no room for the assets"))?;
    }
    let keys = KeyDirectory::build((0..size.keys).map(key).collect(), None, plan.shards.len());
    let plane = DataPlane::start(DataPlaneSetup {
        engine,
        bind: Ipv4Addr::LOCALHOST.into(),
        tcp_port: 0,
        udp_port: 0,
        plan,
        steering: SteeringChoice::Hash,
        connections_max: CONNECTIONS_MAX,
        assets: Arc::new(assets),
        keys: Arc::new(keys),
        shard_parameters: ShardParameters::default(),
        // Prices must not turn stale during a bench that sends none.
        feed_parameters: FeedParameters { fresh_ms: 3_600_000, alive_ms: 3_600_000 },
        simulated: false,
        counts_usage: true,
    })
    .map_err(io::Error::other)?;
    for index in 0..size.assets {
        let asset = AssetId::new(index).expect("the directory took it");
        for venue in [Venue::Coinbase, Venue::Kraken] {
            let quote = quote(venue, asset, 6_700_000 + index as i64);
            plane.feed().try_send(FeedInput::Quote(quote)).map_err(|_| io::Error::other("the feed takes nothing"))?;
        }
    }
    // The last asset's price is served when all are; the shards get them in one order.
    let newest = request(size.assets - 1);
    let give_up = Instant::now() + Duration::from_secs(10);
    while !ask(&mut TcpStream::connect(plane.tcp_address())?, &newest)?.1.contains("\"sources\":2") {
        if Instant::now() > give_up {
            return Err(io::Error::other("the prices did not arrive"));
        }
        std::thread::yield_now();
    }
    Ok(plane)
}

/// Sends one request and reads its answer: status line, body, length of it all.
///
/// # Errors
/// When the connection breaks or the answer has no length.
pub fn ask(stream: &mut TcpStream, request: &[u8]) -> io::Result<(String, String, usize)> {
    stream.write_all(request)?;
    read_answer(stream)
}

/// Reads one answer; see [`ask`].
///
/// # Errors
/// See [`ask`].
pub fn read_answer(stream: &mut TcpStream) -> io::Result<(String, String, usize)> {
    let mut bytes = Vec::with_capacity(1_024);
    let mut part = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let field = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length = field.and_then(|digits| digits.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned(), bytes.len()));
            }
        }
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => bytes.extend_from_slice(&part[..length]),
        }
    }
}
