//! Gate.io's REST lists: instruments and tickers. Rows have no time of their own.

use super::TICKER_FIELDS;
use crate::json::Json;
use crate::protocol::{Instrument, RestRequest, VenueEvent};
use crate::rest::{self, TickerList};

const LIST: TickerList = TickerList {
    reasons: &["message", "label"],
    refusal: |answer| {
        // INVALID_CURRENCY or INVALID_CURRENCY_PAIR; a delisted pair has one of them too.
        answer.get("label").map(|label| label.text().is_some_and(|label| label.starts_with("INVALID_CURRENCY")))
    },
    rows_name: "the body",
    rows: |answer| Some(answer.clone()),
    name: "currency_pair",
};

/// The request for the present prices of `instruments`.
pub(super) fn request(instruments: &[&Instrument]) -> RestRequest {
    rest::one_or_all(instruments, "/spot/tickers?currency_pair=", "/spot/tickers")
}

/// Reads `/spot/tickers`.
pub(super) fn decode(status: u16, body: &[u8], asked: &[&Instrument], sink: &mut dyn FnMut(VenueEvent<'_>)) {
    let read = |row: &Json<'_>, _: &Json<'_>, asked: &Instrument| TICKER_FIELDS.quote(row, (asked.base, asked.quote));
    LIST.tell((status, body), asked, read, sink);
}

/// Reads `/spot/currency_pairs`.
pub(super) fn decode_instruments(status: u16, body: &[u8]) -> Result<Vec<Instrument>, String> {
    let list = rest::list_body(status, body, LIST.reasons)?;
    // Others: untradable, buyable, sellable.
    let read =
        |row: &Json<'_>| rest::instrument(row, ["id", "base", "quote"], rest::says(row, "trade_status", "tradable"));
    rest::instruments(list.items(), read)
}
