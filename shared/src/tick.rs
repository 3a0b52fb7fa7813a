//! The published price of one asset: what the feed shard sends to every serving shard.

use crate::asset::AssetId;
use crate::price::Price;
use crate::quote::Currency;
use crate::venue::{Venue, VenueSet};

/// Flag: older than its bound with its feed not proven alive.
pub const TICK_STALE: u16 = 1;
/// Flag: at least one contributor was converted from USDT.
pub const TICK_CONVERTED: u16 = 2;
/// Flag: the price comes from simulated exchanges.
pub const TICK_SIMULATED: u16 = 4;

/// `spread_centibps` of a tick whose bid or ask is not known.
pub const SPREAD_UNKNOWN: u32 = u32::MAX;

/// Which tier an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Tier {
    /// Our own feeds.
    Local = 0,
    /// Valkey.
    Valkey = 1,
    /// A venue's REST interface, asked on demand.
    Rest = 2,
}

impl Tier {
    /// The name in answers and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Valkey => "valkey",
            Self::Rest => "rest",
        }
    }

    /// The tier with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Local),
            1 => Some(Self::Valkey),
            2 => Some(Self::Rest),
            _ => None,
        }
    }
}

/// Where a published price comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The median of two or more venues.
    Median,
    /// One venue, by its WebSocket.
    Ws(Venue),
    /// One venue, by its REST interface.
    Rest(Venue),
    /// Another node's price, by way of Valkey.
    Valkey,
}

impl Source {
    /// The number that travels in a tick.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Median => 0,
            Self::Ws(venue) => 16 + venue as u8,
            Self::Rest(venue) => 32 + venue as u8,
            Self::Valkey => 1,
        }
    }

    /// The source with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Median),
            1 => Some(Self::Valkey),
            16..=22 => match Venue::from_index(number as usize - 16) {
                Some(venue) => Some(Self::Ws(venue)),
                None => None,
            },
            32..=38 => match Venue::from_index(number as usize - 32) {
                Some(venue) => Some(Self::Rest(venue)),
                None => None,
            },
            _ => None,
        }
    }

    /// The tag in answers.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Median => "median",
            Self::Valkey => "valkey",
            Self::Ws(Venue::Coinbase) => "coinbase-ws",
            Self::Ws(Venue::Gemini) => "gemini-ws",
            Self::Ws(Venue::Kraken) => "kraken-ws",
            Self::Ws(Venue::Gateio) => "gateio-ws",
            Self::Ws(Venue::Cryptocom) => "cryptocom-ws",
            Self::Ws(Venue::Bybit) => "bybit-ws",
            Self::Ws(Venue::Okx) => "okx-ws",
            Self::Rest(Venue::Coinbase) => "coinbase-rest",
            Self::Rest(Venue::Gemini) => "gemini-rest",
            Self::Rest(Venue::Kraken) => "kraken-rest",
            Self::Rest(Venue::Gateio) => "gateio-rest",
            Self::Rest(Venue::Cryptocom) => "cryptocom-rest",
            Self::Rest(Venue::Bybit) => "bybit-rest",
            Self::Rest(Venue::Okx) => "okx-rest",
        }
    }
}

/// One published price, 64 bytes.
///
/// `sequence` is the feed shard's one counter over all assets: it starts at Unix seconds × 2^20, so that a restarted
/// node never reuses a number (an `ETag` from before the restart cannot match), and stays below 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Tick {
    /// Price digits; with `exponent` the exact decimal.
    pub mantissa: i64,
    /// Position in the feed shard's order of all published changes.
    pub sequence: u64,
    /// The newest contributing venue time, Unix ms; 0 where no contributor gives one.
    pub exchange_time_ms: u64,
    /// Our wall clock at the newest contributing frame, Unix ms.
    pub received_time_ms: u64,
    /// Our monotonic clock at the newest contributing frame, ns.
    pub received_mono_ns: u64,
    /// Our monotonic clock when the tick was made, ns.
    pub published_mono_ns: u64,
    /// Ask − bid over mid, in 1/100 of a basis point; `SPREAD_UNKNOWN` where bid or ask is not known.
    pub spread_centibps: u32,
    /// The asset's number.
    pub asset: u16,
    /// `TICK_*` bits.
    pub flags: u16,
    /// Contributing venues, as wire bits.
    pub venues: u16,
    /// Power of ten of the mantissa.
    pub exponent: i8,
    /// `Currency` number.
    pub currency: u8,
    /// `Source` number.
    pub source: u8,
    /// `Tier` number.
    pub tier: u8,
    /// 1 where the tick was made at once for the frame that `received_mono_ns` tells of, so that the time since then is
    /// the feed's doing; 0 where housekeeping made it (a refresh, staleness, the end of a quarantine).
    pub prompt: u8,
    /// Zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<Tick>() == 64);

impl Tick {
    /// The price.
    #[inline]
    #[must_use]
    pub const fn price(&self) -> Price {
        Price::new(self.mantissa, self.exponent)
    }

    /// The asset; `None` only for bytes that no feed shard made.
    #[inline]
    #[must_use]
    pub const fn asset_id(&self) -> Option<AssetId> {
        AssetId::new(self.asset as usize)
    }

    /// The contributing venues.
    #[inline]
    #[must_use]
    pub const fn venue_set(&self) -> VenueSet {
        VenueSet::from_bits(self.venues)
    }

    /// Whether the price is stale.
    #[inline]
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.flags & TICK_STALE != 0
    }

    /// Whether the tick was made at once for the frame that `received_mono_ns` tells of.
    #[inline]
    #[must_use]
    pub const fn is_prompt(&self) -> bool {
        self.prompt != 0
    }

    /// What the price is in; a number that no feed shard writes reads as USDT, which promises less.
    #[inline]
    #[must_use]
    pub const fn currency(&self) -> Currency {
        match Currency::from_number(self.currency) {
            Some(currency) => currency,
            None => Currency::Usdt,
        }
    }
}

/// Sequences that a feed shard's life has for each of its seconds: more than it can give out.
const SEQUENCES_PER_SECOND: u64 = 1 << 20;

/// Whoever has waited so long for a sequence to be passed does not wait for a shard that lags behind another, ms.
const LAG_MS_MAX: u64 = 1_000;

/// The first sequence number of a feed shard started at `wall_ms`.
#[must_use]
pub const fn first_sequence(wall_ms: u64) -> u64 {
    wall_ms / 1_000 * SEQUENCES_PER_SECOND
}

/// Whether `sequence` is no feed shard's whose newest one is `newest`, but another node's: sequences are one node's, and
/// one that was started later is ahead for good. One that is only a little ahead may be known to another thread already,
/// unless it was waited for in vain for `waited_ms`.
#[must_use]
pub const fn is_of_another_node(sequence: u64, newest: u64, waited_ms: u64) -> bool {
    let ahead = sequence.saturating_sub(newest);
    ahead > SEQUENCES_PER_SECOND || ahead > 0 && waited_ms >= LAG_MS_MAX
}
