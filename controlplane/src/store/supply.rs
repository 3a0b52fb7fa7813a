//! Credentials that are fetched: at the start, and again whenever the database refuses them, so that a rotated password
//! needs no restart.
//!
//! Calls never fetch. They find the way in known, or fail with the reason why it is not; one task does the fetching,
//! however many calls want it. What a secret says is read in `credentials`.

use super::credentials::Place;
use super::postgres::{PgSource, PgStore};
use super::{StoreError, Stored};
use crate::feeds::backoff::Backoff;
use crate::keys::Secret;
use crate::secrets::SecretSource;
use sqlx::postgres::PgConnectOptions;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Longest that one try to fetch may take: the source's own look for its credentials and two connections are in it.
pub const FETCH_MAX: Duration = Duration::from_secs(5);

/// Bounds of the wait after a try that failed, ms.
const RETRY_MS: (u64, u64) = (500, 30_000);

/// Bounds of the wait after a try that worked, ms, before a refusal leads to the next: it grows while the secret stays
/// the one that was refused. So a node asks at most once a second, and once a minute where that does not help.
const AGAIN_MS: (u64, u64) = (1_000, 60_000);

/// How things stand.
enum Standing {
    /// The first try has not ended.
    Asked,
    /// No try has worked, and the last one's reason.
    Failed(String),
    /// The way in was found once; it may be refused by now.
    Known,
}

/// Where credentials come from, and whether they are there.
pub struct Supply {
    secret: Arc<dyn SecretSource>,
    place: Place,
    standing: watch::Sender<Standing>,
    doubted: Notify,
    /// Whether a connection was made since the last fetch.
    worked: AtomicBool,
    fetches: AtomicU64,
    failures: AtomicU64,
    task: OnceLock<AbortHandle>,
}

impl Supply {
    /// A store at `place` that is entered with what `secret` says. Fetching begins at once, in the background.
    pub fn store(secret: Arc<dyn SecretSource>, place: Place) -> Arc<PgStore> {
        let supply = Arc::new(Self {
            secret,
            place,
            standing: watch::Sender::new(Standing::Asked),
            doubted: Notify::new(),
            worked: AtomicBool::new(false),
            fetches: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            task: OnceLock::new(),
        });
        let store = Arc::new(PgStore::new(PgSource::supplied(Arc::clone(&supply))));
        let task = tokio::spawn(keep(Arc::clone(&supply), Arc::downgrade(&store)));
        // Set here alone.
        let _ = supply.task.set(task.abort_handle());
        store
    }

    /// Waits until the way in is known or a try has failed, but no longer than until `deadline`.
    pub async fn known(&self, deadline: Instant) -> Stored<()> {
        let mut standing = self.standing.subscribe();
        let ended = standing.wait_for(|standing| !matches!(standing, Standing::Asked));
        let why = match timeout_at(deadline, ended).await {
            Ok(Ok(standing)) => match &*standing {
                Standing::Known => return Ok(()),
                Standing::Failed(why) => why.clone(),
                Standing::Asked => String::new(),
            },
            Ok(Err(_)) | Err(_) => "it is still being fetched".to_owned(),
        };
        Err(StoreError::Unreachable(format!("the secret of DB_SECRET_NAME: {why}")))
    }

    /// Takes notice of what became of a connection.
    pub fn note<T>(&self, made: &Result<T, sqlx::Error>) {
        match made {
            Ok(_) => self.worked.store(true, Ordering::Relaxed),
            Err(sqlx::Error::PoolClosed) => {}
            // The password may have been changed, or the database moved.
            Err(_) => self.doubted.notify_one(),
        }
    }

    /// Tries to fetch, and how many of them failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.fetches.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// Ends the fetching.
    pub fn stop(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    async fn fetch(&self) -> Result<(Secret, PgConnectOptions), String> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let fetched = match timeout(FETCH_MAX, self.secret.fetch()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(format!("no answer within {} s", FETCH_MAX.as_secs())),
        };
        let read = fetched.and_then(|document| self.place.with(&document).map(|options| (document, options)));
        if read.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        read
    }

    /// Says that a try failed; the log is told of the first.
    fn failed(&self, why: String, is_first: bool) {
        if is_first {
            tracing::warn!("the secret of DB_SECRET_NAME: {why}; trying again, and prices do not wait for it");
        }
        self.standing.send_if_modified(|standing| {
            let never_known = !matches!(standing, Standing::Known);
            if never_known {
                *standing = Standing::Failed(why);
            }
            never_known
        });
    }
}

/// Fetches until it works, then whenever the way in is doubted, for as long as the store is there.
async fn keep(supply: Arc<Supply>, store: Weak<PgStore>) {
    let mut held: Option<Secret> = None;
    let (mut retry, mut again) = (Backoff::new(RETRY_MS.0, RETRY_MS.1), Backoff::new(AGAIN_MS.0, AGAIN_MS.1));
    let mut is_failing = false;
    loop {
        let (document, options) = match supply.fetch().await {
            Ok(fetched) => fetched,
            Err(why) => {
                supply.failed(why, !is_failing);
                is_failing = true;
                sleep(retry.failed()).await;
                continue;
            }
        };
        retry.worked();
        let is_new = held.as_ref() != Some(&document);
        if is_new {
            let Some(store) = store.upgrade() else { return };
            store.source().set_options(options);
            again.worked();
        }
        if is_failing || (is_new && held.is_some()) {
            tracing::info!(changed = is_new && held.is_some(), "the secret of DB_SECRET_NAME is fetched");
        }
        is_failing = false;
        held = Some(document);
        supply.standing.send_replace(Standing::Known);
        sleep(again.failed()).await;
        supply.doubted.notified().await;
        if supply.worked.swap(false, Ordering::Relaxed) {
            again.worked();
        }
    }
}
