//! Each fault of a simulated exchange, and what a client and an operator saw meanwhile.
//!
//! `cargo test -p trinity-tests --test venue_faults -- --nocapture` prints the story.
#![expect(clippy::print_stdout, reason = "the story is what this test shows")]

use harness::eventually;
use harness::http;
use harness::service::Service;
use serde_json::Value;

const VENUE: &str = "kraken";

fn fault(service: &Service, query: &str) {
    let address = service.ready()["simulators"][VENUE].as_str().expect("its simulator").parse().expect("an address");
    let reply = http::request(address, "POST", &format!("/simulator/fault?{query}"), &[("Content-Length", "0")]);
    assert_eq!(reply.status, 200, "{query}: {}", reply.text());
    println!("\n== {VENUE}: {query}");
}

/// What `/admin/feeds` says of the venue.
fn feed(service: &Service) -> Value {
    let feeds = service.admin("/admin/feeds").json();
    let venues = feeds["venues"].as_array().expect("venues").clone();
    venues.into_iter().find(|venue| venue["venue"] == VENUE).expect("the venue")
}

fn count(service: &Service, name: &str) -> u64 {
    feed(service)[name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", feed(service)))
}

/// What `/price?detail=1` says of the venue for `asset`, once it answers `wanted` with a value.
fn until<T>(service: &Service, what: &str, asset: &str, mut wanted: impl FnMut(&Value, &Value) -> Option<T>) -> T {
    let found = eventually(what, || {
        let price = service.get(&format!("/price?asset={asset}&detail=1")).json();
        let venue = price["venues"].as_array()?.iter().find(|venue| venue["venue"] == VENUE)?.clone();
        Some((wanted(&price, &venue)?, price, venue))
    });
    let feed = feed(service);
    println!(
        "{what}\n   price {} {} from {} venues, stale {}; {VENUE}: price {} included {} excluded {}\n   \
         feed: connected {} live {}/{} reconnects {} malformed {} last_error {}",
        found.1["price"],
        found.1["currency"],
        found.1["sources"],
        found.1["stale"],
        found.2["price"],
        found.2["included"],
        found.2["excluded"],
        feed["connected"],
        feed["live"],
        feed["subscribed"],
        feed["reconnects"],
        feed["malformed"],
        feed["last_error"],
    );
    found.0
}

fn included(_: &Value, venue: &Value) -> Option<()> {
    (venue["included"] == true).then_some(())
}

fn excluded(price: &Value, venue: &Value) -> Option<()> {
    // The price itself goes on from the others all the while.
    assert_eq!(price["stale"], false, "{price}");
    (venue["included"] == false).then_some(())
}

/// The price in whole cents: enough to say by how much it moved.
fn cents(price: &Value) -> u64 {
    let text = price["price"].as_str().expect("a price");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "00"));
    let fraction: String = fraction.chars().chain("00".chars()).take(2).collect();
    format!("{whole}{fraction}").parse().expect("digits")
}

#[test]
fn a_venue_that_falls_silent_leaves_the_price_and_comes_back() {
    let service = Service::demo("auto");
    until(&service, "to begin with", "BTC", included);
    let before = count(&service, "reconnects");
    fault(&service, "kind=silent");
    until(&service, "it leaves the price", "BTC", excluded);
    eventually("the dead connection to be given up", || (count(&service, "reconnects") > before).then_some(()));
    fault(&service, "kind=resume");
    until(&service, "it is back", "BTC", included);
}

#[test]
fn a_refused_symbol_silences_no_other() {
    let service = Service::demo("auto");
    until(&service, "to begin with", "BTC", included);
    fault(&service, "kind=refuse&name=BTC/USD");
    fault(&service, "kind=drop");
    until(&service, "BTC is refused", "BTC", excluded);
    let refused = eventually("the refusal to be shown", || {
        let symbols = feed(&service)["refused_symbols"].clone();
        symbols.as_array()?.iter().find(|symbol| symbol["asset"] == "BTC").cloned()
    });
    println!("   refused: {refused}");
    until(&service, "the others go on", "ETH", included);
}

#[test]
fn a_dropped_connection_is_made_again() {
    let service = Service::demo("auto");
    until(&service, "to begin with", "BTC", included);
    let before = count(&service, "reconnects");
    fault(&service, "kind=drop");
    eventually("a new connection", || (count(&service, "reconnects") > before).then_some(()));
    until(&service, "it is back", "BTC", included);
    fault(&service, "kind=down");
    until(&service, "while it is down", "BTC", excluded);
    fault(&service, "kind=resume");
    until(&service, "it is back", "BTC", included);
}

#[test]
fn a_half_open_connection_is_noticed() {
    let service = Service::demo("auto");
    until(&service, "to begin with", "BTC", included);
    let before = count(&service, "reconnects");
    fault(&service, "kind=half_open");
    eventually("the dead connection to be given up", || (count(&service, "reconnects") > before).then_some(()));
    until(&service, "it is back", "BTC", included);
}

#[test]
fn garbage_is_counted_and_harms_nobody() {
    let service = Service::demo("auto");
    until(&service, "to begin with", "BTC", included);
    for what in ["text", "binary", "utf8", "huge"] {
        let (malformed, reconnects) = (count(&service, "malformed"), count(&service, "reconnects"));
        fault(&service, &format!("kind=garbage&what={what}"));
        eventually("the garbage to be noticed", || {
            let noticed = count(&service, "malformed") > malformed || count(&service, "reconnects") > reconnects;
            noticed.then_some(())
        });
        until(&service, "after the garbage", "BTC", included);
    }
}

#[test]
fn a_jump_alone_is_not_believed_and_a_crash_of_all_is() {
    let service = Service::demo("auto");
    let before = until(&service, "to begin with", "BTC", |price, venue| included(price, venue).map(|()| cents(price)));
    fault(&service, "kind=jump&percent=-40");
    let during = until(&service, "the jump is not believed", "BTC", |price, venue| {
        excluded(price, venue).map(|()| cents(price))
    });
    assert!(during.abs_diff(before) * 20 < before, "{before} became {during}");
    let reason = until(&service, "its reason", "BTC", |_, venue| venue["excluded"].as_str().map(str::to_owned));
    assert!(["quarantined", "outlier"].contains(&reason.as_str()), "{reason}");
    fault(&service, "kind=resume");
    until(&service, "it is believed again", "BTC", included);
    fault(&service, "kind=crash&percent=-20");
    until(&service, "all venues agree on the crash", "BTC", |price, _| {
        (cents(price) * 100 < before * 85).then_some(())
    });
}

#[test]
fn a_quiet_feed_is_not_a_dead_one() {
    let service = Service::demo("auto");
    until(&service, "to begin with", "BTC", included);
    fault(&service, "kind=quotes_stop");
    // Its last word is older than the bound of nine seconds, but the connection is alive: the price is still true.
    until(&service, "quiet for ten seconds, and included", "BTC", |_, venue| {
        assert_eq!(venue["included"], true, "{venue}");
        (venue["age_ms"].as_u64() > Some(10_000)).then_some(())
    });
}
