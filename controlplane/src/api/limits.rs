//! `GET /limits`: what the caller's key may ask, and what it has asked.

use super::Shared;
use super::caller::key_text;
use super::problem::Problem;
use crate::keys::identify;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};
use tuning::clock;

/// The key's limit and what is left of it, with its totals since this process started. Takes nothing from the
/// allowance. What shards hold as leases counts as used, so `remaining` errs on the low side.
pub async fn own(State(state): Shared, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    let now = clock::now();
    let keys = state.keys.current();
    let record = identify(&keys, key_text(&headers), 0, now)?;
    state.usage.drain();
    Ok(Json(json!({
        "key_id": record.id.0,
        "limit_per_second": record.limit_per_second,
        "remaining": keys.remaining(record.id, now.mono_ms()),
        "window_ms": 1_000,
        "expires_at_ms": Some(record.expires_at_ms).filter(|time| *time != 0),
        "since_ms": state.facts.started_time_ms,
        "used": state.usage.of(record.id),
    })))
}
