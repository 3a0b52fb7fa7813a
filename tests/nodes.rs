//! Three nodes on one database, one cache and one set of exchanges, asked over TCP and UDP the whole time: one is killed
//! and started again, and whoever asks a node that is up notices nothing.
//!
//! `cargo test -p trinity-tests --test nodes -- --nocapture` prints second by second what the clients saw.
#![expect(clippy::print_stdout, reason = "the story is what this test shows")]

use harness::eventually;
use harness::exchanges::Exchanges;
use harness::http;
use harness::postgres::Postgres;
use harness::redis::Redis;
use harness::service::{Service, migrate};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// What every node keeps warm; all else that the exchanges list is cold.
const WARM: &str = "BTC,ETH,SOL,USDT";

/// The limit of the key that is asked with beyond it, on all nodes together.
const LIMIT: u64 = 300;

/// Pause behind each answer of a client.
const PACE: Duration = Duration::from_millis(5);

/// Longest that a client waits for an answer: on a busy machine too nobody should.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Answers that each client must have had for a phase to count as seen.
const ANSWERS_PER_PHASE: u64 = 100;

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    tcp: SocketAddr,
    udp: SocketAddr,
}

/// What clients of one node know of it, and what they saw.
#[derive(Default)]
struct Seen {
    /// `None`: it is down, and nobody asks.
    addresses: Mutex<Option<Addresses>>,
    tcp: AtomicU64,
    udp: AtomicU64,
    admitted: AtomicU64,
    refused: AtomicU64,
    failed: Mutex<Vec<String>>,
}

impl Seen {
    fn addresses(&self) -> Option<Addresses> {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, service: Option<&Service>) {
        let of = |service: &Service| Addresses { tcp: service.address("lpo_tcp"), udp: service.address("lpo_udp") };
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = service.map(of);
    }

    fn fail(&self, why: String) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(why);
    }

    fn failures(&self) -> Vec<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn counts(&self) -> [u64; 4] {
        [&self.tcp, &self.udp, &self.admitted, &self.refused].map(|count| count.load(Ordering::Relaxed))
    }
}

/// A way of asking: with a key, on a connection that is kept.
enum Way {
    Tcp { request: String, stream: Option<BufReader<TcpStream>>, is_limited: bool },
    Udp { request: String, socket: Option<UdpSocket> },
}

impl Way {
    fn tcp(key: &str, is_limited: bool) -> Self {
        let request = format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n");
        Self::Tcp { request, stream: None, is_limited }
    }

    fn udp(key: &str) -> Self {
        let pad = "x".repeat(150);
        let request = format!(r#"{{"key":"{key}","asset":"BTC","id":7,"pad":"{pad}"}}"#);
        Self::Udp { request, socket: None }
    }

    /// Asks once; what came is counted, unless it is nothing that should come.
    fn ask(&mut self, at: Addresses, seen: &Seen) -> io::Result<()> {
        let count = match self {
            Self::Tcp { request, stream, is_limited } => {
                let stream = match stream {
                    Some(stream) => stream,
                    None => stream.insert(BufReader::new(connect(at.tcp)?)),
                };
                stream.get_mut().write_all(request.as_bytes())?;
                match (read_status(stream)?, *is_limited) {
                    (200, false) => &seen.tcp,
                    (200, true) => &seen.admitted,
                    (429, true) => &seen.refused,
                    (status, _) => return Err(io::Error::other(format!("answered {status}"))),
                }
            }
            Self::Udp { request, socket } => {
                let socket = match socket {
                    Some(socket) => socket,
                    None => socket.insert(UdpSocket::bind("127.0.0.1:0")?),
                };
                socket.set_read_timeout(Some(ANSWER_MAX))?;
                socket.connect(at.udp)?;
                socket.send(request.as_bytes())?;
                let mut reply = [0; 2_048];
                let length = socket.recv(&mut reply)?;
                let price: Value = serde_json::from_slice(&reply[..length])?;
                if price["price"].as_str().is_none() {
                    return Err(io::Error::other(price.to_string()));
                }
                &seen.udp
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn hang_up(&mut self) {
        match self {
            Self::Tcp { stream, .. } => *stream = None,
            Self::Udp { socket, .. } => *socket = None,
        }
    }

    /// Asks a node for as long as it is up, until told to stop.
    fn keep_asking(mut self, seen: &Seen, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let Some(at) = seen.addresses() else {
                self.hang_up();
                std::thread::sleep(PACE);
                continue;
            };
            if let Err(why) = self.ask(at, seen) {
                self.hang_up();
                // A node that was taken down meanwhile owes no answer.
                if seen.addresses() == Some(at) {
                    seen.fail(why.to_string());
                }
            }
            std::thread::sleep(PACE);
        }
    }
}

fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, ANSWER_MAX)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    Ok(stream)
}

/// Reads one whole answer; its status.
fn read_status(stream: &mut BufReader<TcpStream>) -> io::Result<u16> {
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        } else if let Some(rest) = line.strip_prefix("content-length: ") {
            length = rest.parse().unwrap_or(0);
        } else if line.is_empty() {
            break;
        }
    }
    stream.take(length).read_to_end(&mut Vec::new())?;
    Ok(status)
}

/// Says each second what the clients saw in it.
fn tell(seen: &[Seen; 3], began: Instant, stop: &AtomicBool) {
    let mut before = [[0; 4]; 3];
    for second in 1.. {
        let until = began + Duration::from_secs(second);
        while Instant::now() < until {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(PACE);
        }
        let mut line = format!("{second:>3} s");
        let mut limited = [0, 0];
        for ((name, seen), before) in NAMES.iter().zip(seen).zip(&mut before) {
            let now = seen.counts();
            let [tcp, udp, admitted, refused] = std::array::from_fn(|at| now[at] - before[at]);
            *before = now;
            limited = [limited[0] + admitted, limited[1] + refused];
            let state = if seen.addresses().is_some() { "up" } else { "down" };
            line += &format!(" | {name} {state:<4} tcp {tcp:>3} udp {udp:>3} failed {}", seen.failures().len());
        }
        println!("{line} | limited key: admitted {:>3} refused {:>3}", limited[0], limited[1]);
    }
}

/// The nodes with what they share.
struct World {
    nodes: [Option<Service>; 3],
    variables: Vec<(String, String)>,
    data: [tempfile::TempDir; 3],
    _exchanges: Exchanges,
    redis: Redis,
    _postgres: Postgres,
}

impl World {
    fn start() -> Self {
        let (postgres, redis) = (Postgres::start(), Redis::start());
        let url = postgres.url_at(postgres.address());
        migrate(&url);
        let exchanges = Exchanges::start(&["coinbase", "kraken", "okx"]);
        let mut variables = exchanges.variables(WARM);
        for (name, value) in [("DATABASE_URL", url), ("CACHE_URL", redis.url()), ("TB_SHARDS", "2".to_owned())] {
            variables.push((name.to_owned(), value));
        }
        let data = std::array::from_fn(|_| tempfile::tempdir().expect("a directory"));
        let nodes = [None, None, None];
        let mut world = Self { nodes, variables, data, _exchanges: exchanges, redis, _postgres: postgres };
        (0..3).for_each(|node| world.start_node(node));
        world
    }

    /// Starts a node, on what its directory holds of an earlier life.
    fn start_node(&mut self, node: usize) {
        let data = self.data[node].path().display().to_string();
        let own = [("CLUSTER_NODE", NAMES[node]), ("TB_DATA_DIR", data.as_str())];
        let variables = self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let variables: Vec<(&str, &str)> = variables.chain(own).collect();
        self.nodes[node] = Some(Service::serve(["io_uring", "epoll", "auto"][node], &variables));
    }

    fn node(&self, node: usize) -> &Service {
        self.nodes[node].as_ref().expect("it is up")
    }
}

/// The status that a node gives to a price asked with this key.
fn status(service: &Service, key: &str, asset: &str) -> u16 {
    let path = format!("/price?asset={asset}");
    http::get(service.address("lpo_tcp"), &path, &[("X-API-Key", key)]).status
}

/// The price of BTC.
fn price(service: &Service, key: &str, asked: &str) -> Value {
    let path = format!("/price?asset=BTC{asked}");
    let reply = http::get(service.address("lpo_tcp"), &path, &[("X-API-Key", key)]);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn await_status(service: &Service, key: &str, expected: u16, what: &str) {
    eventually(what, || (status(service, key, "BTC") == expected).then_some(()));
}

/// The nodes alive that this one knows, and those whose counters it sees.
fn cluster(service: &Service) -> (Vec<String>, Vec<String>) {
    let told = service.admin("/admin/cluster").json();
    let alive = told["alive"].as_array().expect("names").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let nodes = told["nodes"].as_object().expect("nodes");
    let seen = nodes.iter().filter(|(_, counters)| counters["pid"].as_u64().is_some());
    (alive, seen.map(|(name, _)| name.clone()).collect())
}

fn await_nodes(service: &Service, names: &[&str]) {
    eventually(&format!("{names:?} to be there"), || {
        let (alive, seen) = cluster(service);
        (alive == names && seen == names).then_some(())
    });
}

/// The text in force of `cache_ttl_seconds`.
fn lifetime_in_force(service: &Service) -> Option<String> {
    let params = service.admin("/admin/params").json();
    let all = params["parameters"].as_array()?;
    let one = all.iter().find(|parameter| parameter["name"] == "cache_ttl_seconds")?;
    one["value"].as_str().map(str::to_owned)
}

/// The price of an asset that nobody keeps warm, found by one node and then served by another out of the cache.
fn a_cold_asset_is_handed_on(redis: &Redis, from: &Service, to: &Service, asset: &str) {
    let path = format!("/price?asset={asset}");
    let found = from.get(&path);
    assert_eq!(found.status, 200, "{}", found.text());
    let found = found.json();
    assert_eq!(found["tier"], "rest", "{found}");
    eventually("what it found to be there for the others", || {
        redis.ask(&["GET", &format!("price:{asset}")]).contains(asset).then_some(())
    });
    let taken = to.get(&path);
    assert_eq!(taken.status, 200, "{}", taken.text());
    let taken = taken.json();
    println!("   {asset}: first node {found}\n   then another {taken}");
    assert_eq!((&taken["tier"], &taken["source"]), (&Value::from("valkey"), &Value::from("valkey")), "{taken}");
    for own in ["price", "currency", "exchange_time_ms", "received_time_ms"] {
        assert_eq!(taken[own], found[own], "{own} is what the first node found");
    }
    assert_eq!(taken["stale"], false);
}

/// Waits until every client of a node that is up has had so many more answers.
fn go_on(seen: &[Seen; 3], what: &str) {
    println!("== {what}");
    let before: Vec<[u64; 4]> = seen.iter().map(Seen::counts).collect();
    eventually(&format!("answers while {what}"), || {
        let enough = |(seen, before): (&Seen, &[u64; 4])| {
            let [tcp, udp, ..] = seen.counts();
            let least = |now: u64, before: u64| now >= before + ANSWERS_PER_PHASE;
            seen.addresses().is_none() || (least(tcp, before[0]) && least(udp, before[1]))
        };
        seen.iter().zip(&before).all(enough).then_some(())
    });
}

/// What happens to the nodes while clients ask them.
fn play(world: &mut World, seen: &[Seen; 3], clients: &str, doomed: &Value) {
    let (key, id) = (doomed["key"].as_str().expect("a text"), &doomed["key_id"]);
    go_on(seen, "all three nodes are up");
    println!("== n2 is killed");
    seen[1].set(None);
    world.nodes[1].take().expect("it is up").kill();
    go_on(seen, "n2 is gone");
    println!("== a key is revoked on n1");
    assert_eq!(world.node(0).admin_request("POST", &format!("/admin/keys/{id}/revoke"), None).status, 200);
    assert_eq!(status(world.node(0), key, "BTC"), 401, "at once where it was revoked");
    await_status(world.node(2), key, 401, "n3 to refuse the revoked key");
    println!("== a parameter is changed on n3");
    let changed = world.node(2).admin_request("PUT", "/admin/params?reload=1", Some(r#"{"cache_ttl_seconds":"20"}"#));
    assert_eq!(changed.status, 200, "{}", changed.text());
    eventually("n1 to follow", || (lifetime_in_force(world.node(0))? == "20").then_some(()));
    await_nodes(world.node(0), &["n1", "n3"]);
    go_on(seen, "n1 and n3 know that they are two");
    println!("== n2 starts again");
    world.start_node(1);
    let again = world.node(1);
    // It says that it is ready, so a balancer sends it whoever has a key of the database: no settings file has these.
    let limits = http::get(again.address("lpo_tcp"), "/limits", &[("X-API-Key", clients)]);
    assert_eq!(limits.status, 200, "{}", limits.text());
    assert_ne!(status(again, clients, "BTC"), 401, "shards know it too");
    assert_eq!(status(again, key, "BTC"), 401, "revoked while it was gone");
    await_status(again, clients, 200, "n2 to have a price");
    seen[1].set(Some(again));
    go_on(seen, "n2 is back");
    // It began to count later: nothing that the others have is above what it told.
    let of_n2 = price(again, clients, "");
    let asked = format!("&newer_than={}&wait_ms=30000", of_n2["sequence"]);
    let of_n1 = price(world.node(0), clients, &asked);
    println!("   a client of n2 (sequence {}) goes on at n1: {}", of_n2["sequence"], of_n1["sequence"]);
    assert!(of_n1["sequence"].as_u64() < of_n2["sequence"].as_u64(), "{of_n1} after {of_n2}");
    eventually("n2 to follow the change it missed", || (lifetime_in_force(again)? == "20").then_some(()));
    (0..3).for_each(|node| await_nodes(world.node(node), &NAMES));
    println!("== each node sees all three and their counters");
    println!(
        "   n2 said: {}",
        again.log().lines().find(|line| line.contains("other nodes' prices")).unwrap_or("nothing")
    );
}

/// What the limited key was admitted, all nodes together, is held to its limit: in each second of the cache no more than
/// that and what each node may admit before it is granted anything.
fn check_limit(world: &World, seen: &[Seen; 3], began: Instant) {
    let sum = |at: usize| seen.iter().map(|seen| seen.counts()[at]).sum::<u64>();
    let (admitted, refused, seconds) = (sum(2), sum(3), began.elapsed().as_secs());
    // A node that for a moment took the cache for gone admitted its part of the limit for a second or two.
    let away = |service: &Service| service.metric("tb_limits_away_total").expect("a count");
    let times_away: u64 = (0..3).map(|node| away(world.node(node))).sum();
    let most = (seconds + 2) * (LIMIT + 3 * (LIMIT / 128).max(1)) + times_away * 2 * LIMIT / 3;
    println!("limited key: {admitted} admitted and {refused} refused in {seconds} s; at most {most} may be admitted");
    assert!(admitted <= most, "{admitted} of {most}");
    let due = (seconds * LIMIT).min(admitted + refused);
    assert!(admitted * 2 >= due, "{admitted} of {due} that were due");
}

#[test]
fn a_node_may_die_and_come_back() {
    let mut world = World::start();
    let key = world.node(0).make_key(r#"{"name":"clients","tier":"stress"}"#);
    let limited = world.node(1).make_key(&format!(r#"{{"name":"limited","tier":"pro","limit_per_second":{LIMIT}}}"#));
    let doomed = world.node(2).make_key(r#"{"name":"doomed","tier":"pro"}"#);
    let text = |key: &Value| key["key"].as_str().expect("a text").to_owned();
    for node in &mut world.nodes {
        let service = node.as_mut().expect("up");
        service.use_key(&key);
        for key in [&key, &limited, &doomed] {
            await_status(service, &text(key), 200, "each node to know a key that another made");
        }
        service.await_price("BTC", 3);
    }
    await_nodes(world.node(0), &NAMES);
    let (seen, stop, began) = (<[Seen; 3]>::default(), AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        for (node, seen) in seen.iter().enumerate() {
            seen.set(Some(world.node(node)));
            for way in [Way::tcp(&text(&key), false), Way::udp(&text(&key)), Way::tcp(&text(&limited), true)] {
                let stop = &stop;
                scope.spawn(move || way.keep_asking(seen, stop));
            }
        }
        scope.spawn(|| tell(&seen, began, &stop));
        let stopped = Stopped(&stop);
        play(&mut world, &seen, &text(&key), &doomed);
        drop(stopped);
    });
    for (name, seen) in NAMES.iter().zip(&seen) {
        let [tcp, udp, ..] = seen.counts();
        println!("{name}: {tcp} answers over TCP, {udp} over UDP, failed while it was up: {:?}", seen.failures());
    }
    assert!(seen.iter().all(|seen| seen.failures().is_empty()), "every node that was up answered everything");
    check_limit(&world, &seen, began);
    for node in &mut world.nodes {
        node.as_mut().expect("up").use_key(&key);
    }
    println!("== a cold asset");
    a_cold_asset_is_handed_on(&world.redis, world.node(0), world.node(1), "QNT");
    a_cold_asset_is_handed_on(&world.redis, world.node(1), world.node(2), "DASH");
}

/// Ends the clients however the test goes.
struct Stopped<'a>(&'a AtomicBool);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
