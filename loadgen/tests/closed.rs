//! The closed loops, against servers of a few lines.

use loadgen::frame::UdpKey;
use loadgen::framing::Framing;
use loadgen::tcp::{self, Request, TcpLoad};
use loadgen::udp::{self, Dialect, UdpLoad};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

/// A server on every connection: what it says to each whole request (they end in CR LF, HTTP's in two).
fn serve_tcp(end: &'static str, answer: impl Fn(&str) -> Vec<u8> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.expect("a connection"), answer.clone());
            thread::spawn(move || {
                let (mut bytes, mut part) = (String::new(), [0; 4_096]);
                while let Ok(length @ 1..) = stream.read(&mut part) {
                    bytes.push_str(std::str::from_utf8(&part[..length]).expect("text"));
                    while let Some((request, rest)) = bytes.split_once(end) {
                        if stream.write_all(&answer(request)).is_err() {
                            return;
                        }
                        bytes = rest.to_owned();
                    }
                }
            });
        }
    });
    address
}

/// A server that answers each datagram with what `answer` makes of it.
fn serve_udp(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound");
    thread::spawn(move || {
        let mut bytes = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let reply = answer(&bytes[..length]);
            if !reply.is_empty() {
                let _ = socket.send_to(&reply, from);
            }
        }
    });
    address
}

/// Right and wrong answers of a short run over TCP.
fn drive(framing: Framing, target: SocketAddr, request: &str, expect: &str) -> (bool, bool) {
    let requests = vec![Request { bytes: request.into(), expect: expect.into() }];
    let (warm_up, duration) = (Duration::ZERO, Duration::from_millis(100));
    let load = TcpLoad { target, connections: 2, pipeline: 3, framing, requests, warm_up, duration };
    let report = tcp::run(&load).expect("a run");
    assert_eq!(report.refused + report.lost, 0);
    (report.answered > 0, report.wrong > 0)
}

#[test]
fn http_is_right_or_wrong_by_its_body() {
    let answer = |_: &str| b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"asset\":\"A\"}".to_vec();
    let target = serve_tcp("\r\n\r\n", answer);
    assert_eq!(drive(Framing::Http, target, "GET / HTTP/1.1\r\n\r\n", "\"asset\":\"A\""), (true, false));
    assert_eq!(drive(Framing::Http, target, "GET / HTTP/1.1\r\n\r\n", "\"asset\":\"B\""), (false, true));
}

#[test]
fn redis_is_right_or_wrong_by_its_value() {
    let target = serve_tcp("\r\n", |request| match request {
        "GET there" => b"$2\r\nhi\r\n".to_vec(),
        "GET absent" => b"$-1\r\n".to_vec(),
        _ => b"-ERR unknown command\r\n".to_vec(),
    });
    assert_eq!(drive(Framing::Resp, target, "GET there\r\n", "hi"), (true, false));
    assert_eq!(drive(Framing::Resp, target, "GET absent\r\n", ""), (false, true));
    assert_eq!(drive(Framing::Resp, target, "FLY\r\n", ""), (false, true));
}

#[test]
fn memcached_is_right_or_wrong_by_its_value() {
    let target = serve_tcp("\r\n", |request| match request {
        "get there" => b"VALUE there 0 2\r\nhi\r\nEND\r\n".to_vec(),
        _ => b"END\r\n".to_vec(),
    });
    assert_eq!(drive(Framing::Memcached, target, "get there\r\n", "hi"), (true, false));
    assert_eq!(drive(Framing::Memcached, target, "get absent\r\n", ""), (false, true));
}

#[test]
fn memcached_over_udp_one_by_one_in_windows_and_in_trains() {
    let target = serve_udp(|request| {
        let mut reply = request[..8].to_vec();
        let asked = std::str::from_utf8(&request[8..]).expect("text").trim_end();
        match asked {
            "get there" => reply.extend_from_slice(b"VALUE there 0 2\r\nhi\r\nEND\r\n"),
            _ => reply.extend_from_slice(b"END\r\n"),
        }
        reply
    });
    for (window, train) in [(1, 1), (16, 1), (16, 16), (16, 4)] {
        for (key, right) in [("there", true), ("nope!", false)] {
            let dialect = Dialect::Memcached { keys: vec![key.to_owned()] };
            let (warm_up, duration) = (Duration::ZERO, Duration::from_millis(100));
            let load = UdpLoad { target, sockets: 2, window, train, dialect, warm_up, duration };
            let report = udp::run(&load).expect("a run");
            assert_eq!((report.answered > 0, report.wrong > 0), (right, !right), "{window} {train} {report:?}");
        }
    }
}

#[test]
fn frames_that_come_back_unsigned_are_wrong() {
    // The request itself: right id, wrong magic, and a MAC of something else.
    let target = serve_udp(<[u8]>::to_vec);
    for (check, right) in [(true, false), (false, true)] {
        let keys = vec![UdpKey { id: 7, secret: [1; 16] }];
        let dialect = Dialect::Frames { keys, assets: vec![*b"BTC\0\0\0\0\0\0\0\0\0\0\0\0\0"], check };
        let (warm_up, duration) = (Duration::ZERO, Duration::from_millis(100));
        let load = UdpLoad { target, sockets: 1, window: 8, train: 8, dialect, warm_up, duration };
        let report = udp::run(&load).expect("a run");
        assert_eq!((report.answered > 0, report.wrong > 0), (right, !right), "{report:?}");
    }
}
