//! How one directory follows from the one before: rows in, amendments out, published in order.
//!
//! One directory is made at a time: its maker is in the line, which only [`KeyDesk::in_line`] lets anybody into, in a
//! blocking thread. Whoever waits for that waits as a task and holds up no thread, and can bring no lock along: a guard
//! of the rules or of the held keys does not go to another thread. In the line these two are taken for a chunk at a
//! time, never one under the other, nor under the one that shards are told under. Whoever calls has already been to the
//! store.

use super::super::copy::{self, Copied};
use super::super::issue::KeyState;
use super::super::rules::Rule;
use super::KeyDesk;
use crate::private_file;
use crate::store::KeyRow;
use dataplane_core::access::{Amendment, KeyDirectory, Keys};
use dataplane_core::command::ShardCommand;
use shared::key::{KeyId, KeyRecord, Permissions};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::Mutex;
use tuning::clock;

/// Changes that are amended at a time; of more a directory is built anew. Amending so many takes a tenth of the second
/// that a change may take.
pub(super) const AMEND_MAX: usize = 50_000;

/// How long a key whose time is over stays in the directory, where nobody is admitted with it: for so long this node's
/// clock may be ahead, and then be set right, without a key that is still good being forgotten.
const OVER_KEPT_MS: u64 = 24 * 3_600 * 1_000;

/// Keys resolved under one hold of the rules, or marked under one hold of the held keys: well under a millisecond.
const CHUNK: usize = 1_024;

/// What whoever makes the next directory must know.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Changes made through this node that are above what has been followed, by key.
    ahead: BTreeMap<u32, i64>,
}

impl Line {
    /// Whether this node has taken over a later change of the key itself.
    fn is_overtaken(&self, id: u32, change: i64) -> bool {
        self.ahead.get(&id).is_some_and(|ahead| *ahead > change)
    }
}

/// Where makers of directories stand in line. Only this module can let anybody in.
#[derive(Debug, Default)]
pub(super) struct TheLine(Arc<Mutex<Line>>);

/// A stored key as it is to be.
pub(super) struct News {
    id: u32,
    change: i64,
    /// Its record, to be resolved, and its rule; `None`: it does not work.
    key: Option<(KeyRecord, Rule)>,
}

impl KeyDesk {
    /// Works on the next directory, after whoever came before. `None`: it failed, and what was in force stays so.
    pub(super) async fn in_line<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, &mut Line) -> T + Send + 'static,
    ) -> Option<T> {
        let mut line = Arc::clone(&self.line.0).lock_owned().await;
        let desk = Arc::clone(self);
        self.blocking(move || work(&desk, &mut line)).await
    }

    /// The first directory: of the fixed keys and the copy.
    pub(super) fn begin(&mut self) {
        let copied = self.copy.as_deref().and_then(copy::read).unwrap_or_default();
        let Copied { tiers, names, keys } = copied;
        let mut rules = self.rules_mut();
        let mode = rules.mode();
        if !tiers.is_empty() {
            rules.change(Some(tiers), mode);
        }
        rules.set_names(names);
        let mut records = Vec::with_capacity(keys.len() + self.fixed.len());
        for fixed in self.fixed.values() {
            let rule = rules.of_fixed(fixed);
            rules.set(fixed.record.id.0, Some(rule));
            records.extend(rules.resolve(&fixed.record, &rule));
        }
        for (record, rule) in keys {
            if !self.is_fixed(record.id.0, &record.hash) {
                rules.set(record.id.0, Some(rule));
                records.extend(rules.resolve(&record, &rule));
            }
        }
        drop(rules);
        let stored = records.len().saturating_sub(self.fixed.len());
        if stored > 0 {
            tracing::info!(keys = stored, "serving the last good copy of the keys until the database has been read");
        }
        self.keys.send_replace(Arc::new(KeyDirectory::build(records, None, self.shards)));
    }

    fn is_fixed(&self, id: u32, hash: &[u8; 32]) -> bool {
        self.fixed_ids.contains(&id) || self.fixed_hashes.contains(hash)
    }

    /// What a row says; `None` where a key of the settings file has its number or its text.
    pub(super) fn news(&self, row: &KeyRow) -> Option<News> {
        let now_ms = clock::now().wall_ms;
        if self.is_fixed(row.id, &row.hash) {
            if KeyState::of(row, now_ms) == KeyState::Active {
                tracing::warn!(
                    key_id = row.id,
                    "the settings file has a key of this number or text: the stored one is not used"
                );
            }
            return None;
        }
        // Whoever is revoked is so by any clock.
        let is_over = row.expires_time_ms.is_some_and(|time| is_long_over(time, now_ms));
        let key = (row.revoked_time_ms.is_none() && !is_over).then(|| {
            let record = KeyRecord {
                id: KeyId(row.id),
                hash: row.hash,
                limit_per_second: 1,
                expires_at_ms: row.expires_time_ms.unwrap_or(0),
                permissions: Permissions::default(),
                udp_secret: row.udp_secret,
                rank: 0,
            };
            (record, self.rules_mut().of_row(row))
        });
        Some(News { id: row.id, change: row.change, key })
    }

    /// Takes over rows that this node changed (`since` `None`), or read when all up to `since` had been followed. Answers
    /// whether all were taken: a row that may be older than what is in force by now is left.
    pub(super) fn apply_own(&self, line: &mut Line, rows: &[KeyRow], since: Option<i64>) -> bool {
        let seen = self.standing.seen();
        let is_newest = |row: &&KeyRow| row.change > seen || since == Some(seen);
        let rows: Vec<_> =
            rows.iter().map(|row| (row, is_newest(&row) && !line.is_overtaken(row.id, row.change))).collect();
        let mut news = Vec::with_capacity(rows.len());
        for (row, _) in rows.iter().filter(|(_, is_taken)| *is_taken) {
            if row.change > seen {
                line.ahead.insert(row.id, row.change);
            }
            self.release(row.id);
            news.extend(self.news(row));
        }
        self.apply_to(line, news);
        rows.iter().all(|(_, is_taken)| *is_taken)
    }

    /// Takes over what the store says has changed, up to change `seen`.
    pub(super) fn apply(&self, line: &mut Line, news: Vec<News>, seen: i64) {
        self.apply_to(line, news);
        self.follow_to(line, self.standing.seen().max(seen));
    }

    fn follow_to(&self, line: &mut Line, seen: i64) {
        self.standing.set_seen(seen);
        line.ahead.retain(|_, change| *change > seen);
    }

    /// There is no such key any more.
    pub(super) fn remove(&self, line: &mut Line, id: u32) {
        self.release(id);
        self.apply_to(line, vec![News { id, change: i64::MAX, key: None }]);
    }

    /// Refuses a key on every shard at once, until it has been read anew. One that nobody knows need not be.
    pub(super) fn hold(&self, id: u32) {
        let keys = self.current();
        let mut held = self.standing.held();
        if keys.refuse(KeyId(id)) && held.insert(id) {
            self.standing.count_holds();
        }
    }

    /// The key's row has been read: what it says holds.
    fn release(&self, id: u32) {
        if self.standing.held().remove(&id) {
            self.standing.count_holds();
        }
    }

    /// Takes back that keys are refused, but for those that are held meanwhile.
    fn admit(&self, keys: &KeyDirectory, ids: &[KeyId]) {
        for chunk in ids.chunks(CHUNK) {
            let held = self.standing.held();
            for id in chunk.iter().filter(|id| !held.contains(&id.0)) {
                keys.admit_again(*id);
            }
        }
    }

    fn apply_to(&self, line: &Line, mut news: Vec<News>) {
        // What was read before this node changed it itself is no news.
        news.retain(|news| !line.is_overtaken(news.id, news.change));
        let present = self.current();
        let mut amendments = Vec::new();
        let mut admitted = Vec::new();
        let mut news = news.into_iter().peekable();
        while news.peek().is_some() {
            let mut rules = self.rules_mut();
            for News { id, key, .. } in news.by_ref().take(CHUNK) {
                rules.set(id, key.as_ref().map(|(_, rule)| *rule));
                let record = key.and_then(|(record, rule)| rules.resolve(&record, &rule));
                admitted.extend(record.as_ref().map(|record| record.id));
                amendments.extend(amendment(&present, id, record));
            }
        }
        // Whoever is revoked is refused before the shards have taken the next directory.
        for amendment in &amendments {
            if let Amendment::Remove(id) = amendment {
                present.refuse(*id);
            }
        }
        let keys = if amendments.is_empty() { present } else { self.publish(present.amend(amendments)) };
        self.admit(&keys, &admitted);
        let left_out = admitted.iter().filter(|id| keys.find_id(**id).is_none()).count();
        if left_out > 0 {
            tracing::error!(left_out, "more keys than a node can know, or two of one text: the later ones do not work");
        }
    }

    /// Takes over the whole store: who is not in `news` is gone, unless this node has changed it meanwhile.
    pub(super) fn replace_all(&self, line: &mut Line, news: Vec<News>, seen: i64) {
        let present = self.current();
        let mut stored: HashMap<u32, News> = news.into_iter().map(|news| (news.id, news)).collect();
        let mut news: Vec<News> = present
            .records()
            .filter(|record| !self.fixed_ids.contains(&record.id.0) && !stored.contains_key(&record.id.0))
            .map(|record| News { id: record.id.0, change: 0, key: None })
            .collect();
        // Who does not work and is not in force is no news.
        stored.retain(|id, news| news.key.is_some() || present.find_id(KeyId(*id)).is_some());
        news.extend(stored.into_values());
        if news.len() > AMEND_MAX {
            self.build_anew(line, &present, news);
        } else {
            self.apply_to(line, news);
        }
        self.follow_to(line, seen);
        self.standing.set_loaded(true);
    }

    /// As [`KeyDesk::apply_to`], for so much that a new large part costs less. Changes wait meanwhile: a second for a
    /// million keys.
    fn build_anew(&self, line: &Line, present: &Keys, mut news: Vec<News>) {
        news.retain(|news| !line.is_overtaken(news.id, news.change));
        let changed: BTreeSet<u32> = news.iter().map(|news| news.id).collect();
        let unchanged = present.records().filter(|record| !changed.contains(&record.id.0));
        let mut records: Vec<KeyRecord> = unchanged.cloned().collect();
        for chunk in news.chunks(CHUNK) {
            let mut rules = self.rules_mut();
            for News { id, key, .. } in chunk {
                rules.set(*id, key.as_ref().map(|(_, rule)| *rule));
                records.extend(key.as_ref().and_then(|(record, rule)| rules.resolve(record, rule)));
            }
        }
        for id in news.iter().filter(|news| news.key.is_none()).map(|news| KeyId(news.id)) {
            present.refuse(id);
        }
        let keys = self.publish(KeyDirectory::build(records, Some(present), self.shards));
        let admitted: Vec<KeyId> = news.iter().filter(|news| news.key.is_some()).map(|news| KeyId(news.id)).collect();
        self.admit(&keys, &admitted);
    }

    /// Builds a new large part of the present keys, resolved by the present rules, without holding up any change.
    pub(super) async fn rebuild(self: Arc<Self>) {
        let desk = Arc::clone(&self);
        let Some((built, snapshot)) = self.blocking(move || desk.built()).await else { return };
        self.in_line(move |desk, _| match built.catch_up(&snapshot, &desk.current()) {
            Some(next) => drop(desk.publish(next)),
            None => desk.standing.lose_merge(),
        })
        .await;
    }

    /// A new large part, and of which directory. Keys whose time has long been over are left out.
    fn built(&self) -> (KeyDirectory, Keys) {
        let snapshot = self.current();
        let now_ms = clock::now().wall_ms;
        let mut records = Vec::with_capacity(snapshot.len());
        let mut present = snapshot.records().peekable();
        while present.peek().is_some() {
            let rules = self.rules();
            let alive = |record: &&KeyRecord| record.expires_at_ms == 0 || !is_long_over(record.expires_at_ms, now_ms);
            let resolve = |record: &KeyRecord| rules.resolve(record, rules.get(record.id.0)?);
            records.extend(present.by_ref().take(CHUNK).filter(alive).filter_map(resolve));
        }
        drop(present);
        (KeyDirectory::build(records, Some(&snapshot), self.shards), snapshot)
    }

    fn publish(&self, next: KeyDirectory) -> Keys {
        let next = Arc::new(next);
        self.standing.count_published();
        let told = self.told();
        self.keys.send_replace(Arc::clone(&next));
        if let Some(orders) = &*told {
            orders.shards(&ShardCommand::Keys(Arc::clone(&next)));
        }
        next
    }

    /// Writes the copy of the stored keys.
    pub(super) async fn write_copy(self: Arc<Self>) {
        let turn = Arc::clone(&self.copying).lock_owned().await;
        let desk = Arc::clone(&self);
        self.blocking(move || {
            desk.replace_copy();
            drop(turn);
        })
        .await;
    }

    fn replace_copy(&self) {
        let Some(path) = &self.copy else { return };
        self.standing.begin_copy();
        let written = copy::encode(&self.copied()).and_then(|bytes| private_file::replace(path, &bytes));
        if let Err(fault) = written {
            tracing::warn!(%fault, path = %path.display(), "the copy of the keys cannot be written: check TB_DATA_DIR");
        }
    }

    /// The stored keys, but for those that are refused: who starts from the copy must not admit them.
    fn copied(&self) -> Copied {
        let snapshot = self.current();
        let mut keys = Vec::with_capacity(snapshot.len());
        let mut present = snapshot.records().peekable();
        while present.peek().is_some() {
            let rules = self.rules();
            let stored =
                |record: &&KeyRecord| !self.fixed_ids.contains(&record.id.0) && !snapshot.is_refused(record.id);
            let ruled = |record: &KeyRecord| Some((record.clone(), *rules.get(record.id.0)?));
            keys.extend(present.by_ref().take(CHUNK).filter(stored).filter_map(ruled));
        }
        // Names are only ever added: these are those of all rules above.
        let rules = self.rules();
        Copied { tiers: rules.tiers().to_vec(), names: rules.names().to_vec(), keys }
    }
}

/// Whether a time that is over by any clock has come.
const fn is_long_over(time_ms: u64, now_ms: u64) -> bool {
    time_ms.saturating_add(OVER_KEPT_MS) <= now_ms
}

/// What makes `id` be as `record`; nothing where it is so.
fn amendment(present: &KeyDirectory, id: u32, record: Option<KeyRecord>) -> Option<Amendment> {
    match (present.find_id(KeyId(id)), record) {
        (Some(now), Some(record)) if *now == record => None,
        (_, Some(record)) => Some(Amendment::Put(record)),
        (Some(_), None) => Some(Amendment::Remove(KeyId(id))),
        (None, None) => None,
    }
}
