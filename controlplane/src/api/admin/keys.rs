//! Administration of API keys: make, list, rotate, revoke, and how one key stands.
//!
//! What a key may be is known to `keys`; here texts come in and answers go out. A key's text and its UDP secret are in one
//! answer alone, that which made it. A refused request has changed nothing.

use super::{Admitted, CALLER, body, refuse_head};
use crate::api::problem::{AdminCode, Problem};
use crate::api::{ApiState, Shared};
use crate::keys::desk::Invalidated;
use crate::keys::issue::{KeyState, ListWish, document};
use crate::keys::wish::{self, WishFault};
use crate::store::PAGE_MAX;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::code::Code;
use std::fmt::Write;
use std::sync::Arc;
use tuning::clock;

/// Largest body: the longest wish is under 1 KiB.
const BODY_BYTES_MAX: usize = 16 * 1_024;

/// Keys in one page of a list where nobody says otherwise.
const PAGE_USUAL: usize = 100;

/// Longest name of a tier in a filter.
const TIER_BYTES_MAX: usize = 64;

/// The routes of keys.
pub fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/admin/keys", get(list).post(create))
        .route("/admin/keys/{id}/rotate", post(rotate))
        .route("/admin/keys/{id}/revoke", post(revoke))
        .route("/admin/key-status", get(status))
        .route("/admin/invalidate-key", get(invalidate).post(invalidate))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// The members of a body; an empty body has none.
fn members(bytes: Result<Bytes, BytesRejection>) -> Result<Map<String, Value>, Problem> {
    let bytes = body(bytes, BODY_BYTES_MAX)?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&bytes).map_err(|_| Problem::saying(Code::RequestMalformed, "Send one JSON object."))
}

fn refused(faults: &[WishFault]) -> Problem {
    let detail = format!("{} of the wish will not do; nothing was changed.", faults.len());
    Problem::unprocessable(detail, json!(faults))
}

/// The number of a stored key in a path.
fn stored_id(state: &ApiState, id: Result<Path<u32>, PathRejection>) -> Result<u32, Problem> {
    let id = known_form(id.ok().map(|Path(id)| id))?;
    if state.keys.is_fixed_id(id) {
        let why = format!("Key {id} stands in the settings file: change it there.");
        return Err(Problem::administrating(AdminCode::Conflict, why));
    }
    Ok(id)
}

fn known_form(id: Option<u32>) -> Result<u32, Problem> {
    let bounds = "A key's number is 1 to 4294967295.";
    id.filter(|id| *id > 0).ok_or_else(|| Problem::saying(Code::ParameterInvalid, bounds))
}

fn unknown(id: u32) -> Problem {
    Problem::saying(Code::NotFound, format!("There is no key {id}."))
}

/// `POST /admin/keys`: makes a key.
async fn create(
    _: Admitted,
    State(state): Shared,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let members = members(bytes)?;
    let now_ms = clock::now().wall_ms;
    let wish = wish::new_key(&members, &state.keys.tiers(), now_ms).map_err(|faults| refused(&faults))?;
    let issued = state.keys.create(wish, CALLER).await?;
    Ok((StatusCode::CREATED, Json(issued.shown_once(now_ms))))
}

/// `POST /admin/keys/{id}/rotate`: makes a key in place of another, which works on for a while.
async fn rotate(
    _: Admitted,
    State(state): Shared,
    id: Result<Path<u32>, PathRejection>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let id = stored_id(&state, id)?;
    let overlap_ms = wish::overlap(&members(bytes)?).map_err(|faults| refused(&faults))?;
    let (issued, old) = state.keys.rotate(id, overlap_ms, CALLER).await?;
    let now_ms = clock::now().wall_ms;
    let mut shown = issued.shown_once(now_ms);
    shown["replaces"] = document(&old, now_ms);
    Ok((StatusCode::CREATED, Json(shown)))
}

/// `POST /admin/keys/{id}/revoke`: refuses a key from now on.
async fn revoke(
    _: Admitted,
    State(state): Shared,
    id: Result<Path<u32>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let id = stored_id(&state, id)?;
    let row = state.keys.revoke(id, CALLER).await?;
    Ok(Json(document(&row, clock::now().wall_ms)))
}

/// Which page of the list.
#[derive(Debug, Deserialize)]
struct Page {
    #[serde(default)]
    after: u32,
    limit: Option<usize>,
    tier: Option<String>,
    state: Option<String>,
}

impl Page {
    fn wish(&self) -> Option<ListWish> {
        let state = match &self.state {
            Some(wanted) => Some(KeyState::ALL.into_iter().find(|state| state.name() == wanted)?),
            None => None,
        };
        let is_plain = |tier: &String| {
            (1..=TIER_BYTES_MAX).contains(&tier.len())
                && tier.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        let limit = self.limit.unwrap_or(PAGE_USUAL);
        let good = self.tier.as_ref().is_none_or(is_plain) && (1..=PAGE_MAX).contains(&limit);
        good.then(|| ListWish { after: self.after, limit, tier: self.tier.clone(), state })
    }

    fn next(&self, after: u32) -> String {
        let mut target = format!("/admin/keys?after={after}");
        let limit = self.limit.map(|limit| limit.to_string());
        for (name, value) in [("limit", &limit), ("tier", &self.tier), ("state", &self.state)] {
            if let Some(value) = value {
                // Writing to a string does not fail.
                let _ = write!(target, "&{name}={value}");
            }
        }
        target
    }
}

/// `GET /admin/keys`: stored keys by number.
async fn list(
    _: Admitted,
    State(state): Shared,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<(HeaderMap, Json<Value>), Problem> {
    let page = page.ok().map(|Query(page)| page);
    let Some((page, wish)) = page.and_then(|page| page.wish().map(|wish| (page, wish))) else {
        let bounds = "after is a key's number; limit is 1 to 1000; tier is a tier's name; state is active, expired or \
                      revoked; each once.";
        return Err(Problem::saying(Code::ParameterInvalid, bounds));
    };
    let (rows, next) = state.keys.list(&wish).await?;
    let now_ms = clock::now().wall_ms;
    let mut headers = HeaderMap::new();
    if let Some(next) = next {
        let link = HeaderValue::from_str(&format!("<{}>; rel=\"next\"", page.next(next)));
        headers.extend(link.ok().map(|link| (header::LINK, link)));
    }
    let rows: Vec<Value> = rows.iter().map(|row| document(row, now_ms)).collect();
    Ok((headers, Json(json!({ "keys": rows, "next_after": next }))))
}

/// Which key.
#[derive(Debug, Deserialize)]
struct Which {
    key_id: u32,
}

fn wanted(which: Result<Query<Which>, QueryRejection>) -> Result<u32, Problem> {
    known_form(which.ok().map(|Query(which)| which.key_id))
}

/// `GET /admin/key-status?key_id=`: how a key stands.
async fn status(
    _: Admitted,
    State(state): Shared,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let id = wanted(which)?;
    state.keys.status(id).await?.map(Json).ok_or_else(|| unknown(id))
}

/// `/admin/invalidate-key?key_id=`: drops a key from the cache and every shard, and reads it anew.
async fn invalidate(
    _: Admitted,
    method: Method,
    State(state): Shared,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    refuse_head(&method)?;
    let id = wanted(which)?;
    let (outcome, why) = match state.keys.invalidate(id, CALLER).await? {
        None => return Err(unknown(id)),
        Some(Invalidated::Works) => ("works", None),
        Some(Invalidated::WorksNot) => ("works not", None),
        Some(Invalidated::Held(why)) => ("refused until the database can be read", Some(why.to_string())),
    };
    Ok(Json(json!({ "key_id": id, "outcome": outcome, "why": why })))
}
