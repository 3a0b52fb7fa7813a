//! `GET /admin/cluster`: every node alive, with what it counts. It is only read here.

use super::Admitted;
use crate::api::{ApiState, Shared};
use crate::cluster::{Counters, counters};
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The route of the cluster.
pub fn routes() -> Router<Arc<ApiState>> {
    Router::new().route("/admin/cluster", get(everyone))
}

/// Every node alive; this one alone, as of now, while the cache is away.
async fn everyone(_: Admitted, State(state): Shared) -> Json<Value> {
    let known = state.cluster.watch().borrow().nodes.clone();
    let found = state.cluster.everyone().await;
    let connected = found.is_ok();
    let mut nodes = found.unwrap_or_default();
    // One's own numbers are those of now.
    nodes.insert(state.facts.node.clone(), Some(counters::of(&state)));
    let nodes: BTreeMap<String, Value> =
        nodes.into_iter().map(|(node, counters)| (node, counters.map_or(Value::Null, numbers))).collect();
    let meanings: Map<String, Value> =
        counters::COUNTERS.iter().map(|counter| (counter.name.to_owned(), counter.meaning.into())).collect();
    Json(json!({
        "node": state.facts.node,
        "cache": state.cache.kind(),
        "connected": connected,
        "alive": known,
        "nodes": nodes,
        "meanings": meanings,
    }))
}

/// Numbers as numbers; what another version wrote that is none, as it is.
fn numbers(counters: Counters) -> Value {
    let number = |text: String| text.parse::<u64>().map_or_else(|_| Value::from(text.as_str()), Value::from);
    counters.into_iter().map(|(name, text)| (name, number(text))).collect::<Map<String, Value>>().into()
}
