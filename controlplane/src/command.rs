//! The command line: one file per subcommand, and what holds for all of them.
//!
//! Exit codes: 0 done; 1 failed, with a line on stderr that says what and what to do; 2 wrong usage (clap's own).

mod config;
mod decode;
mod demo;
mod host;
mod keys;
mod migrate;
mod price;
mod record;
mod report;
mod serve;
mod service;
mod simulate;
mod sync;
mod usage_writer;

use clap::{Parser, Subcommand};
use shared::venue::Venue;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use venues::gemini::GeminiApi;

/// Prices of crypto assets from seven exchanges, over HTTP and UDP.
#[derive(Debug, Parser)]
#[command(name = "trinity-beast", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole service on this machine with simulated exchanges: nothing to install, no network
    Demo(Box<demo::DemoArgs>),
    /// The service in production; SERVER_TYPE picks the role
    #[command(after_help = serve::KEYS_HELP)]
    Serve(Box<serve::ServeArgs>),
    /// Apply the schema to the configured database (SQLite: `serve` does it by itself)
    Migrate(Box<migrate::MigrateArgs>),
    /// API keys in the configured database: create, list, rotate, revoke
    Keys(keys::KeysArgs),
    /// Bring usage from the queue of SQS_USAGE_LOG_QUEUE_URL to the database
    UsageWriter(Box<usage_writer::UsageWriterArgs>),
    /// Bring the cache up to date with the database: keys, parameters, usage
    Sync(Box<sync::SyncArgs>),
    /// Print prices: a client over HTTP or UDP
    Price(price::PriceArgs),
    /// Fetch a report of usage: a client over HTTP
    Report(Box<report::ReportArgs>),
    /// Decode recorded WebSocket frames: one per line in, one JSON line per event out
    Decode(decode::DecodeArgs),
    /// Record a venue's live frames, for decode
    Record(record::RecordArgs),
    /// Run one simulated exchange by itself
    Simulate(simulate::SimulateArgs),
    /// Tell what this machine permits: CPUs, io_uring, limits, planned core layout
    Host(host::HostArgs),
    /// Show every setting: value in force, origin, default, bounds, meaning
    Config(Box<config::ConfigArgs>),
}

/// Reads the command line and does what it says.
#[must_use]
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::run(*args),
        Command::Serve(args) => serve::run(*args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::UsageWriter(args) => usage_writer::run(&args),
        Command::Sync(args) => sync::run(&args),
        Command::Price(args) => price::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Host(args) => host::run(&args),
        Command::Config(args) => config::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough (`… | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done about a stderr that is gone.
            let _ = writeln!(io::stderr(), "trinity-beast: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_it = |error: &io::Error| error.kind() == ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is_it))
}

/// Writes one text to stdout.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Reads a venue's name, for clap.
fn venue(text: &str) -> Result<Venue, String> {
    Venue::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Venue::ALL.into_iter().map(Venue::name).collect();
        format!("a venue is one of {}", names.join(", "))
    })
}

/// Reads the name of one of Gemini's interfaces, for clap.
fn gemini_api(text: &str) -> Result<GeminiApi, &'static str> {
    crate::config::gemini_api(text).ok_or("Gemini's interface is new or v2")
}

/// The variables of the environment, for settings.
fn environment(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
