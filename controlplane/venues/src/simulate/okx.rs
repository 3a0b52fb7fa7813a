//! OKX's side: every argument is answered by itself, `ping` gets `pong`, half a minute of silence ends the connection.

use super::market::MarketQuote;
use super::query::Query;
use super::subscriptions::{Subscriptions, offered};
use super::{RestSimulator, VenueSimulator};
use crate::json::{self, Json, quoted};
use crate::okx::{OPERATIONS_PER_HOUR, PING, PONG};
use crate::protocol::Instrument;
use shared::venue::Venue;

/// Silence after which the connection is closed.
const IDLE_MS_MAX: u64 = 30_000;
/// "No data received in 30s".
const CLOSED: u16 = 4_004;
/// The span in which operations are counted.
const HOUR_MS: u64 = 3_600_000;

/// One client's connection to a simulated OKX.
#[derive(Debug, Default)]
pub struct OkxSimulator {
    subscriptions: Subscriptions,
    connected_ms: u64,
    active_ms: u64,
    /// The hour (since the connection was made) that `operations` counts.
    hour: u64,
    operations: usize,
}

impl OkxSimulator {
    /// A connection that is about to be made.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn error(&self, id: &str, code: &str, message: &str) -> String {
        let message = quoted(message);
        format!(r#"{{{id}"event":"error","msg":{message},"code":"{code}","connId":"{}"}}"#, self.connection())
    }

    fn connection(&self) -> String {
        format!("{:08x}", self.connected_ms & 0xffff_ffff)
    }

    /// Whether the hour has room for one more operation.
    fn count_operation(&mut self, now_ms: u64) -> bool {
        let hour = now_ms.saturating_sub(self.connected_ms) / HOUR_MS;
        if hour != self.hour {
            (self.hour, self.operations) = (hour, 0);
        }
        self.operations += 1;
        self.operations <= OPERATIONS_PER_HOUR
    }

    /// The answer to one argument of a request.
    fn argument(&mut self, id: &str, op: &str, arg: &Json<'_>, is_offered: impl Fn(&str) -> bool) -> String {
        let [channel, name] = arg.pick(["channel", "instId"]).map(|field| field.and_then(|field| field.text()));
        let (channel, name) = (channel.unwrap_or_default(), name.unwrap_or_default());
        if channel != "tickers" || !is_offered(&name) {
            let message = format!(
                "Wrong URL or channel:{channel},instId:{name} doesn't exist. Please use the correct URL, channel and parameters referring to API document."
            );
            return self.error(id, "60018", &message);
        }
        if op == "subscribe" {
            self.subscriptions.add(&name);
        } else {
            self.subscriptions.remove(&name);
        }
        let name = quoted(&name);
        format!(
            r#"{{{id}"event":"{op}","arg":{{"channel":"tickers","instId":{name}}},"connId":"{}"}}"#,
            self.connection()
        )
    }
}

impl VenueSimulator for OkxSimulator {
    fn venue(&self) -> Venue {
        Venue::Okx
    }

    fn greeting(&mut self, now_ms: u64) -> Vec<String> {
        (self.connected_ms, self.active_ms) = (now_ms, now_ms);
        Vec::new()
    }

    fn receive(&mut self, text: &str, listed: &[Instrument], refused: &[String], now_ms: u64) -> Vec<String> {
        self.active_ms = now_ms;
        if text == PING {
            return vec![PONG.to_owned()];
        }
        let invalid = |simulator: &Self| vec![simulator.error("", "60012", &format!("Invalid request: {text}"))];
        let Ok(request) = json::parse(text.as_bytes()) else { return invalid(self) };
        let [id, op, args] = request.pick(["id", "op", "args"]);
        let id = id.and_then(|id| id.text()).map(|id| format!(r#""id":{},"#, quoted(&id))).unwrap_or_default();
        let (Some(op), Some(args)) = (op.and_then(|op| op.text()), args) else { return invalid(self) };
        if !matches!(op.as_ref(), "subscribe" | "unsubscribe") {
            return invalid(self);
        }
        if !self.count_operation(now_ms) {
            return vec![self.error(&id, "60014", "Requests too frequent")];
        }
        let is_offered = |name: &str| offered(listed, refused, name).is_some();
        args.items().map(|arg| self.argument(&id, &op, &arg, is_offered)).collect()
    }

    fn quote(&mut self, instrument: &Instrument, market: &MarketQuote, now_ms: u64) -> Vec<String> {
        let name = instrument.name.as_str();
        if self.subscriptions.next_is_snapshot(name).is_none() {
            return Vec::new();
        }
        self.active_ms = now_ms;
        let row = ticker_row(name, market, now_ms);
        vec![format!(r#"{{"arg":{{"channel":"tickers","instId":"{name}"}},"data":[{row}]}}"#)]
    }

    fn heartbeat(&mut self, _now_ms: u64) -> Vec<String> {
        Vec::new()
    }

    fn heartbeat_every_ms(&self) -> u64 {
        0
    }

    fn must_close(&self, now_ms: u64) -> Option<u16> {
        (now_ms.saturating_sub(self.active_ms) >= IDLE_MS_MAX).then_some(CLOSED)
    }

    fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }
}

/// The REST interface of a simulated OKX.
#[derive(Clone, Copy, Debug, Default)]
pub struct OkxRest;

impl RestSimulator for OkxRest {
    fn venue(&self) -> Venue {
        Venue::Okx
    }

    fn get(&self, path_and_query: &str, listed: &[Instrument], markets: &[MarketQuote], now_ms: u64) -> (u16, String) {
        let query = Query::parse(path_and_query);
        let rows = listed.iter().zip(markets).filter(|(it, _)| it.trading);
        match (query.path, query.get("instType"), query.get("instId")) {
            ("/api/v5/public/instruments", Some("SPOT"), _) => answer(listed.iter().map(instrument_row)),
            ("/api/v5/market/tickers", Some("SPOT"), _) => {
                answer(rows.map(|(it, market)| ticker_row(&it.name, market, now_ms)))
            }
            ("/api/v5/market/ticker", _, Some(name)) => match rows.into_iter().find(|(it, _)| it.name == name) {
                Some((it, market)) => answer([ticker_row(&it.name, market, now_ms)].into_iter()),
                None => refusal("51001", "Instrument ID, Instrument ID code, or Spread ID doesn't exist."),
            },
            ("/api/v5/public/instruments" | "/api/v5/market/tickers", ..) => {
                refusal("51000", "Parameter instType error")
            }
            ("/api/v5/market/ticker", ..) => refusal("50014", "Parameter instId can not be empty."),
            _ => (404, r#"{"msg":"Not Found","code":"404","data":[]}"#.to_owned()),
        }
    }
}

fn answer(rows: impl Iterator<Item = String>) -> (u16, String) {
    (200, format!(r#"{{"code":"0","msg":"","data":[{}]}}"#, rows.collect::<Vec<_>>().join(",")))
}

/// A refusal: HTTP 200.
fn refusal(code: &str, message: &str) -> (u16, String) {
    (200, format!(r#"{{"code":"{code}","data":[],"msg":"{message}"}}"#))
}

fn instrument_row(instrument: &Instrument) -> String {
    let Instrument { name, base, quote, trading, .. } = instrument;
    let state = if *trading { "live" } else { "suspend" };
    format!(
        r#"{{"instType":"SPOT","instId":"{name}","baseCcy":"{base}","quoteCcy":"{quote}","tickSz":"0.1","lotSz":"0.00000001","state":"{state}"}}"#
    )
}

fn ticker_row(name: &str, market: &MarketQuote, now_ms: u64) -> String {
    let MarketQuote { last, bid, ask, .. } = market;
    format!(
        r#"{{"instType":"SPOT","instId":"{name}","last":"{last}","lastSz":"0.0000102","askPx":"{ask}","askSz":"0.25697131","bidPx":"{bid}","bidSz":"0.65302934","open24h":"{last}","high24h":"{last}","low24h":"{last}","sodUtc0":"{last}","sodUtc8":"{last}","volCcy24h":"1","vol24h":"1","ts":"{now_ms}"}}"#
    )
}

#[cfg(test)]
mod tests;
