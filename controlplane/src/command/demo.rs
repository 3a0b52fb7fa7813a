//! `demo`: the whole service on this machine, priced by simulated exchanges.

use super::{environment, print};
use crate::config;
use crate::config::layers::{Profile, SettingArgs};
use crate::keys::DemoKeys;
use crate::supervisor::{self, Addresses, Demo};
use clap::Args;
use std::fmt::Write;
use std::path::PathBuf;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Write one JSON object with every bound address and the keys there, once answering
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// One seed, one market
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    settings: SettingArgs,
}

/// Serves simulated prices until told to stop.
pub fn run(args: DemoArgs) -> anyhow::Result<()> {
    let mut settings = config::load(Profile::Demo, &args.settings, environment)?;
    let (keys, mut fixed) = DemoKeys::make(settings.admin_key.take());
    settings.admin_key = Some(keys.admin.clone());
    // Of two keys with one number the first counts: the demo's own.
    fixed.append(&mut settings.keys);
    settings.keys = fixed;
    let demo = Demo { keys, seed: args.seed };
    supervisor::run(supervisor::Order {
        settings,
        ready_file: args.ready_file,
        demo: Some(demo),
        announce: Some(announce),
    })
}

/// Tells on stdout where everything is.
fn announce(addresses: &Addresses, demo: &DemoKeys) -> anyhow::Result<()> {
    let key = demo.demo.reveal();
    let mut text = format!(
        "Trinity Beast demo: every price is simulated, nothing leaves this machine ({}, {} shard{}).\n\n",
        addresses.engine,
        addresses.shards,
        if addresses.shards == 1 { "" } else { "s" }
    );
    // Writing to a string does not fail.
    let _ = writeln!(text, "  prices    HTTP {}   UDP {}", addresses.lpo_tcp, addresses.lpo_udp);
    let _ = writeln!(text, "  health    http://{}/health   http://{0}/metrics", addresses.health_lpo);
    if let Some(control) = addresses.lrs_tcp {
        let udp = addresses.lrs_udp.map(|udp| format!("   UDP {udp}")).unwrap_or_default();
        let _ = writeln!(text, "  reports   http://{control}/reports/usage?format=text{udp}");
    }
    let _ = writeln!(text, "  demo key  {key}  (3 requests per second; 1,000 in performance mode)");
    let _ =
        writeln!(text, "\n  curl -H 'Authorization: Bearer {key}' 'http://{}/price?asset=BTC'\n", addresses.lpo_tcp);
    text.push_str("More keys, and the simulated exchanges' addresses: --ready-file FILE. Ctrl-C stops it.\n");
    print(&text)
}
