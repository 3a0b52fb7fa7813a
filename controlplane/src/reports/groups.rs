//! Which sums a grouped report is put together from, so that it is exact for any range and reads as little as it can.
//!
//! Whole hours come from the sums per hour, whole minutes at the edges from those per minute, and what is left from the
//! records themselves. Beyond the time for which records are kept, a range is widened to whole minutes instead.

use super::parameters::Span;
use super::query::{Asking, Interval};
use super::zone::Zone;
use crate::store::{PIECES_MAX, UsagePiece, UsageSource};

/// A minute, ms.
pub const MINUTE_MS: u64 = 60_000;

/// An hour, ms.
pub const HOUR_MS: u64 = 60 * MINUTE_MS;

/// A day of 24 hours, ms.
pub const DAY_MS: u64 = 24 * HOUR_MS;

/// The range, Unix ms, that a report over `span` covers: all of it as long as records are kept. What is asked for
/// before that begins with the records where every line is one, and at whole minutes where lines are sums.
#[must_use]
pub fn covered(grouped: bool, span: Span, asking: &Asking) -> (u64, u64) {
    let kept_ms = asking.now_ms.saturating_sub(asking.retention_days.saturating_mul(DAY_MS));
    let Span { from_ms, to_ms } = span;
    if !grouped {
        return (from_ms.max(kept_ms).min(to_ms), to_ms);
    }
    let from_ms = if from_ms < kept_ms { from_ms - from_ms % MINUTE_MS } else { from_ms };
    let to_ms = if to_ms < kept_ms { to_ms.next_multiple_of(MINUTE_MS) } else { to_ms };
    (from_ms, to_ms)
}

/// Minutes of an edge from which on it is cheaper to take a whole hour and take the others away from it.
const EDGE_MS_MAX: u64 = HOUR_MS / 2;

/// Days of one question where days do not begin with hours: each is three pieces then.
const ODD_DAYS_MAX: usize = 16;

/// A run of intervals of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// Where the first one begins, Unix ms; the run may begin within it.
    base_ms: u64,
    /// Their length, ms.
    step_ms: u64,
}

/// The pieces that a part of a report's range is put together from, and where that part ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The pieces.
    pub pieces: Vec<UsagePiece>,
    /// Where the next part begins, Unix ms: the end of the range, or the begin of an interval.
    pub to_ms: u64,
}

/// The part of `[from_ms, to_ms)` that begins with it and has `intervals` intervals at the most; without an interval,
/// all of it.
#[must_use]
pub fn slice(interval: Option<Interval>, zone: &Zone, from_ms: u64, to_ms: u64, intervals: usize) -> Slice {
    let mut pieces = Vec::new();
    let to_ms = match interval {
        None => {
            split(from_ms, to_ms, Run { base_ms: from_ms, step_ms: u64::MAX >> 1 }, true, &mut pieces);
            to_ms
        }
        Some(Interval::Minute) => {
            let base_ms = from_ms - from_ms % MINUTE_MS;
            let end_ms = base_ms.saturating_add(MINUTE_MS.saturating_mul(intervals as u64)).min(to_ms);
            split(from_ms, end_ms, Run { base_ms, step_ms: MINUTE_MS }, false, &mut pieces);
            end_ms
        }
        Some(interval) => {
            runs(interval, zone, (from_ms, to_ms), intervals, |from_ms, to_ms, run, single| {
                let whole = run.base_ms.is_multiple_of(HOUR_MS) && run.step_ms.is_multiple_of(HOUR_MS);
                // What a single interval takes of whole hours may lie beyond it, and is taken away again.
                let run = if single { Run { step_ms: u64::MAX >> 1, ..run } } else { run };
                split(from_ms, to_ms, run, whole || single, &mut pieces);
                // The next run must have room.
                pieces.len() + PIECES_OF_RUN <= PIECES_MAX
            })
        }
    };
    Slice { pieces, to_ms }
}

/// Pieces of one run at the most: records and minutes at either edge, and hours.
const PIECES_OF_RUN: usize = 5;

/// Walks over the intervals of a range and tells each run of equal ones, until there are enough; where the last one
/// ended. Days that do not begin with an hour are runs of one, so that hours can be taken of their insides.
fn runs(
    interval: Interval,
    zone: &Zone,
    (from_ms, to_ms): (u64, u64),
    intervals: usize,
    mut tell: impl FnMut(u64, u64, Run, bool) -> bool,
) -> u64 {
    let of = |time_ms| if interval == Interval::Day { zone.day(time_ms) } else { zone.hour(time_ms) };
    let usual_ms = if interval == Interval::Day { DAY_MS } else { HOUR_MS };
    let mut left = intervals.max(1);
    let mut at_ms = from_ms;
    while at_ms < to_ms && left > 0 {
        let (base_ms, mut end_ms) = of(at_ms);
        let step_ms = end_ms - base_ms;
        let joins = step_ms == usual_ms && (interval == Interval::Hour || base_ms.is_multiple_of(HOUR_MS));
        let mut count = 1;
        while joins && count < left && end_ms < to_ms {
            let (next_ms, after_ms) = of(end_ms);
            if after_ms - next_ms != usual_ms {
                break;
            }
            (end_ms, count) = (after_ms, count + 1);
        }
        left = if joins { left - count } else { (left - 1).min(ODD_DAYS_MAX) };
        let until_ms = end_ms.min(to_ms);
        let room = tell(at_ms, until_ms, Run { base_ms, step_ms }, count == 1);
        at_ms = until_ms;
        if !room {
            break;
        }
    }
    at_ms
}

/// Puts a run together from records, minutes and, where it may, hours.
fn split(from_ms: u64, to_ms: u64, run: Run, by_hours: bool, pieces: &mut Vec<UsagePiece>) {
    let mut piece = |source, from_ms: u64, to_ms: u64, minus| {
        if from_ms < to_ms {
            let Run { base_ms, step_ms } = run;
            pieces.push(UsagePiece { source, from_ms, to_ms, base_ms, step_ms, minus });
        }
    };
    let (first_ms, last_ms) = (from_ms.next_multiple_of(MINUTE_MS), to_ms - to_ms % MINUTE_MS);
    if first_ms > last_ms {
        // Within one minute.
        return piece(UsageSource::Rows, from_ms, to_ms, false);
    }
    piece(UsageSource::Rows, from_ms, first_ms, false);
    piece(UsageSource::Rows, last_ms, to_ms, false);
    let (hour_ms, end_ms) = (first_ms.next_multiple_of(HOUR_MS), last_ms - last_ms % HOUR_MS);
    if !by_hours || hour_ms > end_ms {
        return piece(UsageSource::Minutes, first_ms, last_ms, false);
    }
    let (mut from_hour_ms, mut to_hour_ms) = (hour_ms, end_ms);
    if hour_ms - first_ms > EDGE_MS_MAX {
        from_hour_ms -= HOUR_MS;
        piece(UsageSource::Minutes, from_hour_ms, first_ms, true);
    } else {
        piece(UsageSource::Minutes, first_ms, hour_ms, false);
    }
    if last_ms - end_ms > EDGE_MS_MAX {
        to_hour_ms += HOUR_MS;
        piece(UsageSource::Minutes, last_ms, to_hour_ms, true);
    } else {
        piece(UsageSource::Minutes, end_ms, last_ms, false);
    }
    piece(UsageSource::Hours, from_hour_ms, to_hour_ms, false);
}
