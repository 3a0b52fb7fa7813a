//! The key desk: every key of this node, from the settings file and the store, as one directory that everybody watches.
//!
//! A change made here is in force at once on this node's shards; one made elsewhere is found by the pulse. Without the
//! store nothing can be changed, and everything that is known goes on working. How a directory is made is in `book`, when
//! in `follow`, and what a start waits for in `first`; what a price read asks of it is not known here.

mod book;
mod first;
mod follow;
mod mirror;
mod standing;
mod status;

#[cfg(test)]
mod tests;

use self::book::TheLine;
use self::first::FirstRead;
use self::standing::Standing;
use super::copy;
use super::issue::{Issued, Issuer, ListWish, list};
use super::pulse::Beat;
use super::rules::{FixedKey, Rules, first_tiers};
use super::wish::KeyWish;
use crate::cache::Cache;
use crate::orders::Orders;
use crate::params::SystemMode;
use crate::store::{AuditEntry, KeyRow, Store, StoreError, Stored, TierRow};
use dataplane_core::access::{KeyDirectory, Keys};
use dataplane_core::command::ShardCommand;
use shared::key::{KeyId, KeyRecord};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{self, Arc, PoisonError, RwLock};
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;
use tuning::clock;

/// Times that a key is read until nothing overtakes it: each means that the pulse brought changes during one look-up.
const READ_TRIES: usize = 4;

/// What a desk is made of.
pub struct DeskSetup {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The cache, for programs beside this one.
    pub cache: Arc<dyn Cache>,
    /// This node's name.
    pub node: String,
    /// Shards that will take leases.
    pub shards: usize,
    /// Keys that do not come from the store. Of two with one number or one text the first counts.
    pub fixed: Vec<FixedKey>,
    /// The mode at start.
    pub mode: SystemMode,
    /// Where the last good copy of the stored keys is kept; `None`: nowhere.
    pub data_dir: Option<PathBuf>,
}

/// The desk.
pub struct KeyDesk {
    store: Arc<dyn Store>,
    cache: Arc<dyn Cache>,
    node: String,
    shards: usize,
    fixed: BTreeMap<u32, FixedKey>,
    fixed_ids: HashSet<u32>,
    fixed_hashes: HashSet<[u8; 32]>,
    /// Locked for a chunk of keys at most, and nothing else is locked under it.
    rules: RwLock<Rules>,
    keys: watch::Sender<Keys>,
    beats: watch::Sender<Beat>,
    /// Who is told of directories; held while one comes into force, so that nobody misses one or is told an older one last.
    orders: sync::Mutex<Option<Arc<dyn Orders>>>,
    first: FirstRead,
    line: TheLine,
    standing: Standing,
    copy: Option<PathBuf>,
    /// Held by whoever writes the copy.
    copying: Arc<Mutex<()>>,
}

/// What became of a key that was to be read anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidated {
    /// It works, as it is stored now.
    Works,
    /// It does not work: revoked, expired, or of no tier.
    WorksNot,
    /// The store cannot be asked: the key is refused until it can.
    Held(StoreError),
}

/// What the desk counts, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeskCounters {
    /// Keys in force.
    pub keys: usize,
    /// Of these, changed since the directory's large part was built.
    pub changed: usize,
    /// Whether the store's keys have been read whole since start.
    pub loaded: bool,
    /// Directories published since start.
    pub published: u64,
    /// Whether the store answered the last time it was asked for its pulse.
    pub store_is_there: bool,
    /// Pulses that were not answered since start.
    pub pulse_failures: u64,
}

impl KeyDesk {
    /// A desk with the fixed keys and those of the last good copy, if there is one. Blocks: a second for a million keys.
    #[must_use]
    pub fn new(setup: DeskSetup) -> Arc<Self> {
        let DeskSetup { store, cache, node, shards, fixed, mode, data_dir } = setup;
        let mut desk = Self {
            store,
            cache,
            node,
            shards,
            fixed: BTreeMap::new(),
            fixed_ids: HashSet::new(),
            fixed_hashes: HashSet::new(),
            rules: RwLock::new(Rules::new(first_tiers(), mode)),
            keys: watch::Sender::new(Arc::new(KeyDirectory::default())),
            beats: watch::Sender::new(Beat::default()),
            orders: sync::Mutex::default(),
            first: FirstRead::default(),
            line: TheLine::default(),
            standing: Standing::default(),
            copy: data_dir.map(|data_dir| data_dir.join(copy::FILE_NAME)),
            copying: Arc::default(),
        };
        for key in fixed {
            let is_new = !desk.fixed.contains_key(&key.record.id.0) && desk.fixed_hashes.insert(key.record.hash);
            if is_new {
                desk.fixed_ids.insert(key.record.id.0);
                desk.fixed.insert(key.record.id.0, key);
            }
        }
        desk.begin();
        Arc::new(desk)
    }

    /// Tells shards of every directory from now on, and of the present one if they were `started_with` another.
    pub fn attach(&self, orders: Arc<dyn Orders>, started_with: &Keys) {
        let mut told = self.told();
        let present = self.current();
        if !Arc::ptr_eq(&present, started_with) {
            orders.shards(&ShardCommand::Keys(present));
        }
        *told = Some(orders);
    }

    /// The directory in force.
    #[must_use]
    pub fn current(&self) -> Keys {
        Arc::clone(&self.keys.borrow())
    }

    /// Every directory as it comes into force.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Keys> {
        self.keys.subscribe()
    }

    /// What the pulse says, each time.
    #[must_use]
    pub fn beats(&self) -> watch::Receiver<Beat> {
        self.beats.subscribe()
    }

    /// The tiers in force.
    #[must_use]
    pub fn tiers(&self) -> Vec<TierRow> {
        self.rules().tiers().to_vec()
    }

    /// Requests per calendar month that a key may make; 0: no bound.
    #[must_use]
    pub fn limit_per_month(&self, id: KeyId) -> u64 {
        self.rules().limit_per_month(id)
    }

    /// Name of the key's tier; `None` where it has none.
    #[must_use]
    pub fn tier(&self, id: KeyId) -> Option<String> {
        let rules = self.rules();
        rules.get(id.0).and_then(|rule| rules.tier_name(rule)).map(str::to_owned)
    }

    /// What it counts.
    #[must_use]
    pub fn counters(&self) -> DeskCounters {
        let keys = self.current();
        let beat = self.beats.borrow();
        DeskCounters {
            keys: keys.len(),
            changed: keys.changed(),
            loaded: self.standing.is_loaded(),
            published: self.standing.published(),
            store_is_there: beat.is_there(),
            pulse_failures: beat.failures,
        }
    }

    /// Makes a key; it works when this answers.
    ///
    /// # Errors
    /// Those of the store; nothing is changed then, unless it could not say whether it was.
    pub async fn create(self: &Arc<Self>, wish: KeyWish, caller: &'static str) -> Stored<Issued> {
        let desk = Arc::clone(self);
        whole(async move {
            let issued = desk.issuer(caller).create(&wish, clock::now().wall_ms).await?;
            desk.take_over(vec![issued.row.clone()], None).await;
            Ok(issued)
        })
        .await
    }

    /// Makes a key in place of another, which works on for `overlap_ms`.
    ///
    /// # Errors
    /// See [`Issuer::rotate`].
    pub async fn rotate(self: &Arc<Self>, id: u32, overlap_ms: u64, caller: &'static str) -> Stored<(Issued, KeyRow)> {
        let desk = Arc::clone(self);
        whole(async move {
            let (issued, old) = desk.issuer(caller).rotate(id, overlap_ms, clock::now().wall_ms).await?;
            desk.take_over(vec![issued.row.clone(), old.clone()], None).await;
            Ok((issued, old))
        })
        .await
    }

    /// Revokes a key: refused on every shard of this node when this answers.
    ///
    /// # Errors
    /// See [`Issuer::revoke`].
    pub async fn revoke(self: &Arc<Self>, id: u32, caller: &'static str) -> Stored<KeyRow> {
        let desk = Arc::clone(self);
        whole(async move {
            let row = desk.issuer(caller).revoke(id, clock::now().wall_ms).await?;
            if !desk.fixed_ids.contains(&id) {
                desk.hold(id);
                desk.forget(id).await;
            }
            desk.take_over(vec![row.clone()], None).await;
            Ok(row)
        })
        .await
    }

    /// Stored keys by number, and where to go on.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self, wish: &ListWish) -> Stored<(Vec<KeyRow>, Option<u32>)> {
        list(&*self.store, wish, clock::now().wall_ms).await
    }

    /// Whether a key stands in the settings file.
    #[must_use]
    pub fn is_fixed_id(&self, id: u32) -> bool {
        self.fixed_ids.contains(&id)
    }

    /// Drops a key from the cache and from every shard at once, and reads it anew. `None`: nobody knows it.
    ///
    /// # Errors
    /// Those of the store, for a key that this node does not know.
    pub async fn invalidate(self: &Arc<Self>, id: u32, caller: &'static str) -> Stored<Option<Invalidated>> {
        let desk = Arc::clone(self);
        whole(async move {
            let is_fixed = desk.fixed_ids.contains(&id);
            if !is_fixed {
                desk.hold(id);
            }
            desk.forget(id).await;
            let known = desk.current().find_id(KeyId(id)).is_some();
            if known {
                desk.note_invalidation(id, caller).await;
            }
            if is_fixed {
                // It stands as the settings file says, which was read at start.
                return Ok(Some(Invalidated::Works));
            }
            match desk.read_anew(id).await {
                Ok(true) => {
                    let now_ms = clock::now().wall_ms;
                    let is_over = |record: &KeyRecord| (1..=now_ms).contains(&record.expires_at_ms);
                    let works = desk.current().find_id(KeyId(id)).is_some_and(|record| !is_over(record));
                    Ok(Some(if works { Invalidated::Works } else { Invalidated::WorksNot }))
                }
                Ok(false) => Ok(known.then_some(Invalidated::WorksNot)),
                Err(why) if !known => Err(why),
                Err(why) => Ok(Some(Invalidated::Held(why))),
            }
        })
        .await
    }

    /// Reads a key and takes it over as it is stored; whether it is. One that is overtaken by what is followed meanwhile is
    /// read again, for that may be newer.
    async fn read_anew(self: &Arc<Self>, id: u32) -> Stored<bool> {
        for _ in 0..READ_TRIES {
            let since = self.standing.seen();
            let Some(row) = self.store.key(id).await? else {
                self.in_line(move |desk, line| desk.remove(line, id)).await;
                return Ok(false);
            };
            if self.take_over(vec![row], Some(since)).await {
                return Ok(true);
            }
        }
        Err(StoreError::Conflict(format!("key {id} was overtaken by other changes: ask again")))
    }

    /// An audit row of what changes nothing that is stored.
    fn entry(&self, action: &str, target: String, caller: &str) -> AuditEntry {
        AuditEntry {
            time_ms: clock::now().wall_ms,
            node: self.node.clone(),
            caller: caller.to_owned(),
            action: action.to_owned(),
            target,
            before: "null".to_owned(),
            after: "null".to_owned(),
        }
    }

    /// A key is invalidated whether the store takes the audit row or not: refusing must always be possible.
    async fn note_invalidation(&self, id: u32, caller: &'static str) {
        let entry = self.entry("key.invalidate", id.to_string(), caller);
        if let Err(why) = self.store.audit(&entry).await {
            tracing::warn!(key_id = id, caller, %why, "a key was invalidated, and its audit row is missing");
        }
    }

    fn issuer(&self, caller: &'static str) -> Issuer<'_> {
        Issuer { store: &*self.store, node: &self.node, caller, taken: &self.fixed_ids }
    }

    /// Takes rows into force that this node has just changed, or read when all up to `since` had been followed; whether
    /// none was overtaken.
    async fn take_over(self: &Arc<Self>, rows: Vec<KeyRow>, since: Option<i64>) -> bool {
        let ids: Vec<u32> = rows.iter().map(|row| row.id).collect();
        let taken = self.in_line(move |desk, line| desk.apply_own(line, &rows, since)).await;
        self.mirror(&ids).await;
        taken.unwrap_or(false)
    }

    /// Does what takes long in a blocking thread; `None`: it failed.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        spawn_blocking(work)
            .await
            .inspect_err(|fault| {
                if fault.is_panic() {
                    tracing::error!("making a key directory failed, which is a bug: the one before stays in force");
                }
            })
            .ok()
    }

    /// Writes the copy, if it is not as the keys stand: the last thing before the process ends.
    pub async fn close(self: &Arc<Self>) {
        if self.copy.is_some() && self.standing.is_copy_due() {
            Arc::clone(self).write_copy().await;
        }
    }

    fn told(&self) -> sync::MutexGuard<'_, Option<Arc<dyn Orders>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules(&self) -> sync::RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn rules_mut(&self) -> sync::RwLockWriteGuard<'_, Rules> {
        self.rules.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries work through in a task of its own: whoever asked for it may go away in between.
async fn whole<T: Send + 'static>(work: impl Future<Output = Stored<T>> + Send + 'static) -> Stored<T> {
    let ended = tokio::spawn(work).await;
    ended.unwrap_or_else(|_| Err(StoreError::Unreachable("the process is stopping".to_owned())))
}
