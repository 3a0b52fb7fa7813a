//! The lines of a report, page by page.
//!
//! A page is read from the store by the place where the one before it ended, and nothing stays open in between, so that
//! a slow reader holds no transaction. While one page is written the next is fetched, one and no more: memory stays the
//! same however many lines there are. What a page is written as is not known here.

use super::cursor::{Cursor, Mark};
use super::groups;
use super::lines::Column;
use super::query::{Interval, ReportQuery};
use super::zone::HOUR_MS;
use crate::store::{
    Store, StoreError, Stored, UsageField, UsageFilter, UsageLine, UsageMark, UsageOrder, UsageSource, UsageSums,
};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Lines of one page of a stream: at some 150 bytes a line two pages are 3 MB, and what a page costs besides its lines
/// is spread thin.
pub const PAGE_LINES: usize = 10_000;

/// How often a page of a stream that has begun is asked for while there are too many reports: each time waits for its
/// turn, so a minute in all.
const BUSY_TRIES: usize = 6;

/// Some lines of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The lines, in order.
    pub lines: Vec<UsageLine>,
    /// Where to go on; `None` after the last.
    pub next: Option<Cursor>,
}

/// The page of `limit` lines at most that `query` asks for, behind its cursor where it has one.
///
/// # Errors
/// Of the store.
pub async fn page(store: &dyn Store, query: &ReportQuery, limit: usize) -> Stored<Page> {
    behind(store, query, query.cursor.as_ref().map(|cursor| &cursor.mark), limit, &mut Stride::new(query)).await
}

/// All lines of a report, from the query's cursor on where it has one.
pub struct ReportSource {
    store: Arc<dyn Store>,
    query: Arc<ReportQuery>,
    /// Fetches the next page; none behind the last.
    task: Option<JoinHandle<Fetched>>,
    /// Whether a page was given out.
    begun: bool,
    /// Why there is nothing more.
    failed: Option<StoreError>,
}

type Fetched = (Stored<Page>, Stride);

impl ReportSource {
    /// Begins to fetch the first page. Within a runtime of tokio.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, query: Arc<ReportQuery>) -> Self {
        let mut source = Self { store, query, task: None, begun: false, failed: None };
        let mark = source.query.cursor.as_ref().map(|cursor| cursor.mark.clone());
        source.fetch(mark, Stride::new(&source.query));
        source
    }

    fn fetch(&mut self, mark: Option<Mark>, mut stride: Stride) {
        let (store, query) = (Arc::clone(&self.store), Arc::clone(&self.query));
        self.task = Some(tokio::spawn(async move {
            // Its reader has a part of it: that others ask too is no reason to break off.
            let mut tries = if mark.is_some() { BUSY_TRIES } else { 1 };
            loop {
                let page = behind(&*store, &query, mark.as_ref(), PAGE_LINES, &mut stride).await;
                tries -= 1;
                if tries == 0 || !matches!(page, Err(StoreError::Busy(_))) {
                    return (page, stride);
                }
            }
        }));
    }

    /// The next page, `None` behind the last: a report without lines has none. While the caller has it, the one behind
    /// it is being fetched. May be given up and called again.
    ///
    /// # Errors
    /// Of the store, and the same from then on.
    pub async fn next_page(&mut self) -> Stored<Option<Page>> {
        if let Some(why) = &self.failed {
            return Err(why.clone());
        }
        let Some(task) = &mut self.task else { return Ok(None) };
        let ended = || (Err(StoreError::Unreachable("the process ends".to_owned())), Stride(1));
        let (page, stride) = task.await.unwrap_or_else(|_| ended());
        self.task = None;
        let page = page.inspect_err(|why| self.failed = Some(why.clone()))?;
        if let Some(cursor) = &page.next {
            self.fetch(Some(cursor.mark.clone()), stride);
        }
        let any = self.begun || !page.lines.is_empty();
        self.begun = true;
        Ok(any.then_some(page))
    }
}

impl Drop for ReportSource {
    /// What is being fetched is not wanted any more.
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Intervals that are asked for at once: as many as are likely to fill a page.
#[derive(Clone, Copy, Debug)]
struct Stride(usize);

/// How often a stride may double: 64 hours of minutes, 64 days of hours.
const STRIDE_DOUBLES_MAX: usize = 6;

impl Stride {
    const fn new(query: &ReportQuery) -> Self {
        Self::least(query.interval)
    }

    /// An hour of minutes, a day of hours, a month of days.
    const fn least(interval: Option<Interval>) -> Self {
        match interval {
            Some(Interval::Minute) => Self(60),
            Some(Interval::Hour) => Self(24),
            Some(Interval::Day) | None => Self(31),
        }
    }

    /// Takes notice of how many lines a stride had.
    fn had(&mut self, lines: usize, limit: usize, interval: Option<Interval>) {
        if lines >= limit {
            self.0 = (self.0 / 2).max(1);
        } else if lines < limit.div_ceil(4) {
            self.0 = (self.0 * 2).min(Self::least(interval).0 << STRIDE_DOUBLES_MAX);
        }
    }
}

/// The page behind a mark.
async fn behind(
    store: &dyn Store,
    query: &ReportQuery,
    mark: Option<&Mark>,
    limit: usize,
    stride: &mut Stride,
) -> Stored<Page> {
    // One more tells whether there is another page.
    let wanted = limit.saturating_add(1);
    let mut lines = if query.is_grouped() {
        sums(store, query, mark, wanted, stride).await?
    } else {
        let mark = mark.map(|mark| UsageMark {
            time_ms: mark.time_ms,
            node: mark.node.clone(),
            segment: mark.segment,
            offset: mark.offset,
        });
        store.usage_page(&query.filter, mark.as_ref(), wanted).await?
    };
    let is_last = lines.len() <= limit;
    lines.truncate(limit);
    let next = lines.last().filter(|_| !is_last).map(|line| query.behind(mark_of(line)));
    Ok(Page { lines, next })
}

/// Lines of sums behind a mark: slice after slice of time where there is an interval, so that each question stays small.
async fn sums(
    store: &dyn Store,
    query: &ReportQuery,
    mark: Option<&Mark>,
    wanted: usize,
    stride: &mut Stride,
) -> Stored<Vec<UsageLine>> {
    let fields: Vec<UsageField> = query.groups.iter().filter_map(|column| field(*column)).collect();
    let after = mark.map(line_of);
    let mut to_ms = query.filter.to_ms;
    let mut at_ms = query.filter.from_ms;
    if let (Some(mark), Some(_)) = (mark, query.interval) {
        at_ms = at_ms.max(mark.time_ms);
    }
    let mut lines: Vec<UsageLine> = Vec::new();
    while at_ms < to_ms && lines.len() < wanted {
        let slice = groups::slice(query.interval, &query.zone, at_ms, to_ms, stride.0);
        let limit = wanted - lines.len();
        let sums = UsageSums {
            filter: &query.filter,
            pieces: &slice.pieces,
            timed: query.interval.is_some(),
            fields: &fields,
            order: UsageOrder::Fields,
            after: after.as_ref(),
            limit,
        };
        let some = store.usage_sums(&sums).await?;
        stride.had(some.len(), limit, query.interval);
        at_ms = slice.to_ms;
        if some.is_empty() && at_ms < to_ms {
            // On to where there is anything: years without usage are no questions.
            let filter = UsageFilter { from_ms: at_ms - at_ms % HOUR_MS, to_ms, ..query.filter.clone() };
            let Some((first_ms, last_ms)) = store.usage_ends(UsageSource::Hours, &filter).await? else { break };
            (at_ms, to_ms) = (at_ms.max(first_ms), to_ms.min(last_ms.saturating_add(HOUR_MS)));
        }
        lines.extend(some);
    }
    Ok(lines)
}

/// The store's name of a column that lines are grouped by.
#[must_use]
pub const fn field(column: Column) -> Option<UsageField> {
    match column {
        Column::Key => Some(UsageField::Key),
        Column::Asset => Some(UsageField::Asset),
        Column::Protocol => Some(UsageField::Protocol),
        Column::Status => Some(UsageField::Status),
        Column::Tier => Some(UsageField::Tier),
        Column::Node => Some(UsageField::Node),
        Column::Time | Column::Endpoint | Column::Requests => None,
    }
}

fn mark_of(line: &UsageLine) -> Mark {
    Mark {
        time_ms: line.time_ms,
        key: line.key,
        status: line.status,
        asset: line.asset.to_string(),
        protocol: line.protocol.to_string(),
        tier: line.tier.to_string(),
        node: line.node.to_string(),
        segment: line.segment,
        offset: line.offset,
    }
}

fn line_of(mark: &Mark) -> UsageLine {
    UsageLine {
        time_ms: mark.time_ms,
        key: mark.key,
        status: mark.status,
        asset: mark.asset.as_str().into(),
        protocol: mark.protocol.as_str().into(),
        tier: mark.tier.as_str().into(),
        node: mark.node.as_str().into(),
        segment: mark.segment,
        offset: mark.offset,
        ..UsageLine::default()
    }
}
