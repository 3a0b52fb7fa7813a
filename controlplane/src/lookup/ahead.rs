//! Lookups in advance: many assets that nobody waits for.
//!
//! The cache is asked for all of them at once, the venues behind every client, and what they gave is left for the other
//! nodes in small groups as it comes. There is an end to it: what has come by then counts, and a venue that could not be
//! asked before is not asked.

use super::Warmed;
use super::desk::LookupDesk;
use super::entry;
use super::search::PROOF_WAIT;
use crate::cache::Write;
use crate::feeds::rest::queue::{Answered, Class};
use dataplane_core::feed::FeedInput;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use shared::asset::{AssetId, Symbol, resolve_alias};
use shared::venue::VenueSet;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

/// Names asked of the cache at once: an eighth of the calls that may be under way.
const ASKED_AT_ONCE: usize = 512;

/// Prices written to the cache at once: some 20 KB, which is written in a millisecond or two.
const GROUP_MAX: usize = 64;

/// How long the first price of a group waits for others: little of the seconds for which it is fresh.
const GATHER: Duration = Duration::from_millis(250);

/// How often it is looked whether a price has come.
const LOOK: Duration = Duration::from_millis(5);

/// See [`super::Lookups::warm`].
pub(super) async fn warm(desk: &LookupDesk, assets: &[Symbol], venues: VenueSet, until: Instant) -> Warmed {
    let assets = assets.iter().map(|symbol| resolve_alias(*symbol));
    let known = assets.filter_map(|symbol| Some((symbol, desk.find(&symbol)?)));
    let mut missing: Vec<(Symbol, AssetId)> = known.filter(|(_, asset)| !desk.setup.prices.is_fresh(*asset)).collect();
    let mut warmed = Warmed::default();
    let before = missing.len();
    for some in missing.chunks(ASKED_AT_ONCE) {
        // What the cache gave in time is on the board.
        warmed.unfinished |= timeout_at(until, from_cache(desk, some)).await.is_err();
    }
    missing.retain(|(_, asset)| !desk.setup.prices.is_fresh(*asset));
    warmed.from_cache = before - missing.len();
    if !venues.is_empty() {
        // As many as are missing: whoever finds never waits for whoever writes.
        let (found, told) = mpsc::channel(missing.len().max(1));
        let venues = from_venues(desk, &missing, venues, until, found);
        let ((from_rest, is_late), ()) = tokio::join!(venues, tell(desk, told));
        warmed.from_rest = from_rest;
        warmed.unfinished |= is_late;
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

/// Asks the venues, and hands on what has a price now; how many that are, and whether time was up before all had been
/// looked for.
async fn from_venues(
    desk: &LookupDesk,
    missing: &[(Symbol, AssetId)],
    venues: VenueSet,
    until: Instant,
    found: mpsc::Sender<(Symbol, AssetId)>,
) -> (usize, bool) {
    let mut asked: FuturesUnordered<_> =
        missing.iter().map(|(symbol, asset)| from_one_of(desk, *symbol, *asset, venues, until)).collect();
    let mut count = 0;
    loop {
        match timeout_at(until, asked.next()).await {
            Ok(Some(None)) => {}
            Ok(Some(Some(priced))) => {
                count += 1;
                // There is room for all of them.
                let _ = found.try_send(priced);
            }
            Ok(None) => return (count, false),
            Err(_) => return (count, true),
        }
    }
}

/// Leaves what is found for the other nodes, in groups as it comes, until nothing more can.
async fn tell(desk: &LookupDesk, mut found: mpsc::Receiver<(Symbol, AssetId)>) {
    while let Some(first) = found.recv().await {
        let mut group = vec![first];
        let gathered = Instant::now() + GATHER;
        while group.len() < GROUP_MAX
            && let Ok(Some(next)) = timeout_at(gathered, found.recv()).await
        {
            group.push(next);
        }
        let writes: Vec<Write> =
            group.into_iter().filter_map(|(symbol, asset)| write_of(desk, symbol, asset)).collect();
        if !writes.is_empty() {
            let written = desk.setup.cache.write_all(&writes).await;
            desk.counters.wrote(writes.len(), written.is_ok());
        }
    }
}

/// What the others may know of an asset, while it is worth something to them.
fn write_of(desk: &LookupDesk, symbol: Symbol, asset: AssetId) -> Option<Write> {
    let tick = desk.setup.prices.price(asset).filter(|tick| !tick.is_stale())?;
    // A quiet market's price is fresh here and would be old there.
    let age_ms = tuning::clock::now().wall_ms.saturating_sub(tick.received_time_ms);
    let fresh_ms = u64::from(desk.setup.parameters.borrow().cache_ttl_s) * 1_000;
    desk.told_of(symbol, &tick).filter(|_| age_ms < fresh_ms)
}

async fn from_one_of(
    desk: &LookupDesk,
    symbol: Symbol,
    asset: AssetId,
    venues: VenueSet,
    until: Instant,
) -> Option<(Symbol, AssetId)> {
    let left = || until.saturating_duration_since(Instant::now());
    for (client, market) in desk.ranked(&symbol, asset, venues, Class::Ahead, left()) {
        // Its own feeds may have brought it meanwhile.
        if desk.setup.prices.is_fresh(asset) {
            return None;
        }
        // Its gate may have been closed since, for longer than there is.
        if client.wait(Class::Ahead) >= left() {
            continue;
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
