//! `GET /assets`: what can be asked for.
//!
//! The list may hold thousands of assets and asks for no key, so it is made at most once a second on each port, away
//! from the threads that serve, and handed out as it stands.

use super::{ApiState, Shared};
use crate::feeds::plan::Plan;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shared::asset::{ALIASES, AssetDirectory, AssetId};
use shared::venue::Venue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// How long a list is handed out.
const LASTS: Duration = Duration::from_secs(1);

/// The list as it was last made, and when.
pub type MadeList = Arc<Mutex<Option<(Instant, Bytes)>>>;

#[derive(Serialize)]
struct Shown<'a> {
    asset: &'a str,
    /// Whether it belongs to `all` in `/prices`.
    prewarmed: bool,
    /// Whether a venue's connection is to carry it.
    subscribed: bool,
    /// Whether it is subscribed only because somebody asks for it.
    on_demand: bool,
    /// Whether it has a price, be it stale.
    priced: bool,
    /// Who lists it.
    venues: Vec<&'static str>,
    aliases: Vec<&'static str>,
}

#[derive(Serialize)]
struct List<'a> {
    assets: Vec<Shown<'a>>,
    venues: BTreeMap<&'static str, Vec<&'a str>>,
}

/// Every asset with its venues and other names, and every venue with its assets. Asks for no key: it is the list a
/// client needs before its first question.
pub async fn list(State(state): Shared, Extension(made): Extension<MadeList>) -> Response {
    // Whoever comes while it is being made waits for it.
    let mut made = made.lock().await;
    if let Some((_, body)) = made.as_ref().filter(|(when, _)| when.elapsed() < LASTS) {
        return told(body.clone());
    }
    match spawn_blocking(move || make(&state)).await {
        Ok(body) => {
            *made = Some((Instant::now(), body.clone()));
            told(body)
        }
        Err(fault) => {
            tracing::error!(%fault, "the list of assets could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn told(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn make(state: &ApiState) -> Bytes {
    let (directory, plan) = (Arc::clone(&state.assets.borrow()), state.feeds.plan());
    let priced = state.prices.ticks().into_iter().filter_map(|tick| tick.asset_id()).collect();
    serde_json::to_vec(&listed(&directory, &plan, &priced)).unwrap_or_default().into()
}

fn listed<'a>(directory: &'a AssetDirectory, plan: &Plan, priced: &BTreeSet<AssetId>) -> List<'a> {
    let subscribed: BTreeSet<AssetId> = plan.markets.iter().flat_map(|of| of.iter()).map(|one| one.asset).collect();
    let mut venues: BTreeMap<&'static str, Vec<&str>> =
        Venue::ALL.into_iter().map(|venue| (venue.name(), Vec::new())).collect();
    let mut assets = Vec::with_capacity(directory.len());
    for (id, entry) in directory.iter() {
        let symbol = entry.symbol.as_str();
        for venue in entry.venues.iter() {
            venues.entry(venue.name()).or_default().push(symbol);
        }
        assets.push(Shown {
            asset: symbol,
            prewarmed: entry.prewarmed,
            subscribed: subscribed.contains(&id),
            on_demand: subscribed.contains(&id) && !plan.lasting.contains(&id),
            priced: priced.contains(&id),
            venues: entry.venues.iter().map(Venue::name).collect(),
            aliases: ALIASES.iter().filter(|(_, asset)| *asset == symbol).map(|(alias, _)| *alias).collect(),
        });
    }
    List { assets, venues }
}
