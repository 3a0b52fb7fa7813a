//! The thread of the feed shard: takes inputs from the venue sessions, publishes ticks, wakes the shards that sleep.
//!
//! It is the one thread of the data plane whose wait has a timeout: it must sweep when no venue speaks.

use crate::limits::{FEED_BATCH, FEED_SWEEP_MS};
use crate::wake::{ShardWake, ThreadWake};
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use dataplane_core::feed::{FeedCounters, FeedInput, FeedSetup, FeedShard, VenueDetail};
use shared::asset::AssetId;
use shared::limits::QUOTE_CHANNEL_CAPACITY;
use shared::moment::Moment;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the feed thread is told.
pub(crate) enum FeedMessage {
    /// For the feed shard.
    Input(FeedInput),
    /// A question, and where to answer it.
    Inspect(AssetId, Sender<Vec<VenueDetail>>),
    /// Leave.
    Stop,
}

/// Sends inputs to the feed thread. Cheap to clone.
#[derive(Clone)]
pub struct FeedSender {
    messages: Sender<FeedMessage>,
    wake: Arc<ThreadWake>,
}

impl FeedSender {
    /// Sends without waiting.
    ///
    /// # Errors
    /// Gives the input back when the channel is full (or the data plane has stopped): keep the newest per
    /// (venue, asset) and try again.
    // The input is a few words; boxing it would cost an allocation for each quote of a burst.
    #[allow(clippy::result_large_err)]
    pub fn try_send(&self, input: FeedInput) -> Result<(), FeedInput> {
        self.messages.try_send(FeedMessage::Input(input)).map_err(|error| match error {
            TrySendError::Full(FeedMessage::Input(input)) | TrySendError::Disconnected(FeedMessage::Input(input)) => {
                input
            }
            TrySendError::Full(_) | TrySendError::Disconnected(_) => unreachable!("it gives back what it was given"),
        })?;
        self.wake.notify();
        Ok(())
    }

    /// Asks for the venues behind `asset`; `None` when there is no answer in time.
    pub(crate) fn inspect(&self, asset: AssetId, wait: Duration) -> Option<Vec<VenueDetail>> {
        let until = Instant::now() + wait;
        let (answer, answered) = bounded(1);
        self.messages.send_timeout(FeedMessage::Inspect(asset, answer), wait).ok()?;
        self.wake.notify();
        answered.recv_deadline(until).ok()
    }

    /// Tells the thread to leave; waits for room.
    pub(crate) fn stop(&self) {
        // It can only fail when the thread has left already.
        let _ = self.messages.send(FeedMessage::Stop);
        self.wake.notify();
    }
}

/// The channel to the feed thread.
pub(crate) fn channel() -> (FeedSender, FeedReceiver) {
    let (messages, received) = bounded(QUOTE_CHANNEL_CAPACITY);
    let wake = Arc::new(ThreadWake::default());
    (FeedSender { messages, wake: Arc::clone(&wake) }, FeedReceiver { messages: received, wake })
}

/// The feed thread's end of the channel.
pub(crate) struct FeedReceiver {
    messages: Receiver<FeedMessage>,
    wake: Arc<ThreadWake>,
}

/// What the feed thread works with.
pub(crate) struct FeedLoop {
    pub(crate) setup: FeedSetup,
    pub(crate) received: FeedReceiver,
    /// By ring: whom to wake. Rings beyond are read by threads that look by themselves.
    pub(crate) wakes: Vec<Arc<ShardWake>>,
    /// Where the counters are published. The feed thread never waits for it.
    pub(crate) counters: Arc<Mutex<FeedCounters>>,
    /// Where it is to run; `None`: anywhere.
    pub(crate) cpu: Option<usize>,
    /// Told once, before it turns: what the operator should know, or nothing.
    pub(crate) turning: Sender<Option<String>>,
}

/// Turns until told to stop.
pub(crate) fn run(context: FeedLoop) {
    let FeedLoop { setup, received, wakes, counters, cpu, turning } = context;
    let refused = cpu.and_then(|cpu| tuning::pin::pin_current_thread(cpu).err());
    // It can only fail when the starter has given up, and then a stop is on its way.
    let _ = turning.try_send(refused.map(|refused| format!("feed: {refused}")));
    let mut feed = FeedShard::new(setup);
    let mut next_sweep_mono_ns = 0;
    loop {
        let now = tuning::clock::now();
        if !take(&mut feed, now, &received.messages) {
            return;
        }
        if now.mono_ns >= next_sweep_mono_ns {
            feed.sweep(now);
            next_sweep_mono_ns = now.mono_ns + FEED_SWEEP_MS * 1_000_000;
            // A reader holds it for the length of a copy; the next sweep publishes what this one could not.
            if let Ok(mut published) = counters.try_lock() {
                *published = *feed.counters();
            }
        }
        wake(&wakes, feed.take_touched());
        let limit = Duration::from_nanos(next_sweep_mono_ns.saturating_sub(now.mono_ns));
        received.wake.park_unless(limit, || !received.messages.is_empty());
    }
}

/// Takes what waits in the channel, up to the bound; `false` when it is time to leave.
fn take(feed: &mut FeedShard, now: Moment, messages: &Receiver<FeedMessage>) -> bool {
    for _ in 0..FEED_BATCH {
        match messages.try_recv() {
            Ok(FeedMessage::Input(input)) => feed.take(now, input),
            // It can only fail when whoever asked has stopped waiting.
            Ok(FeedMessage::Inspect(asset, answer)) => drop(answer.try_send(feed.detail(now, asset))),
            Err(TryRecvError::Empty) => return true,
            Ok(FeedMessage::Stop) | Err(TryRecvError::Disconnected) => return false,
        }
    }
    true
}

/// The counters published last.
pub(crate) fn read(counters: &Mutex<FeedCounters>) -> FeedCounters {
    *counters.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(wakes: &[Arc<ShardWake>], touched: u64) {
    for (ring, wake) in wakes.iter().enumerate() {
        if touched & 1 << ring != 0 {
            wake.notify();
        }
    }
}
