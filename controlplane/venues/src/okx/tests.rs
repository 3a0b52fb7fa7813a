//! Frames and bodies of OKX, good and odd, and what they decode to. Written for these tests.

use super::Okx;
use crate::protocol::VenueProtocol;
use crate::simulate::okx::{OkxRest, OkxSimulator};
use crate::told::{self, instrument};

#[track_caller]
fn check(frame: &str, expected: &[&str]) {
    told::check(&mut Okx::new(), frame, expected);
}

const TICKER: &str = r#"{"arg":{"channel":"tickers","instId":"ABC-USDT"},"data":[{"instType":"SPOT","instId":"ABC-USDT","last":"83766.80","lastSz":"0.1","askPx":"83774.2","askSz":"0.2","bidPx":"83774.1","bidSz":"0.6","open24h":"84180.1","ts":"1800000564077"}]}"#;
const ACK: &str =
    r#"{"id":"7","event":"subscribe","arg":{"channel":"tickers","instId":"ABC-USDT"},"connId":"76defc81"}"#;
const REFUSAL: &str = r#"{"id":"7","event":"error","msg":"Wrong URL or channel:tickers,instId:NOPE-USDT doesn't exist. Please use the correct URL.","code":"60018","connId":"0d0c61a5"}"#;

#[test]
fn quotes() {
    check(TICKER, &["quote ABC/USDT snapshot last 83766.80 bid 83774.1 ask 83774.2 at 1800000564077 number -"]);
    check(
        &TICKER.replace("83774.1", "").replace("83766.80", "").replace("1800000564077", ""),
        &["quote ABC/USDT snapshot last - bid - ask 83774.2 at - number -"],
    );
    check(
        r#"{"arg":{"channel":"trades","instId":"ABC-USDT"},"data":[{"instId":"ABC-USDT","tradeId":"1","px":"1.1","sz":"1","side":"buy","ts":"7"},{"instId":"ABC-USDT","px":"1.20","ts":"7"}]}"#,
        &["quote ABC/USDT snapshot last 1.20 bid = ask = at 7 number -"],
    );
}

#[test]
fn what_is_not_spot_is_ignored() {
    let ticker = |name: &str, kind: &str| TICKER.replace("ABC-USDT", name).replace("SPOT", kind);
    check(&ticker("ABC-USD-220527", "FUTURES"), &["ignored ABC-USD-220527"]);
    check(&ticker("ABC-USD-SWAP", "SWAP"), &["ignored ABC-USD-SWAP"]);
    check(&ticker("ABC-USDT", "MARGIN"), &["ignored ABC-USDT"]);
    check(r#"{"arg":{"channel":"books","instId":"A-B"},"action":"update","data":[{"asks":[]}]}"#, &["ignored books"]);
    check(r#"{"arg":{"channel":"tickers"},"data":[]}"#, &["ignored no data"]);
    check("{}", &["ignored frame without event or data"]);
}

#[test]
fn answers() {
    check(ACK, &["subscribed ABC-USDT by 7"]);
    check(r#"{"event":"subscribe","arg":{"channel":"tickers","instId":"ABC-USDT"}}"#, &["subscribed ABC-USDT by -"]);
    check(r#"{"event":"unsubscribe","arg":{"channel":"tickers","instId":"A-B"}}"#, &["ignored unsubscribe"]);
    check(r#"{"event":"channel-conn-count","channel":"orders","connCount":"2"}"#, &["ignored channel-conn-count"]);
}

#[test]
fn refusals_name_the_instrument_in_their_prose() {
    check(
        REFUSAL,
        &[
            "refused NOPE-USDT by 7: Wrong URL or channel:tickers,instId:NOPE-USDT doesn't exist. Please use the correct URL.",
        ],
    );
    check(
        r#"{"event":"error","msg":"Subscribe failed, wrong URL or channel:candle1m,instId:ABC-USDT doesn't exist.","code":"60018"}"#,
        &["refused ABC-USDT by -: Subscribe failed, wrong URL or channel:candle1m,instId:ABC-USDT doesn't exist."],
    );
    check(
        r#"{"event":"error","msg":"Invalid request: {\"op\":\"subscribe\",\"args\":[{\"instId\":\"A-B\"}]}","code":"60012"}"#,
        &[r#"refused A-B by -: Invalid request: {"op":"subscribe","args":[{"instId":"A-B"}]}"#],
    );
    check(
        r#"{"event":"error","msg":"Requests too frequent","code":"60014"}"#,
        &["refused - by -: Requests too frequent"],
    );
    check(r#"{"event":"error"}"#, &["refused - by -: error"]);
}

#[test]
fn an_acknowledgement_can_be_revoked() {
    check(
        r#"{"event":"channel-conn-count-error","channel":"tickers","connCount":"30","connId":"a4d3ae55"}"#,
        &["refused - by -: channel-conn-count-error", "status reconnect=true: channel-conn-count-error"],
    );
}

#[test]
fn signs_of_life_and_notices() {
    check("pong", &["heartbeat -"]);
    check("pong\n", &["heartbeat -"]);
    check(
        r#"{"event":"notice","msg":"The connection will soon be closed for a service upgrade. Please reconnect.","code":"64008","connId":"a"}"#,
        &["status reconnect=true: The connection will soon be closed for a service upgrade. Please reconnect."],
    );
    check(r#"{"event":"notice","msg":"news","code":"1"}"#, &["status reconnect=false: news"]);
}

#[test]
fn broken_frames_are_malformed_whole() {
    check("true", &["malformed frame is not an object"]);
    check(r#"{"event":7}"#, &["malformed event is not a string"]);
    check(r#"{"arg":{"channel":"tickers"},"data":{}}"#, &["malformed data is not an array"]);
    check(r#"{"arg":{},"data":[]}"#, &["malformed arg.channel is missing"]);
    check(r#"{"arg":{"channel":"tickers"},"data":[{"last":"1"}]}"#, &["malformed instId is missing"]);
    check(r#"{"arg":{"channel":"tickers"},"data":[{"instId":"A-B"}]}"#, &["malformed last is missing"]);
    check(
        r#"{"arg":{"channel":"tickers"},"data":[{"instId":"A-B","last":"1"},{"instId":"A-B","last":"1e999"}]}"#,
        &["malformed last: price is too large"],
    );
    check(
        r#"{"arg":{"channel":"tickers"},"data":[{"instId":"A-B","last":"1","ts":"-5"}]}"#,
        &["malformed ts is not a time in ms"],
    );
}

#[test]
fn one_frame_for_each_name() {
    let okx = Okx::new();
    assert_eq!(
        okx.subscribe(&["A-USDT", "B-USDT"], 3),
        [
            r#"{"id":"3","op":"subscribe","args":[{"channel":"tickers","instId":"A-USDT"}]}"#,
            r#"{"id":"4","op":"subscribe","args":[{"channel":"tickers","instId":"B-USDT"}]}"#,
        ]
    );
    assert_eq!(okx.ping(9).as_deref(), Some("ping"));
}

#[test]
fn rest_tickers() {
    let (abc, def) = (instrument("ABC-USDT", '-'), instrument("DEF-USDT", '-'));
    let check = |status, body, asked: &[_], expected: &[_]| {
        told::check_tickers(&Okx::new(), (status, body), asked, expected);
    };
    let rows = r#"{"code":"0","msg":"","data":[{"instType":"SPOT","instId":"ABC-USDT","last":"1.848","askPx":"1.849","bidPx":"1.848","ts":"1785145938266"},{"instId":"USDT-USD","last":"0.999"}]}"#;
    check(200, rows, &[&abc], &["quote ABC/USDT snapshot last 1.848 bid 1.848 ask 1.849 at 1785145938266 number -"]);
    let unknown = r#"{"code":"51001","data":[],"msg":"Instrument ID doesn't exist."}"#;
    check(200, unknown, &[&abc], &["refused ABC-USDT by -: Instrument ID doesn't exist. (HTTP 200)"]);
    check(200, unknown, &[&abc, &def], &["refused - by -: Instrument ID doesn't exist. (HTTP 200)"]);
    let limited = r#"{"code":"50011","data":[],"msg":"Too Many Requests"}"#;
    check(429, limited, &[&abc], &["refused - by -: Too Many Requests (HTTP 429)"]);
    check(200, r#"{"code":"0","data":{}}"#, &[&abc], &["malformed data is not an array"]);
}

#[test]
fn rest_instruments() {
    let body = r#"{"code":"0","msg":"","data":[
        {"instType":"SPOT","instId":"ABC-USDT","baseCcy":"ABC","quoteCcy":"USDT","state":"live"},
        {"instType":"SPOT","instId":"DEF-USDT","baseCcy":"DEF","quoteCcy":"USDT","state":"preopen"}]}"#;
    let found = Okx::new().decode_instruments(200, body.as_bytes()).expect("a list");
    let found: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.trading)).collect();
    assert_eq!(found, [("ABC-USDT", true), ("DEF-USDT", false)]);
    let refused = Okx::new().decode_instruments(200, br#"{"code":"50011","data":[],"msg":"Too Many Requests"}"#);
    assert!(refused.is_err());
}

#[test]
fn both_sides_talk() {
    let listed = ["ABC-USDT", "DEF-USDT", "GHI-USDT"].map(|name| instrument(name, '-'));
    told::check_conversation(&mut Okx::new(), &mut OkxSimulator::new(), &OkxRest, &listed);
}

#[test]
fn no_bytes_harm() {
    told::check_survives(&mut Okx::new(), &[TICKER, ACK, REFUSAL, "pong"]);
}
