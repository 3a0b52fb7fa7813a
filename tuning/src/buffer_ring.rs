//! Provided buffers of an io_uring: memory the kernel picks from when bytes arrive.
//!
//! One mapping holds the ring of entries and, behind it, the buffers. The kernel names the buffer it filled in the
//! completion; whoever read it gives it back. The probe, the engine and the bare floor server use the same ones.

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// A registered ring of equal buffers.
///
/// Dropping it leaks its memory on purpose: the kernel may still write there. [`BufferRing::unregister`] frees it.
pub struct BufferRing {
    /// Start of the mapping: the entries.
    entries: NonNull<BufRingEntry>,
    /// Start of the first buffer.
    buffers: NonNull<u8>,
    mapped: usize,
    count: u16,
    bytes: usize,
    group: u16,
    /// Our copy of the ring's tail; the kernel sees it after `publish`.
    tail: u16,
}

impl BufferRing {
    /// Maps `count` buffers (a power of two up to 32,768) of `bytes` each and registers them as `group`.
    ///
    /// # Errors
    /// What the kernel says: `EINVAL` where it is too old, `ENOMEM`, or `EEXIST` for a group already there.
    ///
    /// # Panics
    /// If `count` is not a power of two.
    pub fn register(submitter: &Submitter<'_>, group: u16, count: u16, bytes: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "the kernel's ring is a power of two");
        let entries_size = usize::from(count) * size_of::<BufRingEntry>();
        // Buffers begin on a fresh cache line; the mapping itself begins on a page, as the kernel wants the entries.
        let buffers_at = entries_size.next_multiple_of(64);
        let mapped = buffers_at + usize::from(count) * bytes;
        let base = map(mapped)?;
        // SAFETY: `buffers_at` lies inside the mapping of `mapped` bytes that begins at `base`.
        let buffers = unsafe { base.add(buffers_at) };
        let mut ring = Self { entries: base.cast(), buffers, mapped, count, bytes, group, tail: 0 };
        let address = base.as_ptr() as u64;
        // SAFETY: the mapping holds `count` entries at `address` and is only unmapped after being unregistered.
        let registered = unsafe { submitter.register_buf_ring_with_flags(address, count, group, 0) };
        if let Err(error) = registered {
            ring.unmap();
            return Err(error);
        }
        for id in 0..count {
            // SAFETY: fresh: the kernel has no buffer yet and nobody reads one.
            unsafe { ring.give_back(id) };
        }
        ring.publish();
        Ok(ring)
    }

    /// Bytes of one buffer.
    #[must_use]
    pub const fn buffer_bytes(&self) -> usize {
        self.bytes
    }

    /// The first `length` bytes of buffer `id`; fewer where the buffer is shorter.
    ///
    /// # Safety
    /// A completion must have named `id`, and it must not have been given back since.
    #[inline]
    #[must_use]
    pub unsafe fn filled(&self, id: u16, length: usize) -> &[u8] {
        let index = usize::from(id & (self.count - 1));
        // SAFETY: masked, the index is below `count`, so the slice lies inside the mapping; it was zeroed by the
        // kernel when mapped, and by the caller's promise the kernel does not write to it now.
        unsafe {
            let start = self.buffers.as_ptr().add(index * self.bytes);
            std::slice::from_raw_parts(start, length.min(self.bytes))
        }
    }

    /// Puts buffer `id` back in line. The kernel sees it after [`BufferRing::publish`].
    ///
    /// # Safety
    /// A completion must have named `id`, it must not have been given back since, and nobody may read it any more.
    #[inline]
    pub unsafe fn give_back(&mut self, id: u16) {
        let mask = self.count - 1;
        let index = usize::from(id & mask);
        // SAFETY: both offsets are masked below `count` and so inside the mapping. The entry at the tail is ours to
        // write: at most `count` buffers exist, so the kernel has taken whatever stood there before. The tail field
        // shares the first entry's `resv`, which these setters leave alone.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(usize::from(self.tail & mask));
            entry.set_addr(self.buffers.as_ptr().add(index * self.bytes) as u64);
            entry.set_len(u32::try_from(self.bytes).unwrap_or(u32::MAX));
            entry.set_bid(id & mask);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel every buffer given back so far.
    #[inline]
    pub fn publish(&mut self) {
        // SAFETY: `entries` is the registered ring's first entry, whose `resv` the kernel reads as the tail; it is
        // two-byte aligned. Release: the entries are written before the kernel can see the tail.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Takes the buffers from the kernel and frees them. Nothing may be reading one.
    ///
    /// # Errors
    /// What the kernel says; the memory then stays, because the kernel may still use it.
    pub fn unregister(mut self, submitter: &Submitter<'_>) -> io::Result<()> {
        submitter.unregister_buf_ring(self.group)?;
        self.unmap();
        Ok(())
    }

    fn unmap(&mut self) {
        // SAFETY: exactly the mapping made in `register`; the kernel does not know it (any more), `self` is not used
        // after this, and every slice handed out borrowed `self`.
        unsafe { libc::munmap(self.entries.as_ptr().cast(), self.mapped) };
    }
}

fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: an anonymous mapping at an address of the kernel's choosing touches no existing memory.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}
