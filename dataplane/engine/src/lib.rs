//! The two engines that move bytes for the shards, and the façade that the control plane drives.
//!
//! One thread for each shard, pinned, with sockets of its own; one thread for the feed. What the bytes say is the
//! business of `dataplane_core`; an engine does not know what an asset is.

mod choice;
mod connections;
mod datagrams;
mod epoll;
mod facade;
mod feed_thread;
mod handover;
mod lag;
mod limits;
mod shard_thread;
mod sockets;
mod stats;
mod uring;
mod wake;
mod wiring;

pub use choice::{Engine, EngineChoice};
pub use facade::{DataPlane, DataPlaneSetup, StartRefused};
pub use feed_thread::FeedSender;
pub use handover::HandedOver;
pub use lag::LagHistogram;
pub use limits::CONNECTIONS_MAX;
pub use stats::ShardStats;
