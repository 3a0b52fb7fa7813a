//! The calendar, as far as HTTP needs it: the `Date` field, and when a month ends.

const DAY_S: u64 = 86_400;

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) type DateText = [u8; 29];

/// Year, month from 1, day from 1 of a day counted from 1970-01-01 (Gregorian, by 400-year eras that begin in March).
const fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + (month <= 2) as u64, month, day)
}

const fn days_in_month(year: u64, month: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Seconds until the next month begins (UTC), at least 1.
pub(crate) const fn seconds_to_next_month(wall_ms: u64) -> u64 {
    let seconds = wall_ms / 1_000;
    let (year, month, day) = civil(seconds / DAY_S);
    (days_in_month(year, month) - day) * DAY_S + DAY_S - seconds % DAY_S
}

/// Which calendar month it is (UTC): year × 12 + month − 1.
#[must_use]
pub const fn month_of(wall_ms: u64) -> u32 {
    let (year, month, _) = civil(wall_ms / 1_000 / DAY_S);
    (year * 12 + month - 1) as u32
}

/// The `Date` field's text. Years beyond 9999 are shown as 9999.
pub(crate) fn http_date(wall_ms: u64) -> DateText {
    const WEEKDAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let seconds = wall_ms / 1_000;
    let days = seconds / DAY_S;
    let (year, month, day) = civil(days);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let weekday = (days % 7) as usize * 3;
    text[..3].copy_from_slice(&WEEKDAYS[weekday..weekday + 3]);
    let month = (month as usize - 1) * 3;
    text[8..11].copy_from_slice(&MONTHS[month..month + 3]);
    let mut put = |at: usize, number: u64| {
        text[at] = b'0' + (number / 10 % 10) as u8;
        text[at + 1] = b'0' + (number % 10) as u8;
    };
    let year = year.min(9_999);
    put(5, day);
    put(12, year / 100);
    put(14, year % 100);
    put(17, seconds / 3_600 % 24);
    put(20, seconds / 60 % 60);
    put(23, seconds % 60);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_793_500_000, "Sun, 01 Nov 2026 02:26:40 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(core::str::from_utf8(&http_date(seconds * 1_000 + 999)), Ok(expected));
        }
    }

    #[test]
    fn months_end() {
        for (seconds, expected) in
            [(0, 31 * DAY_S), (951_782_400, DAY_S), (951_868_799, 1), (4_107_456_000, DAY_S), (1_798_761_599, 1)]
        {
            assert_eq!(seconds_to_next_month(seconds * 1_000), expected, "{seconds}");
            let month = month_of(seconds * 1_000);
            assert_eq!(month_of((seconds + expected) * 1_000 - 1), month, "{seconds}");
            assert_eq!(month_of((seconds + expected) * 1_000), month + 1, "{seconds}");
        }
        assert_eq!(month_of(1_795_300_000_000), 2026 * 12 + 10, "22 November 2026");
    }
}
