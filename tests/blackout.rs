//! What clients see, second by second, when exchanges fail: all seven gone at once and back, and REST interfaces that
//! answer errors, pages, nonsense, too late, or not to the end.
//!
//! `cargo test -p trinity-tests --test blackout -- --nocapture` prints it.
#![expect(clippy::print_stdout, reason = "what clients saw is what this test shows")]

use harness::eventually;
use harness::exchanges::{asked, forget, order};
use harness::http::Reply;
use harness::planted::now_ms;
use harness::service::{ENGINES, Service};
use harness::udp;
use serde_json::{Value, json};
use shared::code::Code;
use shared::venue::Venue;
use std::time::{Duration, Instant};
use venues::VenueSettings;

/// Longest that an answer may take that waits for a lookup, with what a busy machine adds.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Age at which a price is stale here, s: short, so that nobody has to wait for it.
const FRESH_S: &str = "2";

fn start(engine: &str) -> Service {
    let service = Service::demo_with(engine, &[("CACHE_TTL_SECONDS", FRESH_S), ("TB_SHARDS", "2")]);
    service.await_price("BTC", 5);
    service
}

fn order_all(service: &Service, query: &str) {
    service.exchanges().iter().for_each(|(_, exchange)| order(*exchange, query));
}

fn ask(service: &Service, path: &str) -> Reply {
    let began = Instant::now();
    let reply = service.get(path);
    assert!(began.elapsed() < ANSWER_MAX, "{path} took {:?}", began.elapsed());
    reply
}

/// An answer in a few words.
fn shown(reply: &Reply) -> String {
    match reply.status {
        200 => {
            let price = reply.json();
            format!("200 {} {} stale {} age {} ms", price["price"], price["tier"], price["stale"], price["age_ms"])
        }
        status => format!("{status} {}", reply.code()),
    }
}

/// What a client sees now of an asset with sockets, and of one that nobody has asked for.
fn tell(service: &Service, began: Instant) {
    let plain = ask(service, "/price?asset=BTC");
    let stale = ask(service, "/price?asset=BTC&allow_stale=1");
    let asking = Instant::now();
    let cold = ask(service, "/price?asset=YFI");
    println!(
        "{:>5.1} s | BTC: {:<55} | with allow_stale: {:<55} | YFI, cold: {} after {} ms",
        began.elapsed().as_secs_f64(),
        shown(&plain),
        shown(&stale),
        shown(&cold),
        asking.elapsed().as_millis()
    );
}

/// Tells once a second until it is so.
fn until(service: &Service, began: Instant, what: &str, mut is_so: impl FnMut() -> bool) {
    let mut told = 0;
    eventually(what, || {
        if began.elapsed().as_secs() >= told {
            told = began.elapsed().as_secs() + 1;
            tell(service, began);
        }
        is_so().then_some(())
    });
    tell(service, began);
}

/// What datagrams are told of BTC: the code in JSON, and the number in the binary form.
fn told_over_udp(service: &Service) -> (Value, u8) {
    let request = format!(r#"{{"key":"{}","asset":"BTC","id":7}}"#, service.stress_key());
    let reply = udp::ask(service.address("lpo_udp"), request.as_bytes());
    let reply: Value = serde_json::from_slice(&reply).expect("JSON");
    let (id, secret) = service.udp_key();
    let request = udp::frame(id, &secret, "BTC", 42, now_ms());
    let binary = udp::ask(service.address("lpo_udp"), bytemuck::bytes_of(&request));
    (reply["code"].clone(), udp::reply_frame(&secret, &binary).status)
}

/// Most requests that a venue may have within a second: its pace, and one at each edge.
fn most_in_a_second(venue: &str) -> u64 {
    let venue = Venue::from_name(venue).expect("a venue");
    let gap_ms = venues::protocol(venue, VenueSettings::default()).limits().rest_gap_ms;
    1_000 / gap_ms.max(1) + 2
}

fn all_gone_and_back(engine: &str) {
    println!("== {engine}");
    let service = start(engine);
    let exchanges = service.exchanges();
    let before = ask(&service, "/price?asset=BTC").json();
    exchanges.iter().for_each(|(_, exchange)| forget(*exchange));
    let began = Instant::now();
    println!("all seven exchanges are gone");
    order_all(&service, "kind=rest_down");
    order_all(&service, "kind=down");
    let gone_ms = now_ms();
    until(&service, began, "BTC to be stale", || ask(&service, "/price?asset=BTC").status == 503);
    let refused = ask(&service, "/price?asset=BTC");
    assert_eq!((refused.code().as_str(), refused.header("retry-after").is_some()), ("price_stale", true));
    let last = ask(&service, "/price?asset=BTC&allow_stale=1");
    assert_eq!(last.status, 200, "{}", last.text());
    let last = last.json();
    let time = |name: &str| last[name].as_u64().expect("a time");
    assert_eq!(last["stale"], true);
    assert!(last["sequence"].as_u64() >= before["sequence"].as_u64());
    // What came just before the exchanges went may have been on its way for a moment.
    assert!(time("received_time_ms") <= gone_ms + 1_000 && time("exchange_time_ms") <= gone_ms + 1_000, "{last}");
    assert!(time("age_ms") + 1_000 >= now_ms() - gone_ms, "its age is told as it is: {last}");
    assert_eq!(told_over_udp(&service), (json!("price_stale"), Code::PriceStale.number()));
    assert_eq!(ask(&service, "/price?asset=YFI").code(), "price_unavailable", "nobody ever knew a price of it");
    let ready = harness::http::get(service.address("health_lpo"), "/readyz", &[]);
    assert_eq!(ready.status, 503, "every price is stale: {}", ready.text());
    for (venue, exchange) in &exchanges {
        let requests = asked(*exchange);
        let (total, most) = (requests["total"].as_u64(), requests["most_in_a_second"].as_u64());
        println!("   {venue} was asked {total:?} times over REST, at most {most:?} within a second");
        assert!(total > Some(0), "{venue} was tried");
        assert!(most <= Some(most_in_a_second(venue)), "{venue}: {most:?} of {}", most_in_a_second(venue));
    }
    println!("they are back");
    order_all(&service, "kind=resume");
    until(&service, began, "BTC to be fresh by itself", || {
        let reply = ask(&service, "/price?asset=BTC");
        reply.status == 200 && reply.json()["tier"] == "local" && reply.json()["sources"].as_u64() >= Some(5)
    });
    eventually("YFI to be found", || (ask(&service, "/price?asset=YFI").status == 200).then_some(()));
    tell(&service, began);
}

#[test]
fn all_exchanges_gone_and_back() {
    ENGINES.into_iter().for_each(all_gone_and_back);
}

/// What REST may do wrong.
const FAULTS: [&str; 5] =
    ["kind=rest_down", "kind=rest_garbage", "kind=rest_nonsense", "kind=rest_hang", "kind=rest_limited&retry_after=2"];

fn address(service: &Service, venue: &str) -> std::net::SocketAddr {
    service.exchanges().iter().find(|(name, _)| name == venue).expect("the venue").1
}

#[test]
fn rest_that_fails_everywhere_gives_no_price_and_is_got_over() {
    for engine in ENGINES {
        for (fault, asset) in FAULTS.iter().zip(["QNT", "ZIL", "CELO", "RPL", "GMX"]) {
            let service = start(engine);
            order_all(&service, fault);
            let began = Instant::now();
            let path = format!("/price?asset={asset}");
            let reply = ask(&service, &path);
            println!(
                "{engine}: everywhere {fault}: {asset}: {} after {} ms",
                shown(&reply),
                began.elapsed().as_millis()
            );
            assert_eq!(reply.code(), "price_unavailable", "{}", reply.text());
            assert!(reply.header("retry-after").is_some());
            assert_eq!(ask(&service, "/price?asset=BTC").status, 200, "sockets go on");
            order_all(&service, "kind=resume");
            eventually("it is found once REST answers again", || (ask(&service, &path).status == 200).then_some(()));
            println!("   and {} ms later: {}", began.elapsed().as_millis(), shown(&ask(&service, &path)));
        }
    }
}

#[test]
fn rest_that_fails_at_one_venue_is_asked_at_another() {
    for engine in ENGINES {
        for (fault, asset) in FAULTS.iter().zip(["DASH"; 5]) {
            let service = start(engine);
            // Coinbase and Kraken trade it.
            order(address(&service, "coinbase"), fault);
            let began = Instant::now();
            let reply = ask(&service, &format!("/price?asset={asset}"));
            println!(
                "{engine}: at coinbase {fault}: {asset}: {} after {} ms",
                shown(&reply),
                began.elapsed().as_millis()
            );
            assert_eq!(reply.status, 200, "{}", reply.text());
            assert_ne!(reply.json()["source"], "coinbase-rest", "{}", reply.text());
        }
    }
}

#[test]
fn a_venue_that_says_for_how_long_is_left_alone_for_as_long() {
    let service = start("auto");
    let coinbase = address(&service, "coinbase");
    order(coinbase, "kind=rest_limited&retry_after=600");
    forget(coinbase);
    assert_eq!(ask(&service, "/price?asset=KNC").code(), "price_unavailable", "nobody else trades it");
    for _ in 0..3 {
        eventually("to be looked up anew", || {
            let began = Instant::now();
            assert_eq!(ask(&service, "/price?asset=KNC").code(), "price_unavailable");
            (began.elapsed() > Duration::from_millis(1)).then_some(())
        });
    }
    let requests = asked(coinbase);
    println!("limited for ten minutes: {requests}");
    assert_eq!(requests["total"], 1, "{requests}");
}
