//! What the simulated Crypto.com says, in tables, and that its own decoder reads it back.

use super::{CryptocomRest, CryptocomSimulator};
use crate::simulate::{RestSimulator, VenueSimulator};
use crate::told::{instrument, market};

const NOW_MS: u64 = 1_800_000_000_123;

#[track_caller]
fn check(request: &str, expected: &[&str]) {
    let listed = [instrument("ABC_USD", '_')];
    assert_eq!(CryptocomSimulator::new().receive(request, &listed, &[], NOW_MS), expected, "{request}");
}

#[test]
fn every_channel_is_answered_by_itself() {
    check(
        r#"{"id":3,"method":"subscribe","params":{"channels":["ticker.NOPE_USD","ticker.ABC_USD","nope.ABC_USD"]}}"#,
        &[
            r#"{"id":3,"method":"subscribe","code":40003,"channel":"ticker.NOPE_USD","message":"Unknown symbol"}"#,
            r#"{"id":3,"method":"subscribe","code":0,"result":{"instrument_name":"ABC_USD","subscription":"ticker.ABC_USD","channel":"ticker"}}"#,
            r#"{"id":3,"method":"subscribe","code":40003,"channel":"nope.ABC_USD","message":"Unrecognized channel"}"#,
        ],
    );
    check(r#"{"id":4,"method":"unsubscribe","params":{}}"#, &[r#"{"id":4,"method":"unsubscribe","code":0}"#]);
    check(
        r#"{"id":5,"method":"public/nope"}"#,
        &[r#"{"id":5,"method":"public/nope","code":40003,"message":"No such method"}"#],
    );
    check("not JSON", &[]);
    check(r#"{"id":5}"#, &[]);
}

#[test]
fn a_connection_takes_400_channels() {
    let names: Vec<String> = (0..401).map(|index| format!("A{index}_USD")).collect();
    let listed: Vec<_> = names.iter().map(|name| instrument(name, '_')).collect();
    let mut simulator = CryptocomSimulator::new();
    let mut ask = |name: &str| {
        let request = format!(r#"{{"id":9,"method":"subscribe","params":{{"channels":["ticker.{name}"]}}}}"#);
        simulator.receive(&request, &listed, &[], NOW_MS).concat()
    };
    assert!(names[..400].iter().all(|name| ask(name).contains(r#""code":0"#)));
    assert_eq!(
        ask(&names[400]),
        r#"{"id":9,"method":"subscribe","code":40107,"message":"Maximum subscriptions exceeded"}"#
    );
    assert!(ask(&names[0]).contains(r#""code":0"#), "a channel that is there already is no further one");
}

#[test]
fn three_unanswered_heartbeats_end_the_connection() {
    let mut simulator = CryptocomSimulator::new();
    let mut now_ms = NOW_MS;
    let mut beat = |simulator: &mut CryptocomSimulator, answer: Option<u64>| {
        now_ms += simulator.heartbeat_every_ms();
        let frames = simulator.heartbeat(now_ms);
        if let Some(offset) = answer {
            let answer = format!(r#"{{"id":{},"method":"public/respond-heartbeat"}}"#, now_ms + offset);
            assert!(simulator.receive(&answer, &[], &[], now_ms + 10).is_empty());
        }
        (frames.len(), simulator.must_close(now_ms))
    };
    // Answered, in time or late, it goes on.
    for answer in [Some(0), None, Some(0), None, Some(0)] {
        assert_eq!(beat(&mut simulator, answer), (1, None));
    }
    // An answer with another id is none.
    assert_eq!(beat(&mut simulator, Some(1)), (1, None));
    assert_eq!(beat(&mut simulator, None), (1, None));
    assert_eq!(beat(&mut simulator, None), (0, Some(1_000)));
}

#[test]
fn rest_errors() {
    let listed = [instrument("ABC_USD", '_')];
    let get = |path: &str| CryptocomRest.get(path, &listed, &[market("2", "1", "3", 1)], NOW_MS);
    assert_eq!(
        get("/exchange/v1/public/get-tickers?instrument_name=NOPE_USD"),
        (400, r#"{"code":40004,"message":"Invalid instrument_name"}"#.to_owned())
    );
    assert_eq!(get("/public/get-nope").0, 404);
    assert!(get("/public/get-tickers?instrument_name=ABC_USD").1.contains(r#""i":"ABC_USD","h":"2","l":"2","a":"2","#));
}
