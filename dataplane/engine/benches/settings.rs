//! What a bench is told on its command line, and how it begins and ends. It does not know what is measured.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What a bench is told.
pub struct Settings {
    /// Only what has this in its name is measured; empty: everything.
    pub only: String,
    /// How often everything is measured, 1 to 100.
    pub rounds: usize,
    /// How long one measurement takes, 50 ms to a minute.
    pub duration: Duration,
    /// Where the figures go as JSON.
    pub json: Option<PathBuf>,
    /// To which file the tables are appended as Markdown.
    pub write: Option<PathBuf>,
}

impl Settings {
    fn read(arguments: &[String], defaults: Self) -> Result<Self, String> {
        let mut settings = defaults;
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
            let number = |text: &String| text.parse::<u64>().map_err(|_| format!("{name} needs a number, not {text}"));
            match name.as_str() {
                "--bench" => {}
                "--rounds" => settings.rounds = usize::try_from(number(value()?)?.clamp(1, 100)).unwrap_or(1),
                "--millis" => settings.duration = Duration::from_millis(number(value()?)?.clamp(50, 60_000)),
                "--only" => settings.only.clone_from(value()?),
                "--json" => settings.json = Some(value()?.into()),
                "--write" => settings.write = Some(value()?.into()),
                _ => {
                    return Err(format!(
                        "{name} is not known: --only TEXT (in a row's name), --rounds N, --millis N (each \
                         measurement), --json FILE, --write FILE (appends Markdown)"
                    ));
                }
            }
        }
        Ok(settings)
    }
}

/// Reads the arguments over `rounds` of `millis` each, measures, and says on one line why it could not.
pub fn main(
    name: &str,
    arguments: &[String],
    (rounds, millis): (usize, u64),
    bench: impl FnOnce(&Settings) -> io::Result<()>,
) -> ExitCode {
    // `cargo test` runs benches too, without this flag: there is nothing to test here.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let duration = Duration::from_millis(millis);
    let defaults = Settings { only: String::new(), rounds, duration, json: None, write: None };
    match Settings::read(arguments, defaults) {
        Ok(settings) => end(name, bench(&settings)),
        Err(wrong) => {
            eprintln!("{name}: {wrong}");
            ExitCode::from(2)
        }
    }
}

/// How a process of the bench ends.
pub fn end(name: &str, outcome: io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
