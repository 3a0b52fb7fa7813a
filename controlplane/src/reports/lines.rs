//! What a line of a report holds, so that a format can write any report without knowing which one it is.
//!
//! Every report over usage is lines of one kind, of which it shows certain columns. A cell borrows from its line: writing
//! a line copies nothing. How a cell looks is the formats' affair.

use crate::store::UsageLine;

/// A column of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// When: of detail the record's time, of groups the begin of their interval.
    Time,
    /// Whose.
    Key,
    /// About which asset.
    Asset,
    /// Over which protocol.
    Protocol,
    /// Through which interface.
    Endpoint,
    /// With which HTTP status.
    Status,
    /// From which tier.
    Tier,
    /// On which node.
    Node,
    /// How many requests.
    Requests,
}

/// What the cells of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Unix ms.
    Time,
    /// A whole number.
    Number,
    /// A text, which may be empty.
    Text,
}

/// A cell of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// Unix ms.
    Time(u64),
    /// A whole number.
    Number(u64),
    /// A text, which may be empty.
    Text(&'a str),
}

impl Column {
    /// Every column, as a report of detail shows them.
    pub const ALL: [Self; 9] = [
        Self::Time,
        Self::Key,
        Self::Asset,
        Self::Protocol,
        Self::Endpoint,
        Self::Status,
        Self::Tier,
        Self::Node,
        Self::Requests,
    ];

    /// Columns that lines can be grouped by, in the order in which a report shows them.
    pub const GROUPS: [Self; 6] = [Self::Key, Self::Asset, Self::Protocol, Self::Status, Self::Tier, Self::Node];

    /// The name, as in the heads of all formats.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Time => "time_ms",
            Self::Key => "key_id",
            Self::Asset => "asset",
            Self::Protocol => "protocol",
            Self::Endpoint => "endpoint",
            Self::Status => "status",
            Self::Tier => "tier",
            Self::Node => "node",
            Self::Requests => "requests",
        }
    }

    /// The name in `group_by`.
    #[must_use]
    pub const fn group_name(self) -> &'static str {
        match self {
            Self::Key => "key",
            other => other.name(),
        }
    }

    /// What its cells are.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Time => Kind::Time,
            Self::Key | Self::Status | Self::Requests => Kind::Number,
            Self::Asset | Self::Protocol | Self::Endpoint | Self::Tier | Self::Node => Kind::Text,
        }
    }

    /// Its cell of a line.
    #[inline]
    #[must_use]
    pub fn of(self, line: &UsageLine) -> Cell<'_> {
        match self {
            Self::Time => Cell::Time(line.time_ms),
            Self::Key => Cell::Number(line.key.into()),
            Self::Asset => Cell::Text(&line.asset),
            Self::Protocol => Cell::Text(&line.protocol),
            Self::Endpoint => Cell::Text(&line.endpoint),
            Self::Status => Cell::Number(line.status.into()),
            Self::Tier => Cell::Text(&line.tier),
            Self::Node => Cell::Text(&line.node),
            Self::Requests => Cell::Number(line.requests),
        }
    }
}
