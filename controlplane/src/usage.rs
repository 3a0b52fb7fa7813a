//! What every key has asked: added up in memory, journaled on this node's disk, delivered to the database.
//!
//! A shard counts an answer and merges it into its window's records; [`ledger`] takes the records out of the shards'
//! rings; the journal's thread appends them to a file of this node; the shipper reads what is on disk and hands it to
//! an [`outlet::Outlet`], the database or the queue, exactly once as far as the database's rows are concerned. What a
//! price is, and what a report looks like, is not known here.

mod held;
pub mod journal;
mod ledger;
mod marks;
pub mod mirror;
pub mod outlet;
pub mod pipeline;
pub mod queue;
pub mod retention;
pub mod shipper;
pub mod store_outlet;

pub use self::ledger::{KeyUsage, UsageLedger};
