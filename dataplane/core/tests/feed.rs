//! The feed shard seen from outside: quotes and virtual time go in, ticks, details and counters come out.

#[path = "feed/believing.rs"]
mod believing;
#[path = "feed/carrying.rs"]
mod carrying;
#[path = "feed/clocks.rs"]
mod clocks;
#[path = "feed/freshness.rs"]
mod freshness;
#[path = "feed/pricing.rs"]
mod pricing;
#[path = "feed/refusing.rs"]
mod refusing;
#[path = "feed/tiers.rs"]
mod tiers;
#[path = "feed/world.rs"]
mod world;
