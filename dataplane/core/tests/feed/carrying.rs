//! How ticks reach the rings: a full ring costs ticks in between, never the last one and never the order.

use crate::world::{FIRST_SEQUENCE, START, directory, field};
use dataplane_core::feed::{FeedInput, FeedParameters, FeedSetup, FeedShard};
use rtrb::{Consumer, Producer, RingBuffer};
use shared::asset::{AssetDirectory, AssetId, Symbol};
use shared::limits::ASSETS_MAX;
use shared::moment::Moment;
use shared::quote::{Currency, Field, Quote, Route};
use shared::tick::Tick;
use shared::venue::{Venue, VenueSet};
use std::collections::BTreeMap;
use std::sync::Arc;

fn shard(rings: Vec<Producer<Tick>>, assets: AssetDirectory) -> FeedShard {
    FeedShard::new(FeedSetup {
        assets: Arc::new(assets),
        parameters: FeedParameters::default(),
        first_sequence: FIRST_SEQUENCE,
        rings,
        simulated: true,
    })
}

fn say(shard: &mut FeedShard, now: Moment, asset: usize, last: &str) {
    say_in(shard, now, asset, last, Currency::Usd);
}

fn say_in(shard: &mut FeedShard, now: Moment, asset: usize, last: &str, currency: Currency) {
    shard.take(
        now,
        FeedInput::Quote(Quote {
            venue: Venue::Okx,
            asset: AssetId::new(asset).expect("an id"),
            currency,
            route: Route::Ws,
            snapshot: false,
            last: field(last),
            bid: Field::Unchanged,
            ask: Field::Unchanged,
            exchange_time_ms: None,
            venue_sequence: None,
            received_time_ms: now.wall_ms,
            received_mono_ns: now.mono_ns,
        }),
    );
}

/// `count` assets, the first of them the tether.
fn many(count: usize) -> AssetDirectory {
    let mut assets = AssetDirectory::new();
    for index in 0..count {
        let name = if index == 0 { "USDT".to_owned() } else { format!("A{index}") };
        assets.add(Symbol::new(name.as_bytes()).expect("a symbol"), true, VenueSet::EMPTY).expect("room");
    }
    assets
}

/// Takes what a ring holds; the sequence of each asset must grow.
fn drain(ring: &mut Consumer<Tick>, newest: &mut BTreeMap<u16, Tick>) -> usize {
    let mut count = 0;
    while let Ok(tick) = ring.pop() {
        let before = newest.insert(tick.asset, tick);
        assert!(before.is_none_or(|before| before.sequence < tick.sequence), "{before:?} then {tick:?}");
        count += 1;
    }
    count
}

#[test]
fn a_stalled_ring_gets_the_last_of_everything() {
    let (fast, mut fast_ring) = RingBuffer::new(4_096);
    let (slow, mut slow_ring) = RingBuffer::new(4);
    let mut shard = shard(vec![fast, slow], directory());
    let (mut fast_newest, mut slow_newest) = (BTreeMap::new(), BTreeMap::new());
    let mut now = START;
    for round in 0..200_u64 {
        for asset in 0..4 {
            say(&mut shard, now, asset, &format!("10{}.{round:03}", asset));
        }
        now = now.plus_ms(10);
        drain(&mut fast_ring, &mut fast_newest);
        // The slow reader wakes now and then, and takes a few.
        if round % 50 == 7 {
            drain(&mut slow_ring, &mut slow_newest);
            shard.sweep(now);
        }
    }
    assert!(shard.counters().conflated > 500, "{}", shard.counters().conflated);
    assert_eq!(shard.counters().ticks, 800);
    let mut taken = 1;
    while taken > 0 {
        taken = drain(&mut slow_ring, &mut slow_newest);
        shard.sweep(now);
    }
    assert_eq!(fast_newest, slow_newest);
    assert!(fast_newest.values().all(|tick| tick.price().to_string().ends_with(".199")));
}

#[test]
fn every_asset_gets_its_turn_at_a_slow_ring() {
    let mut assets = AssetDirectory::new();
    for index in 0..ASSETS_MAX {
        assets
            .add(Symbol::new(format!("A{index}").as_bytes()).expect("a symbol"), true, VenueSet::EMPTY)
            .expect("room");
    }
    let (producer, mut ring) = RingBuffer::new(16);
    let mut shard = shard(vec![producer], many(ASSETS_MAX));
    for asset in 0..ASSETS_MAX {
        say(&mut shard, START, asset, "100");
    }
    let mut newest = BTreeMap::new();
    // Low ids keep changing all the while; high ones must come through nevertheless.
    let mut rounds = 0;
    while newest.len() < ASSETS_MAX {
        drain(&mut ring, &mut newest);
        for asset in 0..32 {
            say(&mut shard, START, asset, &format!("100.{rounds:03}"));
        }
        rounds += 1;
        assert!(rounds <= 2 * ASSETS_MAX / 16, "{} of {ASSETS_MAX} after {rounds} rounds", newest.len());
    }
}

#[test]
fn touched_names_the_rings_that_got_something() {
    let (one, _one_ring) = RingBuffer::new(1);
    let (two, mut two_ring) = RingBuffer::new(8);
    let mut shard = shard(vec![one, two], directory());
    assert_eq!(shard.take_touched(), 0);
    say(&mut shard, START, 0, "100");
    assert_eq!(shard.take_touched(), 0b11);
    assert_eq!(shard.take_touched(), 0);
    say(&mut shard, START, 0, "101");
    assert_eq!(shard.take_touched(), 0b10, "the first is full");
    say(&mut shard, START, 0, "101");
    assert_eq!(shard.take_touched(), 0, "nothing new");
    let last = std::iter::from_fn(|| two_ring.pop().ok()).last().expect("a tick");
    assert_eq!((last.sequence, last.flags), (FIRST_SEQUENCE + 1, shared::tick::TICK_SIMULATED));
}

#[test]
fn no_ring_is_no_trouble() {
    let mut shard = shard(Vec::new(), directory());
    say(&mut shard, START, 0, "100");
    shard.sweep(START);
    assert_eq!((shard.counters().ticks, shard.take_touched()), (1, 0));
}

#[test]
fn a_sweep_is_bounded_and_those_left_over_come_first() {
    let (producer, mut ring) = RingBuffer::new(4_096);
    let mut shard = shard(vec![producer], many(2_800));
    let mut now = START;
    say(&mut shard, now, 0, "1.0");
    for asset in 1..2_800 {
        say_in(&mut shard, now, asset, "100", Currency::Usdt);
    }
    let mut newest = BTreeMap::new();
    drain(&mut ring, &mut newest);
    // The rate moves before every sweep, so everything that follows it is due again each time.
    for round in 1..=3 {
        now = now.plus_ms(100);
        say(&mut shard, now, 0, &format!("1.00{round}"));
        shard.sweep(now);
        assert!(drain(&mut ring, &mut newest) <= 1_025, "one sweep looks at 1,024 assets");
    }
    let left = newest.values().filter(|tick| tick.price().to_string() == "100.000").count();
    assert_eq!(left, 0, "three sweeps look at 2,800");
}
