//! What stands in the cache after a delivery, on each kind of cache, and that nobody waits for it.

use super::*;
use crate::cache::in_process::{BYTES_MAX, InProcessCache};
use crate::cache::names::API_KEY;
use crate::cache::{self, CacheTimeouts};
use crate::keys::{Secret, directory};
use harness::redis::{Options, Redis};
use shared::key::{KeyRecord, Permissions};
use shared::usage::{PROTOCOL_UDP, UsageRecord};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const TIME_MS: u64 = 1_780_000_000_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn row(offset: u64, key: u32, asset: &str, time_ms: u64) -> UsageRow {
    let mut record = UsageRecord {
        first_time_ms: time_ms,
        last_time_ms: time_ms + 40,
        requests: 3,
        key,
        status: 200,
        protocol: PROTOCOL_UDP,
        ..UsageRecord::default()
    };
    record.asset[..asset.len()].copy_from_slice(asset.as_bytes());
    UsageRow { node: "n1".into(), segment: 5, offset, record }
}

/// Key 7, with a hash of sevens.
fn keys() -> watch::Receiver<Keys> {
    let seven = KeyRecord {
        id: KeyId(7),
        hash: [0x77; 32],
        limit_per_second: 1,
        expires_at_ms: 0,
        permissions: Permissions::default(),
        udp_secret: [0; 16],
        rank: 0,
    };
    watch::channel(directory(vec![seven], 1)).1
}

async fn until(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + harness::PATIENCE;
    while !probe().await {
        assert!(Instant::now() < deadline, "waited for: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn value_of(cache: &dyn Cache, name: &str) -> Option<(Value, Option<u64>)> {
    cache.get(&CacheKey::parse(name).expect("a name")).await.expect("an answer")
}

/// The members of a set, with their scores.
async fn members(cache: &dyn Cache, name: &str) -> Vec<(String, i64)> {
    match value_of(cache, name).await {
        None => Vec::new(),
        Some((Value::Sorted(members), Some(left_ms))) if left_ms > 92 * DAY_MS => members,
        other => panic!("{name}: {other:?}"),
    }
}

async fn mirrors(cache: Arc<dyn Cache>) {
    until("the cache to answer", async || cache.ping().await.is_ok()).await;
    let mirror = Mirror::start(Arc::clone(&cache), keys());
    let rows = [
        row(0, 7, "BTC", TIME_MS),
        row(1, 7, "", TIME_MS + 2),
        row(2, 8, "BTC", TIME_MS + 1),
        row(3, 0, "ETH", TIME_MS + 3),
    ];
    let uuids: Vec<String> = rows.iter().map(|row| Entry::of_row(row).uuid().to_string()).collect();
    // The second time changes nothing: the names are the same.
    for turn in 1..=2 {
        mirror.offer(&rows);
        until("they are written", async || mirror.counters().written == 4 * turn).await;
    }
    let at = |index: usize, ms: i64| (uuids[index].clone(), TIME_MS as i64 + ms);
    let of_seven = format!("usage_logs:api_key:{}", "77".repeat(32));
    for (name, expected) in [
        ("usage_logs:index", vec![at(0, 0), at(2, 1), at(1, 2), at(3, 3)]),
        (&*of_seven, vec![at(0, 0), at(1, 2)]),
        ("usage_logs:asset:BTC", vec![at(0, 0), at(2, 1)]),
        ("usage_logs:asset:ETH", vec![at(3, 3)]),
    ] {
        assert_eq!(members(&*cache, name).await, expected, "{name}");
    }
    let (log, left_ms) = value_of(&*cache, &format!("usage_log:{}", uuids[2])).await.expect("a row");
    let Value::Hash(log) = log else { panic!("{log:?}") };
    let expected = [
        ("asset", "BTC"),
        ("endpoint", "/price"),
        ("key_id", "8"),
        ("node", "n1"),
        ("offset", "2"),
        ("protocol", "udp"),
        ("requests", "3"),
        ("segment", "5"),
        ("status", "200"),
        ("tier", "local"),
        ("time_ms", "1780000000001"),
    ];
    assert_eq!(log, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert!(left_ms.is_some_and(|left_ms| left_ms <= 93 * DAY_MS && left_ms > 92 * DAY_MS), "{left_ms:?}");
    // 93 days later what was there has gone from the sets that still grow.
    mirror.offer(&[row(4, 7, "BTC", TIME_MS + 93 * DAY_MS + 1)]);
    until("it is written", async || mirror.counters().written == 9).await;
    let scores = members(&*cache, "usage_logs:index").await.into_iter().map(|(_, at)| at - TIME_MS as i64);
    assert_eq!(scores.collect::<Vec<_>>(), [1, 2, 3, 93 * DAY_MS as i64 + 1]);
    assert_eq!(members(&*cache, "usage_logs:asset:BTC").await.len(), 2);
    assert_eq!(mirror.counters(), MirrorCounters { written: 9, dropped: 0, waiting: 0 });
}

fn on(server: &Redis) -> Arc<dyn Cache> {
    let patient = CacheTimeouts { dial_ms: 5_000, read_ms: 5_000, write_ms: 5_000 };
    cache::open(Some(&Secret::new(server.url())), patient).expect("a cache")
}

#[tokio::test]
async fn rows_stand_in_the_cache_of_this_process() {
    mirrors(Arc::new(InProcessCache::new())).await;
}

#[tokio::test]
async fn rows_stand_on_a_server() {
    let server = Redis::start();
    mirrors(on(&server)).await;
    assert_eq!(server.ask(&["DBSIZE"]), "9", "five rows and four sets");
}

#[tokio::test]
async fn rows_stand_on_a_cluster() {
    let servers = Redis::cluster(&Options::default());
    mirrors(on(&servers[0])).await;
}

#[tokio::test]
async fn a_clock_that_is_ahead_ends_nothing_of_the_others() {
    let cache: Arc<dyn Cache> = Arc::new(InProcessCache::new());
    let mirror = Mirror::start(Arc::clone(&cache), keys());
    let now_ms = clock::now().wall_ms;
    for (turn, row) in [row(0, 7, "BTC", now_ms), row(1, 7, "BTC", now_ms + 500 * DAY_MS)].into_iter().enumerate() {
        mirror.offer(&[row]);
        until("it is written", async || mirror.counters().written == turn as u64 + 1).await;
    }
    assert_eq!(members(&*cache, "usage_logs:index").await.len(), 2);
}

#[tokio::test]
async fn the_cache_of_this_process_stays_small_and_keeps_the_rest() {
    let cache = Arc::new(InProcessCache::new());
    let key = CacheKey::new(API_KEY, "0a").expect("a name");
    cache.put(&key, &Value::Text("1".to_owned())).await.expect("written");
    let shared: Arc<dyn Cache> = Arc::<InProcessCache>::clone(&cache);
    let mirror = Mirror::start(shared, keys());
    for turn in 0..150 {
        let rows: Vec<UsageRow> =
            (0..300).map(|index| row(turn * 300 + index, 7, &format!("A{}", index % 50), TIME_MS + turn)).collect();
        mirror.offer(&rows);
        until("they are written", async || mirror.counters().waiting == 0).await;
    }
    assert_eq!(mirror.counters(), MirrorCounters { written: 45_000, dropped: 0, waiting: 0 });
    let (_, bytes) = cache.health().held.expect("known");
    assert!(bytes < BYTES_MAX as u64 / 3, "{bytes} bytes");
    assert!(value_of(&*cache, "apikey:0a").await.is_some(), "it would end first");
    // Those of one time stand in the order of their names.
    let newest = (Entry::of_row(&row(44_999, 7, "A49", TIME_MS + 149)).uuid().to_string(), TIME_MS as i64 + 149);
    assert!(members(&*cache, "usage_logs:index").await.contains(&newest), "the newest is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_or_is_away_costs_copies_alone() {
    let mut server = Redis::start();
    let cache = on(&server);
    until("the cache to answer", async || cache.ping().await.is_ok()).await;
    let mirror = Mirror::start(Arc::clone(&cache), keys());
    let rows: Vec<UsageRow> = (0..1_000).map(|index| row(index, 7, "BTC", TIME_MS)).collect();
    server.freeze();
    let mut offered = 0;
    while mirror.counters().dropped == 0 {
        mirror.offer(&rows);
        offered += 1_000;
        assert!(offered <= ROWS_MAX + 2_000, "the line has an end");
    }
    server.thaw();
    until("what waits is written", async || mirror.counters().waiting == 0).await;
    let MirrorCounters { written, dropped, .. } = mirror.counters();
    assert!(written > 0 && written + dropped == offered, "{written} + {dropped} of {offered}");
    server.kill();
    mirror.offer(&rows);
    until("it is given up", async || mirror.counters().waiting == 0).await;
    assert!(mirror.counters().dropped > dropped);
}
