//! Seven exchanges' market data protocols as pure functions: subscribe text out, frames in, quotes out.
//!
//! This crate knows no socket, clock or runtime. A [`VenueProtocol`] is the state of one connection; a session drives
//! it. `simulate` is the other side of the same seven protocols: what a venue's server would say.
#![forbid(unsafe_code)]

pub mod bybit;
pub mod coinbase;
pub mod cryptocom;
pub mod fields;
pub mod frame;
pub mod gateio;
pub mod gemini;
pub mod heard;
pub mod json;
pub mod kraken;
pub mod okx;
pub mod pair;
pub mod protocol;
pub mod rest;
pub mod simulate;
pub mod timestamp;
