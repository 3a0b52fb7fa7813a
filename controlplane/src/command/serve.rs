//! `serve`: the service in production.

use super::environment;
use crate::config::layers::{Profile, SettingArgs};
use crate::{config, supervisor};
use clap::Args;
use std::path::PathBuf;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Write one JSON object with every bound address there, once answering
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingArgs,
}

/// Serves until told to stop.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    let settings = config::load(Profile::Serve, &args.settings, environment)?;
    supervisor::run(supervisor::Order { settings, ready_file: args.ready_file, demo: None, announce: None })
}
