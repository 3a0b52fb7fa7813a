//! From deliveries to rows through a queue that doubles, reorders, loses and forgets.

use super::double::{Double, Trouble};
use super::message::{MESSAGE_BYTES_MAX, Unreadable, VERSION, pack, unpack};
use super::outlet::QueueOutlet;
use super::writer::{BATCH_MESSAGES, QueueWriter, WINDOW};
use super::*;
use crate::params::check::{Base, Rows, check};
use crate::params::{Parameters, QueueBounds};
use crate::store::shaky::Shaky;
use crate::store::sqlite::SqliteStore;
use crate::store::{Committed, Store, StoreError, Stored, UsageRow, UsageSpan, UsageWrite};
use crate::usage::outlet::{BATCH_ROWS_MAX, Delivery, Outlet};
use serde_json::{Value, json};
use shared::usage::UsageRecord;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;
use tokio::time::Instant;

const SEGMENT: u64 = 0x19a_0000_0001_2345;

fn row(node: &str, offset: u64) -> UsageRow {
    let mut record = UsageRecord {
        number: offset + 7,
        first_time_ms: 1_793_500_000_000 + offset,
        last_time_ms: 1_793_500_000_050 + offset,
        requests: offset + 1,
        key: 7,
        shard: 3,
        status: 200,
        protocol: u8::from(offset.is_multiple_of(2)),
        code: 0,
        tier: 2,
        endpoint: 1,
        ..UsageRecord::default()
    };
    record.asset[..3].copy_from_slice(b"BTC");
    UsageRow { node: node.into(), segment: SEGMENT, offset, record }
}

fn rows(places: Range<u64>) -> Vec<UsageRow> {
    places.map(|place| row("n1", place)).collect()
}

fn delivery(places: Range<u64>) -> Delivery {
    Delivery { node: "n1".into(), segment: SEGMENT, from: places.start, to: places.end, rows: rows(places) }
}

async fn drain(writer: &QueueWriter) -> Result<(), OutletError> {
    let (_told, stop) = watch::channel(false);
    writer.drain(stop).await
}

/// Rows in memory, with faults.
#[derive(Default)]
struct Book {
    rows: Mutex<Vec<UsageRow>>,
    /// So many calls find it away.
    away: AtomicUsize,
    /// So many calls find somebody else's transaction in the way.
    conflicts: AtomicUsize,
    /// Rows of this node cannot be stored.
    refuses: Mutex<Option<String>>,
    /// It goes away for good behind the first of these rows.
    leaves_behind: Mutex<Option<u64>>,
}

impl Book {
    fn places(&self) -> HashSet<(Arc<str>, u64, u64)> {
        let rows = self.rows.lock().expect("nobody panicked");
        let places: HashSet<_> = rows.iter().map(|row| (Arc::clone(&row.node), row.segment, row.offset)).collect();
        assert_eq!(places.len(), rows.len(), "a row is there twice");
        places
    }
}

const NOT_ASKED: StoreError = StoreError::NotFound;

#[async_trait]
impl UsageWrite for Book {
    async fn usage_position(&self, _node: &str, _segment: u64) -> Stored<u64> {
        Err(NOT_ASKED)
    }

    async fn commit_usage(&self, _span: UsageSpan<'_>, _rows: &[UsageRow]) -> Stored<Committed> {
        Err(NOT_ASKED)
    }

    async fn prune_usage(&self, _before_ms: u64) -> Stored<u64> {
        Err(NOT_ASKED)
    }

    async fn add_usage(&self, rows: &[UsageRow]) -> Stored<u64> {
        let less = |away: usize| away.checked_sub(1);
        if self.away.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            return Err(StoreError::Unreachable("unplugged".to_owned()));
        }
        if self.conflicts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            return Err(StoreError::Conflict("another change came in between: try again".to_owned()));
        }
        let refuses = self.refuses.lock().expect("nobody panicked").clone();
        if rows.iter().any(|row| refuses.as_deref() == Some(&*row.node)) {
            return Err(StoreError::Invalid("not this node's".to_owned()));
        }
        let known = self.places();
        let new = rows.iter().filter(|row| !known.contains(&(Arc::clone(&row.node), row.segment, row.offset)));
        let mut book = self.rows.lock().expect("nobody panicked");
        let before = book.len();
        book.extend(new.cloned());
        let leaves_behind = *self.leaves_behind.lock().expect("nobody panicked");
        if leaves_behind.is_some_and(|place| rows.iter().any(|row| row.offset == place)) {
            self.away.store(usize::MAX, Ordering::Relaxed);
        }
        Ok((book.len() - before) as u64)
    }
}

/// An outlet, the queue behind it, and a writer to a book.
struct Bench {
    queue: Arc<Double>,
    book: Arc<Book>,
    outlet: QueueOutlet,
    writer: Arc<QueueWriter>,
    bounds: watch::Sender<Arc<Parameters>>,
}

impl Bench {
    fn new() -> Self {
        let (queue, book) = (Arc::new(Double::default()), Arc::new(Book::default()));
        let parameters = check(&Rows::default(), &Base::default()).expect("defaults are good").parameters;
        let (bounds, parameters) = watch::channel(Arc::new(parameters));
        let outlet = QueueOutlet::new(Arc::<Double>::clone(&queue), parameters);
        let writer = Arc::new(QueueWriter::new(Arc::<Double>::clone(&queue), Arc::<Book>::clone(&book)));
        Self { queue, book, outlet, writer, bounds }
    }

    /// Everything that waits is written, and these places are there, each once.
    #[track_caller]
    fn has(&self, places: Range<u64>) {
        let expected: HashSet<_> = places.map(|place| (Arc::from("n1"), SEGMENT, place)).collect();
        assert_eq!(self.book.places(), expected);
    }
}

#[test]
fn a_row_comes_back_whole() {
    let all = rows(0..1_000);
    let messages = pack(all.iter().filter(|row| row.offset % 10 != 3));
    assert!(messages.len() > 1 && messages.iter().all(|message| message.body.len() <= MESSAGE_BYTES_MAX));
    let back: Vec<UsageRow> = messages.iter().flat_map(|message| unpack(&message.body).expect("ours")).collect();
    assert_eq!(back, all.into_iter().filter(|row| row.offset % 10 != 3).collect::<Vec<_>>());
    let spans: Vec<(u64, u64)> = messages.iter().map(|message| (message.first, message.last)).collect();
    assert!(spans[0].0 == 0 && spans.windows(2).all(|pair| pair[0].1 < pair[1].0), "{spans:?}");
    assert_eq!(pack([]), []);
    let widest = UsageRecord {
        number: u64::MAX >> 1,
        first_time_ms: u64::MAX >> 1,
        last_time_ms: u64::MAX >> 1,
        requests: u64::MAX >> 1,
        asset: *b"ABCDEFGHIJKLMNOP",
        key: u32::MAX,
        shard: u16::MAX,
        status: u16::MAX,
        protocol: 255,
        code: 255,
        tier: 255,
        endpoint: 255,
        ..UsageRecord::default()
    };
    let widest =
        UsageRow { node: "n".repeat(64).into(), segment: u64::MAX >> 1, offset: u64::MAX >> 1, record: widest };
    assert_eq!(unpack(&pack([&widest])[0].body).as_deref(), Ok(&[widest][..]));
}

/// The message of one row, with a member replaced.
fn with(member: &str, value: Value) -> String {
    let mut document: Value = serde_json::from_str(&pack([&row("n1", 0)])[0].body).expect("JSON");
    document[member] = value;
    document.to_string()
}

#[test]
fn what_is_not_ours_or_cannot_be_is_told() {
    let row = |place: u64, requests: u64, asset: &str| json!([place, 1, 1, 1, requests, asset, 1, 1, 200, 0, 0, 0, 0]);
    let good = with("rows", json!([row(0, 1, "BTC"), row(5, 1, "")]));
    assert_eq!(unpack(&good).map(|rows| rows.len()), Ok(2));
    for foreign in ["", "{}", "hello", "null", "{\"v\":\"1\"}", "{\"v\":-1}"] {
        assert_eq!(unpack(foreign), Err(Unreadable::Foreign), "{foreign}");
    }
    assert_eq!(unpack(&with("v", json!(VERSION + 1))), Err(Unreadable::Version(2)));
    for malformed in [
        with("more", json!(1)),
        with("node", json!("")),
        with("node", json!("a b")),
        with("segment", json!(1_u64 << 63)),
        with("segment", json!(-1)),
        with("rows", json!([])),
        with("rows", json!([[1, 2]])),
        with("rows", json!([row(0, 0, "BTC")])),
        with("rows", json!([row(0, u64::MAX, "BTC")])),
        with("rows", json!([row(0, 1, "ABCDEFGHIJKLMNOPQ")])),
        with("rows", json!([row(0, 1, "\u{0}")])),
        with("rows", json!([row(1, 1, "BTC"), row(1, 1, "BTC")])),
        with("rows", json!([row(2, 1, "BTC"), row(1, 1, "BTC")])),
        with("first", json!(u64::MAX)),
        with("node", json!("n".repeat(REQUEST_BYTES_MAX))),
    ] {
        assert!(matches!(unpack(&malformed), Err(Unreadable::Malformed(_))), "{malformed:.200}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_goes_in_requests_within_the_bounds() {
    let bench = Bench::new();
    assert_eq!((bench.outlet.pace(), bench.outlet.rows_max()), (Duration::from_millis(100), BATCH_ROWS_MAX));
    assert_eq!(bench.outlet.position("n1", SEGMENT).await, Ok(None));
    assert_eq!(bench.outlet.deliver(&delivery(0..300)).await, Ok(300));
    assert!(bench.queue.bodies().len() <= 2, "a quiet node's delivery is a message or two");
    assert_eq!(bench.outlet.deliver(&delivery(300..5_300)).await, Ok(5_300));
    let requests = bench.queue.requests();
    assert!(requests.len() > 2 && requests.iter().all(|entries| *entries <= ENTRIES_MAX), "{requests:?}");
    assert!(requests[1..requests.len() - 1].iter().all(|entries| *entries == ENTRIES_MAX), "{requests:?}");
    // Nothing readable in it: nothing to send.
    let empty = Delivery { rows: Vec::new(), ..delivery(5_300..5_400) };
    assert_eq!(bench.outlet.deliver(&empty).await, Ok(5_400));
    assert_eq!(bench.queue.requests().len(), requests.len());
    drain(&bench.writer).await.expect("drained");
    bench.has(0..5_300);
    // Other bounds, from the next delivery on.
    let bounds = QueueBounds { batch_messages: 2, flush_ms: 7, buffer_rows: 50, timeout_ms: 10 };
    bench.bounds.send_modify(|parameters| Arc::make_mut(parameters).queue = bounds);
    assert_eq!((bench.outlet.pace(), bench.outlet.rows_max()), (Duration::from_millis(7), 50));
    assert_eq!(bench.outlet.deliver(&delivery(5_300..6_800)).await, Ok(6_800));
    assert!(bench.queue.requests()[requests.len()..].iter().all(|entries| *entries <= 2));
    let began = Instant::now();
    bench.queue.meets(&[Trouble::Hangs]);
    assert!(matches!(bench.outlet.deliver(&delivery(6_800..6_801)).await, Err(OutletError::Away(_))));
    assert_eq!(began.elapsed(), Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn entries_that_were_not_taken_are_sent_again_by_themselves() {
    let bench = Bench::new();
    bench.queue.meets(&[Trouble::HalfTaken, Trouble::HalfTaken]);
    let whole = delivery(0..5_000);
    let messages = pack(&whole.rows).len();
    assert_eq!(bench.outlet.deliver(&whole).await, Ok(5_000));
    assert_eq!(bench.queue.requests()[..3], [10, 5, 3]);
    assert_eq!(bench.queue.counts().0, messages, "each went in once");
    drain(&bench.writer).await.expect("drained");
    bench.has(0..5_000);
    assert_eq!(bench.writer.counters().rows_known, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_of_a_failed_delivery_is_not_sent_again() {
    let bench = Bench::new();
    bench.queue.meets(&[Trouble::HalfTaken, Trouble::HalfTaken, Trouble::HalfTaken]);
    assert!(bench.outlet.deliver(&delivery(0..2_000)).await.is_err(), "three times is enough");
    let taken = bench.queue.counts().0;
    assert!(taken > 0);
    // The next try may be longer, and its messages cut elsewhere.
    assert_eq!(bench.outlet.deliver(&delivery(0..2_500)).await, Ok(2_500));
    drain(&bench.writer).await.expect("drained");
    bench.has(0..2_500);
    assert_eq!(bench.writer.counters().rows_known, 0, "no row was sent twice");
    // Of another segment nothing is taken.
    bench.queue.meets(&[Trouble::HalfTaken, Trouble::HalfTaken, Trouble::HalfTaken]);
    assert!(bench.outlet.deliver(&delivery(2_500..4_000)).await.is_err());
    let other = Delivery { segment: SEGMENT + 1, ..delivery(2_500..4_000) };
    let other = Delivery {
        rows: other.rows.iter().map(|row| UsageRow { segment: SEGMENT + 1, ..row.clone() }).collect(),
        ..other
    };
    assert_eq!(bench.outlet.deliver(&other).await, Ok(4_000));
    drain(&bench.writer).await.expect("drained");
    assert!(bench.book.places().iter().filter(|(_, segment, _)| *segment == SEGMENT + 1).count() == 1_500);
}

#[tokio::test(start_paused = true)]
async fn rows_count_once_however_messages_come() {
    let bench = Bench::new();
    bench.queue.meets(&[Trouble::AnswerLost]);
    assert!(bench.outlet.deliver(&delivery(0..3_000)).await.is_err());
    assert_eq!(bench.outlet.deliver(&delivery(0..3_000)).await, Ok(3_000));
    bench.queue.double();
    bench.queue.reverse();
    drain(&bench.writer).await.expect("drained");
    bench.has(0..3_000);
    let counters = bench.writer.counters();
    assert_eq!((counters.rows, counters.left_alone, counters.received), (3_000, 0, counters.written));
    assert_eq!(bench.queue.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_committed_and_not_deleted_changes_nothing_when_it_comes_again() {
    let bench = Bench::new();
    assert_eq!(bench.outlet.deliver(&delivery(0..500)).await, Ok(500));
    let messages = bench.queue.counts().0;
    // Two requests to receive find them, and that to delete fails, as if the writer had been killed before it.
    bench.queue.meets(&[Trouble::HalfTaken, Trouble::HalfTaken, Trouble::Away]);
    drain(&bench.writer).await.expect("drained");
    bench.has(0..500);
    assert_eq!(bench.queue.counts(), (0, messages), "committed, and still there");
    bench.queue.redeliver();
    drain(&bench.writer).await.expect("drained");
    bench.has(0..500);
    let counters = bench.writer.counters();
    assert_eq!((counters.rows, counters.rows_known, counters.queue_failures), (500, 500, 1));
    assert_eq!(bench.queue.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_left_alone_and_keeps_nothing_else() {
    let bench = Bench::new();
    bench.queue.put("hello");
    assert_eq!(bench.outlet.deliver(&delivery(0..10)).await, Ok(10));
    bench.queue.put(&with("v", json!(9)));
    let stranger: Vec<UsageRow> = (0..5).map(|place| row("stranger", place)).collect();
    bench.queue.put(&pack(&stranger)[0].body);
    *bench.book.refuses.lock().expect("nobody panicked") = Some("stranger".to_owned());
    drain(&bench.writer).await.expect("drained");
    bench.has(0..10);
    assert_eq!((bench.writer.counters().left_alone, bench.writer.counters().written), (3, 1));
    assert_eq!(bench.queue.counts(), (0, 3), "the queue puts them aside");
    assert!(bench.writer.is_well());
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_costs_no_message() {
    let bench = Bench::new();
    assert_eq!(bench.outlet.deliver(&delivery(0..10)).await, Ok(10));
    bench.book.away.store(3, Ordering::Relaxed);
    drain(&bench.writer).await.expect("it came back while the batch was held");
    bench.has(0..10);
    assert_eq!((bench.writer.counters().store_failures, bench.queue.counts()), (3, (0, 0)));
    // For longer than others are kept from the messages: the batch is given up.
    assert_eq!(bench.outlet.deliver(&delivery(10..20)).await, Ok(20));
    bench.book.away.store(usize::MAX, Ordering::Relaxed);
    let began = Instant::now();
    assert!(drain(&bench.writer).await.is_err() && began.elapsed() < Duration::from_secs(60));
    assert!(!bench.writer.is_well());
    bench.has(0..10);
    bench.book.away.store(0, Ordering::Relaxed);
    bench.queue.redeliver();
    drain(&bench.writer).await.expect("drained");
    bench.has(0..20);
    assert!(bench.writer.is_well());
}

#[tokio::test(start_paused = true)]
async fn a_database_that_goes_away_amid_a_batch_is_no_end_of_the_work() {
    let bench = Bench::new();
    let stranger: Vec<UsageRow> = (0..5).map(|place| row("stranger", place)).collect();
    bench.queue.put(&pack(&stranger)[0].body);
    *bench.book.refuses.lock().expect("nobody panicked") = Some("stranger".to_owned());
    for place in 0..3 {
        bench.queue.put(&pack([&row("n1", place)])[0].body);
    }
    *bench.book.leaves_behind.lock().expect("nobody panicked") = Some(0);
    let began = Instant::now();
    assert!(drain(&bench.writer).await.is_err(), "not all is written");
    assert!(began.elapsed() < Duration::from_secs(60), "before others get the messages");
    bench.has(0..1);
    let counters = bench.writer.counters();
    assert_eq!((counters.written, counters.left_alone, bench.queue.counts()), (1, 1, (0, 3)));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_in_the_way_is_tried_again_and_nobody_is_told_to_look_at_it() {
    let bench = Bench::new();
    assert_eq!(bench.outlet.deliver(&delivery(0..10)).await, Ok(10));
    bench.book.conflicts.store(2, Ordering::Relaxed);
    drain(&bench.writer).await.expect("drained");
    bench.has(0..10);
    let counters = bench.writer.counters();
    assert_eq!((counters.left_alone, counters.written, counters.store_failures), (0, 1, 2));
    assert!(bench.writer.is_well());
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_a_hundred_messages_or_five_seconds_and_the_last_one_is_finished() {
    let bench = Bench::new();
    for place in 0..150 {
        bench.queue.put(&pack([&row("n1", place)])[0].body);
    }
    let (stop, stops) = watch::channel(false);
    let writer = Arc::clone(&bench.writer);
    let began = Instant::now();
    let runs = tokio::spawn(async move { writer.run(stops).await });
    let written = async |count: u64| {
        while bench.writer.counters().written < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        began.elapsed()
    };
    assert!(written(BATCH_MESSAGES as u64).await < Duration::from_millis(50), "a whole batch waits for nothing");
    let elapsed = written(150).await;
    assert!(elapsed <= WINDOW + Duration::from_millis(50), "{elapsed:?}");
    // Told to stop while it waits: what has come is written before it ends.
    bench.queue.put(&pack([&row("n1", 150)])[0].body);
    tokio::time::sleep(WINDOW).await;
    stop.send(true).expect("it runs");
    runs.await.expect("it ends");
    bench.has(0..151);
    assert_eq!(bench.queue.counts(), (0, 0));
}

#[tokio::test]
async fn rows_count_once_when_the_queue_and_the_direct_path_take_turns() {
    let queue = Arc::new(Double::default());
    let store = Arc::new(Shaky::new(SqliteStore::memory()));
    store.migrate().await.expect("a schema");
    let direct = async |places: Range<u64>| {
        let span = UsageSpan { node: "n1", segment: SEGMENT, from: places.start, to: places.end };
        store.commit_usage(span, &rows(places)).await
    };
    let bench = Bench::new();
    let writer = QueueWriter::new(Arc::<Double>::clone(&queue), Arc::<Shaky>::clone(&store));
    let outlet = QueueOutlet::new(Arc::<Double>::clone(&queue), bench.bounds.subscribe());
    // Direct; then the queue; then direct again, from where the database stands, before the queue's rows came.
    assert_eq!(direct(0..100).await, Ok(Committed::Done));
    assert_eq!(outlet.deliver(&delivery(100..200)).await, Ok(200));
    assert_eq!(direct(100..250).await, Ok(Committed::Done));
    drain(&writer).await.expect("drained");
    assert_eq!((writer.counters().rows, writer.counters().rows_known), (0, 100));
    // The queue first, and the same rows directly after it.
    assert_eq!(outlet.deliver(&delivery(250..300)).await, Ok(300));
    drain(&writer).await.expect("drained");
    assert_eq!(writer.counters().rows, 50);
    assert_eq!(direct(250..320).await, Ok(Committed::Done));
    assert_eq!(store.add_usage(&rows(0..320)).await, Ok(0), "all are there");
}
