//! The log: our own events at the level asked for, other libraries' only when they warn.
//!
//! Libraries are held down whatever the level, because at their finest they print what they send and receive: keys.

use crate::config::{LogFormat, Settings};
use std::io::IsTerminal;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

/// Sends events to stderr as `settings` say. Later calls change nothing.
pub fn start(settings: &Settings) {
    let level = settings.log_level;
    let ours = ["controlplane", "trinity_beast", "venues", "tuning", "dataplane_engine"];
    let targets = Targets::new().with_default(level.min(Level::WARN)).with_targets(ours.map(|name| (name, level)));
    let registry = tracing_subscriber::registry().with(targets);
    // Colours are for terminals: in a file they are noise.
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // It fails only where a test or an earlier start has already set one: that one stays.
    let _ = match settings.log_format {
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry.with(lines.with_target(false)).try_init(),
    };
}
