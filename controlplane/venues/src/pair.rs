//! Pair names ↔ base and quote: `BTC-USD`, `BTC_USDT`, `BTC/USD`, `btcusd`.
//!
//! Only spelling. Whether a venue lists the pair, and what an alias means, is known elsewhere.

use shared::asset::Symbol;

/// Base and quote of a name with one `separator` between them; `None` when either is no symbol (`BTC-PERP-INTX`).
#[must_use]
pub fn split_at_separator(name: &str, separator: char) -> Option<(Symbol, Symbol)> {
    let (base, quote) = name.split_once(separator)?;
    Some((Symbol::new(base.as_bytes())?, Symbol::new(quote.as_bytes())?))
}

/// Base and quote of a name without a separator: it ends in one of `quotes` (upper case, the longest first). Upper and
/// lower case alike. `None` when it ends in none of them, or in nothing else.
#[must_use]
pub fn split_at_suffix(name: &str, quotes: &[&str]) -> Option<(Symbol, Symbol)> {
    let symbol = |text: &str| Symbol::new(text.as_bytes());
    quotes.iter().find_map(|quote| {
        let (base, suffix) = name.split_at_checked(name.len().checked_sub(quote.len())?)?;
        suffix.eq_ignore_ascii_case(quote).then(|| Some((symbol(base)?, symbol(quote)?))).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pair: Option<(Symbol, Symbol)>) -> Option<(String, String)> {
        pair.map(|(base, quote)| (base.to_string(), quote.to_string()))
    }

    #[test]
    fn a_separator_splits_once() {
        for (name, separator, expected) in [
            ("BTC-USD", '-', Some(("BTC", "USD"))),
            ("1INCH_USDT", '_', Some(("1INCH", "USDT"))),
            ("BTC-PERP-INTX", '-', None),
            ("BTC", '-', None),
            ("-USD", '-', None),
            ("BTC-", '-', None),
        ] {
            let expected = expected.map(|(base, quote)| (base.to_owned(), quote.to_owned()));
            assert_eq!(texts(split_at_separator(name, separator)), expected, "{name}");
        }
    }

    #[test]
    fn the_longest_suffix_wins() {
        let quotes = ["GUSD", "USDT", "USD"];
        for (name, expected) in [
            ("btcgusd", Some(("BTC", "GUSD"))),
            ("BTCUSDT", Some(("BTC", "USDT"))),
            ("btcusd", Some(("BTC", "USD"))),
            ("usd", None),
            ("btceur", None),
            ("", None),
            ("äusd", None),
        ] {
            let expected = expected.map(|(base, quote)| (base.to_owned(), quote.to_owned()));
            assert_eq!(texts(split_at_suffix(name, &quotes)), expected, "{name}");
        }
    }
}
