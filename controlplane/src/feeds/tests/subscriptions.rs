//! What is subscribed, refused, silent, wanted later.

use super::world::{Plan, World, hasty, symbol, wanted};
use crate::feeds::simulator::fault::Fault;
use crate::feeds::timing::Timing;
use dataplane_core::feed::FeedInput;
use shared::quote::Route;
use shared::venue::Venue;
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_venue_delivers_every_asset_it_lists() {
    let world = World::live(Plan { assets: "BTC ETH RNDR MATIC NANO USDT", ..Plan::of(&Venue::ALL) }).await;
    let btc = world.asset("BTC");
    for venue in Venue::ALL {
        let quotes = world.ear.quotes(venue, btc);
        assert!(quotes[0].snapshot, "{venue}: the first quote of a subscription restates the market");
        world
            .until(&format!("{venue} is alive and live"), || {
                let alive = world.ear.count(|input| matches!(input, FeedInput::VenueAlive(of) if *of == venue));
                alive > 0 && world.ear.is_live(venue, btc)
            })
            .await;
        world
            .until(&format!("{venue} gives last, bid and ask"), || {
                let quotes = world.ear.quotes(venue, btc);
                let has = |pick: fn(&shared::quote::Quote) -> shared::quote::Field| {
                    quotes.iter().any(|quote| pick(quote).price().is_some())
                };
                has(|quote| quote.last) && has(|quote| quote.bid) && has(|quote| quote.ask)
            })
            .await;
        let status = world.status(venue);
        assert_eq!((status.counters.malformed, status.refused_symbols.len()), (0, 0), "{status:#?}");
        assert!(status.connected && status.connections == 1, "{status:#?}");
    }
    for (alias, asset) in [("RNDR", "RENDER"), ("MATIC", "POL"), ("NANO", "XNO")] {
        assert_eq!(world.asset(alias), world.asset(asset), "{alias}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_name_silences_nobody_and_is_tried_again() {
    for venue in Venue::ALL {
        let names: &'static [Venue] = Box::leak(Box::new([venue]));
        // The slowest retry stays out of the way until it is wanted.
        let plan = Plan::of(names);
        let simulators = super::world::simulators(&plan).await;
        let sources = super::world::sources(&plan, &simulators);
        let refused = refusable(venue);
        simulators.fault(venue, &Fault::Refuse(refused.to_owned()));
        let world = World::on(simulators, sources).await;
        world
            .until_status(venue, "all but one deliver, and the one is shown refused with a reason", |status| {
                let shown = status
                    .refused_symbols
                    .iter()
                    .any(|shown| shown.asset == "ETH" && shown.instrument == refused && !shown.reason.is_empty());
                // Coinbase says nothing at all of a product it does not know.
                let told = shown || (venue == Venue::Coinbase && status.silent_symbols == [refused]);
                told && status.live == 7
            })
            .await;
        assert!(!world.ear.is_live(venue, world.asset("ETH")), "{venue}");
        world.fault(venue, Fault::Resume);
        world.until_status(venue, "the refused one delivers as well", |status| status.live == 8).await;
        assert!(world.status(venue).refused_symbols.is_empty(), "{venue}");
        world.stop().await;
    }
}

/// How `venue` calls ETH.
fn refusable(venue: Venue) -> &'static str {
    match venue {
        Venue::Coinbase => "ETH-USD",
        Venue::Gemini => "ethusd",
        Venue::Kraken => "ETH/USD",
        Venue::Gateio => "ETH_USDT",
        Venue::Cryptocom => "ETH_USD",
        Venue::Bybit => "ETHUSDT",
        Venue::Okx => "ETH-USDT",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_but_silent_name_is_asked_for_anew_and_carried_by_rest() {
    let silent = Fault::Silent(Some("ETH/USD".to_owned()));
    let world = World::start(Plan { faults: vec![silent], ..Plan::of(&[Venue::Kraken]) }).await;
    let eth = world.asset("ETH");
    world
        .until_status(Venue::Kraken, "the silent name is asked for anew, the others deliver", |status| {
            status.counters.resubscribes >= 2 && status.live == 7 && status.silent_symbols == ["ETH/USD"]
        })
        .await;
    world.until_heard(Venue::Kraken, eth, Route::Rest).await;
    assert!(!world.ear.is_live(Venue::Kraken, eth), "an acknowledgement is not a working subscription");
    // Asking again did not help: another connection is tried, once, and the others are never without one.
    world.until_status(Venue::Kraken, "a second connection takes over", |status| status.counters.handovers == 1).await;
    assert_eq!(world.ear.losses(Venue::Kraken), 0);
    world.fault(Venue::Kraken, Fault::Resume);
    world.all_live().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_asset_on_a_live_connection_is_proven_not_resubscribed() {
    // Nothing moves by itself: all is quiet, heartbeats go on.
    let world = World::live(Plan { every_ms: 3_600_000, ..Plan::of(&[Venue::Kraken]) }).await;
    let btc = world.asset("BTC");
    world.until_status(Venue::Kraken, "REST is asked about the quiet", |status| status.counters.rest_quotes >= 8).await;
    let status = world.status(Venue::Kraken);
    assert_eq!((status.live, status.counters.resubscribes, status.counters.suspected), (8, 0, 0), "{status:#?}");
    assert!(world.ear.is_live(Venue::Kraken, btc));
    assert_eq!(world.ear.rest_quotes(Venue::Kraken), 0, "REST said the same: there is nothing to tell");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_rest_contradicts_is_doubted_and_asked_for_anew() {
    let world = World::live(Plan { every_ms: 3_600_000, ..Plan::of(&[Venue::Kraken]) }).await;
    let eth = world.asset("ETH");
    world.ear.clear();
    world.fault(Venue::Kraken, Fault::Silent(Some("ETH/USD".to_owned())));
    // The price moves by 25 %; the subscription does not say so.
    world.fault(Venue::Kraken, Fault::Jump(1_250));
    world
        .until_status(Venue::Kraken, "the silent subscription is doubted and asked for anew", |status| {
            status.counters.suspected >= 1 && status.counters.resubscribes >= 1
        })
        .await;
    world
        .until("the feed is told", || {
            world
                .ear
                .count(|input| matches!(input, FeedInput::Subscription { asset, live: false, .. } if *asset == eth))
                > 0
        })
        .await;
    world.until_heard(Venue::Kraken, eth, Route::Rest).await;
    world.fault(Venue::Kraken, Fault::Resume);
    world.all_live().await;
    assert!(world.ear.is_live(Venue::Kraken, eth));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn assets_come_and_go_without_a_new_connection() {
    let world = World::live(Plan { assets: "BTC ETH", ..Plan::of(&[Venue::Okx, Venue::Kraken]) }).await;
    let (btc, mut directory) = (world.asset("BTC"), world.feeds.directory());
    directory.borrow_and_update();
    world.feeds.want(wanted("ETH SOL NOSUCHCOIN"));
    directory.changed().await.expect("the feeds run");
    world
        .until("the new asset delivers, the old one is ended", || {
            let sol = world.feeds.directory().borrow().find(&symbol("SOL"));
            let delivers =
                sol.is_some_and(|sol| world.ear.is_live(Venue::Okx, sol) && world.ear.is_live(Venue::Kraken, sol));
            delivers && !world.ear.is_live(Venue::Okx, btc)
        })
        .await;
    assert_eq!(world.asset("BTC"), btc, "ids never change");
    assert_eq!(world.feeds.status().unlisted, ["NOSUCHCOIN"]);
    let status = world.status(Venue::Okx);
    assert_eq!((status.counters.connects, status.subscribed), (1, 2), "{status:#?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_is_subscribed_while_it_is_and_nothing_else_is_touched() {
    let world = World::live(Plan { assets: "BTC", ..Plan::of(&[Venue::Okx, Venue::Kraken]) }).await;
    let (eth, directory) = (world.asset("ETH"), world.feeds.directory());
    assert_eq!(world.feeds.offers(&symbol("ETH")).len(), 2, "listed, though not subscribed");
    world.feeds.keep(vec![symbol("ETH"), symbol("NOSUCHCOIN")]);
    let delivers = || world.ear.is_live(Venue::Okx, eth) && world.ear.is_live(Venue::Kraken, eth);
    world.until("it delivers", delivers).await;
    // Other parameters do not end it; that nobody asks for it any more does.
    world.feeds.want(wanted("BTC SOL"));
    world.until("the wanted one delivers as well", || world.ear.is_live(Venue::Okx, world.asset("SOL"))).await;
    assert!(delivers());
    world.feeds.keep(Vec::new());
    world.until("it is ended", || !world.ear.is_live(Venue::Okx, eth) && !world.ear.is_live(Venue::Kraken, eth)).await;
    let status = world.status(Venue::Okx);
    assert_eq!((status.counters.connects, status.subscribed, world.asset("ETH")), (1, 2, eth), "{status:#?}");
    assert!(!directory.borrow().entry(eth).expect("known").prewarmed);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_another_node_knows_gets_an_id_for_good() {
    let world = World::live(Plan { assets: "BTC", ..Plan::of(&[Venue::Okx]) }).await;
    assert_eq!(world.feeds.know(symbol("BTC")).await, Some(world.asset("BTC")), "known already");
    let count = world.feeds.directory().borrow().len();
    let (one, other) = tokio::join!(world.feeds.know(symbol("FAR")), world.feeds.know(symbol("AWAY")));
    let ids: BTreeSet<usize> = [one, other].into_iter().flatten().map(|id| id.index()).collect();
    assert_eq!(ids, BTreeSet::from([count, count + 1]));
    world.feeds.want(wanted("ETH"));
    world.until("another plan is in force", || world.ear.is_live(Venue::Okx, world.asset("ETH"))).await;
    assert_eq!((Some(world.asset("FAR")), Some(world.asset("AWAY"))), (one, other));
    assert_eq!(world.feeds.know(symbol("FAR")).await, one);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_channel_conflates_and_loses_no_newest_word() {
    let world = World::live(Plan::of(&[Venue::Coinbase])).await;
    let btc = world.asset("BTC");
    world.ear.set_full(true);
    world.until_status(Venue::Coinbase, "quotes are conflated", |status| status.conflated > 20).await;
    world.ear.clear();
    world.ear.set_full(false);
    world.until_heard(Venue::Coinbase, btc, Route::Ws).await;
    let times: Vec<u64> = world.ear.quotes(Venue::Coinbase, btc).iter().map(|quote| quote.received_mono_ns).collect();
    assert!(times.is_sorted(), "newer words are never overtaken by older ones: {times:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotes_that_stop_together_end_the_connection_though_heartbeats_go_on() {
    // The watchdog over single names is kept out of it.
    let timing = Timing { quiet_ms: 60_000, ..hasty() };
    let world = World::live(Plan { timing, ..Plan::of(&[Venue::Kraken]) }).await;
    world.until_status(Venue::Kraken, "the usual pace is known", |status| status.counters.quotes >= 200).await;
    world.fault(Venue::Kraken, Fault::QuotesStop);
    world.until("the venue is told lost", || world.ear.losses(Venue::Kraken) > 0).await;
    world.until("REST carries the prices", || world.ear.rest_quotes(Venue::Kraken) >= 8).await;
    world.fault(Venue::Kraken, Fault::Resume);
    world.all_live().await;
    world.stop().await;
}
