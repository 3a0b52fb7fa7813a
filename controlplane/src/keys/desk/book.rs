//! How one directory follows from the one before: rows in, amendments out, published in order.
//!
//! Everything here blocks and runs off the runtime. Whoever calls has already been to the store.

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
use tuning::clock;

/// Changes that are amended at a time; of more a directory is built anew. Amending so many takes a tenth of the second
/// that a change may take.
pub(super) const AMEND_MAX: usize = 50_000;

/// Keys resolved under one hold of the rules: well under a millisecond.
const CHUNK: usize = 1_024;

/// What is known of the store, and what is special about some keys.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Highest change that has been taken over.
    pub(super) seen: i64,
    /// Whether every stored key has been read.
    pub(super) loaded: bool,
    /// Keys to be read anew as soon as the store answers. At most as many as there are keys.
    pub(super) held: BTreeSet<u32>,
    /// Changes made through this node that are above `seen`, by key.
    pub(super) ahead: BTreeMap<u32, i64>,
    /// Directories published.
    pub(super) published: u64,
    /// Whether a large part that was built was of no use, because another had been put in force meanwhile.
    pub(super) is_merge_lost: bool,
}

/// A stored key as it is to be.
pub(super) struct News {
    id: u32,
    change: i64,
    /// Its record, to be resolved, and its rule; `None`: it does not work.
    key: Option<(KeyRecord, Rule)>,
}

impl KeyDesk {
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
        let active = KeyState::of(row, clock::now().wall_ms) == KeyState::Active;
        if self.is_fixed(row.id, &row.hash) {
            if active {
                tracing::warn!(
                    key_id = row.id,
                    "the settings file has a key of this number or text: the stored one is not used"
                );
            }
            return None;
        }
        let key = active.then(|| {
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

    /// Takes over what this node changed itself.
    pub(super) fn apply_own(&self, rows: &[KeyRow]) {
        let mut line = self.line();
        for row in rows {
            line.ahead.insert(row.id, row.change);
        }
        let news = rows.iter().filter_map(|row| self.news(row)).collect();
        self.apply_to(&mut line, news);
    }

    /// Takes over what the store says has changed, up to change `seen`.
    pub(super) fn apply(&self, news: Vec<News>, seen: i64) {
        let mut line = self.line();
        self.apply_to(&mut line, news);
        line.seen = line.seen.max(seen);
        let seen = line.seen;
        line.ahead.retain(|_, change| *change > seen);
    }

    /// There is no such key any more.
    pub(super) fn remove(&self, id: u32) {
        let mut line = self.line();
        self.apply_to(&mut line, vec![News { id, change: i64::MAX, key: None }]);
    }

    fn apply_to(&self, line: &mut Line, mut news: Vec<News>) {
        // What was read before this node changed it itself is no news.
        news.retain(|news| line.ahead.get(&news.id).is_none_or(|change| *change <= news.change));
        let present = self.current();
        let mut amendments = Vec::new();
        let mut admitted = Vec::new();
        let mut rules = self.rules_mut();
        for News { id, key, .. } in news {
            line.held.remove(&id);
            rules.set(id, key.as_ref().map(|(_, rule)| *rule));
            let record = key.and_then(|(record, rule)| rules.resolve(&record, &rule));
            admitted.extend(record.as_ref().map(|record| record.id));
            amendments.extend(amendment(&present, id, record));
        }
        drop(rules);
        // Whoever is revoked is refused before the shards have taken the next directory.
        for amendment in &amendments {
            if let Amendment::Remove(id) = amendment {
                present.refuse(*id);
            }
        }
        let keys = if amendments.is_empty() { present } else { self.publish(line, present.amend(amendments)) };
        for id in &admitted {
            keys.admit_again(*id);
        }
        let left_out = admitted.iter().filter(|id| keys.find_id(**id).is_none()).count();
        if left_out > 0 {
            tracing::error!(left_out, "more keys than a node can know, or two of one text: the later ones do not work");
        }
    }

    /// Takes over the whole store: who is not in `news` is gone, unless this node has changed it meanwhile.
    pub(super) fn replace_all(&self, news: Vec<News>, seen: i64) {
        let mut line = self.line();
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
            self.build_anew(&mut line, &present, news);
        } else {
            self.apply_to(&mut line, news);
        }
        (line.seen, line.loaded) = (seen, true);
        line.ahead.retain(|_, change| *change > seen);
    }

    /// As [`KeyDesk::apply_to`], for so much that a new large part costs less. Changes wait meanwhile: a second for a
    /// million keys.
    fn build_anew(&self, line: &mut Line, present: &Keys, mut news: Vec<News>) {
        news.retain(|news| line.ahead.get(&news.id).is_none_or(|change| *change <= news.change));
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
        line.held.clear();
        let keys = self.publish(line, KeyDirectory::build(records, Some(present), self.shards));
        for id in changed {
            keys.admit_again(KeyId(id));
        }
    }

    /// Builds a new large part of the present keys, resolved by the present rules, without holding up any change. Keys
    /// whose time is over are left out.
    pub(super) fn rebuild(&self) {
        let snapshot = self.current();
        let now_ms = clock::now().wall_ms;
        let mut records = Vec::with_capacity(snapshot.len());
        let mut present = snapshot.records().peekable();
        while present.peek().is_some() {
            let rules = self.rules();
            let alive = |record: &&KeyRecord| record.expires_at_ms == 0 || record.expires_at_ms > now_ms;
            let resolve = |record: &KeyRecord| rules.resolve(record, rules.get(record.id.0)?);
            records.extend(present.by_ref().take(CHUNK).filter(alive).filter_map(resolve));
        }
        drop(present);
        let built = KeyDirectory::build(records, Some(&snapshot), self.shards);
        let mut line = self.line();
        match built.catch_up(&snapshot, &self.current()) {
            Some(next) => drop(self.publish(&mut line, next)),
            None => line.is_merge_lost = true,
        }
    }

    fn publish(&self, line: &mut Line, next: KeyDirectory) -> Keys {
        let next = Arc::new(next);
        line.published += 1;
        self.keys.send_replace(Arc::clone(&next));
        if let Some(orders) = self.orders.get() {
            orders.shards(&ShardCommand::Keys(Arc::clone(&next)));
        }
        next
    }

    /// Writes the copy of the stored keys.
    pub(super) fn write_copy(&self) {
        let Some(path) = &self.copy else { return };
        let keys = self.current();
        let copied = {
            let rules = self.rules();
            let stored = keys.records().filter(|record| !self.fixed_ids.contains(&record.id.0));
            let keys = stored.filter_map(|record| Some((record.clone(), *rules.get(record.id.0)?))).collect();
            Copied { tiers: rules.tiers().to_vec(), names: rules.names().to_vec(), keys }
        };
        let written = copy::encode(&copied).and_then(|bytes| private_file::replace(path, &bytes));
        if let Err(fault) = written {
            tracing::warn!(%fault, path = %path.display(), "the copy of the keys cannot be written: check TB_DATA_DIR");
        }
    }
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
