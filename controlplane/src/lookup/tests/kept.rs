//! What is kept subscribed because somebody asks for it.

use super::super::{Lookups, Outcome};
use super::cache::entry;
use super::world::{Setting, World, symbol};
use dataplane_core::feed::FeedInput;
use dataplane_core::lookup::{Ask, AskKind};
use shared::key::KeyId;
use shared::tick::Tier;

fn in_use(world: &World, name: &str) {
    world.desk.take(Ask { symbol: symbol(name), shard: 0, kind: AskKind::InUse });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_is_subscribed_from_then_on() {
    let world = World::start(Setting::default()).await;
    assert_eq!(world.desk.look_up(symbol("QNT"), KeyId(1)).await, Outcome::Found);
    world.until("its own feeds to carry it", || world.tier("QNT") == Some(Tier::Local)).await;
    assert_eq!(world.desk.state().kept, 1);
    in_use(&world, "ZIL");
    world.until("a shard's word to keep an asset too", || world.tier("ZIL") == Some(Tier::Local)).await;
    assert_eq!(world.desk.state().kept, 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_kept_takes_no_place() {
    let world = World::start(Setting::default()).await;
    // One that is subscribed for good, and one that no venue lists; who comes after them has a place at the same change.
    ["BTC", "NOSUCH", "ZIL"].into_iter().for_each(|name| in_use(&world, name));
    world.until("the last one to be carried", || world.tier("ZIL") == Some(Tier::Local)).await;
    assert_eq!(world.desk.state().kept, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_given_a_fresh_price_at_once_keeps_it_too() {
    let world = World::start(Setting::default()).await;
    let asset = world.desk.find(&symbol("QNT")).expect("it is listed");
    assert!(world.desk.feed(FeedInput::Remote(entry("QNT", 10).remote(asset))).await);
    world.until("the price", || world.tier("QNT") == Some(Tier::Valkey)).await;
    assert_eq!(world.desk.look_up(symbol("QNT"), KeyId(1)).await, Outcome::Found);
    let flights: u64 = world.desk.counters.found.iter().map(|found| found.cumulated().1).sum();
    assert_eq!(flights, 0, "it is there already");
    world.until("it to be subscribed", || world.tier("QNT") == Some(Tier::Local)).await;
    assert_eq!(world.desk.state().kept, 1);
    world.stop().await;
}
