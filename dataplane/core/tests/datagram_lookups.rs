//! Datagrams for what a shard has no price of: who waits, under which ticket, how many may, and what each is answered.

mod world;

use dataplane_core::command::{ShardCommand, ShardParameters};
use dataplane_core::limits::DATAGRAMS_WAITING_MAX;
use dataplane_core::lookup::AskKind;
use dataplane_core::shard::{DatagramStep, DatagramTicket};
use shared::asset::Symbol;
use shared::code::Code;
use shared::limits::DATAGRAM_OUT_MAX;
use shared::tick::{TICK_STALE, Tick, Tier};
use shared::wire::{CLOCK_SKEW_MS_MAX, FRAME_SIZE};
use std::net::SocketAddr;
use world::{KEY, SLOW_KEY, START, World, binary, record, secret, tick};

fn symbol(name: &str) -> Symbol {
    Symbol::new(name.as_bytes()).expect("a symbol")
}

/// A world in which what is asked for is answered by the test.
fn world() -> World {
    World { finds_nothing: false, ..World::new() }
}

/// A tick that is not stale, whichever asset it is of.
fn fresh(asset: usize, sequence: u64) -> Tick {
    Tick { flags: 0, tier: Tier::Valkey as u8, ..tick(asset, sequence, 150) }
}

fn serve(world: &mut World, request: &[u8]) -> (DatagramStep, Vec<u8>) {
    let mut reply = [0; DATAGRAM_OUT_MAX];
    let from = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let step = world.shard.serve_datagram(world.now, from, request, &mut reply);
    (step, sent(step, &reply))
}

fn sent(step: DatagramStep, reply: &[u8]) -> Vec<u8> {
    match step {
        DatagramStep::Reply(length) => reply[..length].to_vec(),
        DatagramStep::Silent | DatagramStep::Wait(_) => Vec::new(),
    }
}

#[track_caller]
fn begin(world: &mut World, request: &[u8]) -> DatagramTicket {
    match serve(world, request).0 {
        DatagramStep::Wait(ticket) => ticket,
        other => panic!("{other:?} for {}", String::from_utf8_lossy(request)),
    }
}

/// What a datagram that was named is answered; empty for silence.
#[track_caller]
fn end(world: &mut World, ticket: DatagramTicket) -> Vec<u8> {
    let mut reply = [0; DATAGRAM_OUT_MAX];
    let step = world.shard.serve_waiting(world.now, ticket, &mut reply);
    assert!(!matches!(step, DatagramStep::Wait(_)));
    sent(step, &reply)
}

fn json(fields: &str, pad: usize) -> Vec<u8> {
    format!("{{\"key\":\"{KEY}\",{fields},\"pad\":\"{}\"}}", "x".repeat(pad)).into_bytes()
}

fn asked(world: &mut World) -> Vec<String> {
    world.asks().iter().filter(|ask| ask.kind != AskKind::InUse).map(|ask| ask.symbol.to_string()).collect()
}

fn named(world: &mut World) -> Vec<u16> {
    world.ready.datagrams.drain(..).map(|ticket| ticket.0).collect()
}

/// A datagram that is told `found`; what it is answered.
#[track_caller]
fn check_nothing(request: &[u8], name: &str, found: Code, expected: &str) {
    let mut world = world();
    let ticket = begin(&mut world, request);
    assert_eq!(asked(&mut world), [name]);
    world.tell_nothing([symbol(name)], found);
    assert_eq!(named(&mut world), [ticket.0]);
    let reply = end(&mut world, ticket);
    if request.starts_with(b"{") {
        assert_eq!(String::from_utf8_lossy(&reply), expected, "{name} {found:?}");
        assert!(reply.len() <= request.len());
    } else {
        let number = Code::ALL.into_iter().find(|code| code.name() == expected).map(Code::number);
        assert_eq!((reply.len(), Some(reply[3])), (FRAME_SIZE, number), "{name} {found:?}");
    }
    let counters = world.shard.counters();
    assert_eq!((counters.datagrams, counters.datagram_replies, counters.datagrams_waiting), (1, 1, 0));
    assert_eq!(world.usage().iter().map(|record| record.requests).sum::<u64>(), 1);
}

#[test]
fn what_nothing_is_found_for_is_told_as_it_is() {
    let single = |name: &str| json(&format!("\"id\":7,\"asset\":\"{name}\""), 0);
    let error = |status: u16, code: &str| format!("{{\"id\":7,\"status\":{status},\"code\":\"{code}\"}}");
    check_nothing(&single("NOPE"), "NOPE", Code::AssetUnknown, &error(404, "asset_unknown"));
    check_nothing(&single("nope"), "NOPE", Code::Overloaded, &error(503, "overloaded"));
    check_nothing(&single("MATIC"), "POL", Code::PriceUnavailable, &error(503, "price_unavailable"));
    check_nothing(&single("DOGE"), "DOGE", Code::AssetUnknown, &error(503, "price_unavailable"));
    check_nothing(&single("OLD"), "OLD", Code::PriceUnavailable, &error(503, "price_stale"));
    let several = json("\"assets\":[\"NOPE\",\"NOPE\"]", 0);
    let missing = "{\"generation\":4714,\"prices\":[],\"missing\":[\"NOPE\",\"NOPE\"]}";
    check_nothing(&several, "NOPE", Code::AssetUnknown, missing);
    let frame = |name: &str| binary(1, &secret(1), name, START.wall_ms);
    check_nothing(&frame("NOPE"), "NOPE", Code::AssetUnknown, "asset_unknown");
    check_nothing(&frame("XBT2"), "XBT2", Code::PriceUnavailable, "price_unavailable");
    check_nothing(&frame("XDG"), "DOGE", Code::Overloaded, "overloaded");
    check_nothing(&frame("OLD"), "OLD", Code::PriceUnavailable, "price_stale");
}

#[test]
fn a_tick_answers_all_who_wait_for_it() {
    let mut world = world();
    let requests = [
        json("\"id\":1,\"asset\":\"DOGE\"", 0),
        binary(2, &secret(2), "XDG", START.wall_ms),
        json("\"id\":3,\"assets\":[\"BTC\",\"DOGE\"]", 200),
    ];
    let tickets = requests.map(|request| begin(&mut world, &request));
    assert_eq!(asked(&mut world), ["DOGE"]);
    let counters = world.shard.counters();
    assert_eq!((counters.waiting, counters.datagrams_waiting, counters.lookups_under_way), (3, 3, 1));
    world.publish(Tick { flags: TICK_STALE, ..fresh(2, 6_000) });
    assert!(named(&mut world).is_empty(), "a stale price is no answer");
    world.publish(fresh(2, 6_001));
    assert_eq!(named(&mut world), tickets.map(|ticket| ticket.0), "in the order in which they began to wait");
    let replies = tickets.map(|ticket| end(&mut world, ticket));
    assert!(String::from_utf8_lossy(&replies[0]).starts_with("{\"id\":1,\"asset\":\"DOGE\",\"price\":\"1.50\""));
    assert_eq!((replies[1][3], &replies[1][16..24]), (0, &6_001_u64.to_le_bytes()[..]));
    let several = String::from_utf8_lossy(&replies[2]).into_owned();
    assert!(several.starts_with("{\"id\":3,\"generation\":6001,") && several.ends_with("\"missing\":[]}"), "{several}");
    assert_eq!(world.shard.counters().waiting, 0);
    let mut booked: Vec<_> =
        world.usage().iter().map(|record| (record.key, record.tier, record.asset[0], record.requests)).collect();
    booked.sort_unstable();
    assert_eq!(booked, [(1, 0, 0, 1), (1, 1, b'D', 1), (2, 1, b'D', 1)]);
}

#[test]
fn a_stale_price_answers_who_takes_one() {
    let mut world = world();
    let takes = json("\"asset\":\"DOGE\",\"allow_stale\":true", 100);
    let [taking, _refusing] = [takes, json("\"asset\":\"DOGE\"", 0)].map(|request| begin(&mut world, &request));
    let _frame = begin(&mut world, &binary(1, &secret(1), "DOGE", START.wall_ms));
    world.publish(Tick { flags: TICK_STALE, ..fresh(2, 6_000) });
    assert_eq!(named(&mut world), [taking.0]);
    assert!(String::from_utf8_lossy(&end(&mut world, taking)).contains("\"stale\":true"));
}

#[test]
fn several_cold_assets_are_waited_for_together() {
    let mut world = world();
    let request = json("\"assets\":[\"NOPE\",\"DOGE\",\"BTC\",\"OLD\",\"DOGE\"]", 250);
    let ticket = begin(&mut world, &request);
    assert_eq!(asked(&mut world), ["NOPE", "DOGE", "OLD"]);
    world.publish(fresh(2, 6_000));
    world.tell_nothing([symbol("NOPE")], Code::AssetUnknown);
    let mut reply = [0; DATAGRAM_OUT_MAX];
    for _ in named(&mut world) {
        let step = world.shard.serve_waiting(world.now, ticket, &mut reply);
        assert_eq!(step, DatagramStep::Wait(ticket), "one is still looked for");
    }
    world.pass_ms(1_500);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world), [ticket.0]);
    let text = String::from_utf8_lossy(&end(&mut world, ticket)).into_owned();
    assert!(text.len() <= 3 * request.len() && text.ends_with("\"missing\":[\"NOPE\",\"OLD\"]}"), "{text}");
    assert_eq!(text.matches("\"asset\":\"DOGE\"").count(), 2);
    assert_eq!((world.shard.counters().datagrams_waiting, world.shard.counters().datagram_replies), (0, 1));
}

#[test]
fn nobody_waits_for_an_answer_that_would_not_fit() {
    let mut world = world();
    let all = "\"assets\":[\"BTC\",\"ETH\",\"RENDER\",\"DOGE\"]";
    let (step, reply) = serve(&mut world, &json(all, 0));
    assert!(matches!(step, DatagramStep::Reply(_)) && String::from_utf8_lossy(&reply).contains("reply_too_long"));
    for (request, code) in [
        (json("\"asset\":\"N-PE\"", 0), "asset_invalid"),
        (json("\"assets\":[\"DOGE\",\"N-PE\"]", 0), "asset_invalid"),
        (json("\"assets\":[]", 0), "asset_missing"),
    ] {
        assert!(String::from_utf8_lossy(&serve(&mut world, &request).1).contains(code), "{code}");
    }
    assert_eq!(serve(&mut world, &binary(1, &secret(1), "nope", START.wall_ms)).1[3], Code::AssetInvalid.number());
    let stale = serve(&mut world, &json("\"asset\":\"OLD\",\"allow_stale\":true", 100)).1;
    assert!(String::from_utf8_lossy(&stale).contains("\"stale\":true"));
    assert!(asked(&mut world).is_empty());
}

#[test]
fn time_runs_out_and_the_clock_is_not_looked_at_again() {
    let mut world = world();
    let oldest = START.wall_ms - CLOCK_SKEW_MS_MAX;
    let frame = begin(&mut world, &binary(1, &secret(1), "NOPE", oldest));
    world.pass_ms(700);
    let text = begin(&mut world, &json("\"asset\":\"DOGE\"", 0));
    world.pass_ms(799);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert!(named(&mut world).is_empty());
    world.pass_ms(1);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world), [frame.0]);
    assert_eq!(end(&mut world, frame)[3], Code::PriceUnavailable.number());
    world.pass_ms(700);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world), [text.0]);
    assert!(String::from_utf8_lossy(&end(&mut world, text)).contains("price_unavailable"));
}

#[test]
fn a_key_that_is_gone_meanwhile_is_met_with_silence() {
    let mut world = world();
    let tickets = [json("\"asset\":\"DOGE\"", 0), binary(1, &secret(1), "DOGE", START.wall_ms)]
        .map(|request| begin(&mut world, &request));
    world.use_keys(vec![record(7, "another key", 5)]);
    world.publish(fresh(2, 6_000));
    for ticket in tickets {
        assert!(end(&mut world, ticket).is_empty());
    }
    let counters = world.shard.counters();
    assert_eq!((counters.datagrams_silent, counters.datagrams_waiting, counters.waiting), (2, 0, 0));
}

#[test]
fn a_datagram_is_charged_once() {
    let mut world = world();
    for name in ["A0", "A1", "A2"] {
        let request = format!("{{\"key\":\"{SLOW_KEY}\",\"asset\":\"{name}\"}}");
        let ticket = begin(&mut world, request.as_bytes());
        world.tell_nothing([symbol(name)], Code::AssetUnknown);
        assert!(String::from_utf8_lossy(&end(&mut world, ticket)).contains("asset_unknown"));
    }
    assert_eq!(serve(&mut world, &binary(2, &secret(2), "BTC", START.wall_ms)).1[3], Code::RateLimitedSecond.number());
}

#[test]
fn a_month_that_ends_meanwhile_is_of_the_next_request() {
    let mut world = world();
    let requests = [json("\"asset\":\"DOGE\"", 0), binary(1, &secret(1), "DOGE", START.wall_ms)];
    let [text, frame] = requests.clone().map(|request| begin(&mut world, &request));
    world.keys.set_month_used_up(shared::key::KeyId(1), true);
    world.publish(fresh(2, 6_000));
    assert!(String::from_utf8_lossy(&end(&mut world, text)).contains("\"price\":\"1.50\""));
    assert_eq!(end(&mut world, frame)[3], 0);
    let [text, frame] = requests.map(|request| serve(&mut world, &request).1);
    assert!(String::from_utf8_lossy(&text).contains("rate_limited_month"));
    assert_eq!(frame[3], Code::RateLimitedMonth.number());
}

/// Begins to wait for keys that all ask on and on, in turn, until none is let in; how many of each wait.
fn fill(world: &mut World, keys: u32, ready_made: impl Fn(u32) -> Vec<u8>) -> Vec<usize> {
    let mut waiting = vec![0; keys as usize];
    for key in (0..keys).cycle() {
        let step = serve(world, &ready_made(key)).0;
        if !matches!(step, DatagramStep::Wait(_)) {
            break;
        }
        waiting[key as usize] += 1;
    }
    waiting
}

#[test]
fn so_many_wait_and_no_more() {
    // One key has half of the shard's part, rounded up.
    for (of_node, shards, expected) in
        [(14_u32, 2_u16, 4_usize), (1, 4, 1), (0, 1, 0), (1_000_000, 1, DATAGRAMS_WAITING_MAX / 2)]
    {
        let mut world = World { finds_nothing: false, ..World::with(world::records(), shards, 0) };
        let parameters = ShardParameters { datagrams_waiting: of_node, ..ShardParameters::default() };
        world.shard.apply(ShardCommand::Parameters(parameters));
        let request = binary(1, &secret(1), "DOGE", START.wall_ms);
        let tickets: Vec<_> = (0..expected).map(|_| begin(&mut world, &request)).collect();
        assert_eq!(serve(&mut world, &request).1[3], Code::Overloaded.number(), "{of_node} on {shards}");
        let text = serve(&mut world, &json("\"asset\":\"DOGE\"", 0)).1;
        assert!(String::from_utf8_lossy(&text).contains("overloaded"));
        assert_eq!(world.shard.counters().datagrams_waiting as usize, expected);
        world.publish(fresh(2, 6_000));
        assert_eq!(named(&mut world).len(), expected);
        for ticket in &tickets {
            assert_eq!(end(&mut world, *ticket)[3], 0);
        }
        assert_eq!(world.shard.counters().datagrams_waiting, 0);
        assert_eq!(serve(&mut world, &request).1[3], 0);
        let again: Vec<_> =
            (0..expected).map(|_| begin(&mut world, &binary(1, &secret(1), "NOPE", START.wall_ms))).collect();
        assert!(again.iter().all(|ticket| tickets.contains(ticket)), "tickets are used again");
    }
}

#[test]
fn nothing_is_looked_up_for_whom_there_is_no_room() {
    let mut world = world();
    world.shard.apply(ShardCommand::Parameters(ShardParameters { datagrams_waiting: 2, ..ShardParameters::default() }));
    let ticket = begin(&mut world, &json("\"asset\":\"DOGE\"", 0));
    assert_eq!(asked(&mut world), ["DOGE"]);
    for request in [json("\"asset\":\"NOPE\"", 0), json("\"assets\":[\"NOPE\",\"OLD\"]", 90)] {
        let text = serve(&mut world, &request).1;
        assert!(String::from_utf8_lossy(&text).contains("overloaded"), "{}", String::from_utf8_lossy(&text));
    }
    assert_eq!(serve(&mut world, &binary(1, &secret(1), "NOPE", START.wall_ms)).1[3], Code::Overloaded.number());
    assert!(asked(&mut world).is_empty());
    assert_eq!(world.shard.counters().lookups_under_way, 1);
    // Who has waited holds its place.
    world.publish(fresh(2, 6_000));
    assert!(!end(&mut world, ticket).is_empty());
}

#[test]
fn no_key_waits_at_the_cost_of_another() {
    for keys in 1..6_u32 {
        let records = (1..8).map(|id| record(id, &format!("key {id}"), 1_000_000)).collect();
        let mut world = World { finds_nothing: false, ..World::with(records, 1, 0) };
        let parameters = ShardParameters { datagrams_waiting: 120, ..ShardParameters::default() };
        world.shard.apply(ShardCommand::Parameters(parameters));
        let request = |key: u32| binary(key + 1, &secret(key + 1), "DOGE", START.wall_ms);
        let each = 120 / (keys as usize + 1);
        assert_eq!(fill(&mut world, keys, request), vec![each; keys as usize], "{keys} that take all they can");
        // One that comes afterwards finds room, and one after it.
        let late: Vec<_> = [keys, keys + 1].map(|key| begin(&mut world, &request(key))).into();
        world.publish(fresh(2, 6_000));
        let tickets = named(&mut world);
        assert!(late.iter().all(|ticket| tickets.contains(&ticket.0)));
        assert!(tickets.iter().all(|ticket| end(&mut world, DatagramTicket(*ticket))[3] == 0));
        // What they held counts no longer.
        world.publish(Tick { flags: TICK_STALE, ..fresh(2, 6_001) });
        assert_eq!(fill(&mut world, keys, request), vec![each; keys as usize]);
    }
}

#[test]
fn a_ticket_is_served_once_and_not_too_early() {
    let mut world = world();
    let ticket = begin(&mut world, &json("\"asset\":\"DOGE\"", 0));
    let mut reply = [0; DATAGRAM_OUT_MAX];
    assert_eq!(world.shard.serve_waiting(world.now, ticket, &mut reply), DatagramStep::Wait(ticket));
    world.publish(fresh(2, 6_000));
    assert!(!end(&mut world, ticket).is_empty());
    for none in [ticket, DatagramTicket(9), DatagramTicket(u16::MAX)] {
        assert!(end(&mut world, none).is_empty());
    }
}

#[test]
fn a_node_that_goes_away_answers_those_who_wait() {
    let mut world = world();
    let ticket = begin(&mut world, &binary(1, &secret(1), "DOGE", START.wall_ms));
    world.shard.apply(ShardCommand::StopAccepting);
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(named(&mut world), [ticket.0]);
    assert_eq!(end(&mut world, ticket)[3], Code::Draining.number());
    assert_eq!(serve(&mut world, &binary(1, &secret(1), "NOPE", START.wall_ms)).1[3], Code::Draining.number());
    assert_eq!(serve(&mut world, &binary(1, &secret(1), "BTC", START.wall_ms)).1[3], 0);
}
