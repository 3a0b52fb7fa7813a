//! Frames that mean harm: whatever the bytes, decoding ends, nothing of a broken frame is used, and memory is bounded.

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use shared::asset::Symbol;
use shared::quote::Field;
use shared::venue::Venue;
use venues::fuzz::fuzz_one;
use venues::json::{self, FRAME_BYTES_MAX, Fault, Json};
use venues::protocol::VenueEvent;
use venues::simulate::market::Market;
use venues::simulate::simulator;
use venues::{VenueSettings, protocol};

const NOW_MS: u64 = 1_793_500_000_000;

/// Good frames of a venue: what its simulator says at the opening, when it refuses, and of prices.
fn good_frames(venue: Venue) -> Vec<String> {
    let mut market = Market::new(21);
    let settings = VenueSettings::default();
    let (mut simulator, protocol) = (simulator(venue, settings), protocol(venue, settings));
    let listed = market.listed(venue).to_vec();
    let nothing = protocol.spell(&Symbol::new(b"NOPE").expect("a symbol"), &listed[0].quote);
    let mut frames = simulator.greeting(NOW_MS);
    let requests = [protocol.greeting(), protocol.subscribe(&[&listed[0].name], 1), protocol.subscribe(&[&nothing], 5)];
    for request in requests.concat().into_iter().chain(protocol.ping(9)) {
        frames.extend(simulator.receive(&request, &listed, &[], NOW_MS));
    }
    for turn in 1..3 {
        let shown = market.step(venue, 0).expect("listed");
        frames.extend(simulator.quote(&listed[0], &shown, NOW_MS + turn * 2_000));
    }
    frames.extend(simulator.heartbeat(NOW_MS));
    frames
}

/// Values that stand where a good one should.
fn bad_values() -> Vec<String> {
    let many = "9".repeat(10_000);
    let mut values: Vec<String> = [
        "null",
        "true",
        "[]",
        "{}",
        "[[]]",
        "\"\"",
        "\"NaN\"",
        "NaN",
        "\"Infinity\"",
        "-Infinity",
        "-1",
        "\"-0.5\"",
        "0",
        "0.0",
        "\"0\"",
        "-0",
        "1e308",
        "\"1e308\"",
        "1e-308",
        "1e99999999999",
        "18446744073709551616",
        "\" 1\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"0x10\"",
        "\"1,5\"",
        "\"٣\"",
        "01",
        "1.",
        "+1",
        "'1'",
    ]
    .map(str::to_owned)
    .to_vec();
    values.push(many.clone());
    values.push(format!("\"0.{many}\""));
    values.push(format!("{}{}", "[".repeat(200), "]".repeat(200)));
    values.push(format!("\"{}\"", "A".repeat(100_000)));
    values
}

/// Every place of a JSON value, as the path of keys and positions that leads to it.
fn places(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    found.push(path.clone());
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        _ => return,
    };
    for (name, child) in children {
        path.push(name);
        places(child, path, found);
        path.pop();
    }
}

/// `frame` with the value at `place` written as `text`, which need not be JSON.
fn replaced(frame: &Value, place: &[String], text: &str) -> String {
    const MARK: &str = "the place to replace";
    let mut frame = frame.clone();
    let pointer: String = place.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect();
    *frame.pointer_mut(&pointer).expect("a place") = Value::from(MARK);
    frame.to_string().replace(&format!("\"{MARK}\""), text)
}

#[test]
fn every_value_of_every_frame_made_bad() {
    for venue in Venue::ALL {
        for frame in good_frames(venue) {
            let Ok(frame) = serde_json::from_str::<Value>(&frame) else { continue };
            let mut found = Vec::new();
            places(&frame, &mut Vec::new(), &mut found);
            for place in &found {
                for bad in bad_values() {
                    check_no_absurd_price(venue, replaced(&frame, place, &bad).as_bytes());
                }
            }
        }
    }
}

/// A frame with one bad value may still be good (a field we do not read), but no price of it may be bad.
fn check_no_absurd_price(venue: Venue, frame: &[u8]) {
    let mut protocol = protocol(venue, VenueSettings::default());
    protocol.decode(frame, &mut |event| {
        let VenueEvent::Quote(quote) = &event else { return };
        for field in [quote.last, quote.bid, quote.ask] {
            if let Field::At(price) = field {
                assert!(price.is_positive(), "{event:?} of {}", String::from_utf8_lossy(frame));
                assert!(price.significant_digits() < 19, "{event:?}");
            }
        }
    });
}

#[test]
fn frames_beyond_measure_are_one_malformed_event() {
    let huge = format!("{{\"channel\":\"{}\"}}", "x".repeat(10 << 20));
    let deep = "[".repeat(1_000_000);
    let deep_object = r#"{"data":"#.repeat(1_000_000);
    let digits = format!("{{\"channel\":\"ticker\",\"data\":[{}]}}", "9".repeat(FRAME_BYTES_MAX));
    let mut invalid = good_frames(Venue::Coinbase)[0].clone().into_bytes();
    invalid[10] = 0xff;
    for venue in Venue::ALL {
        for frame in [huge.as_bytes(), deep.as_bytes(), deep_object.as_bytes(), digits.as_bytes(), &invalid, b"", b"\0"]
        {
            let mut events = Vec::new();
            protocol(venue, VenueSettings::default()).decode(frame, &mut |event| {
                let VenueEvent::Malformed { reason } = event else { panic!("{venue}: {event:?}") };
                events.push(reason);
            });
            assert_eq!(events.len(), 1, "{venue}");
            assert!(events[0].len() < 300, "{venue}: the reason repeats the frame");
        }
    }
}

#[test]
fn a_frame_of_very_many_prices_is_bounded() {
    let tickers = vec![r#"{"symbol":"A/USD","last":1}"#; 30_000].join(",");
    let frame = format!(r#"{{"channel":"ticker","type":"update","data":[{tickers}]}}"#);
    assert!(frame.len() < FRAME_BYTES_MAX);
    let mut events = 0;
    protocol(Venue::Kraken, VenueSettings::default()).decode(frame.as_bytes(), &mut |event| {
        assert!(matches!(event, VenueEvent::Malformed { .. }), "{event:?}");
        events += 1;
    });
    assert_eq!(events, 1);
}

/// sonic-rs finds our values; serde_json is the second opinion on what is JSON, and on what stands in it.
fn check_against_serde(bytes: &[u8]) {
    let ours = json::parse(bytes);
    if matches!(ours, Err(Fault::TooDeep | Fault::TooLarge(_))) {
        return;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        assert_eq!(ours.err(), Some(Fault::NotUtf8));
        return;
    };
    let theirs = serde_json::from_str::<IgnoredAny>(text);
    assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?} {}", ours.err(), theirs.err(), String::from_utf8_lossy(bytes));
    if let (Ok(ours), Ok(theirs)) = (ours, serde_json::from_slice::<Value>(bytes)) {
        check_same(&ours, &theirs);
    }
}

fn check_same(ours: &Json<'_>, theirs: &Value) {
    match theirs {
        Value::Object(fields) => {
            assert!(ours.is_object());
            for (name, value) in fields {
                check_same(&ours.get(name).expect("a field"), value);
            }
        }
        Value::Array(items) => {
            assert_eq!(ours.items().count(), items.len());
            ours.items().zip(items).for_each(|(ours, theirs)| check_same(&ours, theirs));
        }
        Value::String(text) => assert_eq!(ours.text().as_deref(), Some(text.as_str())),
        Value::Bool(flag) => assert_eq!(ours.flag(), Some(*flag)),
        Value::Null => assert!(ours.is_null()),
        Value::Number(number) => {
            assert_eq!(ours.whole(), number.as_u64().filter(|_| ours.raw().bytes().all(|byte| byte.is_ascii_digit())));
        }
    }
}

/// A good frame of one of the venues with some of its bytes changed, dropped, doubled or moved.
fn mutated() -> impl Strategy<Value = (Venue, Vec<u8>)> {
    let frames: Vec<(Venue, Vec<u8>)> = Venue::ALL
        .into_iter()
        .flat_map(|venue| good_frames(venue).into_iter().map(move |frame| (venue, frame.into_bytes())))
        .collect();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0_u8..5, any::<u8>()), 1..6);
    (prop::sample::select(frames), edits).prop_map(|((venue, mut frame), edits)| {
        for (at, edit, byte) in edits {
            if frame.is_empty() {
                break;
            }
            let at = at.index(frame.len());
            match edit {
                0 => frame[at] = byte,
                1 => frame[at] = b"\"{}[]:,\\0-eE."[usize::from(byte) % 13],
                2 => drop(frame.remove(at)),
                3 => frame.insert(at, byte),
                _ => frame.extend_from_within(at..),
            }
        }
        (venue, frame)
    })
}

/// Text that is nearly JSON.
fn nearly_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "-?[0-9]{0,3}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{0,2})?",
        "\"([a-z]|\\\\[\"\\\\/bfnrtuxa]|\\\\u[0-9a-fA-F]{4}|é){0,6}\"",
        Just("true".to_owned()),
        Just("null".to_owned()),
        "[ \\t\\n]{1,2}",
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(("[a-c]{0,2}", inner), 0..5).prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\" :{value} ")).collect();
                format!("{{{}}}", fields.join(" , "))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        Venue::ALL.into_iter().for_each(|venue| fuzz_one(venue, &bytes));
        check_against_serde(&bytes);
    }

    #[test]
    fn changed_frames_are_survived((venue, frame) in mutated()) {
        fuzz_one(venue, &frame);
        check_against_serde(&frame);
    }

    #[test]
    fn we_and_serde_agree_on_what_is_json(text in nearly_json()) {
        check_against_serde(text.as_bytes());
    }
}
