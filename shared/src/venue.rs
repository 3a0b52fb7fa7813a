//! The seven exchanges we listen to, and sets of them.

use core::fmt;

/// An exchange we listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Venue {
    /// Coinbase Advanced Trade.
    Coinbase = 0,
    /// Gemini.
    Gemini = 1,
    /// Kraken, WebSocket v2.
    Kraken = 2,
    /// Gate.io spot v4.
    Gateio = 3,
    /// Crypto.com Exchange v1.
    Cryptocom = 4,
    /// Bybit v5 spot.
    Bybit = 5,
    /// OKX v5.
    Okx = 6,
}

/// How many venues there are.
pub const VENUE_COUNT: usize = 7;

impl Venue {
    /// All venues, in bit order.
    pub const ALL: [Self; VENUE_COUNT] =
        [Self::Coinbase, Self::Gemini, Self::Kraken, Self::Gateio, Self::Cryptocom, Self::Bybit, Self::Okx];

    /// Position in arrays kept per venue.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The venue at `index`, if there is one.
    #[must_use]
    pub const fn from_index(index: usize) -> Option<Self> {
        if index < VENUE_COUNT { Some(Self::ALL[index]) } else { None }
    }

    /// The bit of this venue on the wire: coinbase 1, gemini 2, kraken 4, gateio 8, cryptocom 16, bybit 32, okx 64.
    #[inline]
    #[must_use]
    pub const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// The name used in settings, commands and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Coinbase => "coinbase",
            Self::Gemini => "gemini",
            Self::Kraken => "kraken",
            Self::Gateio => "gateio",
            Self::Cryptocom => "cryptocom",
            Self::Bybit => "bybit",
            Self::Okx => "okx",
        }
    }

    /// The venue called `name` (lower case), if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|venue| venue.name() == name)
    }
}

impl fmt::Display for Venue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of venues, as the bits that travel on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VenueSet(u16);

impl VenueSet {
    /// No venue.
    pub const EMPTY: Self = Self(0);

    /// The set with these wire bits; bits of no venue are dropped.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & ((1 << VENUE_COUNT) - 1))
    }

    /// The wire bits.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// This set and `venue`.
    #[inline]
    #[must_use]
    pub const fn with(self, venue: Venue) -> Self {
        Self(self.0 | venue.bit())
    }

    /// This set but for `venue`.
    #[inline]
    #[must_use]
    pub const fn without(self, venue: Venue) -> Self {
        Self(self.0 & !venue.bit())
    }

    /// Whether `venue` is in the set.
    #[inline]
    #[must_use]
    pub const fn contains(self, venue: Venue) -> bool {
        self.0 & venue.bit() != 0
    }

    /// How many venues are in the set.
    #[inline]
    #[must_use]
    pub const fn len(self) -> u16 {
        self.0.count_ones() as u16
    }

    /// Whether no venue is in the set.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The venues of the set, in bit order.
    pub fn iter(self) -> impl Iterator<Item = Venue> {
        Venue::ALL.into_iter().filter(move |venue| self.contains(*venue))
    }
}
