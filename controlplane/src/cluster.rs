//! The other nodes: who is alive, and what each counts.
//!
//! Each node writes its counters to `cluster:stats:<node>` and learns who else does. Without a cache a node is alone.

/// Who is there, as far as this node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// Names of the nodes alive, this one included, in order.
    pub nodes: Vec<String>,
    /// Whether the cache answered the last time; when not, `nodes` are those of the last time it did.
    pub connected: bool,
}
