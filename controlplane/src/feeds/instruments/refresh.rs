//! Reads the instrument lists again: daily, and soon after a read that failed. Changes become a new plan.
//!
//! One task makes the plans; everyone else watches them. Each list is read in a task of its own, for lists are slow.

use super::ListReader;
use crate::feeds::backoff::Backoff;
use crate::feeds::board::Board;
use crate::feeds::plan::{Listing, Offers, Plan, Wanted, Wishes};
use crate::feeds::stop::Stop;
use crate::feeds::timing::{Timing, duration_ms};
use shared::asset::AssetDirectory;
use shared::limits::ASSETS_MAX;
use shared::venue::{VENUE_COUNT, Venue};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

/// Longest wait after failed reads, ms: a venue that was away is asked again within the hour.
const RETRY_MS_MAX: u64 = 3_600_000;

struct Due {
    reader: ListReader,
    board: Arc<Board>,
    at: Instant,
    backoff: Backoff,
}

/// Where the results go.
pub struct Outcomes {
    /// Every asset: written first.
    pub directory: watch::Sender<Arc<AssetDirectory>>,
    /// Who prices what: written once the directory has had time to arrive everywhere.
    pub plan: watch::Sender<Arc<Plan>>,
}

/// Keeps the plan up to date.
pub struct Refresh {
    /// Lists that wait for their time; one that is being read is in `reads` instead.
    dues: Vec<Due>,
    reads: JoinSet<(Due, bool)>,
    listings: [Listing; VENUE_COUNT],
    wishes: watch::Receiver<Wishes>,
    /// The wanted assets of the present plan.
    wanted: Vec<Wanted>,
    outcomes: Outcomes,
    timing: Timing,
}

impl Refresh {
    /// Looks after `readers`, each with its venue's board; what changes goes to `outcomes`: into the directory first,
    /// and after `Timing::directory_settle_ms` into the plan.
    #[must_use]
    pub fn new(
        readers: Vec<(ListReader, Arc<Board>)>,
        wishes: watch::Receiver<Wishes>,
        outcomes: Outcomes,
        timing: Timing,
    ) -> Self {
        let mut listings: [Listing; VENUE_COUNT] = Default::default();
        let due = |(reader, board): (ListReader, Arc<Board>)| {
            listings[reader.venue.index()] = reader.listing();
            let mut backoff = Backoff::new(timing.refresh_retry_ms, RETRY_MS_MAX.min(timing.refresh_ms));
            let read = reader.source() == super::ListSource::Venue;
            let wait = if read { daily(&timing) } else { backoff.failed() };
            show(&reader, &board);
            Due { reader, board, at: Instant::now() + wait, backoff }
        };
        let dues = readers.into_iter().map(due).collect();
        let wanted = wishes.borrow().wanted.clone();
        Self { dues, reads: JoinSet::new(), listings, wishes, wanted, outcomes, timing }
    }

    /// Runs until told to stop. Lists are read beside it, so that what is asked for on demand never waits for a venue.
    pub async fn run(mut self, mut stop: Stop) {
        loop {
            let next = self.dues.iter().map(|due| due.at).min();
            tokio::select! {
                biased;
                () = stop.ordered() => return,
                changed = self.wishes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.publish(None).await;
                }
                Some(read) = self.reads.join_next() => {
                    if self.take_read(read) {
                        let offers = Arc::new(Offers::new(&self.listings));
                        self.publish(Some(offers)).await;
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.read_due(),
            }
        }
    }

    /// Begins to read the lists whose time has come.
    fn read_due(&mut self) {
        let now = Instant::now();
        for due in self.dues.extract_if(.., |due| due.at <= now) {
            self.reads.spawn(read(due, self.timing));
        }
    }

    /// Takes what a read brought; answers whether it is another list than before.
    fn take_read(&mut self, read: Result<(Due, bool), JoinError>) -> bool {
        match read {
            Ok((due, changed)) => {
                if changed {
                    self.listings[due.reader.venue.index()] = due.reader.listing();
                }
                self.dues.push(due);
                changed
            }
            Err(fault) => {
                tracing::error!(%fault, "reading an instrument list failed; the list stays as it is until a restart");
                false
            }
        }
    }

    /// Makes the plan of `offers`, or of what was offered before, and the wishes, and hands it out where it differs.
    async fn publish(&mut self, offers: Option<Arc<Offers>>) {
        let before = Arc::clone(&self.outcomes.plan.borrow());
        let wishes = self.wishes.borrow_and_update().clone();
        let renewed = offers.is_some() || wishes.wanted != self.wanted;
        let offers = offers.unwrap_or_else(|| Arc::clone(&before.offers));
        let next = Plan::new(&wishes, &offers, &before.directory, before.edition + u64::from(renewed));
        self.wanted = wishes.wanted;
        let assets_changed = !Arc::ptr_eq(&next.directory, &before.directory);
        if assets_changed {
            self.outcomes.directory.send_replace(Arc::clone(&next.directory));
        }
        if next.directory.len() > before.directory.len() {
            // Quotes of assets that the feed thread does not know yet would be lost. What else is wished for meanwhile
            // comes into the next directory, all of it.
            sleep(duration_ms(self.timing.directory_settle_ms)).await;
        }
        if next.left_out > before.left_out {
            let (left_out, most) = (next.left_out, ASSETS_MAX);
            tracing::warn!(left_out, most, "assets cannot be asked for: the directory is full; a restart makes room");
        }
        let changed = Venue::ALL.into_iter().filter(|venue| next.of(*venue) != before.of(*venue));
        let changed: Vec<&str> = changed.map(Venue::name).collect();
        if assets_changed || renewed {
            tracing::info!(venues = changed.join(","), assets = next.directory.len(), "subscriptions change");
        } else if !changed.is_empty() {
            tracing::debug!(venues = changed.join(","), "subscriptions change on demand");
        }
        self.outcomes.plan.send_replace(Arc::new(next));
    }
}

/// Reads one list; answers whether it is another than before.
async fn read(mut due: Due, timing: Timing) -> (Due, bool) {
    let read = due.reader.read().await;
    let (changed, wait) = match &read {
        Ok(changed) => {
            due.backoff.worked();
            (*changed, daily(&timing))
        }
        Err(fault) => {
            let (venue, fault) = (due.reader.venue, format!("instrument list not read: {fault}"));
            tracing::warn!(%venue, fault, "the list before stays in force; it will be tried again");
            due.board.lock().fault(&fault, tuning::clock::now());
            (false, due.backoff.failed())
        }
    };
    due.at = Instant::now() + wait;
    show(&due.reader, &due.board);
    (due, changed)
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
