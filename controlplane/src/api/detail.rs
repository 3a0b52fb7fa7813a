//! `GET /price?detail=1`: a price with what every venue says, and why some are not counted.
//!
//! The shard has checked the request's form before it handed the socket over; the key is asked for here, once, under
//! the same allowance as everywhere, and the answer is counted like a shard's. An asset without a price to give is looked
//! up, and waited for, as on a shard; where is not known here.

use super::account::{Answered, count, has_body, rate_fields};
use super::caller::key_text;
use super::problem::Problem;
use super::{ApiState, Shared};
use crate::keys::{admit, identify};
use crate::lookup::Outcome;
use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dataplane_core::feed::{Exclusion, VenueDetail};
use dataplane_core::limits::LOOKUP_WAIT_MS;
use dataplane_core::names_etag;
use dataplane_core::render::{price_body, usual_detail};
use serde::Serialize;
use serde_json::value::RawValue;
use shared::asset::{AssetId, Symbol};
use shared::code::Code;
use shared::key::{KeyRecord, Permissions};
use shared::limits::WAIT_MS_MAX;
use shared::moment::Moment;
use shared::price::{PRICE_TEXT_MAX, Price};
use shared::tick::{Tick, Tier, is_of_another_node};
use shared::usage::{Endpoint, PROTOCOL_TCP};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tuning::clock;

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
    if !query.iter().any(|(name, value)| name == "detail" && is_set(value)) {
        // Shards hand over no other price, so this came to the control plane's own port.
        const WHERE: &str = "Prices are asked for on the price port (TCP_PORT_LPO); here only with detail=1.";
        return Problem::saying(Code::NotFound, WHERE).into_response();
    }
    let now = clock::now();
    let keys = state.keys.current();
    let caller = match has_body(&headers) {
        true => Err(Code::BodyNotAllowed),
        false => identify(&keys, key_text(&headers), Permissions::PRICES, now),
    };
    let (record, answer) = match caller {
        Ok(record) => (Some(record), answer(&state, record, &query, &headers, now).await),
        Err(code) => (None, Err((None, code.into()))),
    };
    let (symbol, mut response) = match answer {
        Ok((symbol, response)) => (Some(symbol), response),
        Err((symbol, problem)) => (symbol, problem.into_response()),
    };
    if let Some(record) = record {
        rate_fields(&state, record, now, &mut response);
    }
    let answered = Answered {
        key: record.map_or(0, |record| record.id.0),
        symbol,
        status: response.status().as_u16(),
        code: response.extensions().get::<Code>().copied(),
        protocol: PROTOCOL_TCP,
        endpoint: Endpoint::Price,
        tier: response.extensions().get().copied().unwrap_or(Tier::Local),
    };
    count(&state, answered, now);
    response
}

fn is_set(flag: &str) -> bool {
    matches!(flag, "1" | "true")
}

type Refused = (Option<Symbol>, Problem);

async fn answer(
    state: &Arc<ApiState>,
    record: &KeyRecord,
    query: &[(String, String)],
    headers: &HeaderMap,
    now: Moment,
) -> Result<(Symbol, Response), Refused> {
    admit(&state.keys.current(), record, now).map_err(|code| (None, code.into()))?;
    let wanted = wanted(query).map_err(|code| (None, code.into()))?;
    let problem = |code: Code| Problem::saying(code, format!("{}: {}", wanted.symbol.as_str(), usual_detail(code)));
    let about = |code: Code| (Some(wanted.symbol), problem(code));
    let wait_until = Instant::now() + Duration::from_millis(wanted.wait_ms);
    let nothing = seek(state, record, wanted, wait_until).await.err();
    let find = || state.assets.borrow().find(&wanted.symbol);
    let id = find().ok_or_else(|| about(nothing.unwrap_or(Code::AssetUnknown)))?;
    let (tick, is_news) = newer(state, id, wanted, wait_until).await;
    if let Some(tick) = tick.filter(|_| !is_news) {
        return Ok((wanted.symbol, (StatusCode::NOT_MODIFIED, version(&tick)).into_response()));
    }
    let details = inspect(state, id).await.ok_or_else(|| about(Code::Overloaded))?;
    let rows = rows(&details, clock::now());
    // Where there was no time to look, that is what is wrong, and not the price.
    let not_looked = nothing.filter(|code| matches!(code, Code::Overloaded | Code::Draining));
    let told =
        |code: Code| (Some(wanted.symbol), problem(not_looked.unwrap_or(code)).with("venues", serde_json::json!(rows)));
    let tick = tick.ok_or_else(|| told(Code::PriceUnavailable))?;
    if tick.is_stale() && !wanted.allow_stale {
        return Err(told(Code::PriceStale));
    }
    if is_known(headers, &tick) {
        return Ok((wanted.symbol, (StatusCode::NOT_MODIFIED, version(&tick)).into_response()));
    }
    let symbol = state.assets.borrow().entry(id).map_or(wanted.symbol, |entry| entry.symbol);
    let body = body(&symbol, &tick, &rows, clock::now()).ok_or_else(|| about(Code::PriceUnavailable))?;
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((wanted.symbol, (kind, version(&tick), body).into_response()))
}

/// The fields that say which price this is; with its tier, for whoever counts the answer.
fn version(tick: &Tick) -> (Extension<Tier>, [(HeaderName, String); 2]) {
    let tier = Tier::from_number(tick.tier).unwrap_or(Tier::Local);
    let fields =
        [(header::CACHE_CONTROL, "private, max-age=1".to_owned()), (header::ETAG, format!("\"{}\"", tick.sequence))];
    (Extension(tier), fields)
}

/// Whether the client has this price already.
fn is_known(headers: &HeaderMap, tick: &Tick) -> bool {
    let wanted = tick.sequence.to_string();
    headers.get_all(header::IF_NONE_MATCH).iter().any(|tags| names_etag(tags.as_bytes(), wanted.as_bytes()))
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
        Some(text) if text.starts_with('+') => Err(Code::ParameterInvalid),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| Code::ParameterInvalid),
    };
    let flag = |name: &str| match value(name)? {
        Some(text) if is_set(text) => Ok(true),
        None | Some("0" | "false") => Ok(false),
        Some(_) => Err(Code::ParameterInvalid),
    };
    let (newer_than, wait_ms, allow_stale) = (number("newer_than")?, number("wait_ms")?, flag("allow_stale")?);
    flag("detail")?;
    let asset = value("asset")?.filter(|text| !text.is_empty()).ok_or(Code::AssetMissing)?;
    let symbol = Symbol::new(asset.as_bytes()).ok_or(Code::AssetInvalid)?;
    let wait_ms = Some(wait_ms.unwrap_or(0)).filter(|wait| *wait <= WAIT_MS_MAX).ok_or(Code::ParameterInvalid)?;
    Ok(Wanted { symbol, allow_stale, newer_than, wait_ms })
}

/// Has the asset looked up unless there is a price of it to give. A request that waits for a newer price waits no longer
/// than it said, any other for `LOOKUP_WAIT_MS`; and nobody does on a node that is about to go.
///
/// # Errors
/// Why there is none.
async fn seek(state: &ApiState, record: &KeyRecord, wanted: Wanted, wait_until: Instant) -> Result<(), Code> {
    let id = state.assets.borrow().find(&wanted.symbol);
    let tick = id.and_then(|id| state.prices.price(id));
    if tick.is_some_and(|tick| wanted.allow_stale || !tick.is_stale()) {
        return Ok(());
    }
    if state.is_draining() {
        return Err(Code::Draining);
    }
    let longest = Instant::now() + Duration::from_millis(LOOKUP_WAIT_MS);
    let waits = wanted.newer_than.is_some() && wanted.wait_ms > 0;
    let until = if waits { wait_until.min(longest) } else { longest };
    match timeout_at(until, state.lookups.look_up(wanted.symbol, record.id)).await {
        Ok(Outcome::Found) => Ok(()),
        Ok(Outcome::Nothing(code)) => Err(code),
        Err(_) => Err(Code::PriceUnavailable),
    }
}

/// The newest tick of `asset`, if there is one, and whether it is newer than asked for (or that was not asked).
async fn newer(state: &ApiState, asset: AssetId, wanted: Wanted, wait_until: Instant) -> (Option<Tick>, bool) {
    let begun = Instant::now();
    loop {
        let (tick, generation) = state.prices.price_and_generation(asset);
        let Some(newer_than) = wanted.newer_than else { return (tick, true) };
        let now = Instant::now();
        let waited_ms = u64::try_from((now - begun).as_millis()).unwrap_or(u64::MAX);
        let is_elsewhere = is_of_another_node(newer_than, generation, waited_ms);
        let is_news = tick.is_some_and(|tick| is_elsewhere || tick.sequence > newer_than);
        if is_news || now >= wait_until || state.is_draining() {
            return (tick, is_news);
        }
        sleep_until(wait_until.min(now + LOOK_AGAIN)).await;
    }
}

/// Longest that a request waits for what venues contribute: four times what the feed thread may take.
const INSPECT_MAX: Duration = Duration::from_secs(1);

async fn inspect(state: &Arc<ApiState>, asset: AssetId) -> Option<Vec<VenueDetail>> {
    let state = Arc::clone(state);
    let inspecting = tokio::task::spawn_blocking(move || state.plane.inspect(asset));
    // Threads for what blocks may all be taken.
    timeout(INSPECT_MAX, inspecting).await.ok()?.ok()?
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
