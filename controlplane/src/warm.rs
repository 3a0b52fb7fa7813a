//! Prices that stand ready before anybody asks: this node's for the others, and the others' for this one.
//!
//! Every [`FLUSH_EVERY`] a node writes its fresh prices to `price:<ASSET>` (`flush`). When it starts it takes what the
//! others wrote, so that it has prices before its own feeds do, and at intervals it looks up what is kept warm and has no
//! fresh price (`prewarm`). Nodes take turns (`turns`), so that they ask and write one after the other however many
//! were started at once. What is in the way of an answer is not here: all of it may fail, and costs no price.

mod flush;
mod prewarm;
mod turns;

#[cfg(test)]
mod tests;

pub use self::flush::FlushCounters;
pub use self::prewarm::PrewarmCounters;

use self::flush::{Flush, SWEEP_MS};
use self::prewarm::{Part, Prewarm};
use self::turns::{Turn, wait_ms};
use crate::cache::Cache;
use crate::cluster::ClusterView;
use crate::lookup::Lookups;
use crate::params::Parameters;
use crate::prices::PriceBoard;
use shared::asset::AssetDirectory;
use shared::moment::Moment;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tuning::clock;

/// Time between two flushes of one node: half of what a price lives in the cache.
pub const FLUSH_EVERY: Duration = Duration::from_secs(30);

/// How long the feeds have for their first prices before REST is asked for what is missing.
const FEEDS_SETTLE: Duration = Duration::from_secs(5);

/// How much later than its neighbour each further node asks after that: the first time nodes cannot take turns over a whole
/// interval, which may be hours.
const FIRST_STEP: Duration = Duration::from_secs(5);

/// Most steps of the first time, so that the last of many nodes waits two minutes at the most.
const FIRST_STEPS_MAX: u32 = 24;

/// Places among which a node takes its own by its name while it cannot see the others: at intervals of a minute they are
/// 60 ms apart, so that few nodes meet.
const UNSEEN_PLACES: u32 = 1_000;

/// Over how long those are spread the first time.
const UNSEEN_FIRST: Duration = Duration::from_secs(60);

/// How much longer than it should a wait may take, ms, before the process counts as held up: some turns of a busy machine.
const HELD_UP_MS: u64 = 500;

/// What a node keeps warm with.
pub struct WarmSetup {
    /// This node's name, as it stands in the cluster's view.
    pub node: String,
    /// Where prices of all nodes stand.
    pub cache: Arc<dyn Cache>,
    /// Who is alive.
    pub cluster: watch::Receiver<ClusterView>,
    /// This node's prices.
    pub prices: Arc<PriceBoard>,
    /// Every asset.
    pub assets: watch::Receiver<Arc<AssetDirectory>>,
    /// The parameters in force.
    pub parameters: watch::Receiver<Arc<Parameters>>,
    /// Who looks prices up.
    pub lookups: Arc<dyn Lookups>,
}

/// How it went so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WarmCounters {
    /// This node's prices for the others; `None` where there are no others: the cache is in this process.
    pub flush: Option<FlushCounters>,
    /// What was looked up unasked.
    pub prewarm: PrewarmCounters,
}

/// The running rounds; they end when it is dropped.
pub struct Warm {
    flush: Option<Arc<Flush>>,
    prewarm: Arc<Prewarm>,
    rounds: Vec<JoinHandle<()>>,
}

impl Drop for Warm {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Warm {
    /// Begins, on the present runtime: takes the others' prices at once.
    #[must_use]
    pub fn start(setup: WarmSetup) -> Self {
        let WarmSetup { node, cache, cluster, prices, assets, parameters, lookups } = setup;
        let mut rounds = Vec::new();
        let place = Place { node: node.clone(), cluster, parameters: parameters.clone() };
        // A cache of this process' own has no other reader.
        let flush = (cache.kind() != "in-process").then(|| {
            let (prices, assets) = (Arc::clone(&prices), assets.clone());
            Arc::new(Flush::new(node, cache, prices, assets, parameters))
        });
        if let Some(flush) = &flush {
            rounds.push(tokio::spawn(keep_flushing(Arc::clone(flush), place.clone())));
        }
        let prewarm = Arc::new(Prewarm::new(prices, assets, lookups));
        for part in Part::ALL {
            rounds.push(tokio::spawn(keep_warm(Arc::clone(&prewarm), part, place.clone())));
        }
        Self { flush, prewarm, rounds }
    }

    /// Ends the rounds, at their next wait. To be called before the prices stop: what stands still looks like a quiet
    /// market, and must not be told to the others as one.
    pub fn stop(&self) {
        self.rounds.iter().for_each(JoinHandle::abort);
    }

    /// How it went so far.
    #[must_use]
    pub fn counters(&self) -> WarmCounters {
        WarmCounters { flush: self.flush.as_ref().map(|flush| flush.counters()), prewarm: self.prewarm.counters() }
    }
}

/// What a turn depends on.
#[derive(Clone)]
struct Place {
    node: String,
    cluster: watch::Receiver<ClusterView>,
    parameters: watch::Receiver<Arc<Parameters>>,
}

impl Place {
    /// How many nodes come before this one, and how many there are. A node that has never seen the others since it started,
    /// as the cache is away, takes a place by its name.
    fn rank(&mut self) -> (u32, u32) {
        let view = self.cluster.borrow_and_update();
        if is_blind(&view) {
            return (crc32c::crc32c(self.node.as_bytes()) % UNSEEN_PLACES, UNSEEN_PLACES);
        }
        let rank = view.nodes.iter().position(|node| *node == self.node).unwrap_or(0);
        let of = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        (of(rank), of(view.nodes.len()).max(1))
    }

    /// How long this node waits the first time, so that nodes which started together do not ask together.
    fn first_step(&mut self) -> Duration {
        let (rank, nodes) = self.rank();
        if is_blind(&self.cluster.borrow()) {
            return UNSEEN_FIRST * rank / nodes;
        }
        FIRST_STEP * rank.min(FIRST_STEPS_MAX)
    }

    /// Waits for this node's next turn, which others may move by coming and going, and parameters by changing.
    async fn turn(&mut self, last: Option<Instant>, turn: impl Fn(&Parameters) -> Turn) {
        loop {
            let turn = turn(&self.parameters.borrow_and_update());
            let since_ms = last.map(|last| u64::try_from(last.elapsed().as_millis()).unwrap_or(u64::MAX));
            let wait = Duration::from_millis(wait_ms(clock::now().wall_ms, since_ms, turn, self.rank()));
            tokio::select! {
                () = sleep(wait) => return,
                Ok(()) = self.cluster.changed() => {}
                Ok(()) = self.parameters.changed() => {}
            }
        }
    }
}

/// Whether a node does not know who else is there.
fn is_blind(view: &ClusterView) -> bool {
    !view.connected && view.nodes.len() <= 1
}

async fn keep_flushing(flush: Arc<Flush>, mut place: Place) {
    let mut last = None;
    loop {
        place.turn(last, |_| Turn { every: FLUSH_EVERY, later: Duration::ZERO }).await;
        last = Some(Instant::now());
        let began = clock::now();
        sleep(Duration::from_millis(SWEEP_MS)).await;
        flush.round(has_run(began.mono_ns, clock::now())).await;
    }
}

/// Whether a wait of [`SWEEP_MS`] that began then took no longer than that: a process that was stopped meanwhile, or had
/// no processor, has not looked at its prices either.
const fn has_run(began_ns: u64, now: Moment) -> bool {
    now.ms_since(began_ns) <= SWEEP_MS + HELD_UP_MS
}

async fn keep_warm(prewarm: Arc<Prewarm>, part: Part, mut place: Place) {
    let settled = sleep(FEEDS_SETTLE);
    if part == Part::Most {
        let was_connected = place.cluster.borrow().connected;
        prewarm.take_others().await;
        // The cache's first connection may come after the first question.
        let connected = place.cluster.wait_for(|view| view.connected);
        if !was_connected && matches!(timeout(FEEDS_SETTLE, connected).await, Ok(Ok(_))) {
            prewarm.take_others().await;
        }
    }
    settled.await;
    let later = part.turn(&place.parameters.borrow_and_update().prewarm_turns).later;
    let wait = place.first_step() + later;
    sleep(wait).await;
    loop {
        let began = Instant::now();
        prewarm.round(part).await;
        place.turn(Some(began), |parameters| part.turn(&parameters.prewarm_turns)).await;
    }
}
