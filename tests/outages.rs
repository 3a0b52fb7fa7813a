//! The database and the cache absent, dead, hanging, emptied and back, on the real service: prices are asked throughout,
//! over TCP and UDP, on one connection and on many, and every one of them is answered. Administration says that it cannot
//! now, and can again afterwards.

use harness::eventually;
use harness::http::{self, Connection, Reply};
use harness::postgres::Postgres;
use harness::proxy::{Fault, Proxy};
use harness::redis::Redis;
use harness::service::{ENGINES, Service, migrate};
use harness::udp;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Answers that every way of asking must have had within a phase before the phase counts as seen.
const ANSWERS_PER_PHASE: u64 = 50;

/// Pause behind each answer: without it four clients of a scenario would take the machine for themselves, and what else
/// runs on it would look like an outage.
const PACE: Duration = Duration::from_millis(2);

/// One question, and its answer if that is a price.
type Ask = fn(&Target, &mut Asker) -> Result<(), String>;

/// Ways of asking.
const WAYS: [(&str, Ask); 4] = [
    ("TCP, one connection", Asker::on_one_stream),
    ("TCP, one connection each", Asker::on_new_streams),
    ("UDP, one socket", Asker::on_one_socket),
    ("UDP, one socket each", Asker::on_new_sockets),
];

/// What is asked.
struct Target {
    tcp: SocketAddr,
    udp: SocketAddr,
    request: Vec<u8>,
    datagram: Vec<u8>,
}

/// What one way of asking holds on to.
#[derive(Default)]
struct Asker {
    stream: Option<Connection>,
    socket: Option<std::net::UdpSocket>,
}

fn good(reply: Option<Reply>) -> Result<(), String> {
    match reply {
        Some(reply) if reply.status == 200 && !reply.body.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

impl Asker {
    fn on_one_stream(target: &Target, asker: &mut Self) -> Result<(), String> {
        let stream = asker.stream.get_or_insert_with(|| Connection::open(target.tcp));
        stream.send(&target.request);
        good(stream.read(false))
    }

    fn on_new_streams(target: &Target, _: &mut Self) -> Result<(), String> {
        Self::on_one_stream(target, &mut Self::default())
    }

    fn on_one_socket(target: &Target, asker: &mut Self) -> Result<(), String> {
        let socket = asker.socket.get_or_insert_with(|| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket.connect(target.udp).expect("an address");
            socket.set_read_timeout(Some(harness::PATIENCE)).expect("a time-out");
            socket
        });
        socket.send(&target.datagram).map_err(|error| error.to_string())?;
        let mut reply = [0; 2_048];
        let length = socket.recv(&mut reply).map_err(|error| format!("a datagram without an answer: {error}"))?;
        good_datagram(&reply[..length])
    }

    fn on_new_sockets(target: &Target, _: &mut Self) -> Result<(), String> {
        good_datagram(&udp::ask(target.udp, &target.datagram))
    }
}

fn good_datagram(reply: &[u8]) -> Result<(), String> {
    let price: Value = serde_json::from_slice(reply).map_err(|error| error.to_string())?;
    price["price"].as_str().map(|_| ()).ok_or_else(|| price.to_string())
}

/// Clients that ask without a break, each way on a thread of its own, until dropped or ended.
struct Clients {
    stop: Arc<AtomicBool>,
    answered: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Clients {
    fn start(service: &Service) -> Self {
        let key = service.stress_key();
        let pad = "x".repeat(120);
        let target = Arc::new(Target {
            tcp: service.address("lpo_tcp"),
            udp: service.address("lpo_udp"),
            request: format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n").into_bytes(),
            datagram: format!("{{\"key\":\"{key}\",\"asset\":\"BTC\",\"id\":7,\"pad\":\"{pad}\"}}").into_bytes(),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let answered: Vec<_> = WAYS.iter().map(|_| Arc::new(AtomicU64::new(0))).collect();
        let start = |(way, answered): (&(&'static str, Ask), &Arc<AtomicU64>)| {
            let ((name, ask), answered) = (*way, Arc::clone(answered));
            let (stop, target) = (Arc::clone(&stop), Arc::clone(&target));
            std::thread::spawn(move || {
                let mut asker = Asker::default();
                while !stop.load(Ordering::Relaxed) {
                    ask(&target, &mut asker).map_err(|why| format!("{name}: {why}"))?;
                    answered.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PACE);
                }
                Ok(())
            })
        };
        let threads = WAYS.iter().zip(&answered).map(start).collect();
        Self { stop, answered, threads }
    }

    /// Waits until every way has had so many more answers.
    fn go_on(&mut self, when: &str) {
        let before: Vec<u64> = self.answered.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        eventually(&format!("prices are answered each way {when}"), || {
            if let Some(at) = self.threads.iter().position(JoinHandle::is_finished) {
                panic!("{when}: {:?}", self.threads.swap_remove(at).join());
            }
            let enough =
                |(count, before): (&Arc<AtomicU64>, &u64)| count.load(Ordering::Relaxed) >= before + ANSWERS_PER_PHASE;
            self.answered.iter().zip(&before).all(enough).then_some(())
        });
    }

    /// Ends them; every request each of them ever made was answered with a price.
    fn end(mut self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("no panic").expect("every request is answered with a price");
        }
        self.answered.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

impl Drop for Clients {
    /// A test that has failed ends its service: nobody is to wait for its answers.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The service between its database and its cache, with something that goes wrong in front of each.
struct World {
    postgres: Postgres,
    redis: Redis,
    database: Proxy,
    cache: Proxy,
    url: String,
}

impl World {
    fn new() -> Self {
        let (postgres, redis) = (Postgres::start(), Redis::start());
        let (database, cache) = (Proxy::start(postgres.address()), Proxy::start(redis.address()));
        let url = postgres.url_at(database.address());
        Self { postgres, redis, database, cache, url }
    }

    /// The node that whatever goes wrong is in front of.
    fn serve(&self, engine: &str) -> Service {
        serve(engine, "n1", &self.url, &format!("redis://{}", self.cache.address()))
    }

    /// Brings the schema, with nothing in between.
    fn migrate(&self) {
        migrate(&self.direct_url());
    }

    fn direct_url(&self) -> String {
        self.postgres.url_at(self.postgres.address())
    }
}

fn serve(engine: &str, node: &str, url: &str, cache_url: &str) -> Service {
    let variables = [("DATABASE_URL", url), ("CACHE_URL", cache_url), ("TB_SHARDS", "2"), ("CLUSTER_NODE", node)];
    let service = Service::demo_with(engine, &variables);
    service.await_price("BTC", 2);
    service
}

/// Nothing is wrong any more. What a hanging server has swallowed is lost, so the connections of then are cut.
fn mend(proxy: &Proxy) {
    proxy.set(Fault::None);
    proxy.cut();
}

/// What `/metrics` says of the sample that begins so.
fn metric(service: &Service, begins: &str) -> Option<String> {
    let text = http::get(service.address("health_lpo"), "/metrics", &[]).text();
    let line = text.lines().find(|line| line.starts_with(begins))?;
    line.rsplit(' ').next().map(str::to_owned)
}

fn await_metric(service: &Service, begins: &str, value: &str) {
    eventually(&format!("{begins} is {value}"), || (metric(service, begins).as_deref() == Some(value)).then_some(()));
}

fn is_ready(service: &Service) {
    let reply = http::get(service.address("health_lpo"), "/readyz", &[]);
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Administration that needs the database answers that it cannot now, whatever is asked at the same time.
fn administration_is_told(service: &Service, when: &str) {
    let asked = [
        ("POST", "/admin/keys", Some(r#"{"name":"test","tier":"basic"}"#)),
        ("POST", "/admin/reload-params", None),
        ("PUT", "/admin/params", Some(r#"{"cache_ttl_seconds":"10"}"#)),
        ("GET", "/admin/audit", None),
    ];
    std::thread::scope(|threads| {
        for (method, path, body) in asked {
            threads.spawn(move || {
                let reply = service.admin_request(method, path, body);
                assert_eq!(
                    (reply.status, reply.code().as_str()),
                    (503, "store_unavailable"),
                    "{when}: {method} {path}"
                );
            });
        }
    });
}

/// A key that is made now works at once.
fn a_new_key_works(service: &Service) {
    let (_, key) = eventually("the database is in use", || {
        let reply = service.admin_request("POST", "/admin/keys", Some(r#"{"name":"test","tier":"basic"}"#));
        (reply.status == 201).then(|| (reply.json()["key_id"].clone(), reply.json()["key"].clone()))
    });
    let key = format!("Bearer {}", key.as_str().expect("a text"));
    eventually("the new key works", || {
        let reply = http::get(service.address("lpo_tcp"), "/price?asset=BTC", &[("Authorization", &key)]);
        (reply.status == 200).then_some(())
    });
}

fn told_once(service: &Service, what: &str, most: usize) {
    let log = service.log();
    let lines = log.lines().filter(|line| line.contains(what)).count();
    assert!((1..=most).contains(&lines), "{lines} lines of {what:?} in\n{log}");
}

#[test]
fn the_database_hangs_dies_and_returns() {
    for engine in ENGINES {
        let mut world = World::new();
        world.migrate();
        let service = world.serve(engine);
        a_new_key_works(&service);
        let mut clients = Clients::start(&service);
        clients.go_on("to begin with");
        for fault in [Fault::Hang, Fault::Refuse] {
            world.database.set(fault);
            await_metric(&service, "tb_store_up", "0");
            administration_is_told(&service, "the database is away");
            clients.go_on("while the database is away");
            is_ready(&service);
            mend(&world.database);
            a_new_key_works(&service);
            await_metric(&service, "tb_store_up", "1");
            clients.go_on("after it");
        }
        world.postgres.crash();
        await_metric(&service, "tb_store_up", "0");
        administration_is_told(&service, "the database has crashed");
        clients.go_on("while nobody listens");
        is_ready(&service);
        world.postgres.restart();
        a_new_key_works(&service);
        await_metric(&service, "tb_store_up", "1");
        clients.go_on("at the end");
        eprintln!("{engine}: {:?} answers, all of them prices", clients.end());
    }
}

#[test]
fn a_database_that_is_not_there_or_empty_at_the_start_is_used_once_it_is_ready() {
    for engine in ENGINES {
        let world = World::new();
        world.database.set(Fault::Refuse);
        let service = world.serve(engine);
        let mut clients = Clients::start(&service);
        clients.go_on("without a database");
        is_ready(&service);
        administration_is_told(&service, "there is no database yet");
        world.database.set(Fault::None);
        clients.go_on("with an empty database");
        administration_is_told(&service, "there is no schema yet");
        is_ready(&service);
        world.migrate();
        a_new_key_works(&service);
        clients.go_on("at the end");
        clients.end();
    }
}

#[test]
fn the_cache_hangs_dies_is_emptied_and_returns() {
    for engine in ENGINES {
        let mut world = World::new();
        world.migrate();
        let service = world.serve(engine);
        let mut clients = Clients::start(&service);
        clients.go_on("to begin with");
        await_metric(&service, "tb_cache_up", "1");
        for fault in [Fault::Hang, Fault::Refuse] {
            world.cache.set(fault);
            await_metric(&service, "tb_cache_up", "0");
            let reply = service.admin("/admin/cache/price:BTC");
            assert_eq!((reply.status, reply.code().as_str()), (503, "cache_unavailable"));
            // The database is well, so administration is.
            a_new_key_works(&service);
            clients.go_on("while the cache is away");
            is_ready(&service);
            mend(&world.cache);
            await_metric(&service, "tb_cache_up", "1");
            clients.go_on("after it");
        }
        for _ in 0..3 {
            world.redis.flush_all();
            clients.go_on("after the cache was emptied");
        }
        eventually("the node is known in the cache again", || {
            (service.admin("/admin/cluster").text().contains("n1")).then_some(())
        });
        world.redis.kill();
        await_metric(&service, "tb_cache_up", "0");
        clients.go_on("while nobody listens");
        a_new_key_works(&service);
        is_ready(&service);
        world.redis.restart();
        await_metric(&service, "tb_cache_up", "1");
        a_new_key_works(&service);
        clients.go_on("at the end");
        clients.end();
    }
}

/// What eight connections in a row are answered, whichever shards they meet.
fn statuses(service: &Service, key: &str) -> [u16; 8] {
    [(); 8].map(|()| http::get(service.address("lpo_tcp"), "/price?asset=BTC", &[("X-API-Key", key)]).status)
}

fn await_statuses(service: &Service, key: &str, expected: u16, what: &str) {
    eventually(what, || (statuses(service, key) == [expected; 8]).then_some(()));
}

#[test]
fn a_key_revoked_on_another_node_while_the_database_is_away_is_refused_after_it() {
    let world = World::new();
    world.migrate();
    let cut_off = world.serve(ENGINES[0]);
    // With a cache of its own: that a change comes by the database alone is what is seen here, not the seconds that nodes
    // of one cache share.
    let other = serve(ENGINES[1], "n2", &world.direct_url(), "");
    let mut clients = Clients::start(&cut_off);
    for fault in [Fault::Hang, Fault::Refuse] {
        let (revoked_id, revoked) = other.new_key("enterprise");
        let (_, kept) = other.new_key("enterprise");
        for key in [&revoked, &kept] {
            await_statuses(&cut_off, key, 200, "a key of the other node works");
        }
        world.database.set(fault);
        await_metric(&cut_off, "tb_store_up", "0");
        let reply = other.admin_request("POST", &format!("/admin/keys/{revoked_id}/revoke"), None);
        assert_eq!(reply.status, 200, "{}", reply.text());
        await_statuses(&other, &revoked, 401, "it is refused where it was revoked");
        assert_eq!(statuses(&cut_off, &kept), [200; 8], "known keys work without a database");
        clients.go_on("while the database is away from one node");
        mend(&world.database);
        await_statuses(&cut_off, &revoked, 401, "it is refused on the node that was cut off");
        assert_eq!(statuses(&cut_off, &kept), [200; 8]);
    }
    clients.end();
}

#[test]
fn both_away_at_once_cost_no_price_and_few_lines_of_log() {
    let engine = ENGINES[1];
    let world = World::new();
    world.migrate();
    let service = world.serve(engine);
    a_new_key_works(&service);
    let mut clients = Clients::start(&service);
    world.database.set(Fault::Hang);
    world.cache.set(Fault::Hang);
    await_metric(&service, "tb_store_up", "0");
    await_metric(&service, "tb_cache_up", "0");
    for _ in 0..10 {
        clients.go_on("while both are away");
    }
    is_ready(&service);
    [&world.database, &world.cache].into_iter().for_each(mend);
    a_new_key_works(&service);
    await_metric(&service, "tb_store_up", "1");
    await_metric(&service, "tb_cache_up", "1");
    clients.go_on("at the end");
    clients.end();
    told_once(&service, "WARN", 12);
}
