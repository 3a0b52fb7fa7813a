//! Time zones of reports: where days begin, and what a clock on the wall shows.
//!
//! Rules come from the IANA database, the system's or the one built in. What a report is, is not known here.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone, TimeZoneTransition};
use std::fmt;

/// A minute, ms.
pub const MINUTE_MS: u64 = 60_000;

/// An hour, ms.
pub const HOUR_MS: u64 = 60 * MINUTE_MS;

/// A day of 24 hours, ms.
pub const DAY_MS: u64 = 24 * HOUR_MS;

/// Furthest that a fixed offset may be from UTC, seconds: no place on earth is further than 14 hours.
const OFFSET_S_MAX: i32 = 14 * 60 * 60;

/// A time zone, and what it was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    zone: TimeZone,
    name: String,
}

impl Zone {
    /// UTC.
    #[must_use]
    pub fn utc() -> Self {
        Self { zone: TimeZone::UTC, name: "UTC".to_owned() }
    }

    /// A zone by its IANA name, or by an offset `+hh:mm` or `-hh:mm` of 14 hours at the most. A blank in front of an
    /// offset is a `+` that was not escaped in a query. `None` for anything else.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        if let Some(offset_s) = offset_s(text) {
            let zone = TimeZone::fixed(Offset::from_seconds(offset_s).ok()?);
            let (sign, minutes) = (if offset_s < 0 { '-' } else { '+' }, offset_s.unsigned_abs() / 60);
            return Some(Self { zone, name: format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60) });
        }
        let zone = TimeZone::get(text).ok()?;
        let name = zone.iana_name()?.to_owned();
        Some(Self { zone, name })
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a clock on the wall shows at a time, Unix ms, and how far it is from UTC then, seconds.
    #[must_use]
    pub fn wall(&self, time_ms: u64) -> (DateTime, i32) {
        let offset = self.zone.to_offset(at(time_ms));
        (offset.to_datetime(at(time_ms)), offset.seconds())
    }

    /// Begin of the day that holds a time, and of the next one, both Unix ms. Days are 23 to 25 hours long where clocks
    /// are set.
    #[must_use]
    pub fn day(&self, time_ms: u64) -> (u64, u64) {
        let date = self.wall(time_ms).0.date();
        let begin = |date: Date| date.to_zoned(self.zone.clone()).map(|begin| unix_ms(begin.timestamp()));
        let next = date.tomorrow().and_then(begin).unwrap_or(u64::MAX);
        (begin(date).unwrap_or_default(), next)
    }

    /// Begin of the hour on the wall that holds a time, and of the next one, both Unix ms. They are 60 minutes apart
    /// unless a clock is set by another time than whole hours in between: then one ends, and one begins, at that.
    #[must_use]
    pub fn hour(&self, time_ms: u64) -> (u64, u64) {
        let offset_ms = i64::from(self.wall(time_ms).1) * 1_000;
        let into_ms = time_ms.saturating_add_signed(offset_ms) % HOUR_MS;
        let (begin_ms, next_ms) = (time_ms.saturating_sub(into_ms), time_ms.saturating_sub(into_ms) + HOUR_MS);
        let set_ms = |time: Option<TimeZoneTransition<'_>>| time.map(|time| unix_ms(time.timestamp()));
        // The one before the next millisecond: it may be at this one.
        let last_set_ms = set_ms(self.zone.preceding(at(time_ms + 1)).next()).unwrap_or_default();
        let next_set_ms = set_ms(self.zone.following(at(time_ms)).next()).unwrap_or(u64::MAX);
        (begin_ms.max(last_set_ms), next_ms.min(next_set_ms))
    }

    /// A time, Unix ms, as RFC 3339 in this zone, to the millisecond.
    #[must_use]
    pub fn rfc3339(&self, time_ms: u64) -> String {
        let (wall, offset_s) = self.wall(time_ms);
        let (sign, minutes) = (if offset_s < 0 { '-' } else { '+' }, offset_s.unsigned_abs() / 60);
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}{sign}{:02}:{:02}",
            wall.year(),
            wall.month(),
            wall.day(),
            wall.hour(),
            wall.minute(),
            wall.second(),
            wall.millisecond(),
            minutes / 60,
            minutes % 60
        )
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A time as the library has it; times beyond its bounds, the year 9999, are at them.
fn at(time_ms: u64) -> Timestamp {
    let time_ms = i64::try_from(time_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(time_ms).unwrap_or(Timestamp::MAX)
}

fn unix_ms(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or_default()
}

/// `+hh:mm` and `-hh:mm`, seconds.
fn offset_s(text: &str) -> Option<i32> {
    let sign = match text.as_bytes().first()? {
        b'+' | b' ' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let two = |digits: &str, most: i32| {
        let good = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<i32>().ok().filter(|number| good && *number <= most)
    };
    let offset_s = two(hours, 14)? * 3_600 + two(minutes, 59)? * 60;
    (offset_s <= OFFSET_S_MAX).then_some(sign * offset_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_by_name_and_by_offset() {
        for (text, expected) in [
            ("UTC", Some("UTC")),
            ("Europe/Berlin", Some("Europe/Berlin")),
            ("europe/berlin", Some("Europe/Berlin")),
            ("Australia/Lord_Howe", Some("Australia/Lord_Howe")),
            ("+05:30", Some("+05:30")),
            (" 05:30", Some("+05:30")),
            ("-00:30", Some("-00:30")),
            ("+14:00", Some("+14:00")),
            ("+14:01", None),
            ("+5:30", None),
            ("+05:60", None),
            ("+0530", None),
            ("+", None),
            ("", None),
            ("Europe/Nowhere", None),
            ("../etc/passwd", None),
        ] {
            assert_eq!(Zone::named(text).as_ref().map(Zone::name), expected, "{text:?}");
        }
    }

    #[track_caller]
    fn check(zone: &str, time_ms: u64, wall: &str, day_hours: u64, hour_minutes: u64) {
        let zone = Zone::named(zone).expect("a zone");
        assert_eq!(zone.rfc3339(time_ms), wall);
        let (begin_ms, next_ms) = zone.day(time_ms);
        assert!((begin_ms..next_ms).contains(&time_ms));
        assert_eq!((next_ms - begin_ms) * 10 / HOUR_MS, day_hours, "tenths of hours in the day");
        let (begin_ms, next_ms) = zone.hour(time_ms);
        assert!((begin_ms..next_ms).contains(&time_ms));
        assert_eq!((next_ms - begin_ms) / 60_000, hour_minutes, "minutes in the hour");
    }

    #[test]
    fn clocks_are_set_and_days_and_hours_follow() {
        check("UTC", 1_792_890_000_001, "2026-10-25T01:00:00.001+00:00", 240, 60);
        check("Europe/Berlin", 1_792_890_000_000 - 1, "2026-10-25T02:59:59.999+02:00", 250, 60);
        check("Europe/Berlin", 1_792_890_000_000, "2026-10-25T02:00:00.000+01:00", 250, 60);
        check("Europe/Berlin", 1_774_746_000_000, "2026-03-29T03:00:00.000+02:00", 230, 60);
        check("Asia/Kolkata", 1_792_890_000_000, "2026-10-25T06:30:00.000+05:30", 240, 60);
        check("Australia/Lord_Howe", 1_775_314_800_000 - 1, "2026-04-05T01:59:59.999+11:00", 245, 60);
        check("Australia/Lord_Howe", 1_775_314_800_000, "2026-04-05T01:30:00.000+10:30", 245, 30);
        check("Australia/Lord_Howe", 1_791_041_400_000 - 1, "2026-10-04T01:59:59.999+10:30", 235, 60);
        check("Australia/Lord_Howe", 1_791_041_400_000, "2026-10-04T02:30:00.000+11:00", 235, 30);
    }
}
