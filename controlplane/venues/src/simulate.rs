//! The other side of the seven protocols: what a venue's server would say, for `demo`, `simulate` and tests.
//!
//! Like the decoding side this knows no socket and no clock. `market` walks the prices; one [`VenueSimulator`] is one
//! client connection of one venue; REST answers need no connection.

pub mod bybit;
pub mod coinbase;
pub mod cryptocom;
pub mod gateio;
pub mod gemini;
pub mod kraken;
pub mod market;
pub mod okx;
pub mod query;
pub mod subscriptions;

use self::market::MarketQuote;
use crate::VenueSettings;
use crate::gemini::GeminiApi;
use crate::protocol::Instrument;
use shared::venue::Venue;

/// One client connection to a simulated venue.
pub trait VenueSimulator: Send {
    /// Which venue.
    fn venue(&self) -> Venue;

    /// Frames the server sends by itself right after the connection is made.
    fn greeting(&mut self, now_ms: u64) -> Vec<String>;

    /// Takes one text frame of the client and answers as the venue would: acks, refusals (of names that are not in
    /// `listed` or are in `refused`), pongs, errors. Remembers what is subscribed.
    fn receive(&mut self, text: &str, listed: &[Instrument], refused: &[String], now_ms: u64) -> Vec<String>;

    /// Frames that tell a subscribed client of a changed market; empty when it is not subscribed. The first one for an
    /// instrument is the venue's snapshot.
    fn quote(&mut self, instrument: &Instrument, market: &MarketQuote, now_ms: u64) -> Vec<String>;

    /// Frames the server sends by itself every `heartbeat_every_ms`.
    fn heartbeat(&mut self, now_ms: u64) -> Vec<String>;

    /// Time between heartbeats, ms; 0 where the venue's server sends none.
    fn heartbeat_every_ms(&self) -> u64;

    /// The WebSocket code with which the server closes the connection now, because the client did not keep it alive; 1006
    /// means to drop it without a close frame. To be asked after each `heartbeat`, and at least once a second.
    fn must_close(&self, now_ms: u64) -> Option<u16> {
        let _ = now_ms;
        None
    }

    /// How many instruments are subscribed.
    fn subscriptions(&self) -> usize;
}

/// Answers of a simulated venue's REST interface.
pub trait RestSimulator: Send + Sync {
    /// Which venue.
    fn venue(&self) -> Venue;

    /// The answer (status, body) to a GET of `path_and_query`; `markets` gives the present market of an instrument, by its
    /// position in `listed`.
    fn get(&self, path_and_query: &str, listed: &[Instrument], markets: &[MarketQuote], now_ms: u64) -> (u16, String);
}

/// The instrument called `rest_name` in REST, and its present market.
#[must_use]
pub fn find_market<'a>(
    listed: &'a [Instrument],
    markets: &'a [MarketQuote],
    rest_name: &str,
) -> Option<(&'a Instrument, &'a MarketQuote)> {
    listed.iter().zip(markets).find(|(instrument, _)| instrument.rest_name == rest_name)
}

/// A new client connection to a simulated `venue`.
#[must_use]
pub fn simulator(venue: Venue, settings: VenueSettings) -> Box<dyn VenueSimulator> {
    match venue {
        Venue::Coinbase => Box::new(coinbase::CoinbaseSimulator::default()),
        Venue::Gemini => match settings.gemini {
            GeminiApi::Current => Box::new(gemini::GeminiSimulator::default()),
            GeminiApi::V2 => Box::new(gemini::v2::GeminiV2Simulator::default()),
        },
        Venue::Kraken => Box::new(kraken::KrakenSimulator::default()),
        Venue::Gateio => Box::new(gateio::GateioSimulator::new()),
        Venue::Cryptocom => Box::new(cryptocom::CryptocomSimulator::new()),
        Venue::Bybit => Box::new(bybit::BybitSimulator::new()),
        Venue::Okx => Box::new(okx::OkxSimulator::new()),
    }
}

/// The REST interface of a simulated `venue`.
#[must_use]
pub fn rest_simulator(venue: Venue) -> Box<dyn RestSimulator> {
    match venue {
        Venue::Coinbase => Box::new(coinbase::CoinbaseRest),
        Venue::Gemini => Box::new(gemini::GeminiRest),
        Venue::Kraken => Box::new(kraken::KrakenRest),
        Venue::Gateio => Box::new(gateio::GateioRest),
        Venue::Cryptocom => Box::new(cryptocom::CryptocomRest),
        Venue::Bybit => Box::new(bybit::BybitRest),
        Venue::Okx => Box::new(okx::OkxRest),
    }
}
