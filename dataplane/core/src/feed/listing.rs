//! What one venue last said about one asset, and what that is worth.
//!
//! Messages carry what changed; here they become a state: bid, ask, last, and the one price they amount to. Whether
//! that price counts is decided by others; this file merges and remembers.

use super::amount::{Amount, finest_exponent};
use super::guard::{Fields, Order, is_broken_book};
use super::history::History;
use shared::price::Price;
use shared::quote::{Currency, Field, Quote, Route};

/// Memory of one (venue, asset) that was heard. All of them, 7 × 8,192, would be 21 MiB; 150 assets on seven venues
/// take 400 KB.
const LISTING_BYTES_MAX: usize = 384;
const _: () = assert!(size_of::<Listing>() <= LISTING_BYTES_MAX);

/// Refused messages in a row after which a live connection no longer proves the last good price.
const REFUSED_IN_ROW_MAX: u8 = 8;

/// Whether a venue is believed about an asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its price counts.
    Trusted,
    /// It jumped alone.
    Quarantined {
        /// When.
        since_mono_ns: u64,
    },
    /// It stays away from what others agree on.
    Outlier,
}

/// The one price that bid, ask and last amount to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Worth {
    /// The mid of the book, or the last trade.
    pub(super) amount: Amount,
    /// The last decimal place the venue used.
    pub(super) finest: i8,
    /// Whether it is the last trade.
    pub(super) from_last: bool,
    /// Ask − bid over mid, 1/100 bps, where both are known.
    pub(super) spread_centibps: Option<u32>,
}

/// One asset on one venue.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    /// What the prices are in.
    pub(super) currency: Currency,
    /// By which way the last quote came.
    pub(super) route: Route,
    /// Price of the last trade.
    pub(super) last: Option<Price>,
    /// Highest buy order.
    pub(super) bid: Option<Price>,
    /// Lowest sell order.
    pub(super) ask: Option<Price>,
    /// The venue's time of its last quote.
    pub(super) exchange_time_ms: Option<u64>,
    /// Our wall clock at its last quote.
    pub(super) received_time_ms: u64,
    /// Our monotonic clock at its last quote.
    pub(super) received_mono_ns: u64,
    /// When the last trade was spoken of, or happened if the venue restated an old one.
    pub(super) traded_mono_ns: u64,
    /// What it amounts to; `None` when there is no usable price.
    pub(super) worth: Option<Worth>,
    /// Whether it is believed.
    pub(super) standing: Standing,
    /// Its past.
    pub(super) history: History,
    /// How far it has come.
    pub(super) order: Order,
    refused_in_row: u8,
}

impl Listing {
    /// A listing of which nothing is known.
    pub(super) fn new(currency: Currency) -> Self {
        Self {
            currency,
            route: Route::Ws,
            last: None,
            bid: None,
            ask: None,
            exchange_time_ms: None,
            received_time_ms: 0,
            received_mono_ns: 0,
            traded_mono_ns: 0,
            worth: None,
            standing: Standing::Trusted,
            history: History::EMPTY,
            order: Order::default(),
            refused_in_row: 0,
        }
    }

    /// Takes a quote that passed the guard. `trade_age_ms` is how old its venue time makes it.
    pub(super) fn merge(&mut self, quote: &Quote, fields: &Fields, trade_age_ms: u64) {
        self.order.advance(quote);
        self.refused_in_row = 0;
        self.route = quote.route;
        self.exchange_time_ms = quote.exchange_time_ms;
        // A quote that waited for room in the channel may have been received before one that did not.
        if quote.received_mono_ns >= self.received_mono_ns {
            self.received_time_ms = quote.received_time_ms;
            self.received_mono_ns = quote.received_mono_ns;
        }
        if fields.last.price().is_some() {
            self.traded_mono_ns = quote.received_mono_ns.saturating_sub(trade_age_ms.saturating_mul(1_000_000));
        }
        self.last = fields.last.over(self.last);
        self.bid = fields.bid.over(self.bid);
        self.ask = fields.ask.over(self.ask);
        if let (Some(bid), Some(ask)) = (self.bid.and_then(Amount::of), self.ask.and_then(Amount::of))
            && is_broken_book(bid, ask)
        {
            // One side moved past the other, which nobody has spoken of since: the older word is void.
            match fields.bid {
                Field::At(_) => self.ask = None,
                Field::Unchanged | Field::Empty => self.bid = None,
            }
        }
        self.worth = self.worth_now();
    }

    /// Counts a refused message. Whether it is the one that makes the listing doubtful.
    pub(super) const fn refuse(&mut self) -> bool {
        self.refused_in_row = self.refused_in_row.saturating_add(1);
        self.refused_in_row == REFUSED_IN_ROW_MAX
    }

    /// Whether messages keep coming of which none can be used: a live connection then proves nothing.
    pub(super) const fn is_doubtful(&self) -> bool {
        self.refused_in_row >= REFUSED_IN_ROW_MAX
    }

    /// The worth as a price in the listing's own currency.
    pub(super) fn price(&self) -> Option<Price> {
        let worth = self.worth?;
        if worth.from_last {
            return self.last;
        }
        let mid = self.bid.zip(self.ask).and_then(|(bid, ask)| bid.midpoint(ask));
        mid.or_else(|| worth.amount.price(worth.finest))
    }

    fn worth_now(&self) -> Option<Worth> {
        let amount = |price: Option<Price>| Some((Amount::of(price?)?, finest_exponent(price?)));
        let book = amount(self.bid).zip(amount(self.ask));
        let spread_centibps = book.map(|((bid, _), (ask, _))| Amount::spread_centibps(bid, ask));
        let mid = book.map(|((bid, bid_exponent), (ask, ask_exponent))| Worth {
            amount: bid.midpoint(ask),
            finest: bid_exponent.min(ask_exponent),
            from_last: false,
            spread_centibps,
        });
        let last = amount(self.last).map(|(amount, finest)| Worth { amount, finest, from_last: true, spread_centibps });
        let is_crossed = book.is_some_and(|((bid, _), (ask, _))| bid > ask);
        if is_crossed { last.or(mid) } else { mid.or(last) }
    }
}
