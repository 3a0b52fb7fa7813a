//! What is fresh, what is stale, and when readers are told.

use crate::world::{START, World, asset, field};
use dataplane_core::feed::{Exclusion, FeedInput, FeedParameters};
use shared::quote::Quote;
use shared::tick::Tick;
use shared::venue::Venue::{Coinbase, Gemini, Kraken, Okx};

#[test]
fn a_price_without_proof_is_stale_after_nine_seconds() {
    let mut world = World::new();
    world.last(Kraken, "100.00");
    world.wait_ms(9_000);
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1");
    world.wait_ms(100);
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1 stale");
    let tick = world.newest("BTC").expect("a tick");
    assert_eq!((tick.received_mono_ns, tick.received_time_ms), (START.mono_ns, START.wall_ms), "its true times");
    world.wait_ms(300_000);
    assert_eq!(world.ticks.len(), 2, "told once");
    world.last(Kraken, "101.00");
    assert_eq!(world.btc(), "101.000 USD kraken-ws 1");
}

#[test]
fn a_quiet_asset_on_a_live_feed_is_not_stale() {
    let mut world = World::new();
    world.last(Kraken, "100.00");
    world.live(Kraken, true);
    world.alive.push(Kraken);
    world.wait_ms(600_000);
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1");
    assert_eq!(world.detail(Kraken).map(|detail| (detail.live, detail.excluded)), Some((true, None)));
    assert_eq!(world.ticks.len(), 1, "nothing was said, nothing is told");
    // The feed falls silent: ten seconds after its last sign of life nothing is proven.
    world.alive.clear();
    world.wait_ms(10_000);
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1");
    world.wait_ms(200);
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1 stale");
    assert_eq!(world.excluded(Kraken), Some(Exclusion::Stale));
    // And a sign of life proves it again.
    world.take(FeedInput::VenueAlive(Kraken));
    world.wait_ms(100);
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1");
}

#[test]
fn an_acknowledged_but_silent_subscription_proves_nothing() {
    let mut world = World::new();
    world.last(Kraken, "100.00");
    world.live(Kraken, true);
    world.alive.push(Kraken);
    world.wait_ms(20_000);
    world.live(Kraken, false);
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1 stale");

    let mut never_proven = World::new();
    never_proven.last(Kraken, "100.00");
    never_proven.alive.push(Kraken);
    never_proven.wait_ms(9_100);
    assert_eq!(never_proven.btc(), "100.000 USD kraken-ws 1 stale");
}

#[test]
fn a_lost_venue_leaves_the_price_after_its_bound() {
    let mut world = World::new();
    for venue in [Coinbase, Kraken] {
        world.live(venue, true);
        world.alive.push(venue);
    }
    world.last(Coinbase, "100.00");
    world.last(Kraken, "102.00");
    world.wait_ms(30_000);
    assert_eq!(world.btc(), "101.000 USD median 2");
    world.alive.retain(|venue| *venue != Kraken);
    world.take(FeedInput::VenueLost(Kraken));
    world.wait_ms(100);
    assert_eq!(world.btc(), "100.000 USD coinbase-ws 1");
    assert_eq!(world.detail(Kraken).map(|detail| detail.live), Some(false));
    world.last(Coinbase, "100.10");
    world.take(FeedInput::VenueLost(Coinbase));
    world.alive.clear();
    world.wait_ms(8_900);
    assert_eq!(world.btc(), "100.100 USD coinbase-ws 1", "its last word is still young");
    world.wait_ms(200);
    assert_eq!(world.btc(), "100.100 USD coinbase-ws 1 stale");
}

#[test]
fn all_silent_for_five_minutes_is_stale_throughout() {
    let mut world = World::new();
    [Coinbase, Gemini, Kraken, Okx].into_iter().for_each(|venue| world.last(venue, "100.00"));
    world.wait_ms(9_100);
    for _ in 0..290 {
        world.wait_ms(1_000);
        assert_eq!(world.btc(), "100.000 USD median 4 stale");
    }
}

#[test]
fn suspended_time_counts() {
    let mut world = World::new();
    world.last(Kraken, "100.00");
    world.live(Kraken, true);
    world.take(FeedInput::VenueAlive(Kraken));
    world.now = world.now.plus_ms(60_000);
    world.shard.sweep(world.now);
    world.wait_ms(100);
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1 stale");
    world.last(Kraken, "101.00");
    assert_eq!(world.btc(), "101.000 USD kraken-ws 1");
}

#[test]
fn refusals_in_a_row_end_the_proof_of_a_live_feed() {
    let mut world = World::new();
    world.last(Kraken, "100.00");
    world.live(Kraken, true);
    world.alive.push(Kraken);
    for refused in 1..=20 {
        world.wait_ms(1_000);
        world.last(Kraken, "0");
        let stale = if refused >= 9 { " stale" } else { "" };
        world.wait_ms(100);
        assert_eq!(world.btc(), format!("100.000 USD kraken-ws 1{stale}"), "after {refused}");
    }
    world.last(Kraken, "100.00");
    world.wait_ms(20_000);
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1", "one good word restores it");
}

#[test]
fn a_late_delivery_turns_no_clock_back() {
    let mut world = World::new();
    world.live(Kraken, true);
    world.wait_ms(20_000);
    world.last(Kraken, "100.00");
    let (received_time_ms, received_mono_ns) = (world.now.wall_ms, world.now.mono_ns);
    let late = Quote {
        received_time_ms: received_time_ms - 9_500,
        received_mono_ns: received_mono_ns - 9_500_000_000,
        ..world.quote(Kraken)
    };
    world.say(Quote { last: field("100.10"), ..late });
    let tick = world.newest("BTC").expect("a tick");
    assert_eq!((tick.received_time_ms, tick.received_mono_ns), (received_time_ms, received_mono_ns));
    world.wait_ms(9_900);
    assert_eq!(world.btc(), "100.100 USD kraken-ws 1", "the sign of life is as young as it was");
}

#[test]
fn an_old_trade_counts_only_where_nothing_better_is() {
    let mut world = World::new();
    for venue in [Coinbase, Kraken] {
        world.live(venue, true);
        world.alive.push(venue);
    }
    world.last(Kraken, "100.00");
    world.wait_ms(60_000);
    world.last(Coinbase, "103.00");
    assert_eq!(world.btc(), "101.500 USD median 2");
    world.wait_ms(100);
    assert_eq!(world.btc(), "103.000 USD coinbase-ws 1");
    assert_eq!(world.excluded(Kraken), Some(Exclusion::Stale));
    world.wait_ms(60_000);
    assert_eq!(world.btc(), "101.500 USD median 2", "nothing better is left");
    world.book(Kraken, "99.00", "101.00");
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1");
}

#[test]
fn a_snapshot_says_how_old_its_trade_is() {
    let mut world = World::new();
    world.last(Coinbase, "100.00");
    let hour_ago = Quote { snapshot: true, exchange_time_ms: Some(START.wall_ms - 3_600_000), ..world.quote(Kraken) };
    world.say(Quote { last: field("104.00"), ..hour_ago });
    assert_eq!(world.btc(), "100.000 USD coinbase-ws 1");
    assert_eq!(world.excluded(Kraken), Some(Exclusion::Stale));
}

#[test]
fn the_same_price_is_told_again_at_intervals_and_a_change_at_once() {
    let mut world = World::new();
    for _ in 0..100 {
        world.last(Kraken, "100.00");
        let newest = world.newest("BTC").expect("a tick");
        assert!(world.now.ms_since(newest.received_mono_ns) <= 350, "its age is known to a quarter second and a sweep");
        world.wait_ms(10);
    }
    assert!((3..=5).contains(&world.ticks.len()), "{} ticks in a second", world.ticks.len());
    let before = world.ticks.len();
    for (price, expected) in [("100.10", "100.100"), ("100.20", "100.200"), ("100.30", "100.300")] {
        world.last(Kraken, price);
        assert_eq!(world.btc(), format!("{expected} USD kraken-ws 1"));
    }
    assert_eq!(world.ticks.len(), before + 3);
}

#[test]
fn a_refresh_that_waited_is_told_by_a_sweep() {
    let mut world = World::new();
    world.last(Kraken, "100.00");
    world.wait_ms(100);
    world.last(Kraken, "100.00");
    let said_mono_ns = world.now.mono_ns;
    assert_eq!(world.ticks.len(), 1);
    world.wait_ms(200);
    assert_eq!(world.newest("BTC").map(|tick| tick.received_mono_ns), Some(said_mono_ns));
    world.wait_ms(5_000);
    assert_eq!(world.ticks.len(), 2);
}

#[test]
fn only_a_tick_made_for_its_newest_frame_is_prompt() {
    let mut world = World::new();
    let prompt = |world: &World| -> Vec<bool> { world.ticks.iter().map(Tick::is_prompt).collect() };
    world.last(Kraken, "100.00");
    world.wait_ms(100);
    world.last(Kraken, "100.00");
    world.wait_ms(200);
    assert_eq!(prompt(&world), [true, false], "the refresh waited for a sweep");
    world.last(Kraken, "100.10");
    let late = Quote { received_mono_ns: world.now.mono_ns - 1, ..world.quote(Kraken) };
    world.say(Quote { last: field("100.20"), ..late });
    assert_eq!(prompt(&world)[2..], [true, false], "the newest frame came with the tick before");
    world.wait_ms(9_100);
    assert_eq!(prompt(&world)[4..], [false], "stale");
}

#[test]
fn new_tunables_hold_from_the_next_sweep() {
    let mut world = World::new();
    world.last(Kraken, "100.00");
    world.wait_ms(5_000);
    world.take(FeedInput::Parameters(FeedParameters { fresh_ms: 2_000, ..FeedParameters::default() }));
    world.wait_ms(100);
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1 stale");
    world.take(FeedInput::Parameters(FeedParameters { fresh_ms: 60_000, ..FeedParameters::default() }));
    world.wait_ms(100);
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1");
}

#[test]
fn an_emptied_market_has_no_price() {
    let mut world = World::new();
    world.book(Kraken, "99", "101");
    world.book(Kraken, "none", "none");
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1 stale");
    assert_eq!(world.excluded(Kraken), Some(Exclusion::NoPrice));
    assert!(world.shard.detail(world.now, asset("ETH")).is_empty());
}
