//! HTTP requests for what a shard has no price of: what is asked of the control plane, who waits for it and how long,
//! and what each is answered.

#[path = "lookups/bounds.rs"]
mod bounds;
#[path = "lookups/outcomes.rs"]
mod outcomes;
mod world;

use dataplane_core::command::ShardCommand;
use dataplane_core::lookup::{Ask, AskKind};
use dataplane_core::shard::{HttpConnection, ReadyList, Then};
use shared::asset::{AssetDirectory, Symbol};
use shared::code::Code;
use shared::key::KeyId;
use shared::tick::{Tick, Tier};
use shared::venue::VenueSet;
use std::sync::Arc;
use world::{KEY, Reply, SLOW_KEY, World, get, record, tick};

fn symbol(name: &str) -> Symbol {
    Symbol::new(name.as_bytes()).expect("a symbol")
}

/// A world in which what is asked for is answered by the test.
fn world() -> World {
    World { finds_nothing: false, ..World::new() }
}

/// A tick that is not stale, whichever asset it is of.
fn fresh(asset: usize, sequence: u64) -> Tick {
    Tick { flags: 0, tier: Tier::Rest as u8, ..tick(asset, sequence, 150) }
}

/// The usual assets and one more, number 5.
fn directory(name: &str, prewarmed: bool) -> Arc<AssetDirectory> {
    let mut assets = world::assets(0);
    assets.add(symbol(name), prewarmed, VenueSet::EMPTY).expect("room");
    Arc::new(assets)
}

fn named(ready: &mut ReadyList) -> Vec<u64> {
    ready.streams.drain(..).map(|token| token.0).collect()
}

fn finds(asks: Vec<Ask>) -> Vec<String> {
    asks.iter().filter(|ask| ask.kind != AskKind::InUse).map(|ask| ask.symbol.to_string()).collect()
}

/// A request that waits.
struct Waiting {
    connection: HttpConnection,
    rest: Vec<u8>,
}

impl Waiting {
    #[track_caller]
    fn begin(world: &mut World, token: u64, target: &str, key: &str) -> Self {
        let mut connection = world.connect(token);
        let outcome = world.serve(&mut connection, get(target, key).as_bytes());
        assert_eq!((outcome.step.then, outcome.sent.len()), (Then::Wait, 0), "{target}");
        Self { connection, rest: outcome.rest }
    }

    /// The answer it is given once it was named.
    #[track_caller]
    fn end(mut self, world: &mut World) -> Reply {
        let outcome = world.serve(&mut self.connection, &self.rest);
        assert!(outcome.rest.is_empty());
        outcome.reply()
    }
}

fn nth_key(id: u32) -> shared::key::KeyRecord {
    record(id, &format!("key {id}"), 10_000_000)
}

fn price(name: &str) -> String {
    format!("/price?asset={name}")
}

/// A request that is told `found`; what it is answered, and that another right after it is answered the same.
#[track_caller]
fn check_nothing(target: &str, asked: &str, found: Code, expected: &str) {
    let mut world = world();
    let waiting = Waiting::begin(&mut world, 1, target, KEY);
    let asks = world.asks();
    // Only of this one there is a price, which is stale: what is fresher has a higher sequence.
    let sequence = if asked == "OLD" { 4_713 } else { 0 };
    let kind = AskKind::Find { key: KeyId(1), number: 0, sequence };
    assert_eq!(asks, [Ask { symbol: symbol(asked), shard: 0, kind }], "{target}");
    world.tell_nothing([symbol(asked)], found);
    assert_eq!(named(&mut world.ready), [1]);
    let reply = waiting.end(&mut world);
    assert_eq!(reply.code(), expected, "{target}");
    assert_eq!(world.get(target, KEY).code(), expected, "{target} again");
    assert!(world.asks().is_empty(), "{target}: what was just said is remembered");
}

#[test]
fn what_nothing_is_found_for_is_told_as_it_is() {
    check_nothing("/price?asset=NOPE", "NOPE", Code::AssetUnknown, "asset_unknown");
    check_nothing("/price?asset=nope&x=y", "NOPE", Code::AssetUnknown, "asset_unknown");
    check_nothing("/price?asset=NOPE&allow_stale=1", "NOPE", Code::AssetUnknown, "asset_unknown");
    check_nothing("/price?asset=NOPE&newer_than=5&wait_ms=30000", "NOPE", Code::AssetUnknown, "asset_unknown");
    check_nothing("/price?asset=NOPE", "NOPE", Code::PriceUnavailable, "price_unavailable");
    check_nothing("/price?asset=NOPE", "NOPE", Code::Overloaded, "overloaded");
    check_nothing("/price?asset=MATIC", "POL", Code::AssetUnknown, "asset_unknown");
    check_nothing("/price?asset=XDG", "DOGE", Code::PriceUnavailable, "price_unavailable");
    check_nothing("/price?asset=DOGE", "DOGE", Code::AssetUnknown, "price_unavailable");
    check_nothing("/price?asset=DOGE&newer_than=5", "DOGE", Code::PriceUnavailable, "price_unavailable");
    check_nothing("/price?asset=OLD", "OLD", Code::PriceUnavailable, "price_stale");
    check_nothing("/price?asset=OLD&newer_than=1", "OLD", Code::AssetUnknown, "price_stale");
    check_nothing("/price?asset=OLD", "OLD", Code::Overloaded, "overloaded");
    check_nothing("/prices?assets=BTC,NOPE", "NOPE", Code::AssetUnknown, "asset_unknown");
    check_nothing("/prices?assets=OLD,BTC,OLD", "OLD", Code::PriceUnavailable, "price_stale");
}

#[test]
fn what_is_there_is_given_without_asking() {
    let mut world = world();
    for target in
        ["/price?asset=BTC", "/price?asset=OLD&allow_stale=1", "/prices?assets=all", "/prices?assets=OLD&allow_stale=1"]
    {
        assert_eq!(world.get(target, KEY).status, 200, "{target}");
    }
    assert_eq!(world.get("/price?asset=OLD&allow_stale=1&newer_than=4713", KEY).status, 304);
    for (target, key) in [("/price?asset=NOPE", "nobody"), ("/price?asset=NOPE", world::REPORT_KEY)] {
        assert!(world.get(target, key).status < 404);
    }
    assert!(world.asks().is_empty());
}

#[test]
fn one_question_answers_all_who_wait() {
    let mut world = world();
    let waiting: Vec<_> = (1..=3).map(|token| Waiting::begin(&mut world, token, &price("DOGE"), KEY)).collect();
    let by_alias = Waiting::begin(&mut world, 4, &price("xdg"), SLOW_KEY);
    assert_eq!(finds(world.asks()), ["DOGE"]);
    assert_eq!(world.shard.counters().waiting, 4);
    world.publish(Tick { flags: shared::tick::TICK_STALE, ..fresh(2, 6_000) });
    assert!(named(&mut world.ready).is_empty(), "a stale price is no answer");
    world.publish(fresh(2, 6_001));
    assert_eq!(named(&mut world.ready), [1, 2, 3, 4]);
    for waiting in waiting.into_iter().chain([by_alias]) {
        let reply = waiting.end(&mut world);
        assert!(reply.body.contains("\"tier\":\"rest\"") && reply.body.contains("\"sequence\":6001"), "{}", reply.body);
    }
    assert_eq!(world.get(&price("DOGE"), KEY).status, 200);
    let counters = world.shard.counters().clone();
    assert_eq!((counters.waiting, counters.lookups_begun, counters.lookups_found), (0, 1, 1));
    assert_eq!((counters.lookups_under_way, counters.http_requests, counters.answered), (0, 5, 5));
    let booked: Vec<_> = world.usage().iter().map(|record| (record.key, record.requests, record.tier)).collect();
    assert_eq!(booked, [(1, 4, Tier::Rest as u8), (2, 1, Tier::Rest as u8)]);
}

#[test]
fn an_answer_that_comes_too_late_counts_for_nothing() {
    let mut world = world();
    let waiting = Waiting::begin(&mut world, 1, &price("DOGE"), KEY);
    world.publish(fresh(2, 6_000));
    world.tell_nothing([symbol("DOGE"), symbol("BTC"), symbol("NOPE")], Code::AssetUnknown);
    assert_eq!((waiting.end(&mut world).status, world.shard.counters().lookups_fruitless), (200, 0));
    world.publish(Tick { flags: shared::tick::TICK_STALE, ..fresh(2, 6_001) });
    world.asks();
    let _again = Waiting::begin(&mut world, 2, &price("DOGE"), KEY);
    let _other = Waiting::begin(&mut world, 3, &price("NOPE"), KEY);
    assert_eq!(finds(world.asks()), ["DOGE", "NOPE"]);
}

#[test]
fn what_comes_of_a_lookup_that_is_over_does_not_end_the_next_one() {
    let mut world = world();
    let doge = symbol("DOGE");
    let early = Waiting::begin(&mut world, 1, &price("DOGE"), KEY);
    let number = world.number(doge);
    world.pass_ms(1_500);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world.ready), [1]);
    assert_eq!(early.end(&mut world).code(), "price_unavailable");
    world.pass_ms(1_000);
    let other = Waiting::begin(&mut world, 2, &price("NOPE"), KEY);
    let late = Waiting::begin(&mut world, 3, &price("DOGE"), KEY);
    for code in [Code::PriceUnavailable, Code::AssetUnknown, Code::Overloaded] {
        world.tell_nothing_of([(doge, number), (symbol("NOPE"), number)], code);
        assert!(named(&mut world.ready).is_empty(), "{code:?} of the one before");
    }
    assert_eq!((world.shard.counters().lookups_fruitless, world.shard.counters().lookups_under_way), (0, 2));
    world.tell_nothing([doge], Code::PriceUnavailable);
    assert_eq!(named(&mut world.ready), [3]);
    assert_eq!(late.end(&mut world).code(), "price_unavailable");
    world.tell_nothing([symbol("NOPE")], Code::AssetUnknown);
    assert_eq!(other.end(&mut world).code(), "asset_unknown");
}

/// At which time a request that nobody answers is named, and what it is told.
#[track_caller]
fn check_deadline(target: &str, expected: &str) {
    let mut world = world();
    let waiting = Waiting::begin(&mut world, 1, target, KEY);
    world.pass_ms(1_499);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert!(named(&mut world.ready).is_empty(), "{target}");
    world.pass_ms(1);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world.ready), [1], "{target}");
    assert_eq!(waiting.end(&mut world).code(), expected, "{target}");
    assert_eq!(world.shard.counters().lookups_expired, 1);
}

#[test]
fn nobody_waits_longer_than_the_deadline() {
    check_deadline("/price?asset=NOPE", "price_unavailable");
    check_deadline("/price?asset=DOGE", "price_unavailable");
    check_deadline("/price?asset=OLD", "price_stale");
    check_deadline("/price?asset=DOGE&newer_than=9", "price_unavailable");
    check_deadline("/prices?assets=BTC,NOPE", "price_unavailable");
}

#[test]
fn the_deadline_is_of_the_request_and_not_of_its_assets() {
    let mut world = world();
    let waiting = Waiting::begin(&mut world, 1, "/prices?assets=DOGE,NOPE", KEY);
    world.pass_ms(1_000);
    world.tell_nothing([symbol("NOPE")], Code::Overloaded);
    world.pass_ms(300);
    // Judged again only now, when that is forgotten: it is looked up anew, and waits 200 ms for it.
    assert_eq!(named(&mut world.ready), [1]);
    let Waiting { mut connection, rest } = waiting;
    let again = world.serve(&mut connection, &rest);
    assert_eq!(again.step.then, Then::Wait);
    assert_eq!(finds(world.asks()), ["DOGE", "NOPE", "NOPE"]);
    world.pass_ms(199);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert!(named(&mut world.ready).is_empty());
    world.pass_ms(1);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world.ready), [1]);
    let reply = Waiting { connection, rest }.end(&mut world);
    assert_eq!(reply.code(), "price_unavailable");
}

/// How long it is remembered that nothing was found.
#[track_caller]
fn check_memory(name: &str, found: Code, ms: u64) {
    let mut world = world();
    let waiting = Waiting::begin(&mut world, 1, &price(name), KEY);
    world.tell_nothing([symbol(name)], found);
    assert!(waiting.end(&mut world).status >= 404);
    world.asks();
    world.pass_ms(ms - 1);
    assert!(world.get(&price(name), KEY).status >= 404);
    assert!(world.asks().is_empty(), "{name} {found:?}");
    world.pass_ms(1);
    let _waiting = Waiting::begin(&mut world, 1, &price(name), KEY);
    assert_eq!(finds(world.asks()), [name]);
}

#[test]
fn that_nothing_was_found_is_remembered_for_its_time() {
    check_memory("NOPE", Code::AssetUnknown, 5_000);
    check_memory("NOPE", Code::PriceUnavailable, 1_000);
    check_memory("NOPE", Code::Overloaded, 200);
    check_memory("DOGE", Code::AssetUnknown, 1_000);
    check_memory("OLD", Code::PriceUnavailable, 1_000);
}

#[test]
fn a_price_is_given_though_nothing_was_found_before() {
    let mut world = World::new();
    assert_eq!(world.get(&price("DOGE"), KEY).status, 503);
    world.publish(fresh(2, 6_000));
    assert_eq!(world.get(&price("DOGE"), KEY).status, 200);
}

#[test]
fn an_asset_may_become_known_while_it_is_looked_up() {
    for is_tick_first in [false, true] {
        let mut world = world();
        let waiting = Waiting::begin(&mut world, 1, &price("NEW"), KEY);
        if is_tick_first {
            world.publish(fresh(5, 6_000));
            assert!(named(&mut world.ready).is_empty());
        }
        world.shard.apply(ShardCommand::Assets(directory("NEW", false)));
        if !is_tick_first {
            world.publish(fresh(5, 6_000));
        }
        assert_eq!(world.shard.feed_is_empty(), !is_tick_first, "there is something to name");
        world.shard.drain_feed(world.now, &mut world.ready);
        assert_eq!((named(&mut world.ready), world.shard.feed_is_empty()), (vec![1], true));
        assert!(waiting.end(&mut world).body.contains("\"asset\":\"NEW\""));
        assert_eq!(world.shard.counters().lookups_found, 1);
    }
    let mut world = world();
    let waiting = Waiting::begin(&mut world, 1, &price("NEW"), KEY);
    world.shard.apply(ShardCommand::Assets(directory("NEW", false)));
    world.tell_nothing([symbol("NEW")], Code::AssetUnknown);
    assert_eq!(waiting.end(&mut world).code(), "price_unavailable", "somebody lists it");
}

#[test]
fn several_assets_are_asked_for_at_once_and_waited_for_together() {
    let mut world = world();
    let waiting = Waiting::begin(&mut world, 1, "/prices?assets=BTC,DOGE,NOPE,OLD&ignore_unknown=1", KEY);
    assert_eq!(finds(world.asks()), ["DOGE", "NOPE", "OLD"]);
    world.publish(fresh(3, 6_000));
    assert_eq!(named(&mut world.ready), [1]);
    let Waiting { mut connection, rest } = waiting;
    assert_eq!(world.serve(&mut connection, &rest).step.then, Then::Wait);
    world.publish(fresh(2, 6_001));
    world.tell_nothing([symbol("NOPE")], Code::AssetUnknown);
    assert_eq!(named(&mut world.ready), [1]);
    let reply = Waiting { connection, rest }.end(&mut world);
    assert_eq!((reply.body.matches("\"sequence\":").count(), reply.status), (3, 200));
    assert!(reply.body.starts_with("{\"generation\":6001,") && reply.body.ends_with("\"missing\":[\"NOPE\"]}"));
    assert!(world.asks().is_empty());
    // Without that, the first that is not found fails the call, whatever else is still looked for.
    let waiting = Waiting::begin(&mut world, 2, "/prices?assets=A0,A1", KEY);
    world.tell_nothing([symbol("A1")], Code::AssetUnknown);
    let reply = waiting.end(&mut world);
    assert_eq!((reply.code(), reply.body.contains("\"detail\":\"A1: ")), ("asset_unknown", true));
    assert_eq!(world.shard.counters().http_requests, 2);
}

#[test]
fn requests_behind_one_that_waits_are_answered_after_it() {
    let mut world = world();
    let mut connection = world.connect(1);
    let input = ["BTC", "DOGE", "ETH", "NOPE"].map(|name| get(&price(name), KEY)).concat();
    let outcome = world.serve(&mut connection, input.as_bytes());
    assert_eq!((outcome.replies(false).len(), outcome.step.then), (1, Then::Wait));
    assert_eq!(finds(world.asks()), ["DOGE"], "one after the other");
    assert!(outcome.step.deadline_mono_ms > world.now.mono_ms() + 1_500);
    world.publish(fresh(2, 6_000));
    let outcome = world.serve(&mut connection, &outcome.rest);
    let replies = outcome.replies(false);
    assert!(replies[0].body.contains("\"DOGE\"") && replies[1].body.contains("\"ETH\"") && replies.len() == 2);
    world.tell_nothing([symbol("NOPE")], Code::AssetUnknown);
    assert_eq!(world.serve(&mut connection, &outcome.rest).reply().status, 404);
}

#[test]
fn a_request_is_charged_once_and_its_key_looked_at_again() {
    let mut world = world();
    for (round, name) in (1..).zip(["A0", "A1", "A2"]) {
        let waiting = Waiting::begin(&mut world, 1, &price(name), SLOW_KEY);
        world.tell_nothing([symbol(name)], Code::AssetUnknown);
        assert_eq!(waiting.end(&mut world).status, 404, "round {round}");
    }
    assert_eq!(world.get(&price("BTC"), SLOW_KEY).status, 429);
    let waiting = Waiting::begin(&mut world, 1, &price("DOGE"), KEY);
    world.use_keys(vec![record(7, "another key", 5)]);
    world.publish(fresh(2, 6_000));
    assert_eq!(waiting.end(&mut world).code(), "key_invalid");
}

#[test]
fn a_connection_that_is_gone_leaves_nothing_behind() {
    let mut world = world();
    let mut gone = Waiting::begin(&mut world, 1, &price("DOGE"), KEY);
    let mut released = Waiting::begin(&mut world, 2, &price("NOPE"), KEY);
    world.tell_nothing([symbol("NOPE")], Code::AssetUnknown);
    assert_eq!(named(&mut world.ready), [2]);
    world.shard.close_stream(&mut gone.connection);
    world.shard.close_stream(&mut released.connection);
    world.publish(fresh(2, 6_000));
    assert!(named(&mut world.ready).is_empty());
    assert_eq!((world.shard.counters().waiting, world.shard.counters().lookups_found), (0, 1));
}

#[test]
fn a_node_that_goes_away_looks_nothing_up() {
    let mut world = world();
    let waiting = Waiting::begin(&mut world, 1, &price("DOGE"), KEY);
    world.shard.apply(ShardCommand::Drain);
    let closing = Waiting::begin(&mut world, 2, &price("NOPE"), KEY);
    world.asks();
    world.shard.apply(ShardCommand::StopAccepting);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world.ready), [1, 2]);
    for waiting in [waiting, closing] {
        let reply = waiting.end(&mut world);
        assert_eq!((reply.code(), reply.field("Connection")), ("draining", Some("close")));
    }
    assert_eq!(world.get(&price("NEW"), KEY).code(), "draining");
    assert_eq!((world.get(&price("BTC"), KEY).status, world.asks().len()), (200, 0));
}

#[test]
fn who_waits_for_a_newer_price_has_a_missing_one_looked_up() {
    let mut world = world();
    let long = Waiting::begin(&mut world, 1, "/price?asset=DOGE&newer_than=6000&wait_ms=30000", KEY);
    let stale = Waiting::begin(&mut world, 2, "/price?asset=OLD&newer_than=4713&wait_ms=30000", KEY);
    let brief = Waiting::begin(&mut world, 3, "/price?asset=OLD&newer_than=4713", KEY);
    assert_eq!(finds(world.asks()), ["DOGE", "OLD"]);
    world.tell_nothing([symbol("DOGE"), symbol("OLD")], Code::PriceUnavailable);
    assert_eq!(named(&mut world.ready), [3], "the others have time");
    assert_eq!(brief.end(&mut world).status, 304);
    world.publish(fresh(2, 6_000));
    assert!(named(&mut world.ready).is_empty());
    world.publish(fresh(2, 6_001));
    world.publish(fresh(3, 6_002));
    assert_eq!(named(&mut world.ready), [1, 2]);
    assert_eq!([long.end(&mut world).status, stale.end(&mut world).status], [200, 200]);
}

#[test]
fn assets_outside_the_prewarmed_set_are_told_of_while_they_are_in_use() {
    let mut world = world();
    world.shard.apply(ShardCommand::Assets(directory("NEW", false)));
    world.publish(fresh(5, 6_000));
    let mut told = 0;
    let mut turn = |world: &mut World, is_asked: bool| {
        if is_asked {
            assert_eq!(world.get(&price("NEW"), KEY).status, 200);
            assert_eq!(world.get("/prices?assets=BTC,NEW", KEY).status, 200);
        }
        world.pass_ms(50);
        world.shard.idle_tick(world.now, &mut world.ready);
        let asks = world.asks();
        assert!(asks.iter().all(|ask| ask.kind == AskKind::InUse && ask.symbol == symbol("NEW")), "{asks:?}");
        assert!(asks.is_empty() || world.shard.take_asked());
        told += asks.len();
        told
    };
    let of_ten_seconds = (0..200).map(|_| turn(&mut world, true)).last();
    assert!(matches!(of_ten_seconds, Some(9..=10)), "{of_ten_seconds:?}");
    let later = (0..100).map(|_| turn(&mut world, false)).last();
    assert!(later <= of_ten_seconds.map(|told| told + 1), "whom nobody asks for is not told of");
    assert_eq!(world.get("/prices?assets=BTC,NEW", KEY).status, 200);
    let again = (0..40).map(|_| turn(&mut world, false)).last();
    assert!(again > later, "nor only those asked for alone");
}

#[test]
fn that_there_was_no_time_is_told_to_whoever_asked_and_no_other() {
    let mut world = World { finds_nothing: false, ..World::with(vec![nth_key(1), nth_key(2)], 1, 0) };
    let first = Waiting::begin(&mut world, 1, &price("DOGE"), "key 1");
    let mut other = Waiting::begin(&mut world, 2, &price("DOGE"), "key 2");
    world.asks();
    world.tell_nothing([symbol("DOGE")], Code::Overloaded);
    assert_eq!(named(&mut world.ready), [1, 2]);
    assert_eq!(first.end(&mut world).code(), "overloaded");
    let outcome = world.serve(&mut other.connection, &other.rest);
    assert_eq!(outcome.step.then, Then::Wait, "it asks for itself");
    let asks = world.asks();
    assert!(matches!(asks[..], [Ask { kind: AskKind::Find { key: KeyId(2), .. }, .. }]), "{asks:?}");
    assert_eq!(world.get(&price("DOGE"), "key 1").code(), "overloaded", "which is remembered");
    world.publish(fresh(2, 6_000));
    assert_eq!(other.end(&mut world).status, 200);
}

#[test]
fn an_asset_that_became_known_is_looked_up_though_it_was_unknown() {
    let mut world = World::new();
    assert_eq!(world.get(&price("NEW"), KEY).code(), "asset_unknown");
    world.shard.apply(ShardCommand::Assets(directory("NEW", false)));
    world.finds_nothing = false;
    let waiting = Waiting::begin(&mut world, 1, &price("NEW"), KEY);
    world.publish(fresh(5, 6_000));
    assert_eq!(waiting.end(&mut world).status, 200);
}

#[test]
fn a_long_poll_that_a_stale_price_ends_has_it_looked_up() {
    let mut world = world();
    let target = "/price?asset=BTC&newer_than=4711&wait_ms=10000";
    let Waiting { mut connection, rest } = Waiting::begin(&mut world, 1, target, KEY);
    world.pass_ms(9_000);
    world.publish(Tick { flags: shared::tick::TICK_STALE, ..fresh(0, 6_000) });
    assert_eq!(named(&mut world.ready), [1]);
    assert_eq!(world.serve(&mut connection, &rest).step.then, Then::Wait);
    assert_eq!(finds(world.asks()), ["BTC"]);
    world.pass_ms(999);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert!(named(&mut world.ready).is_empty());
    world.pass_ms(1);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world.ready), [1], "its own time is over");
    assert_eq!(Waiting { connection, rest }.end(&mut world).code(), "price_stale");
}
