//! What is refused: numbers that are no prices, times that cannot be, words out of order. Counted, and without effect.

use crate::world::{START, World, field};
use dataplane_core::feed::FeedInput;
use shared::moment::Moment;
use shared::quote::{Currency, Quote, Route};
use shared::venue::Venue::{Coinbase, Kraken, Okx};

/// A venue that has said 100 says this (last, bid, ask): what stands then, and how many refusals were counted.
#[track_caller]
fn check_price(last: &str, bid: &str, ask: &str, expected: &str, refused: u64) {
    let mut world = World::new();
    world.last(Kraken, "100.00");
    world.wait_ms(10);
    world.say(Quote { last: field(last), bid: field(bid), ask: field(ask), ..world.quote(Kraken) });
    assert_eq!(world.btc(), format!("{expected} USD kraken-ws 1"), "{last} {bid} {ask}");
    assert_eq!(world.counters(Kraken).refused_price, refused, "{last} {bid} {ask}");
}

#[test]
fn what_is_no_price_is_refused() {
    check_price("0", "", "", "100.000", 1);
    check_price("-100", "", "", "100.000", 1);
    check_price("1000000000001", "", "", "100.000", 1);
    check_price("0.0000000000000000001", "", "", "100.000", 1);
    check_price("", "0", "0", "100.000", 1);
    check_price("", "", "", "100.000", 1);
    check_price("", "106", "100", "100.000", 1);
    check_price("0", "none", "none", "100.000", 1);
}

#[test]
fn a_usable_part_of_a_quote_counts() {
    check_price("101.00", "0", "0", "101.000", 1);
    check_price("-5", "101.00", "101.00", "101.000", 1);
    check_price("101.00", "-1", "102.00", "101.000", 1);
    check_price("", "none", "none", "100.000", 0);
    check_price("101.00", "104.00", "100.00", "101.000", 0);
}

/// One message of a venue: sequence, time relative to the start, whether it is a snapshot, price.
type Message = (Option<u64>, Option<i64>, bool, &'static str);

fn say(world: &mut World, message: Message, route: Route) {
    let (venue_sequence, time_ms, snapshot, price) = message;
    let exchange_time_ms = time_ms.map(|time_ms| START.wall_ms.saturating_add_signed(time_ms));
    let quote = Quote { venue_sequence, exchange_time_ms, snapshot, route, ..world.quote(Kraken) };
    world.say(Quote { last: field(price), ..quote });
}

/// Messages of one channel, one after the other: what stands at the end and what was refused, for its order or time.
#[track_caller]
fn check_order(messages: &[Message], expected: &str, refused_order: u64, refused_time: u64) {
    let mut world = World::new();
    for message in messages {
        say(&mut world, *message, Route::Ws);
    }
    let counters = world.counters(Kraken);
    assert_eq!((counters.refused_order, counters.refused_time), (refused_order, refused_time), "{messages:?}");
    assert_eq!(counters.quotes + refused_order + refused_time, messages.len() as u64);
    assert_eq!(world.newest("BTC").map_or("nothing".to_owned(), |tick| tick.price().to_string()), expected);
}

#[test]
fn replayed_and_late_words_are_refused() {
    check_order(&[(Some(5), None, false, "100.000"), (Some(5), None, false, "101.000")], "100.000", 1, 0);
    check_order(&[(Some(5), None, false, "100.000"), (Some(4), None, false, "101.000")], "100.000", 1, 0);
    check_order(&[(Some(5), None, false, "100.000"), (Some(6), None, false, "101.000")], "101.000", 0, 0);
    check_order(&[(Some(0), None, false, "100.000"), (Some(0), None, false, "101.000")], "100.000", 1, 0);
    check_order(&[(None, Some(0), false, "100.000"), (None, Some(0), false, "101.000")], "101.000", 0, 0);
    check_order(&[(None, Some(0), false, "100.000"), (None, Some(-100), false, "101.000")], "101.000", 0, 0);
    check_order(&[(None, Some(0), false, "100.000"), (None, Some(-101), false, "101.000")], "100.000", 1, 0);
    check_order(
        &[
            (None, Some(0), false, "100.000"),
            (None, Some(-100), false, "101.000"),
            (None, Some(-101), false, "102.000"),
        ],
        "101.000",
        1,
        0,
    );
    check_order(&[(Some(u64::MAX), None, false, "100.000"), (Some(7), None, true, "101.000")], "101.000", 0, 0);
}

#[test]
fn a_snapshot_may_be_old_and_sets_the_order_anew() {
    check_order(&[(Some(9), Some(0), false, "100.000"), (Some(3), Some(-500), true, "101.000")], "101.000", 0, 0);
    check_order(
        &[
            (Some(9), Some(0), false, "100.000"),
            (Some(3), Some(-500), true, "101.000"),
            (Some(4), Some(-400), false, "102.000"),
        ],
        "102.000",
        0,
        0,
    );
    check_order(&[(None, Some(-7_200_000), true, "100.000")], "100.000", 0, 0);
}

#[test]
fn impossible_times_are_refused() {
    check_order(&[(None, Some(-60_000), false, "100.000")], "100.000", 0, 0);
    check_order(&[(None, Some(-60_001), false, "100.000")], "nothing", 0, 1);
    check_order(&[(None, Some(5_000), false, "100.000")], "100.000", 0, 0);
    check_order(&[(None, Some(5_001), false, "100.000")], "nothing", 0, 1);
    check_order(&[(None, Some(5_001), true, "100.000")], "nothing", 0, 1);
    check_order(&[(None, Some(i64::MAX), true, "100.000")], "nothing", 0, 1);
    check_order(&[(None, None, false, "100.000")], "100.000", 0, 0);
}

#[test]
fn channels_of_a_venue_are_each_in_their_own_order() {
    let mut world = World::new();
    world.say(Quote { last: field("100.00"), venue_sequence: Some(900), ..world.quote(Kraken) });
    let book = Quote { bid: field("100.00"), ask: field("100.20"), venue_sequence: Some(7), ..world.quote(Kraken) };
    world.say(Quote { exchange_time_ms: Some(START.wall_ms - 900), ..book });
    assert_eq!(world.btc(), "100.100 USD kraken-ws 1");
    assert_eq!(world.counters(Kraken).refused_order, 0);
}

#[test]
fn rest_does_not_disturb_the_order_of_the_websocket() {
    let mut world = World::new();
    say(&mut world, (Some(5), Some(0), false, "100.000"), Route::Ws);
    say(&mut world, (None, Some(4_000), true, "101.000"), Route::Rest);
    say(&mut world, (Some(6), Some(100), false, "102.000"), Route::Ws);
    assert_eq!(world.btc(), "102.000 USD kraken-ws 1");
    say(&mut world, (None, Some(-1_000), false, "90.000"), Route::Rest);
    assert_eq!((world.btc().as_str(), world.counters(Kraken).refused_order), ("102.000 USD kraken-ws 1", 1));
}

#[test]
fn a_new_connection_may_count_anew() {
    for end in [FeedInput::VenueLost(Kraken), subscription_ended()] {
        let mut world = World::new();
        say(&mut world, (Some(500), None, false, "100.000"), Route::Ws);
        world.take(end);
        say(&mut world, (Some(1), None, false, "101.000"), Route::Ws);
        assert_eq!(world.btc(), "101.000 USD kraken-ws 1");
    }
}

fn subscription_ended() -> FeedInput {
    FeedInput::Subscription { venue: Kraken, asset: crate::world::asset("BTC"), live: false }
}

#[test]
fn a_refusal_at_one_venue_leaves_the_others_alone() {
    let mut world = World::new();
    world.last(Coinbase, "100.00");
    for price in ["0", "-1", "1000000000001"] {
        world.last(Okx, price);
    }
    assert_eq!(world.btc(), "100.000 USD coinbase-ws 1");
    assert_eq!((world.counters(Okx).refused_price, world.counters(Okx).quotes), (3, 0));
    assert!(world.detail(Okx).is_none(), "nothing is kept of what was refused");
    assert_eq!(world.counters(Coinbase).refused_price, 0);
}

/// A wall clock that jumps by `jump_ms` while venues keep the true time: nothing is refused, nothing goes stale.
#[track_caller]
fn check_wall_jump(jump_ms: i64) {
    let mut world = World::new();
    let mut true_ms = world.now.wall_ms;
    for second in 0..30_u64 {
        if second == 10 {
            world.now.wall_ms = world.now.wall_ms.saturating_add_signed(jump_ms);
        }
        let price = format!("100.{second:02}");
        world.say(Quote { last: field(&price), exchange_time_ms: Some(true_ms), ..world.quote(Kraken) });
        assert_eq!(world.btc(), format!("100.{second:02}0 USD kraken-ws 1"), "at {second} s");
        world.wait_ms(1_000);
        true_ms += 1_000;
    }
    assert_eq!(world.counters(Kraken).refused_time, 0);
    assert!(world.ticks.iter().all(|tick| !tick.is_stale()));
}

#[test]
fn a_jump_of_the_wall_clock_changes_nothing() {
    for jump_ms in [3_600_000, -3_600_000, -1, 1_000, -90_000, 6_000] {
        check_wall_jump(jump_ms);
    }
}

#[test]
fn a_wall_clock_that_was_wrong_at_the_start_is_forgotten() {
    let mut world = World::new();
    world.now = Moment { wall_ms: START.wall_ms - 3_600_000, ..START };
    world.say(Quote { last: field("100"), exchange_time_ms: None, ..world.quote(Kraken) });
    world.wait_ms(100);
    world.now.wall_ms += 3_600_000;
    let told = |world: &World, behind_ms: u64| Quote {
        last: field("100"),
        currency: Currency::Usd,
        exchange_time_ms: Some(world.now.wall_ms - behind_ms),
        ..world.quote(Kraken)
    };
    for _ in 0..62 {
        world.say(told(&world, 0));
        world.wait_ms(1_000);
    }
    assert_eq!(world.counters(Kraken).refused_time, 0);
    // By now only the corrected clock is left, so the hour between the two is no longer a good time.
    world.say(Quote { venue: Okx, ..told(&world, 3_600_000) });
    assert_eq!(world.counters(Okx).refused_time, 1);
    // And it holds when the wall jumps once more.
    world.now.wall_ms += 7_200_000;
    world.say(Quote { venue: Okx, ..told(&world, 7_200_000) });
    assert_eq!(world.counters(Okx).refused_time, 1);
}

#[test]
fn one_venue_with_a_wrong_clock_does_not_set_ours() {
    let mut world = World::new();
    world.last(Kraken, "100");
    world.now.wall_ms += 3_600_000;
    for _ in 0..90 {
        let true_time = Quote { exchange_time_ms: Some(world.now.wall_ms - 3_600_000), ..world.quote(Kraken) };
        let wrong_time = Quote { last: field("100"), ..world.quote(Okx) };
        world.say(wrong_time);
        world.say(Quote { last: field("100"), ..true_time });
        world.wait_ms(1_000);
    }
    assert_eq!((world.counters(Kraken).refused_time, world.counters(Okx).refused_time), (0, 0));
}
