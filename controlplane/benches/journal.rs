//! What the journal costs: records per second through the append path, with each entry's CRC32C and the group sync, next
//! to a plain `write` of the same bytes.
//!
//! ```text
//! cargo bench -p trinity-beast --bench journal
//! ```
//!
//! Each round writes the same records in batches, first plainly to a file, then through the journal, in a temporary
//! directory (`TMPDIR`): of a disk, not of memory, if syncs are to mean anything. CPU is that of the thread that appends,
//! which is one core's; time includes waiting for the last sync, which happens on a thread of its own. Figures are
//! medians over rounds.

#![expect(clippy::print_stdout, reason = "a bench says what it measured")]

use controlplane::usage::journal::append::{AppendSetup, Appender};
use controlplane::usage::journal::disk::SystemDisk;
use controlplane::usage::journal::shelf::Shelf;
use controlplane::usage::journal::tally::Tally;
use shared::usage::UsageRecord;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tuning::clock;

/// Rounds of both arms.
const ROUNDS: usize = 7;

/// Records in each: 256 MB.
const RECORDS: u64 = 4_000_000;

/// Records at a time: what a shard's ring holds.
const BATCH: usize = 8_192;

/// What one arm of one round took.
#[derive(Clone, Copy)]
struct Took {
    wall_ns: u64,
    cpu_ns: u64,
}

fn timed(work: impl FnOnce()) -> Took {
    let (begun, cpu_ns) = (Instant::now(), clock::thread_cpu_ns());
    work();
    Took { wall_ns: begun.elapsed().as_nanos() as u64, cpu_ns: clock::thread_cpu_ns() - cpu_ns }
}

fn plainly(folder: &Path, records: &[UsageRecord]) -> Took {
    let path = folder.join("plain");
    let mut file = File::create(&path).expect("a file");
    let took = timed(|| {
        for batch in records.chunks(BATCH) {
            file.write_all(bytemuck::cast_slice(batch)).expect("room on the disk");
        }
    });
    drop(file);
    std::fs::remove_file(path).expect("the file");
    took
}

fn journaled(folder: &Path, records: &mut [UsageRecord]) -> Took {
    let folder = folder.join("journal");
    std::fs::create_dir(&folder).expect("a directory");
    let mut appender = Appender::new(AppendSetup {
        disk: Arc::new(SystemDisk),
        node: "bench".into(),
        shelf: Arc::new(Shelf::new(folder.clone())),
        tally: Arc::new(Tally::default()),
        bytes_max: 1 << 40,
        last_number: 0,
    })
    .expect("a thread");
    let took = timed(|| {
        let mut rest = records;
        while !rest.is_empty() {
            let some = BATCH.min(rest.len());
            let done = appender.append(&mut rest[..some], clock::now().wall_ms);
            rest = &mut rest[done..];
            // A disk that is slower than this thread is waited for, as the journal's turns would.
            let wait = if done < some { Duration::from_millis(25) } else { Duration::ZERO };
            appender.sync_if_due(Instant::now());
            assert!(appender.settle(wait).is_empty(), "the disk failed");
        }
        while !appender.is_settled() {
            appender.sync_if_due(Instant::now());
            appender.settle(Duration::from_millis(1));
        }
    });
    drop(appender);
    std::fs::remove_dir_all(folder).expect("the directory");
    took
}

fn record(number: u64) -> UsageRecord {
    let mut asset = [0; 16];
    asset[..3].copy_from_slice(b"BTC");
    let first_time_ms = 1_790_000_000_000 + number / 1_000;
    UsageRecord {
        number,
        first_time_ms,
        last_time_ms: first_time_ms + 3,
        requests: 1 + number % 5,
        asset,
        key: (number % 1_000) as u32,
        status: 200,
        ..UsageRecord::default()
    }
}

fn median(took: &[Took], ns: fn(&Took) -> u64) -> f64 {
    let mut all: Vec<u64> = took.iter().map(ns).collect();
    all.sort_unstable();
    all[all.len() / 2] as f64 / RECORDS as f64
}

fn main() {
    // `cargo test` runs benches too, without this flag: there is nothing to test here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut records: Vec<_> = (0..RECORDS).map(record).collect();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (mut plain, mut journal) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(plainly(folder.path(), &records));
        journal.push(journaled(folder.path(), &mut records));
    }
    println!("{RECORDS} records of 64 bytes in batches of {BATCH}, medians of {ROUNDS} rounds");
    println!("{:<30}{:>12}{:>14}{:>16}{:>18}", "", "ns/record", "records/s", "CPU ns/record", "records/s/core");
    for (name, took) in [("plain write", &plain), ("journal: CRC32C, group sync", &journal)] {
        let (wall, cpu) = (median(took, |took| took.wall_ns), median(took, |took| took.cpu_ns));
        println!("{name:<30}{wall:>12.1}{:>14.0}{cpu:>16.1}{:>18.0}", 1e9 / wall, 1e9 / cpu);
    }
}
