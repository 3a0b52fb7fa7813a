//! What this machine permits, in one report for people and programs.
//!
//! It changes nothing but this process's own limit on descriptors, which it raises as a start of the service would;
//! the machine's settings are changed by the operator, with the files beside this crate's README.

use crate::core_plan::{CorePlan, ranges};
use crate::cpus::AllowedCpus;
use crate::ring_probe::{self, RingRefused, RingVerdict};
use crate::sockets::{Limit, NOFILE_WANTED, SocketLimits, raise_nofile};
use std::fmt;

/// What this machine permits.
#[derive(Clone, Debug, serde::Serialize)]
pub struct HostReport {
    /// Release of the running kernel.
    pub kernel: String,
    /// CPU architecture this program was built for.
    pub architecture: &'static str,
    /// CPUs allowed by mask and quota; `None` when the kernel does not tell.
    pub cpus: Option<AllowedCpus>,
    /// Whether io_uring is to be had.
    pub io_uring: RingReport,
    /// Limit on locked memory, bytes.
    pub memlock_bytes: Option<Limit>,
    /// Limit on open descriptors.
    pub nofile: Option<Limit>,
    /// The kernel's limits on sockets.
    pub sockets: SocketLimits,
    /// Who would run where; `None` when it cannot be planned (see `warnings`).
    pub plan: Option<CorePlan>,
    /// What to change, one line each; empty when all is well.
    pub warnings: Vec<String>,
}

/// The verdict on io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RingReport {
    /// Whether the engine's ring works here.
    pub usable: bool,
    /// Whether connections can be accepted into direct descriptors.
    pub direct_descriptors: bool,
    /// Why not usable.
    pub refused: Option<RingRefused>,
    /// What `TB_ENGINE=auto` does here: `io_uring`, `epoll`, or `none` (it refuses to start).
    pub auto_engine: &'static str,
    /// What to do about it; empty where usable.
    pub remedy: &'static str,
    /// The sysctl `kernel.io_uring_disabled`: 0 for all, 1 for the privileged only, 2 for nobody; `None` where the
    /// kernel has no such setting.
    pub sysctl_disabled: Option<u8>,
}

impl RingReport {
    /// Probes, and says what it means.
    #[must_use]
    pub fn read() -> Self {
        let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        Self::of(ring_probe::probe(), sysctl.and_then(|text| text.trim().parse().ok()))
    }

    fn of(verdict: Result<RingVerdict, RingRefused>, sysctl_disabled: Option<u8>) -> Self {
        let auto_engine = match verdict {
            Ok(_) => "io_uring",
            Err(refused) if refused.is_unavailable() => "epoll",
            Err(_) => "none",
        };
        Self {
            usable: verdict.is_ok(),
            direct_descriptors: verdict.is_ok_and(|verdict| verdict.direct_descriptors),
            refused: verdict.err(),
            auto_engine,
            remedy: verdict.err().map_or("", RingRefused::remedy),
            sysctl_disabled,
        }
    }
}

impl HostReport {
    /// Reads everything, and plans `shards` and `control` CPUs as `CorePlan::new` would.
    #[must_use]
    pub fn read(shards: Option<usize>, control: &[usize]) -> Self {
        let cpus = AllowedCpus::read().ok();
        let plan =
            cpus.as_ref().map_or_else(|| CorePlan::new(shards, control), |cpus| CorePlan::plan(cpus, shards, control));
        let nofile = Limit::nofile().ok();
        // As at a start of the service: the ring's file table must fit under the limit in force. Where it cannot be
        // raised the probe says what that means.
        let _ = raise_nofile();
        let io_uring = RingReport::read();
        let sockets = SocketLimits::read();
        let mut warnings = sockets.warnings();
        warnings.extend(io_uring.refused.map(|refused| format!("io_uring {refused}: {}", refused.remedy())));
        if io_uring.usable && !io_uring.direct_descriptors {
            warnings.push(
                "io_uring lacks FIXED_FD_INSTALL: connections use ordinary descriptors; Linux 6.8 has it".to_owned(),
            );
        }
        if let Some(hard) = nofile.and_then(|limit| limit.hard).filter(|hard| *hard < NOFILE_WANTED) {
            warnings.push(format!(
                "the hard nofile limit is {hard}: raise it to {NOFILE_WANTED} for a full node (limits.conf)"
            ));
        }
        match &plan {
            Ok(plan) => warnings.extend(plan.warning()),
            Err(fault) => warnings.push(fault.clone()),
        }
        Self {
            kernel: kernel_release(),
            architecture: std::env::consts::ARCH,
            cpus,
            io_uring,
            memlock_bytes: Limit::memlock().ok(),
            nofile,
            sockets,
            plan: plan.ok(),
            warnings,
        }
    }
}

fn kernel_release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if release.is_empty() { "unknown".to_owned() } else { release.trim().to_owned() }
}

/// A value or `unknown`.
fn known<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

impl fmt::Display for HostReport {
    /// One line for each thing, in the order of the JSON form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel        {} {}", self.kernel, self.architecture)?;
        match &self.cpus {
            Some(cpus) => {
                write!(f, "CPUs allowed  {} ({} in all", ranges(&cpus.cpus), cpus.cpus.len())?;
                match cpus.quota_millis {
                    Some(quota) => writeln!(f, ", quota {}.{:03} CPUs)", quota / 1_000, quota % 1_000)?,
                    None => writeln!(f, ", no quota)")?,
                }
            }
            None => writeln!(f, "CPUs allowed  unknown")?,
        }
        match (self.io_uring.refused, self.io_uring.direct_descriptors) {
            (None, true) => writeln!(f, "io_uring      usable, with direct descriptors")?,
            (None, false) => writeln!(f, "io_uring      usable, with ordinary descriptors")?,
            (Some(refused), _) => writeln!(f, "io_uring      {refused}; {}", self.io_uring.remedy)?,
        }
        writeln!(f, "engine        TB_ENGINE=auto takes {}", self.io_uring.auto_engine)?;
        writeln!(f, "nofile        {}", known(self.nofile))?;
        writeln!(f, "memlock bytes {}", known(self.memlock_bytes))?;
        let sockets = &self.sockets;
        writeln!(
            f,
            "somaxconn     {}, tcp_max_syn_backlog {}",
            known(sockets.somaxconn),
            known(sockets.tcp_max_syn_backlog)
        )?;
        let buffers = (known(sockets.rmem_max_bytes), known(sockets.wmem_max_bytes));
        writeln!(f, "socket bytes  receive up to {}, send up to {}", buffers.0, buffers.1)?;
        writeln!(f, "net backlog   {} packets", known(sockets.netdev_max_backlog))?;
        let ports = sockets.local_ports.map(|(first, last)| format!("{first}-{last}"));
        writeln!(f, "local ports   {}", known(ports))?;
        writeln!(f, "core plan     {}", known(self.plan.as_ref()))?;
        for warning in &self.warnings {
            writeln!(f, "! {warning}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_say_what_auto_does() {
        let table = [
            (Ok(RingVerdict { direct_descriptors: true }), "io_uring", true, true),
            (Ok(RingVerdict { direct_descriptors: false }), "io_uring", true, false),
            (Err(RingRefused::Denied), "epoll", false, false),
            (Err(RingRefused::TooOld), "epoll", false, false),
            (Err(RingRefused::NoFiles), "none", false, false),
        ];
        for (verdict, engine, usable, direct) in table {
            let report = RingReport::of(verdict, Some(0));
            assert_eq!((report.auto_engine, report.usable, report.direct_descriptors), (engine, usable, direct));
            assert_eq!(report.remedy.is_empty(), usable, "a refusal has a remedy");
        }
    }

    #[test]
    fn the_report_has_every_line_and_field() {
        let report = HostReport::read(None, &[]);
        let text = report.to_string();
        for line in ["kernel", "CPUs allowed", "io_uring", "nofile", "memlock", "somaxconn", "core plan"] {
            assert!(text.lines().any(|found| found.starts_with(line)), "{line} in {text}");
        }
        let json = serde_json::to_value(&report).expect("serializable");
        let fields =
            ["kernel", "architecture", "cpus", "io_uring", "memlock_bytes", "nofile", "sockets", "plan", "warnings"];
        for field in fields {
            assert!(json.get(field).is_some_and(|value| !value.is_null()), "{field} in {json}");
        }
    }

    #[test]
    fn an_impossible_plan_is_a_warning_here() {
        let report = HostReport::read(None, &[usize::MAX]);
        assert!(report.plan.is_none());
        assert!(report.warnings.iter().any(|warning| warning.contains("TB_CONTROL_CPUS")), "{:?}", report.warnings);
    }
}
