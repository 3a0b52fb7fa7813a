//! What each simulated venue lists, and at what prices the market opens.
//!
//! Opening prices are of the right size, no more; nothing is looked up. Which venue lists which asset follows one rule:
//! the large assets are everywhere, the others at home and at two to four more venues drawn from their name. Assets that
//! are in no default list, real ones and invented ones, have no home; some are on one venue only.

use crate::assets::{ALWAYS, default_assets};
use crate::protocol::Instrument;
use crate::{VenueSettings, protocol};
use shared::asset::{Symbol, resolve_alias};
use shared::price::Price;
use shared::venue::{Venue, VenueSet};
use std::collections::BTreeSet;

/// Assets that every venue lists.
const EVERYWHERE: &[&str] = &[
    "BTC", "ETH", "SOL", "XRP", "DOGE", "LTC", "LINK", "AVAX", "DOT", "ADA", "UNI", "SHIB", "BCH", "ATOM", "NEAR",
    "AAVE", "FIL", "ARB", "OP", "APT",
];

/// What a default list has but its venue lists no longer, or never did.
const NOT_LISTED: &[(Venue, &str)] = &[
    (Venue::Coinbase, "ENJ"),
    (Venue::Coinbase, "LRC"),
    (Venue::Coinbase, "EOS"),
    (Venue::Gemini, "MKR"),
    (Venue::Kraken, "PARA"),
    (Venue::Bybit, "RDNT"),
];

/// What a venue still lists, with its last prices, but does not trade.
const DELISTED: &[(Venue, &str)] = &[(Venue::Coinbase, "RNDR"), (Venue::Coinbase, "EOS"), (Venue::Okx, "BADGER")];

/// Assets that a venue spells in its own way: (venue, asset, spelling).
const SPELLINGS: &[(Venue, &str, &str)] = &[(Venue::Kraken, "XNO", "NANO")];

/// Kraken's canonical names that are not the pair written together.
const CANONICAL: &[(&str, &str)] = &[
    ("BTC/USD", "XXBTZUSD"),
    ("BTC/EUR", "XXBTZEUR"),
    ("BTC/USDT", "XBTUSDT"),
    ("ETH/USD", "XETHZUSD"),
    ("ETH/EUR", "XETHZEUR"),
    ("LTC/USD", "XLTCZUSD"),
    ("XRP/USD", "XXRPZUSD"),
    ("XLM/USD", "XXLMZUSD"),
    ("ZEC/USD", "XZECZUSD"),
    ("ETC/USD", "XETCZUSD"),
    ("DOGE/USD", "XDGUSD"),
    ("DOGE/USDT", "XDGUSDT"),
    ("USDT/USD", "USDTZUSD"),
];

/// Opening prices in USD, aliases resolved.
const PRICES: &str = "
    BTC 67123.45 ETH 3456.78 SOL 152.34 DOGE 0.1234 XRP 0.5678 LINK 14.321 DOT 6.543 LTC 78.90 AVAX 27.65 UNI 7.891
    PEPE 0.000009876 XLM 0.0987 RENDER 5.432 JASMY 0.02345 ICP 8.765 EOS 0.5432 EGLD 29.87 ZEC 43.21 ENJ 0.1654
    ANKR 0.02765 LRC 0.1543 SKL 0.04321 COTI 0.08765 RLC 1.654 AAVE 98.76 ADA 0.3987 POL 0.4321 ATOM 4.567 NEAR 4.321
    ARB 0.5432 MKR 1543.2 CRV 0.2876 GRT 0.1543 FIL 3.876 SHIB 0.00001345 BAT 0.1765 MANA 0.2987 SAND 0.2654
    AXS 4.765 CHZ 0.05987 STORJ 0.3876 AMP 0.003987 REN 0.03456 UMA 2.345 BOND 1.765 CTSI 0.1345 RLY 0.004321 RAD 0.9876
    XNO 0.8765 SC 0.004567 LSK 0.8321 KAVA 0.3210 BICO 0.2345 RARI 1.876 OCEAN 0.5321 CFG 0.3456 CQT 0.08765
    ALGO 0.1298 FET 1.345 FLOW 0.5678 MINA 0.4567 GLMR 0.1765 MOVR 8.765 KSM 18.76 ASTR 0.05678 PHA 0.1098
    NODL 0.001234 PARA 0.009876 KILT 0.1987 ACA 0.05432 TEER 0.4321 LIT 0.6543 BNB 543.21 TRX 0.1543 APT 6.789
    INJ 18.76 OP 1.543 SUI 0.8765 VET 0.02345 HBAR 0.05432 FTM 0.4987 CELR 0.01345 DENT 0.0008765 HOT 0.001654
    ONE 0.01234 REEF 0.001098 WIN 0.00008765 TFUEL 0.06543 STMX 0.004567 TROY 0.001876 VITE 0.01098 OAX 0.1765
    PUNDIX 0.3456 ACH 0.01765 BEL 0.5432 CHESS 0.1234 CRO 0.08765 BCH 345.67 ETC 18.76 XTZ 0.6789 STX 1.543 TAO 298.7
    TON 6.543 WLD 1.543 APE 0.7654 BLUR 0.1543 IMX 1.234 ENS 17.65 LDO 0.9876 SNX 1.345 COMP 43.21 1INCH 0.2543
    SUSHI 0.6543 GALA 0.01987 MAGIC 0.3456 RDNT 0.07654 HOOK 0.3987 ID 0.3654 EDU 0.5432 CYBER 2.987 ARKM 0.9876
    NTRN 0.3876 MAV 0.1543 SEI 0.2987 WOO 0.1543 AGLD 0.8765 KAS 0.1654 TIA 4.987 JUP 0.7654 STRK 0.3987 PYTH 0.2876
    W 0.1987 ZRO 3.456 PENDLE 2.987 ONDO 0.6543 WIF 1.654 FLOKI 0.0001234 PEOPLE 0.06543 MASK 2.123 LOOKS 0.04321
    HIGH 1.234 RSS3 0.1098 PERP 0.5432 BADGER 2.345 ALCX 14.32 FXS 1.987 TRIBE 0.2876 ALPHA 0.05432 DODO 0.1098
    USDT 1.000 QNT 98.76 ZIL 0.01765 YFI 5432.1 DASH 29.87 CELO 0.5432 BAL 2.345 RPL 14.32 GMX 23.45 KNC 0.5678
    GUSD 0.9998 TBTC 66987.6 VTHO 0.002345 VVS 0.000003456 MNT 0.6543 OKB 43.21";

/// Assets in no default list, for whoever asks for one that is not subscribed, and who lists them.
const UNASKED: &[(&str, &[Venue])] = &[
    ("QNT", &[Venue::Coinbase, Venue::Kraken, Venue::Cryptocom, Venue::Okx]),
    ("ZIL", &[Venue::Gateio, Venue::Bybit, Venue::Okx]),
    ("YFI", &[Venue::Coinbase, Venue::Gemini, Venue::Kraken]),
    ("DASH", &[Venue::Coinbase, Venue::Kraken]),
    ("CELO", &[Venue::Coinbase, Venue::Okx]),
    ("BAL", &[Venue::Gemini, Venue::Kraken]),
    ("RPL", &[Venue::Kraken, Venue::Bybit]),
    ("GMX", &[Venue::Gateio, Venue::Bybit]),
    ("KNC", &[Venue::Coinbase]),
    ("GUSD", &[Venue::Gemini]),
    ("TBTC", &[Venue::Kraken]),
    ("VTHO", &[Venue::Gateio]),
    ("VVS", &[Venue::Cryptocom]),
    ("MNT", &[Venue::Bybit]),
    ("OKB", &[Venue::Okx]),
];

/// An asset as the market opens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Which.
    pub symbol: Symbol,
    /// At what, in USD.
    pub price: Price,
    /// Longest step of its walk, in 1/100 bps.
    pub step_max: u32,
    /// Who lists it, where no rule says so.
    pub venues: Option<VenueSet>,
}

/// What a pair is priced in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denomination {
    /// US dollar.
    Usd,
    /// Tether.
    Usdt,
    /// Euro: for pairs that are not for us.
    Eur,
}

/// An instrument a venue lists.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    /// Its names.
    pub instrument: Instrument,
    /// The position of its asset in the list of starts.
    pub asset: usize,
    /// What it is priced in.
    pub denomination: Denomination,
    /// Power of ten of its tick.
    pub tick_exponent: i8,
    /// Bounds its spread, in 1/100 bps.
    pub half_spread_max: u64,
}

/// Every default asset, aliases resolved, none twice, in the order of the venues' lists; then those in no list, and
/// `invented` more.
pub(super) fn starts(invented: usize) -> Vec<Start> {
    let mut seen = BTreeSet::new();
    let names = Venue::ALL.iter().flat_map(|venue| default_assets(*venue)).chain(ALWAYS).copied();
    let names = names.chain(UNASKED.iter().map(|(name, _)| *name));
    let symbols = names.filter_map(|name| Symbol::new(name.as_bytes())).map(resolve_alias);
    let known = symbols.filter(|symbol| seen.insert(*symbol)).filter_map(start);
    known.chain((0..invented).filter_map(invent)).collect()
}

fn start(symbol: Symbol) -> Option<Start> {
    let mut words = PRICES.split_whitespace();
    words.find(|word| *word == symbol.as_str())?;
    let price = Price::parse(words.next()?.as_bytes()).ok()?;
    Some(Start { symbol, price, step_max: if is_large(symbol) { 100 } else { 300 }, venues: None })
}

/// The invented asset with this number: between a cent and a hundred dollars, on one venue if the number is a multiple
/// of four, else on two to four.
fn invent(number: usize) -> Option<Start> {
    let symbol = Symbol::new(format!("C{number}").as_bytes())?;
    let hash = hashed(symbol);
    let price = Price::new(i64::try_from(1_000 + hash % 9_000).ok()?, -5 + i8::try_from(hash >> 32 & 3).ok()?);
    let drawn = drawn(symbol);
    let venues =
        if number.is_multiple_of(4) { drawn.iter().take(1).fold(VenueSet::EMPTY, VenueSet::with) } else { drawn };
    Some(Start { symbol, price, step_max: 300, venues: Some(venues) })
}

fn is_large(symbol: Symbol) -> bool {
    EVERYWHERE.contains(&symbol.as_str())
}

/// What `venue` lists: the assets of `starts` it trades, then what is delisted, then pairs in EUR.
pub(super) fn of(venue: Venue, starts: &[Start]) -> Vec<Listing> {
    let mut listings = Vec::new();
    for (asset, start) in starts.iter().enumerate() {
        let has =
            |list: &[(Venue, &str)]| list.iter().any(|(who, what)| *who == venue && *what == start.symbol.as_str());
        if !lists(venue, start) || has(NOT_LISTED) || has(DELISTED) {
            continue;
        }
        for denomination in denominations(venue, start.symbol) {
            listings.extend(listing(venue, start.symbol, asset, start, *denomination, true));
        }
    }
    for (_, name) in DELISTED.iter().filter(|(who, _)| *who == venue) {
        let symbol = Symbol::new(name.as_bytes());
        let asset = starts.iter().position(|start| symbol.map(resolve_alias) == Some(start.symbol));
        if let (Some(symbol), Some(asset)) = (symbol, asset) {
            let denomination = denominations(venue, symbol).first().copied().unwrap_or(Denomination::Usd);
            listings.extend(listing(venue, symbol, asset, &starts[asset], denomination, false));
        }
    }
    if matches!(venue, Venue::Coinbase | Venue::Gemini | Venue::Kraken) {
        for (asset, start) in
            starts.iter().enumerate().filter(|(_, start)| matches!(start.symbol.as_str(), "BTC" | "ETH"))
        {
            listings.extend(listing(venue, start.symbol, asset, start, Denomination::Eur, true));
        }
    }
    listings
}

/// What `venue` prices `symbol` in. Two venues price some assets twice, as the real ones do.
fn denominations(venue: Venue, symbol: Symbol) -> &'static [Denomination] {
    use Denomination::{Usd, Usdt};
    match (venue, symbol.as_str()) {
        (_, "USDT") => &[Usd],
        (Venue::Gemini | Venue::Kraken, "BTC" | "ETH") => &[Usd, Usdt],
        (Venue::Cryptocom, _) if is_large(symbol) => &[Usd, Usdt],
        (Venue::Coinbase | Venue::Gemini | Venue::Kraken | Venue::Cryptocom, _) => &[Usd],
        (Venue::Gateio | Venue::Bybit | Venue::Okx, _) => &[Usdt],
    }
}

fn listing(
    venue: Venue,
    symbol: Symbol,
    asset: usize,
    start: &Start,
    denomination: Denomination,
    trading: bool,
) -> Option<Listing> {
    let own = SPELLINGS.iter().find(|(who, what, _)| *who == venue && *what == symbol.as_str());
    let base = own.map_or(Some(symbol), |(_, _, spelling)| Symbol::new(spelling.as_bytes()))?;
    let quote = Symbol::new(match denomination {
        Denomination::Usd => b"USD",
        Denomination::Usdt => b"USDT",
        Denomination::Eur => b"EUR",
    })?;
    let name = protocol(venue, VenueSettings::default()).spell(&base, &quote);
    let digits = if matches!(venue, Venue::Coinbase | Venue::Gemini | Venue::Cryptocom) { 7 } else { 6 };
    let leading = i32::from(start.price.exponent()) + start.price.significant_digits() as i32;
    Some(Listing {
        instrument: Instrument { rest_name: rest_name(venue, &name), name, base, quote, trading },
        asset,
        denomination,
        // Whole dollars are the coarsest tick: no asset here is dear enough for more.
        tick_exponent: i8::try_from((leading - digits).min(0)).ok()?,
        half_spread_max: match symbol.as_str() {
            "USDT" => 20,
            _ if is_large(symbol) => 100,
            _ => 1_000,
        },
    })
}

/// The name in REST, where it is another.
fn rest_name(venue: Venue, name: &str) -> String {
    if venue != Venue::Kraken {
        return name.to_owned();
    }
    let canonical = CANONICAL.iter().find(|(pair, _)| *pair == name);
    canonical.map_or_else(|| name.replace('/', ""), |(_, canonical)| (*canonical).to_owned())
}

/// Whether `venue` lists the asset, by the rule at the top of this file.
fn lists(venue: Venue, start: &Start) -> bool {
    let symbol = start.symbol;
    if let Some(venues) = start.venues {
        return venues.contains(venue);
    }
    if symbol.as_str() == "USDT" {
        return matches!(venue, Venue::Coinbase | Venue::Gemini | Venue::Kraken | Venue::Cryptocom);
    }
    if let Some((_, venues)) = UNASKED.iter().find(|(name, _)| *name == symbol.as_str()) {
        return venues.contains(&venue);
    }
    let at_home =
        default_assets(venue).iter().any(|name| Symbol::new(name.as_bytes()).map(resolve_alias) == Some(symbol));
    is_large(symbol) || at_home || drawn(symbol).contains(venue)
}

/// FNV-1a over the letters of the name.
fn hashed(symbol: Symbol) -> u64 {
    let text = symbol.as_str().bytes();
    text.fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

/// Two to four venues drawn from the letters of the name, the same for ever.
fn drawn(symbol: Symbol) -> VenueSet {
    let mut hash = hashed(symbol);
    let mut set = VenueSet::EMPTY;
    let wanted = 2 + u16::try_from(hash % 3).unwrap_or(0);
    while set.len() < wanted {
        hash = (hash ^ (hash >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).wrapping_add(1);
        let index = usize::try_from((hash >> 32) % 7).unwrap_or(0);
        set = Venue::from_index(index).map_or(set, |venue| set.with(venue));
    }
    set
}
