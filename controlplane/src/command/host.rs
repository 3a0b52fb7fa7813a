//! `host`: what this machine permits, and which of its settings differ from what a node wants.

use super::print;
use clap::Args;
use tuning::host::{HostReport, Shown};

/// Arguments of `host`.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// Every setting, not only those that differ
    #[arg(long)]
    all: bool,
    /// As JSON: every setting
    #[arg(long)]
    json: bool,
    /// Plan for this many serving shards
    #[arg(long, value_name = "COUNT")]
    shards: Option<usize>,
    /// Plan with these CPUs kept for everything else
    #[arg(long, value_name = "CPU,…", value_delimiter = ',')]
    control_cpus: Vec<usize>,
}

/// Prints the report.
pub fn run(args: &HostArgs) -> anyhow::Result<()> {
    let report = HostReport::read(args.shards, &args.control_cpus);
    if args.json {
        return print(&(serde_json::to_string_pretty(&report)? + "\n"));
    }
    print(&Shown { report: &report, all: args.all }.to_string())
}
