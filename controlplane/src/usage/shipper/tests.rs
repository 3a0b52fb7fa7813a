//! Outlets that are away, hang, lose answers and are set back: every record arrives, none twice.

use super::*;
use crate::store::UsageRow;
use crate::usage::UsageLedger;
use crate::usage::journal::{Journal, JournalSetup};
use async_trait::async_trait;
use shared::usage::UsageRecord;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

mod database;

/// Small enough that a few hundred records are several segments.
const BYTES_MAX: u64 = 8 * (128 + 64 * 400);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Good,
    Away,
    Refuses,
    Hangs,
    /// Takes what it is given, and nobody hears of it.
    LosesAnswers,
}

/// An outlet of moods that remembers what it took.
struct Fake {
    mood: Mutex<Mood>,
    /// Whether it can be asked how far it is.
    knows: bool,
    /// By segment: from where on it wants more.
    places: Mutex<BTreeMap<u64, u64>>,
    /// What it took, by segment and place, and how often.
    taken: Mutex<BTreeMap<(u64, u64), u32>>,
    /// Rows in each call.
    calls: Mutex<Vec<usize>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with it")
}

impl Fake {
    fn new(knows: bool, mood: Mood) -> Arc<Self> {
        let (mood, places, taken) = (Mutex::new(mood), Mutex::default(), Mutex::default());
        Arc::new(Self { mood, knows, places, taken, calls: Mutex::default() })
    }

    fn taken(&self) -> (usize, u32) {
        let taken = lock(&self.taken);
        (taken.len(), taken.values().copied().max().unwrap_or(0))
    }

    fn mood(&self) -> Mood {
        *lock(&self.mood)
    }
}

#[async_trait]
impl Outlet for Fake {
    fn kind(&self) -> &'static str {
        "database"
    }

    async fn position(&self, _: &str, segment: u64) -> Result<Option<u64>, OutletError> {
        match self.mood() {
            Mood::Away => Err(OutletError::Away("unplugged".to_owned())),
            Mood::Hangs => std::future::pending().await,
            _ => Ok(self.knows.then(|| lock(&self.places).get(&segment).copied().unwrap_or(0))),
        }
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<u64, OutletError> {
        let Delivery { segment, from, to, rows, .. } = delivery;
        lock(&self.calls).push(rows.len());
        let mood = self.mood();
        match mood {
            Mood::Away => return Err(OutletError::Away("unplugged".to_owned())),
            Mood::Refuses => return Err(OutletError::Refused("too much of it".to_owned())),
            Mood::Hangs => std::future::pending().await,
            Mood::Good | Mood::LosesAnswers => {}
        }
        assert!(rows.iter().all(|row| row.segment == *segment && (*from..*to).contains(&row.offset)));
        let place = lock(&self.places).get(segment).copied().unwrap_or(0);
        if self.knows && place != *from {
            return Ok(place);
        }
        lock(&self.places).insert(*segment, *to);
        for row in rows {
            *lock(&self.taken).entry((row.segment, row.offset)).or_default() += 1;
        }
        if mood == Mood::LosesAnswers { Err(OutletError::Away("the answer was lost".to_owned())) } else { Ok(*to) }
    }
}

fn ledger_of(records: u32) -> Arc<UsageLedger> {
    let ledger = Arc::new(UsageLedger::journaled(Vec::new()));
    count(&ledger, 1..records + 1);
    ledger
}

fn count(ledger: &UsageLedger, keys: std::ops::Range<u32>) {
    for key in keys {
        ledger.count(&UsageRecord { key, requests: 2, first_time_ms: 1_790_000_000_000, ..UsageRecord::default() });
    }
}

fn journal(data_dir: &std::path::Path, ledger: &Arc<UsageLedger>) -> Journal {
    let (data_dir, ledger) = (Some(data_dir.to_owned()), Arc::clone(ledger));
    Journal::start(JournalSetup { data_dir, node: "n1".into(), bytes_max: BYTES_MAX, ledger }).expect("a journal")
}

/// A journal with this many records in it that has ended.
struct Left {
    data_dir: tempfile::TempDir,
    shelf: Arc<Shelf>,
    tally: Arc<Tally>,
}

impl Left {
    fn with(records: u32) -> Self {
        let data_dir = tempfile::tempdir().expect("a folder");
        let journal = journal(data_dir.path(), &ledger_of(records));
        let (shelf, tally) = (Arc::clone(journal.shelf()), Arc::clone(journal.tally()));
        drop(journal.stop());
        assert_eq!(shelf.waiting().records, u64::from(records));
        Self { data_dir, shelf, tally }
    }

    fn ship(&self, outlet: Arc<dyn Outlet>, observer: Option<Observer>) -> Shipper {
        let (shelf, tally) = (Arc::clone(&self.shelf), Arc::clone(&self.tally));
        Shipper::start(ShipperSetup { shelf, tally, outlet, observer })
    }

    fn files(&self) -> usize {
        fs::read_dir(self.data_dir.path().join("journal")).expect("a folder").count()
    }
}

/// Waits until it is so; where time is paused it takes none.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + harness::PATIENCE * 10;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn everything_arrives_once_in_order_and_its_files_go() {
    for records in [0, 1, 300, 2_000] {
        let left = Left::with(records);
        let outlet = Fake::new(true, Mood::Good);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let observer: Observer = Arc::new(move |rows: &[UsageRow]| {
            lock(&told).extend(rows.iter().map(|row| row.record.key));
        });
        let shipper = left.ship(Arc::clone(&outlet) as Arc<dyn Outlet>, Some(observer));
        let progress = Arc::clone(shipper.progress());
        assert!(shipper.finish(harness::PATIENCE).await, "{records} records");
        assert_eq!(outlet.taken(), (records as usize, records.min(1)));
        assert_eq!(*lock(&seen), (1..=records).collect::<Vec<_>>(), "who looks on sees each once, in order");
        assert_eq!((left.files(), left.shelf.waiting().bytes), (0, 0));
        assert_eq!((progress.read().rows, progress.read().oldest_time_ms), (u64::from(records), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outlet_that_fails_in_any_way_gets_everything_once_when_it_is_back() {
    for mood in [Mood::Away, Mood::Refuses, Mood::Hangs, Mood::LosesAnswers] {
        for knows in [true, false] {
            let left = Left::with(1_500);
            let outlet = Fake::new(knows, mood);
            let shipper = left.ship(Arc::clone(&outlet) as Arc<dyn Outlet>, None);
            let progress = Arc::clone(shipper.progress());
            until("five failures", || progress.read().failures >= 5).await;
            assert!(progress.read().away_since_ms > 0, "{mood:?}");
            *lock(&outlet.mood) = Mood::Good;
            until("all delivered", || left.shelf.waiting().segments == 0).await;
            let (rows, most) = outlet.taken();
            // One that cannot be asked is told again, and takes a row by its identity.
            assert_eq!((rows, most == 1), (1_500, knows || mood != Mood::LosesAnswers), "{mood:?}");
            assert_eq!((progress.read().away_since_ms, left.files()), (0, 0));
            assert!(lock(&outlet.calls).iter().all(|rows| *rows <= BATCH_ROWS_MAX));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn deliveries_grow_with_each_success_and_shrink_with_each_failure() {
    let left = Left::with(1);
    let outlet = Fake::new(true, Mood::Good);
    let progress = Arc::new(Progress::new("database"));
    let (_last, told) = watch::channel(false);
    let setup = ShipperSetup { shelf: Arc::clone(&left.shelf), tally: Arc::clone(&left.tally), outlet, observer: None };
    let mut round = Round::new(setup, progress, told);
    round.rows_max = 4_800;
    let away = || Failure::Outlet(OutletError::Away("unplugged".to_owned()));
    let sizes = [2_400, 1_200, 600, 300, 300].map(|size| {
        round.failed(7, away());
        (round.rows_max, size)
    });
    assert!(sizes.iter().all(|(is, expected)| is == expected), "{sizes:?}");
    let number = left.shelf.first().expect("a segment").number;
    assert!(round.step(number).await.is_ok());
    assert_eq!(round.rows_max, 600);
}

#[tokio::test(start_paused = true)]
async fn an_outlet_that_was_set_back_gets_again_what_it_lost() {
    let left = Left::with(350);
    let outlet = Fake::new(true, Mood::Good);
    let number = left.shelf.first().expect("a segment").number;
    lock(&outlet.places).insert(number, 320);
    let shipper = left.ship(Arc::clone(&outlet) as Arc<dyn Outlet>, None);
    until("the shipper has begun", || left.shelf.first().is_none_or(|first| first.delivered >= 320)).await;
    drop(shipper);
    lock(&outlet.places).insert(number, 100);
    lock(&outlet.taken).clear();
    let shipper = left.ship(Arc::clone(&outlet) as Arc<dyn Outlet>, None);
    let is_there = left.shelf.first().is_some();
    assert!(shipper.finish(harness::PATIENCE).await);
    assert_eq!(outlet.taken().0, if is_there { 250 } else { 0 });
}

#[tokio::test(start_paused = true)]
async fn where_nobody_can_be_asked_a_mark_says_how_far_it_is() {
    let left = Left::with(350);
    let number = left.shelf.first().expect("a segment").number;
    Marks::new(left.shelf.folder()).write(number, 340).expect("a mark");
    let outlet = Fake::new(false, Mood::Good);
    assert!(left.ship(Arc::clone(&outlet) as Arc<dyn Outlet>, None).finish(harness::PATIENCE).await);
    assert_eq!((outlet.taken(), left.files()), ((10, 1), 0), "the mark goes with its segment");
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_cannot_be_written_is_no_delivery_that_failed() {
    let left = Left::with(1_500);
    let first = left.shelf.first().expect("a segment").number;
    // A directory in its place: the mark cannot be renamed over it.
    fs::create_dir(left.shelf.folder().join(segment::name(first)).with_extension("mark")).expect("a folder");
    let outlet = Fake::new(false, Mood::Good);
    let shipper = left.ship(Arc::clone(&outlet) as Arc<dyn Outlet>, None);
    let progress = Arc::clone(shipper.progress());
    assert!(shipper.finish(harness::PATIENCE).await);
    assert_eq!((outlet.taken(), left.files()), ((1_500, 1), 1));
    let progressed = progress.read();
    assert_eq!((progressed.failures, progressed.away_since_ms), (0, 0));
    assert!(progressed.mark_failures > 0, "{progressed:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_since_before_the_start_has_an_age_though_the_outlet_was_never_there() {
    let left = Left::with(10);
    let begun_ms = segment::begun_ms(left.shelf.first().expect("a segment").number);
    let outlet = Fake::new(true, Mood::Away);
    let shipper = left.ship(Arc::clone(&outlet) as Arc<dyn Outlet>, None);
    let progress = Arc::clone(shipper.progress());
    until("two failures", || progress.read().failures >= 2).await;
    assert_eq!(progress.read().oldest_time_ms, begun_ms);
    *lock(&outlet.mood) = Mood::Good;
    until("all delivered", || left.shelf.waiting().segments == 0 && progress.read().oldest_time_ms == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_fails_for_long_does_not_keep_those_behind_it() {
    let left = Left::with(1_000);
    let first = left.shelf.first().expect("a segment");
    let path = left.shelf.folder().join(segment::name(first.number));
    let elsewhere = left.data_dir.path().join("elsewhere");
    fs::rename(&path, &elsewhere).expect("moved");
    // Neither missing nor to be opened: it is a link to itself.
    std::os::unix::fs::symlink(&path, &path).expect("a link");
    let outlet = Fake::new(true, Mood::Good);
    let shipper = left.ship(Arc::clone(&outlet) as Arc<dyn Outlet>, None);
    let progress = Arc::clone(shipper.progress());
    until("all others delivered", || left.shelf.waiting().segments == 1).await;
    assert_eq!(outlet.taken(), (1_000 - first.written as usize, 1));
    assert_eq!((left.tally.read().unread, progress.read().away_since_ms), (1, 0));
    until("it is tried again", || progress.read().failures > u64::from(FILE_FAILURES_MAX)).await;
    fs::rename(&elsewhere, &path).expect("moved back");
    until("it is delivered too", || left.shelf.waiting().segments == 0).await;
    assert_eq!((outlet.taken(), left.tally.read().unread), ((1_000, 1), 1));
    assert!(shipper.finish(harness::PATIENCE).await);
    assert_eq!(progress.read().away_since_ms, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shipper_that_panics_is_seen_as_an_outlet_that_gets_nothing() {
    let left = Left::with(10);
    let observer: Observer = Arc::new(|_: &[UsageRow]| panic!("as a test wants it"));
    let shipper = left.ship(Fake::new(true, Mood::Good), Some(observer));
    let progress = Arc::clone(shipper.progress());
    until("it is seen", || progress.read().away_since_ms > 0).await;
    assert_eq!(progress.read().failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_somebody_removed_is_told_and_the_next_goes_on() {
    let left = Left::with(1_000);
    let first = left.shelf.first().expect("a segment");
    fs::remove_file(left.shelf.folder().join(segment::name(first.number))).expect("it is there");
    let outlet = Fake::new(true, Mood::Good);
    assert!(left.ship(Arc::clone(&outlet) as Arc<dyn Outlet>, None).finish(harness::PATIENCE).await);
    assert_eq!(outlet.taken().0 as u64, 1_000 - first.written);
    assert_eq!(left.tally.read().damaged, first.written);
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_an_outlet_that_is_away() {
    let left = Left::with(10);
    let begun = Instant::now();
    assert!(!left.ship(Fake::new(true, Mood::Away), None).finish(Duration::from_secs(4)).await);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!((left.shelf.waiting().records, left.files()), (10, 1), "it stays on the disk");
}
