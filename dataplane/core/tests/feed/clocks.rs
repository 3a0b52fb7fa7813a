//! Other nodes' prices while our wall clock steps: none is made younger by it, and good ones are believed again in time.

use crate::tiers::{hear, remote, told};
use crate::world::{World, field};
use dataplane_core::feed::FeedInput;
use shared::quote::Quote;
use shared::venue::Venue::{self, Kraken, Okx};

/// How long a step must have stood.
const SETTLED_MS: u64 = 60_000;

/// A node that has been up for a minute, and whose wall clock then steps.
fn stepped(by_ms: i64) -> World {
    let mut world = World::new();
    world.wait_ms(60_000);
    world.now.wall_ms = world.now.wall_ms.saturating_add_signed(by_ms);
    world.wait_ms(100);
    world
}

/// Whether a good price, by the wall as it is now, is believed.
fn believes(world: &mut World) -> bool {
    let taken = world.shard.counters().remote.taken;
    hear(world, "100.00", 1_000);
    world.shard.counters().remote.taken > taken
}

#[test]
fn a_clock_that_is_set_right_ends_nothing() {
    for by_ms in [-30_000, -9_000, -3_600_000, 30_000, 6_500, 3_600_000] {
        let mut world = stepped(by_ms);
        assert!(!believes(&mut world), "{by_ms}: at once");
        world.wait_ms(SETTLED_MS - 200);
        assert!(!believes(&mut world), "{by_ms}: not yet");
        world.wait_ms(300);
        assert!(believes(&mut world), "{by_ms}");
        assert_eq!(told(&world), "valkey 100.00 USD valkey 2");
        // And again.
        world.now.wall_ms = world.now.wall_ms.saturating_add_signed(-by_ms);
        world.wait_ms(SETTLED_MS + 9_200);
        assert!(believes(&mut world) && !world.newest("BTC").is_some_and(|tick| tick.is_stale()), "{by_ms}: back");
    }
}

#[test]
fn a_clock_that_keeps_stepping_is_not_settled() {
    let mut world = stepped(-30_000);
    for _ in 0..20 {
        world.wait_ms(10_000);
        world.now.wall_ms -= 150;
    }
    assert!(!believes(&mut world));
    world.wait_ms(SETTLED_MS + 200);
    assert!(believes(&mut world));
}

#[test]
fn time_in_which_nobody_watched_settles_nothing() {
    let mut world = stepped(-30_000);
    world.now = world.now.plus_ms(120_000);
    world.wait_ms(SETTLED_MS - 100);
    assert!(!believes(&mut world));
    world.wait_ms(300);
    assert!(believes(&mut world));
}

#[test]
fn a_clock_that_venues_are_ahead_of_has_not_been_set_right() {
    for is_snapshot in [false, true] {
        let mut world = stepped(-30_000);
        for _ in 0..40 {
            world.wait_ms(5_000);
            let exchange_time_ms = Some(world.now.wall_ms + 30_000);
            world.say(Quote { last: field("100.00"), snapshot: is_snapshot, exchange_time_ms, ..world.quote(Kraken) });
        }
        world.wait_ms(9_200);
        // By the true time it is 31 s old.
        assert!(!believes(&mut world), "{is_snapshot}");
        // Venues that agree with it, or say no time, hold nothing up.
        for time_ms in [None, Some(world.now.wall_ms), Some(world.now.wall_ms + 900)] {
            world.say(Quote { last: field("100.00"), exchange_time_ms: time_ms, ..world.quote(Kraken) });
        }
        world.wait_ms(SETTLED_MS);
        assert!(believes(&mut world), "{is_snapshot}");
    }
}

/// Whether a clock that is set back, to where these venues are so far ahead of it, is believed in the end.
#[track_caller]
fn check_ahead(back_ms: i64, venues: &[Venue], ahead_ms: u64, expected: bool) {
    let mut world = stepped(-back_ms);
    for _ in 0..2 * SETTLED_MS / 1_000 {
        world.wait_ms(1_000);
        for venue in venues {
            let exchange_time_ms = Some(world.now.wall_ms + ahead_ms);
            world.say(Quote { last: field("100.00"), exchange_time_ms, ..world.quote(*venue) });
        }
    }
    world.wait_ms(9_200);
    assert_eq!(believes(&mut world), expected, "{venues:?} {ahead_ms} ms ahead");
}

#[test]
fn one_venue_that_is_a_little_ahead_holds_nothing_up() {
    check_ahead(30_000, &[Kraken], 1_100, true);
    check_ahead(30_000, &[Kraken], 5_000, true);
    check_ahead(30_000, &[Kraken], 5_001, false);
    check_ahead(30_000, &[Kraken, Okx], 900, true);
    check_ahead(30_000, &[Kraken, Okx], 1_100, false);
    check_ahead(30_000, &[Kraken, Okx], 30_000, false);
    check_ahead(9_000, &[Kraken], 3_000, true);
    check_ahead(9_000, &[Kraken, Okx], 3_000, false);
}

#[test]
fn a_clock_that_other_nodes_are_ahead_of_has_not_been_set_right() {
    let mut world = stepped(-30_000);
    let mut is_believed = false;
    for _ in 0..6 {
        world.wait_ms(30_000);
        let mut now = remote(&world, "100.00", 0);
        (now.proven_time_ms, now.received_time_ms) = (world.now.wall_ms + 29_000, world.now.wall_ms + 29_000);
        world.take(FeedInput::Remote(now));
        is_believed |= believes(&mut world);
    }
    assert!(!is_believed);
}

#[test]
fn a_wrong_wall_clock_refuses_no_venue_however_long() {
    for by_ms in [-3_600_000_i64, 3_600_000] {
        let mut world = stepped(by_ms);
        world.wait_ms(3 * SETTLED_MS);
        let exchange_time_ms = Some(world.now.wall_ms.saturating_add_signed(-by_ms));
        world.say(Quote { last: field("100.00"), exchange_time_ms, ..world.quote(Kraken) });
        assert_eq!(told(&world), "local 100.000 USD kraken-ws 1");
    }
}
