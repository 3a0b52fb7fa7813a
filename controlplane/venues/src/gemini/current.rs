//! Gemini's present WebSocket interface: `bookTicker` for bid and ask (and last, where it says so), `trade` for last.
//!
//! Frames of both streams carry no type; the fields that are there tell them apart. `E` counts nanoseconds and is above
//! 2^53, so it never passes through a float.

use super::v2::{self, Books};
use crate::fields::unchanged;
use crate::frame::{self, Said, name_after, tell};
use crate::heard::Heard;
use crate::json::{Fault, Json, price_zero_absent, quoted_list, required_text};
use crate::protocol::{Instrument, KeepAlive, RestRequest, VenueEvent, VenueLimits, VenueProtocol, VenueQuote};
use shared::asset::Symbol;
use shared::quote::Field;
use shared::venue::Venue;

/// Nanoseconds in a millisecond.
const NS_PER_MS: u64 = 1_000_000;

/// The streams of one instrument.
const STREAMS: [&str; 2] = ["bookTicker", "trade"];

/// What stands before the stream's name in a refusal.
const BAD_STREAM: &str = "Invalid stream name: ";

/// Our pings carry this text before their number; subscriptions carry a bare number. The venue's answer to both is the
/// same but for the id, which it sends back as it came.
const PING_ID: &str = "ping-";

/// As [`PING_ID`], for the end of a subscription.
const UNSUBSCRIBE_ID: &str = "unsubscribe-";

/// One connection to Gemini's present interface. Frames of the archived one are understood too, as recordings hold
/// both; a live connection has none.
#[derive(Debug, Default)]
pub struct Gemini {
    heard: Heard,
    archived: Books,
}

impl VenueProtocol for Gemini {
    fn venue(&self) -> Venue {
        Venue::Gemini
    }

    fn ws_url(&self) -> &'static str {
        "wss://ws.gemini.com"
    }

    fn rest_url(&self) -> &'static str {
        super::REST_URL
    }

    /// One bad stream name refuses its whole frame, so each instrument has a frame of its own. 347 symbols on one
    /// connection are known to work; 300 connection attempts in 5 minutes and a request weight of 7,000 in 10 s are
    /// permitted.
    fn limits(&self) -> VenueLimits {
        VenueLimits {
            names_per_frame: 1,
            names_per_connection: 340,
            frame_gap_ms: 25,
            first_frame_wait_ms: 0,
            connect_gap_ms: 1_000,
            rest_gap_ms: super::REST_GAP_MS,
            names_per_rest_request: 1,
            operations_per_hour: None,
        }
    }

    /// The server's WebSocket ping comes only every 20 s, too seldom to notice a dead connection by.
    fn keep_alive(&self) -> KeepAlive {
        KeepAlive::Client { every_ms: 5_000 }
    }

    fn subscribe(&self, names: &[&str], request: u64) -> Vec<String> {
        vec![format!(r#"{{"id":{request},"method":"subscribe","params":{}}}"#, streams(names))]
    }

    fn unsubscribe(&self, names: &[&str], request: u64) -> Vec<String> {
        let params = streams(names);
        vec![format!(r#"{{"id":"{UNSUBSCRIBE_ID}{request}","method":"unsubscribe","params":{params}}}"#)]
    }

    fn ping(&self, request: u64) -> Option<String> {
        Some(format!(r#"{{"id":"{PING_ID}{request}","method":"ping"}}"#))
    }

    fn decode(&mut self, frame: &[u8], sink: &mut dyn FnMut(VenueEvent<'_>)) {
        let read = frame::object(frame).and_then(|root| read_frame(&root, self));
        tell(read.map(|said| vec![said]), sink);
    }

    fn reset(&mut self) {
        self.heard.clear();
        self.archived.clear();
    }

    fn spell(&self, base: &Symbol, quote: &Symbol) -> String {
        format!("{base}{quote}").to_ascii_lowercase()
    }

    fn instruments(&self) -> Vec<RestRequest> {
        super::instruments()
    }

    fn decode_instruments(&self, status: u16, body: &[u8]) -> Result<Vec<Instrument>, String> {
        super::decode_instruments(status, body, str::to_owned)
    }

    fn tickers(&self, instruments: &[&Instrument]) -> RestRequest {
        super::tickers(instruments)
    }

    fn decode_tickers(&self, status: u16, body: &[u8], asked: &[&Instrument], sink: &mut dyn FnMut(VenueEvent<'_>)) {
        super::decode_tickers(status, body, asked, sink);
    }
}

fn streams(names: &[&str]) -> String {
    quoted_list(names.iter().flat_map(|name| STREAMS.map(|stream| format!("{}@{stream}", name.to_ascii_lowercase()))))
}

fn read_frame<'a>(root: &Json<'a>, connection: &mut Gemini) -> Result<Said<'a>, Fault> {
    let [status, archived_kind, archived_result] = root.pick(["status", "type", "result"]);
    if let Some(status) = status {
        return read_answer(root, &status);
    }
    if archived_kind.is_some() || archived_result.is_some() {
        return v2::read_frame(root, &mut connection.archived);
    }
    let [event, symbol, trade, update, time] = root.pick(["e", "s", "t", "u", "E"]);
    if let Some(event) = event {
        // Book changes, mark prices and funding name themselves; the two streams we read do not.
        return Ok(Said::ignored(format!("event {}", required_text("e", Some(&event))?)));
    }
    if trade.is_none() && update.is_none() {
        return Ok(Said::ignored("neither bookTicker nor trade"));
    }
    let symbol = required_text("s", symbol.as_ref())?;
    let exchange_time_ms = match time {
        Some(time) => Some(time.whole().ok_or(Fault::Wrong("E", "a whole number of ns"))? / NS_PER_MS),
        None => None,
    };
    let Some(symbols) = super::split(&symbol) else {
        return Ok(Said::ignored(format!("symbol {symbol}")));
    };
    let quote = VenueQuote { exchange_time_ms, ..unchanged(symbols) };
    let read = match update {
        Some(update) => read_book_ticker(root, &update, quote),
        None => read_trade(root, quote),
    }?;
    // The first word about a book may be an old one; a trade is always new.
    let snapshot = read.sequence.is_some() && connection.heard.is_first(&symbol);
    Ok(Said::Quote(VenueQuote { snapshot, ..read }))
}

/// The top of the book, always both sides of it: a side that is not there, or is `""`, is empty.
fn read_book_ticker(root: &Json<'_>, update: &Json<'_>, quote: VenueQuote) -> Result<VenueQuote, Fault> {
    let [bid, ask, last] = root.pick(["b", "a", "c"]);
    let side = |name, value: Option<Json<'_>>| match price_zero_absent(name, value.as_ref()) {
        Ok(Field::Unchanged) => Ok(Field::Empty),
        field => field,
    };
    let sequence = Some(update.whole().ok_or(Fault::Wrong("u", "a whole number"))?);
    let last = match price_zero_absent("c", last.as_ref())? {
        // No trade yet in this frame's view is no reason to forget one that `trade` told of.
        Field::Empty => Field::Unchanged,
        last => last,
    };
    Ok(VenueQuote { bid: side("b", bid)?, ask: side("a", ask)?, last, sequence, ..quote })
}

fn read_trade(root: &Json<'_>, quote: VenueQuote) -> Result<VenueQuote, Fault> {
    match price_zero_absent("p", root.get("p").as_ref())? {
        Field::At(last) => Ok(VenueQuote { last: Field::At(last), ..quote }),
        Field::Empty | Field::Unchanged => Err(Fault::Missing("p")),
    }
}

/// The answer to one of our requests.
fn read_answer<'a>(root: &Json<'a>, status: &Json<'a>) -> Result<Said<'a>, Fault> {
    let [id, error, rates] = root.pick(["id", "error", "rateLimits"]);
    let request = id.as_ref().and_then(Json::whole);
    let text = id.and_then(|id| id.text()).unwrap_or_default();
    if status.whole() != Some(200) {
        let message = error.as_ref().and_then(|error| error.get("msg"));
        let reason = required_text("msg", message.as_ref())?;
        return Ok(Said::Refused { name: name_after(&reason, BAD_STREAM), request, reason });
    }
    Ok(match request {
        _ if rates.is_some() => Said::ignored("conninfo"),
        _ if text.starts_with(PING_ID) => Said::Heartbeat { answer: None },
        Some(_) => Said::Subscribed { name: None, request },
        None => Said::Status { text: "done".into(), reconnect: false },
    })
}
