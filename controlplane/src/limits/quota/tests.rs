//! Months over a real SQLite store, round by round, at times that a test gives.

use super::*;
use crate::cache::in_process::InProcessCache;
use crate::store::shaky::Shaky;
use crate::store::sqlite::SqliteStore;
use dataplane_core::access::{KeyDirectory, hash_text};
use shared::key::{KeyRecord, Permissions};
use shared::usage::UsageRecord;
use std::sync::atomic::Ordering;

/// 22 November 2026, and the second of December after it.
const NOVEMBER_MS: u64 = 1_795_305_600_000;
const DECEMBER_MS: u64 = NOVEMBER_MS + 10 * 24 * 60 * 60 * 1_000;

const BOUNDED: KeyId = KeyId(1);
const FREE: KeyId = KeyId(2);

struct Bounds(Mutex<Option<u64>>);

impl MonthLimits for Bounds {
    fn month_limit(&self, key: KeyId) -> Option<u64> {
        self.0.lock().expect("a bound").filter(|_| key == BOUNDED)
    }
}

struct Node {
    quota: Quota,
    months: Months,
    bounds: Arc<Bounds>,
    keys: Keys,
    /// Keeps the directory published.
    _publisher: watch::Sender<Keys>,
}

impl Node {
    fn new(store: &Arc<dyn Store>, cache: &Arc<dyn Cache>, writer: &str) -> Self {
        let record = |id: KeyId| KeyRecord {
            id,
            hash: hash_text(&id.0.to_le_bytes()),
            limit_per_second: 1_000,
            rank: 1,
            expires_at_ms: 0,
            permissions: Permissions(Permissions::PRICES),
            udp_secret: [0; 16],
        };
        let keys = Arc::new(KeyDirectory::build(vec![record(BOUNDED), record(FREE)], None, 1));
        let (publisher, published) = watch::channel(Arc::clone(&keys));
        let bounds = Arc::new(Bounds(Mutex::new(Some(100))));
        let quota = Quota {
            keys: published,
            bounds: Arc::<Bounds>::clone(&bounds),
            usage: Arc::new(UsageLedger::new(Vec::new())),
            store: Arc::clone(store),
            cache: Arc::clone(cache),
            writer: writer.to_owned(),
        };
        Self { quota, months: Months::default(), bounds, keys, _publisher: publisher }
    }

    fn ask(&self, key: KeyId, requests: u64) {
        self.quota.usage.count(&UsageRecord { key: key.0, requests, ..UsageRecord::default() });
    }

    async fn round(&self, wall_ms: u64) {
        self.quota.count(&self.months, wall_ms).await;
        self.quota.exchange(&self.months, wall_ms).await;
    }

    fn is_over(&self) -> bool {
        self.keys.is_month_used_up(BOUNDED)
    }
}

async fn migrated() -> Arc<dyn Store> {
    Arc::new(SqliteStore::in_memory().await.expect("a store"))
}

fn cache() -> Arc<dyn Cache> {
    Arc::new(InProcessCache::new())
}

#[tokio::test]
async fn nodes_add_up_and_a_month_ends() {
    let (store, cache) = (migrated().await, cache());
    let [one, other] = ["one", "other"].map(|writer| Node::new(&store, &cache, writer));
    one.ask(BOUNDED, 60);
    one.ask(FREE, 1_000);
    one.round(NOVEMBER_MS).await;
    other.ask(BOUNDED, 39);
    other.round(NOVEMBER_MS).await;
    assert_eq!((one.is_over(), other.is_over(), other.months.used(BOUNDED)), (false, false, 99));
    other.ask(BOUNDED, 1);
    other.round(NOVEMBER_MS + 1).await;
    assert_eq!((one.is_over(), other.is_over()), (false, true), "who has not asked since does not know yet");
    one.ask(BOUNDED, 1);
    one.round(NOVEMBER_MS + 1).await;
    assert_eq!((one.is_over(), one.months.used(BOUNDED), one.months.status().keys_over), (true, 101, 1));
    // Whoever starts now learns it before it asks.
    let third = Node::new(&store, &cache, "third");
    third.round(NOVEMBER_MS + 2).await;
    assert!(third.is_over());
    // What others read.
    let name = CacheKey::new(USAGE_COUNTER, &to_hex(&hash_text(&BOUNDED.0.to_le_bytes()))).expect("a name");
    let (value, _) = cache.get(&name).await.expect("a cache").expect("a counter");
    assert_eq!(value, Value::Text("101".to_owned()));
    // The turn lifts it, and what was not sent yet still goes to its own month.
    one.quota.count(&one.months, NOVEMBER_MS + 3).await;
    one.ask(FREE, 7);
    one.quota.count(&one.months, NOVEMBER_MS + 4).await;
    one.round(DECEMBER_MS).await;
    assert_eq!((one.is_over(), one.months.used(BOUNDED), one.months.used(FREE)), (false, 0, 0));
    let november = store.month_use(month_of(NOVEMBER_MS), &[FREE.0]).await.expect("totals");
    assert_eq!(november.iter().map(|row| row.requests).collect::<Vec<_>>(), [1_007]);
}

#[tokio::test]
async fn a_changed_bound_counts_at_the_next_round() {
    let (store, cache) = (migrated().await, cache());
    let node = Node::new(&store, &cache, "node");
    node.ask(BOUNDED, 100);
    node.round(NOVEMBER_MS).await;
    assert!(node.is_over());
    *node.bounds.0.lock().expect("a bound") = Some(101);
    node.round(NOVEMBER_MS).await;
    assert!(!node.is_over(), "a higher one");
    node.ask(BOUNDED, 1);
    node.round(NOVEMBER_MS).await;
    assert!(node.is_over());
    *node.bounds.0.lock().expect("a bound") = None;
    node.round(NOVEMBER_MS).await;
    assert!(!node.is_over(), "none");
}

#[tokio::test]
async fn while_the_store_takes_nothing_counting_goes_on_and_nothing_is_counted_twice() {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::memory());
    let node = Node::new(&store, &cache(), "node");
    for round in 1..=3 {
        node.ask(BOUNDED, 30);
        node.round(NOVEMBER_MS + round).await;
    }
    let status = node.months.status();
    assert_eq!((status.waiting, status.failures, status.away_since_ms), (90, 3, Some(NOVEMBER_MS + 1)));
    node.ask(BOUNDED, 10);
    node.round(NOVEMBER_MS + 4).await;
    assert!(node.is_over(), "the quota holds without a store");
    store.migrate().await.expect("a schema");
    node.round(NOVEMBER_MS + 5).await;
    node.round(NOVEMBER_MS + 6).await;
    let status = node.months.status();
    assert_eq!((status.waiting, status.batches, status.away_since_ms), (0, 2, None));
    let stored = store.month_use(status.month, &[BOUNDED.0]).await.expect("totals");
    assert_eq!((stored[0].requests, node.months.used(BOUNDED)), (100, 100));
}

#[tokio::test]
async fn what_is_left_at_the_end_is_sent() {
    let store = migrated().await;
    let node = Node::new(&store, &cache(), "node");
    node.ask(FREE, 3);
    let until = Instant::now() + Duration::from_secs(30);
    node.quota.finish(&node.months, until).await;
    let month = node.months.status().month;
    assert_eq!(store.month_use(month, &[FREE.0]).await.expect("totals").len(), 1);
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + harness::PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn shaky() -> Arc<Shaky> {
    Arc::new(Shaky::new(SqliteStore::in_memory().await.expect("a store")))
}

#[tokio::test]
async fn a_month_s_turn_lifts_before_the_store_is_asked() {
    let node = Node::new(&migrated().await, &cache(), "node");
    node.ask(BOUNDED, 100);
    node.round(NOVEMBER_MS).await;
    assert!(node.is_over());
    node.quota.count(&node.months, DECEMBER_MS).await;
    assert_eq!((node.is_over(), node.months.status().keys_over), (false, 0));
}

#[tokio::test]
async fn with_more_keys_than_a_batch_holds_every_key_is_counted() {
    let store = migrated().await;
    let node = Node::new(&store, &cache(), "node");
    let count = u32::try_from(USE_ROWS_MAX).expect("a small number") + 5;
    for _ in 0..2 {
        (1..=count).for_each(|key| node.ask(KeyId(key), 1));
        node.round(NOVEMBER_MS).await;
        assert_eq!(node.months.status().waiting, 0);
    }
    let ends = store.month_use(month_of(NOVEMBER_MS), &[1, 2, count - 1, count]).await.expect("totals");
    assert_eq!(ends.iter().map(|row| row.requests).collect::<Vec<_>>(), [2, 2, 2, 2]);
}

#[tokio::test]
async fn a_store_that_hangs_holds_up_neither_counting_nor_the_end() {
    let shaky = shaky().await;
    let store: Arc<dyn Store> = Arc::<Shaky>::clone(&shaky);
    let Node { quota, months, keys, _publisher, .. } = Node::new(&store, &cache(), "node");
    shaky.hangs.store(true, Ordering::Relaxed);
    let usage = Arc::clone(&quota.usage);
    let ask = |requests| usage.count(&UsageRecord { key: BOUNDED.0, requests, ..UsageRecord::default() });
    let (stop, stopped) = watch::channel(None);
    let running = tokio::spawn(quota.run(months.clone(), stopped));
    ask(1);
    until("a call that hangs", || shaky.hung.load(Ordering::Relaxed) > 0).await;
    ask(99);
    until("the key is over its month", || keys.is_month_used_up(BOUNDED)).await;
    ask(7);
    shaky.hangs.store(false, Ordering::Relaxed);
    stop.send_replace(Some(Instant::now() + harness::PATIENCE));
    tokio::time::timeout(harness::PATIENCE, running).await.expect("it ends").expect("without a panic");
    let stored = store.month_use(months.status().month, &[BOUNDED.0]).await.expect("totals");
    assert_eq!(stored[0].requests, 107, "with all that was asked");
}

#[tokio::test]
async fn at_the_end_a_store_that_fails_is_tried_again_while_there_is_time() {
    let shaky = shaky().await;
    let store: Arc<dyn Store> = Arc::<Shaky>::clone(&shaky);
    let Node { quota, months, _publisher, .. } = Node::new(&store, &cache(), "node");
    shaky.away.store(true, Ordering::Relaxed);
    quota.usage.count(&UsageRecord { key: FREE.0, requests: 3, ..UsageRecord::default() });
    let of_task = months.clone();
    let ending = tokio::spawn(async move { quota.finish(&of_task, Instant::now() + harness::PATIENCE).await });
    until("it fails", || months.status().failures > 1).await;
    shaky.away.store(false, Ordering::Relaxed);
    ending.await.expect("it ends");
    assert_eq!(months.status().waiting, 0);
}
