//! The data plane's logic: bytes in, bytes out; quotes in, ticks out.
//!
//! This crate never touches the operating system (invariant I1): it knows no socket, clock, thread or file, and
//! time is an argument. `shard` is the seam that the engines drive; `feed` is the one writer of ticks.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod access;
pub mod command;
pub mod counters;
pub mod feed;
pub mod governor;
pub mod reply;
pub mod shard;

mod datagram;
mod http;
pub mod limits;
pub mod lookup;
mod lookups;
mod places;
pub mod render;
mod table;
mod usage;
mod waiters;

pub use http::request::names_etag;
