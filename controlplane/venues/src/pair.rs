//! Names made of two symbols, such as `BTC_USDT`: what is priced and what the price is in.

use shared::asset::Symbol;

/// The two symbols of a name that `separator` joins. `None` unless there are exactly two, each a symbol: an
/// expiry date, a contract kind or a token with a fancy name makes it something we do not price.
#[must_use]
pub fn split(name: &str, separator: char) -> Option<(Symbol, Symbol)> {
    let (base, quote) = name.split_once(separator)?;
    Some((Symbol::new(base.as_bytes())?, Symbol::new(quote.as_bytes())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_symbols_or_nothing() {
        for (name, separator, expected) in [
            ("BTC_USDT", '_', Some("BTC USDT")),
            ("1INCH-USD", '-', Some("1INCH USD")),
            ("BTC-USD-220527", '-', None),
            ("BTCUSD-PERP", '_', None),
            ("SHIB_BTC@OEX_HK", '_', None),
            ("_USDT", '_', None),
            ("BTC_", '_', None),
            ("", '_', None),
        ] {
            let got = split(name, separator).map(|(base, quote)| format!("{base} {quote}"));
            assert_eq!(got.as_deref(), expected, "{name}");
        }
    }
}
