//! What is told of Coinbase's frames, good and odd.

use super::*;
use crate::told::{check, check_survives, check_tickers, instrument, told};

const TICKER: &str = r#"{"channel":"ticker","timestamp":"2026-08-09T21:05:48.229198328Z","sequence_num":6,"events":[{"type":"snapshot","tickers":[{"type":"ticker","product_id":"BTC-USD","price":"65086.18","best_bid":"65083.66","best_ask":"65083.67"}]}]}"#;

#[test]
fn tickers_are_quotes() {
    let mut protocol = Coinbase::default();
    check(
        &mut protocol,
        TICKER,
        &["quote BTC/USD snapshot last 65086.18 bid 65083.66 ask 65083.67 at 1786309548229 number -"],
    );
    // Two events, two tickers in one of them, an unknown field, an empty side.
    check(
        &mut protocol,
        r#"{"client_id":"","channel":"ticker","timestamp":"2026-08-09T21:05:48Z","events":[{"type":"update","tickers":[{"product_id":"ETH-EUR","price":"1","best_bid":"","best_ask":"0","new":[1]},{"product_id":"1INCH-USD","price":"0.25"}]},{"type":"update","tickers":[]}]}"#,
        &[
            "quote ETH/EUR change last 1 bid - ask - at 1786309548000 number -",
            "quote 1INCH/USD change last 0.25 bid = ask = at 1786309548000 number -",
        ],
    );
    check(
        &mut protocol,
        r#"{"channel":"ticker","timestamp":"2026-08-09T21:05:48Z","events":[{"tickers":[{"product_id":"BTC-PERP-INTX","price":"1"}]}]}"#,
        &["ignored product BTC-PERP-INTX"],
    );
}

#[test]
fn a_broken_ticker_spoils_its_whole_frame() {
    let mut protocol = Coinbase::default();
    let frame = |ticker: &str, time: &str| {
        format!(
            r#"{{"channel":"ticker","timestamp":"{time}","events":[{{"tickers":[{{"product_id":"BTC-USD","price":"1"}},{ticker}]}}]}}"#
        )
    };
    let good_time = "2026-08-09T21:05:48Z";
    for (ticker, time, fault) in [
        (r#"{"product_id":"ETH-USD","price":"NaN"}"#, good_time, "malformed price: price is not a decimal number"),
        (r#"{"product_id":"ETH-USD","price":1e308}"#, good_time, "malformed price: price is too large"),
        (r#"{"product_id":"ETH-USD","price":"-1"}"#, good_time, "malformed price: price is below zero"),
        (r#"{"product_id":"ETH-USD","price":{}}"#, good_time, "malformed price is not a string or a number"),
        (r#"{"price":"1"}"#, good_time, "malformed product_id is missing"),
        ("7", good_time, "malformed product_id is missing"),
        (r#"{"product_id":"ETH-USD","price":"1"}"#, "yesterday", "malformed timestamp is not RFC 3339"),
    ] {
        check(&mut protocol, &frame(ticker, time), &[fault]);
    }
}

#[test]
fn other_frames_are_known() {
    let mut protocol = Coinbase::default();
    for (frame, expected) in [
        (
            r#"{"channel":"subscriptions","timestamp":"2026-08-09T21:05:48Z","sequence_num":2,"events":[{"subscriptions":{"ticker":["BTC-USD","ETH-USD"],"heartbeats":["heartbeats"]}}]}"#,
            &["subscribed BTC-USD by -", "subscribed ETH-USD by -", "subscribed heartbeats by -"][..],
        ),
        (
            r#"{"channel":"subscriptions","events":[{"subscriptions":{}}]}"#,
            &["status reconnect=false: no subscriptions"][..],
        ),
        (
            r#"{"channel":"heartbeats","events":[{"current_time":"2026-08-09 21:05:48.854840045 +0000 UTC m=+41691.26","heartbeat_counter":41691}]}"#,
            &["heartbeat -"][..],
        ),
        (r#"{"channel":"heartbeats","events":[{"heartbeat_counter":"41691"}]}"#, &["heartbeat -"][..]),
        (
            r#"{"channel":"market_trades","events":[{"trades":[{"price":"1"}]}]}"#,
            &["ignored channel market_trades"][..],
        ),
        (r#"{"type":"error","message":"authentication failure"}"#, &["refused - by -: authentication failure"][..]),
        (
            r#"{"type":"error","message":"NOPE-USD is not a valid product"}"#,
            &["refused NOPE-USD by -: NOPE-USD is not a valid product"][..],
        ),
        (r#"{"type":"error"}"#, &["malformed message is missing"][..]),
        (r#"{"timestamp":""}"#, &["malformed channel is missing"][..]),
        (r#"{"channel":"ticker","events":{}}"#, &["malformed events is not an array"][..]),
        ("[]", &["malformed frame is not an object"][..]),
    ] {
        check(&mut protocol, frame, expected);
    }
}

#[test]
fn a_lost_message_shows() {
    let mut protocol = Coinbase::default();
    let mut hear = |sequence: &str| {
        let frame = format!(r#"{{"channel":"candles","sequence_num":{sequence},"events":[]}}"#);
        told(&mut protocol, frame.as_bytes()).join(", ")
    };
    for (sequence, expected) in [
        ("17", "ignored channel candles"),
        ("18", "ignored channel candles"),
        ("20", "gap 19 20, ignored channel candles"),
        ("21", "ignored channel candles"),
        ("20", "gap 22 20"),
        ("22", "ignored channel candles"),
        ("18446744073709551615", "gap 23 18446744073709551615, ignored channel candles"),
        ("3", "ignored channel candles"),
    ] {
        assert_eq!(hear(sequence), expected, "{sequence}");
    }
    protocol.reset();
    assert_eq!(told(&mut protocol, TICKER.as_bytes()).len(), 1, "a new connection counts anew");
}

#[test]
fn requests_are_spelled_as_recorded() {
    let protocol = Coinbase::default();
    assert_eq!(
        protocol.subscribe(&["BTC-USD", "ETH-USD"], 1),
        [r#"{"type":"subscribe","product_ids":["BTC-USD","ETH-USD"],"channel":"ticker"}"#]
    );
    assert_eq!(
        protocol.unsubscribe(&["BTC-USD"], 1),
        [r#"{"type":"unsubscribe","product_ids":["BTC-USD"],"channel":"ticker"}"#]
    );
    let btc = instrument("BTC-USD", '-');
    assert_eq!(protocol.tickers(&[&btc]).path, "/api/v3/brokerage/market/products/BTC-USD/ticker?limit=1");
    assert_eq!(protocol.spell(&btc.base, &btc.quote), "BTC-USD");
}

#[test]
fn rest_answers() {
    let (protocol, btc) = (Coinbase::default(), instrument("BTC-USD", '-'));
    for (status, body, expected) in [
        (
            200,
            r#"{"trades":[{"price":"3","time":"2026-04-07T00:28:58.544778Z"},{"price":"2"}],"best_bid":"1","best_ask":"4"}"#,
            "quote BTC/USD snapshot last 3 bid 1 ask 4 at 1775521738544 number -",
        ),
        (
            200,
            r#"{"trades":[],"best_bid":"","best_ask":"4"}"#,
            "quote BTC/USD snapshot last = bid - ask 4 at - number -",
        ),
        (200, "{}", "malformed trades is missing"),
        (404, r#"{"message":"NotFound"}"#, "refused BTC-USD by -: NotFound (HTTP 404)"),
        (429, "", "refused - by -: HTTP 429"),
        (502, "<html>", "refused - by -: HTTP 502"),
    ] {
        check_tickers(&protocol, (status, body), &[&btc], &[expected]);
    }
}

#[test]
fn products_that_do_not_trade_are_told_apart() {
    let product = |name: &str, extra: &str| {
        format!(r#"{{"product_id":"{name}","base_currency_id":"BTC","quote_currency_id":"USD",{extra}}}"#)
    };
    for (extra, trading) in [
        (r#""status":"online""#, true),
        (r#""status":"online","trading_disabled":false,"cancel_only":false"#, true),
        (r#""status":"delisted","trading_disabled":true"#, false),
        (r#""status":"online","trading_disabled":true"#, false),
        (r#""status":"online","cancel_only":true"#, false),
        (r#""status":"online","view_only":true"#, false),
        (r#""trading_disabled":false"#, false),
    ] {
        let futures = product("BTC-PERP-INTX", extra);
        let body = format!(r#"{{"products":[{},{futures},null,{{}}]}}"#, product("BTC-USD", extra));
        let list = Coinbase::default().decode_instruments(200, body.as_bytes()).expect("a list");
        assert_eq!(list, [Instrument { trading, ..instrument("BTC-USD", '-') }], "{extra}");
    }
    for (status, body) in [(200, "{}"), (200, r#"{"products":[]}"#), (200, "["), (429, ""), (500, r#"{"products":[]}"#)]
    {
        assert!(Coinbase::default().decode_instruments(status, body.as_bytes()).is_err(), "{status} {body}");
    }
}

#[test]
fn changed_bytes_are_survived() {
    check_survives(&mut Coinbase::default(), &[TICKER, r#"{"type":"error","message":"NOPE-USD"}"#]);
}
