//! A bounded order book: prices that have orders, and nothing else.
//!
//! Gemini's archived interface tells of books only by their changes. We need no more than the top, but to know the next
//! top when one is taken away, what lies below must be kept.

use shared::price::Price;
use std::collections::BTreeMap;

/// Prices kept on each side. 4,096 × ~45 bytes × 2 sides = 370 KiB a book; the largest recorded book has 2,500 a side.
/// Beyond it the price farthest from the top is dropped: it is seen again only if 4,096 better ones vanish.
pub const LEVELS_MAX: usize = 4_096;

/// A side of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Orders to buy; the highest is the top.
    Bid,
    /// Orders to sell; the lowest is the top.
    Ask,
}

/// One instrument's book. Prices are kept under their value, so that `65.0` removes `65.00`.
#[derive(Clone, Debug, Default)]
pub struct Book {
    bids: BTreeMap<Price, Price>,
    asks: BTreeMap<Price, Price>,
}

impl Book {
    /// Says whether there are orders at `price`.
    pub fn set(&mut self, side: Side, price: Price, orders: bool) {
        let levels = match side {
            Side::Bid => &mut self.bids,
            Side::Ask => &mut self.asks,
        };
        if !orders {
            levels.remove(&without_padding(price));
            return;
        }
        levels.insert(without_padding(price), price);
        if levels.len() > LEVELS_MAX {
            match side {
                Side::Bid => levels.pop_first(),
                Side::Ask => levels.pop_last(),
            };
        }
    }

    /// The highest bid, in the digits the venue used.
    #[must_use]
    pub fn bid(&self) -> Option<Price> {
        self.bids.last_key_value().map(|(_, price)| *price)
    }

    /// The lowest ask, in the digits the venue used.
    #[must_use]
    pub fn ask(&self) -> Option<Price> {
        self.asks.first_key_value().map(|(_, price)| *price)
    }
}

/// The price with no zeros at its end: equal values become equal prices.
fn without_padding(price: Price) -> Price {
    let (mut mantissa, mut exponent) = (price.mantissa(), price.exponent());
    while mantissa != 0 && mantissa % 10 == 0 && exponent < 0 {
        mantissa /= 10;
        exponent += 1;
    }
    Price::new(mantissa, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(text: &str) -> Price {
        Price::parse(text.as_bytes()).expect(text)
    }

    #[test]
    fn the_top_follows_its_orders() {
        let mut book = Book::default();
        for (side, at, orders, bid, ask) in [
            (Side::Bid, "65.0", true, Some("65.0"), None),
            (Side::Bid, "64.8", true, Some("65.0"), None),
            (Side::Ask, "66", true, Some("65.0"), Some("66")),
            (Side::Ask, "65.5", true, Some("65.0"), Some("65.5")),
            (Side::Bid, "65.00", false, Some("64.8"), Some("65.5")),
            (Side::Ask, "70", false, Some("64.8"), Some("65.5")),
            (Side::Ask, "65.5", false, Some("64.8"), Some("66")),
            (Side::Bid, "64.8", false, None, Some("66")),
        ] {
            book.set(side, price(at), orders);
            assert_eq!((book.bid(), book.ask()), (bid.map(price), ask.map(price)), "after {at}");
        }
    }

    #[test]
    fn a_full_book_keeps_the_prices_at_the_top() {
        let mut book = Book::default();
        for level in 0..i64::try_from(LEVELS_MAX).expect("small") + 10 {
            book.set(Side::Bid, Price::new(1_000 + level, -1), true);
            book.set(Side::Ask, Price::new(90_000 - level, -1), true);
        }
        assert_eq!((book.bids.len(), book.asks.len()), (LEVELS_MAX, LEVELS_MAX));
        assert_eq!(book.bids.first_key_value().map(|(price, _)| *price), Some(without_padding(Price::new(1_010, -1))));
        assert_eq!(book.asks.last_key_value().map(|(price, _)| *price), Some(without_padding(Price::new(89_990, -1))));
    }
}
