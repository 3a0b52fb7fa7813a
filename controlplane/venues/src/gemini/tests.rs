//! What is told of Gemini's frames, good and odd, on both interfaces.

use super::current::Gemini;
use super::v2::GeminiV2;
use super::*;
use crate::protocol::VenueProtocol;
use crate::told::{check, check_survives, check_tickers, told};

const BOOK_TICKER: &str = r#"{"u":1764549594389752,"E":1789456740173524809,"s":"btcusd","b":"1.0614900","B":"958.6","a":"1.0615000","A":"38.3","c":"1.0612500","C":"4.7"}"#;

const BOOK: &str = r#"{"auction_events":[],"changes":[["buy","65.0","500.0"],["buy","64.8","15.0"],["sell","66","1"]],"symbol":"SOLUSD","trades":[{"price":"60","timestamp":1},{"price":"65.5","timestamp":2}],"type":"l2_updates"}"#;

#[track_caller]
fn check_current(frame: &str, expected: &str) {
    check(&mut Gemini::default(), frame, &[expected]);
}

#[test]
fn names_are_matched_whole() {
    for (name, expected) in [
        ("btcusd", Some("BTC USD")),
        ("BTCUSD", Some("BTC USD")),
        ("btcgusd", Some("BTC GUSD")),
        ("btcrlusd", Some("BTC RLUSD")),
        ("btcusdt", Some("BTC USDT")),
        ("usdcusd", Some("USDC USD")),
        ("usdtusd", Some("USDT USD")),
        ("paxgusd", Some("PAXG USD")),
        ("paxggusd", Some("PAXG GUSD")),
        ("usdgusd", Some("USDG USD")),
        ("usdgrlusd", Some("USDG RLUSD")),
        ("gusdsgd", Some("GUSD SGD")),
        ("linketh", Some("LINK ETH")),
        ("btcgusdperp", None),
        ("BTCUSDCPERP", None),
        ("usd", None),
        ("", None),
    ] {
        let pair = split(name).map(|(base, quote)| format!("{base} {quote}"));
        assert_eq!(pair.as_deref(), expected, "{name}");
    }
}

#[test]
fn the_fields_tell_the_streams_apart() {
    let quote =
        "quote BTC/USD snapshot last 1.0612500 bid 1.0614900 ask 1.0615000 at 1789456740173 number 1764549594389752";
    check_current(BOOK_TICKER, quote);
    for (frame, expected) in [
        (
            r#"{"E":1789456740173524809,"s":"xrpgusd","t":2840141014190422,"p":"62145.38000","q":"0.01","m":true}"#,
            "quote XRP/GUSD change last 62145.38000 bid = ask = at 1789456740173 number -",
        ),
        // An empty book, a side of one, and no word of the last trade.
        (
            r#"{"u":7,"E":1789456740173524809,"s":"btcusd"}"#,
            "quote BTC/USD snapshot last = bid - ask - at 1789456740173 number 7",
        ),
        (
            r#"{"u":7,"s":"btcusd","b":"","a":"2.50","c":""}"#,
            "quote BTC/USD snapshot last = bid - ask 2.50 at - number 7",
        ),
        (r#"{"e":"depthUpdate","E":1,"s":"btcusd","U":1,"u":1,"b":[["7","1"]],"a":[]}"#, "ignored event depthUpdate"),
        (r#"{"e":"markPrice","s":"btcgusdperp","p":"7"}"#, "ignored event markPrice"),
        (r#"{"u":7,"s":"btcgusdperp","b":"1"}"#, "ignored symbol btcgusdperp"),
        (r#"{"x":7}"#, "ignored neither bookTicker nor trade"),
        (r#"{"u":7}"#, "malformed s is missing"),
        (r#"{"u":1.5,"s":"btcusd"}"#, "malformed u is not a whole number"),
        (r#"{"u":7,"E":"now","s":"btcusd"}"#, "malformed E is not a whole number of ns"),
        (r#"{"t":7,"s":"btcusd"}"#, "malformed p is missing"),
        (r#"{"t":7,"s":"btcusd","p":""}"#, "malformed p is missing"),
        (r#"{"u":7,"s":"btcusd","b":[]}"#, "malformed b is not a string or a number"),
    ] {
        check_current(frame, expected);
    }
}

#[test]
fn only_the_first_word_of_a_book_is_a_snapshot() {
    let mut protocol = Gemini::default();
    let mut snapshots = |frame: &str| told(&mut protocol, frame.as_bytes())[0].contains("snapshot");
    assert!(snapshots(BOOK_TICKER));
    assert!(!snapshots(BOOK_TICKER));
    assert!(snapshots(&BOOK_TICKER.replace("btcusd", "ethusd")));
    protocol.reset();
    assert!(told(&mut protocol, BOOK_TICKER.as_bytes())[0].contains("snapshot"));
}

#[test]
fn answers_are_told_by_their_ids() {
    let protocol = Gemini::default();
    assert_eq!(
        protocol.subscribe(&["btcusd"], 5),
        [r#"{"id":5,"method":"subscribe","params":["btcusd@bookTicker","btcusd@trade"]}"#]
    );
    assert_eq!(protocol.ping(6).as_deref(), Some(r#"{"id":"ping-6","method":"ping"}"#));
    for (frame, expected) in [
        (r#"{"id":5,"status":200}"#, "subscribed - by 5"),
        (r#"{"id":"ping-6","status":200}"#, "heartbeat -"),
        (r#"{"id":"unsubscribe-7","status":200}"#, "status reconnect=false: done"),
        (r#"{"id":7,"status":200,"rateLimits":[]}"#, "ignored conninfo"),
        (
            r#"{"id":4,"status":400,"error":{"code":-1013,"msg":"Invalid stream name: nosuch@bookTicker"}}"#,
            "refused nosuch by 4: Invalid stream name: nosuch@bookTicker",
        ),
        (
            r#"{"id":11,"status":400,"error":{"code":-1020,"msg":"Unsupported operation"}}"#,
            "refused - by 11: Unsupported operation",
        ),
        (r#"{"id":11,"status":400}"#, "malformed msg is missing"),
    ] {
        check_current(frame, expected);
    }
}

#[test]
fn books_of_the_archived_interface_give_their_top() {
    let mut protocol = GeminiV2::default();
    let change = |changes: &str| format!(r#"{{"changes":[{changes}],"symbol":"SOLUSD","type":"l2_updates"}}"#);
    for (frame, expected) in [
        (change(r#"["buy","65.0","1"]"#), "ignored no book of SOLUSD"),
        (BOOK.to_owned(), "quote SOL/USD snapshot last 65.5 bid 65.0 ask 66 at - number -"),
        (change(r#"["buy","65.0","0.0"]"#), "quote SOL/USD change last = bid 64.8 ask 66 at - number -"),
        (
            change(r#"["sell","65.9","0.5"],["sell","66","0"]"#),
            "quote SOL/USD change last = bid 64.8 ask 65.9 at - number -",
        ),
        // Half of it is good, and nothing of it is used.
        (change(r#"["buy","65.5","1"],["up","1","1"]"#), "malformed side is not buy or sell"),
        (change(r#"["buy","65.5","1"],["buy","-1","1"]"#), "malformed price: price is below zero"),
        (change(r#"["buy","65.5","1"],["buy","0","1"]"#), "malformed price is not above zero"),
        (change(r#"["buy","65.5"]"#), "malformed quantity is missing"),
        (change(""), "quote SOL/USD change last = bid 64.8 ask 65.9 at - number -"),
        (change(r#"["buy","64.80","0"]"#), "quote SOL/USD change last = bid - ask 65.9 at - number -"),
        // A book replaces the one that was there.
        (BOOK.to_owned(), "quote SOL/USD snapshot last 65.5 bid 65.0 ask 66 at - number -"),
    ] {
        assert_eq!(told(&mut protocol, frame.as_bytes()), [expected], "{frame}");
    }
    protocol.reset();
    assert_eq!(told(&mut protocol, change("").as_bytes()), ["ignored no book of SOLUSD"]);
}

#[test]
fn other_frames_of_the_archived_interface() {
    for (frame, expected) in [
        (
            r#"{"event_id":1,"price":"65206.29","quantity":"0.1","symbol":"BTCUSD","timestamp":1786313194672,"type":"trade"}"#,
            "quote BTC/USD change last 65206.29 bid = ask = at 1786313194672 number -",
        ),
        (r#"{"timestamp":1786313195331,"type":"heartbeat"}"#, "heartbeat -"),
        (r#"{"reason":"NoValidTradingPairs","result":"error"}"#, "refused - by -: NoValidTradingPairs"),
        (r#"{"type":"candles_1m_updates","symbol":"BTCUSD","changes":[]}"#, "ignored type candles_1m_updates"),
        (r#"{"type":"l2_updates","symbol":"BTCUSDCPERP","changes":[]}"#, "ignored symbol BTCUSDCPERP"),
        (r#"{"type":"l2_updates","symbol":"BTCUSD"}"#, "malformed changes is not an array"),
        (r#"{"type":"trade","symbol":"BTCUSD"}"#, "malformed price is missing"),
        ("{}", "malformed type is missing"),
    ] {
        check(&mut GeminiV2::default(), frame, &[expected]);
    }
    assert_eq!(
        GeminiV2::default().subscribe(&["btcusd"], 1),
        [r#"{"type":"subscribe","subscriptions":[{"name":"l2","symbols":["BTCUSD"]}]}"#]
    );
}

#[test]
fn the_present_interface_understands_the_archived_one() {
    let mut protocol = Gemini::default();
    for (frame, expected) in [
        (BOOK, "quote SOL/USD snapshot last 65.5 bid 65.0 ask 66 at - number -"),
        (r#"{"timestamp":1786313195331,"type":"heartbeat"}"#, "heartbeat -"),
        (r#"{"reason":"NoValidTradingPairs","result":"error"}"#, "refused - by -: NoValidTradingPairs"),
    ] {
        assert_eq!(told(&mut protocol, frame.as_bytes()), [expected]);
    }
}

#[test]
fn books_are_bounded_in_number() {
    let mut protocol = GeminiV2::default();
    let names_max = protocol.limits().names_per_connection;
    let quotes = (0..names_max + 5)
        .filter(|index| {
            told(&mut protocol, BOOK.replace("SOL", &format!("A{index}")).as_bytes())[0].starts_with("quote")
        })
        .count();
    assert_eq!(quotes, names_max);
}

#[test]
fn rest_answers() {
    let protocol = Gemini::default();
    let list = protocol.decode_instruments(200, br#"["btcusd","BTCUSDCPERP","paxgusd",7]"#).expect("a list");
    assert_eq!(list.len(), 2);
    assert_eq!(protocol.tickers(&[&list[0]]).path, "/v1/pubticker/btcusd");
    for (status, body, expected) in [
        (
            200,
            r#"{"bid":"1","ask":"3","last":"2","volume":{"BTC":"9","USD":"9","timestamp":1565587800000}}"#,
            "quote BTC/USD snapshot last 2 bid 1 ask 3 at 1565587800000 number -",
        ),
        (200, r#"{"bid":"1","ask":"3","last":"2"}"#, "quote BTC/USD snapshot last 2 bid 1 ask 3 at - number -"),
        (200, "{}", "malformed last is missing"),
        (400, r#"{"reason":"InvalidSymbol","result":"error"}"#, "refused btcusd by -: InvalidSymbol (HTTP 400)"),
        (404, "", "refused btcusd by -: HTTP 404"),
        (429, r#"{"reason":"Too Many Requests"}"#, "refused - by -: Too Many Requests (HTTP 429)"),
    ] {
        check_tickers(&protocol, (status, body), &[&list[0]], &[expected]);
    }
    let archived = GeminiV2::default().decode_instruments(200, br#"["btcusd"]"#).expect("a list");
    assert_eq!((archived[0].name.as_str(), archived[0].rest_name.as_str()), ("BTCUSD", "btcusd"));
    for (status, body) in [(200, "{}"), (200, "[]"), (404, "")] {
        assert!(protocol.decode_instruments(status, body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn changed_bytes_are_survived() {
    check_survives(&mut Gemini::default(), &[BOOK_TICKER, r#"{"id":4,"status":400,"error":{"msg":"Invalid"}}"#]);
    check_survives(&mut GeminiV2::default(), &[BOOK]);
}
