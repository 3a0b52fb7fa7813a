//! What the simulated OKX says, in tables, and that its own decoder reads it back.

use super::{OkxRest, OkxSimulator};
use crate::simulate::{RestSimulator, VenueSimulator};
use crate::told::{instrument, market};

const NOW_MS: u64 = 1_800_000_000_123;

fn connected() -> OkxSimulator {
    let mut simulator = OkxSimulator::new();
    assert!(simulator.greeting(NOW_MS).is_empty());
    simulator
}

#[test]
fn answers_are_worded_as_the_venue_words_them() {
    let connection = format!("{:08x}", NOW_MS & 0xffff_ffff);
    let listed = [instrument("ABC-USDT", '-')];
    for (request, expected) in [
        (
            r#"{"id":"1","op":"subscribe","args":[{"channel":"tickers","instId":"NOPE-USDT"},{"channel":"tickers","instId":"ABC-USDT"}]}"#,
            vec![
                r#"{"id":"1","event":"error","msg":"Wrong URL or channel:tickers,instId:NOPE-USDT doesn't exist. Please use the correct URL, channel and parameters referring to API document.","code":"60018","connId":"@"}"#,
                r#"{"id":"1","event":"subscribe","arg":{"channel":"tickers","instId":"ABC-USDT"},"connId":"@"}"#,
            ],
        ),
        (
            r#"{"op":"unsubscribe","args":[{"channel":"tickers","instId":"ABC-USDT"}]}"#,
            vec![r#"{"event":"unsubscribe","arg":{"channel":"tickers","instId":"ABC-USDT"},"connId":"@"}"#],
        ),
        ("ping", vec!["pong"]),
        ("hello", vec![r#"{"event":"error","msg":"Invalid request: hello","code":"60012","connId":"@"}"#]),
        (
            r#"{"op":"nope","args":[]}"#,
            vec![
                r#"{"event":"error","msg":"Invalid request: {\"op\":\"nope\",\"args\":[]}","code":"60012","connId":"@"}"#,
            ],
        ),
    ] {
        let expected: Vec<String> = expected.iter().map(|line| line.replace('@', &connection)).collect();
        assert_eq!(connected().receive(request, &listed, &[], NOW_MS), expected, "{request}");
    }
}

#[test]
fn an_hour_has_480_operations() {
    let listed = [instrument("ABC-USDT", '-')];
    let mut simulator = connected();
    let mut ask = |after_ms| {
        let request = r#"{"op":"subscribe","args":[{"channel":"tickers","instId":"ABC-USDT"}]}"#;
        simulator.receive(request, &listed, &[], NOW_MS + after_ms).concat().contains("60014")
    };
    assert_eq!((0..481).filter(|after_ms| ask(*after_ms)).count(), 1);
    assert!(!ask(3_600_000));
}

#[test]
fn half_a_minute_of_silence_ends_the_connection() {
    let listed = [instrument("ABC-USDT", '-')];
    let mut simulator = connected();
    assert_eq!(simulator.must_close(NOW_MS + 30_000), Some(4_004));
    simulator.receive("ping", &listed, &[], NOW_MS + 20_000);
    assert_eq!(simulator.must_close(NOW_MS + 49_999), None);
    assert_eq!(simulator.must_close(NOW_MS + 50_000), Some(4_004));
    let request = r#"{"op":"subscribe","args":[{"channel":"tickers","instId":"ABC-USDT"}]}"#;
    simulator.receive(request, &listed, &[], NOW_MS + 21_000);
    assert_eq!(simulator.quote(&listed[0], &market("2", "1", "3", 1), NOW_MS + 49_000).len(), 1);
    assert_eq!(simulator.must_close(NOW_MS + 70_000), None);
}

#[test]
fn rest_errors() {
    let listed = [instrument("ABC-USDT", '-')];
    let get = |path: &str| OkxRest.get(path, &listed, &[market("2", "1", "3", 1)], NOW_MS);
    assert_eq!(
        get("/api/v5/market/ticker?instId=NOPE-USDT"),
        (
            200,
            r#"{"code":"51001","data":[],"msg":"Instrument ID, Instrument ID code, or Spread ID doesn't exist."}"#
                .to_owned()
        )
    );
    assert!(get("/api/v5/market/tickers").1.contains(r#""code":"51000""#));
    assert!(get("/api/v5/market/ticker").1.contains(r#""code":"50014""#));
    assert_eq!(get("/api/v5/nope").0, 404);
    assert!(get("/api/v5/market/ticker?instId=ABC-USDT").1.contains(r#""askPx":"3""#));
}
