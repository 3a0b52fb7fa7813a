//! The report for people: first what runs here, then what differs, group by group, each with the command to change it.
//!
//! Lines are cut to the width of a terminal at words, never within a command.

use super::HostReport;
use crate::core_plan::ranges;
use crate::settings::{Finding, Verdict};
use std::fmt;

/// Longest line of prose, characters.
const WIDTH: usize = 110;

/// A report as it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// What was found.
    pub report: &'a HostReport,
    /// Every setting, not only those that differ.
    pub all: bool,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        head(self.report, f)?;
        for warning in &self.report.warnings {
            prose(f, "  ! ", "    ", warning)?;
        }
        let shown = |finding: &&Finding| self.all || finding.verdict == Verdict::Differs;
        let shown: Vec<&Finding> = self.report.settings.iter().filter(shown).collect();
        for group in shown.chunk_by(|a, b| a.group == b.group) {
            write!(f, "\n{}\n", group[0].group.title())?;
            let name_width = group.iter().map(|finding| finding.to_string().chars().count()).max().unwrap_or(0);
            for finding in group {
                setting(f, finding, name_width)?;
            }
        }
        self.foot(f)
    }
}

impl Shown<'_> {
    fn foot(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.report.settings;
        let count = |verdict| settings.iter().filter(|finding| finding.verdict == verdict).count();
        let (differ, hidden) = (count(Verdict::Differs), count(Verdict::NotReadable));
        let well = settings.len() - differ - hidden;
        let of = settings.len();
        write!(f, "\n{well} of {of} settings are as wanted or matter not here, {differ} differ")?;
        if hidden > 0 {
            write!(f, ", {hidden} cannot be read from here")?;
        }
        f.write_str(if self.all { ".\n" } else { "; --all shows each.\n" })?;
        if differ > 0 {
            f.write_str(
                "sysctl -w lasts until the next boot: tuning/sysctl.conf has the lasting form, and the reasons.\n",
            )?;
        }
        Ok(())
    }
}

/// A value or `unknown`.
fn known<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

fn head(report: &HostReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "kernel        {} {}", report.kernel, report.architecture)?;
    let cpus = report.cpus.as_ref().map(|cpus| {
        let quota = cpus.quota_millis.map_or_else(
            || "no quota".to_owned(),
            |quota| format!("quota {}.{:03} CPUs", quota / 1_000, quota % 1_000),
        );
        format!("{} ({} in all, {quota})", ranges(&cpus.cpus), cpus.cpus.len())
    });
    writeln!(f, "CPUs allowed  {}", known(cpus))?;
    writeln!(f, "core plan     {}", known(report.plan.as_ref()))?;
    writeln!(f, "steering      TB_STEERING=auto: {}", known(report.steering.as_ref()))?;
    let io_uring = match (report.io_uring.refused, report.io_uring.direct_descriptors) {
        (None, true) => "usable, with direct descriptors".to_owned(),
        (None, false) => "usable, with ordinary descriptors".to_owned(),
        (Some(refused), _) => refused.to_string(),
    };
    writeln!(f, "io_uring      {io_uring}")?;
    writeln!(f, "engine        TB_ENGINE=auto takes {}", report.io_uring.auto_engine)?;
    writeln!(f, "nofile        {}", known(report.nofile))?;
    writeln!(f, "memlock bytes {}", known(report.memlock_bytes))?;
    let value = |name: &str| {
        let finding = report.settings.iter().find(|finding| finding.name == name);
        known(finding.and_then(|finding| finding.value.as_deref()))
    };
    writeln!(f, "backlog       {} connections (somaxconn)", value("net.core.somaxconn"))?;
    let buffers = (value("net.core.rmem_max"), value("net.core.wmem_max"));
    writeln!(f, "socket bytes  receive up to {}, send up to {}", buffers.0, buffers.1)
}

fn setting(f: &mut fmt::Formatter<'_>, finding: &Finding, name_width: usize) -> fmt::Result {
    let mark = match finding.verdict {
        Verdict::Good => "ok",
        Verdict::Differs => " !",
        Verdict::NotReadable => " ?",
        Verdict::Absent | Verdict::LeftAlone => " -",
    };
    let value = match (finding.verdict, &finding.value) {
        (Verdict::Absent, _) => "not on this machine",
        (_, None) => "not readable",
        (_, Some(value)) => value,
    };
    write!(f, "{mark} {:<name_width$}  {value}", finding.to_string())?;
    if finding.verdict != Verdict::LeftAlone {
        write!(f, "  (wanted: {})", finding.wanted)?;
    }
    writeln!(f)?;
    // Who reads that all is well needs no reason.
    if matches!(finding.verdict, Verdict::Good | Verdict::Absent) {
        return Ok(());
    }
    prose(f, "     ", "     ", &format!("{} [{}]", finding.why, finding.known))?;
    finding.remedy.as_ref().map_or(Ok(()), |remedy| writeln!(f, "     > {remedy}"))
}

/// Text in lines of at most `WIDTH` characters, cut between words.
fn prose(f: &mut fmt::Formatter<'_>, first: &str, others: &str, text: &str) -> fmt::Result {
    let mut line = first.to_owned();
    let mut is_fresh = true;
    for word in text.split_whitespace() {
        if !is_fresh && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(f, "{line}")?;
            others.clone_into(&mut line);
            is_fresh = true;
        }
        if !is_fresh {
            line.push(' ');
        }
        line.push_str(word);
        is_fresh = false;
    }
    writeln!(f, "{line}")
}
