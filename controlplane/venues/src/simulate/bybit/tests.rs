//! What the simulated Bybit says, in tables, and that its own decoder reads it back.

use super::{BybitRest, BybitSimulator};
use crate::protocol::Instrument;
use crate::simulate::{RestSimulator, VenueSimulator};
use crate::told::{self, market};

const NOW_MS: u64 = 1_800_000_000_123;

fn listed() -> [Instrument; 1] {
    [Instrument { name: "ABCUSDT".to_owned(), rest_name: "ABCUSDT".to_owned(), ..told::instrument("ABC-USDT", '-') }]
}

fn connected() -> BybitSimulator {
    let mut simulator = BybitSimulator::new();
    assert!(simulator.greeting(NOW_MS).is_empty());
    simulator
}

#[test]
fn answers_are_worded_as_the_venue_words_them() {
    let connection = format!("{NOW_MS:020x}-1");
    for (request, expected) in [
        (
            r#"{"op":"subscribe","args":["tickers.ABCUSDT"]}"#,
            r#"{"success":true,"ret_msg":"subscribe","conn_id":"@","op":"subscribe"}"#,
        ),
        (
            r#"{"req_id":"7","op":"subscribe","args":["orderbook.1.ABCUSDT"]}"#,
            r#"{"success":true,"ret_msg":"subscribe","conn_id":"@","req_id":"7","op":"subscribe"}"#,
        ),
        (
            r#"{"req_id":"7","op":"subscribe","args":["tickers.ABCUSDT","tickers.NOPEUSDT"]}"#,
            r#"{"success":false,"ret_msg":"Invalid symbol :[tickers.NOPEUSDT]","conn_id":"@","req_id":"7","op":"subscribe"}"#,
        ),
        (
            r#"{"op":"subscribe","args":["nope.ABCUSDT"]}"#,
            r#"{"success":false,"ret_msg":"error:handler not found,topic:nope.ABCUSDT","conn_id":"@","op":"subscribe"}"#,
        ),
        (
            r#"{"op":"subscribe","args":["a","a","a","a","a","a","a","a","a","a","a"]}"#,
            r#"{"success":false,"ret_msg":"args size \u003e10","conn_id":"@","op":"subscribe"}"#,
        ),
        (r#"{"op":"ping"}"#, r#"{"success":true,"ret_msg":"pong","conn_id":"@","op":"ping"}"#),
        (r#"{"op":"nope"}"#, r#"{"success":false,"ret_msg":"error:invalid op","conn_id":"@","op":"nope"}"#),
        ("hello", r#"{"success":false,"ret_msg":"Failed to decode incoming data","conn_id":"@","op":""}"#),
    ] {
        let answers = connected().receive(request, &listed(), &[], NOW_MS);
        assert_eq!(answers, [expected.replace('@', &connection)], "{request}");
    }
}

#[test]
fn a_refused_frame_subscribes_nothing_and_twice_is_once() {
    let mut simulator = connected();
    let mixed = r#"{"op":"subscribe","args":["tickers.ABCUSDT","tickers.NOPEUSDT"]}"#;
    simulator.receive(mixed, &listed(), &[], NOW_MS);
    assert_eq!(simulator.subscriptions(), 0);
    let good = r#"{"op":"subscribe","args":["tickers.ABCUSDT"]}"#;
    assert!(simulator.receive(good, &listed(), &[], NOW_MS).concat().contains("true"));
    assert!(
        simulator
            .receive(good, &listed(), &[], NOW_MS)
            .concat()
            .contains("error:already subscribed,topic:tickers.ABCUSDT")
    );
    assert_eq!(simulator.subscriptions(), 1);
    assert_eq!(simulator.quote(&listed()[0], &market("2", "1", "3", 1), NOW_MS).len(), 1);
}

#[test]
fn ten_silent_minutes_end_the_connection() {
    let mut simulator = connected();
    assert_eq!(simulator.must_close(NOW_MS + 599_999), None);
    assert_eq!(simulator.must_close(NOW_MS + 600_000), Some(1_006));
    simulator.receive(r#"{"op":"ping"}"#, &[], &[], NOW_MS + 1);
    assert_eq!(simulator.must_close(NOW_MS + 600_000), None);
}

#[test]
fn rest_errors() {
    let get = |path: &str| BybitRest.get(path, &listed(), &[market("2", "1", "3", 1)], NOW_MS);
    assert_eq!(
        get("/v5/market/tickers?category=spot&symbol=NOPEUSDT"),
        (
            200,
            r#"{"retCode":10001,"retMsg":"Not supported symbols","result":{},"retExtInfo":{},"time":1800000000123}"#
                .to_owned()
        )
    );
    assert!(get("/v5/market/tickers?symbol=ABCUSDT").1.contains("10001"));
    assert_eq!(get("/v5/market/nope").0, 404);
    assert!(get("/v5/market/tickers?category=spot").1.contains(r#""symbol":"ABCUSDT","bid1Price":"1""#));
}
