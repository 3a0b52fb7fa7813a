//! What the logic of one answer costs, without any socket: medians of interleaved rounds, in nanoseconds of CPU.
//!
//! `cargo bench -p trinity-dataplane-core --bench answer [-- --rounds=N] [PART OF A CASE'S NAME…]`. Over 90 % of a
//! request is the kernel's network stack, so these figures are small beside a whole request; they are here to notice when
//! they no longer are.
#![expect(clippy::print_stdout, reason = "figures are what this program is for")]

#[path = "answer/rounds.rs"]
mod rounds;
#[path = "../tests/world/mod.rs"]
mod world;

use dataplane_core::access::KeyDirectory;
use dataplane_core::shard::{DatagramStep, HttpConnection, StreamToken, Then};
use rounds::Case;
use shared::limits::DATAGRAM_OUT_MAX;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use world::{KEY, World, binary, get, secret, tick};

/// Turns between two of housekeeping, where records are taken out too: 50 ms.
const HOUSEKEEPING_TURNS: usize = 5_000;

/// Requests of a case in one round.
const REQUESTS: usize = 200_000;

fn case<'a>(name: &str, once: impl FnMut(usize) + 'a) -> Case<'a> {
    Case { name: name.to_owned(), count: REQUESTS, once: Box::new(once) }
}

fn stream(world: &mut World, connection: &mut HttpConnection, request: &[u8]) {
    world.output.clear();
    let step = world.shard.serve_stream(world.now, connection, request, &mut world.output);
    assert!(step.then == Then::Read && step.consumed == request.len());
    black_box(world.output.bytes());
}

fn datagram(world: &mut World, request: &[u8], reply: &mut [u8]) {
    let from = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let step = world.shard.serve_datagram(world.now, from, request, reply);
    assert!(matches!(step, DatagramStep::Reply(_)));
    black_box(reply);
}

/// A case over HTTP whose request alternates between these.
fn http_case(name: &'static str, requests: Vec<String>) -> Case<'static> {
    let mut world = World::with(world::records(), 1, 100);
    let mut connection = HttpConnection::new(StreamToken(1));
    case(name, move |turn| stream(&mut world, &mut connection, requests[turn % requests.len()].as_bytes()))
}

/// Turns of one request each, a shard's 100,000 a second: what leaves at their ends is part of it.
fn turn_case(name: &'static str, requests: Vec<String>, counts_usage: bool) -> Case<'static> {
    let keys = Arc::new(KeyDirectory::build(world::records(), None, 1));
    let mut world = World::counting(keys, 0, 1, 100, counts_usage);
    let mut connection = HttpConnection::new(StreamToken(1));
    case(name, move |turn| {
        world.now.mono_ns += 10_000;
        stream(&mut world, &mut connection, requests[turn % requests.len()].as_bytes());
        world.shard.end_turn(world.now);
        if turn.is_multiple_of(HOUSEKEEPING_TURNS) {
            black_box(world.usage());
        }
    })
}

fn udp_case(name: &'static str, requests: Vec<Vec<u8>>) -> Case<'static> {
    let mut world = World::with(world::records(), 1, 100);
    let mut reply = [0; DATAGRAM_OUT_MAX];
    case(name, move |turn| datagram(&mut world, &requests[turn % requests.len()], &mut reply))
}

fn main() {
    let symbols: Vec<String> = (0..64).map(|number| format!("A{number}")).collect();
    let plain: Vec<String> = symbols.iter().map(|symbol| get(&format!("/price?asset={symbol}"), KEY)).collect();
    let parsed = plain.iter().map(|request| request.replace("asset=", "allow_stale=0&asset=")).collect();
    let many = vec![get(&format!("/prices?assets={}", symbols[..32].join(",")), KEY)];
    let frames = symbols.iter().map(|symbol| binary(1, &secret(1), symbol, world::START.wall_ms)).collect();
    let objects = symbols.iter().map(|symbol| format!("{{\"key\":\"{KEY}\",\"asset\":\"{symbol}\",\"id\":7}}"));
    let mut fresh = World::with(world::records(), 1, 100);
    let mut connection = HttpConnection::new(StreamToken(1));
    let fresh_plain = plain.clone();
    let (counted, uncounted) = (plain.clone(), plain.clone());
    rounds::show(vec![
        http_case("GET /price, header block remembered", plain),
        case("the same, each price new", move |turn| {
            fresh.publish(tick(5 + turn % 64, 1_000_000 + turn as u64 + fresh.shard.counters().ticks, 1));
            stream(&mut fresh, &mut connection, fresh_plain[turn % 64].as_bytes());
        }),
        turn_case("the same, a turn each, usage counted", counted, true),
        turn_case("the same, a turn each, usage not counted", uncounted, false),
        http_case("GET /price, head parsed, key remembered", parsed),
        http_case("GET /prices of 32", many),
        udp_case("binary datagram", frames),
        udp_case("JSON datagram", objects.map(String::into_bytes).collect()),
    ]);
}
