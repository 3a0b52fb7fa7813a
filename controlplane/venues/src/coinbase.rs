//! Coinbase Advanced Trade: the `ticker` and `heartbeats` channels, and the REST market ticker.
//!
//! Last, bid and ask all come from `ticker`; trades, candles and books are other channels and ignored. The envelope
//! carries the only time and a sequence number over everything the connection says, so a lost message shows at once.

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

/// Fields in which a REST refusal says why.
const REFUSAL_FIELDS: &[&str] = &["message", "error_details", "error"];

/// Where a ticker has its prices.
const TICKER: Fields = Fields { last: Some("price"), bid: Some("best_bid"), ask: Some("best_ask"), time: None };

/// One connection to Coinbase.
#[derive(Debug, Default)]
pub struct Coinbase {
    /// The sequence number that comes next; unknown until the first frame.
    sequence_next: Option<u64>,
}

/// What the sequence number of a frame says about the frames before it.
enum Order {
    /// It is the next one.
    Next,
    /// Frames are missing before it.
    After(VenueEvent<'static>),
    /// It was here before, or an older one: nothing in it is news.
    Before(VenueEvent<'static>),
}

impl Coinbase {
    fn order(&mut self, sequence: u64) -> Order {
        let expected = self.sequence_next.unwrap_or(sequence);
        if sequence < expected {
            return Order::Before(VenueEvent::Gap { expected, got: sequence });
        }
        self.sequence_next = sequence.checked_add(1);
        if sequence == expected { Order::Next } else { Order::After(VenueEvent::Gap { expected, got: sequence }) }
    }
}

impl VenueProtocol for Coinbase {
    fn venue(&self) -> Venue {
        Venue::Coinbase
    }

    fn ws_url(&self) -> &'static str {
        "wss://advanced-trade-ws.coinbase.com"
    }

    fn rest_url(&self) -> &'static str {
        "https://api.coinbase.com"
    }

    /// Eight messages a second for each address. How many products a frame or a connection takes is not published; an
    /// error frame names no product, so frames are small enough to try again one by one.
    fn limits(&self) -> VenueLimits {
        VenueLimits {
            names_per_frame: 20,
            names_per_connection: 400,
            frame_gap_ms: 150,
            first_frame_wait_ms: 0,
            connect_gap_ms: 1_000,
            rest_gap_ms: 125,
            names_per_rest_request: 1,
            operations_per_hour: None,
        }
    }

    /// `heartbeats` come about once a second.
    fn keep_alive(&self) -> KeepAlive {
        KeepAlive::Server { silence_ms_max: 5_000 }
    }

    fn subscribe(&self, names: &[&str], _request: u64) -> Vec<String> {
        vec![request("subscribe", names)]
    }

    fn unsubscribe(&self, names: &[&str], _request: u64) -> Vec<String> {
        vec![request("unsubscribe", names)]
    }

    fn greeting(&self) -> Vec<String> {
        vec![r#"{"type":"subscribe","channel":"heartbeats"}"#.to_owned()]
    }

    fn decode(&mut self, frame: &[u8], sink: &mut dyn FnMut(VenueEvent<'_>)) {
        let root = match frame::object(frame) {
            Ok(root) => root,
            Err(fault) => return tell(Err(fault), sink),
        };
        let [channel, kind, events, sequence, time, message] =
            root.pick(["channel", "type", "events", "sequence_num", "timestamp", "message"]);
        let read = read_frame(channel.as_ref(), kind.as_ref(), events.as_ref(), time.as_ref(), message.as_ref());
        match sequence.and_then(|sequence| sequence.whole()).map(|sequence| self.order(sequence)) {
            Some(Order::Before(gap)) => return sink(gap),
            Some(Order::After(gap)) => sink(gap),
            Some(Order::Next) | None => {}
        }
        tell(read, sink);
    }

    fn reset(&mut self) {
        self.sequence_next = None;
    }

    fn spell(&self, base: &Symbol, quote: &Symbol) -> String {
        format!("{base}-{quote}")
    }

    fn instruments(&self) -> Vec<RestRequest> {
        vec![RestRequest { path: "/api/v3/brokerage/market/products?product_type=SPOT".to_owned() }]
    }

    fn decode_instruments(&self, status: u16, body: &[u8]) -> Result<Vec<Instrument>, String> {
        let root = rest::list_body(status, body, REFUSAL_FIELDS)?;
        let products = root.get("products").filter(Json::is_array).ok_or("products are missing")?;
        rest::instruments(products.items(), read_product)
    }

    fn tickers(&self, instruments: &[&Instrument]) -> RestRequest {
        let name = instruments.first().map_or("", |instrument| instrument.rest_name.as_str());
        RestRequest { path: format!("/api/v3/brokerage/market/products/{name}/ticker?limit=1") }
    }

    fn decode_tickers(&self, status: u16, body: &[u8], asked: &[&Instrument], sink: &mut dyn FnMut(VenueEvent<'_>)) {
        let Some(instrument) = asked.first() else {
            return;
        };
        if status != 200 {
            // A refusal of the rate speaks of no instrument.
            let of_instrument = status != 429 && status < 500;
            return rest::tell_refusal(asked, of_instrument, &rest::refusal(status, body, REFUSAL_FIELDS), sink);
        }
        let read = json::parse_body(body).and_then(|root| read_rest_ticker(&root, instrument));
        tell(read.map(|quote| vec![Said::Quote(quote)]), sink);
    }
}

fn request(kind: &str, names: &[&str]) -> String {
    format!(r#"{{"type":"{kind}","product_ids":{},"channel":"ticker"}}"#, quoted_list(names))
}

/// Reads a frame whose sequence number is looked at elsewhere.
fn read_frame<'a>(
    channel: Option<&Json<'a>>,
    kind: Option<&Json<'a>>,
    events: Option<&Json<'a>>,
    time: Option<&Json<'a>>,
    message: Option<&Json<'a>>,
) -> Result<Vec<Said<'a>>, Fault> {
    if kind.and_then(Json::text).as_deref() == Some("error") {
        let reason = required_text("message", message)?;
        return Ok(vec![Said::Refused { name: product_in(&reason), request: None, reason }]);
    }
    let channel = required_text("channel", channel)?;
    let events = events.filter(|events| events.is_array()).ok_or(Fault::Wrong("events", "an array"));
    match channel.as_ref() {
        "ticker" | "ticker_batch" => read_tickers(events?, time),
        "subscriptions" => read_subscriptions(events?),
        "heartbeats" => Ok(vec![Said::Heartbeat { answer: None }]),
        _ => Ok(vec![Said::ignored(format!("channel {channel}"))]),
    }
}

/// A product's name in an error's prose. How the venue words the refusal of one is not known: whatever it says, a word
/// in capitals that is spelled like a product is one.
fn product_in<'a>(prose: &Cow<'a, str>) -> Option<Cow<'a, str>> {
    let not_in_a_name = |letter: char| !(letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '-');
    let mut words = prose.split(not_in_a_name).filter(|word| split_at_separator(word, '-').is_some());
    words.next().map(|word| Cow::Owned(word.to_owned()))
}

/// The envelope's time is the only one; without it nothing could be said about the prices' age.
fn read_tickers<'a>(events: &Json<'a>, time: Option<&Json<'a>>) -> Result<Vec<Said<'a>>, Fault> {
    let time = required_text("timestamp", time)?;
    let exchange_time_ms = rfc3339_ms(&time).ok_or(Fault::Wrong("timestamp", "RFC 3339"))?;
    let mut said = Vec::with_capacity(1);
    for event in events.items() {
        let [kind, tickers] = event.pick(["type", "tickers"]);
        let snapshot = kind.and_then(|kind| kind.text()).as_deref() == Some("snapshot");
        let tickers = tickers.filter(Json::is_array).ok_or(Fault::Wrong("tickers", "an array"))?;
        for ticker in tickers.items() {
            frame::push(&mut said, read_ticker(&ticker, snapshot, exchange_time_ms)?)?;
        }
    }
    if said.is_empty() {
        said.push(Said::ignored("no ticker"));
    }
    Ok(said)
}

fn read_ticker<'a>(ticker: &Json<'a>, snapshot: bool, exchange_time_ms: u64) -> Result<Said<'a>, Fault> {
    let product = required_text("product_id", ticker.get("product_id").as_ref())?;
    let Some(symbols) = split_at_separator(&product, '-') else {
        return Ok(Said::ignored(format!("product {product}")));
    };
    // The envelope's number counts the connection's messages, not this product's: no sequence.
    let quote = TICKER.quote(ticker, symbols)?;
    Ok(Said::Quote(VenueQuote { snapshot, exchange_time_ms: Some(exchange_time_ms), ..quote }))
}

/// An acknowledgement restates everything the connection is subscribed to. A channel that carries no prices of ours
/// acknowledges under its own name, which is no product's.
fn read_subscriptions<'a>(events: &Json<'a>) -> Result<Vec<Said<'a>>, Fault> {
    let mut said = Vec::new();
    for event in events.items() {
        let subscriptions = event.get("subscriptions").ok_or(Fault::Missing("subscriptions"))?;
        for (channel, products) in subscriptions.fields() {
            if channel != "ticker" {
                frame::push(&mut said, Said::Subscribed { name: Some(channel), request: None })?;
                continue;
            }
            for product in products.items() {
                let name = Some(required_text("product", Some(&product))?);
                frame::push(&mut said, Said::Subscribed { name, request: None })?;
            }
        }
    }
    if said.is_empty() {
        said.push(Said::Status { text: "no subscriptions".into(), reconnect: false });
    }
    Ok(said)
}

/// An entry of the product list. Delisted products stay in it with their last price.
fn read_product(product: &Json<'_>) -> Option<Instrument> {
    let [name, base, quote, status] = product.pick(["product_id", "base_currency_id", "quote_currency_id", "status"]);
    let off = product.pick(["trading_disabled", "is_disabled", "cancel_only", "view_only"]);
    let symbol = |text: Option<Json<'_>>| Symbol::new(text?.text()?.as_bytes());
    let name = name?.text()?.into_owned();
    // Futures and perpetuals are not spelled base-quote.
    split_at_separator(&name, '-')?;
    let online = status.and_then(|status| status.text()).as_deref() == Some("online");
    let trading = online && !off.iter().flatten().any(|flag| flag.flag() == Some(true));
    Some(Instrument { rest_name: name.clone(), name, base: symbol(base)?, quote: symbol(quote)?, trading })
}

/// The body of `/ticker`: the newest trade first, and the book's top beside it. The body names no product of its own.
fn read_rest_ticker(root: &Json<'_>, instrument: &Instrument) -> Result<VenueQuote, Fault> {
    let [trades, bid, ask] = root.pick(["trades", "best_bid", "best_ask"]);
    let newest = trades.ok_or(Fault::Missing("trades"))?.items().next();
    let [last, time] = newest.map_or([None, None], |trade| trade.pick(["price", "time"]));
    Ok(VenueQuote {
        snapshot: true,
        last: price_zero_absent("price", last.as_ref())?,
        bid: price_zero_absent("best_bid", bid.as_ref())?,
        ask: price_zero_absent("best_ask", ask.as_ref())?,
        exchange_time_ms: time.and_then(|time| rfc3339_ms(&time.text()?)),
        ..unchanged((instrument.base, instrument.quote))
    })
}

#[cfg(test)]
mod tests;
