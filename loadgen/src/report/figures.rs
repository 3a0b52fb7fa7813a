//! Figures as people read them: grouped digits, times in the unit that fits, percentages that never round up to 100.
//!
//! Programs read the JSON, where every figure has one unit, which its name tells.

use crate::outcome::Tally;

/// A count, its digits in groups of three: `1,234,567`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A rate or another number that is not whole, to the nearest whole one; below ten with one decimal.
#[must_use]
pub fn rounded(number: f64) -> String {
    if number > 0.0 && number < 9.95 { format!("{number:.1}") } else { count(number.round().max(0.0) as u64) }
}

/// A time given in ns, three digits of it: `840 ns`, `84.2 µs`, `1.24 ms`, `12.4 s`.
#[must_use]
pub fn time(ns: u64) -> String {
    let ns = ns as f64;
    let (value, unit) = match ns {
        _ if ns < 999.5 => (ns, "ns"),
        _ if ns < 999_500.0 => (ns / 1e3, "µs"),
        _ if ns < 999_500_000.0 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// A number with about three digits.
#[must_use]
pub fn three_digits(value: f64) -> String {
    match value {
        _ if value >= 99.95 || value.fract() == 0.0 => format!("{value:.0}"),
        _ if value >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A percentage, cut (not rounded) to three decimals, so that 100 means all: `99.999 %`, `100 %`.
#[must_use]
pub fn percent(value: f64) -> String {
    // The next number up: what decimal text gave (99.9) is kept through the multiplication.
    let cut = (value.next_up() * 1_000.0).floor() / 1_000.0;
    let text = format!("{cut:.3}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// How much of what was due succeeded; `-` where nothing was.
#[must_use]
pub fn success(tally: &Tally) -> String {
    tally.success_percent().map_or_else(|| "-".to_owned(), percent)
}

/// CPUs' worth of time.
#[must_use]
pub fn cores(value: f64) -> String {
    format!("{value:.2}")
}

/// CPU time per request, µs.
#[must_use]
pub fn us(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |us| format!("{} µs", three_digits(us)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(count(number), text);
        }
        for (number, text) in [(0.0, "0"), (0.96, "1.0"), (9.94, "9.9"), (9.96, "10"), (4_999.6, "5,000")] {
            assert_eq!(rounded(number), text);
        }
    }

    #[test]
    fn times_are_in_the_unit_that_fits() {
        let table = [
            (0, "0 ns"),
            (840, "840 ns"),
            (1_000, "1 µs"),
            (84_213, "84.2 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (1_240_000, "1.24 ms"),
            (12_355_000_000, "12.4 s"),
            (60_000_000_000, "60 s"),
        ];
        for (ns, text) in table {
            assert_eq!(time(ns), text, "{ns}");
        }
    }

    #[test]
    fn where_nothing_was_due_there_is_no_success() {
        for (sent, unsent, text) in [(0, 0, "-"), (4, 0, "75 %"), (3, 3, "50 %"), (0, 3, "0 %")] {
            let tally = Tally { sent, unsent, answered: sent.min(3), ..Tally::default() };
            assert_eq!(success(&tally), text, "{sent} sent, {unsent} unsent");
        }
    }

    #[test]
    fn a_hundred_percent_means_all() {
        let table = [(100.0, "100 %"), (99.999_9, "99.999 %"), (99.9, "99.9 %"), (0.0, "0 %"), (12.345_6, "12.345 %")];
        for (value, text) in table {
            assert_eq!(percent(value), text, "{value}");
        }
    }
}
