//! What can be said on the command line, as text: what it means, and whether it can be meant, is decided in `settings`.
//!
//! Values are taken as text so that all that is wrong is told at once. `Debug` is left out: a key stands in here.

use clap::Parser;
use std::path::PathBuf;

/// Drives a price service level by level, checks every answer, and tells how long answers took
#[derive(Parser)]
#[command(name = "trinity-stress", version, max_term_width = 110, args_override_self = true, after_help = AFTER_HELP)]
pub struct Options {
    /// Servers, asked in turn: names or addresses, IPv6 with a port in brackets. PORT is for TCP, and for UDP where only
    /// that is driven; /UDP_PORT is for UDP beside it
    #[arg(long, value_name = "HOST[:PORT[/UDP_PORT]],…", value_delimiter = ',', help_heading = "What is driven")]
    pub target: Vec<String>,
    /// Port for TCP where a target names none
    #[arg(long, value_name = "PORT", default_value = "8080", help_heading = "What is driven")]
    pub tcp_port: String,
    /// Port for UDP where a target names none
    #[arg(long, value_name = "PORT", default_value = "2679", help_heading = "What is driven")]
    pub udp_port: String,
    /// What `trinity-beast demo --ready-file FILE` wrote: its addresses, stress key, UDP secret and process stand for
    /// what is not given here
    #[arg(long, value_name = "FILE", help_heading = "What is driven")]
    pub ready_file: Option<PathBuf>,
    /// tcp, udp, or both at once
    #[arg(long, value_name = "PROTOCOL", default_value = "tcp", help_heading = "What is driven")]
    pub protocol: String,
    /// API key, for HTTP and JSON datagrams; in TRINITY_KEY no other user of the machine sees it
    #[arg(long, value_name = "KEY", env = "TRINITY_KEY", hide_env_values = true, help_heading = "What is driven")]
    pub key: Option<String>,
    /// What a datagram says: binary or json
    #[arg(long, value_name = "FORMAT", default_value = "binary", help_heading = "What is driven")]
    pub udp_format: String,
    /// Number of the key, for binary datagrams
    #[arg(long, value_name = "NUMBER", help_heading = "What is driven")]
    pub udp_key_id: Option<String>,
    /// The key's UDP secret, 32 hex digits, for binary datagrams
    #[arg(
        long,
        value_name = "HEX",
        env = "TRINITY_UDP_SECRET",
        hide_env_values = true,
        help_heading = "What is driven"
    )]
    pub udp_secret: Option<String>,
    /// Assets to ask for in turn [default: what the first target's /assets lists as priced, 256 at most; where it lists
    /// nothing: BTC,ETH,SOL,XRP,DOGE,ADA,LTC,LINK]
    #[arg(long, value_name = "BTC,ETH,…", value_delimiter = ',', help_heading = "What is driven")]
    pub assets: Vec<String>,

    /// Print the levels and end
    #[arg(long, help_heading = "How hard")]
    pub plan: bool,
    /// Which of the thirteen levels to run, such as 1-5,13 [default: all]
    #[arg(long, value_name = "LIST", conflicts_with = "level", help_heading = "How hard")]
    pub levels: Option<String>,
    /// A level instead of the thirteen: so many connections, so many requests a second; may be given again
    #[arg(long, value_name = "CONNECTIONS@RATE", help_heading = "How hard")]
    pub level: Vec<String>,
    /// Send the next request when one is answered: the highest rate, but not an honest latency
    #[arg(long, help_heading = "How hard")]
    pub closed: bool,
    /// Requests in flight on a TCP connection, 1 to 64: at most so many, and with --closed always
    #[arg(long, value_name = "NUMBER", default_value = "1", help_heading = "How hard")]
    pub pipeline: String,
    /// Datagrams that a socket sends as one train (UDP_SEGMENT), 1 to 64
    #[arg(long, value_name = "NUMBER", default_value = "1", help_heading = "How hard")]
    pub train: String,
    /// Seconds counted of each level, 0.1 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "10", help_heading = "How hard")]
    pub duration: String,
    /// Seconds of each level before counting starts, 0 to 600
    #[arg(long, value_name = "SECONDS", default_value = "1", help_heading = "How hard")]
    pub warm_up: String,
    /// Threads that generate, 1 to 64 [default: half of the CPUs where a target is on this machine, else all of them]
    #[arg(long, value_name = "NUMBER", help_heading = "How hard")]
    pub threads: Option<String>,
    /// CPUs to pin a generating thread to each, such as 2,4-7; instead of --threads
    #[arg(long, value_name = "LIST", conflicts_with = "threads", help_heading = "How hard")]
    pub cpus: Option<String>,

    /// An answer that came longer than this after its request was due (--closed: was sent) is late, ms: 1 to 60000
    #[arg(long, value_name = "MS", default_value = "1000", help_heading = "What counts")]
    pub late_ms: String,
    /// An answer that has not come so long after its request was sent is lost, ms: --late-ms to 60000
    #[arg(long, value_name = "MS", default_value = "2000", help_heading = "What counts")]
    pub lost_ms: String,
    /// A price that is older is a wrong answer, ms: 1 to 86400000. JSON tells its age; for a binary reply it is this machine's
    /// clock less the time at which the server received the price
    #[arg(long, value_name = "MS", default_value = "60000", help_heading = "What counts")]
    pub age_max_ms: String,
    /// What must be reached, such as 'success>=99.9,p99<=5ms' (see below): each condition that is not met is a line on stderr and makes the exit code 1
    #[arg(long, value_name = "CONDITIONS", help_heading = "What counts")]
    pub require: Option<String>,

    /// Processes of servers on this machine, whose CPU time is told [default: the ready file's, or whoever listens where
    /// a target on a loopback address is]; their CPU time per request is told where every target has its process here
    #[arg(long, value_name = "PID,…", value_delimiter = ',', help_heading = "What is told")]
    pub server_pid: Vec<String>,
    /// Everything, as JSON; - is stdout, instead of the tables
    #[arg(long, value_name = "FILE", help_heading = "What is told")]
    pub json: Option<PathBuf>,
    /// A page with plots that needs no network
    #[arg(long, value_name = "FILE", help_heading = "What is told")]
    pub html: Option<PathBuf>,
    /// Latencies in ns as an HdrHistogram log (V2 text), one interval per level and protocol
    #[arg(long, value_name = "FILE", help_heading = "What is told")]
    pub hdr: Option<PathBuf>,
    /// Only what went wrong: no progress, no tables
    #[arg(long, help_heading = "What is told")]
    pub quiet: bool,
}

/// Stands below the options.
const AFTER_HELP: &str = "\
Conditions for --require, parted by commas: [L<level>:][tcp:|udp:]<figure><relation><value>
  figures    success (%), rate (answers per second), with ns, us, ms or s: p50 p90 p99 p99.9 max
             age_p50 age_p99, and counts: wrong late lost refused unsent broken
  relations  >= <= > < =
  such as    --require 'success>=99.9,L3:p99<=5ms,L3:udp:lost=0'
Without a level or a protocol a condition must hold for each that ran.

Try it on this machine:
  trinity-beast demo --ready-file ready.json &
  trinity-stress --ready-file ready.json --protocol both --levels 1-5 --html report.html

Ctrl-C ends the run and keeps what was found (exit code 1 when nothing was counted yet); a second one ends it at once.
Exit codes: 0 done; 1 failed, or a condition not met; 2 wrong usage.";
