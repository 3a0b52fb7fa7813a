//! The desk on simulated exchanges, a real feed shard and a real cache.
