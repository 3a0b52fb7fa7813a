//! The thirteen levels: how many connections, and how many requests a second are offered, level by level.
//!
//! A level is a total over all targets, for each protocol that is driven. The last level offers more than the system
//! being replaced ever answered on 24 vCPU (369,600 over TCP, 487,900 over UDP).

/// One step of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// 1 for the first.
    pub number: u32,
    /// Connections over TCP, and sockets over UDP, open at once over all targets; at least 1.
    pub connections: usize,
    /// Requests a second offered over all targets, for each protocol; at least 1. A closed loop does not look at it.
    pub rate: u64,
}

const fn level(number: u32, connections: usize, rate: u64) -> Level {
    Level { number, connections, rate }
}

/// The plan unless it is overridden.
pub const LEVELS: [Level; 13] = [
    level(1, 8, 1_000),
    level(2, 16, 2_500),
    level(3, 32, 5_000),
    level(4, 64, 10_000),
    level(5, 64, 20_000),
    level(6, 128, 40_000),
    level(7, 128, 60_000),
    level(8, 256, 80_000),
    level(9, 256, 120_000),
    level(10, 512, 180_000),
    level(11, 512, 260_000),
    level(12, 1_024, 380_000),
    level(13, 1_024, 500_000),
];
