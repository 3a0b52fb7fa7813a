//! The database away from a service that answers thousands of different keys and assets a second: refused, then hanging.
//! Meanwhile every request is answered with a price and memory stays as it is; afterwards every answer is in the
//! database exactly once, in the rows and in the sums.
//!
//! `TB_OUTAGE_SECONDS` makes each absence longer than the few seconds that every run has time for.

use harness::eventually;
use harness::history::database::Database;
use harness::http::{self, Connection};
use harness::proxy::{Fault, Proxy};
use harness::service::{ENGINES, Service};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Keys that ask.
const KEYS: usize = 30;

/// What each asks for, in one train of requests on its connection.
const ASSETS: [&str; 10] = ["BTC", "ETH", "SOL", "XRP", "ADA", "DOGE", "LINK", "DOT", "AVAX", "LTC"];

/// Threads that ask.
const THREADS: usize = 2;

/// Time between two trains of a key: each asset of each key then is a record of its own, 6,000 in a second.
const PACE: Duration = Duration::from_millis(50);

/// How much memory may grow by, KiB: 64 MiB. An absence of minutes would be gigabytes, kept in memory.
const GROWTH_MAX_KIB: u64 = 64 * 1024;

/// How long each absence is, unless `TB_OUTAGE_SECONDS` says otherwise.
const OUTAGE: Duration = Duration::from_secs(10);

fn outage() -> Duration {
    let seconds = std::env::var("TB_OUTAGE_SECONDS").ok();
    seconds.map_or(OUTAGE, |seconds| Duration::from_secs(seconds.parse().expect("a number of seconds")))
}

/// A key, and how often it was answered with a price.
struct Asker {
    id: u64,
    train: Vec<u8>,
    answered: Arc<AtomicU64>,
}

impl Asker {
    fn new(service: &Service) -> Self {
        let (id, key) = service.new_key("stress");
        let request =
            |asset: &&str| format!("GET /price?asset={asset} HTTP/1.1\r\nHost: t\r\nX-API-Key: {key}\r\n\r\n");
        let train = ASSETS.iter().map(request).collect::<String>().into_bytes();
        Self { id, train, answered: Arc::default() }
    }
}

/// Everybody who asks, until told to end; each thread ends with the first answer that is no price.
struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    askers: Vec<Arc<Asker>>,
}

impl Crowd {
    fn start(service: &Service) -> Self {
        let askers: Vec<Arc<Asker>> = (0..KEYS).map(|_| Arc::new(Asker::new(service))).collect();
        let (stop, address) = (Arc::new(AtomicBool::new(false)), service.address("lpo_tcp"));
        for asker in &askers {
            // A new key is known to every shard within a second.
            eventually("a key to be known", || is_known(address, &asker.train, &asker.answered).then_some(()));
        }
        let spawn = |askers: &[Arc<Asker>]| {
            let (askers, stop) = (askers.to_vec(), Arc::clone(&stop));
            std::thread::spawn(move || ask(address, &askers, &stop))
        };
        let threads = askers.chunks(KEYS.div_ceil(THREADS)).map(spawn).collect();
        Self { stop, threads, askers }
    }

    fn goes_on(&self) {
        if let Some(thread) = self.threads.iter().find(|thread| thread.is_finished()) {
            panic!("{:?} ended: a request was not answered with a price", thread.thread().id());
        }
    }

    /// Ends it; how often each key was answered.
    fn end(mut self) -> Vec<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("every request is answered with a price");
        }
        self.askers.iter().map(|asker| (asker.id, asker.answered.load(Ordering::Relaxed))).collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Whether a train on a new connection is answered with prices alone. What was refused for want of the key was nobody's.
fn is_known(address: SocketAddr, train: &[u8], answered: &AtomicU64) -> bool {
    let mut connection = Connection::open(address);
    connection.send(train);
    let good = ASSETS.iter().filter(|_| connection.read(false).is_some_and(|reply| reply.status == 200)).count();
    answered.fetch_add(good as u64, Ordering::Relaxed);
    good == ASSETS.len()
}

fn ask(address: SocketAddr, askers: &[Arc<Asker>], stop: &AtomicBool) {
    let mut connections: Vec<Connection> = askers.iter().map(|_| Connection::open(address)).collect();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        for (asker, connection) in askers.iter().zip(&mut connections) {
            connection.send(&asker.train);
        }
        for (asker, connection) in askers.iter().zip(&mut connections) {
            for asset in ASSETS {
                let reply = connection.read(false).expect("an answer");
                assert_eq!(reply.status, 200, "{asset}: {}", reply.text());
                asker.answered.fetch_add(1, Ordering::Relaxed);
            }
        }
        std::thread::sleep(PACE.saturating_sub(began.elapsed()));
    }
}

/// Memory of the process, KiB.
fn memory_kib(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

fn metric(service: &Service, name: &str) -> u64 {
    let text = http::get(service.address("health_lpo"), "/metrics", &[]).text();
    let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name)).expect("a sample");
    line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number") as u64
}

/// Goes on for so long; the most memory meanwhile, KiB.
fn go_on(service: &Service, crowd: &Crowd, during: Duration) -> u64 {
    let began = Instant::now();
    let mut most = 0;
    while began.elapsed() < during {
        std::thread::sleep(Duration::from_millis(200).min(during));
        crowd.goes_on();
        most = most.max(memory_kib(service));
    }
    most
}

/// Waits until nothing is left to deliver, however long that takes while it goes on.
fn drain(database: &Database, total: u64, ids: &str) {
    let sum = format!("SELECT coalesce(sum(requests), 0) FROM usage_logs WHERE key_id IN ({ids})");
    loop {
        let before = database.number(&sum);
        if before >= total {
            return;
        }
        eventually("more rows to come", || (database.number(&sum) > before).then_some(()));
    }
}

#[test]
fn nothing_is_lost_or_counted_twice_while_the_database_is_away() {
    for engine in ENGINES {
        let database = Database::new_postgres();
        let Database::Postgres(server, direct_url) = &database else { unreachable!("it is one") };
        let proxy = Proxy::start(server.address());
        let url = direct_url.replace(&server.address().to_string(), &proxy.address().to_string());
        let service = Service::demo_with(engine, &[("DATABASE_URL", &url), ("TB_SHARDS", "2"), ("CLUSTER_NODE", "n1")]);
        ASSETS.iter().for_each(|asset| drop(service.await_price(asset, 1)));
        let crowd = Crowd::start(&service);
        let began = Instant::now();
        // Until it has all the memory that it has in quiet times.
        let before = go_on(&service, &crowd, Duration::from_secs(3));
        let mut most = before;
        let mut waiting = 0;
        for fault in [Fault::Refuse, Fault::Hang] {
            proxy.set(fault);
            most = most.max(go_on(&service, &crowd, outage()));
            waiting = waiting.max(metric(&service, "tb_usage_spool_records"));
            proxy.set(Fault::None);
            proxy.cut();
            most = most.max(go_on(&service, &crowd, Duration::from_secs(2)));
        }
        let elapsed = began.elapsed();
        let answered = crowd.end();
        let total: u64 = answered.iter().map(|(_, count)| count).sum();
        let ids = answered.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>().join(",");
        drain(&database, total, &ids);
        most = most.max(memory_kib(&service));
        let sums =
            format!("SELECT key_id, sum(requests) FROM usage_hours WHERE key_id IN ({ids}) GROUP BY 1 ORDER BY 1");
        let mut wanted: Vec<String> = answered.iter().map(|(id, count)| format!("{id}|{count}")).collect();
        wanted.sort_by_key(|line| line.split('|').next().and_then(|id| id.parse::<u64>().ok()));
        assert_eq!(database.sql(&sums).lines().collect::<Vec<_>>(), wanted, "{engine}");
        database.judge_rollups();
        let records = database.count();
        let grown = most.saturating_sub(before);
        eprintln!(
            "{engine}: {total} answers in {records} records ({} in a second), {waiting} of them waited, memory from \
             {before} KiB by {grown} KiB",
            records * 1_000 / u64::try_from(elapsed.as_millis()).expect("a time")
        );
        assert!(waiting > 0, "nothing waited: the database was not away");
        assert!(grown <= GROWTH_MAX_KIB, "{engine}: memory grew by {grown} KiB, from {before} KiB");
    }
}
