//! After start, serving allocates nothing (invariant I8): counted over the whole process while a client that itself
//! allocates nothing asks over TCP and UDP, on each engine.

#[path = "engines/rig.rs"]
#[expect(dead_code, reason = "these tests need half of it")]
mod rig;

use rig::{KEY, Rig, on_each_engine, request};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

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

#[test]
fn serving_allocates_nothing() {
    on_each_engine(|engine| {
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
    });
}
