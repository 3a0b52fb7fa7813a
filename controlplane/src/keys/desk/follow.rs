//! When the desk looks into the store, and when it builds anew: its one background task.

use super::super::pulse::{self, Beat, OnReloads};
use super::KeyDesk;
use super::book::AMEND_MAX;
use crate::params::Parameters;
use crate::store::{KeyRow, PAGE_MAX, Stored, TierRow};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// Changed keys beyond which the large part of the directory is built anew, in the background. Amending so many takes a
/// millisecond or two.
const MERGE_AT: usize = 2_048;

/// Keys to be read anew that are asked for with one beat.
const HELD_PER_BEAT: usize = 64;

/// Followed changes that are written to the cache at a time; a larger wave is left to what is used.
const MIRRORED_MAX: usize = PAGE_MAX;

/// Least time between two copies, and what is added for each key: of a million keys one is written every 25 s, which
/// keeps a disk busy for a fiftieth of its time.
const COPY_EVERY: Duration = Duration::from_secs(5);
const COPY_PER_KEY: Duration = Duration::from_micros(20);

/// What the task remembers.
struct Following {
    building: Option<JoinHandle<()>>,
    /// Whether tiers or mode have changed since the last build was begun.
    is_stale: bool,
    copying: Option<JoinHandle<()>>,
    copy_not_before: Instant,
}

impl Following {
    /// Waits for a build that is under way.
    async fn end_building(&mut self) {
        if let Some(building) = self.building.take() {
            // A build that panicked has published nothing.
            let _ = building.await;
        }
    }
}

/// Follows the store and the mode, and tells whoever waits for the first reading.
async fn follow(desk: Arc<KeyDesk>, mut parameters: watch::Receiver<Arc<Parameters>>) {
    let mut beats = desk.beats();
    let mut following = Following { building: None, is_stale: false, copying: None, copy_not_before: Instant::now() };
    loop {
        tokio::select! {
            beat = beats.changed() => if beat.is_err() { return },
            mode = parameters.changed() => if mode.is_err() { return },
        }
        let mode = parameters.borrow_and_update().mode;
        if desk.rules().mode() != mode {
            following.is_stale |= desk.rules_mut().change(None, mode);
        }
        let beat = beats.borrow_and_update().clone();
        // The pulse says in the log when the store is away; what was not read now is read with a later beat.
        if let Err(why) = desk.take_beat(&beat, &mut following).await {
            tracing::debug!("the keys were not read: {why}");
        }
        desk.keep_up(&mut following);
        if beat.count > 0 && !desk.first.is_done() {
            let is_read = desk.standing.is_loaded();
            if is_read {
                // Other tiers than those of the start: the keys that were there are by them from here on.
                following.end_building().await;
            }
            desk.first.tried(is_read);
        }
    }
}

impl KeyDesk {
    /// Starts what the desk does in the background: pulse and following. Dropping the set ends it.
    #[must_use]
    pub fn run(self: &Arc<Self>, parameters: watch::Receiver<Arc<Parameters>>, on_reloads: OnReloads) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(pulse::run(Arc::clone(&self.store), on_reloads, self.beats.clone()));
        tasks.spawn(follow(Arc::clone(self), parameters));
        tasks
    }

    /// Reads what has changed up to `pulse`. Where that is everything, a large part may be put in force, which must not
    /// meet one that is being built.
    async fn catch_up(self: &Arc<Self>, pulse: i64, following: &mut Following) -> Stored<()> {
        let mut seen = self.standing.seen();
        // Numbers that went back are another database, or an older state of this one.
        if !self.standing.is_loaded() || pulse < seen {
            following.end_building().await;
            return self.load(pulse, following).await;
        }
        let mut changed = 0;
        while seen < pulse {
            let page = self.store.keys_changed(seen, PAGE_MAX).await?;
            let is_last = page.len() < PAGE_MAX;
            changed += page.len();
            if changed > AMEND_MAX {
                following.end_building().await;
                return self.load(pulse, following).await;
            }
            seen = if is_last { pulse } else { page.last().map_or(pulse, |row| row.change) };
            // What is above the pulse comes again with the next one: numbers seem to go back otherwise.
            self.take_page(page, seen.min(pulse)).await;
        }
        Ok(())
    }

    async fn take_page(self: &Arc<Self>, page: Vec<KeyRow>, seen: i64) {
        let ids: Vec<u32> = page.iter().map(|row| row.id).collect();
        self.in_line(move |desk, line| {
            let news = page.iter().filter_map(|row| desk.news(row)).collect();
            desk.apply(line, news, seen);
        })
        .await;
        if ids.len() < MIRRORED_MAX {
            // The cache is for others: nobody waits for it here.
            let desk = Arc::clone(self);
            tokio::spawn(async move { desk.mirror(&ids).await });
        }
    }

    /// Reads everything.
    async fn load(self: &Arc<Self>, pulse: i64, following: &mut Following) -> Stored<()> {
        let began = Instant::now();
        let tiers = self.store.tiers().await?;
        let (mut news, mut seen) = (Vec::new(), 0);
        loop {
            let page = self.store.keys_changed(seen, PAGE_MAX).await?;
            news.extend(page.iter().filter_map(|row| self.news(row)));
            seen = page.last().map_or(seen, |row| row.change);
            if page.len() < PAGE_MAX {
                break;
            }
        }
        following.is_stale |= self.take_tiers(tiers);
        self.in_line(move |desk, line| desk.replace_all(line, news, pulse)).await;
        let keys = self.current().len();
        tracing::info!(keys, took_ms = began.elapsed().as_millis(), "the keys have been read from the database");
        Ok(())
    }

    /// Whether any key may be another by these tiers.
    fn take_tiers(&self, tiers: Vec<TierRow>) -> bool {
        let mut rules = self.rules_mut();
        let mode = rules.mode();
        rules.change(Some(tiers), mode)
    }

    /// Reads anew who was to be, while the store could not be asked.
    async fn read_held(self: &Arc<Self>) -> Stored<()> {
        let held: Vec<u32> = self.standing.held().iter().copied().take(HELD_PER_BEAT).collect();
        for id in held {
            self.read_anew(id).await?;
        }
        Ok(())
    }

    async fn take_beat(self: &Arc<Self>, beat: &Beat, following: &mut Following) -> Stored<()> {
        let Some(pulse) = beat.pulse.filter(|_| beat.is_there()) else { return Ok(()) };
        if pulse.keys != self.standing.seen() || !self.standing.is_loaded() {
            let tiers = self.store.tiers().await?;
            // A key whose tier there was not is in no directory: only the store has it.
            let is_whole = self.rules().len() <= self.current().len();
            if self.take_tiers(tiers) {
                following.is_stale = true;
                if !is_whole {
                    self.standing.set_loaded(false);
                }
            }
            self.catch_up(pulse.keys, following).await?;
        }
        self.read_held().await
    }

    /// Begins what is due and not under way.
    fn keep_up(self: &Arc<Self>, following: &mut Following) {
        following.building.take_if(|building| building.is_finished());
        following.is_stale |= self.standing.take_merge_lost();
        if following.building.is_none() && (following.is_stale || self.current().changed() > MERGE_AT) {
            following.is_stale = false;
            following.building = Some(tokio::spawn(Arc::clone(self).rebuild()));
        }
        let due = self.copy.is_some() && self.standing.is_copy_due();
        let idle = following.copying.as_ref().is_none_or(JoinHandle::is_finished);
        if due && idle && Instant::now() >= following.copy_not_before {
            let keys = u32::try_from(self.current().len()).unwrap_or(u32::MAX);
            following.copy_not_before = Instant::now() + COPY_EVERY + COPY_PER_KEY * keys;
            following.copying = Some(tokio::spawn(Arc::clone(self).write_copy()));
        }
    }
}
