//! The desk over a real store, with a data plane that notes what it is told.

use super::*;
use crate::cache::in_process::InProcessCache;
use crate::feeds::plan::Wanted;
use crate::orders::Orders;
use crate::params::apply::AssetLists;
use crate::store::shaky::Shaky;
use crate::store::sqlite::SqliteStore;
use crate::store::{AssetRow, Pulse};
use dataplane_core::command::{ShardCommand, ShardParameters};
use dataplane_core::feed::FeedInput;
use shared::asset::Symbol;
use tracing::Level;

/// Notes what the data plane and the feeds are told.
#[derive(Default)]
struct Ear {
    shards: Mutex<Vec<ShardParameters>>,
    fresh_ms: Mutex<Vec<u64>>,
    wanted: Mutex<Vec<Vec<Wanted>>>,
    deaf: AtomicBool,
}

impl Orders for Ear {
    fn shards(&self, command: &ShardCommand) {
        if let ShardCommand::Parameters(parameters) = command {
            self.shards.lock().expect("no panic").push(*parameters);
        }
    }

    fn feed(&self, input: FeedInput) -> bool {
        if let FeedInput::Parameters(parameters) = input {
            self.fresh_ms.lock().expect("no panic").push(parameters.fresh_ms);
        }
        !self.deaf.load(Ordering::Relaxed)
    }
}

impl AssetLists for Ear {
    fn want(&self, wanted: Vec<Wanted>) {
        self.wanted.lock().expect("no panic").push(wanted);
    }
}

struct Bench {
    desk: Arc<ParameterDesk>,
    store: Arc<Shaky>,
    cache: Arc<InProcessCache>,
    ear: Arc<Ear>,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let inner = SqliteStore::in_memory().await.expect("a store");
        let store = Arc::new(Shaky::new(inner));
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Arc::new(InProcessCache::new());
        let bench = Self::on(store, cache, folder);
        bench.start().await;
        bench
    }

    /// Another node, or another life of this one.
    fn on(store: Arc<Shaky>, cache: Arc<InProcessCache>, folder: tempfile::TempDir) -> Self {
        let (of_store, of_cache) = (Arc::<Shaky>::clone(&store), Arc::<InProcessCache>::clone(&cache));
        let setup = DeskSetup {
            store: of_store,
            cache: of_cache,
            node: "n1".to_owned(),
            base: Base::default(),
            data_dir: Some(folder.path()),
        };
        let desk = ParameterDesk::new(setup).expect("good settings");
        Self { desk, store, cache, ear: Arc::default(), folder }
    }

    /// What `serve` does, without its loop.
    async fn start(&self) {
        let (orders, feeds) = (Arc::<Ear>::clone(&self.ear), Arc::<Ear>::clone(&self.ear));
        let hands = Hands { orders, feeds, log_level: |level| level != Level::TRACE };
        assert!(self.desk.hands.set(hands).is_ok());
        if self.desk.catch_up(None).await.is_err() {
            self.desk.borrow_from_cache().await;
        }
    }

    async fn put(&self, lines: &[(&str, &str)], reload: bool) -> Result<Put, DeskError> {
        let changes = lines.iter().map(|(name, text)| ((*name).to_owned(), Some((*text).to_owned()))).collect();
        self.desk.put(&changes, reload, "admin").await
    }

    /// Changes rows as somebody with SQL does.
    async fn sql(&self, lines: &[(&str, &str)]) {
        let changes: BTreeMap<_, _> =
            lines.iter().map(|(name, text)| ((*name).to_owned(), Some((*text).to_owned()))).collect();
        self.store.inner.put_parameters(&changes, &BTreeMap::new(), &[]).await.expect("stored");
    }

    async fn actions(&self) -> Vec<String> {
        let page = self.store.inner.audit_page(None, 100).await.expect("a page");
        page.into_iter().map(|(_, entry)| format!("{} {} {}", entry.caller, entry.action, entry.target)).collect()
    }

    async fn config(&self) -> BTreeMap<String, String> {
        match self.cache.get(&CacheKey::fixed(APP_CONFIG)).await {
            Ok(Some((Value::Hash(fields), None))) => fields,
            other => panic!("{other:?}"),
        }
    }
}

fn names(faults: &Result<Reloaded, DeskError>) -> Vec<String> {
    match faults {
        Err(DeskError::Faults(faults)) => faults.iter().map(|fault| fault.name.clone()).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reload_brings_rows_into_force_everywhere_and_tells_what_changed() {
    let bench = Bench::new().await;
    let mut watch = bench.desk.watch();
    watch.borrow_and_update();
    let okx = [AssetRow { exchange: "okx".to_owned(), asset: "ZZZ".to_owned(), enabled: true }];
    let entry = bench.desk.entry("sql", "t", "", String::new(), String::new());
    bench.store.inner.put_asset_map("okx", &okx, &entry).await.expect("stored");
    bench.sql(&[("http_idle_timeout_seconds", "60"), ("cache_ttl_seconds", "30"), ("cache_pool_size", "400")]).await;
    bench.sql(&[("http_write_timeout_seconds", "7"), ("log_level", "error"), ("http_read_timeout_seconds", "6")]).await;
    assert_eq!(bench.desk.current().cache_ttl_s, 9, "rows are not in force before a reload");

    let reloaded = bench.desk.reload("admin").await.expect("a good set");
    let changed: Vec<&str> = reloaded.changed.iter().map(|change| change.name.as_str()).collect();
    let expected = [
        "cache_pool_size",
        "cache_ttl_seconds",
        "http_idle_timeout_seconds",
        "http_read_timeout_seconds",
        "http_write_timeout_seconds",
        "log_level",
        "okx_prewarm_assets",
    ];
    assert_eq!(changed, expected);
    assert_eq!((reloaded.changed[1].from.as_deref(), reloaded.changed[1].to.as_deref()), (Some("9"), Some("30")));
    assert_eq!(reloaded.without_effect, ["cache_pool_size"]);
    assert_eq!(reloaded.not_applied, [""; 0]);
    let shards = ShardParameters {
        keep_alive_ms: 75_000,
        head_timeout_ms: 6_000,
        write_stall_ms: 7_000,
        datagrams_waiting: 3_000,
    };
    assert_eq!(*bench.ear.shards.lock().expect("no panic"), [shards]);
    assert_eq!(*bench.ear.fresh_ms.lock().expect("no panic"), [30_000]);
    let wanted = bench.ear.wanted.lock().expect("no panic").concat();
    let is_wanted = |text: &[u8]| wanted.iter().any(|one| Some(one.symbol) == Symbol::new(text) && one.prewarmed);
    assert!(is_wanted(b"ZZZ") && is_wanted(b"BTC") && !is_wanted(b"KAS"), "OKX's own list is replaced, others stay");
    assert!(watch.has_changed().expect("a desk"));
    assert_eq!(bench.config().await["cache_ttl_seconds"], "30");
    assert_eq!(bench.actions().await[0], "admin params.reload ");
    assert_eq!(bench.desk.reload("admin").await.expect("the same").changed, []);
    assert_eq!(bench.ear.shards.lock().expect("no panic").len(), 1, "what is the same is not told again");
}

#[tokio::test]
async fn one_bad_row_refuses_all_and_what_stood_stands() {
    let bench = Bench::new().await;
    let good = |name: &str| catalogue::find(name).expect("a parameter").default();
    let all: Vec<(&str, String)> =
        catalogue::all().map(|one| (one.name, good(one.name))).filter(|(_, text)| !text.is_empty()).collect();
    bench.sql(&all.iter().map(|(name, text)| (*name, text.as_str())).collect::<Vec<_>>()).await;
    bench.sql(&[("cache_ttl_seconds", "30")]).await;
    let before = bench.desk.in_force();
    for (lines, expected) in [
        (&[("adaptive_max_concurrent", "0")][..], &["adaptive_max_concurrent"][..]),
        (&[("adaptive_max_concurrent", "many"), ("nonsense", "1")], &["nonsense", "adaptive_max_concurrent"]),
        (
            &[("okx_prewarm_assets", &["A"; 1_001].join(","))],
            &["nonsense", "adaptive_max_concurrent", "okx_prewarm_assets"],
        ),
    ] {
        bench.sql(lines).await;
        assert_eq!(names(&bench.desk.reload("admin").await), expected);
    }
    assert!(Arc::ptr_eq(&before, &bench.desk.in_force()));
    assert_eq!(bench.ear.shards.lock().expect("no panic").len(), 0);
    assert_eq!(bench.actions().await, [""; 0], "nothing was done");
    let pulse = bench.store.inner.pulse().await.expect("a pulse");
    assert_eq!(pulse.reloads, Pulse::default().reloads, "no node is told");
    // The way out: a name that nobody knows can be unset.
    let mend = [("nonsense", None), ("adaptive_max_concurrent", Some("7")), ("okx_prewarm_assets", None)];
    let mend = mend.into_iter().map(|(name, text)| (name.to_owned(), text.map(str::to_owned))).collect();
    bench.desk.put(&mend, true, "admin").await.expect("a good set again");
    assert_eq!((bench.desk.current().adaptive.max_concurrent, bench.desk.current().cache_ttl_s), (7, 30));
}

#[tokio::test]
async fn a_change_is_stored_when_the_whole_set_would_do() {
    let bench = Bench::new().await;
    let refused = bench.put(&[("db_max_open_conns", "10"), ("log_level", "warn")], true).await;
    let Err(DeskError::Faults(faults)) = refused else { panic!("{refused:?}") };
    assert_eq!(faults[0].name, "db_max_idle_conns", "75 idle ones are more than 10");
    assert_eq!(bench.store.inner.parameters().await.expect("rows"), BTreeMap::new());
    let put = bench.put(&[("db_max_open_conns", " 10 "), ("db_max_idle_conns", "5")], false).await.expect("good");
    assert_eq!((put.stored.len(), put.reloaded), (2, None));
    assert_eq!(bench.desk.current().db_max_open, 150, "not before a reload");
    let put = bench.put(&[("db_max_open_conns", "10")], true).await.expect("good");
    assert_eq!(put.stored, []);
    assert_eq!(put.reloaded.map(|reloaded| reloaded.expect("good").changed.len()), Some(2));
    assert_eq!(bench.desk.current().db_max_open, 10);
    let expected = ["admin params.reload ", "admin params.put db_max_open_conns", "admin params.put db_max_idle_conns"];
    assert_eq!(bench.actions().await, expected);
}

#[tokio::test]
async fn somebody_else_s_change_in_between_is_looked_at_again() {
    let bench = Bench::new().await;
    bench.store.meddles.store(1, Ordering::Relaxed);
    let put = bench.put(&[("cache_ttl_seconds", "30")], true).await.expect("at the second try");
    assert_eq!(put.stored[0].from.as_deref(), Some("11"));
    assert_eq!(bench.desk.current().cache_ttl_s, 30);
    bench.store.meddles.store(100, Ordering::Relaxed);
    let refused = bench.put(&[("cache_ttl_seconds", "40")], true).await;
    assert!(matches!(refused, Err(DeskError::Store(StoreError::Conflict(_)))), "{refused:?}");
}

#[tokio::test]
async fn two_changes_that_do_not_go_together_are_never_both_stored() {
    let first = Bench::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let other = Bench::on(Arc::clone(&first.store), Arc::clone(&first.cache), folder);
    other.start().await;
    // Each is good beside 150 and 75; both together are not.
    let (open, idle) = ([("db_max_open_conns", "100")], [("db_max_idle_conns", "120")]);
    let (of_first, of_other) = tokio::join!(first.put(&open, false), other.put(&idle, false));
    assert!(of_first.is_ok() != of_other.is_ok(), "{of_first:?} {of_other:?}");
    first.desk.reload("admin").await.expect("what is stored is valid");
}

#[tokio::test]
async fn a_node_follows_another_s_reload_once_and_does_not_echo() {
    let first = Bench::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let other = Bench::on(Arc::clone(&first.store), Arc::clone(&first.cache), folder);
    other.start().await;
    let reloads = || async { first.store.inner.pulse().await.expect("a pulse").reloads };
    first.put(&[("cache_ttl_seconds", "30")], true).await.expect("good");
    let noted = reloads().await;
    for _ in 0..3 {
        first.desk.follow(noted).await;
        other.desk.follow(noted).await;
    }
    assert_eq!(other.desk.current().cache_ttl_s, 30);
    assert_eq!(reloads().await, noted, "following is not noted");
    assert_eq!(other.ear.fresh_ms.lock().expect("no panic").len(), 1);
    // A set that somebody spoilt meanwhile is refused here, and not looked at again before the next reload.
    first.put(&[("cache_ttl_seconds", "40")], true).await.expect("good");
    first.sql(&[("log_level", "loud")]).await;
    let noted = reloads().await;
    other.desk.follow(noted).await;
    assert_eq!((other.desk.current().cache_ttl_s, other.desk.seen.load(Ordering::Relaxed)), (30, noted));
}

#[tokio::test]
async fn reloads_at_once_are_one_after_the_other() {
    let bench = Bench::new().await;
    let many = (0..20).map(|index| {
        let desk = Arc::clone(&bench.desk);
        tokio::spawn(async move {
            let changes = BTreeMap::from([("cache_ttl_seconds".to_owned(), Some((10 + index % 2).to_string()))]);
            desk.put(&changes, true, "admin").await
        })
    });
    for put in many.collect::<Vec<_>>() {
        put.await.expect("no panic").expect("good");
    }
    let row = bench.store.inner.parameters().await.expect("rows")["cache_ttl_seconds"].clone();
    assert_eq!(bench.desk.current().cache_ttl_s.to_string(), row);
    let told = bench.ear.fresh_ms.lock().expect("no panic").clone();
    assert!(told.windows(2).all(|pair| pair[0] != pair[1]), "each was told of the one before: {told:?}");
}

#[tokio::test]
async fn a_store_that_is_away_changes_nothing_and_a_start_uses_what_is_kept() {
    let bench = Bench::new().await;
    bench.put(&[("cache_ttl_seconds", "30"), ("ADMIN_KEY", "canary-key-0123456789")], true).await.expect("good");
    bench.store.away.store(true, Ordering::Relaxed);
    assert!(matches!(bench.desk.reload("admin").await, Err(DeskError::Store(StoreError::Unreachable(_)))));
    assert!(bench.put(&[("cache_ttl_seconds", "40")], true).await.is_err());
    assert!(bench.desk.mode(SystemMode::Performance, "admin").await.is_err());
    assert_eq!(bench.desk.current().cache_ttl_s, 30);
    // Another life: the copy first, then the cache's, which another node may have brought further.
    let Bench { store, cache, folder, desk, .. } = bench;
    let mut fields = config_fields(&desk.in_force().checked);
    fields.insert("cache_ttl_seconds".to_owned(), "35".to_owned());
    cache.put(&CacheKey::fixed(APP_CONFIG), &Value::Hash(fields)).await.expect("written");
    let again = Bench::on(store, cache, folder);
    assert_eq!((again.desk.current().cache_ttl_s, again.desk.in_force().source), (30, Source::LastGoodCopy));
    again.start().await;
    assert_eq!((again.desk.current().cache_ttl_s, again.desk.in_force().source), (35, Source::Cache));
    assert!(again.desk.current().admin_key_hash.is_some());
    again.store.away.store(false, Ordering::Relaxed);
    again.desk.follow(again.store.inner.pulse().await.expect("a pulse").reloads).await;
    assert_eq!((again.desk.current().cache_ttl_s, again.desk.in_force().source), (30, Source::Store));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serving_waits_for_the_store_and_writes_the_cache_again() {
    let bench = Bench::new().await;
    bench.put(&[("cache_ttl_seconds", "30")], true).await.expect("good");
    let Bench { store, cache, .. } = bench;
    store.away.store(true, Ordering::Relaxed);
    cache.delete(&CacheKey::fixed(APP_CONFIG)).await.expect("deleted");
    let bench = Bench::on(store, cache, tempfile::tempdir().expect("a folder"));
    let (orders, feeds) = (Arc::<Ear>::clone(&bench.ear), Arc::<Ear>::clone(&bench.ear));
    let hands = Hands { orders, feeds, log_level: |_| true };
    let mut watch = bench.desk.watch();
    let serving = tokio::spawn(Arc::clone(&bench.desk).serve(hands, bench.desk.current()));
    assert_eq!(bench.desk.current().cache_ttl_s, 9);
    bench.store.away.store(false, Ordering::Relaxed);
    let changed = watch.wait_for(|parameters| parameters.cache_ttl_s == 30);
    tokio::time::timeout(Duration::from_secs(20), changed).await.expect("in time").expect("a desk");
    let began = std::time::Instant::now();
    while bench.cache.get(&CacheKey::fixed(APP_CONFIG)).await == Ok(None) {
        assert!(began.elapsed() < Duration::from_secs(20), "app:config is not written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    serving.abort();
    bench.cache.delete(&CacheKey::fixed(APP_CONFIG)).await.expect("deleted");
    bench.desk.keep_config().await;
    assert_eq!(bench.config().await["cache_ttl_seconds"], "30", "whoever emptied the cache did not empty us");
}

#[tokio::test]
async fn a_mode_writes_its_whole_profile() {
    let bench = Bench::new().await;
    bench.put(&[("cache_ttl_seconds", "30"), ("okx_prewarm_assets", "BTC")], true).await.expect("good");
    bench.desk.mode(SystemMode::Performance, "admin").await.expect("good");
    let current = bench.desk.current();
    assert_eq!((current.mode, current.log_level, current.cache_ttl_s), (SystemMode::Performance, Level::ERROR, 9));
    let rows = bench.store.inner.parameters().await.expect("rows");
    assert_eq!((rows.len(), rows["adaptive_max_concurrent"].as_str()), (23, "6000"));
    assert_eq!(rows["okx_prewarm_assets"], "BTC", "lists are nobody's profile");
    bench.desk.mode(SystemMode::Standard, "admin").await.expect("good");
    let rows = bench.store.inner.parameters().await.expect("rows");
    assert_eq!(rows.keys().collect::<Vec<_>>(), ["okx_prewarm_assets", "system_mode"]);
    bench.desk.mode(SystemMode::Demo, "admin").await.expect("good");
    assert_eq!((bench.desk.current().mode, bench.desk.current().log_level), (SystemMode::Demo, Level::WARN));
    assert!(bench.actions().await.contains(&"admin mode.set system_mode".to_owned()));
}

#[tokio::test]
async fn an_administrator_s_key_opens_and_shows_nowhere() {
    let bench = Bench::new().await;
    let canaries = ["canary-key-0123456789", "canary-key-9876543210"];
    for canary in canaries {
        let put = bench.put(&[("ADMIN_KEY", canary)], true).await.expect("good");
        assert_eq!(
            put.reloaded.map(|reloaded| reloaded.expect("good").changed.len()),
            Some(1),
            "another key is a change"
        );
    }
    let row = bench.store.inner.parameters().await.expect("rows")["ADMIN_KEY"].clone();
    assert!(row.starts_with("sha256:") && !row.contains("canary"));
    let audit = bench.store.inner.audit_page(None, 100).await.expect("a page");
    let copy = std::fs::read_to_string(bench.folder.path().join("parameters.json")).expect("a copy");
    let everywhere =
        format!("{audit:?} {copy} {:?} {:?}", bench.config().await, bench.desk.in_force().checked.standing);
    assert!(!everywhere.contains("canary"), "{everywhere}");
    assert!(!format!("{audit:?} {:?}", bench.config().await).contains(&row[7..]), "nor does its hash");
    // A row of the old table holds the key itself.
    bench.sql(&[("ADMIN_KEY", canaries[0])]).await;
    bench.desk.reload("admin").await.expect("good");
    let expected = dataplane_core::access::hash_text(canaries[0].as_bytes());
    assert_eq!(bench.desk.current().admin_key_hash, Some(expected));
}

#[tokio::test]
async fn what_cannot_be_applied_is_told() {
    let bench = Bench::new().await;
    bench.ear.deaf.store(true, Ordering::Relaxed);
    let put = bench.put(&[("cache_ttl_seconds", "30"), ("log_level", "trace")], true).await.expect("good");
    let told = put.reloaded.expect("a reload").expect("good").not_applied;
    assert!(
        told.len() == 2 && told[0].starts_with("cache_ttl_seconds") && told[1].starts_with("log_level"),
        "{told:?}"
    );
}
