//! The feeds against the simulated exchanges, over real loopback sockets: each fault by itself, and what became of it.
//!
//! Nothing here waits for a fixed time: a test orders a fault, then waits until a condition holds, or fails after a
//! generous deadline with what the venue's status says.

mod connections;
mod faults;
mod lists;
mod rest;
mod subscriptions;
mod tls;
mod world;
