//! The desk of parameters: what is in force, and whoever wants it changed.
//!
//! At a start the settings are in force, or the last good copy; the store is asked in the background and nothing waits
//! for it. From then on a set is taken over whole or not at all, one at a time, by a reload: here, or on any node,
//! which the store's pulse tells the others. Changing rows and bringing them into force are two things; both validate.

mod outcome;

pub use self::outcome::{Change, DeskCounts, DeskError, Put, Reloaded};

use super::apply::{Hands, bound};
use super::catalogue::{self, Effect};
use super::check::{Base, Checked, MASK, ParameterFault, Rows, Standing, check, stored_form};
use super::last_good::{LastGood, config_fields, rows_of_config};
use super::{Parameters, SystemMode};
use crate::cache::names::{APP_CONFIG, CacheKey};
use crate::cache::{Cache, Value};
use crate::store::{AuditEntry, Store, StoreError, Stored};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// First and longest wait between two looks for a store that is away at start.
const LOOK_FIRST: Duration = Duration::from_millis(250);
const LOOK_LAST: Duration = Duration::from_secs(2);

/// How often it is looked whether the cache still has `app:config`: somebody may have emptied it.
const CONFIG_LOOK: Duration = Duration::from_secs(30);

/// Attempts at a change whose rows were changed by somebody else in between.
const PUT_TRIES: usize = 3;

/// A pulse that no store gives: nothing has been seen of it.
const UNSEEN: i64 = i64::MIN;

/// What a desk is made of.
pub struct DeskSetup<'a> {
    /// Where rows stand.
    pub store: Arc<dyn Store>,
    /// Where `app:config` stands.
    pub cache: Arc<dyn Cache>,
    /// This node's name, for the audit trail.
    pub node: String,
    /// The settings' texts.
    pub base: Base,
    /// Where the last good copy is kept.
    pub data_dir: Option<&'a Path>,
}

/// Where the set in force came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Settings and defaults: the store has not answered yet.
    Settings,
    /// The last good copy on disk.
    LastGoodCopy,
    /// The cache's `app:config`.
    Cache,
    /// The store.
    Store,
}

/// The set in force.
#[derive(Debug)]
pub struct InForce {
    /// Values and texts.
    pub checked: Checked,
    /// Where they came from.
    pub source: Source,
    /// Since when, Unix ms.
    pub since_ms: u64,
}

/// See the module.
pub struct ParameterDesk {
    store: Arc<dyn Store>,
    cache: Arc<dyn Cache>,
    node: String,
    base: Base,
    last_good: LastGood,
    hands: OnceLock<Hands>,
    present: Mutex<Arc<InForce>>,
    force: watch::Sender<Arc<Parameters>>,
    /// `Pulse::reloads` as of the rows that were looked at last.
    seen: AtomicI64,
    /// Whether the cache lacks what is in force.
    config_due: AtomicBool,
    reloads: AtomicU64,
    refused: AtomicU64,
    /// Whoever changes anything has it.
    turn: tokio::sync::Mutex<()>,
}

impl ParameterDesk {
    /// A desk with the last good copy in force, or the settings where there is none. Reads one small file.
    ///
    /// # Errors
    /// Every fault of the settings taken together: more assets than there is room for.
    pub fn new(setup: DeskSetup<'_>) -> Result<Arc<Self>, Vec<ParameterFault>> {
        let DeskSetup { store, cache, node, base, data_dir } = setup;
        let last_good = LastGood::new(data_dir);
        let (checked, source) = first(&last_good, &base)?;
        let force = watch::channel(Arc::new(checked.parameters.clone())).0;
        let since_ms = tuning::clock::now().wall_ms;
        Ok(Arc::new(Self {
            store,
            cache,
            node,
            base,
            last_good,
            hands: OnceLock::new(),
            present: Mutex::new(Arc::new(InForce { checked, source, since_ms })),
            force,
            seen: AtomicI64::new(UNSEEN),
            config_due: AtomicBool::new(false),
            reloads: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            turn: tokio::sync::Mutex::new(()),
        }))
    }

    /// The parameters in force, and every later set.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Parameters>> {
        self.force.subscribe()
    }

    /// The parameters in force.
    #[must_use]
    pub fn current(&self) -> Arc<Parameters> {
        Arc::clone(&self.force.borrow())
    }

    /// The parameters in force with their texts.
    #[must_use]
    pub fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.present.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What reloads have come to.
    #[must_use]
    pub fn counts(&self) -> DeskCounts {
        DeskCounts { reloads: self.reloads.load(Ordering::Relaxed), refused: self.refused.load(Ordering::Relaxed) }
    }

    /// [`check`], counting what is refused.
    fn judge(&self, rows: &Rows) -> Result<Checked, Vec<ParameterFault>> {
        let checked = check(rows, &self.base);
        if checked.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        checked
    }

    /// Takes the store's set into use as soon as it can be had, then keeps `app:config` in the cache; never ends.
    /// `hands` run on what [`current`](Self::current) was when they were made; whatever differs by now is told to them
    /// first.
    pub async fn serve(self: Arc<Self>, hands: Hands, begun_with: Arc<Parameters>) {
        {
            let _turn = self.turn.lock().await;
            bound(&*self.store, &*self.cache, &self.current()).await;
            tell(hands.apply(&begun_with, &self.current()).await);
            // Set once: there is one data plane.
            let _ = self.hands.set(hands);
        }
        self.load().await;
        loop {
            self.keep_config().await;
            sleep(CONFIG_LOOK).await;
        }
    }

    /// Asks the store until it answers. Its outage is told once, and so is its end.
    async fn load(&self) {
        let (mut wait, mut is_away) = (LOOK_FIRST, false);
        loop {
            match self.catch_up(None).await {
                Ok(()) if is_away => return tracing::info!("the store answers; its parameters are looked at"),
                Ok(()) => return,
                Err(_) if is_away => {}
                Err(why) => {
                    is_away = true;
                    self.borrow_from_cache().await;
                    let source = self.in_force().source;
                    tracing::warn!(%why, ?source, "parameters are not from the store yet; it is asked again and again");
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(LOOK_LAST);
        }
    }

    /// Takes over what any node's reload has put in force. To be called with every pulse's `reloads`; it looks at the
    /// store only when that is not what it saw last.
    pub async fn follow(&self, reloads: i64) {
        if self.seen.load(Ordering::Relaxed) == reloads {
            return;
        }
        // The outage is told by whoever asks for the pulse, and the next pulse comes soon.
        let _ = self.catch_up(Some(reloads)).await;
    }

    /// Takes over what the store says now; a set that will not do is told, and what is in force stays.
    /// `news` that was taken over while the turn was waited for is none.
    async fn catch_up(&self, news: Option<i64>) -> Stored<()> {
        let _turn = self.turn.lock().await;
        if news == Some(self.seen.load(Ordering::Relaxed)) {
            return Ok(());
        }
        let (rows, reloads) = self.read().await?;
        match self.judge(&rows) {
            Ok(checked) => {
                let reloaded = self.take_over(&rows, checked, Source::Store).await;
                tell(reloaded.not_applied);
                tracing::info!(changed = reloaded.changed.len(), "parameters are those of the store");
            }
            Err(faults) => {
                let shown: Vec<String> = faults.iter().take(8).map(ToString::to_string).collect();
                let (count, faults) = (faults.len(), shown.join("; "));
                tracing::error!(count, faults, "parameters of the store refused; those before stay in force");
            }
        }
        self.seen.store(reloads, Ordering::Relaxed);
        Ok(())
    }

    /// What the store says, and its pulse from before: what changes after that is seen by the next pulse.
    async fn read(&self) -> Stored<(Rows, i64)> {
        let reloads = self.store.pulse().await?.reloads;
        let (parameters, assets) = (self.store.parameters().await?, self.store.asset_map().await?);
        Ok((Rows { parameters, assets }, reloads))
    }

    /// Uses `app:config` while the store is away. The key in the last good copy, which `app:config` does not have,
    /// stays.
    async fn borrow_from_cache(&self) {
        let Ok(Some((Value::Hash(fields), _))) = self.cache.get(&CacheKey::fixed(APP_CONFIG)).await else { return };
        let _turn = self.turn.lock().await;
        let mut rows = rows_of_config(&fields);
        let name = catalogue::ADMIN_KEY.name;
        let key = self.last_good.read().and_then(|mut copied| copied.parameters.remove(name));
        rows.parameters.extend(key.map(|key| (name.to_owned(), key)));
        if let Ok(checked) = check(&rows, &self.base) {
            self.take_over(&rows, checked, Source::Cache).await;
        }
    }

    /// Reads the store, validates everything, brings it into force here and lets every other node do the same.
    ///
    /// # Errors
    /// Every fault of the set, or that the store is away; nothing has changed then.
    pub async fn reload(&self, caller: &str) -> Result<Reloaded, DeskError> {
        let _turn = self.turn.lock().await;
        self.reload_in_turn(caller).await
    }

    async fn reload_in_turn(&self, caller: &str) -> Result<Reloaded, DeskError> {
        let (rows, reloads) = self.read().await?;
        let checked = self.judge(&rows).map_err(DeskError::Faults)?;
        let changed = changes(&self.in_force().checked, &checked);
        let side = |pick: fn(&Change) -> &Option<String>| -> String {
            json!(changed.iter().map(|change| (change.name.as_str(), pick(change))).collect::<BTreeMap<_, _>>())
                .to_string()
        };
        let audit = self.entry(caller, "params.reload", "", side(|change| &change.from), side(|change| &change.to));
        let noted = self.store.note_reload(&audit).await?;
        let reloaded = self.take_over(&rows, checked, Source::Store).await;
        // Somebody else's note in between may be about rows that came after ours were read: the next pulse tells.
        self.seen.store(if noted == reloads + 1 { noted } else { reloads }, Ordering::Relaxed);
        Ok(reloaded)
    }

    /// Changes rows (`None` unsets), all or none, after the set has been found valid as it would then stand.
    ///
    /// # Errors
    /// Every fault of that set, or the store's; nothing has changed then.
    pub async fn put(
        &self,
        changes: &BTreeMap<String, Option<String>>,
        reload: bool,
        caller: &str,
    ) -> Result<Put, DeskError> {
        let _turn = self.turn.lock().await;
        let stored = self.store_rows(changes, "params.put", caller).await?;
        let reloaded = if reload { Some(self.reload_in_turn(caller).await) } else { None };
        Ok(Put { stored, reloaded })
    }

    /// Writes a whole profile and brings it into force.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn mode(&self, mode: SystemMode, caller: &str) -> Result<Put, DeskError> {
        let _turn = self.turn.lock().await;
        let changes = catalogue::profile(mode).map(|(name, text)| (name.to_owned(), text)).collect();
        let stored = self.store_rows(&changes, "mode.set", caller).await?;
        Ok(Put { stored, reloaded: Some(self.reload_in_turn(caller).await) })
    }

    async fn store_rows(
        &self,
        changes: &BTreeMap<String, Option<String>>,
        action: &str,
        caller: &str,
    ) -> Result<Vec<Change>, DeskError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (mut rows, _) = self.read().await?;
            let before = rows.parameters.clone();
            let changes = effective(changes, &before);
            for (name, text) in &changes {
                match text {
                    Some(text) => rows.parameters.insert(name.clone(), text.clone()),
                    None => rows.parameters.remove(name),
                };
            }
            check(&rows, &self.base).map_err(DeskError::Faults)?;
            if changes.is_empty() {
                return Ok(Vec::new());
            }
            // What was found valid was the whole set: any other row that is another one by now makes it another set.
            let known = catalogue::all().map(|parameter| parameter.name.to_owned());
            let names = known.chain(changes.keys().cloned()).chain(before.keys().cloned());
            let expected: BTreeMap<_, _> = names.map(|name| (name.clone(), before.get(&name).cloned())).collect();
            let shown: Vec<Change> =
                changes.iter().map(|(name, to)| shown(name, before.get(name), to.as_ref())).collect();
            let entry = |change: &Change| {
                let (from, to) = (json!(change.from).to_string(), json!(change.to).to_string());
                self.entry(caller, action, &change.name, from, to)
            };
            let audit: Vec<AuditEntry> = shown.iter().map(entry).collect();
            match self.store.put_parameters(&changes, &expected, &audit).await {
                Ok(()) => return Ok(shown),
                Err(StoreError::Conflict(_)) if tries < PUT_TRIES => {}
                Err(why) => return Err(why.into()),
            }
        }
    }

    fn entry(&self, caller: &str, action: &str, target: &str, before: String, after: String) -> AuditEntry {
        AuditEntry {
            time_ms: tuning::clock::now().wall_ms,
            node: self.node.clone(),
            caller: caller.to_owned(),
            action: action.to_owned(),
            target: target.to_owned(),
            before,
            after,
        }
    }

    /// Brings a valid set into force. The caller has the turn.
    async fn take_over(&self, rows: &Rows, checked: Checked, source: Source) -> Reloaded {
        let before = self.in_force();
        let changed = changes(&before.checked, &checked);
        let is_idle = |name: &str| catalogue::find(name).is_some_and(|one| matches!(one.effect, Effect::None(_)));
        let idle = changed.iter().map(|change| change.name.clone()).filter(|name| is_idle(name));
        let mut reloaded = Reloaded { without_effect: idle.collect(), changed, not_applied: Vec::new() };
        let parameters = Arc::new(checked.parameters.clone());
        if let Some(hands) = self.hands.get() {
            bound(&*self.store, &*self.cache, &parameters).await;
            reloaded.not_applied = hands.apply(&before.checked.parameters, &parameters).await;
        }
        let since_ms = tuning::clock::now().wall_ms;
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(InForce { checked, source, since_ms });
        self.force.send_replace(parameters);
        if source == Source::Store {
            self.reloads.fetch_add(1, Ordering::Relaxed);
            let (last_good, rows) = (self.last_good.clone(), rows.clone());
            // It says by itself when it cannot be written.
            let _ = tokio::task::spawn_blocking(move || last_good.write(&rows)).await;
            self.config_due.store(true, Ordering::Relaxed);
            self.keep_config().await;
        }
        reloaded
    }

    /// Writes `app:config` where the cache lacks it. A cache that is away is tried again.
    async fn keep_config(&self) {
        let key = CacheKey::fixed(APP_CONFIG);
        let in_force = self.in_force();
        if in_force.source != Source::Store {
            return;
        }
        let is_due = self.config_due.load(Ordering::Relaxed) || matches!(self.cache.get(&key).await, Ok(None));
        if is_due {
            let written = self.cache.put(&key, &Value::Hash(config_fields(&in_force.checked))).await;
            self.config_due.store(written.is_err(), Ordering::Relaxed);
        }
    }
}

/// What is in force before the store is asked.
fn first(last_good: &LastGood, base: &Base) -> Result<(Checked, Source), Vec<ParameterFault>> {
    if let Some(rows) = last_good.read() {
        match check(&rows, base) {
            Ok(checked) => return Ok((checked, Source::LastGoodCopy)),
            Err(faults) => {
                tracing::warn!(faults = faults.len(), "copy of the parameters is of another version: not used")
            }
        }
    }
    Ok((check(&Rows::default(), base)?, Source::Settings))
}

/// Says what could not be brought into force where nobody asked for it.
fn tell(not_applied: Vec<String>) {
    for what in not_applied {
        tracing::error!(what, "a parameter is not in force on this node");
    }
}

/// The changes that change anything, in the form in which they are stored.
fn effective(
    changes: &BTreeMap<String, Option<String>>,
    before: &BTreeMap<String, String>,
) -> BTreeMap<String, Option<String>> {
    let form = |(name, text): (&String, &Option<String>)| {
        (
            name.clone(),
            text.as_ref().map(|text| stored_form(name, text)).filter(|text| !text.is_empty() || !may_be_empty(name)),
        )
    };
    changes.iter().map(form).filter(|(name, text)| before.get(name) != text.as_ref()).collect()
}

fn may_be_empty(name: &str) -> bool {
    catalogue::find(name).is_some_and(|parameter| parameter.empty_is_unset())
}

/// A change of a row as it may be shown.
fn shown(name: &str, from: Option<&String>, to: Option<&String>) -> Change {
    // A name that nobody knows may be a misspelt secret's.
    let is_open = catalogue::find(name).is_some_and(|parameter| !parameter.is_secret());
    let show = |text: Option<&String>| text.map(|text| if is_open { text.clone() } else { MASK.to_owned() });
    Change { name: name.to_owned(), from: show(from), to: show(to) }
}

/// What differs between two sets.
fn changes(before: &Checked, after: &Checked) -> Vec<Change> {
    let other_key = before.parameters.admin_key_hash != after.parameters.admin_key_hash;
    let is_other = |name: &str, from: Option<&Standing>, to: &Standing| {
        from.is_none_or(|from| from.text != to.text) || (name == catalogue::ADMIN_KEY.name && other_key)
    };
    let rows = after.standing.iter().map(|(name, to)| (*name, before.standing.get(name), to));
    let text = |standing: &Standing| Some(standing.text.clone());
    let changed = rows.filter(|(name, from, to)| is_other(name, *from, to));
    changed.map(|(name, from, to)| Change { name: name.to_owned(), from: from.and_then(text), to: text(to) }).collect()
}

#[cfg(test)]
mod tests;
