//! The reading side of usage over SQL: time, turns, and which statements make up which call.
//!
//! A report may read for half a minute, so that its calls have a bound of their own and wait for one of a few turns: no
//! number of reports takes every connection. A turn ends when the database has ended its work, not when somebody stops
//! waiting for it. That one was too slow says nothing of the database, and is not told as its absence.

use super::answer::Answer;
use super::statement::Statement;
use super::{
    REPORT_CALL_MAX, REPORT_TURN_MAX, ReportLog, ReportMark, UsageFilter, UsageLine, UsageMark, UsageRead, UsageSource,
    UsageSums, answer, report_log, statement,
};
use crate::store::session::{Access, Session, deadline};
use crate::store::sql::{Source, SqlStore, call};
use crate::store::value::Value;
use crate::store::{StoreError, Stored};
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, sleep, timeout};

/// Longest that a database may work at a statement, as servers are told too: less than the call has left then.
const STATEMENT_MAX: Duration = Duration::from_secs(25);

/// How long after its connection was closed a server may still be at a statement: it looks every half second.
const NOTICED_MAX: Duration = Duration::from_secs(1);

/// A value of a statement that outlives whoever asked.
enum Kept {
    Int(i64),
    MaybeInt(Option<i64>),
    Text(String),
    Bytes(Vec<u8>),
}

impl Kept {
    fn of(value: &Value<'_>) -> Self {
        match *value {
            Value::Int(number) => Self::Int(number),
            Value::MaybeInt(number) => Self::MaybeInt(number),
            Value::Text(text) => Self::Text(text.to_owned()),
            Value::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
        }
    }

    fn value(&self) -> Value<'_> {
        match self {
            Self::Int(number) => Value::Int(*number),
            Self::MaybeInt(number) => Value::MaybeInt(*number),
            Self::Text(text) => Value::Text(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
        }
    }
}

/// A reading call that goes on whether it is waited for or not, until the database has ended it.
struct Reading {
    session: Session,
    sql: String,
    /// What is asked with the values before a copy.
    settings: Option<String>,
    is_copy: bool,
    values: Vec<Kept>,
    turn: OwnedSemaphorePermit,
}

impl Reading {
    /// Reads to the end, or until nobody waits any more: `left` ends then.
    async fn done(self, left: oneshot::Receiver<()>) -> Stored<Answer> {
        let Self { mut session, sql, settings, is_copy, values, turn } = self;
        let is_postgres = session.is_postgres();
        let given_up = Arc::new(AtomicBool::new(false));
        let mut reading = Box::pin(async {
            let values: Vec<Value<'_>> = values.iter().map(Kept::value).collect();
            let done = async {
                if let Some(settings) = settings {
                    session.rows_once(settings, &values).await?;
                }
                if is_copy {
                    return session.copied(sql).await.map(Answer::Copied);
                }
                let limit = Instant::now() + STATEMENT_MAX;
                session.rows_long(sql, &values, &given_up, limit).await.map(Answer::Rows)
            };
            let done = done.await;
            session.end(done).await
        });
        let done = tokio::select! {
            done = &mut reading => done,
            _ = left => {
                given_up.store(true, Ordering::Relaxed);
                if is_postgres {
                    // Closes the connection, and no other.
                    drop(reading);
                    sleep(NOTICED_MAX).await;
                    Err(StoreError::Unreachable("nobody waits for it any more".to_owned()))
                } else {
                    reading.await
                }
            }
        };
        drop(turn);
        done
    }
}

impl<S: Source> SqlStore<S> {
    /// What a report's statement answers: waits for its turn, begins, and asks.
    pub(super) async fn report(&self, asked: &Statement<'_>) -> Stored<Answer> {
        let turn = timeout(REPORT_TURN_MAX, Arc::clone(self.reports()).acquire_owned()).await;
        // It is never closed.
        let turn = turn.map_err(|_| busy())?.map_err(|_| busy())?;
        let session = self.begin_report(Instant::now() + (REPORT_CALL_MAX - REPORT_TURN_MAX)).await?;
        let values = asked.values.iter().map(Kept::of).collect();
        let (sql, settings, is_copy) = (asked.sql.clone(), asked.settings(), asked.is_copy);
        let reading = Reading { session, sql, settings, is_copy, values, turn };
        let (waits, left) = oneshot::channel();
        let done = tokio::spawn(reading.done(left)).await;
        drop(waits);
        done.unwrap_or_else(|_| Err(StoreError::Unreachable("the process ends".to_owned())))
    }

    pub(super) fn is_postgres(&self) -> bool {
        self.source().kind() == "postgres"
    }
}

fn busy() -> StoreError {
    StoreError::Busy("too many reports are being made at once: ask again later".to_owned())
}

#[async_trait]
impl<S: Source> UsageRead for SqlStore<S> {
    async fn usage_page(
        &self,
        filter: &UsageFilter,
        after: Option<&UsageMark>,
        limit: usize,
    ) -> Stored<Vec<UsageLine>> {
        let asked = statement::page(self.is_postgres(), filter, after, limit)?;
        answer::lines(&self.report(&asked).await?, &asked.parts)
    }

    async fn usage_sums(&self, sums: &UsageSums<'_>) -> Stored<Vec<UsageLine>> {
        if sums.pieces.is_empty() {
            return Ok(Vec::new());
        }
        let asked = statement::sums(self.is_postgres(), sums)?;
        answer::lines(&self.report(&asked).await?, &asked.parts)
    }

    async fn usage_ends(&self, source: UsageSource, filter: &UsageFilter) -> Stored<Option<(u64, u64)>> {
        let Answer::Rows(rows) = self.report(&statement::ends(source, filter)?).await? else { return Ok(None) };
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(row.maybe_number(0)?.zip(row.maybe_number(1)?))
    }

    async fn log_reports(&self, reports: &[ReportLog]) -> Stored<()> {
        call!(self, Write, |session| report_log::add(&mut session, reports))
    }

    async fn report_page(&self, before: Option<&ReportMark>, limit: usize) -> Stored<Vec<ReportLog>> {
        call!(self, Read, |session| report_log::page(&mut session, before, limit))
    }
}
