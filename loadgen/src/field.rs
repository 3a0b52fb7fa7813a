//! Text that marks a field, found at the price of a comparison.
//!
//! Answers of one kind look alike: a field stands where it stood in the answer before, nearly always. So it is looked for
//! there first, and only then everywhere. What is found is the same either way, unless a text stands there twice.

use memchr::memmem::Finder;

/// A text and where it was found the last time.
pub(crate) struct Field {
    finder: Finder<'static>,
    at: usize,
}

impl Field {
    pub(crate) fn new(needle: &str) -> Self {
        Self { finder: Finder::new(needle).into_owned(), at: 0 }
    }

    /// Where what follows the text begins.
    #[inline]
    pub(crate) fn after(&mut self, bytes: &[u8]) -> Option<usize> {
        let needle = self.finder.needle();
        let is_there = bytes.get(self.at..self.at + needle.len()).is_some_and(|there| there == needle);
        if !is_there {
            self.at = self.finder.find(bytes)?;
        }
        Some(self.at + needle.len())
    }

    /// The whole number that follows the text.
    #[inline]
    pub(crate) fn number(&mut self, bytes: &[u8]) -> Option<u64> {
        whole_number(&bytes[self.after(bytes)?..]).map(|(number, _)| number)
    }

    /// Whether a string that is not empty follows the text, which ends with its quote.
    #[inline]
    pub(crate) fn has_text(&mut self, bytes: &[u8]) -> bool {
        self.after(bytes).and_then(|at| bytes.get(at)).is_some_and(|first| *first != b'"')
    }
}

/// The number that `bytes` begin with, and how many digits it has.
#[inline]
pub(crate) fn whole_number(bytes: &[u8]) -> Option<(u64, usize)> {
    let (mut number, mut digits) = (0_u64, 0);
    for byte in bytes {
        let digit = u64::from(byte.wrapping_sub(b'0'));
        if digit > 9 {
            break;
        }
        number = number.checked_mul(10)?.checked_add(digit)?;
        digits += 1;
    }
    (digits > 0).then_some((number, digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_wherever_it_moves() {
        let mut field = Field::new("n=");
        for (text, expected) in
            [("n=1", Some(1)), ("  n=2 ", Some(2)), ("  n=3", Some(3)), ("m=4", None), ("n=x", None)]
        {
            assert_eq!(field.number(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn numbers_end_where_their_digits_do() {
        for (text, expected) in [
            ("17\r", Some((17, 2))),
            ("007", Some((7, 3))),
            ("", None),
            ("-1", None),
            ("18446744073709551615", Some((u64::MAX, 20))),
            ("18446744073709551616", None),
        ] {
            assert_eq!(whole_number(text.as_bytes()), expected, "{text}");
        }
    }
}
