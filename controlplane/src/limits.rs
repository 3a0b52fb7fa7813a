//! Limits beyond one node and one second: a key's second shared by nodes, and its month.
//!
//! What a shard admits is decided in the data plane; here the numbers that it decides by are kept right.

mod book;
#[cfg(test)]
mod simulation;
