//! The desk over a store in memory: what is changed here and elsewhere, and what becomes of it while the store is away.
