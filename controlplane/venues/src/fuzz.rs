//! One input, every way into one venue: what the fuzz targets and the property tests run.
//!
//! It knows what must hold whatever the bytes are, and nothing of any venue. A failure is a panic.

use crate::frame::SAID_PER_FRAME_MAX;
use crate::gemini::GeminiApi;
use crate::protocol::{Instrument, VenueEvent, VenueProtocol};
use crate::simulate::market::MarketQuote;
use crate::simulate::{rest_simulator, simulator};
use crate::{VenueSettings, json, protocol};
use shared::asset::Symbol;
use shared::price::Price;
use shared::quote::Field;
use shared::venue::Venue;

/// A time of day for the simulators, Unix ms.
const NOW_MS: u64 = 1_793_500_000_000;

/// Runs `bytes` through every input of `venue`: as a frame on each of its WebSocket interfaces (twice, for what a
/// connection remembers), as the body of each REST answer, and as what a client sends to the simulated venue.
///
/// # Panics
/// When a promise is broken: an input that is no JSON gives one `Malformed` and nothing else, no price is below zero, a
/// frame gives at least one event and not too many, and what a simulated venue answers is never malformed.
pub fn fuzz_one(venue: Venue, bytes: &[u8]) {
    for gemini in [GeminiApi::Current, GeminiApi::V2] {
        if venue == Venue::Gemini || gemini == GeminiApi::Current {
            fuzz_settings(venue, VenueSettings { gemini }, bytes);
        }
    }
}

fn fuzz_settings(venue: Venue, settings: VenueSettings, bytes: &[u8]) {
    let mut protocol = protocol(venue, settings);
    fuzz_frame(protocol.as_mut(), bytes);
    fuzz_frame(protocol.as_mut(), bytes);
    let Some(instrument) = instrument(protocol.as_ref()) else { return };
    for status in [200, 400, 429] {
        _ = protocol.decode_instruments(status, bytes);
        protocol.decode_tickers(status, bytes, &[&instrument, &instrument], &mut |event| check_event(&event));
        protocol.decode_tickers(status, bytes, &[&instrument], &mut |event| check_event(&event));
    }
    let listed = [instrument];
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for answer in simulator(venue, settings).receive(text, &listed, &[], NOW_MS) {
        protocol.decode(answer.as_bytes(), &mut |event| {
            assert!(!matches!(event, VenueEvent::Malformed { .. }), "{event:?}: {answer}");
        });
    }
    let (last, bid, ask) = (Price::new(2, 0), Price::new(1, 0), Price::new(3, 0));
    let (status, _) = rest_simulator(venue).get(text, &listed, &[MarketQuote { last, bid, ask, sequence: 1 }], NOW_MS);
    assert!((200..600).contains(&status));
}

fn fuzz_frame(protocol: &mut dyn VenueProtocol, bytes: &[u8]) {
    // OKX answers a ping with bare text.
    let is_json = json::parse(bytes).is_ok() || bytes.trim_ascii() == b"pong";
    let (mut events, mut malformed) = (0, 0);
    protocol.decode(bytes, &mut |event| {
        events += 1;
        malformed += usize::from(matches!(event, VenueEvent::Malformed { .. }));
        check_event(&event);
    });
    // A gap is told beside what the frame holds.
    assert!(events > 0 && events <= SAID_PER_FRAME_MAX + 1, "{events} events");
    assert!(is_json || (events, malformed) == (1, 1), "{events} events, {malformed} malformed");
}

fn check_event(event: &VenueEvent<'_>) {
    if let VenueEvent::Quote(quote) = event {
        for field in [quote.last, quote.bid, quote.ask] {
            assert!(!matches!(field, Field::At(price) if price.mantissa() < 0), "{quote:?}");
        }
    }
}

/// An instrument as the venue spells it.
fn instrument(protocol: &dyn VenueProtocol) -> Option<Instrument> {
    let (base, quote) = (Symbol::new(b"BTC")?, Symbol::new(b"USDT")?);
    let name = protocol.spell(&base, &quote);
    Some(Instrument { rest_name: name.clone(), name, base, quote, trading: true })
}
