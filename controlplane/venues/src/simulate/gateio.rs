//! Gate.io's side: one unknown pair refuses its whole frame, pings are answered, silence ends in a dropped connection.

use super::market::MarketQuote;
use super::query::Query;
use super::subscriptions::{Subscriptions, offered};
use super::{RestSimulator, VenueSimulator};
use crate::gateio::{BOOK_TICKER, TICKERS};
use crate::json::{self, Json, quoted};
use crate::protocol::Instrument;
use shared::venue::Venue;
use std::collections::BTreeMap;

/// Least time between two `spot.tickers` frames of a pair.
const TICKERS_EVERY_MS: u64 = 1_000;
/// Silence after which a connection without subscriptions, and one with some, is dropped.
const IDLE_MS_MAX: [u64; 2] = [30_000, 60_000];
/// "Closed abnormally": the connection goes without a close frame.
const DROPPED: u16 = 1_006;

/// One client's connection to a simulated Gate.io.
#[derive(Debug, Default)]
pub struct GateioSimulator {
    book_ticker: Subscriptions,
    tickers: Subscriptions,
    /// When each pair's last `spot.tickers` frame went, Unix ms.
    ticker_sent_ms: BTreeMap<String, u64>,
    connected_ms: u64,
    active_ms: u64,
}

impl GateioSimulator {
    /// A connection that is about to be made.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn subscriptions_of(&mut self, channel: &str) -> Option<&mut Subscriptions> {
        match channel {
            BOOK_TICKER => Some(&mut self.book_ticker),
            TICKERS => Some(&mut self.tickers),
            _ => None,
        }
    }

    /// The opening fields of every answer, `id` if the client sent one.
    fn opening(&self, id: Option<u64>, now_ms: u64) -> String {
        let id = id.map(|id| format!(r#","id":{id}"#)).unwrap_or_default();
        format!(
            r#""time":{},"time_ms":{now_ms},"conn_id":"{:016x}","trace_id":"{now_ms:032x}"{id}"#,
            now_ms / 1_000,
            self.connected_ms
        )
    }

    fn answer(&mut self, request: &Json<'_>, listed: &[Instrument], refused: &[String], now_ms: u64) -> String {
        let [id, channel, event, payload] = request.pick(["id", "channel", "event", "payload"]);
        let text = |field: Option<Json<'_>>| field.and_then(|field| field.text().map(String::from)).unwrap_or_default();
        let (channel, event) = (text(channel), text(event));
        let opening = self.opening(id.and_then(|id| id.whole()), now_ms);
        if channel == "spot.ping" {
            return format!(r#"{{{opening},"channel":"spot.pong","event":"","result":null}}"#);
        }
        let names: Vec<String> =
            payload.iter().flat_map(Json::items).filter_map(|name| name.text().map(String::from)).collect();
        let echo = format!(
            r#"{opening},"channel":{},"event":{},"payload":{}"#,
            quoted(&channel),
            quoted(&event),
            json::quoted_list(&names)
        );
        match self.apply(&channel, &event, &names, |name| offered(listed, refused, name).is_some()) {
            Ok(()) => format!(r#"{{{echo},"result":{{"status":"success"}}}}"#),
            Err((code, message)) => {
                let message = quoted(&message);
                format!(r#"{{{echo},"error":{{"code":{code},"message":{message}}},"result":{{"status":"fail"}}}}"#)
            }
        }
    }

    /// Subscribes all names or none.
    fn apply(
        &mut self,
        channel: &str,
        event: &str,
        names: &[String],
        is_offered: impl Fn(&str) -> bool,
    ) -> Result<(), (u8, String)> {
        let Some(subscriptions) = self.subscriptions_of(channel) else {
            return Err((2, format!("Unknown channel {channel}")));
        };
        if names.is_empty() {
            return Err((1, "request payload does not follow json schema".to_owned()));
        }
        match event {
            "subscribe" => {
                if let Some(unknown) = names.iter().find(|name| !is_offered(name)) {
                    return Err((2, format!("unknown currency pair: {unknown}")));
                }
                names.iter().for_each(|name| _ = subscriptions.add(name));
            }
            "unsubscribe" => names.iter().for_each(|name| _ = subscriptions.remove(name)),
            _ => return Err((2, format!("Unknown event {event}"))),
        }
        Ok(())
    }
}

impl VenueSimulator for GateioSimulator {
    fn venue(&self) -> Venue {
        Venue::Gateio
    }

    fn greeting(&mut self, now_ms: u64) -> Vec<String> {
        (self.connected_ms, self.active_ms) = (now_ms, now_ms);
        Vec::new()
    }

    fn receive(&mut self, text: &str, listed: &[Instrument], refused: &[String], now_ms: u64) -> Vec<String> {
        self.active_ms = now_ms;
        match json::parse(text.as_bytes()) {
            Ok(request) if request.is_object() => vec![self.answer(&request, listed, refused, now_ms)],
            _ => {
                let opening = self.opening(None, now_ms);
                vec![format!(
                    r#"{{{opening},"channel":"","event":"","error":{{"code":1,"message":"invalid request body"}},"result":null}}"#
                )]
            }
        }
    }

    fn quote(&mut self, instrument: &Instrument, market: &MarketQuote, now_ms: u64) -> Vec<String> {
        let (name, seconds) = (instrument.name.as_str(), now_ms / 1_000);
        let MarketQuote { bid, ask, sequence, .. } = market;
        let mut frames = Vec::new();
        if self.book_ticker.next_is_snapshot(name).is_some() {
            frames.push(format!(
                r#"{{"time":{seconds},"time_ms":{now_ms},"channel":"spot.book_ticker","event":"update","result":{{"t":{now_ms},"u":{sequence},"s":"{name}","b":"{bid}","B":"0.497321","a":"{ask}","A":"0.055894"}}}}"#
            ));
        }
        let sent_ms = self.ticker_sent_ms.get(name).copied();
        let due = sent_ms.is_none_or(|sent_ms| now_ms.saturating_sub(sent_ms) >= TICKERS_EVERY_MS);
        if due && self.tickers.next_is_snapshot(name).is_some() {
            self.ticker_sent_ms.insert(name.to_owned(), now_ms);
            let ticker = ticker_row(name, market);
            frames.push(format!(
                r#"{{"time":{seconds},"time_ms":{now_ms},"channel":"spot.tickers","event":"update","result":{ticker}}}"#
            ));
        }
        if !frames.is_empty() {
            self.active_ms = now_ms;
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
        let idle_ms_max = IDLE_MS_MAX[usize::from(self.subscriptions() > 0)];
        (now_ms.saturating_sub(self.active_ms) >= idle_ms_max).then_some(DROPPED)
    }

    fn subscriptions(&self) -> usize {
        self.book_ticker.len().max(self.tickers.len())
    }
}

fn ticker_row(name: &str, market: &MarketQuote) -> String {
    let MarketQuote { last, bid, ask, .. } = market;
    format!(
        r#"{{"currency_pair":"{name}","last":"{last}","lowest_ask":"{ask}","highest_bid":"{bid}","change_percentage":"0","base_volume":"1","quote_volume":"1","high_24h":"{last}","low_24h":"{last}"}}"#
    )
}

/// The REST interface of a simulated Gate.io.
#[derive(Clone, Copy, Debug, Default)]
pub struct GateioRest;

impl RestSimulator for GateioRest {
    fn venue(&self) -> Venue {
        Venue::Gateio
    }

    fn get(&self, path_and_query: &str, listed: &[Instrument], markets: &[MarketQuote], _now_ms: u64) -> (u16, String) {
        let query = Query::parse(path_and_query);
        let rows = listed.iter().zip(markets);
        match (query.path.strip_prefix("/api/v4").unwrap_or(query.path), query.get("currency_pair")) {
            ("/spot/currency_pairs", _) => (200, array(listed.iter().map(pair_row))),
            ("/spot/tickers", None) => {
                (200, array(rows.filter(|(it, _)| it.trading).map(|(it, market)| ticker_row(&it.name, market))))
            }
            ("/spot/tickers", Some(name)) => match rows.into_iter().find(|(it, _)| it.name == name) {
                Some((it, _)) if !it.trading => error("INVALID_CURRENCY", &format!("currency {} is delisted", it.base)),
                Some((it, market)) => (200, array([ticker_row(&it.name, market)].into_iter())),
                None => match name.split_once('_') {
                    Some((base, _)) => error("INVALID_CURRENCY", &format!("Invalid currency {base}")),
                    None => error("INVALID_CURRENCY_PAIR", &format!("Invalid currency pair {name}")),
                },
            },
            _ => (404, r#"{"label":"URL_NOT_FOUND","message":"404 NOT FOUND"}"#.to_owned()),
        }
    }
}

fn array(rows: impl Iterator<Item = String>) -> String {
    format!("[{}]", rows.collect::<Vec<_>>().join(","))
}

fn error(label: &str, message: &str) -> (u16, String) {
    (400, format!(r#"{{"label":"{label}","message":{}}}"#, quoted(message)))
}

fn pair_row(instrument: &Instrument) -> String {
    let Instrument { name, base, quote, trading, .. } = instrument;
    let status = if *trading { "tradable" } else { "untradable" };
    format!(
        r#"{{"id":"{name}","base":"{base}","base_name":"{base}","quote":"{quote}","quote_name":"{quote}","fee":"0.2","min_quote_amount":"3","amount_precision":6,"precision":8,"trade_status":"{status}","sell_start":0,"buy_start":0,"type":"normal"}}"#
    )
}

#[cfg(test)]
mod tests;
