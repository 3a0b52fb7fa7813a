//! The closed loops, against servers of a few lines.

use crate::fakes::{self, Act};
use loadgen::frame::UdpKey;
use loadgen::framing::Framing;
use loadgen::tcp::{self, Request, TcpLoad};
use loadgen::udp::{self, Dialect, UdpLoad};
use std::net::SocketAddr;
use std::time::Duration;

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
    let target = fakes::tcp("\r\n\r\n", |_| Act::Say(fakes::http("200 OK", "{\"asset\":\"A\"}")));
    assert_eq!(drive(Framing::Http, target, "GET / HTTP/1.1\r\n\r\n", "\"asset\":\"A\""), (true, false));
    assert_eq!(drive(Framing::Http, target, "GET / HTTP/1.1\r\n\r\n", "\"asset\":\"B\""), (false, true));
}

#[test]
fn redis_is_right_or_wrong_by_its_value() {
    let target = fakes::tcp("\r\n", |request| match request {
        "GET there" => Act::Say(b"$2\r\nhi\r\n".to_vec()),
        "GET absent" => Act::Say(b"$-1\r\n".to_vec()),
        _ => Act::Say(b"-ERR unknown command\r\n".to_vec()),
    });
    assert_eq!(drive(Framing::Resp, target, "GET there\r\n", "hi"), (true, false));
    assert_eq!(drive(Framing::Resp, target, "GET absent\r\n", ""), (false, true));
    assert_eq!(drive(Framing::Resp, target, "FLY\r\n", ""), (false, true));
}

#[test]
fn memcached_is_right_or_wrong_by_its_value() {
    let target = fakes::tcp("\r\n", |request| match request {
        "get there" => Act::Say(b"VALUE there 0 2\r\nhi\r\nEND\r\n".to_vec()),
        _ => Act::Say(b"END\r\n".to_vec()),
    });
    assert_eq!(drive(Framing::Memcached, target, "get there\r\n", "hi"), (true, false));
    assert_eq!(drive(Framing::Memcached, target, "get absent\r\n", ""), (false, true));
}

#[test]
fn memcached_over_udp_one_by_one_in_windows_and_in_trains() {
    let target = fakes::udp(|request| {
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
    let target = fakes::udp(<[u8]>::to_vec);
    for (check, right) in [(true, false), (false, true)] {
        let keys = vec![UdpKey { id: 7, secret: [1; 16] }];
        let dialect = Dialect::Frames { keys, assets: vec![*b"BTC\0\0\0\0\0\0\0\0\0\0\0\0\0"], check };
        let (warm_up, duration) = (Duration::ZERO, Duration::from_millis(100));
        let load = UdpLoad { target, sockets: 1, window: 8, train: 8, dialect, warm_up, duration };
        let report = udp::run(&load).expect("a run");
        assert_eq!((report.answered > 0, report.wrong > 0), (right, !right), "{report:?}");
    }
}
