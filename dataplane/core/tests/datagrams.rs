//! Datagrams through the seam: what is answered, with what, and above all what is not.

mod world;

use shared::code::Code;
use shared::key::{KeyId, KeyRecord};
use shared::tick::{TICK_CONVERTED, TICK_SIMULATED};
use world::{KEY, OLD_KEY, REPORT_KEY, SLOW_KEY, SPENT_KEY, START, World, binary, mac, record, secret, sign, tick};

const PRICE: &str = "\"asset\":\"BTC\",\"price\":\"67123.45\",\"currency\":\"USD\",\"source\":\"median\",\"sources\":5,\
                     \"age_ms\":37,\"stale\":false,\"exchange_time_ms\":1793499999940,\"sequence\":4711}";

fn json(fields: &str) -> String {
    format!("{{\"key\":\"{KEY}\",{fields}}}")
}

#[track_caller]
fn check(request: &str, expected: &str) {
    let mut world = World::new();
    let reply = world.datagram(request.as_bytes());
    assert_eq!(String::from_utf8_lossy(&reply), expected, "{request}");
    assert!(reply.len() <= 3 * request.len() && reply.len() <= 1_200, "{request}");
    let counters = world.shard.counters();
    let silent = u64::from(expected.is_empty());
    assert_eq!((counters.datagrams, counters.datagram_replies, counters.datagrams_silent), (1, 1 - silent, silent));
    let refused: u64 = counters.refused.iter().sum();
    assert_eq!(counters.answered + refused, 1, "each datagram is counted once, for one reason");
    let booked: u64 = world.usage().iter().map(|record| record.requests).sum();
    assert_eq!(booked, 1 - silent, "what is answered is in the books, and nothing else");
}

#[test]
fn json_prices() {
    let one = format!("{{\"id\":7,{PRICE}");
    for fields in [
        "\"asset\":\"BTC\",\"id\":7",
        "\"asset\":\"btc\",\"id\":7",
        "\"asset\":\"XBT\",\"id\":7",
        "\"asset\":\"B\\u0054C\",\"id\":7",
        " \"asset\" : \"BTC\" ,\n\t\"id\":7 ",
        "\"id\":7,\"x\":{\"a\":[1,-2.5e+3,\"\\n\",{},[]],\"b\":null},\"pad\":\"....\",\"asset\":\"BTC\"",
        "\"asset\":\"BTC\",\"id\":7,\"allow_stale\":0,\"x\":[\"ETH\"]",
    ] {
        check(&json(fields), &one);
    }
    check(&json("\"asset\":\"BTC\""), &format!("{{{PRICE}"));
    let largest = "\"asset\":\"BTC\",\"id\":18446744073709551615";
    check(&json(largest), &format!("{{\"id\":18446744073709551615,{PRICE}"));
    check(&format!(" {}", json("\"asset\":\"BTC\"")), "");
}

#[test]
fn several_json_prices() {
    let pad = "x".repeat(200);
    let several = |assets: &str| json(&format!("\"assets\":[{assets}],\"id\":7,\"pad\":\"{pad}\""));
    let reply = |prices: &str, missing: &str| {
        format!("{{\"id\":7,\"generation\":4714,\"prices\":[{prices}],\"missing\":[{missing}]}}")
    };
    check(&several("\"BTC\""), &reply(&format!("{{{PRICE}"), ""));
    check(&several("\"NOPE\",\"BTC\",\"DOGE\",\"OLD\""), &reply(&format!("{{{PRICE}"), "\"NOPE\",\"DOGE\",\"OLD\""));
    check(&several("\"NOPE\""), &reply("", "\"NOPE\""));
    let error = |status: u16, code: &str| format!("{{\"id\":7,\"status\":{status},\"code\":\"{code}\"}}");
    check(&several(""), &error(400, "asset_missing"));
    check(&several(&["\"BTC\""; 9].join(",")), &error(400, "too_many_assets"));
    check(&several("\"BTC\",5"), &error(400, "request_malformed"));
    check(&several("\"BTC\",[\"ETH\"]"), &error(400, "request_malformed"));
    check(&several("\"BTC-USD\""), &error(400, "asset_invalid"));
    check(&several("\"BTC\"").replace("\"pad\"", "\"asset\""), &error(400, "request_malformed"));
    let long = json(&format!("\"assets\":[{}],\"id\":7", ["\"BTC\"", "\"ETH\"", "\"RENDER\""].join(",")));
    check(&long, &error(400, "reply_too_long"));
}

#[test]
fn json_refusals() {
    let error = |status: u16, code: &str| format!("{{\"id\":7,\"status\":{status},\"code\":\"{code}\"}}");
    for (fields, status, code) in [
        ("\"id\":7", 400, "asset_missing"),
        ("\"id\":7,\"asset\":\"\"", 400, "asset_missing"),
        ("\"id\":7,\"asset\":\"B C\"", 400, "asset_invalid"),
        ("\"id\":7,\"asset\":\"ABCDEFGHIJKLMNOPQ\"", 400, "asset_invalid"),
        ("\"id\":7,\"asset\":\"\\ud800\"", 400, "asset_invalid"),
        ("\"id\":7,\"asset\":5", 400, "request_malformed"),
        ("\"id\":7,\"asset\":\"NOPE\"", 404, "asset_unknown"),
        ("\"id\":7,\"asset\":\"DOGE\"", 503, "price_unavailable"),
        ("\"id\":7,\"asset\":\"OLD\"", 503, "price_stale"),
    ] {
        check(&json(fields), &error(status, code));
    }
    for id in ["\"7\"", "-7", "7.0", "18446744073709551616", "null", "[7]"] {
        check(&json(&format!("\"asset\":\"BTC\",\"id\":{id}")), "{\"status\":400,\"code\":\"request_malformed\"}");
    }
    let for_key = |key: &str| format!("{{\"key\":\"{key}\",\"asset\":\"BTC\",\"id\":7}}");
    check(&for_key(REPORT_KEY), &error(403, "not_permitted"));
    check(&for_key(SPENT_KEY), &error(429, "rate_limited_month"));
    let stale = World::new().datagram(json("\"asset\":\"OLD\",\"allow_stale\":true").as_bytes());
    assert!(String::from_utf8_lossy(&stale).contains("\"stale\":true"));
}

#[test]
fn json_silence() {
    let good = json("\"asset\":\"BTC\",\"id\":7");
    let unknown = good.replace(KEY, "tb_none_0123456789abcdefghijklmnopqrstuv");
    for request in [
        unknown.as_str(),
        &good.replace(KEY, OLD_KEY),
        &good.replace(KEY, ""),
        &good.replace("\"key\"", "\"Key\""),
        &good.replace(&format!("\"{KEY}\""), "5"),
        "{}",
        "{\"asset\":\"BTC\"}",
        // Not one JSON object.
        "{",
        &good[..good.len() - 1],
        &format!("{good}x"),
        &format!("{good}{good}"),
        &good.replace("7}", "7,}"),
        &good.replace("{\"", "{,\""),
        &good.replace(':', "="),
        &good.replace("\"id\":7", "\"id\":07"),
        &good.replace("\"id\":7", "\"id\":+7"),
        &good.replace("\"id\":7", "\"id\":.7"),
        &good.replace("\"id\":7", "\"id\":7."),
        &good.replace("\"id\":7", "\"id\":tru"),
        &good.replace("\"id\":7", "\"x\":\"\\x\""),
        &good.replace("\"id\":7", "\"x\":\"\\u00g0\""),
        &good.replace("\"id\":7", "\"x\":\"\u{1}\""),
        &good.replace("\"id\":7", "\"x\":[1,]"),
        &good.replace("\"id\":7", "\"x\":[1}"),
        &good.replace("\"id\":7", "\"x\":[[[[[[[[[[1]]]]]]]]]]"),
        // A field of ours twice.
        &good.replace("\"id\":7", "\"asset\":\"ETH\""),
        &good.replace("\"id\":7", &format!("\"key\":\"{KEY}\"")),
        &good.replace("\"id\":7", "\"id\":7,\"id\":8"),
        // Longer than a datagram may be.
        &good.replace("\"id\":7", &format!("\"pad\":\"{}\"", "x".repeat(500))),
        "",
        "GET /price?asset=BTC HTTP/1.1\r\n\r\n",
        "[]",
        "T",
        "TR",
        "TB",
    ] {
        check(request, "");
    }
    let mut not_text = good.clone().into_bytes();
    *not_text.last_mut().expect("a byte") = 0xFF;
    assert!(World::new().datagram(&not_text).is_empty());
}

#[test]
fn what_is_over_the_limit_costs_the_network_nothing() {
    let mut world = World::new();
    let long = format!("{{\"key\":\"{SLOW_KEY}\",\"asset\":\"BTC\",\"id\":7}}");
    for _ in 0..3 {
        assert!(world.datagram(long.as_bytes()).len() > 100);
    }
    let refused = world.datagram(long.as_bytes());
    assert_eq!(String::from_utf8_lossy(&refused), "{\"id\":7,\"status\":429,\"code\":\"rate_limited_second\"}");
    // With a key so short that even the error would be longer than the request, there is none.
    world.use_keys(vec![record(1, "k", 1)]);
    let short = "{\"key\":\"k\",\"asset\":\"BTC\"}";
    assert!(world.datagram(short.as_bytes()).is_empty(), "three times 25 bytes do not hold a price");
    assert!(world.datagram(short.as_bytes()).is_empty());
    assert_eq!(world.shard.counters().refused[usize::from(Code::RateLimitedSecond.number())], 2);
}

#[test]
fn nobody_is_made_to_talk_to_himself() {
    let mut world = World::new();
    let good = json("\"asset\":\"BTC\"");
    let frame = binary(1, &secret(1), "BTC", START.wall_ms);
    for port in [0, 7, 13, 17, 19, 53, 123, 1_900, 11_211] {
        assert!(world.datagram_from(port, good.as_bytes()).is_empty(), "{port}");
        assert!(world.datagram_from(port, &frame).is_empty(), "{port}");
    }
    assert!(!world.datagram_from(54, good.as_bytes()).is_empty());
    let reply = world.datagram(&frame);
    assert_eq!(reply.len(), 64);
    assert!(world.datagram(&reply).is_empty(), "a reply is no request");
    let reply = world.datagram(good.as_bytes());
    assert!(world.datagram(&reply).is_empty(), "a reply is no request");
}

/// A reply frame, read as the contract lays it out.
#[track_caller]
fn read(reply: &[u8]) -> (u8, Vec<u64>, [u8; 8]) {
    assert_eq!((reply.len(), &reply[..3]), (64, &[0x54, 0x52, 1][..]));
    let number = |at: usize, width: usize| {
        reply[at..at + width].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let widths = [(4, 2), (6, 1), (7, 1), (8, 8), (16, 8), (24, 8), (32, 8), (40, 8), (48, 2), (50, 2), (52, 4)];
    let fields = widths.into_iter().map(|(at, width)| number(at, width)).collect();
    (reply[3], fields, reply[56..].try_into().expect("eight bytes"))
}

#[test]
fn binary_prices() {
    let mut world = World::new();
    let request = binary(1, &secret(1), "BTC", START.wall_ms);
    let reply = world.datagram(&request);
    let (status, fields, tag) = read(&reply);
    assert_eq!(status, 0);
    let exponent = u64::from((-2_i8).to_le_bytes()[0]);
    let times = [START.wall_ms - 60, START.wall_ms - 37];
    let expected = [0, exponent, 1, 0x0102_0304_0506_0708, 4_711, 6_712_345, times[0], times[1], 5, 31, 180];
    assert_eq!(fields, expected);
    assert_eq!(tag, mac(&secret(1), &reply[..56])[..8]);

    let mut converted = tick(1, 9_000, -5);
    converted.flags = TICK_CONVERTED | TICK_SIMULATED;
    converted.currency = 2;
    world.publish(converted);
    let reply = world.datagram(&binary(1, &secret(1), "ETH", START.wall_ms));
    let (_, fields, tag) = read(&reply);
    assert_eq!((fields[0], fields[2], fields[5], fields[10]), (6, 2, (-5_i64).cast_unsigned(), u64::from(u32::MAX)));
    assert_eq!(tag, mac(&secret(1), &reply[..56])[..8]);
}

#[test]
fn binary_refusals_say_only_their_status() {
    let mut world = World::new();
    let now = START.wall_ms;
    let spoil = |at: usize, byte: u8| {
        let mut frame = binary(1, &secret(1), "BTC", now);
        frame[at] = byte;
        sign(&mut frame, &secret(1));
        frame
    };
    for (request, status) in [
        (binary(1, &secret(1), "NOPE", now), 1),
        (binary(1, &secret(1), "OLD", now), 2),
        (binary(1, &secret(1), "DOGE", now), 3),
        (binary(5, &secret(5), "BTC", now), 6),
        (spoil(2, 2), 9),
        (spoil(3, 0), 9),
        (spoil(56, 1), 9),
        (spoil(63, 1), 9),
        (binary(1, &secret(1), "BTC", now + 30_001), 10),
        (binary(1, &secret(1), "BTC", now - 30_001), 10),
        (binary(1, &secret(1), "BTC", u64::MAX), 10),
        (binary(1, &secret(1), "btc", now), 11),
        (binary(1, &secret(1), "", now), 11),
        (spoil(30, b'X'), 11),
        (binary(3, &secret(3), "BTC", now), 12),
        (binary(1, &secret(1), "BTC", now + 30_000), 0),
        (binary(1, &secret(1), "BTC", now - 30_000), 0),
    ] {
        let reply = world.datagram(&request);
        let (seen, fields, tag) = read(&reply);
        assert_eq!((seen, fields[3]), (status, 0x0102_0304_0506_0708));
        let id = u32::from_le_bytes(request[4..8].try_into().expect("four bytes"));
        assert_eq!(tag, mac(&secret(id), &reply[..56])[..8]);
        if status != 0 {
            assert!(fields.iter().enumerate().all(|(at, field)| at == 3 || *field == 0), "{fields:?}");
            assert!(world.shard.counters().refused[usize::from(status)] > 0);
        }
    }
    let mut slow = || read(&world.datagram(&binary(2, &secret(2), "BTC", now))).0;
    assert_eq!([slow(), slow(), slow(), slow()], [0, 0, 0, 5]);
}

#[test]
fn binary_silence() {
    let mut world = World::new();
    let good = binary(1, &secret(1), "BTC", START.wall_ms);
    for at in 0..56 {
        for bit in [1, 128] {
            let mut spoilt = good.clone();
            spoilt[at] ^= bit;
            assert!(world.datagram(&spoilt).is_empty(), "bit {bit} of byte {at}");
        }
    }
    assert!(world.datagram(&good[..63]).is_empty());
    assert!(world.datagram(&[good.as_slice(), &[0]].concat()).is_empty());
    assert!(world.datagram(&binary(4, &secret(4), "BTC", START.wall_ms)).is_empty(), "an expired key");
    assert!(world.datagram(&binary(77, &secret(77), "BTC", START.wall_ms)).is_empty(), "an unknown key");
    assert!(world.datagram(&binary(1, &secret(2), "BTC", START.wall_ms)).is_empty(), "another key's secret");
    let counters = world.shard.counters();
    assert_eq!(counters.datagrams, counters.datagrams_silent);
    assert!(world.usage().is_empty());
}

#[test]
fn a_replay_that_is_too_old_is_not_charged() {
    let mut world = World::new();
    let old = binary(2, &secret(2), "BTC", START.wall_ms - 40_000);
    for _ in 0..10 {
        assert_eq!(read(&world.datagram(&old)).0, 10);
    }
    assert_eq!(read(&world.datagram(&binary(2, &secret(2), "BTC", START.wall_ms))).0, 0);
}

/// Status of the reply to this key's datagram, which must be signed with the same secret; `None` for silence.
#[track_caller]
fn status(world: &mut World, id: u32, secret: &[u8; 16]) -> Option<u8> {
    let reply = world.datagram(&binary(id, secret, "BTC", world.now.wall_ms));
    (!reply.is_empty()).then(|| {
        let (status, _, tag) = read(&reply);
        assert_eq!(tag, mac(secret, &reply[..56])[..8]);
        status
    })
}

/// Requests in the books since they were last read, by key.
fn booked(world: &mut World) -> Vec<(u32, u64)> {
    let mut booked = std::collections::BTreeMap::new();
    world.usage().iter().for_each(|record| *booked.entry(record.key).or_default() += record.requests);
    booked.into_iter().collect()
}

/// A key for prices with a limit that no test reaches, or with three a second.
fn plain(id: u32) -> KeyRecord {
    record(id, &format!("key {id}"), 10_000_000)
}

fn slow(id: u32) -> KeyRecord {
    record(id, &format!("key {id}"), 3)
}

fn with_secret(id: u32, secret: [u8; 16]) -> KeyRecord {
    KeyRecord { udp_secret: secret, ..plain(id) }
}

#[test]
fn a_key_that_was_remembered_is_what_the_present_directory_says() {
    let new = secret(1_000);
    let check_spent = |after: Vec<KeyRecord>, spent: &[u32], old_secret, new_secret, charged: &[(u32, u64)]| {
        let mut world = World::with(vec![plain(1), plain(2)], 1, 0);
        // Remembered, at its first datagram and at the next.
        assert_eq!([(); 2].map(|()| status(&mut world, 1, &secret(1))), [Some(0); 2]);
        assert_eq!(booked(&mut world), [(1, 2)]);
        world.use_keys(after);
        spent.iter().for_each(|id| assert!(world.keys.set_month_used_up(KeyId(*id), true)));
        assert_eq!([(); 2].map(|()| status(&mut world, 1, &secret(1))), [old_secret; 2]);
        assert_eq!([(); 2].map(|()| status(&mut world, 1, &new)), [new_secret; 2]);
        assert_eq!(booked(&mut world), charged);
    };
    let check = |after, old_secret, new_secret, charged| check_spent(after, &[], old_secret, new_secret, charged);
    check(vec![plain(1), plain(2)], Some(0), None, &[(1, 2)]);
    // Revoked; another key is in its slot, or none is.
    check(vec![plain(2)], None, None, &[]);
    check(vec![], None, None, &[]);
    // A new secret.
    check(vec![with_secret(1, new), plain(2)], None, Some(0), &[(1, 2)]);
    // The same in another slot, its own now another's, whose month is used up.
    check_spent(vec![plain(2), plain(1)], &[2], Some(0), None, &[(1, 2)]);
    check(vec![plain(3), plain(2), with_secret(1, new)], None, Some(0), &[(1, 2)]);
    // What the new record says of the key itself holds at once.
    check_spent(vec![KeyRecord { id: plain(1).id, ..plain(2) }], &[1], None, None, &[]);
    check_spent(vec![plain(1)], &[1], Some(6), None, &[(1, 2)]);
    check(vec![KeyRecord { expires_at_ms: START.wall_ms - 1, ..plain(1) }], None, None, &[]);
}

#[test]
fn a_key_that_expires_while_it_is_remembered_meets_silence() {
    let mut world = World::with(vec![KeyRecord { expires_at_ms: START.wall_ms + 10, ..plain(1) }], 1, 0);
    for (pass_ms, expected) in [(0, Some(0)), (9, Some(0)), (1, None), (0, None), (60_000, None)] {
        world.pass_ms(pass_ms);
        assert_eq!(status(&mut world, 1, &secret(1)), expected, "{} ms", world.now.wall_ms - START.wall_ms);
    }
    assert_eq!(booked(&mut world), [(1, 2)]);
}

#[test]
fn keys_that_share_a_place_are_charged_each_for_its_own() {
    // Numbers 64 apart are remembered at one place.
    let mut world = World::with(vec![plain(1), plain(65), slow(129)], 1, 0);
    for round in 0..5 {
        assert_eq!(status(&mut world, 1, &secret(1)), Some(0));
        assert_eq!(status(&mut world, 65, &secret(65)), Some(0));
        assert_eq!(status(&mut world, 129, &secret(129)), Some(if round < 3 { 0 } else { 5 }));
        // Nobody's datagrams, in between: neither answered nor in anybody's books, and those who follow are answered.
        for (id, other) in [(1, 65), (65, 129), (129, 1), (193, 193)] {
            assert_eq!(status(&mut world, id, &secret(other)), None);
        }
    }
    assert_eq!(booked(&mut world), [(1, 5), (65, 5), (129, 5)]);
}
