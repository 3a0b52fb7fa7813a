//! Times on the command line: a point, or so long ago.

use venues::timestamp::rfc3339_ms;

/// A time as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Time {
    /// A point in time, in the service's own forms.
    At(String),
    /// So many ms ago.
    Ago(u64),
}

impl Time {
    /// As the service takes it.
    pub fn text(&self, now_ms: u64) -> String {
        match self {
            Self::At(text) => text.clone(),
            Self::Ago(ms) => now_ms.saturating_sub(*ms).to_string(),
        }
    }
}

/// Reads a time, for clap.
pub fn read(text: &str) -> Result<Time, &'static str> {
    const FORMS: &str = "a time is as 2030-01-31T00:00:00Z, Unix milliseconds, or so long ago: -30m, -24h, -7d";
    let digits = |text: &str| !text.is_empty() && text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(text) {
        return Ok(Time::At(text.to_owned()));
    }
    if let Some(ago) = text.strip_prefix('-') {
        let (number, unit) = ago.split_at_checked(ago.len().saturating_sub(1)).ok_or(FORMS)?;
        let unit_ms = match unit {
            "m" => 60 * 1_000,
            "h" => 60 * 60 * 1_000,
            "d" => 24 * 60 * 60 * 1_000,
            _ => return Err(FORMS),
        };
        let number = if digits(number) { number.parse::<u64>().ok() } else { None };
        return number.and_then(|number| number.checked_mul(unit_ms)).map(Time::Ago).ok_or(FORMS);
    }
    rfc3339_ms(text).map(|_| Time::At(text.to_owned())).ok_or(FORMS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_forms() {
        let at = |text: &str| Ok(Time::At(text.to_owned()));
        for (text, expected) in [
            ("1793500000000", at("1793500000000")),
            ("2026-11-01T00:00:00Z", at("2026-11-01T00:00:00Z")),
            ("-30m", Ok(Time::Ago(1_800_000))),
            ("-24h", Ok(Time::Ago(86_400_000))),
            ("-7d", Ok(Time::Ago(604_800_000))),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        for bad in
            ["", "-", "-h", "-1w", "--1h", "-1.5h", "tomorrow", "2026-11-01", "-99999999999999999999d", "-\u{20ac}"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(Time::Ago(5).text(7), "2");
    }
}
