//! One connection: requests whole, in pieces, in heaps; clients that stop reading, stop writing, or vanish.

use crate::rig::{ASSETS, Client, Rig, get, on_each_engine, request};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

/// Requests in the heap that is sent before anything is read: some 5 MB of replies, more than the kernel buffers.
const HEAP: usize = 10_000;

fn asset(index: usize) -> &'static str {
    ASSETS[index % ASSETS.len()]
}

#[track_caller]
fn check_in_order(client: &mut Client, count: usize) {
    for index in 0..count {
        let reply = client.read().unwrap_or_else(|| panic!("closed instead of answer {index}"));
        assert_eq!((reply.status, reply.json()["asset"].as_str()), (200, Some(asset(index))), "answer {index}");
    }
}

#[test]
fn one_request_has_one_answer() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut client = rig.connect();
        for name in ASSETS {
            let reply = client.price(name);
            assert_eq!((reply.status, reply.json()["asset"].as_str()), (200, Some(name)));
        }
        assert_eq!(client.price("NO-PE").status, 400);
        assert_eq!(client.price("BTC").status, 200, "an error does not end the connection");
        rig.await_stats("counted", |stats| {
            stats.counters.answered == 4 && stats.counters.http_requests == 5 && stats.connections == 1
        });
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut client = rig.connect();
        let burst: String = (0..100).map(|index| request(asset(index), "")).collect();
        client.send(&burst);
        check_in_order(&mut client, 100);
        client.send(&burst);
        check_in_order(&mut client, 100);
    });
}

#[test]
fn requests_may_come_in_any_pieces() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let text: String = (0..3).map(|index| request(asset(index), "")).collect();
        for piece in [1, 7, 64, text.len() - 1] {
            let mut client = rig.connect();
            for part in text.as_bytes().chunks(piece) {
                client.send(std::str::from_utf8(part).expect("ASCII"));
            }
            check_in_order(&mut client, 3);
        }
    });
}

#[test]
fn a_heap_of_requests_is_answered_whole_though_the_client_reads_late() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let client = rig.connect();
        let heap: String = (0..HEAP).map(|index| request(asset(index), "")).collect();
        let mut unsent = heap.as_bytes();
        // First without reading, until the server takes no more (or has taken all): every buffer on the way is full.
        client.socket().set_nonblocking(true).expect("non-blocking");
        while !unsent.is_empty() {
            match client.socket().write(unsent) {
                Ok(sent) => unsent = &unsent[sent..],
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        client.socket().set_nonblocking(false).expect("blocking");
        let mut reader = client;
        let writer = reader.socket().try_clone().expect("a second handle");
        std::thread::scope(|scope| {
            scope.spawn(move || (&writer).write_all(unsent).expect("the rest is taken while replies are read"));
            check_in_order(&mut reader, HEAP);
        });
        assert_eq!(rig.stats().closed_by_us, 0);
    });
}

#[test]
fn a_client_that_closes_its_side_still_gets_every_answer() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut client = rig.connect();
        let text: String = (0..200).map(|index| request(asset(index), "")).collect();
        client.send(&text);
        client.socket().shutdown(Shutdown::Write).expect("half-closed");
        check_in_order(&mut client, 200);
        assert!(client.is_closed());
        let mut half = rig.connect();
        half.send("GET /price?asset=BTC HTTP/1.1\r\nHo");
        half.socket().shutdown(Shutdown::Write).expect("half-closed");
        assert!(half.is_closed(), "half a request is no request");
        rig.await_stats("both are gone", |stats| stats.connections == 0);
    });
}

#[test]
fn the_last_reply_survives_bytes_that_nobody_reads() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        for _ in 0..20 {
            let mut client = rig.connect();
            // What follows the bad request is never read by the shard; closing at once would reset the connection.
            client.send(&format!("BAD\x01 REQUEST\r\n\r\n{}", request("BTC", "").repeat(50)));
            assert_eq!(client.read().expect("an answer").status, 400);
            assert!(client.is_closed());
        }
    });
}

#[test]
fn connection_close_is_honoured() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut client = rig.connect();
        let text = get("/price?asset=BTC").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        client.send(&text);
        assert_eq!(client.read().expect("an answer").status, 200);
        assert!(client.is_closed());
    });
}

#[test]
fn resets_harm_nobody_else() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut good = rig.connect();
        for round in 0..50 {
            let bad = rig.connect();
            bad.send(&request("BTC", "").repeat(round));
            // Closing with unread bytes, or with a zero linger, sends a reset.
            let linger = Some(std::time::Duration::ZERO);
            socket2::SockRef::from(bad.socket()).set_linger(linger).expect("an option");
            drop(bad);
            assert_eq!(good.price("ETH").status, 200);
        }
        rig.await_stats("only the good one is left", |stats| stats.connections == 1);
    });
}

#[test]
fn a_thousand_connections_are_served() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut clients: Vec<Client> = (0..1_000).map(|_| rig.connect()).collect();
        for round in 0..3 {
            for client in &clients {
                client.send(&request(asset(round), ""));
            }
            for client in &mut clients {
                assert_eq!(client.read().expect("an answer").json()["asset"], asset(round));
            }
        }
        rig.await_stats("all are open", |stats| stats.connections == 1_000 && stats.accepted == 1_000);
        drop(clients);
        rig.await_stats("all are gone", |stats| stats.connections == 0);
    });
}

#[test]
fn what_is_not_a_price_arrives_at_the_control_plane_with_its_bytes() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let hand_overs = rig.plane.hand_overs();
        let other = format!("{}{}", get("/limits"), request("SOL", ""));
        for before in [0, 1, 30] {
            let mut client = rig.connect();
            let prices: String = (0..before).map(|index| request(asset(index), "")).collect();
            client.send(&format!("{prices}{other}"));
            check_in_order(&mut client, before);
            let mut given = hand_overs.recv_timeout(crate::rig::PATIENCE).expect("handed over");
            // Bytes that came later than the hand-over are still in the socket.
            let mut bytes = given.bytes;
            while bytes.len() < other.len() {
                let mut more = [0; 512];
                let length = given.stream.read(&mut more).expect("blocking read");
                bytes.extend_from_slice(&more[..length]);
            }
            assert_eq!(String::from_utf8(bytes).expect("text"), other);
            client.send("later");
            let mut later = [0; 5];
            given.stream.read_exact(&mut later).expect("the socket works on, in blocking mode");
            assert_eq!(&later, b"later");
            given.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").expect("sent");
            drop(given.stream);
            assert_eq!(client.read().expect("an answer").body, "hi");
            assert!(client.is_closed(), "no other copy of the descriptor holds it open");
        }
        rig.await_stats("none is ours", |stats| stats.connections == 0 && stats.counters.hand_overs == 3);
    });
}
