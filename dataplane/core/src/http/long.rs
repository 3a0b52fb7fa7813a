//! Bodies too long for one turn's output: written whole, at one table generation, and sent in pieces.

use crate::limits::{LONG_BODIES_MAX, LONG_BODIES_MIN, LONG_BODY_BYTES_MAX, prices_body_max};
use alloc::vec::Vec;
use core::mem;

/// Where a long body is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LongPlace(u16);

/// One shard's bodies in the making and on their way.
pub(crate) struct LongBodies {
    /// The body in the making.
    draft: Vec<u8>,
    /// Bodies on their way, and empty ones.
    kept: Vec<Vec<u8>>,
    free: Vec<u16>,
    /// Capacity of each.
    body_max: usize,
}

impl LongBodies {
    /// Room for bodies of so many prewarmed assets. Reserved here; untouched, it is not resident.
    pub(crate) fn new(prewarmed: usize) -> Self {
        let body_max = prices_body_max(prewarmed);
        let count = (LONG_BODY_BYTES_MAX / body_max).clamp(LONG_BODIES_MIN, LONG_BODIES_MAX);
        Self {
            draft: Vec::with_capacity(body_max),
            kept: (0..count).map(|_| Vec::with_capacity(body_max)).collect(),
            free: (0..count as u16).collect(),
            body_max,
        }
    }

    /// Makes room for bodies of so many prewarmed assets. Bodies on their way are given room when they have arrived.
    pub(crate) fn resize(&mut self, prewarmed: usize) {
        self.body_max = self.body_max.max(prices_body_max(prewarmed));
        self.draft.clear();
        self.draft.reserve(self.body_max);
        for place in &self.free {
            self.kept[usize::from(*place)].reserve(self.body_max);
        }
    }

    /// The draft, emptied.
    pub(crate) fn begin(&mut self) -> &mut Vec<u8> {
        self.draft.clear();
        &mut self.draft
    }

    /// The draft.
    pub(crate) fn draft(&self) -> &[u8] {
        &self.draft
    }

    /// Keeps the draft; `None` when every place is taken.
    pub(crate) fn keep(&mut self) -> Option<LongPlace> {
        let place = self.free.pop()?;
        mem::swap(&mut self.draft, &mut self.kept[usize::from(place)]);
        Some(LongPlace(place))
    }

    /// A body that is kept.
    pub(crate) fn body(&self, place: LongPlace) -> &[u8] {
        &self.kept[usize::from(place.0)]
    }

    /// The body has been sent, or nobody wants it any more.
    pub(crate) fn release(&mut self, place: LongPlace) {
        let body = &mut self.kept[usize::from(place.0)];
        body.clear();
        body.reserve(self.body_max);
        self.free.push(place.0);
    }
}
