//! Many connections that do little, and some that mean harm, on both engines.

use harness::http::{Connection, Reply};
use harness::service::{ENGINES, Service};
use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

/// Idle connections in the test; bounded by what both sides may open. So many that what a process grows by once, whoever
/// comes, is no part of what one costs.
const IDLE: usize = 9_000;

/// Most user memory that an idle connection may cost, bytes.
const IDLE_BYTES_MAX: usize = 4_096;

fn resident_bytes(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib: usize = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number");
    kib * 1_024
}

fn price(service: &Service, connection: &mut Connection) -> Reply {
    let key = service.stress_key();
    connection.send(format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n").as_bytes());
    connection.read(false).expect("an answer")
}

#[test]
fn idle_connections_are_cheap_and_stay_open() {
    for engine in ENGINES {
        let service = Service::demo(engine);
        service.await_price("BTC", 2);
        let address = service.address("lpo_tcp");
        // Each has asked once: it holds its remembered key and headers, as a real client's would.
        let connect = |count: usize| -> Vec<Connection> {
            let mut open: Vec<Connection> = (0..count).map(|_| Connection::open(address)).collect();
            open.iter_mut().for_each(|connection| assert_eq!(price(&service, connection).status, 200));
            open
        };
        let _warm = connect(500);
        let before = resident_bytes(service.pid());
        let mut idle = connect(IDLE);
        let grown = resident_bytes(service.pid()).saturating_sub(before);
        assert!(grown / IDLE <= IDLE_BYTES_MAX, "{engine}: {} bytes a connection", grown / IDLE);
        assert!(idle.iter_mut().step_by(50).all(|connection| price(&service, connection).status == 200));
    }
}

#[test]
fn a_head_that_never_ends_is_closed_and_harms_nobody() {
    for engine in ENGINES {
        let service = Service::demo(engine);
        service.await_price("BTC", 2);
        let address = service.address("lpo_tcp");
        let began = Instant::now();
        let mut slow: Vec<Connection> = (0..500).map(|_| Connection::open(address)).collect();
        slow.iter_mut().for_each(|connection| connection.send(b"GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\n"));
        let mut good = Connection::open(address);
        let mut asked = 0;
        let watcher = std::thread::scope(|scope| {
            let closing = scope.spawn(move || {
                slow.iter_mut().for_each(|connection| drop(connection.read_to_end()));
                slow.len()
            });
            while !closing.is_finished() {
                assert_eq!(price(&service, &mut good).status, 200);
                asked += 1;
            }
            closing.join().expect("all were closed")
        });
        assert_eq!(watcher, 500);
        assert!(asked > 0 && began.elapsed() < harness::PATIENCE, "{engine}");
    }
}

/// Sends requests without reading an answer until the server takes no more: both socket buffers and the server's own
/// bounded one are full. Answers the connection, and how much was taken.
fn push_until_held_back(service: &Service) -> (TcpStream, usize) {
    let key = service.stress_key();
    let request = format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n").repeat(100);
    let mut stream = TcpStream::connect(service.address("lpo_tcp")).expect("a connection");
    stream.set_nonblocking(true).expect("nonblocking");
    let (mut sent, mut refused_in_a_row) = (0, 0);
    while refused_in_a_row < 50 && sent < 256 << 20 {
        match stream.write(request.as_bytes()) {
            Ok(length) => {
                sent += length;
                refused_in_a_row = 0;
            }
            Err(_) => {
                refused_in_a_row += 1;
                // Another client's answer is the clock: the shard has turned meanwhile.
                assert_eq!(service.get("/price?asset=BTC").status, 200);
            }
        }
    }
    (stream, sent)
}

#[test]
fn a_client_that_does_not_read_is_held_back_not_buffered() {
    for engine in ENGINES {
        let service = Service::demo(engine);
        service.await_price("BTC", 2);
        // The first ones also touch what each shard touches once, its receive buffers among it.
        let mut held: Vec<TcpStream> = (0..8).map(|_| push_until_held_back(&service).0).collect();
        let before = resident_bytes(service.pid());
        for _ in 0..8 {
            let (client, sent) = push_until_held_back(&service);
            assert!(sent < 256 << 20, "{engine}: the server takes without end from a client that does not read");
            held.push(client);
        }
        let grown = resident_bytes(service.pid()).saturating_sub(before);
        // A connection holds at most 1 MiB of requests; twice that, for what else a process does meanwhile.
        assert!(grown < 8 * (2 << 20), "{engine}: {grown} bytes for eight clients that do not read");
        eprintln!("{engine}: {grown} bytes for eight clients that do not read");
    }
}

#[test]
fn random_bytes_close_the_connection_or_wait_for_more() {
    for engine in ENGINES {
        let service = Service::demo(engine);
        service.await_price("BTC", 2);
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..300 {
            let noise: Vec<u8> = (0..400)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as u8
                })
                .collect();
            let mut stream = TcpStream::connect(service.address("lpo_tcp")).expect("a connection");
            let _ = stream.write_all(&noise);
        }
        assert_eq!(service.get("/price?asset=BTC").status, 200);
    }
}
