//! Parameters, asset lists and the audit trail in SQL. What a parameter may be is not known here.

use super::keys::page;
use super::session::Session;
use super::value::{Row, Value, stored_number, stored_text};
use super::{AUDIT_BYTES_MAX, AssetRow, AuditEntry, NAME_BYTES_MAX, PARAMETER_BYTES_MAX, StoreError, Stored};
use serde_json::json;
use std::collections::BTreeMap;

/// Rows of one exchange's asset list: four times what one venue may be asked for.
const ASSET_ROWS_MAX: usize = 4_000;

pub async fn parameters(session: &mut Session) -> Stored<BTreeMap<String, String>> {
    let rows = session.rows("SELECT name, value FROM application_parameters", &[]).await?;
    rows.iter().map(|row| Ok((row.text(0)?, row.text(1)?))).collect()
}

pub async fn put_parameters(
    session: &mut Session,
    changes: &BTreeMap<String, Option<String>>,
    expected: &BTreeMap<String, Option<String>>,
    audits: &[AuditEntry],
) -> Stored<()> {
    // Whoever changes parameters holds this row to the end, so that what is compared now is still so then.
    count(session, "UPDATE change_counters SET value = value + 1 WHERE name = 'parameters' RETURNING value").await?;
    let present = parameters(session).await?;
    if let Some((name, _)) = expected.iter().find(|(name, value)| present.get(*name) != value.as_ref()) {
        return Err(StoreError::Conflict(format!("{name} was changed in between: look at it and try again")));
    }
    for (name, value) in changes {
        let name = stored_text("a parameter's name", name, NAME_BYTES_MAX)?;
        match value {
            Some(value) => {
                let value = stored_text("a parameter's value", value, PARAMETER_BYTES_MAX)?;
                let sql = "INSERT INTO application_parameters (name, value) VALUES ($1, $2) ON CONFLICT (name) DO \
                           UPDATE SET value = excluded.value";
                session.rows(sql, &[name, value]).await?;
            }
            None => {
                session.rows("DELETE FROM application_parameters WHERE name = $1", &[name]).await?;
            }
        }
    }
    for entry in audits {
        audit(session, entry).await?;
    }
    Ok(())
}

pub async fn note_reload(session: &mut Session) -> Stored<i64> {
    count(session, "UPDATE change_counters SET value = value + 1 WHERE name = 'reloads' RETURNING value").await
}

pub async fn asset_map(session: &mut Session) -> Stored<Vec<AssetRow>> {
    let sql = "SELECT exchange, asset, CAST(CASE WHEN enabled THEN 1 ELSE 0 END AS BIGINT) FROM exchange_asset_map";
    let row =
        |row: &Row| Ok(AssetRow { exchange: row.text(0)?, asset: row.text(1)?, enabled: row.number::<i64>(2)? != 0 });
    let mut rows: Vec<AssetRow> = session.rows(sql, &[]).await?.iter().map(row).collect::<Stored<_>>()?;
    rows.sort_by(|a, b| (&a.exchange, &a.asset).cmp(&(&b.exchange, &b.asset)));
    Ok(rows)
}

pub async fn put_asset_map(session: &mut Session, exchange: &str, rows: &[AssetRow]) -> Stored<()> {
    let name = stored_text("the exchange's name", exchange, NAME_BYTES_MAX)?;
    if rows.len() > ASSET_ROWS_MAX {
        return Err(StoreError::Invalid(format!("an asset list has at most {ASSET_ROWS_MAX} rows")));
    }
    let mut seen = BTreeMap::new();
    for row in rows {
        stored_text("an asset", &row.asset, NAME_BYTES_MAX)?;
        if row.exchange != exchange {
            return Err(StoreError::Invalid(format!("a row of {:?} in the list of {exchange:?}", row.exchange)));
        }
        if seen.insert(&row.asset, row.enabled).is_some() {
            return Err(StoreError::Conflict(format!("{:?} is in the list twice", row.asset)));
        }
    }
    count(session, "UPDATE change_counters SET value = value + 1 WHERE name = 'assets' RETURNING value").await?;
    session.rows("DELETE FROM exchange_asset_map WHERE exchange = $1", &[name]).await?;
    let list = json!(seen.iter().map(|(asset, enabled)| json!([asset, i64::from(*enabled)])).collect::<Vec<_>>());
    let sql = session.pick(
        "INSERT INTO exchange_asset_map (exchange, asset, enabled) SELECT $1, value ->> 0, value ->> 1 FROM \
         json_each($2)",
        "INSERT INTO exchange_asset_map (exchange, asset, enabled) SELECT $1, value ->> 0, (value ->> 1)::int <> 0 \
         FROM jsonb_array_elements($2::jsonb) AS list (value)",
    );
    session.rows(sql, &[name, Value::Text(&list.to_string())]).await.map(drop)
}

pub async fn audit(session: &mut Session, entry: &AuditEntry) -> Stored<()> {
    let sql = "INSERT INTO audit (time_ms, node, caller, action, target, value_before, value_after) VALUES ($1, $2, \
               $3, $4, $5, $6, $7)";
    let values = [
        Value::Int(stored_number(entry.time_ms)?),
        stored_text("the node's name", &entry.node, NAME_BYTES_MAX)?,
        stored_text("the caller's name", &entry.caller, NAME_BYTES_MAX)?,
        stored_text("the action", &entry.action, NAME_BYTES_MAX)?,
        stored_text("the action's target", &entry.target, AUDIT_BYTES_MAX)?,
        stored_text("what stood before", &entry.before, AUDIT_BYTES_MAX)?,
        stored_text("what stands after", &entry.after, AUDIT_BYTES_MAX)?,
    ];
    session.rows(sql, &values).await.map(drop)
}

pub async fn audit_page(session: &mut Session, before: Option<i64>, limit: usize) -> Stored<Vec<(i64, AuditEntry)>> {
    let sql = "SELECT id, time_ms, node, caller, action, target, value_before, value_after FROM audit WHERE id < $1 \
               ORDER BY id DESC LIMIT $2";
    let entry = |row: &Row| {
        let entry = AuditEntry {
            time_ms: row.number(1)?,
            node: row.text(2)?,
            caller: row.text(3)?,
            action: row.text(4)?,
            target: row.text(5)?,
            before: row.text(6)?,
            after: row.text(7)?,
        };
        Ok((row.number(0)?, entry))
    };
    let values = [Value::Int(before.unwrap_or(i64::MAX)), page(limit)];
    session.rows(sql, &values).await?.iter().map(entry).collect()
}

/// Runs a statement that counts and answers the new number.
async fn count(session: &mut Session, sql: &'static str) -> Stored<i64> {
    match session.row(sql, &[]).await? {
        Some(row) => row.number(0),
        None => Err(StoreError::Broken("change_counters lacks a row: migrate an empty database".to_owned())),
    }
}
