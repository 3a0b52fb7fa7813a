//! A simulated Coinbase: the `ticker` and `heartbeats` channels, the product list and the market ticker.

use super::subscriptions::{Subscriptions, offered};
use super::{MarketQuote, RestSimulator, VenueSimulator, find_market};
use crate::json::{self, Json, quoted, quoted_list};
use crate::protocol::Instrument;
use crate::timestamp::rfc3339_text;
use shared::venue::Venue;

/// One client connection to a simulated Coinbase.
#[derive(Debug, Default)]
pub struct CoinbaseSimulator {
    tickers: Subscriptions,
    heartbeats: bool,
    heartbeat_counter: u64,
    sequence: u64,
}

impl CoinbaseSimulator {
    /// A frame of `channel`: the envelope numbers everything the connection says, from 0.
    fn frame(&mut self, channel: &str, events: &str, now_ms: u64) -> String {
        let (time, sequence) = (rfc3339_text(now_ms, 9), self.sequence);
        self.sequence += 1;
        format!(r#"{{"channel":"{channel}","timestamp":"{time}","sequence_num":{sequence},"events":[{events}]}}"#)
    }

    /// The acknowledgement: everything the connection is now subscribed to.
    fn restatement(&mut self, now_ms: u64) -> String {
        let tickers = (!self.tickers.is_empty()).then(|| format!(r#""ticker":{}"#, quoted_list(self.tickers.names())));
        let heartbeats = self.heartbeats.then(|| r#""heartbeats":["heartbeats"]"#.to_owned());
        let channels: Vec<String> = tickers.into_iter().chain(heartbeats).collect();
        self.frame("subscriptions", &format!(r#"{{"subscriptions":{{{}}}}}"#, channels.join(",")), now_ms)
    }
}

fn error(message: &str) -> String {
    format!(r#"{{"type":"error","message":{}}}"#, quoted(message))
}

impl VenueSimulator for CoinbaseSimulator {
    fn venue(&self) -> Venue {
        Venue::Coinbase
    }

    fn greeting(&mut self, _now_ms: u64) -> Vec<String> {
        Vec::new()
    }

    fn receive(&mut self, text: &str, listed: &[Instrument], refused: &[String], now_ms: u64) -> Vec<String> {
        let Ok(root) = json::parse(text.as_bytes()) else {
            return vec![error("failed to parse message")];
        };
        let [kind, channel, products] = root.pick(["type", "channel", "product_ids"]);
        let word = |value: Option<Json<'_>>| value.and_then(|value| value.text().map(|text| text.into_owned()));
        let (kind, channel) = (word(kind).unwrap_or_default(), word(channel).unwrap_or_default());
        let subscribe = match kind.as_str() {
            "subscribe" => true,
            "unsubscribe" => false,
            _ => return vec![error("invalid message type")],
        };
        let names: Vec<String> = products.iter().flat_map(Json::items).filter_map(|name| word(Some(name))).collect();
        let mut frames = Vec::new();
        match channel.as_str() {
            "heartbeats" => self.heartbeats = subscribe,
            "ticker" if subscribe => {
                for name in &names {
                    let taken = offered(listed, refused, name).is_some() && self.tickers.add(name);
                    if !taken {
                        frames.push(error(&format!("{name} is not a valid product")));
                    }
                }
            }
            "ticker" => names.iter().for_each(|name| _ = self.tickers.remove(name)),
            // What the real one says of a channel it does not know.
            _ => return vec![error("authentication failure")],
        }
        frames.push(self.restatement(now_ms));
        frames
    }

    fn quote(&mut self, instrument: &Instrument, market: &MarketQuote, now_ms: u64) -> Vec<String> {
        let Some(snapshot) = self.tickers.next_is_snapshot(&instrument.name) else {
            return Vec::new();
        };
        let kind = if snapshot { "snapshot" } else { "update" };
        let MarketQuote { last, bid, ask, .. } = market;
        let ticker = format!(
            r#"{{"type":"ticker","product_id":"{}","price":"{last}","volume_24_h":"2867.54532609","low_24_h":"{bid}","high_24_h":"{ask}","price_percent_chg_24_h":"0.09601107287722","best_bid":"{bid}","best_ask":"{ask}","best_bid_quantity":"0.20371215","best_ask_quantity":"0.24290402"}}"#,
            instrument.name
        );
        vec![self.frame("ticker", &format!(r#"{{"type":"{kind}","tickers":[{ticker}]}}"#), now_ms)]
    }

    fn heartbeat(&mut self, now_ms: u64) -> Vec<String> {
        if !self.heartbeats {
            return Vec::new();
        }
        self.heartbeat_counter += 1;
        // Go's way of printing a time, which is not RFC 3339.
        let time = rfc3339_text(now_ms, 9).replace('T', " ").replace('Z', " +0000 UTC");
        let counter = self.heartbeat_counter;
        let event = format!(r#"{{"current_time":"{time} m=+{counter}.26","heartbeat_counter":{counter}}}"#);
        vec![self.frame("heartbeats", &event, now_ms)]
    }

    fn heartbeat_every_ms(&self) -> u64 {
        1_000
    }

    fn subscriptions(&self) -> usize {
        self.tickers.len()
    }
}

/// The REST interface of a simulated Coinbase.
#[derive(Debug, Default)]
pub struct CoinbaseRest;

/// The path below which products are.
const PRODUCTS: &str = "/api/v3/brokerage/market/products";

impl RestSimulator for CoinbaseRest {
    fn venue(&self) -> Venue {
        Venue::Coinbase
    }

    fn get(&self, path_and_query: &str, listed: &[Instrument], markets: &[MarketQuote], now_ms: u64) -> (u16, String) {
        let path = path_and_query.split('?').next().unwrap_or_default();
        let Some(rest) = path.strip_prefix(PRODUCTS) else {
            return (404, r#"{"message":"NotFound"}"#.to_owned());
        };
        if rest.is_empty() {
            let products: Vec<String> = listed.iter().zip(markets).map(|(one, market)| product(one, market)).collect();
            return (200, format!(r#"{{"products":[{}],"num_products":{}}}"#, products.join(","), products.len()));
        }
        let name = rest.strip_prefix('/').and_then(|rest| rest.strip_suffix("/ticker"));
        match name.and_then(|name| find_market(listed, markets, name)) {
            Some((instrument, market)) if instrument.trading => (200, ticker(instrument, market, now_ms)),
            Some(_) => (400, r#"{"message":"Not allowed for delisted products"}"#.to_owned()),
            None => (404, r#"{"message":"NotFound"}"#.to_owned()),
        }
    }
}

/// An entry of the product list: delisted ones stay in it, and the book's top is always empty.
fn product(instrument: &Instrument, market: &MarketQuote) -> String {
    let Instrument { name, base, quote, trading, .. } = instrument;
    let (status, disabled) = if *trading { ("online", false) } else { ("delisted", true) };
    format!(
        r#"{{"product_id":"{name}","price":"{}","status":"{status}","is_disabled":false,"cancel_only":false,"trading_disabled":{disabled},"auction_mode":false,"product_type":"SPOT","quote_currency_id":"{quote}","base_currency_id":"{base}","view_only":false,"best_bid_price":"","best_ask_price":""}}"#,
        market.last
    )
}

fn ticker(instrument: &Instrument, market: &MarketQuote, now_ms: u64) -> String {
    let (time, MarketQuote { last, bid, ask, sequence }) = (rfc3339_text(now_ms, 6), market);
    format!(
        r#"{{"trades":[{{"trade_id":"{sequence}","product_id":"{}","price":"{last}","size":"0.00064","time":"{time}","side":"SELL","bid":"","ask":"","exchange":"coinbase"}}],"best_bid":"{bid}","best_ask":"{ask}"}}"#,
        instrument.name
    )
}
