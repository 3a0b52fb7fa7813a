//! The log of reports, in SQL: who asked for what, and what became of it.

use super::{ReportLog, ReportMark};
use crate::store::session::Session;
use crate::store::value::{Row, Value, stored_number, stored_text};
use crate::store::{NAME_BYTES_MAX, PAGE_MAX, Stored};
use std::collections::BTreeMap;

/// Bytes of a query's text that are kept: a request line has 4 KiB.
const QUERY_BYTES_MAX: usize = 4_096;

/// A day, ms.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Notes that go at a time when they are old.
const PRUNE_ROWS: i64 = 10_000;

/// What is counted of a key's reports of a day.
#[derive(Default)]
struct Count {
    reports: u64,
    lines: u64,
    bytes: u64,
}

/// Notes reports, and counts each with its key's of the day unless it was noted before.
pub async fn add(session: &mut Session, reports: &[ReportLog]) -> Stored<()> {
    // In order, so that no two nodes wait for each other.
    let mut counts: BTreeMap<(u32, u64), Count> = BTreeMap::new();
    for report in reports {
        if add_one(session, report).await? {
            let count = counts.entry((report.key, report.time_ms - report.time_ms % DAY_MS)).or_default();
            count.reports += 1;
            count.lines = count.lines.saturating_add(report.lines);
            count.bytes = count.bytes.saturating_add(report.bytes);
        }
    }
    for ((key, day_ms), Count { reports, lines, bytes }) in counts {
        let number = |number| stored_number(number).map(Value::Int);
        let values = [Value::Int(key.into()), number(day_ms)?, number(reports)?, number(lines)?, number(bytes)?];
        session.rows(COUNT, &values).await?;
    }
    Ok(())
}

/// Notes a report; whether it was not noted before.
async fn add_one(session: &mut Session, report: &ReportLog) -> Stored<bool> {
    let name = |what: &'static str, text| stored_text(what, text, NAME_BYTES_MAX);
    let values = [
        name("the report's number", &report.id)?,
        Value::Int(stored_number(report.time_ms)?),
        Value::Int(report.key.into()),
        name("the report's name", &report.report)?,
        name("the protocol's name", &report.protocol)?,
        name("the format's name", &report.format)?,
        stored_text("the query", &report.query, QUERY_BYTES_MAX)?,
        Value::Int(report.status.into()),
        Value::Int(stored_number(report.lines)?),
        Value::Int(stored_number(report.bytes)?),
        Value::Int(stored_number(report.took_ms)?),
        Value::Int(report.complete.into()),
        name("the node's name", &report.node)?,
    ];
    let sql = session.pick(ADD_SQLITE, ADD_POSTGRES);
    Ok(session.row(sql, &values).await?.is_some())
}

/// Removes notes from before a time, some at once; how many. What was counted of them stays.
pub async fn prune(session: &mut Session, before_ms: u64) -> Stored<u64> {
    let values = [Value::Int(stored_number(before_ms)?), Value::Int(PRUNE_ROWS)];
    let sql = session.pick(PRUNE_SQLITE, PRUNE_POSTGRES);
    Ok(session.rows(sql, &values).await?.len() as u64)
}

const PRUNE_SQLITE: &str = "DELETE FROM report_usage_logs WHERE id IN (SELECT id FROM report_usage_logs WHERE time_ms < \
    $1 LIMIT $2) RETURNING time_ms";
const PRUNE_POSTGRES: &str = "DELETE FROM report_usage_logs WHERE id IN (SELECT id FROM report_usage_logs WHERE time_ms < \
    $1 LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING time_ms";

const ADD_SQLITE: &str = "INSERT INTO report_usage_logs (id, time_ms, key_id, report, protocol, format, query, status, \
    lines, bytes, took_ms, complete, node) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT \
    (id) DO NOTHING RETURNING time_ms";
const ADD_POSTGRES: &str = "INSERT INTO report_usage_logs (id, time_ms, key_id, report, protocol, format, query, status, \
    lines, bytes, took_ms, complete, node) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 = 1, $13) ON \
    CONFLICT (id) DO NOTHING RETURNING time_ms";
const COUNT: &str = "INSERT INTO report_count (key_id, day_ms, reports, lines, bytes) VALUES ($1, $2, $3, $4, $5) ON \
    CONFLICT (key_id, day_ms) DO UPDATE SET reports = report_count.reports + excluded.reports, lines = report_count.lines + \
    excluded.lines, bytes = report_count.bytes + excluded.bytes";

/// A page of the log, newest first.
pub async fn page(session: &mut Session, before: Option<&ReportMark>, limit: usize) -> Stored<Vec<ReportLog>> {
    let limit = Value::Int(stored_number(limit.min(PAGE_MAX) as u64)?);
    let rows = match before {
        None => session.rows(NEWEST, &[limit]).await?,
        Some(mark) => {
            let (time, id) =
                (Value::Int(stored_number(mark.time_ms)?), stored_text("the mark", &mark.id, NAME_BYTES_MAX)?);
            session.rows(BEFORE, &[limit, time, id]).await?
        }
    };
    rows.iter().map(report).collect()
}

const NEWEST: &str = "SELECT id, time_ms, key_id, report, protocol, format, query, status, lines, bytes, took_ms, \
    CAST(CASE WHEN complete THEN 1 ELSE 0 END AS BIGINT), node FROM report_usage_logs ORDER BY time_ms DESC, id DESC \
    LIMIT $1";
const BEFORE: &str = "SELECT id, time_ms, key_id, report, protocol, format, query, status, lines, bytes, took_ms, \
    CAST(CASE WHEN complete THEN 1 ELSE 0 END AS BIGINT), node FROM report_usage_logs WHERE (time_ms, id) < ($2, $3) \
    ORDER BY time_ms DESC, id DESC LIMIT $1";

pub(super) fn report(row: &Row) -> Stored<ReportLog> {
    Ok(ReportLog {
        id: row.text(0)?,
        time_ms: row.number(1)?,
        key: row.number(2)?,
        report: row.text(3)?,
        protocol: row.text(4)?,
        format: row.text(5)?,
        query: row.text(6)?,
        status: row.number(7)?,
        lines: row.number(8)?,
        bytes: row.number(9)?,
        took_ms: row.number(10)?,
        complete: row.number::<i64>(11)? == 1,
        node: row.text(12)?,
    })
}
