//! The database's side of a history: the rows, and the sums that are kept beside them, asked as an operator would.

use crate::postgres::Postgres;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// A row of `usage_logs`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "columns of the table")]
pub struct Row {
    pub node: String,
    pub segment: u64,
    pub offset: u64,
    pub time_ms: u64,
    pub key: u32,
    pub asset: String,
    pub protocol: String,
    pub endpoint: String,
    pub status: u16,
    pub tier: String,
    pub requests: u64,
}

/// Where a run's rows are.
pub enum Database {
    /// A database of a server, by its address.
    Postgres(Arc<Postgres>, String),
    /// A file.
    Sqlite(PathBuf),
}

/// A rollup, and the rows that its lines are the sums of.
const ROLLUPS: [(&str, u64); 2] = [("usage_minutes", 60_000), ("usage_hours", 3_600_000)];

/// What a rollup has a line for, beside the time.
const WHAT: &str = "key_id, asset, protocol, endpoint, status, tier, node";

impl Database {
    /// A new database on the server that this process's tests share, with the schema.
    #[must_use]
    pub fn new_postgres() -> Self {
        let server = Postgres::shared();
        let url = server.new_url_at(server.address());
        crate::service::migrate(&url);
        Self::Postgres(server, url)
    }

    /// `DATABASE_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Postgres(_, url) => url.clone(),
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
        }
    }

    /// What a query answers, a row a line, columns parted by `|`.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn sql(&self, query: &str) -> String {
        match self {
            Self::Postgres(server, url) => server.sql(url, query),
            Self::Sqlite(path) => {
                let mut command = Command::new("sqlite3");
                let output = command.args(["-batch", "-cmd", ".timeout 10000"]).arg(path).arg(query).output();
                let output = output.expect("sqlite3, which tests/run installs");
                assert!(output.status.success(), "sqlite3: {}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
            }
        }
    }

    /// What a query answers with one number.
    ///
    /// # Panics
    /// When it is not one.
    #[must_use]
    pub fn number(&self, query: &str) -> u64 {
        let told = self.sql(query);
        told.parse().unwrap_or_else(|_| panic!("{query}: {told}"))
    }

    /// Waits until nobody is at work in it any longer: what a killed client had sent is done by then.
    pub fn await_quiet(&self) {
        if let Self::Postgres(..) = self {
            let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                          AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
            crate::eventually("the sessions of a killed client to end", || (self.number(others) == 0).then_some(()));
        }
    }

    /// The place up to which a segment is committed.
    #[must_use]
    pub fn position(&self, segment: u64) -> u64 {
        self.number(&format!("SELECT coalesce(max(position), 0) FROM usage_cursors WHERE segment = {segment}"))
    }

    /// How many rows there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.number("SELECT count(*) FROM usage_logs")
    }

    /// Every row.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let told = self.sql(
            "SELECT node, segment, record_offset, time_ms, key_id, asset, protocol, endpoint, status, tier, requests \
             FROM usage_logs",
        );
        told.lines().map(|line| row(line).unwrap_or_else(|| panic!("no row: {line}"))).collect()
    }

    /// Holds the sums against the rows: what either has and the other has not.
    ///
    /// # Panics
    /// Where they differ.
    pub fn judge_rollups(&self) {
        for (rollup, bucket_ms) in ROLLUPS {
            let kept = format!("SELECT bucket_ms, {WHAT}, requests FROM {rollup}");
            let made = format!(
                "SELECT time_ms - time_ms % {bucket_ms}, {WHAT}, sum(requests) FROM usage_logs \
                 GROUP BY time_ms - time_ms % {bucket_ms}, {WHAT}"
            );
            for (one, other) in [(&kept, &made), (&made, &kept)] {
                let differ = self.sql(&format!("SELECT * FROM ({one} EXCEPT {other}) AS differ LIMIT 5"));
                assert_eq!(differ, "", "{rollup} is not the sum of the rows");
            }
        }
    }
}

fn row(line: &str) -> Option<Row> {
    let columns: Vec<&str> = line.split('|').collect();
    let [node, segment, offset, time_ms, key, asset, protocol, endpoint, status, tier, requests] = columns[..] else {
        return None;
    };
    Some(Row {
        node: node.to_owned(),
        segment: segment.parse().ok()?,
        offset: offset.parse().ok()?,
        time_ms: time_ms.parse().ok()?,
        key: key.parse().ok()?,
        asset: asset.to_owned(),
        protocol: protocol.to_owned(),
        endpoint: endpoint.to_owned(),
        status: status.parse().ok()?,
        tier: tier.to_owned(),
        requests: requests.parse().ok()?,
    })
}
