//! The conformance suite: the same bytes go into each engine, and the same bytes must come back. With `--features
//! monoio,glommio` the rivals are asked too.
//!
//! It runs the data plane alone, on quotes it makes itself, so that two runs hold the same prices. What may differ
//! between two runs (the date, ages, receive times, sequence numbers) is blotted out before the comparison.

use dataplane_core::access::KeyDirectory;
use dataplane_core::command::{ShardCommand, ShardParameters};
use dataplane_core::feed::{FeedInput, FeedParameters};
use dataplane_core::lookup::{AskKind, NotFound};
use dataplane_engine::{DataPlane, DataPlaneSetup, Engine, HandedOver};
use harness::http::Connection;
use shared::asset::{AssetDirectory, Symbol};
use shared::code::Code;
use shared::key::{KeyId, KeyRecord, Permissions};
use shared::price::Price;
use shared::quote::{Currency, Field, Quote, Route};
use shared::venue::{Venue, VenueSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tuning::core_plan::CorePlan;
use tuning::steering::SteeringChoice;

const KEY: &str = "tb_live_parity00000000000000000000000000";
const SLOW_KEY: &str = "tb_live_slow0000000000000000000000000000";

/// A data plane with three assets priced by two venues, and a control plane that says what it was handed and finds nothing.
struct Plane {
    plane: Arc<DataPlane>,
    control: Vec<JoinHandle<()>>,
    is_over: Arc<AtomicBool>,
}

impl Plane {
    fn start(engine: Engine, shards: usize) -> Self {
        let mut assets = AssetDirectory::new();
        for text in ["BTC", "ETH", "SHIB", "QUIET"] {
            assets.add(Symbol::new(text.as_bytes()).expect("a symbol"), true, VenueSet::EMPTY).expect("room");
        }
        let keys = vec![record(1, KEY, 10_000_000), record(2, SLOW_KEY, 3)];
        let plane = DataPlane::start(DataPlaneSetup {
            engine: engine.choice(),
            bind: Ipv4Addr::LOCALHOST.into(),
            tcp_port: 0,
            udp_port: 0,
            plan: CorePlan::new(Some(shards), &[]).expect("a plan"),
            assets: Arc::new(assets.clone()),
            keys: Arc::new(KeyDirectory::build(keys, None, shards)),
            shard_parameters: ShardParameters::default(),
            feed_parameters: FeedParameters::default(),
            simulated: false,
            counts_usage: true,
            steering: SteeringChoice::Hash,
            connections_max: dataplane_engine::CONNECTIONS_MAX,
        })
        .expect("the data plane starts");
        let hand_overs = plane.hand_overs();
        let (plane, is_over) = (Arc::new(plane), Arc::new(AtomicBool::new(false)));
        let (asked, ends) = (Arc::clone(&plane), Arc::clone(&is_over));
        let control = vec![
            std::thread::spawn(move || hand_overs.into_iter().for_each(say_what_was_handed_over)),
            std::thread::spawn(move || find_nothing(&asked, &ends)),
        ];
        let started = Self { plane, control, is_over };
        for (text, prices) in
            [("BTC", ["67000.5", "67001.5"]), ("ETH", ["3500.25", "3500.75"]), ("SHIB", ["0.00001234", "0.00001236"])]
        {
            let asset = assets.find(&Symbol::new(text.as_bytes()).expect("a symbol")).expect("known");
            for venue in [Venue::Coinbase, Venue::Kraken] {
                started.feed(quote(venue, asset, prices));
            }
            started.await_sources(text, 2);
        }
        started
    }

    fn feed(&self, quote: Quote) {
        self.plane.feed().try_send(FeedInput::Quote(quote)).expect("room in the channel");
    }

    fn await_sources(&self, asset: &str, sources: u64) {
        let request =
            format!("GET /price?asset={asset} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nConnection: close\r\n\r\n");
        harness::eventually("the quotes to arrive", || {
            let reply = harness::http::exchange(self.plane.tcp_address(), request.as_bytes());
            String::from_utf8_lossy(&reply).contains(&format!("\"sources\":{sources},")).then_some(())
        });
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.plane.stop();
        self.is_over.store(true, Ordering::Relaxed);
        // The channel's other end is gone with the shards, so both threads end.
        for thread in self.control.drain(..) {
            let _ = thread.join();
        }
    }
}

fn record(id: u32, text: &str, limit_per_second: u32) -> KeyRecord {
    KeyRecord {
        id: KeyId(id),
        hash: dataplane_core::access::hash_text(text.as_bytes()),
        limit_per_second,
        expires_at_ms: 0,
        permissions: Permissions(Permissions::PRICES),
        udp_secret: [id as u8; 16],
        rank: 3,
    }
}

fn quote(venue: Venue, asset: shared::asset::AssetId, [bid, ask]: [&str; 2]) -> Quote {
    let now = tuning::clock::now();
    let price = |text: &str| Field::At(Price::parse(text.as_bytes()).expect("a price"));
    Quote {
        venue,
        asset,
        currency: Currency::Usd,
        route: Route::Ws,
        snapshot: true,
        last: Field::Unchanged,
        bid: price(bid),
        ask: price(ask),
        exchange_time_ms: Some(now.wall_ms),
        venue_sequence: None,
        received_time_ms: now.wall_ms,
        received_mono_ns: now.mono_ns,
    }
}

/// Stands for the control plane: of what the shards ask it, nothing is known; of what is listed, there is no price.
fn find_nothing(plane: &DataPlane, is_over: &AtomicBool) {
    let mut asks = plane.take_asks().expect("nobody has taken it");
    let mut asked = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        asks.wait(&mut asked, Duration::from_millis(100));
        for ask in asked.drain(..) {
            let is_listed = ask.symbol.as_str() == "QUIET";
            let code = if is_listed { Code::PriceUnavailable } else { Code::AssetUnknown };
            let AskKind::Find { number, .. } = ask.kind else { continue };
            let nothing = NotFound { symbol: ask.symbol, number, code };
            plane.command_one(ask.shard, ShardCommand::NotFound(Arc::from([nothing])));
        }
    }
}

/// Stands for the control plane: answers with the request head that came along, and closes. What came behind the head
/// depends on how the kernel cut the stream, not on the engine.
fn say_what_was_handed_over(handed: HandedOver) {
    let mut stream = handed.stream;
    let end = handed.bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
    let told = &handed.bytes[..end];
    let head = format!("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", told.len());
    // A client that has gone is no concern of the suite's.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(told));
    let _ = stream.shutdown(Shutdown::Write);
    let _ = std::io::copy(&mut Read::by_ref(&mut stream).take(1 << 20), &mut std::io::sink());
}

/// The streams of the suite. `KEY` and `SLOW` stand for the two keys.
fn scripts() -> Vec<String> {
    let good = "Host: x\r\nX-API-Key: KEY\r\n\r\n";
    let line = |target: &str| format!("GET {target} HTTP/1.1\r\n{good}");
    let price = line("/price?asset=BTC");
    let mut scripts: Vec<String> = [
        "/price?asset=BTC",
        "/price?asset=eth",
        "/price?asset=SHIB",
        "/price?asset=QUIET",
        "/price?asset=NONE",
        "/price?asset=",
        "/price",
        "/price?asset=B-C",
        "/prices?assets=BTC,ETH,SHIB",
        "/prices?assets=BTC,NONE&ignore_unknown=1",
        "/prices?assets=all&ignore_unknown=1",
        "/prices?assets=BTC,NONE",
        "/prices?assets=QUIET,NEVER,ETH&ignore_unknown=1",
        "/price?asset=QUIET&newer_than=0&wait_ms=50",
        "/price?asset=QUIET&allow_stale=1",
        "/price?asset=BTC&newer_than=18446744073709551615&wait_ms=50",
        "/assets",
        "/price?asset=BTC&detail=1",
    ]
    .map(line)
    .into();
    scripts.push(price.repeat(100));
    // Lookups in the middle of a stream: each of another asset, so that none is answered from memory alone.
    let lookups = ["LOST1", "QUIET", "LOST2", "LOST3"].map(|text| line(&format!("/price?asset={text}")));
    scripts.push(format!("{price}{}{price}", lookups.join(&price)));
    scripts.push(price.replace("Host", "If-None-Match: *\r\nHost").repeat(3));
    scripts.push(format!("{price}{}{price}", line("/nowhere")));
    scripts.push(format!("{price}BROKEN\r\n\r\n{price}"));
    scripts.push(price.replace("GET", "HEAD").repeat(3));
    scripts.push(price.replace("GET", "OPTIONS"));
    scripts.push(price.replace("GET", "PUT"));
    scripts.push(price.replace("1.1", "1.0"));
    scripts.push(price.replace("Host", "Connection: close\r\nHost"));
    scripts.push(price.replace("KEY", "SLOW").repeat(4));
    scripts.push(price.replace("KEY", "nobody"));
    scripts.push(price.replace("Host: x\r\n", ""));
    scripts.push(price.replace("Host", "Content-Length: 3\r\nHost") + "abc");
    scripts.push(price.replace("Host", "Transfer-Encoding: chunked\r\nHost"));
    scripts.push(price.replace("Host", &format!("X-Long: {}\r\nHost", "y".repeat(8_200))));
    scripts.push(format!("\r\n\r\n{price}"));
    scripts.push("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API".to_owned());
    scripts
}

/// Sends `bytes` in pieces of `piece`, closes our half, and gives everything that came.
fn run(plane: &Plane, script: &str, piece: usize) -> String {
    let bytes = script.replace("KEY", KEY).replace("SLOW", SLOW_KEY).into_bytes();
    let mut connection = Connection::open(plane.plane.tcp_address());
    for part in bytes.chunks(piece) {
        // The server may have closed after a refusal: what it said until then is what counts.
        if (&mut connection.stream()).write_all(part).is_err() {
            break;
        }
    }
    let _ = connection.stream().shutdown(Shutdown::Write);
    blot(&String::from_utf8_lossy(&connection.read_to_end()))
}

/// Replaces what may differ between two runs: dates, and the numbers behind the names below.
fn blot(text: &str) -> String {
    const NAMES: [&str; 7] = [
        "age_ms\":",
        "received_time_ms\":",
        "exchange_time_ms\":",
        "sequence\":",
        "generation\":",
        "ETag: \"",
        "Content-Length: ",
    ];
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if line.starts_with("Date: ") {
            out.push_str("Date: #\r\n");
            continue;
        }
        let mut rest = line;
        while let Some((at, name)) = NAMES.iter().filter_map(|name| Some((rest.find(name)? + name.len(), name))).min() {
            let _ = name;
            out.push_str(&rest[..at]);
            out.push('#');
            rest = rest[at..].trim_start_matches(|digit: char| digit.is_ascii_digit());
        }
        out.push_str(rest);
    }
    out
}

#[test]
fn the_engines_give_the_same_bytes() {
    let planes: Vec<Plane> = Engine::ALL.iter().map(|engine| Plane::start(*engine, 1)).collect();
    assert!(planes.iter().zip(Engine::ALL).all(|(plane, engine)| plane.plane.engine() == *engine));
    for script in scripts() {
        for piece in [usize::MAX, 1_000, 7] {
            let uring = run(&planes[0], &script, piece);
            assert!(!uring.is_empty() || !script.contains("\r\n\r\n"), "no answer to {script:?}");
            for (plane, engine) in planes.iter().zip(Engine::ALL).skip(1) {
                let start = &script[..script.len().min(300)];
                assert_eq!(uring, run(plane, &script, piece), "{} in pieces of {piece}: {start}", engine.name());
            }
        }
    }
}

/// The same datagrams, one by one: what is cold waits, and is told then.
#[test]
fn the_engines_give_the_same_datagrams() {
    let planes: Vec<Plane> = Engine::ALL.iter().map(|engine| Plane::start(*engine, 1)).collect();
    let pad = "x".repeat(200);
    for assets in ["\"asset\":\"BTC\"", "\"asset\":\"GONE1\"", "\"asset\":\"QUIET\"", "\"assets\":[\"ETH\",\"GONE2\"]"]
    {
        let request = format!("{{\"key\":\"{KEY}\",{assets},\"id\":7,\"pad\":\"{pad}\"}}");
        let replies: Vec<String> = planes.iter().map(|plane| ask_datagram(plane, request.as_bytes())).collect();
        assert!(replies.iter().all(|reply| *reply == replies[0] && reply.contains("\"id\":7,")), "{replies:?}");
    }
    for plane in &planes {
        // Before its first price a plane has been asked already, by whoever waited for that.
        harness::eventually("three lookups to have been made", || {
            (plane.plane.stats()[0].counters.lookups_fruitless >= 3).then_some(())
        });
    }
}

fn ask_datagram(plane: &Plane, request: &[u8]) -> String {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    socket.send_to(request, plane.plane.udp_address()).expect("sent");
    let mut bytes = [0; 2_048];
    let length = socket.recv(&mut bytes).expect("a reply");
    blot(&String::from_utf8_lossy(&bytes[..length]))
}

#[test]
fn all_shards_run_one_engine_and_say_which() {
    for engine in Engine::ALL {
        let plane = Plane::start(*engine, 2);
        assert_eq!(plane.plane.stats().len(), 2);
        assert!(!plane.plane.engine_reason().is_empty());
        assert_eq!(plane.plane.failed_thread(), None);
    }
}

#[test]
fn a_revoked_key_is_refused_by_every_shard() {
    for engine in Engine::ALL {
        let plane = Plane::start(*engine, 2);
        let mut open: Vec<Connection> = (0..16).map(|_| Connection::open(plane.plane.tcp_address())).collect();
        let request = format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n");
        let ask = |connection: &mut Connection| {
            connection.send(request.as_bytes());
            connection.read(false).expect("an answer").status
        };
        assert!(open.iter_mut().all(|connection| ask(connection) == 200));
        let without = KeyDirectory::build(vec![record(2, SLOW_KEY, 3)], None, 2);
        plane.plane.command(&ShardCommand::Keys(Arc::new(without)));
        for connection in &mut open {
            harness::eventually("the key to be refused on an open connection", || {
                (ask(connection) == 401).then_some(())
            });
        }
    }
}

#[test]
fn an_idle_shard_sees_a_new_price_at_once() {
    for engine in Engine::ALL {
        let plane = Plane::start(*engine, 1);
        let asset = shared::asset::AssetId::new(0).expect("BTC");
        let mut connection = Connection::open(plane.plane.tcp_address());
        for step in 0..50 {
            // Nothing but the tick itself wakes the shard; the waiting request is answered by it.
            let newest = sequence(&plane);
            let target = format!("/price?asset=BTC&newer_than={newest}&wait_ms=30000");
            connection.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n").as_bytes());
            let bid = format!("{}.5", 67_010 + step);
            plane.feed(quote(Venue::Coinbase, asset, [&bid, &bid]));
            let reply = connection.read(false).expect("an answer");
            assert_eq!(reply.status, 200, "step {step}: {}", reply.text());
            assert!(reply.json()["sequence"].as_u64() > Some(newest));
        }
    }
}

fn sequence(plane: &Plane) -> u64 {
    let reply = harness::http::get(plane.plane.tcp_address(), "/price?asset=BTC", &[("X-API-Key", KEY)]);
    reply.json()["sequence"].as_u64().expect("a sequence")
}
