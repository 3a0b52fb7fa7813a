//! Reads the instrument lists again: daily, and soon after a read that failed. Changes become a new plan.
//!
//! One task for all venues: lists are few and slow. It alone writes the plan; everyone else watches it.

use super::{ListReader, plan};
use crate::feeds::backoff::Backoff;
use crate::feeds::board::Board;
use crate::feeds::plan::{Plan, Wanted};
use crate::feeds::stop::Stop;
use crate::feeds::timing::{Timing, duration_ms};
use shared::asset::AssetDirectory;
use shared::venue::Venue;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Longest wait after failed reads, ms: a venue that was away is asked again within the hour.
const RETRY_MS_MAX: u64 = 3_600_000;

struct Due {
    reader: ListReader,
    board: Arc<Board>,
    at: Instant,
    backoff: Backoff,
}

/// Keeps the plan up to date.
pub struct Refresh {
    dues: Vec<Due>,
    wanted: watch::Receiver<Vec<Wanted>>,
    directory: watch::Sender<Arc<AssetDirectory>>,
    plan: watch::Sender<Arc<Plan>>,
    timing: Timing,
}

impl Refresh {
    /// Looks after `readers`, each with its venue's board; what changes goes into `directory` first, and after
    /// `Timing::directory_settle_ms` into `plan`.
    #[must_use]
    pub fn new(
        readers: Vec<(ListReader, Arc<Board>)>,
        wanted: watch::Receiver<Vec<Wanted>>,
        directory: watch::Sender<Arc<AssetDirectory>>,
        plan: watch::Sender<Arc<Plan>>,
        timing: Timing,
    ) -> Self {
        let due = |(reader, board): (ListReader, Arc<Board>)| {
            let mut backoff = Backoff::new(timing.refresh_retry_ms, RETRY_MS_MAX.min(timing.refresh_ms));
            let read = reader.source() == super::ListSource::Venue;
            let wait = if read { daily(&timing) } else { backoff.failed() };
            show(&reader, &board);
            Due { reader, board, at: Instant::now() + wait, backoff }
        };
        Self { dues: readers.into_iter().map(due).collect(), wanted, directory, plan, timing }
    }

    /// Runs until told to stop.
    pub async fn run(mut self, mut stop: Stop) {
        loop {
            let Some(next) = self.dues.iter().map(|due| due.at).min() else { return };
            tokio::select! {
                biased;
                () = stop.ordered() => return,
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.publish().await;
                }
                () = sleep_until(next) => {
                    if self.read_due().await {
                        self.publish().await;
                    }
                }
            }
        }
    }

    /// Reads the lists whose time has come; answers whether one changed.
    async fn read_due(&mut self) -> bool {
        let now = Instant::now();
        let mut any = false;
        for due in self.dues.iter_mut().filter(|due| due.at <= now) {
            let read = due.reader.read().await;
            let wait = match &read {
                Ok(changed) => {
                    any |= changed;
                    due.backoff.worked();
                    daily(&self.timing)
                }
                Err(fault) => {
                    let (venue, fault) = (due.reader.venue, format!("instrument list not read: {fault}"));
                    tracing::warn!(%venue, fault, "the list before stays in force; it will be tried again");
                    due.board.lock().fault(&fault, tuning::clock::now());
                    due.backoff.failed()
                }
            };
            due.at = Instant::now() + wait;
            show(&due.reader, &due.board);
        }
        any
    }

    /// Makes the plan of the present lists and wishes, and hands it out where it differs.
    async fn publish(&mut self) {
        let before = Arc::clone(&self.plan.borrow());
        let readers: Vec<&ListReader> = self.dues.iter().map(|due| &due.reader).collect();
        let wanted = self.wanted.borrow_and_update().clone();
        let next = plan(&wanted, &readers, &before.directory);
        let grown = next.directory.len() > before.directory.len();
        let assets_changed =
            !next.directory.iter().map(|(_, entry)| entry).eq(before.directory.iter().map(|(_, entry)| entry));
        if assets_changed {
            self.directory.send_replace(Arc::clone(&next.directory));
        }
        if grown {
            // Quotes of assets that the feed thread does not know yet would be lost.
            sleep(duration_ms(self.timing.directory_settle_ms)).await;
        }
        let changed = Venue::ALL.into_iter().filter(|venue| next.of(*venue) != before.of(*venue));
        let changed: Vec<&str> = changed.map(Venue::name).collect();
        if assets_changed || !changed.is_empty() {
            tracing::info!(venues = changed.join(","), assets = next.directory.len(), "subscriptions change");
            self.plan.send_replace(Arc::new(next));
        }
    }
}

fn show(reader: &ListReader, board: &Board) {
    let (read_ms, instruments) = reader.present().map_or((None, 0), |(read_ms, count)| (Some(read_ms), count));
    board.lock().show_list(reader.source(), read_ms, instruments);
}

/// A day, give or take a tenth: not every node and every venue at one moment.
fn daily(timing: &Timing) -> Duration {
    let tenth_ms = timing.refresh_ms / 10;
    duration_ms(rand::random_range(timing.refresh_ms - tenth_ms..=timing.refresh_ms + tenth_ms))
}
