//! Whether this node is alive, and whether it should be sent requests.
//!
//! Readiness depends on nothing that several nodes share: no database, no cache. An outage there must not take every
//! node out of the balancer at once.

use super::{ApiState, Shared};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tuning::clock;

/// A loop that has not turned for this long is stuck: it wakes by itself every 50 ms.
const TURNED_WITHIN_MS: u64 = 1_000;

/// `GET /livez`: 200 while every shard's loop turns.
pub async fn livez(State(state): Shared) -> Response {
    answer("alive", "stuck", stuck_shards(&state))
}

/// `GET /readyz` and `GET /health`: 200 while requests should be sent here, else 503 with the reasons.
pub async fn readyz(State(state): Shared) -> Response {
    answer("ready", "unready", unready_reasons(&state))
}

/// Why the node is not ready; empty when it is.
pub fn unready_reasons(state: &ApiState) -> Vec<String> {
    let mut reasons = stuck_shards(state);
    if state.is_draining() {
        reasons.push("draining: the process was told to stop".to_owned());
    }
    let board = state.prices.state();
    if board.priced == 0 {
        reasons.push("no price yet: no venue has been heard".to_owned());
    } else if board.fresh == 0 {
        reasons.push("every price is stale: no venue is proven alive".to_owned());
    }
    reasons.extend(state.journal.as_ref().and_then(|journal| journal.unready_reason()));
    reasons
}

fn stuck_shards(state: &ApiState) -> Vec<String> {
    let now_ms = clock::now().mono_ms();
    let since = |turned_ms: u64| now_ms.saturating_sub(turned_ms);
    let stats = state.plane.stats();
    let stuck = stats.iter().filter(|shard| since(shard.turned_mono_ms) > TURNED_WITHIN_MS);
    stuck.map(|shard| format!("shard {} has not turned for {} ms", shard.index, since(shard.turned_mono_ms))).collect()
}

fn answer(good: &str, bad: &str, reasons: Vec<String>) -> Response {
    if reasons.is_empty() {
        return Json(json!({ "status": good })).into_response();
    }
    let body: Value = json!({ "status": bad, "reasons": reasons });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
