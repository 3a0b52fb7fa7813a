//! What is admitted of a limit, counted by a client over the real service: the table of accuracy.
//!
//! Run it with `cargo test --test limits -- --nocapture` to see the table. Nothing here judges speed. What a client can
//! know of the service's windows is this: on one node they begin with the key's first request, hence between its sending
//! and its answer; on several they are the cache's, which tells. A request belongs to a window for certain if it was both
//! sent and answered within it. So what was admitted is held, from below, to what was certainly offered in each window;
//! and, from above, both to what certainly was admitted in each and, over the whole run, to all windows that it touched.
#![expect(clippy::print_stdout, reason = "the table is what this test shows")]

use dataplane_core::access::hash_text;
use harness::eventually;
use harness::proxy::{Fault, Proxy};
use harness::redis::Redis;
use harness::service::{ENGINES, Service};
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Connections for each key to each node: enough for each of 8 shards to have some, wherever they are spread.
const CONNECTIONS: usize = 16;

/// Requests of one connection that may be unanswered: what a server takes that long for was not offered.
const UNANSWERED_MAX: usize = 64;

/// Length of a window, ms.
const WINDOW_MS: f64 = 1_000.0;

/// The load ends so long before a window does: so late answers fall into no further window.
const CUT: Duration = Duration::from_millis(100);

/// An answer that took longer waited for a CPU, ms.
const QUICK_MS: f64 = 20.0;

/// By how much nodes may be off the cache's windows, and this test off the cache's clock, ms.
const OFF_MS: f64 = 30.0;

/// One answered request: when it was sent and answered, ms since the run began, and whether it was admitted.
#[derive(Clone, Copy, Debug)]
struct Asked {
    sent_ms: f64,
    answered_ms: f64,
    is_admitted: bool,
}

/// One connection that is kept filled.
struct Client {
    stream: TcpStream,
    unsent: Vec<u8>,
    /// When each unanswered request was sent.
    waiting: VecDeque<f64>,
    /// The end of what was read last, in which a status line may have begun.
    tail: Vec<u8>,
}

impl Client {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_nonblocking(true).expect("non-blocking");
        Self { stream, unsent: Vec::new(), waiting: VecDeque::new(), tail: Vec::new() }
    }

    fn ask(&mut self, request: &[u8], now_ms: f64) {
        if self.waiting.len() < UNANSWERED_MAX {
            self.waiting.push_back(now_ms);
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
    fn read(&mut self, mut answer: impl FnMut(f64, bool)) {
        const MARK: &[u8] = b"HTTP/1.1 ";
        let mut chunk = [0; 64 * 1_024];
        while !self.waiting.is_empty() {
            match self.stream.read(&mut chunk) {
                Ok(0) => panic!("the service closed a connection"),
                Ok(length) => {
                    self.tail.extend_from_slice(&chunk[..length]);
                    let whole = self.tail.len().saturating_sub(MARK.len() + 2);
                    for at in memmem(&self.tail[..whole + MARK.len() - 1], MARK) {
                        let sent_ms = self.waiting.pop_front().expect("an answer to a request");
                        match &self.tail[at + MARK.len()..at + MARK.len() + 3] {
                            b"200" => answer(sent_ms, true),
                            b"429" => answer(sent_ms, false),
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

/// Where `mark` begins in `text`.
fn memmem<'a>(text: &'a [u8], mark: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = mark[0];
    let found = text.iter().enumerate().filter(move |(_, byte)| **byte == first).map(|(at, _)| at);
    found.filter(move |at| text[*at..].starts_with(mark))
}

/// A load of one key on one node.
#[derive(Clone, Copy)]
struct Load<'a> {
    address: SocketAddr,
    key: &'a str,
    per_second: u64,
}

/// Milliseconds since the run began.
fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1_000.0
}

/// Offers a load for so many windows.
fn offer(load: Load<'_>, began: Instant, windows: u32) -> Vec<Asked> {
    let request = format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\n\r\n", load.key);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::open(load.address)).collect();
    let pace = Duration::from_micros(if load.per_second > 10_000 { 500 } else { 2_000 });
    let length = Duration::from_secs(windows.into()) - CUT;
    let (mut asked, mut answers) = (0_usize, Vec::new());
    std::thread::sleep(began.saturating_duration_since(Instant::now()));
    loop {
        let passed = began.elapsed();
        let due = u128::from(load.per_second) * passed.min(length).as_micros() / 1_000_000;
        // The first comes at once: it begins the window.
        while (asked as u128) < due.max(1) && passed < length {
            asked += 1;
            clients[asked % CONNECTIONS].ask(request.as_bytes(), ms(began));
        }
        for client in &mut clients {
            client.write();
            client.read(|sent_ms, is_admitted| {
                answers.push(Asked { sent_ms, answered_ms: ms(began), is_admitted });
            });
        }
        if passed >= length && clients.iter().all(|client| client.waiting.is_empty()) {
            return answers;
        }
        assert!(passed < length + harness::PATIENCE, "requests that nobody answers");
        std::thread::sleep(pace);
    }
}

/// Offers loads at once; what was asked of each of them.
fn offer_all(loads: &[Load<'_>], began: Instant, windows: u32) -> Vec<Vec<Asked>> {
    std::thread::scope(|scope| {
        let with_load = loads.iter().copied().filter(|load| load.per_second > 0);
        let threads: Vec<_> = with_load.map(|load| scope.spawn(move || offer(load, began, windows))).collect();
        threads.into_iter().map(|thread| thread.join().expect("answers")).collect()
    })
}

/// The text of the key with this number.
fn key_text(id: usize) -> String {
    format!("tb_live_{id:032}")
}

fn key_hash(id: usize) -> String {
    hash_text(key_text(id).as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Number of the first key.
const FIRST_ID: usize = 900;

/// Writes a settings file with a key for each of these limits.
fn settings(directory: &Path, limits: &[u64]) -> String {
    let key =
        |(id, limit): (usize, &u64)| format!("[[keys]]\nid = {id}\nsha256 = \"{}\"\nlimit = {limit}\n", key_hash(id));
    let text: String = (FIRST_ID..).zip(limits).map(key).collect();
    let path = directory.join("settings.toml");
    std::fs::write(&path, text).expect("written");
    path.to_str().expect("a plain path").to_owned()
}

fn node(engine: &str, limits: &[u64], shards: &str, further: &[(&str, &str)]) -> Service {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = settings(directory.path(), limits);
    let variables = [("TB_CONFIG", settings.as_str()), ("TB_SHARDS", shards)];
    let variables: Vec<_> = variables.into_iter().chain(further.iter().copied()).collect();
    let service = Service::demo_with(engine, &variables);
    service.await_price("BTC", 1);
    service
}

/// What the service's own key is told by `/limits`.
fn told(service: &Service) -> Value {
    service.get("/limits").json()
}

/// One row of the table.
struct Row {
    name: String,
    limit: u64,
    offered: u64,
    /// What nodes may admit in each window without a grant, all together.
    advances: u64,
    windows: u32,
}

impl Row {
    /// Whether everything of a window was answered at once. Where it was not, processes waited for their CPU, and grants
    /// came as late as answers: what several nodes then admit says nothing of their arithmetic.
    fn is_quick(&self, asked: &[Asked], began_ms: (f64, f64), window: u32) -> bool {
        let (from, to) =
            (began_ms.0 + f64::from(window - 1) * WINDOW_MS, began_ms.1 + f64::from(window + 1) * WINDOW_MS);
        let inside = asked.iter().filter(|answer| answer.answered_ms >= from && answer.sent_ms < to);
        let slowest = inside.map(|answer| answer.answered_ms - answer.sent_ms).fold(0.0, f64::max);
        slowest <= QUICK_MS && self.limit > 100
    }

    /// Holds what was asked to the bound, given the two times between which the first window began, ms; from below only
    /// where it may not lack anything.
    #[track_caller]
    fn judge(&self, asked: &[Asked], began_ms: (f64, f64), may_lack: bool) {
        let Self { name, limit, offered, advances, windows } = self;
        let most = limit + advances;
        let within = |window: u32, answer: &Asked| {
            let from = began_ms.1 + f64::from(window) * WINDOW_MS;
            from <= answer.sent_ms && answer.answered_ms < began_ms.0 + f64::from(window + 1) * WINDOW_MS
        };
        let of = |window| asked.iter().filter(move |answer| within(window, answer));
        let answered: Vec<u64> = (0..*windows).map(|window| of(window).count() as u64).collect();
        let admitted: Vec<u64> =
            (0..*windows).map(|window| of(window).filter(|answer| answer.is_admitted).count() as u64).collect();
        let all = asked.iter().filter(|answer| answer.is_admitted).count() as u64;
        let last_ms = asked.iter().map(|answer| answer.answered_ms).fold(0.0, f64::max);
        let touched = ((last_ms - began_ms.0) / WINDOW_MS).floor() as u64 + 1;
        println!("| {name} | {limit} | {offered} | {answered:?} | {admitted:?} | {all} | {} |", touched * most);
        assert!(admitted.iter().all(|admitted| *admitted <= most), "{name}: at most {most}: {admitted:?}");
        assert!(all <= touched * most, "{name}: {all} in {touched} windows of at most {most}");
        // In the first window nodes learn of the key. In step with the windows one request at each edge may find itself
        // in the window before or after.
        let quick = (1..*windows).filter(|window| *advances == 0 || self.is_quick(asked, began_ms, *window));
        let (mut got, mut due) = (0, 0);
        for window in quick {
            let (from, to) =
                (f64::from(window) * WINDOW_MS + began_ms.0, f64::from(window + 1) * WINDOW_MS + began_ms.1);
            let inside = |answer: &&Asked| answer.is_admitted && from <= answer.answered_ms && answer.sent_ms < to;
            got += asked.iter().filter(inside).count() as u64;
            due += answered[window as usize].min(*limit);
        }
        let edges = u64::from(*windows) * u64::from(offered <= limit || *advances > 0);
        let is_enough = may_lack || (got + edges) * 100 >= due * 99;
        assert!(is_enough, "{name}: {got} admitted of {due}: {admitted:?} of {answered:?}");
        assert!(all > 0, "{name}: nothing was admitted");
    }
}

/// Limits and what is offered of them, as parts of two. One key each.
const SMALL: [(u64, u64); 4] = [(3, 3), (3, 2), (1_000, 3), (1_000, 2)];
const LARGE: [(u64, u64); 1] = [(100_000, 3)];

/// A key, its limit, and its load in each of these nodes, in parts of twelve.
struct Plan<'a> {
    id: usize,
    limit: u64,
    halves: u64,
    nodes: &'a [Service],
    shares: &'a [u64],
    windows: u32,
}

impl Plan<'_> {
    fn loads<'a>(&'a self, text: &'a str) -> Vec<Load<'a>> {
        let all = (self.limit * self.halves).div_ceil(2);
        let load = |(node, share): (&Service, &u64)| Load {
            address: node.address("lpo_tcp"),
            key: text,
            per_second: (all * share).div_ceil(12),
        };
        self.nodes.iter().zip(self.shares).map(load).collect()
    }

    /// Plays it, and judges by what `began` says of the first window, given what was asked and when the run began.
    fn play(&self, name: &str, began_ms: impl Fn(&[Asked], Instant) -> (f64, f64)) {
        let text = key_text(self.id);
        let loads = self.loads(&text);
        let began = Instant::now() + Duration::from_millis(200);
        let asked: Vec<Asked> = offer_all(&loads, began, self.windows).into_iter().flatten().collect();
        let advances = if loads.len() > 1 { loads.len() as u64 * (self.limit / 128).max(1) } else { 0 };
        let offered = loads.iter().map(|load| load.per_second).sum();
        let row = Row { name: name.to_owned(), limit: self.limit, offered, advances, windows: self.windows };
        row.judge(&asked, began_ms(&asked, began), false);
    }

    /// Plays it, and holds each node by itself to its part of the limit.
    fn play_each(&self, name: &str, may_lack: bool) {
        let text = key_text(self.id);
        let (loads, began) = (self.loads(&text), Instant::now() + Duration::from_millis(200));
        let of_nodes = offer_all(&loads, began, self.windows);
        for (load, (at, asked)) in loads.iter().zip((1..).zip(of_nodes)) {
            let name = format!("{at} {name}");
            let limit = self.limit / loads.len() as u64;
            let row = Row { name, limit, offered: load.per_second, advances: 0, windows: self.windows };
            row.judge(&asked, by_the_first_request(&asked, began), may_lack);
        }
    }
}

/// On one node the first request begins the window, to a whole millisecond.
fn by_the_first_request(asked: &[Asked], _: Instant) -> (f64, f64) {
    let first = |ms: fn(&Asked) -> f64| asked.iter().map(ms).fold(f64::INFINITY, f64::min);
    (first(|answer| answer.sent_ms) - 1.0, first(|answer| answer.answered_ms) + 1.0)
}

fn one_node(engine: &str, shards: &str) {
    let limits: Vec<u64> = SMALL.iter().chain(&LARGE).map(|(limit, _)| *limit).collect();
    let nodes = [node(engine, &limits, shards, &[])];
    let name = format!("{engine}, shards: {shards}");
    let play = |at: usize, (limit, halves), windows| {
        let plan = Plan { id: FIRST_ID + at, limit, halves, nodes: &nodes, shares: &[12], windows };
        plan.play(&name, by_the_first_request);
    };
    std::thread::scope(|scope| {
        for (at, load) in SMALL.into_iter().enumerate() {
            scope.spawn(move || play(at, load, 5));
        }
    });
    play(SMALL.len(), LARGE[0], 3);
}

#[test]
fn one_node_holds_every_limit() {
    for engine in ENGINES {
        for shards in ["1", "8"] {
            one_node(engine, shards);
        }
    }
}

fn three_nodes(limits: &[u64], cache: &str) -> Vec<Service> {
    let names = ["one", "two", "three"];
    let start = |name| node("epoll", limits, "2", &[("CACHE_URL", cache), ("CLUSTER_NODE", name)]);
    let nodes: Vec<Service> = names.into_iter().map(start).collect();
    nodes.iter().for_each(|service| await_sharing(service, "shared"));
    nodes
}

fn await_sharing(service: &Service, sharing: &str) {
    eventually(&format!("limits that are {sharing}"), || {
        let told = told(service);
        (told["sharing"] == sharing && told["nodes"] == 3).then_some(())
    });
}

/// The name under which nodes share a key's second.
fn shared_name(id: usize) -> String {
    format!("ratelimit:{}", key_hash(id))
}

/// The cache tells when its last window began; those before it began in steps of a second.
fn by_the_cache(redis: &Redis, id: usize, asked: &[Asked], began: Instant) -> (f64, f64) {
    let text = redis.ask(&["GET", &shared_name(id)]);
    let start_ms: f64 =
        text.split(' ').next().and_then(|word| word.parse().ok()).expect("a window that is still there");
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64() * 1_000.0;
    let last_ms = ms(began) - (now_ms - start_ms);
    let first_ms = asked.iter().map(|answer| answer.sent_ms).fold(f64::INFINITY, f64::min);
    // The first window began when the cache was asked first, which is after the first request.
    let steps = ((last_ms - first_ms + OFF_MS) / WINDOW_MS).floor();
    let began_ms = last_ms - steps * WINDOW_MS;
    (began_ms - OFF_MS, began_ms + OFF_MS)
}

const EVEN: [u64; 3] = [4, 4, 4];
const UNEVEN: [u64; 3] = [8, 3, 1];

#[test]
fn three_nodes_hold_one_limit_together() {
    let redis = Redis::start();
    let plans: Vec<((u64, u64), [u64; 3])> =
        [SMALL[0], SMALL[2], LARGE[0]].into_iter().flat_map(|load| [(load, EVEN), (load, UNEVEN)]).collect();
    let limits: Vec<u64> = plans.iter().map(|((limit, _), _)| *limit).collect();
    let nodes = three_nodes(&limits, &redis.url());
    let play = |id: usize, ((limit, halves), shares): ((u64, u64), [u64; 3]), windows| {
        let plan = Plan { id, limit, halves, nodes: &nodes, shares: &shares, windows };
        plan.play(&format!("three nodes {shares:?}"), |asked, began| by_the_cache(&redis, id, asked, began));
    };
    let (small, large): (Vec<_>, Vec<_>) =
        (FIRST_ID..).zip(plans).partition(|(_, ((limit, _), _))| *limit < LARGE[0].0);
    std::thread::scope(|scope| {
        for (id, plan) in small {
            scope.spawn(move || play(id, plan, 5));
        }
    });
    large.into_iter().for_each(|(id, plan)| play(id, plan, 3));
}

#[test]
fn without_the_cache_each_node_admits_its_part_until_it_is_back() {
    let limit = 300;
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address());
    // A key for each time: its windows begin with its first request.
    let nodes = three_nodes(&[limit; 4], &redis.url_at(proxy.address()));
    let play = |id, name: &str| {
        let plan = Plan { id, limit, halves: 3, nodes: &nodes, shares: &EVEN, windows: 4 };
        plan.play(name, |asked, began| by_the_cache(&redis, id, asked, began));
    };
    let play_parts = |id, name: &str, may_lack| {
        let plan = Plan { id, limit, halves: 3, nodes: &nodes, shares: &EVEN, windows: 4 };
        plan.play_each(name, may_lack);
    };
    play(FIRST_ID, "three nodes, the cache is there");
    proxy.set(Fault::Refuse);
    // A key must be asked for before anybody can notice; until then there are only advances, as nobody has grants.
    play_parts(FIRST_ID + 1, "of three nodes, the cache has gone", true);
    nodes.iter().for_each(|node| await_sharing(node, "part"));
    play_parts(FIRST_ID + 2, "of three nodes, its part", false);
    proxy.set(Fault::None);
    nodes.iter().for_each(|node| await_sharing(node, "shared"));
    play(FIRST_ID + 3, "three nodes, the cache is back");
}
