//! What is counted of one venue's feed, and the rate of its frames.

use serde::Serialize;
use shared::moment::Moment;

/// Seconds over which the frame rate is taken.
const RATE_SECONDS: u64 = 10;

/// Counters of one venue. All only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// WebSocket text frames taken.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Quotes in them for assets we asked for.
    pub quotes: u64,
    /// Acknowledgements.
    pub acknowledged: u64,
    /// Refusals.
    pub refusals: u64,
    /// Signs of life without a price.
    pub heartbeats: u64,
    /// Notices of the venue.
    pub statuses: u64,
    /// Well-formed frames that are not for us.
    pub ignored: u64,
    /// Frames that break the protocol.
    pub malformed: u64,
    /// Gaps in the venue's sequence.
    pub gaps: u64,
    /// Connections made.
    pub connects: u64,
    /// Attempts that failed.
    pub connect_failures: u64,
    /// Connections that ended and were made again.
    pub reconnects: u64,
    /// Connections replaced by a second one opened first.
    pub handovers: u64,
    /// Subscriptions asked for anew because they were silent or contradicted.
    pub resubscribes: u64,
    /// Subscriptions that REST contradicted.
    pub suspected: u64,
    /// REST requests sent.
    pub rest_requests: u64,
    /// REST requests that failed or gave nothing usable.
    pub rest_errors: u64,
    /// REST answers that told us to slow down.
    pub rest_limited: u64,
    /// Quotes taken from REST.
    pub rest_quotes: u64,
}

/// Frames in each of the last seconds.
#[derive(Debug, Default)]
pub struct Rate {
    seconds: [u32; RATE_SECONDS as usize],
    newest: u64,
}

impl Rate {
    /// Counts one frame.
    pub fn count(&mut self, now: Moment) {
        self.turn(now);
        let slot = &mut self.seconds[(self.newest % RATE_SECONDS) as usize];
        *slot = slot.saturating_add(1);
    }

    /// Frames in the last ten whole seconds, the running one left out.
    pub fn over_ten_seconds(&mut self, now: Moment) -> u64 {
        self.turn(now);
        let running = self.seconds[(self.newest % RATE_SECONDS) as usize];
        let all: u64 = self.seconds.iter().map(|count| u64::from(*count)).sum();
        // Nine whole seconds are known besides the running one.
        (all - u64::from(running)) * RATE_SECONDS / (RATE_SECONDS - 1)
    }

    fn turn(&mut self, now: Moment) {
        let second = now.mono_ms() / 1_000;
        let passed = second.saturating_sub(self.newest).min(RATE_SECONDS);
        for step in 0..passed {
            self.seconds[((second - step) % RATE_SECONDS) as usize] = 0;
        }
        self.newest = self.newest.max(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_and_forgets() {
        let mut rate = Rate::default();
        let start = Moment { mono_ns: 50_000_000_000, wall_ms: 0 };
        for ms in (0..10_000).step_by(100) {
            rate.count(start.plus_ms(ms));
        }
        assert_eq!(rate.over_ten_seconds(start.plus_ms(9_999)), 100);
        assert_eq!(rate.over_ten_seconds(start.plus_ms(14_000)), 55, "half of it has passed");
        assert_eq!(rate.over_ten_seconds(start.plus_ms(40_000)), 0);
    }
}
