//! Gate.io spot v4: quotes from `spot.book_ticker` (bid, ask, in real time) and `spot.tickers` (last, once a second).
//!
//! Prices are strings. One unknown pair refuses its whole frame, so every frame carries one instrument; the venue sets
//! no limit on frames or subscriptions of a connection, only on how slowly one may read. Requests go without the `time`
//! field, which the venue documents and does not ask for: this file has no clock. A frame that is not JSON is what a
//! client that reads too slowly gets; it is told as malformed.

mod tickers;

use crate::fields::{Fields, time_ms};
use crate::frame::{self, SAID_PER_FRAME_MAX, Said};
use crate::heard::Heard;
use crate::json::{self, Fault, Json, required_text};
use crate::pair;
use crate::protocol::{Instrument, KeepAlive, RestRequest, VenueEvent, VenueLimits, VenueProtocol, VenueQuote};
use shared::asset::Symbol;
use shared::venue::Venue;
use std::borrow::Cow;

/// The channel of best bid and ask.
pub const BOOK_TICKER: &str = "spot.book_ticker";
/// The channel of the last price.
pub const TICKERS: &str = "spot.tickers";
/// Single trades. Not subscribed; understood where it comes.
const TRADES: &str = "spot.trades";

const BOOK_TICKER_FIELDS: Fields = Fields { last: None, bid: Some("b"), ask: Some("a"), time: Some("t") };
const TICKER_FIELDS: Fields =
    Fields { last: Some("last"), bid: Some("highest_bid"), ask: Some("lowest_ask"), time: None };
/// The time is a string with a fraction of a millisecond.
const TRADE_FIELDS: Fields = Fields::trade("price", "create_time_ms");

/// A subscribed socket whose book is silent is closed after 60 s, an unsubscribed one after 30 s.
const PING_EVERY_MS: u64 = 15_000;

/// What Gate.io permits.
const LIMITS: VenueLimits = VenueLimits {
    // "unknown currency pair" refuses the whole frame.
    names_per_frame: 1,
    // The venue names no bound; 385 pairs on one socket are known to work. Two channels each stay below
    // `heard::STREAMS_MAX`.
    names_per_connection: 400,
    // No bound is known; 50 a second makes two frames for each of 144 instruments in 6 s.
    frame_gap_ms: 20,
    first_frame_wait_ms: 0,
    connect_gap_ms: 1_000,
    // 200 requests in 10 s for each address and endpoint; half of that.
    rest_gap_ms: 100,
    // One instrument is asked for by name, several by reading the list of all (about 2,500 rows of 230 bytes).
    names_per_rest_request: 400,
    operations_per_hour: None,
};

/// One connection to Gate.io.
#[derive(Clone, Debug, Default)]
pub struct Gateio {
    heard: Heard,
    /// The `time` of our requests, Unix seconds.
    wall_s: u64,
}

impl Gateio {
    /// A connection that has heard nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One frame for each channel and name.
    fn frames(&self, event: &str, names: &[&str], request: u64) -> Vec<String> {
        let streams = names.iter().flat_map(|name| [BOOK_TICKER, TICKERS].map(|channel| (channel, name)));
        streams
            .zip(request..)
            .map(|((channel, name), id)| {
                let (time, payload) = (self.wall_s, json::quoted_list([name]));
                format!(r#"{{"time":{time},"id":{id},"channel":"{channel}","event":"{event}","payload":{payload}}}"#)
            })
            .collect()
    }

    fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<Vec<Said<'a>>, Fault> {
        let frame = frame::object(bytes)?;
        let [channel, event, error, payload, id] = frame.pick(["channel", "event", "error", "payload", "id"]);
        let Some(channel) = channel.as_ref().and_then(Json::text) else {
            return Ok(vec![Said::ignored("frame without a channel")]);
        };
        let request = id.as_ref().and_then(Json::whole);
        let names = payload.map(|payload| pairs_of(&channel, &payload)).unwrap_or_default();
        let event = event.as_ref().and_then(Json::text).unwrap_or_default();
        if let Some(error) = error.filter(|error| !error.is_null()) {
            return Ok(vec![refusal(&error, &event, names, request)]);
        }
        match event.as_ref() {
            _ if channel.ends_with(".pong") => Ok(vec![Said::Heartbeat { answer: None }]),
            "subscribe" => acknowledgement(&frame, names, request),
            "unsubscribe" => Ok(vec![Said::ignored("end of a subscription")]),
            "update" | "all" => self.update(&frame, channel),
            _ => Ok(vec![Said::ignored(channel)]),
        }
    }

    fn update<'a>(&mut self, frame: &Json<'a>, channel: Cow<'a, str>) -> Result<Vec<Said<'a>>, Fault> {
        let [result, time, time_ms_field] = frame.pick(["result", "time", "time_ms"]);
        let result = result.ok_or(Fault::Missing("result"))?;
        if channel.ends_with(".system") {
            return Ok(vec![system_notice(&result)]);
        }
        if !matches!(channel.as_ref(), BOOK_TICKER | TICKERS | TRADES) {
            return Ok(vec![Said::ignored(channel)]);
        }
        // Frames of 2021 have no `time_ms`.
        let seconds = time_ms("time", time.as_ref())?.and_then(|seconds| seconds.checked_mul(1_000));
        let frame_time_ms = time_ms("time_ms", time_ms_field.as_ref())?.or(seconds);
        let mut said = Vec::with_capacity(1);
        for row in rows(&result)? {
            let [symbol, currency_pair] = row.pick(["s", "currency_pair"]);
            let name = required_text("currency_pair", symbol.or(currency_pair).as_ref())?;
            let Some(symbols) = pair::split_at_separator(&name, '_') else {
                frame::push(&mut said, Said::ignored(name))?;
                continue;
            };
            let mut quote = match channel.as_ref() {
                BOOK_TICKER => book_ticker(&row, symbols)?,
                TICKERS => TICKER_FIELDS.quote(&row, symbols)?,
                _ => TRADE_FIELDS.quote(&row, symbols)?,
            };
            quote.exchange_time_ms = quote.exchange_time_ms.or(frame_time_ms);
            quote.snapshot = self.heard.is_first(&format!("{channel}:{name}"));
            frame::push(&mut said, Said::Quote(quote))?;
        }
        Ok(said)
    }
}

/// The result of an update: an object, on some sockets an array of them.
fn rows<'a>(result: &Json<'a>) -> Result<Vec<Json<'a>>, Fault> {
    if result.is_array() {
        return Ok(result.items().collect());
    }
    if result.is_object() { Ok(vec![result.clone()]) } else { Err(Fault::Wrong("result", "an object or an array")) }
}

/// The instruments of a subscription. Other channels mix them with depths and intervals.
fn pairs_of<'a>(channel: &str, payload: &Json<'a>) -> Vec<Cow<'a, str>> {
    match channel {
        BOOK_TICKER | TICKERS | TRADES => {
            payload.items().filter_map(|name| name.text()).take(SAID_PER_FRAME_MAX).collect()
        }
        _ => Vec::new(),
    }
}

/// An answer with `error`. The name stands in the message; else it is the request's only one.
fn refusal<'a>(error: &Json<'a>, event: &str, mut names: Vec<Cow<'a, str>>, request: Option<u64>) -> Said<'a> {
    let reason = error.get("message").and_then(|message| message.text()).unwrap_or_else(|| error.raw());
    if event != "subscribe" {
        return Said::Status { text: reason, reconnect: false };
    }
    let only = if names.len() == 1 { names.pop() } else { None };
    let name = frame::name_after(&reason, "unknown currency pair: ").or(only);
    // Asking twice for one stream is answered with an error, while the first subscription stands.
    if reason.starts_with("Alert sub ") || reason.starts_with("Already sub") {
        return Said::Subscribed { name, request };
    }
    Said::Refused { name, request, reason }
}

/// An answer without `error`: one for the whole request.
fn acknowledgement<'a>(
    frame: &Json<'a>,
    names: Vec<Cow<'a, str>>,
    request: Option<u64>,
) -> Result<Vec<Said<'a>>, Fault> {
    let Some(result) = frame.get("result").filter(|result| !result.is_null()) else {
        // A recording may hold what the client said.
        return Ok(vec![Said::ignored("a request")]);
    };
    let status = result.get("status");
    let status = required_text("result.status", status.as_ref())?;
    if status != "success" {
        return Ok(vec![Said::Refused { name: None, request, reason: status }]);
    }
    if names.is_empty() {
        return Ok(vec![Said::Subscribed { name: None, request }]);
    }
    Ok(names.into_iter().map(|name| Said::Subscribed { name: Some(name), request }).collect())
}

/// A notice of the venue, such as that the connection will be closed for an upgrade.
fn system_notice<'a>(result: &Json<'a>) -> Said<'a> {
    let [kind, text] = result.pick(["type", "msg"]);
    let kind = kind.as_ref().and_then(Json::text).unwrap_or_default();
    let reconnect = kind == "upgrade";
    Said::Status { text: text.as_ref().and_then(Json::text).unwrap_or(kind), reconnect }
}

/// Best bid and ask, and the order book's own count of changes.
fn book_ticker(row: &Json<'_>, symbols: (Symbol, Symbol)) -> Result<VenueQuote, Fault> {
    let sequence = match row.get("u") {
        Some(update) => Some(update.whole().ok_or(Fault::Wrong("u", "a whole number"))?),
        None => None,
    };
    Ok(VenueQuote { sequence, ..BOOK_TICKER_FIELDS.quote(row, symbols)? })
}

impl VenueProtocol for Gateio {
    fn venue(&self) -> Venue {
        Venue::Gateio
    }

    fn ws_url(&self) -> &'static str {
        "wss://api.gateio.ws/ws/v4/"
    }

    fn rest_url(&self) -> &'static str {
        "https://api.gateio.ws/api/v4"
    }

    fn limits(&self) -> VenueLimits {
        LIMITS
    }

    fn keep_alive(&self) -> KeepAlive {
        KeepAlive::Client { every_ms: PING_EVERY_MS }
    }

    fn tell_time(&mut self, wall_ms: u64) {
        self.wall_s = wall_ms / 1_000;
    }

    fn subscribe(&self, names: &[&str], request: u64) -> Vec<String> {
        self.frames("subscribe", names, request)
    }

    fn unsubscribe(&self, names: &[&str], request: u64) -> Vec<String> {
        self.frames("unsubscribe", names, request)
    }

    fn ping(&self, request: u64) -> Option<String> {
        Some(format!(r#"{{"time":{},"id":{request},"channel":"spot.ping"}}"#, self.wall_s))
    }

    fn decode(&mut self, frame: &[u8], sink: &mut dyn FnMut(VenueEvent<'_>)) {
        frame::tell(self.read(frame), sink);
    }

    fn reset(&mut self) {
        self.heard.clear();
    }

    fn spell(&self, base: &Symbol, quote: &Symbol) -> String {
        format!("{base}_{quote}")
    }

    fn instruments(&self) -> Vec<RestRequest> {
        vec![RestRequest { path: "/spot/currency_pairs".to_owned() }]
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
