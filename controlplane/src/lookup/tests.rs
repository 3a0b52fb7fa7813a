//! The desk on simulated exchanges, a real feed shard and a real cache.

mod ahead;
mod cache;
mod kept;
mod venues;
mod world;

use self::world::{Setting, World, number_of, symbol};
use super::table::KEY_FLIGHTS_MAX;
use super::{Lookups, Outcome};
use dataplane_core::lookup::{Ask, AskKind, NotFound};
use futures_util::future::join_all;
use shared::code::Code;
use shared::key::KeyId;
use shared::tick::Tier;

const UNAVAILABLE: Outcome = Outcome::Nothing(Code::PriceUnavailable);
const UNKNOWN: Outcome = Outcome::Nothing(Code::AssetUnknown);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_who_ask_for_one_cold_asset_are_one_request() {
    let world = World::start(Setting::default()).await;
    let before = world.requests();
    let asked = (0..10_000).map(|number| world.desk.look_up(symbol("QNT"), KeyId(number % 100)));
    for shard in 0..8 {
        world.ask("QNT", shard);
    }
    assert!(join_all(asked).await.iter().all(|outcome| *outcome == Outcome::Found));
    assert_eq!(world.requests() - before, 1);
    assert_eq!(world.tier("QNT"), Some(Tier::Rest));
    assert_eq!(world.desk.look_up(symbol("QNT"), KeyId(1)).await, Outcome::Found, "and it is fresh from then on");
    assert_eq!(world.requests() - before, 1);
    assert!(world.told().is_empty(), "a shard has the tick and is told nothing");
    world.until("the price to be left for other nodes", || world.counters().written[0] == 1).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_lists_is_unknown_without_a_request_and_told_to_those_who_asked() {
    let world = World::start(Setting::default()).await;
    let before = world.requests();
    for shard in [0, 3] {
        world.ask("NOSUCH", shard);
    }
    assert_eq!(world.desk.look_up(symbol("NOSUCH"), KeyId(1)).await, UNKNOWN);
    world.until("both shards to be told", || world.told().len() == 2).await;
    world.ask("NOSUCH", 5);
    let told = world.told();
    let shards: Vec<u16> = told.iter().map(|(shard, _)| *shard).collect();
    assert_eq!(shards, [0, 3, 5], "a late one is told at once what is known");
    let is_told = |shard, found: &NotFound| {
        (found.symbol, found.number, found.code) == (symbol("NOSUCH"), number_of(shard), Code::AssetUnknown)
    };
    assert!(told.iter().all(|(shard, found)| is_told(*shard, found)), "{told:?}");
    assert_eq!(world.requests(), before);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_keys_flood_is_bounded_and_harms_nobody_else() {
    let (setting, redis, proxy) = Setting::with_slow_cache();
    let world = World::start(setting).await;
    proxy.set(harness::proxy::Fault::Hang);
    for number in (0..).take(2 * KEY_FLIGHTS_MAX) {
        let find = AskKind::Find { key: KeyId(7), number, sequence: 0 };
        world.desk.take(Ask { symbol: symbol(&format!("X{number}")), shard: 1, kind: find });
    }
    let told = world.told();
    assert_eq!(told.len(), KEY_FLIGHTS_MAX, "what is beyond the key's share is refused at once");
    assert!(told.iter().all(|(shard, found)| (*shard, found.code) == (1, Code::Overloaded)));
    assert_eq!(world.desk.state().in_flight, KEY_FLIGHTS_MAX);
    assert_eq!(world.desk.look_up(symbol("QNT"), KeyId(8)).await, Outcome::Found);
    world.until("all to be told", || world.told().len() == 2 * KEY_FLIGHTS_MAX).await;
    assert_eq!(world.desk.state().in_flight, 0);
    world.stop().await;
    drop((redis, proxy));
}
