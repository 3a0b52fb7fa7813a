//! `GET /limits`: what the caller's key may ask, and what it has asked.

use super::Shared;
use super::caller::key_text;
use super::problem::Problem;
use crate::keys::identify;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use dataplane_core::render::retry_after_s;
use serde_json::{Value, json};
use shared::code::Code;
use tuning::clock;

/// When the present month ends (UTC), Unix ms.
fn month_ends_ms(wall_ms: u64) -> u64 {
    let left_s = retry_after_s(Code::RateLimitedMonth, wall_ms).unwrap_or(0);
    (wall_ms / 1_000 + left_s) * 1_000
}

/// The key's limits and what is left of them, with its totals since this process started. Takes nothing from the
/// allowance. What shards hold as leases counts as used; while nodes share a second, what other nodes have taken of it
/// since this one was last granted some does not; while each admits its part, `remaining` is of this node's part.
pub async fn own(State(state): Shared, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    let now = clock::now();
    let keys = state.keys.current();
    let record = identify(&keys, key_text(&headers), 0, now)?;
    state.usage.drain();
    let (sharing, month) = (state.limits.leaser(), state.limits.month(record.id));
    Ok(Json(json!({
        "key_id": record.id.0,
        "tier": state.keys.tier(record.id),
        "limit_per_second": record.limit_per_second,
        "remaining": keys.remaining(record.id, now.mono_ms()),
        "window_ms": 1_000,
        "sharing": sharing.sharing,
        "nodes": sharing.nodes.max(1),
        "month": {
            "limit": month.limit,
            "used": month.used,
            "remaining": month.limit.map(|limit| limit.saturating_sub(month.used)),
            "ends_at_ms": month_ends_ms(now.wall_ms),
            "used_up": keys.is_month_used_up(record.id),
        },
        "expires_at_ms": Some(record.expires_at_ms).filter(|time| *time != 0),
        "since_ms": state.facts.started_time_ms,
        "used": state.usage.of(record.id),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ends_when_the_next_begins() {
        for (now_ms, ends_ms) in [(0, 2_678_400_000), (2_678_399_999, 2_678_400_000), (2_678_400_000, 5_097_600_000)] {
            assert_eq!(month_ends_ms(now_ms), ends_ms, "{now_ms}");
        }
    }
}
