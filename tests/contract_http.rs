//! Prices over HTTP as the contract promises them, on both engines: fields, errors, framing.

use harness::http::{self, Connection};
use harness::service::{ENGINES, Service};
use serde_json::Value;

/// Runs `test` against a demo of each engine.
fn on_each_engine(test: impl Fn(&Service)) {
    for engine in ENGINES {
        let service = Service::demo(engine);
        assert_eq!(service.ready()["engine"], engine);
        service.await_price("BTC", 2);
        test(&service);
    }
}

/// Sends `head` (its `KEY` replaced by a good key, and `HOST` by the address) and gives status and code.
fn ask(service: &Service, head: &str) -> (u16, Option<String>) {
    let address = service.address("lpo_tcp");
    let text = head.replace("KEY", service.stress_key()).replace("HOST", &address.to_string());
    let mut connection = Connection::open(address);
    connection.send(text.as_bytes());
    let reply = connection.read(text.starts_with("HEAD")).expect("an answer");
    let code = (reply.status >= 400 && !text.starts_with("HEAD")).then(|| reply.code());
    (reply.status, code)
}

#[track_caller]
fn check(service: &Service, head: &str, status: u16, code: Option<&str>) {
    let answer = ask(service, head);
    assert_eq!((answer.0, answer.1.as_deref()), (status, code), "{head:?}");
}

#[test]
fn a_price_has_the_fields_of_the_contract() {
    on_each_engine(|service| {
        let reply = service.get("/price?asset=btc");
        let price = reply.json();
        let text = |name: &str| price[name].as_str().unwrap_or_else(|| panic!("{name} in {price}")).to_owned();
        let number = |name: &str| price[name].as_u64().unwrap_or_else(|| panic!("{name} in {price}"));
        assert_eq!(text("asset"), "BTC");
        assert!(text("price").parse::<f64>().is_ok_and(|value| value > 0.0), "{price}");
        assert_eq!(text("currency"), "USD");
        assert_eq!((text("source"), text("tier")), ("median".to_owned(), "local".to_owned()));
        assert!(number("sources") >= 2);
        assert!(text("spread_bps").parse::<f64>().is_ok_and(|value| value >= 0.0), "{price}");
        assert!(number("received_time_ms") >= number("exchange_time_ms") - 5_000, "{price}");
        assert_eq!(price["stale"], false);
        assert_eq!(price["simulated"], true);
        assert!(number("age_ms") < 60_000);
        assert_eq!(reply.header("etag"), Some(format!("\"{}\"", number("sequence")).as_str()));
        assert_eq!(reply.header("cache-control"), Some("private, max-age=1"));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(reply.header("date").is_some_and(|date| date.ends_with(" GMT") && date.len() == 29));
        let order = ["asset", "price", "currency", "source", "sources", "spread_bps", "tier", "exchange_time_ms"];
        let order = order.into_iter().chain(["received_time_ms", "age_ms", "stale", "sequence", "simulated"]);
        let body = reply.text();
        let places: Vec<usize> = order.map(|name| body.find(&format!("\"{name}\":")).expect(name)).collect();
        assert!(places.is_sorted(), "fields out of order: {body}");
    });
}

#[test]
fn errors_are_the_contract_s() {
    const GOOD: &str = "Host: HOST\r\nAuthorization: Bearer KEY\r\n\r\n";
    let with_key = |line: &str| format!("{line} HTTP/1.1\r\n{GOOD}");
    on_each_engine(|service| {
        for (line, status, code) in [
            ("GET /price?asset=BTC", 200, None),
            ("GET /price?asset=%42TC", 200, None),
            ("GET /price", 400, Some("asset_missing")),
            ("GET /price?asset=", 400, Some("asset_missing")),
            ("GET /price?asset=B-C", 400, Some("asset_invalid")),
            ("GET /price?asset=ABCDEFGHIJKLMNOPQ", 400, Some("asset_invalid")),
            ("GET /price?asset=NOSUCHCOIN", 404, Some("asset_unknown")),
            ("GET /price?asset=BTC&newer_than=x", 400, Some("parameter_invalid")),
            ("GET /price?asset=BTC&newer_than=1&wait_ms=30001", 400, Some("parameter_invalid")),
            ("GET /price?asset=BTC&allow_stale=2", 400, Some("parameter_invalid")),
            ("GET /prices", 400, Some("asset_missing")),
            ("GET /prices?assets=BTC,ETH", 200, None),
            ("GET /prices?asset=BTC&asset=ETH", 200, None),
            ("GET /prices?assets=BTC,NOSUCHCOIN", 404, Some("asset_unknown")),
            ("GET /prices?assets=BTC,NOSUCHCOIN&ignore_unknown=1", 200, None),
            ("GET /nowhere", 404, Some("not_found")),
            ("POST /price?asset=BTC", 405, Some("method_not_allowed")),
            ("DELETE /prices?assets=BTC", 405, Some("method_not_allowed")),
        ] {
            check(service, &with_key(line), status, code);
        }
        let many: Vec<String> = (0..65).map(|index| format!("A{index}")).collect();
        check(service, &with_key(&format!("GET /prices?assets={}", many.join(","))), 400, Some("too_many_assets"));
        check(service, "HEAD /price?asset=BTC HTTP/1.1\r\nHost: HOST\r\nX-API-Key: KEY\r\n\r\n", 200, None);
    });
}

#[test]
fn keys_are_asked_for_and_bad_ones_look_alike() {
    on_each_engine(|service| {
        let line = "GET /price?asset=BTC HTTP/1.1\r\nHost: HOST\r\n";
        check(service, &format!("{line}\r\n"), 401, Some("key_missing"));
        check(service, &format!("{line}X-API-Key: KEY\r\n\r\n"), 200, None);
        check(service, &format!("{line}authorization: bearer KEY\r\n\r\n"), 200, None);
        check(service, &format!("{line}Authorization: Bearer tb_live_wrong\r\n\r\n"), 401, Some("key_invalid"));
        check(service, &format!("{line}Authorization: Basic KEY\r\n\r\n"), 401, Some("key_missing"));
    });
}

#[test]
fn framing_that_could_be_read_two_ways_is_refused_and_closed() {
    let good = "Host: HOST\r\nX-API-Key: KEY\r\n";
    let line = "GET /price?asset=BTC HTTP/1.1\r\n";
    let long = "x".repeat(9_000);
    let cases = [
        (format!("{line}{good}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), 400, "request_malformed"),
        (format!("{line}{good}Content-Length: 0\r\nContent-Length: 0\r\n\r\n"), 400, "request_malformed"),
        (format!("{line}{good}Content-Length: +5\r\n\r\n"), 400, "request_malformed"),
        (format!("{line}{good}Content-Length: 5x\r\n\r\n"), 400, "request_malformed"),
        (format!("{line}{good}Transfer-Encoding: gzip\r\n\r\n"), 400, "request_malformed"),
        (format!("{line}Host: HOST\nX-API-Key: KEY\n\n"), 400, "request_malformed"),
        (format!("{line}{good}X-Folded: a\r\n b\r\n\r\n"), 400, "request_malformed"),
        (format!("{line}{good}Space : a\r\n\r\n"), 400, "request_malformed"),
        (format!("{line}X-API-Key: KEY\r\n\r\n"), 400, "request_malformed"),
        (format!("{line}{good}Host: other\r\n\r\n"), 400, "request_malformed"),
        (format!("{line}{good}X-Nul: a\0b\r\n\r\n"), 400, "request_malformed"),
        ("GET /price?asset=BTC\r\n\r\n".to_owned(), 400, "request_malformed"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), 400, "request_malformed"),
        (format!("{line}{good}Content-Length: 5\r\n\r\nhello"), 413, "body_not_allowed"),
        (format!("{line}{good}X-Long: {long}\r\n\r\n"), 431, "head_too_large"),
        (format!("GET /price?asset={long} HTTP/1.1\r\n{good}\r\n"), 431, "head_too_large"),
        (format!("{line}{good}{}\r\n", "A: b\r\n".repeat(65)), 431, "head_too_large"),
    ];
    on_each_engine(|service| {
        for (head, status, code) in &cases {
            let text = head.replace("KEY", service.stress_key()).replace("HOST", "localhost");
            let mut connection = Connection::open(service.address("lpo_tcp"));
            connection.send(text.as_bytes());
            let reply = connection.read(false).expect("an answer");
            assert_eq!((reply.status, reply.code().as_str()), (*status, *code), "{text:?}");
            assert!(connection.is_closed(), "still open after {text:?}");
        }
        harness::eventually("refusals to be counted by code", || {
            service.admin("/admin/engine").text().contains("request_malformed").then_some(())
        });
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    on_each_engine(|service| {
        let assets = ["BTC", "ETH", "SOL", "DOGE", "XRP"];
        let key = service.stress_key();
        let request = |asset: &str| format!("GET /price?asset={asset} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n");
        assets.iter().for_each(|asset| drop(service.await_price(asset, 1)));
        let mut connection = Connection::open(service.address("lpo_tcp"));
        let burst: String = (0..200).map(|index| request(assets[index % assets.len()])).collect();
        connection.send(burst.as_bytes());
        for index in 0..200 {
            let reply = connection.read(false).expect("an answer");
            assert_eq!(reply.json()["asset"], assets[index % assets.len()], "answer {index}");
        }
    });
}

#[test]
fn sequence_never_goes_back_and_waiting_returns_a_newer_one() {
    on_each_engine(|service| {
        let mut connection = Connection::open(service.address("lpo_tcp"));
        let mut newest = 0;
        for _ in 0..20 {
            let path = format!("/price?asset=BTC&newer_than={newest}&wait_ms=20000");
            let key = service.stress_key();
            connection.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n").as_bytes());
            let price = connection.read(false).expect("an answer").json();
            let sequence = price["sequence"].as_u64().expect("a sequence");
            assert!(sequence > newest, "{sequence} after {newest}");
            newest = sequence;
        }
        // A little ahead may yet come; what is far ahead is another node's.
        for (ahead, status) in [(500_000, 304), (1 << 40, 200)] {
            let reply = service.get(&format!("/price?asset=BTC&newer_than={}&wait_ms=200", newest + ahead));
            assert_eq!(reply.status, status, "{ahead} ahead");
        }
    });
}

#[test]
fn many_prices_are_one_generation() {
    on_each_engine(|service| {
        let reply = service.get("/prices?assets=BTC,ETH,NOSUCHCOIN&ignore_unknown=1").json();
        assert!(reply["generation"].as_u64() > Some(0));
        let assets: Vec<&str> = prices(&reply).iter().filter_map(|price| price["asset"].as_str()).collect();
        assert_eq!(assets, ["BTC", "ETH"]);
        assert_eq!(reply["missing"], serde_json::json!(["NOSUCHCOIN"]));
        let all = service.get("/prices?assets=all&ignore_unknown=1");
        assert_eq!(all.status, 200, "{}", all.text());
        assert!(prices(&all.json()).len() >= 100, "{} prices", prices(&all.json()).len());
    });
}

fn prices(reply: &Value) -> &Vec<Value> {
    reply["prices"].as_array().expect("prices")
}

#[test]
fn a_known_etag_is_not_sent_again() {
    on_each_engine(|service| {
        let key = service.stress_key().to_owned();
        let address = service.address("lpo_tcp");
        let unchanged = harness::eventually("the same price twice", || {
            let tag = service.get("/price?asset=BTC").header("etag").map(str::to_owned)?;
            let again = http::get(address, "/price?asset=BTC", &[("X-API-Key", &key), ("If-None-Match", &tag)]);
            (again.status == 304).then_some((tag, again))
        });
        assert_eq!(unchanged.1.header("etag"), Some(unchanged.0.as_str()));
    });
}

#[test]
fn the_demo_key_is_held_to_three_a_second() {
    on_each_engine(|service| {
        let key = service.demo_key();
        let request = format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n");
        let mut connection = Connection::open(service.address("lpo_tcp"));
        connection.send(request.repeat(10).as_bytes());
        let replies: Vec<_> = (0..10).map(|_| connection.read(false).expect("an answer")).collect();
        let served = replies.iter().filter(|reply| reply.status == 200).count();
        // One pipelined burst is taken in one turn; a window may begin inside it, never more than one.
        assert!((3..=6).contains(&served), "{served} of 10 served");
        let refused = replies.iter().find(|reply| reply.status == 429).expect("one over the limit");
        assert_eq!(refused.code(), "rate_limited_second");
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert_eq!(refused.header("ratelimit-policy"), Some("\"key\";q=3;w=1"));
        assert_eq!(refused.header("ratelimit"), Some("\"key\";r=0;t=1"));
    });
}

#[test]
fn what_is_not_a_price_is_answered_by_the_control_plane_on_the_same_port() {
    on_each_engine(|service| {
        let assets = service.get("/assets");
        assert_eq!(assets.status, 200, "{}", assets.text());
        assert!(assets.text().contains("coinbase"));
        let limits = service.get("/limits");
        assert_eq!(limits.status, 200, "{}", limits.text());
        for name in ["lpo_tcp", "lrs_tcp"] {
            let docs = http::get(service.address(name), "/docs", &[]);
            assert_eq!((docs.status, docs.text().contains("id=\"asset_unknown\"")), (200, true), "{name}");
        }
        assert_eq!(service.admin("/admin/feeds").status, 200);
        assert_eq!(service.get("/admin/feeds").status, 401, "a price key is no admin key");
        let detail = service.get("/price?asset=BTC&detail=1").json();
        assert!(detail["venues"].as_array().is_some_and(|venues| venues.len() >= 2), "{detail}");
        for name in ["health_lpo", "health_lrs"] {
            for path in ["/health", "/livez", "/readyz"] {
                assert_eq!(http::get(service.address(name), path, &[]).status, 200, "{name} {path}");
            }
        }
    });
}
