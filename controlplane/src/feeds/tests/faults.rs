//! What a venue can do to a connection: drop it, freeze it, fill it with garbage, lose and repeat frames, announce its end.

use super::world::{Plan, World};
use crate::feeds::simulator::fault::{Fault, Garbage};
use shared::quote::Route;
use shared::venue::Venue;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_connection_is_told_and_made_again() {
    let world = World::live(Plan::of(&[Venue::Coinbase, Venue::Okx])).await;
    let btc = world.asset("BTC");
    world.fault(Venue::Okx, Fault::Drop);
    world.until("the loss is told", || world.ear.losses(Venue::Okx) == 1).await;
    world.until_status(Venue::Okx, "it is connected again", |status| status.counters.reconnects == 1).await;
    world.all_live().await;
    assert!(world.ear.is_live(Venue::Okx, btc));
    assert_eq!((world.ear.losses(Venue::Coinbase), world.status(Venue::Coinbase).counters.connects), (0, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_noticed_by_its_silence() {
    for venue in [Venue::Coinbase, Venue::Gateio, Venue::Gemini] {
        let names: &'static [Venue] = Box::leak(Box::new([venue]));
        let world = World::live(Plan::of(names)).await;
        world.fault(venue, Fault::HalfOpen);
        world
            .until_status(venue, "the dead connection is ended", |status| {
                status.last_error.as_deref().is_some_and(|text| text.starts_with("dead"))
            })
            .await;
        assert_eq!(world.ear.losses(venue), 1, "{venue}");
        world.all_live().await;
        assert_eq!(world.status(venue).counters.reconnects, 1, "{venue}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venue_that_goes_silent_is_left_and_its_prices_come_over_rest() {
    let world = World::live(Plan::of(&[Venue::Kraken])).await;
    let btc = world.asset("BTC");
    world.fault(Venue::Kraken, Fault::Silent(None));
    world.until("the venue is told lost", || world.ear.losses(Venue::Kraken) >= 1).await;
    world.until_heard(Venue::Kraken, btc, Route::Rest).await;
    world.until_status(Venue::Kraken, "it keeps trying", |status| status.counters.connects >= 3).await;
    world.fault(Venue::Kraken, Fault::Resume);
    world.all_live().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_counted_and_disturbs_nobody() {
    for venue in Venue::ALL {
        let names: &'static [Venue] = Box::leak(Box::new([venue]));
        let world = World::live(Plan::of(names)).await;
        world.fault(venue, Fault::Garbage(Garbage::Text));
        world.until_status(venue, "garbage is counted", |status| status.counters.malformed >= 10).await;
        let btc = world.asset("BTC");
        world.until_heard(venue, btc, Route::Ws).await;
        let status = world.status(venue);
        assert_eq!((status.counters.connects, status.connected), (1, true), "{status:#?}");
        // The last fault is for people: short and on one line.
        let text = status.last_error.expect("a fault was noted");
        assert!(text.chars().count() <= 200 && !text.contains('\n'), "{text:?}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_no_text_protocol_has_end_the_connection_at_most() {
    for kind in [Garbage::Utf8, Garbage::Huge, Garbage::Binary] {
        let world = World::live(Plan::of(&[Venue::Bybit])).await;
        world.fault(Venue::Bybit, Fault::Garbage(kind));
        world.until_status(Venue::Bybit, "it is counted", |status| status.counters.malformed >= 1).await;
        if kind != Garbage::Binary {
            world.until_status(Venue::Bybit, "it connects again", |status| status.counters.reconnects == 1).await;
        }
        world.all_live().await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_frame_where_frames_are_numbered_is_a_reason_to_connect_again() {
    let world = World::live(Plan::of(&[Venue::Coinbase])).await;
    world.fault(Venue::Coinbase, Fault::Lose(1));
    world
        .until_status(Venue::Coinbase, "the gap is seen", |status| {
            status.counters.gaps >= 1 && status.counters.reconnects >= 1
        })
        .await;
    world.all_live().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_frames_are_passed_on_with_their_old_times_for_the_guard_to_refuse() {
    let world = World::live(Plan::of(&[Venue::Okx])).await;
    let btc = world.asset("BTC");
    world.until("a few quotes came", || world.ear.quotes(Venue::Okx, btc).len() > 10).await;
    world.fault(Venue::Okx, Fault::Replay(200));
    world
        .until("an older word follows a newer one", || {
            let quotes = world.ear.quotes(Venue::Okx, btc);
            quotes.windows(2).any(|pair| pair[1].exchange_time_ms < pair[0].exchange_time_ms)
        })
        .await;
    assert_eq!(world.status(Venue::Okx).counters.connects, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announced_end_opens_a_second_connection_first() {
    let world = World::live(Plan::of(&[Venue::Okx])).await;
    let btc = world.asset("BTC");
    world.ear.clear();
    let notice = r#"{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. Please reconnect.","connId":"a4d3ae55"}"#;
    world.fault(Venue::Okx, Fault::Say(notice.to_owned()));
    world
        .until_status(Venue::Okx, "a second connection takes over", |status| {
            status.counters.handovers == 1 && status.connections == 1 && status.counters.connects == 2
        })
        .await;
    world.until_heard(Venue::Okx, btc, Route::Ws).await;
    assert_eq!(world.ear.losses(Venue::Okx), 0, "nobody was without a connection");
    assert_eq!(world.status(Venue::Okx).live, 8);
    assert_eq!(world.status(Venue::Okx).counters.reconnects, 0, "planned, not lost");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_arrives_as_the_venue_says_it() {
    let world = World::live(Plan::of(&[Venue::Gemini])).await;
    let btc = world.asset("BTC");
    let bids = || world.ear.quotes(Venue::Gemini, btc).iter().filter_map(|quote| quote.bid.price()).collect::<Vec<_>>();
    let before = *bids().last().expect("a bid");
    world.fault(Venue::Gemini, Fault::Jump(600));
    // 35 % and more below; the feed shard, not the session, decides what to believe.
    world
        .until("the jump arrives", || {
            let last = *bids().last().expect("a bid");
            last.compare_value(before).is_lt()
                && last.distance_centibps(before).is_some_and(|distance| distance > 350_000)
        })
        .await;
    world.stop().await;
}
