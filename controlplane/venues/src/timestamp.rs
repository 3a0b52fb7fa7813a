//! RFC 3339 text ↔ Unix milliseconds, in whole numbers.
//!
//! Coinbase and Kraken write times this way, with 9 and 6 digits of a second. This file knows no clock and no zone but
//! UTC and plain offsets.

use crate::json::parse_whole;

/// The Unix time in ms of RFC 3339 text such as `2026-08-09T21:05:48.854840045Z`: up to 9 digits of a second (the
/// rest below 1 ms is cut off), `Z` or an offset. `None` when it is something else, or before 1970.
#[must_use]
pub fn rfc3339_ms(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| parse_whole(text.get(from..to)?);
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !separators.iter().all(|(at, byte)| bytes.get(*at) == Some(byte)) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    // A leap second is written as second 60.
    let in_range = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = match text.get(19..)?.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
        None => ("000", text.get(19..)?),
    };
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let millis = parse_whole(&format!("{fraction:0<3}")[..3])?;
    let seconds = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    let east = offset_seconds(zone)?;
    Some(u64::try_from(i64::try_from(seconds).ok()? - east).ok()? * 1_000 + millis)
}

/// Seconds east of UTC of `Z`, `z` or `±hh:mm`.
fn offset_seconds(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, clock) = match zone.split_at_checked(1)? {
        ("+", clock) => (1, clock),
        ("-", clock) => (-1, clock),
        _ => return None,
    };
    let (hours, minutes) = clock.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2)?;
    Some(sign * 60 * i64::try_from(parse_whole(hours)? * 60 + parse_whole(minutes)?).ok()?)
}

/// Days of the Gregorian calendar from 1970-01-01, for years from 1970 on.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // A year that begins in March has its leap day last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    days - 719_468
}

/// The RFC 3339 text of a Unix time in ms, in UTC, with `digits` (3 to 9) digits of a second, years up to 9999.
#[must_use]
pub fn rfc3339_text(unix_ms: u64, digits: usize) -> String {
    let (seconds, millis) = (unix_ms / 1_000, unix_ms % 1_000);
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date_of_day(days);
    let (hour, minute, second) = (clock / 3_600, clock / 60 % 60, clock % 60);
    let fraction = format!("{millis:03}{:0<1$}", "", digits.clamp(3, 9) - 3);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction}Z")
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
fn date_of_day(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that a leap day ends its year, century and era of 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year_of_era, month + 3) } else { (year_of_era + 1, month - 9) };
    (era * 400 + year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_milliseconds() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:00.000000Z", Some(0)),
            ("2026-08-09T21:05:48.854840045Z", Some(1_786_309_548_854)),
            ("2026-08-09T21:05:48.854840Z", Some(1_786_309_548_854)),
            ("2026-08-09T21:05:48.8Z", Some(1_786_309_548_800)),
            ("2026-08-09T23:05:48+02:00", Some(1_786_309_548_000)),
            ("2024-02-29T12:00:00Z", Some(1_709_208_000_000)),
            ("2000-03-01T00:00:00Z", Some(951_868_800_000)),
            ("2026-08-09 21:05:48.854840045 +0000 UTC m=+41691.26", None),
            ("2026-08-09T21:05:48", None),
            ("2026-08-09T21:05:48.Z", None),
            ("2026-08-09T21:05:48.1234567890Z", None),
            ("2026-13-09T21:05:48Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("1970-01-01T00:00:00+01:00", None),
            ("2026-08-09T21:05:48+1:000", None),
            ("2026-08-09T21:05:4", None),
            ("", None),
        ] {
            assert_eq!(rfc3339_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn text_reads_back() {
        assert_eq!(rfc3339_text(1_786_309_548_854, 9), "2026-08-09T21:05:48.854000000Z");
        assert_eq!(rfc3339_text(1_709_208_000_001, 6), "2024-02-29T12:00:00.001000Z");
        // Every day of 130 years, at a time of day that changes.
        for day in 0..47_482_u64 {
            let ms = day * 86_400_000 + day * 1_787 % 86_400_000;
            assert_eq!(rfc3339_ms(&rfc3339_text(ms, 6)), Some(ms));
        }
    }
}
