//! Which assets stay subscribed because somebody asks for them: those asked for last, and not for ever.
//!
//! Pure: time is an argument. What being subscribed means is not known here.

use shared::asset::Symbol;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// Assets kept: with some 150 that are always subscribed, 662 names at most at a venue that lists them all. That is
/// three connections of OKX (240 names each), and twelve of the sixteen permitted at Gemini v2 (60 books each).
pub const KEPT_MAX: usize = 512;

/// An asset that nobody has asked for in this time leaves.
pub const IDLE_MAX: Duration = Duration::from_secs(600);

/// The assets kept.
#[derive(Debug, Default)]
pub struct Keeper {
    /// By asset: its place in the order.
    places: HashMap<Symbol, (Instant, u64)>,
    /// Least recently asked first; the number tells apart what was asked at one instant.
    order: BTreeMap<(Instant, u64), Symbol>,
    touches: u64,
    changed: bool,
}

impl Keeper {
    /// Notes that somebody asks for an asset; the one that was asked for longest ago leaves if there is no room.
    pub fn touch(&mut self, symbol: Symbol, now: Instant) {
        self.touches += 1;
        let place = (now, self.touches);
        match self.places.insert(symbol, place) {
            Some(before) => _ = self.order.remove(&before),
            None => self.changed = true,
        }
        self.order.insert(place, symbol);
        while self.order.len() > KEPT_MAX {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, symbol)) = self.order.pop_first() {
            self.places.remove(&symbol);
            self.changed = true;
        }
    }

    /// What is to be kept from now on, by name; `None`: what it was the last time.
    pub fn take_change(&mut self, now: Instant) -> Option<Vec<Symbol>> {
        while self.order.first_key_value().is_some_and(|((asked, _), _)| now.duration_since(*asked) >= IDLE_MAX) {
            self.drop_first();
        }
        std::mem::take(&mut self.changed).then(|| {
            let mut kept: Vec<Symbol> = self.places.keys().copied().collect();
            kept.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
            kept
        })
    }

    /// How many are kept.
    #[must_use]
    pub fn count(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(number: usize) -> Symbol {
        Symbol::new(format!("A{number:04}").as_bytes()).expect("a good symbol")
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_recently_asked_leaves_first() {
        let (mut keeper, now) = (Keeper::default(), Instant::now());
        (0..KEPT_MAX).for_each(|number| keeper.touch(symbol(number), now));
        assert_eq!(keeper.take_change(now).map(|kept| kept.len()), Some(KEPT_MAX));
        assert_eq!(keeper.take_change(now), None, "nothing has changed");
        keeper.touch(symbol(0), now);
        assert_eq!(keeper.take_change(now), None, "it was there");
        keeper.touch(symbol(KEPT_MAX), now);
        let kept = keeper.take_change(now).expect("a change");
        assert!(kept.len() == KEPT_MAX && kept.contains(&symbol(0)) && !kept.contains(&symbol(1)));
        assert!(kept.is_sorted_by_key(|symbol| symbol.to_string()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_leaves() {
        let (mut keeper, now) = (Keeper::default(), Instant::now());
        keeper.touch(symbol(1), now);
        keeper.touch(symbol(2), now + IDLE_MAX / 2);
        assert_eq!(keeper.take_change(now + IDLE_MAX - Duration::from_millis(1)).map(|kept| kept.len()), Some(2));
        assert_eq!(keeper.take_change(now + IDLE_MAX), Some(vec![symbol(2)]));
        keeper.touch(symbol(2), now + IDLE_MAX);
        assert_eq!(keeper.take_change(now + IDLE_MAX + IDLE_MAX / 2), None, "asked for again");
        assert_eq!((keeper.take_change(now + IDLE_MAX * 2), keeper.count()), (Some(Vec::new()), 0));
    }
}
