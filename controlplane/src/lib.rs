//! The control plane: everything that may wait. Exchange sessions, settings, administration, start and stop.
//!
//! It drives the data plane through the façade of `dataplane-engine` and is never in the path of a local answer.
#![forbid(unsafe_code)]

pub mod config;
pub mod keys;
pub mod prices;
pub mod usage;
