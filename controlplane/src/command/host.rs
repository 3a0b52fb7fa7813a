//! `host`: what this machine permits.

use super::print;
use clap::Args;
use tuning::host::HostReport;

/// Arguments of `host`.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// As JSON
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
    print(&format!("{report}\n"))
}
