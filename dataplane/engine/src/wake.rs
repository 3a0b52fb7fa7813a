//! How a shard that sleeps in the kernel is woken by another thread.
//!
//! The shard sets a flag, looks once more for work, and sleeps. Whoever makes work for it reads the flag afterwards
//! and writes the eventfd only when it is set: a busy shard costs its producers one load.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// One shard's parked flag and eventfd. On a cache line of its own: its neighbours must not slow down the shard.
#[repr(align(128))]
#[derive(Debug)]
pub(crate) struct ShardWake {
    parked: AtomicBool,
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
        Ok(Self { parked: AtomicBool::new(false), event: File::from(event) })
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
