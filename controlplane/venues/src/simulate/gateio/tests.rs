//! What the simulated Gate.io says, in tables, and that its own decoder reads it back.

use super::{GateioRest, GateioSimulator};
use crate::simulate::{RestSimulator, VenueSimulator};
use crate::told::{instrument, market};

const NOW_MS: u64 = 1_800_000_000_123;

fn connected() -> GateioSimulator {
    let mut simulator = GateioSimulator::new();
    assert!(simulator.greeting(NOW_MS).is_empty());
    simulator
}

#[track_caller]
fn check(request: &str, expected: &str) {
    let listed = [instrument("ABC_USDT", '_')];
    let answers = connected().receive(request, &listed, &[], NOW_MS);
    let id = r#""time":1800000000,"time_ms":1800000000123,"conn_id":"000001a3185c507b","trace_id":"0000000000000000000001a3185c507b""#;
    assert_eq!(answers, [expected.replace("@", id)], "{request}");
}

#[test]
fn answers_are_worded_as_the_venue_words_them() {
    check(
        r#"{"id":5,"channel":"spot.tickers","event":"subscribe","payload":["ABC_USDT"]}"#,
        r#"{@,"id":5,"channel":"spot.tickers","event":"subscribe","payload":["ABC_USDT"],"result":{"status":"success"}}"#,
    );
    // One unknown pair refuses the frame.
    check(
        r#"{"channel":"spot.tickers","event":"subscribe","payload":["ABC_USDT","NOPE_USDT"]}"#,
        r#"{@,"channel":"spot.tickers","event":"subscribe","payload":["ABC_USDT","NOPE_USDT"],"error":{"code":2,"message":"unknown currency pair: NOPE_USDT"},"result":{"status":"fail"}}"#,
    );
    check(
        r#"{"channel":"spot.obu","event":"subscribe","payload":["x"]}"#,
        r#"{@,"channel":"spot.obu","event":"subscribe","payload":["x"],"error":{"code":2,"message":"Unknown channel spot.obu"},"result":{"status":"fail"}}"#,
    );
    check(r#"{"id":6,"channel":"spot.ping"}"#, r#"{@,"id":6,"channel":"spot.pong","event":"","result":null}"#);
    check("{", r#"{@,"channel":"","event":"","error":{"code":1,"message":"invalid request body"},"result":null}"#);
}

#[test]
fn a_refused_frame_subscribes_nothing() {
    let listed = [instrument("ABC_USDT", '_')];
    let mut simulator = connected();
    for channel in ["spot.tickers", "spot.book_ticker"] {
        let request = format!(r#"{{"channel":"{channel}","event":"subscribe","payload":["ABC_USDT","NOPE_USDT"]}}"#);
        simulator.receive(&request, &listed, &[], NOW_MS);
    }
    assert_eq!(simulator.subscriptions(), 0);
    assert!(simulator.quote(&listed[0], &market("2", "1", "3", 1), NOW_MS).is_empty());
}

#[test]
fn tickers_come_once_a_second_and_the_book_at_once() {
    let listed = [instrument("ABC_USDT", '_')];
    let mut simulator = connected();
    for channel in ["spot.tickers", "spot.book_ticker"] {
        let request = format!(r#"{{"channel":"{channel}","event":"subscribe","payload":["ABC_USDT"]}}"#);
        simulator.receive(&request, &listed, &[], NOW_MS);
    }
    let sent = [0, 200, 999, 1_000, 1_100, 2_050]
        .map(|after_ms| simulator.quote(&listed[0], &market("2", "1", "3", after_ms), NOW_MS + after_ms).len());
    assert_eq!(sent, [2, 1, 1, 2, 1, 2]);
}

#[test]
fn silence_ends_in_a_dropped_connection() {
    let listed = [instrument("ABC_USDT", '_')];
    let mut simulator = connected();
    assert_eq!(simulator.must_close(NOW_MS + 29_999), None);
    assert_eq!(simulator.must_close(NOW_MS + 30_000), Some(1_006));
    simulator.receive(r#"{"channel":"spot.tickers","event":"subscribe","payload":["ABC_USDT"]}"#, &listed, &[], NOW_MS);
    assert_eq!(simulator.must_close(NOW_MS + 59_999), None);
    assert_eq!(simulator.must_close(NOW_MS + 60_000), Some(1_006));
    simulator.receive(r#"{"channel":"spot.ping"}"#, &listed, &[], NOW_MS + 50_000);
    assert_eq!(simulator.must_close(NOW_MS + 60_000), None);
}

#[test]
fn rest_errors() {
    let listed = [instrument("ABC_USDT", '_')];
    let get = |path: &str| GateioRest.get(path, &listed, &[market("2", "1", "3", 1)], NOW_MS);
    assert_eq!(
        get("/api/v4/spot/tickers?currency_pair=NOTACOIN_USDT"),
        (400, r#"{"label":"INVALID_CURRENCY","message":"Invalid currency NOTACOIN"}"#.to_owned())
    );
    assert_eq!(get("/spot/tickers?currency_pair=ABCUSDT").0, 400);
    assert_eq!(get("/spot/nothing").0, 404);
    assert!(get("/api/v4/spot/tickers").1.starts_with(r#"[{"currency_pair":"ABC_USDT","last":"2","lowest_ask":"3","#));
}
