//! The words that a report is asked for with: which one, in which format, by which interval, and who asks.
//!
//! Names and bounds alone; how they are read, and what they mean together, is not known here.

/// Lines of one page of json, unless fewer are asked for, and the most that can be.
pub const LIMIT_MAX: usize = 1_000;

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// One page as one document.
    Json,
    /// RFC 4180.
    Csv,
    /// Parted by tabs.
    Tsv,
    /// Columns for the eye.
    Text,
    /// A JSON object a line.
    Ndjson,
    /// A page to read and print.
    Html,
}

impl Format {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::Json, Self::Csv, Self::Tsv, Self::Text, Self::Ndjson, Self::Html];

    /// The name in `format`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Text => "text",
            Self::Ndjson => "ndjson",
            Self::Html => "html",
        }
    }

    /// The format of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// Which report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    /// Lines: detail, or groups.
    Usage,
    /// Totals, percentiles, top assets.
    Summary,
}

impl Report {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Usage, Self::Summary];

    /// The name in paths and datagrams.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Summary => "summary",
        }
    }

    /// The report of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|report| report.name() == name)
    }
}

/// Lengths of the intervals that lines are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interval {
    /// 60 s.
    Minute,
    /// From full hour to full hour of the zone's clock: 60 minutes but for where the clock is set by less.
    Hour,
    /// From midnight to midnight in the zone: 23 to 25 hours.
    Day,
}

impl Interval {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// The name in `interval`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

/// Whose usage a caller may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// That of the key with this number.
    Own(u32),
    /// Everybody's.
    Admin,
}

/// What a query is read against.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// Who asks.
    pub scope: Scope,
    /// Now, Unix ms.
    pub now_ms: u64,
    /// How long detail is kept: `USAGE_RETENTION_DAYS`.
    pub retention_days: u64,
}

/// A range of time as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From this time on, Unix ms.
    pub from_ms: u64,
    /// Up to and without this time, Unix ms.
    pub to_ms: u64,
}
