//! How fast usage goes into PostgreSQL: rows, their sums and their segment's position through the store, one connection,
//! against `psql \copy` of the same rows into the same empty table in the same run.
//!
//! ```text
//! cargo bench -p trinity-tests --bench usage_rows -- [--rounds N] [--rows N] [--only NAME]
//! ```
//!
//! A server of its own; the real tables with their indexes, emptied before each arm. Arms take turns within each round,
//! and a round's ratio is of its own two. `psql` is given the rows as a text file that is there already, and the time it
//! takes to start is taken off; the store is given records, and is to order, add up and format them itself. How many
//! sums a batch has decides what they cost, so there are two mixes: one as a node under load makes it, where each key
//! and asset comes back many times within a batch of 20,000 rows, and the worst one, where none does.

#![expect(clippy::print_stdout, reason = "a bench says what it measured")]

#[path = "load/flags.rs"]
mod flags;

use controlplane::config::DatabaseChoice;
use controlplane::keys::Secret;
use controlplane::store::{self, Committed, Store, StoreError, UsageRow, UsageSpan};
use controlplane::usage::outlet::{BATCH_ROWS, BATCH_ROWS_MAX};
use flags::{Flags, bench, median};
use harness::postgres::Postgres;
use shared::usage::UsageRecord;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

const NODE: &str = "bench-node-1";

const ASSETS: [&[u8; 16]; 10] = [
    b"BTC\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"ETH\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"SOL\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"XRP\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"ADA\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"DOGE\0\0\0\0\0\0\0\0\0\0\0\0",
    b"LINK\0\0\0\0\0\0\0\0\0\0\0\0",
    b"DOT\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"AVAX\0\0\0\0\0\0\0\0\0\0\0\0",
    b"KAS\0\0\0\0\0\0\0\0\0\0\0\0\0",
];

/// Rows of one segment at 5,000 in a second, of so many different keys and assets.
fn rows(count: u64, groups: u64, segment: u64) -> Vec<UsageRow> {
    let (node, now_ms): (Arc<str>, u64) = (Arc::from(NODE), tuning::clock::now().wall_ms);
    let began_ms = now_ms - now_ms % 3_600_000;
    let row = |offset: u64| {
        let group = offset % groups;
        let record = UsageRecord {
            first_time_ms: began_ms + offset / 5,
            last_time_ms: began_ms + offset / 5 + 100,
            requests: 1 + offset % 900,
            asset: *ASSETS[usize::try_from(group % 10).expect("small")],
            key: u32::try_from(1 + group / 10).expect("small"),
            status: 200,
            protocol: u8::from(group % 20 >= 10),
            ..UsageRecord::default()
        };
        UsageRow { node: Arc::clone(&node), segment, offset, record }
    };
    (0..count).map(row).collect()
}

/// The rows as `\copy` reads them.
fn text(rows: &[UsageRow]) -> String {
    let mut text = String::new();
    for row in rows {
        let record = &row.record;
        writeln!(
            text,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            record.first_time_ms,
            row.segment,
            row.offset,
            record.key,
            record.status,
            record.requests,
            row.node,
            row.asset(),
            row.protocol(),
            row.endpoint(),
            row.tier()
        )
        .expect("a text");
    }
    text
}

struct World {
    server: Postgres,
    url: String,
    store: Arc<dyn Store>,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn start() -> Self {
        let server = Postgres::start();
        let url = server.url_at(server.address());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let choice = DatabaseChoice { url: Some(Secret::new(url.clone())), ..DatabaseChoice::default() };
        let store = runtime.block_on(async {
            let store = store::open(&choice, None).expect("an address");
            store.migrate().await.expect("a schema");
            store.set_pool(1, 1).await;
            // Makes the days ahead.
            store.add_usage(&[]).await.expect("nothing");
            store
        });
        Self { server, url, store, runtime }
    }

    fn empty(&self) {
        let tables = "TRUNCATE usage_logs, usage_minutes, usage_hours, usage_cursors";
        self.server.sql(&self.url, tables);
        self.server.sql(&self.url, "CHECKPOINT");
    }

    fn there_are(&self, count: usize) {
        assert_eq!(self.server.sql(&self.url, "SELECT count(*) FROM usage_logs"), count.to_string());
    }

    /// Seconds that `psql` takes.
    fn copied(&self, file: &Path, count: usize) -> f64 {
        self.empty();
        let columns =
            "time_ms, segment, record_offset, key_id, status, requests, node, asset, protocol, endpoint, tier";
        let copy = format!("\\copy usage_logs ({columns}) from '{}'", file.display());
        let timed = |sql: &str| {
            let began = Instant::now();
            self.server.sql(&self.url, sql);
            began.elapsed()
        };
        let start = timed("SELECT 1");
        let took = timed(&copy).saturating_sub(start);
        self.there_are(count);
        took.as_secs_f64()
    }

    /// Seconds that the store takes, in the largest batches that it takes in time: as a shipper finds them, by halves.
    fn committed(&self, rows: &[UsageRow]) -> f64 {
        self.empty();
        let (mut at, mut size, mut took) = (0, BATCH_ROWS_MAX, Duration::ZERO);
        while at < rows.len() {
            let batch = &rows[at..rows.len().min(at + size)];
            let (from, to) = (batch[0].offset, batch[batch.len() - 1].offset + 1);
            let span = UsageSpan { node: NODE, segment: batch[0].segment, from, to };
            let began = Instant::now();
            let done = self.runtime.block_on(self.store.commit_usage(span, batch));
            took += began.elapsed();
            match done {
                Ok(Committed::Done) => at += batch.len(),
                // It was done, and its answer came too late.
                Ok(Committed::Elsewhere(place)) => at = usize::try_from(place).expect("a place"),
                Err(StoreError::Unreachable(_)) if size > BATCH_ROWS => size /= 2,
                Err(why) => panic!("{why}"),
            }
        }
        self.there_are(rows.len());
        took.as_secs_f64()
    }
}

fn run(flags: &Flags) {
    let world = World::start();
    let directory = tempfile::tempdir().expect("a directory");
    let count = flags.number("--rows");
    println!("{:<28}{:>14}{:>16}{:>8}{:>8}{:>8}", "", "\\copy rows/s", "store rows/s", "ratio", "lowest", "highest");
    for (name, groups) in [("2,000 sums in a batch", 2_000), ("20,000 sums in a batch", 20_000)] {
        if !name.contains(&flags.only) {
            continue;
        }
        let rows = rows(count, groups, 1_793_500_000_000 << 20);
        let file = directory.path().join("rows");
        std::fs::write(&file, text(&rows)).expect("a file");
        let (mut copied, mut committed) = (Vec::new(), Vec::new());
        for round in 0..flags.rounds() {
            let mut arms = [true, false];
            arms.rotate_left(round % 2);
            for copy in arms {
                if copy {
                    copied.push(world.copied(&file, rows.len()));
                } else {
                    committed.push(world.committed(&rows));
                }
            }
        }
        let ratios: Vec<f64> = copied.iter().zip(&committed).map(|(copied, committed)| copied / committed).collect();
        let (lowest, highest) = ratios.iter().fold((f64::MAX, 0.0_f64), |(low, high), r| (low.min(*r), high.max(*r)));
        let per_second = |seconds: Vec<f64>| median(seconds.into_iter().map(|s| rows.len() as f64 / s).collect());
        let (copied, committed) = (per_second(copied), per_second(committed));
        println!("{name:<28}{copied:>14.0}{committed:>16.0}{:>8.3}{lowest:>8.3}{highest:>8.3}", median(ratios));
    }
}

fn main() -> ExitCode {
    bench("usage_rows", &[("--rounds", 9, 1_000), ("--rows", 200_000, 5_000_000)], run)
}
