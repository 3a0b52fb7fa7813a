//! One call's hold on a connection: its time, its transaction, and what becomes of the connection afterwards.
//!
//! A connection that did not answer in time, or whose call was given up halfway, is closed and never used again where
//! it leads over a network; one to a file is a thread of this process, which finishes by itself, or is told to stop.
//! What is asked is not known.

use super::fault::meaning;
use super::postgres::Hold;
use super::value::{Row, Value};
use super::{CALL_MAX, StoreError, Stored};
use futures_util::TryStreamExt;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Executor, Postgres, SqlSafeStr, SqlStr, Sqlite, Transaction};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::{Instant, timeout_at};

/// Steps of SQLite's machine between two looks whether it is to stop: less than a millisecond's work.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// A connection taken from its pool.
pub enum Link {
    /// To a file, or memory, to read.
    Sqlite(PoolConnection<Sqlite>),
    /// To a file, or memory, with a transaction open.
    SqliteWrite(Transaction<'static, Sqlite>),
    /// To a server.
    Postgres(PoolConnection<Postgres>, Hold),
}

/// Whether a call changes anything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// One statement that only reads: it needs no transaction.
    Read,
    /// A transaction.
    Write,
}

/// A call under way.
pub struct Session {
    link: Option<Link>,
    deadline: Instant,
    /// Whether a transaction is open on a server.
    open: bool,
    /// Whether the connection owes an answer, or has broken.
    unsound: bool,
}

/// The values of one column of many rows, for a server.
pub enum Column<'a> {
    /// Numbers.
    Numbers(&'a [i64]),
    /// Texts.
    Texts(&'a [&'a str]),
}

/// When a call that begins now must have ended.
pub fn deadline() -> Instant {
    Instant::now() + CALL_MAX
}

/// Waits for `work`, but no longer than until `deadline`.
///
/// # Errors
/// Those of `work`, and `Unreachable` when the time is over.
pub async fn in_time<T>(deadline: Instant, work: impl Future<Output = Result<T, sqlx::Error>>) -> Stored<T> {
    match timeout_at(deadline, work).await {
        Ok(done) => done.map_err(|error| meaning(&error)),
        Err(_) => Err(StoreError::Unreachable("no answer in time".to_owned())),
    }
}

/// A statement with its values, for either database.
macro_rules! bound {
    ($sql:expr, $kept:expr, $values:expr) => {
        $values.iter().fold(sqlx::query($sql).persistent($kept), |query, value| match *value {
            Value::Int(number) => query.bind(number),
            Value::MaybeInt(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Bytes(bytes) => query.bind(bytes),
        })
    };
}

impl Session {
    /// Begins a call on a connection; it must end by `deadline`.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn begin(link: Link, access: Access, deadline: Instant) -> Stored<Self> {
        let mut session = Self { link: Some(link), deadline, open: false, unsound: false };
        if access == Access::Write {
            session.tell("BEGIN").await?;
            session.open = true;
        }
        Ok(session)
    }

    /// Every row that a statement answers.
    ///
    /// # Errors
    /// Of the database, as [`meaning`] has them.
    pub async fn rows(&mut self, sql: &'static str, values: &[Value<'_>]) -> Stored<Vec<Row>> {
        self.ask(SqlStr::from_static(sql), true, values).await
    }

    /// As [`Session::rows`], for a statement that was put together from constant texts and is most likely not asked
    /// again soon: the server plans it for its values, and forgets it.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn rows_once(&mut self, sql: String, values: &[Value<'_>]) -> Stored<Vec<Row>> {
        self.ask(AssertSqlSafe(sql).into_sql_str(), false, values).await
    }

    async fn ask(&mut self, sql: SqlStr, kept: bool, values: &[Value<'_>]) -> Stored<Vec<Row>> {
        self.unsound = true;
        let deadline = self.deadline;
        let done = match self.link.as_mut() {
            Some(Link::Sqlite(link)) => {
                in_time(deadline, bound!(sql, kept, values).fetch_all(&mut **link)).await.map(sqlite)
            }
            Some(Link::SqliteWrite(link)) => {
                in_time(deadline, bound!(sql, kept, values).fetch_all(&mut **link)).await.map(sqlite)
            }
            Some(Link::Postgres(link, _)) => {
                let rows = in_time(deadline, bound!(sql, kept, values).fetch_all(&mut **link)).await;
                rows.map(|rows| rows.into_iter().map(Row::Postgres).collect())
            }
            None => Err(gone()),
        };
        self.judge(done)
    }

    /// What a server copies out by a `COPY … TO STDOUT`. One that fails leaves the connection amidst an answer: it is not
    /// used on.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn copied(&mut self, sql: String) -> Stored<Vec<u8>> {
        let deadline = self.deadline;
        let Some(Link::Postgres(link, _)) = self.link.as_mut() else { return Err(gone()) };
        self.unsound = true;
        let bytes = in_time(deadline, async {
            let mut parts = link.copy_out_raw(&sql).await?;
            let mut bytes = Vec::new();
            while let Some(part) = parts.try_next().await? {
                bytes.extend_from_slice(&part);
            }
            Ok(bytes)
        });
        let bytes = bytes.await?;
        self.unsound = false;
        Ok(bytes)
    }

    /// As [`Session::rows_once`], for a statement that may take long. On a file, whose thread goes on with it whatever
    /// becomes of the call, it is stopped soon after `given_up` is set, and at `limit`; a server keeps its own time.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn rows_long(
        &mut self,
        sql: String,
        values: &[Value<'_>],
        given_up: &Arc<AtomicBool>,
        limit: Instant,
    ) -> Stored<Vec<Row>> {
        self.stop_when(Some((given_up, limit))).await?;
        let rows = self.rows_once(sql, values).await;
        self.stop_when(None).await?;
        rows
    }

    /// Says when a statement on a file is to be stopped, from now on.
    async fn stop_when(&mut self, bounds: Option<(&Arc<AtomicBool>, Instant)>) -> Stored<()> {
        let Some(Link::Sqlite(link)) = self.link.as_mut() else { return Ok(()) };
        let mut handle = link.lock_handle().await.map_err(|error| meaning(&error))?;
        match bounds {
            None => handle.remove_progress_handler(),
            Some((given_up, limit)) => {
                let given_up = Arc::downgrade(given_up);
                // A call that ended without taking it away stops nobody else's statement.
                handle.set_progress_handler(STEPS_BETWEEN_LOOKS, move || {
                    given_up.upgrade().is_none_or(|it| !it.load(Ordering::Relaxed) && Instant::now() < limit)
                });
            }
        }
        Ok(())
    }

    /// The one row that a statement answers, if it does.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn row(&mut self, sql: &'static str, values: &[Value<'_>]) -> Stored<Option<Row>> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// As [`Session::rows`], on a server, with a list bound to each place.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn rows_of(&mut self, sql: &'static str, columns: &[Column<'_>]) -> Stored<Vec<Row>> {
        let deadline = self.deadline;
        let Some(Link::Postgres(link, _)) = self.link.as_mut() else { return Err(gone()) };
        self.unsound = true;
        let query = columns.iter().fold(sqlx::query(sql), |query, column| match *column {
            Column::Numbers(numbers) => query.bind(numbers),
            Column::Texts(texts) => query.bind(texts),
        });
        let rows = in_time(deadline, query.fetch_all(&mut **link)).await;
        self.judge(rows.map(|rows| rows.into_iter().map(Row::Postgres).collect()))
    }

    /// Sends a server the data of a `COPY … FROM STDIN`; how many rows it took. It is as much a part of the transaction
    /// as any statement: all of it stands or none, and one that does not end in time has closed its connection.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn copy(&mut self, sql: &'static str, data: &[u8]) -> Stored<u64> {
        let deadline = self.deadline;
        let Some(Link::Postgres(link, _)) = self.link.as_mut() else { return Err(gone()) };
        self.unsound = true;
        let done = in_time(deadline, async {
            let mut sink = link.copy_in_raw(sql).await?;
            sink.send(data).await?;
            sink.finish().await
        });
        let done = done.await;
        self.judge(done)
    }

    /// Whether it leads to a server.
    #[must_use]
    pub const fn is_postgres(&self) -> bool {
        matches!(self.link, Some(Link::Postgres(..)))
    }

    /// Takes the text that the database at hand understands.
    #[must_use]
    pub const fn pick(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        if self.is_postgres() { postgres } else { sqlite }
    }

    /// Ends the call: what was changed stands when `done` is good, and not at all when it is not.
    ///
    /// # Errors
    /// That of `done`; `Unreachable` when nobody knows whether the change stands.
    pub async fn end<T>(mut self, done: Stored<T>) -> Stored<T> {
        if self.unsound {
            return done;
        }
        let ended = match self.link.take_if(|link| matches!(link, Link::SqliteWrite(_))) {
            Some(Link::SqliteWrite(link)) if done.is_ok() => in_time(self.deadline, link.commit()).await,
            Some(Link::SqliteWrite(link)) => in_time(self.deadline, link.rollback()).await,
            _ if self.open => self.tell(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).await,
            _ => Ok(()),
        };
        self.open &= ended.is_err();
        let done = done?;
        ended?;
        Ok(done)
    }

    /// Begins or ends a transaction on a server, or a part of one. SQLite's begin with their connection.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn tell(&mut self, sql: &'static str) -> Stored<()> {
        let Some(Link::Postgres(link, _)) = self.link.as_mut() else { return Ok(()) };
        self.unsound = true;
        let done = in_time(self.deadline, (**link).execute(sqlx::raw_sql(sql))).await;
        self.judge(done.map(drop))
    }

    /// Notes whether the connection may be used on after an answer.
    fn judge<T>(&mut self, done: Stored<T>) -> Stored<T> {
        // After a refusal it stands at the end of an answer; after `Unreachable` nobody knows where it stands.
        self.unsound = matches!(done, Err(StoreError::Unreachable(_)));
        done
    }
}

fn sqlite(rows: Vec<sqlx::sqlite::SqliteRow>) -> Vec<Row> {
    rows.into_iter().map(Row::Sqlite).collect()
}

fn gone() -> StoreError {
    StoreError::Unreachable("the connection was given up".to_owned())
}

impl Drop for Session {
    /// A transaction that is open on a file rolls itself back behind whatever its thread is at.
    fn drop(&mut self) {
        if let Some(Link::Postgres(link, hold)) = self.link.take() {
            hold.release(link, !self.open && !self.unsound);
        }
    }
}
