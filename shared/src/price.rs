//! Prices: decimal text ↔ integer and exponent, exact both ways. No float ever touches one (invariant I11).
//!
//! A price is `mantissa × 10^exponent` and remembers its trailing zeros: `"67123.50"` comes out as it went in.
//! Arithmetic is done on `i128` and rounded once, half to even, to an exponent the caller names.

use core::cmp::Ordering;
use core::fmt;

/// Lowest exponent we keep: 24 digits after the point, more than any venue sends.
pub const EXPONENT_MIN: i8 = -24;
/// Highest exponent we keep.
pub const EXPONENT_MAX: i8 = 12;
/// Longest text a price has: sign, "0.", 24 digits; or sign, 19 digits and 12 zeros.
pub const PRICE_TEXT_MAX: usize = 34;
/// Longest text we read: Gemini and Crypto.com pad with zeros, so more than we write.
const PARSE_TEXT_MAX: usize = 64;

/// An exact decimal number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Price {
    mantissa: i64,
    exponent: i8,
}

/// Why a text is not a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriceRefused {
    /// No text.
    Empty,
    /// Not decimal digits with at most one point and one exponent.
    NotANumber,
    /// More significant digits than a 64-bit integer holds, or more than 24 after the point.
    TooPrecise,
    /// Larger than we can hold.
    TooLarge,
}

impl fmt::Display for PriceRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty price",
            Self::NotANumber => "price is not a decimal number",
            Self::TooPrecise => "price has more digits than can be kept exactly",
            Self::TooLarge => "price is too large",
        })
    }
}

impl Price {
    /// The price `mantissa × 10^exponent`. The exponent is clamped to `EXPONENT_MIN ..= EXPONENT_MAX`, which no
    /// price that came through [`Price::parse`] or the arithmetic here leaves.
    #[inline]
    #[must_use]
    pub const fn new(mantissa: i64, exponent: i8) -> Self {
        let exponent = if exponent < EXPONENT_MIN { EXPONENT_MIN } else { exponent };
        let exponent = if exponent > EXPONENT_MAX { EXPONENT_MAX } else { exponent };
        Self { mantissa, exponent }
    }

    /// The digits.
    #[inline]
    #[must_use]
    pub const fn mantissa(self) -> i64 {
        self.mantissa
    }

    /// The power of ten.
    #[inline]
    #[must_use]
    pub const fn exponent(self) -> i8 {
        self.exponent
    }

    /// Whether it is above zero.
    #[inline]
    #[must_use]
    pub const fn is_positive(self) -> bool {
        self.mantissa > 0
    }

    /// Reads decimal text such as `67123.450`, `-0.1`, `5.1e-05`: exactly, or not at all.
    ///
    /// # Errors
    /// See [`PriceRefused`]. `NaN`, infinities, signs but a leading `-`, spaces and separators are not numbers.
    pub fn parse(text: &[u8]) -> Result<Self, PriceRefused> {
        if text.is_empty() {
            return Err(PriceRefused::Empty);
        }
        if text.len() > PARSE_TEXT_MAX {
            return Err(if text.iter().all(u8::is_ascii_digit) {
                PriceRefused::TooLarge
            } else {
                PriceRefused::TooPrecise
            });
        }
        let (negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let split = unsigned.iter().position(|byte| matches!(byte, b'e' | b'E'));
        let (number, power) = match split {
            Some(at) => (&unsigned[..at], parse_power(&unsigned[at + 1..])?),
            None => (unsigned, 0),
        };
        let (digits, exponent) = parse_digits(number, power)?;
        let mantissa = i64::try_from(if negative { -digits } else { digits }).map_err(|_| PriceRefused::TooLarge)?;
        Ok(Self { mantissa, exponent })
    }

    /// Writes the decimal text into `out` and returns its length, at most `PRICE_TEXT_MAX`.
    #[inline]
    pub fn write(self, out: &mut [u8; PRICE_TEXT_MAX]) -> usize {
        let mut digits = [0u8; 20];
        let mut start = digits.len();
        let mut rest = self.mantissa.unsigned_abs();
        while rest > 0 {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let mut length = 0;
        let mut push = |byte: u8| {
            out[length] = byte;
            length += 1;
        };
        if self.mantissa < 0 {
            push(b'-');
        }
        let digits = &digits[start..];
        let fraction = usize::from(self.exponent.min(0).unsigned_abs());
        let whole = digits.len().saturating_sub(fraction);
        if whole == 0 {
            push(b'0');
        }
        digits[..whole].iter().for_each(|digit| push(*digit));
        // A zero has no digits to shift, so it stays "0" however large its exponent.
        (0..self.exponent.max(0)).filter(|_| self.mantissa != 0).for_each(|_| push(b'0'));
        if fraction > 0 {
            push(b'.');
            (digits.len()..fraction).for_each(|_| push(b'0'));
            digits[whole..].iter().for_each(|digit| push(*digit));
        }
        length
    }

    /// The value in units of `10^exponent`, if `exponent` is not above this price's own and the result fits.
    #[inline]
    #[must_use]
    pub fn scaled(self, exponent: i8) -> Option<i128> {
        let shift = u32::try_from(i32::from(self.exponent) - i32::from(exponent)).ok()?;
        i128::from(self.mantissa).checked_mul(10_i128.checked_pow(shift)?)
    }

    /// The price nearest to `value × 10^exponent` with exponent `target`, half to even. `None` when it does not fit.
    #[must_use]
    pub fn rounded(value: i128, exponent: i8, target: i8) -> Option<Self> {
        let shift = i32::from(target) - i32::from(exponent);
        let mantissa = match u32::try_from(shift) {
            Ok(digits) => divide_half_even(value, 10_i128.checked_pow(digits)?),
            Err(_) => value.checked_mul(10_i128.checked_pow(shift.unsigned_abs())?)?,
        };
        let in_range = (EXPONENT_MIN..=EXPONENT_MAX).contains(&target);
        in_range.then_some(Self { mantissa: i64::try_from(mantissa).ok()?, exponent: target })
    }

    /// `self × rate`, rounded half to even to exponent `target`. `None` when it does not fit.
    #[must_use]
    pub fn converted(self, rate: Self, target: i8) -> Option<Self> {
        let product = i128::from(self.mantissa) * i128::from(rate.mantissa);
        Self::rounded(product, self.exponent.checked_add(rate.exponent)?, target)
    }

    /// The price halfway between two, exact: it may have one digit more than either. `None` when it does not fit.
    #[must_use]
    pub fn midpoint(self, other: Self) -> Option<Self> {
        let exponent = self.exponent.min(other.exponent);
        let sum = self.scaled(exponent)?.checked_add(other.scaled(exponent)?)?;
        if sum % 2 == 0 {
            return Some(Self { mantissa: i64::try_from(sum / 2).ok()?, exponent });
        }
        let finer = exponent.checked_sub(1).filter(|finer| *finer >= EXPONENT_MIN)?;
        Some(Self { mantissa: i64::try_from(sum.checked_mul(5)?).ok()?, exponent: finer })
    }

    /// `|self − base| / base` in 1/100 of a basis point, rounded down, at most `u32::MAX - 1`. `None` when `base` is
    /// not positive or the prices are too far apart to compare.
    #[must_use]
    pub fn distance_centibps(self, base: Self) -> Option<u32> {
        let exponent = self.exponent.min(base.exponent);
        let (mine, base) = (self.scaled(exponent)?, base.scaled(exponent)?);
        if base <= 0 {
            return None;
        }
        let distance = (mine - base).checked_abs()?.checked_mul(1_000_000)? / base;
        Some(u32::try_from(distance).unwrap_or(u32::MAX).min(u32::MAX - 1))
    }

    /// Digits before and after the point that carry the value: `0.00450` has 3.
    #[must_use]
    pub const fn significant_digits(self) -> u32 {
        match self.mantissa.unsigned_abs().checked_ilog10() {
            Some(log) => log + 1,
            None => 0,
        }
    }
}

impl PartialOrd for Price {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Price {
    /// By value first; equal values by exponent, so that the order agrees with `Eq`, for which `1.0` is not `1.00`.
    fn cmp(&self, other: &Self) -> Ordering {
        self.compare_value(*other).then(other.exponent.cmp(&self.exponent))
    }
}

impl Price {
    /// Compares by value alone: `1.0` and `1.00` are equal.
    #[must_use]
    pub fn compare_value(self, other: Self) -> Ordering {
        let sign = self.mantissa.signum().cmp(&other.mantissa.signum());
        if sign.is_ne() || self.mantissa == 0 {
            return sign;
        }
        // Same sign: the position of the leading digit decides, unless it is the same.
        let lead = |price: Self| price.significant_digits() as i32 + i32::from(price.exponent);
        let by_size = match lead(self).cmp(&lead(other)) {
            Ordering::Equal => {
                // Both leading digits are at one place, so exponents differ by at most 18: 37 digits, which an i128 holds.
                let exponent = self.exponent.min(other.exponent);
                let mine = self.scaled(exponent).map_or(0, i128::unsigned_abs);
                mine.cmp(&other.scaled(exponent).map_or(0, i128::unsigned_abs))
            }
            unequal => unequal,
        };
        if self.mantissa < 0 { by_size.reverse() } else { by_size }
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; PRICE_TEXT_MAX];
        let length = self.write(&mut text);
        // Only ASCII is written.
        f.pad(core::str::from_utf8(&text[..length]).unwrap_or_default())
    }
}

impl fmt::Debug for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The decimal power after an `e`, at most three digits.
fn parse_power(text: &[u8]) -> Result<i32, PriceRefused> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(PriceRefused::NotANumber);
    }
    if digits.len() > 3 {
        return Err(if negative { PriceRefused::TooPrecise } else { PriceRefused::TooLarge });
    }
    let value = digits.iter().fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0'));
    Ok(if negative { -value } else { value })
}

/// Digits with at most one point, and the power that stood behind them, as an integer and exponent in range.
fn parse_digits(text: &[u8], power: i32) -> Result<(i128, i8), PriceRefused> {
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let whole = &text[..point];
    let fraction = text.get(point + 1..).unwrap_or_default();
    let point_without_fraction = point < text.len() && fraction.is_empty();
    if whole.is_empty() || point_without_fraction || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(PriceRefused::NotANumber);
    }
    let mut exponent = power - fraction.len() as i32;
    let mut digits: i128 = 0;
    for digit in whole.iter().chain(fraction) {
        digits = digits
            .checked_mul(10)
            .and_then(|sum| sum.checked_add(i128::from(digit - b'0')))
            .ok_or(PriceRefused::TooPrecise)?;
    }
    // Padding zeros may be shed; digits that carry value may not.
    while (digits > i128::from(i64::MAX) || exponent < i32::from(EXPONENT_MIN)) && digits % 10 == 0 {
        if digits == 0 {
            exponent = i32::from(EXPONENT_MIN);
            break;
        }
        digits /= 10;
        exponent += 1;
    }
    while exponent > i32::from(EXPONENT_MAX) {
        digits = digits.checked_mul(10).filter(|wider| *wider <= i128::from(i64::MAX)).ok_or(PriceRefused::TooLarge)?;
        exponent = if digits == 0 { 0 } else { exponent - 1 };
    }
    if exponent < i32::from(EXPONENT_MIN) {
        return Err(PriceRefused::TooPrecise);
    }
    if digits > i128::from(i64::MAX) {
        return Err(if exponent < 0 { PriceRefused::TooPrecise } else { PriceRefused::TooLarge });
    }
    Ok((digits, exponent as i8))
}

/// `value / divisor`, half to even; `divisor` is positive.
fn divide_half_even(value: i128, divisor: i128) -> i128 {
    let (quotient, remainder) = (value.div_euclid(divisor), value.rem_euclid(divisor));
    match (remainder * 2).cmp(&divisor) {
        Ordering::Greater => quotient + 1,
        Ordering::Equal => quotient + (quotient & 1),
        Ordering::Less => quotient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[track_caller]
    fn price(text: &str) -> Price {
        Price::parse(text.as_bytes()).expect(text)
    }

    #[test]
    fn text_comes_out_as_it_went_in() {
        for text in ["67123.45", "0.00044780", "329.06250000", "1", "0", "0.0", "-12.50", "100", "0.000000000000000001"]
        {
            assert_eq!(price(text).to_string(), text);
        }
    }

    #[test]
    fn other_spellings_have_one_text() {
        for (text, expected) in [
            ("007.50", "7.50"),
            ("5.1e-05", "0.000051"),
            ("1E3", "1000"),
            ("1.5e+2", "150"),
            ("0e99", "0"),
            ("1e14", "100000000000000"),
            ("0.1000000000000000000000000000000", "0.1000000000000000000"),
            ("65205.500000000000000000000000", "65205.50000000000000"),
        ] {
            assert_eq!(price(text).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_price_is_refused() {
        use PriceRefused::{Empty, NotANumber, TooLarge, TooPrecise};
        let many = "9".repeat(10_000);
        for (text, why) in [
            ("", Empty),
            ("NaN", NotANumber),
            ("inf", NotANumber),
            ("-", NotANumber),
            ("+1", NotANumber),
            ("1.", NotANumber),
            (".5", NotANumber),
            ("1.2.3", NotANumber),
            ("1e", NotANumber),
            ("1e5.0", NotANumber),
            (" 1", NotANumber),
            ("1,000", NotANumber),
            ("1e308", TooLarge),
            ("1e9999", TooLarge),
            ("1e-308", TooPrecise),
            ("1.2345678901234567890123", TooPrecise),
            ("99999999999999999999", TooLarge),
            (many.as_str(), TooLarge),
        ] {
            assert_eq!(Price::parse(text.as_bytes()), Err(why), "{text}");
        }
    }

    #[test]
    fn order_is_by_value() {
        let ascending = ["-2", "-1.5", "-0.001", "0", "0.000001", "0.1", "0.11", "9", "10.0", "10.01", "1e12"];
        for pair in ascending.windows(2) {
            assert!(price(pair[0]) < price(pair[1]), "{pair:?}");
        }
        assert_eq!(price("1.0").compare_value(price("1.00")), Ordering::Equal);
        assert_eq!(price("1e12").compare_value(price("0.000000000000000000000001")), Ordering::Greater);
    }

    #[test]
    fn midpoint_is_exact() {
        for (a, b, expected) in
            [("1", "2", "1.5"), ("1.00", "1.02", "1.01"), ("0.10", "0.15", "0.125"), ("3", "5", "4")]
        {
            assert_eq!(price(a).midpoint(price(b)), Some(price(expected)));
        }
    }

    #[test]
    fn rounding_is_half_to_even() {
        for (value, target, expected) in
            [(125, -1, "12.5"), (125, 0, "12"), (135, 0, "14"), (-125, 0, "-12"), (126, 0, "13")]
        {
            assert_eq!(Price::rounded(value, -1, target).map(|p| p.to_string()).as_deref(), Some(expected));
        }
        assert_eq!(price("100").converted(price("0.9995"), -2).map(|p| p.to_string()).as_deref(), Some("99.95"));
        assert_eq!(Price::rounded(i128::MAX, 0, 0), None);
    }

    #[test]
    fn distance_is_relative() {
        assert_eq!(price("110").distance_centibps(price("100")), Some(100_000));
        assert_eq!(price("60").distance_centibps(price("100")), Some(400_000));
        assert_eq!(price("1").distance_centibps(price("0")), None);
    }
}
