//! After start, serving allocates nothing (invariant I8): neither answers, nor refusals, nor waiting, nor datagrams.

mod world;

use dataplane_core::access::{Amendment, KeyDirectory};
use dataplane_core::command::ShardCommand;
use dataplane_core::governor::GovernorBounds;
use dataplane_core::lookup::NotFound;
use dataplane_core::reply::ReplyBuffer;
use dataplane_core::shard::{DatagramStep, HttpConnection, StreamToken, Then};
use shared::asset::Symbol;
use shared::code::Code;
use shared::limits::DATAGRAM_OUT_MAX;
use shared::tick::{TICK_STALE, Tick};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use world::{KEY, SLOW_KEY, SPENT_KEY, START, World, binary, get, record, secret, tick};

/// Counts what this thread asks the system allocator for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static FREED: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // The thread may be ending, and its counter gone; then nobody reads it.
    let _ = ALLOCATIONS.try_with(|counter| counter.set(counter.get() + 1));
}

// SAFETY: every call is passed on as it came to the system allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = FREED.try_with(|counter| counter.set(counter.get() + 1));
        // SAFETY: the pointer came from `alloc` above, which is the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`; the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

/// Serves a request to its end, however many turns it takes; what a waiting one waits for is passed over.
fn serve(world: &mut World, connection: &mut HttpConnection, output: &mut ReplyBuffer, request: &[u8]) {
    let mut at = 0;
    for _ in 0..1_000 {
        output.clear();
        let step = world.shard.serve_stream(world.now, connection, &request[at..], output);
        at += step.consumed;
        match step.then {
            Then::Write => {}
            Then::Wait => {
                world.asked.pop().ok();
                world.pass_ms(60_000);
                world.shard.idle_tick(world.now, &mut world.ready);
                world.ready.streams.clear();
            }
            _ => return,
        }
    }
    panic!("a request without an end");
}

#[test]
fn streams_allocate_nothing() {
    let mut world = World::with(world::records(), 1, 200);
    let targets = [
        ("/price?asset=BTC", KEY),
        ("/price?asset=BTC&allow_stale=1", KEY),
        ("/price?asset=NOPE", KEY),
        ("/price?asset=DOGE", KEY),
        ("/price?asset=%&x", KEY),
        ("/price?asset=ETH&newer_than=999999&wait_ms=30000", KEY),
        ("/prices?assets=BTC,ETH,NOPE&ignore_unknown=1", KEY),
        ("/prices?assets=all", KEY),
        ("/price?asset=BTC", SLOW_KEY),
        ("/price?asset=BTC", SPENT_KEY),
        ("/price?asset=BTC", "nobody"),
        ("/assets", KEY),
    ];
    let mut requests: Vec<Vec<u8>> = targets.iter().map(|(target, key)| get(target, key).into_bytes()).collect();
    requests.push(requests[0].repeat(64));
    requests.push(get("/price?asset=BTC", KEY).replace("\r\n\r\n", "\r\nIf-None-Match: \"4711\"\r\n\r\n").into_bytes());
    requests.push(get("/price?asset=BTC", KEY).replace("GET", "HEAD").into_bytes());
    requests.push(get("/price?asset=BTC", KEY).replace("GET", "PUT").into_bytes());
    requests.push(b"GET / HTTP/1.1\r\n\r\n".to_vec());
    requests.push(vec![b'x'; 9_000]);
    let mut output = ReplyBuffer::new();
    for round in 0..3_u64 {
        for request in &requests {
            let found = allocations(|| {
                let mut connection = HttpConnection::new(StreamToken(1));
                serve(&mut world, &mut connection, &mut output, request);
                serve(&mut world, &mut connection, &mut output, request);
                world.shard.close_stream(&mut connection);
            });
            assert_eq!(found, 0, "round {round}: {}", String::from_utf8_lossy(&request[..request.len().min(80)]));
        }
        let found = allocations(|| {
            world.ticks.push(tick(1, 9_000 + round, 5)).expect("room");
            world.shard.drain_feed(world.now, &mut world.ready);
            world.shard.end_turn(world.now);
            world.shard.idle_tick(world.now, &mut world.ready);
        });
        assert_eq!(found, 0, "ticks and flushes");
        world.pass_ms(1_000);
    }
}

#[test]
fn shedding_allocates_nothing() {
    let mut world = World::new();
    world.shard.apply(ShardCommand::Governor(GovernorBounds { active_max: [1].into(), retry_after_s: 0 }));
    let mut output = ReplyBuffer::new();
    let mut active = HttpConnection::new(StreamToken(1));
    serve(&mut world, &mut active, &mut output, get("/price?asset=BTC", KEY).as_bytes());
    for target in ["/price?asset=BTC", "/price?asset=BTC&allow_stale=1", "/prices?assets=all"] {
        let request = get(target, KEY);
        let found = allocations(|| {
            let mut connection = HttpConnection::new(StreamToken(2));
            serve(&mut world, &mut connection, &mut output, request.as_bytes());
            serve(&mut world, &mut connection, &mut output, request.as_bytes());
            world.shard.close_stream(&mut connection);
        });
        assert_eq!(found, 0, "{target}");
    }
    world.shard.idle_tick(world.now, &mut world.ready);
    assert_eq!(world.shard.counters().shed, [0, 0, 0, 6]);
}

/// More symbols than the table has places, so that its index is cleaned up too; some found, some not, some forgotten.
#[test]
fn lookups_allocate_nothing() {
    const SYMBOLS: usize = 10_000;
    let mut world = World::with(world::records(), 1, 3_000);
    let mut output = ReplyBuffer::new();
    let (from, mut reply) = (SocketAddr::from(([127, 0, 0, 1], 40_000)), [0; DATAGRAM_OUT_MAX]);
    let mut served = 0_u64;
    for number in 0..SYMBOLS {
        // Every second one is an asset of the directory whose price went stale.
        let name = if number % 2 == 0 { format!("A{}", number % 3_000) } else { format!("N{number}") };
        let (request, frame) =
            (get(&format!("/price?asset={name}"), KEY), binary(1, &secret(1), &name, world.now.wall_ms));
        let sequence = 1_000_000 + 2 * number as u64;
        let (stale, fresh) = (stale_tick(5 + number % 3_000, sequence), tick(5 + number % 3_000, sequence + 1, 9));
        let symbol = Symbol::new(name.as_bytes()).expect("a symbol");
        let mut nothing: Arc<[NotFound]> = [NotFound { symbol, number: 0, code: Code::AssetUnknown }].into();
        let found = allocations(|| {
            if number % 2 == 0 {
                world.ticks.push(stale).expect("room");
                world.shard.drain_feed(world.now, &mut world.ready);
            }
            let mut connection = HttpConnection::new(StreamToken(1));
            output.clear();
            let waits = world.shard.serve_stream(world.now, &mut connection, request.as_bytes(), &mut output).then;
            let waiting = world.shard.serve_datagram(world.now, from, &frame, &mut reply);
            assert!(waits == Then::Wait && matches!(waiting, DatagramStep::Wait(_)), "{name}");
            match number % 4 {
                0 => world.ticks.push(fresh).expect("room"),
                1 => {
                    Arc::get_mut(&mut nothing).expect("nobody else's")[0].number = world.number(symbol);
                    world.shard.apply(ShardCommand::NotFound(nothing));
                }
                _ => world.pass_ms(1_500),
            }
            world.shard.drain_feed(world.now, &mut world.ready);
            world.shard.idle_tick(world.now, &mut world.ready);
            assert_eq!((world.ready.streams.drain(..).count(), world.ready.datagrams.len()), (1, 1));
            served += u64::from(
                world.shard.serve_stream(world.now, &mut connection, request.as_bytes(), &mut output).then
                    == Then::Read,
            );
            for ticket in world.ready.datagrams.drain(..) {
                let step = world.shard.serve_waiting(world.now, ticket, &mut reply);
                served += u64::from(matches!(step, DatagramStep::Reply(_)));
            }
            while world.asked.pop().is_ok() {}
            while world.usage.pop().is_ok() {}
        });
        assert_eq!(found, 0, "{name}");
    }
    let counters = world.shard.counters();
    assert_eq!((served, counters.lookups_begun), (2 * SYMBOLS as u64, SYMBOLS as u64));
    assert!(counters.lookups_found > 1_000 && counters.lookups_fruitless > 1_000 && counters.lookups_expired > 1_000);
}

fn stale_tick(asset: usize, sequence: u64) -> Tick {
    Tick { flags: TICK_STALE, ..tick(asset, sequence, 9) }
}

/// A shard with a full table of leases changes over to another directory, amended or built anew.
#[test]
fn another_directory_allocates_and_frees_nothing_on_a_shard() {
    let records: Vec<_> = (1..=40_000).map(|id| record(id, &format!("key {id}"), 1_280)).collect();
    let keys = Arc::new(KeyDirectory::build(records.clone(), None, 1));
    let mut world = World::sharing(Arc::clone(&keys), 0, 1, 0);
    for id in 1..=40_000 {
        assert_eq!(world.get("/price?asset=BTC", &format!("key {id}")).status, 200);
    }
    let amended = Arc::new(keys.amend([Amendment::Put(record(50_000, "newcomer", 3))]));
    let built = Arc::new(KeyDirectory::build(records, Some(&amended), 1));
    for next in [&amended, &built] {
        let (command, freed) = (ShardCommand::Keys(Arc::clone(next)), FREED.get());
        assert_eq!(allocations(|| world.shard.apply(command)), 0);
        assert_eq!(FREED.get(), freed);
        assert_eq!(world.get("/price?asset=BTC", "key 40000").status, 200);
    }
}

#[test]
fn datagrams_allocate_nothing() {
    let mut world = World::new();
    let pad = "x".repeat(300);
    let mut requests: Vec<Vec<u8>> =
        ["BTC", "NOPE", "DOGE", "btc", ""].iter().map(|symbol| binary(1, &secret(1), symbol, START.wall_ms)).collect();
    requests.extend([
        binary(2, &secret(2), "BTC", START.wall_ms),
        binary(9, &secret(9), "BTC", START.wall_ms),
        format!("{{\"key\":\"{KEY}\",\"asset\":\"BTC\",\"id\":7}}").into_bytes(),
        format!("{{\"key\":\"{KEY}\",\"assets\":[\"BTC\",\"ETH\",\"NOPE\"],\"pad\":\"{pad}\"}}").into_bytes(),
        format!("{{\"key\":\"{KEY}\",\"assets\":[\"BTC\",\"ETH\",\"NOPE\"]}}").into_bytes(),
        b"{\"key\":\"nobody\",\"asset\":\"BTC\"}".to_vec(),
        b"{\"key\":".to_vec(),
    ]);
    let (from, mut reply) = (SocketAddr::from(([127, 0, 0, 1], 40_000)), [0; DATAGRAM_OUT_MAX]);
    let mut answered = 0;
    for request in requests.iter().cycle().take(requests.len() * 3) {
        let found = allocations(|| {
            let step = world.shard.serve_datagram(world.now, from, request, &mut reply);
            answered += u32::from(step != DatagramStep::Silent);
        });
        assert_eq!(found, 0, "{}", String::from_utf8_lossy(request));
    }
    assert!(answered > 20);
}
