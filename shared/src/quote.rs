//! What one venue said about one asset.

use crate::asset::AssetId;
use crate::price::Price;
use crate::venue::Venue;

/// The currency a price is in. USDT is a token that floats around a dollar; it is never called USD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Currency {
    /// US dollar.
    Usd = 1,
    /// Tether.
    Usdt = 2,
}

impl Currency {
    /// The currency's code.
    #[inline]
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Usd => "USD",
            Self::Usdt => "USDT",
        }
    }

    /// The currency with this code, upper case. USDC and other dollar tokens are neither.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        match code {
            "USD" => Some(Self::Usd),
            "USDT" => Some(Self::Usdt),
            _ => None,
        }
    }

    /// The currency with this wire number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Usd),
            2 => Some(Self::Usdt),
            _ => None,
        }
    }
}

/// One price field of a message: venues send what changed, and an empty side is not an absent one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Field {
    /// The message does not speak of it: what was known stays.
    #[default]
    Unchanged,
    /// The message says there is none (an empty book side).
    Empty,
    /// The message says this.
    At(Price),
}

impl Field {
    /// The field after this message, given what was known before.
    #[inline]
    #[must_use]
    pub const fn over(self, before: Option<Price>) -> Option<Price> {
        match self {
            Self::Unchanged => before,
            Self::Empty => None,
            Self::At(price) => Some(price),
        }
    }

    /// The price the message gives, if it gives one.
    #[inline]
    #[must_use]
    pub const fn price(self) -> Option<Price> {
        match self {
            Self::At(price) => Some(price),
            Self::Unchanged | Self::Empty => None,
        }
    }
}

/// By which way a quote reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Route {
    /// The venue's WebSocket.
    Ws = 0,
    /// The venue's REST interface.
    Rest = 1,
}

/// What one venue said about one asset, its clock and ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Who said it.
    pub venue: Venue,
    /// About what.
    pub asset: AssetId,
    /// What the prices are in.
    pub currency: Currency,
    /// By which way it came.
    pub route: Route,
    /// Whether it restates the market (first frame of a subscription): its time may be old, and it may follow a gap.
    pub snapshot: bool,
    /// Price of the last trade.
    pub last: Field,
    /// Highest buy order.
    pub bid: Field,
    /// Lowest sell order.
    pub ask: Field,
    /// The venue's time of the event, Unix ms; `None` where the venue gives none.
    pub exchange_time_ms: Option<u64>,
    /// The venue's own order of events for this asset and channel, where it has one.
    pub venue_sequence: Option<u64>,
    /// Our wall clock when the frame arrived, Unix ms.
    pub received_time_ms: u64,
    /// Our monotonic clock when the frame arrived, ns.
    pub received_mono_ns: u64,
}
