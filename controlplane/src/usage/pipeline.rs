//! Journal and shipper as one: started after the ledger, stopped after the shards.

use super::journal::tally::Tallied;
use super::journal::{Journal, JournalSetup, shelf::Shelf, tally::Tally};
use super::ledger::UsageLedger;
use super::outlet::Outlet;
use super::shipper::{Observer, Progress, Progressed, Shipper, ShipperSetup};
use crate::config::Settings;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Percent of its bound from which on a journal makes the node unready.
const UNREADY_PERCENT: u64 = 80;

/// The running pipeline.
pub struct Pipeline {
    journal: Journal,
    shipper: Shipper,
    status: Arc<PipelineStatus>,
}

/// What can be seen of a pipeline.
pub struct PipelineStatus {
    shelf: Arc<Shelf>,
    tally: Arc<Tally>,
    progress: Arc<Progress>,
    ledger: Arc<UsageLedger>,
    bytes_max: u64,
}

impl Pipeline {
    /// Takes the journal of `settings`, and delivers what is and comes into it. `observer` is told of what was
    /// delivered.
    ///
    /// # Errors
    /// See [`Journal::start`].
    pub fn start(
        settings: &Settings,
        ledger: &Arc<UsageLedger>,
        outlet: Arc<dyn Outlet>,
        observer: Option<Observer>,
    ) -> anyhow::Result<Self> {
        let bytes_max = settings.usage.journal_bytes_max;
        let journal = Journal::start(JournalSetup {
            data_dir: settings.data_dir.clone(),
            node: settings.node.as_str().into(),
            bytes_max,
            ledger: Arc::clone(ledger),
        })?;
        let (shelf, tally) = (Arc::clone(journal.shelf()), Arc::clone(journal.tally()));
        let (shelf_of, tally_of) = (Arc::clone(&shelf), Arc::clone(&tally));
        let shipper = Shipper::start(ShipperSetup { shelf: shelf_of, tally: tally_of, outlet, observer });
        let progress = Arc::clone(shipper.progress());
        let status = PipelineStatus { shelf, tally, progress, ledger: Arc::clone(ledger), bytes_max };
        Ok(Self { journal, shipper, status: Arc::new(status) })
    }

    /// What can be seen of it.
    #[must_use]
    pub const fn status(&self) -> &Arc<PipelineStatus> {
        &self.status
    }

    /// Writes the last records and delivers, all within `most`; what is not delivered stays on the disk.
    pub async fn stop(self, most: Duration) {
        let begun = Instant::now();
        let Self { journal, shipper, status } = self;
        let (done, ended) = tokio::sync::oneshot::channel();
        // A thread of its own: those that the runtime has for what blocks may all wait for something else.
        let stop = move || done.send(journal.stop());
        let stopping = std::thread::Builder::new().name("journal-stop".to_owned()).spawn(stop);
        let folder = match stopping {
            Ok(_) => tokio::time::timeout(most, ended).await.ok().and_then(Result::ok),
            Err(_) => None,
        };
        if folder.is_none() {
            tracing::error!(
                "the journal's disk did not answer in time: what was not written is lost with this process"
            );
        }
        if !shipper.finish(most.saturating_sub(begun.elapsed())).await {
            let records = status.shelf.waiting().records;
            tracing::warn!(records, "usage stays in the journal: the next process delivers it");
        }
    }
}

impl PipelineStatus {
    /// What the journal did.
    #[must_use]
    pub fn tallied(&self) -> Tallied {
        self.tally.read()
    }

    /// What the shipper did.
    #[must_use]
    pub fn progressed(&self) -> Progressed {
        self.progress.read()
    }

    /// What waits on the disk, and its bound in bytes.
    #[must_use]
    pub fn waiting(&self) -> (super::journal::shelf::Waiting, u64) {
        (self.shelf.waiting(), self.bytes_max)
    }

    /// Records that wait in memory, and how many were merged into others because the disk did not take them.
    #[must_use]
    pub fn held(&self) -> (usize, u64) {
        self.ledger.held()
    }

    /// Why the node should not be sent requests, if the journal is a reason.
    #[must_use]
    pub fn unready_reason(&self) -> Option<String> {
        let (bytes, most) = (self.shelf.waiting().bytes, self.bytes_max);
        (bytes >= most / 100 * UNREADY_PERCENT).then(|| {
            let to = self.progressed().kind;
            format!(
                "the usage journal is {} % full: the {to} does not take what waits",
                bytes.saturating_mul(100) / most
            )
        })
    }

    /// For `/admin/usage`.
    #[must_use]
    pub fn summary(&self) -> Value {
        let (waiting, tallied, progressed) = (self.shelf.waiting(), self.tallied(), self.progressed());
        json!({
            "records": tallied.records,
            "requests": tallied.requests,
            "segments": waiting.segments,
            "bytes": waiting.bytes,
            "records_waiting": waiting.records,
            "delivered": progressed.rows,
            "to": progressed.kind,
            "away_since_ms": (progressed.away_since_ms > 0).then_some(progressed.away_since_ms),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_80_percent_on_the_journal_is_a_reason() {
        let shelf = Arc::new(Shelf::new("unused".into()));
        let (ledger, progress) = (UsageLedger::journaled(Vec::new()), Progress::new("database"));
        let (tally, ledger, progress) = (Arc::default(), Arc::new(ledger), Arc::new(progress));
        let status = PipelineStatus { shelf: Arc::clone(&shelf), tally, progress, ledger, bytes_max: 100_000 };
        shelf.begin(1, "n1".into());
        for (entries, expected) in [(0, None), (1_247, None), (1_248, Some("80 %")), (1_560, Some("99 %"))] {
            shelf.written(1, entries);
            let reason = status.unready_reason();
            let is_right = match expected {
                Some(percent) => reason.as_ref().is_some_and(|reason| reason.contains(percent)),
                None => reason.is_none(),
            };
            assert!(is_right, "{entries} entries: {reason:?}");
        }
        shelf.remove(1);
        assert_eq!((status.unready_reason(), shelf.waiting().bytes), (None, 0));
    }
}
