//! Which vCPU does what.

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
    pub fn new(_shards: Option<usize>, _control: &[usize]) -> Result<Self, String> {
        unimplemented!()
    }
}
