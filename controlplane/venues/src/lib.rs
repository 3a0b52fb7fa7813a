//! Seven exchanges' market data protocols as pure functions: subscribe text out, frames in, quotes out.
//!
//! This crate knows no socket, clock or runtime. A [`VenueProtocol`] is the state of one connection; a session drives
//! it. `simulate` is the other side of the same seven protocols: what a venue's server would say.
#![forbid(unsafe_code)]

pub mod assets;
pub mod bybit;
pub mod coinbase;
pub mod cryptocom;
pub mod decode_line;
pub mod fields;
pub mod frame;
pub mod fuzz;
pub mod gateio;
pub mod gemini;
pub mod heard;
pub mod json;
pub mod kraken;
pub mod okx;
pub mod pair;
pub mod protocol;
pub mod rest;
pub mod simulate;
pub mod timestamp;
#[cfg(test)]
mod told;

use crate::gemini::GeminiApi;
use crate::protocol::VenueProtocol;
use shared::venue::Venue;

/// Choices that the venues leave us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VenueSettings {
    /// Which of Gemini's two WebSocket interfaces.
    pub gemini: GeminiApi,
}

/// A new connection's protocol state for `venue`.
#[must_use]
pub fn protocol(venue: Venue, settings: VenueSettings) -> Box<dyn VenueProtocol> {
    match venue {
        Venue::Coinbase => Box::new(coinbase::Coinbase::default()),
        Venue::Gemini => match settings.gemini {
            GeminiApi::Current => Box::new(gemini::current::Gemini::default()),
            GeminiApi::V2 => Box::new(gemini::v2::GeminiV2::default()),
        },
        Venue::Kraken => Box::new(kraken::Kraken),
        Venue::Gateio => Box::new(gateio::Gateio::new()),
        Venue::Cryptocom => Box::new(cryptocom::Cryptocom::new()),
        Venue::Bybit => Box::new(bybit::Bybit::new()),
        Venue::Okx => Box::new(okx::Okx::new()),
    }
}
