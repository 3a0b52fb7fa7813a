//! What is admitted of a limit, counted by a client over the real service: the table of accuracy.
//!
//! Run it with `cargo test --release --test limits -- --nocapture --test-threads=1` to see the table. Nothing here judges
//! speed: where the machine cannot offer a limit, what was answered is what must have been admitted.

use dataplane_core::access::hash_text;
use harness::http;
use harness::proxy::{Fault, Proxy};
use harness::redis::Redis;
use harness::service::{ENGINES, Service};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

const KEY: &str = "tb_live_0123456789abcdefghijklmnopqrstuv";

/// Connections to each node: enough for each of 8 shards to have some, wherever they are spread.
const CONNECTIONS: usize = 32;

/// Requests of one connection that may be unanswered: what a server takes that long for was not offered.
const UNANSWERED_MAX: u64 = 64;

/// How a load is paced.
const PACE: Duration = Duration::from_micros(500);

/// Part of a window that is cut off at its end and belongs to the next count: with half as much again as the limit,
/// nothing is admitted there any more, so it does not matter when exactly an answer arrives.
const CUT_MS: u64 = 100;

/// Answers of one window.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    answered: u64,
    admitted: u64,
}

/// One connection that is kept filled.
struct Client {
    stream: TcpStream,
    unsent: Vec<u8>,
    asked: u64,
    answered: u64,
    /// The end of what was read last, in which a status line may have begun.
    tail: Vec<u8>,
}

impl Client {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_nonblocking(true).expect("non-blocking");
        Self { stream, unsent: Vec::new(), asked: 0, answered: 0, tail: Vec::new() }
    }

    fn ask(&mut self, request: &[u8]) {
        if self.asked - self.answered < UNANSWERED_MAX {
            self.asked += 1;
            self.unsent.extend_from_slice(request);
        }
    }

    fn write(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the service takes requests: {error}"),
            }
        }
    }

    /// Reads what is there, and says for each answer whether it was admitted.
    fn read(&mut self, mut answer: impl FnMut(bool)) {
        const MARK: &[u8] = b"HTTP/1.1 ";
        let mut chunk = [0; 64 * 1_024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => panic!("the service closed a connection"),
                Ok(length) => {
                    self.tail.extend_from_slice(&chunk[..length]);
                    let whole = self.tail.len().saturating_sub(MARK.len() + 2);
                    let starts = (0..whole).filter(|at| self.tail[*at..].starts_with(MARK));
                    for at in starts {
                        self.answered += 1;
                        match &self.tail[at + MARK.len()..at + MARK.len() + 3] {
                            b"200" => answer(true),
                            b"429" => answer(false),
                            status => panic!("answered {}", String::from_utf8_lossy(status)),
                        }
                    }
                    self.tail.drain(..whole);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the service answers: {error}"),
            }
        }
    }
}

/// Offers so many requests a second to one node for so many windows, and counts the answers of each.
fn offer(address: SocketAddr, per_second: u64, began: Instant, windows: usize) -> Vec<Count> {
    let request = format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n");
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::open(address)).collect();
    let mut counts = vec![Count::default(); windows + 1];
    let mut asked = 0;
    loop {
        let passed = began.elapsed();
        let due = u64::try_from(u128::from(per_second) * passed.as_micros() / 1_000_000).expect("small");
        let is_over = passed >= Duration::from_secs(windows as u64) - Duration::from_millis(CUT_MS);
        while asked < due && !is_over {
            asked += 1;
            clients[asked as usize % CONNECTIONS].ask(request.as_bytes());
        }
        for client in &mut clients {
            client.write();
            let window = (began.elapsed().as_millis() as u64 + CUT_MS) / 1_000;
            let count = &mut counts[(window as usize).min(windows)];
            client.read(|is_admitted| {
                count.answered += 1;
                count.admitted += u64::from(is_admitted);
            });
        }
        let is_answered = clients.iter().all(|client| client.asked == client.answered);
        if is_over && (is_answered || passed > Duration::from_secs(windows as u64) + harness::PATIENCE) {
            return counts;
        }
        std::thread::sleep(PACE);
    }
}

/// Offers to several nodes at once; their counts together.
fn offer_all(loads: &[(SocketAddr, u64)], windows: usize) -> Vec<Count> {
    let began = Instant::now() + Duration::from_millis(200);
    let of_nodes: Vec<Vec<Count>> = std::thread::scope(|scope| {
        let offer = |(address, per_second): &(SocketAddr, u64)| {
            let (address, per_second) = (*address, *per_second);
            scope.spawn(move || {
                std::thread::sleep(began.saturating_duration_since(Instant::now()));
                offer(address, per_second, began, windows)
            })
        };
        let threads: Vec<_> = loads.iter().filter(|(_, load)| *load > 0).map(offer).collect();
        threads.into_iter().map(|thread| thread.join().expect("counts")).collect()
    });
    let add = |window: usize| {
        of_nodes.iter().fold(Count::default(), |sum, counts| Count {
            answered: sum.answered + counts[window].answered,
            admitted: sum.admitted + counts[window].admitted,
        })
    };
    (0..windows).map(add).collect()
}

/// Writes a settings file with the one key of this limit.
fn settings(directory: &Path, limit: u64) -> String {
    let hash: String = hash_text(KEY.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let path = directory.join("settings.toml");
    std::fs::write(&path, format!("[[keys]]\nid = 900\nsha256 = \"{hash}\"\nlimit = {limit}\n")).expect("written");
    path.to_str().expect("a plain path").to_owned()
}

fn node(engine: &str, limit: u64, shards: &str, further: &[(&str, &str)]) -> Service {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = settings(directory.path(), limit);
    let variables: Vec<_> = [("TB_CONFIG", settings.as_str()), ("TB_SHARDS", shards)];
    let variables: Vec<_> = variables.into_iter().chain(further.iter().copied()).collect();
    let service = Service::demo_with(engine, &variables);
    service.await_price("BTC", 1);
    service
}

/// What the key's `/limits` says, on this node.
fn told(service: &Service) -> Value {
    http::get(service.address("lpo_tcp"), "/limits", &[("X-API-Key", KEY)]).json()
}

/// Holds what was counted to the bound: at most `limit` and `advances`, and 0.99 of what could be admitted.
#[track_caller]
fn judge(name: &str, limit: u64, offered: u64, advances: u64, counts: &[Count]) {
    let admitted: Vec<u64> = counts.iter().map(|count| count.admitted).collect();
    let answered: Vec<u64> = counts.iter().map(|count| count.answered).collect();
    println!("| {name} | {limit} | {offered} | {answered:?} | {admitted:?} | {} |", limit + advances);
    // The first window is the one in which nodes learn of the key; of the last one the end is missing.
    for count in &counts[1..counts.len() - 1] {
        if offered > limit {
            assert!(count.admitted <= limit + advances, "{name}: {admitted:?}");
            assert!(count.admitted * 100 >= limit.min(count.answered) * 99, "{name}: {admitted:?} of {answered:?}");
        } else {
            // In step with the windows: one request at each edge may find itself in the next or the one before.
            assert!((count.admitted + 1) * 100 >= count.answered * 99, "{name}: {admitted:?} of {answered:?}");
        }
    }
}

/// Limits and what is offered of them, as parts of two.
const LOADS: [(u64, u64); 6] = [(3, 3), (3, 2), (1_000, 3), (1_000, 2), (100_000, 3), (100_000, 2)];

const WINDOWS: usize = 5;

fn one_node(engine: &str, shards: &str) {
    for (limit, halves) in LOADS {
        let service = node(engine, limit, shards, &[]);
        let offered = (limit * halves).div_ceil(2);
        let counts = offer_all(&[(service.address("lpo_tcp"), offered)], WINDOWS);
        judge(&format!("{engine}, {shards} shards"), limit, offered, 0, &counts);
    }
}

#[test]
fn one_node_with_one_shard_holds_every_limit() {
    ENGINES.into_iter().for_each(|engine| one_node(engine, "1"));
}

#[test]
fn one_node_with_eight_shards_holds_every_limit() {
    ENGINES.into_iter().for_each(|engine| one_node(engine, "8"));
}

fn three_nodes(limit: u64, cache: &str) -> Vec<Service> {
    let names = ["one", "two", "three"];
    let start = |name| node("epoll", limit, "2", &[("CACHE_URL", cache), ("CLUSTER_NODE", name)]);
    let nodes: Vec<Service> = names.into_iter().map(start).collect();
    for service in &nodes {
        await_sharing(service, "shared");
    }
    nodes
}

fn await_sharing(service: &Service, sharing: &str) {
    harness::eventually(&format!("limits that are {sharing}"), || {
        let told = told(service);
        (told["sharing"] == sharing && told["nodes"] == 3).then_some(())
    });
}

#[test]
fn three_nodes_hold_one_limit_together() {
    let redis = Redis::start();
    for (limit, halves) in LOADS {
        redis.flush_all();
        let nodes = three_nodes(limit, &redis.url());
        let offered = (limit * halves).div_ceil(2);
        for shares in [[4, 4, 4], [8, 3, 1]] {
            let load = |(node, share): (&Service, u64)| (node.address("lpo_tcp"), offered * share / 12);
            let loads: Vec<_> = nodes.iter().zip(shares).map(load).collect();
            let counts = offer_all(&loads, WINDOWS);
            let offered = loads.iter().map(|(_, load)| load).sum();
            judge(&format!("three nodes {shares:?}"), limit, offered, 3 * (limit / 128).max(1), &counts);
        }
    }
}

#[test]
fn without_the_cache_each_node_admits_its_part_until_it_is_back() {
    let limit = 300;
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address());
    let nodes = three_nodes(limit, &redis.url_at(proxy.address()));
    let loads: Vec<_> = nodes.iter().map(|node| (node.address("lpo_tcp"), 150)).collect();
    proxy.set(Fault::Refuse);
    proxy.cut();
    // A key must be asked for before anybody can notice.
    let counts = offer_all(&loads, 6);
    nodes.iter().for_each(|node| await_sharing(node, "part"));
    println!("| the cache goes away | {limit} | 450 | {counts:?} |");
    for count in &counts[..counts.len() - 1] {
        assert!(count.answered > 0 && count.admitted <= 2 * limit, "{counts:?}");
    }
    let counts = offer_all(&loads, WINDOWS);
    judge("three nodes, each its part", limit, 450, 0, &counts);
    proxy.set(Fault::None);
    nodes.iter().for_each(|node| await_sharing(node, "shared"));
    let counts = offer_all(&loads, WINDOWS);
    judge("three nodes, the cache is back", limit, 450, 3 * (limit / 128), &counts);
    redis.flush_all();
    let counts = offer_all(&loads, WINDOWS);
    judge("three nodes, after FLUSHALL", limit, 450, 3 * (limit / 128), &counts);
}
