//! Requests for many prices at once, some of which are looked up: what is done each time that one of them has come.

mod world;

use dataplane_core::command::ShardCommand;
use dataplane_core::lookup::AskKind;
use dataplane_core::shard::Then;
use shared::asset::Symbol;
use shared::code::Code;
use shared::tick::Tick;
use shared::venue::VenueSet;
use std::sync::Arc;
use world::{KEY, World, get, tick};

fn symbol(name: &str) -> Symbol {
    Symbol::new(name.as_bytes()).expect("a symbol")
}

/// How many times within a second the shard says that an asset is in use.
fn told_in_use(world: &mut World) -> usize {
    let mut told = 0;
    for _ in 0..21 {
        world.pass_ms(50);
        world.shard.idle_tick(world.now, &mut world.ready);
        told += world.asks().iter().filter(|ask| ask.kind == AskKind::InUse).count();
    }
    told
}

/// What is not given yet is not in use: whoever waits on for another asset has nothing written for it.
#[test]
fn no_price_is_written_for_whoever_waits_on() {
    let mut world = World { finds_nothing: false, ..World::new() };
    // One more asset, number 5, whose use is told of.
    let mut assets = world::assets(0);
    assets.add(symbol("NEW"), false, VenueSet::EMPTY).expect("room");
    world.shard.apply(ShardCommand::Assets(Arc::new(assets)));
    let fresh = |asset, sequence| Tick { flags: 0, ..tick(asset, sequence, 150) };
    world.publish(fresh(5, 6_000));
    let mut connection = world.connect(1);
    let request = get("/prices?assets=NEW,DOGE,OLD,NOPE&ignore_unknown=1", KEY);
    let first = world.serve(&mut connection, request.as_bytes());
    assert_eq!(first.step.then, Then::Wait);
    // Looked at when it came.
    assert!(told_in_use(&mut world) <= 1);
    // It waits for the last of those that are looked up, then for the one before it.
    let mut wait_on = |world: &mut World| {
        assert_eq!(world.ready.streams.drain(..).map(|token| token.0).collect::<Vec<_>>(), [1]);
        let outcome = world.serve(&mut connection, &first.rest);
        assert_eq!((outcome.step.then, outcome.sent.len()), (Then::Wait, 0));
    };
    world.tell_nothing([symbol("NOPE")], Code::PriceUnavailable);
    wait_on(&mut world);
    world.publish(fresh(3, 6_001));
    wait_on(&mut world);
    world.shard.close_stream(&mut connection);
    assert_eq!(told_in_use(&mut world), 0, "nobody was given it");
    // Whoever is given it uses it.
    assert_eq!(world.get("/prices?assets=NEW,BTC", KEY).status, 200);
    assert_eq!(told_in_use(&mut world), 1);
}
