//! What a request that has waited is told besides its price, and what may have changed meanwhile.

use super::world::{KEY, SLOW_KEY};
use super::{Waiting, fresh, price, world};
use shared::key::KeyId;

#[test]
fn what_was_left_of_the_second_is_told_to_who_waited() {
    let mut world = world();
    let waiting: Vec<_> =
        (1..=3).map(|token| Waiting::begin(&mut world, token, "/prices?assets=DOGE,NOPE", SLOW_KEY)).collect();
    world.publish(fresh(2, 6_000));
    world.tell_nothing([super::symbol("NOPE")], shared::code::Code::PriceUnavailable);
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
