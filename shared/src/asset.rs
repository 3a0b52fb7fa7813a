//! Assets: their symbols, their dense ids, and the directory that maps one to the other.
//!
//! A `Symbol` is text as users write it, upper case. An alias resolves before anything is looked up, so `RNDR` and
//! `RENDER` are one asset with one price. The directory is immutable once built: a change is a new directory that
//! keeps every old id, published to the shards whole.

use crate::limits::{ASSETS_MAX, SYMBOL_MAX};
use crate::venue::VenueSet;
use alloc::vec::Vec;
use core::fmt;
use core::hash::{Hash, Hasher};
use hashbrown::HashMap;

/// An asset's symbol: 1 to 16 of `A-Z 0-9`, NUL padded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Symbol([u8; SYMBOL_MAX]);

impl Hash for Symbol {
    /// As one number: half the work of sixteen bytes and their length.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.0));
    }
}

impl Symbol {
    /// Reads a symbol; lower case is raised. `None` when empty, longer than 16 bytes, or not letters and digits.
    #[inline]
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.len() > SYMBOL_MAX {
            return None;
        }
        let mut bytes = [0; SYMBOL_MAX];
        for (to, from) in bytes.iter_mut().zip(text) {
            if !from.is_ascii_alphanumeric() {
                return None;
            }
            *to = from.to_ascii_uppercase();
        }
        Some(Self(bytes))
    }

    /// Reads the NUL-padded form of the binary frame: upper case only, nothing after the first NUL.
    #[inline]
    #[must_use]
    pub fn from_padded(bytes: [u8; SYMBOL_MAX]) -> Option<Self> {
        let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(SYMBOL_MAX);
        let (text, padding) = bytes.split_at(length);
        let good = !text.is_empty()
            && text.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
            && padding.iter().all(|byte| *byte == 0);
        good.then_some(Self(bytes))
    }

    /// The 16 bytes, NUL padded.
    #[inline]
    #[must_use]
    pub const fn padded(&self) -> &[u8; SYMBOL_MAX] {
        &self.0
    }

    /// The text.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> &str {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(SYMBOL_MAX);
        // Only ASCII letters and digits get in.
        core::str::from_utf8(&self.0[..length]).unwrap_or_default()
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Dense index of an asset in every table of this process. Below `ASSETS_MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssetId(u16);

impl AssetId {
    /// The id with this index; `None` from `ASSETS_MAX` on.
    #[must_use]
    pub const fn new(index: usize) -> Option<Self> {
        if index < ASSETS_MAX { Some(Self(index as u16)) } else { None }
    }

    /// Position in tables.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The number that travels in ticks and usage records.
    #[inline]
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// Symbols that are another asset's older or alternative name, resolved before anything else: (alias, asset).
///
/// Only plain renames stand here. `MKR` → `SKY` does not: one MKR became 24,000 SKY, so their prices differ.
pub const ALIASES: &[(&str, &str)] =
    &[("RNDR", "RENDER"), ("MATIC", "POL"), ("NANO", "XNO"), ("PHALA", "PHA"), ("XBT", "BTC"), ("XDG", "DOGE")];

/// What the directory knows of one asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssetEntry {
    /// Its symbol, aliases resolved.
    pub symbol: Symbol,
    /// Whether it belongs to the prewarmed set (`all` in `/prices`), as opposed to asked for on demand.
    pub prewarmed: bool,
    /// Venues whose own instrument list has it.
    pub venues: VenueSet,
}

/// Every asset this node can be asked for. Ids are dense, start at 0, and never change while the process lives.
#[derive(Clone, Debug, Default)]
pub struct AssetDirectory {
    entries: Vec<AssetEntry>,
    /// One past the last prewarmed entry: they are few and come first, so going through them is not going through all.
    prewarmed_end: usize,
    ids: HashMap<Symbol, AssetId, foldhash::fast::FixedState>,
}

impl AssetDirectory {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `symbol` (or its asset, if it is an alias) or updates what is known of it. `None` when the directory is full.
    pub fn add(&mut self, symbol: Symbol, prewarmed: bool, venues: VenueSet) -> Option<AssetId> {
        let symbol = resolve_alias(symbol);
        if let Some(id) = self.ids.get(&symbol) {
            let entry = &mut self.entries[id.index()];
            entry.prewarmed |= prewarmed;
            entry.venues = VenueSet::from_bits(entry.venues.bits() | venues.bits());
            if prewarmed {
                self.prewarmed_end = self.prewarmed_end.max(id.index() + 1);
            }
            return Some(*id);
        }
        let id = AssetId::new(self.entries.len())?;
        self.entries.push(AssetEntry { symbol, prewarmed, venues });
        if prewarmed {
            self.prewarmed_end = self.entries.len();
        }
        self.ids.insert(symbol, id);
        // An alias is a second key to the same id, so a read is always one probe.
        for (alias, asset) in ALIASES {
            if *asset == symbol.as_str() {
                self.ids.extend(Symbol::new(alias.as_bytes()).map(|alias| (alias, id)));
            }
        }
        Some(id)
    }

    /// Replaces what is known of an asset. Ids that are not in the directory are ignored.
    pub fn set(&mut self, id: AssetId, prewarmed: bool, venues: VenueSet) {
        if let Some(entry) = self.entries.get_mut(id.index()) {
            entry.prewarmed = prewarmed;
            entry.venues = venues;
            if prewarmed {
                self.prewarmed_end = self.prewarmed_end.max(id.index() + 1);
            } else if id.index() + 1 == self.prewarmed_end {
                let last = self.entries.iter().rposition(|entry| entry.prewarmed);
                self.prewarmed_end = last.map_or(0, |last| last + 1);
            }
        }
    }

    /// The asset called `symbol`, aliases included.
    #[inline]
    #[must_use]
    pub fn find(&self, symbol: &Symbol) -> Option<AssetId> {
        self.ids.get(symbol).copied()
    }

    /// The asset whose symbol, in upper case, stands in front of `text` with a space behind it, and the symbol's length.
    /// `None` says nothing about other ways of writing it. The symbol is not read for it: what is found needs no check.
    #[inline]
    #[must_use]
    pub fn find_before_space(&self, text: &[u8; SYMBOL_MAX + 1]) -> Option<(AssetId, usize)> {
        const ONES: u128 = u128::from_le_bytes([1; SYMBOL_MAX]);
        const SPACES: u128 = u128::from_le_bytes([b' '; SYMBOL_MAX]);
        let word = u128::from_le_bytes(*text.first_chunk()?);
        // The lowest byte that is zero after the exclusive-or is the first space: of all bytes whose highest bit the
        // subtraction sets, the lowest is always a true one.
        let others = word ^ SPACES;
        let found = others.wrapping_sub(ONES) & !others & ONES << 7;
        let length = found.trailing_zeros() as usize / 8;
        let symbol = match length {
            SYMBOL_MAX if text[SYMBOL_MAX] == b' ' => word,
            0 | SYMBOL_MAX.. => return None,
            _ => word & ((1 << (8 * length)) - 1),
        };
        // A zero byte pads a symbol and is no part of one: at its end it would be taken for padding.
        if symbol >> (8 * (length - 1)) == 0 {
            return None;
        }
        Some((self.find(&Symbol(symbol.to_le_bytes()))?, length))
    }

    /// What is known of `id`.
    #[inline]
    #[must_use]
    pub fn entry(&self, id: AssetId) -> Option<&AssetEntry> {
        self.entries.get(id.index())
    }

    /// Every asset with its id, in id order.
    pub fn iter(&self) -> impl Iterator<Item = (AssetId, &AssetEntry)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| Some((AssetId::new(index)?, entry)))
    }

    /// Every prewarmed asset with its id, in id order. What lies behind the last of them is not looked at.
    pub fn prewarmed(&self) -> impl Iterator<Item = (AssetId, &AssetEntry)> {
        self.iter().take(self.prewarmed_end).filter(|(_, entry)| entry.prewarmed)
    }

    /// How many assets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no asset.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The asset that `symbol` names: itself, unless it is an alias.
#[must_use]
pub fn resolve_alias(symbol: Symbol) -> Symbol {
    let text = symbol.as_str();
    let target = ALIASES.iter().find(|(alias, _)| *alias == text).map(|(_, asset)| *asset);
    target.and_then(|asset| Symbol::new(asset.as_bytes())).unwrap_or(symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(text: &str) -> Symbol {
        Symbol::new(text.as_bytes()).expect("a good symbol")
    }

    #[test]
    fn symbols_are_letters_and_digits_raised() {
        assert_eq!(symbol("btc").as_str(), "BTC");
        assert_eq!(symbol("1inch").as_str(), "1INCH");
        assert_eq!(symbol("ABCDEFGHIJKLMNOP").as_str().len(), 16);
        for bad in ["", "ABCDEFGHIJKLMNOPQ", "BTC-USD", "B C", "Ä", "A\0"] {
            assert_eq!(Symbol::new(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn the_padded_form_is_strict() {
        assert_eq!(Symbol::from_padded(*b"BTC\0\0\0\0\0\0\0\0\0\0\0\0\0"), Some(symbol("BTC")));
        for bad in [b"btc\0\0\0\0\0\0\0\0\0\0\0\0\0", b"BTC\0X\0\0\0\0\0\0\0\0\0\0\0", &[0; 16]] {
            assert_eq!(Symbol::from_padded(*bad), None);
        }
    }

    #[test]
    fn an_alias_and_its_asset_are_one() {
        let mut directory = AssetDirectory::new();
        let render = directory.add(symbol("RNDR"), true, VenueSet::EMPTY).expect("room");
        assert_eq!(directory.add(symbol("RENDER"), false, VenueSet::EMPTY), Some(render));
        assert_eq!(directory.find(&symbol("RNDR")), Some(render));
        assert_eq!(directory.find(&symbol("RENDER")), Some(render));
        assert_eq!(directory.entry(render).map(|entry| entry.symbol), Some(symbol("RENDER")));
        assert_eq!(directory.len(), 1);
    }

    #[test]
    fn a_symbol_in_front_of_a_space_is_found_and_nothing_else() {
        let mut directory = AssetDirectory::new();
        for name in ["B", "BTC", "ZZZ", "ABCDEFGHIJKLMNOP", "RENDER"] {
            directory.add(symbol(name), true, VenueSet::EMPTY).expect("room");
        }
        for length in 0..=SYMBOL_MAX + 1 {
            for byte in 0..=u8::MAX {
                for (at, filler) in (0..length).flat_map(|at| [(at, b'Z'), (at, b'!')]) {
                    let mut text = [b' '; SYMBOL_MAX + 1];
                    text[..length].fill(filler);
                    text[at] = byte;
                    let end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
                    let expected = (text[..end] == *b"ZZZ").then(|| (directory.find(&symbol("ZZZ")).expect("it"), 3));
                    let single = text[..end] == *b"B";
                    assert!(single || directory.find_before_space(&text) == expected, "{text:?}");
                }
            }
        }
        for (text, name) in [
            (b"B HTTP/1.1\r\nHost:", Some("B")),
            (b"BTC HTTP/1.1\r\nHo:", Some("BTC")),
            (b"ABCDEFGHIJKLMNOP ", Some("ABCDEFGHIJKLMNOP")),
            (b"RNDR HTTP/1.1\r\nH:", Some("RENDER")),
            (b"ABCDEFGHIJKLMNOPQ", None),
            (b"btc HTTP/1.1\r\nHo:", None),
            (b"BT HTTP/1.1\r\nHos:", None),
            (b" BTC HTTP/1.1\r\nHo", None),
        ] {
            let found = directory.find_before_space(text).and_then(|(id, _)| directory.entry(id));
            assert_eq!(found.map(|entry| entry.symbol.as_str()), name);
        }
    }

    #[test]
    fn a_full_directory_refuses() {
        let mut directory = AssetDirectory::new();
        for index in 0..ASSETS_MAX {
            let text = alloc::format!("A{index}");
            assert!(directory.add(symbol(&text), false, VenueSet::EMPTY).is_some());
        }
        assert_eq!(directory.add(symbol("ONEMORE"), false, VenueSet::EMPTY), None);
        assert!(directory.add(symbol("A7"), true, VenueSet::EMPTY).is_some(), "a known one is not an addition");
    }

    #[test]
    fn the_prewarmed_ones_are_found_without_going_through_all() {
        let mut directory = AssetDirectory::new();
        for (name, prewarmed) in [("A", true), ("B", false), ("C", true), ("D", false), ("E", false)] {
            directory.add(symbol(name), prewarmed, VenueSet::EMPTY).expect("room");
        }
        let id = |index| AssetId::new(index).expect("an id");
        // What is changed, to what, the prewarmed ones then, and how many entries are gone through for them.
        for (changed, prewarmed, expected, end) in [
            (0, true, "AC", 3),
            (3, true, "ACD", 4),
            (0, false, "CD", 4),
            (3, false, "C", 3),
            (2, false, "", 0),
            (4, false, "", 0),
            (1, true, "B", 2),
        ] {
            directory.set(id(changed), prewarmed, VenueSet::EMPTY);
            let found: alloc::string::String = directory.prewarmed().map(|(_, entry)| entry.symbol.as_str()).collect();
            assert_eq!((found.as_str(), directory.prewarmed_end), (expected, end));
        }
        assert_eq!(directory.add(symbol("E"), true, VenueSet::EMPTY), Some(id(4)));
        assert_eq!(directory.prewarmed_end, 5);
    }
}
