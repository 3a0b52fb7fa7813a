//! Kraken, WebSocket v2: the `ticker` channel triggered by the book's top, and REST `Ticker`.
//!
//! Prices are bare JSON numbers and are read from their text. v2 spells `BTC` and `DOGE` where REST still says `XBT` and
//! `XDG`; REST's canonical names (`XXBTZUSD`) are taken from its own list and never guessed by taking letters away.

use crate::fields::{Fields, unchanged};
use crate::frame::{self, Said, tell};
use crate::json::{self, Fault, Json, price_zero_absent, quoted_list, required_text};
use crate::pair::split_at_separator;
use crate::protocol::{Instrument, KeepAlive, RestRequest, VenueEvent, VenueLimits, VenueProtocol, VenueQuote};
use crate::rest;
use crate::timestamp::rfc3339_ms;
use shared::asset::Symbol;
use shared::venue::Venue;
use std::borrow::Cow;

/// Assets that REST (`wsname`) spells otherwise than WebSocket v2: (REST, v2).
const RENAMED_IN_V2: &[(&str, &str)] = &[("XBT", "BTC"), ("XDG", "DOGE")];

/// Assets that Kraken spells otherwise than everyone else: (elsewhere, Kraken).
const OWN_SPELLING: &[(&str, &str)] = &[("XNO", "NANO"), ("PHALA", "PHA"), ("XBT", "BTC"), ("XDG", "DOGE")];

/// Where a ticker has its prices.
const TICKER: Fields = Fields { last: Some("last"), bid: Some("bid"), ask: Some("ask"), time: None };

/// One connection to Kraken. The protocol keeps nothing: there are no sequence numbers, and every ticker is whole.
#[derive(Debug, Default)]
pub struct Kraken;

impl VenueProtocol for Kraken {
    fn venue(&self) -> Venue {
        Venue::Kraken
    }

    fn ws_url(&self) -> &'static str {
        "wss://ws.kraken.com/v2"
    }

    fn rest_url(&self) -> &'static str {
        "https://api.kraken.com"
    }

    /// Each symbol of a frame is answered by itself, so frames may be large. 150 connection attempts in 10 minutes are
    /// commonly quoted: one in 4 s. One unknown pair fails a whole REST request, so each goes alone.
    fn limits(&self) -> VenueLimits {
        VenueLimits {
            names_per_frame: 50,
            names_per_connection: 400,
            frame_gap_ms: 100,
            first_frame_wait_ms: 0,
            connect_gap_ms: 4_000,
            rest_gap_ms: 500,
            names_per_rest_request: 1,
            operations_per_hour: None,
        }
    }

    /// Heartbeats come about once a second as soon as anything is subscribed.
    fn keep_alive(&self) -> KeepAlive {
        KeepAlive::Server { silence_ms_max: 5_000 }
    }

    fn subscribe(&self, names: &[&str], request: u64) -> Vec<String> {
        let symbols = quoted_list(names);
        vec![format!(
            r#"{{"method":"subscribe","params":{{"channel":"ticker","symbol":{symbols},"event_trigger":"bbo","snapshot":true}},"req_id":{request}}}"#
        )]
    }

    fn unsubscribe(&self, names: &[&str], request: u64) -> Vec<String> {
        let symbols = quoted_list(names);
        vec![format!(
            r#"{{"method":"unsubscribe","params":{{"channel":"ticker","symbol":{symbols},"event_trigger":"bbo"}},"req_id":{request}}}"#
        )]
    }

    fn ping(&self, request: u64) -> Option<String> {
        Some(format!(r#"{{"method":"ping","req_id":{request}}}"#))
    }

    fn decode(&mut self, frame: &[u8], sink: &mut dyn FnMut(VenueEvent<'_>)) {
        tell(frame::object(frame).and_then(|root| read_frame(&root)), sink);
    }

    fn reset(&mut self) {}

    fn spell(&self, base: &Symbol, quote: &Symbol) -> String {
        format!("{}/{}", translated(base.as_str(), OWN_SPELLING), translated(quote.as_str(), OWN_SPELLING))
    }

    fn instruments(&self) -> Vec<RestRequest> {
        vec![RestRequest { path: "/0/public/AssetPairs".to_owned() }]
    }

    fn decode_instruments(&self, status: u16, body: &[u8]) -> Result<Vec<Instrument>, String> {
        let root = rest::list_body(status, body, &[])?;
        if let Some(error) = first_error(&root) {
            return Err(error.into_owned());
        }
        let pairs = root.get("result").filter(Json::is_object).ok_or("result is missing")?;
        rest::instruments(pairs.fields(), |(canonical, pair)| read_pair(canonical, pair))
    }

    fn tickers(&self, instruments: &[&Instrument]) -> RestRequest {
        let names: Vec<&str> = instruments.iter().map(|instrument| instrument.rest_name.as_str()).collect();
        RestRequest { path: format!("/0/public/Ticker?pair={}", names.join(",")) }
    }

    fn decode_tickers(&self, status: u16, body: &[u8], asked: &[&Instrument], sink: &mut dyn FnMut(VenueEvent<'_>)) {
        if status != 200 {
            return rest::tell_refusal(asked, false, &rest::refusal(status, body, &[]), sink);
        }
        tell(json::parse_body(body).and_then(|root| read_rest_tickers(&root, asked)), sink);
    }
}

/// `asset` in the other spelling, if it has one.
fn translated<'a>(asset: &'a str, spellings: &[(&str, &'static str)]) -> &'a str {
    spellings.iter().find(|(from, _)| *from == asset).map_or(asset, |(_, to)| *to)
}

fn read_frame<'a>(root: &Json<'a>) -> Result<Vec<Said<'a>>, Fault> {
    let [channel, kind, data] = root.pick(["channel", "type", "data"]);
    let Some(channel) = channel else {
        return read_answer(root).map(|said| vec![said]);
    };
    let data = data.filter(Json::is_array).ok_or(Fault::Wrong("data", "an array"));
    match required_text("channel", Some(&channel))?.as_ref() {
        "ticker" => {
            let snapshot = kind.and_then(|kind| kind.text()).as_deref() == Some("snapshot");
            let mut said = Vec::with_capacity(1);
            for ticker in data?.items() {
                frame::push(&mut said, read_ticker(&ticker, snapshot)?)?;
            }
            if said.is_empty() {
                said.push(Said::ignored("no ticker"));
            }
            Ok(said)
        }
        "heartbeat" => Ok(vec![Said::Heartbeat { answer: None }]),
        "status" => {
            let system = data?.items().next().ok_or(Fault::Missing("data"))?;
            Ok(vec![read_status(&system)?])
        }
        other => Ok(vec![Said::ignored(format!("channel {other}"))]),
    }
}

/// A ticker is whole each time. A dead token has zeros everywhere and the time 1970-01-01.
fn read_ticker<'a>(ticker: &Json<'a>, snapshot: bool) -> Result<Said<'a>, Fault> {
    let [symbol, time] = ticker.pick(["symbol", "timestamp"]);
    let symbol = required_text("symbol", symbol.as_ref())?;
    let Some(symbols) = split_at_separator(&symbol, '/') else {
        return Ok(Said::ignored(format!("symbol {symbol}")));
    };
    let exchange_time_ms = match time {
        Some(time) => {
            let text = required_text("timestamp", Some(&time))?;
            Some(rfc3339_ms(&text).ok_or(Fault::Wrong("timestamp", "RFC 3339"))?).filter(|ms| *ms > 0)
        }
        // Frames before 2025 have none.
        None => None,
    };
    Ok(Said::Quote(VenueQuote { snapshot, exchange_time_ms, ..TICKER.quote(ticker, symbols)? }))
}

/// What the system is doing. In `maintenance` nothing is to be had; `cancel_only` and `post_only` markets still quote.
fn read_status<'a>(system: &Json<'a>) -> Result<Said<'a>, Fault> {
    let [state, connection, maintenance] = system.pick(["system", "connection_id", "upcoming_maintenance"]);
    let state = required_text("system", state.as_ref())?;
    let mut text = state.to_string();
    if let Some(connection) = connection {
        // Above 2^63 in real frames.
        let id = connection.whole().ok_or(Fault::Wrong("connection_id", "a whole number below 2^64"))?;
        text += &format!(", connection {id}");
    }
    if let Some(event) = maintenance.and_then(|events| events.items().next()) {
        let [title, start] = event.pick(["title", "expected_start_utc"]);
        let part =
            |value: Option<Json<'_>>| value.and_then(|value| value.text().map(Cow::into_owned)).unwrap_or_default();
        text += &format!(", maintenance from {}: {}", part(start), part(title));
    }
    Ok(Said::Status { text: text.into(), reconnect: state == "maintenance" })
}

/// The answer to one of our requests: each symbol has its own, and none names a channel at its top.
fn read_answer<'a>(root: &Json<'a>) -> Result<Said<'a>, Fault> {
    let [method, success, symbol, error, result, request] =
        root.pick(["method", "success", "symbol", "error", "result", "req_id"]);
    let request = request.and_then(|request| request.whole());
    let text = |value: Option<Json<'a>>| value.and_then(|value| value.text());
    if success.as_ref().and_then(Json::flag) == Some(false) {
        return Ok(Said::Refused { name: text(symbol), request, reason: required_text("error", error.as_ref())? });
    }
    let method = required_text("method", method.as_ref())?;
    Ok(match method.as_ref() {
        "subscribe" => {
            let symbol = result.as_ref().and_then(|result| result.get("symbol"));
            Said::Subscribed { name: Some(required_text("symbol", symbol.as_ref())?), request }
        }
        "pong" => Said::Heartbeat { answer: None },
        other => Said::Status { text: format!("{other} done").into(), reconnect: false },
    })
}

/// The first of the errors that every REST body lists, if there is one.
fn first_error<'a>(root: &Json<'a>) -> Option<Cow<'a, str>> {
    root.get("error")?.items().find_map(|error| error.text())
}

/// An entry of the pair list, keyed by its canonical name. `wsname` is spelled the way of WebSocket v1.
fn read_pair(canonical: &str, pair: &Json<'_>) -> Option<Instrument> {
    let [name, status] = pair.pick(["wsname", "status"]);
    let name = name?.text()?;
    let (base, quote) = name.split_once('/')?;
    let (base, quote) = (translated(base, RENAMED_IN_V2), translated(quote, RENAMED_IN_V2));
    // Older lists have no status; `cancel_only` and the like take no orders.
    let trading = status.and_then(|status| status.text()).is_none_or(|status| status == "online");
    Some(Instrument {
        name: format!("{base}/{quote}"),
        rest_name: canonical.to_owned(),
        base: Symbol::new(base.as_bytes())?,
        quote: Symbol::new(quote.as_bytes())?,
        trading,
    })
}

/// The body of `Ticker`, always HTTP 200. Its keys are canonical names, which is what was asked for.
fn read_rest_tickers<'a>(root: &Json<'a>, asked: &[&'a Instrument]) -> Result<Vec<Said<'a>>, Fault> {
    if let Some(reason) = first_error(root) {
        // An error names no pair; with one asked for there is no doubt, unless it is about the rate.
        let about_pair = reason.starts_with("EQuery");
        let name = asked.first().filter(|_| about_pair && asked.len() == 1).map(|one| Cow::Borrowed(one.name.as_str()));
        return Ok(vec![Said::Refused { name, request: None, reason }]);
    }
    let pairs = root.get("result").filter(Json::is_object).ok_or(Fault::Missing("result"))?;
    let mut said = Vec::with_capacity(asked.len());
    for instrument in asked {
        let name = Some(Cow::Borrowed(instrument.name.as_str()));
        frame::push(
            &mut said,
            match pairs.get(&instrument.rest_name) {
                Some(ticker) => Said::Quote(read_rest_ticker(&ticker, instrument)?),
                None => Said::Refused { name, request: None, reason: "not in the answer".into() },
            },
        )?;
    }
    Ok(said)
}

/// A pair's REST ticker: the price is the first of each list.
fn read_rest_ticker<'a>(ticker: &Json<'a>, instrument: &Instrument) -> Result<VenueQuote, Fault> {
    let [ask, bid, last] = ticker.pick(["a", "b", "c"]);
    let first = |value: Option<Json<'a>>| value.and_then(|value| value.items().next());
    let quote = VenueQuote {
        snapshot: true,
        last: price_zero_absent("c", first(last).as_ref())?,
        bid: price_zero_absent("b", first(bid).as_ref())?,
        ask: price_zero_absent("a", first(ask).as_ref())?,
        ..unchanged((instrument.base, instrument.quote))
    };
    frame::with_a_price(quote, "c")
}

#[cfg(test)]
mod tests;
