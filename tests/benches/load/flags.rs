//! What every bench shares, whatever it measures: its command line, and the median.

use std::collections::BTreeMap;
use std::process::ExitCode;

/// What the command line says: a number for each flag, and which arms.
pub struct Flags {
    numbers: BTreeMap<&'static str, u64>,
    /// `--only`: a part of the names of what is to be measured; empty for all.
    pub only: String,
}

impl Flags {
    /// The number of a flag that the bench has.
    pub fn number(&self, name: &str) -> u64 {
        self.numbers[name]
    }

    /// `--rounds`, as it is used.
    pub fn rounds(&self) -> usize {
        usize::try_from(self.number("--rounds")).unwrap_or(1)
    }

    fn read(known: &[(&'static str, u64, u64)], arguments: &[String]) -> Result<Self, String> {
        let numbers = known.iter().map(|(name, default, _)| (*name, *default)).collect();
        let mut flags = Self { numbers, only: String::new() };
        let mut arguments = arguments.iter().filter(|argument| *argument != "--bench");
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name} needs a value"))?;
            if name == "--only" {
                flags.only.clone_from(value);
                continue;
            }
            let Some((name, _, most)) = known.iter().find(|(known, ..)| known == name) else {
                let names: Vec<&str> = known.iter().map(|(name, ..)| *name).collect();
                return Err(format!("{name} is not known: --only NAME, {}", names.join(", ")));
            };
            let number = value.parse::<u64>().ok().filter(|number| (1..=*most).contains(number));
            let number = number.ok_or(format!("{name} needs a number from 1 to {most}, not {value}"))?;
            flags.numbers.insert(name, number);
        }
        Ok(flags)
    }
}

/// A bench's `main`: `flags` are its own, each with its default and the most it may be.
pub fn bench(name: &str, flags: &[(&'static str, u64, u64)], run: impl FnOnce(&Flags)) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test` runs benches too, without this flag: there is nothing to test here.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match Flags::read(flags, &arguments) {
        Ok(flags) => {
            run(&flags);
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("{name}: {wrong}");
            ExitCode::from(2)
        }
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
