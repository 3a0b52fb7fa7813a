//! Frames and bodies of Bybit, good and odd, and what they decode to. Written for these tests.

use super::Bybit;
use crate::protocol::{Instrument, VenueProtocol};
use crate::simulate::bybit::{BybitRest, BybitSimulator};
use crate::told;

#[track_caller]
fn check(frame: &str, expected: &[&str]) {
    told::check(&mut Bybit::new(), frame, expected);
}

fn instrument(base: &str) -> Instrument {
    let name = format!("{base}USDT");
    Instrument { rest_name: name.clone(), name, ..told::instrument(&format!("{base}-USDT"), '-') }
}

const TICKER: &str = r#"{"topic":"tickers.ABCUSDT","ts":1800000019126,"type":"snapshot","cs":112,"data":{"symbol":"ABCUSDT","lastPrice":"65140.50","highPrice24h":"65305.6","volume24h":"2953","usdIndexPrice":"65091.459221"}}"#;
const BOOK: &str = r#"{"topic":"orderbook.1.ABCUSDT","ts":1800000016516,"type":"snapshot","data":{"s":"ABCUSDT","b":[["65140.4","0.88"]],"a":[["65140.50","0.1"]],"u":62,"seq":112},"cts":1800000016510}"#;
const REFUSAL: &str =
    r#"{"success":false,"ret_msg":"Invalid symbol :[tickers.NOPEUSDT]","conn_id":"c","req_id":"7","op":"subscribe"}"#;

#[test]
fn last_from_the_ticker_and_both_sides_from_the_book() {
    check(TICKER, &["quote ABC/USDT snapshot last 65140.50 bid = ask = at 1800000019126 number -"]);
    check(BOOK, &["quote ABC/USDT snapshot last = bid 65140.4 ask 65140.50 at 1800000016516 number -"]);
    check(
        r#"{"topic":"publicTrade.ABCUSDT","ts":30,"type":"snapshot","data":[{"i":"1","T":20,"p":"1.1","v":"1","S":"Sell","s":"ABCUSDT"},{"i":"2","T":21,"p":"1.2"},{"i":"3","T":21,"p":"1.30"}]}"#,
        &["quote ABC/USDT snapshot last 1.30 bid = ask = at 21 number -"],
    );
}

#[test]
fn sides_of_a_book() {
    let book = |kind: &str, sides: &str| {
        format!(r#"{{"topic":"orderbook.1.ABCUSDT","type":"{kind}","ts":5,"data":{{"s":"ABCUSDT",{sides},"u":1}}}}"#)
    };
    for (kind, sides, expected) in [
        ("snapshot", r#""b":[],"a":[["2","1"]]"#, "bid - ask 2"),
        ("snapshot", r#""b":[["1","1"],["0.9","1"]],"a":[]"#, "bid 1 ask -"),
        ("delta", r#""b":[],"a":[["2","1"]]"#, "bid = ask 2"),
        ("delta", r#""a":[["2","1"]]"#, "bid = ask 2"),
        ("delta", r#""b":[["1","0"]],"a":[]"#, "bid - ask ="),
        ("delta", r#""b":[["1","0"],["0.9","3"]],"a":[["2","0.000"],["2.10","4"]]"#, "bid 0.9 ask 2.10"),
    ] {
        check(&book(kind, sides), &[&format!("quote ABC/USDT snapshot last = {expected} at 5 number -")]);
    }
    for (kind, sides, expected) in [
        ("snapshot", r#""b":[]"#, "a is missing"),
        ("snapshot", r#""b":[],"a":{}"#, "a is not an array of [price, size]"),
        ("snapshot", r#""b":[["1"]],"a":[]"#, "b is not an array of [price, size]"),
        ("snapshot", r#""b":[["1","x"]],"a":[]"#, "b: price is not a decimal number"),
        ("snapshot", r#""b":[["x","1"]],"a":[]"#, "b: price is not a decimal number"),
    ] {
        check(&book(kind, sides), &[&format!("malformed {expected}")]);
    }
}

#[test]
fn derivatives_bear_the_same_topics_and_are_ignored() {
    check(
        r#"{"topic":"tickers.ABCUSDT","type":"delta","data":{"symbol":"ABCUSDT","bid1Price":"65114.20","ask1Price":"65114.30"},"cs":75,"ts":5}"#,
        &["ignored ticker of a derivative"],
    );
    check(
        r#"{"topic":"tickers.ABCUSDT","type":"snapshot","data":{"symbol":"ABCUSDT","lastPrice":"65114.30","markPrice":"65117.44"},"cs":75,"ts":5}"#,
        &["ignored ticker of a derivative"],
    );
}

#[test]
fn quotes_are_told_by_the_end_of_the_name() {
    let ticker = |name: &str| TICKER.replace("ABCUSDT", name);
    for (name, pair) in
        [("USDCUSDT", "USDC/USDT"), ("BTCUSDC", "BTC/USDC"), ("SOLBTC", "SOL/BTC"), ("XRLUSD", "X/RLUSD")]
    {
        let expected = format!("quote {pair} snapshot last 65140.50 bid = ask = at 1800000019126 number -");
        check(&ticker(name), &[&expected]);
    }
    check(&ticker("BTCUSD"), &["ignored tickers.BTCUSD"]);
    check(&ticker("USDT"), &["ignored tickers.USDT"]);
}

#[test]
fn other_topics_are_ignored() {
    check(&BOOK.replace("orderbook.1.", "orderbook.200."), &["ignored orderbook.200.ABCUSDT"]);
    check(r#"{"type":"snapshot","topic":"kline.1.ABCUSDT","data":[{}],"ts":1}"#, &["ignored kline.1.ABCUSDT"]);
    check(r#"{"op":"auth","success":true}"#, &["ignored frame without a topic"]);
    check("{}", &["ignored frame without a topic"]);
}

#[test]
fn answers() {
    let answer = |success: bool, message: &str| {
        format!(r#"{{"success":{success},"ret_msg":"{message}","conn_id":"c","req_id":"7","op":"subscribe"}}"#)
    };
    check(&answer(true, "subscribe"), &["subscribed - by 7"]);
    check(r#"{"success":true,"ret_msg":"subscribe","conn_id":"c","op":"subscribe"}"#, &["subscribed - by -"]);
    check(REFUSAL, &["refused NOPEUSDT by 7: Invalid symbol :[tickers.NOPEUSDT]"]);
    check(
        &answer(false, "error:handler not found,topic:orderbook.1.NOPEUSDT"),
        &["refused NOPEUSDT by 7: error:handler not found,topic:orderbook.1.NOPEUSDT"],
    );
    check(&answer(false, r"args size \u003e10"), &["refused - by 7: args size >10"]);
    check(
        r#"{"success":false,"ret_msg":"Invalid topic: invalid.topic.ABCUSDT","conn_id":"c","op":"subscribe"}"#,
        &["refused - by -: Invalid topic: invalid.topic.ABCUSDT"],
    );
    check(
        r#"{"success":false,"ret_msg":"Failed to decode","conn_id":"c","op":""}"#,
        &["refused - by -: Failed to decode"],
    );
    check(&answer(false, "error:already subscribed,topic:tickers.ABCUSDT"), &["subscribed ABCUSDT by 7"]);
    check(r#"{"success":true,"ret_msg":"","op":"unsubscribe"}"#, &["ignored end of a subscription"]);
    check(r#"{"success":1,"op":"subscribe"}"#, &["malformed success is not true or false"]);
    check(&Bybit::new().subscribe(&["ABCUSDT"], 1)[0], &["ignored a request"]);
}

#[test]
fn the_pong_says_ping() {
    check(r#"{"success":true,"ret_msg":"pong","conn_id":"0970e817","op":"ping"}"#, &["heartbeat -"]);
    check(r#"{"req_id":"1","op":"pong","args":["1675418560633"],"conn_id":"c"}"#, &["heartbeat -"]);
}

#[test]
fn broken_frames_are_malformed_whole() {
    check("null", &["malformed frame is not an object"]);
    check(r#"{"topic":7}"#, &["malformed topic is not a string"]);
    check(r#"{"topic":"tickers.ABCUSDT","type":"snapshot"}"#, &["malformed data is missing"]);
    check(r#"{"topic":"tickers.ABCUSDT","data":{}}"#, &["malformed type is missing"]);
    check(r#"{"topic":"tickers.ABCUSDT","type":"snapshot","data":{}}"#, &["malformed lastPrice is missing"]);
    check(
        r#"{"topic":"tickers.ABCUSDT","type":"snapshot","data":{"lastPrice":"1"},"ts":"soon"}"#,
        &["malformed ts is not a time in ms"],
    );
    check(
        r#"{"topic":"publicTrade.ABCUSDT","type":"snapshot","data":[]}"#,
        &["malformed data is not an array of trades"],
    );
}

#[test]
fn one_frame_for_each_name_so_that_a_refusal_spoils_no_other() {
    let bybit = Bybit::new();
    assert_eq!(
        bybit.subscribe(&["ABCUSDT", "DEFUSDT"], 8),
        [
            r#"{"req_id":"8","op":"subscribe","args":["tickers.ABCUSDT","orderbook.1.ABCUSDT"]}"#,
            r#"{"req_id":"9","op":"subscribe","args":["tickers.DEFUSDT","orderbook.1.DEFUSDT"]}"#,
        ]
    );
    assert_eq!(bybit.ping(3).as_deref(), Some(r#"{"req_id":"3","op":"ping"}"#));
}

#[test]
fn rest_tickers() {
    let (abc, def) = (instrument("ABC"), instrument("DEF"));
    let check = |status, body, asked: &[_], expected: &[_]| {
        told::check_tickers(&Bybit::new(), (status, body), asked, expected);
    };
    let rows = r#"{"retCode":0,"retMsg":"OK","result":{"category":"spot","list":[{"symbol":"ABCUSDT","bid1Price":"20517.96","ask1Price":"","lastPrice":"20533.13","usdIndexPrice":"20784.12"}]},"retExtInfo":{},"time":1673859087947}"#;
    check(200, rows, &[&abc], &["quote ABC/USDT snapshot last 20533.13 bid 20517.96 ask - at 1673859087947 number -"]);
    let unknown = r#"{"retCode":10001,"retMsg":"Not supported symbols","result":{},"retExtInfo":{},"time":1}"#;
    check(200, unknown, &[&abc], &["refused ABCUSDT by -: Not supported symbols (HTTP 200)"]);
    check(200, unknown, &[&abc, &def], &["refused - by -: Not supported symbols (HTTP 200)"]);
    let limited = r#"{"retCode":10006,"retMsg":"Too many visits!","result":{}}"#;
    check(200, limited, &[&abc], &["refused - by -: Too many visits! (HTTP 200)"]);
    check(403, "forbidden", &[&abc], &["refused - by -: HTTP 403"]);
    check(200, r#"{"retCode":0,"result":{}}"#, &[&abc], &["malformed result.list is not an array"]);
}

#[test]
fn rest_instruments() {
    let body = r#"{"retCode":0,"result":{"category":"spot","list":[
        {"symbol":"1ABCUSDT","baseCoin":"1ABC","quoteCoin":"USDT","status":"Trading"},
        {"symbol":"DEFUSDC","baseCoin":"DEF","quoteCoin":"USDC","status":"PreLaunch"}]}}"#;
    let found = Bybit::new().decode_instruments(200, body.as_bytes()).expect("a list");
    let found: Vec<_> = found.iter().map(|it| (it.base.as_str(), it.quote.as_str(), it.trading)).collect();
    assert_eq!(found, [("1ABC", "USDT", true), ("DEF", "USDC", false)]);
    let refused = Bybit::new().decode_instruments(200, br#"{"retCode":10006,"retMsg":"Too many visits!"}"#);
    assert_eq!(refused, Err("Too many visits! (HTTP 200)".to_owned()));
}

#[test]
fn both_sides_talk() {
    let listed = ["ABC", "DEF", "GHI"].map(instrument);
    told::check_conversation(&mut Bybit::new(), &mut BybitSimulator::new(), &BybitRest, &listed);
}

#[test]
fn no_bytes_harm() {
    told::check_survives(&mut Bybit::new(), &[TICKER, BOOK, REFUSAL]);
}
