//! What must hold for a key at once, on every shard, without a new directory: one atomic byte per key.
//!
//! The bytes are shared with the directory before and the one after, so a mark that is set through any of them is seen
//! through all. Who sets a mark and why is not known here.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering};

/// This month's quota is used up.
pub(crate) const MONTH_USED_UP: u8 = 1;

/// The key does not work, whatever its record says.
pub(crate) const REFUSED: u8 = 2;

/// Marks are allocated in chunks that directories share: a new directory adds chunks, and moves none.
const CHUNK: usize = 4_096;

/// The marks of all keys of a directory.
#[derive(Clone, Default)]
pub(crate) struct Marks {
    chunks: Vec<Arc<[AtomicU8]>>,
}

impl Marks {
    #[inline]
    fn byte(&self, home: u32) -> Option<&AtomicU8> {
        self.chunks.get(home as usize / CHUNK)?.get(home as usize % CHUNK)
    }

    /// The marks at `home`; none where there is no such place.
    #[inline]
    pub(crate) fn at(&self, home: u32) -> u8 {
        self.byte(home).map_or(0, |byte| byte.load(Ordering::Relaxed))
    }

    /// Sets or takes away one mark; the others stay.
    pub(crate) fn set(&self, home: u32, mark: u8, on: bool) {
        let Some(byte) = self.byte(home) else { return };
        if on {
            byte.fetch_or(mark, Ordering::Relaxed);
        } else {
            byte.fetch_and(!mark, Ordering::Relaxed);
        }
    }

    /// Adds bytes without marks until `wanted` are there.
    pub(crate) fn grow(&mut self, wanted: usize) {
        while self.chunks.len() * CHUNK < wanted {
            self.chunks.push((0..CHUNK).map(|_| AtomicU8::new(0)).collect());
        }
    }
}
