//! What the price is: mids, medians, conversion, digits, spread, source.

use crate::world::{World, asset, field};
use dataplane_core::feed::{Exclusion, FeedInput};
use shared::asset::{AssetDirectory, Symbol};
use shared::quote::{Quote, Route};
use shared::tick::{SPREAD_UNKNOWN, TICK_CONVERTED};
use shared::venue::Venue::{self, Bybit, Coinbase, Cryptocom, Gateio, Gemini, Kraken, Okx};
use shared::venue::VenueSet;
use std::sync::Arc;

/// What is published when venues, in bit order, say these last prices.
#[track_caller]
fn check_median(prices: &[&str], expected: &str) {
    let mut world = World::new();
    for (venue, price) in Venue::ALL.into_iter().zip(prices) {
        world.last(venue, price);
    }
    assert_eq!(world.btc(), expected, "{prices:?}");
}

#[test]
fn the_median_is_the_middle_or_the_mean_of_the_two_middle_ones() {
    check_median(&["100.00"], "100.000 USD coinbase-ws 1");
    check_median(&["100.00", "101.00"], "100.500 USD median 2");
    check_median(&["100.00", "103.00", "101.00"], "101.000 USD median 3");
    check_median(&["100.00", "104.00", "101.00", "103.00"], "102.000 USD median 4");
    check_median(&["104", "101", "100", "103", "102"], "102.000 USD median 5");
    check_median(&["100", "101", "102", "103", "104", "105", "106"], "103.000 USD median 7");
}

#[test]
fn rounding_is_half_to_even_at_the_finest_place_and_six_digits_at_least() {
    check_median(&["67123.45", "67123.46"], "67123.46 USD median 2");
    check_median(&["67123.44", "67123.45"], "67123.44 USD median 2");
    check_median(&["67123.4", "67123.45"], "67123.42 USD median 2");
    check_median(&["0.00001234", "0.00001235"], "0.0000123450 USD median 2");
    check_median(&["67123.5000000", "67123.5000000"], "67123.500 USD median 2");
    check_median(&["1234567890123456.7"], "nothing");
    check_median(&["1000000000000", "1000000000000"], "1000000000000 USD median 2");
    check_median(&["0.000000000000000001"], "0.00000000000000000100000 USD coinbase-ws 1");
}

/// What is published of one venue that sends these (last, bid, ask) one after the other.
#[track_caller]
fn check_mid(messages: &[(&str, &str, &str)], expected: &str, spread_centibps: u32) {
    let mut world = World::new();
    for (last, bid, ask) in messages {
        world.say(Quote { last: field(last), bid: field(bid), ask: field(ask), ..world.quote(Kraken) });
        world.wait_ms(300);
    }
    assert_eq!(world.btc(), expected, "{messages:?}");
    assert_eq!(world.newest("BTC").map(|tick| tick.spread_centibps), Some(spread_centibps));
}

#[test]
fn the_mid_counts_where_both_sides_are_known() {
    check_mid(&[("100", "99.00", "99.50")], "99.2500 USD kraken-ws 1", 5_037);
    check_mid(&[("100.00", "", "")], "100.000 USD kraken-ws 1", SPREAD_UNKNOWN);
    check_mid(&[("100.00", "", ""), ("", "99.00", "")], "100.000 USD kraken-ws 1", SPREAD_UNKNOWN);
    check_mid(&[("100.00", "", ""), ("", "99.00", ""), ("", "", "99.02")], "99.0100 USD kraken-ws 1", 201);
    check_mid(&[("100.00", "99.00", "99.02"), ("", "none", "")], "100.000 USD kraken-ws 1", SPREAD_UNKNOWN);
    check_mid(&[("100.00", "99.00", "99.02"), ("", "", "99.04")], "99.0200 USD kraken-ws 1", 403);
}

#[test]
fn a_slightly_crossed_book_gives_way_to_the_last_price() {
    check_mid(&[("100.50", "101.00", "100.00")], "100.500 USD kraken-ws 1", 0);
    check_mid(&[("", "101.00", "100.00")], "100.500 USD kraken-ws 1", 0);
    // A side that is passed by the other beyond reason is void until it is spoken of again.
    check_mid(&[("100.00", "99.90", "100.10"), ("", "107.00", "")], "100.000 USD kraken-ws 1", SPREAD_UNKNOWN);
    check_mid(
        &[("100.00", "99.90", "100.10"), ("", "107.00", ""), ("", "", "107.20")],
        "107.100 USD kraken-ws 1",
        1_867,
    );
}

#[test]
fn the_spread_is_the_median_of_the_contributors_own() {
    let mut world = World::new();
    world.book(Coinbase, "99.99", "100.01");
    world.book(Gemini, "99.98", "100.02");
    world.book(Kraken, "99.95", "100.05");
    world.last(Okx, "100.00");
    assert_eq!(world.newest("BTC").map(|tick| tick.spread_centibps), Some(400));
}

#[test]
fn tether_prices_are_converted_at_the_live_rate() {
    let mut world = World::new();
    world.tether(Kraken, "0.9998");
    world.last_usdt(Okx, "67123.45");
    assert_eq!(world.btc(), "67110.03 USD okx-ws 1");
    assert_eq!(world.newest("BTC").map(|tick| tick.flags), Some(TICK_CONVERTED));
    world.last(Coinbase, "67110.00");
    assert_eq!(world.btc(), "67110.01 USD median 2");
}

#[test]
fn without_a_rate_dollars_count_alone_and_tether_stays_tether() {
    let mut world = World::new();
    world.last_usdt(Okx, "100.00");
    world.last_usdt(Bybit, "102.00");
    assert_eq!(world.btc(), "101.000 USDT median 2");
    assert_eq!(world.newest("BTC").map(|tick| tick.flags), Some(0));
    world.last(Coinbase, "100.50");
    assert_eq!(world.btc(), "100.500 USD coinbase-ws 1");
    assert_eq!(world.excluded(Okx), Some(Exclusion::NoConversion));
    assert_eq!(world.excluded(Coinbase), None);
    world.tether(Coinbase, "1.0000");
    world.wait_ms(100);
    assert_eq!(world.btc(), "100.500 USD median 3");

    let mut dollars_gone = World::new();
    dollars_gone.last(Coinbase, "100.50");
    dollars_gone.wait_ms(5_000);
    dollars_gone.last_usdt(Okx, "100.00");
    assert_eq!(dollars_gone.btc(), "100.500 USD coinbase-ws 1");
    dollars_gone.wait_ms(4_100);
    assert_eq!(dollars_gone.btc(), "100.000 USDT okx-ws 1");
}

#[test]
fn a_new_rate_reprices_what_follows_it_within_a_sweep() {
    let mut world = World::new();
    world.tether(Kraken, "1.0000");
    world.last_usdt(Okx, "67000.00");
    world.tether(Kraken, "0.9500");
    world.wait_ms(100);
    assert_eq!(world.btc(), "63650.00 USD okx-ws 1");
    let times = world.newest("BTC").map(|tick| (tick.received_mono_ns, tick.is_stale()));
    assert_eq!(times, Some((crate::world::START.mono_ns, false)), "a new rate is not a new quote");
}

#[test]
fn a_stale_rate_converts_nothing() {
    let mut world = World::new();
    world.tether(Kraken, "1.0000");
    for _ in 0..10 {
        world.wait_ms(1_000);
        world.last_usdt(Okx, "100.00");
    }
    assert_eq!(world.btc(), "100.000 USDT okx-ws 1");
    assert!(world.newest("USDT").is_some_and(|tick| tick.is_stale()));
    world.tether(Kraken, "0.9990");
    world.wait_ms(100);
    assert_eq!(world.btc(), "99.9000 USD okx-ws 1");
}

#[test]
fn tether_is_not_priced_in_itself() {
    let mut world = World::new();
    let quote = Quote { asset: asset("USDT"), last: field("1.2"), ..world.quote(Okx) };
    world.say(Quote { currency: shared::quote::Currency::Usdt, ..quote });
    assert_eq!((world.newest("USDT"), world.counters(Okx).refused_price), (None, 1));
}

#[test]
fn the_source_of_one_venue_is_its_route() {
    let mut world = World::new();
    world.say(Quote { last: field("100"), route: Route::Rest, snapshot: true, ..world.quote(Gateio) });
    assert_eq!(world.btc(), "100.000 USD gateio-rest 1");
    world.last(Gateio, "100");
    assert_eq!(world.btc(), "100.000 USD gateio-ws 1");
}

#[test]
fn times_are_those_of_the_newest_contributor() {
    let mut world = World::new();
    let start_ms = world.now.wall_ms;
    world.say(Quote { last: field("100"), exchange_time_ms: Some(start_ms - 40), ..world.quote(Coinbase) });
    world.wait_ms(100);
    world.say(Quote { last: field("101"), exchange_time_ms: Some(start_ms - 50), ..world.quote(Kraken) });
    let tick = world.newest("BTC").expect("a tick");
    assert_eq!((tick.exchange_time_ms, tick.received_time_ms), (start_ms - 40, start_ms + 100));
    assert_eq!((tick.received_mono_ns, tick.published_mono_ns), (world.now.mono_ns, world.now.mono_ns));
    // The same whichever of the two spoke last.
    world.wait_ms(100);
    world.last(Coinbase, "102");
    let tick = world.newest("BTC").expect("a tick");
    assert_eq!((tick.received_time_ms, tick.received_mono_ns), (world.now.wall_ms, world.now.mono_ns));
}

#[test]
fn a_venue_that_changes_its_currency_begins_anew() {
    let mut world = World::new();
    world.book(Okx, "100", "102");
    world.last_usdt(Okx, "50");
    assert_eq!(world.btc(), "50.0000 USDT okx-ws 1");
    assert_eq!(world.detail(Okx).and_then(|detail| detail.bid), None);
}

#[test]
fn assets_and_their_aliases_are_one_and_others_are_apart() {
    let mut world = World::new();
    let render = asset("RNDR");
    assert_eq!(render, asset("RENDER"));
    world.say(Quote { asset: render, last: field("4.10"), ..world.quote(Kraken) });
    world.last(Kraken, "100");
    world.say(Quote { asset: asset("ETH"), last: field("2000"), ..world.quote(Kraken) });
    world.last(Cryptocom, "101");
    let price = |of: &str| world.newest(of).map(|tick| tick.price().to_string());
    assert_eq!(price("RNDR").as_deref(), Some("4.10000"));
    assert_eq!(price("ETH").as_deref(), Some("2000.00"));
    assert_eq!(price("BTC").as_deref(), Some("100.500"));
}

#[test]
fn a_grown_directory_brings_room_and_the_tether() {
    let mut world = World::new();
    let mut grown = crate::world::directory();
    let new = grown.add(Symbol::new(b"NEW").expect("a symbol"), false, VenueSet::EMPTY.with(Okx)).expect("room");
    world.take(FeedInput::Assets(Arc::new(grown)));
    let detail = world.shard.detail(world.now, new);
    assert_eq!(
        detail.iter().map(|detail| (detail.venue, detail.excluded)).collect::<Vec<_>>(),
        [(Okx, Some(Exclusion::NoPrice))]
    );
    world.say(Quote { asset: new, last: field("5"), ..world.quote(Okx) });
    assert_eq!(world.ticks.last().map(|tick| tick.asset), Some(new.number()));

    let mut tether_later = World::new();
    tether_later.take(FeedInput::Assets(Arc::new(AssetDirectory::new())));
    tether_later.tether(Kraken, "0.5");
    tether_later.last_usdt(Okx, "100");
    assert_eq!(tether_later.btc(), "100.000 USDT okx-ws 1");
    tether_later.take(FeedInput::Assets(Arc::new(crate::world::directory())));
    tether_later.wait_ms(200);
    assert_eq!(tether_later.btc(), "50.0000 USD okx-ws 1");
}
