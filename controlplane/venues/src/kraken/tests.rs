//! What is told of Kraken's frames, good and odd.

use super::*;
use crate::told::{check, check_survives, check_tickers, instrument};

const TICKER: &str = r#"{"channel":"ticker","type":"snapshot","data":[{"symbol":"ALGO/USD","bid":0.13099,"bid_qty":329.06250000,"ask":0.13108,"ask_qty":1771.75027615,"last":0.13110,"volume":9095630.20903971,"trades":4606,"timestamp":"2026-10-03T20:58:33.794283Z"}]}"#;

#[test]
fn tickers_are_quotes_with_their_zeros() {
    for (frame, expected) in [
        (TICKER, &["quote ALGO/USD snapshot last 0.13110 bid 0.13099 ask 0.13108 at 1791061113794 number -"][..]),
        // Sorted keys, an exponent, no time: an older frame, written again by someone.
        (
            r#"{"channel":"ticker","data":[{"ask":5.1e-05,"bid":5e-5,"last":0.0000505,"symbol":"DOGE/USD"}],"type":"update"}"#,
            &["quote DOGE/USD change last 0.0000505 bid 0.00005 ask 0.000051 at - number -"][..],
        ),
        // A dead token.
        (
            r#"{"channel":"ticker","type":"snapshot","data":[{"symbol":"DEAD/USD","bid":0.0,"ask":0.0,"last":0.0,"timestamp":"1970-01-01T00:00:00.000000Z"}]}"#,
            &["quote DEAD/USD snapshot last - bid - ask - at - number -"][..],
        ),
        (
            r#"{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","last":1},{"symbol":"ETH/USDT","bid":"2"},{"symbol":"ETH2.S/USD","last":3}]}"#,
            &[
                "quote BTC/USD change last 1 bid = ask = at - number -",
                "quote ETH/USDT change last = bid 2 ask = at - number -",
                "ignored symbol ETH2.S/USD",
            ][..],
        ),
        (
            r#"{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","last":1},{"symbol":"ETH/USD"}]}"#,
            &["malformed last is missing"][..],
        ),
        (
            r#"{"channel":"ticker","data":[{"symbol":"BTC/USD","last":1,"timestamp":1786309548}]}"#,
            &["malformed timestamp is not a string"][..],
        ),
        (r#"{"channel":"ticker","data":[]}"#, &["ignored no ticker"][..]),
        (r#"{"channel":"ticker","data":{}}"#, &["malformed data is not an array"][..]),
        (
            r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","price":1}]}"#,
            &["ignored channel trade"][..],
        ),
    ] {
        check(&mut Kraken, frame, expected);
    }
}

#[test]
fn answers_name_their_symbol() {
    for (frame, expected) in [
        (
            r#"{"method":"subscribe","req_id":4,"result":{"channel":"ticker","event_trigger":"bbo","symbol":"BTC/USD","warnings":["x"]},"success":true,"time_in":"x"}"#,
            "subscribed BTC/USD by 4",
        ),
        (
            r#"{"error":"Currency pair not supported XBT/USD","method":"subscribe","req_id":4,"success":false,"symbol":"XBT/USD"}"#,
            "refused XBT/USD by 4: Currency pair not supported XBT/USD",
        ),
        (r#"{"error":"Exceeded msg rate","success":false}"#, "refused - by -: Exceeded msg rate"),
        (
            r#"{"method":"unsubscribe","result":{"symbol":"BTC/USD"},"success":true}"#,
            "status reconnect=false: unsubscribe done",
        ),
        (r#"{"method":"pong","req_id":7}"#, "heartbeat -"),
        (r#"{"channel":"heartbeat"}"#, "heartbeat -"),
        (r#"{"method":"subscribe","success":true}"#, "malformed symbol is missing"),
        (r#"{"success":false}"#, "malformed error is missing"),
        ("{}", "malformed method is missing"),
    ] {
        check(&mut Kraken, frame, &[expected]);
    }
}

#[test]
fn a_status_says_whether_to_leave() {
    let status = |data: &str| format!(r#"{{"channel":"status","type":"update","data":[{data}]}}"#);
    for (data, expected) in [
        (
            r#"{"system":"online","connection_id":18446744073709551615,"upcoming_maintenance":[],"emergency":[]}"#,
            "status reconnect=false: online, connection 18446744073709551615",
        ),
        (
            r#"{"system":"online","upcoming_maintenance":[{"title":"Work","expected_start_utc":"soon"}]}"#,
            "status reconnect=false: online, maintenance from soon: Work",
        ),
        (r#"{"system":"cancel_only"}"#, "status reconnect=false: cancel_only"),
        (r#"{"system":"maintenance"}"#, "status reconnect=true: maintenance"),
        (r#"{"system":"online","connection_id":-1}"#, "malformed connection_id is not a whole number below 2^64"),
        (r#"{"version":"2"}"#, "malformed system is missing"),
    ] {
        check(&mut Kraken, &status(data), &[expected]);
    }
}

#[test]
fn requests_are_spelled_as_recorded() {
    assert_eq!(
        Kraken.subscribe(&["BTC/USD", "ALGO/USD"], 9),
        [
            r#"{"method":"subscribe","params":{"channel":"ticker","symbol":["BTC/USD","ALGO/USD"],"event_trigger":"bbo","snapshot":true},"req_id":9}"#
        ]
    );
    let symbol = |text: &str| Symbol::new(text.as_bytes()).expect("a symbol");
    for (base, expected) in
        [("BTC", "BTC/USD"), ("XNO", "NANO/USD"), ("PHA", "PHA/USD"), ("PHALA", "PHA/USD"), ("AIOZ", "AIOZ/USD")]
    {
        assert_eq!(Kraken.spell(&symbol(base), &symbol("USD")), expected);
    }
    let btc = Instrument { rest_name: "XXBTZUSD".to_owned(), ..instrument("BTC/USD", '/') };
    assert_eq!(Kraken.tickers(&[&btc]).path, "/0/public/Ticker?pair=XXBTZUSD");
}

#[test]
fn canonical_names_are_taken_from_the_list_and_never_cut() {
    let body = r#"{"error":[],"result":{
        "XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT/USD","base":"XXBT","quote":"ZUSD","status":"online"},
        "XDGUSD":{"altname":"XDGUSD","wsname":"XDG/USD","status":"online"},
        "AIOUSD":{"wsname":"AIO/USD","status":"online"}, "AIOZUSD":{"wsname":"AIOZ/USD"},
        "XTZUSD":{"wsname":"XTZ/USD","status":"post_only"}, "ODD":{"altname":"ODD"}, "NANOUSD":{"wsname":"NANO/USD"}}}"#;
    let list = Kraken.decode_instruments(200, body.as_bytes()).expect("a list");
    let got: Vec<String> =
        list.iter().map(|one| format!("{} {} {} {}", one.name, one.rest_name, one.base, one.trading)).collect();
    assert_eq!(
        got,
        [
            "BTC/USD XXBTZUSD BTC true",
            "DOGE/USD XDGUSD DOGE true",
            "AIO/USD AIOUSD AIO true",
            "AIOZ/USD AIOZUSD AIOZ true",
            "XTZ/USD XTZUSD XTZ false",
            "NANO/USD NANOUSD NANO true",
        ]
    );
    for (status, body) in [
        (200, r#"{"error":["EGeneral:Too many requests"]}"#),
        (200, r#"{"error":[],"result":{}}"#),
        (200, "{}"),
        (520, "<html>"),
    ] {
        assert!(Kraken.decode_instruments(status, body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn rest_answers() {
    let aio = instrument("AIO/USD", '/');
    let aioz = instrument("AIOZ/USD", '/');
    let named = |one: &Instrument, rest_name: &str| Instrument { rest_name: rest_name.to_owned(), ..one.clone() };
    let (aio, aioz) = (named(&aio, "AIOUSD"), named(&aioz, "AIOZUSD"));
    for (status, body, expected) in [
        (
            200,
            r#"{"error":[],"result":{"AIOZUSD":{"a":["4","1"],"b":["2","1"],"c":["3","1"]},"AIOUSD":{"a":["40"],"b":["20"],"c":["0.000"]}}}"#,
            &[
                "quote AIO/USD snapshot last - bid 20 ask 40 at - number -",
                "quote AIOZ/USD snapshot last 3 bid 2 ask 4 at - number -",
            ][..],
        ),
        (200, r#"{"error":["EQuery:Unknown asset pair"]}"#, &["refused - by -: EQuery:Unknown asset pair"][..]),
        (200, r#"{"error":["EAPI:Rate limit exceeded"]}"#, &["refused - by -: EAPI:Rate limit exceeded"][..]),
        (200, r#"{"error":[]}"#, &["malformed result is missing"][..]),
        (200, r#"{"error":[],"result":{"AIOUSD":{}}}"#, &["malformed c is missing"][..]),
        (
            200,
            r#"{"error":[],"result":{"AIOUSD":{"c":["5"]},"OTHERUSD":{"c":["6"]}}}"#,
            &["quote AIO/USD snapshot last 5 bid = ask = at - number -", "refused AIOZ/USD by -: not in the answer"][..],
        ),
        (520, "<html>", &["refused - by -: HTTP 520"][..]),
    ] {
        check_tickers(&Kraken, (status, body), &[&aio, &aioz], expected);
    }
    let one = r#"{"error":["EQuery:Unknown asset pair"]}"#;
    check_tickers(&Kraken, (200, one), &[&aio], &["refused AIO/USD by -: EQuery:Unknown asset pair"]);
    let rate = r#"{"error":["EAPI:Rate limit exceeded"]}"#;
    check_tickers(&Kraken, (200, rate), &[&aio], &["refused - by -: EAPI:Rate limit exceeded"]);
}

#[test]
fn changed_bytes_are_survived() {
    check_survives(&mut Kraken, &[TICKER, r#"{"channel":"status","data":[{"system":"online","connection_id":1}]}"#]);
}
