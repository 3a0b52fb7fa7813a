//! Conversations in made-up time, with the patience of production.

use super::*;
use crate::feeds::outlet::FeedSink;
use dataplane_core::feed::FeedInput;
use shared::asset::{AssetDirectory, Symbol};
use shared::quote::Currency;
use shared::venue::Venue;
use venues::VenueSettings;
use venues::protocol::Instrument;

const START: Moment = Moment { mono_ns: 1_000_000_000_000, wall_ms: 1_793_500_000_000 };

/// A sink that hears nothing.
struct Deaf;

impl FeedSink for Deaf {
    fn try_send(&self, _input: FeedInput) -> Result<(), FeedInput> {
        Ok(())
    }
}

fn markets(names: &str) -> Vec<Market> {
    let market = |(index, base): (usize, &str)| {
        let symbol = |text: &str| Symbol::new(text.as_bytes()).expect("good");
        let name = format!("{base}/USD");
        let instrument =
            Instrument { rest_name: name.clone(), name, base: symbol(base), quote: symbol("USD"), trading: true };
        Market { asset: AssetId::new(index).expect("small"), currency: Currency::Usd, instrument }
    };
    names.split_whitespace().enumerate().map(market).collect()
}

struct Talk {
    conversation: Conversation,
    board: Arc<Board>,
}

fn talk(venue: Venue, names: &str) -> Talk {
    let board = Arc::new(Board::new(venue, Arc::new(Deaf)));
    let markets = markets(names);
    board.lock().change_markets(&markets, &AssetDirectory::new(), true, START);
    board.lock().opened(1, START);
    let protocol = venues::protocol(venue, VenueSettings::default());
    let conversation = Conversation::new(protocol, 1, &markets, Arc::clone(&board), Timing::default(), START);
    Talk { conversation, board }
}

impl Talk {
    /// Lets time pass in ticks from `from_ms` to `to_ms`; `frame` comes every `every_ms`. Answers the first verdict and
    /// when it came, ms.
    fn pass(&mut self, from_ms: u64, to_ms: u64, frame: &str, every_ms: u64) -> Option<(u64, Verdict)> {
        for ms in (from_ms..=to_ms).step_by(250) {
            let now = START.plus_ms(ms);
            while self.conversation.next_text(now).is_some() {}
            if every_ms > 0 && ms % every_ms == 0 {
                self.conversation.text(frame.as_bytes(), now);
            }
            self.conversation.tick(now);
            if let Some(verdict) = self.conversation.take_verdict() {
                return Some((ms, verdict));
            }
        }
        None
    }
}

const HEARTBEAT: &str = r#"{"channel":"heartbeat"}"#;

fn ticker(base: &str) -> String {
    format!(
        r#"{{"channel":"ticker","type":"update","data":[{{"symbol":"{base}/USD","bid":1.0,"bid_qty":1,"ask":1.1,"ask_qty":1,"last":1.0,"volume":1,"vwap":1,"low":1,"high":1,"change":0,"change_pct":0}}]}}"#
    )
}

#[test]
fn silence_is_asked_about_at_five_seconds_and_believed_before_ten() {
    let mut talk = talk(Venue::Okx, "BTC");
    assert!(!talk.conversation.take_ping(START.plus_ms(4_999)));
    assert!(talk.conversation.take_ping(START.plus_ms(5_000)));
    assert!(!talk.conversation.take_ping(START.plus_ms(5_001)), "once");
    // Within 10 s, however late in its tick the silence began.
    assert_eq!(talk.pass(5_250, 20_000, "", 0), Some((9_750, Verdict::End(End::Dead { silent_ms: 9_750 }))));
}

#[test]
fn a_pong_keeps_a_connection_but_not_a_mute_venue() {
    let mut talk = talk(Venue::Kraken, "BTC");
    for ms in (0..=5_000).step_by(1_000) {
        talk.conversation.sign_of_life(true, START.plus_ms(ms));
        assert_eq!(talk.pass(ms, ms, "", 0), None, "{ms}");
    }
    // Kraken's own heartbeats come every second; 5 s without one is its bound.
    talk.conversation.sign_of_life(true, START.plus_ms(5_100));
    assert_eq!(talk.pass(5_250, 5_250, "", 0), Some((5_250, Verdict::End(End::Mute { silent_ms: 5_250 }))));
}

#[test]
fn frames_are_sent_no_faster_than_the_venue_permits() {
    // 8 messages a second are permitted; the connection is greeted with one for heartbeats.
    let mut talk = talk(Venue::Coinbase, "BTC ETH SOL");
    let mut sent = Vec::new();
    for ms in 0..3_000 {
        if talk.conversation.next_text(START.plus_ms(ms)).is_some() {
            sent.push(ms);
        }
    }
    assert!(sent.len() >= 2, "{sent:?}");
    assert!(sent.windows(2).all(|pair| pair[1] - pair[0] >= 125), "{sent:?}");
}

#[test]
fn crypto_com_is_given_its_second_before_the_first_frame() {
    let mut talk = talk(Venue::Cryptocom, "BTC");
    assert_eq!(talk.conversation.next_text(START.plus_ms(999)), None);
    assert!(talk.conversation.next_text(START.plus_ms(1_000)).is_some());
}

#[test]
fn a_heartbeat_that_asks_for_an_answer_gets_it_before_anything_else() {
    let mut talk = talk(Venue::Cryptocom, "BTC");
    let frame = r#"{"id":1790114291578,"method":"public/heartbeat","code":0}"#;
    talk.conversation.text(frame.as_bytes(), START.plus_ms(1_000));
    let answer = talk.conversation.next_text(START.plus_ms(1_000)).expect("an answer");
    assert!(answer.contains("public/respond-heartbeat") && answer.contains("1790114291578"), "{answer}");
}

#[test]
fn a_venue_that_is_kept_alive_by_us_is_pinged() {
    let mut talk = talk(Venue::Okx, "BTC");
    let mut pings = 0;
    for ms in (0..60_000).step_by(250) {
        let now = START.plus_ms(ms);
        while let Some(text) = talk.conversation.next_text(now) {
            if text == "ping" {
                pings += 1;
                talk.conversation.text(b"pong", now);
            }
        }
        talk.conversation.tick(now);
    }
    assert!((2..=6).contains(&pings), "within 30 s each, and not much oftener: {pings} in a minute");
    assert_eq!(talk.board.lock().counters.heartbeats, pings);
}

#[test]
fn one_silent_name_among_many_is_asked_for_three_times_then_another_connection_is_wanted() {
    let mut talk = talk(Venue::Kraken, "BTC ETH");
    let verdict = talk.pass(0, 200_000, &ticker("BTC"), 1_000);
    let Some((ms, Verdict::Successor(why))) = verdict else { panic!("{verdict:?}") };
    assert_eq!(talk.board.lock().counters.resubscribes, 3);
    assert!((80_000..85_000).contains(&ms) && why.contains("ETH/USD"), "{ms} {why}");
    // Once is enough: from now on it is only asked for, rarely.
    assert_eq!(talk.pass(ms + 250, ms + 590_000, &ticker("BTC"), 1_000), None);
}

#[test]
fn many_silent_names_are_the_connections_fault() {
    let mut talk = talk(Venue::Kraken, "BTC ETH SOL");
    let verdict = talk.pass(0, 60_000, HEARTBEAT, 1_000);
    assert_eq!(verdict, Some((20_000, Verdict::End(End::NothingDelivered))));
    assert_eq!(talk.board.lock().counters.resubscribes, 0);
}

#[test]
fn a_notice_wants_a_successor_but_not_from_a_connection_that_is_itself_new() {
    let notice = r#"{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"maintenance","api_version":"v2","connection_id":16174536464690282295}]}"#;
    let mut talk = talk(Venue::Kraken, "BTC");
    assert_eq!(talk.pass(0, 0, notice, 1), None, "it said so on the connection before as well");
    assert_eq!(talk.pass(250, 3_000, &ticker("BTC"), 1_000), None);
    talk.conversation.text(notice.as_bytes(), START.plus_ms(3_100));
    assert!(matches!(talk.conversation.take_verdict(), Some(Verdict::Successor(_))));
    talk.conversation.text(notice.as_bytes(), START.plus_ms(3_200));
    assert_eq!(talk.conversation.take_verdict(), None, "not again so soon");
}

#[test]
fn garbage_without_end_is_given_up_and_garbage_with_an_end_is_not() {
    let mut talk = talk(Venue::Kraken, "BTC");
    for ms in 0..200 {
        talk.conversation.text(b"{\"channel\":", START.plus_ms(ms));
        if ms % 40 == 39 {
            talk.conversation.text(HEARTBEAT.as_bytes(), START.plus_ms(ms));
        }
    }
    assert_eq!(talk.conversation.take_verdict(), None);
    for ms in 200..250 {
        talk.conversation.text(b"{\"channel\":", START.plus_ms(ms));
    }
    assert_eq!(talk.conversation.take_verdict(), Some(Verdict::End(End::Malformed)));
    assert_eq!(talk.board.lock().counters.malformed, 250);
}

#[test]
fn a_suspended_machine_finds_its_connections_dead() {
    let mut talk = talk(Venue::Kraken, "BTC");
    assert_eq!(talk.pass(0, 1_000, &ticker("BTC"), 1_000), None);
    let after = talk.pass(61_000, 61_000, "", 0);
    assert!(matches!(after, Some((61_000, Verdict::End(End::Dead { .. })))), "{after:?}");
}
