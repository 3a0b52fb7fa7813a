//! The control plane's own copy of the published prices, for the answers that are not worth a shard's time.
//!
//! Ticks arrive by a ring like every shard's. A reader first takes what is in the ring, so that a price read here is
//! never older than one the same client was just given by a shard. Nobody here knows what the ticks are read for.

use rtrb::Consumer;
use shared::asset::AssetId;
use shared::limits::{ASSETS_MAX, TICK_RING_CAPACITY};
use shared::tick::Tick;
use std::sync::{Mutex, MutexGuard, PoisonError};

struct Board {
    ticks: Option<Consumer<Tick>>,
    rows: Vec<Option<Tick>>,
    taken: u64,
    generation: u64,
}

/// What the board holds, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoardState {
    /// Assets with a price, stale ones included.
    pub priced: usize,
    /// Assets with a price that is not stale.
    pub fresh: usize,
    /// Highest sequence.
    pub generation: u64,
    /// Ticks taken since start.
    pub ticks: u64,
}

/// The newest tick of every asset.
pub struct PriceBoard(Mutex<Board>);

impl PriceBoard {
    /// A board fed by `ticks`; `None` leaves it empty.
    #[must_use]
    pub fn new(ticks: Option<Consumer<Tick>>) -> Self {
        Self(Mutex::new(Board { ticks, rows: Vec::new(), taken: 0, generation: 0 }))
    }

    /// Takes what waits in the ring. To be called often enough that the ring never fills: at 20,000 ticks a second
    /// every 200 ms.
    pub fn drain(&self) {
        drop(self.fresh());
    }

    /// The newest tick of `asset`.
    #[must_use]
    pub fn price(&self, asset: AssetId) -> Option<Tick> {
        self.fresh().rows.get(asset.index()).copied().flatten()
    }

    /// The newest tick of `asset`, and the highest sequence of all.
    #[must_use]
    pub fn price_and_generation(&self, asset: AssetId) -> (Option<Tick>, u64) {
        let board = self.fresh();
        (board.rows.get(asset.index()).copied().flatten(), board.generation)
    }

    /// Whether `asset` has a price that is not stale.
    #[must_use]
    pub fn is_fresh(&self, asset: AssetId) -> bool {
        self.price(asset).is_some_and(|tick| !tick.is_stale())
    }

    /// Keeps those of `wanted` whose asset has a tick of which `is_kept` says so. All are looked at together, as the board is
    /// now: it is locked once, however many they are.
    pub fn retain<T>(
        &self,
        wanted: &mut Vec<T>,
        asset: impl Fn(&T) -> Option<AssetId>,
        is_kept: impl Fn(&T, &Tick) -> bool,
    ) {
        let board = self.fresh();
        wanted.retain(|one| {
            let tick = asset(one).and_then(|asset| board.rows.get(asset.index())?.as_ref());
            tick.is_some_and(|tick| is_kept(one, tick))
        });
    }

    /// The newest tick of every asset that has one, stale ones included, by their ids: `ASSETS_MAX` at most.
    #[must_use]
    pub fn ticks(&self) -> Vec<Tick> {
        self.fresh().rows.iter().flatten().copied().collect()
    }

    /// The board in numbers.
    #[must_use]
    pub fn state(&self) -> BoardState {
        let board = self.fresh();
        let mut state = BoardState { ticks: board.taken, generation: board.generation, ..BoardState::default() };
        for tick in board.rows.iter().flatten() {
            state.priced += 1;
            state.fresh += usize::from(!tick.is_stale());
        }
        state
    }

    fn fresh(&self) -> MutexGuard<'_, Board> {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        board.take_waiting();
        board
    }
}

impl Board {
    fn take_waiting(&mut self) {
        // One ring's capacity at most: a reader must not be kept by a writer that is faster than it.
        for _ in 0..TICK_RING_CAPACITY {
            let Some(Ok(tick)) = self.ticks.as_mut().map(Consumer::pop) else { return };
            let index = usize::from(tick.asset);
            if index >= ASSETS_MAX {
                continue;
            }
            if index >= self.rows.len() {
                self.rows.resize(index + 1, None);
            }
            self.rows[index] = Some(tick);
            self.taken += 1;
            self.generation = self.generation.max(tick.sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;
    use shared::tick::TICK_STALE;

    #[test]
    fn a_reader_sees_what_was_pushed_before_it_asked() {
        let (mut producer, consumer) = rtrb::RingBuffer::new(8);
        let board = PriceBoard::new(Some(consumer));
        let asset = |index| AssetId::new(index).expect("an id");
        assert_eq!(board.price(asset(3)), None);
        for (sequence, asset, flags) in [(10, 3, 0), (11, 1, TICK_STALE), (12, 3, 0)] {
            producer.push(Tick { sequence, asset, flags, ..Tick::zeroed() }).expect("room");
        }
        assert_eq!(board.price(asset(3)).map(|tick| tick.sequence), Some(12));
        assert_eq!(board.ticks().iter().map(|tick| tick.sequence).collect::<Vec<_>>(), [11, 12]);
        assert_eq!(board.state(), BoardState { priced: 2, fresh: 1, generation: 12, ticks: 3 });
    }

    #[test]
    fn many_are_looked_at_together() {
        let (producer, consumer) = rtrb::RingBuffer::new(8);
        let producer = std::cell::RefCell::new(producer);
        let push = |sequence, asset| {
            let tick = Tick { sequence, asset, ..Tick::zeroed() };
            producer.borrow_mut().push(tick).expect("room");
        };
        let board = PriceBoard::new(Some(consumer));
        push(5, 3);
        push(6, 4);
        // The number of an asset, if it has one, and the sequence that is known of it.
        let mut wanted = vec![(Some(3), 0), (Some(3), 5), (None, 0), (Some(200), 0), (Some(4), 0), (Some(4), 6)];
        let asset = |wanted: &(Option<usize>, u64)| wanted.0.and_then(AssetId::new);
        board.retain(&mut wanted, asset, |wanted, tick| {
            // What comes while they are looked at is for the next time.
            push(tick.sequence + 10, 4);
            tick.sequence > wanted.1
        });
        assert_eq!(wanted, [(Some(3), 0), (Some(4), 0)]);
        assert_eq!(board.price(AssetId::new(4).expect("an id")).map(|tick| tick.sequence), Some(16));
    }
}
