//! The flights: one for each asset that is being looked for, who waits for it, and what lately came to nothing.
//!
//! Pure bookkeeping; time is an argument. Bounds: so many flights, and so many of them begun for one key, so that nobody
//! who asks for much keeps the others from asking at all. And of a key that asks for what nobody has no more than so much is
//! looked for in a second.

use super::Outcome;
use dataplane_core::limits::FRUITLESS_PER_KEY_MAX;
use shared::asset::{AssetId, Symbol};
use shared::code::Code;
use shared::key::KeyId;
use shared::tick::Tick;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Flights at a time: 1,500 a second that each take the whole of their time are 2,250. A flight takes about 2 KiB.
pub const FLIGHTS_MAX: usize = 4_096;

/// Of these, begun for one key: 1,000 a second that take a quarter of a second are 250, and 16 keys fill the table.
pub const KEY_FLIGHTS_MAX: usize = 256;

/// How long the flights of each key that found nothing are counted for together.
const COUNTED: Duration = Duration::from_secs(1);

/// Keys whose flights that found nothing are counted at a time. Flights of more keys are bounded by [`KEY_FLIGHTS_MAX`] alone.
const COUNTED_KEYS_MAX: usize = 4_096;

/// For so long a flight that found nothing answers whoever else asks.
const REMEMBERED: Duration = Duration::from_secs(1);

/// Flights remembered that found nothing; older ones make room. Each is about 100 bytes.
const REMEMBERED_MAX: usize = 8_192;

/// One search under way.
#[derive(Debug)]
pub struct Flight {
    /// What is looked for.
    pub symbol: Symbol,
    /// Whose request it was that asked first.
    pub key: KeyId,
    /// When it began.
    pub began: Instant,
    /// Its asset has a fresh price now that is news to all who wait.
    pub fresh: Notify,
    /// Highest sequence that anybody who waits has.
    above: AtomicU64,
    asset: OnceLock<AssetId>,
    is_nowhere: AtomicBool,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Flight {
    /// The asset's number, once it has one.
    #[must_use]
    pub fn asset(&self) -> Option<AssetId> {
        self.asset.get().copied()
    }

    /// Notes the asset's number, which never changes.
    pub fn set_asset(&self, asset: AssetId) {
        let _ = self.asset.set(asset);
    }

    /// Notes that the cache has answered, and holds no fresh price of it.
    pub fn set_nowhere(&self) {
        self.is_nowhere.store(true, Ordering::Relaxed);
    }

    /// Whether the cache has said that it holds none: an asset that no venue lists is unknown then.
    #[must_use]
    pub fn is_nowhere(&self) -> bool {
        self.is_nowhere.load(Ordering::Relaxed)
    }

    /// Whether a tick of its asset is news to all who wait. They ask because what they have is none, or stale.
    #[must_use]
    pub fn is_news(&self, tick: &Tick) -> bool {
        !tick.is_stale() && tick.sequence > self.above()
    }

    /// Highest sequence that anybody who waits has; 0: none.
    #[must_use]
    pub fn above(&self) -> u64 {
        self.above.load(Ordering::Relaxed)
    }

    /// Waits for the end.
    pub async fn ended(&self) -> Outcome {
        let mut outcomes = self.outcome.subscribe();
        let ended = outcomes.wait_for(Option::is_some).await.ok().and_then(|outcome| *outcome);
        ended.unwrap_or(Outcome::Nothing(Code::PriceUnavailable))
    }
}

#[derive(Debug)]
struct Open {
    flight: Arc<Flight>,
    /// The newest lookup of each shard that waits: no more than there are shards.
    shards: Vec<OfShard>,
}

impl Open {
    /// One more lookup waits. Of one that its shard has given up nothing need be told.
    fn wait(&mut self, newer: OfShard) {
        match self.shards.iter_mut().find(|waiting| waiting.shard == newer.shard) {
            Some(waiting) if waiting.is_before(newer) => *waiting = newer,
            Some(_) => {}
            None => self.shards.push(newer),
        }
    }
}

/// A lookup of a shard, which is told what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfShard {
    /// Which shard.
    pub shard: u16,
    /// Its number there.
    pub number: u32,
}

impl OfShard {
    /// Whether it began before another of the same shard: numbers come round.
    fn is_before(self, other: Self) -> bool {
        (1..1 << 31).contains(&other.number.wrapping_sub(self.number))
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Whose request it is.
    pub key: KeyId,
    /// For which lookup of a shard; `None`: somebody who waits by himself.
    pub shard: Option<OfShard>,
    /// The sequence of what it has: only what is newer is news.
    pub above: u64,
}

/// What asking led to.
#[derive(Debug)]
pub enum Entered {
    /// A flight that is to be begun.
    Begun(Arc<Flight>),
    /// One that is under way.
    Joined(Arc<Flight>),
    /// One has just come to nothing.
    Known(Code),
    /// No room, or too much that this key asked for in this second came to nothing.
    Full,
}

/// How many flights of each key came to nothing in the present second.
#[derive(Debug, Default)]
struct Fruitless {
    since: Option<Instant>,
    counts: HashMap<KeyId, u16>,
}

impl Fruitless {
    fn count(&mut self, key: KeyId, now: Instant) {
        self.look(now);
        if self.counts.len() < COUNTED_KEYS_MAX || self.counts.contains_key(&key) {
            let count = self.counts.entry(key).or_default();
            *count = count.saturating_add(1);
        }
    }

    fn is_full(&mut self, key: KeyId, now: Instant) -> bool {
        self.look(now);
        self.counts.get(&key).is_some_and(|count| *count >= FRUITLESS_PER_KEY_MAX)
    }

    fn look(&mut self, now: Instant) {
        if self.since.is_none_or(|since| now.duration_since(since) >= COUNTED) {
            self.since = Some(now);
            self.counts.clear();
        }
    }
}

/// All flights.
#[derive(Debug, Default)]
pub struct Table {
    open: HashMap<Symbol, Open>,
    by_key: HashMap<KeyId, usize>,
    fruitless: Fruitless,
    ended: HashMap<Symbol, (Code, Instant)>,
    order: VecDeque<(Instant, Symbol)>,
}

impl Table {
    /// Asks for an asset.
    pub fn enter(&mut self, symbol: Symbol, asker: Asker, now: Instant) -> Entered {
        let Asker { key, shard, above } = asker;
        if let Some(open) = self.open.get_mut(&symbol) {
            shard.into_iter().for_each(|shard| open.wait(shard));
            open.flight.above.fetch_max(above, Ordering::Relaxed);
            return Entered::Joined(Arc::clone(&open.flight));
        }
        if let Some((code, until)) = self.ended.get(&symbol)
            && now < *until
        {
            return Entered::Known(*code);
        }
        // Shards count for themselves, before they ask.
        if shard.is_none() && self.fruitless.is_full(key, now) {
            return Entered::Full;
        }
        let of_key = self.by_key.entry(key).or_default();
        if self.open.len() >= FLIGHTS_MAX || *of_key >= KEY_FLIGHTS_MAX {
            if *of_key == 0 {
                self.by_key.remove(&key);
            }
            return Entered::Full;
        }
        *of_key += 1;
        let (outcome, _) = watch::channel(None);
        let flight = Arc::new(Flight {
            symbol,
            key,
            began: now,
            fresh: Notify::new(),
            above: AtomicU64::new(above),
            asset: OnceLock::new(),
            is_nowhere: AtomicBool::new(false),
            outcome,
        });
        self.open.insert(symbol, Open { flight: Arc::clone(&flight), shards: shard.into_iter().collect() });
        Entered::Begun(flight)
    }

    /// Ends a flight and tells those who wait by themselves; answers the shards that wait.
    pub fn end(&mut self, flight: &Flight, outcome: Outcome, now: Instant) -> Vec<OfShard> {
        let Some(open) = self.open.remove(&flight.symbol) else { return Vec::new() };
        if let Some(of_key) = self.by_key.get_mut(&flight.key) {
            *of_key -= 1;
            if *of_key == 0 {
                self.by_key.remove(&flight.key);
            }
        }
        if let Outcome::Nothing(code) = outcome {
            self.remember(flight.symbol, code, now);
            self.fruitless.count(flight.key, now);
        }
        flight.outcome.send_replace(Some(outcome));
        open.shards
    }

    fn remember(&mut self, symbol: Symbol, code: Code, now: Instant) {
        while let Some((until, symbol)) = self.order.front().copied()
            && (until <= now || self.order.len() >= REMEMBERED_MAX)
        {
            self.order.pop_front();
            // It may have been remembered anew since.
            if self.ended.get(&symbol).is_some_and(|(_, kept)| *kept == until) {
                self.ended.remove(&symbol);
            }
        }
        let until = now + REMEMBERED;
        self.ended.insert(symbol, (code, until));
        self.order.push_back((until, symbol));
    }

    /// Flights under way.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// The flights under way.
    pub fn flights(&self) -> impl Iterator<Item = &Arc<Flight>> {
        self.open.values().map(|open| &open.flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;
    use shared::tick::TICK_STALE;

    fn symbol(number: usize) -> Symbol {
        Symbol::new(format!("A{number}").as_bytes()).expect("a good symbol")
    }

    fn begun(entered: Entered) -> Arc<Flight> {
        match entered {
            Entered::Begun(flight) => flight,
            other => panic!("{other:?}"),
        }
    }

    fn asker(key: KeyId, shard: Option<u16>) -> Asker {
        Asker { key, shard: shard.map(|shard| of_shard(shard, 7)), above: 0 }
    }

    const fn of_shard(shard: u16, number: u32) -> OfShard {
        OfShard { shard, number }
    }

    const NOTHING: Outcome = Outcome::Nothing(Code::PriceUnavailable);

    #[tokio::test(start_paused = true)]
    async fn one_flight_for_all_who_ask_and_what_came_to_nothing_is_known_for_a_while() {
        let (mut table, now) = (Table::default(), Instant::now());
        let flight = begun(table.enter(symbol(1), asker(KeyId(1), Some(0)), now));
        for shard in [3, 0, 62] {
            assert!(matches!(table.enter(symbol(1), asker(KeyId(2), Some(shard)), now), Entered::Joined(_)));
        }
        assert_eq!(table.end(&flight, NOTHING, now), [0, 3, 62].map(|shard| of_shard(shard, 7)));
        assert_eq!(flight.ended().await, NOTHING);
        let known = table.enter(symbol(1), asker(KeyId(1), Some(0)), now + REMEMBERED - Duration::from_millis(1));
        assert!(matches!(known, Entered::Known(Code::PriceUnavailable)), "{known:?}");
        let again = begun(table.enter(symbol(1), asker(KeyId(1), None), now + REMEMBERED));
        assert_eq!(table.end(&again, Outcome::Found, now), [], "nobody but himself waits");
        begun(table.enter(symbol(2), asker(KeyId(1), None), now));
        assert_eq!(table.count(), 1);
    }

    /// Which of a shard's lookups is told the end of a flight, when the shard asked with these numbers one after the other.
    #[track_caller]
    fn check_told(numbers: &[u32], expected: u32) {
        let (mut table, now) = (Table::default(), Instant::now());
        let flight = begun(table.enter(symbol(1), asker(KeyId(1), None), now));
        for number in numbers {
            table.enter(symbol(1), Asker { shard: Some(of_shard(2, *number)), ..asker(KeyId(1), None) }, now);
        }
        table.enter(symbol(1), asker(KeyId(1), Some(1)), now);
        assert_eq!(table.end(&flight, NOTHING, now), [of_shard(2, expected), of_shard(1, 7)], "{numbers:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_asks_again_is_told_of_its_newest_lookup() {
        check_told(&[5], 5);
        check_told(&[5, 9], 9);
        // One that is asked for again on behalf of the shard after it has asked by itself.
        check_told(&[9, 5], 9);
        check_told(&[u32::MAX, 0], 0);
        check_told(&[0, u32::MAX], 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_has_its_share_and_all_have_room() {
        let (mut table, now) = (Table::default(), Instant::now());
        let mut flights = Vec::new();
        for number in 0..FLIGHTS_MAX {
            let key = KeyId(u32::try_from(number / KEY_FLIGHTS_MAX).expect("small"));
            flights.push(begun(table.enter(symbol(number), asker(key, None), now)));
            if number == KEY_FLIGHTS_MAX - 1 {
                assert!(
                    matches!(table.enter(symbol(9_999), asker(key, None), now), Entered::Full),
                    "its share is used up"
                );
            }
        }
        assert!(matches!(table.enter(symbol(9_999), asker(KeyId(99), None), now), Entered::Full));
        assert_eq!(table.by_key.len(), FLIGHTS_MAX / KEY_FLIGHTS_MAX, "who was refused leaves nothing");
        for flight in &flights {
            table.end(flight, Outcome::Found, now);
        }
        assert!(table.by_key.is_empty() && table.count() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn news_is_what_is_fresh_and_newer_than_what_anybody_has_who_waits() {
        let (mut table, now) = (Table::default(), Instant::now());
        let flight = begun(table.enter(symbol(1), asker(KeyId(1), Some(0)), now));
        let tick = Tick { sequence: 5, ..Tick::zeroed() };
        assert!(flight.is_news(&tick) && !flight.is_news(&Tick { flags: TICK_STALE, ..tick }));
        for (above, is_news) in [(4, true), (5, false), (2, false)] {
            table.enter(symbol(1), Asker { above, ..asker(KeyId(2), Some(1)) }, now);
            assert_eq!(flight.is_news(&tick), is_news, "somebody has {above}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_has_so_many_in_a_second_that_come_to_nothing() {
        let (mut table, now) = (Table::default(), Instant::now());
        // How many of so many in this second are begun, one after the other, of which `outcome` comes.
        let mut ask = |key: u32, shard: Option<u16>, at: Instant, outcome: Outcome| {
            let begun = (0..1_000).filter(|number| {
                // Names of its own each time, as nothing is asked for again that has just come to nothing.
                let name = usize::try_from(key).expect("small") * 1_000 + number;
                let flight = match table.enter(symbol(name), asker(KeyId(key), shard), at) {
                    Entered::Begun(flight) => flight,
                    Entered::Full | Entered::Known(_) => return false,
                    other => panic!("{other:?}"),
                };
                table.end(&flight, outcome, at);
                true
            });
            begun.count()
        };
        let most = usize::from(FRUITLESS_PER_KEY_MAX);
        assert_eq!(ask(1, None, now, NOTHING), most);
        assert_eq!(ask(2, None, now, Outcome::Found), 1_000, "what is found is not counted");
        assert_eq!(ask(3, Some(0), now, NOTHING), 1_000, "a shard has counted already");
        assert_eq!(ask(4, None, now, NOTHING), most, "another key has its own");
        assert_eq!(ask(1, None, now + COUNTED - Duration::from_millis(1), Outcome::Found), 0);
        assert_eq!(ask(1, None, now + REMEMBERED, NOTHING), most, "the next second");
        let later = now + COUNTED + REMEMBERED;
        for key in 10..10 + u32::try_from(COUNTED_KEYS_MAX).expect("small") + 10 {
            table.fruitless.count(KeyId(key), later);
        }
        assert_eq!(table.fruitless.counts.len(), COUNTED_KEYS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let (mut table, now) = (Table::default(), Instant::now());
        for number in 0..REMEMBERED_MAX + 10 {
            let flight = begun(table.enter(symbol(number), asker(KeyId(1), Some(0)), now));
            table.end(&flight, NOTHING, now);
        }
        assert_eq!((table.ended.len(), table.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        begun(table.enter(symbol(0), asker(KeyId(1), Some(0)), now));
    }
}
