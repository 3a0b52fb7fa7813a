//! Crypto.com's side: every channel of a request is answered by itself, and a client that leaves three heartbeats
//! unanswered is sent away.

use super::market::MarketQuote;
use super::query::Query;
use super::subscriptions::{Subscriptions, offered};
use super::{RestSimulator, VenueSimulator};
use crate::cryptocom::CHANNELS_MAX;
use crate::json::{self, Json, quoted};
use crate::protocol::Instrument;
use shared::venue::Venue;

/// Time between heartbeats.
const HEARTBEAT_EVERY_MS: u64 = 30_000;
/// Heartbeats that may stay unanswered; with this one the connection is closed.
const UNANSWERED_MAX: u32 = 3;
/// "Normal disconnection by server, usually when the heartbeat isn't handled properly".
const CLOSED: u16 = 1_000;

/// One client's connection to a simulated Crypto.com.
#[derive(Debug, Default)]
pub struct CryptocomSimulator {
    subscriptions: Subscriptions,
    /// Id of the last heartbeat, the server's clock in Unix ms.
    heartbeat_id: u64,
    /// Heartbeats since the client's last answer.
    unanswered: u32,
}

impl CryptocomSimulator {
    /// A connection that is about to be made.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The answer to one channel of a subscribe request.
    fn subscribe(&mut self, id: &str, channel: &str, is_offered: impl Fn(&str) -> bool) -> String {
        let refuse = |message: &str| {
            let channel = quoted(channel);
            format!(r#"{{"id":{id},"method":"subscribe","code":40003,"channel":{channel},"message":"{message}"}}"#)
        };
        let Some(name) = channel.strip_prefix("ticker.") else { return refuse("Unrecognized channel") };
        if !is_offered(name) {
            return refuse("Unknown symbol");
        }
        if self.subscriptions.len() >= CHANNELS_MAX && !self.subscriptions.contains(name) {
            return format!(
                r#"{{"id":{id},"method":"subscribe","code":40107,"message":"Maximum subscriptions exceeded"}}"#
            );
        }
        self.subscriptions.add(name);
        format!(
            r#"{{"id":{id},"method":"subscribe","code":0,"result":{{"instrument_name":"{name}","subscription":"ticker.{name}","channel":"ticker"}}}}"#
        )
    }
}

impl VenueSimulator for CryptocomSimulator {
    fn venue(&self) -> Venue {
        Venue::Cryptocom
    }

    fn greeting(&mut self, _now_ms: u64) -> Vec<String> {
        Vec::new()
    }

    /// What is not JSON gets no answer, as from the venue.
    fn receive(&mut self, text: &str, listed: &[Instrument], refused: &[String], _now_ms: u64) -> Vec<String> {
        let Ok(request) = json::parse(text.as_bytes()) else { return Vec::new() };
        let [id, method, params] = request.pick(["id", "method", "params"]);
        let id = id.and_then(|id| id.whole());
        let id_text = id.map_or_else(|| "-1".to_owned(), |id| id.to_string());
        let channels = params.and_then(|params| params.get("channels"));
        let channels = channels.iter().flat_map(Json::items).filter_map(|channel| channel.text());
        let Some(method) = method.and_then(|method| method.text()) else { return Vec::new() };
        match method.as_ref() {
            "public/respond-heartbeat" => {
                if id == Some(self.heartbeat_id) {
                    self.unanswered = 0;
                }
                Vec::new()
            }
            "subscribe" => channels
                .map(|channel| self.subscribe(&id_text, &channel, |name| offered(listed, refused, name).is_some()))
                .collect(),
            "unsubscribe" => {
                channels.for_each(|channel| {
                    channel.strip_prefix("ticker.").map(|name| self.subscriptions.remove(name));
                });
                vec![format!(r#"{{"id":{id_text},"method":"unsubscribe","code":0}}"#)]
            }
            other => {
                let method = quoted(other);
                vec![format!(r#"{{"id":{id_text},"method":{method},"code":40003,"message":"No such method"}}"#)]
            }
        }
    }

    fn quote(&mut self, instrument: &Instrument, market: &MarketQuote, now_ms: u64) -> Vec<String> {
        let name = instrument.name.as_str();
        if self.subscriptions.next_is_snapshot(name).is_none() {
            return Vec::new();
        }
        let MarketQuote { last, bid, ask, .. } = market;
        vec![format!(
            r#"{{"id":-1,"method":"subscribe","code":0,"result":{{"instrument_name":"{name}","subscription":"ticker.{name}","channel":"ticker","data":[{{"h":"{last}","l":"{last}","a":"{last}","c":"0","b":"{bid}","bs":"0.27217","k":"{ask}","ks":"0.23532","i":"{name}","v":"1","vv":"1","oi":"0","t":{now_ms}}}]}}}}"#
        )]
    }

    fn heartbeat(&mut self, now_ms: u64) -> Vec<String> {
        self.unanswered += 1;
        if self.unanswered >= UNANSWERED_MAX {
            return Vec::new();
        }
        self.heartbeat_id = now_ms;
        vec![format!(r#"{{"id":{now_ms},"method":"public/heartbeat","code":0}}"#)]
    }

    fn heartbeat_every_ms(&self) -> u64 {
        HEARTBEAT_EVERY_MS
    }

    fn must_close(&self, _now_ms: u64) -> Option<u16> {
        (self.unanswered >= UNANSWERED_MAX).then_some(CLOSED)
    }

    fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }
}

/// The REST interface of a simulated Crypto.com.
#[derive(Clone, Copy, Debug, Default)]
pub struct CryptocomRest;

impl RestSimulator for CryptocomRest {
    fn venue(&self) -> Venue {
        Venue::Cryptocom
    }

    fn get(&self, path_and_query: &str, listed: &[Instrument], markets: &[MarketQuote], now_ms: u64) -> (u16, String) {
        let query = Query::parse(path_and_query);
        let rows = listed.iter().zip(markets).filter(|(it, _)| it.trading);
        match (query.path.strip_prefix("/exchange/v1").unwrap_or(query.path), query.get("instrument_name")) {
            ("/public/get-instruments", _) => answer("public/get-instruments", listed.iter().map(instrument_row)),
            ("/public/get-tickers", None) => {
                answer("public/get-tickers", rows.map(|(it, market)| ticker_row(&it.name, market, now_ms)))
            }
            ("/public/get-tickers", Some(name)) => match rows.into_iter().find(|(it, _)| it.name == name) {
                Some((it, market)) => answer("public/get-tickers", [ticker_row(&it.name, market, now_ms)].into_iter()),
                None => (400, r#"{"code":40004,"message":"Invalid instrument_name"}"#.to_owned()),
            },
            (path, _) => (404, format!(r#"{{"status":404,"error":"Not Found","path":{}}}"#, quoted(path))),
        }
    }
}

fn answer(method: &str, rows: impl Iterator<Item = String>) -> (u16, String) {
    let rows = rows.collect::<Vec<_>>().join(",");
    (200, format!(r#"{{"id":-1,"method":"{method}","code":0,"result":{{"data":[{rows}]}}}}"#))
}

fn instrument_row(instrument: &Instrument) -> String {
    let Instrument { name, base, quote, trading, .. } = instrument;
    format!(
        r#"{{"symbol":"{name}","inst_type":"CCY_PAIR","display_name":"{base}/{quote}","base_ccy":"{base}","quote_ccy":"{quote}","quote_decimals":2,"quantity_decimals":5,"tradable":{trading},"expiry_timestamp_ms":0}}"#
    )
}

fn ticker_row(name: &str, market: &MarketQuote, now_ms: u64) -> String {
    let MarketQuote { last, bid, ask, .. } = market;
    format!(
        r#"{{"i":"{name}","h":"{last}","l":"{last}","a":"{last}","v":"1","vv":"1","c":"0","b":"{bid}","k":"{ask}","oi":"0","t":{now_ms}}}"#
    )
}

#[cfg(test)]
mod tests;
