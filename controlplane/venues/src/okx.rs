//! OKX v5: quotes from `tickers`, whole every time.
//!
//! Prices and times are strings, and `""` where there is none. Keep-alive is the bare text `ping`, answered by the bare
//! text `pong`: the one frame of all venues that is not JSON. Every argument of a request is acknowledged by itself; of a
//! refusal the instrument stands only in its prose. Whether a bad argument spoils its neighbours is not known, so every
//! frame carries one.

mod tickers;

use crate::fields::Fields;
use crate::frame::{self, Said, name_after, push};
use crate::heard::Heard;
use crate::json::{self, Fault, Json, required_text};
use crate::pair;
use crate::protocol::{Instrument, KeepAlive, RestRequest, VenueEvent, VenueLimits, VenueProtocol};
use shared::asset::Symbol;
use shared::venue::Venue;
use std::borrow::Cow;

const TICKER_FIELDS: Fields = Fields { last: Some("last"), bid: Some("bidPx"), ask: Some("askPx"), time: Some("ts") };
const TRADE_FIELDS: Fields = Fields::trade("px", "ts");

/// The text that keeps the connection alive, and its answer.
pub const PING: &str = "ping";
/// The answer to [`PING`].
pub const PONG: &str = "pong";

/// Subscribe and unsubscribe operations of one connection in an hour.
pub const OPERATIONS_PER_HOUR: usize = 480;

/// What OKX permits.
const LIMITS: VenueLimits = VenueLimits {
    names_per_frame: 1,
    // Half of the hour's operations; the other half is left for what must be subscribed again.
    names_per_connection: OPERATIONS_PER_HOUR / 2,
    // Only the hour's bound is known, and "too frequent" (60014) without a number: 20 a second makes 144 in 7 s.
    frame_gap_ms: 50,
    first_frame_wait_ms: 0,
    // 3 connections a second for each address.
    connect_gap_ms: 1_000,
    // 20 requests in 2 s for each address; half of that.
    rest_gap_ms: 200,
    // One instrument is asked for by name, several by reading the list of all (about 800 rows of 350 bytes).
    names_per_rest_request: OPERATIONS_PER_HOUR / 2,
    operations_per_hour: Some(OPERATIONS_PER_HOUR),
};

/// A connection is closed after 30 s of silence.
const PING_EVERY_MS: u64 = 20_000;

/// One connection to OKX.
#[derive(Clone, Debug, Default)]
pub struct Okx {
    heard: Heard,
}

impl Okx {
    /// A connection that has heard nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<Vec<Said<'a>>, Fault> {
        if bytes.trim_ascii() == PONG.as_bytes() {
            return Ok(vec![Said::Heartbeat { answer: None }]);
        }
        let frame = frame::object(bytes)?;
        let [event, arg, data] = frame.pick(["event", "arg", "data"]);
        match (event, arg, data) {
            (Some(event), ..) => {
                let event = event.text().ok_or(Fault::Wrong("event", "a string"))?;
                Ok(event_of(&frame, event))
            }
            (None, Some(arg), Some(data)) => self.data(&arg, &data),
            _ => Ok(vec![Said::ignored("frame without event or data")]),
        }
    }

    fn data<'a>(&mut self, arg: &Json<'a>, data: &Json<'a>) -> Result<Vec<Said<'a>>, Fault> {
        if !data.is_array() {
            return Err(Fault::Wrong("data", "an array"));
        }
        let channel = required_text("arg.channel", arg.get("channel").as_ref())?;
        let mut said = Vec::with_capacity(1);
        match channel.as_ref() {
            "tickers" => {
                for row in data.items() {
                    push(&mut said, self.quote(&row, &channel, TICKER_FIELDS)?)?;
                }
            }
            // Of trades with the same time the last is the newest.
            "trades" | "trades-all" => {
                let newest = data.items().max_by_key(|trade| trade.get("ts").and_then(|time| time.whole()));
                if let Some(newest) = newest {
                    said.push(self.quote(&newest, &channel, TRADE_FIELDS)?);
                }
            }
            _ => said.push(Said::ignored(channel)),
        }
        if said.is_empty() {
            said.push(Said::ignored("no data"));
        }
        Ok(said)
    }

    fn quote<'a>(&mut self, row: &Json<'a>, channel: &str, fields: Fields) -> Result<Said<'a>, Fault> {
        let [name, kind] = row.pick(["instId", "instType"]);
        let name = required_text("instId", name.as_ref())?;
        let spot = kind.and_then(|kind| kind.text()).is_none_or(|kind| kind == "SPOT");
        let symbols = if spot { pair::split_at_separator(&name, '-') } else { None };
        let Some(symbols) = symbols else { return Ok(Said::ignored(name)) };
        let mut quote = fields.quote(row, symbols)?;
        quote.snapshot = self.heard.is_first(&format!("{channel}:{name}"));
        Ok(Said::Quote(quote))
    }
}

/// A frame with `event`: an answer to us, or a notice.
fn event_of<'a>(frame: &Json<'a>, event: Cow<'a, str>) -> Vec<Said<'a>> {
    let [id, arg, text, code] = frame.pick(["id", "arg", "msg", "code"]);
    let request = id.and_then(|id| id.whole());
    let text = text.and_then(|text| text.text());
    match event.as_ref() {
        "subscribe" => {
            let name = arg.and_then(|arg| arg.get("instId")).and_then(|name| name.text());
            vec![Said::Subscribed { name, request }]
        }
        "error" => {
            let reason = text.unwrap_or(event);
            let name = ["instId:", "\"instId\":\""].iter().find_map(|marker| name_after(&reason, marker));
            vec![Said::Refused { name, request, reason }]
        }
        // 64008: "The connection will soon be closed for a service upgrade."
        "notice" => {
            let reconnect = code.and_then(|code| code.whole()) == Some(64_008);
            vec![Said::Status { text: text.unwrap_or(event), reconnect }]
        }
        // The acknowledgement is revoked for a whole channel, without saying for which of its instruments.
        "channel-conn-count-error" => vec![
            Said::Refused { name: None, request, reason: event.clone() },
            Said::Status { text: event, reconnect: true },
        ],
        _ => vec![Said::ignored(event)],
    }
}

/// One frame for each name.
fn frames(op: &str, names: &[&str], request: u64) -> Vec<String> {
    let numbered = names.iter().zip(request..);
    numbered
        .map(|(name, id)| {
            let name = json::quoted(name);
            format!(r#"{{"id":"{id}","op":"{op}","args":[{{"channel":"tickers","instId":{name}}}]}}"#)
        })
        .collect()
}

impl VenueProtocol for Okx {
    fn venue(&self) -> Venue {
        Venue::Okx
    }

    fn ws_url(&self) -> &'static str {
        "wss://ws.okx.com:8443/ws/v5/public"
    }

    fn rest_url(&self) -> &'static str {
        "https://www.okx.com"
    }

    fn limits(&self) -> VenueLimits {
        LIMITS
    }

    fn keep_alive(&self) -> KeepAlive {
        KeepAlive::Client { every_ms: PING_EVERY_MS }
    }

    fn subscribe(&self, names: &[&str], request: u64) -> Vec<String> {
        frames("subscribe", names, request)
    }

    fn unsubscribe(&self, names: &[&str], request: u64) -> Vec<String> {
        frames("unsubscribe", names, request)
    }

    fn ping(&self, _request: u64) -> Option<String> {
        Some(PING.to_owned())
    }

    fn decode(&mut self, frame: &[u8], sink: &mut dyn FnMut(VenueEvent<'_>)) {
        frame::tell(self.read(frame), sink);
    }

    fn reset(&mut self) {
        self.heard.clear();
    }

    fn spell(&self, base: &Symbol, quote: &Symbol) -> String {
        format!("{base}-{quote}")
    }

    fn instruments(&self) -> Vec<RestRequest> {
        vec![RestRequest { path: "/api/v5/public/instruments?instType=SPOT".to_owned() }]
    }

    fn decode_instruments(&self, status: u16, body: &[u8]) -> Result<Vec<Instrument>, String> {
        tickers::decode_instruments(status, body)
    }

    fn tickers(&self, instruments: &[&Instrument]) -> RestRequest {
        tickers::request(instruments)
    }

    fn decode_tickers(&self, status: u16, body: &[u8], asked: &[&Instrument], sink: &mut dyn FnMut(VenueEvent<'_>)) {
        tickers::decode(status, body, asked, sink);
    }
}

#[cfg(test)]
mod tests;
