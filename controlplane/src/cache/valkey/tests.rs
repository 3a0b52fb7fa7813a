//! The server's script against the table, and the connection's faults, on a real server behind a proxy.

use super::super::tests::{on, until, until_it_answers};
use super::super::window::cases::CASES;
use super::link::CALLS_MAX;
use super::script::Script;
use super::*;
use crate::cache::names::RATE_LIMIT;
use crate::keys::Secret;
use fred::types::Builder;
use harness::proxy::{Fault, Proxy};
use harness::redis::{Options, Redis};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;
use tokio::time::timeout;

const NO_TLS: fn() -> Result<ClientConfig, String> = || Err("no TLS is wanted".to_owned());

/// Short, so that the tests are.
const TIMEOUTS: CacheTimeouts = CacheTimeouts { dial_ms: 300, read_ms: 300, write_ms: 300 };

/// Longest that a call may take here, its time-out and a busy machine together.
const CALL_MAX: Duration = Duration::from_secs(10);

const WISH: LeaseWish = LeaseWish { limit: 100, want: 10, demand: 10, next: false, debt: 0 };

fn key() -> CacheKey {
    CacheKey::new(RATE_LIMIT, "0a").expect("a name")
}

async fn lease(cache: &Valkey) -> Cached<Lease> {
    timeout(CALL_MAX, cache.lease(&key(), WISH)).await.expect("a call ends within its time-out")
}

/// Every call fails as unreachable, in time, until the cache is known to be away; then at once.
async fn goes_away(cache: &Valkey) {
    until("the cache to be away", async || {
        // The last answers may be on their way yet.
        let answer = lease(cache).await;
        assert!(!matches!(answer, Err(CacheError::Refused(_))), "a server that is away refuses nothing: {answer:?}");
        cache.health().away_since_ms.is_some()
    })
    .await;
    assert!(matches!(lease(cache).await, Err(CacheError::Unreachable(_))));
}

async fn comes_back(cache: &Valkey) {
    until("a lease", async || lease(cache).await.is_ok()).await;
    assert_eq!(cache.health().away_since_ms, None);
}

#[tokio::test]
async fn the_script_computes_as_the_window_does() {
    const TIMED: &str = concat!("local now = tonumber(ARGV[7])\n", include_str!("lease.lua"));
    let server = Redis::start();
    let script = Script::new(TIMED);
    let config = address::read(&server.url(), NO_TLS).expect("an address");
    let client = Builder::from_config(config).build().expect("a client");
    client.init().await.expect("a connection");
    for (index, case) in CASES.iter().enumerate() {
        match case.kept {
            Some(kept) => server.ask(&["SET", "ratelimit:case", kept]),
            None => server.ask(&["DEL", "ratelimit:case"]),
        };
        let LeaseWish { limit, want, demand, next, debt } = case.wish;
        let numbers = [limit, want, demand, u32::from(next), debt, 2_000].map(u64::from);
        let words: Vec<Word> = numbers.into_iter().chain([case.now_ms]).map(number).collect();
        let run = script.run::<Vec<u32>>(&client, "ratelimit:case", words).await;
        let Lease { granted, window_age_ms, left, demand } = case.lease;
        let expected = Ok(vec![granted, window_age_ms, left, demand]);
        assert_eq!(run.map_err(fault::Fault::into_error), expected, "case {index}");
        assert_eq!(server.ask(&["GET", "ratelimit:case"]), case.kept_then, "case {index}");
        assert!(server.ask(&["PTTL", "ratelimit:case"]).parse::<u32>().is_ok_and(|ms| ms <= 2_000), "case {index}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_fails_costs_each_call_its_time_out_at_most_and_heals() {
    let server = Redis::start();
    let proxy = Proxy::start(server.address());
    let cache = Valkey::open(&server.url_at(proxy.address()), TIMEOUTS, NO_TLS).expect("a cache");
    let there_and_back = |ms| Fault::Delay { there: Duration::from_millis(ms), back: Duration::ZERO };
    for fault in [Fault::Hang, Fault::Refuse, there_and_back(2_000)] {
        comes_back(&cache).await;
        proxy.set(fault);
        goes_away(&cache).await;
        let before = proxy.accepted();
        if fault != Fault::Refuse {
            until("another connection", async || proxy.accepted() > before).await;
        }
        proxy.set(Fault::None);
    }
    comes_back(&cache).await;
    // One cut is one call lost at most, and another connection.
    let connections = cache.health().connections;
    proxy.cut();
    until("another connection", async || cache.health().connections > connections).await;
    comes_back(&cache).await;
    // A slow path within the time-outs is no fault.
    proxy.set(there_and_back(50));
    let connections = cache.health().connections;
    for _ in 0..5 {
        assert!(lease(&cache).await.is_ok());
    }
    assert!(cache.health().round_trip_us >= 50_000 && cache.health().connections == connections);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_ends_or_forgets_is_taken_up_again() {
    let mut server = Redis::start();
    let cache = Valkey::open(&server.url(), TIMEOUTS, NO_TLS).expect("a cache");
    comes_back(&cache).await;
    server.freeze();
    goes_away(&cache).await;
    server.thaw();
    comes_back(&cache).await;
    server.kill();
    goes_away(&cache).await;
    server.restart();
    comes_back(&cache).await;
    // Values and scripts forgotten: not one call fails.
    let failed = cache.health().unreachable;
    server.flush_all();
    assert!(lease(&cache).await.is_ok());
    assert_eq!(server.ask(&["SCRIPT", "FLUSH"]), "OK");
    assert_eq!(lease(&cache).await.map(|lease| lease.granted), Ok(10));
    assert_eq!(cache.put(&CacheKey::parse("price:BTC").expect("a name"), &Value::Text("1".to_owned())).await, Ok(()));
    assert_eq!(cache.health().unreachable, failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_at_the_start_is_found_later() {
    let mut server = Redis::start();
    server.kill();
    let cache = Valkey::open(&server.url(), TIMEOUTS, NO_TLS).expect("a cache");
    assert!(matches!(lease(&cache).await, Err(CacheError::Unreachable(_))));
    assert!(cache.health().away_since_ms.is_some());
    server.restart();
    comes_back(&cache).await;
    cache.close().await;
    assert!(matches!(lease(&cache).await, Err(CacheError::Unreachable(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_not_worked_with_until_it_is_none() {
    let (primary, server) = (Redis::start(), Redis::start());
    let cache = Valkey::open(&server.url(), TIMEOUTS, NO_TLS).expect("a cache");
    comes_back(&cache).await;
    let port = primary.address().port().to_string();
    assert_eq!(server.ask(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    goes_away(&cache).await;
    until("the reason to be told", async || match lease(&cache).await {
        Err(CacheError::Unreachable(why)) => why.contains("replica"),
        _ => false,
    })
    .await;
    assert_eq!(server.ask(&["REPLICAOF", "NO", "ONE"]), "OK");
    comes_back(&cache).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_of_a_cluster_that_stops_hangs_nobody() {
    let members = Redis::cluster(&Options::default());
    let cache = Valkey::open(&members[0].url(), TIMEOUTS, NO_TLS).expect("a cache");
    comes_back(&cache).await;
    let keys: Vec<CacheKey> =
        (0..16).map(|index| CacheKey::new(RATE_LIMIT, &index.to_string()).expect("a name")).collect();
    members[2].freeze();
    let calls = keys.iter().map(|key| timeout(CALL_MAX, cache.lease(key, WISH)));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok), "each call ends");
    assert!(answers.iter().flatten().any(Result::is_err), "some were for the member that has stopped");
    members[2].thaw();
    until("every key to be leased", async || {
        let mut all = true;
        for key in &keys {
            all &= cache.lease(key, WISH).await.is_ok();
        }
        all
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_end_are_bounded_and_all_end() {
    let server = Redis::start();
    // Long enough that all calls have begun before the first is given up.
    let patient = CacheTimeouts { dial_ms: 300, read_ms: 3_000, write_ms: 3_000 };
    let cache = Valkey::open(&server.url(), patient, NO_TLS).expect("a cache");
    comes_back(&cache).await;
    let before = cache.health();
    server.freeze();
    let wish = key();
    let calls = (0..3 * CALLS_MAX).map(|_| cache.lease(&wish, WISH));
    let answers = timeout(CALL_MAX * 2, futures_util::future::join_all(calls)).await.expect("all end");
    server.thaw();
    assert!(answers.iter().all(|answer| matches!(answer, Err(CacheError::Unreachable(_)))));
    let full = |answer: &&Cached<Lease>| answer.as_ref().is_err_and(|error| error.to_string().contains("under way"));
    assert!(answers.iter().filter(full).count() >= CALLS_MAX, "beyond the bound calls fail at once");
    let after = cache.health();
    assert_eq!(after.unreachable - before.unreachable, 3 * CALLS_MAX as u64);
    comes_back(&cache).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_or_an_unknown_certificate_is_told_without_a_secret() {
    let options = Options { tls: true, password: Some("a-planted-password".to_owned()), ..Options::default() };
    let server = Redis::start_with(options);
    let wrong = server.url().replace("planted", "wrong");
    let stranger = || crate::feeds::connect::Trust::nobody().map(|trust| trust.config());
    let caches = [
        (on(&wrong, &server), "WRONGPASS"),
        (Valkey::open(&server.url(), TIMEOUTS, stranger).expect("a cache"), "Certificate"),
    ];
    for (cache, expected) in caches {
        until(expected, async || match lease(&cache).await {
            Err(CacheError::Unreachable(why)) => {
                assert!(!why.contains("a-planted") && !why.contains("a-wrong"), "{why}");
                why.contains(expected)
            }
            other => panic!("{other:?}"),
        })
        .await;
    }
    until_it_answers(&on(&server.url(), &server)).await;
}

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Takes what this thread logs from now on.
    fn taken(&self) -> tracing::subscriber::DefaultGuard {
        // Where there is one subscriber, whoever comes to a line first says for the whole process whether it is wanted:
        // a test beside this one, which has none, would say no for good. Where there are two, both are asked.
        static ANOTHER: LazyLock<tracing::Dispatch> =
            LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish()));
        LazyLock::force(&ANOTHER);
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("the lines").clone()).expect("text")
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the lines").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn going_away_and_coming_back_are_told_once_each() {
    let lines = Lines::default();
    let _guard = lines.taken();
    let server = Redis::start_with(Options { password: Some("a-planted-password".to_owned()), ..Options::default() });
    let proxy = Proxy::start(server.address());
    let cache = Valkey::open(&server.url_at(proxy.address()), TIMEOUTS, NO_TLS).expect("a cache");
    comes_back(&cache).await;
    proxy.set(Fault::Hang);
    goes_away(&cache).await;
    let before = proxy.accepted();
    until("three more tries", async || proxy.accepted() >= before + 3).await;
    proxy.set(Fault::None);
    comes_back(&cache).await;
    let log = lines.text();
    for told in ["the cache answers", "the cache is away", "the cache is back"] {
        assert_eq!(log.matches(told).count(), 1, "{told} in:\n{log}");
    }
    assert!(!log.contains("planted"), "{log}");
}

#[tokio::test]
async fn a_server_that_can_be_connected_to_and_not_written_to_is_told_of_once() {
    let lines = Lines::default();
    let _guard = lines.taken();
    let server = Redis::start();
    let cache = Valkey::open(&server.url(), TIMEOUTS, NO_TLS).expect("a cache");
    comes_back(&cache).await;
    assert_eq!(server.ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]), "OK");
    let sessions = || cache.health().connections;
    let before = sessions();
    let key = CacheKey::new(RATE_LIMIT, &"0".repeat(64)).expect("a name");
    let wish = LeaseWish { limit: 1, want: 0, demand: 0, next: false, debt: 0 };
    until("three more sessions", async || cache.lease(&key, wish).await.is_err() && sessions() >= before + 3).await;
    let log = lines.text();
    assert_eq!(log.matches("the cache is away").count(), 1, "{log}");
    assert!(log.matches("the cache is back").count() <= 1, "{log}");
}

#[tokio::test]
async fn a_certificate_that_the_machine_trusts_is_enough() {
    const NAME: &str = "cache::valkey::tests::a_certificate_that_the_machine_trusts_is_enough";
    const URL: &str = "TB_TEST_CACHE_URL";
    // What a machine trusts is read from its environment: this test runs itself in another one.
    if let Ok(url) = std::env::var(URL) {
        let cache = crate::cache::open(Some(&Secret::new(url)), CacheTimeouts::default()).expect("a cache");
        return until_it_answers(&*cache).await;
    }
    let server = Redis::start_with(Options { tls: true, ..Options::default() });
    let mut itself = std::process::Command::new(std::env::current_exe().expect("this test"));
    itself.args([NAME, "--exact"]).env(URL, server.url()).env("SSL_CERT_FILE", server.ca_file());
    let run = itself.output().expect("this test runs");
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && told.contains("1 passed"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_of_another_type_makes_way_for_a_load() {
    use crate::cache::load::{Loads, Shown};
    let server = Redis::start();
    let cache = Valkey::open(&server.url(), TIMEOUTS, NO_TLS).expect("a cache");
    comes_back(&cache).await;
    let name = |name: &str| CacheKey::parse(name).expect("a name");
    let load = || {
        let mut loads = Loads::default();
        loads.fields(&name("usage_log:a"), &[("a", Shown::Number(1))], u64::from(u32::MAX) * 1_000).expect("room");
        loads.members(&name("usage_logs:index"), &[("a", 1), ("b", 2)]).expect("room");
        loads.trim(&name("usage_logs:asset:BTC"), 1, 5).expect("room");
        loads
    };
    for wrong in ["usage_log:a", "usage_logs:index", "usage_logs:asset:BTC"] {
        server.ask(&["SET", wrong, "x"]);
    }
    assert_eq!(cache.load(load()).await, Ok(()));
    assert_eq!(server.ask(&["HGETALL", "usage_log:a"]), "a\n1");
    assert_eq!(server.ask(&["ZCARD", "usage_logs:index"]), "2");
    assert_eq!(server.ask(&["EXISTS", "usage_logs:asset:BTC"]), "0");
}
