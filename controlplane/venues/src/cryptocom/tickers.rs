//! Crypto.com's REST lists: instruments and tickers. A refusal is HTTP 400 with a `code`.

use super::TICKER_FIELDS;
use crate::json::Json;
use crate::protocol::{Instrument, RestRequest, VenueEvent};
use crate::rest::{self, TickerList};

/// "Missing or invalid argument": the only argument we send is the instrument's name. Too many requests are 42901.
const INVALID_ARGUMENT: u64 = 40_004;

const LIST: TickerList = TickerList {
    reasons: &["message", "error"],
    refusal: |answer| rest::refusal_by_code(answer, "code", INVALID_ARGUMENT),
    rows_name: "result.data",
    rows: |answer| answer.get("result")?.get("data"),
    name: "i",
};

/// The request for the present prices of `instruments`.
pub(super) fn request(instruments: &[&Instrument]) -> RestRequest {
    rest::one_or_all(instruments, "/public/get-tickers?instrument_name=", "/public/get-tickers")
}

/// Reads `public/get-tickers`.
pub(super) fn decode(status: u16, body: &[u8], asked: &[&Instrument], sink: &mut dyn FnMut(VenueEvent<'_>)) {
    let read = |row: &Json<'_>, _: &Json<'_>, asked: &Instrument| TICKER_FIELDS.quote(row, (asked.base, asked.quote));
    LIST.tell((status, body), asked, read, sink);
}

/// Reads `public/get-instruments`: of all kinds of instruments the spot pairs that are named after what they trade
/// (`SHIB_BTC@OEX_HK` is a book of another house).
pub(super) fn decode_instruments(status: u16, body: &[u8]) -> Result<Vec<Instrument>, String> {
    let answer = rest::list_body(status, body, LIST.reasons)?;
    let rows = (LIST.rows)(&answer).ok_or_else(|| rest::refusal(status, body, LIST.reasons))?;
    rest::instruments(rows.items(), |row| {
        let trading = row.get("tradable").and_then(|tradable| tradable.flag()) != Some(false);
        let found = rest::instrument(row, ["symbol", "base_ccy", "quote_ccy"], trading)?;
        let named_so = found.name == format!("{}_{}", found.base, found.quote);
        (named_so && rest::says(row, "inst_type", "CCY_PAIR")).then_some(found)
    })
}
