//! What the shards ask of the control plane: a ring from each, and one thread that is woken when there is something.

use crate::wake::ThreadWake;
use dataplane_core::lookup::Ask;
use rtrb::Consumer;
use std::sync::Arc;
use std::time::Duration;

/// Words taken from one ring in one go, so that no shard keeps the others waiting.
const ASKS_PER_ROUND: usize = 256;

/// The control plane's end of the rings. One thread waits on it.
pub struct AskReceiver {
    rings: Vec<Consumer<Ask>>,
    wake: Arc<ThreadWake>,
}

impl AskReceiver {
    pub(crate) fn new(rings: Vec<Consumer<Ask>>, wake: Arc<ThreadWake>) -> Self {
        Self { rings, wake }
    }

    /// Appends what the shards have asked to `asks`, at most 256 words of each; waits for the first word for `limit` at
    /// most. Always called by one thread.
    pub fn wait(&mut self, asks: &mut Vec<Ask>, limit: Duration) {
        if self.rings.iter().all(Consumer::is_empty) {
            let rings = &self.rings;
            self.wake.park_unless(limit, || !rings.iter().all(Consumer::is_empty));
        }
        for ring in &mut self.rings {
            asks.extend(std::iter::from_fn(|| ring.pop().ok()).take(ASKS_PER_ROUND));
        }
    }
}
