//! REST as the fallback: how it fails, and how it is slowed down.

use super::world::{Plan, World, symbol};
use crate::feeds::simulator::fault::{Fault, Nonsense};
use dataplane_core::feed::FeedInput;
use shared::price::Price;
use shared::quote::{Quote, Route};
use shared::venue::Venue;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_venues_down_are_carried_by_rest_until_they_return() {
    let world = World::live(Plan { assets: "BTC ETH", ..Plan::of(&Venue::ALL) }).await;
    let btc = world.asset("BTC");
    Venue::ALL.into_iter().for_each(|venue| world.fault(venue, Fault::Down));
    for venue in Venue::ALL {
        world.until_heard(venue, btc, Route::Rest).await;
        let quotes = world.ear.quotes(venue, btc);
        let rest = quotes.iter().find(|quote| quote.route == Route::Rest).expect("just heard");
        assert!(rest.snapshot && rest.venue_sequence.is_none(), "{rest:?}");
    }
    Venue::ALL.into_iter().for_each(|venue| world.fault(venue, Fault::Resume));
    world.all_live().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rest_interface_that_fails_is_reported_and_disturbs_nobody() {
    for fault in [Fault::RestDown, Fault::RestGarbage] {
        let world = World::live(Plan::of(&[Venue::Okx])).await;
        world.fault(Venue::Okx, fault);
        world.fault(Venue::Okx, Fault::Down);
        world
            .until_status(Venue::Okx, "the failure is shown", |status| {
                let shown = status.last_error.as_deref().is_some_and(|text| text.starts_with("REST"));
                shown && status.counters.rest_errors >= 1
            })
            .await;
        assert_eq!(world.ear.rest_quotes(Venue::Okx), 0);
        world.fault(Venue::Okx, Fault::Resume);
        world.all_live().await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venue_that_limits_us_is_left_alone_for_as_long_as_it_says() {
    let world = World::live(Plan::of(&[Venue::Bybit])).await;
    world.fault(Venue::Bybit, Fault::RestLimited(3_600));
    world.fault(Venue::Bybit, Fault::Down);
    world.until_status(Venue::Bybit, "the limit is met", |status| status.counters.rest_limited == 1).await;
    // Several polls would have been due by the time of a few failed connects.
    world.until_status(Venue::Bybit, "time passes", |status| status.counters.connect_failures >= 5).await;
    let status = world.status(Venue::Bybit);
    assert_eq!((status.counters.rest_limited, status.counters.rest_errors), (1, 1), "{status:#?}");
    world.stop().await;
}

/// What a venue whose connections are down and whose REST talks nonsense makes the feeds say.
async fn told_of(venue: &'static [Venue], what: Nonsense) -> Vec<Quote> {
    let world = World::live(Plan { assets: "BTC", ..Plan::of(venue) }).await;
    world.ear.clear();
    world.fault(venue[0], Fault::RestNonsense(what));
    world.fault(venue[0], Fault::Down);
    let asked = || world.simulators.requests(venue[0]).map_or(0, |requests| requests.total);
    let before = asked();
    world.until("it is asked a few times", || asked() >= before + 4).await;
    // One asset: a request for several names none of them, and a wrong answer to it could not be told from a right one.
    let quotes = world.ear.quotes(venue[0], world.asset("BTC"));
    world.stop().await;
    quotes.into_iter().filter(|quote| quote.route == Route::Rest).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_over_rest_is_not_taken_for_another_price() {
    // Zero and below are the guard's to refuse; what the feeds must not do is repair them.
    for (what, is_it) in [
        (Nonsense::Zero, (|price: Price| price.mantissa() == 0) as fn(Price) -> bool),
        (Nonsense::Negative, |price| price.mantissa() < 0),
        (Nonsense::Huge, |_| false),
        (Nonsense::Wrong, |_| false),
    ] {
        for quote in told_of(&[Venue::Okx], what).await {
            let prices = [quote.last, quote.bid, quote.ask].into_iter().filter_map(|field| field.price());
            assert!(prices.into_iter().all(is_it), "{what:?}: {quote:?}");
        }
    }
}

/// One request of OKX's tickers over its own connection: what came within a moment, and how long that took.
async fn ask(world: &World, patience: Duration) -> (String, Duration) {
    let (_, address) = world.simulators.addresses().next().expect("one exchange");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = "GET /api/v5/market/ticker?instId=BTC-USDT HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let began = Instant::now();
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut reply = Vec::new();
    drop(timeout(patience, stream.read_to_end(&mut reply)).await);
    (String::from_utf8(reply).expect("text"), began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_can_be_slow_hang_and_is_counted() {
    let world = World::live(Plan { assets: "ETH", ..Plan::of(&[Venue::Okx]) }).await;
    let (good, _) = ask(&world, Duration::from_secs(30)).await;
    assert!(good.starts_with("HTTP/1.1 200") && good.contains("BTC-USDT"), "{good}");
    world.fault(Venue::Okx, Fault::RestDelay(300));
    assert!(ask(&world, Duration::from_secs(30)).await.1 >= Duration::from_millis(300));
    world.fault(Venue::Okx, Fault::RestHang);
    let (half, took) = ask(&world, Duration::from_secs(1)).await;
    let (head, body) = half.split_once("\r\n\r\n").expect("a head");
    let length = head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    assert_eq!(
        (length.map(|length: usize| length / 2), took >= Duration::from_secs(1)),
        (Some(body.len()), true),
        "{half}"
    );
    world.fault(Venue::Okx, Fault::Resume);
    assert!(ask(&world, Duration::from_secs(30)).await.0.ends_with('}'), "all is well again");
    let requests = world.simulators.requests(Venue::Okx).expect("played");
    assert_eq!(requests.paths.get("/api/v5/market/ticker?instId=BTC-USDT"), Some(&4));
    assert!(requests.total >= 4 && requests.most_in_a_second >= 1, "{requests:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feeds_ask_nobody_about_what_is_only_listed() {
    let world = World::live(Plan { assets: "BTC", ..Plan::of(&[Venue::Okx]) }).await;
    let okb = world.asset("OKB");
    world.fault(Venue::Okx, Fault::Down);
    world.until_heard(Venue::Okx, world.asset("BTC"), Route::Rest).await;
    assert_eq!(world.ear.count(|input| matches!(input, FeedInput::Quote(quote) if quote.asset == okb)), 0);
    assert_eq!(world.feeds.offers(&symbol("OKB")).len(), 1);
    world.stop().await;
}
