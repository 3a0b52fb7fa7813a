//! Quotes that come in while a server is measured: as many a second as it is told, from a thread of their own.
//!
//! It knows nothing of who is served meanwhile.

#[path = "../feed/stream.rs"]
mod stream;

use dataplane_engine::DataPlane;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stream::Stream;

/// Length of a stretch in which the rate does not change, thousandths of a second.
const STRETCH_MS: u64 = 50;

/// The rate of the stream.
pub struct Quotes {
    per_second: Arc<AtomicU64>,
}

impl Quotes {
    /// Starts the thread; no quote comes yet.
    ///
    /// # Errors
    /// When the control plane's ticks were taken before.
    pub fn new(plane: &DataPlane) -> io::Result<Self> {
        let per_second = Arc::new(AtomicU64::new(0));
        let (feed, mut ticks) = (plane.feed(), plane.take_ticks().ok_or(io::ErrorKind::NotFound)?);
        let wanted = Arc::clone(&per_second);
        std::thread::spawn(move || {
            stream::sleep_exactly();
            let mut stream = Stream::default();
            loop {
                match wanted.load(Ordering::Relaxed) {
                    0 => std::thread::sleep(Duration::from_millis(STRETCH_MS)),
                    rate => {
                        let quotes = (rate * STRETCH_MS).div_ceil(1_000);
                        let sent = stream.run(&feed, &mut ticks, 0, rate, quotes);
                        if sent.refused > 0 {
                            let stream::Sent { quotes, refused, took } = sent;
                            eprintln!("the feed refused {refused} of {quotes} quotes in {took:?}: choose a lower rate");
                        }
                    }
                }
            }
        });
        Ok(Self { per_second })
    }

    /// That many quotes a second from the next stretch on. They are about the usual assets.
    pub fn set_rate(&self, per_second: u64) -> u64 {
        self.per_second.store(per_second, Ordering::Relaxed);
        per_second
    }
}
