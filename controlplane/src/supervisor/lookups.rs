//! The lookup desk between shards, feeds and cache: put together, and taken down before any of them.

use crate::cache::Cache;
use crate::feeds::Feeds;
use crate::lookup::asks::{AskThreads, answers};
use crate::lookup::desk::{LookupDesk, LookupSetup};
use crate::params::desk::ParameterDesk;
use crate::prices::PriceBoard;
use anyhow::Context;
use dataplane_engine::DataPlane;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What the desk stands between.
pub struct Around<'a> {
    pub node: &'a str,
    pub simulated: bool,
    pub plane: &'a Arc<DataPlane>,
    pub feeds: &'a Arc<Feeds>,
    pub cache: &'a Arc<dyn Cache>,
    pub prices: &'a Arc<PriceBoard>,
    pub params: &'a ParameterDesk,
}

/// The running desk.
pub struct RunningLookups {
    pub desk: Arc<LookupDesk>,
    threads: Option<AskThreads>,
    tasks: JoinSet<()>,
}

/// Starts the desk; it takes what the shards ask from then on.
pub fn start(around: &Around<'_>) -> anyhow::Result<RunningLookups> {
    let (sender, told) = answers();
    let desk = LookupDesk::new(LookupSetup {
        node: around.node.to_owned(),
        simulated: around.simulated,
        cache: Arc::clone(around.cache),
        feeds: Arc::clone(around.feeds),
        sink: Arc::new(around.plane.feed()),
        prices: Arc::clone(around.prices),
        parameters: around.params.watch(),
        answers: sender,
    });
    let asks = around.plane.take_asks();
    let threads = asks.map(|asks| AskThreads::start(around.plane, &desk, asks, told)).transpose();
    let threads = threads.context("cannot start the threads that look prices up; raise the limit on processes")?;
    let tasks = desk.run();
    Ok(RunningLookups { desk, threads, tasks })
}

impl RunningLookups {
    /// Ends it. Whoever waits is answered by the shards at the deadline.
    pub fn stop(mut self) {
        self.tasks.abort_all();
        if let Some(threads) = self.threads.take() {
            threads.stop();
        }
    }
}
