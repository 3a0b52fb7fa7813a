//! The two engines that move bytes for the shards, and the façade that the control plane drives.

mod connections;
mod facade;
mod handover;
mod limits;
mod stats;
mod wake;
mod wiring;

pub use facade::{DataPlane, DataPlaneSetup, Engine, EngineChoice, FeedSender, StartRefused};
pub use handover::HandedOver;
pub use limits::CONNECTIONS_MAX;
pub use stats::ShardStats;
