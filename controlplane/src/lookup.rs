//! The lookup desk: finds a price that this node's feeds do not give.
//!
//! First in the cache, where other nodes leave theirs, then at the venues' REST interfaces.

pub mod entry;
