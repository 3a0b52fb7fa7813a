//! A steady stream of quotes into the feed, evenly spread, whatever becomes of them: an open loop.

use crate::plane;
use dataplane_core::feed::FeedInput;
use dataplane_engine::FeedSender;
use rtrb::Consumer;
use shared::asset::AssetId;
use shared::tick::Tick;
use shared::venue::Venue;
use std::time::{Duration, Instant};

/// Venues that quote, in turn.
const VENUES: [Venue; 2] = [Venue::Coinbase, Venue::Kraken];

/// The control plane's ticks are taken once in so many quotes, far more often than their ring could fill.
const TICKS_EVERY: u64 = 64;

/// Where the stream stands: it goes on from run to run, so that no quote repeats the one before.
#[derive(Default)]
pub struct Stream {
    sent: u64,
}

/// What one run of the stream did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    pub quotes: u64,
    /// Quotes that found the channel full.
    pub refused: u64,
    pub took: Duration,
}

impl Stream {
    /// Sends `quotes` at `rate` a second about the assets from `first` on. Each changes its asset's price. One that is
    /// late goes out at once; its frame counts as received when it is sent.
    pub fn run(&mut self, feed: &FeedSender, ticks: &mut Consumer<Tick>, first: usize, rate: u64, quotes: u64) -> Sent {
        let began = Instant::now();
        let mut refused = 0;
        for number in 0..quotes {
            let due = began + Duration::from_nanos(number * 1_000_000_000 / rate);
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            refused += u64::from(feed.try_send(FeedInput::Quote(self.next(first))).is_err());
            if number % TICKS_EVERY == 0 {
                while ticks.pop().is_ok() {}
            }
        }
        Sent { quotes, refused, took: began.elapsed() }
    }

    fn next(&mut self, first: usize) -> shared::quote::Quote {
        let turn = usize::try_from(self.sent).unwrap_or(0);
        let assets = plane::ASSETS - first;
        let (lap, asset) = (turn / assets, AssetId::new(first + turn % assets).expect("a few"));
        self.sent += 1;
        // The bid wanders within a tenth of a percent: a price that jumps alone would be quarantined. And by more than a
        // cent each time: the median of two changes by half of it, and what rounds to the same is not published.
        let cents = 6_700_000 + i64::try_from(lap * 7 % 5_000).unwrap_or(0);
        plane::quote(VENUES[lap % VENUES.len()], asset, cents)
    }
}

/// Lets this thread's sleeps end when they should: the usual 50 µs of slack are the period of 20,000 quotes a second.
pub fn sleep_exactly() {
    // SAFETY: takes a number and touches no memory of ours. Where it is refused sleeps are longer, and the quotes come
    // in pairs.
    let _ = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64) };
}
