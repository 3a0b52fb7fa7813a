//! The clients of the load generator, against servers that do right, wrong, or nothing.

mod closed;
mod fakes;
mod level;
mod level_udp;
mod refused;
