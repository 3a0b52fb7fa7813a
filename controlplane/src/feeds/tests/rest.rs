//! REST as the fallback: how it fails, and how it is slowed down.

use super::world::{Plan, World};
use crate::feeds::simulator::fault::Fault;
use shared::quote::Route;
use shared::venue::Venue;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_venues_down_are_carried_by_rest_until_they_return() {
    let world = World::live(Plan { assets: "BTC ETH", ..Plan::of(&Venue::ALL) }).await;
    let btc = world.asset("BTC");
    Venue::ALL.into_iter().for_each(|venue| world.fault(venue, Fault::Down));
    for venue in Venue::ALL {
        world.until_heard(venue, btc, Route::Rest).await;
        let quotes = world.ear.quotes(venue, btc);
        let rest = quotes.iter().find(|quote| quote.route == Route::Rest).expect("just heard");
        assert!(rest.snapshot && rest.venue_sequence.is_none(), "{rest:?}");
    }
    Venue::ALL.into_iter().for_each(|venue| world.fault(venue, Fault::Resume));
    world.all_live().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rest_interface_that_fails_is_reported_and_disturbs_nobody() {
    for fault in [Fault::RestDown, Fault::RestGarbage] {
        let world = World::live(Plan::of(&[Venue::Okx])).await;
        world.fault(Venue::Okx, fault);
        world.fault(Venue::Okx, Fault::Down);
        world
            .until_status(Venue::Okx, "the failure is shown", |status| {
                let shown = status.last_error.as_deref().is_some_and(|text| text.starts_with("REST"));
                shown && status.counters.rest_errors >= 1
            })
            .await;
        assert_eq!(world.ear.rest_quotes(Venue::Okx), 0);
        world.fault(Venue::Okx, Fault::Resume);
        world.all_live().await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venue_that_limits_us_is_left_alone_for_as_long_as_it_says() {
    let world = World::live(Plan::of(&[Venue::Bybit])).await;
    world.fault(Venue::Bybit, Fault::RestLimited(3_600));
    world.fault(Venue::Bybit, Fault::Down);
    world.until_status(Venue::Bybit, "the limit is met", |status| status.counters.rest_limited == 1).await;
    // Several polls would have been due by the time of a few failed connects.
    world.until_status(Venue::Bybit, "time passes", |status| status.counters.connect_failures >= 5).await;
    let status = world.status(Venue::Bybit);
    assert_eq!((status.counters.rest_limited, status.counters.rest_errors), (1, 1), "{status:#?}");
    world.stop().await;
}
