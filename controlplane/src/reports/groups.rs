//! Which sums a grouped report is put together from, so that it is exact for any range and reads as little as it can.
//!
//! Whole hours come from the sums per hour, whole minutes at the edges from those per minute, and what is left from the
//! records themselves. Beyond the time for which records are kept, a range is widened to whole minutes instead.

use super::parameters::Span;
use super::query::Asking;

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
