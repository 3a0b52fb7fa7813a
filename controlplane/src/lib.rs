//! The control plane: everything that may wait. Exchange sessions, settings, administration, start and stop.
//!
//! It drives the data plane through the façade of `dataplane-engine` and is never in the path of a local answer.
#![forbid(unsafe_code)]

pub mod api;
pub mod cache;
pub mod cluster;
pub mod command;
pub mod config;
pub mod feeds;
pub mod governor;
pub mod keys;
pub mod limits;
pub mod logging;
pub mod lookup;
pub mod orders;
pub mod params;
pub mod prices;
pub mod private_file;
pub mod reports;
pub mod resolver;
pub mod secrets;
pub mod store;
pub mod supervisor;
pub mod sync;
pub mod usage;
pub mod warm;
