//! Bybit v5 spot: the last price from `tickers.NAME`, bid and ask from `orderbook.1.NAME`.
//!
//! The spot ticker has no bid and no ask; its `usdIndexPrice` is neither of them, nor a last price. One bad topic refuses
//! its whole frame, so every frame carries the two topics of one instrument. Names have no separator.
//!
//! The spot socket says "snapshot" of everything. Linear (derivatives) frames bear the same topics and another market's
//! price: what they alone have (deltas of tickers, mark prices) marks them, and they are ignored. Sequences are not
//! passed on: `u` starts at 1 again when the venue restarts, and a book at rest is told again every 3 s under the old
//! number; times do grow.

mod tickers;

use crate::fields::{Fields, time_ms, unchanged};
use crate::frame::{self, Said, name_after};
use crate::heard::Heard;
use crate::json::{self, Fault, Json, price_zero_absent, required_text};
use crate::pair;
use crate::protocol::{Instrument, KeepAlive, RestRequest, VenueEvent, VenueLimits, VenueProtocol, VenueQuote};
use shared::asset::Symbol;
use shared::quote::Field;
use shared::venue::Venue;
use std::borrow::Cow;

/// The topic of the last price, with its dot.
pub const TICKERS: &str = "tickers.";
/// The topic of best bid and ask, with its dot.
pub const BOOK: &str = "orderbook.1.";
/// Single trades. Not subscribed; understood where they come.
const TRADES: &str = "publicTrade.";

const TICKER_FIELDS: Fields = Fields { last: Some("lastPrice"), bid: None, ask: None, time: None };
const TRADE_FIELDS: Fields = Fields::trade("p", "T");

/// The most topics a frame may have on spot; one more refuses it. Ours have two.
pub const ARGS_MAX: usize = 10;

/// What spot prices are in, longest first. Only what ends in `USDT` is of use; the others are here so that they are not
/// taken for it, and so that their base is told apart.
const QUOTES: [&str; 14] =
    ["RLUSD", "USDT", "USDC", "USDE", "USD1", "BRL", "BTC", "DAI", "ETH", "EUR", "MNT", "PLN", "SOL", "TRY"];

/// What Bybit permits.
const LIMITS: VenueLimits = VenueLimits {
    // One bad topic refuses its frame.
    names_per_frame: 1,
    // The topics of a connection may have 21,000 characters: 20 + 2 × 20 for the longest name makes 350 names.
    names_per_connection: 300,
    // No bound is known; 18 frames at once were taken. 50 a second makes 144 instruments in 3 s.
    frame_gap_ms: 20,
    first_frame_wait_ms: 0,
    // 500 connections in 5 minutes for each address.
    connect_gap_ms: 1_000,
    // 600 requests in 5 s for each address, and a ban of 10 minutes beyond; a twelfth of that.
    rest_gap_ms: 100,
    // One instrument is asked for by name, several by reading the list of all (about 700 rows of 300 bytes).
    names_per_rest_request: 300,
    operations_per_hour: None,
};

/// The venue asks for a ping every 20 s.
const PING_EVERY_MS: u64 = 20_000;

/// One connection to Bybit.
#[derive(Clone, Debug, Default)]
pub struct Bybit {
    heard: Heard,
}

impl Bybit {
    /// A connection that has heard nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<Vec<Said<'a>>, Fault> {
        let frame = frame::object(bytes)?;
        let [topic, op] = frame.pick(["topic", "op"]);
        if let Some(topic) = topic {
            let topic = topic.text().ok_or(Fault::Wrong("topic", "a string"))?;
            return self.data(&frame, topic).map(|said| vec![said]);
        }
        let said = match op.as_ref().and_then(Json::text).as_deref() {
            Some("ping" | "pong") => Said::Heartbeat { answer: None },
            Some("unsubscribe") => Said::ignored("end of a subscription"),
            Some("subscribe") => answer(&frame)?,
            // What it cannot read it refuses without saying what.
            _ if frame.get("success").and_then(|success| success.flag()) == Some(false) => answer(&frame)?,
            _ => Said::ignored("frame without a topic"),
        };
        Ok(vec![said])
    }

    fn data<'a>(&mut self, frame: &Json<'a>, topic: Cow<'a, str>) -> Result<Said<'a>, Fault> {
        let Some((read, name)) = reader(&topic) else { return Ok(Said::ignored(topic)) };
        let [kind, data, ts] = frame.pick(["type", "data", "ts"]);
        let kind = required_text("type", kind.as_ref())?;
        let data = data.ok_or(Fault::Missing("data"))?;
        if topic.starts_with(TICKERS) && (kind == "delta" || is_derivative(&data)) {
            return Ok(Said::ignored("ticker of a derivative"));
        }
        let Some(symbols) = pair::split_at_suffix(name, &QUOTES) else { return Ok(Said::ignored(topic)) };
        let mut quote = read(&data, &kind, symbols)?;
        quote.exchange_time_ms = quote.exchange_time_ms.or(time_ms("ts", ts.as_ref())?);
        quote.snapshot = self.heard.is_first(&topic);
        Ok(Said::Quote(quote))
    }
}

/// Reads the data of a topic, given the frame's type and the instrument's symbols.
type Reader = fn(&Json<'_>, &str, (Symbol, Symbol)) -> Result<VenueQuote, Fault>;

/// What reads a topic, and the instrument in it; `None` for a topic that is not for us (`orderbook.200.BTCUSDT`).
fn reader(topic: &str) -> Option<(Reader, &str)> {
    let readers: [(&str, Reader); 3] = [(TICKERS, ticker), (BOOK, book), (TRADES, trades)];
    readers.into_iter().find_map(|(prefix, read)| topic.strip_prefix(prefix).map(|name| (read, name)))
}

/// Fields that only derivatives have.
fn is_derivative(data: &Json<'_>) -> bool {
    data.pick(["markPrice", "openInterest", "fundingRate"]).iter().any(Option::is_some)
}

fn ticker(data: &Json<'_>, _kind: &str, symbols: (Symbol, Symbol)) -> Result<VenueQuote, Fault> {
    TICKER_FIELDS.quote(data, symbols)
}

/// The book of one level: by the present documents always a snapshot; recordings of 2023 have deltas in which a side
/// that did not change is empty.
fn book(data: &Json<'_>, kind: &str, symbols: (Symbol, Symbol)) -> Result<VenueQuote, Fault> {
    let whole = kind == "snapshot";
    let [bids, asks] = data.pick(["b", "a"]);
    let bid = side("b", bids.as_ref(), whole)?;
    let ask = side("a", asks.as_ref(), whole)?;
    Ok(VenueQuote { bid, ask, ..unchanged(symbols) })
}

/// The best price of one side: of its levels the first that has a size. A level of size 0 is one that is gone.
fn side(name: &'static str, levels: Option<&Json<'_>>, whole: bool) -> Result<Field, Fault> {
    let malformed = Fault::Wrong(name, "an array of [price, size]");
    let levels = match levels {
        Some(levels) if levels.is_array() => levels,
        None if !whole => return Ok(Field::Unchanged),
        None => return Err(Fault::Missing(name)),
        Some(_) => return Err(malformed),
    };
    let mut best = if whole { Field::Empty } else { Field::Unchanged };
    for level in levels.items() {
        let mut parts = level.items();
        let (Some(price), Some(size)) = (parts.next(), parts.next()) else { return Err(malformed) };
        let price = price_zero_absent(name, Some(&price))?;
        if price_zero_absent(name, Some(&size))?.price().is_some() {
            return Ok(price);
        }
        best = Field::Empty;
    }
    Ok(best)
}

/// Several trades in one frame stand in their order; of those with the same time the last is the newest.
fn trades(data: &Json<'_>, _kind: &str, symbols: (Symbol, Symbol)) -> Result<VenueQuote, Fault> {
    let newest = data.items().max_by_key(|trade| trade.get("T").and_then(|time| time.whole()));
    TRADE_FIELDS.quote(&newest.ok_or(Fault::Wrong("data", "an array of trades"))?, symbols)
}

/// The answer to a subscription. A refusal names a topic in its prose: `Invalid symbol :[tickers.XUSDT]`,
/// `error:handler not found,topic:orderbook.1.XUSDT`.
fn answer<'a>(frame: &Json<'a>) -> Result<Said<'a>, Fault> {
    let [success, reason, request] = frame.pick(["success", "ret_msg", "req_id"]);
    let Some(success) = success else {
        // A recording may hold what the client said.
        return Ok(Said::ignored("a request"));
    };
    let success = success.flag().ok_or(Fault::Wrong("success", "true or false"))?;
    let request = request.and_then(|request| request.whole());
    let reason = reason.and_then(|reason| reason.text()).unwrap_or_default();
    let name = [TICKERS, BOOK, TRADES].iter().find_map(|topic| name_after(&reason, topic));
    // Asking twice for one topic is answered with an error, while the first subscription stands.
    if success || reason.contains("already subscribed") {
        return Ok(Said::Subscribed { name, request });
    }
    Ok(Said::Refused { name, request, reason })
}

/// One frame for each name.
fn frames(op: &str, names: &[&str], request: u64) -> Vec<String> {
    let numbered = names.iter().zip(request..);
    numbered
        .map(|(name, id)| {
            let topics = json::quoted_list([TICKERS, BOOK].map(|topic| format!("{topic}{name}")));
            format!(r#"{{"req_id":"{id}","op":"{op}","args":{topics}}}"#)
        })
        .collect()
}

impl VenueProtocol for Bybit {
    fn venue(&self) -> Venue {
        Venue::Bybit
    }

    fn ws_url(&self) -> &'static str {
        "wss://stream.bybit.com/v5/public/spot"
    }

    fn rest_url(&self) -> &'static str {
        "https://api.bybit.com"
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

    fn ping(&self, request: u64) -> Option<String> {
        Some(format!(r#"{{"req_id":"{request}","op":"ping"}}"#))
    }

    fn decode(&mut self, frame: &[u8], sink: &mut dyn FnMut(VenueEvent<'_>)) {
        frame::tell(self.read(frame), sink);
    }

    fn reset(&mut self) {
        self.heard.clear();
    }

    fn spell(&self, base: &Symbol, quote: &Symbol) -> String {
        format!("{base}{quote}")
    }

    fn instruments(&self) -> Vec<RestRequest> {
        vec![RestRequest { path: "/v5/market/instruments-info?category=spot".to_owned() }]
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
