//! Crypto.com Exchange v1: quotes from `ticker.NAME` (last, bid, ask), heartbeats that must be answered.
//!
//! `a` is the last price, `b` the bid, `k` the ask; any of them may be `null`. Prices are strings; on the older
//! `/v2/market` socket, whose frames are understood too, bare numbers. Every channel of a request is answered by itself,
//! so a bad name spoils no other. The first data frame of a ticker may carry the request's id instead of -1: it is the
//! acknowledgement as well.

mod tickers;

use crate::fields::Fields;
use crate::frame::{self, Said, push};
use crate::heard::Heard;
use crate::json::{self, Fault, Json, required_text};
use crate::pair;
use crate::protocol::{Instrument, KeepAlive, RestRequest, VenueEvent, VenueLimits, VenueProtocol};
use shared::asset::Symbol;
use shared::venue::Venue;
use std::borrow::Cow;

const TICKER_FIELDS: Fields = Fields { last: Some("a"), bid: Some("b"), ask: Some("k"), time: Some("t") };
const TRADE_FIELDS: Fields = Fields::trade("p", "t");

/// Channels on one connection; the next is refused with 40107.
pub const CHANNELS_MAX: usize = 400;

/// The server's heartbeat comes every 30 s; 5 s more for the way.
const SILENCE_MS_MAX: u64 = 35_000;

/// What Crypto.com permits.
const LIMITS: VenueLimits = VenueLimits {
    // 100 channels in a frame are known to work; half of that.
    names_per_frame: 50,
    names_per_connection: CHANNELS_MAX,
    // 100 requests a second; a tenth of that.
    frame_gap_ms: 100,
    // Limits are pro-rated to the calendar second of the connection: the venue advises to wait one.
    first_frame_wait_ms: 1_000,
    connect_gap_ms: 1_000,
    // 100 a second for each address and method; a tenth of that.
    rest_gap_ms: 100,
    // One instrument is asked for by name, several by reading the list of all (about 1,000 rows, 260 KB).
    names_per_rest_request: CHANNELS_MAX,
    operations_per_hour: None,
};

/// One connection to Crypto.com.
#[derive(Clone, Debug, Default)]
pub struct Cryptocom {
    heard: Heard,
}

impl Cryptocom {
    /// A connection that has heard nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<Vec<Said<'a>>, Fault> {
        let frame = frame::object(bytes)?;
        let [id, method, code, result] = frame.pick(["id", "method", "code", "result"]);
        let method = method.as_ref().and_then(Json::text);
        match method.as_deref() {
            // With an error's code it is an answer to something we never ask, not a heartbeat to be answered.
            Some("public/heartbeat") if code.as_ref().is_none_or(|code| code.whole() == Some(0)) => {
                heartbeat(id.as_ref()).map(|said| vec![said])
            }
            Some("subscribe") | None => {
                let request = id.as_ref().and_then(Json::whole);
                let code_is_good = code.as_ref().map(|code| code.whole() == Some(0));
                match (code, code_is_good, result.filter(|result| !result.is_null())) {
                    (Some(code), Some(false), _) => Ok(vec![refusal(&frame, &code, request)]),
                    (_, _, Some(result)) => self.result(&result, request),
                    (Some(_), ..) => Ok(vec![Said::Subscribed { name: name_in_channel(&frame), request }]),
                    // Every answer has a code; a recording may hold what the client said.
                    (None, ..) => Ok(vec![Said::ignored("a request")]),
                }
            }
            Some("unsubscribe") => Ok(vec![Said::ignored("end of a subscription")]),
            Some(_) => Ok(vec![Said::ignored(method.unwrap_or_default())]),
        }
    }

    /// A `result`: data, an acknowledgement that names its instrument, or both.
    fn result<'a>(&mut self, result: &Json<'a>, request: Option<u64>) -> Result<Vec<Said<'a>>, Fault> {
        let [name, channel, data] = result.pick(["instrument_name", "channel", "data"]);
        let name = name.as_ref().and_then(Json::text);
        let mut said = Vec::with_capacity(2);
        if request.is_some() {
            said.push(Said::Subscribed { name: name.clone(), request });
        }
        let Some(data) = data.filter(|data| !data.is_null()) else {
            if said.is_empty() {
                said.push(Said::ignored("result without data"));
            }
            return Ok(said);
        };
        if !data.is_array() {
            return Err(Fault::Wrong("data", "an array"));
        }
        let channel = required_text("channel", channel.as_ref())?;
        match channel.as_ref() {
            "ticker" => {
                for row in data.items() {
                    push(&mut said, self.quote(&row, &channel, name.as_ref(), TICKER_FIELDS)?)?;
                }
            }
            // Newest first: of those with the same time the first is the newest, and `max_by_key` takes the last.
            "trade" => {
                let trades: Vec<Json<'a>> = data.items().collect();
                let newest = trades.iter().rev().max_by_key(|trade| trade.get("t").and_then(|time| time.whole()));
                if let Some(newest) = newest {
                    said.push(self.quote(newest, &channel, name.as_ref(), TRADE_FIELDS)?);
                }
            }
            _ => said.push(Said::ignored(channel)),
        }
        if said.is_empty() {
            said.push(Said::ignored("no data"));
        }
        Ok(said)
    }

    fn quote<'a>(
        &mut self,
        row: &Json<'a>,
        channel: &str,
        name: Option<&Cow<'a, str>>,
        fields: Fields,
    ) -> Result<Said<'a>, Fault> {
        let own = row.get("i").and_then(|own| own.text());
        let name = own.or_else(|| name.cloned()).ok_or(Fault::Missing("instrument_name"))?;
        let Some(symbols) = pair::split_at_separator(&name, '_') else { return Ok(Said::ignored(name)) };
        let mut quote = fields.quote(row, symbols)?;
        quote.snapshot = self.heard.is_first(&format!("{channel}:{name}"));
        Ok(Said::Quote(quote))
    }
}

/// The server's heartbeat, to be answered with its own id.
fn heartbeat<'a>(id: Option<&Json<'a>>) -> Result<Said<'a>, Fault> {
    let id = id.ok_or(Fault::Missing("id"))?;
    id.whole().ok_or(Fault::Wrong("id", "a whole number"))?;
    let answer = format!(r#"{{"id":{},"method":"public/respond-heartbeat"}}"#, id.raw());
    Ok(Said::Heartbeat { answer: Some(answer) })
}

/// An answer with a `code` other than 0.
fn refusal<'a>(frame: &Json<'a>, code: &Json<'a>, request: Option<u64>) -> Said<'a> {
    let message = frame.get("message").and_then(|message| message.text());
    let reason = message.unwrap_or_else(|| Cow::Owned(format!("code {}", code.raw())));
    Said::Refused { name: name_in_channel(frame), request, reason }
}

/// The instrument in the `channel` of an answer: `ticker.BTC_USD`, `book.BTC_USD.10`.
fn name_in_channel<'a>(frame: &Json<'a>) -> Option<Cow<'a, str>> {
    let channel = frame.get("channel")?.text()?;
    let (kind, rest) = channel.split_once('.')?;
    if !matches!(kind, "ticker" | "trade" | "book") {
        return None;
    }
    let start = kind.len() + 1;
    let length = rest.find('.').unwrap_or(rest.len());
    Some(frame::part(&channel, start, start + length))
}

fn frames(method: &str, names: &[&str], request: u64) -> Vec<String> {
    let numbered = names.chunks(LIMITS.names_per_frame).zip(request..);
    numbered
        .map(|(names, id)| {
            let channels = json::quoted_list(names.iter().map(|name| format!("ticker.{name}")));
            format!(r#"{{"id":{id},"method":"{method}","params":{{"channels":{channels}}}}}"#)
        })
        .collect()
}

impl VenueProtocol for Cryptocom {
    fn venue(&self) -> Venue {
        Venue::Cryptocom
    }

    fn ws_url(&self) -> &'static str {
        "wss://stream.crypto.com/exchange/v1/market"
    }

    fn rest_url(&self) -> &'static str {
        "https://api.crypto.com/exchange/v1"
    }

    fn limits(&self) -> VenueLimits {
        LIMITS
    }

    fn keep_alive(&self) -> KeepAlive {
        KeepAlive::Server { silence_ms_max: SILENCE_MS_MAX }
    }

    fn subscribe(&self, names: &[&str], request: u64) -> Vec<String> {
        frames("subscribe", names, request)
    }

    fn unsubscribe(&self, names: &[&str], request: u64) -> Vec<String> {
        frames("unsubscribe", names, request)
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
        vec![RestRequest { path: "/public/get-instruments".to_owned() }]
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
