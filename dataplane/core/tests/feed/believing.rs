//! Whom the feed shard believes: jumps alone are not believed at once, moves that two venues make are.

use crate::world::{World, asset, field};
use dataplane_core::feed::Exclusion;
use shared::price::Price;
use shared::quote::{Currency, Quote};
use shared::venue::Venue::{self, Coinbase, Gemini, Kraken, Okx};

/// A world in which `venues` have said 100 for 30 s, once a second.
fn settled(venues: &[Venue]) -> World {
    let mut world = World::new();
    for _ in 0..30 {
        for venue in venues {
            world.last(*venue, "100.00");
        }
        world.wait_ms(1_000);
    }
    for venue in venues {
        world.last(*venue, "100.00");
    }
    world.ticks.clear();
    world
}

/// The furthest that a published price was from 100, in 1/100 of a basis point.
fn furthest(world: &World) -> u32 {
    let hundred = Price::new(100, 0);
    world.ticks.iter().filter_map(|tick| tick.price().distance_centibps(hundred)).max().unwrap_or(0)
}

#[test]
fn a_flash_crash_of_one_venue_moves_nothing() {
    for others in [&[Coinbase][..], &[Coinbase, Gemini], &[Coinbase, Gemini, Okx]] {
        let mut venues = others.to_vec();
        venues.push(Kraken);
        let mut world = settled(&venues);
        for step in 0..30 {
            world.last(Kraken, "60.00");
            assert_eq!(world.excluded(Kraken), Some(Exclusion::Quarantined), "{others:?} step {step}");
            assert_eq!(world.detail(Kraken).and_then(|detail| detail.price), Some(Price::new(6_000, -2)));
            others.iter().for_each(|venue| world.last(*venue, "100.10"));
            world.wait_ms(100);
        }
        world.last(Kraken, "100.00");
        assert_eq!(world.excluded(Kraken), None);
        assert_eq!((world.counters(Kraken).quarantines, world.counters(Kraken).quarantined), (1, 0));
        assert!(furthest(&world) < 10_000, "moved by {} with {others:?}", furthest(&world));
    }
}

#[test]
fn a_spike_is_a_crash_upwards() {
    let mut world = settled(&[Coinbase, Gemini, Kraken]);
    world.last(Kraken, "1000000.00");
    assert_eq!(world.excluded(Kraken), Some(Exclusion::Quarantined));
    assert_eq!(furthest(&world), 0);
}

#[test]
fn a_move_of_two_venues_is_published_at_once() {
    let mut world = settled(&[Coinbase, Gemini, Kraken]);
    world.last(Kraken, "60.00");
    world.wait_ms(1_900);
    assert_eq!(furthest(&world), 0);
    world.last(Gemini, "61.00");
    assert_eq!(world.btc(), "61.0000 USD median 3");
    assert_eq!([Kraken, Gemini, Coinbase].map(|venue| world.excluded(venue)), [None; 3]);
    assert_eq!(world.counters(Gemini).quarantines, 0, "it was never alone");
    // The new level is the past now: the same price again is no jump.
    world.last(Kraken, "60.50");
    assert_eq!(world.btc(), "61.0000 USD median 3");
    assert_eq!(world.counters(Kraken).quarantined, 0);
}

#[test]
fn a_move_of_both_of_two_venues_is_published_at_once() {
    let mut world = settled(&[Gemini, Kraken]);
    world.last(Kraken, "60.00");
    world.last(Gemini, "60.00");
    assert_eq!(world.btc(), "60.0000 USD median 2");
}

#[test]
fn quarantine_ends_within_five_seconds_where_nobody_can_tell_who_is_right() {
    for (others, expected) in [(&[][..], "60.0000 USD kraken-ws 1"), (&[Coinbase][..], "80.0000 USD median 2")] {
        let mut venues = others.to_vec();
        venues.push(Kraken);
        let mut world = settled(&venues);
        let mut quarantined_ms = 0;
        world.last(Kraken, "60.00");
        while world.excluded(Kraken) == Some(Exclusion::Quarantined) {
            world.wait_ms(100);
            quarantined_ms += 100;
            others.iter().for_each(|venue| world.last(*venue, "100.00"));
        }
        assert!((3_000..=5_000).contains(&quarantined_ms), "{quarantined_ms} ms");
        assert_eq!(world.btc(), expected);
        // Believed once, it stays believed at its new level.
        world.last(Kraken, "60.10");
        assert_eq!(world.excluded(Kraken), None);
    }
}

#[test]
fn a_venue_out_of_line_with_two_that_agree_stays_out_until_it_is_back() {
    let mut world = settled(&[Coinbase, Gemini, Kraken]);
    for _ in 0..100 {
        world.last(Kraken, "60.00");
        world.last(Coinbase, "100.00");
        world.last(Gemini, "100.00");
        world.wait_ms(100);
    }
    assert_eq!(world.excluded(Kraken), Some(Exclusion::Outlier));
    assert_eq!((world.counters(Kraken).quarantines, world.counters(Kraken).quarantined), (1, 0));
    assert_eq!(furthest(&world), 0);
    world.last(Kraken, "96.00");
    assert_eq!((world.excluded(Kraken), world.btc().as_str()), (None, "100.000 USD median 3"));
}

#[test]
fn an_outlier_is_heard_again_when_the_others_fall_silent_or_follow() {
    let outlying = || {
        let mut world = settled(&[Coinbase, Gemini, Kraken]);
        world.last(Kraken, "60.00");
        for _ in 0..6 {
            world.wait_ms(1_000);
            [Coinbase, Gemini].iter().for_each(|venue| world.last(*venue, "100.00"));
            world.last(Kraken, "60.00");
        }
        assert_eq!(world.excluded(Kraken), Some(Exclusion::Outlier));
        world
    };
    let mut silent = outlying();
    for _ in 0..95 {
        silent.last(Kraken, "60.00");
        silent.wait_ms(100);
    }
    assert_eq!(silent.btc(), "60.0000 USD kraken-ws 1");

    let mut followed = outlying();
    followed.last(Gemini, "60.00");
    assert_eq!(followed.btc(), "60.0000 USD median 3");
}

#[test]
fn a_newcomer_far_from_the_others_waits_too() {
    let mut world = settled(&[Coinbase]);
    world.last(Kraken, "60.00");
    assert_eq!(world.excluded(Kraken), Some(Exclusion::Quarantined));
    assert_eq!(furthest(&world), 0);
    world.last(Okx, "100.20");
    assert_eq!(world.btc(), "100.100 USD median 2");
}

#[test]
fn a_venue_that_moves_less_can_agree_with_one_that_jumped() {
    let mut world = settled(&[Coinbase, Gemini, Kraken]);
    world.last(Kraken, "88.00");
    assert_eq!(world.excluded(Kraken), Some(Exclusion::Quarantined));
    world.last(Gemini, "92.00");
    assert_eq!(world.btc(), "92.0000 USD median 3");
}

#[test]
fn two_that_jump_to_different_prices_are_each_alone() {
    let mut world = settled(&[Coinbase, Gemini, Kraken]);
    world.last(Kraken, "60.00");
    world.last(Gemini, "80.00");
    assert_eq!([Kraken, Gemini].map(|venue| world.excluded(venue)), [Some(Exclusion::Quarantined); 2]);
    assert_eq!(world.btc(), "100.000 USD coinbase-ws 1");
}

#[test]
fn a_jump_into_the_middle_of_the_others_is_none() {
    let mut world = settled(&[Coinbase, Gemini, Kraken]);
    for (venue, price) in [(Coinbase, "94.00"), (Gemini, "106.00"), (Kraken, "92.00")] {
        world.last(venue, price);
    }
    for _ in 0..30 {
        world.wait_ms(1_000);
        for (venue, price) in [(Coinbase, "94.00"), (Gemini, "106.00"), (Kraken, "90.00")] {
            world.last(venue, price);
        }
    }
    world.last(Kraken, "100.00");
    assert_eq!((world.excluded(Kraken), world.counters(Kraken).quarantines), (None, 0));
    // And who is in quarantine is back when it is in the middle, though near neither of the two.
    world.last(Kraken, "50.00");
    assert_eq!(world.excluded(Kraken), Some(Exclusion::Quarantined));
    world.last(Kraken, "100.00");
    assert_eq!(world.excluded(Kraken), None);
}

#[test]
fn a_lone_venue_that_comes_back_is_believed_at_once() {
    let mut world = settled(&[Kraken]);
    world.last(Kraken, "60.00");
    world.wait_ms(1_000);
    world.last(Kraken, "101.00");
    assert_eq!(world.btc(), "101.000 USD kraken-ws 1");
}

#[test]
fn who_is_stale_vouches_for_nobody() {
    let mut world = World::new();
    world.last(Kraken, "60.00");
    world.wait_ms(10_000);
    for _ in 0..5 {
        [Coinbase, Gemini].iter().for_each(|venue| world.last(*venue, "100.00"));
        world.wait_ms(1_000);
    }
    world.last(Gemini, "60.00");
    assert_eq!(world.excluded(Kraken), Some(Exclusion::Stale));
    assert_eq!(world.excluded(Gemini), Some(Exclusion::Quarantined));
}

#[test]
fn an_old_trade_vouches_for_nobody() {
    let mut world = World::new();
    world.alive.push(Kraken);
    world.live(Kraken, true);
    world.last(Kraken, "150.00");
    world.wait_ms(61_000);
    world.last(Coinbase, "100.00");
    world.wait_ms(5_000);
    world.last(Coinbase, "100.00");
    assert_eq!(world.btc(), "100.000 USD coinbase-ws 1");
    for price in ["125.00", "150.00"] {
        world.last(Gemini, price);
        assert_eq!(world.excluded(Gemini), Some(Exclusion::Quarantined), "{price}");
    }
}

#[test]
fn an_outlier_whose_feed_comes_back_is_still_one() {
    let mut world = settled(&[Coinbase, Gemini, Kraken]);
    world.live(Kraken, true);
    world.alive.push(Kraken);
    world.last(Kraken, "60.00");
    for second in 0..40 {
        [Coinbase, Gemini].iter().for_each(|venue| world.last(*venue, "100.00"));
        match second {
            10 => world.alive.clear(),
            30 => world.alive.push(Kraken),
            _ => {}
        }
        world.wait_ms(1_000);
        if second == 25 {
            assert_eq!(world.excluded(Kraken), Some(Exclusion::Stale));
        }
    }
    assert_eq!(world.excluded(Kraken), Some(Exclusion::Outlier));
    world.last(Kraken, "60.00");
    assert_eq!((world.excluded(Kraken), world.counters(Kraken).quarantines), (Some(Exclusion::Outlier), 1));
}

#[test]
fn quarantine_is_counted_out_however_it_ends() {
    let quarantined = || {
        let mut world = settled(&[Coinbase, Gemini, Kraken]);
        world.book(Kraken, "60.00", "60.00");
        assert_eq!(world.counters(Kraken).quarantined, 1);
        world
    };
    let mut other_currency = quarantined();
    other_currency.last_usdt(Kraken, "100.00");
    assert_eq!(other_currency.counters(Kraken).quarantined, 0);

    let mut emptied = quarantined();
    let none = field("none");
    emptied.say(Quote { last: none, bid: none, ask: none, ..emptied.quote(Kraken) });
    assert_eq!(emptied.excluded(Kraken), Some(Exclusion::NoPrice));
    emptied.wait_ms(5_000);
    assert_eq!(emptied.counters(Kraken).quarantined, 0);
}

#[test]
fn a_drift_of_all_is_no_jump() {
    let mut world = settled(&[Coinbase, Gemini, Kraken]);
    for step in 0..600_u32 {
        let price = format!("{}.{}", 100 + step / 10, step % 10);
        [Coinbase, Gemini, Kraken].iter().for_each(|venue| world.last(*venue, &price));
        world.wait_ms(100);
    }
    let quarantines = [Coinbase, Gemini, Kraken].map(|venue| world.counters(venue).quarantines);
    assert_eq!((world.btc().as_str(), quarantines), ("159.900 USD median 3", [0; 3]));
}

#[test]
fn silence_does_not_shorten_the_memory_of_a_price() {
    let mut world = settled(&[Kraken]);
    world.live(Kraken, true);
    world.alive.push(Kraken);
    world.wait_ms(120_000);
    world.last(Kraken, "60.00");
    assert_eq!(world.excluded(Kraken), Some(Exclusion::Quarantined));
    assert!(world.ticks.is_empty(), "the old price stands");
}

#[test]
fn after_an_outage_there_is_no_past_to_hold_a_venue_to() {
    let mut world = settled(&[Kraken]);
    world.wait_ms(60_000);
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1 stale");
    world.last(Kraken, "60.00");
    assert_eq!(world.btc(), "60.0000 USD kraken-ws 1");
}

#[test]
fn a_price_held_over_a_quarantine_is_stale_when_its_time_is_over() {
    let mut world = settled(&[Coinbase, Kraken]);
    // Coinbase falls silent; eight seconds later Kraken, whose last word was 100 as well, jumps.
    for _ in 0..80 {
        world.wait_ms(100);
        world.last(Kraken, "100.00");
    }
    world.last(Kraken, "60.00");
    world.wait_ms(1_500);
    assert_eq!(world.excluded(Coinbase), Some(Exclusion::Stale));
    assert_eq!(world.btc(), "100.000 USD coinbase-ws 1 stale", "nobody who is believed stands for it");
    world.wait_ms(3_500);
    assert_eq!(world.btc(), "60.0000 USD kraken-ws 1");
}

#[test]
fn a_price_held_alone_is_stale_when_its_time_is_over() {
    let mut world = settled(&[Kraken]);
    world.wait_ms(7_000);
    world.last(Kraken, "60.00");
    world.wait_ms(1_900);
    assert!(world.ticks.is_empty(), "the old price stands");
    world.wait_ms(300);
    assert_eq!(world.btc(), "100.000 USD kraken-ws 1 stale");
    world.wait_ms(2_800);
    assert_eq!(world.btc(), "60.0000 USD kraken-ws 1");
}

#[test]
fn a_tether_that_loses_its_peg_moves_what_is_priced_in_it_when_believed() {
    let mut world = World::new();
    let tether_venues = [Coinbase, Kraken];
    for _ in 0..30 {
        tether_venues.iter().for_each(|venue| world.tether(*venue, "1.0000"));
        world.last_usdt(Okx, "100.00");
        world.wait_ms(1_000);
    }
    // One venue alone does not move the rate.
    world.tether(Kraken, "0.8000");
    world.wait_ms(200);
    assert_eq!(world.btc(), "100.000 USD okx-ws 1");
    world.tether(Coinbase, "0.8000");
    world.wait_ms(100);
    assert_eq!(world.btc(), "80.0000 USD okx-ws 1");
    assert_eq!(world.counters(Okx).quarantines, 0, "the venue's own price has not moved");
    assert_eq!(world.newest("USDT").map(|tick| tick.asset), Some(asset("USDT").number()));
}

#[test]
fn prices_in_different_currencies_are_not_compared() {
    let mut world = settled(&[Coinbase]);
    world.say(Quote { last: field("50"), currency: Currency::Usdt, ..world.quote(Okx) });
    assert_eq!(world.excluded(Okx), Some(Exclusion::NoConversion));
    assert_eq!(world.counters(Okx).quarantines, 0);
}
