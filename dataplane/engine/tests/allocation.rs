//! After start, serving allocates nothing (invariant I8): counted over the whole process while a client that itself
//! allocates nothing asks over TCP and UDP, on each engine.

#[path = "engines/rig.rs"]
#[expect(dead_code, reason = "these tests need half of it")]
mod rig;

use dataplane_core::command::ShardCommand;
use dataplane_core::lookup::{Ask, AskKind, NotFound};
use dataplane_engine::{AskReceiver, EngineChoice};
use loadgen::frame::UdpKey;
use rig::{Client, KEY, PATIENCE, Rig, UDP_SECRET, on_each_engine, request};
use shared::asset::Symbol;
use shared::code::Code;
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Those of them that made something larger.
static REALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        REALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Reads `count` replies. Each has one closing brace: the end of its body.
fn read(stream: &mut TcpStream, count: usize, reply: &mut [u8]) {
    let mut braces = 0;
    while braces < count {
        let length = stream.read(reply).expect("an answer");
        assert!(length > 0, "closed");
        braces += reply[..length].iter().filter(|byte| **byte == b'}').count();
    }
    assert_eq!(braces, count);
}

/// One round of everything: single requests, sixteen in one piece, sixteen torn in two, datagrams.
fn round(stream: &mut TcpStream, sixteen: &[u8], socket: &UdpSocket, datagram: &[u8], reply: &mut [u8]) {
    for _ in 0..50 {
        stream.write_all(&sixteen[..sixteen.len() / 16]).expect("sent");
        read(stream, 1, reply);
        stream.write_all(sixteen).expect("sent");
        read(stream, 16, reply);
        let (first, second) = sixteen.split_at(sixteen.len() / 2 + 7);
        stream.write_all(first).expect("sent");
        stream.write_all(second).expect("sent");
        read(stream, 16, reply);
        socket.send(datagram).expect("sent");
        assert!(socket.recv(reply).expect("an answer") > 0);
    }
}

/// One test, since each part counts what the whole process allocates.
#[test]
fn serving_allocates_nothing() {
    on_each_engine(|engine| {
        serve_from_the_table(engine);
        serve_what_waits(engine);
        serve_crowds_that_wait(engine);
    });
}

fn serve_from_the_table(engine: EngineChoice) {
    let rig = Rig::priced(engine);
    let mut stream = TcpStream::connect(rig.plane.tcp_address()).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let socket = rig.datagrams();
    let pad = "x".repeat(100);
    let datagram = format!("{{\"key\":\"{KEY}\",\"asset\":\"BTC\",\"id\":1,\"pad\":\"{pad}\"}}");
    let sixteen = request("BTC", "").repeat(16);
    let mut reply = vec![0; 64 * 1_024];
    let mut spent = Vec::with_capacity(10);
    for _ in 0..10 {
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        round(&mut stream, sixteen.as_bytes(), &socket, datagram.as_bytes(), &mut reply);
        spent.push(ALLOCATIONS.load(Ordering::SeqCst) - before);
    }
    // The first rounds fill the pools.
    assert!(spent[5..].iter().all(|count| *count == 0), "allocations by round: {spent:?}");
}

/// Everything that is said about one symbol, made beforehand.
struct Lookup {
    request: String,
    json: String,
    frame: [u8; 64],
    nothing: Arc<[NotFound]>,
}

impl Lookup {
    /// Of the symbol with this number, which nobody knows.
    fn of(number: usize) -> Self {
        let text = format!("NONE{number}");
        let (pad, symbol) = ("x".repeat(100), Symbol::new(text.as_bytes()).expect("a symbol"));
        let key = UdpKey { id: 1, secret: UDP_SECRET };
        Self {
            request: request(&text, ""),
            json: format!("{{\"key\":\"{KEY}\",\"asset\":\"{text}\",\"id\":1,\"pad\":\"{pad}\"}}"),
            frame: key.request(*symbol.padded(), 1, tuning::clock::now().wall_ms),
            nothing: Arc::from([NotFound { symbol, number: 0, code: Code::AssetUnknown }]),
        }
    }
}

/// What asks for one symbol after another.
struct Asker {
    stream: TcpStream,
    socket: UdpSocket,
    asks: AskReceiver,
    asked: Vec<Ask>,
    reply: Vec<u8>,
}

impl Asker {
    /// Asks in three ways at once, has each wait, and takes the answers.
    fn ask(&mut self, rig: &Rig, mut lookup: Lookup) {
        self.stream.write_all(lookup.request.as_bytes()).expect("sent");
        self.socket.send(lookup.json.as_bytes()).expect("sent");
        self.socket.send(&lookup.frame).expect("sent");
        self.asked.clear();
        self.asks.wait(&mut self.asked, PATIENCE);
        let AskKind::Find { number, .. } = self.asked[0].kind else { panic!("{:?}", self.asked) };
        Arc::get_mut(&mut lookup.nothing).expect("nobody else's")[0].number = number;
        rig.plane.command_one(0, ShardCommand::NotFound(lookup.nothing));
        read(&mut self.stream, 1, &mut self.reply);
        for _ in 0..2 {
            assert!(self.socket.recv(&mut self.reply).expect("an answer") > 0);
        }
    }
}

fn serve_what_waits(engine: EngineChoice) {
    let rig = Rig::priced(engine);
    let stream = TcpStream::connect(rig.plane.tcp_address()).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let (socket, asks) = (rig.datagrams(), rig.plane.take_asks().expect("nobody has taken it"));
    let (asked, reply) = (Vec::with_capacity(16), vec![0; 64 * 1_024]);
    let mut asker = Asker { stream, socket, asks, asked, reply };
    let mut spent = Vec::with_capacity(10);
    for round in 0..10 {
        let lookups: Vec<Lookup> = (20 * round..20 * round + 20).map(Lookup::of).collect();
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        lookups.into_iter().for_each(|lookup| asker.ask(&rig, lookup));
        spent.push(ALLOCATIONS.load(Ordering::SeqCst) - before);
    }
    assert!(spent[5..].iter().all(|count| *count == 0), "allocations by round: {spent:?}");
    rig.await_stats("counted", |stats| stats.counters.lookups_fruitless == 200);
}

/// More and more connections wait for the same tick. Reply buffers for them may be had from the allocator; nothing that
/// names them may grow, since it was made for all there can be.
fn serve_crowds_that_wait(engine: EngineChoice) {
    const CROWD: usize = 300;
    let rig = Rig::priced(engine);
    let mut crowd: Vec<Client> = (0..CROWD).map(|_| rig.connect()).collect();
    let mut reply = vec![0; 64 * 1_024];
    let mut spent = Vec::with_capacity(10);
    for round in 1..=10 {
        let newest = crowd[0].price("BTC").sequence();
        let waiting = request("BTC", &format!("&newer_than={newest}&wait_ms=30000"));
        let part = &mut crowd[..round * CROWD / 10];
        let before = REALLOCATIONS.load(Ordering::SeqCst);
        part.iter().for_each(|client| client.send(&waiting));
        rig.await_stats("all wait", |stats| stats.counters.waiting == part.len() as u64);
        rig.quote(0);
        for client in part {
            let mut socket = client.socket();
            let length = socket.read(&mut reply).expect("an answer");
            assert!(reply[..length].starts_with(b"HTTP/1.1 200 ") && reply[..length].ends_with(b"}"));
        }
        spent.push(REALLOCATIONS.load(Ordering::SeqCst) - before);
    }
    assert!(spent.iter().all(|count| *count == 0), "{}: grown by round: {spent:?}", rig.plane.engine().name());
}
