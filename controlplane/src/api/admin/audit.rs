//! The audit trail, newest first: who changed what, when, from what to what. It is only read here.

use super::Admitted;
use crate::api::problem::Problem;
use crate::api::{ApiState, Shared};
use crate::store::AuditEntry;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::code::Code;
use std::sync::Arc;

/// Entries in one page: an entry may hold two long texts.
const PAGE_MAX: usize = 100;

/// The routes of the audit trail.
pub fn routes() -> Router<Arc<ApiState>> {
    Router::new().route("/admin/audit", get(page))
}

/// Which page.
#[derive(Debug, Deserialize)]
struct Page {
    #[serde(default)]
    before: Option<i64>,
    #[serde(default)]
    limit: Option<usize>,
}

/// `GET /admin/audit?before=ID&limit=N`.
async fn page(
    _: Admitted,
    State(state): Shared,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let wanted = page.ok().map(|Query(page)| (page.before, page.limit.unwrap_or(PAGE_MAX)));
    let Some((before, limit)) = wanted.filter(|(_, limit)| (1..=PAGE_MAX).contains(limit)) else {
        let how = "before is an entry's number; limit is 1 to 100.";
        return Err(Problem::saying(Code::ParameterInvalid, how));
    };
    let entries = state.store.audit_page(before, limit).await?;
    let next = (entries.len() == limit).then(|| entries.last().map(|(id, _)| *id)).flatten();
    let entries: Vec<Value> = entries.into_iter().map(entry).collect();
    Ok(Json(json!({ "entries": entries, "next_before": next })))
}

fn entry((id, entry): (i64, AuditEntry)) -> Value {
    // What is no JSON is shown as it is.
    let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    json!({
        "id": id,
        "time_ms": entry.time_ms,
        "node": entry.node,
        "caller": entry.caller,
        "action": entry.action,
        "target": entry.target,
        "before": value(&entry.before),
        "after": value(&entry.after),
    })
}
