//! Which assets stay subscribed because somebody asks for them: those asked for last, and not for ever.
//!
//! What is asked for stays: nobody who asks for many others takes it away, and so the subscriptions change slowly whatever
//! is asked. Pure: time is an argument. What being subscribed means is not known here.

use shared::asset::Symbol;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Assets kept: with some 150 that are always subscribed, 662 names at most at a venue that lists them all. That is
/// three connections of OKX (240 names each), and twelve of the sixteen permitted at Gemini v2 (60 books each).
pub const KEPT_MAX: usize = 512;

/// An asset that nobody has asked for in this time leaves.
pub const IDLE_MAX: Duration = Duration::from_secs(600);

/// What was asked for within this time leaves for no other: a shard tells once a second what is in use, so what is asked
/// for every few seconds stays. If all that is kept is such, a newcomer is not kept: its price comes over REST.
pub const STAY_MIN: Duration = Duration::from_secs(30);

/// Newcomers that join at one change, of which there is one a second: venues that permit few take some four requests a
/// second, with many names in each.
pub const JOIN_MAX: usize = 32;

/// Newcomers that wait for the next change; who comes then is not kept this time. More could not join anyway.
const WAITING_MAX: usize = KEPT_MAX;

/// The assets kept.
#[derive(Debug, Default)]
pub struct Keeper {
    /// By asset: its place in the order.
    places: HashMap<Symbol, (Instant, u64)>,
    /// Least recently asked first; the number tells apart what was asked at one instant.
    order: BTreeMap<(Instant, u64), Symbol>,
    /// Newcomers, and when each was asked for last.
    waiting: HashMap<Symbol, Instant>,
    /// The newcomers in the order in which they came.
    line: VecDeque<Symbol>,
    touches: u64,
    changed: bool,
}

impl Keeper {
    /// Notes that somebody asks for an asset: one that is not kept may join at the next change.
    pub fn touch(&mut self, symbol: Symbol, now: Instant) {
        if let Some(before) = self.places.get(&symbol).copied() {
            self.order.remove(&before);
            self.place(symbol, now);
        } else if let Some(asked) = self.waiting.get_mut(&symbol) {
            *asked = now;
        } else if self.line.len() < WAITING_MAX {
            self.waiting.insert(symbol, now);
            self.line.push_back(symbol);
        }
    }

    fn place(&mut self, symbol: Symbol, asked: Instant) {
        self.touches += 1;
        let place = (asked, self.touches);
        self.places.insert(symbol, place);
        self.order.insert(place, symbol);
    }

    /// Lets the one asked for longest ago leave, if that is `idle` ago; whether it does.
    fn drop_first(&mut self, now: Instant, idle: Duration) -> bool {
        let Some(first) = self.order.first_entry().filter(|first| now.duration_since(first.key().0) >= idle) else {
            return false;
        };
        self.places.remove(&first.remove());
        self.changed = true;
        true
    }

    /// Lets newcomers in, as many as may join at one change. If there is no room for one, there is none for the others.
    fn let_in(&mut self, now: Instant) {
        for _ in 0..JOIN_MAX.min(self.line.len()) {
            if self.order.len() >= KEPT_MAX && !self.drop_first(now, STAY_MIN) {
                self.line.clear();
                self.waiting.clear();
                return;
            }
            if let Some((symbol, asked)) = self.line.pop_front().and_then(|first| self.waiting.remove_entry(&first)) {
                self.place(symbol, asked);
                self.changed = true;
            }
        }
    }

    /// What is to be kept from now on, by name; `None`: what it was the last time. Whoever calls it does so once a second.
    pub fn take_change(&mut self, now: Instant) -> Option<Vec<Symbol>> {
        while self.drop_first(now, IDLE_MAX) {}
        self.let_in(now);
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
    use std::collections::HashSet;

    const SECOND: Duration = Duration::from_secs(1);

    fn symbol(number: usize) -> Symbol {
        Symbol::new(format!("A{number:04}").as_bytes()).expect("a good symbol")
    }

    /// A keeper of the assets 0, 1, 2 …, as many as it keeps, all asked for at `now`.
    fn full(now: Instant) -> Keeper {
        let mut keeper = Keeper::default();
        (0..KEPT_MAX).for_each(|number| keeper.touch(symbol(number), now));
        for joined in 1..=KEPT_MAX / JOIN_MAX {
            assert_eq!(keeper.take_change(now).map(|kept| kept.len()), Some(joined * JOIN_MAX), "so many at a time");
        }
        assert_eq!(keeper.take_change(now), None, "nothing has changed");
        keeper
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_recently_asked_leaves_first_and_nothing_that_is_asked_for() {
        let now = Instant::now();
        let mut keeper = full(now);
        keeper.touch(symbol(0), now + SECOND);
        assert_eq!(keeper.take_change(now + SECOND), None, "it was there");
        let later = now + STAY_MIN;
        let just_before = later - Duration::from_millis(1);
        keeper.touch(symbol(KEPT_MAX), just_before);
        assert_eq!(keeper.take_change(just_before), None, "all are asked for");
        assert_eq!(keeper.take_change(later), None, "who was not kept does not wait for ever");
        keeper.touch(symbol(KEPT_MAX), later);
        let kept = keeper.take_change(later).expect("a change");
        assert!(kept.len() == KEPT_MAX && kept.contains(&symbol(KEPT_MAX)));
        assert!(kept.contains(&symbol(0)) && !kept.contains(&symbol(1)));
        assert!(kept.is_sorted_by_key(|symbol| symbol.to_string()));
    }

    /// For two minutes `pace` of 3,000 assets are asked for each second, round and round, and one more that is in use.
    #[track_caller]
    fn check_flood(pace: usize) {
        let (mut keeper, began) = (Keeper::default(), Instant::now());
        let in_use = symbol(9_999);
        keeper.touch(in_use, began);
        let mut before: HashSet<Symbol> = keeper.take_change(began).expect("a change").into_iter().collect();
        let (mut next, mut joined) = (0, 0);
        for second in 1..=120 {
            let now = began + SECOND * second;
            keeper.touch(in_use, now);
            for _ in 0..pace {
                keeper.touch(symbol(next % 3_000), now);
                next += 1;
            }
            let Some(kept) = keeper.take_change(now) else { continue };
            let kept: HashSet<Symbol> = kept.into_iter().collect();
            assert!(kept.contains(&in_use), "{pace}: lost in second {second}");
            let (came, left) = (kept.difference(&before).count(), before.difference(&kept).count());
            assert!(came <= JOIN_MAX && left <= JOIN_MAX, "{pace}: {came} came and {left} left in second {second}");
            joined += came;
            before = kept;
        }
        assert_eq!((keeper.count(), before.len()), (KEPT_MAX, KEPT_MAX), "{pace}");
        let most = KEPT_MAX * 120 / usize::try_from(STAY_MIN.as_secs()).expect("small");
        assert!(joined <= most, "{pace}: {joined} came in all, more than {most}");
        assert!(keeper.line.len() <= WAITING_MAX && keeper.line.len() == keeper.waiting.len());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_thousands_takes_nothing_away_that_is_in_use() {
        for pace in [40, 100, 3_000, 10_000] {
            check_flood(pace);
        }
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
