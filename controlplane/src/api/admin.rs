//! Administration: what the venue sessions, the engine and the shards are doing, for whoever has the admin key.
//!
//! Every area has a file with its own routes; here they are put together, and here is what holds for all of them: who is
//! admitted, before anything of the request is looked at, and how large a body may be.

mod audit;
mod cache;
mod cluster;
mod keys;
mod params;

use super::problem::{AdminCode, Problem};
use super::{ApiState, Shared};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Query, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::routing::get;
use axum::{Json, Router, body::Bytes};
use dataplane_core::counters::ShardCounters;
use dataplane_core::feed::VenueCounters;
use dataplane_engine::ShardStats;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::code::Code;
use shared::moment::Moment;
use shared::venue::Venue;
use std::sync::Arc;
use tuning::clock;

/// Keys in one page of `/admin/usage`.
const PAGE_MAX: usize = 1_000;

/// Largest body of any request: every parameter at its longest would be larger, and nobody sets them all at once; one
/// venue's longest asset list is a quarter of it.
pub const BODY_BYTES_MAX: usize = 64 * 1_024;

/// What the audit trail calls whoever came with the administrator's key.
pub const CALLER: &str = "admin";

/// Every path of administration.
pub fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/admin/feeds", get(feeds))
        .route("/admin/engine", get(engine))
        .route("/admin/usage", get(usage))
        .merge(keys::routes())
        .merge(params::routes())
        .merge(audit::routes())
        .merge(cache::routes())
        .merge(cluster::routes())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// Proof that the request carries the administrator's key. The first argument of every handler: nothing else of a
/// request is looked at before.
pub struct Admitted(());

impl FromRequestParts<Arc<ApiState>> for Admitted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<ApiState>) -> Result<Self, Problem> {
        state.admin.admit(&parts.headers, clock::now().mono_ms()).map(|()| Self(()))
    }
}

/// The body of a request, or what to say of one that is larger than its route's bound or did not come.
///
/// # Errors
/// `body_too_large`, `request_malformed`.
pub fn body(body: Result<Bytes, BytesRejection>, bytes_max: usize) -> Result<Bytes, Problem> {
    body.map_err(|rejection| match rejection.status().as_u16() {
        413 => Problem::administrating(AdminCode::BodyTooLarge, format!("Send at most {bytes_max} bytes.")),
        _ => Problem::saying(Code::RequestMalformed, "The body did not come whole."),
    })
}

/// The router gives HEAD to whoever takes GET, but HEAD must change nothing.
pub fn refuse_head(method: &Method) -> Result<(), Problem> {
    if method == Method::HEAD { Err(Problem::from(Code::MethodNotAllowed)) } else { Ok(()) }
}

/// `GET /admin/feeds`: each venue's session, and what the feed shard made of its quotes.
async fn feeds(_: Admitted, State(state): Shared) -> Json<Value> {
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
    Json(json!({
        "venues": venues,
        "unlisted": status.unlisted,
        "ticks": counters.ticks,
        "conflated": counters.conflated,
    }))
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
async fn engine(_: Admitted, State(state): Shared) -> Json<Value> {
    let now = clock::now();
    let (engine, reason) = state.plane.engine();
    let shards: Vec<Value> = state.plane.stats().iter().map(|stats| shard(stats, now)).collect();
    Json(json!({
        "engine": engine.name(),
        "reason": reason,
        "core_plan": state.plane.core_plan(),
        "steering": state.plane.steering(),
        "node": state.facts,
        "shards": shards,
    }))
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
        usage_coarser,
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
        "usage_coarser": usage_coarser,
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
struct Page {
    #[serde(default)]
    after: u32,
    #[serde(default)]
    limit: Option<usize>,
}

/// `GET /admin/usage`: totals per key since this process started, by key number, `limit` (at most 1,000) after `after`.
async fn usage(
    _: Admitted,
    State(state): Shared,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, Problem> {
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
        "journal": state.journal.as_ref().map(|journal| journal.summary()),
        "keys": rows,
        "next_after": next,
    })))
}
