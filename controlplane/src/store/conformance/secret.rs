//! A store whose credentials are fetched: from a source of secrets that answers as a test says, to a real PostgreSQL.

use super::{audit, new_database};
use crate::keys::Secret;
use crate::secrets::SecretSource;
use crate::store::supply::{FETCH_MAX, Supply};
use crate::store::{Place, Store, StoreError};
use async_trait::async_trait;
use harness::postgres::Postgres;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

/// What a source gives.
#[derive(Clone)]
enum Answer {
    Document(String),
    Fault,
    Nothing,
}

/// A source that gives what it was told to.
struct Vault(Mutex<Answer>);

impl Vault {
    fn new(answer: Answer) -> Arc<Self> {
        Arc::new(Self(Mutex::new(answer)))
    }

    fn holds(&self, answer: Answer) {
        *self.0.lock().expect("nobody panicked") = answer;
    }
}

#[async_trait]
impl SecretSource for Vault {
    async fn fetch(&self) -> Result<Secret, String> {
        let answer = self.0.lock().expect("nobody panicked").clone();
        match answer {
            Answer::Document(text) => Ok(Secret::new(text)),
            Answer::Fault => Err("the vault is shut".to_owned()),
            Answer::Nothing => std::future::pending().await,
        }
    }
}

/// A database with a user of a test's own, whose password may change without disturbing others.
struct Bench {
    server: Arc<Postgres>,
    url: String,
    user: String,
}

impl Bench {
    async fn new() -> Self {
        static USERS: AtomicU32 = AtomicU32::new(0);
        let (server, url) = new_database().await;
        let bench = Self { server, url, user: format!("rotated{}", USERS.fetch_add(1, Ordering::Relaxed)) };
        bench.sql(format!("CREATE ROLE {} LOGIN SUPERUSER PASSWORD 'first canary'", bench.user)).await;
        bench
    }

    async fn sql(&self, sql: String) {
        let (server, url) = (Arc::clone(&self.server), self.url.clone());
        spawn_blocking(move || server.sql(&url, &sql)).await.expect("it is done");
    }

    /// Changes the password, and ends every connection that was made with the one before.
    async fn rotate(&self, password: &str) {
        self.sql(format!("ALTER ROLE {} PASSWORD '{password}'", self.user)).await;
        let all = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", self.user);
        self.sql(all).await;
    }

    fn document(&self, password: &str) -> Answer {
        Answer::Document(format!("{{\"DB_USER\":\"{}\",\"DB_PASSWORD\":\"{password}\",\"OTHER\":1}}", self.user))
    }

    fn store(&self, vault: &Arc<Vault>) -> Arc<dyn Store> {
        let (_, place) = self.url.split_once('@').expect("an address with a user");
        let place = Place::read(Some(&format!("postgres://{place}"))).expect("an address");
        let secret: Arc<dyn SecretSource> = Arc::<Vault>::clone(vault);
        Supply::store(secret, place)
    }
}

/// Waits until the store answers.
async fn answers(store: &Arc<dyn Store>) {
    let deadline = Instant::now() + harness::PATIENCE;
    while let Err(why) = store.pulse().await {
        assert!(!why.to_string().contains("canary"), "{why}");
        assert!(Instant::now() < deadline, "it does not answer: {why}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn reason(done: Result<impl std::fmt::Debug, StoreError>) -> String {
    match done {
        Err(StoreError::Unreachable(why)) => why,
        other => panic!("it is not unreachable: {other:?}"),
    }
}

#[tokio::test]
async fn a_changed_password_is_fetched_without_a_restart() {
    let bench = Bench::new().await;
    let vault = Vault::new(bench.document("first canary"));
    let store = bench.store(&vault);
    assert_eq!(store.migrate().await.expect("a schema").from, None);
    for password in ["second canary", "third canary"] {
        // First the database, a moment later the secret: as a rotation does it, the refused one is fetched in between.
        bench.rotate(password).await;
        let refused = reason(loop {
            let done = store.pulse().await;
            if done.as_ref().is_err_and(|why| why.to_string().contains("password")) {
                break done;
            }
        });
        assert!(!refused.contains("canary"), "{refused}");
        vault.holds(bench.document(password));
        answers(&store).await;
    }
    let set = BTreeMap::from([("name".to_owned(), Some("value".to_owned()))]);
    store.put_parameters(&set, &BTreeMap::new(), &[audit("params.put")]).await.expect("a change");
    let health = store.health();
    assert!(health.secret_fetches >= 3 && health.secret_failures == 0, "{health:?}");
    store.close().await;
}

#[tokio::test]
async fn a_secret_is_fetched_no_more_often_than_its_pace_allows() {
    let bench = Bench::new().await;
    let store = bench.store(&Vault::new(bench.document("wrong canary")));
    let start = Instant::now();
    let mut refusals = 0;
    while start.elapsed() < Duration::from_millis(2_500) {
        let why = reason(store.pulse().await);
        assert!(why.contains("password") && !why.contains("canary"), "{why}");
        refusals += 1;
    }
    let most = 1 + start.elapsed().as_secs();
    let fetches = store.health().secret_fetches;
    assert!(refusals > 4 && (1..=most).contains(&fetches), "{fetches} fetches for {refusals} refusals");
}

#[tokio::test]
async fn a_source_that_is_away_costs_no_waiting_and_is_found_again() {
    let bench = Bench::new().await;
    let vault = Vault::new(Answer::Fault);
    let store = bench.store(&vault);
    let why = reason(store.migrate().await);
    assert!(why.contains("DB_SECRET_NAME: the vault is shut"), "{why}");
    vault.holds(Answer::Document("{\"DB_PASSWORD\":\"canary\"}".to_owned()));
    let deadline = Instant::now() + harness::PATIENCE;
    loop {
        let why = reason(store.pulse().await);
        assert!(!why.contains("canary") && Instant::now() < deadline, "{why}");
        if why.contains("it lacks DB_USER") {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    vault.holds(bench.document("first canary"));
    let deadline = Instant::now() + harness::PATIENCE;
    while store.migrate().await.is_err() {
        assert!(Instant::now() < deadline, "the mended secret is not found");
        sleep(Duration::from_millis(20)).await;
    }
    answers(&store).await;
    // What is in use stays in use while the source is away.
    vault.holds(Answer::Fault);
    assert!(store.pulse().await.is_ok());
    assert!(store.health().secret_failures >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_given_up_and_asked_again() {
    let vault = Vault::new(Answer::Nothing);
    let place = Place::read(Some("127.0.0.1:1")).expect("an address");
    let secret: Arc<dyn SecretSource> = Arc::<Vault>::clone(&vault);
    let store: Arc<dyn Store> = Supply::store(secret, place);
    let start = Instant::now();
    assert!(reason(store.pulse().await).contains("still being fetched"));
    assert!(start.elapsed() <= crate::store::CALL_MAX + Duration::from_millis(10), "{:?}", start.elapsed());
    sleep(FETCH_MAX).await;
    assert!(reason(store.pulse().await).contains("no answer within 5 s"));
    sleep(Duration::from_secs(600)).await;
    // A try and the longest wait after it are 35 s, so 17 in 600 s at least; 35 s is also the mean's upper bound.
    let health = store.health();
    assert!((17..=110).contains(&health.secret_fetches), "{health:?}");
    // With the store the fetching ends, and lets go of its source.
    drop(store);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(Arc::strong_count(&vault), 1);
}
