//! The output buffer of one connection's turn: fixed capacity, append only.

use alloc::boxed::Box;
use alloc::vec;

/// Capacity of one turn's output. 32 pipelined replies of about 450 bytes fit it, and so does one with 64 prices of the
/// usual length; a longer body goes out in pieces of this size.
pub const OUTPUT_MAX: usize = 16 * 1_024;

/// Reply bytes of one turn. Appending past the capacity is refused, never grown.
pub struct ReplyBuffer {
    bytes: Box<[u8]>,
    length: usize,
}

impl ReplyBuffer {
    /// An empty buffer of `OUTPUT_MAX` bytes. Allocates: make them at start and reuse them.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: vec![0; OUTPUT_MAX].into_boxed_slice(), length: 0 }
    }

    /// What has been written.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Bytes that still fit.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        self.bytes.len() - self.length
    }

    /// Whether nothing has been written.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends `bytes`; `false` (and nothing written) when they do not fit.
    #[inline]
    #[must_use]
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let Some(target) = self.bytes.get_mut(self.length..self.length + bytes.len()) else { return false };
        target.copy_from_slice(bytes);
        self.length += bytes.len();
        true
    }

    /// The unwritten tail, for a writer that says afterwards how much it used.
    #[inline]
    pub fn tail(&mut self) -> &mut [u8] {
        &mut self.bytes[self.length..]
    }

    /// Counts `written` bytes of the tail as written.
    #[inline]
    pub fn advance(&mut self, written: usize) {
        self.length = (self.length + written).min(self.bytes.len());
    }

    /// Forgets what was written from `length` on.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Forgets everything.
    #[inline]
    pub fn clear(&mut self) {
        self.length = 0;
    }
}

impl Default for ReplyBuffer {
    fn default() -> Self {
        Self::new()
    }
}
