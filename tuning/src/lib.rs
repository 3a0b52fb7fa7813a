//! What this machine permits, and which thread runs where.
//!
//! Only this crate and the engines may hold `unsafe` code; every block says why it is sound.

pub mod buffer_ring;
pub mod card;
pub mod clock;
pub mod core_plan;
pub mod cpus;
pub mod host;
pub mod machine;
pub mod noise;
pub mod pin;
pub mod priority;
pub mod ring_probe;
pub mod settings;
pub mod sockets;
pub mod steering;
