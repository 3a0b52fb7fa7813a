//! Values that every part of Trinity Beast agrees on.
//!
//! This crate never touches the operating system: no sockets, clocks, threads or files (invariant I1).
//! It holds the words of the trade (asset, venue, quote, tick), exact decimal prices, the one list of error
//! codes, and the layouts that leave the process: the 64-byte UDP frames and the 64-byte usage record.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod asset;
pub mod code;
pub mod key;
pub mod limits;
pub mod moment;
pub mod price;
pub mod quote;
pub mod tick;
pub mod usage;
pub mod venue;
pub mod wire;
