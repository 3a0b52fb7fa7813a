//! Which bytes are a request: every way to be malformed, wherever the bytes are torn apart, and what the connection
//! does afterwards.

mod world;

use dataplane_core::limits::{REQUEST_FIELDS_MAX, REQUEST_HEAD_MAX, REQUEST_LINE_MAX};
use dataplane_core::shard::Then;
use world::{KEY, World, get};

/// Sends `request` whole and in two pieces, split after every byte, and byte by byte; the answers must be the same.
/// Answers status, code and what happens to the connection.
#[track_caller]
fn judge(request: &[u8]) -> (u16, String, Then) {
    let mut world = World::new();
    let mut connection = world.connect(1);
    let whole = world.serve(&mut connection, request);
    let splits = (1..request.len()).map(|split| vec![split]).chain([(1..request.len()).collect()]);
    for split in splits.filter(|split| request.len() < 600 || split.len() > 1) {
        let mut connection = world.connect(1);
        let (mut sent, mut unread, mut start) = (Vec::new(), Vec::new(), 0);
        let mut then = Then::Read;
        for end in split.into_iter().chain([request.len()]) {
            unread.extend_from_slice(&request[start..end]);
            start = end;
            let outcome = world.serve(&mut connection, &unread);
            sent.extend_from_slice(&outcome.sent);
            (unread, then) = (outcome.rest, outcome.step.then);
            if then != Then::Read {
                break;
            }
        }
        assert_eq!(String::from_utf8_lossy(&sent), String::from_utf8_lossy(&whole.sent), "split");
        assert_eq!(then, whole.step.then, "split");
    }
    let reply = whole.replies(request.starts_with(b"HEAD")).into_iter().next();
    let (status, code) = reply.map_or((0, String::new()), |reply| (reply.status, reply.code().to_owned()));
    (status, code, whole.step.then)
}

#[track_caller]
fn check(request: &str, status: u16, code: &str) {
    let then = if matches!(status, 400 | 413 | 431) { Then::WriteAndClose } else { Then::Read };
    assert_eq!(judge(request.as_bytes()), (status, code.to_owned(), then), "{request:?}");
}

#[track_caller]
fn malformed(request: &str) {
    check(request, 400, "request_malformed");
}

/// What a connection remembers of the request before must not let a malformed one pass.
#[test]
fn malformed_lines_in_front_of_a_known_block() {
    for target in ["BTC\0", "BTC\0\0\0", "\0BTC", "BTC\r", "BTC\n", "BTC\x7f", "BTC\u{e9}", "BT C", "BTC "] {
        let mut world = World::new();
        let mut connection = world.connect(1);
        for _ in 0..3 {
            let served = world.serve(&mut connection, get("/price?asset=BTC", KEY).as_bytes());
            assert_eq!(served.reply().status, 200);
        }
        let outcome = world.serve(&mut connection, get(&format!("/price?asset={target}"), KEY).as_bytes());
        assert_eq!((outcome.reply().status, outcome.step.then), (400, Then::WriteAndClose), "{target:?}");
    }
}

#[test]
fn good_heads() {
    for request in [
        "GET /price?asset=BTC HTTP/1.1\r\nHost: h\r\nX-API-Key: KEY\r\n\r\n",
        "\r\nGET /price?asset=BTC HTTP/1.1\r\nHost: h\r\nX-API-Key: KEY\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nhost:h\r\nx-api-key:\t KEY \t\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nHost:\r\nX-API-Key: KEY\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nHost: [::1]:8080\r\nAuthorization: Bearer KEY\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nHost: h\r\nauthorization: bEARER   KEY\r\nX-Empty:\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nHost: h\r\nX-API-Key: KEY\r\nContent-Length: 0\r\n\r\n",
        "GET http://h/price?asset=BTC HTTP/1.1\r\nHost: H\r\nX-API-Key: KEY\r\n\r\n",
        "GET HTTPS://h:1/price?asset=BTC HTTP/1.1\r\nHost: h:1\r\nX-API-Key: KEY\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nHost: h\r\nX-API-Key: KEY\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nHost: h\r\nX-API-Key: KEY\r\nExpect: 100-continue\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nHost: h\r\nX-Caf\u{e9}: \u{e9}\r\nX-API-Key: KEY\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.0\r\nX-API-Key: KEY\r\nConnection: keep-alive\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nHost: h\r\nX-API-Key: KEY\r\nAuthorization: Basic eDp5\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nHost: h\r\nX-API-Key: KEY\r\nAuthorization: Bearer KEY\r\n\r\n",
        "HEAD /price?asset=BTC HTTP/1.1\r\nHost: h\r\nX-API-Key: KEY\r\n\r\n",
    ] {
        let request = request.replace("X-Caf\u{e9}", "X-Cafe").replace("KEY", KEY);
        check(&request, 200, "");
    }
}

#[test]
fn malformed_heads() {
    let price = "GET /price?asset=BTC HTTP/1.1\r\nHost: h\r\n";
    for fields in [
        // Two lengths, or none that can be trusted.
        "Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        "Content-Length: +5\r\n\r\n",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 0x5\r\n\r\n",
        "Content-Length: 5, 5\r\n\r\n",
        "Content-Length: 5 5\r\n\r\n",
        "Content-Length:\r\n\r\n",
        "Content-Length: 99999999999999999999\r\n\r\n",
        "Transfer-Encoding: gzip\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n",
        "Transfer-Encoding: chunked, chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n",
        "Transfer-Encoding:\r\n\r\n",
        // Lines.
        "X: y\n\r\n",
        "X: y\r\n\n",
        "\n",
        "X: y\rZ: z\r\n\r\n",
        "X: y\r\r\n\r\n",
        "X: y\r\n folded\r\n\r\n",
        "X: y\r\n\tfolded\r\n\r\n",
        " X: y\r\n\r\n",
        // Fields.
        "X : y\r\n\r\n",
        "X\t: y\r\n\r\n",
        ": y\r\n\r\n",
        "X\r\n\r\n",
        "X y: z\r\n\r\n",
        "X@: z\r\n\r\n",
        "X: a\0b\r\n\r\n",
        "X\0: b\r\n\r\n",
        "X: a\x01b\r\n\r\n",
        "X: a\x7fb\r\n\r\n",
        "\u{e9}: b\r\n\r\n",
        // Hosts.
        "Host: h\r\n\r\n",
        "host: other\r\n\r\n",
    ] {
        malformed(&format!("{price}{fields}"));
    }
    for head in [
        "GET /price?asset=BTC HTTP/1.1\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.1\r\nHost: me@a\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET /price?asset=BTC HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET http://other/price?asset=BTC HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http:///price?asset=BTC HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://h?asset=BTC HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET ftp://h/price?asset=BTC HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        malformed(head);
    }
}

#[test]
fn malformed_request_lines() {
    for line in [
        "GET /price?asset=BTC",
        "GET /price?asset=BTC HTTP/2.0",
        "GET /price?asset=BTC HTTP/1.2",
        "GET /price?asset=BTC HTTP/0.9",
        "GET /price?asset=BTC HTTP/11",
        "GET /price?asset=BTC http/1.1",
        "GET  /price?asset=BTC HTTP/1.1",
        "GET /price?asset=BTC  HTTP/1.1",
        "GET\t/price?asset=BTC\tHTTP/1.1",
        " GET /price?asset=BTC HTTP/1.1",
        "GET /price?asset=BTC HTTP/1.1 ",
        "GET /price?asset=B TC HTTP/1.1",
        "GET /price?asset=B\u{e9}TC HTTP/1.1",
        "GET /price?asset=BTC#x HTTP/1.1",
        "GET price?asset=BTC HTTP/1.1",
        "GET * HTTP/1.1",
        "CONNECT h:80 HTTP/1.1",
        "G(T /price?asset=BTC HTTP/1.1",
        "/price?asset=BTC HTTP/1.1",
        "GET HTTP/1.1",
        "PRI * HTTP/2.0",
    ] {
        malformed(&format!("{line}\r\nHost: h\r\nX-API-Key: {KEY}\r\n\r\n"));
    }
    malformed("\x16\x03\x01\x02\x00\x01\x00\x01");
    malformed("\n");
    malformed("GET /price?asset=BTC HTTP/1.1\nHost: h\n\n");
    malformed("GET /price?asset=\0 HTTP/1.1\r\n");
}

#[test]
fn heads_of_every_size() {
    let line = |length: usize| {
        let frame = "GET /price?asset=BTC&x= HTTP/1.1".len();
        format!("GET /price?asset=BTC&x={} HTTP/1.1\r\nHost: h\r\nX-API-Key: {KEY}\r\n\r\n", "y".repeat(length - frame))
    };
    check(&line(REQUEST_LINE_MAX), 200, "");
    check(&line(REQUEST_LINE_MAX + 1), 431, "head_too_large");
    check(&"G".repeat(REQUEST_LINE_MAX + 2), 431, "head_too_large");

    let head = |length: usize| {
        let start = format!("GET /price?asset=BTC HTTP/1.1\r\nHost: h\r\nX-API-Key: {KEY}\r\nX: ");
        format!("{start}{}\r\n\r\n", "y".repeat(length - start.len() - 4))
    };
    check(&head(REQUEST_HEAD_MAX), 200, "");
    check(&head(REQUEST_HEAD_MAX + 1), 431, "head_too_large");

    let fields = |count: usize| {
        let more: String = (2..count).map(|number| format!("X{number}: y\r\n")).collect();
        format!("GET /price?asset=BTC HTTP/1.1\r\nHost: h\r\nX-API-Key: {KEY}\r\n{more}\r\n")
    };
    check(&fields(REQUEST_FIELDS_MAX), 200, "");
    check(&fields(REQUEST_FIELDS_MAX + 1), 431, "head_too_large");
}

#[test]
fn bodies_are_not_taken() {
    let start = format!("GET /price?asset=BTC HTTP/1.1\r\nHost: h\r\nX-API-Key: {KEY}\r\n");
    check(&format!("{start}Content-Length: 5\r\n\r\nhello"), 413, "body_not_allowed");
    check(&format!("{start}Content-Length: 000\r\n\r\n"), 200, "");
    check(&format!("{start}Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"), 413, "body_not_allowed");
    check(&format!("{start}Content-Length: 5\r\n\r\n").replace("/price?", "/prices?"), 413, "body_not_allowed");
    check(&format!("{start}Content-Length: 5\r\n\r\n").replace("GET", "OPTIONS"), 413, "body_not_allowed");
}

#[test]
fn methods() {
    let request = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    for path in ["/price?asset=BTC", "/prices?assets=BTC", "/price", "/prices"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "get", "BREW"] {
            check(&request(method, path), 405, "method_not_allowed");
        }
        check(&request("OPTIONS", path), 204, "");
    }
    let mut world = World::new();
    for (method, status) in [("POST", 405), ("OPTIONS", 204)] {
        let reply = world.ask(&request(method, "/price")).reply();
        assert_eq!((reply.status, reply.field("Allow")), (status, Some("GET, HEAD, OPTIONS")));
    }
    let with_body = "POST /price HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    let outcome = world.ask(with_body);
    assert_eq!((outcome.reply().code(), outcome.step.then), ("method_not_allowed", Then::WriteAndClose));
    assert_eq!(outcome.reply().field("Connection"), Some("close"));
}

#[test]
fn what_is_not_a_price_read_is_handed_over_with_its_bytes() {
    for target in ["/", "/health", "/price?asset=BTC&detail=1", "/price/", "//price", "/PRICE", "/pric%65", "/limits"] {
        let request = get(target, "any");
        let (status, _, then) = judge(request.as_bytes());
        assert_eq!((status, then), (0, Then::HandOver), "{target}");
    }
    let chunked = "POST /admin/keys HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(judge(chunked.as_bytes()).2, Then::HandOver);
    assert_eq!(judge(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").2, Then::HandOver);

    // Answers to requests before it go out first, and it is still there, whole, with what follows it.
    let mut world = World::new();
    let mut connection = world.connect(1);
    let tail = format!("{}xyz", get("/assets", KEY));
    let input = format!("{}{tail}", get("/price?asset=BTC", KEY));
    let outcome = world.serve(&mut connection, input.as_bytes());
    assert_eq!((outcome.step.then, outcome.reply().status), (Then::HandOver, 200));
    assert_eq!(String::from_utf8_lossy(&outcome.rest), tail);
    assert_eq!(world.shard.counters().hand_overs, 1);
}

#[test]
fn framing_is_judged_before_a_hand_over() {
    malformed("GET /assets HTTP/1.1\r\n\r\n");
    malformed("POST /admin HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut world = World::new();
    let mut connection = world.connect(1);
    let names = ["BTC", "NOPE", "ETH", "DOGE", "btc", "OLD", "RNDR"];
    let input: String = (0..300).map(|turn| get(&format!("/price?asset={}", names[turn % 7]), KEY)).collect();
    let outcome = world.serve(&mut connection, input.as_bytes());
    let replies = outcome.replies(false);
    assert_eq!(replies.len(), 300);
    for (turn, reply) in replies.iter().enumerate() {
        let expected = [(200, "BTC"), (404, "NOPE"), (200, "ETH"), (503, "DOGE"), (200, "BTC"), (503, "OLD")];
        let (status, name) = expected.get(turn % 7).copied().unwrap_or((200, "RENDER"));
        assert_eq!(reply.status, status);
        assert!(reply.body.contains(name), "{} has no {name}", reply.body);
    }
    assert_eq!((outcome.step.then, outcome.rest.len()), (Then::Read, 0));
    assert_eq!(world.shard.counters().http_requests, 300);
}

#[test]
fn connections_persist_as_their_clients_wish() {
    let with = |version: &str, fields: &str| {
        format!("GET /price?asset=BTC HTTP/{version}\r\nHost: h\r\nX-API-Key: {KEY}\r\n{fields}\r\n")
    };
    let mut world = World::new();
    for (version, fields, then, says) in [
        ("1.1", "", Then::Read, None),
        ("1.1", "Connection: close\r\n", Then::WriteAndClose, Some("close")),
        ("1.1", "Connection: x, CLOSE\r\n", Then::WriteAndClose, Some("close")),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", Then::WriteAndClose, Some("close")),
        ("1.1", "Connection: keep-alive\r\n", Then::Read, None),
        ("1.0", "", Then::WriteAndClose, Some("close")),
        ("1.0", "Connection: Keep-Alive\r\n", Then::Read, Some("keep-alive")),
    ] {
        let mut connection = world.connect(1);
        let outcome = world.serve(&mut connection, with(version, fields).as_bytes());
        let reply = outcome.reply();
        assert_eq!((outcome.step.then, reply.field("Connection")), (then, says), "{version} {fields:?}");
        // Whatever follows a close is not answered.
        let more = world.serve(&mut connection, with(version, fields).as_bytes());
        assert_eq!(more.sent.is_empty(), then == Then::WriteAndClose);
    }
}

#[test]
fn a_head_has_its_time_from_the_first_byte() {
    let mut world = World::new();
    let mut connection = world.connect(1);
    let request = get("/price?asset=BTC", KEY);
    let idle = world.now.mono_ms() + 315_000;
    assert_eq!(world.serve(&mut connection, b"").step.deadline_mono_ms, idle);
    let first = world.serve(&mut connection, &request.as_bytes()[..1]);
    let deadline = world.now.mono_ms() + 5_000;
    assert_eq!(first.step.deadline_mono_ms, deadline);
    for length in [2, 10, 30] {
        world.pass_ms(1_000);
        let more = world.serve(&mut connection, &request.as_bytes()[..length]);
        assert_eq!(more.step.deadline_mono_ms, deadline, "more bytes do not buy more time");
    }
    let answered = world.serve(&mut connection, format!("{request}GET").as_bytes());
    assert_eq!(answered.replies(false).len(), 1);
    assert_eq!(answered.step.deadline_mono_ms, world.now.mono_ms() + 5_000, "the next head has begun");
    let second = world.serve(&mut connection, request.as_bytes());
    assert_eq!(second.step.deadline_mono_ms, world.now.mono_ms() + 315_000);
}

#[test]
fn refusals_are_counted() {
    let mut world = World::new();
    world.ask("GET / HTTP/1.1\r\n\r\n");
    world.ask(&"x".repeat(5_000));
    let counters = world.shard.counters();
    let refused = |code: shared::code::Code| counters.refused[usize::from(code.number())];
    assert_eq!(refused(shared::code::Code::RequestMalformed), 1);
    assert_eq!(refused(shared::code::Code::HeadTooLarge), 1);
    assert_eq!((counters.http_requests, counters.answered), (2, 0));
    let usage: u64 = world.usage().iter().map(|record| record.requests).sum();
    assert_eq!(usage, 2, "refusals are in the books too");
}
