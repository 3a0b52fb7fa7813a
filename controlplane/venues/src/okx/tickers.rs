//! OKX's REST lists: instruments and tickers. Errors come with HTTP 200 and a `code` other than `"0"`.

use super::TICKER_FIELDS;
use crate::json::Json;
use crate::protocol::{Instrument, RestRequest, VenueEvent};
use crate::rest::{self, TickerList};

/// "Instrument ID doesn't exist". Too many requests are 50011.
const UNKNOWN_INSTRUMENT: u64 = 51_001;

const LIST: TickerList = TickerList {
    reasons: &["msg"],
    refusal: |answer| rest::refusal_by_code(answer, "code", UNKNOWN_INSTRUMENT),
    rows_name: "data",
    rows: |answer| answer.get("data"),
    name: "instId",
};

/// The request for the present prices of `instruments`.
pub(super) fn request(instruments: &[&Instrument]) -> RestRequest {
    rest::one_or_all(instruments, "/api/v5/market/ticker?instId=", "/api/v5/market/tickers?instType=SPOT")
}

/// Reads `/api/v5/market/ticker` and `/api/v5/market/tickers`.
pub(super) fn decode(status: u16, body: &[u8], asked: &[&Instrument], sink: &mut dyn FnMut(VenueEvent<'_>)) {
    let read = |row: &Json<'_>, _: &Json<'_>, asked: &Instrument| TICKER_FIELDS.quote(row, (asked.base, asked.quote));
    LIST.tell((status, body), asked, read, sink);
}

/// Reads `/api/v5/public/instruments`.
pub(super) fn decode_instruments(status: u16, body: &[u8]) -> Result<Vec<Instrument>, String> {
    let answer = rest::list_body(status, body, LIST.reasons)?;
    let rows = (LIST.rows)(&answer).ok_or_else(|| rest::refusal(status, body, LIST.reasons))?;
    // Others: suspend, preopen, test.
    let read =
        |row: &Json<'_>| rest::instrument(row, ["instId", "baseCcy", "quoteCcy"], rest::says(row, "state", "live"));
    rest::instruments(rows.items(), read)
}
