//! Frames and bodies of Crypto.com, good and odd, and what they decode to. Written for these tests.

use super::Cryptocom;
use crate::protocol::VenueProtocol;
use crate::simulate::cryptocom::{CryptocomRest, CryptocomSimulator};
use crate::told::{self, instrument};

#[track_caller]
fn check(frame: &str, expected: &[&str]) {
    told::check(&mut Cryptocom::new(), frame, expected);
}

const TICKER: &str = r#"{"id":-1,"method":"subscribe","code":0,"result":{"instrument_name":"ABC_USD","subscription":"ticker.ABC_USD","channel":"ticker","data":[{"h":"645","l":"631","a":"63958.47","c":"0.0092","b":"63962.64","bs":"0.2","k":"63962.650","ks":"0.2","i":"ABC_USD","v":"2","vv":"1","oi":"0","t":1800000000141}]}}"#;
const HEARTBEAT: &str = r#"{"id":1800000067342,"method":"public/heartbeat","code":0}"#;
const REFUSAL: &str =
    r#"{"id":11,"method":"subscribe","code":40003,"channel":"ticker.NOPE_USD","message":"Unknown symbol"}"#;

#[test]
fn ask_is_k_and_last_is_a() {
    check(TICKER, &["quote ABC/USD snapshot last 63958.47 bid 63962.64 ask 63962.650 at 1800000000141 number -"]);
    check(
        r#"{"id":-1,"method":"subscribe","code":0,"result":{"instrument_name":"ABC_USDT","channel":"ticker","data":[{"a":null,"b":null,"k":"2","i":"ABC_USDT","t":5}]}}"#,
        &["quote ABC/USDT snapshot last - bid - ask 2 at 5 number -"],
    );
}

#[test]
fn the_older_interface_has_numbers_and_no_id() {
    check(
        r#"{"code":0,"method":"subscribe","result":{"instrument_name":"ABC_USDT","subscription":"ticker.ABC_USDT","channel":"ticker","data":[{"i":"ABC_USDT","b":7.5248,"k":7.53280,"a":7.5328,"t":1637709517473,"v":35912.66}]}}"#,
        &["quote ABC/USDT snapshot last 7.5328 bid 7.5248 ask 7.53280 at 1637709517473 number -"],
    );
    check(r#"{"id":0,"code":0,"method":"subscribe"}"#, &["subscribed - by 0"]);
    check(
        r#"{"id":1637709519420,"method":"public/heartbeat"}"#,
        &[r#"heartbeat {"id":1637709519420,"method":"public/respond-heartbeat"}"#],
    );
}

#[test]
fn the_newest_trade_is_the_last_price() {
    check(
        r#"{"id":-1,"method":"subscribe","code":0,"result":{"instrument_name":"ABC_USD","channel":"trade","data":[{"d":"19","t":70,"p":"63.2","i":"ABC_USD"},{"d":"18","t":70,"p":"63.1","i":"ABC_USD"},{"d":"17","t":60,"p":"63.0","i":"ABC_USD"}]}}"#,
        &["quote ABC/USD snapshot last 63.2 bid = ask = at 70 number -"],
    );
}

#[test]
fn acknowledgements_in_four_shapes() {
    check(r#"{"id":1,"method":"subscribe","code":0,"channel":"book.ABC_USD.10"}"#, &["subscribed ABC_USD by 1"]);
    check(
        r#"{"id":1,"method":"subscribe","code":0,"result":{"instrument_name":"ABC_USD","subscription":"ticker.ABC_USD","channel":"ticker"}}"#,
        &["subscribed ABC_USD by 1"],
    );
    check(
        &TICKER.replacen("-1", "4", 1),
        &[
            "subscribed ABC_USD by 4",
            "quote ABC/USD snapshot last 63958.47 bid 63962.64 ask 63962.650 at 1800000000141 number -",
        ],
    );
    check(r#"{"id":2,"method":"subscribe","code":0}"#, &["subscribed - by 2"]);
    check(r#"{"id":22,"method":"unsubscribe","code":0}"#, &["ignored end of a subscription"]);
}

#[test]
fn refusals_are_by_channel() {
    check(REFUSAL, &["refused NOPE_USD by 11: Unknown symbol"]);
    check(
        r#"{"id":9,"method":"subscribe","code":40107,"message":"Maximum subscriptions exceeded"}"#,
        &["refused - by 9: Maximum subscriptions exceeded"],
    );
    check(
        r#"{"id":9,"method":"subscribe","code":40003,"channel":"candlestick.1m.ABC_USD"}"#,
        &["refused - by 9: code 40003"],
    );
}

#[test]
fn heartbeats_are_answered_with_their_id() {
    check(HEARTBEAT, &[r#"heartbeat {"id":1800000067342,"method":"public/respond-heartbeat"}"#]);
    let refused = r#"{"id":-1,"method":"public/heartbeat","code":40003,"message":"No such method"}"#;
    check(refused, &["ignored public/heartbeat"]);
    check(r#"{"method":"public/heartbeat"}"#, &["malformed id is missing"]);
    check(r#"{"id":{"a":1},"method":"public/heartbeat"}"#, &["malformed id is not a whole number"]);
}

#[test]
fn the_rest_is_ignored() {
    check(
        r#"{"id":-1,"method":"subscribe","code":0,"result":{"instrument_name":"ABCUSD-PERP","channel":"ticker","data":[{"a":"1","i":"ABCUSD-PERP"}]}}"#,
        &["ignored ABCUSD-PERP"],
    );
    check(
        r#"{"id":-1,"method":"subscribe","code":0,"result":{"instrument_name":"ABC_USD","channel":"book","data":[{"asks":[]}]}}"#,
        &["ignored book"],
    );
    check(r#"{"id":3,"method":"public/nope","code":40003}"#, &["ignored public/nope"]);
    check(r#"{"x":1}"#, &["ignored a request"]);
    check(&Cryptocom::new().subscribe(&["ABC_USD"], 1)[0], &["ignored a request"]);
    check(
        r#"{"id":-1,"method":"subscribe","code":0,"result":{"instrument_name":"A_B","channel":"ticker","data":[]}}"#,
        &["ignored no data"],
    );
}

#[test]
fn broken_frames_are_malformed_whole() {
    check("7", &["malformed frame is not an object"]);
    check(
        r#"{"id":1,"method":"subscribe","code":0,"result":{"instrument_name":"A_B","channel":"ticker","data":{}}}"#,
        &["malformed data is not an array"],
    );
    check(
        r#"{"id":1,"method":"subscribe","code":0,"result":{"channel":"ticker","data":[{"a":"1"}]}}"#,
        &["malformed instrument_name is missing"],
    );
    check(
        r#"{"id":1,"method":"subscribe","code":0,"result":{"instrument_name":"A_B","channel":"ticker","data":[{"a":"1"},{"a":true}]}}"#,
        &["malformed a is not a string or a number"],
    );
    check(
        r#"{"method":"subscribe","code":0,"result":{"instrument_name":"A_B","channel":"ticker","data":[{"x":"1"}]}}"#,
        &["malformed a is missing"],
    );
}

#[test]
fn many_names_go_in_one_frame() {
    let cryptocom = Cryptocom::new();
    assert_eq!(
        cryptocom.subscribe(&["ABC_USD", "DEF_USDT"], 7),
        [r#"{"id":7,"method":"subscribe","params":{"channels":["ticker.ABC_USD","ticker.DEF_USDT"]}}"#]
    );
    assert_eq!(cryptocom.subscribe(&["A_B"; 60], 1).len(), 2);
    assert_eq!(cryptocom.limits().first_frame_wait_ms, 1_000);
    assert!(cryptocom.subscribe(&[], 7).is_empty());
}

#[test]
fn rest_tickers() {
    let (abc, def) = (instrument("ABC_USD", '_'), instrument("DEF_USDT", '_'));
    let check = |status, body, asked: &[_], expected: &[_]| {
        told::check_tickers(&Cryptocom::new(), (status, body), asked, expected);
    };
    let rows = r#"{"id":-1,"method":"public/get-tickers","code":"0","result":{"data":[{"i":"ABC_USD","a":"1.8","b":"1.7","k":null,"t":1785143376285}]}}"#;
    check(
        200,
        rows,
        &[&abc, &def],
        &[
            "quote ABC/USD snapshot last 1.8 bid 1.7 ask - at 1785143376285 number -",
            "refused DEF_USDT by -: not in the venue's list of tickers",
        ],
    );
    let unknown = r#"{"code":40004,"message":"Invalid instrument_name"}"#;
    check(400, unknown, &[&abc], &["refused ABC_USD by -: Invalid instrument_name (HTTP 400)"]);
    check(
        429,
        r#"{"code":42901,"message":"TOO_MANY_REQUESTS"}"#,
        &[&abc],
        &["refused - by -: TOO_MANY_REQUESTS (HTTP 429)"],
    );
    check(404, r#"{"status":404,"error":"Not Found"}"#, &[&abc], &["refused - by -: Not Found (HTTP 404)"]);
    check(200, r#"{"code":0,"result":{}}"#, &[&abc], &["malformed result.data is not an array"]);
}

#[test]
fn rest_instruments() {
    let body = r#"{"id":1,"method":"public/get-instruments","code":"0","result":{"data":[
        {"symbol":"ABC_USD","inst_type":"CCY_PAIR","base_ccy":"ABC","quote_ccy":"USD","tradable":true},
        {"symbol":"DEF_USDT","inst_type":"CCY_PAIR","base_ccy":"DEF","quote_ccy":"USDT","tradable":false},
        {"symbol":"GHI_BTC@OEX_HK","inst_type":"CCY_PAIR","base_ccy":"GHI","quote_ccy":"BTC"},
        {"symbol":"ABCUSD-PERP","inst_type":"PERPETUAL_SWAP","base_ccy":"ABC","quote_ccy":"USD","tradable":true}]}}"#;
    let found = Cryptocom::new().decode_instruments(200, body.as_bytes()).expect("a list");
    let found: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.trading)).collect();
    assert_eq!(found, [("ABC_USD", true), ("DEF_USDT", false)]);
}

#[test]
fn both_sides_talk() {
    let listed = ["ABC_USD", "DEF_USDT", "GHI_USDT"].map(|name| instrument(name, '_'));
    told::check_conversation(&mut Cryptocom::new(), &mut CryptocomSimulator::new(), &CryptocomRest, &listed);
}

#[test]
fn no_bytes_harm() {
    told::check_survives(&mut Cryptocom::new(), &[TICKER, HEARTBEAT, REFUSAL]);
}
