//! The two engines that move bytes for the shards, and the façade that the control plane drives.
//!
//! One thread for each shard, pinned, with sockets of its own; one thread for the feed. What the bytes say is the
//! business of `dataplane_core`; an engine does not know what an asset is.
//!
//! Besides them stand two rivals, `monoio` and `glommio`, behind cargo features of their names and off by default: the
//! same seam over other people's loops, to be measured against.

mod asks;
mod choice;
mod connections;
mod datagrams;
mod epoll;
mod facade;
mod feed_thread;
#[cfg(feature = "glommio")]
mod glommio;
mod handover;
mod lag;
mod limits;
#[cfg(feature = "monoio")]
mod monoio;
#[cfg(any(feature = "monoio", feature = "glommio"))]
mod rivals;
mod shard_thread;
mod sockets;
mod stats;
mod uring;
mod wake;
mod wiring;

pub use asks::AskReceiver;
pub use choice::{Engine, EngineChoice};
pub use facade::{DataPlane, DataPlaneSetup, StartRefused};
pub use feed_thread::FeedSender;
pub use handover::HandedOver;
pub use lag::LagHistogram;
pub use limits::CONNECTIONS_MAX;
pub use stats::ShardStats;
