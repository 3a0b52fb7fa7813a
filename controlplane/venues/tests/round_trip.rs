//! What the simulated venues say is what the decoders read, to the digit, for every instrument of every venue.

use shared::price::Price;
use shared::venue::Venue;
use venues::gemini::GeminiApi;
use venues::protocol::{Instrument, VenueEvent, VenueProtocol, VenueQuote};
use venues::simulate::market::{Market, MarketQuote};
use venues::simulate::{VenueSimulator, rest_simulator, simulator};
use venues::{VenueSettings, protocol};

const NOW_MS: u64 = 1_793_500_000_123;

const SETTINGS: [(Venue, GeminiApi); 8] = [
    (Venue::Coinbase, GeminiApi::Current),
    (Venue::Gemini, GeminiApi::Current),
    (Venue::Gemini, GeminiApi::V2),
    (Venue::Kraken, GeminiApi::Current),
    (Venue::Gateio, GeminiApi::Current),
    (Venue::Cryptocom, GeminiApi::Current),
    (Venue::Bybit, GeminiApi::Current),
    (Venue::Okx, GeminiApi::Current),
];

/// An event that outlives its frame.
#[derive(Debug, PartialEq)]
enum Heard {
    Quote(VenueQuote),
    Subscribed(Option<String>),
    Refused(Option<String>),
    Other(String),
}

fn decode(protocol: &mut dyn VenueProtocol, frames: &[String]) -> Vec<Heard> {
    let mut heard = Vec::new();
    for frame in frames {
        protocol.decode(frame.as_bytes(), &mut |event| {
            heard.push(match event {
                VenueEvent::Quote(quote) => Heard::Quote(quote),
                VenueEvent::Subscribed { name, .. } => Heard::Subscribed(name.map(str::to_owned)),
                VenueEvent::Refused { name, .. } => Heard::Refused(name.map(str::to_owned)),
                VenueEvent::Malformed { reason } => panic!("{reason}: {frame}"),
                VenueEvent::Gap { .. } => panic!("{event:?}: {frame}"),
                other => Heard::Other(format!("{other:?}")),
            });
        });
    }
    heard
}

/// One client connection and the server's side of it.
struct Pair {
    protocol: Box<dyn VenueProtocol>,
    simulator: Box<dyn VenueSimulator>,
}

impl Pair {
    fn new(venue: Venue, gemini: GeminiApi) -> Self {
        let settings = VenueSettings { gemini };
        Self { protocol: protocol(venue, settings), simulator: simulator(venue, settings) }
    }

    fn send(&mut self, frames: Vec<String>, listed: &[Instrument], refused: &[String], now_ms: u64) -> Vec<Heard> {
        let mut heard = Vec::new();
        for frame in frames {
            let answers = self.simulator.receive(&frame, listed, refused, now_ms);
            heard.extend(decode(self.protocol.as_mut(), &answers));
        }
        heard
    }

    /// Greets, and subscribes to all of `names` within the venue's own limits.
    fn open(&mut self, names: &[&str], listed: &[Instrument], refused: &[String]) -> Vec<Heard> {
        let greeting = self.simulator.greeting(NOW_MS);
        let mut heard = decode(self.protocol.as_mut(), &greeting);
        heard.extend(self.send(self.protocol.greeting(), listed, refused, NOW_MS));
        for (group, request) in names.chunks(self.protocol.limits().names_per_frame).zip((1..).step_by(10)) {
            heard.extend(self.send(self.protocol.subscribe(group, request), listed, refused, NOW_MS));
        }
        heard
    }
}

/// The names a session would subscribe to: what the venue's REST list says trades.
fn instruments(venue: Venue, gemini: GeminiApi, market: &Market) -> Vec<Instrument> {
    let protocol = protocol(venue, VenueSettings { gemini });
    let rest = rest_simulator(venue);
    let mut list = Vec::new();
    for request in protocol.instruments() {
        let (status, body) = rest.get(&request.path, market.listed(venue), market.quotes(venue), NOW_MS);
        list.extend(protocol.decode_instruments(status, body.as_bytes()).expect("a list"));
    }
    list
}

#[test]
fn lists_say_what_is_listed() {
    let market = Market::new(11);
    for (venue, gemini) in SETTINGS {
        let list = instruments(venue, gemini, &market);
        // Some venues do not list what they do not trade.
        let expected = market
            .listed(venue)
            .iter()
            .filter(|one| one.trading || list.iter().any(|two| two.base == one.base && !two.trading));
        let upper = |name: &str| name.to_ascii_uppercase();
        let sides: [Vec<_>; 2] = [expected.collect(), list.iter().collect()];
        let [expected, got] = sides.map(|side| {
            side.into_iter()
                .map(|one| (upper(&one.name), one.rest_name.clone(), one.base, one.quote, one.trading))
                .collect::<Vec<_>>()
        });
        assert_eq!(got, expected, "{venue}");
    }
}

#[test]
fn quotes_come_through_to_the_digit() {
    for (venue, gemini) in SETTINGS {
        let mut market = Market::new(12);
        let listed = market.listed(venue).to_vec();
        let mut pair = Pair::new(venue, gemini);
        // The venue's limits bound one connection; an instrument list may be longer.
        let names_max = pair.protocol.limits().names_per_connection;
        let list: Vec<Instrument> =
            instruments(venue, gemini, &market).into_iter().filter(|one| one.trading).take(names_max).collect();
        let names: Vec<&str> = list.iter().map(|one| one.name.as_str()).collect();
        let heard = pair.open(&names, &listed, &[]);
        assert!(!heard.iter().any(|event| matches!(event, Heard::Refused(_))), "{venue}: {heard:?}");
        assert_eq!(pair.simulator.subscriptions(), names.len(), "{venue}");
        for round in 0..3 {
            for (position, instrument) in listed.iter().enumerate() {
                let shown = market.step(venue, position).expect("listed");
                // The slowest venue speaks once a second.
                let now_ms = NOW_MS + (round + 1) * 2_000;
                let frames = pair.simulator.quote(instrument, &shown, now_ms);
                let subscribed = names.iter().any(|name| name.eq_ignore_ascii_case(&instrument.name));
                // Gemini's books say nothing when a step was too small to change them.
                let silent_book = gemini == GeminiApi::V2 && round > 0 && frames.is_empty();
                assert!(silent_book || subscribed != frames.is_empty(), "{venue} {}", instrument.name);
                let heard = decode(pair.protocol.as_mut(), &frames);
                check_quotes(&heard, instrument, &shown, (round == 0, now_ms));
            }
        }
    }
}

/// What was heard adds up to the market shown; the first frame of an instrument's book restates it.
#[track_caller]
fn check_quotes(heard: &[Heard], instrument: &Instrument, shown: &MarketQuote, (first, now_ms): (bool, u64)) {
    if heard.is_empty() {
        return;
    }
    let (mut last, mut bid, mut ask): (Option<Price>, Option<Price>, Option<Price>) = (None, None, None);
    let mut snapshot = false;
    for event in heard {
        let Heard::Quote(quote) = event else { panic!("{event:?}") };
        assert_eq!((quote.base, quote.quote), (instrument.base, instrument.quote));
        assert!(quote.exchange_time_ms.is_none_or(|time| time == now_ms), "{quote:?}");
        (last, bid, ask) = (quote.last.over(last), quote.bid.over(bid), quote.ask.over(ask));
        snapshot |= quote.snapshot;
    }
    assert_eq!(snapshot, first, "{heard:?}");
    // Venues with two channels repeat only what changed.
    for (got, shown) in [(last, shown.last), (bid, shown.bid), (ask, shown.ask)] {
        assert!(got == Some(shown) || (!first && got.is_none()), "{heard:?} is not {shown}");
    }
}

#[test]
fn a_refused_name_silences_no_other() {
    for (venue, gemini) in SETTINGS {
        let market = Market::new(13);
        let listed = market.listed(venue).to_vec();
        let list: Vec<Instrument> =
            instruments(venue, gemini, &market).into_iter().filter(|one| one.trading).take(9).collect();
        let names: Vec<&str> = list.iter().map(|one| one.name.as_str()).collect();
        let refused = list[4].name.clone();
        let mut pair = Pair::new(venue, gemini);
        let heard = pair.open(&names, &listed, std::slice::from_ref(&refused));
        let refusals: Vec<_> = heard.iter().filter(|event| matches!(event, Heard::Refused(_))).collect();
        assert!(!refusals.is_empty(), "{venue}");
        // Two venues name nobody; there an instrument has a frame of its own, or no acknowledgement says its name.
        for refusal in refusals {
            assert!(
                [Heard::Refused(Some(refused.clone())), Heard::Refused(None)].contains(refusal),
                "{venue}: {refusal:?}"
            );
        }
        assert!(!heard.contains(&Heard::Subscribed(Some(refused))), "{venue}");
        // A venue that refuses a whole frame is asked again, one by one.
        for name in &names {
            let frames = pair.protocol.subscribe(&[name], 900);
            pair.send(frames, &listed, std::slice::from_ref(&list[4].name), NOW_MS);
        }
        assert_eq!(pair.simulator.subscriptions(), 8, "{venue}");
    }
}

#[test]
fn signs_of_life_are_understood() {
    for (venue, gemini) in SETTINGS {
        let market = Market::new(14);
        let listed = market.listed(venue).to_vec();
        let mut pair = Pair::new(venue, gemini);
        pair.open(&[&pair.protocol.spell(&listed[0].base, &listed[0].quote)], &listed, &[]);
        let frames = pair.simulator.heartbeat(NOW_MS);
        assert_eq!(frames.is_empty(), pair.simulator.heartbeat_every_ms() == 0, "{venue}");
        for event in decode(pair.protocol.as_mut(), &frames) {
            assert!(matches!(&event, Heard::Other(text) if text.starts_with("Heartbeat")), "{venue}: {event:?}");
        }
        if let Some(ping) = pair.protocol.ping(77) {
            let heard = pair.send(vec![ping], &listed, &[], NOW_MS);
            assert!(matches!(&heard[..], [Heard::Other(text)] if text.starts_with("Heartbeat")), "{venue}: {heard:?}");
        }
    }
}

#[test]
fn rest_prices_come_through_to_the_digit() {
    for (venue, gemini) in SETTINGS {
        let market = Market::new(15);
        let rest = rest_simulator(venue);
        let protocol = protocol(venue, VenueSettings { gemini });
        let list: Vec<Instrument> = instruments(venue, gemini, &market).into_iter().filter(|one| one.trading).collect();
        let at_once = protocol.limits().names_per_rest_request.min(7);
        for group in list.chunks(at_once) {
            let asked: Vec<&Instrument> = group.iter().collect();
            let request = protocol.tickers(&asked);
            let (status, body) = rest.get(&request.path, market.listed(venue), market.quotes(venue), NOW_MS);
            let mut quotes = Vec::new();
            protocol.decode_tickers(status, body.as_bytes(), &asked, &mut |event| match event {
                VenueEvent::Quote(quote) => quotes.push(quote),
                other => panic!("{venue}: {other:?}"),
            });
            assert_eq!(quotes.len(), group.len(), "{venue}");
            for quote in quotes {
                let same = |one: &Instrument| (one.base, one.quote, one.trading) == (quote.base, quote.quote, true);
                let at = market.listed(venue).iter().position(same).expect("listed");
                let shown = market.quotes(venue)[at];
                let prices = [quote.last, quote.bid, quote.ask].map(|field| field.price());
                assert_eq!(prices, [Some(shown.last), Some(shown.bid), Some(shown.ask)], "{venue}");
            }
        }
    }
}
