//! How often connections are made, and what is said on them.

use super::world::{Plan, World, hasty};
use crate::feeds::instruments::default_wanted;
use crate::feeds::simulator::fault::Fault;
use crate::feeds::timing::Timing;
use shared::venue::Venue;
use std::time::Instant;
use venues::VenueSettings;
use venues::gemini::GeminiApi;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venue_that_is_down_is_tried_for_ever_but_not_often() {
    // Back-off is kept out of it: the gate alone holds attempts a second apart.
    let timing = Timing { connect_gap_ms: 1_000, backoff_min_ms: 1, backoff_max_ms: 1, ..hasty() };
    let plan = Plan { faults: vec![Fault::Down], timing, ..Plan::of(&[Venue::Bybit]) };
    let began = Instant::now();
    let world = World::start(plan).await;
    world.until_status(Venue::Bybit, "it is tried again", |status| status.counters.connect_failures >= 4).await;
    assert!(began.elapsed().as_millis() >= 3_000, "four attempts are three seconds apart at least");
    let status = world.status(Venue::Bybit);
    assert!(!status.connected && status.last_error.is_some(), "{status:#?}");
    assert!(u128::from(status.counters.connect_failures) <= 1 + began.elapsed().as_millis() / 1_000, "{status:#?}");
    world.fault(Venue::Bybit, Fault::Resume);
    world.all_live().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_connection_may_not_carry_is_spread_over_several() {
    // Gemini's older interface keeps a book for each name: 60 to a connection.
    let settings = VenueSettings { gemini: GeminiApi::V2 };
    let plan = Plan { settings, every_ms: 500, ..Plan::of(&[Venue::Gemini]) };
    let simulators = super::world::simulators(&plan).await;
    let mut sources = super::world::sources(&plan, &simulators);
    sources.wanted = default_wanted();
    let world = World::on(simulators, sources).await;
    world.all_live().await;
    let status = world.status(Venue::Gemini);
    assert!(status.subscribed > 60 && status.connections == 2, "{status:#?}");
    // The end of one is not the loss of the venue.
    world.ear.clear();
    world.feeds.want(super::world::wanted("BTC ETH"));
    world
        .until_status(Venue::Gemini, "one connection is enough", |status| {
            status.connections == 1 && status.subscribed == 2 && status.live == 2
        })
        .await;
    assert_eq!(world.ear.losses(Venue::Gemini), 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_every_connection() {
    let world = World::live(Plan::of(&[Venue::Okx, Venue::Kraken, Venue::Gemini])).await;
    world.feeds.stop().await;
    world.feeds.stop().await;
    for status in world.feeds.status().venues {
        assert!(!status.connected && status.live == 0, "{status:#?}");
    }
    world
        .until("the venues see them go", || {
            [Venue::Okx, Venue::Kraken, Venue::Gemini].iter().all(|venue| world.simulators.clients(*venue) == 0)
        })
        .await;
    world.simulators.stop().await;
}
