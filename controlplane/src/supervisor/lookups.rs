//! The lookup desk between shards, feeds and cache: put together, and taken down once the feeds have stopped. A lookup
//! asked for meanwhile finds nothing at the venues, and who asked is answered at the end of their patience.

use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::feeds::Feeds;
use crate::lookup::asks::{AskThreads, answers};
use crate::lookup::desk::{LookupDesk, LookupSetup};
use crate::params::desk::ParameterDesk;
use crate::prices::PriceBoard;
use crate::warm::{Warm, WarmSetup};
use anyhow::Context;
use dataplane_engine::DataPlane;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What the desk stands between.
pub struct Around<'a> {
    pub plane: &'a Arc<DataPlane>,
    pub feeds: &'a Arc<Feeds>,
    pub cache: &'a Arc<dyn Cache>,
    pub params: &'a ParameterDesk,
}

/// The running desk.
pub struct RunningLookups {
    pub desk: Arc<LookupDesk>,
    /// What the feed thread has published.
    pub prices: Arc<PriceBoard>,
    threads: Option<Arc<AskThreads>>,
    tasks: JoinSet<()>,
}

/// Starts the desk of `node`, whose prices are `simulated` or not; it takes what the shards ask from then on.
pub fn start(node: &str, simulated: bool, around: &Around<'_>) -> anyhow::Result<RunningLookups> {
    let (sender, told) = answers();
    let prices = Arc::new(PriceBoard::new(around.plane.take_ticks()));
    let desk = LookupDesk::new(LookupSetup {
        node: node.to_owned(),
        simulated,
        cache: Arc::clone(around.cache),
        feeds: Arc::clone(around.feeds),
        sink: Arc::new(around.plane.feed()),
        prices: Arc::clone(&prices),
        parameters: around.params.watch(),
        answers: sender,
    });
    let asks = around.plane.take_asks();
    let threads = asks.map(|asks| AskThreads::start(around.plane, &desk, asks, told)).transpose();
    let threads = threads.context("cannot start the threads that look prices up; raise the limit on processes")?;
    let tasks = desk.run();
    Ok(RunningLookups { desk, prices, threads: threads.map(Arc::new), tasks })
}

impl RunningLookups {
    /// Begins to keep prices ready for whoever asks, here and on the other nodes.
    pub fn keep_warm(&self, node: &str, cluster: &Cluster, around: &Around<'_>) -> Warm {
        Warm::start(WarmSetup {
            node: node.to_owned(),
            cache: Arc::clone(around.cache),
            cluster: cluster.watch(),
            prices: Arc::clone(&self.prices),
            assets: around.feeds.directory(),
            parameters: around.params.watch(),
            lookups: Arc::new(Arc::clone(&self.desk)),
        })
    }

    /// Tells which thread of the data plane or of the desk has ended by itself, if one has.
    pub fn watch(&self, plane: &Arc<DataPlane>) -> impl Fn() -> Option<String> + Send + 'static {
        let (plane, threads) = (Arc::clone(plane), self.threads.clone());
        move || plane.failed_thread().or_else(|| threads.as_ref()?.failed_thread())
    }

    /// Ends it. Whoever waits is answered by the shards at the deadline.
    pub fn stop(mut self) {
        self.tasks.abort_all();
        if let Some(threads) = self.threads.take() {
            threads.stop();
        }
    }
}
