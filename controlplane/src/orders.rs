//! What the control plane may tell the data plane while it runs.
//!
//! A trait, because whoever gives orders is tested without a data plane.

use dataplane_core::command::ShardCommand;
use dataplane_core::feed::FeedInput;
use dataplane_engine::DataPlane;
use std::time::Duration;

/// Tries to tell the feed thread something, a millisecond apart: its channel empties in well under that.
const FEED_TRIES: usize = 1_000;

/// The data plane, for those who tell it something.
pub trait Orders: Send + Sync {
    /// Gives an instruction to every shard. May block for as long as a shard's channel is full.
    fn shards(&self, command: &ShardCommand);

    /// Tells the feed thread; whether it took it. May block for a second.
    fn feed(&self, input: FeedInput) -> bool;
}

impl Orders for DataPlane {
    fn shards(&self, command: &ShardCommand) {
        self.command(command);
    }

    fn feed(&self, mut input: FeedInput) -> bool {
        let sender = DataPlane::feed(self);
        for _ in 0..FEED_TRIES {
            match sender.try_send(input) {
                Ok(()) => return true,
                Err(refused) => input = refused,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }
}
