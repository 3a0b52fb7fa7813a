//! The two engines that move bytes for the shards, and the façade that the control plane drives.

mod facade;

pub use facade::{DataPlane, DataPlaneSetup, Engine, EngineChoice, FeedSender, HandedOver, ShardStats, StartRefused};
