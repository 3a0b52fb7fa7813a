//! One connection's protocol state, small enough for ten thousand idle ones: what it remembers of its last request, and
//! how far it is with the present one.

use super::request::HeadScan;
use crate::access::KeyMemo;
use crate::http::long::LongPlace;
use crate::limits::HEADER_MEMORY_MAX;
use crate::shard::StreamToken;
use crate::waiters::WaitPlace;

/// One connection's protocol state. The engine owns it, hands it to `serve_stream`, and drops it after `close_stream`.
// In this order, what every request reads lies together, and the memory's unused end is not touched.
#[repr(C)]
pub struct HttpConnection {
    token: StreamToken,
    pub(crate) pending: Pending,
    pub(crate) scan: HeadScan,
    /// When the first byte of the unfinished head came, monotonic ms; 0 when there is none.
    pub(crate) head_began_mono_ms: u64,
    /// The governor's window in which it was counted as active last; 0 for none.
    pub(crate) counted_in: u32,
    pub(crate) memory: HeaderMemory,
}

/// What the connection is in the middle of. The request it belongs to is still in front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    Nothing,
    /// The request waits for a tick or a lookup until `deadline_mono_ms`.
    Wait {
        place: WaitPlace,
        deadline_mono_ms: u64,
        waited: Waited,
    },
    /// A long body is on its way: `sent` bytes of it are out; `head` bytes of input are its request.
    Long {
        place: LongPlace,
        sent: u32,
        head: u16,
        closes: bool,
    },
    /// It ends: nothing is answered any more.
    Closed,
}

/// A request that was charged before, and has waited since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waited {
    /// When it began to wait, for whatever it was then.
    pub(crate) since_mono_ms: u64,
    /// What its key had left of that second.
    pub(crate) left: u32,
}

impl HttpConnection {
    /// A fresh connection.
    #[must_use]
    pub fn new(token: StreamToken) -> Self {
        Self {
            token,
            memory: HeaderMemory::EMPTY,
            scan: HeadScan::default(),
            head_began_mono_ms: 0,
            counted_in: 0,
            pending: Pending::Nothing,
        }
    }

    /// The number the engine gave it.
    #[must_use]
    pub const fn token(&self) -> StreamToken {
        self.token
    }

    /// A request has been dealt with: the next byte begins another.
    pub(crate) fn begin_anew(&mut self) {
        self.scan = HeadScan::default();
        self.head_began_mono_ms = 0;
        self.pending = Pending::Nothing;
    }
}

const _: () = assert!(size_of::<HttpConnection>() <= 512);

/// What a connection remembers of its last good request: everything behind the request line, if another request with
/// the same bytes there means the same, else just the key's text; and which key that was.
#[repr(C)]
pub(crate) struct HeaderMemory {
    /// Length of the header block at the beginning of `bytes`, its empty line included; 0 if it is not remembered.
    block: u16,
    key_at: u16,
    key_length: u16,
    pub(crate) memo: KeyMemo,
    bytes: [u8; HEADER_MEMORY_MAX],
}

impl HeaderMemory {
    const EMPTY: Self = Self { bytes: [0; HEADER_MEMORY_MAX], block: 0, key_at: 0, key_length: 0, memo: KeyMemo::NONE };

    /// Length of the remembered header block, if `bytes` begin with it.
    #[inline]
    pub(crate) fn recognise(&self, bytes: &[u8]) -> Option<usize> {
        let block = usize::from(self.block);
        let is_known = block > 0 && bytes.get(..block)? == &self.bytes[..block];
        is_known.then_some(block)
    }

    /// The text of the key that `memo` is about; empty if there is none.
    pub(crate) fn key_text(&self) -> &[u8] {
        let start = usize::from(self.key_at);
        &self.bytes[start..start + usize::from(self.key_length)]
    }

    /// Remembers `block`, in which the key `text` stands, if it is given and fits; else `text` alone, if that fits.
    pub(crate) fn remember(&mut self, block: Option<&[u8]>, text: &[u8], memo: KeyMemo) {
        let whole = block.filter(|block| block.len() <= HEADER_MEMORY_MAX);
        let place = whole.and_then(|block| Some((block, place_in(block, text)?)));
        let (kept, key_at, block_length) = place.map_or((text, 0, 0), |(block, at)| (block, at, block.len()));
        let Some(target) = self.bytes.get_mut(..kept.len()) else { return };
        target.copy_from_slice(kept);
        self.block = block_length as u16;
        self.key_at = key_at as u16;
        self.key_length = text.len() as u16;
        self.memo = memo;
    }
}

/// Where in `block` the slice `text` of it begins.
fn place_in(block: &[u8], text: &[u8]) -> Option<usize> {
    let at = (text.as_ptr() as usize).checked_sub(block.as_ptr() as usize)?;
    (block.get(at..at + text.len())? == text).then_some(at)
}
