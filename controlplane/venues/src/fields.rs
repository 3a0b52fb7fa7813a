//! Where a venue's row has its prices and its time: what ticker and trade rows of all venues have in common.
//!
//! A table of field names makes a quote of a row. This file knows no venue.

use crate::frame::with_a_price;
use crate::json::{Fault, Json, price_zero_absent};
use crate::protocol::VenueQuote;
use shared::asset::Symbol;
use shared::quote::Field;

/// The names of the fields of a row; `None` where rows of its kind have no such field.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// Price of the last trade.
    pub last: Option<&'static str>,
    /// Highest buy order.
    pub bid: Option<&'static str>,
    /// Lowest sell order.
    pub ask: Option<&'static str>,
    /// The venue's time, Unix ms.
    pub time: Option<&'static str>,
}

impl Fields {
    /// The fields of a trade.
    #[must_use]
    pub const fn trade(price: &'static str, time: &'static str) -> Self {
        Self { last: Some(price), bid: None, ask: None, time: Some(time) }
    }

    /// The quote of `row`, which is one of a pair's `symbols`. No order is traded at zero, so zero is no price.
    ///
    /// # Errors
    /// A price or a time that is none, or no price field at all.
    pub fn quote(&self, row: &Json<'_>, symbols: (Symbol, Symbol)) -> Result<VenueQuote, Fault> {
        let [last, bid, ask, time] = row.pick(self.names().map(Option::unwrap_or_default));
        let quote = VenueQuote {
            last: price(self.last, last)?,
            bid: price(self.bid, bid)?,
            ask: price(self.ask, ask)?,
            exchange_time_ms: match self.time {
                Some(name) => time_ms(name, time.as_ref())?,
                None => None,
            },
            ..unchanged(symbols)
        };
        with_a_price(quote, self.names().into_iter().flatten().next().unwrap_or_default())
    }

    const fn names(&self) -> [Option<&'static str>; 4] {
        [self.last, self.bid, self.ask, self.time]
    }
}

fn price(name: Option<&'static str>, value: Option<Json<'_>>) -> Result<Field, Fault> {
    name.map_or(Ok(Field::Unchanged), |name| price_zero_absent(name, value.as_ref()))
}

/// A quote that speaks of nothing yet.
#[must_use]
pub const fn unchanged((base, quote): (Symbol, Symbol)) -> VenueQuote {
    VenueQuote {
        base,
        quote,
        snapshot: false,
        last: Field::Unchanged,
        bid: Field::Unchanged,
        ask: Field::Unchanged,
        exchange_time_ms: None,
        sequence: None,
    }
}

/// A time field in Unix ms, bare or in quotes, a fraction cut off; absent, `null` and `""` are no time.
///
/// # Errors
/// `Wrong` when it is something else.
pub fn time_ms(name: &'static str, value: Option<&Json<'_>>) -> Result<Option<u64>, Fault> {
    match value {
        Some(value) if !value.is_null() && value.text().as_deref() != Some("") => {
            value.whole_part().map(Some).ok_or(Fault::Wrong(name, "a time in ms"))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn times_are_whole_milliseconds() {
        let wrong = Err(Fault::Wrong("t", "a time in ms"));
        for (text, expected) in [
            ("1619093532978", Ok(Some(1_619_093_532_978))),
            ("\"1619093543708.2642\"", Ok(Some(1_619_093_543_708))),
            ("\"1619093543708\"", Ok(Some(1_619_093_543_708))),
            ("\"\"", Ok(None)),
            ("null", Ok(None)),
            ("-1", wrong.clone()),
            ("\"soon\"", wrong.clone()),
            ("{}", wrong),
        ] {
            let value = json::parse(text.as_bytes()).expect(text);
            assert_eq!(time_ms("t", Some(&value)), expected, "{text}");
        }
    }

    #[track_caller]
    fn check(fields: Fields, row: &str, expected: &str) {
        let row = json::parse(row.as_bytes()).expect("JSON");
        let symbols = crate::pair::split_at_separator("A-B", '-').expect("a pair");
        let got = match fields.quote(&row, symbols) {
            Ok(quote) => {
                format!("{:?} {:?} {:?} {:?}", quote.last, quote.bid, quote.ask, quote.exchange_time_ms)
            }
            Err(fault) => fault.to_string(),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn a_row_is_read_by_its_table() {
        let ticker = Fields { last: Some("l"), bid: Some("b"), ask: Some("a"), time: None };
        check(ticker, r#"{"l":"1.50","b":1.4,"a":null,"":"9"}"#, "At(1.50) At(1.4) Empty None");
        check(ticker, r#"{"l":"0","b":""}"#, "Empty Empty Unchanged None");
        check(ticker, r#"{"x":"1"}"#, "l is missing");
        check(ticker, r#"{"l":"1","b":"x"}"#, "b: price is not a decimal number");
        check(ticker, r#"{"l":"-1"}"#, "l: price is below zero");
        check(Fields::trade("p", "t"), r#"{"p":2,"t":"3.5","":1}"#, "At(2) Unchanged Unchanged Some(3)");
        check(Fields::trade("p", "t"), r#"{"p":2,"t":[]}"#, "t is not a time in ms");
        check(Fields::trade("p", "t"), r#"{"t":1}"#, "p is missing");
    }
}
