//! How a thread that sleeps in the kernel is woken by another: a shard through an eventfd, other threads by a futex.
//!
//! The sleeper sets a flag, looks once more for work, and sleeps. Whoever makes work for it reads the flag afterwards
//! and goes into the kernel only when it is set: a busy sleeper costs its producers one load.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::Thread;
use std::time::Duration;

/// One shard's parked flag and eventfd. On a cache line of its own: its neighbours must not slow down the shard.
#[repr(align(128))]
#[derive(Debug)]
pub(crate) struct ShardWake {
    parked: AtomicBool,
    /// Whether there are commands. Beside the flag above, so that a turn without any looks at one cache line and not at
    /// those of a channel, with the fence that it takes to find one empty.
    told: AtomicBool,
    event: File,
}

impl ShardWake {
    /// Makes the eventfd, non-blocking.
    ///
    /// # Errors
    /// What the kernel says: no descriptors left.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes two numbers and touches no memory of ours.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        let event = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { parked: AtomicBool::new(false), told: AtomicBool::new(false), event: File::from(event) })
    }

    /// Called by a producer after it made its work visible: wakes the shard if it sleeps or is about to.
    #[inline]
    pub(crate) fn notify(&self) {
        // Pairs with the fence in `park`: either we see the flag, or the shard sees the work.
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::Relaxed) {
            // It can only fail when the counter is full, and then the shard has been woken already.
            let _ = (&self.event).write(&1_u64.to_ne_bytes());
        }
    }

    /// Called by whoever has sent the shard a command.
    pub(crate) fn tell(&self) {
        self.told.store(true, Ordering::Release);
        self.notify();
    }

    /// Whether there are commands that [`ShardWake::take_told`] was not asked about.
    #[inline]
    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Whether the shard should look for commands: all that were told of before are there by then.
    #[inline]
    pub(crate) fn take_told(&self) -> bool {
        self.is_told() && self.told.swap(false, Ordering::Acquire)
    }

    /// Called by the shard before it sleeps. Afterwards it must look once more for work of every kind.
    #[inline]
    pub(crate) fn park(&self) {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Called by the shard when it turns again.
    #[inline]
    pub(crate) fn unpark(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// Empties the eventfd, so that a level-triggered wait blocks again.
    pub(crate) fn clear(&self) {
        let mut count = [0; 8];
        // It can only fail when there is nothing to take.
        let _ = (&self.event).read(&mut count);
    }

    /// The eventfd, to wait on.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

/// The parked flag of a thread that waits for nothing but its channel or rings, so that it needs no descriptor: the feed
/// thread, and the one that takes what shards ask. A channel's own blocking receive is no choice: it spins and yields before it sleeps, which doubles the CPU time of a quote at 20,000
/// a second, and on a busy CPU a yield gives away the whole time slice.
#[derive(Debug, Default)]
pub(crate) struct ThreadWake {
    parked: AtomicBool,
    /// Set before it parks for the first time.
    thread: OnceLock<Thread>,
}

impl ThreadWake {
    /// Called by a producer after it made its work visible: wakes the thread if it sleeps or is about to.
    #[inline]
    pub(crate) fn notify(&self) {
        // Pairs with the fence in `park_unless`: either we see the flag, or the thread sees the work.
        fence(Ordering::SeqCst);
        // Acquire: whoever sees the flag sees the thread, which was there before the flag was first set.
        if self.parked.load(Ordering::Relaxed)
            && self.parked.swap(false, Ordering::Acquire)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Sleeps until notified, for `limit` at most; not at all when, after the flag was set, `has_work` says so. Always
    /// called by the same thread.
    pub(crate) fn park_unless(&self, limit: Duration, has_work: impl FnOnce() -> bool) {
        self.thread.get_or_init(std::thread::current);
        self.parked.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        if !has_work() {
            std::thread::park_timeout(limit);
        }
        self.parked.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::time::Instant;

    fn woken(wake: &ShardWake) -> bool {
        let mut count = [0; 8];
        (&wake.event).read(&mut count).is_ok()
    }

    #[test]
    fn only_a_parked_shard_is_woken_and_only_once() {
        let wake = ShardWake::new().expect("an eventfd");
        wake.notify();
        assert!(!woken(&wake), "a turning shard needs no waking");
        wake.park();
        wake.notify();
        wake.notify();
        assert!(woken(&wake));
        wake.notify();
        assert!(!woken(&wake), "woken shards are left alone until they park again");
        wake.park();
        wake.unpark();
        wake.notify();
        assert!(!woken(&wake));
    }

    #[test]
    fn no_word_to_a_thread_is_slept_through() {
        let (wake, sent) = (Arc::new(ThreadWake::default()), Arc::new(AtomicUsize::new(0)));
        let (waker, counted) = (Arc::clone(&wake), Arc::clone(&sent));
        let sleeper = std::thread::spawn(move || {
            let (mut seen, began) = (0, Instant::now());
            while seen < 20_000 {
                wake.park_unless(Duration::from_secs(60), || sent.load(Ordering::Relaxed) > seen);
                seen = sent.load(Ordering::Relaxed);
            }
            began.elapsed()
        });
        for number in 1..=20_000 {
            counted.store(number, Ordering::Relaxed);
            waker.notify();
            if number % 3 == 0 {
                std::thread::yield_now();
            }
        }
        assert!(sleeper.join().expect("it ends") < Duration::from_secs(50), "a notice was missed");
    }

    #[test]
    fn a_thread_s_sleep_is_bounded() {
        let wake = ThreadWake::default();
        wake.park_unless(Duration::from_millis(1), || false);
        wake.park_unless(Duration::MAX, || true);
    }
}
