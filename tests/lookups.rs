//! Assets that no shard has a price of: found in the cache, at an exchange, or nowhere, whoever asks and however many.
//!
//! `cargo test -p trinity-tests --test lookups -- --nocapture` prints what clients were told and how long it took them.
#![expect(clippy::print_stdout, reason = "what clients were told is what this test shows")]

use harness::eventually;
use harness::exchanges::{asked, forget, order};
use harness::http::{self, Connection, Reply};
use harness::planted::now_ms;
use harness::proxy::{Fault, Proxy};
use harness::redis::Redis;
use harness::service::{ENGINES, Service};
use harness::udp;
use serde_json::{Value, json};
use shared::code::Code;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest that an answer may take that waits for a lookup, with what a busy machine adds.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A service with its cache behind something that can go wrong.
struct World {
    service: Service,
    proxy: Proxy,
    redis: Redis,
}

impl World {
    fn start(engine: &str, further: &[(&str, &str)]) -> Self {
        let redis = Redis::start();
        let proxy = Proxy::start(redis.address());
        let url = redis.url_at(proxy.address());
        let variables = [("CACHE_URL", url.as_str()), ("TB_SHARDS", "2"), ("CLUSTER_NODE", "here")];
        let variables: Vec<_> = variables.into_iter().chain(further.iter().copied()).collect();
        let service = Service::demo_with(engine, &variables);
        service.await_price("BTC", 1);
        eventually("the cache", || (service.metric("tb_cache_up")? == 1).then_some(()));
        Self { service, proxy, redis }
    }

    /// Requests for prices that the exchanges had over REST.
    fn rest_requests(&self) -> u64 {
        self.service.exchanges().iter().map(|(_, exchange)| asked(*exchange)["total"].as_u64().expect("a count")).sum()
    }

    /// Puts another node's price of `asset` into the cache.
    fn plant(&self, asset: &str, text: &str) {
        assert_eq!(self.redis.ask(&["SET", &format!("price:{asset}"), text, "EX", "60"]), "OK");
    }
}

/// What another node would have written of `asset`, just now.
fn entry(asset: &str, price: &str) -> Value {
    let now_ms = now_ms();
    json!({
        "asset": asset, "price": price, "currency": "USD", "source": "median", "venues": ["coinbase", "kraken"],
        "spread_bps": "1.85", "converted": false, "exchange_time_ms": now_ms - 900, "received_time_ms": now_ms - 800,
        "proven_time_ms": now_ms - 700, "node": "elsewhere", "simulated": true,
    })
}

/// Asks for one price, and says what came and how long it took.
fn ask(service: &Service, asset: &str) -> Reply {
    ask_with(service, service.stress_key(), asset)
}

fn ask_with(service: &Service, key: &str, asset: &str) -> Reply {
    let began = Instant::now();
    let path = format!("/price?asset={asset}");
    let reply = http::get(service.address("lpo_tcp"), &path, &[("X-API-Key", key)]);
    let took = began.elapsed();
    println!("   {asset}: {} after {} ms: {}", reply.status, took.as_millis(), reply.text());
    assert!(took < ANSWER_MAX, "{asset} took {took:?}");
    reply
}

/// A price that was found, of this tier.
#[track_caller]
fn found(service: &Service, asset: &str, tier: &str) -> Value {
    let reply = ask(service, asset);
    assert_eq!(reply.status, 200, "{asset}");
    let price = reply.json();
    assert_eq!((&price["tier"], &price["stale"]), (&json!(tier), &json!(false)), "{price}");
    price
}

fn await_local(service: &Service, asset: &str) {
    eventually(&format!("{asset} by the sockets"), || (ask(service, asset).json()["tier"] == "local").then_some(()));
}

#[test]
fn each_tier_is_told_as_what_it_is() {
    for engine in ENGINES {
        println!("== {engine}");
        let world = World::start(engine, &[]);
        let service = &world.service;
        // Over HTTP: from an exchange, then by its socket for as long as somebody asks.
        let price = found(service, "QNT", "rest");
        assert!(price["source"].as_str().is_some_and(|source| source.ends_with("-rest")), "{price}");
        eventually("what was found to be there for the others", || {
            world.redis.ask(&["GET", "price:QNT"]).contains("-rest").then_some(())
        });
        await_local(service, "QNT");
        // Over UDP, both ways.
        let request = format!(r#"{{"key":"{}","asset":"YFI","id":7}}"#, service.stress_key());
        let reply: Value =
            serde_json::from_slice(&udp::ask(service.address("lpo_udp"), request.as_bytes())).expect("JSON");
        println!("   YFI over UDP: {reply}");
        assert!(reply["price"].as_str().is_some() && reply["id"] == 7, "{reply}");
        let (id, secret) = service.udp_key();
        let request = udp::frame(id, &secret, "DASH", 42, now_ms());
        let reply = udp::ask(service.address("lpo_udp"), bytemuck::bytes_of(&request));
        let reply = udp::reply_frame(&secret, &reply);
        assert_eq!((reply.status, u64::from_le_bytes(reply.request_id)), (0, 42));
        // What another node knows is taken with that node's times, and an exchange is not asked.
        let before = world.rest_requests();
        let planted = entry("CELO", "0.54321");
        world.plant("CELO", &planted.to_string());
        let price = found(service, "CELO", "valkey");
        assert_eq!(price["source"], "valkey");
        for same in ["price", "currency", "spread_bps", "exchange_time_ms", "received_time_ms"] {
            assert_eq!(price[same], planted[same], "{same}");
        }
        assert_eq!(world.rest_requests(), before, "no exchange was asked");
        await_local(service, "CELO");
        // One that no exchange lists, but another node knows.
        world.plant("ELSEWHERE", &entry("ELSEWHERE", "12.5").to_string());
        assert_eq!(found(service, "ELSEWHERE", "valkey")["price"], "12.5");
        // Several at once, some of them cold.
        let many = service.get("/prices?assets=BTC,BAL,RPL,NOBODY&ignore_unknown=1").json();
        println!("   {many}");
        assert_eq!(
            (many["prices"].as_array().map(Vec::len), &many["missing"]),
            (Some(3), &json!(["NOBODY"])),
            "{many}"
        );
    }
}

#[test]
fn an_asset_that_nobody_knows_is_told_so_and_remembered() {
    for engine in ENGINES {
        println!("== {engine}");
        let world = World::start(engine, &[("TB_SHARDS", "1")]);
        let service = &world.service;
        assert_eq!(ask(service, "NOBODY").code(), "asset_unknown");
        let begun = || service.metric("tb_shard_lookups_total").expect("a count");
        let before = eventually("it is counted", || Some(begun()).filter(|begun| *begun > 0));
        // Remembered for five seconds: a busy machine may need more for a few questions.
        let began = Instant::now();
        (0..20).for_each(|_| assert_eq!(ask(service, "NOBODY").code(), "asset_unknown"));
        if began.elapsed() < Duration::from_secs(4) {
            let request = format!(r#"{{"key":"{}","asset":"NOBODY","id":7}}"#, service.stress_key());
            let reply = udp::ask(service.address("lpo_udp"), request.as_bytes());
            let reply: Value = serde_json::from_slice(&reply).expect("JSON");
            assert_eq!(reply, json!({"id": 7, "status": 404, "code": "asset_unknown"}));
            assert_eq!(begun(), before, "a question that was answered is not looked up again");
        }
        let (id, secret) = service.udp_key();
        let request = udp::frame(id, &secret, "NOBODY2", 42, now_ms());
        let reply = udp::ask(service.address("lpo_udp"), bytemuck::bytes_of(&request));
        assert_eq!(udp::reply_frame(&secret, &reply).status, Code::AssetUnknown.number());
    }
}

/// Local prices, asked without a break while something goes on; every one must come.
fn beside_local_reads(service: &Service, work: impl FnOnce()) {
    let (stop, answered, slowest_us) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let request =
                format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\n\r\n", service.stress_key());
            let mut connection = Connection::open(service.address("lpo_tcp"));
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                connection.send(request.as_bytes());
                let reply = connection.read(false).expect("an answer");
                assert_eq!((reply.status, &reply.json()["tier"]), (200, &json!("local")), "{}", reply.text());
                let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                slowest_us.fetch_max(took_us, Ordering::Relaxed);
                answered.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let stopped = Stopped(&stop);
        work();
        drop(stopped);
    });
    let count = answered.load(Ordering::Relaxed);
    println!("   meanwhile {count} local reads, the slowest after {} µs", slowest_us.load(Ordering::Relaxed));
    assert!(count > 0);
}

/// Ends a thread however the test goes.
struct Stopped<'a>(&'a AtomicBool);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_cache_that_is_gone_slow_or_empty_costs_no_price() {
    for engine in ENGINES {
        let world = World::start(engine, &[]);
        let slow = Fault::Delay { there: Duration::from_millis(200), back: Duration::from_millis(200) };
        for (what, fault, assets) in [
            ("hangs", Fault::Hang, ["QNT", "ZIL"]),
            ("refuses", Fault::Refuse, ["YFI", "DASH"]),
            ("is slow", slow, ["CELO", "BAL"]),
        ] {
            println!("== {engine}: the cache {what}");
            world.plant(assets[0], &entry(assets[0], "1.5").to_string());
            world.proxy.set(fault);
            beside_local_reads(&world.service, || {
                assets.iter().for_each(|asset| drop(found(&world.service, asset, "rest")))
            });
            world.proxy.set(Fault::None);
            world.proxy.cut();
            eventually("the cache is back", || (world.service.metric("tb_cache_up")? == 1).then_some(()));
        }
        println!("== {engine}: the cache is emptied");
        world.plant("GMX", &entry("GMX", "1.5").to_string());
        world.redis.flush_all();
        beside_local_reads(&world.service, || drop(found(&world.service, "GMX", "rest")));
    }
}

/// What may stand in the cache and is no price: what is written to it, instead of [`entry`].
fn wrong_entries(asset: &str) -> Vec<String> {
    let with = |name: &str, value: Value| {
        let mut entry = entry(asset, "1.5");
        entry[name] = value;
        entry.to_string()
    };
    let ahead_ms = now_ms() + 60_000;
    vec![
        "67123.45".to_owned(),
        "{\"asset\":".to_owned(),
        "\u{fffd}".repeat(4_096),
        with("asset", json!("BTC")),
        with("price", json!("-1.5")),
        with("price", json!("0")),
        with("price", json!("NaN")),
        with("price", json!(1.5)),
        with("currency", json!("EUR")),
        with("venues", json!([])),
        with("proven_time_ms", json!(ahead_ms)),
        with("received_time_ms", json!(now_ms() - 100_000_000)).replace("\"proven_time_ms\"", "\"proven\""),
        with("simulated", json!(false)),
        // A good one of yesterday.
        entry(asset, "1.5").to_string().replace(&now_ms().to_string()[..6], &(now_ms() - 86_400_000).to_string()[..6]),
    ]
}

#[test]
fn what_is_no_price_in_the_cache_is_served_to_nobody() {
    let assets =
        ["QNT", "ZIL", "YFI", "DASH", "CELO", "BAL", "RPL", "GMX", "KNC", "GUSD", "TBTC", "VTHO", "VVS", "MNT"];
    for engine in ENGINES {
        println!("== {engine}");
        let world = World::start(engine, &[]);
        let kinds = wrong_entries("KIND").len();
        assert_eq!(kinds, assets.len());
        for (kind, asset) in assets.iter().enumerate() {
            world.plant(asset, &wrong_entries(asset)[kind]);
            assert_ne!(found(&world.service, asset, "rest")["price"], "1.5", "kind {kind}");
        }
        assert_eq!(world.redis.ask(&["HSET", "price:OKB", "price", "1.5"]), "1");
        assert_ne!(found(&world.service, "OKB", "rest")["price"], "1.5", "of another type");
        // A price that is nothing like what this node knows itself does not replace it either.
        world.plant("BTC", &entry("BTC", "1.5").to_string());
        assert_ne!(found(&world.service, "BTC", "local")["price"], "1.5");
    }
}

#[test]
fn a_flood_of_made_up_symbols_harms_nobody_else() {
    for engine in ENGINES {
        println!("== {engine}");
        let world = World::start(engine, &[]);
        let service = &world.service;
        let (_, flooding) = service.new_key("stress");
        eventually("the key to be known", || (ask_with(service, &flooding, "BTC").status == 200).then_some(()));
        let stop = AtomicBool::new(false);
        let (unknown, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        let flood = |thread: u64| {
            let mut connection = Connection::open(service.address("lpo_tcp"));
            for number in (0_u64..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let requests: String = (0..16)
                    .map(|at| {
                        let asset = format!("F{thread}X{number}X{at}");
                        format!("GET /price?asset={asset} HTTP/1.1\r\nHost: x\r\nX-API-Key: {flooding}\r\n\r\n")
                    })
                    .collect();
                connection.send(requests.as_bytes());
                for _ in 0..16 {
                    match connection.read(false).expect("an answer").code().as_str() {
                        "asset_unknown" => unknown.fetch_add(1, Ordering::Relaxed),
                        "overloaded" => refused.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other}"),
                    };
                }
            }
        };
        std::thread::scope(|scope| {
            let stopped = Stopped(&stop);
            (0..4).for_each(|thread| drop(scope.spawn(move || flood(thread))));
            eventually("the flood to be refused", || (refused.load(Ordering::Relaxed) > 1_000).then_some(()));
            beside_local_reads(service, || {
                for asset in ["QNT", "ZIL", "YFI", "DASH", "CELO", "BAL"] {
                    found(service, asset, "rest");
                }
            });
            drop(stopped);
        });
        let (unknown, refused) = (unknown.into_inner(), refused.into_inner());
        println!("   the flood: {unknown} times asset_unknown, {refused} times overloaded");
        assert!(refused > unknown, "most of a flood is not looked up");
    }
}

/// Clients of one cold asset at once.
const CLIENTS: usize = 10_000;

/// The path under which an exchange was asked for a price, with how often.
fn price_requests(exchange: SocketAddr) -> Vec<(String, u64)> {
    let paths = asked(exchange)["paths"].as_object().expect("paths").clone();
    paths.into_iter().map(|(path, count)| (path, count.as_u64().expect("a count"))).collect()
}

#[test]
fn ten_thousand_clients_of_one_cold_asset_are_one_question_to_its_exchange() {
    for engine in ENGINES {
        println!("== {engine}");
        let world = World::start(engine, &[("VENUES", "kraken")]);
        let service = &world.service;
        // Who waits counts as active.
        let room =
            service.admin_request("PUT", "/admin/params?reload=1", Some(r#"{"adaptive_max_concurrent":"100000"}"#));
        assert_eq!(room.status, 200, "{}", room.text());
        let exchange = service.exchanges()[0].1;
        let connect = || TcpStream::connect(service.address("lpo_tcp")).expect("a connection");
        let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect()).collect();
        order(exchange, "kind=rest_delay&ms=300");
        forget(exchange);
        let request =
            format!("GET /price?asset=TBTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\n\r\n", service.stress_key());
        let began = Instant::now();
        clients.iter_mut().for_each(|client| std::io::Write::write_all(client, request.as_bytes()).expect("taken"));
        let sent = began.elapsed();
        let mut tiers = std::collections::BTreeMap::<String, usize>::new();
        for client in clients {
            let reply = Connection::of(client).read(false).expect("an answer");
            assert_eq!(reply.status, 200, "{}", reply.text());
            *tiers.entry(reply.json()["tier"].as_str().expect("a tier").to_owned()).or_default() += 1;
        }
        let requests = price_requests(exchange);
        println!(
            "   {CLIENTS} asked within {} ms and had their answer after {} ms: {tiers:?}; the exchange was asked {requests:?}",
            sent.as_millis(),
            began.elapsed().as_millis()
        );
        assert_eq!(requests.iter().map(|(_, count)| count).sum::<u64>(), 1, "{requests:?}");
    }
}
