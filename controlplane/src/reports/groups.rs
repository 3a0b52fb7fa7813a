//! Which sums a grouped report is put together from, so that it is exact for any range and reads as little as it can.
//!
//! Whole hours come from the sums per hour, whole minutes at the edges from those per minute, and what is left from the
//! records themselves. Beyond the time for which records are kept, a range is widened to whole minutes instead.

use super::terms::{Asking, Interval, Span};
use super::zone::{DAY_MS, HOUR_MS, MINUTE_MS, Zone};
use crate::store::{PIECES_MAX, UsagePiece, UsageSource};

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

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    use std::collections::BTreeMap;

    /// How often each time is counted: where that changes, and to what.
    fn coverage(pieces: &[UsagePiece]) -> Vec<(u64, i64)> {
        let mut changes: BTreeMap<u64, i64> = BTreeMap::new();
        for piece in pieces {
            let step_ms = match piece.source {
                UsageSource::Rows => 1,
                UsageSource::Minutes => MINUTE_MS,
                UsageSource::Hours => HOUR_MS,
            };
            assert!(piece.from_ms < piece.to_ms);
            assert!(piece.from_ms.is_multiple_of(step_ms) && piece.to_ms.is_multiple_of(step_ms), "{piece:?}");
            let sign = if piece.minus { -1 } else { 1 };
            *changes.entry(piece.from_ms).or_default() += sign;
            *changes.entry(piece.to_ms).or_default() -= sign;
        }
        changes.into_iter().filter(|(_, change)| *change != 0).collect()
    }

    #[test]
    fn every_time_counts_once_in_any_range_zone_and_interval() {
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..3_000 {
            // Around both days of 2026 on which clocks on Lord Howe Island are set.
            let middle_ms = [1_775_314_800_000, 1_791_041_400_000][random.random_range(0..2)];
            let from_ms = middle_ms - random.random_range(0..40 * DAY_MS);
            let step_ms = [1, MINUTE_MS, HOUR_MS][random.random_range(0..3)];
            let from_ms = from_ms - from_ms % step_ms;
            let length_ms = [1_000, MINUTE_MS, HOUR_MS, DAY_MS, 80 * DAY_MS][random.random_range(0..5)];
            let to_ms = from_ms + 1 + random.random_range(0..length_ms);
            let zone = ["UTC", "Australia/Lord_Howe", "Europe/Berlin", "-03:30"][random.random_range(0..4)];
            let zone = Zone::named(zone).expect("a zone");
            let interval = [None, Some(Interval::Minute), Some(Interval::Hour), Some(Interval::Day)];
            let interval = interval[random.random_range(0..4)];
            let mut at_ms = from_ms;
            while at_ms < to_ms {
                let intervals = random.random_range(1..3_000);
                let slice = slice(interval, &zone, at_ms, to_ms, intervals);
                assert!(slice.pieces.len() <= PIECES_MAX && slice.to_ms > at_ms && slice.to_ms <= to_ms);
                assert_eq!(coverage(&slice.pieces), [(at_ms, 1), (slice.to_ms, -1)], "{interval:?} {zone} {slice:?}");
                at_ms = slice.to_ms;
            }
        }
    }

    #[test]
    fn a_day_is_read_as_hours_and_little_else() {
        let zone = Zone::named("Europe/Berlin").expect("a zone");
        // 30 days from midnight in Berlin, over the day on which clocks go back.
        let from_ms = zone.day(1_791_500_000_000).0;
        let month = slice(Some(Interval::Day), &zone, from_ms, from_ms + 30 * DAY_MS, 31).pieces;
        assert!(month.len() <= 4 && month.iter().all(|piece| piece.source == UsageSource::Hours), "{month:?}");
        // 50 minutes are an hour without ten.
        let odd = slice(None, &zone, from_ms + 10 * MINUTE_MS, from_ms + 2 * HOUR_MS, 1).pieces;
        assert_eq!(odd.iter().filter(|piece| piece.minus).count(), 1, "{odd:?}");
        let minutes: u64 =
            odd.iter().filter(|piece| piece.source == UsageSource::Minutes).map(|p| p.to_ms - p.from_ms).sum();
        assert_eq!(minutes, 10 * MINUTE_MS);
    }
}
