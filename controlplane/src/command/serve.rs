//! `serve`: the service in production.

use super::environment;
use crate::config::layers::{Profile, SettingArgs};
use crate::{config, supervisor};
use clap::Args;
use std::path::PathBuf;

/// How API keys are made known.
pub const KEYS_HELP: &str = "\
API keys are made by `keys create`. Some may stand in the settings file too, by the SHA-256 of their text
(printf %s KEY | sha256sum); they work without a database:

  [[keys]]
  id = 7                        # 1 to 4294967295; names the key in usage and in binary datagrams
  sha256 = \"…\"                # 64 hex digits
  limit = 1000                  # requests per second, 1 to 16000000; optional with a tier
  tier = \"pro\"                  # optional: what is not said here is its tier's
  udp_secret = \"…\"            # optional, 32 hex digits: the secret of the binary UDP form
  permissions = [\"prices\"]     # optional: prices, reports, stream
  expires_at_ms = 0             # optional, Unix ms; 0: never";

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
