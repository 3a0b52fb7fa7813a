//! What this machine permits, and which of its settings differ from what a node wants, for people and programs.
//!
//! It changes nothing but this process's own limit on descriptors, which it raises as a start of the service would;
//! the machine's settings are changed by the operator, with the files beside this crate's README.

mod show;

pub use show::Shown;

use crate::core_plan::CorePlan;
use crate::cpus::AllowedCpus;
use crate::machine::Machine;
use crate::ring_probe::{self, RingRefused, RingVerdict};
use crate::settings::{self, Finding};
use crate::sockets::{Limit, raise_nofile};
use crate::steering::{Steering, SteeringChoice};
use std::net::{IpAddr, Ipv4Addr};

/// What a node is bound to unless told otherwise.
const ANY_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

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
    /// Who would run where; `None` when it cannot be planned (see `warnings`).
    pub plan: Option<CorePlan>,
    /// How flows would find their shards by `TB_STEERING=auto`, bound to all addresses; `None` without a plan.
    pub steering: Option<Steering>,
    /// What stands in the way of a start or of the plan, one line each; empty when all is well.
    pub warnings: Vec<String>,
    /// Every setting that matters: its value, what is wanted and why, and what to do where it differs.
    pub settings: Vec<Finding>,
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
}

impl RingReport {
    /// Probes, and says what it means.
    #[must_use]
    pub fn read() -> Self {
        Self::of(ring_probe::probe())
    }

    fn of(verdict: Result<RingVerdict, RingRefused>) -> Self {
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
        }
    }
}

impl HostReport {
    /// Reads everything, and plans `shards` and `control` CPUs as `CorePlan::new` would. Takes a tenth of a second.
    #[must_use]
    pub fn read(shards: Option<usize>, control: &[usize]) -> Self {
        let cpus = AllowedCpus::read().ok();
        let planned =
            cpus.as_ref().map_or_else(|| CorePlan::new(shards, control), |cpus| CorePlan::plan(cpus, shards, control));
        let (nofile, memlock) = (Limit::nofile().ok(), Limit::memlock().ok());
        // As at a start of the service: the ring's file table must fit under the limit in force. Where it cannot be
        // raised the probe says what that means.
        let _ = raise_nofile();
        let io_uring = RingReport::read();
        let mut warnings = Vec::new();
        warnings.extend(io_uring.refused.map(|refused| format!("io_uring {refused}: {}", refused.remedy())));
        if io_uring.usable && !io_uring.direct_descriptors {
            warnings.push(
                "io_uring lacks FIXED_FD_INSTALL: connections use ordinary descriptors; Linux 6.8 has it".to_owned(),
            );
        }
        let plan = match planned {
            Ok(plan) => {
                warnings.extend(plan.warning());
                Some(plan)
            }
            Err(fault) => {
                warnings.push(fault);
                None
            }
        };
        let machine = Machine::read(plan, nofile, memlock);
        Self {
            kernel: machine.text("proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
            architecture: std::env::consts::ARCH,
            cpus,
            io_uring,
            memlock_bytes: memlock,
            nofile,
            settings: settings::examine(&machine),
            steering: machine.plan.as_ref().map(|plan| Steering::decide(SteeringChoice::Auto, plan, ANY_ADDRESS)),
            plan: machine.plan,
            warnings,
        }
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
            let report = RingReport::of(verdict);
            assert_eq!((report.auto_engine, report.usable, report.direct_descriptors), (engine, usable, direct));
            assert_eq!(report.remedy.is_empty(), usable, "a refusal has a remedy");
        }
    }

    #[test]
    fn the_report_has_every_field() {
        let report = HostReport::read(None, &[]);
        let json = serde_json::to_value(&report).expect("serializable");
        let fields =
            ["kernel", "architecture", "cpus", "io_uring", "memlock_bytes", "nofile", "plan", "warnings", "settings"];
        for field in fields {
            assert!(json.get(field).is_some_and(|value| !value.is_null()), "{field} in {json}");
        }
        let settings = json["settings"].as_array().expect("a list");
        let backlog = settings.iter().find(|one| one["name"] == "net.core.somaxconn").expect("it is among them");
        assert!(backlog["why"].is_string() && backlog["verdict"].is_string(), "{backlog}");
    }

    #[test]
    fn an_impossible_plan_is_a_warning_here() {
        let report = HostReport::read(None, &[usize::MAX]);
        assert!(report.plan.is_none());
        assert!(report.warnings.iter().any(|warning| warning.contains("TB_CONTROL_CPUS")), "{:?}", report.warnings);
    }
}
