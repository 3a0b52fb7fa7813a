//! What is kept subscribed because somebody asks for it.

use super::super::{Lookups, Outcome};
use super::world::{Setting, World, symbol};
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
