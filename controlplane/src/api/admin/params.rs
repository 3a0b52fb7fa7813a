//! Administration of parameters: show them, change them, bring them into force, switch the profile.
//!
//! What a parameter may be is known to `params`; here texts come in and answers go out. A refused request has changed nothing.

use super::{Admitted, BODY_BYTES_MAX, CALLER, body, refuse_head};
use crate::api::problem::Problem;
use crate::api::{ApiState, Shared};
use crate::params::SystemMode;
use crate::params::catalogue::{self, Effect, Parameter};
use crate::params::check::{MASK, ParameterFault};
use crate::params::desk::{DeskError, InForce, Put, Reloaded};
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::Method;
use axum::routing::get;
use axum::{Json, Router};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use shared::code::Code;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

const BODY_WANTED: &str =
    "Send one JSON object: names of parameters, each once, with a string as value, or null to unset it.";

/// The routes of parameters.
pub fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/admin/params", get(list).put(change))
        .route("/admin/reload-params", get(reload).post(reload))
        .route("/admin/system-mode", get(mode).post(mode))
}

/// `GET /admin/params`: every parameter, with what stands in the store beside what is in force.
async fn list(_: Admitted, State(state): Shared) -> Json<Value> {
    let in_force = state.params.in_force();
    // What is in force is known without the store.
    let (rows, store) = match state.store.parameters().await {
        Ok(rows) => (Some(rows), "answers".to_owned()),
        Err(why) => (None, why.to_string()),
    };
    let stored = rows.unwrap_or_default();
    let unknown: Vec<&String> = stored.keys().filter(|name| catalogue::find(name).is_none()).collect();
    let parameters: Vec<Value> = catalogue::all().map(|one| row(one, &in_force, stored.get(one.name))).collect();
    Json(json!({
        "source": in_force.source,
        "since_ms": in_force.since_ms,
        "store": store,
        "parameters": parameters,
        "unknown": unknown,
    }))
}

fn row(parameter: &'static Parameter, in_force: &InForce, stored: Option<&String>) -> Value {
    let standing = in_force.checked.standing.get(parameter.name);
    let (is_effective, effect) = match parameter.effect {
        Effect::Reload(when) => (true, when),
        Effect::None(why) => (false, why),
    };
    json!({
        "name": parameter.name,
        "value": standing.map(|standing| standing.text.as_str()),
        "origin": standing.map(|standing| standing.origin),
        "stored": stored.map(|text| if parameter.is_secret() { MASK } else { text.as_str() }),
        "default": parameter.default(),
        "unit": parameter.unit,
        "bounds": parameter.bounds(),
        "meaning": parameter.meaning,
        "has_effect": is_effective,
        "effect": effect,
    })
}

/// Whether to bring the change into force at once.
#[derive(Debug, Deserialize)]
struct Wish {
    #[serde(default)]
    reload: Option<String>,
}

/// `PUT /admin/params`: changes rows, all or none.
async fn change(
    _: Admitted,
    State(state): Shared,
    wish: Result<Query<Wish>, QueryRejection>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let reload = match wish.as_ref().map(|Query(wish)| wish.reload.as_deref()) {
        Ok(None | Some("0")) => false,
        Ok(Some("1")) => true,
        Ok(Some(_)) | Err(_) => return Err(Problem::saying(Code::ParameterInvalid, "reload is 1 or 0, once.")),
    };
    let changes = changes(&body(bytes, BODY_BYTES_MAX)?)?;
    answer(state.params.put(&changes, reload, CALLER).await)
}

/// `/admin/reload-params`.
async fn reload(_: Admitted, method: Method, State(state): Shared) -> Result<Json<Reloaded>, Problem> {
    refuse_head(&method)?;
    state.params.reload(CALLER).await.map(Json).map_err(problem)
}

/// Which profile.
#[derive(Debug, Deserialize)]
struct Choice {
    mode: String,
}

/// `/admin/system-mode?mode=`.
async fn mode(
    _: Admitted,
    method: Method,
    State(state): Shared,
    choice: Result<Query<Choice>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    refuse_head(&method)?;
    let named = choice.ok().and_then(|Query(choice)| SystemMode::from_name(&choice.mode));
    let Some(mode) = named else {
        return Err(Problem::saying(Code::ParameterInvalid, "mode is performance, standard or demo."));
    };
    answer(state.params.mode(mode, CALLER).await)
}

fn answer(put: Result<Put, DeskError>) -> Result<Json<Value>, Problem> {
    let Put { stored, reloaded } = put.map_err(problem)?;
    match reloaded.transpose() {
        Ok(reloaded) => Ok(Json(json!({ "stored": stored, "reloaded": reloaded }))),
        Err(why) => {
            let how = "The values are stored, but not in force: call /admin/reload-params.";
            Err(problem(why).with("stored", json!(stored)).with("what_now", how.into()))
        }
    }
}

fn problem(error: DeskError) -> Problem {
    match error {
        DeskError::Faults(faults) => unprocessable(&faults),
        DeskError::Store(why) => why.into(),
    }
}

fn unprocessable(faults: &[ParameterFault]) -> Problem {
    let detail = format!("{} refused; what was in force is in force.", plural(faults.len()));
    Problem::unprocessable(detail, json!(faults))
}

fn plural(count: usize) -> String {
    if count == 1 { "One parameter is".to_owned() } else { format!("{count} parameters are") }
}

/// Reads the body: every name once, every value a string or `null`.
fn changes(bytes: &[u8]) -> Result<BTreeMap<String, Option<String>>, Problem> {
    let malformed = |why: String| Problem::saying(Code::ParameterInvalid, format!("{BODY_WANTED} ({why})"));
    let Pairs(pairs) = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    if pairs.is_empty() {
        return Err(malformed("it names none".to_owned()));
    }
    let (mut changes, mut faults) = (BTreeMap::new(), Vec::new());
    for (name, value) in pairs {
        let text = match value {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => {
                faults.push(ParameterFault::of_type(&name, &other.to_string()));
                continue;
            }
        };
        // The value of a name that nobody knows may be a misspelt secret: it is not repeated.
        if changes.insert(name, text).is_some() {
            return Err(malformed("a name stands in it twice".to_owned()));
        }
    }
    if faults.is_empty() { Ok(changes) } else { Err(unprocessable(&faults)) }
}

/// A JSON object as it was written: the usual map would let the last of two like names win.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}
