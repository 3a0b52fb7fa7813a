//! A simulated Gemini: its present WebSocket interface, and the REST interface. `v2` is the archived WebSocket one.

pub mod v2;

use super::subscriptions::{Subscriptions, offered};
use super::{MarketQuote, RestSimulator, VenueSimulator, find_market};
use crate::json::{self, Json, quoted, quoted_list};
use crate::protocol::Instrument;
use shared::price::Price;
use shared::venue::Venue;
use std::collections::BTreeMap;

/// One client connection to a simulated Gemini.
#[derive(Debug, Default)]
pub struct GeminiSimulator {
    books: Subscriptions,
    trades: Subscriptions,
    /// The last trade told of, for each instrument.
    told: BTreeMap<String, Price>,
}

/// A stream that a client asked for.
enum Stream<'a> {
    Book(&'a str),
    Trade(&'a str),
    /// One that is there but that nobody here needs.
    Other,
}

impl GeminiSimulator {
    /// The streams of `names`, or the first that does not exist.
    fn streams<'a>(names: &'a [String], listed: &[Instrument], refused: &[String]) -> Result<Vec<Stream<'a>>, &'a str> {
        names
            .iter()
            .map(|stream| {
                let (name, kind) = stream.split_once('@').ok_or(stream.as_str())?;
                offered(listed, refused, name).ok_or(stream.as_str())?;
                match kind {
                    "bookTicker" => Ok(Stream::Book(name)),
                    "trade" => Ok(Stream::Trade(name)),
                    kind if kind.starts_with("depth") => Ok(Stream::Other),
                    _ => Err(stream.as_str()),
                }
            })
            .collect()
    }
}

fn refusal(id: &str, code: i32, message: &str) -> Vec<String> {
    vec![format!(r#"{{"id":{id},"status":400,"error":{{"code":{code},"msg":{}}}}}"#, quoted(message))]
}

impl VenueSimulator for GeminiSimulator {
    fn venue(&self) -> Venue {
        Venue::Gemini
    }

    fn greeting(&mut self, _now_ms: u64) -> Vec<String> {
        Vec::new()
    }

    fn receive(&mut self, text: &str, listed: &[Instrument], refused: &[String], _now_ms: u64) -> Vec<String> {
        let Ok(root) = json::parse(text.as_bytes()) else {
            return refusal("null", -1020, "Unsupported operation");
        };
        let [id, method, params] = root.pick(["id", "method", "params"]);
        // The id goes back as it came: a number or a string.
        let id = id.map_or_else(|| "null".into(), |id| id.raw());
        let method = method.and_then(|method| method.text()).unwrap_or_default().to_ascii_lowercase();
        // An upper-case name is answered in lower case.
        let name = |name: Json<'_>| Some(lower_name(&name.text()?));
        let names: Vec<String> = params.iter().flat_map(Json::items).filter_map(name).collect();
        let streams = match method.as_str() {
            "ping" => Ok(Vec::new()),
            "subscribe" | "unsubscribe" => Self::streams(&names, listed, refused),
            _ => return refusal(&id, -1020, "Unsupported operation"),
        };
        // One bad name refuses the whole frame.
        let streams = match streams {
            Ok(streams) => streams,
            Err(name) => return refusal(&id, -1013, &format!("Invalid stream name: {name}")),
        };
        for stream in streams {
            let (subscriptions, name) = match stream {
                Stream::Book(name) => (&mut self.books, name),
                Stream::Trade(name) => (&mut self.trades, name),
                Stream::Other => continue,
            };
            let done = if method == "subscribe" { subscriptions.add(name) } else { subscriptions.remove(name) };
            if !done && method == "subscribe" {
                return refusal(&id, -1003, "Too many requests");
            }
        }
        vec![format!(r#"{{"id":{id},"status":200}}"#)]
    }

    fn quote(&mut self, instrument: &Instrument, market: &MarketQuote, now_ms: u64) -> Vec<String> {
        let (name, time_ns) = (&instrument.name, now_ms * 1_000_000);
        let MarketQuote { last, bid, ask, sequence } = market;
        let mut frames = Vec::new();
        if self.books.next_is_snapshot(name).is_some() {
            frames.push(format!(
                r#"{{"u":{sequence},"E":{time_ns},"s":"{name}","b":"{bid}","B":"958.69148000","a":"{ask}","A":"38.39060000","c":"{last}","C":"4.71027100"}}"#
            ));
        }
        if self.trades.next_is_snapshot(name).is_some() && self.told.get(name) != Some(last) {
            self.told.insert(name.clone(), *last);
            frames.push(format!(
                r#"{{"E":{time_ns},"s":"{name}","t":{sequence},"p":"{last}","q":"0.0162522200","m":true}}"#
            ));
        }
        frames
    }

    fn heartbeat(&mut self, _now_ms: u64) -> Vec<String> {
        Vec::new()
    }

    /// The server's sign of life is a WebSocket ping, which is the socket's business.
    fn heartbeat_every_ms(&self) -> u64 {
        0
    }

    fn subscriptions(&self) -> usize {
        self.books.len()
    }
}

/// A stream's name with its instrument in lower case.
fn lower_name(stream: &str) -> String {
    match stream.split_once('@') {
        Some((name, kind)) => format!("{}@{kind}", name.to_ascii_lowercase()),
        None => stream.to_owned(),
    }
}

/// The REST interface of a simulated Gemini.
#[derive(Debug, Default)]
pub struct GeminiRest;

impl RestSimulator for GeminiRest {
    fn venue(&self) -> Venue {
        Venue::Gemini
    }

    fn get(&self, path_and_query: &str, listed: &[Instrument], markets: &[MarketQuote], now_ms: u64) -> (u16, String) {
        let path = path_and_query.split('?').next().unwrap_or_default();
        if path == "/v1/symbols" {
            let open = listed.iter().filter(|instrument| instrument.trading);
            return (200, quoted_list(open.map(|instrument| &instrument.rest_name)));
        }
        // Some endpoints that do not exist answer with nothing at all.
        let Some(name) = path.strip_prefix("/v1/pubticker/") else {
            return (404, String::new());
        };
        match find_market(listed, markets, &name.to_ascii_lowercase()) {
            Some((instrument, market)) if instrument.trading => (200, pubticker(instrument, market, now_ms)),
            _ => {
                let message = quoted(&format!("Supplied value '{name}' is not a valid symbol"));
                (400, format!(r#"{{"result":"error","reason":"Bad Request","message":{message}}}"#))
            }
        }
    }
}

fn pubticker(instrument: &Instrument, market: &MarketQuote, now_ms: u64) -> String {
    let (Instrument { base, quote, .. }, MarketQuote { last, bid, ask, .. }) = (instrument, market);
    format!(
        r#"{{"bid":"{bid}","ask":"{ask}","volume":{{"{base}":"915.6534281291","{quote}":"10394749.066094351423","timestamp":{now_ms}}},"last":"{last}"}}"#
    )
}
