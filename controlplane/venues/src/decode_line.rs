//! Decoded events as JSON lines: what the `decode` command prints.
//!
//! One line for each event of a frame, numbered by the frame's line in the recording. The words are the public contract;
//! this file knows no venue.

use crate::json::clip;
use crate::protocol::{VenueEvent, VenueProtocol, VenueQuote};
use serde::Serialize;
use shared::asset::resolve_alias;
use shared::quote::Field;

/// Longest reason repeated in a line, in bytes.
const REASON_BYTES_MAX: usize = 300;

/// One event as a JSON object, its fields in this order; what is not known is left out.
#[derive(Serialize, Default)]
struct Line<'a> {
    line: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    asset: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quote_currency: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ask: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exchange_time_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    snapshot: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    reconnect: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Decodes `frame`, which stands in line `line` of a recording, and gives one JSON object (without a newline) for each
/// of its events: kinds `quote`, `subscribed`, `heartbeat`, `refused`, `status`, `ignored` and `malformed`. A gap in the
/// venue's sequence is a `status`. Prices are given only where the frame gives them, in its own digits.
pub fn decode_line(protocol: &mut dyn VenueProtocol, line: u64, frame: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    protocol.decode(frame, &mut |event| lines.push(text(line, &event)));
    lines
}

fn text(line: u64, event: &VenueEvent<'_>) -> String {
    let to_json = |fields: Line<'_>| sonic_rs::to_string(&Line { line, ..fields }).unwrap_or_default();
    let clipped = |text| Some(clip(text, REASON_BYTES_MAX));
    match event {
        VenueEvent::Quote(quote) => quote_text(line, quote),
        VenueEvent::Subscribed { name, request } => {
            to_json(Line { kind: "subscribed", name: *name, request: *request, ..Line::default() })
        }
        VenueEvent::Refused { name, request, reason } => to_json(Line {
            kind: "refused",
            name: *name,
            request: *request,
            reason: clipped(reason),
            ..Line::default()
        }),
        VenueEvent::Heartbeat { answer } => {
            to_json(Line { kind: "heartbeat", answer: answer.as_deref(), ..Line::default() })
        }
        VenueEvent::Status { text, reconnect } => {
            to_json(Line { kind: "status", reconnect: *reconnect, reason: clipped(text), ..Line::default() })
        }
        VenueEvent::Gap { expected, got } => {
            let reason = format!("sequence gap: expected {expected}, got {got}");
            to_json(Line { kind: "status", reconnect: true, reason: Some(&reason), ..Line::default() })
        }
        VenueEvent::Ignored { what } => to_json(Line { kind: "ignored", reason: clipped(what), ..Line::default() }),
        VenueEvent::Malformed { reason } => {
            to_json(Line { kind: "malformed", reason: clipped(reason), ..Line::default() })
        }
    }
}

fn quote_text(line: u64, quote: &VenueQuote) -> String {
    let asset = resolve_alias(quote.base);
    let price = |field: Field| field.price().map(|price| price.to_string());
    let fields = Line {
        line,
        kind: "quote",
        asset: Some(asset.as_str()),
        quote_currency: Some(quote.quote.as_str()),
        last: price(quote.last),
        bid: price(quote.bid),
        ask: price(quote.ask),
        exchange_time_ms: quote.exchange_time_ms,
        sequence: quote.sequence,
        snapshot: quote.snapshot,
        ..Line::default()
    };
    sonic_rs::to_string(&fields).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{VenueSettings, protocol};
    use shared::venue::Venue;

    #[track_caller]
    fn check(venue: Venue, frame: &str, expected: &[&str]) {
        let mut protocol = protocol(venue, VenueSettings::default());
        assert_eq!(decode_line(protocol.as_mut(), 7, frame.as_bytes()), expected);
    }

    #[test]
    fn each_kind_has_its_line() {
        check(
            Venue::Kraken,
            r#"{"channel":"ticker","type":"update","data":[{"symbol":"NANO/USD","bid":0.80,"ask":0,"last":0.810,"timestamp":"1970-01-01T00:00:01.000000Z"}]}"#,
            &[
                r#"{"line":7,"kind":"quote","asset":"XNO","quote_currency":"USD","last":"0.810","bid":"0.80","exchange_time_ms":1000}"#,
            ],
        );
        check(
            Venue::Kraken,
            r#"{"method":"subscribe","result":{"symbol":"BTC/USD"},"success":true,"req_id":3}"#,
            &[r#"{"line":7,"kind":"subscribed","name":"BTC/USD","request":3}"#],
        );
        check(
            Venue::Kraken,
            r#"{"error":"Currency pair not supported XBT/USD","success":false,"symbol":"XBT/USD"}"#,
            &[r#"{"line":7,"kind":"refused","name":"XBT/USD","reason":"Currency pair not supported XBT/USD"}"#],
        );
        check(
            Venue::Kraken,
            r#"{"channel":"status","data":[{"system":"maintenance"}]}"#,
            &[r#"{"line":7,"kind":"status","reconnect":true,"reason":"maintenance"}"#],
        );
        check(Venue::Kraken, r#"{"channel":"heartbeat"}"#, &[r#"{"line":7,"kind":"heartbeat"}"#]);
        check(
            Venue::Kraken,
            r#"{"channel":"book","data":[]}"#,
            &[r#"{"line":7,"kind":"ignored","reason":"channel book"}"#],
        );
        check(Venue::Kraken, "[]", &[r#"{"line":7,"kind":"malformed","reason":"frame is not an object"}"#]);
        check(Venue::Okx, "pong", &[r#"{"line":7,"kind":"heartbeat"}"#]);
    }

    #[test]
    fn a_gap_is_a_status() {
        let mut protocol = protocol(Venue::Coinbase, VenueSettings::default());
        let frame = |sequence: u64| {
            format!(r#"{{"channel":"heartbeats","timestamp":"","sequence_num":{sequence},"events":[]}}"#).into_bytes()
        };
        assert_eq!(decode_line(protocol.as_mut(), 1, &frame(4)), [r#"{"line":1,"kind":"heartbeat"}"#]);
        let gap = r#"{"line":2,"kind":"status","reconnect":true,"reason":"sequence gap: expected 5, got 9"}"#;
        assert_eq!(decode_line(protocol.as_mut(), 2, &frame(9)), [gap, r#"{"line":2,"kind":"heartbeat"}"#]);
        let back = r#"{"line":3,"kind":"status","reconnect":true,"reason":"sequence gap: expected 10, got 9"}"#;
        assert_eq!(decode_line(protocol.as_mut(), 3, &frame(9)), [back]);
    }
}
