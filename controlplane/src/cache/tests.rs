//! What both caches must do alike: one suite, run on the one in this process and on real servers, alone, with TLS, and
//! as a cluster.

mod loads;

use super::names::{
    self, ALL, APP_CONFIG, CLUSTER_NODES, CLUSTER_STATS, PRICE, RATE_LIMIT, USAGE_COUNTER, USAGE_INDEX, USAGE_LOG,
};
use super::*;
use harness::redis::{Options, Redis};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What a lifetime may have lost between a write and a look at it, ms: the machine may be busy.
const SLACK_MS: u64 = 30_000;

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn hash(fields: &[(&str, &str)]) -> Value {
    Value::Hash(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

fn sorted(members: &[(&str, i64)]) -> Value {
    Value::Sorted(members.iter().map(|(member, score)| ((*member).to_owned(), *score)).collect())
}

fn key(name: &str) -> CacheKey {
    CacheKey::parse(name).unwrap_or_else(|why| panic!("{why}"))
}

fn name_of(pattern: &Pattern) -> CacheKey {
    CacheKey::new(*pattern, if pattern.variable.is_some() { "a:B-1" } else { "" }).expect("a name")
}

/// Waits until the cache answers.
pub(super) async fn until_it_answers(cache: &dyn Cache) {
    until("the cache answers", async || cache.ping().await.is_ok()).await;
}

/// Waits until `probe` holds.
pub(super) async fn until(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + harness::PATIENCE;
    while !probe().await {
        assert!(Instant::now() < deadline, "waited {:?} for: {what}", harness::PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
}

/// The whole suite.
async fn conforms(cache: &dyn Cache) {
    until_it_answers(cache).await;
    let before = cache.health();
    every_pattern_has_its_type_and_lifetime(cache).await;
    values_come_back_as_they_were(cache).await;
    what_may_not_stand_is_refused(cache).await;
    numbers_grow_and_keep_their_lifetime(cache).await;
    many_are_written_together(cache).await;
    loads::much_is_loaded(cache).await;
    loads::a_hash_is_brought_forward(cache).await;
    leases_are_of_one_second(cache).await;
    nodes_come_and_go(cache).await;
    let health = cache.health();
    assert!(health.calls > 0 && health.refused > 0 && health.unreachable == before.unreachable, "{health:?}");
    assert_eq!(health.away_since_ms, None);
    cache.close().await;
}

async fn every_pattern_has_its_type_and_lifetime(cache: &dyn Cache) {
    for pattern in &ALL {
        let name = name_of(pattern);
        let value = match pattern.kind {
            Kind::Text => text("42"),
            Kind::Hash => hash(&[("a", "b")]),
            Kind::Sorted => sorted(&[("a", 1_793_500_000_123)]),
        };
        assert_eq!(cache.get(&name).await, Ok(None), "{name}");
        assert_eq!(cache.put(&name, &value).await, Ok(()), "{name}");
        let (found, lifetime_ms) = cache.get(&name).await.expect("an answer").expect("a value");
        assert_eq!(found, value, "{name}");
        match pattern.lifetime_s.map(|lifetime_s| lifetime_s * 1_000) {
            None => assert_eq!(lifetime_ms, None, "{name}"),
            Some(whole_ms) => {
                let left_ms = lifetime_ms.unwrap_or_else(|| panic!("{name} has no end"));
                assert!((whole_ms.saturating_sub(SLACK_MS)..=whole_ms).contains(&left_ms), "{name}: {left_ms} ms");
            }
        }
        assert_eq!((cache.delete(&name).await, cache.delete(&name).await), (Ok(true), Ok(false)), "{name}");
    }
}

async fn values_come_back_as_they_were(cache: &dyn Cache) {
    let many: Vec<(String, String)> =
        (0..VALUE_PARTS_MAX).map(|index| (format!("{index:05}"), "x".to_owned())).collect();
    let ranks: Vec<(String, i64)> = (0..VALUE_PARTS_MAX).map(|index| (format!("{index}"), index as i64)).collect();
    for (name, value) in [
        ("price:BTC", text("")),
        ("price:BTC", text("{\"price\":\"67123.45\"}")),
        ("price:BTC", text("line\r\nline\0\u{20ac}")),
        ("report:text:2026-11-22", text(&"x".repeat(VALUE_BYTES_MAX))),
        ("app:config", hash(&[("", "empty name"), ("b", ""), ("c d", "\u{20ac}\r\n")])),
        ("app:config", Value::Hash(many.into_iter().collect())),
        ("usage_logs:index", sorted(&[("low", -SCORE_MAX), ("a", 0), ("b", 0), ("high", SCORE_MAX)])),
        ("usage_logs:index", Value::Sorted(ranks)),
    ] {
        let name = key(name);
        assert_eq!(cache.put(&name, &value).await, Ok(()), "{name}");
        let found = cache.get(&name).await.expect("an answer").map(|(value, _)| value);
        assert!(found.as_ref() == Some(&value), "{name} came back as something else");
    }
    // What was there before is gone whole, and order is by score whatever was written first.
    let name = key("usage_logs:index");
    assert_eq!(cache.put(&name, &sorted(&[("b", 2), ("c", 1), ("a", 2)])).await, Ok(()));
    let found = cache.get(&name).await.expect("an answer").map(|(value, _)| value);
    assert_eq!(found, Some(sorted(&[("c", 1), ("a", 2), ("b", 2)])));
    for name in ["price:BTC", "report:text:2026-11-22", "app:config", "usage_logs:index"] {
        assert_eq!(cache.delete(&key(name)).await, Ok(true));
    }
}

async fn what_may_not_stand_is_refused(cache: &dyn Cache) {
    let parts: BTreeMap<String, String> =
        (0..=VALUE_PARTS_MAX).map(|index| (index.to_string(), String::new())).collect();
    for (name, value) in [
        ("price:BTC", hash(&[("a", "b")])),
        ("app:config", text("a")),
        ("app:config", sorted(&[("a", 1)])),
        ("app:config", hash(&[])),
        ("usage_logs:index", sorted(&[])),
        ("usage_logs:index", sorted(&[("a", SCORE_MAX + 1)])),
        ("price:BTC", text(&"x".repeat(VALUE_BYTES_MAX + 1))),
        ("app:config", Value::Hash(parts)),
    ] {
        let name = key(name);
        assert!(matches!(cache.put(&name, &value).await, Err(CacheError::Refused(_))), "{name}");
        assert_eq!(cache.get(&name).await, Ok(None), "{name}");
    }
    assert!(matches!(cache.add(&key("app:config"), 1).await, Err(CacheError::Refused(_))));
    let wish = LeaseWish { limit: 1, want: 1, demand: 1, next: false, debt: 0 };
    assert!(matches!(cache.lease(&key("app:config"), wish).await, Err(CacheError::Refused(_))));
}

async fn numbers_grow_and_keep_their_lifetime(cache: &dyn Cache) {
    let name = CacheKey::new(USAGE_COUNTER, "0a").expect("a name");
    for (amount, sum) in [(5, 5), (-7, -2), (i64::MAX, i64::MAX - 2), (0, i64::MAX - 2)] {
        assert_eq!(cache.add(&name, amount).await, Ok(sum));
    }
    assert!(matches!(cache.add(&name, 3).await, Err(CacheError::Refused(_))), "beyond what a number can be");
    let before_ms = cache.get(&name).await.expect("an answer").expect("a value").1.expect("an end");
    until("time to pass", async || {
        cache.add(&name, 0).await.expect("a number");
        cache.get(&name).await.expect("an answer").expect("a value").1 < Some(before_ms)
    })
    .await;
    assert_eq!(cache.put(&name, &text("no number")).await, Ok(()));
    assert!(matches!(cache.add(&name, 1).await, Err(CacheError::Refused(_))));
    assert_eq!(cache.delete(&name).await, Ok(true));
}

async fn many_are_written_together(cache: &dyn Cache) {
    let log = |index: usize| CacheKey::new(USAGE_LOG, &format!("u{index}")).expect("a name");
    let append = |name: &str, members: &[(&str, i64)], since, keep| {
        let members = members.iter().map(|(member, score)| ((*member).to_owned(), *score)).collect();
        Write::Append { key: key(name), members, since, keep }
    };
    let value_of = async |name: &CacheKey| cache.get(name).await.expect("an answer").map(|(value, _)| value);
    let (index, of_btc) = (key("usage_logs:index"), key("usage_logs:asset:BTC"));
    let mut writes: Vec<Write> =
        (0..WRITES_MAX - 2).map(|at| Write::Put(log(at), hash(&[("requests", &at.to_string())]))).collect();
    writes.push(append("usage_logs:index", &[("a", 10), ("b", 30), ("c", 20)], 0, 100));
    writes.push(append("usage_logs:asset:BTC", &[("a", 10)], 0, 100));
    assert_eq!(cache.write_all(&writes).await, Ok(()));
    for at in 0..WRITES_MAX - 2 {
        assert_eq!(value_of(&log(at)).await, Some(hash(&[("requests", &at.to_string())])));
    }
    assert_eq!(value_of(&index).await, Some(sorted(&[("a", 10), ("c", 20), ("b", 30)])));
    // Again, with a new one: nothing is there twice; then what is too old, and what is too much, goes.
    for (more, expected) in [
        (
            append("usage_logs:index", &[("a", 10), ("d", 25)], 0, 100),
            sorted(&[("a", 10), ("c", 20), ("d", 25), ("b", 30)]),
        ),
        (append("usage_logs:index", &[("e", 5)], 20, 100), sorted(&[("c", 20), ("d", 25), ("b", 30)])),
        (append("usage_logs:index", &[("f", 40)], 0, 2), sorted(&[("b", 30), ("f", 40)])),
    ] {
        assert_eq!(cache.write_all(&[more]).await, Ok(()));
        assert_eq!(value_of(&index).await, Some(expected));
    }
    let whole_ms = 93 * 24 * 60 * 60 * 1_000;
    let lifetime_ms = cache.get(&index).await.expect("an answer").expect("a value").1;
    assert!(lifetime_ms.is_some_and(|left_ms| (whole_ms - SLACK_MS..=whole_ms).contains(&left_ms)), "{lifetime_ms:?}");
    for bad in [
        append("app:config", &[("a", 1)], 0, 1),
        append("usage_logs:index", &[], 0, 1),
        append("usage_logs:index", &[("a", 1)], 0, 0),
        append("usage_logs:index", &[("a", SCORE_MAX + 1)], 0, 1),
        Write::Put(log(0), text("a")),
        Write::PutLatest { key: log(0), value: hash(&[("at", "1")]), by: "at", most: 9 },
    ] {
        assert!(matches!(cache.write_all(&[bad]).await, Err(CacheError::Refused(_))));
    }
    let name = key("price:BTC");
    for (said, expected) in [
        (r#"{"a":1,"at":5,"b":2}"#, r#"{"a":1,"at":5,"b":2}"#),
        (r#"{"at":4}"#, r#"{"a":1,"at":5,"b":2}"#),
        (r#"{"at":5}"#, r#"{"at":5}"#),
        ("no object", "no object"),
        (r#"{"at":10}"#, r#"{"at":10}"#),
        // What stands there cannot be.
        (r#"{"at":7}"#, r#"{"at":7}"#),
    ] {
        let latest = Write::PutLatest { key: name.clone(), value: text(said), by: "at", most: 9 };
        assert_eq!(cache.write_all(&[latest]).await, Ok(()), "{said}");
        assert_eq!(value_of(&name).await, Some(text(expected)), "{said}");
    }
    assert_eq!(cache.delete(&name).await, Ok(true));
    writes.push(append("usage_logs:index", &[("g", 50)], 0, 100));
    assert!(matches!(cache.write_all(&writes).await, Err(CacheError::Refused(_))), "one too many");
    for name in (0..WRITES_MAX - 2).map(log).chain([index, of_btc]) {
        assert_eq!(cache.delete(&name).await, Ok(true), "{name}");
    }
    assert_eq!(cache.write_all(&[]).await, Ok(()));
}

async fn leases_are_of_one_second(cache: &dyn Cache) {
    let name = CacheKey::new(RATE_LIMIT, &"0a".repeat(32)).expect("a name");
    let wish = LeaseWish { limit: 1_000, want: 100, demand: 100, next: false, debt: 0 };
    // Calls of many nodes at once, of which a new second may begin in the middle.
    let calls = (0..40).map(|_| cache.lease(&name, wish));
    let leases = futures_util::future::join_all(calls).await;
    let leases: Vec<Lease> = leases.into_iter().map(|lease| lease.expect("a lease")).collect();
    let ages: Vec<u32> = leases.iter().map(|lease| lease.window_age_ms).collect();
    assert!(ages.iter().all(|age_ms| *age_ms < 1_000), "{ages:?}");
    let seconds = 1 + ages.windows(2).filter(|pair| pair[1] < pair[0]).count();
    let granted: u32 = leases.iter().map(|lease| lease.granted).sum();
    assert!((900..=1_000 * u32::try_from(seconds).expect("few")).contains(&granted), "{granted} in {seconds} seconds");
    let (found, lifetime_ms) = cache.get(&name).await.expect("an answer").expect("a value");
    let Value::Text(state) = found else { panic!("{found:?}") };
    assert!(window::Window::from_text(&state).is_some_and(|window| window.demand >= 100), "{state}");
    assert!(lifetime_ms.is_some_and(|left_ms| left_ms <= 2_000));
    // It is gone two seconds after the last call.
    until("the second to end", async || cache.get(&name).await == Ok(None)).await;
}

async fn nodes_come_and_go(cache: &dyn Cache) {
    let counters: BTreeMap<String, String> = [("requests".to_owned(), "1".to_owned())].into();
    let alive =
        async |node: &str, alive_ms| cache.heartbeat(node, &counters, alive_ms).await.expect("the nodes alive").nodes;
    assert_eq!(alive("n2", 600_000).await, ["n2"]);
    assert_eq!(alive("n1", 600_000).await, ["n1", "n2"]);
    assert_eq!(alive("n1", 600_000).await, ["n1", "n2"]);
    let stats = CacheKey::new(CLUSTER_STATS, "n2").expect("a name");
    let (found, lifetime_ms) = cache.get(&stats).await.expect("an answer").expect("a value");
    assert_eq!(found, Value::Hash(counters.clone()));
    assert!(lifetime_ms.is_some_and(|left_ms| left_ms <= 10_000));
    until("n2 not to be heard of for 30 ms", async || alive("n1", 30).await == ["n1"]).await;
    assert_eq!(cache.leave("n2").await, Ok(()));
    assert_eq!(cache.get(&stats).await, Ok(None));
    assert_eq!(alive("n1", 600_000).await, ["n1"], "n2 has left");
    assert_eq!(cache.leave("n1").await, Ok(()));
    assert_eq!(cache.get(&CacheKey::fixed(CLUSTER_NODES)).await, Ok(None));
    let was_noted = async || cache.heartbeat("n1", &counters, 1).await.expect("the nodes alive").was_noted;
    assert_eq!([was_noted().await, was_noted().await], [false, true], "it had left");
    assert!(matches!(cache.heartbeat("n 1", &counters, 1).await, Err(CacheError::Refused(_))));
}

/// A cache on a real server; what it trusts is the harness' own authority.
pub(super) fn on(url: &str, server: &Redis) -> Valkey {
    let tls = || {
        let root = CertificateDer::from_pem_file(server.ca_file()).expect("a certificate");
        Ok(Trust::only(root).config())
    };
    Valkey::open(url, CacheTimeouts { dial_ms: 5_000, read_ms: 5_000, write_ms: 5_000 }, tls).expect("a cache")
}

#[tokio::test]
async fn the_one_in_this_process_conforms() {
    conforms(&InProcessCache::new()).await;
}

#[tokio::test]
async fn a_server_conforms() {
    let server = Redis::start();
    conforms(&on(&server.url(), &server)).await;
}

#[tokio::test]
async fn a_server_with_tls_and_a_password_conforms() {
    let options = Options { tls: true, password: Some("a-planted-password".to_owned()), ..Options::default() };
    let server = Redis::start_with(options);
    conforms(&on(&server.url(), &server)).await;
}

#[tokio::test]
async fn a_cluster_conforms() {
    let members = Redis::cluster(&Options::default());
    conforms(&on(&members[0].url(), &members[0])).await;
    // Each member has seen some of it.
    for member in &members {
        let calls = member.ask(&["INFO", "commandstats"]);
        assert!(calls.contains("cmdstat_evalsha") || calls.contains("cmdstat_eval"), "{calls}");
    }
}

#[tokio::test]
async fn a_cluster_with_tls_conforms() {
    let members = Redis::cluster(&Options { tls: true, ..Options::default() });
    conforms(&on(&members[0].url(), &members[0])).await;
}

#[tokio::test]
async fn types_and_lifetimes_are_those_that_other_programs_see() {
    let server = Redis::start();
    let cache = on(&server.url(), &server);
    until_it_answers(&cache).await;
    for pattern in &ALL {
        let name = name_of(pattern);
        let value = match pattern.kind {
            Kind::Text => text("42"),
            Kind::Hash => hash(&[("a", "b")]),
            Kind::Sorted => sorted(&[("a", 7)]),
        };
        assert_eq!(cache.put(&name, &value).await, Ok(()));
        assert_eq!(server.ask(&["TYPE", name.name()]), pattern.kind.name(), "{name}");
        let whole_s = pattern.lifetime_s.map_or(-1, |lifetime_s| i64::try_from(lifetime_s).expect("short"));
        let left_s: i64 = server.ask(&["TTL", name.name()]).parse().expect("a number");
        assert!(left_s <= whole_s && (left_s > whole_s - 30 || left_s == whole_s), "{name}: {left_s} of {whole_s}");
    }
    assert_eq!(names::ALL.len().to_string(), server.ask(&["DBSIZE"]), "nothing else is written");
}

#[tokio::test]
async fn what_other_programs_wrote_is_read_or_refused() {
    let server = Redis::start();
    let cache = on(&server.url(), &server);
    until_it_answers(&cache).await;
    server.ask(&["RPUSH", "price:LIST", "a"]);
    server.ask(&["HSET", "price:HASH", "a", "b"]);
    server.ask(&["SET", "app:config", "text"]);
    server.ask(&["SETRANGE", "price:LARGE", "5000000", "x"]);
    server.ask(&["ZADD", "usage_logs:index", "1.5", "a"]);
    for name in ["price:LIST", "price:HASH", "app:config", "price:LARGE", "usage_logs:index"] {
        let answer = cache.get(&key(name)).await;
        assert!(matches!(answer, Err(CacheError::Refused(_))), "{name}: {answer:?}");
    }
    assert!(matches!(cache.add(&key("price:LIST"), 1).await, Err(CacheError::Refused(_))));
    // Writing replaces it, whatever it was.
    let config = CacheKey::fixed(APP_CONFIG);
    assert_eq!(cache.put(&config, &hash(&[("a", "b")])).await, Ok(()));
    let price = CacheKey::new(PRICE, "LIST").expect("a name");
    assert_eq!(cache.put(&price, &text("1")).await, Ok(()));
    assert_eq!(cache.get(&price).await.expect("an answer").map(|(value, _)| value), Some(text("1")));
    assert_eq!(server.ask(&["ZADD", CacheKey::fixed(USAGE_INDEX).name(), "1.7e12", "a"]), "0");
    let index = cache.get(&key("usage_logs:index")).await.expect("an answer").map(|(value, _)| value);
    assert_eq!(index, Some(sorted(&[("a", 1_700_000_000_000)])));
}
