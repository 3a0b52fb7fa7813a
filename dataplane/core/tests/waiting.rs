//! Requests that wait for a newer price: who is answered when, and what a waiting connection holds.

mod world;

use dataplane_core::command::ShardCommand;
use dataplane_core::limits::WAITERS_MAX;
use dataplane_core::shard::{HttpConnection, ReadyList, Then};
use world::{KEY, Outcome, World, get, record, tick};

fn waiting(target: &str) -> String {
    get(&format!("/price?asset={target}"), KEY)
}

fn named(ready: &mut ReadyList) -> Vec<u64> {
    ready.streams.drain(..).map(|token| token.0).collect()
}

/// Sends a request that must wait; the connection and the request that is still in front of its input.
#[track_caller]
fn begin(world: &mut World, token: u64, target: &str) -> (HttpConnection, Vec<u8>) {
    let mut connection = world.connect(token);
    let outcome = world.serve(&mut connection, waiting(target).as_bytes());
    assert_eq!((outcome.step.then, outcome.sent.len()), (Then::Wait, 0), "{target}");
    (connection, outcome.rest)
}

#[track_caller]
fn check_now(target: &str, status: u16) {
    let outcome = World::new().ask(&waiting(target));
    assert_eq!((outcome.reply().status, outcome.step.then), (status, Then::Read), "{target}");
}

#[test]
fn nobody_waits_for_what_is_there_or_cannot_come() {
    check_now("BTC&newer_than=4710&wait_ms=1000", 200);
    check_now("BTC&newer_than=4711", 304);
    check_now("BTC&newer_than=4711&wait_ms=0", 304);
    check_now("BTC&wait_ms=1000", 200);
    check_now("DOGE&newer_than=0", 503);
    check_now("DOGE&wait_ms=1000", 503);
    check_now("NOPE&newer_than=1&wait_ms=1000", 404);
    check_now("OLD&newer_than=1&wait_ms=1000", 503);
    check_now("OLD&newer_than=1&wait_ms=1000&allow_stale=1", 200);
}

/// The highest sequence that this shard has taken is 4,714.
#[test]
fn whoever_has_another_nodes_sequence_is_given_the_price_as_it_stands() {
    check_now("BTC&newer_than=1053291&wait_ms=30000", 200);
    check_now("BTC&newer_than=1053291", 200);
    check_now("BTC&newer_than=18446744073709551615&wait_ms=30000", 200);
    check_now("OLD&newer_than=1053291&wait_ms=30000&allow_stale=1", 200);
    // A little ahead may be another shard of this node, unless it stays so.
    check_now("BTC&newer_than=1053290", 304);
    let mut world = World::new();
    let (mut brief, brief_rest) = begin(&mut world, 1, "BTC&newer_than=6000&wait_ms=999");
    let (mut long, long_rest) = begin(&mut world, 2, "BTC&newer_than=6000&wait_ms=1000");
    let (mut known, known_rest) = begin(&mut world, 3, "BTC&newer_than=4711&wait_ms=1000");
    world.pass_ms(1_000);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world.ready), [1, 2, 3]);
    assert_eq!(world.serve(&mut long, &long_rest).reply().status, 200);
    assert_eq!(world.serve(&mut known, &known_rest).reply().status, 304);
    // Served as late as this, it has waited long enough too; one that is served in time is below.
    assert_eq!(world.serve(&mut brief, &brief_rest).reply().status, 200);
    let (mut brief, brief_rest) = begin(&mut world, 4, "BTC&newer_than=6000&wait_ms=999");
    world.pass_ms(999);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world.ready), [4]);
    assert_eq!(world.serve(&mut brief, &brief_rest).reply().status, 304);
}

#[test]
fn a_tick_answers_those_who_wait_for_it() {
    let mut world = World::new();
    let (mut first, first_rest) = begin(&mut world, 1, "BTC&newer_than=4711&wait_ms=30000");
    let (mut second, second_rest) = begin(&mut world, 2, "BTC&newer_than=6000&wait_ms=30000");
    let (_third, _) = begin(&mut world, 3, "ETH&newer_than=9999&wait_ms=30000");
    let (mut unpriced, unpriced_rest) = begin(&mut world, 4, "DOGE&newer_than=0&wait_ms=30000");
    assert_eq!(world.shard.counters().waiting, 4);
    world.publish(tick(0, 5_000, 1));
    assert_eq!(named(&mut world.ready), [1]);
    let answered = world.serve(&mut first, &first_rest);
    assert_eq!((answered.step.then, answered.rest.len()), (Then::Read, 0));
    assert!(answered.reply().body.contains("\"sequence\":5000"));
    world.publish(tick(0, 7_000, 2));
    world.publish(tick(2, 7_001, 3));
    assert_eq!(named(&mut world.ready), [2, 4]);
    assert!(world.serve(&mut second, &second_rest).reply().body.contains("\"sequence\":7000"));
    assert!(world.serve(&mut unpriced, &unpriced_rest).reply().body.contains("\"sequence\":7001"));
    assert_eq!(world.shard.counters().waiting, 1);
}

#[test]
fn time_runs_out() {
    let mut world = World::new();
    let (mut known, known_rest) = begin(&mut world, 1, "BTC&newer_than=4711&wait_ms=2000");
    let (mut unpriced, unpriced_rest) = begin(&mut world, 2, "DOGE&newer_than=0&wait_ms=2001");
    world.pass_ms(1_999);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world.ready), [0_u64; 0]);
    world.pass_ms(1);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world.ready), [1]);
    world.pass_ms(1);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world.ready), [2]);
    let unchanged = world.serve(&mut known, &known_rest).reply();
    assert_eq!((unchanged.status, unchanged.field("ETag")), (304, Some("\"4711\"")));
    assert_eq!(world.serve(&mut unpriced, &unpriced_rest).reply().code(), "price_unavailable");
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world.ready), [0_u64; 0], "each is named once");
}

#[test]
fn a_waiting_connection_keeps_its_order_and_its_deadline() {
    let mut world = World::new();
    let mut connection = world.connect(9);
    let input = format!("{}{}{}", waiting("ETH"), waiting("BTC&newer_than=4711&wait_ms=30000"), waiting("ETH"));
    let outcome = world.serve(&mut connection, input.as_bytes());
    assert_eq!((outcome.replies(false).len(), outcome.step.then), (1, Then::Wait));
    assert!(outcome.step.deadline_mono_ms > world.now.mono_ms() + 30_000, "the wait is not cut short");
    let deadline = outcome.step.deadline_mono_ms;
    // Bytes that come meanwhile change nothing.
    world.pass_ms(500);
    let longer = [outcome.rest.as_slice(), waiting("ETH").as_bytes()].concat();
    let again = world.serve(&mut connection, &longer);
    assert_eq!((again.step.then, again.step.deadline_mono_ms, again.sent.len()), (Then::Wait, deadline, 0));
    assert_eq!(world.shard.counters().waiting, 1);
    world.publish(tick(0, 5_000, 1));
    assert_eq!(named(&mut world.ready), [9]);
    let replies = world.serve(&mut connection, &again.rest).replies(false);
    let sequences = ["\"sequence\":5000", "\"sequence\":4712", "\"sequence\":4712"];
    assert_eq!(replies.len(), 3);
    assert!(replies.iter().zip(sequences).all(|(reply, sequence)| reply.body.contains(sequence)));
}

#[test]
fn a_connection_that_goes_away_waits_no_longer() {
    let mut world = World::new();
    let (mut waiting, _) = begin(&mut world, 1, "BTC&newer_than=4711&wait_ms=30000");
    let (mut released, _) = begin(&mut world, 2, "ETH&newer_than=4712&wait_ms=30000");
    world.publish(tick(1, 5_000, 1));
    assert_eq!(named(&mut world.ready), [2]);
    world.shard.close_stream(&mut waiting);
    world.shard.close_stream(&mut released);
    world.publish(tick(0, 5_001, 1));
    world.publish(tick(1, 5_002, 1));
    assert_eq!((named(&mut world.ready).len(), world.shard.counters().waiting), (0, 0));
}

#[test]
fn waiting_is_charged_once_and_the_key_looked_at_again() {
    let mut world = World::new();
    let target = "/price?asset=BTC&newer_than=4711&wait_ms=100";
    let key = world::SLOW_KEY;
    for round in 1..=2_u64 {
        let mut connection = world.connect(1);
        let outcome = world.serve(&mut connection, get(target, key).as_bytes());
        assert_eq!(outcome.step.then, Then::Wait);
        world.pass_ms(100);
        world.shard.idle_tick(world.now, &mut world.ready);
        assert_eq!(world.serve(&mut connection, &outcome.rest).reply().status, 304, "round {round}");
    }
    assert_eq!(world.get("/price?asset=BTC", key).status, 200);
    assert_eq!(world.get("/price?asset=BTC", key).status, 429);

    let (mut connection, rest) = begin(&mut world, 1, "BTC&newer_than=4711&wait_ms=30000");
    world.use_keys(vec![record(7, "another key", 5)]);
    world.publish(tick(0, 5_000, 1));
    assert_eq!(world.serve(&mut connection, &rest).reply().code(), "key_invalid");
}

#[test]
fn a_node_that_accepts_no_more_answers_those_who_wait() {
    let mut world = World::new();
    let (mut waiting_on, rest) = begin(&mut world, 1, "BTC&newer_than=4711&wait_ms=30000");
    world.shard.apply(ShardCommand::Drain);
    let (mut closing, closing_rest) = begin(&mut world, 2, "ETH&newer_than=4712&wait_ms=30000");
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world.ready), [0_u64; 0], "while balancers still send, waiting goes on");
    world.shard.apply(ShardCommand::StopAccepting);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world.ready), [1, 2]);
    for (connection, rest) in [(&mut waiting_on, rest), (&mut closing, closing_rest)] {
        let outcome = world.serve(connection, &rest);
        assert_eq!((outcome.reply().status, outcome.reply().field("Connection")), (304, Some("close")));
    }
    assert_eq!(world.shard.counters().waiting, 0);
    assert_eq!(
        world.ask(&waiting("BTC&newer_than=4711&wait_ms=30000")).reply().status,
        304,
        "nor does another begin to"
    );
}

#[test]
fn there_is_a_bound_to_it() {
    let mut world = World::new();
    let target = "BTC&newer_than=4711&wait_ms=30000";
    let mut connections: Vec<_> = (0..WAITERS_MAX as u64).map(|token| begin(&mut world, token, target)).collect();
    let refused: Outcome = world.ask(&waiting(target));
    assert_eq!((refused.reply().code(), refused.reply().field("Retry-After")), ("overloaded", Some("1")));
    world.shard.close_stream(&mut connections[5].0);
    assert_eq!(world.ask(&waiting(target)).step.then, Then::Wait);
    world.publish(tick(0, 5_000, 1));
    let names = named(&mut world.ready);
    assert_eq!(names.len(), WAITERS_MAX - 1);
    assert!(names.is_sorted(), "in the order in which they began to wait");
}
