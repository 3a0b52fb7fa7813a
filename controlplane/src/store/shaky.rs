//! For tests: a store that can be away or hang, and that somebody else changes just before a change.

use super::sqlite::SqliteStore;
use super::{
    ArrivalMark, ArrivedSpan, AssetRow, AuditEntry, Committed, KeyChange, KeyRow, Migrated, MonthUse, NewKey, Pulse,
    ReportLog, ReportMark, Store, StoreError, Stored, SyncMarks, SyncRead, TierRow, UsageFilter, UsageLine, UsageMark,
    UsageRead, UsageRow, UsageSource, UsageSpan, UsageSums, UsageWrite, Witness, WitnessMarks,
};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// See the module.
pub struct Shaky {
    /// The store itself, always there.
    pub inner: SqliteStore,
    /// Whether nothing gets through.
    pub away: AtomicBool,
    /// How many changes of parameters somebody else comes before.
    pub meddles: AtomicI64,
    /// Whether calls that begin now never end.
    pub hangs: AtomicBool,
    /// Calls that have not ended for that.
    pub hung: AtomicU64,
    /// Whether usage is committed, and nobody hears of it.
    pub loses: AtomicBool,
}

impl Shaky {
    /// Nothing is wrong with it yet.
    pub const fn new(inner: SqliteStore) -> Self {
        Self {
            inner,
            away: AtomicBool::new(false),
            meddles: AtomicI64::new(0),
            hangs: AtomicBool::new(false),
            hung: AtomicU64::new(0),
            loses: AtomicBool::new(false),
        }
    }
}

macro_rules! pass {
    ($self:ident.$call:ident($($argument:expr),*)) => {{
        if $self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Unreachable("unplugged".to_owned()));
        }
        if $self.hangs.load(Ordering::Relaxed) {
            $self.hung.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        $self.inner.$call($($argument),*).await
    }};
}

#[async_trait]
impl Store for Shaky {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    async fn set_pool(&self, open_max: u32, idle_max: u32) {
        self.inner.set_pool(open_max, idle_max).await;
    }
    async fn migrate(&self) -> Stored<Migrated> {
        pass!(self.migrate())
    }
    async fn pulse(&self) -> Stored<Pulse> {
        pass!(self.pulse())
    }
    async fn keys_changed(&self, after: i64, limit: usize) -> Stored<Vec<KeyRow>> {
        pass!(self.keys_changed(after, limit))
    }
    async fn keys(&self, after: u32, limit: usize) -> Stored<Vec<KeyRow>> {
        pass!(self.keys(after, limit))
    }
    async fn key(&self, id: u32) -> Stored<Option<KeyRow>> {
        pass!(self.key(id))
    }
    async fn create_key(&self, key: &NewKey, replaces: Option<(u32, u64)>, audit: &AuditEntry) -> Stored<KeyRow> {
        pass!(self.create_key(key, replaces, audit))
    }
    async fn change_key(&self, id: u32, change: KeyChange, audit: &AuditEntry) -> Stored<KeyRow> {
        pass!(self.change_key(id, change, audit))
    }
    async fn tiers(&self) -> Stored<Vec<TierRow>> {
        pass!(self.tiers())
    }
    async fn put_tier(&self, tier: &TierRow, audit: &AuditEntry) -> Stored<()> {
        pass!(self.put_tier(tier, audit))
    }
    async fn parameters(&self) -> Stored<BTreeMap<String, String>> {
        pass!(self.parameters())
    }
    async fn put_parameters(
        &self,
        changes: &BTreeMap<String, Option<String>>,
        expected: &BTreeMap<String, Option<String>>,
        audit: &[AuditEntry],
    ) -> Stored<()> {
        if self.meddles.fetch_sub(1, Ordering::Relaxed) > 0 {
            let present = self.inner.parameters().await?;
            for name in changes.keys() {
                let next = if present.get(name).is_some_and(|text| text == "11") { "12" } else { "11" };
                let other = BTreeMap::from([(name.clone(), Some(next.to_owned()))]);
                let expected = BTreeMap::from([(name.clone(), present.get(name).cloned())]);
                self.inner.put_parameters(&other, &expected, &[]).await?;
            }
        }
        pass!(self.put_parameters(changes, expected, audit))
    }
    async fn note_reload(&self, audit: &AuditEntry) -> Stored<i64> {
        pass!(self.note_reload(audit))
    }
    async fn asset_map(&self) -> Stored<Vec<AssetRow>> {
        pass!(self.asset_map())
    }
    async fn put_asset_map(&self, exchange: &str, rows: &[AssetRow], audit: &AuditEntry) -> Stored<()> {
        pass!(self.put_asset_map(exchange, rows, audit))
    }
    async fn add_month_use(&self, writer: &str, batch: i64, rows: &[MonthUse]) -> Stored<Vec<MonthUse>> {
        pass!(self.add_month_use(writer, batch, rows))
    }
    async fn month_use(&self, month: u32, keys: &[u32]) -> Stored<Vec<MonthUse>> {
        pass!(self.month_use(month, keys))
    }
    async fn audit(&self, entry: &AuditEntry) -> Stored<()> {
        pass!(self.audit(entry))
    }
    async fn audit_page(&self, before: Option<i64>, limit: usize) -> Stored<Vec<(i64, AuditEntry)>> {
        pass!(self.audit_page(before, limit))
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}

#[async_trait]
impl UsageWrite for Shaky {
    async fn usage_position(&self, node: &str, segment: u64) -> Stored<u64> {
        pass!(self.usage_position(node, segment))
    }
    async fn commit_usage(&self, span: UsageSpan<'_>, rows: &[UsageRow]) -> Stored<Committed> {
        let done = pass!(self.commit_usage(span, rows));
        if done.is_ok() && self.loses.load(Ordering::Relaxed) {
            return Err(StoreError::Unreachable("the answer was lost".to_owned()));
        }
        done
    }
    async fn add_usage(&self, rows: &[UsageRow]) -> Stored<u64> {
        pass!(self.add_usage(rows))
    }
    async fn prune_usage(&self, before_ms: u64) -> Stored<u64> {
        pass!(self.prune_usage(before_ms))
    }
}

#[async_trait]
impl UsageRead for Shaky {
    async fn usage_page(
        &self,
        filter: &UsageFilter,
        after: Option<&UsageMark>,
        limit: usize,
    ) -> Stored<Vec<UsageLine>> {
        pass!(self.usage_page(filter, after, limit))
    }
    async fn usage_sums(&self, sums: &UsageSums<'_>) -> Stored<Vec<UsageLine>> {
        pass!(self.usage_sums(sums))
    }
    async fn usage_ends(&self, source: UsageSource, filter: &UsageFilter) -> Stored<Option<(u64, u64)>> {
        pass!(self.usage_ends(source, filter))
    }
    async fn log_reports(&self, reports: &[ReportLog]) -> Stored<()> {
        pass!(self.log_reports(reports))
    }
    async fn report_page(&self, before: Option<&ReportMark>, limit: usize) -> Stored<Vec<ReportLog>> {
        pass!(self.report_page(before, limit))
    }
}

#[async_trait]
impl SyncRead for Shaky {
    async fn sync_marks(&self) -> Stored<SyncMarks> {
        pass!(self.sync_marks())
    }
    async fn sync_witness(&self, below: &WitnessMarks) -> Stored<Witness> {
        pass!(self.sync_witness(below))
    }
    async fn usage_arrivals(&self, after: &ArrivalMark, before: i64, limit: usize) -> Stored<Vec<ArrivedSpan>> {
        pass!(self.usage_arrivals(after, before, limit))
    }
    async fn usage_arrived(&self, after: &ArrivalMark, to: &ArrivalMark, from_ms: u64) -> Stored<Vec<UsageLine>> {
        pass!(self.usage_arrived(after, to, from_ms))
    }
    async fn reports_arrived(
        &self,
        after: &(i64, String),
        before: i64,
        from_ms: u64,
        limit: usize,
    ) -> Stored<Vec<(i64, ReportLog)>> {
        pass!(self.reports_arrived(after, before, from_ms, limit))
    }
    async fn key_hashes(&self, ids: &[u32]) -> Stored<Vec<(u32, [u8; 32])>> {
        pass!(self.key_hashes(ids))
    }
}
