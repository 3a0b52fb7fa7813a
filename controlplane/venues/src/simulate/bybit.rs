//! Bybit's side: one bad topic refuses its whole frame, more than ten are too many, everything is a snapshot.

use super::market::MarketQuote;
use super::query::Query;
use super::subscriptions::{Subscriptions, offered};
use super::{RestSimulator, VenueSimulator};
use crate::bybit::{ARGS_MAX, BOOK, TICKERS};
use crate::json::{self, Json, quoted};
use crate::protocol::Instrument;
use shared::venue::Venue;

/// Silence of the client after which it is dropped.
const IDLE_MS_MAX: u64 = 600_000;
/// "Closed abnormally": the connection goes without a close frame.
const DROPPED: u16 = 1_006;

/// One client's connection to a simulated Bybit.
#[derive(Debug, Default)]
pub struct BybitSimulator {
    tickers: Subscriptions,
    book: Subscriptions,
    connected_ms: u64,
    heard_ms: u64,
}

impl BybitSimulator {
    /// A connection that is about to be made.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The subscriptions to a topic's kind, and the instrument in it.
    fn kind<'t>(&mut self, topic: &'t str) -> Option<(&mut Subscriptions, &'t str)> {
        match (topic.strip_prefix(TICKERS), topic.strip_prefix(BOOK)) {
            (Some(name), _) => Some((&mut self.tickers, name)),
            (_, Some(name)) => Some((&mut self.book, name)),
            _ => None,
        }
    }

    fn answer(&self, success: bool, message: &str, request: Option<&str>, op: &str) -> String {
        let request = request.map(|request| format!(r#","req_id":{}"#, quoted(request))).unwrap_or_default();
        // The venue escapes `>` as Go does.
        let message = quoted(message).replace('>', r"\u003e");
        format!(
            r#"{{"success":{success},"ret_msg":{message},"conn_id":"{:020x}-1"{request},"op":{}}}"#,
            self.connected_ms,
            quoted(op)
        )
    }

    /// Subscribes all topics or none.
    fn subscribe(&mut self, topics: &[String], is_offered: impl Fn(&str) -> bool) -> Result<(), String> {
        if topics.len() > ARGS_MAX {
            return Err(format!("args size >{ARGS_MAX}"));
        }
        for topic in topics {
            match self.kind(topic) {
                None => return Err(format!("error:handler not found,topic:{topic}")),
                Some((_, name)) if !is_offered(name) => return Err(format!("Invalid symbol :[{topic}]")),
                Some((subscriptions, name)) if subscriptions.contains(name) => {
                    return Err(format!("error:already subscribed,topic:{topic}"));
                }
                Some(_) => {}
            }
        }
        for topic in topics {
            self.kind(topic).map(|(subscriptions, name)| subscriptions.add(name));
        }
        Ok(())
    }
}

impl VenueSimulator for BybitSimulator {
    fn venue(&self) -> Venue {
        Venue::Bybit
    }

    fn greeting(&mut self, now_ms: u64) -> Vec<String> {
        (self.connected_ms, self.heard_ms) = (now_ms, now_ms);
        Vec::new()
    }

    fn receive(&mut self, text: &str, listed: &[Instrument], refused: &[String], now_ms: u64) -> Vec<String> {
        self.heard_ms = now_ms;
        let request = match json::parse(text.as_bytes()) {
            Ok(request) if request.is_object() => request,
            _ => return vec![self.answer(false, "Failed to decode incoming data", None, "")],
        };
        let [op, args, id] = request.pick(["op", "args", "req_id"]);
        let op = op.and_then(|op| op.text()).unwrap_or_default();
        let id = id.and_then(|id| id.text());
        let topics: Vec<String> =
            args.iter().flat_map(Json::items).filter_map(|topic| topic.text().map(String::from)).collect();
        let (success, message) = match op.as_ref() {
            "ping" => (true, "pong".to_owned()),
            "subscribe" => match self.subscribe(&topics, |name| offered(listed, refused, name).is_some()) {
                Ok(()) => (true, "subscribe".to_owned()),
                Err(message) => (false, message),
            },
            "unsubscribe" => {
                for topic in &topics {
                    self.kind(topic).map(|(subscriptions, name)| subscriptions.remove(name));
                }
                (true, "unsubscribe".to_owned())
            }
            _ => (false, "error:invalid op".to_owned()),
        };
        vec![self.answer(success, &message, id.as_deref(), &op)]
    }

    fn quote(&mut self, instrument: &Instrument, market: &MarketQuote, now_ms: u64) -> Vec<String> {
        let name = instrument.name.as_str();
        let MarketQuote { last, bid, ask, sequence } = market;
        let mut frames = Vec::new();
        if self.tickers.next_is_snapshot(name).is_some() {
            frames.push(format!(
                r#"{{"topic":"tickers.{name}","ts":{now_ms},"type":"snapshot","cs":{sequence},"data":{{"symbol":"{name}","lastPrice":"{last}","highPrice24h":"{last}","lowPrice24h":"{last}","prevPrice24h":"{last}","volume24h":"1","turnover24h":"1","price24hPcnt":"0","usdIndexPrice":"{last}"}}}}"#
            ));
        }
        if self.book.next_is_snapshot(name).is_some() {
            frames.push(format!(
                r#"{{"topic":"orderbook.1.{name}","ts":{now_ms},"type":"snapshot","data":{{"s":"{name}","b":[["{bid}","0.885797"]],"a":[["{ask}","0.09948"]],"u":{sequence},"seq":{sequence}}},"cts":{now_ms}}}"#
            ));
        }
        frames
    }

    fn heartbeat(&mut self, _now_ms: u64) -> Vec<String> {
        Vec::new()
    }

    fn heartbeat_every_ms(&self) -> u64 {
        0
    }

    fn must_close(&self, now_ms: u64) -> Option<u16> {
        (now_ms.saturating_sub(self.heard_ms) >= IDLE_MS_MAX).then_some(DROPPED)
    }

    fn subscriptions(&self) -> usize {
        self.tickers.len().max(self.book.len())
    }
}

/// The REST interface of a simulated Bybit.
#[derive(Clone, Copy, Debug, Default)]
pub struct BybitRest;

impl RestSimulator for BybitRest {
    fn venue(&self) -> Venue {
        Venue::Bybit
    }

    fn get(&self, path_and_query: &str, listed: &[Instrument], markets: &[MarketQuote], now_ms: u64) -> (u16, String) {
        let query = Query::parse(path_and_query);
        if !matches!(query.path, "/v5/market/instruments-info" | "/v5/market/tickers") {
            return (404, "404 page not found".to_owned());
        }
        if query.get("category") != Some("spot") {
            return refusal("Illegal category", now_ms);
        }
        let symbol = query.get("symbol");
        let asked = |it: &Instrument| symbol.is_none_or(|symbol| it.name == symbol);
        let rows: Vec<String> = if query.path == "/v5/market/instruments-info" {
            listed.iter().filter(|it| asked(it)).map(instrument_row).collect()
        } else {
            let rows = listed.iter().zip(markets).filter(|(it, _)| it.trading && asked(it));
            rows.map(|(it, market)| ticker_row(&it.name, market)).collect()
        };
        if symbol.is_some() && rows.is_empty() {
            return refusal("Not supported symbols", now_ms);
        }
        let rows = rows.join(",");
        let body = format!(
            r#"{{"retCode":0,"retMsg":"OK","result":{{"category":"spot","list":[{rows}]}},"retExtInfo":{{}},"time":{now_ms}}}"#
        );
        (200, body)
    }
}

/// A refusal: HTTP 200, and an empty result.
fn refusal(message: &str, now_ms: u64) -> (u16, String) {
    let body = format!(r#"{{"retCode":10001,"retMsg":"{message}","result":{{}},"retExtInfo":{{}},"time":{now_ms}}}"#);
    (200, body)
}

fn instrument_row(instrument: &Instrument) -> String {
    let Instrument { name, base, quote, trading, .. } = instrument;
    let status = if *trading { "Trading" } else { "Closed" };
    format!(
        r#"{{"symbol":"{name}","baseCoin":"{base}","quoteCoin":"{quote}","innovation":"0","status":"{status}","marginTrading":"none","stTag":"0","priceFilter":{{"tickSize":"0.01"}}}}"#
    )
}

fn ticker_row(name: &str, market: &MarketQuote) -> String {
    let MarketQuote { last, bid, ask, .. } = market;
    format!(
        r#"{{"symbol":"{name}","bid1Price":"{bid}","bid1Size":"2","ask1Price":"{ask}","ask1Size":"1.862172","lastPrice":"{last}","prevPrice24h":"{last}","price24hPcnt":"0","highPrice24h":"{last}","lowPrice24h":"{last}","turnover24h":"1","volume24h":"1","usdIndexPrice":"{last}"}}"#
    )
}

#[cfg(test)]
mod tests;
