//! What well-formed requests are answered with: bodies, fields, keys, limits, parameters, waiting.

mod world;

use dataplane_core::command::{ShardCommand, ShardParameters};
use dataplane_core::shard::Then;
use shared::asset::AssetDirectory;
use shared::usage::Endpoint;
use std::sync::Arc;
use world::{KEY, OLD_KEY, REPORT_KEY, Reply, SLOW_KEY, SPENT_KEY, World, get, tick};

const BTC: &str = "{\"asset\":\"BTC\",\"price\":\"67123.45\",\"currency\":\"USD\",\"source\":\"median\",\"sources\":5,\
                   \"spread_bps\":\"1.8\",\"tier\":\"local\",\"exchange_time_ms\":1793499999940,\
                   \"received_time_ms\":1793499999963,\"age_ms\":37,\"stale\":false,\"sequence\":4711}";
const ETH: &str = "{\"asset\":\"ETH\",\"price\":\"3456.78\",\"currency\":\"USD\",\"source\":\"median\",\"sources\":5,\
                   \"tier\":\"local\",\"exchange_time_ms\":1793499999940,\
                   \"received_time_ms\":1793499999963,\"age_ms\":37,\"stale\":false,\"sequence\":4712}";

fn with_fields(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

#[track_caller]
fn check(target: &str, status: u16, code: &str) -> Reply {
    let reply = World::new().get(target, KEY);
    assert_eq!((reply.status, reply.code()), (status, code), "{target}: {}", reply.body);
    reply
}

#[test]
fn a_price_and_its_head() {
    let reply = check("/price?asset=BTC", 200, "");
    assert_eq!(reply.body, BTC);
    let fields: Vec<_> = reply.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        fields,
        [
            ("Content-Type", "application/json"),
            ("Cache-Control", "private, max-age=1"),
            ("Date", "Sun, 01 Nov 2026 02:26:40 GMT"),
            ("Content-Length", "223"),
            ("ETag", "\"4711\""),
        ]
    );
}

#[test]
fn the_three_ways_to_an_answer_agree() {
    let mut world = World::new();
    let mut connection = world.connect(1);
    let plain = get("/price?asset=BTC", KEY);
    let parsed = world.serve(&mut connection, plain.as_bytes());
    let remembered = world.serve(&mut connection, plain.as_bytes());
    let recalled = world.serve(&mut connection, get("/price?asset=BTC&allow_stale=0", KEY).as_bytes());
    assert_eq!(parsed.reply(), remembered.reply());
    assert_eq!(parsed.reply(), recalled.reply());
    world.pass_ms(123_456);
    assert!(world.serve(&mut connection, plain.as_bytes()).reply().body.contains("\"age_ms\":123493,"));
    world.publish(tick(0, 5_000, 1));
    assert!(world.serve(&mut connection, plain.as_bytes()).reply().body.contains("\"price\":\"0.01\""));
    world.publish(tick(0, 4_999, 2));
    assert!(world.serve(&mut connection, plain.as_bytes()).reply().body.contains("\"sequence\":5000"));
}

#[test]
fn price_parameters() {
    for target in [
        "/price?asset=btc",
        "/price?asset=%42%54c",
        "/price?%61sset=BTC",
        "/price?asset=BTC&unknown=1&unknown=%20+",
        "/price?&&asset=BTC&",
        "/price?asset=BTC&detail=0&wait_ms=30000&allow_stale=false",
        "/price?asset=BTC&newer_than=4710",
        "/price?asset=XBT",
        "/price?asset=BTC&a_parameter_with_a_very_long_name_that_nobody_knows=1",
    ] {
        assert_eq!(check(target, 200, "").body, BTC, "{target}");
    }
    for (target, status, code) in [
        ("/price", 400, "asset_missing"),
        ("/price?", 400, "asset_missing"),
        ("/price?asset", 400, "asset_missing"),
        ("/price?asset=", 400, "asset_missing"),
        ("/price?assets=BTC", 400, "asset_missing"),
        ("/price?asset=BTC-USD", 400, "asset_invalid"),
        ("/price?asset=B%20TC", 400, "asset_invalid"),
        ("/price?asset=BTC+", 400, "asset_invalid"),
        ("/price?asset=%00", 400, "asset_invalid"),
        ("/price?asset=%4", 400, "asset_invalid"),
        ("/price?asset=ABCDEFGHIJKLMNOPQ", 400, "asset_invalid"),
        ("/price?asset=BTC,ETH", 400, "asset_invalid"),
        ("/price?asset=BTC&asset=BTC", 400, "parameter_invalid"),
        ("/price?asset=BTC&allow_stale=yes", 400, "parameter_invalid"),
        ("/price?asset=BTC&allow_stale=", 400, "parameter_invalid"),
        ("/price?asset=BTC&detail=2", 400, "parameter_invalid"),
        ("/price?asset=BTC&newer_than=-1", 400, "parameter_invalid"),
        ("/price?asset=BTC&newer_than=18446744073709551616", 400, "parameter_invalid"),
        ("/price?asset=BTC&wait_ms=30001", 400, "parameter_invalid"),
        ("/price?asset=BTC&wait_ms=1e3", 400, "parameter_invalid"),
        ("/price?asset=BTC&wait_ms=1&wait_ms=1", 400, "parameter_invalid"),
        ("/price?asset=BTC&%zz=1", 400, "parameter_invalid"),
        ("/price?asset=NOPE", 404, "asset_unknown"),
        ("/price?asset=DOGE", 503, "price_unavailable"),
        ("/price?asset=OLD", 503, "price_stale"),
    ] {
        let reply = check(target, status, code);
        assert_eq!(reply.field("Retry-After"), (status == 503).then_some("1"), "{target}");
        let document = format!("{{\"type\":\"/docs#{code}\",\"title\":\"");
        assert!(reply.body.starts_with(&document), "{}", reply.body);
        assert!(reply.body.contains(&format!("\",\"status\":{status},\"code\":\"{code}\",\"detail\":\"")));
    }
    assert!(check("/price?asset=OLD&allow_stale=1", 200, "").body.contains("\"stale\":true"));
}

#[test]
fn keys() {
    let unknown = "tb_none_0123456789abcdefghijklmnopqrstuv";
    let bearer = |key: &str| format!("Authorization: Bearer {key}\r\n");
    let header = |key: &str| format!("X-API-Key: {key}\r\n");
    let mut bodies = Vec::new();
    for (fields, status, code) in [
        (String::new(), 401, "key_missing"),
        ("X-API-Key: \r\n".to_owned(), 401, "key_missing"),
        ("Authorization: Bearer \r\n".to_owned(), 401, "key_missing"),
        ("Authorization: Basic eDp5\r\n".to_owned(), 401, "key_missing"),
        (format!("Authorization: {KEY}\r\n"), 401, "key_missing"),
        (header(unknown), 401, "key_invalid"),
        (bearer(unknown), 401, "key_invalid"),
        (header(OLD_KEY), 401, "key_invalid"),
        (header(&KEY.to_uppercase()), 401, "key_invalid"),
        (header(&KEY.repeat(4)), 401, "key_invalid"),
        (header(&KEY[..39]), 401, "key_invalid"),
        (format!("{}{}", header(KEY), bearer(unknown)), 401, "key_invalid"),
        (format!("{}{}", bearer(SLOW_KEY), header(KEY)), 401, "key_invalid"),
        (format!("{}{}", header(KEY), header(unknown)), 401, "key_invalid"),
        (header(REPORT_KEY), 403, "not_permitted"),
        (header(SPENT_KEY), 429, "rate_limited_month"),
        (format!("{}{}", header(KEY), bearer(KEY)), 200, ""),
    ] {
        for target in ["/price?asset=BTC", "/prices?assets=BTC", "/price?asset=%", "/prices"] {
            let reply = World::new().ask(&with_fields(target, &fields)).reply();
            if status == 200 && target.len() < 15 {
                continue;
            }
            assert_eq!((reply.status, reply.code()), (status, code), "{fields}");
            assert_eq!(reply.field("WWW-Authenticate"), (status == 401).then_some("Bearer"));
            if code == "key_invalid" {
                bodies.push(reply);
            }
        }
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "unknown and expired keys are answered alike");
}

#[test]
fn limits_and_what_is_told_of_them() {
    let mut world = World::new();
    let told = |reply: &Reply| {
        let field = |name| reply.field(name).map(str::to_owned);
        (reply.status, field("RateLimit-Policy"), field("RateLimit"), field("Retry-After"))
    };
    let some = |text: &str| Some(text.to_owned());
    let policy = some("\"key\";q=3;w=1");
    for _ in 0..2 {
        for _ in 0..2 {
            assert_eq!(told(&world.get("/price?asset=BTC", SLOW_KEY)), (200, None, None, None));
        }
        let last = world.get("/price?asset=BTC", SLOW_KEY);
        assert_eq!(last.body, BTC.replace("37", &(37 + (world.now.mono_ms() - 5_000_000)).to_string()));
        assert_eq!(told(&last), (200, policy.clone(), some("\"key\";r=0;t=1"), None));
        for target in ["/price?asset=BTC", "/price?asset=%", "/prices?assets=BTC"] {
            let refused = world.get(target, SLOW_KEY);
            assert_eq!(told(&refused), (429, policy.clone(), some("\"key\";r=0;t=1"), some("1")));
            assert_eq!(refused.code(), "rate_limited_second");
        }
        world.pass_ms(1_000);
    }
    let spent = told(&world.get("/price?asset=BTC", SPENT_KEY));
    let until_december = 29 * 86_400 + 86_400 - 8_800 - 2;
    assert_eq!((spent.0, spent.3), (429, Some(until_december.to_string())));
    assert!(spent.1.is_some() && spent.2.is_some());
}

#[test]
fn conditional_requests() {
    let mut world = World::new();
    for (tags, status) in [
        ("\"4711\"", 304),
        ("W/\"4711\"", 304),
        ("*", 304),
        ("\"1\", \"4711\"", 304),
        ("\"1\",W/\"4711\" ", 304),
        ("\"1\"\r\nIf-None-Match: \"4711\"", 304),
        ("\"4712\"", 200),
        ("4711", 200),
        ("w/\"4711\"", 200),
        ("", 200),
    ] {
        let fields = format!("X-API-Key: {KEY}\r\nIf-None-Match: {tags}\r\n");
        let reply = world.ask(&with_fields("/price?asset=BTC", &fields)).reply();
        assert_eq!(reply.status, status, "{tags}");
        if status == 304 {
            assert_eq!((reply.body.as_str(), reply.field("Content-Length")), ("", None));
            assert_eq!(reply.field("ETag"), Some("\"4711\""));
            assert_eq!(reply.field("Cache-Control"), Some("private, max-age=1"));
            assert!(reply.field("Date").is_some());
        }
    }
    let fields = format!("X-API-Key: {KEY}\r\nIf-None-Match: \"4714\"\r\n");
    assert_eq!(world.ask(&with_fields("/prices?assets=BTC,ETH", &fields)).reply().status, 304);
    assert_eq!(world.ask(&with_fields("/price?asset=NOPE", &fields)).reply().status, 404);
}

#[test]
fn a_head_request_gets_the_head_of_the_answer() {
    let mut world = World::new();
    for target in ["/price?asset=BTC", "/price?asset=NOPE", "/prices?assets=BTC,ETH", "/prices?assets=all", "/price"] {
        let whole = world.get(target, KEY);
        let outcome = world.ask(&get(target, KEY).replace("GET", "HEAD"));
        let head = outcome.replies(true).remove(0);
        assert_eq!((head.status, head.fields), (whole.status, whole.fields), "{target}");
        assert!(outcome.sent.ends_with(b"\r\n\r\n"));
    }
}

#[test]
fn several_prices() {
    let body =
        |prices: &str, missing: &str| format!("{{\"generation\":4714,\"prices\":[{prices}],\"missing\":[{missing}]}}");
    for target in [
        "/prices?assets=BTC,ETH",
        "/prices?assets=BTC%2CETH",
        "/prices?assets=BTC%2cETH",
        "/prices?asset=BTC&asset=eth",
        "/prices?asset=BTC&assets=ETH,BTC",
        "/prices?assets=BTC,ETH&ignore_unknown=1&x=y",
    ] {
        let reply = check(target, 200, "");
        assert_eq!(reply.body, body(&format!("{BTC},{ETH}"), ""), "{target}");
        assert_eq!(reply.field("ETag"), Some("\"4714\""));
        assert_eq!(reply.field("Content-Type"), Some("application/json"));
    }
    let target = "/prices?assets=NOPE,BTC,DOGE,OLD&ignore_unknown=1";
    assert_eq!(check(target, 200, "").body, body(BTC, "\"NOPE\",\"DOGE\",\"OLD\""));
    let all = check("/prices?assets=all", 200, "").body;
    assert!(all.starts_with(&body(BTC, "")[..200]) && all.ends_with("],\"missing\":[\"DOGE\",\"OLD\"]}"), "{all}");
    assert!(all.contains("\"asset\":\"RENDER\""));
    let stale = check("/prices?assets=OLD&allow_stale=1", 200, "").body;
    assert!(stale.contains("\"stale\":true") && stale.ends_with("\"missing\":[]}"));
}

#[test]
fn several_prices_refused() {
    let many = |count: usize| (0..count).map(|number| format!("A{number}")).collect::<Vec<_>>().join(",");
    for (target, status, code) in [
        ("/prices".to_owned(), 400, "asset_missing"),
        ("/prices?assets=".to_owned(), 400, "asset_missing"),
        ("/prices?ignore_unknown=1".to_owned(), 400, "asset_missing"),
        ("/prices?assets=BTC,,ETH".to_owned(), 400, "asset_invalid"),
        ("/prices?assets=BTC,".to_owned(), 400, "asset_invalid"),
        ("/prices?assets=BTC;ETH".to_owned(), 400, "asset_invalid"),
        ("/prices?asset=BTC,ETH".to_owned(), 400, "asset_invalid"),
        ("/prices?assets=BTC&ignore_unknown=2".to_owned(), 400, "parameter_invalid"),
        ("/prices?assets=BTC&allow_stale=1&allow_stale=1".to_owned(), 400, "parameter_invalid"),
        (format!("/prices?assets={}", many(65)), 400, "too_many_assets"),
        (format!("/prices?assets={}&ignore_unknown=1", many(65)), 400, "too_many_assets"),
        ("/prices?assets=BTC,NOPE,DOGE".to_owned(), 404, "asset_unknown"),
        ("/prices?assets=DOGE,NOPE".to_owned(), 503, "price_unavailable"),
        ("/prices?assets=BTC,OLD".to_owned(), 503, "price_stale"),
    ] {
        check(&target, status, code);
    }
    assert!(check("/prices?assets=BTC,NOPE", 404, "asset_unknown").body.contains("\"detail\":\"NOPE: "));
    let most = format!("/prices?assets={}&ignore_unknown=1", many(64));
    check(&most, 200, "");
}

#[test]
fn long_answers_are_of_one_generation_though_they_go_out_in_pieces() {
    let mut world = World::with(world::records(), 1, 900);
    let mut connection = world.connect(1);
    let input = format!("{}{}", get("/prices?assets=all", KEY), get("/price?asset=BTC", KEY));
    let (mut sent, mut at, mut turns) = (Vec::new(), 0, 0_u64);
    loop {
        world.output.clear();
        let step = world.shard.serve_stream(world.now, &mut connection, &input.as_bytes()[at..], &mut world.output);
        sent.extend_from_slice(world.output.bytes());
        at += step.consumed;
        if step.then != Then::Write {
            break;
        }
        assert_eq!(step.deadline_mono_ms, world.now.mono_ms() + 5_000);
        turns += 1;
        // The market moves between two pieces.
        world.publish(tick(0, 1_000_000 + turns, 1));
        world.publish(tick(904, 2_000_000 + turns, 1));
    }
    assert!(turns > 10 && at == input.len());
    let outcome = world::Outcome {
        sent,
        step: world.shard.serve_stream(world.now, &mut connection, b"", &mut world.output),
        rest: Vec::new(),
    };
    let replies = outcome.replies(false);
    assert_eq!(replies.len(), 2);
    assert!(replies[0].body.starts_with(&format!("{{\"generation\":5614,\"prices\":[{BTC},{ETH},")));
    assert!(replies[0].body.contains("\"sequence\":5614}") && !replies[0].body.contains("\"sequence\":2000"));
    assert!(replies[1].body.contains(&format!("\"sequence\":{}", 1_000_000 + turns)));
}

#[test]
fn long_answers_are_bounded_and_given_up_with_their_connection() {
    let mut world = World::with(world::records(), 1, 900);
    let request = get("/prices?assets=all", KEY);
    let mut connections = Vec::new();
    let refused = loop {
        let mut connection = world.connect(connections.len() as u64);
        world.output.clear();
        let step = world.shard.serve_stream(world.now, &mut connection, request.as_bytes(), &mut world.output);
        if step.then != Then::Write {
            break String::from_utf8_lossy(world.output.bytes()).into_owned();
        }
        connections.push(connection);
    };
    assert!(refused.contains("\"code\":\"overloaded\"") && refused.contains("Retry-After: 1"), "{refused}");
    assert!(connections.len() >= 4);
    world.shard.close_stream(&mut connections[0]);
    assert_eq!(world.ask(&request).reply().status, 200);
}

#[test]
fn draining_closes_connections_and_goes_on_answering() {
    let mut world = World::new();
    let mut connection = world.connect(1);
    let request = get("/price?asset=BTC", KEY);
    assert_eq!(world.serve(&mut connection, request.as_bytes()).step.then, Then::Read);
    world.shard.apply(ShardCommand::Drain);
    let outcome = world.serve(&mut connection, format!("{request}{request}").as_bytes());
    assert_eq!((outcome.step.then, outcome.rest.len()), (Then::WriteAndClose, 0));
    let reply = outcome.reply();
    assert_eq!((reply.status, reply.field("Connection"), reply.body.as_str()), (200, Some("close"), BTC));
}

#[test]
fn commands_change_tunables_and_assets() {
    let mut world = World::new();
    let parameters = ShardParameters {
        keep_alive_ms: 7_000,
        head_timeout_ms: 100,
        write_stall_ms: 900,
        ..ShardParameters::default()
    };
    world.shard.apply(ShardCommand::Parameters(parameters));
    let mut connection = world.connect(1);
    assert_eq!(world.serve(&mut connection, b"").step.deadline_mono_ms, world.now.mono_ms() + 7_000);
    assert_eq!(world.serve(&mut connection, b"G").step.deadline_mono_ms, world.now.mono_ms() + 100);

    let mut more: AssetDirectory = world::assets(0);
    more.add(shared::asset::Symbol::new(b"NEW").expect("a symbol"), true, shared::venue::VenueSet::EMPTY);
    // A tick may come before the directory that knows its asset.
    world.publish(tick(5, 9_000, 77));
    assert_eq!(world.get("/price?asset=NEW", KEY).status, 404);
    world.shard.apply(ShardCommand::Assets(Arc::new(more)));
    assert!(world.get("/price?asset=NEW", KEY).body.contains("\"price\":\"0.77\""));
}

#[test]
fn every_answer_is_in_the_books_once() {
    let mut world = World::new();
    for target in ["/price?asset=BTC", "/price?asset=XBT", "/price?asset=ETH", "/price?asset=NOPE", "/price?asset=OLD"]
    {
        world.get(target, KEY);
    }
    world.get("/prices?assets=BTC,ETH", KEY);
    world.get("/prices?assets=ETH", KEY);
    world.get("/price?asset=BTC", "nobody");
    world.ask("OPTIONS /price HTTP/1.1\r\nHost: h\r\n\r\n");
    let seen: Vec<_> = world
        .usage()
        .iter()
        .map(|record| {
            let asset = String::from_utf8_lossy(&record.asset).trim_end_matches('\0').to_owned();
            (record.key, asset, record.status, record.code, record.endpoint, record.requests)
        })
        .collect();
    let (price, prices) = (Endpoint::Price as u8, Endpoint::Prices as u8);
    let expected = [
        (1, "BTC", 200, 0, price, 2),
        (1, "ETH", 200, 0, price, 1),
        (1, "", 404, 1, price, 1),
        (1, "OLD", 503, 2, price, 1),
        (1, "", 200, 0, prices, 1),
        (1, "ETH", 200, 0, prices, 1),
        (0, "", 401, 36, price, 1),
        (0, "", 204, 0, price, 1),
    ];
    assert_eq!(
        seen,
        expected.map(|(key, asset, status, code, endpoint, requests)| {
            (key, asset.to_owned(), status, code, endpoint, requests)
        })
    );
    assert_eq!(world.shard.counters().http_requests, 9);
    assert_eq!(world.shard.counters().answered, 6);
}
