//! Every recorded frame of every venue, decoded: the table of kinds and counts, and what must never be in it.
//!
//! The recordings lie beside the repository, in `../shared/venues`; where they are not, these tests say so and pass.

#![expect(clippy::print_stdout, reason = "the table is what this test shows")]

use serde_json::Value;
use shared::price::Price;
use shared::venue::Venue;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use venues::decode_line::decode_line;
use venues::gemini::GeminiApi;
use venues::{VenueSettings, protocol};

/// Events by kind, in the order of the table's columns.
const KINDS: [&str; 7] = ["quote", "subscribed", "heartbeat", "refused", "status", "ignored", "malformed"];

/// Where the recordings are, if they are there.
fn recordings() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/venues");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no recordings at {}", folder.display());
    None
}

/// What one recording decodes to: a line of JSON for each event.
fn decode_file(path: &Path, venue: Venue, gemini: GeminiApi) -> Vec<Value> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut protocol = protocol(venue, VenueSettings { gemini });
    let frames = fs::read(path).expect("readable");
    let lines = frames.split(|byte| *byte == b'\n').filter(|frame| !frame.is_empty());
    let events = lines.zip(1..).flat_map(|(frame, line)| {
        let events = decode_line(protocol.as_mut(), line, frame);
        assert!(!events.is_empty(), "{name} line {line} gives no event");
        events
    });
    events.map(|event| serde_json::from_str(&event).expect("a line is JSON")).collect()
}

fn counts(events: &[Value]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        *counts.entry(event["kind"].as_str().expect("a kind")).or_default() += 1;
    }
    counts
}

/// The frames a venue sent, not those a client sent.
fn files(folder: &Path, venue: Venue) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder.join(venue.name()))
        .expect("a folder for each venue")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("ws_") && !name.starts_with("ws_sent") && name.ends_with(".jsonl")
        })
        .collect();
    files.sort();
    files
}

/// What each recording holds, counted by kind. A client's own ping with a bare number for an id (line 5 of Gemini's
/// present interface) is answered like a subscription; ours are told apart by their ids. Coinbase was recorded with book
/// frames that were left out of the file, so its numbers have gaps. Bybit's linear tickers, whose changes name only what
/// changed, are a market we do not listen to.
const COUNTS: [(&str, [usize; 7]); 19] = [
    ("coinbase/ws_advtrade_2026-08-09.jsonl", [105, 18, 16, 0, 132, 47, 0]),
    ("coinbase/ws_advtrade_l2_noise_2026-08-09.jsonl", [0, 0, 0, 0, 17, 80, 0]),
    ("gemini/ws_new_api_2026-09-15.jsonl", [0, 2, 0, 3, 0, 6, 0]),
    ("gemini/ws_new_api_bookticker_trade_reserialised_2026-07.jsonl", [3, 0, 0, 0, 0, 0, 0]),
    ("gemini/ws_v2_errors_2026-09-15.jsonl", [0, 0, 1, 1, 0, 0, 0]),
    ("gemini/ws_v2_marketdata_2026-08-09.jsonl", [279, 0, 0, 0, 0, 86, 0]),
    ("kraken/ws_v2_book_btcusd_2026-08-02.jsonl", [0, 1, 50, 0, 1, 2052, 0]),
    ("kraken/ws_v2_book_ethusd_2026-08-02.jsonl", [0, 1, 39, 0, 1, 1129, 0]),
    ("kraken/ws_v2_reserialised_sorted_keys_2026-03-15.jsonl", [1, 1, 0, 0, 1, 2, 0]),
    ("kraken/ws_v2_ticker_status_ack_error_singles.jsonl", [2, 3, 1, 4, 2, 2, 0]),
    ("gateio/ws_gateus_ack_pong_error_2026-09-23.jsonl", [1, 1, 1, 3, 0, 0, 0]),
    ("gateio/ws_spot_2021-04-22.jsonl", [17, 22, 0, 0, 0, 116, 0]),
    ("gateio/ws_spot_2025_2026_singles.jsonl", [3, 0, 0, 0, 0, 0, 0]),
    ("cryptocom/ws_exchange_v1_2026-06.jsonl", [2, 2, 1, 0, 0, 2, 0]),
    ("cryptocom/ws_exchange_v1_ack_error_heartbeat_2026-09-22.jsonl", [0, 2, 1, 2, 0, 5, 0]),
    ("cryptocom/ws_v2market_legacy_2021-11-23.jsonl", [1069, 4, 1, 0, 0, 10, 0]),
    ("bybit/ws_errors_acks_singles.jsonl", [0, 0, 1, 1, 0, 0, 0]),
    ("bybit/ws_linear_tickers_delta_2026-08-09.jsonl", [0, 0, 0, 0, 0, 150, 0]),
    ("okx/ws_public_singles_2026-09-25.jsonl", [2, 1, 1, 3, 0, 1, 0]),
];

/// Some recorded frames, by line, with all that is told of them.
const LINES: [(&str, usize, &str); 14] = [
    (
        "coinbase/ws_advtrade_2026-08-09.jsonl",
        7,
        r#"{"kind":"quote","asset":"BTC","quote_currency":"USD","last":"65086.18","bid":"65083.66","ask":"65083.67","exchange_time_ms":1786309548229,"snapshot":true}"#,
    ),
    (
        "gemini/ws_new_api_bookticker_trade_reserialised_2026-07.jsonl",
        1,
        r#"{"kind":"quote","asset":"XRP","quote_currency":"GUSD","last":"1.0612500","bid":"1.0614900","ask":"1.0615000","exchange_time_ms":1783981140076,"sequence":1764549594389752,"snapshot":true}"#,
    ),
    (
        "gemini/ws_new_api_2026-09-15.jsonl",
        6,
        r#"{"kind":"refused","name":"nosuchperp","request":4,"reason":"Invalid stream name: nosuchperp@depth@100ms"}"#,
    ),
    (
        "gemini/ws_v2_marketdata_2026-08-09.jsonl",
        4,
        r#"{"kind":"quote","asset":"SOL","quote_currency":"USD","last":"77.433","bid":"77.412","ask":"77.433","snapshot":true}"#,
    ),
    ("gemini/ws_v2_errors_2026-09-15.jsonl", 1, r#"{"kind":"refused","reason":"NoValidTradingPairs"}"#),
    (
        "kraken/ws_v2_ticker_status_ack_error_singles.jsonl",
        3,
        r#"{"kind":"quote","asset":"ALGO","quote_currency":"USD","last":"0.13110","bid":"0.13099","ask":"0.13108","exchange_time_ms":1791061113794,"snapshot":true}"#,
    ),
    (
        "kraken/ws_v2_ticker_status_ack_error_singles.jsonl",
        9,
        r#"{"kind":"refused","name":"XBT/USD","reason":"Currency pair not supported XBT/USD"}"#,
    ),
    (
        "kraken/ws_v2_book_ethusd_2026-08-02.jsonl",
        1,
        r#"{"kind":"status","reason":"online, connection 15413894943188002760"}"#,
    ),
    (
        "gateio/ws_gateus_ack_pong_error_2026-09-23.jsonl",
        3,
        r#"{"kind":"refused","name":"NOPE_USD","reason":"unknown currency pair: NOPE_USD"}"#,
    ),
    (
        "gateio/ws_spot_2025_2026_singles.jsonl",
        2,
        r#"{"kind":"quote","asset":"BTC","quote_currency":"USDT","bid":"83790.9","ask":"83791","exchange_time_ms":1790359165710,"sequence":40013503861,"snapshot":true}"#,
    ),
    (
        "cryptocom/ws_exchange_v1_2026-06.jsonl",
        7,
        r#"{"kind":"heartbeat","answer":"{\"id\":1782032467342,\"method\":\"public/respond-heartbeat\"}"}"#,
    ),
    (
        "cryptocom/ws_exchange_v1_ack_error_heartbeat_2026-09-22.jsonl",
        5,
        r#"{"kind":"refused","name":"NOPEUSD-PERP","request":11,"reason":"Unknown symbol"}"#,
    ),
    (
        "bybit/ws_spot_tickers_trades_2026-08-09.jsonl",
        2,
        r#"{"kind":"quote","asset":"BTC","quote_currency":"USDT","last":"65140.5","exchange_time_ms":1786310819126,"snapshot":true}"#,
    ),
    ("okx/ws_public_singles_2026-09-25.jsonl", 8, r#"{"kind":"heartbeat"}"#),
];

#[test]
fn every_recorded_frame_is_understood() {
    let Some(folder) = recordings() else { return };
    println!("{:62}{}", "", KINDS.map(|kind| format!("{kind:>11}")).concat());
    for venue in Venue::ALL {
        let mut sums = [0_usize; KINDS.len()];
        for path in files(&folder, venue) {
            let events = decode_file(&path, venue, GeminiApi::Current);
            let counts = counts(&events);
            let row = KINDS.map(|kind| counts.get(kind).copied().unwrap_or(0));
            let name = format!("{venue}/{}", path.file_name().unwrap_or_default().display());
            println!("{name:62}{}", row.map(|count| format!("{count:>11}")).concat());
            assert_eq!(row.iter().sum::<usize>(), events.len(), "{name}: a kind that is not in the contract");
            assert_eq!(counts.get("malformed"), None, "{name}");
            if let Some((_, expected)) = COUNTS.iter().find(|(file, _)| *file == name) {
                assert_eq!(row, *expected, "{name}");
            }
            sums.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
        }
        println!("{:62}{}", venue.name(), sums.map(|count| format!("{count:>11}")).concat());
    }
}

#[test]
fn recorded_values_come_out_to_the_digit() {
    let Some(folder) = recordings() else { return };
    for (file, line, expected) in LINES {
        let venue = Venue::from_name(file.split('/').next().unwrap_or_default()).expect("a venue");
        let events = decode_file(&folder.join(file), venue, GeminiApi::Current);
        let mut of_line: Vec<Value> = events.into_iter().filter(|event| event["line"] == line).collect();
        of_line.iter_mut().filter_map(Value::as_object_mut).for_each(|event| _ = event.remove("line"));
        let expected: Value = serde_json::from_str(expected).expect("JSON");
        assert!(of_line.contains(&expected), "{file} line {line}: {of_line:?}");
    }
}

/// The quotes of Gemini's whole-book socket never show a crossed book: its changes are applied whole and in order.
#[test]
fn the_recorded_books_are_never_crossed() {
    let Some(folder) = recordings() else { return };
    let path = folder.join("gemini/ws_v2_marketdata_2026-08-09.jsonl");
    let events = decode_file(&path, Venue::Gemini, GeminiApi::V2);
    assert_eq!(events, decode_file(&path, Venue::Gemini, GeminiApi::Current), "both settings read both interfaces");
    let price = |event: &Value, side: &str| Price::parse(event[side].as_str()?.as_bytes()).ok();
    let tops: Vec<_> = events.iter().filter_map(|event| price(event, "bid").zip(price(event, "ask"))).collect();
    assert!(tops.len() > 200);
    assert!(tops.iter().all(|(bid, ask)| bid < ask));
}
