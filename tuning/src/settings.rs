//! The settings of a machine that matter to a node: how each is read, what is wanted, why, how that is known, and what
//! to do where it differs.
//!
//! [`SETTINGS`] is the only list: `trinity-beast host` walks it, and a test holds `sysctl.conf` and the README's tables
//! to it. A setting without a reason is not in it; one that was looked at and makes no difference is, as left alone.

mod readings;
mod table;

pub use table::SETTINGS;

use crate::machine::{Machine, Told};
use std::fmt;

/// The remedy of a plain kernel setting; such a setting stands in `sysctl.conf`.
pub const SYSCTL: &str = "sysctl -w {name}={wanted}";

/// What a setting is about, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Whether and how the engine may run.
    Engine,
    /// TCP.
    Connections,
    /// UDP.
    Datagrams,
    /// Network cards, their queues and interrupts.
    Cards,
    /// CPUs, clocks, memory.
    Cpus,
    /// What the kernel dropped or took away since it booted.
    Lost,
    /// For a load generator on this machine.
    Generator,
}

impl Group {
    /// As a heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Engine => "Engine and limits of the process",
            Self::Connections => "Connections (TCP)",
            Self::Datagrams => "Datagrams (UDP)",
            Self::Cards => "Network cards",
            Self::Cpus => "CPUs, clocks and memory",
            Self::Lost => "Lost since boot, by all programs",
            Self::Generator => "A load generator on this machine",
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// As the kernel or its tools call it.
    pub name: &'static str,
    /// Where it stands in the report.
    pub group: Group,
    /// How to learn its value.
    pub read: Read,
    /// What it should be.
    pub wanted: Wanted,
    /// Why, in a sentence.
    pub why: &'static str,
    /// How that is known: measured, arithmetic, the kernel's documentation, or not at all.
    pub known: &'static str,
    /// What to do where it differs; `{name}`, `{of}` (the interface) and `{wanted}` are filled in. Empty where nothing
    /// is asked for.
    pub remedy: &'static str,
}

/// How to learn a value.
#[derive(Clone, Copy, Debug)]
pub enum Read {
    /// The file of this name below `/proc/sys`. Only the column (from 0) is looked at.
    Sysctl(usize),
    /// The same, where a kernel that lacks the file lacks nothing.
    SysctlIfAny,
    /// Otherwise; one reading for each interface where it is about interfaces.
    By(fn(&Machine) -> Vec<Reading>),
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// This number or more.
    AtLeast(u64),
    /// More for more shards: what it comes to, and the rule in words.
    AtLeastFor(fn(&Machine) -> u64, &'static str),
    /// This number or less.
    AtMost(u64),
    /// A share, in millionths.
    AtMostInAMillion(u64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Anything: shown because it is asked for, and left alone for the reason given.
    LeftAlone,
}

impl Wanted {
    /// In words, as the README has it: without a machine to ask.
    #[must_use]
    pub fn rule(&self) -> String {
        match self {
            Self::AtLeastFor(_, rule) => (*rule).to_owned(),
            fixed => fixed.text(&Machine::default()),
        }
    }

    /// For one machine.
    fn text(&self, machine: &Machine) -> String {
        match self {
            Self::AtLeast(least) => format!("at least {least}"),
            Self::AtLeastFor(least, _) => format!("at least {}", least(machine)),
            Self::AtMost(0) => "0".to_owned(),
            Self::AtMost(most) => format!("at most {most}"),
            Self::AtMostInAMillion(most) if most % 10_000 == 0 => format!("at most {} %", most / 10_000),
            Self::AtMostInAMillion(most) => format!("at most {most} in a million"),
            Self::OneOf(words) => words.join(" or "),
            Self::LeftAlone => "as it is".to_owned(),
        }
    }

    /// The value to set where it differs.
    #[must_use]
    pub fn value(&self, machine: &Machine) -> String {
        match self {
            Self::AtLeast(number) | Self::AtMost(number) | Self::AtMostInAMillion(number) => number.to_string(),
            Self::AtLeastFor(number, _) => number(machine).to_string(),
            Self::OneOf(words) => words.first().copied().unwrap_or_default().to_owned(),
            Self::LeftAlone => String::new(),
        }
    }

    fn is_met(&self, machine: &Machine, reading: &Reading, text: &str) -> bool {
        let number = reading.number.or_else(|| text.split_whitespace().nth(reading.column)?.parse().ok());
        match self {
            Self::AtLeast(least) => number.is_some_and(|number| number >= *least),
            Self::AtLeastFor(least, _) => number.is_some_and(|number| number >= least(machine)),
            Self::AtMost(most) | Self::AtMostInAMillion(most) => number.is_some_and(|number| number <= *most),
            Self::OneOf(words) => words.contains(&text),
            Self::LeftAlone => true,
        }
    }
}

/// A value, and of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The interface, where there are several.
    pub of: Option<String>,
    /// What is there.
    pub told: Told,
    /// What to judge it by, where that is not the number in the text.
    pub number: Option<u64>,
    /// Which of the text's numbers counts.
    pub column: usize,
}

impl Reading {
    /// A text that is judged as it is.
    #[must_use]
    pub const fn of_told(told: Told) -> Self {
        Self { of: None, told, number: None, column: 0 }
    }

    /// A text for people and a number to judge; `None`: it cannot be read.
    #[must_use]
    pub fn judged(found: Option<(String, u64)>) -> Self {
        match found {
            Some((text, number)) => Self { number: Some(number), ..Self::of_told(Told::Text(text)) },
            None => Self::of_told(Told::Denied),
        }
    }

    /// The same, of one interface.
    #[must_use]
    pub fn on(self, interface: &str) -> Self {
        Self { of: Some(interface.to_owned()), ..self }
    }
}

/// How a value compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As wanted.
    Good,
    /// Not as wanted: see the remedy.
    Differs,
    /// It may not be read here, or is hidden: nothing is said about it.
    NotReadable,
    /// This machine or kernel does not have it, and needs it not.
    Absent,
    /// Nothing is wanted.
    LeftAlone,
}

/// One setting on one machine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What it is about.
    pub group: Group,
    /// The setting.
    pub name: &'static str,
    /// The interface, where there are several.
    pub of: Option<String>,
    /// Its value; `None` where it is absent or cannot be read.
    pub value: Option<String>,
    /// What is wanted, in words.
    pub wanted: String,
    /// How they compare.
    pub verdict: Verdict,
    /// Why it is wanted.
    pub why: &'static str,
    /// How that is known.
    pub known: &'static str,
    /// The command to change it, or what to do; only where it differs.
    pub remedy: Option<String>,
}

impl fmt::Display for Finding {
    /// Its name, and of what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        self.of.as_ref().map_or(Ok(()), |of| write!(f, " of {of}"))
    }
}

impl Setting {
    /// What this setting is on `machine`: one finding, or one for each interface, which may be none.
    #[must_use]
    pub fn examine(&self, machine: &Machine) -> Vec<Finding> {
        let sysctl = || machine.told(&format!("proc/sys/{}", self.name.replace('.', "/")));
        let readings = match self.read {
            Read::Sysctl(column) => {
                // A file that every kernel has is hidden where it is missing: some containers do that.
                let told = match sysctl() {
                    Told::Nothing => Told::Denied,
                    told => told,
                };
                vec![Reading { column, ..Reading::of_told(told) }]
            }
            Read::SysctlIfAny => vec![Reading::of_told(sysctl())],
            Read::By(read) => read(machine),
        };
        readings.into_iter().map(|reading| self.finding(machine, reading)).collect()
    }

    fn finding(&self, machine: &Machine, reading: Reading) -> Finding {
        let (value, verdict) = match &reading.told {
            Told::Nothing => (None, Verdict::Absent),
            Told::Denied => (None, Verdict::NotReadable),
            Told::Text(text) => {
                let verdict = match self.wanted {
                    Wanted::LeftAlone => Verdict::LeftAlone,
                    wanted if wanted.is_met(machine, &reading, text) => Verdict::Good,
                    _ => Verdict::Differs,
                };
                // Some files put tabs between numbers.
                (Some(text.split_whitespace().collect::<Vec<_>>().join(" ")), verdict)
            }
        };
        let remedy = (verdict == Verdict::Differs).then(|| self.remedy(machine, &reading, value.as_deref()));
        let wanted = match self.read {
            Read::Sysctl(column) if column > 0 => format!("{} as number {}", self.wanted.text(machine), column + 1),
            _ => self.wanted.text(machine),
        };
        let Self { group, name, why, known, .. } = *self;
        Finding { group, name, of: reading.of, value, wanted, verdict, why, known, remedy }
    }

    fn remedy(&self, machine: &Machine, reading: &Reading, value: Option<&str>) -> String {
        let mut columns: Vec<String> = value.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        let wanted = match (self.read, columns.get_mut(reading.column)) {
            // The other numbers of the setting stay.
            (Read::Sysctl(_), Some(column)) => {
                *column = self.wanted.value(machine);
                let text = columns.join(" ");
                if columns.len() > 1 { format!("'{text}'") } else { text }
            }
            _ => self.wanted.value(machine),
        };
        let of = reading.of.as_deref().unwrap_or_default();
        self.remedy.replace("{name}", self.name).replace("{of}", of).replace("{wanted}", &wanted)
    }
}

/// Everything, in the table's order.
#[must_use]
pub fn examine(machine: &Machine) -> Vec<Finding> {
    SETTINGS.iter().flat_map(|setting| setting.examine(machine)).collect()
}
