//! The simulated market: seeded random walks, correlated across venues.

use shared::price::Price;

/// The present market of one instrument on one venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarketQuote {
    /// Price of the last trade.
    pub last: Price,
    /// Highest buy order.
    pub bid: Price,
    /// Lowest sell order.
    pub ask: Price,
    /// Grows with each change.
    pub sequence: u64,
}
