//! Bybit's REST lists: instruments (spot has them on one page) and tickers, which do have bid and ask.

use crate::fields::{Fields, time_ms};
use crate::json::Json;
use crate::protocol::{Instrument, RestRequest, VenueEvent, VenueQuote};
use crate::rest::{self, TickerList};

/// "Not supported symbols", with HTTP 200. Too many requests are 10006, or HTTP 403.
const UNKNOWN_SYMBOL: u64 = 10_001;

const LIST: TickerList = TickerList {
    reasons: &["retMsg"],
    refusal: |answer| rest::refusal_by_code(answer, "retCode", UNKNOWN_SYMBOL),
    rows_name: "result.list",
    rows: |answer| answer.get("result")?.get("list"),
    name: "symbol",
};

const ROW_FIELDS: Fields =
    Fields { last: Some("lastPrice"), bid: Some("bid1Price"), ask: Some("ask1Price"), time: None };

/// The request for the present prices of `instruments`.
pub(super) fn request(instruments: &[&Instrument]) -> RestRequest {
    rest::one_or_all(instruments, "/v5/market/tickers?category=spot&symbol=", "/v5/market/tickers?category=spot")
}

/// Reads `/v5/market/tickers`. The only time is the envelope's.
pub(super) fn decode(status: u16, body: &[u8], asked: &[&Instrument], sink: &mut dyn FnMut(VenueEvent<'_>)) {
    let read = |row: &Json<'_>, answer: &Json<'_>, asked: &Instrument| {
        let exchange_time_ms = time_ms("time", answer.get("time").as_ref())?;
        Ok(VenueQuote { exchange_time_ms, ..ROW_FIELDS.quote(row, (asked.base, asked.quote))? })
    };
    LIST.tell((status, body), asked, read, sink);
}

/// Reads `/v5/market/instruments-info`.
pub(super) fn decode_instruments(status: u16, body: &[u8]) -> Result<Vec<Instrument>, String> {
    let answer = rest::list_body(status, body, LIST.reasons)?;
    let rows = (LIST.rows)(&answer).ok_or_else(|| rest::refusal(status, body, LIST.reasons))?;
    rest::instruments(rows.items(), |row| {
        rest::instrument(row, ["symbol", "baseCoin", "quoteCoin"], rest::says(row, "status", "Trading"))
    })
}
