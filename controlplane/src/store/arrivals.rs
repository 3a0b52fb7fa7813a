//! Which usage rows came with which transaction, in SQL: written where rows are, and removed when they are old.
//!
//! Whoever keeps a copy of the rows reads from here what has come since it last looked, however old the rows are that
//! came. Who does is not known here.

use super::Stored;
use super::session::{Column, Session};
use super::usage_batch::Batch;
use super::usage_rows::with_clock;
use super::value::{Row, Value};
use serde_json::json;

/// One hour, ms.
const HOUR_MS: i64 = 60 * 60 * 1_000;

/// Rows further apart than this in their segment are told of apart: whoever reads them reads what lies between as well.
const GAP_MAX: i64 = 1_000;

/// How long arrivals are told of, ms by the database's clock: eight days, so that a copy that is brought up to date once a
/// week finds them. A node makes at most ten in a second, each of some 170 bytes with its indexes: 1.2 GB
/// of a node that keeps that pace.
const KEPT_MS: i64 = 8 * 24 * 60 * 60 * 1_000;

/// Arrivals removed at a time.
const PRUNE_ROWS: i64 = 10_000;

/// Rows of one segment that lie together, in one hour.
struct Run<'a> {
    node: &'a str,
    /// Segment, first and last place, first and last time, how many.
    numbers: [i64; 6],
}

/// The runs of a batch: one, as a rule.
fn runs<'a>(batch: &'a Batch<'_>) -> Vec<Run<'a>> {
    let mut runs: Vec<Run<'a>> = Vec::new();
    for ((node, segment, place), time_ms) in batch.places().zip(batch.times_ms()) {
        if let Some(Run { node: of, numbers: [same, _, last, first_ms, last_ms, count] }) = runs.last_mut()
            && *of == node
            && *same == segment
            && place - *last <= GAP_MAX
            && *first_ms / HOUR_MS == time_ms / HOUR_MS
        {
            (*last, *count) = (place, *count + 1);
            (*first_ms, *last_ms) = (time_ms.min(*first_ms), time_ms.max(*last_ms));
            continue;
        }
        runs.push(Run { node, numbers: [segment, place, place, time_ms, time_ms, 1] });
    }
    runs
}

/// Notes that a batch came with the transaction at hand.
pub async fn add(session: &mut Session, batch: &Batch<'_>) -> Stored<()> {
    let runs = runs(batch);
    if session.is_postgres() {
        let numbers: [Vec<i64>; 6] = std::array::from_fn(|index| runs.iter().map(|run| run.numbers[index]).collect());
        let nodes: Vec<&str> = runs.iter().map(|run| run.node).collect();
        let numbers = numbers.iter().map(|column| Column::Numbers(column));
        let columns: Vec<Column<'_>> = numbers.chain([Column::Texts(&nodes)]).collect();
        return session.rows_of(ADD.1, &columns).await.map(drop);
    }
    let list = json!(runs.iter().map(|run| (run.numbers, run.node)).collect::<Vec<_>>()).to_string();
    session.rows(ADD.0, &[Value::Text(&list)]).await.map(drop)
}

const ADD: (&str, &str) = with_clock!(
    "INSERT INTO usage_arrivals (segment, from_place, to_place, from_ms, to_ms, records, node, arrived_ms) SELECT \
     run.*, ",
    " FROM (SELECT value ->> '$[0][0]', value ->> '$[0][1]', value ->> '$[0][2]', value ->> '$[0][3]', value ->> \
     '$[0][4]', value ->> '$[0][5]', value ->> '$[1]' FROM json_each($1)) AS run",
    " FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[]) AS run"
);

/// Removes what is older than [`KEPT_MS`], some at once, and notes up to where; how many.
pub async fn prune(session: &mut Session) -> Stored<u64> {
    let sql = session.pick(PRUNE.0, PRUNE.1);
    let gone = session.rows(sql, &[Value::Int(KEPT_MS), Value::Int(PRUNE_ROWS)]).await?;
    let changes: Vec<i64> = gone.iter().map(|row: &Row| row.number(0)).collect::<Stored<_>>()?;
    if let Some(last) = changes.iter().max() {
        let sql = "UPDATE sync_state SET pruned = $1 WHERE pruned < $1";
        session.rows(sql, &[Value::Int(*last)]).await?;
    }
    Ok(changes.len() as u64)
}

/// In the order of time, and the clock read once: or a server reads all there are, each time.
const PRUNE: (&str, &str) = (
    with_clock!(
        "DELETE FROM usage_arrivals WHERE number IN (SELECT number FROM usage_arrivals WHERE arrived_ms < (SELECT ",
        ") - $1 ORDER BY arrived_ms LIMIT $2) RETURNING number"
    )
    .0,
    with_clock!(
        "DELETE FROM usage_arrivals WHERE (change, number) IN (SELECT change, number FROM usage_arrivals WHERE \
         arrived_ms < (SELECT ",
        ") - $1 ORDER BY arrived_ms LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING change"
    )
    .1,
);
