//! The journal over a disk that has room and not, that fails and hangs; what is read back is what was counted.

use super::faulty::{Faults, FaultyDisk};
use super::read::SegmentReader;
use super::segment::{ENTRY_BYTES, HEAD_BYTES};
use super::*;
use crate::store::UsageRow;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

mod damage;

/// The least that the setting allows.
const BYTES_MAX: u64 = 1 << 25;

/// An appender's turns by hand, over a disk of moods.
struct Rig {
    folder: tempfile::TempDir,
    shelf: Arc<Shelf>,
    tally: Arc<Tally>,
    faults: Arc<Faults>,
    ledger: Arc<UsageLedger>,
    turns: Turns,
    /// Requests counted.
    counted: u64,
    /// Keys used, so that no two records are equal.
    keys: u32,
}

impl Rig {
    fn new(bytes_max: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (disk, faults) = FaultyDisk::new();
        let shelf = Arc::new(Shelf::new(folder.path().to_owned()));
        let (tally, ledger) = (Arc::new(Tally::default()), Arc::new(UsageLedger::journaled(Vec::new())));
        let setup = AppendSetup {
            disk,
            node: "n1".into(),
            shelf: Arc::clone(&shelf),
            tally: Arc::clone(&tally),
            bytes_max,
            last_number: 0,
        };
        let appender = Appender::new(setup).expect("a thread");
        let turns = Turns { appender, ledger: Arc::clone(&ledger), tally: Arc::clone(&tally), batch: Vec::new() };
        Self { folder, shelf, tally, faults, ledger, turns, counted: 0, keys: 0 }
    }

    /// Counts records that no two of are equal.
    fn count(&mut self, records: u32) {
        for _ in 0..records {
            self.keys += 1;
            let requests = 1 + u64::from(self.keys % 7);
            let time_ms = 1_790_000_000_000 + u64::from(self.keys / 100);
            let (first_time_ms, last_time_ms) = (time_ms, time_ms);
            let record =
                UsageRecord { key: self.keys, requests, first_time_ms, last_time_ms, ..UsageRecord::default() };
            self.ledger.count(&record);
            self.counted += requests;
        }
    }

    /// Turns until it is so.
    fn turn_until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + harness::PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "waited for: {what}; {:?}", self.tally.read());
            self.turns.turn(Duration::from_millis(5));
        }
    }

    fn settle(&mut self) {
        self.turn_until("all on the disk", |rig| rig.turns.appender.is_settled() && rig.ledger.held().0 == 0);
    }

    fn on_disk(&self) -> u64 {
        rows(self.folder.path()).iter().map(|row| row.record.requests).sum()
    }
}

/// What a new process would find in the directory.
fn shelf_of(folder: &Path) -> (Shelf, Tally) {
    let (shelf, tally) = (Shelf::new(folder.to_owned()), Tally::default());
    replay::replay(&shelf, &tally, &"n1".into()).expect("a directory");
    (shelf, tally)
}

/// Every row that a new process would deliver.
fn rows(folder: &Path) -> Vec<UsageRow> {
    let (shelf, tally) = shelf_of(folder);
    let mut rows = Vec::new();
    while let Some(first) = shelf.first() {
        let mut reader = SegmentReader::open(&shelf, &first, 0).expect("a segment");
        while reader.place() < first.readable {
            let part = reader.read(first.readable.min(reader.place() + 7_000)).expect("readable");
            reader.pass(&part);
            rows.extend(part.rows);
        }
        reader.flaws().expect("its length").tell(&tally);
        shelf.remove(first.number);
    }
    let places: BTreeSet<_> = rows.iter().map(|row| (row.segment, row.offset)).collect();
    assert_eq!(places.len(), rows.len(), "a place is one row's");
    rows
}

fn started(data_dir: &Path, ledger: &Arc<UsageLedger>) -> anyhow::Result<Journal> {
    let ledger = Arc::clone(ledger);
    Journal::start(JournalSetup {
        data_dir: Some(data_dir.to_owned()),
        node: "n1".into(),
        bytes_max: BYTES_MAX,
        ledger,
    })
}

#[test]
fn what_was_counted_is_there_for_the_next_process_and_each_begins_a_segment_of_a_higher_number() {
    let data_dir = tempfile::tempdir().expect("a folder");
    let folder = data_dir.path().join("journal");
    let mut numbers = Vec::new();
    for (process, key) in (1..=3).zip(7..) {
        let ledger = Arc::new(UsageLedger::journaled(Vec::new()));
        let journal = started(data_dir.path(), &ledger).expect("a journal");
        assert_eq!(journal.shelf().waiting().records, process - 1, "what the earlier left waits");
        let count = |requests| ledger.count(&UsageRecord { key, requests, first_time_ms: 5, ..UsageRecord::default() });
        count(40);
        drop(journal.stop());
        count(1);
        let rows = rows(&folder);
        assert_eq!(rows.len() as u64, process, "what came after the end is not there");
        assert_eq!(rows.iter().map(|row| row.record.key).collect::<Vec<_>>(), (7..=key).collect::<Vec<_>>());
        numbers.push(rows.last().expect("a row").segment);
    }
    assert!(numbers.is_sorted_by(|a, b| a < b) && numbers[2] < 1 << 63, "{numbers:?}");
}

#[test]
fn a_directory_is_one_process_s() {
    let data_dir = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(UsageLedger::journaled(Vec::new()));
    let journal = started(data_dir.path(), &ledger).expect("a journal");
    let refused = started(data_dir.path(), &ledger).err().expect("it is taken").to_string();
    assert!(refused.contains("another process") && refused.contains("TB_DATA_DIR"), "{refused}");
    drop(journal.stop());
    drop(started(data_dir.path(), &ledger).expect("it is free again").stop());
}

#[test]
fn without_a_data_directory_nothing_stays() {
    let ledger = Arc::new(UsageLedger::journaled(Vec::new()));
    let journal = Journal::start(JournalSetup { data_dir: None, node: "n1".into(), bytes_max: BYTES_MAX, ledger });
    let journal = journal.expect("a journal");
    let folder = journal.shelf().folder().to_owned();
    let private = journal.stop();
    assert!(folder.is_dir(), "until all is delivered");
    drop(private);
    assert!(!folder.exists());
}

#[test]
fn a_file_in_the_way_is_a_clear_refusal() {
    let data_dir = tempfile::tempdir().expect("a folder");
    fs::write(data_dir.path().join("journal"), "not a directory").expect("written");
    let refused = started(data_dir.path(), &Arc::new(UsageLedger::journaled(Vec::new()))).err().expect("refused");
    assert!(refused.to_string().contains("set TB_DATA_DIR"), "{refused}");
}

#[test]
fn a_wall_clock_that_goes_back_gives_higher_numbers_all_the_same() {
    let mut rig = Rig::new(BYTES_MAX);
    let mut numbers = Vec::new();
    for wall_ms in [1_790_000_000_000, 1_690_000_000_000, 0, 1_790_000_000_001, u64::MAX] {
        let mut record = [UsageRecord { requests: 1, ..UsageRecord::default() }];
        assert_eq!(rig.turns.appender.append(&mut record, wall_ms), 1);
        rig.counted += 1;
        rig.turn_until("synced", |rig| rig.turns.appender.is_settled());
        rig.turns.appender.end();
        numbers.push(rows(rig.folder.path()).last().expect("a row").segment);
    }
    assert!(numbers.is_sorted_by(|a, b| a < b) && numbers[4] < 1 << 63, "{numbers:?}");
    assert_eq!(rig.on_disk(), rig.counted);
}

#[test]
fn more_than_a_turn_s_fill_of_equal_records_are_merged_and_few_are_not() {
    for (records, expected) in [(TURN_RECORDS as u64, TURN_RECORDS as u64), (TURN_RECORDS as u64 * 3, 2)] {
        let mut rig = Rig::new(BYTES_MAX);
        for number in 0..records {
            let key = (number % 2) as u32;
            rig.ledger.count(&UsageRecord { number, key, requests: 3, first_time_ms: 1_500, ..UsageRecord::default() });
        }
        rig.settle();
        assert_eq!((rig.on_disk(), rig.tally.read().records), (records * 3, expected));
        assert_eq!(rig.tally.read().merged, records - expected);
    }
}

#[test]
fn a_full_disk_loses_no_count() {
    let mut rig = Rig::new(BYTES_MAX);
    rig.count(100);
    rig.settle();
    // Room for some more and a half.
    rig.faults.room.store(10 * 64 + 32, Ordering::SeqCst);
    rig.count(50);
    rig.turn_until("trouble", |rig| rig.tally.read().in_trouble);
    assert_eq!(rig.ledger.held().0, 40, "whole entries went in");
    rig.count(held::HELD_MAX as u32 * 2);
    let tallied = rig.tally.read();
    for _ in 0..20 {
        rig.turns.turn(Duration::ZERO);
    }
    let now = rig.tally.read();
    assert_eq!((now.records, now.append_failures - tallied.append_failures), (110, 20), "each turn asks once");
    let (held, given_up) = rig.ledger.held();
    assert!(held <= held::HELD_MAX && given_up > 0, "{held} held, {given_up} given up");
    rig.faults.room.store(i64::MAX, Ordering::SeqCst);
    rig.settle();
    assert_eq!(rig.on_disk(), rig.counted);
    assert!(!rig.tally.read().in_trouble);
    rig.count(1);
    rig.settle();
    assert_eq!((rig.on_disk(), rig.ledger.held().0), (rig.counted, 0), "and in full detail again");
}

#[test]
fn a_segment_that_fills_its_disk_goes_when_it_is_delivered() {
    let mut rig = Rig::new(BYTES_MAX);
    rig.count(100);
    rig.settle();
    for all_is_synced in [true, false] {
        rig.faults.room.store(if all_is_synced { 0 } else { 10 * 64 }, Ordering::SeqCst);
        rig.count(50);
        rig.turn_until("trouble", |rig| rig.tally.read().in_trouble);
        rig.turn_until("the segment's end", |rig| rig.shelf.first().is_some_and(|first| first.sealed));
        let first = rig.shelf.first().expect("a segment");
        assert_eq!(first.readable, first.written);
        let delivered = rig.on_disk();
        fs::remove_file(rig.folder.path().join(segment::name(first.number))).expect("delivered");
        rig.shelf.remove(first.number);
        rig.faults.room.store(HEAD_BYTES as i64 + 100 * 64, Ordering::SeqCst);
        rig.settle();
        assert_eq!(delivered + rig.on_disk(), rig.counted);
        rig.counted -= delivered;
        assert!(!rig.tally.read().in_trouble);
    }
}

#[test]
fn a_thread_that_panics_is_seen_as_a_journal_that_takes_nothing() {
    let tally = Arc::new(Tally::default());
    for (panics, expected) in [(false, false), (true, true)] {
        let seen = SeenToEnd(Arc::clone(&tally));
        let thread = std::thread::spawn(move || {
            assert!(!panics, "as a test wants it");
            drop(seen);
        });
        assert_eq!(thread.join().is_err(), panics);
        assert_eq!(tally.read().in_trouble, expected);
    }
}

#[test]
fn a_disk_that_was_full_before_the_first_segment_is_no_end() {
    let mut rig = Rig::new(BYTES_MAX);
    rig.faults.room.store(40, Ordering::SeqCst);
    rig.count(5);
    for _ in 0..5 {
        rig.turns.turn(Duration::ZERO);
    }
    assert_eq!(fs::read_dir(rig.folder.path()).expect("a folder").count(), 0, "no file without a head stays");
    rig.faults.room.store(i64::MAX, Ordering::SeqCst);
    rig.settle();
    assert_eq!(rig.on_disk(), rig.counted);
}

#[test]
fn after_a_sync_that_failed_nothing_is_lost_and_nothing_there_twice() {
    for bad_cuts in [0, 3] {
        let mut rig = Rig::new(BYTES_MAX);
        rig.count(300);
        rig.settle();
        let first = rig.shelf.first().expect("a segment");
        rig.faults.bad_syncs.store(1, Ordering::SeqCst);
        rig.faults.bad_cuts.store(bad_cuts, Ordering::SeqCst);
        rig.count(500);
        rig.turn_until("a failure", |rig| rig.tally.read().sync_failures > 0);
        assert!(rig.tally.read().in_trouble);
        rig.count(20);
        rig.settle();
        assert_eq!(rig.on_disk(), rig.counted, "{bad_cuts} bad cuts");
        let cut = rig.shelf.get(first.number).expect("the first segment");
        assert_eq!((cut.written, cut.readable, cut.sealed), (300, 300, true), "it ends where it was synced");
        assert_eq!((rig.shelf.waiting().segments, rig.shelf.waiting().records), (2, 820));
        let tallied = rig.tally.read();
        assert_eq!((tallied.records, tallied.requests, tallied.in_trouble), (820, rig.counted, false));
        assert_eq!(tallied.sync_failures as i64, 1 + bad_cuts);
    }
}

#[test]
fn a_disk_that_hangs_stops_no_append_before_memory_is_full() {
    let mut rig = Rig::new(BYTES_MAX);
    let faults = Arc::clone(&rig.faults);
    let gate = faults.gate.lock().expect("the gate");
    rig.count(1_000);
    rig.turn_until("written", |rig| rig.tally.read().records == 1_000);
    rig.count(1_000);
    rig.turn_until("written", |rig| rig.tally.read().records == 2_000);
    let waiting = rig.shelf.first().expect("a segment");
    assert_eq!((waiting.written, waiting.readable), (2_000, 0), "what is not on the disk is not read");
    for _ in 0..4 {
        rig.count(40_000);
        rig.turns.turn(Duration::ZERO);
    }
    assert_eq!(rig.turns.appender.room(), 0);
    let (held, _) = rig.ledger.held();
    assert_eq!(rig.tally.read().records + held as u64, 162_000, "the rest waits in memory");
    drop(gate);
    rig.settle();
    assert_eq!(rig.on_disk(), rig.counted);
}

#[test]
fn a_journal_that_is_full_takes_nothing_until_something_was_delivered() {
    let bytes_max = 8 * (HEAD_BYTES + 100 * ENTRY_BYTES);
    let mut rig = Rig::new(bytes_max);
    rig.count(2_000);
    rig.turn_until("trouble", |rig| rig.tally.read().in_trouble);
    rig.turn_until("synced", |rig| rig.turns.appender.is_settled());
    let waiting = rig.shelf.waiting();
    assert!(waiting.bytes <= bytes_max && waiting.bytes > bytes_max - ENTRY_BYTES - HEAD_BYTES, "{waiting:?}");
    assert!(waiting.segments >= 8, "{waiting:?}");
    let held = rig.ledger.held().0 as u64;
    assert_eq!(waiting.records + held, 2_000);
    let first = rig.shelf.first().expect("a segment");
    let delivered: u64 = rows(rig.folder.path()).iter().take(100).map(|row| row.record.requests).sum();
    assert_eq!((first.written, first.sealed), (100, true));
    fs::remove_file(rig.folder.path().join(segment::name(first.number))).expect("delivered");
    rig.shelf.remove(first.number);
    rig.turn_until("more went in", |rig| rig.ledger.held().0 as u64 <= held - 98);
    rig.turn_until("synced", |rig| rig.turns.appender.is_settled());
    let held: u64 = {
        let mut rest = Vec::new();
        rig.ledger.take(&mut rest, usize::MAX);
        rest.iter().map(|record| record.requests).sum()
    };
    assert_eq!(delivered + rig.on_disk() + held, rig.counted);
}

/// Faults at random, a thousand turns of them: what is on the disk in the end is what was counted.
#[test]
fn whatever_the_disk_does_counts_are_exact() {
    for seed in 0..4_u64 {
        let mut rig = Rig::new(BYTES_MAX);
        let mut noise = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for _ in 0..400 {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            match noise % 12 {
                0 => rig.faults.bad_syncs.store(1 + (noise >> 8 & 1) as i64, Ordering::SeqCst),
                1 => rig.faults.bad_cuts.store(1, Ordering::SeqCst),
                2 => rig.faults.room.store((noise >> 8 & 0x3fff) as i64, Ordering::SeqCst),
                3..=5 => rig.faults.room.store(i64::MAX, Ordering::SeqCst),
                6 => rig.turns.appender.end(),
                _ => rig.count((noise >> 8 & 0xff) as u32),
            }
            rig.turns.turn(Duration::from_millis(noise >> 20 & 1));
        }
        rig.faults.room.store(i64::MAX, Ordering::SeqCst);
        rig.settle();
        assert_eq!(rig.on_disk(), rig.counted, "seed {seed}");
        assert_eq!(rig.tally.read().requests, rig.counted, "seed {seed}");
    }
}
