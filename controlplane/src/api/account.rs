//! What every counted answer of the control plane has: a place in its key's allowance, the fields of the rate limit, and
//! a record as usage, as a shard would keep one.

use super::ApiState;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use shared::asset::Symbol;
use shared::code::Code;
use shared::key::KeyRecord;
use shared::moment::Moment;
use shared::tick::Tier;
use shared::usage::{Endpoint, UsageRecord};

/// Shard number of what the control plane answered itself.
const NO_SHARD: u16 = u16::MAX;

/// Whether a body follows the head.
pub(super) fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING)
        || length.is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'))
}

/// The fields of the rate limit: on each 429, and whenever less than a fifth of the limit is left.
pub(super) fn rate_fields(state: &ApiState, record: &KeyRecord, now: Moment, response: &mut Response) {
    let limit = record.limit_per_second;
    let left = match response.status() {
        StatusCode::TOO_MANY_REQUESTS => 0,
        _ => state.keys.current().remaining(record.id, now.mono_ms()).unwrap_or(0),
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

/// An answer that counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    /// The key's number; 0 for nobody, and for the administrator.
    pub(super) key: u32,
    /// The single asset it is about, if it is.
    pub(super) symbol: Option<Symbol>,
    /// HTTP status.
    pub(super) status: u16,
    /// Why it was refused, if it was.
    pub(super) code: Option<Code>,
    /// `PROTOCOL_TCP` or `PROTOCOL_UDP`.
    pub(super) protocol: u8,
    /// Which interface.
    pub(super) endpoint: Endpoint,
    /// Where its price came from.
    pub(super) tier: Tier,
}

/// Counts the answer as usage.
pub(super) fn count(state: &ApiState, answered: Answered, now: Moment) {
    state.usage.count(&UsageRecord {
        first_time_ms: now.wall_ms,
        last_time_ms: now.wall_ms,
        requests: 1,
        asset: answered.symbol.map(|symbol| *symbol.padded()).unwrap_or_default(),
        key: answered.key,
        shard: NO_SHARD,
        status: answered.status,
        protocol: answered.protocol,
        code: answered.code.map_or(0, Code::number),
        endpoint: answered.endpoint as u8,
        tier: answered.tier as u8,
        ..UsageRecord::default()
    });
}
