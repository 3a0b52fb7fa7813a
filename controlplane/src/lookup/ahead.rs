//! Lookups in advance: many assets that nobody waits for.
//!
//! The cache is asked for all of them at once, the venues behind every client, and what they gave is left for the other
//! nodes in a few writes.

use super::Warmed;
use super::desk::LookupDesk;
use super::entry;
use super::search::PROOF_WAIT;
use crate::cache::{WRITES_MAX, Write};
use crate::feeds::rest::queue::{Answered, Class};
use dataplane_core::feed::FeedInput;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use shared::asset::{AssetId, Symbol, resolve_alias};
use shared::venue::VenueSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Names asked of the cache at once: an eighth of the calls that may be under way.
const ASKED_AT_ONCE: usize = 512;

/// How long a venue may take to be asked: with one name in a request and two requests a second it is some 1,000 assets.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often it is looked whether a price has come.
const LOOK: Duration = Duration::from_millis(5);

/// See [`super::Lookups::warm`].
pub(super) async fn warm(desk: &LookupDesk, assets: &[Symbol], venues: VenueSet) -> Warmed {
    let assets = assets.iter().map(|symbol| resolve_alias(*symbol));
    let known = assets.filter_map(|symbol| Some((symbol, desk.find(&symbol)?)));
    let mut missing: Vec<(Symbol, AssetId)> = known.filter(|(_, asset)| !desk.setup.prices.is_fresh(*asset)).collect();
    let mut warmed = Warmed::default();
    let before = missing.len();
    for some in missing.chunks(ASKED_AT_ONCE) {
        from_cache(desk, some).await;
    }
    missing.retain(|(_, asset)| !desk.setup.prices.is_fresh(*asset));
    warmed.from_cache = before - missing.len();
    if !venues.is_empty() {
        warmed.from_rest = from_venues(desk, &missing, venues).await;
    }
    warmed.missing = missing.iter().filter(|(_, asset)| !desk.setup.prices.is_fresh(*asset)).count();
    warmed
}

async fn from_cache(desk: &LookupDesk, assets: &[(Symbol, AssetId)]) {
    let asked = assets.iter().map(|(symbol, asset)| async move {
        let got = desk.setup.cache.get(&entry::name(symbol)?).await;
        Some((desk.usable(symbol, got)?, *asset))
    });
    let mut given = Vec::new();
    for (entry, asset) in join_all(asked).await.into_iter().flatten() {
        if desk.feed(FeedInput::Remote(entry.remote(asset))).await {
            given.push(asset);
        }
    }
    let deadline = Instant::now() + PROOF_WAIT;
    while Instant::now() < deadline && given.iter().any(|asset| !desk.setup.prices.is_fresh(*asset)) {
        sleep(LOOK).await;
    }
}

/// Asks the venues; how many assets have a price now, which are left for the other nodes.
async fn from_venues(desk: &LookupDesk, missing: &[(Symbol, AssetId)], venues: VenueSet) -> usize {
    let mut asked: FuturesUnordered<_> =
        missing.iter().map(|(symbol, asset)| from_one_of(desk, *symbol, *asset, venues)).collect();
    let (mut found, mut writes) = (0, Vec::new());
    while let Some(priced) = asked.next().await {
        let Some((symbol, asset)) = priced else { continue };
        found += 1;
        let told = desk.setup.prices.price(asset).and_then(|tick| desk.told_of(symbol, &tick));
        writes.extend(told.map(|(name, value)| Write::Put(name, value)));
        if writes.len() >= WRITES_MAX || asked.is_empty() {
            write(desk, &mut writes).await;
        }
    }
    write(desk, &mut writes).await;
    found
}

async fn write(desk: &LookupDesk, writes: &mut Vec<Write>) {
    let writes = std::mem::take(writes);
    if !writes.is_empty() {
        let written = desk.setup.cache.write_all(&writes).await;
        desk.counters.wrote(writes.len(), written.is_ok());
    }
}

async fn from_one_of(desk: &LookupDesk, symbol: Symbol, asset: AssetId, venues: VenueSet) -> Option<(Symbol, AssetId)> {
    let until = Instant::now() + PATIENCE;
    for (client, market) in desk.ranked(&symbol, asset, venues, Class::Ahead, PATIENCE) {
        // Its own feeds may have brought it meanwhile.
        if desk.setup.prices.is_fresh(asset) {
            return None;
        }
        let Some(answered) = client.ask(market, Class::Ahead, until) else { continue };
        let Ok(Answered::Priced(quote)) = answered.await else { continue };
        if let Some(quote) = quote {
            desk.feed(FeedInput::Quote(*quote)).await;
        }
        let deadline = Instant::now() + PROOF_WAIT;
        while Instant::now() < deadline {
            if desk.setup.prices.is_fresh(asset) {
                return Some((symbol, asset));
            }
            sleep(LOOK).await;
        }
    }
    None
}
