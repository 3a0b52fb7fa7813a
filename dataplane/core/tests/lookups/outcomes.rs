//! What a request that has waited is told besides its price, and what may have changed meanwhile.

use super::world::{KEY, SLOW_KEY, World};
use super::{Waiting, finds, fresh, named, price, symbol, world};
use dataplane_core::command::ShardCommand;
use dataplane_core::limits::LOOKUPS_PER_KEY_MAX;
use dataplane_core::shard::Then;
use shared::code::Code;
use shared::key::KeyId;
use shared::tick::{TICK_STALE, Tick};

#[test]
fn what_was_left_of_the_second_is_told_to_who_waited() {
    let mut world = world();
    let waiting: Vec<_> =
        (1..=3).map(|token| Waiting::begin(&mut world, token, "/prices?assets=DOGE,NOPE", SLOW_KEY)).collect();
    world.publish(fresh(2, 6_000));
    world.tell_nothing([symbol("NOPE")], Code::PriceUnavailable);
    let told = waiting.into_iter().map(|waiting| waiting.end(&mut world).field("RateLimit").map(str::to_owned));
    let told: Vec<_> = told.collect();
    assert!(told[0].is_none() && told[1].is_none(), "a fifth or more was left: {told:?}");
    assert!(told[2].as_ref().is_some_and(|text| text.contains("r=0")), "{told:?}");
}

#[test]
fn a_month_that_ends_meanwhile_is_of_the_next_request() {
    let mut world = world();
    let targets = [price("DOGE"), "/prices?assets=DOGE".to_owned()];
    let waiting = targets.clone().map(|target| Waiting::begin(&mut world, 1, &target, KEY));
    world.keys.set_month_used_up(KeyId(1), true);
    world.publish(fresh(2, 6_000));
    for waiting in waiting {
        assert_eq!(waiting.end(&mut world).status, 200);
    }
    for target in targets {
        assert_eq!(world.get(&target, KEY).code(), "rate_limited_month");
    }
}

#[test]
fn who_waited_is_taken_up_with_an_empty_output() {
    let mut world = world();
    let mut waiting = Waiting::begin(&mut world, 1, &price("DOGE"), KEY);
    world.publish(fresh(2, 6_000));
    for _ in 0..2 {
        world.output.clear();
        assert!(world.output.append(b"what is still to be sent"));
        let step = world.shard.serve_stream(world.now, &mut waiting.connection, &waiting.rest, &mut world.output);
        assert_eq!((step.then, step.consumed), (Then::Write, 0));
        assert_eq!(world.output.bytes(), b"what is still to be sent");
    }
    assert_eq!(waiting.end(&mut world).status, 200);
    assert_eq!((world.shard.counters().waiting, world.shard.counters().http_requests), (0, 1));
}

/// A call for several assets of which one may be missing, when that one is refused; what it is answered.
#[track_caller]
fn check_refused(prepare: impl Fn(&mut World), expected: &str) {
    for target in ["/prices?assets=BTC,NOPE&ignore_unknown=1", "/prices?assets=NOPE,DOGE&ignore_unknown=1"] {
        let mut world = world();
        prepare(&mut world);
        assert_eq!(world.get(target, KEY).code(), expected, "{target}");
    }
}

#[test]
fn what_could_not_be_looked_for_is_not_told_as_missing() {
    let fill = |world: &mut World| {
        for number in 0..LOOKUPS_PER_KEY_MAX {
            let _waiting = Waiting::begin(world, 1, &price(&format!("A{number}")), KEY);
        }
    };
    check_refused(fill, "overloaded");
    check_refused(|world| world.shard.apply(ShardCommand::StopAccepting), "draining");
    let no_time = |world: &mut World| {
        let waiting = Waiting::begin(world, 1, &price("NOPE"), KEY);
        world.tell_nothing([symbol("NOPE")], Code::Overloaded);
        assert_eq!(waiting.end(world).code(), "overloaded");
    };
    check_refused(no_time, "overloaded");
    // Once it was looked for it is missing.
    let mut world = world();
    let waiting = Waiting::begin(&mut world, 1, "/prices?assets=BTC,NOPE&ignore_unknown=1", KEY);
    world.tell_nothing([symbol("NOPE")], Code::PriceUnavailable);
    assert!(waiting.end(&mut world).body.ends_with("\"missing\":[\"NOPE\"]}"));
}

#[test]
fn what_no_price_of_came_in_time_is_missing_and_not_unknown() {
    for name in ["DOGE", "NOPE"] {
        let mut world = world();
        let several = format!("/prices?assets=BTC,{name}");
        let waiting = Waiting::begin(&mut world, 1, &format!("{several}&ignore_unknown=1"), KEY);
        world.pass_ms(1_500);
        world.shard.idle_tick(world.now, &mut world.ready);
        let reply = waiting.end(&mut world);
        assert!(reply.status == 200 && reply.body.ends_with(&format!("\"missing\":[\"{name}\"]}}")), "{}", reply.body);
        for target in [price(name), several] {
            assert_eq!(world.get(&target, KEY).code(), "price_unavailable", "{target}");
        }
    }
}

/// A request that waits for DOGE, of which a stale price comes: whether that ends it.
#[track_caller]
fn check_stale(target: &str, expected: bool) {
    let mut world = world();
    let waiting = Waiting::begin(&mut world, 1, target, KEY);
    let other = Waiting::begin(&mut world, 2, &price("DOGE"), KEY);
    world.publish(Tick { flags: TICK_STALE, ..fresh(2, 6_000) });
    assert_eq!(named(&mut world.ready), if expected { vec![1] } else { vec![] }, "{target}");
    assert_eq!(world.shard.counters().lookups_under_way, 1, "who takes no stale one waits on");
    if expected {
        let body = waiting.end(&mut world).body;
        assert!(body.contains("\"stale\":true"), "{target}: {body}");
    }
    world.publish(fresh(2, 6_001));
    assert_eq!(named(&mut world.ready), if expected { vec![2] } else { vec![1, 2] }, "{target}");
    assert_eq!(other.end(&mut world).status, 200);
    assert_eq!(finds(world.asks()), ["DOGE"]);
}

#[test]
fn a_stale_price_is_given_at_once_to_who_takes_one() {
    check_stale("/price?asset=DOGE&allow_stale=1", true);
    check_stale("/prices?assets=BTC,DOGE&allow_stale=1", true);
    check_stale("/price?asset=DOGE&allow_stale=1&newer_than=5&wait_ms=0", true);
    check_stale("/price?asset=DOGE&allow_stale=1&newer_than=5&wait_ms=3000", true);
    check_stale("/price?asset=DOGE&allow_stale=0", false);
    check_stale("/prices?assets=BTC,DOGE", false);
}
