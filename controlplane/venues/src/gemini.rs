//! Gemini: two WebSocket interfaces, one REST interface, and the spelling all three share.
//!
//! `current` is the present interface (`bookTicker` and `trade` streams). `v2` is the archived market data socket, kept
//! as a setting: it sends whole books, so it needs `book`. Names have no separator and quote currencies end alike
//! (`btcusd`, `btcgusd`), so a name is always matched whole.

pub mod book;
pub mod current;
pub mod v2;

use crate::fields::Fields;
use crate::frame::{Said, tell};
use crate::json::{self, Fault, Json};
use crate::pair::split_at_suffix;
use crate::protocol::{Instrument, RestRequest, VenueEvent, VenueQuote};
use crate::rest;
use shared::asset::Symbol;

/// Which of Gemini's WebSocket interfaces to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GeminiApi {
    /// `wss://ws.gemini.com`.
    #[default]
    Current,
    /// `wss://api.gemini.com/v2/marketdata`: archived by the venue, but seen alive in 2026. Whole books for a ticker.
    V2,
}

/// Base address of the REST interface.
const REST_URL: &str = "https://api.gemini.com";

/// Least time between REST requests, ms: 120 a minute are permitted, 1 a second is recommended.
const REST_GAP_MS: u64 = 1_000;

/// Fields in which a REST refusal says why.
const REFUSAL_FIELDS: &[&str] = &["message", "reason"];

/// Where a REST ticker has its prices.
const PUBTICKER: Fields = Fields { last: Some("last"), bid: Some("bid"), ask: Some("ask"), time: None };

/// Quote currencies, the longest first.
const QUOTES: &[&str] = &["RLUSD", "GUSD", "USDC", "USDT", "USD", "EUR", "GBP", "SGD", "BTC", "ETH", "SOL", "FIL"];

/// Assets whose name ends like the beginning of a quote currency: `paxgusd` is PAXG in USD, not PAX in GUSD. One that
/// is missing here is read as priced in GUSD, which is never taken for USD: a source less, not a wrong price.
const BASES_IN_G: &[&str] = &["PAXG", "USDG"];

/// Base and quote of a spot pair's name, upper or lower case; `None` for perpetuals and unknown quote currencies.
fn split(name: &str) -> Option<(Symbol, Symbol)> {
    let known = BASES_IN_G.iter().find_map(|base| {
        let (head, quote) = name.split_at_checked(base.len())?;
        let is_quote = QUOTES.iter().any(|known| known.eq_ignore_ascii_case(quote));
        (head.eq_ignore_ascii_case(base) && is_quote).then_some((base, quote))
    });
    match known {
        Some((base, quote)) => Some((Symbol::new(base.as_bytes())?, Symbol::new(quote.as_bytes())?)),
        None => split_at_suffix(name, QUOTES),
    }
}

/// The one request that lists every instrument; details would take one request each.
fn instruments() -> Vec<RestRequest> {
    vec![RestRequest { path: "/v1/symbols".to_owned() }]
}

/// Reads `/v1/symbols`: lower-case names alone, of what is open. `spell` gives the WebSocket name.
fn decode_instruments(status: u16, body: &[u8], spell: fn(&str) -> String) -> Result<Vec<Instrument>, String> {
    let root = rest::list_body(status, body, REFUSAL_FIELDS)?;
    if !root.is_array() {
        return Err("the symbol list is not an array".to_owned());
    }
    let instrument = |name: &Json<'_>| {
        let rest_name = name.text()?.to_ascii_lowercase();
        let (base, quote) = split(&rest_name)?;
        Some(Instrument { name: spell(&rest_name), rest_name, base, quote, trading: true })
    };
    rest::instruments(root.items(), instrument)
}

/// A request for one instrument's prices: the older ticker, because the newer one carries no time.
fn tickers(instruments: &[&Instrument]) -> RestRequest {
    let name = instruments.first().map_or("", |instrument| instrument.rest_name.as_str());
    RestRequest { path: format!("/v1/pubticker/{name}") }
}

/// Reads the answer to [`tickers`].
fn decode_tickers(status: u16, body: &[u8], asked: &[&Instrument], sink: &mut dyn FnMut(VenueEvent<'_>)) {
    let Some(instrument) = asked.first() else {
        return;
    };
    if status != 200 {
        // A refusal of the rate speaks of no instrument.
        let name = (status != 429 && status < 500).then_some(instrument.name.as_str());
        let reason = rest::refusal(status, body, REFUSAL_FIELDS);
        return sink(VenueEvent::Refused { name, request: None, reason: &reason });
    }
    let read = json::parse_body(body).and_then(|root| read_pubticker(&root, instrument));
    tell(read.map(|quote| vec![Said::Quote(quote)]), sink);
}

/// The body of `/v1/pubticker`. Its time stands inside `volume`, whose other keys change with the pair.
fn read_pubticker(root: &Json<'_>, instrument: &Instrument) -> Result<VenueQuote, Fault> {
    let quote = PUBTICKER.quote(root, (instrument.base, instrument.quote))?;
    let exchange_time_ms = root.get("volume").and_then(|volume| volume.get("timestamp")?.whole());
    Ok(VenueQuote { snapshot: true, exchange_time_ms, ..quote })
}

#[cfg(test)]
mod tests;
