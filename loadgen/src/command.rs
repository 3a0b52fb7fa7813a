//! The command line of `trinity-stress`, and what its end tells the shell.
//!
//! Exit codes: 0 done; 1 failed, or a condition was not met, with a line on stderr for each reason; 2 wrong usage.

mod alive;
mod assets;
mod conduct;
mod fault;
mod interrupt;
mod levels;
mod live;
mod options;
mod outputs;
mod ready_file;
mod server;
mod settings;
mod target;

use clap::Parser;
use fault::Faults;
use loadgen::plan::{LEVELS, Level};
use options::Options;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Wrong usage, as clap has it.
const USAGE: u8 = 2;

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    let options = Options::parse();
    let done = if options.plan { print_plan(&options) } else { conduct::run(&options) };
    match done {
        Ok(code) => code,
        Err(error) => {
            if let Some(faults) = error.downcast_ref::<Faults>() {
                tell(&faults.to_string());
                return ExitCode::from(USAGE);
            }
            tell(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// A line on stderr.
fn tell(line: &str) {
    // Nothing can be done about a stderr that is gone.
    let _ = writeln!(io::stderr(), "trinity-stress: {line}");
}

/// Writes to stdout. Whoever reads it may have seen enough (`… | head`): that takes nothing from what else is written,
/// nor from the exit code.
fn print(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// `--plan`: the levels, as a table or as JSON; nothing is sent.
fn print_plan(options: &Options) -> anyhow::Result<ExitCode> {
    let mut faults = Faults::default();
    let levels = levels::chosen(options, &mut faults);
    faults.or_none()?;
    if let Some(path) = &options.json {
        let mut outputs = outputs::Outputs::open([("--json", Some(path)), ("--html", None), ("--hdr", None)])?;
        outputs.write(
            outputs::JSON,
            (serde_json::to_string_pretty(&loadgen::report::json::plan(&levels))? + "\n").as_bytes(),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    print(plan_table(&levels).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn plan_table(levels: &[Level]) -> String {
    let mut text = String::from("LEVEL  CONNECTIONS  REQUESTS/S\n");
    for level in levels {
        let rate = loadgen::report::figures::count(level.rate);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:>5}  {:>11}  {rate:>10}", level.number, level.connections);
    }
    text.push_str("\nOver all targets, for each protocol that is driven.");
    if levels.iter().map(|level| level.number).eq(LEVELS.iter().map(|level| level.number)) {
        text.push_str(" --levels picks some of them, --level CONNECTIONS@RATE replaces them.");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn the_plan_is_a_row_for_each_level() {
        let text = plan_table(&LEVELS);
        assert_eq!(text.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit())).count(), 13);
        assert!(text.contains("   13         1024     500,000\n"), "{text}");
    }
}
