//! A usage row as it stands in the cache, wherever it comes from: its name and its fields, named as in reports.

use crate::cache::load::Shown;
use crate::store::{UsageLine, UsageRow};
use uuid::Uuid;

/// Names are made of places in this space, ours alone: `usage_log:<uuid>` is a UUID, version 5, of
/// `node/segment/offset`.
const SPACE: Uuid = Uuid::from_u128(0x6f1c_2a0e_6b55_4c4e_9d0a_74b1_7a3e_55d2);

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When its window began, Unix ms.
    pub time_ms: u64,
    /// Whose.
    pub key: u32,
    /// Asset; empty for none.
    pub asset: &'a str,
    protocol: &'a str,
    endpoint: &'a str,
    status: u16,
    tier: &'a str,
    node: &'a str,
    requests: u64,
    segment: u64,
    offset: u64,
}

impl<'a> Entry<'a> {
    /// Of a row that is delivered.
    #[must_use]
    pub fn of_row(row: &'a UsageRow) -> Self {
        let record = &row.record;
        Self {
            time_ms: record.first_time_ms,
            key: record.key,
            asset: row.asset(),
            protocol: row.protocol(),
            endpoint: row.endpoint(),
            status: record.status,
            tier: row.tier(),
            node: &row.node,
            requests: record.requests,
            segment: row.segment,
            offset: row.offset,
        }
    }

    /// Of a row that a store tells.
    #[must_use]
    pub fn of_line(line: &'a UsageLine) -> Self {
        Self {
            time_ms: line.time_ms,
            key: line.key,
            asset: &line.asset,
            protocol: &line.protocol,
            endpoint: &line.endpoint,
            status: line.status,
            tier: &line.tier,
            node: &line.node,
            requests: line.requests,
            segment: line.segment,
            offset: line.offset,
        }
    }

    /// Its UUID: the same on every node and for ever.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        Uuid::new_v5(&SPACE, format!("{}/{}/{}", self.node, self.segment, self.offset).as_bytes())
    }

    /// Its fields.
    #[must_use]
    pub const fn fields(&self) -> [(&'static str, Shown<'a>); 11] {
        [
            ("time_ms", Shown::Number(self.time_ms)),
            ("key_id", Shown::Number(self.key as u64)),
            ("asset", Shown::Text(self.asset)),
            ("protocol", Shown::Text(self.protocol)),
            ("endpoint", Shown::Text(self.endpoint)),
            ("status", Shown::Number(self.status as u64)),
            ("tier", Shown::Text(self.tier)),
            ("node", Shown::Text(self.node)),
            ("requests", Shown::Number(self.requests)),
            ("segment", Shown::Number(self.segment)),
            ("offset", Shown::Number(self.offset)),
        ]
    }
}
