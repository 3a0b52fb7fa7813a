//! Prices as plain integers, for comparing, averaging and converting.
//!
//! Every price the guard lets through is a whole number of 10^-24 between 10^-18 and 10^12, so the largest is 10^36:
//! a sum of two and a percentage of one still fit an `i128`. This file knows no venue and no time.

use shared::price::{EXPONENT_MIN, Price};

/// Largest amount: 10^12 of a currency. Nothing costs more; a larger number is a fault.
const UNITS_MAX: i128 = 10_i128.pow(36);
/// Smallest amount: 10^-18 of a currency, below every listed asset.
const UNITS_MIN: i128 = 10_i128.pow(6);
/// Fewest significant digits of a published price: an average of cheap assets has more to say than their tick size.
const DIGITS_MIN: i8 = 6;
/// Most significant digits of a published price: 18 always fit the 64-bit mantissa.
const DIGITS_MAX: i8 = 18;
/// Digits up to which a venue's trailing zeros are taken for its tick size; zeros beyond are padding.
const DIGITS_PADDED: u32 = 8;
/// One USD per USDT as a [`Rate`]: twelve digits after the point.
const RATE_ONE: i128 = 10_i128.pow(12);

/// A positive price in units of 10^-24 of its currency, at most 10^36 units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Amount(i128);

/// USD for one USDT, in units of 10^-12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate(i128);

/// An amount in 32 bits: seven of shift and the 25 leading bits, so the order is kept and the error is below 2^-24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Coarse(u32);

impl Amount {
    /// Nothing: fills arrays, and is no price.
    pub(super) const ZERO: Self = Self(0);

    /// The amount of `price`; `None` when it is not positive, or absurd.
    pub(super) fn of(price: Price) -> Option<Self> {
        price.scaled(EXPONENT_MIN).and_then(Self::bounded)
    }

    fn bounded(units: i128) -> Option<Self> {
        (UNITS_MIN..=UNITS_MAX).contains(&units).then_some(Self(units))
    }

    /// Halfway between two. Half a unit is lost, which is below the last digit of any price.
    pub(super) const fn midpoint(self, other: Self) -> Self {
        Self((self.0 + other.0) / 2)
    }

    /// Whether the distance to `base` is more than `percent` of `base`.
    pub(super) const fn is_apart(self, base: Self, percent: i128) -> bool {
        (self.0 - base.0).abs() * 100 > base.0 * percent
    }

    /// This amount of USDT in USD, to the unit; `None` when the result is absurd.
    pub(super) fn converted(self, rate: Rate) -> Option<Self> {
        let (whole, rest) = (self.0 / RATE_ONE, self.0 % RATE_ONE);
        // The rest is below 10^12 and a rate below 10^24, so only the first product can be too large.
        whole.checked_mul(rate.0)?.checked_add(rest * rate.0 / RATE_ONE).and_then(Self::bounded)
    }

    /// The published price: rounded once, half to even, to `finest` or as finely as six significant digits need.
    pub(super) fn price(self, finest: i8) -> Option<Price> {
        let lead = self.0.ilog10() as i8 + EXPONENT_MIN;
        let exponent = finest.min(lead + 1 - DIGITS_MIN).max(lead + 1 - DIGITS_MAX).max(EXPONENT_MIN);
        Price::rounded(self.0, EXPONENT_MIN, exponent)
    }

    /// `(ask − bid) / mid` in 1/100 of a basis point, rounded down; 0 when the book is crossed.
    pub(super) fn spread_centibps(bid: Self, ask: Self) -> u32 {
        let mid = bid.midpoint(ask).0;
        // 84 leading bits leave room for the factor and lose nothing that a spread shows.
        let shift = (i128::BITS - mid.leading_zeros()).saturating_sub(84);
        let gap = (ask.0 - bid.0).max(0) >> shift;
        // A gap is at most twice the mid, so the quotient is at most two million and a rounding step.
        u32::try_from(gap * 1_000_000 / (mid >> shift)).unwrap_or(u32::MAX - 1)
    }

    /// The amount in 32 bits.
    pub(super) const fn coarse(self) -> Coarse {
        let shift = (i128::BITS - self.0.leading_zeros()).saturating_sub(25);
        Coarse(shift << 25 | (self.0 >> shift) as u32)
    }
}

impl Coarse {
    /// No amount at all; below every amount.
    pub(super) const NONE: Self = Self(0);

    /// The amount again, without what the 32 bits could not hold.
    pub(super) const fn amount(self) -> Amount {
        Amount(((self.0 & 0x1ff_ffff) as i128) << (self.0 >> 25))
    }
}

impl Rate {
    /// The rate that a price of USDT in USD is.
    pub(super) fn of(price: Price) -> Option<Self> {
        let rate = Amount::of(price)?.0 / RATE_ONE;
        (rate > 0).then_some(Self(rate))
    }
}

/// The middle of the sorted values, or the midpoint of the two middle ones; `None` when there are none.
pub(super) fn median_sorted<T: Copy>(sorted: &[T], midpoint: impl FnOnce(T, T) -> T) -> Option<T> {
    let half = sorted.len() / 2;
    let upper = *sorted.get(half)?;
    Some(if sorted.len() % 2 == 1 { upper } else { midpoint(sorted[half - 1], upper) })
}

/// The last place of `price` that its venue means: trailing zeros past the eighth significant digit are padding.
pub(super) const fn finest_exponent(price: Price) -> i8 {
    let (mut mantissa, mut exponent, mut digits) = (price.mantissa(), price.exponent(), price.significant_digits());
    while digits > DIGITS_PADDED && mantissa % 10 == 0 {
        mantissa /= 10;
        digits -= 1;
        exponent += 1;
    }
    exponent
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[track_caller]
    fn amount(text: &str) -> Amount {
        Price::parse(text.as_bytes()).ok().and_then(Amount::of).expect(text)
    }

    #[test]
    fn what_is_not_a_sane_price_has_no_amount() {
        for text in ["0", "-1", "1000000000001", "0.0000000000000000009"] {
            assert_eq!(Price::parse(text.as_bytes()).ok().and_then(Amount::of), None, "{text}");
        }
        for text in ["1000000000000", "0.000000000000000001", "67123.45"] {
            amount(text);
        }
    }

    #[test]
    fn published_digits() {
        #[track_caller]
        fn check(text: &str, finest: i8, expected: &str) {
            assert_eq!(amount(text).price(finest).map(|price| price.to_string()).as_deref(), Some(expected));
        }
        check("67123.455", -2, "67123.46");
        check("67123.445", -2, "67123.44");
        check("1.0001", -4, "1.00010");
        check("0.000012345", -8, "0.0000123450");
        check("0.000000000000000001", -18, "0.00000000000000000100000");
        check("1000000000000", -20, "1000000000000.00000");
        check("123456", 3, "123456");
    }

    #[test]
    fn padding_is_not_precision() {
        for (text, expected) in
            [("67123.50", -2), ("67123.5000000", -3), ("1.0614900", -7), ("100000.0000", -2), ("0.123456789", -9)]
        {
            assert_eq!(Price::parse(text.as_bytes()).map(finest_exponent), Ok(expected), "{text}");
        }
    }

    #[test]
    fn conversion_keeps_every_unit() {
        let rate = |text: &str| Price::parse(text.as_bytes()).ok().and_then(Rate::of).expect(text);
        for (usdt, usd_per_usdt, expected) in [
            ("67123.45", "0.99985", "67113.3814825"),
            ("1000000000000", "0.5", "500000000000"),
            ("0.000000000000001", "1.25", "0.00000000000000125"),
        ] {
            assert_eq!(amount(usdt).converted(rate(usd_per_usdt)), Some(amount(expected)), "{usdt}");
        }
        assert_eq!(amount("1000000000000").converted(rate("1.01")), None);
        assert_eq!(amount("1000000000000").converted(rate("1000000000000")), None);
    }

    #[test]
    fn coarse_keeps_order_and_size() {
        let ascending = ["0.000000000000000001", "0.00001234", "0.99985", "1", "1.0001", "67123.45", "1000000000000"];
        for pair in ascending.windows(2) {
            assert!(amount(pair[0]).coarse() < amount(pair[1]).coarse(), "{pair:?}");
        }
        for text in ascending {
            let (exact, again) = (amount(text).0, amount(text).coarse().amount().0);
            assert!(exact >= again && (exact - again) << 24 <= exact, "{text}");
        }
    }

    #[test]
    fn spread_is_relative_to_the_mid() {
        for (bid, ask, expected) in
            [("99.99", "100.01", 200), ("100", "100", 0), ("101", "100", 0), ("0.000000000000000001", "1", 1_999_999)]
        {
            assert_eq!(Amount::spread_centibps(amount(bid), amount(ask)), expected, "{bid} {ask}");
        }
    }
}
