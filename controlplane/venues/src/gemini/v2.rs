//! Gemini's archived WebSocket interface, `/v2/marketdata`: whole books and their changes, and trades.
//!
//! There is no acknowledgement: the first frame of a symbol is its book. Book frames carry no time, and a last price
//! exists only in trades.

use super::book::{Book, Side};
use crate::fields::unchanged;
use crate::frame::{self, Said, tell};
use crate::json::{Fault, Json, price, price_zero_absent, quoted_list, required_text};
use crate::protocol::{Instrument, KeepAlive, RestRequest, VenueEvent, VenueLimits, VenueProtocol, VenueQuote};
use shared::asset::Symbol;
use shared::price::Price;
use shared::quote::Field;
use shared::venue::Venue;
use std::collections::HashMap;

/// Books on one connection: 60 × 370 KiB (see `LEVELS_MAX`) = 22 MiB if every one were full.
const BOOKS_MAX: usize = 60;

/// The books of one connection, by symbol.
pub(super) type Books = HashMap<Box<str>, Book>;

/// One connection to Gemini's archived interface.
#[derive(Debug, Default)]
pub struct GeminiV2 {
    books: Books,
}

impl VenueProtocol for GeminiV2 {
    fn venue(&self) -> Venue {
        Venue::Gemini
    }

    fn ws_url(&self) -> &'static str {
        "wss://api.gemini.com/v2/marketdata"
    }

    fn rest_url(&self) -> &'static str {
        super::REST_URL
    }

    /// A refusal names no symbol, so each symbol has a frame of its own. No limits are published.
    fn limits(&self) -> VenueLimits {
        VenueLimits {
            names_per_frame: 1,
            names_per_connection: BOOKS_MAX,
            frame_gap_ms: 100,
            first_frame_wait_ms: 0,
            connect_gap_ms: 1_000,
            rest_gap_ms: super::REST_GAP_MS,
            names_per_rest_request: 1,
            operations_per_hour: None,
        }
    }

    /// A heartbeat comes every 5 s.
    fn keep_alive(&self) -> KeepAlive {
        KeepAlive::Server { silence_ms_max: 9_000 }
    }

    fn subscribe(&self, names: &[&str], _request: u64) -> Vec<String> {
        vec![request("subscribe", names)]
    }

    fn unsubscribe(&self, names: &[&str], _request: u64) -> Vec<String> {
        vec![request("unsubscribe", names)]
    }

    fn decode(&mut self, frame: &[u8], sink: &mut dyn FnMut(VenueEvent<'_>)) {
        let read = frame::object(frame).and_then(|root| read_frame(&root, &mut self.books));
        tell(read.map(|said| vec![said]), sink);
    }

    fn reset(&mut self) {
        self.books.clear();
    }

    fn spell(&self, base: &Symbol, quote: &Symbol) -> String {
        format!("{base}{quote}")
    }

    fn instruments(&self) -> Vec<RestRequest> {
        super::instruments()
    }

    fn decode_instruments(&self, status: u16, body: &[u8]) -> Result<Vec<Instrument>, String> {
        super::decode_instruments(status, body, str::to_ascii_uppercase)
    }

    fn tickers(&self, instruments: &[&Instrument]) -> RestRequest {
        super::tickers(instruments)
    }

    fn decode_tickers(&self, status: u16, body: &[u8], asked: &[&Instrument], sink: &mut dyn FnMut(VenueEvent<'_>)) {
        super::decode_tickers(status, body, asked, sink);
    }
}

fn request(kind: &str, names: &[&str]) -> String {
    let symbols = quoted_list(names.iter().map(|name| name.to_ascii_uppercase()));
    format!(r#"{{"type":"{kind}","subscriptions":[{{"name":"l2","symbols":{symbols}}}]}}"#)
}

/// Reads a frame of this interface; what it says of books changes `books`.
pub(super) fn read_frame<'a>(root: &Json<'a>, books: &mut Books) -> Result<Said<'a>, Fault> {
    let [kind, symbol, result, reason] = root.pick(["type", "symbol", "result", "reason"]);
    if result.and_then(|result| result.text()).as_deref() == Some("error") {
        return Ok(Said::refused(required_text("reason", reason.as_ref())?));
    }
    let kind = required_text("type", kind.as_ref())?;
    if kind == "heartbeat" {
        return Ok(Said::Heartbeat { answer: None });
    }
    if kind != "l2_updates" && kind != "trade" {
        return Ok(Said::ignored(format!("type {kind}")));
    }
    let symbol = required_text("symbol", symbol.as_ref())?;
    let Some(symbols) = super::split(&symbol) else {
        return Ok(Said::ignored(format!("symbol {symbol}")));
    };
    let quote = unchanged(symbols);
    if kind == "trade" { read_trade(root, quote) } else { read_book(root, &symbol, quote, books) }
}

fn read_trade<'a>(root: &Json<'a>, quote: VenueQuote) -> Result<Said<'a>, Fault> {
    let [last, time] = root.pick(["price", "timestamp"]);
    let last = match price_zero_absent("price", last.as_ref())? {
        Field::At(last) => Field::At(last),
        Field::Empty | Field::Unchanged => return Err(Fault::Missing("price")),
    };
    Ok(Said::Quote(VenueQuote { last, exchange_time_ms: time.and_then(|time| time.whole()), ..quote }))
}

/// A book, if `trades` are beside its levels, or changes of one. The frame is read whole before the book is touched.
fn read_book<'a>(root: &Json<'a>, symbol: &str, quote: VenueQuote, books: &mut Books) -> Result<Said<'a>, Fault> {
    let [changes, trades] = root.pick(["changes", "trades"]);
    let changes = changes.filter(Json::is_array).ok_or(Fault::Wrong("changes", "an array"))?;
    for change in changes.items() {
        read_change(&change)?;
    }
    let snapshot = trades.is_some();
    // Trades stand oldest first.
    let newest = trades.and_then(|trades| trades.items().last());
    let last = price_zero_absent("price", newest.and_then(|trade| trade.get("price")).as_ref())?;
    if snapshot && (books.contains_key(symbol) || books.len() < BOOKS_MAX) {
        books.insert(symbol.into(), Book::default());
    }
    let Some(book) = books.get_mut(symbol) else {
        return Ok(Said::ignored(format!("no book of {symbol}")));
    };
    for (side, price, orders) in changes.items().filter_map(|change| read_change(&change).ok()) {
        book.set(side, price, orders);
    }
    let top = |price: Option<Price>| price.map_or(Field::Empty, Field::At);
    Ok(Said::Quote(VenueQuote { snapshot, last, bid: top(book.bid()), ask: top(book.ask()), ..quote }))
}

/// One change: the side, the price, and whether orders remain there.
fn read_change(change: &Json<'_>) -> Result<(Side, Price, bool), Fault> {
    let mut parts = change.items();
    let (side, level, quantity) = (parts.next(), parts.next(), parts.next());
    let side = match required_text("side", side.as_ref())?.as_ref() {
        "buy" => Side::Bid,
        "sell" => Side::Ask,
        _ => return Err(Fault::Wrong("side", "buy or sell")),
    };
    let level = price("price", level.as_ref())?.price().filter(|level| level.is_positive());
    let level = level.ok_or(Fault::Wrong("price", "above zero"))?;
    let quantity = price("quantity", quantity.as_ref())?.price().ok_or(Fault::Missing("quantity"))?;
    Ok((side, level, quantity.is_positive()))
}
