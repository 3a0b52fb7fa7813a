//! Gemini's archived WebSocket interface, simulated: books of one order a side, and trades.

use super::super::subscriptions::{Subscriptions, offered};
use super::super::{MarketQuote, VenueSimulator};
use crate::json::{self, Json};
use crate::protocol::Instrument;
use shared::price::Price;
use shared::venue::Venue;
use std::collections::BTreeMap;

/// What the venue says when not one of the symbols is known.
const NO_VALID_PAIRS: &str = r#"{"reason":"NoValidTradingPairs","result":"error"}"#;

/// One client connection to a simulated archived Gemini.
#[derive(Debug, Default)]
pub struct GeminiV2Simulator {
    books: Subscriptions,
    /// The book each subscribed symbol was told of last.
    told: BTreeMap<String, MarketQuote>,
}

impl VenueSimulator for GeminiV2Simulator {
    fn venue(&self) -> Venue {
        Venue::Gemini
    }

    fn greeting(&mut self, _now_ms: u64) -> Vec<String> {
        Vec::new()
    }

    /// Good symbols are answered by their books alone; the real one's answer to a bad one among them is not known, and
    /// here is none.
    fn receive(&mut self, text: &str, listed: &[Instrument], refused: &[String], _now_ms: u64) -> Vec<String> {
        let Ok(root) = json::parse(text.as_bytes()) else {
            return vec![r#"{"reason":"InvalidJson","result":"error"}"#.to_owned()];
        };
        let [kind, subscriptions] = root.pick(["type", "subscriptions"]);
        let kind = kind.and_then(|kind| kind.text()).unwrap_or_default();
        let symbols = subscriptions.iter().flat_map(Json::items).filter_map(|one| one.get("symbols"));
        let names: Vec<String> =
            symbols.flat_map(|symbols| symbols.items()).filter_map(|name| Some(name.text()?.into_owned())).collect();
        if kind == "unsubscribe" {
            for name in &names {
                self.books.remove(name);
                self.told.remove(name);
            }
            return Vec::new();
        }
        let upper = |name: &str| name.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit());
        let is_refused = |name: &str| refused.iter().any(|refused| refused.eq_ignore_ascii_case(name));
        // The market lists names as the present interface spells them.
        let known = |name: &&String| {
            upper(name) && !is_refused(name) && offered(listed, &[], &name.to_ascii_lowercase()).is_some()
        };
        let added = names.iter().filter(known).filter(|name| self.books.add(name)).count();
        if added == 0 { vec![NO_VALID_PAIRS.to_owned()] } else { Vec::new() }
    }

    fn quote(&mut self, instrument: &Instrument, market: &MarketQuote, now_ms: u64) -> Vec<String> {
        let name = instrument.name.to_ascii_uppercase();
        let Some(snapshot) = self.books.next_is_snapshot(&name) else {
            return Vec::new();
        };
        let before = self.told.insert(name.clone(), *market);
        let trade = |price: Price, sequence: u64| {
            format!(
                r#"{{"event_id":{sequence},"price":"{price}","quantity":"0.00007667","side":"buy","symbol":"{name}","tid":{sequence},"timestamp":{now_ms},"type":"trade"}}"#
            )
        };
        if snapshot {
            let changes = [level("buy", market.bid, "0.1"), level("sell", market.ask, "0.2")].join(",");
            // The oldest first.
            let trades = [trade(market.bid, 0), trade(market.last, market.sequence)].join(",");
            return vec![format!(
                r#"{{"auction_events":[],"changes":[{changes}],"symbol":"{name}","trades":[{trades}],"type":"l2_updates"}}"#
            )];
        }
        let sides = before.map(|before| [("buy", before.bid, market.bid), ("sell", before.ask, market.ask)]);
        let changes: Vec<String> =
            sides.iter().flatten().flat_map(|(side, from, to)| moved(side, *from, *to)).collect();
        let mut frames = Vec::new();
        if !changes.is_empty() {
            let changes = changes.join(",");
            frames.push(format!(r#"{{"changes":[{changes}],"symbol":"{name}","type":"l2_updates"}}"#));
        }
        if before.is_some_and(|before| before.last != market.last) {
            frames.push(trade(market.last, market.sequence));
        }
        frames
    }

    fn heartbeat(&mut self, now_ms: u64) -> Vec<String> {
        vec![format!(r#"{{"timestamp":{now_ms},"type":"heartbeat"}}"#)]
    }

    fn heartbeat_every_ms(&self) -> u64 {
        5_000
    }

    fn subscriptions(&self) -> usize {
        self.books.len()
    }
}

fn level(side: &str, price: Price, quantity: &str) -> String {
    format!(r#"["{side}","{price}","{quantity}"]"#)
}

/// The changes that move a side's one order.
fn moved(side: &str, from: Price, to: Price) -> Vec<String> {
    if from == to { Vec::new() } else { vec![level(side, from, "0.0"), level(side, to, "0.1")] }
}
