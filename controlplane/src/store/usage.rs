//! What keys have used, in SQL: months' totals, each batch added once.

use super::session::Session;
use super::value::{Row, Value, stored_number, stored_text};
use super::{MonthUse, NAME_BYTES_MAX, StoreError, Stored, USE_ROWS_MAX};
use serde_json::json;
use std::collections::BTreeMap;
use tuning::clock;

/// How long a writer that adds nothing any more is remembered, ms: 93 days, as long as usage details are kept. A batch
/// is told again within seconds, or never.
const WRITER_KEPT_MS: i64 = 93 * 24 * 60 * 60 * 1_000;

pub async fn add(session: &mut Session, writer: &str, batch: i64, rows: &[MonthUse]) -> Stored<Vec<MonthUse>> {
    if rows.len() > USE_ROWS_MAX {
        return Err(StoreError::Invalid(format!("a batch has at most {USE_ROWS_MAX} rows")));
    }
    if batch < 1 {
        return Err(StoreError::Invalid("a writer's first batch is 1".to_owned()));
    }
    // Once each, in order: two nodes that add to the same keys then wait for each other in one direction only.
    let mut sums: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for row in rows {
        let sum = sums.entry((row.key, row.month)).or_default();
        *sum = sum.saturating_add(row.requests);
    }
    let mut list = Vec::with_capacity(sums.len());
    for ((key, month), requests) in &sums {
        list.push(json!([key, month, stored_number(*requests)?]));
    }
    let list = json!(list).to_string();
    if is_new(session, writer, batch).await? {
        let sql = session.pick(ADD_SQLITE, ADD_POSTGRES);
        session.rows(sql, &[Value::Text(&list)]).await?;
    }
    let sql = session.pick(TOTALS_SQLITE, TOTALS_POSTGRES);
    session.rows(sql, &[Value::Text(&list)]).await?.iter().map(total).collect()
}

/// A sum that would not fit stays at the most that does.
const ADD_SQLITE: &str = "INSERT INTO usage_months (key_id, month, requests) SELECT value ->> 0, value ->> 1, value \
    ->> 2 FROM json_each($1) WHERE true ORDER BY key ON CONFLICT (key_id, month) DO UPDATE SET requests = CASE WHEN \
    requests > 9223372036854775807 - excluded.requests THEN 9223372036854775807 ELSE requests + excluded.requests END";
const ADD_POSTGRES: &str = "INSERT INTO usage_months (key_id, month, requests) SELECT (value ->> 0)::bigint, \
    (value ->> 1)::bigint, (value ->> 2)::bigint FROM jsonb_array_elements($1::jsonb) WITH ORDINALITY AS list (value, \
    place) ORDER BY place ON CONFLICT (key_id, month) DO UPDATE SET requests = CASE WHEN \
    usage_months.requests > 9223372036854775807 - excluded.requests THEN 9223372036854775807 \
    ELSE usage_months.requests + excluded.requests END";
const TOTALS_SQLITE: &str = "SELECT m.key_id, m.month, m.requests FROM json_each($1) AS list JOIN usage_months AS m ON \
    m.key_id = list.value ->> 0 AND m.month = list.value ->> 1 ORDER BY m.key_id, m.month";
const TOTALS_POSTGRES: &str = "SELECT m.key_id, m.month, m.requests FROM jsonb_array_elements($1::jsonb) AS list \
    (value) JOIN usage_months AS m ON m.key_id = (list.value ->> 0)::bigint AND m.month = (list.value ->> 1)::bigint \
    ORDER BY m.key_id, m.month";

/// Notes a writer's batch; whether it was not added before.
async fn is_new(session: &mut Session, writer: &str, batch: i64) -> Stored<bool> {
    let name = stored_text("the writer's name", writer, NAME_BYTES_MAX)?;
    let now_ms = stored_number(clock::now().wall_ms)?;
    if batch == 1 {
        let old = Value::Int(now_ms.saturating_sub(WRITER_KEPT_MS));
        session.rows("DELETE FROM usage_writers WHERE last_time_ms < $1", &[old]).await?;
    }
    let sql = "INSERT INTO usage_writers (writer, batch, last_time_ms) VALUES ($1, $2, $3) ON CONFLICT (writer) DO \
               UPDATE SET batch = excluded.batch, last_time_ms = excluded.last_time_ms WHERE usage_writers.batch < \
               excluded.batch RETURNING batch";
    Ok(session.row(sql, &[name, Value::Int(batch), Value::Int(now_ms)]).await?.is_some())
}

pub async fn of_month(session: &mut Session, month: u32, keys: &[u32]) -> Stored<Vec<MonthUse>> {
    if keys.len() > USE_ROWS_MAX {
        return Err(StoreError::Invalid(format!("at most {USE_ROWS_MAX} keys can be asked for at once")));
    }
    let sql = session.pick(
        "SELECT key_id, month, requests FROM usage_months WHERE month = $1 AND key_id IN (SELECT value FROM \
         json_each($2)) ORDER BY key_id",
        "SELECT key_id, month, requests FROM usage_months WHERE month = $1 AND key_id IN (SELECT value::bigint FROM \
         jsonb_array_elements_text($2::jsonb) AS list (value)) ORDER BY key_id",
    );
    let list = json!(keys).to_string();
    session.rows(sql, &[Value::Int(month.into()), Value::Text(&list)]).await?.iter().map(total).collect()
}

fn total(row: &Row) -> Stored<MonthUse> {
    Ok(MonthUse { key: row.number(0)?, month: row.number(1)?, requests: row.number(2)? })
}
