//! Usage rows, their sums and their segments' positions, in SQL.
//!
//! Every writer takes locks in one order, so that no two ever wait for each other: a segment's position, rows by place,
//! minutes, hours. Nobody counts a row in the sums but the transaction that put it there.

use super::session::{Column, Session};
use super::usage_batch::{Batch, Lines, Place};
use super::usage_write::{Committed, UsageRow, UsageSpan};
use super::value::{Row, Value, stored_number, stored_text};
use super::{NAME_BYTES_MAX, StoreError, Stored, arrivals};
use std::collections::HashSet;
use tuning::clock;

/// From so many rows on `COPY` is faster on PostgreSQL than a statement with its values, in spite of one more answer to
/// wait for.
const COPY_ROWS_MIN: usize = 1_000;

/// Rows removed in one step of pruning: a fraction of a second's work on either database.
const PRUNE_ROWS: i64 = 10_000;

/// Positions removed with it: a node makes a few in a day.
const PRUNE_CURSORS: i64 = 1_000;

/// How long the position of a segment that nobody touches is kept by the database's clock, ms: 400 days, at some 100
/// bytes for 16 MiB of a journal. That of a node's newest segment is kept for ever, whatever any clock says: a node that
/// asked for it in vain would deliver once more what is delivered, and its sums would count twice.
const CURSOR_KEPT_MS: i64 = 400 * 24 * 60 * 60 * 1_000;

/// A statement in which the database's own clock (Unix ms) stands between two parts, for SQLite and for PostgreSQL.
/// Nodes whose clocks differ then mean the same times.
macro_rules! with_clock {
    ($before:literal, $sqlite:literal, $postgres:literal) => {
        (
            concat!($before, "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)", $sqlite),
            concat!($before, "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)", $postgres),
        )
    };
    ($before:literal, $after:literal) => {
        with_clock!($before, $after, $after)
    };
}

pub(super) use with_clock;

pub async fn position(session: &mut Session, node: &str, segment: u64) -> Stored<u64> {
    let node = stored_text("a node's name", node, NAME_BYTES_MAX)?;
    let sql = "SELECT position FROM usage_cursors WHERE node = $1 AND segment = $2";
    let row = session.row(sql, &[node, Value::Int(stored_number(segment)?)]).await?;
    row.map_or(Ok(0), |row| row.number(0))
}

/// Whether a span is one, and rows are of it.
pub fn check_span(span: UsageSpan<'_>, rows: &[UsageRow]) -> Stored<()> {
    let UsageSpan { node, segment, from, to } = span;
    stored_number(to)?;
    if from > to {
        return Err(StoreError::Invalid(format!("a span of records ends at {to} before it begins at {from}")));
    }
    let is_of = |row: &UsageRow| *row.node == *node && row.segment == segment && (from..to).contains(&row.offset);
    if rows.iter().all(is_of) { Ok(()) } else { Err(StoreError::Invalid("a record is not of its span".to_owned())) }
}

pub async fn commit(session: &mut Session, span: UsageSpan<'_>, batch: &Batch<'_>) -> Stored<Committed> {
    if !advance(session, span).await? {
        return Ok(Committed::Elsewhere(position(session, span.node, span.segment).await?));
    }
    add(session, batch).await?;
    Ok(Committed::Done)
}

/// Moves a segment's position over the span, if it stands where the span begins.
async fn advance(session: &mut Session, span: UsageSpan<'_>) -> Stored<bool> {
    let node = stored_text("a node's name", span.node, NAME_BYTES_MAX)?;
    let number = |number| stored_number(number).map(Value::Int);
    let values = [node, number(span.segment)?, number(span.from)?, number(span.to)?];
    let (sqlite, postgres) = if span.from == 0 {
        with_clock!(
            "INSERT INTO usage_cursors (node, segment, position, last_time_ms) VALUES ($1, $2, $4, ",
            ") ON CONFLICT (node, segment) DO UPDATE SET position = excluded.position, last_time_ms = \
             excluded.last_time_ms WHERE usage_cursors.position = CAST($3 AS BIGINT) RETURNING position"
        )
    } else {
        with_clock!(
            "UPDATE usage_cursors SET position = $4, last_time_ms = ",
            " WHERE node = $1 AND segment = $2 AND position = CAST($3 AS BIGINT) RETURNING position"
        )
    };
    let sql = session.pick(sqlite, postgres);
    Ok(session.row(sql, &values).await?.is_some())
}

/// Adds the rows that are not there, and their sums, and notes that they came; how many they were.
pub async fn add(session: &mut Session, batch: &Batch<'_>) -> Stored<u64> {
    if batch.count() == 0 {
        return Ok(0);
    }
    let added = add_rows(session, batch).await?;
    if added > 0 {
        arrivals::add(session, batch).await?;
    }
    Ok(added)
}

/// Adds the rows that are not there, and their sums; how many they were.
async fn add_rows(session: &mut Session, batch: &Batch<'_>) -> Stored<u64> {
    let lines = batch.lines();
    if lines.count() >= COPY_ROWS_MIN && session.is_postgres() && copied(session, &lines).await? {
        add_sums(session, batch, None).await?;
        return Ok(lines.count() as u64);
    }
    let added = put(session, (LOGS_SQLITE, LOGS_POSTGRES), &lines).await?;
    if added.len() == lines.count() {
        add_sums(session, batch, None).await?;
    } else if !added.is_empty() {
        let place = |row: &Row| Ok((row.text(0)?, row.number(1)?, row.number(2)?));
        let places: Vec<(String, i64, i64)> = added.iter().map(place).collect::<Stored<_>>()?;
        let places: HashSet<Place<'_>> =
            places.iter().map(|(node, segment, offset)| (&**node, *segment, *offset)).collect();
        add_sums(session, batch, Some(&places)).await?;
    }
    Ok(added.len() as u64)
}

/// Adds the rows if none of them is there.
async fn copied(session: &mut Session, lines: &Lines<'_, 6>) -> Stored<bool> {
    session.tell("SAVEPOINT before_rows").await?;
    match session.copy(LOGS_COPY, &lines.copy()).await {
        Ok(_) => Ok(true),
        Err(StoreError::Conflict(_)) => {
            session.tell("ROLLBACK TO SAVEPOINT before_rows").await?;
            Ok(false)
        }
        Err(why) => Err(why),
    }
}

async fn add_sums(session: &mut Session, batch: &Batch<'_>, only: Option<&HashSet<Place<'_>>>) -> Stored<()> {
    let sums = batch.sums(only);
    put(session, (MINUTES_SQLITE, MINUTES_POSTGRES), &sums.minutes).await?;
    put(session, (HOURS_SQLITE, HOURS_POSTGRES), &sums.hours).await?;
    Ok(())
}

/// Runs the statement for SQLite or the one for PostgreSQL on lines.
async fn put<const N: usize>(
    session: &mut Session,
    sql: (&'static str, &'static str),
    lines: &Lines<'_, N>,
) -> Stored<Vec<Row>> {
    if session.is_postgres() {
        let numbers = lines.numbers.iter().map(|column| Column::Numbers(column));
        let columns: Vec<Column<'_>> = numbers.chain(lines.texts.iter().map(|column| Column::Texts(column))).collect();
        session.rows_of(sql.1, &columns).await
    } else {
        session.rows(sql.0, &[Value::Text(&lines.json()?)]).await
    }
}

/// The columns of `usage_logs` in the order of a batch's lines.
macro_rules! log_columns {
    () => {
        "usage_logs (time_ms, segment, record_offset, key_id, status, requests, node, asset, protocol, endpoint, tier)"
    };
}

const LOGS_COPY: &str = concat!("COPY ", log_columns!(), " FROM STDIN WITH (FORMAT binary)");
const LOGS_SQLITE: &str = concat!(
    "INSERT INTO ",
    log_columns!(),
    " SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, \
     value ->> 8, value ->> 9, value ->> 10 FROM json_each($1) WHERE true ON CONFLICT DO NOTHING RETURNING node, \
     segment, record_offset"
);
const LOGS_POSTGRES: &str = concat!(
    "INSERT INTO ",
    log_columns!(),
    " SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
     $7::text[], $8::text[], $9::text[], $10::text[], $11::text[]) ON CONFLICT DO NOTHING RETURNING node, segment, \
     record_offset"
);

/// A statement that adds to sums in `$table`; one that would not fit stays at the most that does.
macro_rules! sums {
    ($table:literal, $from:expr) => {
        concat!(
            "INSERT INTO ",
            $table,
            " AS s (bucket_ms, key_id, status, requests, node, asset, protocol, endpoint, tier) ",
            $from,
            " ON CONFLICT (bucket_ms, key_id, asset, protocol, endpoint, status, tier, node) DO UPDATE SET requests = \
             CASE WHEN s.requests > 9223372036854775807 - excluded.requests THEN 9223372036854775807 ELSE s.requests + \
             excluded.requests END"
        )
    };
    (sqlite $table:literal) => {
        sums!(
            $table,
            "SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value \
             ->> 7, value ->> 8 FROM json_each($1) WHERE true"
        )
    };
    (postgres $table:literal) => {
        sums!(
            $table,
            "SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], \
             $7::text[], $8::text[], $9::text[])"
        )
    };
}

const MINUTES_SQLITE: &str = sums!(sqlite "usage_minutes");
const MINUTES_POSTGRES: &str = sums!(postgres "usage_minutes");
const HOURS_SQLITE: &str = sums!(sqlite "usage_hours");
const HOURS_POSTGRES: &str = sums!(postgres "usage_hours");

/// What a time before which all may go, made from this machine's clock, means to the database.
pub async fn horizon(session: &mut Session, before_ms: u64) -> Stored<u64> {
    if !session.is_postgres() {
        return Ok(before_ms);
    }
    let before = Value::Int(i64::try_from(before_ms).unwrap_or(i64::MAX));
    let now = Value::Int(stored_number(clock::now().wall_ms)?);
    let row = session.row("SELECT usage_logs_before($1, $2)", &[before, now]).await?;
    row.map_or(Ok(0), |row| row.number(0))
}

pub async fn prune(session: &mut Session, before_ms: u64) -> Stored<u64> {
    let before = Value::Int(i64::try_from(before_ms).unwrap_or(i64::MAX));
    let limit = Value::Int(PRUNE_ROWS);
    let removed = if session.is_postgres() {
        let now = Value::Int(stored_number(clock::now().wall_ms)?);
        session.row("SELECT usage_logs_prune($1, $2, $3)", &[before, now, limit]).await?
    } else {
        let sql = "DELETE FROM usage_logs WHERE (time_ms, node, segment, record_offset) IN (SELECT time_ms, node, \
                   segment, record_offset FROM usage_logs WHERE time_ms < $1 LIMIT $2)";
        session.rows(sql, &[before, limit]).await?;
        session.row("SELECT changes()", &[]).await?
    };
    let Some(removed) = removed.map(|row| row.maybe_number(0)).transpose()?.flatten() else {
        return Err(StoreError::Invalid("the database's user may not DELETE from usage_logs: GRANT it".to_owned()));
    };
    let (sqlite, postgres) = with_clock!(
        "DELETE FROM usage_cursors WHERE (node, segment) IN (SELECT node, segment FROM usage_cursors AS c WHERE \
         last_time_ms < ",
        " - $1 AND EXISTS (SELECT 1 FROM usage_cursors AS newer WHERE newer.node = c.node AND newer.segment > \
         c.segment) ORDER BY last_time_ms LIMIT $2)",
        " - $1 AND EXISTS (SELECT 1 FROM usage_cursors AS newer WHERE newer.node = c.node AND newer.segment > \
         c.segment) ORDER BY last_time_ms LIMIT $2 FOR UPDATE SKIP LOCKED)"
    );
    session.rows(session.pick(sqlite, postgres), &[Value::Int(CURSOR_KEPT_MS), Value::Int(PRUNE_CURSORS)]).await?;
    Ok(removed)
}
