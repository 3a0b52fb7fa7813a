//! When whose turn is: a node's place in an interval that all nodes count alike.
//!
//! Intervals begin at whole multiples of their length in Unix time, and the node that is third of four has its turn halfway
//! in. No node tells another anything for it: each knows who is there and what time it is. Clocks that differ move turns by
//! as much. Pure.

use std::time::Duration;

/// What is done by turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Time between two turns of one node, at least a second.
    pub every: Duration,
    /// How much later than its place says.
    pub later: Duration,
}

/// How long until the node's next turn, ms. `since_ms` have passed since its last one; (`rank`, `nodes`) is its place.
///
/// Two turns are never closer than half an interval, nor further apart than one and a half, however the place or the
/// clock has changed in between.
pub fn wait_ms(now_ms: u64, since_ms: Option<u64>, turn: Turn, (rank, nodes): (u32, u32)) -> u64 {
    let every_ms = ms(turn.every).max(1);
    let place_ms = u128::from(every_ms) * u128::from(rank) / u128::from(nodes.max(1));
    let begins_ms = u64::try_from((place_ms + u128::from(ms(turn.later))) % u128::from(every_ms)).unwrap_or(0);
    let to_next_ms = every_ms - (now_ms % every_ms + every_ms - begins_ms) % every_ms;
    let Some(since_ms) = since_ms else { return to_next_ms };
    let (least_ms, most_ms) = (every_ms / 2, every_ms + every_ms / 2);
    let gap_ms = since_ms.saturating_add(to_next_ms);
    let gap_ms = if gap_ms < least_ms { gap_ms + every_ms } else { gap_ms.min(most_ms) };
    gap_ms.saturating_sub(since_ms)
}

fn ms(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Turn = Turn { every: Duration::from_secs(30), later: Duration::ZERO };
    /// A moment at which an interval begins.
    const BEGIN_MS: u64 = 1_793_500_000_000 - 1_793_500_000_000 % 30_000;

    #[track_caller]
    fn check(past_ms: u64, since_ms: Option<u64>, place: (u32, u32), expected_ms: u64) {
        assert_eq!(
            wait_ms(BEGIN_MS + past_ms, since_ms, EVERY, place),
            expected_ms,
            "{past_ms} {since_ms:?} {place:?}"
        );
    }

    #[test]
    fn each_node_has_its_own_part_of_the_interval() {
        check(1, None, (0, 3), 29_999);
        check(0, None, (1, 3), 10_000);
        check(0, None, (2, 3), 20_000);
        check(10_000, None, (1, 3), 30_000);
        check(10_001, Some(1), (1, 3), 29_999);
        check(0, None, (0, 0), 30_000);
        let later = |seconds| Turn { later: Duration::from_secs(seconds), ..EVERY };
        assert_eq!(wait_ms(BEGIN_MS, None, later(15), (0, 1)), 15_000);
        assert_eq!(wait_ms(BEGIN_MS, None, later(3_600 + 7), (0, 1)), 7_000, "later than an interval is within it");
        let gaps: Vec<u64> = (0..7).map(|rank| wait_ms(BEGIN_MS - 1, None, EVERY, (rank, 7))).collect();
        assert!(gaps.windows(2).all(|pair| pair[1] - pair[0] >= 4_285), "{gaps:?}");
    }

    #[test]
    fn a_turn_that_moves_comes_neither_at_once_nor_late() {
        // Just had one, and now it would be again.
        check(0, Some(100), (0, 3), 30_000);
        check(9_000, Some(9_000), (1, 3), 31_000);
        // About to have one, and now it would be a whole interval later.
        check(29_900, Some(29_900), (2, 3), 15_100);
        // Over its time, whatever the reason.
        check(100, Some(60_000), (2, 3), 0);
        check(0, Some(u64::MAX), (2, 3), 0);
        for past_ms in (0..30_000).step_by(777) {
            for since_ms in (0..45_000).step_by(555) {
                for place in [(0, 1), (1, 2), (2, 3), (9, 10)] {
                    let gap_ms = since_ms + wait_ms(BEGIN_MS + past_ms, Some(since_ms), EVERY, place);
                    assert!((15_000..=45_000).contains(&gap_ms), "{past_ms} {since_ms} {place:?}: {gap_ms}");
                }
            }
        }
    }
}
