//! What the routes may ask of the data plane and of the venue sessions: reading only.
//!
//! A trait each, because the routes are tested against a plane that says what a test wants it to say.

use crate::feeds::Feeds;
use crate::feeds::plan::Plan;
use crate::feeds::status::FeedsStatus;
use dataplane_core::feed::{FeedCounters, VenueDetail};
use dataplane_engine::{DataPlane, Engine, ShardStats};
use shared::asset::AssetId;
use std::sync::Arc;
use std::time::Duration;
use tuning::core_plan::CorePlan;
use tuning::steering::Steering;

/// Longest the feed thread may take to say what venues contribute. It looks at its inputs many times a millisecond;
/// a quarter of a second is a stall.
const INSPECT_WAIT: Duration = Duration::from_millis(250);

/// The data plane, as the routes see it.
pub trait Plane: Send + Sync {
    /// The engine all shards run, and why.
    fn engine(&self) -> (Engine, String);
    /// Who runs where.
    fn core_plan(&self) -> &CorePlan;
    /// How flows find their shards.
    fn steering(&self) -> Steering;
    /// What every shard published last.
    fn stats(&self) -> Vec<ShardStats>;
    /// The feed shard's counters.
    fn feed_counters(&self) -> FeedCounters;
    /// What each venue contributes to `asset`; `None` when the feed thread does not answer in time. May block.
    fn inspect(&self, asset: AssetId) -> Option<Vec<VenueDetail>>;
}

/// The running data plane with the plan it was started on.
pub struct RunningPlane {
    /// The façade.
    pub plane: Arc<DataPlane>,
    /// The plan.
    pub plan: CorePlan,
}

impl Plane for RunningPlane {
    fn engine(&self) -> (Engine, String) {
        (self.plane.engine(), self.plane.engine_reason().to_owned())
    }

    fn core_plan(&self) -> &CorePlan {
        &self.plan
    }

    fn steering(&self) -> Steering {
        self.plane.steering().clone()
    }

    fn stats(&self) -> Vec<ShardStats> {
        self.plane.stats()
    }

    fn feed_counters(&self) -> FeedCounters {
        self.plane.feed_counters()
    }

    fn inspect(&self, asset: AssetId) -> Option<Vec<VenueDetail>> {
        self.plane.inspect(asset, INSPECT_WAIT)
    }
}

/// The venue sessions, as the routes see them.
pub trait FeedView: Send + Sync {
    /// What each venue is doing.
    fn status(&self) -> FeedsStatus;
    /// What is subscribed, and why.
    fn plan(&self) -> Arc<Plan>;
}

impl FeedView for Arc<Feeds> {
    fn status(&self) -> FeedsStatus {
        Feeds::status(self)
    }

    fn plan(&self) -> Arc<Plan> {
        Feeds::plan(self)
    }
}
