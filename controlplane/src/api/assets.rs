//! `GET /assets`: what can be asked for.

use super::Shared;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use shared::asset::{ALIASES, AssetDirectory};
use shared::venue::Venue;

/// Every asset with its venues and other names, and every venue with its assets. Asks for no key: it is the list a
/// client needs before its first question.
pub async fn list(State(state): Shared) -> Json<Value> {
    let directory = state.assets.borrow().clone();
    let assets: Vec<Value> = directory
        .iter()
        .map(|(id, entry)| {
            let symbol = entry.symbol.as_str();
            json!({
                "asset": symbol,
                "prewarmed": entry.prewarmed,
                "priced": state.prices.price(id).is_some(),
                "venues": entry.venues.iter().map(Venue::name).collect::<Vec<_>>(),
                "aliases": ALIASES.iter().filter(|(_, asset)| *asset == symbol).map(|(alias, _)| alias).collect::<Vec<_>>(),
            })
        })
        .collect();
    let venues: serde_json::Map<String, Value> =
        Venue::ALL.into_iter().map(|venue| (venue.name().to_owned(), listed(&directory, venue))).collect();
    Json(json!({ "assets": assets, "venues": venues }))
}

fn listed(directory: &AssetDirectory, venue: Venue) -> Value {
    let has = directory.iter().filter(|(_, entry)| entry.venues.contains(venue));
    has.map(|(_, entry)| entry.symbol.as_str()).collect::<Vec<_>>().into()
}
