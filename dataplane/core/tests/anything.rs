//! Whatever arrives, however it is torn apart: no panic, the same answers, and no reply that is too long.

mod world;

use dataplane_core::shard::Then;
use proptest::collection::vec;
use proptest::prelude::*;
use world::{KEY, SLOW_KEY, START, World, binary, get, secret, sign};

/// Pieces that requests are made of, good ones and bad ones.
const PIECES: [&str; 40] = [
    "GET ",
    "HEAD ",
    "OPTIONS ",
    "POST ",
    "/price?asset=BTC",
    "/price?asset=NOPE",
    "/price?asset=BTC&allow_stale=1",
    "/price?asset=BTC&newer_than=1",
    "/price?asset=BTC&newer_than=99999&wait_ms=5",
    "/prices?assets=BTC,ETH",
    "/prices?assets=all",
    "/prices?assets=%2C",
    "/price?detail=1",
    "/health",
    "http://h/price?asset=ETH",
    "*",
    " HTTP/1.1",
    " HTTP/1.0",
    " HTTP/1.1\r\nHost: h\r\n",
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\n",
    "Host: h\r\n",
    "X-API-Key: tb_test_0123456789abcdefghijklmnopqrstuv\r\n",
    "Authorization: Bearer tb_test_0123456789abcdefghijklmnopqrstuv\r\n",
    "X-API-Key: nobody\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "If-None-Match: \"4711\"\r\n",
    "If-None-Match: *\r\n",
    "X: y",
    ": ",
    " ",
    "\0",
    "\u{e9}",
    "%",
];

/// A stream of bytes that is sometimes nearly HTTP.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![
        Just(get("/price?asset=BTC", KEY)),
        Just(get("/price?asset=ETH&allow_stale=1", KEY)),
        Just(get("/prices?assets=all", KEY)),
        Just(get("/prices?assets=BTC,ETH,NOPE&ignore_unknown=1", KEY)),
        Just(get("/price?asset=BTC", SLOW_KEY)),
        Just(get("/price?asset=OLD", "nobody")),
        Just(get("/price?asset=BTC&newer_than=99999&wait_ms=5", KEY)),
        Just(get("/price?asset=DOGE&newer_than=5&wait_ms=30000", KEY)),
        Just(get("/price?asset=NOPE", KEY)),
        Just(get("/prices?assets=DOGE,BTC,NOPE2", KEY)),
    ];
    let piece = (0..PIECES.len()).prop_map(|at| PIECES[at].to_owned());
    let text = prop_oneof![3 => good, 2 => vec(piece, 1..8).prop_map(|pieces| pieces.concat())];
    let part = prop_oneof![8 => text.prop_map(String::into_bytes), 1 => vec(any::<u8>(), 0..60)];
    vec(part, 1..12).prop_map(|parts| parts.concat())
}

/// Sends `input` cut at these places (taken modulo what is left), as an engine does. Answers all bytes sent.
fn play(input: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<Then>) {
    let mut world = World::with(world::records(), 1, 60);
    let mut connection = world.connect(1);
    let (mut sent, mut unread) = (Vec::new(), Vec::new());
    let mut cuts = cuts.iter().map(|cut| cut % 97 + 1).cycle();
    let mut rest = input;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(cuts.next().unwrap_or(rest.len()).min(rest.len()));
        rest = later;
        unread.extend_from_slice(now);
        let then = loop {
            let outcome = world.serve(&mut connection, &unread);
            assert!(outcome.step.consumed <= unread.len() && outcome.step.deadline_mono_ms > world.now.mono_ms());
            sent.extend_from_slice(&outcome.sent);
            unread = outcome.rest;
            if outcome.step.then != Then::Wait {
                break outcome.step.then;
            }
            // Nothing newer comes, so its time runs out.
            world.pass_ms(30_000);
            world.shard.idle_tick(world.now, &mut world.ready);
            assert_eq!(world.ready.streams.drain(..).count(), 1);
        };
        if then != Then::Read {
            return (sent, Some(then));
        }
    }
    world.shard.close_stream(&mut connection);
    assert_eq!(world.shard.counters().waiting, 0);
    let counters = world.shard.counters().clone();
    let booked: u64 = world.usage().iter().map(|record| record.requests).sum();
    assert_eq!(booked, counters.http_requests, "what was answered is in the books");
    (sent, None)
}

/// A JSON datagram that is sometimes nearly one.
fn object() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![Just("key"), Just("asset"), Just("assets"), Just("id"), Just("pad"), Just("allow_stale")];
    let asset = prop_oneof![Just("BTC"), Just("ETH"), Just("NOPE"), Just("OLD"), Just("RNDR"), Just("B\\u0054C")];
    let value = prop_oneof![
        4 => Just(format!("\"{KEY}\"")),
        4 => asset.clone().prop_map(|asset| format!("\"{asset}\"")),
        4 => vec(asset, 0..10).prop_map(|assets| format!("[\"{}\"]", assets.join("\",\""))),
        3 => any::<u64>().prop_map(|number| number.to_string()),
        2 => (0..400_usize).prop_map(|length| format!("\"{}\"", "x".repeat(length))),
        1 => Just("{\"a\":[true,null,{\"b\":-1.5e3}]}".to_owned()),
        1 => Just("1e".to_owned()),
    ];
    let fields = vec((name, value), 0..6).prop_map(|fields| {
        fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect::<Vec<_>>().join(",")
    });
    let with_key = (any::<bool>(), fields).prop_map(|(is_known, fields)| {
        let key = if is_known { format!("\"key\":\"{KEY}\",") } else { String::new() };
        format!("{{{key}{fields}}}").into_bytes()
    });
    (with_key, vec((any::<usize>(), any::<u8>()), 0..3), any::<bool>()).prop_map(|(mut bytes, spoils, is_spoilt)| {
        for (at, byte) in spoils.into_iter().filter(|_| is_spoilt) {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn streams_get_the_same_answers_however_they_are_torn(input in stream(), cuts in vec(any::<usize>(), 1..20)) {
        let whole = play(&input, &[]);
        prop_assert_eq!(play(&input, &cuts), whole);
    }

    #[test]
    fn any_bytes_are_survived(input in vec(any::<u8>(), 0..2_000), cuts in vec(any::<usize>(), 1..20)) {
        play(&input, &cuts);
    }

    #[test]
    fn json_datagrams_never_gain_from_us(request in object()) {
        let mut world = World::new();
        let reply = world.datagram(&request);
        prop_assert!(reply.len() <= 1_200 && reply.len() <= 3 * request.len());
        let text = String::from_utf8_lossy(&reply).into_owned();
        if text.contains("\"code\":") {
            prop_assert!(reply.len() <= request.len(), "an error longer than its request: {}", text);
        }
        let is_known = request.windows(KEY.len()).any(|window| window == KEY.as_bytes());
        prop_assert!(is_known || reply.is_empty(), "an answer to nobody: {}", text);
    }

    #[test]
    fn any_datagram_is_survived(request in vec(any::<u8>(), 0..600), magic in 0_u8..4, port in any::<u16>()) {
        let mut request = request;
        let start: &[u8] = [&b"{"[..], b"TB\x01\x01", b"TR", b""][usize::from(magic)];
        request.splice(..start.len().min(request.len()), start.iter().copied());
        let mut world = World::new();
        prop_assert!(world.datagram_from(port, &request).is_empty());
    }

    #[test]
    fn frames_with_a_good_mac_get_one_frame_back(tail in vec(any::<u8>(), 64), id in 1_u32..6) {
        let mut frame = binary(id, &secret(id), "BTC", START.wall_ms);
        let mut world = World::new();
        prop_assert_eq!(world.datagram(&frame).len(), if id == 4 { 0 } else { 64 });
        frame[8..40].copy_from_slice(&tail[8..40]);
        frame[56..].copy_from_slice(&tail[56..]);
        sign(&mut frame, &secret(id));
        prop_assert_eq!(world.datagram(&frame).len(), if id == 4 { 0 } else { 64 });
    }
}
