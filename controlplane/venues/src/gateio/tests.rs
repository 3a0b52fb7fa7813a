//! Frames and bodies of Gate.io, good and odd, and what they decode to. Written for these tests.

use super::Gateio;
use crate::protocol::VenueProtocol;
use crate::simulate::gateio::{GateioRest, GateioSimulator};
use crate::told::{self, instrument};

#[track_caller]
fn check(frame: &str, expected: &[&str]) {
    told::check(&mut Gateio::new(), frame, expected);
}

const BOOK_TICKER: &str = r#"{"time":1800000000,"time_ms":1800000000714,"channel":"spot.book_ticker","event":"update","result":{"t":1800000000710,"u":41,"s":"ABC_USDT","b":"83.9","B":"0.4","a":"84","A":"0.05"}}"#;
const TICKER: &str = r#"{"time":1800000000,"time_ms":1800000000909,"channel":"spot.tickers","event":"update","conn_id":"x","result":{"currency_pair":"ABC_USDT","last":"116","lowest_ask":"117.50","highest_bid":"115.9","change_percentage":"0.2"}}"#;
const REFUSAL: &str = r#"{"time":1800000000,"id":9,"channel":"spot.tickers","event":"subscribe","payload":["NOPE_USDT"],"error":{"code":2,"message":"unknown currency pair: NOPE_USDT"},"result":{"status":"fail"}}"#;

#[test]
fn quotes_of_each_channel() {
    check(BOOK_TICKER, &["quote ABC/USDT snapshot last = bid 83.9 ask 84 at 1800000000710 number 41"]);
    check(TICKER, &["quote ABC/USDT snapshot last 116 bid 115.9 ask 117.50 at 1800000000909 number -"]);
    check(
        r#"{"time":1800000001,"channel":"spot.trades","event":"update","result":{"id":8,"create_time":1800000000,"create_time_ms":"1800000000708.2642","side":"sell","currency_pair":"ABC_USDT","amount":"0.2","price":"121.5800000000"}}"#,
        &["quote ABC/USDT snapshot last 121.5800000000 bid = ask = at 1800000000708 number -"],
    );
}

#[test]
fn older_and_other_shapes() {
    // Frames of 2021 have seconds only.
    check(
        r#"{"time":1619093533,"channel":"spot.tickers","event":"update","result":{"currency_pair":"NEO_BTC","last":"0.0018716","lowest_ask":"0.0018734","highest_bid":"0.0018697"}}"#,
        &["quote NEO/BTC snapshot last 0.0018716 bid 0.0018697 ask 0.0018734 at 1619093533000 number -"],
    );
    // Some sockets send arrays.
    check(
        r#"{"time_ms":5,"channel":"spot.tickers","event":"update","error":null,"result":[{"currency_pair":"A_USDT","last":"1"},{"currency_pair":"B_USDT","last":"2"}]}"#,
        &[
            "quote A/USDT snapshot last 1 bid = ask = at 5 number -",
            "quote B/USDT snapshot last 2 bid = ask = at 5 number -",
        ],
    );
    // Empty sides, and markets without a price.
    check(
        r#"{"time_ms":5,"channel":"spot.book_ticker","event":"update","result":{"t":4,"u":1,"s":"A_USDT","b":"","a":"2"}}"#,
        &["quote A/USDT snapshot last = bid - ask 2 at 4 number 1"],
    );
    check(
        r#"{"time_ms":5,"channel":"spot.tickers","event":"update","result":{"currency_pair":"A_USDT","last":"0","highest_bid":"0","lowest_ask":"3"}}"#,
        &["quote A/USDT snapshot last - bid - ask 3 at 5 number -"],
    );
    // A name that is no pair of symbols.
    check(
        r#"{"time_ms":5,"channel":"spot.tickers","event":"update","result":{"currency_pair":"我_USDT","last":"1"}}"#,
        &["ignored 我_USDT"],
    );
}

#[test]
fn only_the_first_frame_of_a_channel_is_a_snapshot() {
    let mut gateio = Gateio::new();
    let snapshot = |lines: Vec<String>| lines[0].contains(" snapshot ");
    assert!(snapshot(told::told(&mut gateio, TICKER.as_bytes())));
    assert!(!snapshot(told::told(&mut gateio, TICKER.as_bytes())));
    assert!(snapshot(told::told(&mut gateio, BOOK_TICKER.as_bytes())));
    gateio.reset();
    assert!(snapshot(told::told(&mut gateio, TICKER.as_bytes())));
}

#[test]
fn acknowledgements_old_and_new() {
    check(
        r#"{"time":1619093532,"channel":"spot.trades","event":"subscribe","result":{"status":"success"}}"#,
        &["subscribed - by -"],
    );
    check(
        r#"{"time":1,"time_ms":1000,"conn_id":"3","trace_id":"5","id":7,"channel":"spot.book_ticker","event":"subscribe","payload":["A_USDT","B_USDT"],"result":{"status":"success"},"requestId":"5"}"#,
        &["subscribed A_USDT by 7", "subscribed B_USDT by 7"],
    );
    // Depth and interval are no instruments.
    check(
        r#"{"time":1,"channel":"spot.order_book","event":"subscribe","payload":["A_USDT","20","100ms"],"error":null,"result":{"status":"success"}}"#,
        &["subscribed - by -"],
    );
    check(
        r#"{"time":1,"channel":"spot.tickers","event":"unsubscribe","payload":["A_USDT"],"result":{"status":"success"}}"#,
        &["ignored end of a subscription"],
    );
}

#[test]
fn refusals_name_the_pair() {
    check(REFUSAL, &["refused NOPE_USDT by 9: unknown currency pair: NOPE_USDT"]);
    // The message names one of several: the frame is refused as a whole all the same.
    check(
        r#"{"channel":"spot.tickers","event":"subscribe","payload":["A_USDT","NOPE_USDT"],"error":{"code":2,"message":"unknown currency pair: NOPE_USDT"}}"#,
        &["refused NOPE_USDT by -: unknown currency pair: NOPE_USDT"],
    );
    check(
        r#"{"channel":"spot.tickers","event":"subscribe","payload":["A_USDT"],"error":{"code":3,"message":"server error"}}"#,
        &["refused A_USDT by -: server error"],
    );
    check(
        r#"{"channel":"spot.obu","event":"subscribe","payload":["ob.A_USD.50"],"error":{"code":2,"message":"Unknown channel spot.obu"},"result":{"status":"fail"}}"#,
        &["refused - by -: Unknown channel spot.obu"],
    );
    check(
        r#"{"channel":"spot.tickers","event":"subscribe","payload":["A_USDT"],"error":{"code":2,"message":"Alert sub A_USDT"}}"#,
        &["subscribed A_USDT by -"],
    );
    check(r#"{"channel":"spot.tickers","event":"subscribe","result":{"status":"fail"}}"#, &["refused - by -: fail"]);
}

#[test]
fn signs_of_life_and_notices() {
    check(r#"{"time":1,"time_ms":1000,"channel":"spot.pong","event":"","error":null,"result":null}"#, &["heartbeat -"]);
    check(
        r#"{"time":1,"channel":"spot.system","event":"update","result":{"type":"upgrade","msg":"Please reconnect."}}"#,
        &["status reconnect=true: Please reconnect."],
    );
    check(
        r#"{"time":1,"channel":"spot.system","event":"update","result":{"type":"news"}}"#,
        &["status reconnect=false: news"],
    );
    check(r#"{"channel":"","event":"","error":{"code":1,"message":"bad"}}"#, &["status reconnect=false: bad"]);
    check(
        r#"{"channel":"spot.order_book_update","event":"update","result":{"b":[]}}"#,
        &["ignored spot.order_book_update"],
    );
    check("{}", &["ignored frame without a channel"]);
    check(&Gateio::new().subscribe(&["A_USDT"], 1)[0], &["ignored a request"]);
}

#[test]
fn broken_frames_are_malformed_whole() {
    // A reader that is too slow gets a second frame's header inside the first.
    let torn = told::told(&mut Gateio::new(), b"{\"time\":1,\"channel\":\"spot.tick\x81~{\"time\":1}");
    assert_eq!(torn, ["malformed not UTF-8"]);
    check("[]", &["malformed frame is not an object"]);
    check(r#"{"channel":"spot.tickers","event":"update"}"#, &["malformed result is missing"]);
    check(
        r#"{"channel":"spot.tickers","event":"update","result":null}"#,
        &["malformed result is not an object or an array"],
    );
    check(
        r#"{"channel":"spot.tickers","event":"update","result":{"last":"1"}}"#,
        &["malformed currency_pair is missing"],
    );
    check(
        r#"{"channel":"spot.tickers","event":"update","result":[{"currency_pair":"A_USDT","last":"1"},{"currency_pair":"B_USDT","last":"NaN"}]}"#,
        &["malformed last: price is not a decimal number"],
    );
    check(
        r#"{"channel":"spot.book_ticker","event":"update","result":{"t":1,"u":1.5,"s":"A_USDT","b":"1","a":"2"}}"#,
        &["malformed u is not a whole number"],
    );
    check(
        r#"{"channel":"spot.book_ticker","event":"update","result":{"s":"A_USDT","u":1}}"#,
        &["malformed b is missing"],
    );
    check(r#"{"channel":"spot.tickers","event":"subscribe","result":{}}"#, &["malformed result.status is missing"]);
}

#[test]
fn every_frame_carries_one_name_its_own_number_and_the_time() {
    let mut gateio = Gateio::new();
    gateio.tell_time(1_619_093_532_999);
    assert_eq!(
        gateio.subscribe(&["A_USDT", "B_USDT"], 5),
        [
            r#"{"time":1619093532,"id":5,"channel":"spot.book_ticker","event":"subscribe","payload":["A_USDT"]}"#,
            r#"{"time":1619093532,"id":6,"channel":"spot.tickers","event":"subscribe","payload":["A_USDT"]}"#,
            r#"{"time":1619093532,"id":7,"channel":"spot.book_ticker","event":"subscribe","payload":["B_USDT"]}"#,
            r#"{"time":1619093532,"id":8,"channel":"spot.tickers","event":"subscribe","payload":["B_USDT"]}"#,
        ]
    );
    assert_eq!(
        gateio.unsubscribe(&["A_USDT"], 1)[0],
        r#"{"time":1619093532,"id":1,"channel":"spot.book_ticker","event":"unsubscribe","payload":["A_USDT"]}"#
    );
    assert_eq!(gateio.ping(3).as_deref(), Some(r#"{"time":1619093532,"id":3,"channel":"spot.ping"}"#));
}

#[test]
fn rest_tickers() {
    let (abc, def) = (instrument("ABC_USDT", '_'), instrument("DEF_USDT", '_'));
    let check = |status, body, asked: &[_], expected: &[_]| {
        told::check_tickers(&Gateio::new(), (status, body), asked, expected);
    };
    let rows = r#"[{"currency_pair":"XYZ_USDT","last":"9"},{"currency_pair":"DEF_USDT","last":"x"},{"currency_pair":"ABC_USDT","last":"1.838","lowest_ask":"","highest_bid":"1.837"}]"#;
    check(200, rows, &[&abc], &["quote ABC/USDT snapshot last 1.838 bid 1.837 ask - at - number -"]);
    // A broken row spoils itself alone.
    check(
        200,
        rows,
        &[&abc, &def],
        &[
            "malformed DEF_USDT: last: price is not a decimal number",
            "quote ABC/USDT snapshot last 1.838 bid 1.837 ask - at - number -",
        ],
    );
    check(200, "[]", &[&abc], &["refused ABC_USDT by -: not in the venue's list of tickers"]);
    let unknown = r#"{"label":"INVALID_CURRENCY","message":"Invalid currency ABC"}"#;
    check(400, unknown, &[&abc], &["refused ABC_USDT by -: Invalid currency ABC (HTTP 400)"]);
    check(400, unknown, &[&abc, &def], &["refused - by -: Invalid currency ABC (HTTP 400)"]);
    check(429, r#"{"label":"TOO_MANY_REQUESTS"}"#, &[&abc], &["refused - by -: TOO_MANY_REQUESTS (HTTP 429)"]);
    check(502, "<html>", &[&abc], &["refused - by -: HTTP 502"]);
    check(200, "{}", &[&abc], &["malformed the body is not an array"]);
}

#[test]
fn rest_instruments() {
    let row = |id: &str, base: &str, status: &str| {
        format!(r#"{{"id":"{id}","base":"{base}","quote":"USDT","trade_status":"{status}"}}"#)
    };
    let body = format!(
        "[{},{},{},7]",
        row("ABC_USDT", "ABC", "tradable"),
        row("DEF_USDT", "DEF", "sellable"),
        row("我_USDT", "我", "tradable")
    );
    let found = Gateio::new().decode_instruments(200, body.as_bytes()).expect("a list");
    let found: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.trading)).collect();
    assert_eq!(found, [("ABC_USDT", true), ("DEF_USDT", false)]);
    for (status, body) in [(200, "[]"), (200, "{}"), (200, "<"), (503, "[]"), (400, r#"{"label":"X"}"#)] {
        assert!(Gateio::new().decode_instruments(status, body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn both_sides_talk() {
    let listed = ["ABC_USDT", "DEF_USDT", "GHI_USDT"].map(|name| instrument(name, '_'));
    told::check_conversation(&mut Gateio::new(), &mut GateioSimulator::new(), &GateioRest, &listed);
}

#[test]
fn no_bytes_harm() {
    told::check_survives(&mut Gateio::new(), &[BOOK_TICKER, TICKER, REFUSAL]);
}
