//! When `sync --every` runs: five fields as cron has them, in UTC, or the form that AWS's schedulers write.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// What is wanted of a text.
const FORM: &str = "five fields in UTC, minute hour day month weekday, such as \"0 6 * * *\", or cron(0 6 * * ? *)";

/// Times at which something is due.
#[derive(Clone, Debug)]
pub struct Schedule(Cron);

impl Schedule {
    /// Reads a text.
    ///
    /// # Errors
    /// What is wanted. Of AWS's form a year, and days of the week by number, which count otherwise there, are refused.
    pub fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let fields = match text.strip_prefix("cron(").and_then(|rest| rest.strip_suffix(')')) {
            None => text.to_owned(),
            Some(inner) => plain(inner)?,
        };
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&fields).map_err(|why| format!("{why}: it is {FORM}"))?;
        let schedule = Self(cron);
        // A day that no month has.
        schedule.after_ms(0).map(|_| schedule).ok_or_else(|| format!("{text:?} never comes: it is {FORM}"))
    }

    /// The first time behind this one, Unix ms.
    #[must_use]
    pub fn after_ms(&self, time_ms: u64) -> Option<u64> {
        let from = Timestamp::from_millisecond(i64::try_from(time_ms).ok()?).ok()?.to_zoned(TimeZone::UTC);
        let next = self.0.find_next_occurrence(&from, false).ok()?;
        u64::try_from(next.timestamp().as_millisecond()).ok()
    }
}

/// The five fields of AWS's six.
fn plain(inner: &str) -> Result<String, String> {
    let fields: Vec<&str> = inner.split_whitespace().collect();
    let [minute, hour, day, month, weekday, year] = fields[..] else {
        return Err(format!("cron(…) has six fields: it is {FORM}"));
    };
    if year != "*" || weekday.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(format!("years, and weekdays by number, are not taken from cron(…): it is {FORM}"));
    }
    let all = |field: &str| if field == "?" { "*".to_owned() } else { field.to_owned() };
    Ok([minute, hour, &all(day), month, &all(weekday)].join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 22 November 2026, 06:00:00, a Sunday.
    const SIX: u64 = 1_795_327_200_000;
    const MINUTE: u64 = 60_000;
    const DAY: u64 = 24 * 60 * MINUTE;

    #[track_caller]
    fn check(text: &str, from: u64, expected: u64) {
        let schedule = Schedule::read(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        assert_eq!(schedule.after_ms(from), Some(expected), "{text}");
    }

    #[test]
    fn times_follow_from_texts() {
        check("0 6 * * *", SIX - 1, SIX);
        check("0 6 * * *", SIX, SIX + DAY);
        check(" */5 * * * * ", SIX + 1, SIX + 5 * MINUTE);
        check("30 6 * * MON", SIX, SIX + DAY + 30 * MINUTE);
        check("cron(0 6 * * ? *)", SIX, SIX + DAY);
        check("cron(15 6 ? * MON-FRI *)", SIX, SIX + DAY + 15 * MINUTE);
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_what_is_wanted() {
        for text in [
            "",
            "daily",
            "0 6 * *",
            "0 0 6 * * *",
            "61 6 * * *",
            "0 0 30 2 *",
            "cron(0 6 * * ?)",
            "cron(0 6 ? * 2 *)",
            "cron(0 6 * * ? 2027)",
            "rate(5 minutes)",
        ] {
            let why = Schedule::read(text).map(drop).expect_err(text);
            assert!(why.contains("five fields in UTC"), "{text}: {why}");
        }
    }
}
