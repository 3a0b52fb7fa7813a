//! The log: our own events at the level asked for, other libraries' only when they warn.
//!
//! Libraries are held down whatever the level, because at their finest they print what they send and receive: keys.

use crate::config::{LogFormat, Settings};
use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{Registry, fmt};

/// What the level is changed with: a process has one log.
static LEVEL: OnceLock<Handle<Targets, Registry>> = OnceLock::new();

/// Sends events to stderr as `settings` say. Later calls change nothing.
pub fn start(settings: &Settings) {
    let (targets, handle) = reload::Layer::new(targets(settings.log_level));
    let registry = tracing_subscriber::registry().with(targets);
    // Colours are for terminals: in a file they are noise.
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // It fails only where a test or an earlier start has already set one: that one stays.
    let started = match settings.log_format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry.with(lines.with_target(false)).try_init(),
    };
    if started.is_ok() {
        // Set once, by the start that counts.
        let _ = LEVEL.set(handle);
    }
}

/// Logs at another level from now on; whether that could be done, which it cannot where no log was started.
#[must_use]
pub fn set_level(level: Level) -> bool {
    LEVEL.get().is_some_and(|handle| handle.reload(targets(level)).is_ok())
}

fn targets(level: Level) -> Targets {
    let ours = ["controlplane", "trinity_beast", "venues", "tuning", "dataplane_engine"];
    Targets::new().with_default(level.min(Level::WARN)).with_targets(ours.map(|name| (name, level)))
}
