//! `price:<ASSET>` in the cache: one node's price, for the others.
//!
//! It is written by nodes and by administrators, so it is read strictly: what is not exactly a price of this form, of this
//! asset and of this market is none, and is counted by what was wrong with it. Whether it is fresh enough, and whether it
//! fits what this node knows itself, is judged elsewhere: here is the form alone.

use crate::cache::names::{CacheKey, PRICE};
use crate::cache::{Value, Write};
use dataplane_core::feed::RemotePrice;
use serde::{Deserialize, Serialize};
use shared::asset::{AssetId, Symbol};
use shared::price::{PRICE_TEXT_MAX, Price};
use shared::quote::Currency;
use shared::tick::{SPREAD_UNKNOWN, Source, TICK_CONVERTED, TICK_SIMULATED, Tick};
use shared::venue::{Venue, VenueSet};
use std::fmt;

/// How far a time may lie ahead of our clock, ms: what the feed shard grants a venue.
pub const AHEAD_MS_MAX: u64 = 5_000;

/// Longest text that is read, bytes: with seven venues, a node's name of 64 and every number at its longest it is 490.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// The field of the text by which of two is the later.
const PROVEN: &str = "proven_time_ms";

/// Longest name of a node.
const NODE_BYTES_MAX: usize = 64;

/// A node's price of an asset, as the others may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceEntry {
    /// The asset, aliases resolved.
    pub symbol: Symbol,
    /// The price, above zero.
    pub price: Price,
    /// What it is in.
    pub currency: Currency,
    /// Where that node had it from. Never [`Source::Valkey`]: a price is not handed on.
    pub source: Source,
    /// The venues behind it, at least one.
    pub venues: VenueSet,
    /// As in a tick.
    pub spread_centibps: u32,
    /// Whether a contributor was converted from USDT.
    pub converted: bool,
    /// The newest contributing venue time, Unix ms; `None` where no contributor gives one.
    pub exchange_time_ms: Option<u64>,
    /// When the newest contributing frame arrived at that node, Unix ms.
    pub received_time_ms: u64,
    /// When that node last knew it to be fresh, Unix ms: not before `received_time_ms`.
    pub proven_time_ms: u64,
    /// That node.
    pub node: String,
    /// Whether it comes from simulated exchanges.
    pub simulated: bool,
}

/// What is wrong with what stands under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// It is of another type.
    Type,
    /// It is not such a text: other fields, other kinds of fields, or too long.
    Form,
    /// It is another asset's.
    Asset,
    /// No price: not above zero, or not written as prices are.
    Price,
    /// No such currency.
    Currency,
    /// No such venue or source, or none.
    Source,
    /// No such spread.
    Spread,
    /// A time that lies ahead, or two that cannot both be.
    Time,
    /// Simulated where prices are real, or the other way round.
    Simulated,
}

impl Odd {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 9] = [
        Self::Type,
        Self::Form,
        Self::Asset,
        Self::Price,
        Self::Currency,
        Self::Source,
        Self::Spread,
        Self::Time,
        Self::Simulated,
    ];

    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Form => "form",
            Self::Asset => "asset",
            Self::Price => "price",
            Self::Currency => "currency",
            Self::Source => "source",
            Self::Spread => "spread",
            Self::Time => "time",
            Self::Simulated => "simulated",
        }
    }
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Type => "it is of another type",
            Self::Form => "it is not written as prices are",
            Self::Asset => "it is of another asset",
            Self::Price => "its price is none",
            Self::Currency => "its currency is not known",
            Self::Source => "its venues are not known",
            Self::Spread => "its spread is none",
            Self::Time => "its times cannot be: is a node's clock wrong?",
            Self::Simulated => "it is simulated and this node is not, or the other way round: they share a cache",
        })
    }
}

/// The text's fields, in order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text<'a> {
    asset: &'a str,
    price: &'a str,
    currency: &'a str,
    source: &'a str,
    venues: Vec<&'a str>,
    spread_bps: Option<String>,
    converted: bool,
    exchange_time_ms: Option<u64>,
    received_time_ms: u64,
    proven_time_ms: u64,
    node: &'a str,
    simulated: bool,
}

/// The name under which the asset's price stands. Every symbol makes a good one.
#[must_use]
pub fn name(symbol: &Symbol) -> Option<CacheKey> {
    CacheKey::new(PRICE, symbol.as_str()).ok()
}

impl PriceEntry {
    /// What `node` may tell of a tick of its own that it knew to be fresh at `proven_time_ms`, Unix ms. `None` for one that
    /// others must not be given: stale, another node's, without a venue or without a price.
    #[must_use]
    pub fn of(symbol: Symbol, tick: &Tick, proven_time_ms: u64, node: &str) -> Option<Self> {
        let source = Source::from_number(tick.source).filter(|source| *source != Source::Valkey)?;
        if tick.is_stale() || tick.venue_set().is_empty() || !tick.price().is_positive() {
            return None;
        }
        Some(Self {
            symbol,
            price: tick.price(),
            currency: tick.currency(),
            source,
            venues: tick.venue_set(),
            spread_centibps: tick.spread_centibps,
            converted: tick.flags & TICK_CONVERTED != 0,
            exchange_time_ms: Some(tick.exchange_time_ms).filter(|time_ms| *time_ms != 0),
            received_time_ms: tick.received_time_ms,
            proven_time_ms: proven_time_ms.max(tick.received_time_ms),
            node: node.to_owned(),
            simulated: tick.flags & TICK_SIMULATED != 0,
        })
    }

    /// As it stands in the cache.
    #[must_use]
    pub fn value(&self) -> Value {
        let text = Text {
            asset: self.symbol.as_str(),
            price: &text_of(self.price),
            currency: self.currency.code(),
            source: self.source.tag(),
            venues: self.venues.iter().map(Venue::name).collect(),
            spread_bps: spread_text(self.spread_centibps),
            converted: self.converted,
            exchange_time_ms: self.exchange_time_ms,
            received_time_ms: self.received_time_ms,
            proven_time_ms: self.proven_time_ms,
            node: &self.node,
            simulated: self.simulated,
        };
        // A struct of texts and numbers always has a JSON text.
        Value::Text(serde_json::to_string(&text).unwrap_or_default())
    }

    /// The entry as it is written at `now_ms`, Unix ms: what another node has proven later stays.
    #[must_use]
    pub fn write(&self, now_ms: u64) -> Option<Write> {
        let most = now_ms.saturating_add(AHEAD_MS_MAX);
        Some(Write::PutLatest { key: name(&self.symbol)?, value: self.value(), by: PROVEN, most })
    }

    /// Reads what stands in the cache under the name of `symbol`, on a node whose prices are `simulated` or not.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(value: &Value, symbol: &Symbol, simulated: bool, now_ms: u64) -> Result<Self, Odd> {
        let Value::Text(text) = value else { return Err(Odd::Type) };
        if text.len() > TEXT_BYTES_MAX {
            return Err(Odd::Form);
        }
        let text: Text<'_> = serde_json::from_str(text).map_err(|_| Odd::Form)?;
        if text.node.is_empty() || text.node.len() > NODE_BYTES_MAX {
            return Err(Odd::Form);
        }
        if text.asset != symbol.as_str() {
            return Err(Odd::Asset);
        }
        if text.simulated != simulated {
            return Err(Odd::Simulated);
        }
        let entry = Self {
            symbol: *symbol,
            price: price(text.price)?,
            currency: Currency::from_code(text.currency).ok_or(Odd::Currency)?,
            source: source(text.source)?,
            venues: venues(&text.venues)?,
            spread_centibps: spread(text.spread_bps.as_deref())?,
            converted: text.converted,
            exchange_time_ms: text.exchange_time_ms,
            received_time_ms: text.received_time_ms,
            proven_time_ms: text.proven_time_ms,
            node: text.node.to_owned(),
            simulated,
        };
        if entry.has_times(now_ms) { Ok(entry) } else { Err(Odd::Time) }
    }

    /// Whether the times can be: in order, and none ahead of ours.
    fn has_times(&self, now_ms: u64) -> bool {
        let latest_ms = now_ms.saturating_add(AHEAD_MS_MAX);
        let exchange_max_ms = self.received_time_ms.saturating_add(AHEAD_MS_MAX);
        (1..=self.proven_time_ms).contains(&self.received_time_ms)
            && self.proven_time_ms <= latest_ms
            && self.exchange_time_ms.is_none_or(|time_ms| (1..=exchange_max_ms).contains(&time_ms))
    }

    /// Whether it is fresh at `now_ms` where prices are so for `fresh_ms`: a proof keeps a price as long as its arrival
    /// does.
    #[must_use]
    pub const fn is_fresh(&self, now_ms: u64, fresh_ms: u64) -> bool {
        now_ms <= self.proven_time_ms.saturating_add(fresh_ms)
    }

    /// The same for the feed shard, which knows the asset by its number.
    #[must_use]
    pub const fn remote(&self, asset: AssetId) -> RemotePrice {
        RemotePrice {
            asset,
            price: self.price,
            currency: self.currency,
            converted: self.converted,
            venues: self.venues,
            spread_centibps: self.spread_centibps,
            exchange_time_ms: self.exchange_time_ms,
            received_time_ms: self.received_time_ms,
            proven_time_ms: self.proven_time_ms,
        }
    }
}

fn text_of(price: Price) -> String {
    let mut out = [0; PRICE_TEXT_MAX];
    let length = price.write(&mut out);
    out[..length].iter().copied().map(char::from).collect()
}

/// A price above zero in the one way in which it is written.
fn price(text: &str) -> Result<Price, Odd> {
    let price = Price::parse(text.as_bytes()).map_err(|_| Odd::Price)?;
    if price.is_positive() && text_of(price) == text { Ok(price) } else { Err(Odd::Price) }
}

fn source(tag: &str) -> Result<Source, Odd> {
    let of_venue = Venue::ALL.into_iter().flat_map(|venue| [Source::Ws(venue), Source::Rest(venue)]);
    of_venue.chain([Source::Median]).find(|source| source.tag() == tag).ok_or(Odd::Source)
}

fn venues(names: &[&str]) -> Result<VenueSet, Odd> {
    let mut set = VenueSet::EMPTY;
    for name in names {
        let venue = Venue::from_name(name).filter(|venue| !set.contains(*venue)).ok_or(Odd::Source)?;
        set = set.with(venue);
    }
    if set.is_empty() { Err(Odd::Source) } else { Ok(set) }
}

fn spread_text(centibps: u32) -> Option<String> {
    (centibps != SPREAD_UNKNOWN).then(|| text_of(Price::new(i64::from(centibps), -2)))
}

fn spread(text: Option<&str>) -> Result<u32, Odd> {
    let Some(text) = text else { return Ok(SPREAD_UNKNOWN) };
    let centibps = Price::parse(text.as_bytes()).ok().and_then(|bps| bps.scaled(-2));
    let centibps = centibps.and_then(|centibps| u32::try_from(centibps).ok());
    centibps.filter(|centibps| *centibps != SPREAD_UNKNOWN).ok_or(Odd::Spread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;
    use shared::tick::{TICK_STALE, Tier};

    const NOW_MS: u64 = 1_793_500_000_000;

    const GOOD: &str = concat!(
        r#"{"asset":"BTC","price":"67123.450","currency":"USD","source":"median","venues":["coinbase","kraken"],"#,
        r#""spread_bps":"1.85","converted":true,"exchange_time_ms":1793499999000,"received_time_ms":1793499999500,"#,
        r#""proven_time_ms":1793499999900,"node":"a","simulated":false}"#
    );

    fn symbol(text: &str) -> Symbol {
        Symbol::new(text.as_bytes()).expect("a good symbol")
    }

    fn tick() -> Tick {
        Tick {
            mantissa: 67_123_450,
            exponent: -3,
            currency: Currency::Usd as u8,
            source: Source::Median.number(),
            venues: VenueSet::EMPTY.with(Venue::Coinbase).with(Venue::Kraken).bits(),
            spread_centibps: 185,
            flags: TICK_CONVERTED,
            exchange_time_ms: NOW_MS - 1_000,
            received_time_ms: NOW_MS - 500,
            ..Tick::zeroed()
        }
    }

    fn read(text: &str) -> Result<PriceEntry, Odd> {
        PriceEntry::read(&Value::Text(text.to_owned()), &symbol("BTC"), false, NOW_MS)
    }

    #[test]
    fn a_tick_is_written_and_read_as_the_same_price() {
        let entry = PriceEntry::of(symbol("BTC"), &tick(), NOW_MS - 100, "a").expect("a fresh tick of our own");
        assert_eq!(entry.value(), Value::Text(GOOD.to_owned()));
        assert_eq!(read(GOOD), Ok(entry.clone()));
        let remote = entry.remote(AssetId::new(7).expect("small"));
        assert_eq!((remote.price, remote.currency, remote.venues), (tick().price(), Currency::Usd, tick().venue_set()));
        assert_eq!((remote.received_time_ms, remote.proven_time_ms), (NOW_MS - 500, NOW_MS - 100));
        assert!(entry.is_fresh(NOW_MS + 8_900, 9_000) && !entry.is_fresh(NOW_MS + 8_901, 9_000));
        // What a venue does not say is not there, and a proof is never older than what it proves.
        let bare = Tick { exchange_time_ms: 0, spread_centibps: SPREAD_UNKNOWN, ..tick() };
        let entry = PriceEntry::of(symbol("BTC"), &bare, 0, "a").expect("fresh");
        assert_eq!((entry.exchange_time_ms, entry.proven_time_ms), (None, NOW_MS - 500));
        assert_eq!(PriceEntry::read(&entry.value(), &symbol("BTC"), false, NOW_MS), Ok(entry));
    }

    #[test]
    fn the_longest_entry_is_read() {
        let all = Venue::ALL.into_iter().fold(VenueSet::EMPTY, VenueSet::with);
        let tick = Tick {
            mantissa: i64::MAX,
            exponent: -24,
            currency: Currency::Usdt as u8,
            source: Source::Rest(Venue::Cryptocom).number(),
            venues: all.bits(),
            spread_centibps: SPREAD_UNKNOWN - 1,
            ..tick()
        };
        let symbol = symbol("ABCDEFGHIJKLMNOP");
        let entry = PriceEntry::of(symbol, &tick, NOW_MS, &"n".repeat(NODE_BYTES_MAX)).expect("fresh");
        assert!(entry.value().bytes() <= 490, "{}", entry.value().bytes());
        assert_eq!(PriceEntry::read(&entry.value(), &symbol, false, NOW_MS), Ok(entry));
    }

    #[test]
    fn what_is_not_ours_to_tell_is_not_told() {
        let stale = Tick { flags: TICK_STALE, ..tick() };
        let remote = Tick { source: Source::Valkey.number(), tier: Tier::Valkey as u8, ..tick() };
        for tick in [stale, remote, Tick { venues: 0, ..tick() }, Tick { mantissa: 0, ..tick() }] {
            assert_eq!(PriceEntry::of(symbol("BTC"), &tick, NOW_MS, "a"), None, "{tick:?}");
        }
    }

    /// The good text with one part replaced.
    #[track_caller]
    fn check(part: &str, by: &str, expected: Odd) {
        assert!(GOOD.contains(part), "{part}");
        assert_eq!(read(&GOOD.replace(part, by)), Err(expected), "{part} -> {by}");
    }

    #[test]
    fn anything_odd_is_no_price() {
        for (part, by) in [
            (GOOD, ""),
            (GOOD, "67123.45"),
            (GOOD, "null"),
            (GOOD, "[]"),
            (r#""node":"a""#, r#""node":"""#),
            (r#""node":"a","#, ""),
            (r#""node":"a""#, r#""node":"a","more":1"#),
            (r#""node":"a""#, r#""node":"a","node":"a""#),
            (r#""67123.450""#, "67123.450"),
            (r#""converted":true"#, r#""converted":1"#),
            (r#""received_time_ms":1793499999500"#, r#""received_time_ms":"1793499999500""#),
            (r#""received_time_ms":1793499999500"#, r#""received_time_ms":-1"#),
            (r#""received_time_ms":1793499999500"#, r#""received_time_ms":1e300"#),
        ] {
            check(part, by, Odd::Form);
        }
        for by in ["ETH", "btc", "", "XBT"] {
            check(r#""asset":"BTC""#, &format!(r#""asset":"{by}""#), Odd::Asset);
        }
        for by in ["0", "-1", "0.000", "1e3", "NaN", "", "067123.450", " 1", "9999999999999999999999", "1,5"] {
            check("67123.450", by, Odd::Price);
        }
        for by in ["EUR", "usd", "USDC", ""] {
            check(r#""USD""#, &format!(r#""{by}""#), Odd::Currency);
        }
        for by in ["valkey", "mtgox-ws", ""] {
            check(r#""median""#, &format!(r#""{by}""#), Odd::Source);
        }
        for by in [r#"["mtgox"]"#, "[]", r#"["kraken","kraken"]"#] {
            check(r#"["coinbase","kraken"]"#, by, Odd::Source);
        }
        for by in ["-1", "1.855", "x", "99999999999"] {
            check(r#""1.85""#, &format!(r#""{by}""#), Odd::Spread);
        }
        check(r#""simulated":false"#, r#""simulated":true"#, Odd::Simulated);
    }

    #[test]
    fn times_ahead_of_ours_or_out_of_order_are_refused() {
        let ahead = (NOW_MS + AHEAD_MS_MAX + 1).to_string();
        check("1793499999900", &ahead, Odd::Time);
        check("1793499999500", &ahead, Odd::Time);
        check("1793499999500", "0", Odd::Time);
        check("1793499999500", &u64::MAX.to_string(), Odd::Time);
        check("1793499999900", "1793499999499", Odd::Time);
        check("1793499999000", "1793500004501", Odd::Time);
        assert!(read(&GOOD.replace("1793499999900", &(NOW_MS + AHEAD_MS_MAX).to_string())).is_ok());
    }

    #[test]
    fn another_type_or_a_long_text_is_none() {
        let hash = Value::Hash([("price".to_owned(), "1".to_owned())].into());
        assert_eq!(PriceEntry::read(&hash, &symbol("BTC"), false, NOW_MS), Err(Odd::Type));
        assert_eq!(read(&format!("{GOOD}{}", " ".repeat(TEXT_BYTES_MAX))), Err(Odd::Form));
    }
}
