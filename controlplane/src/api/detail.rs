//! `GET /price?detail=1`: a price with what every venue says, and why some are not counted.
//!
//! The shard has checked the request's form before it handed the socket over; the key is asked for here, once, under
//! the same allowance as everywhere, and the answer is counted like a shard's.

use super::caller::key_text;
use super::problem::Problem;
use super::{ApiState, Shared};
use crate::keys::{admit, identify};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dataplane_core::feed::{Exclusion, VenueDetail};
use dataplane_core::render::price_body;
use serde::Serialize;
use serde_json::value::RawValue;
use shared::asset::{AssetId, Symbol};
use shared::code::Code;
use shared::key::{KeyRecord, Permissions};
use shared::limits::WAIT_MS_MAX;
use shared::moment::Moment;
use shared::price::{PRICE_TEXT_MAX, Price};
use shared::tick::Tick;
use shared::usage::{Endpoint, PROTOCOL_TCP, UsageRecord};
use std::sync::Arc;
use std::time::Duration;
use tuning::clock;

/// Shard number of what the control plane answered itself.
const NO_SHARD: u16 = u16::MAX;

/// How often a request that waits for a newer price looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// One venue in the answer.
#[derive(Serialize)]
struct VenueRow {
    venue: &'static str,
    price: Option<String>,
    currency: &'static str,
    last: Option<String>,
    bid: Option<String>,
    ask: Option<String>,
    exchange_time_ms: Option<u64>,
    received_time_ms: Option<u64>,
    age_ms: Option<u64>,
    live: bool,
    included: bool,
    excluded: Option<&'static str>,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    symbol: Symbol,
    allow_stale: bool,
    newer_than: Option<u64>,
    wait_ms: u64,
}

/// `GET /price` on a handed-over socket.
pub async fn price(State(state): Shared, Query(query): Query<Vec<(String, String)>>, headers: HeaderMap) -> Response {
    let now = clock::now();
    let (record, answer) = match identify(&state.keys, key_text(&headers), Permissions::PRICES, now) {
        Ok(record) => (Some(record), answer(&state, record, &query, now).await),
        Err(code) => (None, Err((None, code.into()))),
    };
    let (symbol, mut response) = match answer {
        Ok((symbol, response)) => (Some(symbol), response),
        Err((symbol, problem)) => (symbol, problem.into_response()),
    };
    if let Some(record) = record {
        rate_fields(&state, record, now, &mut response);
    }
    count(&state, record, symbol, &response, now);
    response
}

type Refused = (Option<Symbol>, Problem);

async fn answer(
    state: &Arc<ApiState>,
    record: &KeyRecord,
    query: &[(String, String)],
    now: Moment,
) -> Result<(Symbol, Response), Refused> {
    admit(&state.keys, record, now).map_err(|code| (None, code.into()))?;
    let wanted = wanted(query).map_err(|code| (None, code.into()))?;
    let about = |code: Code| (Some(wanted.symbol), Problem::from(code));
    let id = state.assets.borrow().find(&wanted.symbol).ok_or_else(|| about(Code::AssetUnknown))?;
    let Some(tick) = newer(state, id, wanted).await else {
        return Ok((wanted.symbol, StatusCode::NOT_MODIFIED.into_response()));
    };
    let details = inspect(state, id).await.ok_or_else(|| about(Code::Overloaded))?;
    let rows = rows(&details, clock::now());
    let told = |code: Code| (Some(wanted.symbol), Problem::from(code).with("venues", serde_json::json!(rows)));
    let tick = tick.ok_or_else(|| told(Code::PriceUnavailable))?;
    if tick.is_stale() && !wanted.allow_stale {
        return Err(told(Code::PriceStale));
    }
    let symbol = state.assets.borrow().entry(id).map_or(wanted.symbol, |entry| entry.symbol);
    let body = body(&symbol, &tick, &rows, clock::now()).ok_or_else(|| about(Code::PriceUnavailable))?;
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=1")),
    ];
    Ok((wanted.symbol, (fields, body).into_response()))
}

/// Reads the parameters. The shard refuses bad ones with their reasons; what gets past it is refused here all the same.
fn wanted(query: &[(String, String)]) -> Result<Wanted, Code> {
    let value = |name: &str| {
        let mut values = query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let first = values.next();
        if values.next().is_some() { Err(Code::ParameterInvalid) } else { Ok(first) }
    };
    let number = |name: &str| match value(name)? {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| Code::ParameterInvalid),
    };
    let asset = value("asset")?.filter(|text| !text.is_empty()).ok_or(Code::AssetMissing)?;
    Ok(Wanted {
        symbol: Symbol::new(asset.as_bytes()).ok_or(Code::AssetInvalid)?,
        allow_stale: matches!(value("allow_stale")?, Some("1" | "true")),
        newer_than: number("newer_than")?,
        wait_ms: number("wait_ms")?.unwrap_or(0).min(WAIT_MS_MAX),
    })
}

/// The newest tick of `asset`; `None` when one newer than asked for did not come in time.
async fn newer(state: &ApiState, asset: AssetId, wanted: Wanted) -> Option<Option<Tick>> {
    let Some(newer_than) = wanted.newer_than else { return Some(state.prices.price(asset)) };
    let deadline = tokio::time::Instant::now() + Duration::from_millis(wanted.wait_ms);
    loop {
        if let Some(tick) = state.prices.price(asset).filter(|tick| tick.sequence > newer_than) {
            return Some(Some(tick));
        }
        let now = tokio::time::Instant::now();
        if now >= deadline || state.is_draining() {
            return None;
        }
        tokio::time::sleep_until(deadline.min(now + LOOK_AGAIN)).await;
    }
}

async fn inspect(state: &Arc<ApiState>, asset: AssetId) -> Option<Vec<VenueDetail>> {
    let state = Arc::clone(state);
    tokio::task::spawn_blocking(move || state.plane.inspect(asset)).await.ok()?
}

fn rows(details: &[VenueDetail], now: Moment) -> Vec<VenueRow> {
    let row = |detail: &VenueDetail| {
        let was_heard = detail.received_time_ms != 0;
        VenueRow {
            venue: detail.venue.name(),
            price: detail.price.map(price_text),
            currency: detail.currency.code(),
            last: detail.last.map(price_text),
            bid: detail.bid.map(price_text),
            ask: detail.ask.map(price_text),
            exchange_time_ms: detail.exchange_time_ms,
            received_time_ms: was_heard.then_some(detail.received_time_ms),
            age_ms: was_heard.then(|| now.ms_since(detail.received_mono_ns)),
            live: detail.live,
            included: detail.excluded.is_none(),
            excluded: detail.excluded.map(exclusion_name),
        }
    };
    details.iter().map(row).collect()
}

const fn exclusion_name(exclusion: Exclusion) -> &'static str {
    match exclusion {
        Exclusion::NoPrice => "no_price",
        Exclusion::Stale => "stale",
        Exclusion::Quarantined => "quarantined",
        Exclusion::Outlier => "outlier",
        Exclusion::NoConversion => "no_conversion",
    }
}

fn price_text(price: Price) -> String {
    let mut text = [0; PRICE_TEXT_MAX];
    let length = price.write(&mut text);
    String::from_utf8_lossy(&text[..length]).into_owned()
}

/// The shard's own form of the price, with `venues` as its last member.
fn body(symbol: &Symbol, tick: &Tick, rows: &[VenueRow], now: Moment) -> Option<String> {
    #[derive(Serialize)]
    struct Venues<'a> {
        venues: &'a [VenueRow],
    }
    let price = String::from_utf8(price_body(symbol, tick, now.ms_since(tick.received_mono_ns))).ok()?;
    let venues = serde_json::to_string(&Venues { venues: rows }).ok()?;
    let whole = format!("{},{}", price.strip_suffix('}')?, venues.strip_prefix('{')?);
    // Two objects were joined as text: what comes out must still be one.
    serde_json::from_str::<&RawValue>(&whole).is_ok().then_some(whole)
}

/// The fields of the rate limit: on each 429, and whenever less than a fifth of the limit is left.
fn rate_fields(state: &ApiState, record: &KeyRecord, now: Moment, response: &mut Response) {
    let limit = record.limit_per_second;
    let left = match response.status() {
        StatusCode::TOO_MANY_REQUESTS => 0,
        _ => state.keys.remaining(record.id, now.mono_ms()).unwrap_or(0),
    };
    if response.status() != StatusCode::TOO_MANY_REQUESTS && u64::from(left) * 5 >= u64::from(limit) {
        return;
    }
    let fields =
        [("ratelimit-policy", format!("\"key\";q={limit};w=1")), ("ratelimit", format!("\"key\";r={left};t=1"))];
    for (name, value) in fields {
        let value = HeaderValue::from_str(&value).ok();
        response.headers_mut().extend(value.map(|value| (HeaderName::from_static(name), value)));
    }
}

/// Counts the answer as usage, as a shard would.
fn count(state: &ApiState, record: Option<&KeyRecord>, symbol: Option<Symbol>, response: &Response, now: Moment) {
    let code = response.extensions().get::<Code>().map_or(0, |code| code.number());
    state.usage.count(&UsageRecord {
        first_time_ms: now.wall_ms,
        last_time_ms: now.wall_ms,
        requests: 1,
        asset: symbol.map(|symbol| *symbol.padded()).unwrap_or_default(),
        key: record.map_or(0, |record| record.id.0),
        shard: NO_SHARD,
        status: response.status().as_u16(),
        protocol: PROTOCOL_TCP,
        code,
        endpoint: Endpoint::Price as u8,
        ..UsageRecord::default()
    });
}
