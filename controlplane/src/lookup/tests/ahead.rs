//! Lookups that nobody waits for: shared requests, closed gates, slow venues and the end of the round.

use super::super::Lookups;
use super::UNAVAILABLE;
use super::world::{Setting, World, symbol};
use crate::feeds::simulator::fault::Fault;
use shared::key::KeyId;
use shared::tick::Tier;
use shared::venue::{Venue, VenueSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The end of a round that has time enough.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_in_advance_share_their_requests() {
    let world = World::start(Setting { gap_ms: 100, ..Setting::default() }).await;
    let assets = ["GMX", "ZIL", "VTHO", "MNT", "RPL", "NOSUCH"].map(symbol);
    let before = world.requests();
    let shared = [Venue::Gateio, Venue::Bybit].into_iter().fold(VenueSet::EMPTY, VenueSet::with);
    let nothing = world.desk.warm(&assets, VenueSet::EMPTY, soon()).await;
    assert_eq!((nothing.from_cache, nothing.from_rest, nothing.missing), (0, 0, 5));
    assert_eq!(world.requests(), before, "no venue, no request");
    let warmed = world.desk.warm(&assets, shared, soon()).await;
    assert_eq!((warmed.from_cache, warmed.from_rest, warmed.missing), (0, 5, 0));
    assert!(world.requests() - before <= 4, "{} requests for five assets", world.requests() - before);
    assert_eq!(world.counters().written[0], 5, "left for the other nodes");
    let other = World::start(Setting { cache: Some(world.cache()), ..Setting::default() }).await;
    let warmed = other.desk.warm(&assets, VenueSet::EMPTY, soon()).await;
    assert_eq!((warmed.from_cache, warmed.missing), (5, 0));
    assert_eq!(other.tier("GMX"), Some(Tier::Valkey));
    other.stop().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venue_whose_gate_opens_after_the_end_is_not_asked() {
    let world = World::start(Setting::default()).await;
    let venues = [Venue::Kraken, Venue::Bybit].into_iter().fold(VenueSet::EMPTY, VenueSet::with);
    // Only Kraken has TBTC, and its gate is closed for ten minutes.
    world.fault(Venue::Kraken, &Fault::RestLimited(600));
    assert_eq!(world.desk.look_up(symbol("TBTC"), KeyId(1)).await, UNAVAILABLE);
    world.fault(Venue::Kraken, &Fault::Resume);
    let before = world.requests_to(Venue::Kraken);
    let assets = ["TBTC", "GMX"].map(symbol);
    let warmed = timeout(Duration::from_secs(50), world.desk.warm(&assets, venues, soon())).await;
    let warmed = warmed.expect("what cannot be asked is not waited for");
    assert_eq!((warmed.from_rest, warmed.missing, warmed.unfinished), (1, 1, false));
    assert_eq!(world.requests_to(Venue::Kraken), before);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_is_written_at_once_and_counts_when_time_is_up() {
    let world = World::start(Setting::default()).await;
    let venues = [Venue::Kraken, Venue::Bybit].into_iter().fold(VenueSet::EMPTY, VenueSet::with);
    world.fault(Venue::Kraken, &Fault::RestDelay(600_000));
    let assets = ["TBTC", "GMX"].map(symbol);
    // Before Kraken's request is given up, after three seconds.
    let until = Instant::now() + Duration::from_secs(2);
    let desk = Arc::clone(&world.desk);
    let mut warming = desk.warm(&assets, venues, until);
    tokio::select! {
        biased;
        warmed = &mut warming => panic!("it was to wait for Kraken: {warmed:?}"),
        () = world.until("the price to be left for other nodes", || world.counters().written[0] == 1) => {}
    }
    let warmed = warming.await;
    assert_eq!((warmed.from_rest, warmed.missing, warmed.unfinished), (1, 1, true));
    world.stop().await;
}
