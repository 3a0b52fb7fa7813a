//! Which assets stay subscribed because somebody asks for them: those asked for last, and not for ever.
//!
//! What is asked for stays: nobody who asks for many others takes it away, and so the subscriptions change slowly whatever
//! is asked. Only of a key that has more than another does one leave for one of that other's. Pure: time is an argument.
//! What being subscribed means is not known here.

use shared::asset::Symbol;
use shared::key::KeyId;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Assets kept: with some 150 that are always subscribed, 662 names at most at a venue that lists them all. That is
/// three connections of OKX (240 names each), and twelve of the sixteen permitted at Gemini v2 (60 books each).
pub const KEPT_MAX: usize = 512;

/// An asset that nobody has asked for in this time leaves.
pub const IDLE_MAX: Duration = Duration::from_secs(600);

/// What was asked for within this time leaves for no other of the same key: a shard tells once a second what is in use, so
/// what is asked for every few seconds stays. A newcomer for whom nothing leaves is not kept: its price comes over REST.
pub const STAY_MIN: Duration = Duration::from_secs(30);

/// Newcomers that join at one change, of which there is one a second: venues that permit few take some four requests a
/// second, with many names in each.
pub const JOIN_MAX: usize = 32;

/// Newcomers that wait for the next change; who comes then is not kept this time. More could not join anyway.
const WAITING_MAX: usize = KEPT_MAX;

/// Whose request it was that an asset was first looked up for; `None`: not known, as where a shard had a price of it. All of
/// those together have the share of one key.
pub type Owner = Option<KeyId>;

/// How many each has.
#[derive(Debug, Default)]
struct Shares(HashMap<Owner, usize>);

impl Shares {
    fn of(&self, owner: Owner) -> usize {
        self.0.get(&owner).copied().unwrap_or(0)
    }

    fn add(&mut self, owner: Owner) {
        *self.0.entry(owner).or_default() += 1;
    }

    fn remove(&mut self, owner: Owner) {
        if let Some(count) = self.0.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&owner);
            }
        }
    }

    /// Who has so many more than `owner` that it still has no fewer when one of its own goes to that one: the one with most.
    fn above(&self, owner: Owner) -> Option<Owner> {
        let most = self.0.iter().max_by_key(|(owner, count)| (**count, owner.map(|key| key.0)));
        most.filter(|(_, count)| **count > self.of(owner) + 1).map(|(most, _)| *most)
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// When it was asked for last, and a number that tells apart what was asked at one instant.
    order: (Instant, u64),
    owner: Owner,
}

/// The assets kept.
#[derive(Debug, Default)]
pub struct Keeper {
    places: HashMap<Symbol, Place>,
    /// Least recently asked first.
    order: BTreeMap<(Instant, u64), Symbol>,
    kept_of: Shares,
    /// Newcomers, when each was asked for last, and whose they are.
    waiting: HashMap<Symbol, (Instant, Owner)>,
    /// The newcomers in the order in which they came.
    line: VecDeque<Symbol>,
    waiting_of: Shares,
    touches: u64,
    changed: bool,
}

impl Keeper {
    /// Notes that somebody asks for an asset: one that is not kept may join at the next change. When more wait than may, one
    /// of the key of which most wait goes for one of another.
    pub fn touch(&mut self, symbol: Symbol, owner: Owner, now: Instant) {
        if let Some(before) = self.places.get(&symbol).copied() {
            self.order.remove(&before.order);
            self.kept_of.remove(before.owner);
            self.place(symbol, before.owner, now);
        } else if let Some((asked, _)) = self.waiting.get_mut(&symbol) {
            *asked = now;
        } else if self.line.len() < WAITING_MAX || self.send_away(owner) {
            self.waiting.insert(symbol, (now, owner));
            self.waiting_of.add(owner);
            self.line.push_back(symbol);
        }
    }

    /// Has the last newcomer of the key of which most wait leave for one of `owner`; whether there is such.
    fn send_away(&mut self, owner: Owner) -> bool {
        let Some(most) = self.waiting_of.above(owner) else { return false };
        let is_of_most = |symbol: &Symbol| self.waiting.get(symbol).is_some_and(|(_, owner)| *owner == most);
        let last = self.line.iter().rposition(is_of_most);
        last.is_some_and(|last| self.take_waiting(last).is_some())
    }

    /// Takes the newcomer at this place of the line out of it.
    fn take_waiting(&mut self, at: usize) -> Option<(Symbol, Instant, Owner)> {
        let symbol = self.line.remove(at)?;
        let (asked, owner) = self.waiting.remove(&symbol)?;
        self.waiting_of.remove(owner);
        Some((symbol, asked, owner))
    }

    fn place(&mut self, symbol: Symbol, owner: Owner, asked: Instant) {
        self.touches += 1;
        let order = (asked, self.touches);
        self.places.insert(symbol, Place { order, owner });
        self.order.insert(order, symbol);
        self.kept_of.add(owner);
    }

    fn drop_kept(&mut self, order: (Instant, u64)) {
        let place = self.order.remove(&order).and_then(|symbol| self.places.remove(&symbol));
        place.into_iter().for_each(|place| self.kept_of.remove(place.owner));
        self.changed = true;
    }

    /// Lets the one asked for longest ago leave, if that is `idle` ago; whether it does.
    fn drop_first(&mut self, now: Instant, idle: Duration) -> bool {
        let first = self.order.first_key_value().map(|(order, _)| *order);
        let first = first.filter(|(asked, _)| now.duration_since(*asked) >= idle);
        first.into_iter().for_each(|first| self.drop_kept(first));
        first.is_some()
    }

    /// Lets the one asked for longest ago leave of those of the key of which most are kept, for one of `owner`; whether there
    /// is such.
    fn drop_of_most(&mut self, owner: Owner) -> bool {
        let Some(most) = self.kept_of.above(owner) else { return false };
        let is_of_most = |symbol: &Symbol| self.places.get(symbol).is_some_and(|place| place.owner == most);
        let first = self.order.iter().find(|(_, symbol)| is_of_most(symbol)).map(|(order, _)| *order);
        first.into_iter().for_each(|first| self.drop_kept(first));
        first.is_some()
    }

    /// The place in the line of the first newcomer of the key of which fewest are kept, and whose it is.
    fn next(&self) -> Option<(usize, Owner)> {
        let owners = self.line.iter().map(|symbol| self.waiting.get(symbol).and_then(|(_, owner)| *owner));
        owners.enumerate().min_by_key(|(_, owner)| self.kept_of.of(*owner))
    }

    /// Lets newcomers in, as many as may join at one change. If there is no room for one, there is none for the others.
    fn let_in(&mut self, now: Instant) {
        for _ in 0..JOIN_MAX {
            let Some((at, owner)) = self.next() else { return };
            let has_room = self.order.len() < KEPT_MAX || self.drop_first(now, STAY_MIN) || self.drop_of_most(owner);
            if !has_room {
                self.line.clear();
                self.waiting.clear();
                self.waiting_of.0.clear();
                return;
            }
            if let Some((symbol, asked, owner)) = self.take_waiting(at) {
                self.place(symbol, owner, asked);
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

    const ONE: Owner = Some(KeyId(1));

    fn symbol(number: usize) -> Symbol {
        Symbol::new(format!("A{number:04}").as_bytes()).expect("a good symbol")
    }

    /// A keeper of the assets 0, 1, 2 …, as many as it keeps, all asked for at `now`.
    fn full(now: Instant) -> Keeper {
        let mut keeper = Keeper::default();
        (0..KEPT_MAX).for_each(|number| keeper.touch(symbol(number), ONE, now));
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
        keeper.touch(symbol(0), ONE, now + SECOND);
        assert_eq!(keeper.take_change(now + SECOND), None, "it was there");
        let later = now + STAY_MIN;
        let just_before = later - Duration::from_millis(1);
        keeper.touch(symbol(KEPT_MAX), ONE, just_before);
        assert_eq!(keeper.take_change(just_before), None, "all are asked for");
        assert_eq!(keeper.take_change(later), None, "who was not kept does not wait for ever");
        keeper.touch(symbol(KEPT_MAX), ONE, later);
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
        keeper.touch(in_use, None, began);
        let mut before: HashSet<Symbol> = keeper.take_change(began).expect("a change").into_iter().collect();
        let (mut next, mut joined) = (0, 0);
        for second in 1..=120 {
            let now = began + SECOND * second;
            keeper.touch(in_use, None, now);
            for _ in 0..pace {
                keeper.touch(symbol(next % 3_000), ONE, now);
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

    /// How many of each key's are kept.
    fn shares(keeper: &Keeper, keys: u32) -> Vec<usize> {
        (1..=keys).map(|key| keeper.kept_of.of(Some(KeyId(key)))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_has_all_places_makes_room_for_others_until_they_have_as_many() {
        let began = Instant::now();
        let mut keeper = full(began);
        // What each key asks for each second, besides thousands that the first one asks for and has no place for.
        let wanted = [(1, KEPT_MAX), (2, 40), (3, KEPT_MAX), (4, KEPT_MAX)];
        for second in 1..=60 {
            let now = began + SECOND * second;
            (0..3_000).for_each(|number| keeper.touch(symbol(5_000 + number), ONE, now));
            for (key, count) in wanted {
                let of_key = usize::try_from(key).expect("small") - 1;
                (0..count).for_each(|number| {
                    keeper.touch(symbol(of_key * 1_000 + number), Some(KeyId(key)), now);
                });
            }
            assert_eq!(keeper.line.len(), WAITING_MAX);
            let before = shares(&keeper, 4);
            keeper.take_change(now);
            let after = shares(&keeper, 4);
            let came: usize = after.iter().zip(&before).map(|(after, before)| after.saturating_sub(*before)).sum();
            assert!(came <= JOIN_MAX && keeper.count() == KEPT_MAX, "{before:?} {after:?}");
            let is_even = after[1] == 40 && after[0] - after[2].min(after[3]) <= 1;
            assert!(second < 20 || is_even, "in second {second}: {after:?}");
            assert!(second < 21 || after == before, "and then nothing changes any more: {before:?} {after:?}");
        }
        assert_eq!(keeper.waiting.len(), keeper.waiting_of.0.values().sum::<usize>());
        let later = began + SECOND * 60 + IDLE_MAX;
        assert_eq!((keeper.take_change(later).map(|kept| kept.len()), keeper.kept_of.0.len()), (Some(0), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_leaves() {
        let (mut keeper, now) = (Keeper::default(), Instant::now());
        keeper.touch(symbol(1), None, now);
        keeper.touch(symbol(2), ONE, now + IDLE_MAX / 2);
        assert_eq!(keeper.take_change(now + IDLE_MAX - Duration::from_millis(1)).map(|kept| kept.len()), Some(2));
        assert_eq!(keeper.take_change(now + IDLE_MAX), Some(vec![symbol(2)]));
        keeper.touch(symbol(2), None, now + IDLE_MAX);
        assert_eq!(keeper.take_change(now + IDLE_MAX + IDLE_MAX / 2), None, "asked for again");
        assert_eq!((keeper.take_change(now + IDLE_MAX * 2), keeper.count()), (Some(Vec::new()), 0));
    }
}
