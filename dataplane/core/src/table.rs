//! The price table of one shard.
//!
//! A dense array indexed by `AssetId`: reading a price is one bounds check and one load. Only the owning shard touches
//! it, so there are no atomics here and no locks. It does not know who made the ticks, nor who asks.

use crate::render::ready::ReadyReply;
use alloc::vec::Vec;
use shared::asset::{AssetDirectory, AssetId};
use shared::limits::ASSETS_MAX;
use shared::moment::Moment;
use shared::tick::Tick;

/// One asset's newest tick, and the reply made of it.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Row {
    /// All zero until the first tick.
    tick: Tick,
    /// Where the meter found the sum of the last request for it; may be anything.
    sum_hint: u16,
    /// It was answered for since somebody looked.
    is_in_use: bool,
    reply: ReadyReply,
}

const _: () = assert!(size_of::<Row>() == 512, "eight cache lines");

impl Row {
    const EMPTY: Self = Self {
        tick: Tick {
            mantissa: 0,
            sequence: 0,
            exchange_time_ms: 0,
            received_time_ms: 0,
            received_mono_ns: 0,
            published_mono_ns: 0,
            spread_centibps: 0,
            asset: 0,
            flags: 0,
            venues: 0,
            exponent: 0,
            currency: 0,
            source: 0,
            tier: 0,
            prompt: 0,
            reserved: 0,
        },
        sum_hint: 0,
        is_in_use: false,
        reply: ReadyReply::EMPTY,
    };

    /// The newest tick.
    #[inline]
    pub(crate) const fn tick(&self) -> &Tick {
        &self.tick
    }

    /// The reply made of it.
    #[inline]
    pub(crate) const fn reply(&self) -> &ReadyReply {
        &self.reply
    }

    /// Now − the newest contributing receive time, ms.
    #[inline]
    pub(crate) const fn age_ms(&self, now: Moment) -> u64 {
        now.ms_since(self.tick.received_mono_ns)
    }
}

/// All ticks of one shard.
pub(crate) struct PriceTable {
    rows: Vec<Row>,
    generation: u64,
}

impl PriceTable {
    /// An empty table. Room for `ASSETS_MAX` rows is reserved here and never again; untouched, it is not resident.
    pub(crate) fn new() -> Self {
        Self { rows: Vec::with_capacity(ASSETS_MAX), generation: 0 }
    }

    /// Highest sequence taken.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes a tick. Answers the asset if it is newer than what was there: a sequence never goes back.
    pub(crate) fn take(&mut self, tick: &Tick) -> Option<AssetId> {
        let asset = tick.asset_id()?;
        if asset.index() >= self.rows.len() {
            self.rows.resize(asset.index() + 1, Row::EMPTY);
        }
        let row = &mut self.rows[asset.index()];
        if tick.sequence <= row.tick.sequence {
            return None;
        }
        row.tick = *tick;
        row.reply.forget();
        self.generation = self.generation.max(tick.sequence);
        Some(asset)
    }

    /// The asset's row; `None` while it has no price.
    #[inline]
    pub(crate) fn row(&self, asset: AssetId) -> Option<&Row> {
        self.rows.get(asset.index()).filter(|row| row.tick.sequence != 0)
    }

    /// The asset is answered for: where the meter may write down a place that has to do with it, if it has had a price.
    #[inline]
    pub(crate) fn note_use(&mut self, asset: AssetId) -> Option<&mut u16> {
        let row = self.rows.get_mut(asset.index())?;
        row.is_in_use = true;
        Some(&mut row.sum_hint)
    }

    /// The asset in this place, if it was answered for since this was asked.
    pub(crate) fn take_in_use(&mut self, index: usize) -> Option<AssetId> {
        let row = self.rows.get_mut(index).filter(|row| row.tick.sequence != 0)?;
        core::mem::take(&mut row.is_in_use).then(|| AssetId::new(index)).flatten()
    }

    /// How many places there are: one more than the highest number of an asset that has had a price.
    pub(crate) const fn len(&self) -> usize {
        self.rows.len()
    }

    /// The asset's row with its reply written; `None` while it has no price. `assets` knows what it is called.
    #[inline]
    pub(crate) fn ready_row(&mut self, asset: AssetId, assets: &AssetDirectory) -> Option<&Row> {
        let row = self.rows.get_mut(asset.index()).filter(|row| row.tick.sequence != 0)?;
        if row.reply.is_empty() {
            row.reply.fill(&assets.entry(asset)?.symbol, &row.tick);
        }
        Some(row)
    }
}
