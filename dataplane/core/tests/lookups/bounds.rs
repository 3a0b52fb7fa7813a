//! How much is looked up, and how many wait: by key, in all, and in the ring.

use super::world::{KEY, World, get};
use super::{Waiting, finds, fresh, named, nth_key, price, symbol, world};
use dataplane_core::limits::{ASKS_WAITING_MAX, FRUITLESS_PER_KEY_MAX, LOOKUPS_MAX, LOOKUPS_PER_KEY_MAX, WAITERS_MAX};
use dataplane_core::shard::Then;
use shared::code::Code;

/// `GET` for each of these assets on connections of their own; how many of them wait.
fn begin_many(world: &mut World, names: impl Iterator<Item = String>, key: &str) -> usize {
    let replies = names.map(|name| {
        let mut connection = world.connect(1);
        let outcome = world.serve(&mut connection, get(&price(&name), key).as_bytes());
        assert!(outcome.step.then == Then::Wait || outcome.reply().code() == "overloaded", "{name}");
        outcome.step.then
    });
    replies.filter(|then| *then == Then::Wait).count()
}

#[test]
fn what_is_looked_up_at_a_time_is_bounded_by_key_and_in_all() {
    let mut world = World { finds_nothing: false, ..World::with((1..=9).map(nth_key).collect(), 1, 0) };
    for key in 1..=8 {
        let names = (0..300).map(|number| format!("K{key}N{number}"));
        assert_eq!(begin_many(&mut world, names, &format!("key {key}")), usize::from(LOOKUPS_PER_KEY_MAX));
    }
    assert_eq!(finds(world.asks()).len(), LOOKUPS_MAX);
    assert_eq!(begin_many(&mut world, ["MORE".to_owned()].into_iter(), "key 9"), 0, "the table is full");
    assert_eq!(begin_many(&mut world, ["K1N0".to_owned()].into_iter(), "key 9"), 1, "who asks for the same may wait");
    assert_eq!(world.get(&price("BTC"), "key 9").status, 200);
    world.tell_nothing([symbol("K1N0")], Code::AssetUnknown);
    assert_eq!(begin_many(&mut world, ["MORE".to_owned()].into_iter(), "key 9"), 1);
    assert_eq!(world.shard.counters().lookups_under_way as usize, LOOKUPS_MAX);
}

#[test]
fn a_flood_of_made_up_symbols_is_bounded_and_harms_its_key_alone() {
    let mut world = World::with(vec![nth_key(1), nth_key(2)], 1, 0);
    let flood = |world: &mut World, second: usize| {
        let codes =
            (0..1_000).map(|number| world.get(&price(&format!("S{second}N{number}")), "key 1").code().to_owned());
        codes.filter(|code| code == "asset_unknown").count()
    };
    for second in 0..3 {
        assert_eq!(flood(&mut world, second), usize::from(FRUITLESS_PER_KEY_MAX));
        assert_eq!(world.get(&price("BTC"), "key 1").status, 200, "what is known is given");
        assert_eq!(world.get(&price("OLD"), "key 1").code(), "price_stale");
        assert_eq!(world.get(&price(&format!("S{second}OTHER")), "key 2").status, 404, "others may ask");
        world.pass_ms(1_000);
    }
    let counters = world.shard.counters();
    assert_eq!(counters.lookups_begun, 3 * (u64::from(FRUITLESS_PER_KEY_MAX) + 1));
    assert_eq!(counters.lookups_refused, 3 * (1_001 - u64::from(FRUITLESS_PER_KEY_MAX)));
    assert_eq!(counters.http_overloaded, 0, "else the governor would have all clients pay for it");
}

#[test]
fn who_finds_the_ring_full_is_told_so() {
    let mut world = World { finds_nothing: false, ..World::with((1..=17).map(nth_key).collect(), 1, 0) };
    let per_key = usize::from(LOOKUPS_PER_KEY_MAX);
    let keys_a_second = ASKS_WAITING_MAX / per_key / 2;
    for second in 0..2 {
        for key in 1..=keys_a_second {
            let names: Vec<String> = (0..per_key).map(|number| format!("S{second}K{key}N{number}")).collect();
            assert_eq!(begin_many(&mut world, names.iter().cloned(), &format!("key {key}")), per_key);
            world.tell_nothing(names.iter().map(|name| symbol(name)), Code::AssetUnknown);
            world.ready.streams.clear();
        }
        world.pass_ms(1_000);
    }
    assert_eq!(begin_many(&mut world, ["MORE".to_owned()].into_iter(), "key 1"), 0);
    assert_eq!(world.asks().len(), ASKS_WAITING_MAX);
    assert_eq!(begin_many(&mut world, ["MORE".to_owned()].into_iter(), "key 1"), 1);
}

#[test]
fn thousands_may_wait_for_one_asset() {
    let mut world = world();
    let mut waiting: Vec<_> =
        (0..WAITERS_MAX as u64).map(|token| Waiting::begin(&mut world, token, &price("DOGE"), KEY)).collect();
    assert_eq!(world.get(&price("DOGE"), KEY).code(), "overloaded");
    assert_eq!(world.get("/prices?assets=DOGE", KEY).code(), "overloaded");
    for target in [price("NOPE"), "/price?asset=OLD&newer_than=1".to_owned(), "/prices?assets=NOPE".to_owned()] {
        assert_eq!(world.get(&target, KEY).code(), "overloaded", "{target}");
    }
    assert_eq!(finds(world.asks()), ["DOGE"], "nothing is looked up for who could not wait for it");
    world.shard.close_stream(&mut waiting[0].connection);
    world.publish(fresh(2, 6_000));
    let names = named(&mut world.ready);
    assert!(names.len() == WAITERS_MAX - 1 && names.is_sorted(), "in the order in which they began to wait");
    assert_eq!(waiting.pop().expect("one").end(&mut world).status, 200);
}
