//! A simulated Kraken: the `ticker` channel of WebSocket v2, the pair list and REST `Ticker`.

use super::query::Query;
use super::subscriptions::{Subscriptions, offered};
use super::{MarketQuote, RestSimulator, VenueSimulator};
use crate::json::{self, Json, quoted};
use crate::protocol::Instrument;
use crate::timestamp::rfc3339_text;
use shared::venue::Venue;

/// One client connection to a simulated Kraken.
#[derive(Debug, Default)]
pub struct KrakenSimulator {
    tickers: Subscriptions,
}

impl VenueSimulator for KrakenSimulator {
    fn venue(&self) -> Venue {
        Venue::Kraken
    }

    /// Real connection ids are above 2^63.
    fn greeting(&mut self, _now_ms: u64) -> Vec<String> {
        vec![
            r#"{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online","api_version":"v2","connection_id":16174536464690282295,"upcoming_maintenance":[],"emergency":[]}]}"#
                .to_owned(),
        ]
    }

    fn receive(&mut self, text: &str, listed: &[Instrument], refused: &[String], now_ms: u64) -> Vec<String> {
        let times = times(now_ms);
        let Ok(root) = json::parse(text.as_bytes()) else {
            return vec![format!(r#"{{"error":"Malformed request","success":false,{times}}}"#)];
        };
        let [method, params, request] = root.pick(["method", "params", "req_id"]);
        let method = method.and_then(|method| method.text()).unwrap_or_default();
        let request = request.and_then(|request| request.whole());
        let request = request.map(|request| format!(r#","req_id":{request}"#)).unwrap_or_default();
        let [channel, symbols] = params.map_or([None, None], |params| params.pick(["channel", "symbol"]));
        let channel = channel.and_then(|channel| channel.text()).unwrap_or_default();
        let refuse = |error: &str, symbol: &str| {
            let error = quoted(error);
            format!(r#"{{"error":{error},"method":"{method}"{request},"success":false{symbol},{times}}}"#)
        };
        match method.as_ref() {
            "ping" => return vec![format!(r#"{{"method":"pong"{request},{times}}}"#)],
            "subscribe" | "unsubscribe" if channel == "ticker" => {}
            "subscribe" | "unsubscribe" => return vec![refuse("Subscription channel not supported", "")],
            _ => return vec![format!(r#"{{"error":"Unsupported method","success":false{request},{times}}}"#)],
        }
        // Every symbol is answered by itself.
        let symbols = symbols.iter().flat_map(Json::items).filter_map(|symbol| Some(symbol.text()?.into_owned()));
        symbols
            .map(|symbol| {
                let name = quoted(&symbol);
                let done = match method.as_ref() {
                    "subscribe" => offered(listed, refused, &symbol).is_some() && self.tickers.add(&symbol),
                    _ => self.tickers.remove(&symbol),
                };
                if !done {
                    let error = format!("Currency pair not supported {symbol}");
                    return refuse(&error, &format!(r#","symbol":{name}"#));
                }
                format!(
                    r#"{{"method":"{method}","result":{{"channel":"ticker","event_trigger":"bbo","snapshot":true,"symbol":{name}}}{request},"success":true,{times}}}"#
                )
            })
            .collect()
    }

    fn quote(&mut self, instrument: &Instrument, market: &MarketQuote, now_ms: u64) -> Vec<String> {
        let Some(snapshot) = self.tickers.next_is_snapshot(&instrument.name) else {
            return Vec::new();
        };
        let kind = if snapshot { "snapshot" } else { "update" };
        let (name, time) = (&instrument.name, rfc3339_text(now_ms, 6));
        let MarketQuote { last, bid, ask, .. } = market;
        vec![format!(
            r#"{{"channel":"ticker","type":"{kind}","data":[{{"symbol":"{name}","bid":{bid},"bid_qty":329.06250000,"ask":{ask},"ask_qty":0.00044780,"last":{last},"volume":9095630.20903971,"vwap":{last},"low":{bid},"high":{ask},"change":-0.51,"change_pct":-0.51,"trades":4606,"timestamp":"{time}"}}]}}"#
        )]
    }

    /// Nothing is said before anything is subscribed.
    fn heartbeat(&mut self, _now_ms: u64) -> Vec<String> {
        if self.tickers.is_empty() { Vec::new() } else { vec![r#"{"channel":"heartbeat"}"#.to_owned()] }
    }

    fn heartbeat_every_ms(&self) -> u64 {
        1_000
    }

    fn subscriptions(&self) -> usize {
        self.tickers.len()
    }
}

/// The times that close every answer.
fn times(now_ms: u64) -> String {
    let time = rfc3339_text(now_ms, 6);
    format!(r#""time_in":"{time}","time_out":"{time}""#)
}

/// The REST interface of a simulated Kraken: always HTTP 200.
#[derive(Debug, Default)]
pub struct KrakenRest;

impl RestSimulator for KrakenRest {
    fn venue(&self) -> Venue {
        Venue::Kraken
    }

    fn get(&self, path_and_query: &str, listed: &[Instrument], markets: &[MarketQuote], _now_ms: u64) -> (u16, String) {
        let query = Query::parse(path_and_query);
        let result = match query.path {
            "/0/public/AssetPairs" => Ok(listed.iter().map(pair).collect()),
            "/0/public/Ticker" => tickers(query.get("pair"), listed, markets),
            _ => Err("EGeneral:Unknown method"),
        };
        match result {
            Ok(entries) => (200, format!(r#"{{"error":[],"result":{{{}}}}}"#, entries.join(","))),
            Err(error) => (200, format!(r#"{{"error":["{error}"]}}"#)),
        }
    }
}

/// The assets' names of old, which REST still uses.
fn old_name(asset: &str) -> &str {
    match asset {
        "BTC" => "XBT",
        "DOGE" => "XDG",
        asset => asset,
    }
}

/// An entry of the pair list.
fn pair(instrument: &Instrument) -> String {
    let (base, quote) = (old_name(instrument.base.as_str()), old_name(instrument.quote.as_str()));
    let status = if instrument.trading { "online" } else { "cancel_only" };
    format!(
        r#""{}":{{"altname":"{base}{quote}","wsname":"{base}/{quote}","aclass_base":"currency","base":"{base}","aclass_quote":"currency","quote":"{quote}","lot":"unit","status":"{status}"}}"#,
        instrument.rest_name
    )
}

/// The tickers of the pairs named in `asked`, by canonical or short name; one that is unknown fails them all.
fn tickers(asked: Option<&str>, listed: &[Instrument], markets: &[MarketQuote]) -> Result<Vec<String>, &'static str> {
    let short = |one: &Instrument| format!("{}{}", old_name(one.base.as_str()), old_name(one.quote.as_str()));
    let ticker = |name: &str| {
        let at = listed.iter().position(|one| one.rest_name == name || short(one) == name);
        let (instrument, market) =
            at.and_then(|at| Some((&listed[at], markets.get(at)?))).ok_or("EQuery:Unknown asset pair")?;
        let MarketQuote { last, bid, ask, .. } = market;
        // A market that only takes cancellations has a book, but no last price.
        let last = if instrument.trading { last.to_string() } else { "0.000000000".to_owned() };
        let key = &instrument.rest_name;
        Ok(format!(r#""{key}":{{"a":["{ask}","1","1.000"],"b":["{bid}","2","2.000"],"c":["{last}","0.00802897"]}}"#))
    };
    asked.ok_or("EGeneral:Invalid arguments")?.split(',').map(ticker).collect()
}
