//! The reading side of usage over SQL: time, turns, and which statements make up which call.
//!
//! A report may read for half a minute, so that its calls have a bound of their own and wait for one of a few turns: no
//! number of reports takes every connection. That one was too slow says nothing of the database, and is not told as its
//! absence.

use super::{
    REPORT_CALL_MAX, REPORT_TURN_MAX, ReportLog, ReportMark, UsageFilter, UsageLine, UsageMark, UsageRead, UsageSums,
    answer, report_log, statement,
};
use crate::store::session::{Access, deadline};
use crate::store::sql::{Source, SqlStore, call};
use crate::store::{StoreError, Stored};
use async_trait::async_trait;
use tokio::time::{Instant, timeout};

/// What a server is told before a report's statement: it gives up before the call does. Compiling a statement costs more
/// than any of these takes; sums of many groups stay in memory, 32 MiB for each of the few turns.
const FIRST_WORDS: &str = "SET LOCAL statement_timeout = 25000; SET LOCAL jit = off; SET LOCAL work_mem = '32MB'";

/// One reading call of a report: waits for its turn, begins, asks `$statement`, and has `$read` read what was answered.
macro_rules! report {
    ($store:expr, |$postgres:ident| $statement:expr, |$asked:ident, $rows:ident| $read:expr) => {{
        // It is never closed.
        let _turn = timeout(REPORT_TURN_MAX, $store.reports().acquire()).await.map_err(|_| busy())?;
        let deadline = Instant::now() + (REPORT_CALL_MAX - REPORT_TURN_MAX);
        let mut session = $store.begin(Access::Read, deadline).await?;
        let done = async {
            session.read_only(FIRST_WORDS).await?;
            let $postgres = session.is_postgres();
            let $asked = $statement?;
            let $rows = session.rows_once($asked.sql, &$asked.values).await?;
            $read
        };
        let done = done.await;
        session.end(done).await
    }};
}

fn busy() -> StoreError {
    StoreError::Unreachable("too many reports are being made at once: ask again later".to_owned())
}

#[async_trait]
impl<S: Source> UsageRead for SqlStore<S> {
    async fn usage_page(
        &self,
        filter: &UsageFilter,
        after: Option<&UsageMark>,
        limit: usize,
    ) -> Stored<Vec<UsageLine>> {
        report!(self, |postgres| statement::page(postgres, filter, after, limit), |asked, rows| {
            answer::lines(&rows, &asked.parts)
        })
    }

    async fn usage_sums(&self, sums: &UsageSums<'_>) -> Stored<Vec<UsageLine>> {
        if sums.pieces.is_empty() {
            return Ok(Vec::new());
        }
        report!(self, |postgres| statement::sums(postgres, sums), |asked, rows| answer::lines(&rows, &asked.parts))
    }

    async fn usage_ends(&self, filter: &UsageFilter) -> Stored<Option<(u64, u64)>> {
        report!(self, |_postgres| statement::ends(filter), |asked, rows| {
            let Some(row) = rows.first() else { return Ok(None) };
            Ok(row.maybe_number(0)?.zip(row.maybe_number(1)?))
        })
    }

    async fn log_report(&self, report: &ReportLog) -> Stored<()> {
        call!(self, Write, |session| report_log::add(&mut session, report))
    }

    async fn report_page(&self, before: Option<&ReportMark>, limit: usize) -> Stored<Vec<ReportLog>> {
        call!(self, Read, |session| report_log::page(&mut session, before, limit))
    }
}
