//! Administration: what the venue sessions, the engine and the shards are doing, for whoever has the admin key.

use super::Shared;
use super::problem::Problem;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use dataplane_core::counters::ShardCounters;
use dataplane_core::feed::VenueCounters;
use dataplane_engine::ShardStats;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::code::Code;
use shared::moment::Moment;
use shared::venue::Venue;
use tuning::clock;

/// Keys in one page of `/admin/usage`.
const PAGE_MAX: usize = 1_000;

/// `GET /admin/feeds`: each venue's session, and what the feed shard made of its quotes.
pub async fn feeds(State(state): Shared, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    state.admin.admit(&headers, clock::now().mono_ms())?;
    let counters = state.plane.feed_counters();
    let status = state.feeds.status();
    let venues: Vec<Value> = status
        .venues
        .iter()
        .map(|session| {
            let counted = Venue::from_name(session.venue).map(|venue| counters.venues[venue.index()]);
            let mut row = json!(session);
            row["guard"] = guard(counted.unwrap_or_default());
            row
        })
        .collect();
    Ok(Json(json!({
        "venues": venues,
        "unlisted": status.unlisted,
        "ticks": counters.ticks,
        "conflated": counters.conflated,
    })))
}

/// What became of a venue's quotes.
fn guard(counted: VenueCounters) -> Value {
    json!({
        "quotes": counted.quotes,
        "refused_price": counted.refused_price,
        "refused_order": counted.refused_order,
        "refused_time": counted.refused_time,
        "quarantines": counted.quarantines,
        "quarantined_now": counted.quarantined,
    })
}

/// `GET /admin/engine`: which engine, why, who runs where, and what every shard counted.
pub async fn engine(State(state): Shared, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    let now = clock::now();
    state.admin.admit(&headers, now.mono_ms())?;
    let (engine, reason) = state.plane.engine();
    let shards: Vec<Value> = state.plane.stats().iter().map(|stats| shard(stats, now)).collect();
    Ok(Json(json!({
        "engine": engine.name(),
        "reason": reason,
        "core_plan": state.plane.core_plan(),
        "steering": state.plane.steering(),
        "node": state.facts,
        "shards": shards,
    })))
}

fn shard(stats: &ShardStats, now: Moment) -> Value {
    let ShardCounters {
        http_requests,
        datagrams,
        datagram_replies,
        datagrams_silent,
        answered,
        refused: _,
        ticks,
        hand_overs,
        waiting,
        generation,
        usage_ring_full,
        ..
    } = stats.counters;
    // Beyond the largest lag told apart there is no number.
    let lag = |part, of| stats.feed_lag.quantile_ns(part, of).filter(|lag_ns| *lag_ns != u64::MAX);
    json!({
        "shard": stats.index,
        "cpu": stats.cpu,
        "connections": stats.connections,
        "accepted": stats.accepted,
        "closed_by_us": stats.closed_by_us,
        "parks": stats.parks,
        "datagrams_unsent": stats.datagrams_unsent,
        "datagrams_grouped": stats.datagrams_grouped,
        "datagram_groups_refused": stats.datagram_groups_refused,
        "receive_buffers_short": stats.receive_buffers_short,
        "completion_overflows": stats.completion_overflows,
        "cpu_ms": stats.cpu_ns / 1_000_000,
        "turned_ms_ago": now.mono_ms().saturating_sub(stats.turned_mono_ms),
        "http_requests": http_requests,
        "datagrams": datagrams,
        "datagram_replies": datagram_replies,
        "datagrams_silent": datagrams_silent,
        "answered": answered,
        "refused": refused(&stats.counters),
        "ticks": ticks,
        "hand_overs": hand_overs,
        "waiting": waiting,
        "generation": generation,
        "usage_ring_full": usage_ring_full,
        "feed_lag_ns": {
            "count": stats.feed_lag.count(),
            "p50": lag(50, 100),
            "p99": lag(99, 100),
            "p999": lag(999, 1_000),
        },
    })
}

/// Refusals by the name of their code; codes that never came up are left out.
fn refused(counters: &ShardCounters) -> Map<String, Value> {
    Code::ALL
        .into_iter()
        .map(|code| (code.name().to_owned(), counters.refused[usize::from(code.number())]))
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| (name, count.into()))
        .collect()
}

/// Which page of `/admin/usage`.
#[derive(Debug, Deserialize)]
pub struct Page {
    #[serde(default)]
    after: u32,
    #[serde(default)]
    limit: Option<usize>,
}

/// `GET /admin/usage`: totals per key since this process started, by key number, `limit` (at most 1,000) after `after`.
pub async fn usage(
    State(state): Shared,
    headers: HeaderMap,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, Problem> {
    state.admin.admit(&headers, clock::now().mono_ms())?;
    let Ok(Query(page)) = page else {
        return Err(Problem::saying(Code::ParameterInvalid, "after is a key number; limit is 1 to 1000."));
    };
    let limit = page.limit.unwrap_or(PAGE_MAX);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::saying(Code::ParameterInvalid, "limit is 1 to 1000."));
    }
    state.usage.drain();
    let rows = state.usage.page(page.after, limit);
    let next = (rows.len() == limit).then(|| rows.last().map(|(key, _)| *key)).flatten();
    let rows: Vec<Value> = rows.into_iter().map(|(key, used)| json!({ "key_id": key, "used": used })).collect();
    let (requests, records) = state.usage.total();
    Ok(Json(json!({
        "since_ms": state.facts.started_time_ms,
        "requests": requests,
        "records": records,
        "keys": rows,
        "next_after": next,
    })))
}
