//! A cache in this process, for a node that is alone: the same names, types and lifetimes, without a server.
//!
//! It holds at most [`ENTRIES_MAX`] values and [`BYTES_MAX`] bytes. When there is no room, what would end soonest goes
//! first; of what has no end, what was written longest ago. A call never waits for anything but a short lock, and never
//! fails for being unreachable. Nothing in it outlives the process.

use super::load::{Act, Load, Loads};
use super::names::{CLUSTER_NODES, CLUSTER_STATS, CacheKey, Kind};
use super::window::Window;
use super::{
    Cache, CacheError, CacheHealth, CacheTimeouts, Cached, FORGET_AFTER_MS, Lease, LeaseWish, NODES_MAX, News, Roll,
    VALUE_BYTES_MAX, VALUE_PARTS_MAX, Value, Write, check_hash, check_text, check_writes, node_key, number_behind,
};
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;
use tuning::clock;

/// Most values. A counter and a record for each of 20,000 keys in use, and as much for everything else.
pub const ENTRIES_MAX: usize = 65_536;

/// Most bytes, names and values and [`ENTRY_BYTES`] for each: a hundredth of a small machine's memory.
pub const BYTES_MAX: usize = 32 << 20;
const _: () = assert!(VALUE_BYTES_MAX + ENTRY_BYTES < BYTES_MAX);

/// What a value costs beside its texts: two copies of its name's handle, its place in the table and in the order.
const ENTRY_BYTES: usize = 192;

/// Most values, and their bytes, of what [`Cache::write_all`] writes: a mirror of what is kept elsewhere, which must not
/// push out what is kept nowhere else. What of it was written longest ago goes first.
const MIRRORED_MAX: usize = ENTRIES_MAX / 4;
const MIRRORED_BYTES_MAX: usize = BYTES_MAX / 4;

/// Most members of a sorted set that grows: it is sorted with each growth, under the lock, in some 100 µs.
pub const APPENDED_MAX: usize = 1_000;
const _: () = assert!(APPENDED_MAX <= VALUE_PARTS_MAX);

/// The end of what has none.
const NEVER: u64 = u64::MAX;

/// A cache in this process.
pub struct InProcessCache {
    table: Mutex<Table>,
    /// Unix ms at `began`: the cache's clock is tokio's from there on, and so never goes back.
    began_ms: u64,
    began: Instant,
    calls: AtomicU64,
    refused: AtomicU64,
}

impl Default for InProcessCache {
    fn default() -> Self {
        Self::new()
    }
}

impl InProcessCache {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: Mutex::default(),
            began_ms: clock::now().wall_ms,
            began: Instant::now(),
            calls: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    fn now_ms(&self) -> u64 {
        self.began_ms.saturating_add(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The table, with what has ended taken out.
    fn table(&self, now_ms: u64) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.expire(now_ms);
        table
    }

    /// One call: `work` on the table as of now.
    fn call<T>(&self, work: impl FnOnce(&mut Table, u64) -> Cached<T>) -> Cached<T> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let now_ms = self.now_ms();
        let done = work(&mut self.table(now_ms), now_ms);
        if done.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        done
    }
}

/// One value.
struct Entry {
    value: Value,
    /// When it ends, the cache's ms, or [`NEVER`]; and its place among those that end then.
    place: (u64, u64),
    bytes: usize,
    /// Whether it is of the mirror.
    is_mirrored: bool,
}

/// The values, and the order in which they go. Time is an argument.
#[derive(Default)]
struct Table {
    entries: HashMap<String, Entry>,
    order: BTreeMap<(u64, u64), String>,
    bytes: usize,
    written: u64,
    /// Names of what is of the mirror, by when they were written.
    mirrored: BTreeMap<u64, String>,
    mirrored_bytes: usize,
}

impl Table {
    /// Takes out what has ended by `now_ms`. Each value is taken out once, so a call pays for what it or another wrote.
    fn expire(&mut self, now_ms: u64) {
        while let Some(first) = self.order.first_entry().filter(|first| first.key().0 <= now_ms) {
            let name = first.get().clone();
            self.remove(&name);
        }
    }

    fn remove(&mut self, name: &str) -> Option<Entry> {
        let entry = self.entries.remove(name)?;
        self.order.remove(&entry.place);
        self.bytes -= entry.bytes;
        if entry.is_mirrored {
            self.mirrored.remove(&entry.place.1);
            self.mirrored_bytes -= entry.bytes;
        }
        Some(entry)
    }

    /// Writes a value that ends at `ends_ms`; others go where there is no room.
    fn write(&mut self, name: &str, value: Value, ends_ms: u64) {
        self.remove(name);
        let bytes = ENTRY_BYTES + 2 * name.len() + value.bytes();
        while self.entries.len() >= ENTRIES_MAX || self.bytes + bytes > BYTES_MAX {
            let Some((_, first)) = self.order.pop_first() else { break };
            self.remove(&first);
        }
        self.written += 1;
        let place = (ends_ms, self.written);
        self.order.insert(place, name.to_owned());
        self.entries.insert(name.to_owned(), Entry { value, place, bytes, is_mirrored: false });
        self.bytes += bytes;
    }

    /// Writes one value of the mirror.
    fn mirror(&mut self, write: &Write, now_ms: u64) -> Cached<()> {
        let key = match write {
            Write::Put(key, value) => {
                self.put(key, value, now_ms)?;
                key
            }
            Write::PutLatest { key, value, by, most } => {
                let number = |value| number_behind(value, by);
                let stands = self.entries.get(key.name()).and_then(|entry| number(&entry.value));
                let is_later = |stands| stands <= *most && number(value).is_some_and(|here| stands > here);
                if stands.is_some_and(is_later) {
                    return Ok(());
                }
                self.put(key, value, now_ms)?;
                key
            }
            Write::Append { key, members, since, keep } => {
                let mut all = match self.entries.get(key.name()) {
                    None => Vec::new(),
                    Some(Entry { value: Value::Sorted(members), .. }) => members.clone(),
                    Some(entry) => return Err(other_kind(key, entry, Kind::Sorted)),
                };
                all.extend_from_slice(members);
                self.keep_best(key.name(), all, *since, *keep, ends_ms(key, now_ms));
                key
            }
        };
        self.count_as_mirrored(key.name());
        Ok(())
    }

    /// Keeps those members of a sorted set that may stay.
    fn keep_best(&mut self, name: &str, mut all: Vec<(String, i64)>, since: i64, keep: usize, ends_ms: u64) {
        sort(&mut all);
        all.retain(|(_, score)| *score >= since);
        all.drain(..all.len().saturating_sub(keep.min(APPENDED_MAX)));
        if all.is_empty() {
            self.remove(name);
        } else {
            self.write(name, Value::Sorted(all), ends_ms);
        }
    }

    /// Counts a value to the mirror, of which others go where there is no room.
    fn count_as_mirrored(&mut self, name: &str) {
        if let Some(entry) = self.entries.get_mut(name).filter(|entry| !entry.is_mirrored) {
            entry.is_mirrored = true;
            self.mirrored_bytes += entry.bytes;
            self.mirrored.insert(entry.place.1, name.to_owned());
        }
        while self.mirrored.len() > MIRRORED_MAX || self.mirrored_bytes > MIRRORED_BYTES_MAX {
            let Some((_, first)) = self.mirrored.pop_first() else { break };
            self.remove(&first);
        }
    }

    /// Does one thing of a load. What is of another type makes way.
    fn take_in(&mut self, load: &Load, words: Vec<String>, now_ms: u64) {
        let mut words = words.into_iter();
        let Some(name) = words.next() else { return };
        let present = self.entries.get(&name).map(|entry| (entry.value.clone(), entry.place.0));
        let lifetime = load.lifetime_s.map_or(NEVER, |lifetime_s| now_ms.saturating_add(lifetime_s * 1_000));
        match (load.act, present) {
            (Act::Delete, _) => drop(self.remove(&name)),
            (Act::Text(ends_ms), _) if ends_ms > now_ms => {
                self.write(&name, Value::Text(words.next().unwrap_or_default()), ends_ms);
            }
            (Act::Fields(ends_ms), present) if ends_ms > now_ms => {
                let mut fields = if let Some((Value::Hash(fields), _)) = present { fields } else { BTreeMap::new() };
                while let Some(field) = words.next() {
                    fields.insert(field, words.next().unwrap_or_default());
                }
                self.write(&name, Value::Hash(fields), ends_ms);
            }
            // Its end is over.
            (Act::Text(_) | Act::Fields(_), _) => drop(self.remove(&name)),
            (Act::Members, present) => {
                let mut all = if let Some((Value::Sorted(members), _)) = present { members } else { Vec::new() };
                while let Some(score) = words.next() {
                    all.push((words.next().unwrap_or_default(), score.parse().unwrap_or_default()));
                }
                self.keep_best(&name, all, i64::MIN, APPENDED_MAX, lifetime);
            }
            (Act::Trim(since, keep), Some((Value::Sorted(members), ends_ms))) => {
                self.keep_best(&name, members, since, keep, ends_ms);
            }
            (Act::Trim(..), _) => {}
        }
        self.count_as_mirrored(&name);
    }

    fn put(&mut self, key: &CacheKey, value: &Value, now_ms: u64) -> Cached<()> {
        value.check(key)?;
        let mut value = value.clone();
        if let Value::Sorted(members) = &mut value {
            sort(members);
        }
        self.write(key.name(), value, ends_ms(key, now_ms));
        Ok(())
    }

    /// The text under `key`, and when it ends.
    fn text(&self, key: &CacheKey) -> Cached<Option<(&str, u64)>> {
        match self.entries.get(key.name()) {
            None => Ok(None),
            Some(Entry { value: Value::Text(text), place, .. }) => Ok(Some((text, place.0))),
            Some(entry) => Err(other_kind(key, entry, Kind::Text)),
        }
    }

    /// Names of the nodes noted, with when.
    fn nodes(&self) -> Vec<(String, i64)> {
        match self.entries.get(CLUSTER_NODES.prefix) {
            Some(Entry { value: Value::Sorted(nodes), .. }) => nodes.clone(),
            _ => Vec::new(),
        }
    }

    fn keep_nodes(&mut self, mut nodes: Vec<(String, i64)>) {
        sort(&mut nodes);
        nodes.drain(..nodes.len().saturating_sub(NODES_MAX));
        if nodes.is_empty() {
            self.remove(CLUSTER_NODES.prefix);
        } else {
            self.write(CLUSTER_NODES.prefix, Value::Sorted(nodes), NEVER);
        }
    }
}

fn other_kind(key: &CacheKey, entry: &Entry, wanted: Kind) -> CacheError {
    CacheError::Refused(format!("{key} holds {}, not {}", entry.value.kind().name(), wanted.name()))
}

/// Lowest score first; of equal ones, by name. A member that is there twice has its last score.
fn sort(members: &mut Vec<(String, i64)>) {
    let scores: HashMap<String, i64> = members.drain(..).collect();
    members.extend(scores);
    members.sort_unstable_by(|(one, at), (other, then)| at.cmp(then).then_with(|| one.cmp(other)));
}

/// When a value that is written now ends.
fn ends_ms(key: &CacheKey, now_ms: u64) -> u64 {
    key.pattern().lifetime_s.map_or(NEVER, |lifetime_s| now_ms.saturating_add(lifetime_s * 1_000))
}

fn time(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[async_trait]
impl Cache for InProcessCache {
    fn kind(&self) -> &'static str {
        "in-process"
    }

    async fn set_timeouts(&self, _timeouts: CacheTimeouts) {}

    async fn ping(&self) -> Cached<()> {
        self.call(|_, _| Ok(()))
    }

    async fn get(&self, key: &CacheKey) -> Cached<Option<(Value, Option<u64>)>> {
        self.call(|table, now_ms| {
            let lifetime = |ends_ms| (ends_ms != NEVER).then(|| ends_ms - now_ms);
            Ok(table.entries.get(key.name()).map(|entry| (entry.value.clone(), lifetime(entry.place.0))))
        })
    }

    async fn put(&self, key: &CacheKey, value: &Value) -> Cached<()> {
        self.call(|table, now_ms| table.put(key, value, now_ms))
    }

    async fn delete(&self, key: &CacheKey) -> Cached<bool> {
        self.call(|table, _| Ok(table.remove(key.name()).is_some()))
    }

    async fn add(&self, key: &CacheKey, amount: i64) -> Cached<i64> {
        check_text(key)?;
        self.call(|table, now_ms| {
            let (number, ends_ms) = match table.text(key)? {
                None => (Some(0), ends_ms(key, now_ms)),
                Some((text, ends_ms)) => (text.parse::<i64>().ok(), ends_ms),
            };
            let sum = number.and_then(|number| number.checked_add(amount));
            let sum = sum.ok_or_else(|| CacheError::Refused(format!("{key} holds no number, or one too large")))?;
            table.write(key.name(), Value::Text(sum.to_string()), ends_ms);
            Ok(sum)
        })
    }

    async fn write_all(&self, writes: &[Write]) -> Cached<()> {
        check_writes(writes)?;
        for write in writes {
            // Others get their turn in between.
            self.call(|table, now_ms| table.mirror(write, now_ms))?;
        }
        Ok(())
    }

    async fn load(&self, loads: Loads) -> Cached<()> {
        let (texts, loads) = loads.into_parts();
        for (load, words) in loads {
            let word =
                |(from, to): (u32, u32)| String::from_utf8_lossy(&texts[from as usize..to as usize]).into_owned();
            let words = words.into_iter().map(word).collect();
            // Others get their turn in between.
            self.call(|table, now_ms| {
                table.take_in(&load, words, now_ms);
                Ok(())
            })?;
        }
        Ok(())
    }

    async fn advance(&self, key: &CacheKey, guard: (&str, &str), news: &[(&str, News)]) -> Cached<bool> {
        check_hash(key)?;
        self.call(|table, _| {
            let Some(entry) = table.entries.get(key.name()) else { return Ok(false) };
            let Value::Hash(fields) = &entry.value else { return Err(other_kind(key, entry, Kind::Hash)) };
            if fields.get(guard.0).map(String::as_str) != Some(guard.1) {
                return Ok(false);
            }
            let (mut fields, ends_ms) = (fields.clone(), entry.place.0);
            for (field, news) in news {
                let present = fields.get(*field).and_then(|text| text.parse::<i64>().ok());
                match news {
                    News::Number(number) if present.is_some_and(|present| present >= *number) => {}
                    News::Number(number) => drop(fields.insert((*field).to_owned(), number.to_string())),
                    News::Text(text) => drop(fields.insert((*field).to_owned(), text.clone())),
                }
            }
            table.write(key.name(), Value::Hash(fields), ends_ms);
            Ok(true)
        })
    }

    async fn lease(&self, key: &CacheKey, wish: LeaseWish) -> Cached<Lease> {
        check_text(key)?;
        self.call(|table, now_ms| {
            let mut window = Window::at(table.text(key)?.and_then(|(text, _)| Window::from_text(text)), now_ms);
            let lease = window.grant(wish, now_ms);
            table.write(key.name(), Value::Text(window.to_text()), ends_ms(key, now_ms));
            Ok(lease)
        })
    }

    async fn heartbeat(&self, node: &str, counters: &BTreeMap<String, String>, alive_ms: u64) -> Cached<Roll> {
        let key = node_key(CLUSTER_STATS, node)?;
        self.call(|table, now_ms| {
            table.put(&key, &Value::Hash(counters.clone()), now_ms)?;
            let mut nodes = table.nodes();
            let was_noted = nodes.iter().any(|(name, _)| name == node);
            nodes.retain(|(name, at)| name != node && *at >= time(now_ms.saturating_sub(FORGET_AFTER_MS)));
            nodes.push((node.to_owned(), time(now_ms)));
            let since = time(now_ms.saturating_sub(alive_ms));
            let mut alive: Vec<String> =
                nodes.iter().filter(|(_, at)| *at >= since).map(|(name, _)| name.clone()).collect();
            alive.sort_unstable();
            table.keep_nodes(nodes);
            Ok(Roll { nodes: alive, was_noted })
        })
    }

    async fn leave(&self, node: &str) -> Cached<()> {
        let key = node_key(CLUSTER_STATS, node)?;
        self.call(|table, _| {
            table.remove(key.name());
            let mut nodes = table.nodes();
            nodes.retain(|(name, _)| name != node);
            table.keep_nodes(nodes);
            Ok(())
        })
    }

    fn health(&self) -> CacheHealth {
        let table = self.table(self.now_ms());
        let held = Some((table.entries.len() as u64, table.bytes as u64));
        drop(table);
        CacheHealth {
            calls: self.calls.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            held,
            ..CacheHealth::default()
        }
    }

    async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::super::names::{APP_CONFIG, PRICE, USAGE_COUNTER};
    use super::*;
    use std::time::Duration;
    use tokio::time::advance;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn price(asset: &str) -> CacheKey {
        CacheKey::new(PRICE, asset).expect("a name")
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_ends_when_its_pattern_says() {
        let cache = InProcessCache::new();
        cache.put(&price("BTC"), &text("1")).await.expect("written");
        advance(Duration::from_millis(59_999)).await;
        assert_eq!(cache.get(&price("BTC")).await, Ok(Some((text("1"), Some(1)))));
        advance(Duration::from_millis(1)).await;
        assert_eq!(cache.get(&price("BTC")).await, Ok(None));
        assert_eq!(cache.health().held, Some((0, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_would_end_soonest_goes_first_and_what_has_no_end_last() {
        let cache = InProcessCache::new();
        let config = CacheKey::fixed(APP_CONFIG);
        cache.put(&config, &Value::Hash([("a".to_owned(), "b".to_owned())].into())).await.expect("written");
        let counter = |index: usize| CacheKey::new(USAGE_COUNTER, &index.to_string()).expect("a name");
        cache.add(&counter(0), 1).await.expect("written");
        cache.put(&price("BTC"), &text("1")).await.expect("written");
        for index in 1..ENTRIES_MAX {
            cache.add(&counter(index), 1).await.expect("written");
        }
        assert_eq!(cache.health().held.map(|(values, _)| values), Some(ENTRIES_MAX as u64));
        assert_eq!(cache.get(&price("BTC")).await, Ok(None), "60 s");
        assert_eq!(cache.get(&counter(0)).await, Ok(None), "93 days, written first");
        assert!(cache.get(&counter(1)).await.expect("an answer").is_some());
        assert!(cache.get(&config).await.expect("an answer").is_some(), "no end");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_bounded_too() {
        let cache = InProcessCache::new();
        let large = text(&"x".repeat(VALUE_BYTES_MAX));
        for index in 0..20 {
            cache.put(&price(&index.to_string()), &large).await.expect("written");
            let (values, bytes) = cache.health().held.expect("known");
            assert!(bytes <= BYTES_MAX as u64 && values <= 7, "{values} values of {bytes} bytes");
        }
        let larger = text(&"x".repeat(VALUE_BYTES_MAX + 1));
        assert!(matches!(cache.put(&price("BTC"), &larger).await, Err(CacheError::Refused(_))));
    }
}
