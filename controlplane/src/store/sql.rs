//! A store over SQL: which statements make up which call.
//!
//! The one place where a call begins and ends: time, transaction, audit row, schema check and counting are the same for
//! every call and both databases. What the statements are is in `keys`, `parameters` and `usage`.

use super::health::{StoreHealth, Watch};
use super::session::{Access, Link, Session, deadline};
use super::usage_batch::Batch;
use super::usage_days::{self, Days};
use super::usage_read::report_log;
use super::{
    AssetRow, AuditEntry, Committed, KeyChange, KeyRow, Migrated, MonthUse, NewKey, Pulse, Store, StoreError, Stored,
    TierRow, UsageRow, UsageSpan, UsageWrite, report_calls_max,
};
use super::{arrivals, keys, parameters, schema, usage, usage_rows};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tuning::clock;

/// Where connections come from.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// As [`Store::kind`].
    fn kind(&self) -> &'static str;

    /// A connection for one call, that must be had by `deadline`.
    async fn link(&self, access: Access, deadline: Instant) -> Stored<Link>;

    /// A connection for one reading call of a report, that must be had by `deadline`.
    async fn report_link(&self, deadline: Instant) -> Stored<Link> {
        self.link(Access::Read, deadline).await
    }

    /// As [`Store::set_pool`].
    async fn set_pool(&self, open_max: u32, idle_max: u32);

    /// As [`Store::migrate`], on a connection of its own.
    async fn migrate(&self) -> Stored<Migrated>;

    /// Connections open, and how many of them are idle.
    fn connections(&self) -> (u32, u32);

    /// How often credentials were fetched, and how often that failed; zeros where they are not fetched.
    fn fetches(&self) -> (u64, u64) {
        (0, 0)
    }

    /// As [`Store::close`].
    async fn close(&self);
}

/// A store over SQL.
pub struct SqlStore<S> {
    source: S,
    watch: Watch,
    /// Whether the schema was once found to be the right one.
    checked: AtomicBool,
    days: Days,
    /// Turns of reports.
    reports: Arc<Semaphore>,
}

/// One call: begins, does `$work` with the session, ends, and is counted.
macro_rules! call {
    ($store:expr, $access:ident, |$session:ident| $work:expr) => {
        call!($store, $access, deadline(), |$session| $work)
    };
    ($store:expr, $access:ident, $deadline:expr, |$session:ident| $work:expr) => {{
        let done = match $store.begin(Access::$access, $deadline).await {
            Ok(mut $session) => {
                let done = $work.await;
                $session.end(done).await
            }
            Err(why) => Err(why),
        };
        $store.note(Access::$access, done)
    }};
}

pub(super) use call;

/// A change and its audit row.
macro_rules! audited {
    ($store:expr, $audit:expr, |$session:ident| $work:expr) => {
        call!($store, Write, |$session| async {
            let done = $work.await?;
            parameters::audit(&mut $session, $audit).await?;
            Ok(done)
        })
    };
}

impl<S: Source> SqlStore<S> {
    /// A store whose connections come from `source`.
    pub fn new(source: S) -> Self {
        let reports = Arc::new(Semaphore::new(report_calls_max(source.kind())));
        Self { source, watch: Watch::default(), checked: AtomicBool::new(false), days: Days::default(), reports }
    }

    /// Turns of reports: whoever has one may read for longer than other calls.
    pub(super) const fn reports(&self) -> &Arc<Semaphore> {
        &self.reports
    }

    /// Where its connections come from.
    pub const fn source(&self) -> &S {
        &self.source
    }

    pub(super) async fn begin(&self, access: Access, deadline: Instant) -> Stored<Session> {
        self.check(deadline).await?;
        let link = self.source.link(access, deadline).await?;
        Session::begin(link, access, deadline).await
    }

    /// As [`SqlStore::begin`], to read for a report.
    pub(super) async fn begin_report(&self, deadline: Instant) -> Stored<Session> {
        // As other calls do, in the time that they have.
        self.check(super::session::deadline()).await?;
        let link = self.source.report_link(deadline).await?;
        Session::begin(link, Access::Read, deadline).await
    }

    /// Looks once whether the schema is the right one.
    async fn check(&self, deadline: Instant) -> Stored<()> {
        if !self.checked.load(Ordering::Relaxed) {
            let link = self.source.link(Access::Read, deadline).await?;
            let mut session = Session::begin(link, Access::Read, deadline).await?;
            let fits = schema::check(&mut session).await;
            session.end(fits).await?;
            self.checked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes the partitions that a batch needs, where there are such, in a time apart from that of the batch: 4 s at
    /// the most, where a server hangs just then.
    async fn make_days(&self, batch: &Batch<'_>) -> Stored<()> {
        if self.source.kind() != "postgres" {
            return Ok(());
        }
        let days = self.days.missing(clock::now().wall_ms, batch.times_ms());
        match usage_days::make(&self.days, &days, || self.begin(Access::Write, deadline())).await {
            Ok(()) => Ok(()),
            gone => self.note(Access::Write, gone),
        }
    }

    /// Asks for one text, past what a store tells.
    #[cfg(test)]
    pub async fn ask(&self, sql: &'static str) -> Stored<String> {
        let row = call!(self, Read, |session| session.row(sql, &[]))?;
        row.ok_or(StoreError::NotFound)?.text(0)
    }

    pub(super) fn note<T>(&self, access: Access, done: Stored<T>) -> Stored<T> {
        if matches!(done, Err(StoreError::NotMigrated(_))) {
            self.checked.store(false, Ordering::Relaxed);
        }
        self.watch.note(self.source.kind(), access, &done);
        done
    }
}

#[async_trait]
impl<S: Source> Store for SqlStore<S> {
    fn kind(&self) -> &'static str {
        self.source.kind()
    }

    fn health(&self) -> StoreHealth {
        self.watch.health(self.source.connections(), self.source.fetches())
    }

    async fn set_pool(&self, open_max: u32, idle_max: u32) {
        self.source.set_pool(open_max, idle_max).await;
    }

    async fn migrate(&self) -> Stored<Migrated> {
        let done = match timeout(schema::MIGRATE_MAX, self.source.migrate()).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Unreachable(format!("not done in {} s", schema::MIGRATE_MAX.as_secs()))),
        };
        self.note(Access::Write, done)
    }

    async fn pulse(&self) -> Stored<Pulse> {
        call!(self, Read, |session| keys::pulse(&mut session))
    }

    async fn keys_changed(&self, after: i64, limit: usize) -> Stored<Vec<KeyRow>> {
        call!(self, Read, |session| keys::changed(&mut session, after, limit))
    }

    async fn keys(&self, after: u32, limit: usize) -> Stored<Vec<KeyRow>> {
        call!(self, Read, |session| keys::list(&mut session, after, limit))
    }

    async fn key(&self, id: u32) -> Stored<Option<KeyRow>> {
        call!(self, Read, |session| keys::one(&mut session, id))
    }

    async fn create_key(&self, key: &NewKey, replaces: Option<(u32, u64)>, audit: &AuditEntry) -> Stored<KeyRow> {
        audited!(self, audit, |session| keys::create(&mut session, key, replaces))
    }

    async fn change_key(&self, id: u32, change: KeyChange, audit: &AuditEntry) -> Stored<KeyRow> {
        audited!(self, audit, |session| keys::change(&mut session, id, change))
    }

    async fn tiers(&self) -> Stored<Vec<TierRow>> {
        call!(self, Read, |session| keys::tiers(&mut session))
    }

    async fn put_tier(&self, tier: &TierRow, audit: &AuditEntry) -> Stored<()> {
        audited!(self, audit, |session| keys::put_tier(&mut session, tier))
    }

    async fn parameters(&self) -> Stored<BTreeMap<String, String>> {
        call!(self, Read, |session| parameters::parameters(&mut session))
    }

    async fn put_parameters(
        &self,
        changes: &BTreeMap<String, Option<String>>,
        expected: &BTreeMap<String, Option<String>>,
        audit: &[AuditEntry],
    ) -> Stored<()> {
        call!(self, Write, |session| parameters::put_parameters(&mut session, changes, expected, audit))
    }

    async fn note_reload(&self, audit: &AuditEntry) -> Stored<i64> {
        audited!(self, audit, |session| parameters::note_reload(&mut session))
    }

    async fn asset_map(&self) -> Stored<Vec<AssetRow>> {
        call!(self, Read, |session| parameters::asset_map(&mut session))
    }

    async fn put_asset_map(&self, exchange: &str, rows: &[AssetRow], audit: &AuditEntry) -> Stored<()> {
        audited!(self, audit, |session| parameters::put_asset_map(&mut session, exchange, rows))
    }

    async fn add_month_use(&self, writer: &str, batch: i64, rows: &[MonthUse]) -> Stored<Vec<MonthUse>> {
        call!(self, Write, |session| usage::add(&mut session, writer, batch, rows))
    }

    async fn month_use(&self, month: u32, keys: &[u32]) -> Stored<Vec<MonthUse>> {
        call!(self, Read, |session| usage::of_month(&mut session, month, keys))
    }

    async fn audit(&self, entry: &AuditEntry) -> Stored<()> {
        call!(self, Write, |session| parameters::audit(&mut session, entry))
    }

    async fn audit_page(&self, before: Option<i64>, limit: usize) -> Stored<Vec<(i64, AuditEntry)>> {
        call!(self, Read, |session| parameters::audit_page(&mut session, before, limit))
    }

    async fn close(&self) {
        self.source.close().await;
    }
}

#[async_trait]
impl<S: Source> UsageWrite for SqlStore<S> {
    async fn usage_position(&self, node: &str, segment: u64) -> Stored<u64> {
        call!(self, Read, |session| usage_rows::position(&mut session, node, segment))
    }

    async fn commit_usage(&self, span: UsageSpan<'_>, rows: &[UsageRow]) -> Stored<Committed> {
        usage_rows::check_span(span, rows)?;
        let batch = Batch::of(rows)?;
        self.make_days(&batch).await?;
        call!(self, Write, |session| usage_rows::commit(&mut session, span, &batch))
    }

    async fn add_usage(&self, rows: &[UsageRow]) -> Stored<u64> {
        let batch = Batch::of(rows)?;
        self.make_days(&batch).await?;
        call!(self, Write, |session| usage_rows::add(&mut session, &batch))
    }

    async fn prune_usage(&self, before_ms: u64) -> Stored<u64> {
        let gone = call!(self, Write, |session| async {
            let rows = usage_rows::prune(&mut session, before_ms).await?;
            let before_ms = usage_rows::horizon(&mut session, before_ms).await?;
            let reports = report_log::prune(&mut session, before_ms).await?;
            Ok(rows.max(reports))
        })?;
        // By itself: what it costs is no reason to keep rows.
        let arrivals = call!(self, Write, |session| arrivals::prune(&mut session))?;
        Ok(gone.max(arrivals))
    }
}
