//! The assets priced by default, by the venue whose list they came from.
//!
//! The lists are those of the system being replaced, upper case, in its spelling: aliases (`RNDR`, `MATIC`, `NANO`)
//! resolve where assets are looked up. They say what is wanted, not what a venue lists today: that is read from each
//! venue's own instrument list, and an asset is subscribed on every venue that has it.

use shared::venue::Venue;

/// Assets that are always priced, whatever the lists say: without a USDT/USD price nothing quoted in USDT converts.
pub const ALWAYS: &[&str] = &["USDT"];

const COINBASE: &[&str] = &[
    "BTC", "ETH", "SOL", "DOGE", "XRP", "LINK", "DOT", "LTC", "AVAX", "UNI", "PEPE", "XLM", "RNDR", "JASMY", "ICP",
    "EOS", "EGLD", "ZEC", "ENJ", "ANKR", "LRC", "SKL", "COTI", "RLC",
];

const GEMINI: &[&str] = &[
    "AAVE", "ADA", "MATIC", "ATOM", "NEAR", "ARB", "MKR", "CRV", "GRT", "FIL", "SHIB", "BAT", "MANA", "SAND", "AXS",
    "CHZ", "STORJ", "AMP", "REN", "UMA", "BOND", "CTSI", "RLY", "RAD",
];

const KRAKEN: &[&str] = &[
    "NANO", "SC", "LSK", "KAVA", "BICO", "RARI", "OCEAN", "CFG", "CQT", "ALGO", "FET", "FLOW", "MINA", "GLMR", "MOVR",
    "KSM", "ASTR", "PHALA", "NODL", "PARA", "KILT", "ACA", "TEER", "LIT",
];

const GATEIO: &[&str] = &[
    "BNB", "TRX", "APT", "INJ", "OP", "SUI", "VET", "HBAR", "FTM", "CELR", "DENT", "HOT", "ONE", "REEF", "WIN",
    "TFUEL", "STMX", "TROY", "VITE", "OAX", "PUNDIX", "ACH", "BEL", "CHESS",
];

/// The six that bring the whole to the 150 of the last version of the system being replaced. It counts 25 a venue and
/// prints no list for Crypto.com, so these are ours: its own token and five widely traded ones that are in no other list.
const CRYPTOCOM: &[&str] = &["CRO", "BCH", "ETC", "XTZ", "STX", "TAO"];

const BYBIT: &[&str] = &[
    "TON", "WLD", "APE", "BLUR", "IMX", "ENS", "LDO", "SNX", "COMP", "1INCH", "SUSHI", "GALA", "MAGIC", "RDNT", "HOOK",
    "ID", "EDU", "CYBER", "ARKM", "NTRN", "MAV", "SEI", "WOO", "AGLD",
];

const OKX: &[&str] = &[
    "KAS", "TIA", "JUP", "STRK", "PYTH", "W", "ZRO", "PENDLE", "ONDO", "RENDER", "WIF", "FLOKI", "PEOPLE", "MASK",
    "LOOKS", "HIGH", "RSS3", "PERP", "BADGER", "ALCX", "FXS", "TRIBE", "ALPHA", "DODO",
];

/// The default list of a venue.
#[must_use]
pub const fn default_assets(venue: Venue) -> &'static [&'static str] {
    match venue {
        Venue::Coinbase => COINBASE,
        Venue::Gemini => GEMINI,
        Venue::Kraken => KRAKEN,
        Venue::Gateio => GATEIO,
        Venue::Cryptocom => CRYPTOCOM,
        Venue::Bybit => BYBIT,
        Venue::Okx => OKX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::asset::{Symbol, resolve_alias};
    use std::collections::BTreeSet;

    #[test]
    fn there_are_150_names_and_none_twice() {
        let names: Vec<&str> = Venue::ALL.iter().flat_map(|venue| default_assets(*venue)).copied().collect();
        assert_eq!(names.len(), 150);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 150);
        for venue in Venue::ALL {
            let expected = if venue == Venue::Cryptocom { 6 } else { 24 };
            assert_eq!(default_assets(venue).len(), expected, "{venue}");
        }
    }

    #[test]
    fn rndr_is_render_and_usdt_is_always_there() {
        let assets: BTreeSet<Symbol> = Venue::ALL
            .iter()
            .flat_map(|venue| default_assets(*venue))
            .chain(ALWAYS)
            .map(|name| resolve_alias(Symbol::new(name.as_bytes()).expect("a symbol")))
            .collect();
        assert_eq!(assets.len(), 150, "150 names, of which RNDR and RENDER are one asset, and USDT");
    }
}
