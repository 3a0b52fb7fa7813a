//! Which tier a price is of, and what other nodes' prices may do: stand in for ours, never replace or outlive them.

use crate::world::{START, World, asset, field, show};
use dataplane_core::feed::{Exclusion, FeedInput, FeedParameters, RemoteCounters, RemotePrice};
use shared::price::Price;
use shared::quote::{Currency, Quote, Route};
use shared::tick::{TICK_CONVERTED, Tier};
use shared::venue::Venue::{self, Coinbase, Kraken, Okx};
use shared::venue::VenueSet;

/// Another node's price of BTC that it received `age_ms` ago by our present wall clock, and has not proven since.
pub fn remote(world: &World, price: &str, age_ms: u64) -> RemotePrice {
    let received_time_ms = world.now.wall_ms - age_ms;
    RemotePrice {
        asset: asset("BTC"),
        price: Price::parse(price.as_bytes()).expect("a price"),
        currency: Currency::Usd,
        converted: false,
        venues: VenueSet::EMPTY.with(Kraken).with(Okx),
        spread_centibps: 150,
        exchange_time_ms: Some(received_time_ms - 20),
        received_time_ms,
        proven_time_ms: received_time_ms,
    }
}

pub fn hear(world: &mut World, price: &str, age_ms: u64) {
    let remote = remote(world, price, age_ms);
    world.take(FeedInput::Remote(remote));
}

fn rest(world: &mut World, venue: Venue, price: &str) {
    world.say(Quote { last: field(price), route: Route::Rest, snapshot: true, ..world.quote(venue) });
}

/// The newest price with its tier.
pub fn told(world: &World) -> String {
    world.newest("BTC").map_or_else(
        || "nothing".to_owned(),
        |tick| format!("{} {}", Tier::from_number(tick.tier).expect("a tier").name(), show(&tick)),
    )
}

#[track_caller]
fn check_tier(words: &[(Venue, Route, &str)], expected: &str) {
    let mut world = World::new();
    for (venue, route, price) in words {
        world.say(Quote { last: field(price), route: *route, snapshot: true, ..world.quote(*venue) });
    }
    assert_eq!(told(&world), expected);
}

#[test]
fn a_price_is_local_when_anybody_behind_it_came_by_a_socket() {
    let (ws, by_rest) = (Route::Ws, Route::Rest);
    check_tier(&[(Kraken, ws, "100.00")], "local 100.000 USD kraken-ws 1");
    check_tier(&[(Kraken, by_rest, "100.00")], "rest 100.000 USD kraken-rest 1");
    check_tier(&[(Kraken, by_rest, "100.00"), (Coinbase, by_rest, "102.00")], "rest 101.000 USD median 2");
    check_tier(&[(Kraken, by_rest, "100.00"), (Coinbase, ws, "102.00")], "local 101.000 USD median 2");
    check_tier(&[(Coinbase, ws, "102.00"), (Kraken, by_rest, "100.00")], "local 101.000 USD median 2");
    check_tier(&[(Kraken, ws, "100.00"), (Kraken, by_rest, "100.00")], "rest 100.000 USD kraken-rest 1");
    check_tier(&[(Kraken, by_rest, "100.00"), (Kraken, ws, "100.00")], "local 100.000 USD kraken-ws 1");
}

#[test]
fn a_change_of_tier_alone_is_told() {
    let mut world = World::new();
    rest(&mut world, Kraken, "100.00");
    rest(&mut world, Coinbase, "100.00");
    assert_eq!(told(&world), "rest 100.000 USD median 2");
    world.last(Coinbase, "100.00");
    assert_eq!(told(&world), "local 100.000 USD median 2");
}

#[test]
fn another_nodes_price_stands_for_its_own_time() {
    let mut world = World::new();
    hear(&mut world, "100.25", 4_000);
    assert_eq!(told(&world), "valkey 100.25 USD valkey 2");
    let tick = world.newest("BTC").expect("a tick");
    assert_eq!((tick.received_time_ms, tick.exchange_time_ms), (START.wall_ms - 4_000, START.wall_ms - 4_020));
    assert_eq!((world.now.ms_since(tick.received_mono_ns), tick.spread_centibps), (4_000, 150));
    assert!(!tick.is_prompt() && tick.flags & TICK_CONVERTED == 0);
    world.wait_ms(5_000);
    assert_eq!(told(&world), "valkey 100.25 USD valkey 2");
    world.wait_ms(100);
    assert_eq!(told(&world), "valkey 100.25 USD valkey 2 stale");
    world.wait_ms(600_000);
    assert_eq!(world.ticks.len(), 2, "told once");
}

#[test]
fn a_proof_carries_a_quiet_price_on_and_its_age_stays_true() {
    let mut world = World::new();
    let quiet = RemotePrice { proven_time_ms: START.wall_ms - 1_000, ..remote(&world, "100.00", 60_000) };
    world.take(FeedInput::Remote(quiet));
    world.wait_ms(8_000);
    let tick = world.newest("BTC").expect("a tick");
    assert_eq!((tick.is_stale(), world.now.ms_since(tick.received_mono_ns)), (false, 68_000));
    // Proven again: nothing about it is new, and it stands on.
    world.take(FeedInput::Remote(RemotePrice { proven_time_ms: world.now.wall_ms, ..quiet }));
    world.wait_ms(9_000);
    assert_eq!((told(&world).as_str(), world.ticks.len()), ("valkey 100.00 USD valkey 2", 1));
    world.wait_ms(100);
    assert_eq!(told(&world), "valkey 100.00 USD valkey 2 stale");
}

#[test]
fn what_a_remote_price_is_in_is_told() {
    let mut world = World::new();
    let usdt = RemotePrice { currency: Currency::Usdt, ..remote(&world, "100.00", 0) };
    world.take(FeedInput::Remote(usdt));
    assert_eq!(told(&world), "valkey 100.00 USDT valkey 2");
    world.wait_ms(100);
    world.take(FeedInput::Remote(RemotePrice { converted: true, ..remote(&world, "100.00", 0) }));
    let tick = world.newest("BTC").expect("a tick");
    assert_eq!((tick.currency(), tick.flags), (Currency::Usd, TICK_CONVERTED));
}

#[test]
fn our_own_venues_take_over_at_once_and_are_not_replaced() {
    for route in [Route::Ws, Route::Rest] {
        let mut world = World::new();
        hear(&mut world, "100.00", 1_000);
        world.say(Quote { last: field("150.00"), route, snapshot: true, ..world.quote(Kraken) });
        assert!(
            told(&world).ends_with(&format!("150.000 USD kraken-{} 1", if route == Route::Ws { "ws" } else { "rest" }))
        );
        hear(&mut world, "149.00", 0);
        assert_eq!(world.newest("BTC").map(|tick| tick.price().to_string()), Some("150.000".to_owned()));
        // What stood in before does not come back when our own goes stale: it was forgotten.
        world.wait_ms(9_100);
        assert!(told(&world).ends_with("stale"), "{}", told(&world));
    }
}

#[test]
fn a_quiet_live_feed_of_ours_needs_nobody() {
    let mut world = World::new();
    world.last(Kraken, "100.00");
    world.live(Kraken, true);
    world.alive.push(Kraken);
    world.wait_ms(60_000);
    hear(&mut world, "101.00", 100);
    assert_eq!(told(&world), "local 100.000 USD kraken-ws 1");
    world.live(Kraken, false);
    assert_eq!(told(&world), "local 100.000 USD kraken-ws 1 stale");
    hear(&mut world, "101.00", 50);
    assert_eq!(told(&world), "valkey 101.00 USD valkey 2");
}

#[test]
fn a_remote_price_is_not_carried_on_by_our_live_subscriptions() {
    let mut world = World::new();
    world.live(Kraken, true);
    world.alive.push(Kraken);
    hear(&mut world, "100.00", 0);
    world.wait_ms(9_100);
    assert_eq!(told(&world), "valkey 100.00 USD valkey 2 stale", "Kraken has never said it to us");
}

#[test]
fn a_venue_of_ours_that_is_not_believed_carries_no_remote_price_on() {
    let mut world = World::new();
    world.take(FeedInput::Parameters(FeedParameters { fresh_ms: 2_000, ..FeedParameters::default() }));
    world.last(Kraken, "100.00");
    world.wait_ms(1_000);
    world.last(Kraken, "150.00");
    assert_eq!(world.excluded(Kraken), Some(Exclusion::Quarantined));
    world.wait_ms(2_100);
    hear(&mut world, "101.00", 1_000);
    assert_eq!(told(&world), "valkey 101.00 USD valkey 2");
    // Kraken speaks again, on a live subscription, and is still in quarantine.
    world.alive.push(Kraken);
    world.live(Kraken, true);
    world.last(Kraken, "150.00");
    assert_eq!(
        (world.excluded(Kraken), told(&world).as_str()),
        (Some(Exclusion::Quarantined), "valkey 101.00 USD valkey 2")
    );
    world.wait_ms(1_100);
    assert_eq!(told(&world), "valkey 101.00 USD valkey 2 stale", "its time is up");
    world.wait_ms(1_000);
    assert_eq!(told(&world), "local 150.000 USD kraken-ws 1");
}

/// What is counted when `remote` comes to a node that has heard nothing, and whether it is told.
#[track_caller]
fn check_refused(change: impl FnOnce(&mut RemotePrice), expected: RemoteCounters) {
    let mut world = World::new();
    let mut remote = remote(&world, "100.00", 1_000);
    change(&mut remote);
    world.take(FeedInput::Remote(remote));
    assert_eq!(world.shard.counters().remote, expected, "{remote:?}");
    assert_eq!(world.ticks.len() as u64, expected.taken);
}

#[test]
fn what_cannot_be_is_refused_and_counted() {
    let none = RemoteCounters::default;
    check_refused(|_| {}, RemoteCounters { taken: 1, ..none() });
    for mantissa in [0, -1, i64::MIN] {
        check_refused(|remote| remote.price = Price::new(mantissa, -2), RemoteCounters { refused_price: 1, ..none() });
    }
    for absurd in [Price::new(i64::MAX, 12), Price::new(1, -24)] {
        check_refused(|remote| remote.price = absurd, RemoteCounters { refused_price: 1, ..none() });
    }
    check_refused(|remote| remote.venues = VenueSet::EMPTY, RemoteCounters { refused_price: 1, ..none() });
    let of_tether = |remote: &mut RemotePrice, currency| {
        (remote.asset, remote.price, remote.currency) = (asset("USDT"), Price::new(1, 0), currency);
    };
    check_refused(|remote| of_tether(remote, Currency::Usdt), RemoteCounters { refused_price: 1, ..none() });
    check_refused(|remote| of_tether(remote, Currency::Usd), RemoteCounters { taken: 1, ..none() });
    let time = || RemoteCounters { refused_time: 1, ..none() };
    for far_ms in [START.wall_ms + 5_001, u64::MAX] {
        check_refused(|remote| remote.received_time_ms = far_ms, time());
        check_refused(|remote| remote.proven_time_ms = far_ms, time());
        check_refused(|remote| remote.exchange_time_ms = Some(far_ms), time());
    }
    check_refused(|remote| remote.proven_time_ms = START.wall_ms + 5_000, RemoteCounters { taken: 1, ..none() });
    for old_ms in [0, START.wall_ms - 9_001] {
        let change = |remote: &mut RemotePrice| (remote.received_time_ms, remote.proven_time_ms) = (old_ms, old_ms);
        check_refused(change, RemoteCounters { refused_stale: 1, ..none() });
    }
    check_refused(|remote| remote.proven_time_ms = 0, RemoteCounters { taken: 1, ..none() });
}

#[test]
fn an_older_one_changes_nothing() {
    let mut world = World::new();
    hear(&mut world, "100.00", 1_000);
    hear(&mut world, "101.00", 1_000);
    hear(&mut world, "102.00", 2_000);
    assert_eq!((told(&world).as_str(), world.shard.counters().remote.refused_older), ("valkey 100.00 USD valkey 2", 2));
    hear(&mut world, "103.00", 999);
    assert_eq!(told(&world), "valkey 103.00 USD valkey 2");
    // Our own price that has just ceased to hold is newer than what another node knew before it.
    let mut world = World::new();
    world.book(Kraken, "99", "101");
    world.book(Kraken, "none", "none");
    assert_eq!(told(&world), "local 100.000 USD kraken-ws 1 stale");
    hear(&mut world, "101.00", 500);
    assert_eq!(told(&world), "local 100.000 USD kraken-ws 1 stale");
    world.wait_ms(600);
    hear(&mut world, "101.00", 100);
    assert_eq!(told(&world), "valkey 101.00 USD valkey 2");
}

#[test]
fn one_far_from_our_own_last_price_is_refused_for_ten_minutes() {
    let mut world = World::new();
    world.last(Kraken, "100.00");
    world.wait_ms(10_000);
    for (price, taken) in [("120.01", false), ("79.99", false), ("119.00", true), ("81.00", true), ("121.00", false)] {
        world.wait_ms(100);
        let before = world.shard.counters().remote.refused_apart;
        hear(&mut world, price, 0);
        assert_eq!(told(&world).contains(price), taken, "{price}");
        assert_eq!(world.shard.counters().remote.refused_apart - before, u64::from(!taken), "{price}");
    }
    // Neither a row of others' prices nor their end makes ours forgotten; time does.
    world.wait_ms(500_000);
    hear(&mut world, "125.00", 0);
    assert_eq!(world.shard.counters().remote.refused_apart, 4);
    world.wait_ms(100_000);
    hear(&mut world, "125.00", 0);
    assert_eq!(told(&world), "valkey 125.00 USD valkey 2");
}

#[test]
fn a_wall_clock_that_jumps_makes_no_price_younger() {
    // Back: what is 30 s old looks new by the wall, and is not.
    let mut world = World::new();
    world.wait_ms(60_000);
    let old = remote(&world, "100.00", 30_000);
    world.now.wall_ms -= 30_000;
    world.take(FeedInput::Remote(old));
    assert_eq!((told(&world).as_str(), world.shard.counters().remote.refused_stale), ("nothing", 1));
    // Forward: what is a second old looks an hour old; it is refused rather than believed.
    world.now.wall_ms += 30_000;
    let young = remote(&world, "100.00", 1_000);
    world.now.wall_ms += 3_600_000;
    world.take(FeedInput::Remote(young));
    assert_eq!((told(&world).as_str(), world.shard.counters().remote.refused_stale), ("nothing", 2));
    // One that was taken keeps its age whatever the wall does.
    world.now.wall_ms -= 3_600_000;
    hear(&mut world, "100.00", 1_000);
    world.now.wall_ms -= 7_200_000;
    world.wait_ms(8_000);
    assert_eq!(told(&world), "valkey 100.00 USD valkey 2");
    world.wait_ms(100);
    assert_eq!(told(&world), "valkey 100.00 USD valkey 2 stale");
}

#[test]
fn suspended_time_counts_and_new_tunables_hold() {
    let mut world = World::new();
    hear(&mut world, "100.00", 0);
    world.now = world.now.plus_ms(60_000);
    world.shard.sweep(world.now);
    world.wait_ms(100);
    assert_eq!(told(&world), "valkey 100.00 USD valkey 2 stale");
    hear(&mut world, "101.00", 3_000);
    world.take(FeedInput::Parameters(FeedParameters { fresh_ms: 2_000, ..FeedParameters::default() }));
    world.wait_ms(100);
    assert_eq!(told(&world), "valkey 101.00 USD valkey 2 stale");
}

/// Whether another node's price of USDT is taken by a node whose venues have said `own` of it 10 s ago.
#[track_caller]
fn check_tether(own: Option<&str>, price: &str, is_taken: bool) {
    let mut world = World::new();
    if let Some(own) = own {
        world.tether(Kraken, own);
        world.wait_ms(10_000);
    }
    let tether = RemotePrice { asset: asset("USDT"), ..remote(&world, price, 0) };
    world.take(FeedInput::Remote(tether));
    let counters = world.shard.counters().remote;
    assert_eq!((counters.taken, counters.refused_apart), (is_taken.into(), (!is_taken).into()), "{own:?} {price}");
}

#[test]
fn another_nodes_tether_is_about_a_dollar_or_what_ours_was() {
    for (price, is_taken) in [("0.999", true), ("0.9", true), ("1.1", true), ("0.8999", false), ("1.1001", false)] {
        check_tether(None, price, is_taken);
    }
    for price in ["0.5", "2", "67000", "0.0001"] {
        check_tether(None, price, false);
        check_tether(Some("1.00"), price, false);
    }
    check_tether(Some("0.7"), "0.65", true);
    check_tether(Some("0.7"), "0.999", false);
}

#[test]
fn another_nodes_tether_changes_no_price_of_ours() {
    let mut world = World::new();
    world.last_usdt(Okx, "100.00");
    assert_eq!(told(&world), "local 100.000 USDT okx-ws 1");
    for price in ["2", "0.92"] {
        let tether = RemotePrice { asset: asset("USDT"), ..remote(&world, price, 0) };
        world.take(FeedInput::Remote(tether));
        world.wait_ms(100);
        world.last_usdt(Okx, "100.00");
        assert_eq!(told(&world), "local 100.000 USDT okx-ws 1");
    }
    // Ours does, for as long as it is ours.
    world.tether(Kraken, "0.999");
    world.wait_ms(100);
    assert_eq!(told(&world), "local 99.9000 USD okx-ws 1");
    world.wait_ms(9_000);
    let tether = RemotePrice { asset: asset("USDT"), ..remote(&world, "0.95", 0) };
    world.take(FeedInput::Remote(tether));
    world.wait_ms(100);
    world.last_usdt(Okx, "100.00");
    assert_eq!(told(&world), "local 100.000 USDT okx-ws 1");
}

/// A price of USDT that comes over REST alone, `age_ms` after a feed said `heard` of it: whether it converts.
#[track_caller]
fn check_rest_rate(heard: Option<(&str, u64)>, price: &str, is_taken: bool) {
    let mut world = World::new();
    if let Some((heard, age_ms)) = heard {
        world.tether(Kraken, heard);
        world.wait_ms(age_ms);
    }
    rest_tether(&mut world, Coinbase, price);
    world.last_usdt(Okx, "100.00");
    let currency = world.newest("BTC").map(|tick| tick.currency());
    assert_eq!(currency, Some(if is_taken { Currency::Usd } else { Currency::Usdt }), "{heard:?} {price}");
    let tether = world.newest("USDT").expect("it is given all the same");
    assert_eq!((tether.is_stale(), Tier::from_number(tether.tier)), (false, Some(Tier::Rest)));
    assert_eq!(world.shard.counters().rates_refused, u64::from(!is_taken), "{heard:?} {price}");
}

fn rest_tether(world: &mut World, venue: Venue, price: &str) {
    let quote = Quote { asset: asset("USDT"), route: Route::Rest, snapshot: true, ..world.quote(venue) };
    world.say(Quote { last: field(price), ..quote });
}

#[test]
fn a_tether_over_rest_alone_converts_only_near_what_a_feed_said_or_a_dollar() {
    for (price, is_taken) in [("0.999", true), ("0.9", true), ("1.1", true), ("0.8999", false), ("1.1001", false)] {
        check_rest_rate(None, price, is_taken);
        check_rest_rate(Some(("1.00", 10_000)), price, is_taken);
    }
    for price in ["0.5", "2", "67000", "0.0001"] {
        check_rest_rate(None, price, false);
    }
    // One that had lost its peg by a feed's own word, for ten minutes from when that was last fresh.
    for (price, is_taken) in [("0.65", true), ("0.76", true), ("0.999", false), ("0.62", false)] {
        check_rest_rate(Some(("0.7", 10_000)), price, is_taken);
        check_rest_rate(Some(("0.7", 605_000)), price, is_taken);
    }
    check_rest_rate(Some(("0.7", 610_000)), "0.65", false);
    check_rest_rate(Some(("0.7", 610_000)), "0.999", true);
}

#[test]
fn a_row_of_tethers_over_rest_alone_does_not_walk_away() {
    let mut world = World::new();
    world.tether(Kraken, "1.00");
    world.wait_ms(10_000);
    for (price, refused) in [("0.95", 0), ("0.91", 0), ("0.88", 1), ("0.85", 2), ("0.91", 2)] {
        rest_tether(&mut world, Kraken, price);
        world.last_usdt(Okx, "100.00");
        assert_eq!((world.btc().contains("USDT"), world.shard.counters().rates_refused), (price < "0.9", refused));
        world.wait_ms(1_000);
    }
    // A feed's word is taken as it is, and what it makes of REST beside it too.
    world.tether(Kraken, "0.89");
    world.last_usdt(Okx, "100.00");
    assert_eq!(world.btc(), "89.0000 USD okx-ws 1");
    rest_tether(&mut world, Coinbase, "0.86");
    world.last_usdt(Okx, "100.00");
    assert_eq!((world.btc().as_str(), world.shard.counters().rates_refused), ("87.5000 USD okx-ws 1", 2));
}

#[test]
fn another_nodes_price_in_tether_is_converted_with_our_rate() {
    let mut world = World::new();
    let usdt = RemotePrice { currency: Currency::Usdt, ..remote(&world, "100.00", 0) };
    world.take(FeedInput::Remote(usdt));
    assert_eq!(told(&world), "valkey 100.00 USDT valkey 2");
    world.tether(Kraken, "0.999");
    world.wait_ms(100);
    let tick = world.newest("BTC").expect("a tick");
    assert_eq!((told(&world).as_str(), tick.flags), ("valkey 99.9000 USD valkey 2", TICK_CONVERTED));
    world.wait_ms(4_000);
    world.take(FeedInput::Remote(RemotePrice { currency: Currency::Usdt, ..remote(&world, "110.00", 0) }));
    assert_eq!(told(&world), "valkey 109.890 USD valkey 2");
    assert_eq!(world.shard.counters().remote.refused_apart, 0);
    // The rate goes stale first.
    world.wait_ms(5_100);
    assert_eq!(
        (told(&world).as_str(), world.newest("BTC").map(|tick| tick.flags)),
        ("valkey 110.00 USDT valkey 2", Some(0))
    );
}

#[test]
fn a_proof_is_no_news_though_the_clocks_tick_apart() {
    let mut world = World::new();
    let quiet = remote(&world, "100.00", 2_000);
    world.take(FeedInput::Remote(quiet));
    let received_mono_ns = world.newest("BTC").map(|tick| tick.received_mono_ns);
    for apart_ns in [700_000, 999_999, 100_000, 400_000] {
        world.wait_ms(1_000);
        world.now.mono_ns += apart_ns;
        world.take(FeedInput::Remote(RemotePrice { proven_time_ms: world.now.wall_ms, ..quiet }));
        world.wait_ms(300);
    }
    assert_eq!((world.ticks.len(), world.newest("BTC").map(|tick| tick.received_mono_ns)), (1, received_mono_ns));
    world.wait_ms(8_000);
    assert_eq!(told(&world), "valkey 100.00 USD valkey 2", "proven it is");
}

#[test]
fn a_quiet_price_of_ours_tells_what_is_far_for_ten_minutes_after_its_feed() {
    let mut world = World::new();
    world.last(Kraken, "100.00");
    world.live(Kraken, true);
    world.alive.push(Kraken);
    world.wait_ms(660_000);
    world.live(Kraken, false);
    assert_eq!(told(&world), "local 100.000 USD kraken-ws 1 stale");
    hear(&mut world, "125.00", 0);
    world.wait_ms(599_900);
    hear(&mut world, "125.00", 0);
    assert_eq!(world.shard.counters().remote, RemoteCounters { refused_apart: 2, ..RemoteCounters::default() });
    world.wait_ms(100);
    hear(&mut world, "125.00", 0);
    assert_eq!(told(&world), "valkey 125.00 USD valkey 2");
}
