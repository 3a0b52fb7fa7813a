//! The load generator: clients that ask as fast as they are answered, and check what they are told.
//!
//! Both clients are closed loops over non-blocking sockets on the calling thread: the caller decides which CPU that is.
//! An answer counts only when it is the right one: right status, right asset, right request.
#![forbid(unsafe_code)]

mod connection;
mod exchange;
mod field;
pub mod frame;
pub mod framing;
pub mod job;
pub mod level;
pub mod outcome;
pub mod plan;
mod price;
pub mod report;
pub mod schedule;
pub mod tcp;
pub mod udp;

pub use framing::Framing;
pub use report::LoadReport;
