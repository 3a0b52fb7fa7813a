//! `/admin/cache/{key}`: what stands in the cache, within the documented patterns only.
//!
//! What is written has the pattern's type and lifetime, and its row in the audit trail stands before it is tried: a row
//! without its write is an attempt that the cache did not take. Names and lifetimes are known to `cache::names`.

use super::{Admitted, BODY_BYTES_MAX, CALLER, body};
use crate::api::problem::{AdminCode, Problem};
use crate::api::{ApiState, Shared};
use crate::cache::names::{ALL, API_KEY, CacheKey, Kind};
use crate::cache::{CacheError, Value as Cached};
use crate::params::check::MASK;
use crate::store::AuditEntry;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router, body::Bytes};
use serde_json::{Map, Value, json};
use shared::code::Code;
use std::sync::Arc;
use tuning::clock;

/// Longest value that stands whole in the audit trail, bytes as JSON; of a longer one its type and size do.
const AUDITED_MAX: usize = 4_096;

/// Parts of names of members that may hold what nobody is to see, whoever wrote them.
const SECRET: [&str; 6] = ["secret", "password", "token", "hash", "admin_key", "private"];

/// The name in the path, as it came.
type Name = Result<Path<String>, PathRejection>;

/// The routes of the cache.
pub fn routes() -> Router<Arc<ApiState>> {
    Router::new().route("/admin/cache/{key}", get(read).put(write).post(write).delete(forget))
}

/// The name in the path, if it is a documented one.
fn named(name: Name) -> Result<CacheKey, Problem> {
    let Path(name) = name.map_err(|_| Problem::saying(Code::ParameterInvalid, "The name in the path is no UTF-8."))?;
    CacheKey::parse(&name).map_err(|why| {
        let patterns: Vec<String> = ALL.iter().map(|pattern| pattern.shown()).collect();
        Problem::saying(Code::NotPermitted, format!("{why}; /admin/cache serves these names only."))
            .with("patterns", patterns.into())
    })
}

/// The same, if administrators may change what stands there.
fn writable(name: Name) -> Result<CacheKey, Problem> {
    let key = named(name)?;
    if key.pattern().writable {
        return Ok(key);
    }
    let why = format!("{} is written by the service alone.", key.pattern().shown());
    Err(Problem::saying(Code::NotPermitted, why))
}

fn refused(error: CacheError) -> Problem {
    match error {
        CacheError::Refused(why) => Problem::administrating(AdminCode::Conflict, why),
        CacheError::Unreachable(_) => error.into(),
    }
}

/// `GET /admin/cache/{key}`.
async fn read(_: Admitted, State(state): Shared, name: Name) -> Result<Json<Value>, Problem> {
    show(&state, &named(name)?).await
}

async fn show(state: &ApiState, key: &CacheKey) -> Result<Json<Value>, Problem> {
    let Some((value, lifetime_ms)) = state.cache.get(key).await.map_err(refused)? else {
        return Err(Problem::saying(Code::NotFound, format!("Nothing stands under {key}.")));
    };
    Ok(Json(json!({
        "key": key.name(),
        "type": value.kind().name(),
        "ttl_ms": lifetime_ms,
        "writable": key.pattern().writable,
        "value": shown(key, &value),
    })))
}

/// A value as JSON, without what nobody is to see.
fn shown(key: &CacheKey, value: &Cached) -> Value {
    let masked = |name: &str, value: Value| if is_secret(name) { Value::from(MASK) } else { value };
    match value {
        // A key's record is ours, but others may write there too: what cannot be looked through is not shown.
        Cached::Text(text) if *key.pattern() == API_KEY => match serde_json::from_str(text) {
            Ok(Value::Object(members)) => {
                members.into_iter().map(|(name, value)| (name.clone(), masked(&name, value))).collect()
            }
            _ => Value::from(MASK),
        },
        Cached::Text(text) => Value::from(text.as_str()),
        Cached::Hash(fields) => {
            let field = |(name, text): (&String, &String)| (name.clone(), masked(name, Value::from(text.as_str())));
            fields.iter().map(field).collect::<Map<_, _>>().into()
        }
        Cached::Sorted(members) => members.iter().map(|(member, score)| json!([member, score])).collect(),
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|part| name.contains(part))
}

/// `PUT` and `POST /admin/cache/{key}` with `{"value": …}`.
async fn write(
    _: Admitted,
    State(state): Shared,
    name: Name,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let key = writable(name)?;
    let value = value(&key, &body(bytes, BODY_BYTES_MAX)?)?;
    value.check(&key).map_err(|error| Problem::unprocessable(error.to_string(), json!([])))?;
    audit(&state, &key, "cache.write", Some(&value)).await?;
    state.cache.put(&key, &value).await.map_err(refused)?;
    show(&state, &key).await
}

/// `DELETE /admin/cache/{key}`.
async fn forget(_: Admitted, State(state): Shared, name: Name) -> Result<Json<Value>, Problem> {
    let key = writable(name)?;
    audit(&state, &key, "cache.delete", None).await?;
    let deleted = state.cache.delete(&key).await.map_err(refused)?;
    Ok(Json(json!({ "key": key.name(), "deleted": deleted })))
}

/// A value of the pattern's type: text, an object of texts, or a list of `[member, score]`.
fn value(key: &CacheKey, bytes: &[u8]) -> Result<Cached, Problem> {
    let kind = key.pattern().kind;
    let wanted = || {
        let form = match kind {
            Kind::Text => "{\"value\": \"text\"}",
            Kind::Hash => "{\"value\": {\"field\": \"text\"}}",
            Kind::Sorted => "{\"value\": [[\"member\", 1], …]}",
        };
        Problem::saying(Code::ParameterInvalid, format!("{key} is a {}: send {form}.", kind.name()))
    };
    let sent: Value = serde_json::from_slice(bytes).map_err(|_| wanted())?;
    let only = sent.as_object().filter(|members| members.len() == 1).and_then(|members| members.get("value"));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let value = match (kind, only.ok_or_else(wanted)?) {
        (Kind::Text, Value::String(text)) => Some(Cached::Text(text.clone())),
        (Kind::Hash, Value::Object(fields)) => {
            let fields = fields.iter().map(|(name, value)| Some((name.clone(), text(value)?)));
            fields.collect::<Option<_>>().map(Cached::Hash)
        }
        (Kind::Sorted, Value::Array(members)) => {
            let member = |member: &Value| match member.as_array()?.as_slice() {
                [member, score] => Some((text(member)?, score.as_i64()?)),
                _ => None,
            };
            members.iter().map(member).collect::<Option<_>>().map(Cached::Sorted)
        }
        _ => None,
    };
    value.ok_or_else(wanted)
}

async fn audit(state: &ApiState, key: &CacheKey, action: &str, after: Option<&Cached>) -> Result<(), Problem> {
    let before = match state.cache.get(key).await {
        Ok(before) => before.map(|(value, _)| value),
        // Something odd stands there, and is about to be replaced.
        Err(CacheError::Refused(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let entry = AuditEntry {
        time_ms: clock::now().wall_ms,
        node: state.facts.node.clone(),
        caller: CALLER.to_owned(),
        action: action.to_owned(),
        target: key.name().to_owned(),
        before: audited(key, before.as_ref()),
        after: audited(key, after),
    };
    Ok(state.store.audit(&entry).await?)
}

fn audited(key: &CacheKey, value: Option<&Cached>) -> String {
    let Some(value) = value else { return "null".to_owned() };
    let text = if value.bytes() <= AUDITED_MAX { shown(key, value).to_string() } else { String::new() };
    match text.len() {
        1..=AUDITED_MAX => text,
        _ => json!({ "type": value.kind().name(), "bytes": value.bytes() }).to_string(),
    }
}
