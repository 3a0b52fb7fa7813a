//! Which vCPU does what.
//!
//! The plan is a pure function of the CPUs allowed and two settings; pinning itself is in `pin`.

use crate::cpus::AllowedCpus;
use shared::limits::SHARDS_MAX;
use std::fmt;

/// Who runs where. Only CPUs that the process is allowed to use (affinity mask and cgroup quota) are in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CorePlan {
    /// For each serving shard the CPU it is pinned to; `None`: not pinned (fewer CPUs than shards, or refused).
    pub shards: Vec<Option<usize>>,
    /// CPUs kept for everything else (`TB_CONTROL_CPUS`); empty: the rest floats over all allowed CPUs.
    pub control: Vec<usize>,
}

impl CorePlan {
    /// Plans `shards` serving shards (`None`: one per allowed vCPU not reserved) with `control` CPUs reserved.
    ///
    /// # Errors
    /// One line that says what to change, when a reserved CPU is not allowed, or nothing is left for serving.
    pub fn new(shards: Option<usize>, control: &[usize]) -> Result<Self, String> {
        let allowed = AllowedCpus::read()
            .map_err(|error| format!("the kernel does not tell the allowed CPUs ({error}): allow sched_getaffinity"))?;
        Self::plan(&allowed, shards, control)
    }

    /// The same over a given set of CPUs.
    ///
    /// More shards than CPUs to serve on are planned unpinned, all of them: see [`CorePlan::warning`]. With a quota
    /// below the mask the first CPUs of the mask are taken; give a cpuset to choose others.
    ///
    /// # Errors
    /// See [`CorePlan::new`].
    pub fn plan(allowed: &AllowedCpus, shards: Option<usize>, control: &[usize]) -> Result<Self, String> {
        let mut reserved = control.to_vec();
        reserved.sort_unstable();
        reserved.dedup();
        if let Some(foreign) = reserved.iter().find(|cpu| !allowed.cpus.contains(cpu)) {
            let list = ranges(&allowed.cpus);
            return Err(format!("TB_CONTROL_CPUS names CPU {foreign}, which is not allowed here: use some of {list}"));
        }
        let room = allowed.budget().saturating_sub(reserved.len());
        if room == 0 {
            let (kept, budget) = (reserved.len(), allowed.budget());
            return Err(format!(
                "TB_CONTROL_CPUS keeps {kept} of {budget} allowed CPUs, which leaves none to serve on: reserve fewer"
            ));
        }
        let serving = allowed.cpus.iter().copied().filter(|cpu| !reserved.contains(cpu)).take(room);
        let wanted = shards.unwrap_or(room.min(SHARDS_MAX));
        if wanted == 0 || wanted > SHARDS_MAX {
            return Err(format!(
                "TB_SHARDS is {wanted}: give 1 to {SHARDS_MAX}, or leave it out for one per allowed CPU"
            ));
        }
        let pinned = wanted <= room;
        let shards = if pinned { serving.take(wanted).map(Some).collect() } else { vec![None; wanted] };
        Ok(Self { shards, control: reserved })
    }

    /// What to tell the operator when shards are not pinned; `None` when all are.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let unpinned = self.shards.iter().filter(|cpu| cpu.is_none()).count();
        (unpinned > 0).then(|| {
            let total = self.shards.len();
            format!(
                "{unpinned} of {total} shards are not pinned, because there are more shards than CPUs to serve on: \
                 lower TB_SHARDS or allow the process more CPUs"
            )
        })
    }
}

impl fmt::Display for CorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, cpu) in self.shards.iter().enumerate() {
            let gap = if index == 0 { "" } else { ", " };
            match cpu {
                Some(cpu) => write!(f, "{gap}shard {index} on CPU {cpu}")?,
                None => write!(f, "{gap}shard {index} unpinned")?,
            }
        }
        if self.control.is_empty() {
            f.write_str("; the rest on all allowed CPUs")
        } else {
            write!(f, "; the rest on {}", ranges(&self.control))
        }
    }
}

/// Ascending numbers as the kernel writes them: `0-3,8`.
#[must_use]
pub fn ranges(numbers: &[usize]) -> String {
    let parts: Vec<String> = numbers
        .chunk_by(|a, b| a + 1 == *b)
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            _ => run.iter().map(ToString::to_string).collect(),
        })
        .collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(cpus: &[usize], quota: Option<u64>, shards: Option<usize>, control: &[usize]) -> Result<CorePlan, String> {
        CorePlan::plan(&AllowedCpus { cpus: cpus.to_vec(), quota_millis: quota }, shards, control)
    }

    #[test]
    fn shards_go_to_allowed_cpus_only() {
        type Case<'a> = (&'a [usize], Option<u64>, Option<usize>, &'a [usize], &'a [usize]);
        let table: &[Case<'_>] = &[
            (&[0, 1], None, None, &[], &[0, 1]),
            (&[2, 5, 7], None, None, &[], &[2, 5, 7]),
            (&[2, 5, 7], None, Some(2), &[], &[2, 5]),
            (&[0, 1, 2, 3], None, None, &[0], &[1, 2, 3]),
            (&[0, 1, 2, 3], None, None, &[3, 3, 1], &[0, 2]),
            (&[0, 1, 2, 3], Some(2_000), None, &[], &[0, 1]),
            (&[0, 1, 2, 3], Some(2_500), None, &[0], &[1]),
            (&[0, 1, 2, 3], Some(400), None, &[], &[0]),
            (&[9], None, Some(1), &[], &[9]),
        ];
        for (cpus, quota, shards, control, expected) in table {
            let plan = plan(cpus, *quota, *shards, control).expect("a plan");
            let expected: Vec<_> = expected.iter().copied().map(Some).collect();
            assert_eq!(plan.shards, expected, "{cpus:?} {quota:?} {shards:?} {control:?}");
            assert_eq!(plan.warning(), None);
        }
    }

    #[test]
    fn more_shards_than_cpus_float_with_a_warning() {
        for (quota, control) in [(None, &[][..]), (Some(2_000), &[0][..])] {
            let plan = plan(&[0, 1], quota, Some(3), control).expect("a plan");
            assert_eq!(plan.shards, vec![None; 3]);
            assert!(plan.warning().expect("a warning").contains("TB_SHARDS"));
        }
    }

    #[test]
    fn impossible_wishes_say_what_to_change() {
        let table: &[(Option<usize>, &[usize], &str)] = &[
            (None, &[4], "TB_CONTROL_CPUS names CPU 4"),
            (None, &[0, 1], "reserve fewer"),
            (Some(1), &[0, 1], "reserve fewer"),
            (Some(0), &[], "TB_SHARDS is 0"),
            (Some(SHARDS_MAX + 1), &[], "TB_SHARDS is 64: give 1 to 63"),
        ];
        for (shards, control, text) in table {
            let error = plan(&[0, 1], None, *shards, control).expect_err("impossible");
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_huge_machine_is_served_by_as_many_shards_as_there_can_be() {
        let cpus: Vec<usize> = (0..192).collect();
        assert_eq!(plan(&cpus, None, None, &[]).expect("a plan").shards.len(), SHARDS_MAX);
    }

    #[test]
    fn plans_read_as_sentences() {
        let text = plan(&[0, 1, 2, 3], None, None, &[2, 3]).expect("a plan").to_string();
        assert_eq!(text, "shard 0 on CPU 0, shard 1 on CPU 1; the rest on 2-3");
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }
}
