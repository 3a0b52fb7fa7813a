//! The scripts that run on the server: one key each, so that they run in a cluster too.
//!
//! A server knows a script by its digest once it has had it whole. When it has forgotten (a restart, another server of the
//! cluster), it gets it whole again with the call itself.

use super::fault::Fault;
use fred::error::Error;
use fred::interfaces::LuaInterface;
use fred::prelude::Client;
use fred::types::{FromValue, Value};
use std::sync::OnceLock;

/// One script.
pub struct Script {
    text: &'static str,
    /// The digest, as the server told it; the same on every server.
    digest: OnceLock<String>,
}

/// Takes a part of a second.
pub static LEASE: Script = Script::new(concat!(include_str!("clock.lua"), include_str!("lease.lua")));
/// Notes a node.
pub static NODES: Script = Script::new(concat!(include_str!("clock.lua"), include_str!("nodes.lua")));
/// Reads a value.
pub static READ: Script = Script::new(include_str!("read.lua"));
/// Replaces a value.
pub static WRITE: Script = Script::new(include_str!("write.lua"));
/// Replaces a text, unless what stands there is later.
pub static WRITE_LATEST: Script = Script::new(include_str!("write_latest.lua"));
/// Adds members to a sorted set.
pub static APPEND: Script = Script::new(include_str!("append.lua"));
/// Brings a hash forward.
pub static ADVANCE: Script = Script::new(include_str!("advance.lua"));
/// Adds to a number.
pub static ADD: Script = Script::new(include_str!("add.lua"));

impl Script {
    /// Every script.
    pub const ALL: [&'static Self; 8] = [&LEASE, &NODES, &READ, &WRITE, &WRITE_LATEST, &APPEND, &ADVANCE, &ADD];

    pub(super) const fn new(text: &'static str) -> Self {
        Self { text, digest: OnceLock::new() }
    }

    /// Makes the server know it.
    pub async fn load(&self, client: &Client) -> Result<(), Error> {
        let digest: String = client.script_load(self.text).await?;
        // Known already: then it is the same.
        let _ = self.digest.set(digest);
        Ok(())
    }

    /// Runs it on one key.
    pub async fn run<T: FromValue>(&self, client: &Client, key: &str, words: Vec<Value>) -> Result<T, Fault> {
        if let Some(digest) = self.digest.get() {
            match client.evalsha(digest.as_str(), key, words.clone()).await.map_err(Fault::from) {
                Err(Fault::NoScript) => {}
                outcome => return outcome,
            }
        }
        client.eval(self.text, key, words).await.map_err(Fault::from)
    }
}
