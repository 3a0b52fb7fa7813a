//! What a run must reach: a little language, and the verdict on each condition.
//!
//! `[L<level>:][tcp:|udp:]<figure><relation><value>`, several of them parted by commas: `success>=99.9`, `p99<=5ms`,
//! `L3:rate>=1000`, `L3:udp:age_p99<2s`. A condition that names no level or no protocol must hold for each that ran.

use super::figures;
use super::run::{LevelFinding, Protocol, Run};
use crate::outcome::Tally;
use hdrhistogram::Histogram;
use std::fmt;

/// Conditions of one run: far more than anyone writes by hand.
pub const CONDITIONS_MAX: usize = 100;

/// How a condition is written, for messages.
pub const GRAMMAR: &str = "[L<level>:][tcp:|udp:]<figure><relation><value>, parted by commas, such as \
     success>=99.9,L3:p99<=5ms; figures: success (%), rate (answers per second), p50 p90 p99 p99.9 max age_p50 age_p99 \
     (with ns, us, ms or s), wrong late lost refused unsent broken (counts); relations: >= <= > < =";

/// What a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Success,
    Rate,
    /// Quantile of the latency, thousandths.
    Latency(u16),
    /// Quantile of the prices' age, thousandths.
    Age(u16),
    Wrong,
    Late,
    Lost,
    Refused,
    Unsent,
    Broken,
}

/// The figures by name.
const FIGURES: [(&str, Figure); 15] = [
    ("success", Figure::Success),
    ("rate", Figure::Rate),
    ("p50", Figure::Latency(500)),
    ("p90", Figure::Latency(900)),
    ("p99", Figure::Latency(990)),
    ("p99.9", Figure::Latency(999)),
    ("max", Figure::Latency(1_000)),
    ("age_p50", Figure::Age(500)),
    ("age_p99", Figure::Age(990)),
    ("wrong", Figure::Wrong),
    ("late", Figure::Late),
    ("lost", Figure::Lost),
    ("refused", Figure::Refused),
    ("unsent", Figure::Unsent),
    ("broken", Figure::Broken),
];

/// A sign, and whether it holds between what is found and what is required.
type Relation = (&'static str, fn(f64, f64) -> bool);

/// How what is found is compared with what is required. The longer signs stand first: they are looked for in this order.
const RELATIONS: [Relation; 5] = [
    (">=", |found, required| found >= required),
    ("<=", |found, required| found <= required),
    (">", |found, required| found > required),
    ("<", |found, required| found < required),
    ("=", |found, required| found == required),
];

/// One condition.
#[derive(Clone, Debug)]
pub struct Condition {
    /// As it was written.
    text: String,
    level: Option<u32>,
    protocol: Option<Protocol>,
    figure: Figure,
    holds: fn(f64, f64) -> bool,
    /// In the figure's unit: %, per second, ns, or a count.
    required: f64,
}

impl Condition {
    /// Reads one condition.
    ///
    /// # Errors
    /// `None` when it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let written = text.trim();
        let lower = written.to_ascii_lowercase();
        let mut rest = lower.as_str();
        let mut level = None;
        if let Some((number, after)) = rest.strip_prefix('l').and_then(|rest| rest.split_once(':')) {
            level = Some(number.trim().parse().ok()?);
            rest = after.trim();
        }
        let mut protocol = None;
        for candidate in Protocol::ALL {
            if let Some(after) = rest.strip_prefix(candidate.name()).and_then(|rest| rest.trim().strip_prefix(':')) {
                protocol = Some(candidate);
                rest = after;
            }
        }
        let (sign, holds) = RELATIONS.into_iter().find(|(sign, _)| rest.contains(sign))?;
        let (name, value) = rest.split_once(sign)?;
        let (_, figure) = FIGURES.into_iter().find(|(known, _)| *known == name.trim())?;
        let required = figure.value(value.trim())?;
        Some(Self { text: written.to_owned(), level, protocol, figure, holds, required })
    }

    /// The level it is bound to, if any.
    #[must_use]
    pub fn level(&self) -> Option<u32> {
        self.level
    }

    /// The protocol it is bound to, if any.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol
    }

    /// What `run` says to it: a verdict for each level and protocol that it is about.
    fn judge(&self, run: &Run) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for level in run.levels.iter().filter(|level| self.level.is_none_or(|it| it == level.outcome.level.number)) {
            for (protocol, tally) in level.totals().filter(|(it, _)| self.protocol.is_none_or(|own| own == *it)) {
                if tally.success_percent().is_none() {
                    // Nothing was due: there is nothing to judge.
                    continue;
                }
                let found = self.figure.found(level, tally);
                verdicts.push(Verdict {
                    condition: self.text.clone(),
                    place: Some((level.outcome.level.number, protocol)),
                    found: found.map(|found| self.figure.text(found)),
                    held: found.is_some_and(|found| (self.holds)(found, self.required)),
                });
            }
        }
        if verdicts.is_empty() {
            verdicts.push(Verdict { condition: self.text.clone(), place: None, found: None, held: false });
        }
        verdicts
    }
}

impl Figure {
    /// Reads a value with the unit this figure has.
    fn value(self, text: &str) -> Option<f64> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit() && c != '.');
        let unit = text[digits.len()..].trim();
        let per_unit = match (self, unit) {
            (Self::Success, "" | "%") | (Self::Rate, "" | "/s") => 1.0,
            (Self::Latency(_) | Self::Age(_), "ns") => 1.0,
            (Self::Latency(_) | Self::Age(_), "us" | "µs") => 1e3,
            (Self::Latency(_) | Self::Age(_), "ms") => 1e6,
            (Self::Latency(_) | Self::Age(_), "s") => 1e9,
            (Self::Wrong | Self::Late | Self::Lost | Self::Refused | Self::Unsent | Self::Broken, "") => 1.0,
            _ => return None,
        };
        Some(digits.parse::<f64>().ok()? * per_unit)
    }

    /// What was found; `None` when nothing was answered that has this figure.
    fn found(self, level: &LevelFinding, tally: &Tally) -> Option<f64> {
        let quantile = |histogram: &Histogram<u64>, permille: u16, unit: f64| {
            let value = || histogram.value_at_quantile(f64::from(permille) / 1_000.0) as f64;
            (!histogram.is_empty()).then(|| value() * unit)
        };
        match self {
            Self::Success => tally.success_percent(),
            Self::Rate => Some(level.per_second(tally)),
            Self::Latency(permille) => quantile(&tally.latency_ns, permille, 1.0),
            Self::Age(permille) => quantile(&tally.age_ms, permille, 1e6),
            Self::Wrong => Some(tally.wrong as f64),
            Self::Late => Some(tally.late as f64),
            Self::Lost => Some(tally.lost as f64),
            Self::Refused => Some(tally.refused as f64),
            Self::Unsent => Some(tally.unsent as f64),
            Self::Broken => Some(tally.broken as f64),
        }
    }

    fn text(self, found: f64) -> String {
        match self {
            Self::Success => figures::percent(found),
            Self::Rate => format!("{found:.1}/s"),
            Self::Latency(_) | Self::Age(_) => figures::time(found as u64),
            _ => figures::count(found as u64),
        }
    }
}

/// Whether a condition held at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// As it was written.
    pub condition: String,
    /// Level and protocol; `None` when nothing that it is about was asked.
    pub place: Option<(u32, Protocol)>,
    /// What was found there; `None` when nothing was answered.
    pub found: Option<String>,
    /// Whether it held.
    pub held: bool,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { condition, place, found, held } = self;
        write!(f, "{condition} {}", if *held { "held" } else { "failed" })?;
        match place {
            Some((level, protocol)) => {
                write!(f, " at level {level} {protocol}: {}", found.as_deref().unwrap_or("nothing was answered"))
            }
            None => f.write_str(": nothing that it speaks of was asked"),
        }
    }
}

/// Judges every condition over a run.
#[must_use]
pub fn judge(conditions: &[Condition], run: &Run) -> Vec<Verdict> {
    conditions.iter().flat_map(|condition| condition.judge(run)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn conditions_are_read() {
        for text in [
            "success>=99.9",
            "success >= 99.9 %",
            "p99<=5ms",
            "p99.9<800us",
            "L13:max<2s",
            "l3:UDP:age_p99<250ms",
            "tcp:rate>1000",
            "rate>=1000/s",
            "lost=0",
        ] {
            assert!(Condition::parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "p99",
            "p98<5ms",
            "p99<5",
            "p99<ms",
            "success>=99ms",
            "wrong<1%",
            "Lx:lost=0",
            "sctp:lost=0",
            "p99=<5ms",
        ] {
            assert!(Condition::parse(text).is_none(), "{text}");
        }
    }

    #[track_caller]
    fn check(text: &str, run: &Run, held: &[bool]) -> Vec<Verdict> {
        let verdicts = judge(&[Condition::parse(text).expect(text)], run);
        assert_eq!(verdicts.iter().map(|verdict| verdict.held).collect::<Vec<_>>(), held, "{text}: {verdicts:?}");
        verdicts
    }

    #[test]
    fn a_condition_is_judged_wherever_it_speaks_of() {
        let run = sample::run(&[1, 2], &Protocol::ALL, 1);
        check("success>=90", &run, &[true; 4]);
        check("L2:success>=90", &run, &[true; 2]);
        check("L2:udp:max<1ns", &run, &[false]);
        check("wrong=0", &run, &[true; 4]);
        let absent = check("L9:wrong=0", &run, &[false]);
        assert_eq!(absent[0].to_string(), "L9:wrong=0 failed: nothing that it speaks of was asked");
    }

    #[test]
    fn where_nothing_was_due_there_is_nothing_to_judge() {
        let mut run = sample::run(&[1, 2], &[Protocol::Tcp], 1);
        let mut outcome = run.levels[1].outcome.clone();
        outcome.targets[0].tcp = Some(Tally::default());
        run.levels[1] = LevelFinding::new(outcome, std::time::Duration::ZERO, None);
        check("success>=90", &run, &[true]);
        check("rate>0", &run, &[true]);
        check("L2:wrong=0", &run, &[false]);
    }

    #[test]
    fn what_was_never_answered_has_no_latency() {
        let run = sample::silent();
        let verdicts = check("p99<=5s", &run, &[false]);
        assert_eq!(verdicts[0].to_string(), "p99<=5s failed at level 1 TCP: nothing was answered");
        check("success>=1", &run, &[false]);
    }
}
