//! The desk over a store in memory: what is changed here and elsewhere, and what becomes of it while the store is away.

mod first;
mod order;

use super::super::issue::KeyState;
use super::super::pulse::OnReloads;
use super::super::secret::{Secret, to_hex};
use super::*;
use crate::cache::Value;
use crate::cache::in_process::InProcessCache;
use crate::cache::names::{API_KEY, CacheKey};
use crate::keys::DemoKeys;
use crate::params::Parameters;
use crate::params::check::{Base, Rows, check};
use crate::store::KeyChange;
use crate::store::shaky::Shaky;
use crate::store::sqlite::SqliteStore;
use crate::usage::UsageLedger;
use dataplane_core::access::hash_text;
use dataplane_core::command::ShardCommand;
use dataplane_core::feed::FeedInput;
use shared::key::{KeyRecord, Permissions};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Longest that any background work may take here, on a machine that does much else.
const LONG: Duration = Duration::from_secs(20);

/// Counts the directories that shards are told of.
#[derive(Default)]
struct Ear(AtomicUsize);

impl Orders for Ear {
    fn shards(&self, command: &ShardCommand) {
        if matches!(command, ShardCommand::Keys(_)) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn feed(&self, _input: FeedInput) -> bool {
        true
    }
}

fn parameters(mode: SystemMode) -> Arc<Parameters> {
    let checked = check(&Rows::default(), &Base::default()).expect("the defaults are good");
    Arc::new(Parameters { mode, ..checked.parameters })
}

async fn shaky() -> Arc<Shaky> {
    let inner = SqliteStore::in_memory().await.expect("a store");
    Arc::new(Shaky::new(inner))
}

/// A node with a desk, over a store that others may have too.
struct Node {
    desk: Arc<KeyDesk>,
    store: Arc<Shaky>,
    cache: Arc<InProcessCache>,
    ear: Arc<Ear>,
    modes: watch::Sender<Arc<Parameters>>,
    tasks: JoinSet<()>,
}

impl Node {
    fn start(store: &Arc<Shaky>, fixed: Vec<FixedKey>, data_dir: Option<PathBuf>) -> Self {
        let cache = Arc::new(InProcessCache::new());
        let desk = KeyDesk::new(DeskSetup {
            store: Arc::<Shaky>::clone(store),
            cache: Arc::<InProcessCache>::clone(&cache),
            node: "n1".to_owned(),
            shards: 1,
            fixed,
            mode: SystemMode::Standard,
            data_dir,
        });
        let ear = Arc::new(Ear::default());
        desk.attach(Arc::<Ear>::clone(&ear), &desk.current());
        let modes = watch::Sender::new(parameters(SystemMode::Standard));
        let nobody: OnReloads = Arc::new(|_| Box::pin(async {}));
        let mut tasks = desk.run(modes.subscribe(), nobody);
        tasks.spawn(Arc::clone(&desk).mirror_used(Arc::new(UsageLedger::new(Vec::new()))));
        Self { desk, store: Arc::clone(store), cache, ear, modes, tasks }
    }

    /// A node over a store of its own that has been read.
    async fn alone() -> Self {
        let node = Self::start(&shaky().await, Vec::new(), None);
        node.until("it has read the store", |desk| desk.counters().loaded).await;
        node
    }

    async fn until(&self, what: &str, holds: impl Fn(&KeyDesk) -> bool) {
        let deadline = Instant::now() + LONG;
        while !holds(&self.desk) {
            assert!(Instant::now() < deadline, "never: {what}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn create(&self, name: &str, tier: &str) -> Issued {
        self.desk.create(wish(name, tier), "admin").await.expect("a key")
    }

    /// The limit of the key with this text, if it works.
    fn limit_of(&self, text: &Secret) -> Option<u32> {
        let keys = self.desk.current();
        let record = keys.find_text(text.reveal().as_bytes())?;
        let is_over = record.expires_at_ms != 0 && record.expires_at_ms <= clock::now().wall_ms;
        (!keys.is_refused(record.id) && !is_over).then_some(record.limit_per_second)
    }

    async fn cached(&self, text: &Secret) -> Option<String> {
        let name = CacheKey::new(API_KEY, &to_hex(&hash_text(text.reveal().as_bytes()))).expect("a name");
        match self.cache.get(&name).await.expect("the cache is here") {
            Some((Value::Text(text), Some(_))) => Some(text),
            _ => None,
        }
    }
}

fn wish(name: &str, tier: &str) -> KeyWish {
    KeyWish {
        name: name.to_owned(),
        tier: tier.to_owned(),
        limit_per_second: None,
        limit_per_month: None,
        permissions: None,
        expires_time_ms: None,
    }
}

fn fixed(id: u32, text: &str) -> FixedKey {
    FixedKey {
        record: KeyRecord {
            id: KeyId(id),
            hash: hash_text(text.as_bytes()),
            limit_per_second: 1,
            expires_at_ms: 0,
            permissions: Permissions::default(),
            udp_secret: [7; 16],
            rank: 0,
        },
        tier: None,
        limit_per_second: Some(9),
        permissions: Some(1),
    }
}

async fn audit_actions(store: &Shaky) -> Vec<String> {
    let page = store.inner.audit_page(None, 100).await.expect("a page");
    page.into_iter().rev().map(|(_, entry)| entry.action).collect()
}

#[tokio::test]
async fn a_key_works_when_it_is_made_and_no_more_when_it_is_revoked() {
    let node = Node::alone().await;
    let one = node.create("one", "pro").await;
    assert_eq!(node.limit_of(&one.text), Some(1_000));
    let keys = node.desk.current();
    let record = keys.find_id(KeyId(one.row.id)).expect("a record");
    assert_eq!((record.rank, to_hex(&record.udp_secret)), (2, one.udp_secret.reveal().to_owned()));
    assert_eq!(node.desk.limit_per_month(KeyId(one.row.id)), 100_000_000);
    assert_eq!(one.row.hint, one.text.reveal()[..12]);
    let entry = node.cached(&one.text).await.expect("an entry");
    assert!(entry.contains("\"tier\":\"pro\"") && !entry.contains(one.udp_secret.reveal()), "{entry}");

    let told = node.ear.0.load(Ordering::Relaxed);
    node.desk.revoke(one.row.id, "admin").await.expect("revoked");
    assert_eq!((node.limit_of(&one.text), node.cached(&one.text).await), (None, None));
    assert!(keys.is_refused(KeyId(one.row.id)), "shards that still have the directory before refuse it too");
    assert!(node.ear.0.load(Ordering::Relaxed) > told);
    let again = node.desk.revoke(one.row.id, "admin").await.expect("revoked already");
    assert_eq!(KeyState::of(&again, clock::now().wall_ms), KeyState::Revoked);
    assert_eq!(node.desk.revoke(99, "admin").await, Err(StoreError::NotFound));
    assert_eq!(audit_actions(&node.store).await, ["key.create", "key.revoke"]);
    let shown = format!("{one:?} {keys:?}");
    assert!(!shown.contains(one.text.reveal()) && !shown.contains(one.udp_secret.reveal()));
}

#[tokio::test]
async fn what_one_node_changes_is_in_force_on_the_others() {
    let here = Node::alone().await;
    let there = Node::start(&here.store, Vec::new(), None);
    let one = here.create("one", "basic").await;
    there.until("the other node knows it", |_| there.limit_of(&one.text) == Some(100)).await;
    here.desk.revoke(one.row.id, "admin").await.expect("revoked");
    there.until("the other node refuses it", |_| there.limit_of(&one.text).is_none()).await;
    // A tier is edited: every key of it follows.
    let two = here.create("two", "basic").await;
    let mut tier = here.desk.tiers().into_iter().find(|tier| tier.name == "basic").expect("a tier");
    tier.limit_per_second = 77;
    let audit = here.desk.entry("tier.put", "basic".to_owned(), "admin");
    here.store.put_tier(&tier, &audit).await.expect("stored");
    for node in [&here, &there] {
        node.until("the tier's new limit", |_| node.limit_of(&two.text) == Some(77)).await;
    }
}

#[tokio::test]
async fn a_rotated_key_works_on_for_as_long_as_was_said() {
    let node = Node::alone().await;
    let one = node.create("one", "pro").await;
    let (two, old) = node.desk.rotate(one.row.id, 3_600_000, "admin").await.expect("rotated");
    assert_eq!((old.rotated_to, &two.row.name, &two.row.tier), (Some(two.row.id), &one.row.name, &one.row.tier));
    let ends_ms = node.desk.current().find_id(KeyId(one.row.id)).expect("it works on").expires_at_ms;
    assert!(ends_ms.abs_diff(clock::now().wall_ms + 3_600_000) < 60_000, "{ends_ms}");
    assert_eq!((node.limit_of(&one.text), node.limit_of(&two.text)), (Some(1_000), Some(1_000)));
    assert!(matches!(node.desk.rotate(one.row.id, 0, "admin").await, Err(StoreError::Conflict(_))));
    // Without an overlap the old one ends at once.
    let (three, _) = node.desk.rotate(two.row.id, 0, "admin").await.expect("rotated");
    assert_eq!((node.limit_of(&two.text), node.limit_of(&three.text)), (None, Some(1_000)));
    node.desk.revoke(three.row.id, "admin").await.expect("revoked");
    assert!(matches!(node.desk.rotate(three.row.id, 0, "admin").await, Err(StoreError::Conflict(_))));
    assert_eq!(node.desk.rotate(99, 0, "admin").await.map(|_| ()), Err(StoreError::NotFound));
}

#[tokio::test]
async fn without_the_store_nothing_changes_and_everything_works() {
    let node = Node::alone().await;
    let one = node.create("one", "pro").await;
    node.store.away.store(true, Ordering::Relaxed);
    node.until("the pulse is missed", |desk| !desk.counters().store_is_there).await;
    let created = node.desk.create(wish("two", "pro"), "admin").await;
    assert!(matches!(created, Err(StoreError::Unreachable(_))));
    assert!(matches!(node.desk.revoke(one.row.id, "admin").await, Err(StoreError::Unreachable(_))));
    assert!(node.desk.rotate(one.row.id, 0, "admin").await.is_err());
    assert_eq!(node.limit_of(&one.text), Some(1_000));
    // Meanwhile another node revokes it.
    let audit = node.desk.entry("key.revoke", "1".to_owned(), "admin");
    let time_ms = clock::now().wall_ms;
    node.store.inner.change_key(one.row.id, KeyChange::Revoke { time_ms }, &audit).await.expect("revoked");
    node.store.away.store(false, Ordering::Relaxed);
    node.until("what changed meanwhile has come", |_| node.limit_of(&one.text).is_none()).await;
}

#[tokio::test]
async fn an_invalidated_key_is_as_it_is_stored_or_refused_until_that_is_known() {
    let node = Node::start(&shaky().await, vec![fixed(7, "of the settings file")], None);
    node.until("it has read the store", |desk| desk.counters().loaded).await;
    let one = node.create("one", "pro").await;
    let id = one.row.id;
    assert_eq!(node.desk.invalidate(id, "admin").await, Ok(Some(Invalidated::Works)));
    assert_eq!(node.limit_of(&one.text), Some(1_000));
    assert_eq!(node.desk.invalidate(99, "admin").await, Ok(None));
    assert_eq!(node.desk.invalidate(7, "admin").await, Ok(Some(Invalidated::Works)));
    assert!(!node.desk.current().is_refused(KeyId(7)));

    node.store.away.store(true, Ordering::Relaxed);
    assert!(matches!(node.desk.invalidate(id, "admin").await, Ok(Some(Invalidated::Held(_)))));
    assert!(matches!(node.desk.invalidate(99, "admin").await, Err(StoreError::Unreachable(_))));
    assert_eq!((node.limit_of(&one.text), node.cached(&one.text).await), (None, None));
    let status = node.desk.status(id).await.expect("known here").expect("known here");
    assert_eq!((&status["in_force"]["held"], &status["stored"]), (&true.into(), &serde_json::Value::Null));
    node.store.away.store(false, Ordering::Relaxed);
    node.until("it is read anew", |_| node.limit_of(&one.text) == Some(1_000)).await;
}

#[tokio::test]
async fn the_mode_changes_what_demo_keys_may_ask() {
    let (texts, keys) = DemoKeys::make(None);
    let node = Node::start(&shaky().await, keys, None);
    node.until("it has read the store", |desk| desk.counters().loaded).await;
    assert_eq!((node.limit_of(&texts.demo), node.limit_of(&texts.stress)), (Some(3), Some(10_000_000)));
    node.modes.send_replace(parameters(SystemMode::Performance));
    node.until("a thousand a second", |_| node.limit_of(&texts.demo) == Some(1_000)).await;
    assert_eq!(node.limit_of(&texts.stress), Some(10_000_000));
    let made = node.create("of the store", "demo").await;
    assert_eq!(node.limit_of(&made.text), Some(1_000));
    node.modes.send_replace(parameters(SystemMode::Standard));
    node.until("three again", |_| node.limit_of(&texts.demo) == Some(3) && node.limit_of(&made.text) == Some(3)).await;
}

#[tokio::test]
async fn the_settings_file_s_keys_come_first() {
    let store = shaky().await;
    let node = Node::start(&store, vec![fixed(1, "one"), fixed(3, "three"), fixed(3, "again"), fixed(4, "one")], None);
    assert_eq!(node.desk.current().len(), 2);
    node.until("it has read the store", |desk| desk.counters().loaded).await;
    // Numbers that the file has taken are left out.
    let (two, four) = (node.create("two", "pro").await, node.create("four", "pro").await);
    assert_eq!((two.row.id, four.row.id), (2, 4));
    assert_eq!(node.limit_of(&Secret::new("one".to_owned())), Some(9));
    assert_eq!((node.limit_of(&two.text), node.limit_of(&four.text)), (Some(1_000), Some(1_000)));
    // Another node has no such file: there every stored key works that was not burnt.
    let there = Node::start(&store, Vec::new(), None);
    there
        .until("both are known", |_| there.limit_of(&two.text).is_some() && there.limit_of(&four.text).is_some())
        .await;
    assert_eq!(there.desk.current().len(), 2);
}

#[tokio::test]
async fn a_node_that_starts_without_the_store_serves_whom_it_served_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = shaky().await;
    let before = Node::start(&store, vec![fixed(50, "fixed")], Some(folder.path().to_owned()));
    before.until("it has read the store", |desk| desk.counters().loaded).await;
    let (one, two) = (before.create("one", "pro").await, before.create("two", "basic").await);
    let path = folder.path().join(copy::FILE_NAME);
    let has_both = || copy::read(&path).is_some_and(|copied| copied.keys.len() == 2);
    before.until("the copy has both", |_| has_both()).await;
    drop(before);

    store.away.store(true, Ordering::Relaxed);
    let after = Node::start(&store, Vec::new(), Some(folder.path().to_owned()));
    assert_eq!((after.limit_of(&one.text), after.limit_of(&two.text)), (Some(1_000), Some(100)));
    assert_eq!(after.desk.current().len(), 2, "the settings file's keys are not in the copy");
    let audit = after.desk.entry("key.revoke", "1".to_owned(), "admin");
    let time_ms = clock::now().wall_ms;
    store.inner.change_key(one.row.id, KeyChange::Revoke { time_ms }, &audit).await.expect("revoked");
    store.away.store(false, Ordering::Relaxed);
    after.until("the store is read", |desk| desk.counters().loaded).await;
    assert_eq!((after.limit_of(&one.text), after.limit_of(&two.text)), (None, Some(100)));
}

#[tokio::test]
async fn an_expired_key_is_left_to_the_gates() {
    let node = Node::alone().await;
    let soon = clock::now().wall_ms + 30;
    let short = KeyWish { expires_time_ms: Some(soon), ..wish("short", "pro") };
    let one = node.desk.create(short, "admin").await.expect("a key");
    assert_eq!(node.desk.current().find_id(KeyId(one.row.id)).map(|record| record.expires_at_ms), Some(soon));
    let over = async {
        while clock::now().wall_ms <= soon {
            sleep(Duration::from_millis(5)).await
        }
    };
    timeout(LONG, over).await.expect("time passes");
    assert_eq!(node.desk.invalidate(one.row.id, "admin").await, Ok(Some(Invalidated::WorksNot)));
    // By another clock it may not be over yet.
    assert_eq!((node.desk.current().len(), node.limit_of(&one.text)), (1, None));
    let status = node.desk.status(one.row.id).await.expect("the store is here").expect("it is stored");
    assert_eq!((&status["stored"]["state"], &status["in_force"]["expires_time_ms"]), (&"expired".into(), &soon.into()));
}

#[tokio::test]
async fn a_list_is_filtered_and_goes_on() {
    let node = Node::alone().await;
    for number in 0..5 {
        node.create(&format!("key {number}"), if number % 2 == 0 { "pro" } else { "basic" }).await;
    }
    node.desk.revoke(3, "admin").await.expect("revoked");
    let ids = |wish: ListWish| {
        let desk = Arc::clone(&node.desk);
        async move {
            let (rows, next) = desk.list(&wish).await.expect("a page");
            (rows.iter().map(|row| row.id).collect::<Vec<_>>(), next)
        }
    };
    let all = ListWish { limit: 10, ..ListWish::default() };
    assert_eq!(ids(all.clone()).await, (vec![1, 2, 3, 4, 5], None));
    assert_eq!(ids(ListWish { limit: 2, ..all.clone() }).await, (vec![1, 2], Some(2)));
    assert_eq!(ids(ListWish { limit: 2, after: 4, ..all.clone() }).await, (vec![5], None));
    assert_eq!(ids(ListWish { tier: Some("pro".to_owned()), ..all.clone() }).await, (vec![1, 3, 5], None));
    assert_eq!(ids(ListWish { state: Some(KeyState::Revoked), ..all }).await, (vec![3], None));
}
