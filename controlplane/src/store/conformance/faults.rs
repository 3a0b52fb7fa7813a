//! A PostgreSQL that hangs, is cut off, crashes and returns; a pool whose bounds move while it is used; numbers that
//! are taken in the order of commits.

use super::{Bench, audit, new_database, new_key};
use crate::store::postgres::PgStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{
    CALL_MAX, PAGE_MAX, REPORT_CALLS_MAX, Store, StoreError, Stored, UsageFilter, UsageLine, UsageOrder, UsagePiece,
    UsageRead, UsageSource, UsageSums,
};
use harness::proxy::{Fault, Proxy};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};

/// What a busy machine may add to a bound.
const SLACK: Duration = Duration::from_secs(2);

/// How soon after its return a store must be in use again.
const BACK_MAX: Duration = Duration::from_secs(5);

fn store_at(url: &str) -> Arc<PgStore> {
    Arc::new(PgStore::lazy(PgConnectOptions::from_str(url).expect("an address")))
}

/// A migrated store behind a proxy that opened several connections.
async fn behind_a_proxy() -> (Arc<harness::postgres::Postgres>, Arc<Proxy>, Arc<PgStore>) {
    let (server, url) = new_database().await;
    let proxy = Arc::new(Proxy::start(server.address()));
    let store = store_at(&url.replace(&server.address().to_string(), &proxy.address().to_string()));
    store.migrate().await.expect("a schema");
    together(&store, 8).await;
    (server, proxy, store)
}

/// So many calls at once; how many of them were good.
async fn together(store: &Arc<PgStore>, count: usize) -> usize {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let store = Arc::clone(store);
        calls.spawn(async move {
            let began = Instant::now();
            let done = store.pulse().await;
            assert!(began.elapsed() < CALL_MAX + SLACK, "{:?}", began.elapsed());
            done.is_ok()
        });
    }
    calls.join_all().await.into_iter().filter(|good| *good).count()
}

/// Fails for as long as `fault` lasts, each call in its time, and is in use again soon after.
async fn gets_over(fault: Fault) {
    let (_server, proxy, store) = behind_a_proxy().await;
    proxy.set(fault);
    assert_eq!(together(&store, 12).await, 0);
    let Err(StoreError::Unreachable(why)) = store.tiers().await else { panic!("an answer through {fault:?}") };
    assert!(!why.contains("password"), "{why}");
    assert!(store.health().away_since_ms.is_some());
    proxy.set(Fault::None);
    let returned = Instant::now();
    while store.pulse().await.is_err() {
        assert!(returned.elapsed() < BACK_MAX + SLACK, "not back after {:?}", returned.elapsed());
    }
    assert!(returned.elapsed() < BACK_MAX + SLACK, "back after {:?}", returned.elapsed());
    assert_eq!(store.health().away_since_ms, None);
    assert_eq!(together(&store, 12).await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs() {
    gets_over(Fault::Hang).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses() {
    gets_over(Fault::Refuse).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_cut_off_stands_wholly_or_not_at_all() {
    let (_server, proxy, store) = behind_a_proxy().await;
    for number in 1..20 {
        let change = {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.create_key(&new_key(number), None, &audit("key.create")).await })
        };
        sleep(Duration::from_micros(u64::from(number) * 200)).await;
        proxy.cut();
        let _either = change.await.expect("no panic");
    }
    // The first calls may meet a connection that was cut.
    let deadline = Instant::now() + harness::PATIENCE;
    let keys = loop {
        match store.keys(0, PAGE_MAX).await {
            Ok(keys) => break keys,
            Err(why) => assert!(Instant::now() < deadline, "{why}"),
        }
    };
    assert_eq!(store.audit_page(None, PAGE_MAX).await.expect("entries").len(), keys.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_leaves_no_lock_behind() {
    let (_server, _proxy, store) = behind_a_proxy().await;
    for number in 1..20 {
        let change = {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.create_key(&new_key(number), None, &audit("key.create")).await })
        };
        sleep(Duration::from_micros(u64::from(number) * 150)).await;
        change.abort();
    }
    store.create_key(&new_key(99), None, &audit("key.create")).await.expect("a key");
    let keys = store.keys(0, PAGE_MAX).await.expect("keys");
    assert_eq!(store.audit_page(None, PAGE_MAX).await.expect("entries").len(), keys.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes() {
    let mut server = spawn_blocking(harness::postgres::Postgres::start).await.expect("a server");
    let store = store_at(&server.url_at(server.address()));
    store.migrate().await.expect("a schema");
    store.create_key(&new_key(1), None, &audit("key.create")).await.expect("a key");
    let mut server = spawn_blocking(move || {
        server.crash();
        server
    })
    .await
    .expect("a crash");
    assert_eq!(together(&store, 4).await, 0);
    let _server = spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .expect("a restart");
    let returned = Instant::now();
    while store.pulse().await.is_err() {
        assert!(returned.elapsed() < BACK_MAX + SLACK, "not back after {:?}", returned.elapsed());
    }
    assert_eq!(store.keys(0, PAGE_MAX).await.expect("keys").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_of_the_pool_move_while_it_is_used() {
    /// Through one connection, made anew for each, well within the time that one may be waited for.
    const CALLS: usize = 8;
    let (_server, _proxy, store) = behind_a_proxy().await;
    for (open_max, idle_max) in [(2, 1), (9, 9), (1, 0), (0, 0), (5, 5)] {
        let calls = {
            let store = Arc::clone(&store);
            tokio::spawn(async move { together(&store, CALLS).await })
        };
        store.set_pool(open_max, idle_max).await;
        assert_eq!(calls.await.expect("no panic"), CALLS, "{open_max} {idle_max}");
        assert_eq!(together(&store, CALLS).await, CALLS);
        let health = store.health();
        assert!(health.connections <= open_max.max(1), "{health:?}");
    }
}

/// Sums that wait for as long as somebody else has their table.
fn waiting_report(store: &Arc<PgStore>) -> tokio::task::JoinHandle<Stored<Vec<UsageLine>>> {
    let store = Arc::clone(store);
    tokio::spawn(async move {
        let (filter, to_ms) = (UsageFilter::default(), 3_600_000);
        let piece =
            UsagePiece { source: UsageSource::Hours, from_ms: 0, to_ms, base_ms: 0, step_ms: to_ms, minus: false };
        let (pieces, order) = (&[piece], UsageOrder::Fields);
        let sums = UsageSums { filter: &filter, pieces, timed: false, fields: &[], order, after: None, limit: 10 };
        store.usage_sums(&sums).await
    })
}

/// Reports that nobody waits for any more leave neither work on the server nor other calls without their connections.
#[tokio::test(flavor = "multi_thread")]
async fn reports_that_are_given_up_disturb_nobody() {
    let (_server, url) = new_database().await;
    let store = store_at(&url);
    store.migrate().await.expect("a schema");
    let own = "SELECT CAST(pg_backend_pid() AS TEXT)";
    let before = store.ask(own).await.expect("a connection");
    let mut other = PgConnectOptions::from_str(&url).expect("an address").connect().await.expect("a connection");
    other.execute(sqlx::raw_sql("BEGIN; LOCK TABLE usage_hours")).await.expect("locked");
    // Within a transaction it would tell the same for ever.
    let mut watch = PgConnectOptions::from_str(&url).expect("an address").connect().await.expect("a connection");
    let mut look = PgConnectOptions::from_str(&url).expect("an address").connect().await.expect("a connection");
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut waiting = async |expected: i64| {
        let deadline = Instant::now() + harness::PATIENCE;
        loop {
            let count = sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut watch).await.expect("a count");
            assert!(count <= REPORT_CALLS_MAX as i64, "{count} at once");
            if count == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{count} wait, not {expected}");
            sleep(Duration::from_millis(20)).await;
        }
    };
    for _ in 0..3 {
        let reports: Vec<_> = (0..2 * REPORT_CALLS_MAX).map(|_| waiting_report(&store)).collect();
        waiting(REPORT_CALLS_MAX as i64).await;
        reports.iter().for_each(|report| report.abort());
        waiting(0).await;
        let there = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM pg_stat_activity WHERE CAST(pid AS TEXT) = $1");
        let there = there.bind(&before).fetch_one(&mut look).await.expect("a count");
        assert_eq!((there, store.pulse().await.is_ok()), (1, true), "no pool was thrown away");
    }
    other.execute(sqlx::raw_sql("ROLLBACK")).await.expect("let go");
    assert_eq!(waiting_report(&store).await.expect("no panic"), Ok(Vec::new()));
    for link in [other, watch, look] {
        link.close().await.expect("an end");
    }
}

/// A statement on a file is stopped when nobody waits for it, and in time; the next one on its connection is not.
#[tokio::test]
async fn a_report_on_a_file_is_stopped() {
    let store = SqliteStore::in_memory().await.expect("a store");
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    for (is_given_up, limit) in [(true, Duration::from_secs(60)), (false, Duration::from_millis(50))] {
        let given_up = Arc::new(AtomicBool::new(is_given_up));
        let mut session = store.begin_report(Instant::now() + 4 * harness::PATIENCE).await.expect("a connection");
        let done = session.rows_long(endless.to_owned(), &[], &given_up, Instant::now() + limit).await;
        let done = session.end(done.map(drop)).await;
        assert!(matches!(&done, Err(StoreError::Unreachable(why)) if why.contains("took too long")), "{done:?}");
        store.pulse().await.expect("another call");
    }
}

/// Somebody who has taken a number and not committed holds back everybody who would take a higher one.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_taken_in_the_order_of_commits() {
    let (_server, url) = new_database().await;
    let store = store_at(&url);
    store.migrate().await.expect("a schema");
    let mut first = PgConnectOptions::from_str(&url).expect("an address").connect().await.expect("a connection");
    let insert = "INSERT INTO api_keys (hash, hint, name, tier, udp_secret, created_time_ms) VALUES \
                  (decode(repeat('aa', 32), 'hex'), '', '', 'pro', decode(repeat('aa', 16), 'hex'), 0)";
    first.execute(sqlx::raw_sql("BEGIN")).await.expect("begun");
    first.execute(sqlx::raw_sql(insert)).await.expect("inserted");
    let second = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.create_key(&new_key(2), None, &audit("key.create")).await })
    };
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + CALL_MAX;
    let mut other = PgConnectOptions::from_str(&url).expect("an address").connect().await.expect("a connection");
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut other).await.expect("a count") == 0 {
        assert!(Instant::now() < deadline, "nobody waits");
    }
    // Nothing of either is seen before the first has committed.
    assert_eq!(store.pulse().await.expect("a pulse").keys, 0);
    first.execute(sqlx::raw_sql("COMMIT")).await.expect("committed");
    let second = second.await.expect("no panic").expect("a key");
    let rows = store.keys_changed(0, PAGE_MAX).await.expect("keys");
    assert_eq!(rows.iter().map(|row| row.hash[0]).collect::<Vec<_>>(), [0xaa, 2]);
    assert_eq!(rows[1].change, second.change);
    for link in [first, other] {
        link.close().await.expect("an end");
    }
}

#[tokio::test]
async fn a_call_on_a_file_that_is_given_up_leaves_no_lock_behind() {
    let bench = Bench::file().await;
    for number in 1..40 {
        let store = Arc::clone(&bench.store);
        let change = tokio::spawn(async move { store.create_key(&new_key(number), None, &audit("key.create")).await });
        sleep(Duration::from_micros(u64::from(number) * 50)).await;
        change.abort();
    }
    bench.store.create_key(&new_key(99), None, &audit("key.create")).await.expect("a key");
    let keys = bench.store.keys(0, PAGE_MAX).await.expect("keys");
    assert_eq!(bench.store.audit_page(None, PAGE_MAX).await.expect("entries").len(), keys.len());
}
