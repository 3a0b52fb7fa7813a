//! Rows of usage planted in a database, as if they had been asked long ago: what no client can make, and as many as a
//! test wants at once.

use crate::history::database::Database;
use std::time::{SystemTime, UNIX_EPOCH};

/// Whose they are: a key that is not there.
pub const KEY: u32 = 900_001;

/// The node of every planted row: a formula to a spreadsheet.
pub const NODE: &str = "@planted";

/// The asset of every third planted row; the others' is `BTC`.
pub const FORMULA: &str = "=1+1";

/// Planted rows, one each `step_ms`, with one and two requests in turn.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    /// Of the first, Unix ms: at a full hour.
    pub from_ms: u64,
    /// Behind the last.
    pub to_ms: u64,
    /// How many.
    pub rows: u64,
    /// Requests in all of them.
    pub requests: u64,
}

/// Now, Unix ms.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("small")
}

impl Planted {
    /// Plants an even number of rows two days back, with the sums that belong to them.
    pub fn plant(database: &Database, rows: u64, step_ms: u64) -> Self {
        let hour_ms = 3_600_000;
        let from_ms = (now_ms() / hour_ms - 48) * hour_ms;
        let last = rows - 1;
        let _ = database.sql(&format!(
            "WITH RECURSIVE n(i) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < {last}) \
             INSERT INTO usage_logs (time_ms, segment, record_offset, key_id, status, requests, node, asset, protocol, \
             endpoint, tier) SELECT {from_ms} + i * {step_ms}, 1, i, {KEY}, CASE WHEN i % 5 = 0 THEN 404 ELSE 200 END, \
             1 + i % 2, '{NODE}', CASE WHEN i % 3 = 0 THEN '{FORMULA}' ELSE 'BTC' END, \
             CASE WHEN i % 2 = 0 THEN 'tcp' ELSE 'udp' END, '/price', 'local' FROM n"
        ));
        for (table, bucket_ms) in [("usage_minutes", 60_000), ("usage_hours", hour_ms)] {
            let _ = database.sql(&format!(
                "INSERT INTO {table} (bucket_ms, key_id, status, requests, asset, protocol, endpoint, tier, node) \
                 SELECT time_ms - time_ms % {bucket_ms}, key_id, status, sum(requests), asset, protocol, endpoint, tier, \
                 node FROM usage_logs WHERE key_id = {KEY} \
                 GROUP BY time_ms - time_ms % {bucket_ms}, key_id, status, asset, protocol, endpoint, tier, node"
            ));
        }
        Self { from_ms, to_ms: from_ms + rows * step_ms, rows, requests: rows + rows / 2 }
    }

    /// The path of a report about them.
    pub fn path(&self, report: &str, rest: &str) -> String {
        format!("/reports/{report}?key_id={KEY}&from={}&to={}{rest}", self.from_ms, self.to_ms)
    }
}
