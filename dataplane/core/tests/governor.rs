//! The governor as clients see it: who is answered 503 `overloaded`, what that costs them, and what it leaves alone.

mod world;

use dataplane_core::command::ShardCommand;
use dataplane_core::governor::{GOVERNOR_WINDOW_MS, GovernorBounds};
use dataplane_core::shard::{HttpConnection, Then};
use shared::code::Code;
use world::{KEY, REPORT_KEY, Reply, SLOW_KEY, World, get, record};

/// A key of rank 0 and one of rank 3.
const LOW_KEY: &str = "tb_low__0123456789abcdefghijklmnopqrstuv";

fn world() -> World {
    let mut records = world::records();
    let mut low = record(6, LOW_KEY, 10_000_000);
    low.rank = 0;
    records.push(low);
    let mut world = World::with(records, 1, 0);
    // The first window begins with the loop's first housekeeping.
    world.shard.idle_tick(world.now, &mut world.ready);
    world
}

fn bound(world: &mut World, active_max: u32, retry_after_s: u32) {
    let bounds = GovernorBounds { active_max: [active_max].into(), retry_after_s };
    world.shard.apply(ShardCommand::Governor(bounds));
}

/// A window passes.
fn turn(world: &mut World) {
    world.pass_ms(GOVERNOR_WINDOW_MS);
    world.shard.idle_tick(world.now, &mut world.ready);
}

fn connect(world: &World, count: u64) -> Vec<HttpConnection> {
    (0..count).map(|token| world.connect(token)).collect()
}

fn ask(world: &mut World, connection: &mut HttpConnection, target: &str, key: &str) -> Reply {
    let outcome = world.serve(connection, get(target, key).as_bytes());
    assert_eq!(outcome.step.then, Then::Read, "the connection stays open");
    outcome.reply()
}

/// Statuses of one request on each connection.
fn ask_all(world: &mut World, connections: &mut [HttpConnection], key: &str) -> Vec<u16> {
    connections.iter_mut().map(|connection| ask(world, connection, "/price?asset=BTC", key).status).collect()
}

fn served(world: &mut World, connections: &mut [HttpConnection], key: &str) -> usize {
    ask_all(world, connections, key).iter().filter(|status| **status == 200).count()
}

#[test]
fn a_shed_request_is_told_to_wait_and_its_connection_lives() {
    for (target, wait_s, retry_after) in
        [("/price?asset=BTC", 0, "1"), ("/price?asset=BTC&allow_stale=1", 1, "1"), ("/prices?assets=BTC", 30, "30")]
    {
        let mut world = world();
        bound(&mut world, 1, wait_s);
        let mut both = connect(&world, 2);
        assert_eq!(ask(&mut world, &mut both[0], target, KEY).status, 200);
        for _ in 0..3 {
            let reply = ask(&mut world, &mut both[1], target, KEY);
            assert_eq!((reply.status, reply.code()), (503, "overloaded"), "{target}");
            assert_eq!(reply.field("Retry-After"), Some(retry_after), "{target}");
            assert_eq!((reply.field("Connection"), reply.field("RateLimit")), (None, None), "{target}");
        }
        assert_eq!(ask(&mut world, &mut both[0], target, KEY).status, 200, "who is in stays in");
        world.shard.close_stream(&mut both[0]);
        assert_eq!(ask(&mut world, &mut both[1], target, KEY).status, 200, "{target}: room again");
    }
}

#[test]
fn lower_ranks_are_shed_first_and_all_come_back() {
    let mut world = world();
    bound(&mut world, 100, 0);
    let (mut low, mut high) = (connect(&world, 80), connect(&world, 80));
    assert_eq!(served(&mut world, &mut low, LOW_KEY), 60);
    assert_eq!(served(&mut world, &mut high, KEY), 40);
    turn(&mut world);
    assert_eq!(served(&mut world, &mut high, KEY), 40, "those of a lower rank are in until they ask");
    assert_eq!(served(&mut world, &mut low, LOW_KEY), 20);
    turn(&mut world);
    assert_eq!(served(&mut world, &mut high, KEY), 80);
    assert_eq!(served(&mut world, &mut low, LOW_KEY), 0);
    bound(&mut world, 1_000, 0);
    assert_eq!(served(&mut world, &mut low, LOW_KEY), 80, "a higher bound is in force at once");
    turn(&mut world);
    let counters = world.shard.counters();
    assert_eq!((counters.active, counters.active_max), (160, 1_000));
    assert_eq!(counters.shed, [20 + 60 + 80, 0, 0, 80]);
}

#[test]
fn the_idle_do_not_count() {
    let mut world = world();
    let mut idle = connect(&world, 10_000);
    assert_eq!(served(&mut world, &mut idle, KEY), 10_000, "without a bound");
    bound(&mut world, 10, 0);
    turn(&mut world);
    turn(&mut world);
    assert_eq!(world.shard.counters().active, 0);
    assert_eq!(served(&mut world, &mut idle[..10], KEY), 10);
    assert_eq!(served(&mut world, &mut idle[10..20], KEY), 0);
    turn(&mut world);
    turn(&mut world);
    assert_eq!(served(&mut world, &mut idle[10..20], KEY), 10, "the first ten are idle now");
}

#[test]
fn what_is_shed_is_not_charged_but_counted() {
    let mut world = world();
    bound(&mut world, 1, 0);
    let mut both = connect(&world, 2);
    assert_eq!(ask(&mut world, &mut both[0], "/price?asset=BTC", KEY).status, 200);
    assert_eq!(ask_all(&mut world, &mut both[1..], SLOW_KEY), [503]);
    assert_eq!(served(&mut world, &mut both[1..], SLOW_KEY), 0);
    bound(&mut world, 10, 0);
    let statuses: Vec<u16> =
        (0..4).map(|_| ask(&mut world, &mut both[1], "/price?asset=BTC", SLOW_KEY).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429], "three a second, of which none was used");
    let usage = world.usage();
    let shed: u64 = usage
        .iter()
        .filter(|record| (record.key, record.code) == (2, Code::Overloaded.number()))
        .map(|record| record.requests)
        .sum();
    assert_eq!(shed, 2);
    let counters = world.shard.counters();
    assert_eq!(counters.refused[usize::from(Code::Overloaded.number())], 2);
    assert_eq!((counters.http_requests, counters.http_overloaded, counters.shed), (7, 2, [0, 0, 0, 2]));
}

#[test]
fn answers_that_no_load_is_to_blame_for_are_not_counted_as_overload() {
    let mut world = world();
    let mut connection = connect(&world, 1);
    for (target, code) in [("OLD", "price_stale"), ("DOGE", "price_unavailable"), ("NOPE", "asset_unknown")] {
        for _ in 0..100 {
            let reply = ask(&mut world, &mut connection[0], &format!("/price?asset={target}"), KEY);
            assert_eq!(reply.code(), code);
        }
    }
    assert_eq!((world.shard.counters().http_requests, world.shard.counters().http_overloaded), (300, 0));
}

#[test]
fn every_way_to_ask_is_shed_as_it_is_answered() {
    let mut world = World::with(world::records(), 1, 200);
    bound(&mut world, 1, 0);
    let mut both = connect(&world, 2);
    assert_eq!(ask(&mut world, &mut both[0], "/price?asset=BTC", KEY).status, 200);
    // A head alone, of the length that the document has.
    let plain = ask(&mut world, &mut both[1], "/price?asset=BTC", KEY);
    let head = get("/price?asset=BTC", KEY).replace("GET", "HEAD");
    let outcome = world.serve(&mut both[1], head.as_bytes());
    let reply = outcome.replies(true).remove(0);
    assert_eq!((reply.status, outcome.step.then), (503, Then::Read));
    assert_eq!(reply.field("Content-Length"), Some(plain.body.len().to_string().as_str()));
    assert!(outcome.sent.ends_with(b"\r\n\r\n"));
    // All prices do not fit one turn's output, once they are given.
    assert_eq!(ask(&mut world, &mut both[1], "/prices?assets=all", KEY).code(), "overloaded");
    bound(&mut world, 2, 0);
    let all = ask(&mut world, &mut both[1], "/prices?assets=all", KEY);
    assert_eq!((all.status, all.body.len() > 32 * 1_024), (200, true));
    bound(&mut world, 1, 0);
    turn(&mut world);
    turn(&mut world);
    assert_eq!(served(&mut world, &mut both[..1], KEY), 1);
    // Whoever asks for an end gets it.
    let old = get("/price?asset=BTC", KEY).replace("HTTP/1.1", "HTTP/1.0");
    let closing = get("/price?asset=BTC", KEY).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    for request in [old, closing] {
        let mut connection = world.connect(9);
        let outcome = world.serve(&mut connection, request.as_bytes());
        assert_eq!((outcome.reply().code(), outcome.step.then), ("overloaded", Then::WriteAndClose));
        world.shard.close_stream(&mut connection);
    }
    // A datagram has no connection that could be one too many.
    assert_eq!(world.datagram(&world::binary(1, &world::secret(1), "BTC", world.now.wall_ms))[3], 0);
    world.shard.apply(ShardCommand::Drain);
    let outcome = world.serve(&mut both[1], get("/price?asset=BTC", KEY).as_bytes());
    assert_eq!((outcome.reply().code(), outcome.step.then), ("overloaded", Then::WriteAndClose));
}

#[test]
fn keys_that_may_not_ask_are_told_so_and_not_counted() {
    let mut world = world();
    bound(&mut world, 1, 0);
    let mut both = connect(&world, 2);
    for (key, status) in [("nobody", 401), (REPORT_KEY, 403), (world::OLD_KEY, 401), (world::SPENT_KEY, 429)] {
        assert_eq!(ask_all(&mut world, &mut both[..1], key), [status], "{key}");
    }
    assert_eq!(ask_all(&mut world, &mut both, KEY), [200, 503]);
    assert_eq!(ask_all(&mut world, &mut both[1..], REPORT_KEY), [403], "what is wrong with the key comes first");
}

#[test]
fn every_request_of_a_pipeline_is_answered_in_order() {
    let mut world = world();
    bound(&mut world, 1, 0);
    let mut both = connect(&world, 2);
    assert_eq!(ask(&mut world, &mut both[0], "/price?asset=BTC", KEY).status, 200);
    let three = get("/price?asset=BTC", KEY) + &get("/price?asset=NOPE", KEY) + &get("/price?asset=BTC", "nobody");
    let statuses = |world: &mut World, connection: &mut HttpConnection| -> Vec<u16> {
        world.serve(connection, three.as_bytes()).replies(false).iter().map(|reply| reply.status).collect()
    };
    assert_eq!(statuses(&mut world, &mut both[1]), [503, 503, 401]);
    world.shard.close_stream(&mut both[0]);
    assert_eq!(statuses(&mut world, &mut both[1]), [200, 404, 401]);
}

#[test]
fn a_request_that_waits_for_a_price_has_been_let_in() {
    let mut world = world();
    bound(&mut world, 1, 0);
    let mut both = connect(&world, 2);
    let wait_ms = 5 * GOVERNOR_WINDOW_MS;
    let waits = get(&format!("/price?asset=BTC&newer_than=4711&wait_ms={wait_ms}"), KEY);
    assert_eq!(world.serve(&mut both[0], waits.as_bytes()).step.then, Then::Wait);
    assert_eq!(ask_all(&mut world, &mut both[1..], KEY), [503]);
    for _ in 0..5 {
        turn(&mut world);
    }
    assert_eq!(ask_all(&mut world, &mut both[1..], KEY), [200], "it has not asked for five windows");
    assert_eq!(world.serve(&mut both[0], waits.as_bytes()).reply().status, 304, "and is answered all the same");
}
