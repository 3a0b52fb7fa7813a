//! `sync`: brings the cache up to date with the database, once or at its times. What is written how is the sync's to know.

use super::{environment, print};
use crate::cache::{self, Cache, CacheError, CacheTimeouts};
use crate::config;
use crate::config::Settings;
use crate::config::layers::{Profile, SettingArgs};
use crate::logging;
use crate::params::check::Base;
use crate::store::{self, Store};
use crate::supervisor::Signals;
use crate::sync::schedule::Schedule;
use crate::sync::{Summary, SyncError, Syncer};
use anyhow::{Context, anyhow, bail};
use clap::Args;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};
use tuning::clock;

/// Longest that the cache is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Time between two looks whether it answers.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Longest sleep until the clock is looked at again: it may have been set.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// Longest that connections are waited for at the end.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Attempts at one round of `--every`, and the time between two.
const ATTEMPTS: u32 = 4;
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Connections to the database: one for calls, which come one after the other or can wait for each other, and one for rows.
/// Each takes as long to be made as a round that finds nothing new.
const CONNECTIONS: u32 = 2;

/// A job waits longer for an answer than a price does.
const TIMEOUTS: CacheTimeouts = CacheTimeouts { dial_ms: 2_000, read_ms: 2_000, write_ms: 2_000 };

/// Arguments of `sync`.
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Write everything, not only what has come since the last time
    #[arg(long)]
    full: bool,
    /// Go on until told to stop: now, and then at these times, in UTC: "0 6 * * *" or cron(0 6 * * ? *)
    #[arg(long, value_name = "CRON", value_parser = Schedule::read)]
    every: Option<Schedule>,
    /// The summary as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingArgs,
}

/// Syncs once, or until told to stop.
pub fn run(args: &SyncArgs) -> anyhow::Result<()> {
    let settings = config::load(Profile::Serve, &args.settings, environment)?;
    logging::start(&settings);
    if settings.cache_url.is_none() {
        bail!("CACHE_URL is not set: there is nothing to sync into, a node alone has its cache in its own process");
    }
    there_is_one(&settings)?;
    let runtime =
        Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        let store = store::open(&settings.database, settings.data_dir.as_deref())?;
        store.set_pool(CONNECTIONS, CONNECTIONS).await;
        let cache = cache::open(settings.cache_url.as_ref(), TIMEOUTS)?;
        let job = Job::new(args, &settings, Arc::clone(&store), Arc::clone(&cache));
        let done = match &args.every {
            None => job.once().await,
            Some(schedule) => job.at_its_times(schedule).await,
        };
        // What has ended, well or not, is not held up by a server that hangs.
        let _ = timeout(CLOSE_MAX, async { tokio::join!(cache.close(), store.close()) }).await;
        done
    })
}

/// Whether there is a database: one made just now, empty, must not take the place of another's copy.
fn there_is_one(settings: &Settings) -> anyhow::Result<()> {
    match store::sqlite_file(&settings.database, settings.data_dir.as_deref()) {
        Some(file) if !file.exists() => bail!(
            "there is no database to sync from, {} does not exist: set DATABASE_URL, or TB_DATA_DIR to where the service \
             has its own",
            file.display()
        ),
        _ => Ok(()),
    }
}

/// What is to be done, once or again and again.
struct Job {
    syncer: Syncer,
    store: Arc<dyn Store>,
    cache: Arc<dyn Cache>,
    is_full: bool,
    is_json: bool,
}

impl Job {
    fn new(args: &SyncArgs, settings: &Settings, store: Arc<dyn Store>, cache: Arc<dyn Cache>) -> Self {
        let syncer = Syncer::new(Arc::clone(&store), Arc::clone(&cache), Base::of(settings));
        Self { syncer, store, cache, is_full: args.full, is_json: args.json }
    }

    async fn once(&self) -> anyhow::Result<()> {
        // Both are connected to at once.
        let (answers, pulse) = tokio::join!(self.cache_answers(), self.store.pulse());
        answers.map_err(SyncError::Cache)?;
        pulse.map_err(SyncError::Store)?;
        let summary = self.syncer.run(self.is_full).await.map_err(|why| match why {
            SyncError::OtherDatabase => anyhow!(why),
            why => anyhow!("{why}; what was written stays, and the next sync begins where this one did"),
        })?;
        self.tell(&summary)?;
        match summary.refused {
            None => Ok(()),
            Some(why) => bail!("app:config was left as it stands, the database's parameters are not valid: {why}"),
        }
    }

    /// Goes on until a signal comes. One round at a time: what is due meanwhile is past.
    async fn at_its_times(&self, schedule: &Schedule) -> anyhow::Result<()> {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        loop {
            let round = async {
                self.try_some_times().await;
                next_is_due(schedule).await;
            };
            tokio::select! {
                () = round => {}
                signal = signals.next() => {
                    tracing::info!(signal, "told to stop");
                    return Ok(());
                }
            }
        }
    }

    /// One round, tried again soon where it fails: the next may be due in a day.
    async fn try_some_times(&self) {
        for left in (0..ATTEMPTS).rev() {
            let Err(why) = self.once().await else { return };
            if left == 0 {
                tracing::error!("a sync has failed, and is tried again at its next time: {why:#}");
                return;
            }
            let seconds = AGAIN_AFTER.as_secs();
            tracing::error!("a sync has failed, and is tried again in {seconds} s, {left} times more: {why:#}");
            sleep(AGAIN_AFTER).await;
        }
    }

    /// Waits until the cache answers.
    async fn cache_answers(&self) -> Result<(), CacheError> {
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            match self.cache.ping().await {
                Err(CacheError::Unreachable(_)) if Instant::now() < deadline => sleep(LOOK_EVERY).await,
                answered => return answered,
            }
        }
    }

    fn tell(&self, summary: &Summary) -> anyhow::Result<()> {
        if self.is_json {
            return print(&format!("{}\n", serde_json::to_string(summary)?));
        }
        print(&summary.text())
    }
}

/// Waits until the next round is due, by the clock as it stands then: it may be set meanwhile, either way.
async fn next_is_due(schedule: &Schedule) {
    // There is always a next one, or the schedule would not have been taken.
    let after = |now_ms| schedule.after_ms(now_ms).unwrap_or(u64::MAX);
    let mut due_ms = after(clock::now().wall_ms);
    tracing::info!(due_ms, "the next sync is due");
    while let Some(wait_ms) = due_ms.checked_sub(clock::now().wall_ms).filter(|wait_ms| *wait_ms > 0) {
        sleep(Duration::from_millis(wait_ms).min(SLEEP_MAX)).await;
        // One that comes before it is another only where the clock was set back.
        due_ms = due_ms.min(after(clock::now().wall_ms));
    }
}
