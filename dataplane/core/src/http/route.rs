//! What a target asks for: a price, prices, or something that is not a price read; and its parameters.
//!
//! Unknown parameters are ignored; a parameter that takes one value and is given twice is `parameter_invalid`.

use crate::render::problem::Problem;
use shared::asset::Symbol;
use shared::code::Code;
use shared::limits::{ASSETS_PER_REQUEST_MAX, SYMBOL_MAX, WAIT_MS_MAX};

/// Longest parameter name or single value that we know, decoded; what is longer is nothing we know.
const DECODED_MAX: usize = 24;

const REPEATED: Problem = Problem::saying(Code::ParameterInvalid, "A parameter that takes one value is given twice.");
const NOT_A_FLAG: Problem =
    Problem::saying(Code::ParameterInvalid, "allow_stale, ignore_unknown and detail are 1 or 0.");
const NOT_A_SEQUENCE: Problem =
    Problem::saying(Code::ParameterInvalid, "newer_than is a sequence: decimal digits of at most 64 bits.");
const NOT_A_WAIT: Problem = Problem::saying(Code::ParameterInvalid, "wait_ms is 0 to 30000.");
const BAD_ESCAPE: Problem =
    Problem::saying(Code::ParameterInvalid, "A percent sign is not followed by two hex digits.");

/// What a target asks for.
pub(crate) enum Route<'a> {
    /// `/price`, with its parameters or what is wrong with them.
    Price(Result<PriceQuery, Problem>),
    /// `/prices`, with its query as it came: see [`PricesQuery::parse`].
    Prices(&'a [u8]),
    /// Anything else.
    Elsewhere,
}

impl<'a> Route<'a> {
    /// The route of a target in origin form.
    pub(crate) fn of(target: &'a [u8]) -> Self {
        let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        let (path, query) = (&target[..end], target.get(end + 1..).unwrap_or_default());
        match path {
            b"/price" => match PriceQuery::parse(query) {
                Ok(query) if query.detail => Self::Elsewhere,
                parsed => Self::Price(parsed),
            },
            b"/prices" => Self::Prices(query),
            _ => Self::Elsewhere,
        }
    }
}

/// Parameters of `/price`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PriceQuery {
    pub(crate) asset: Option<Symbol>,
    pub(crate) allow_stale: bool,
    /// Only a price with a higher sequence will do.
    pub(crate) newer_than: Option<u64>,
    /// How long to wait for it.
    pub(crate) wait_ms: u64,
    /// The venues are wanted too, which only the control plane can tell.
    detail: bool,
}

impl PriceQuery {
    /// Just this asset.
    pub(crate) const fn plain(asset: Option<Symbol>) -> Self {
        Self { asset, allow_stale: false, newer_than: None, wait_ms: 0, detail: false }
    }

    fn parse(query: &[u8]) -> Result<Self, Problem> {
        let mut parsed = Self::default();
        let mut seen = Seen::default();
        for pair in pairs(query) {
            let (name, value) = pair?;
            match name.text() {
                b"asset" => {
                    seen.once(0)?;
                    parsed.asset = match value {
                        [] => None,
                        _ => Some(symbol(value)?),
                    };
                }
                b"allow_stale" => {
                    seen.once(1)?;
                    parsed.allow_stale = flag(value)?;
                }
                b"newer_than" => {
                    seen.once(2)?;
                    parsed.newer_than = Some(number(value).ok_or(NOT_A_SEQUENCE)?);
                }
                b"wait_ms" => {
                    seen.once(3)?;
                    parsed.wait_ms = number(value).filter(|wait| *wait <= WAIT_MS_MAX).ok_or(NOT_A_WAIT)?;
                }
                b"detail" => {
                    seen.once(4)?;
                    parsed.detail = flag(value)?;
                }
                _ => {}
            }
        }
        Ok(parsed)
    }
}

/// Symbols asked for together, each once, in the order in which they were named.
pub(crate) struct AssetList {
    symbols: [Symbol; ASSETS_PER_REQUEST_MAX],
    length: usize,
    /// How many were named, repetitions included.
    named: usize,
}

impl AssetList {
    pub(crate) fn symbols(&self) -> &[Symbol] {
        &self.symbols[..self.length]
    }

    fn add(&mut self, symbol: Symbol) -> Result<(), Problem> {
        self.named += 1;
        if self.named > ASSETS_PER_REQUEST_MAX {
            return Err(Problem::of(Code::TooManyAssets));
        }
        if !self.symbols().contains(&symbol) {
            self.symbols[self.length] = symbol;
            self.length += 1;
        }
        Ok(())
    }
}

/// Parameters of `/prices`.
pub(crate) struct PricesQuery {
    pub(crate) assets: AssetList,
    /// Every prewarmed asset, instead of those named.
    pub(crate) all: bool,
    pub(crate) ignore_unknown: bool,
    pub(crate) allow_stale: bool,
}

impl PricesQuery {
    /// Reads the query of `/prices`.
    ///
    /// # Errors
    /// `asset_missing`, `asset_invalid`, `too_many_assets`, `parameter_invalid`.
    pub(crate) fn parse(query: &[u8]) -> Result<Self, Problem> {
        // Any symbol will do for places not yet taken.
        let filler = Symbol::from_padded([b'0'; SYMBOL_MAX]).ok_or(Problem::of(Code::AssetInvalid))?;
        let assets = AssetList { symbols: [filler; ASSETS_PER_REQUEST_MAX], length: 0, named: 0 };
        let mut parsed = Self { assets, all: false, ignore_unknown: false, allow_stale: false };
        let mut seen = Seen::default();
        for pair in pairs(query) {
            let (name, value) = pair?;
            match name.text() {
                b"assets" if value == b"all" => parsed.all = true,
                b"asset" | b"assets" if value.is_empty() => {}
                b"asset" => parsed.assets.add(symbol(value)?)?,
                b"assets" => parsed.add_list(value)?,
                b"ignore_unknown" => {
                    seen.once(0)?;
                    parsed.ignore_unknown = flag(value)?;
                }
                b"allow_stale" => {
                    seen.once(1)?;
                    parsed.allow_stale = flag(value)?;
                }
                _ => {}
            }
        }
        if parsed.assets.named == 0 && !parsed.all {
            const HOW: &str = "Name assets, as in /prices?assets=BTC,ETH, or all of them with assets=all.";
            return Err(Problem::saying(Code::AssetMissing, HOW));
        }
        Ok(parsed)
    }

    /// Adds the symbols of a list whose commas may be percent-encoded.
    fn add_list(&mut self, mut list: &[u8]) -> Result<(), Problem> {
        loop {
            let is_comma = |at: usize| list[at] == b',' || list[at..].get(..3).is_some_and(is_coded_comma);
            let end = (0..list.len()).find(|at| is_comma(*at));
            self.assets.add(symbol(&list[..end.unwrap_or(list.len())])?)?;
            let Some(end) = end else { return Ok(()) };
            list = &list[end + if list[end] == b',' { 1 } else { 3 }..];
        }
    }
}

fn is_coded_comma(bytes: &[u8]) -> bool {
    bytes.eq_ignore_ascii_case(b"%2c")
}

/// Which single-valued parameters have been seen.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    fn once(&mut self, parameter: u8) -> Result<(), Problem> {
        let bit = 1 << parameter;
        let is_first = self.0 & bit == 0;
        self.0 |= bit;
        if is_first { Ok(()) } else { Err(REPEATED) }
    }
}

/// Decoded text of bounded length. What does not fit is no text that we know: it reads as a single NUL.
struct Decoded {
    bytes: [u8; DECODED_MAX],
    length: usize,
}

impl Decoded {
    fn of(raw: &[u8]) -> Result<Self, Problem> {
        let mut decoded = Self { bytes: [0; DECODED_MAX], length: 0 };
        let mut fits = true;
        let mut at = 0;
        while at < raw.len() {
            let (byte, width) = match raw[at] {
                b'%' => (raw.get(at + 1..at + 3).and_then(hex_pair).ok_or(BAD_ESCAPE)?, 3),
                b'+' => (b' ', 1),
                byte => (byte, 1),
            };
            match decoded.bytes.get_mut(decoded.length) {
                Some(place) => {
                    *place = byte;
                    decoded.length += 1;
                }
                None => fits = false,
            }
            at += width;
        }
        if !fits {
            decoded = Self { bytes: [0; DECODED_MAX], length: 1 };
        }
        Ok(decoded)
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    Some(digit(pair[0])? << 4 | digit(pair[1])?)
}

/// Names, decoded, with their values as they came. An empty pair is nothing.
fn pairs(query: &[u8]) -> impl Iterator<Item = Result<(Decoded, &[u8]), Problem>> {
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        Ok((Decoded::of(&pair[..end])?, pair.get(end + 1..).unwrap_or_default()))
    })
}

fn symbol(value: &[u8]) -> Result<Symbol, Problem> {
    let invalid = Problem::of(Code::AssetInvalid);
    if let Some(symbol) = Symbol::new(value) {
        return Ok(symbol);
    }
    let decoded = Decoded::of(value).map_err(|_| invalid)?;
    Symbol::new(decoded.text()).ok_or(invalid)
}

fn flag(value: &[u8]) -> Result<bool, Problem> {
    match Decoded::of(value)?.text() {
        b"1" | b"true" => Ok(true),
        b"0" | b"false" => Ok(false),
        _ => Err(NOT_A_FLAG),
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let decoded = Decoded::of(value).ok()?;
    let text = decoded.text();
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| core::str::from_utf8(text).ok()?.parse().ok()).flatten()
}
