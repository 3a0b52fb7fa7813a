//! Values on the command line that cannot be used: all of them at once, each with its name, value and bound.

use std::error::Error;
use std::fmt;

/// One such value.
#[derive(Debug)]
struct Fault {
    name: &'static str,
    value: String,
    bound: String,
}

/// All that are wrong with a command line.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds one: `name` has `value` where `bound` says what is possible. A secret's value is not given.
    pub fn add(&mut self, name: &'static str, value: &str, bound: &str) {
        self.0.push(Fault { name, value: value.to_owned(), bound: bound.to_owned() });
    }

    /// Fails with all of them.
    ///
    /// # Errors
    /// When there is one.
    pub fn or_none(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("a value cannot be used (--help tells all of them):")?,
            count => write!(f, "{count} values cannot be used (--help tells all of them):")?,
        }
        for Fault { name, value, bound } in &self.0 {
            match value.as_str() {
                "" => write!(f, "\n  {name}: {bound}")?,
                value => write!(f, "\n  {name} {value}: {bound}")?,
            }
        }
        Ok(())
    }
}

impl Error for Faults {}
