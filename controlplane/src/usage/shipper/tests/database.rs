//! The shipper over a database that is away and loses answers: each row is there once, and counted once in the sums.

use super::*;
use crate::store::shaky::Shaky;
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, UsageFilter, UsageLine, UsageOrder, UsagePiece, UsageRead, UsageSource, UsageSums};
use crate::usage::store_outlet::StoreOutlet;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows in the store, the requests they stand for, and those in the sums per hour.
async fn committed(store: &SqliteStore) -> (u64, u64, u64) {
    let filter = UsageFilter {
        from_ms: 0,
        to_ms: 2_000_000_000_000,
        key: None,
        asset: None,
        protocol: None,
        status: None,
        tier: None,
        node: None,
    };
    let rows = store.usage_page(&filter, None, 10_000).await.expect("rows");
    let hour_ms = 3_600_000;
    let to_ms = filter.to_ms / hour_ms * hour_ms;
    let pieces =
        [UsagePiece { source: UsageSource::Hours, from_ms: 0, to_ms, base_ms: 0, step_ms: to_ms, minus: false }];
    let order = UsageOrder::Fields;
    let sums = UsageSums { filter: &filter, pieces: &pieces, timed: false, fields: &[], order, after: None, limit: 10 };
    let hours = store.usage_sums(&sums).await.expect("sums");
    let requests = |lines: &[UsageLine]| lines.iter().map(|line| line.requests).sum();
    (rows.len() as u64, requests(&rows), requests(&hours))
}

#[tokio::test]
async fn a_shaky_database_has_every_row_once_in_the_end() {
    let data_dir = tempfile::tempdir().expect("a folder");
    let shaky = Arc::new(Shaky::new(SqliteStore::in_memory().await.expect("a store")));
    shaky.inner.migrate().await.expect("its schema");
    let ledger = ledger_of(0);
    let journal = journal(data_dir.path(), &ledger);
    let outlet = Arc::new(StoreOutlet::new(Arc::clone(&shaky) as Arc<dyn Store>));
    let (shelf, tally) = (Arc::clone(journal.shelf()), Arc::clone(journal.tally()));
    let shipper = Shipper::start(ShipperSetup { shelf: Arc::clone(&shelf), tally, outlet, observer: None });
    let progress = Arc::clone(shipper.progress());
    let next = AtomicU64::new(0);
    let some_more = || {
        let first = next.fetch_add(400, Ordering::Relaxed) as u32;
        count(&ledger, first..first + 400);
    };
    for _ in 0..2 {
        some_more();
        until("delivered", || shelf.waiting().records == 0 && ledger.held().0 == 0).await;
        for fault in [&shaky.loses, &shaky.away] {
            fault.store(true, Ordering::Relaxed);
            let failures = progress.read().failures;
            some_more();
            until("it fails", || progress.read().failures > failures).await;
            some_more();
            fault.store(false, Ordering::Relaxed);
        }
    }
    drop(journal.stop());
    assert!(shipper.finish(harness::PATIENCE).await);
    let records = next.load(Ordering::Relaxed);
    assert_eq!(committed(&shaky.inner).await, (records, records * 2, records * 2));
    assert_eq!(fs::read_dir(data_dir.path().join("journal")).expect("a folder").count(), 0);
}
