//! `decode`, as a person uses it: frames in, one JSON line per event out.
#![expect(clippy::print_stdout, reason = "a skipped test must say so")]

use harness::service::binary;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn decode(venue: &str, frames: &str) -> Vec<Value> {
    let mut command = Command::new(binary());
    command.args(["decode", "--venue", venue]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it runs");
    let mut input = child.stdin.take().expect("its stdin");
    let frames = frames.to_owned();
    let writer = std::thread::spawn(move || input.write_all(frames.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("the writer ends").expect("it reads everything");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[track_caller]
fn check(venue: &str, frame: &str, expected: &str) {
    let events = decode(venue, &format!("{frame}\n"));
    let expected: Value = serde_json::from_str(expected).expect("JSON");
    let found = events.iter().any(|event| {
        event["line"] == 1 && expected.as_object().expect("an object").iter().all(|(name, value)| event[name] == *value)
    });
    assert!(found, "{venue}: wanted {expected}, got {events:?}");
}

#[test]
fn a_quote_of_each_venue_is_read_exactly() {
    check(
        "coinbase",
        r#"{"channel":"ticker","timestamp":"2026-08-09T21:05:48.123456789Z","sequence_num":0,"events":[{"type":"update","tickers":[{"product_id":"BTC-USD","price":"65205.50","best_bid":"65205.49","best_ask":"65205.51"}]}]}"#,
        r#"{"kind":"quote","asset":"BTC","quote_currency":"USD","last":"65205.50","bid":"65205.49","ask":"65205.51","exchange_time_ms":1786309548123}"#,
    );
    check(
        "gemini",
        r#"{"u":1,"E":1789456740173524809,"s":"ethusd","b":"3500.10","B":"1","a":"","A":"0"}"#,
        r#"{"kind":"quote","asset":"ETH","quote_currency":"USD","bid":"3500.10","exchange_time_ms":1789456740173}"#,
    );
    check(
        "kraken",
        r#"{"channel":"ticker","type":"update","data":[{"symbol":"ALGO/USD","bid":0.00044780,"bid_qty":1.0,"ask":0.00044790,"ask_qty":2.0,"last":0.00044785,"timestamp":"2026-09-25T10:00:00.123456Z"}]}"#,
        r#"{"kind":"quote","asset":"ALGO","quote_currency":"USD","bid":"0.00044780","ask":"0.00044790","last":"0.00044785","exchange_time_ms":1790330400123}"#,
    );
    check(
        "gateio",
        r#"{"time":1790359171,"time_ms":1790359171119,"channel":"spot.book_ticker","event":"update","result":{"t":1790359171117,"u":5,"s":"BTC_USDT","b":"67000.1","B":"1","a":"67000.2","A":"1"}}"#,
        r#"{"kind":"quote","asset":"BTC","quote_currency":"USDT","bid":"67000.1","ask":"67000.2"}"#,
    );
    check(
        "cryptocom",
        r#"{"id":-1,"method":"subscribe","code":0,"result":{"instrument_name":"BTC_USD","subscription":"ticker.BTC_USD","channel":"ticker","data":[{"h":"1","l":"1","a":"67001.5","b":"67001.0","k":"67002.0","i":"BTC_USD","t":1790114291578}]}}"#,
        r#"{"kind":"quote","asset":"BTC","quote_currency":"USD","last":"67001.5","bid":"67001.0","ask":"67002.0","exchange_time_ms":1790114291578}"#,
    );
    check(
        "bybit",
        r#"{"topic":"orderbook.1.BTCUSDT","ts":1790000000001,"type":"snapshot","data":{"s":"BTCUSDT","b":[["67000.10","1"]],"a":[["67000.20","2"]],"u":7,"seq":9},"cts":1790000000000}"#,
        r#"{"kind":"quote","asset":"BTC","quote_currency":"USDT","bid":"67000.10","ask":"67000.20"}"#,
    );
    check(
        "okx",
        r#"{"arg":{"channel":"tickers","instId":"RNDR-USDT"},"data":[{"instType":"SPOT","instId":"RNDR-USDT","last":"5.5","askPx":"5.6","bidPx":"5.4","ts":"1790358564077"}]}"#,
        r#"{"kind":"quote","asset":"RENDER","quote_currency":"USDT","last":"5.5","bid":"5.4","ask":"5.6","exchange_time_ms":1790358564077}"#,
    );
}

#[test]
fn what_is_no_quote_has_its_kind() {
    check("okx", "pong", r#"{"kind":"heartbeat"}"#);
    check("kraken", r#"{"channel":"heartbeat"}"#, r#"{"kind":"heartbeat"}"#);
    check(
        "kraken",
        r#"{"error":"Currency pair not supported XBT/USD","method":"subscribe","success":false,"symbol":"XBT/USD"}"#,
        r#"{"kind":"refused"}"#,
    );
    check("cryptocom", r#"{"id":9,"method":"public/heartbeat","code":0}"#, r#"{"kind":"heartbeat"}"#);
    check("bybit", r#"{"success":true,"ret_msg":"pong","conn_id":"a","op":"ping"}"#, r#"{"kind":"heartbeat"}"#);
    check(
        "okx",
        r#"{"event":"subscribe","arg":{"channel":"tickers","instId":"BTC-USDT"},"connId":"a"}"#,
        r#"{"kind":"subscribed"}"#,
    );
    check("gateio", r#"{"channel":"spot.unheard_of","event":"update","result":{}}"#, r#"{"kind":"ignored"}"#);
    for venue in ["coinbase", "gemini", "kraken", "gateio", "cryptocom", "bybit", "okx"] {
        check(venue, "{\"cut\":", r#"{"kind":"malformed"}"#);
        check(venue, "\u{1}\u{2}", r#"{"kind":"malformed"}"#);
    }
}

/// Every recorded frame, where the recordings are: no line may be lost, and the command ends well on each file.
#[test]
fn recordings_go_through_the_command() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/venues");
    if !folder.is_dir() {
        println!("skipped: no recordings at {}", folder.display());
        return;
    }
    for venue in ["coinbase", "gemini", "kraken", "gateio", "cryptocom", "bybit", "okx"] {
        let mut frames = 0;
        for file in
            std::fs::read_dir(folder.join(venue)).expect("its folder").map(|entry| entry.expect("a file").path())
        {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if !name.starts_with("ws_") || name.starts_with("ws_sent") {
                continue;
            }
            let text = std::fs::read_to_string(&file).expect("text");
            let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
            let events = decode(venue, &text);
            let mut told: Vec<u64> = events.iter().filter_map(|event| event["line"].as_u64()).collect();
            told.dedup();
            assert_eq!(told.len(), lines, "{name}: every frame yields at least one event");
            frames += lines;
        }
        println!("{venue}: {frames} frames");
    }
}
