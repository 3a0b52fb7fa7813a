//! Which CPUs the process may use: the affinity mask, and how much of them its control groups grant.
//!
//! Both are needed: a container given `--cpus=2` on a big host sees every CPU in its mask and is stopped for the
//! rest of each period once two CPUs' worth is used. The files are read under a root directory that tests replace.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Words of the affinity mask: 8,192 CPUs, the most a Linux kernel can be built for.
const MASK_WORDS: usize = 128;

/// What the process may use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AllowedCpus {
    /// Numbers of the CPUs in the affinity mask, ascending.
    pub cpus: Vec<usize>,
    /// Least quota of the process's control groups, in thousandths of a CPU; `None` where there is none.
    pub quota_millis: Option<u64>,
}

impl AllowedCpus {
    /// Reads mask and quota of this process.
    ///
    /// # Errors
    /// When the kernel does not tell the affinity mask.
    pub fn read() -> io::Result<Self> {
        Ok(Self { cpus: affinity_mask()?, quota_millis: quota_millis(Path::new("/")) })
    }

    /// How many CPUs' worth of work may run at once: whole ones, at least 1. A broken part is not counted, because
    /// two shards on one and a half CPUs would both be stopped in every period.
    #[must_use]
    pub fn budget(&self) -> usize {
        let granted =
            self.quota_millis.map_or(usize::MAX, |millis| usize::try_from(millis / 1_000).unwrap_or(usize::MAX));
        self.cpus.len().min(granted.max(1))
    }
}

/// The mask of the process's first thread: others may be pinned already.
fn affinity_mask() -> io::Result<Vec<usize>> {
    let mut words = [0_u64; MASK_WORDS];
    let process = libc::pid_t::try_from(std::process::id()).unwrap_or(0);
    // SAFETY: the kernel writes at most the size given, all of it inside `words`, which has the alignment of the
    // `unsigned long`s that a `cpu_set_t` is made of.
    let result = unsafe { libc::sched_getaffinity(process, size_of_val(&words), words.as_mut_ptr().cast()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let bit_is_set = |cpu: &usize| words[cpu / 64] >> (cpu % 64) & 1 == 1;
    Ok((0..MASK_WORDS * 64).filter(bit_is_set).collect())
}

/// Least CPU quota of the control groups that the process is in, up to the root of what it can see.
fn quota_millis(root: &Path) -> Option<u64> {
    groups(root).iter().filter_map(Group::quota_millis).min()
}

/// In how many periods one of these groups was stopped because its quota was used up, and of how many: of the group
/// that was stopped most. `None` where none has a quota, or none tells.
pub(crate) fn throttled(root: &Path) -> Option<(u64, u64)> {
    groups(root).iter().filter(|group| group.quota_millis().is_some()).filter_map(Group::throttled).max()
}

/// Numbers written as the kernel writes sets of CPUs (`0-3,8`); what is not a number is left out.
pub(crate) fn numbers(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse::<usize>().ok()?.min(MASK_WORDS * 64))
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// The control groups, of every mounted hierarchy that can hold a CPU quota, that the process is in.
fn groups(root: &Path) -> Vec<Group> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let memberships = read("proc/self/cgroup");
    let mounts = read("proc/self/mountinfo");
    mounts.lines().filter_map(Mount::parse).flat_map(|mount| mount.groups(root, &memberships)).collect()
}

/// A control group's directory.
struct Group {
    directory: PathBuf,
    unified: bool,
}

impl Group {
    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.directory.join(name)).ok()
    }

    fn quota_millis(&self) -> Option<u64> {
        if self.unified {
            let text = self.read("cpu.max")?;
            let (quota, period) = text.trim().split_once(' ')?;
            millis(quota, period)
        } else {
            millis(&self.read("cpu.cfs_quota_us")?, &self.read("cpu.cfs_period_us")?)
        }
    }

    /// Both versions write the same words.
    fn throttled(&self) -> Option<(u64, u64)> {
        let text = self.read("cpu.stat")?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Some((field("nr_throttled ")?, field("nr_periods ")?))
    }
}

/// One mounted control group hierarchy that can hold a CPU quota.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    /// What part of the hierarchy is mounted.
    base: &'a str,
    /// Where.
    point: &'a str,
    /// Version 2: one hierarchy, `cpu.max`. Version 1: the hierarchy that has the `cpu` controller.
    unified: bool,
}

impl<'a> Mount<'a> {
    /// Reads a line of `mountinfo`: `id parent major:minor base point options … - type source superoptions`.
    fn parse(line: &'a str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (base, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let unified = match kind.next()? {
            "cgroup2" => true,
            "cgroup" if kind.nth(1)?.split(',').any(|option| option == "cpu") => false,
            _ => return None,
        };
        Some(Self { base, point, unified })
    }

    /// The process's group in this hierarchy, from a line `number:controllers:path`.
    fn group(&self, memberships: &'a str) -> Option<&'a str> {
        memberships.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let ours =
                if self.unified { controllers.is_empty() } else { controllers.split(',').any(|name| name == "cpu") };
            ours.then_some(path)
        })
    }

    /// The process's group and those above it, up to the mount point.
    fn groups(&self, root: &Path, memberships: &'a str) -> Vec<Group> {
        let Some(group) = self.group(memberships) else { return Vec::new() };
        // A group outside of what is mounted (a container that sees its host's names) leaves the mount point itself.
        let below = Path::new(group).strip_prefix(self.base).unwrap_or(Path::new(""));
        let below: PathBuf = below.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let point = root.join(self.point.trim_start_matches('/'));
        let group = |below: &Path| Group { directory: point.join(below), unified: self.unified };
        below.ancestors().map(group).collect()
    }
}

/// Thousandths of a CPU that `quota` µs in every `period` µs are; `None` for no quota (`max`, `-1`) or nonsense.
fn millis(quota: &str, period: &str) -> Option<u64> {
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok()?;
    (quota > 0).then_some(())?;
    quota.checked_mul(1_000)?.checked_div(period)
}

#[cfg(test)]
#[path = "../tests/root/mod.rs"]
mod root;

#[cfg(test)]
mod tests {
    use super::root::root_with;
    use super::*;

    #[test]
    fn quotas_are_thousandths_of_a_cpu() {
        let table = [
            ("200000", "100000", Some(2_000)),
            ("150000", "100000", Some(1_500)),
            ("50000\n", "100000\n", Some(500)),
            ("max", "100000", None),
            ("-1", "100000", None),
            ("0", "100000", None),
            ("1", "0", None),
            ("", "", None),
        ];
        for (quota, period, expected) in table {
            assert_eq!(millis(quota, period), expected, "{quota:?} {period:?}");
        }
    }

    #[test]
    fn a_budget_is_whole_cpus_and_at_least_one() {
        let table = [
            (4, None, 4),
            (4, Some(2_000), 2),
            (4, Some(1_500), 1),
            (4, Some(300), 1),
            (4, Some(9_000), 4),
            (1, None, 1),
        ];
        for (cpus, quota_millis, expected) in table {
            let allowed = AllowedCpus { cpus: (0..cpus).collect(), quota_millis };
            assert_eq!(allowed.budget(), expected, "{allowed:?}");
        }
    }

    /// Lays out a root directory with the given files and reads the quota from it.
    #[track_caller]
    fn check(files: &[(&str, &str)], expected: Option<u64>) {
        let root = root_with(files);
        assert_eq!(quota_millis(root.path()), expected);
    }

    const MOUNT_V2: (&str, &str) =
        ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");

    #[test]
    fn version_2_takes_the_least_of_all_ancestors() {
        let groups = ("proc/self/cgroup", "0::/a/b\n");
        let at = |name| (name, "300000 100000\n");
        check(&[MOUNT_V2, groups], None);
        check(&[MOUNT_V2, groups, at("sys/fs/cgroup/a/b/cpu.max")], Some(3_000));
        check(
            &[MOUNT_V2, groups, at("sys/fs/cgroup/a/b/cpu.max"), ("sys/fs/cgroup/a/cpu.max", "50000 100000")],
            Some(500),
        );
        check(&[MOUNT_V2, groups, at("sys/fs/cgroup/a/c/cpu.max"), ("sys/fs/cgroup/a/cpu.max", "max 100000")], None);
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_mount_point() {
        check(&[MOUNT_V2, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "200000 100000")], Some(2_000));
        let outside = ("proc/self/cgroup", "0::/../../elsewhere\n");
        check(&[MOUNT_V2, outside, ("sys/fs/cgroup/cpu.max", "200000 100000")], Some(2_000));
    }

    #[test]
    fn version_1_reads_the_hierarchy_with_the_cpu_controller() {
        let mounts = (
            "proc/self/mountinfo",
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
             32 31 0:29 /docker/7 /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             33 31 0:30 /docker/7 /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n",
        );
        let groups = ("proc/self/cgroup", "3:cpuset:/docker/7\n2:cpu,cpuacct:/docker/7/x\n0::/\n");
        let quota = ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000\n");
        let period = ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
        check(&[mounts, groups, quota, period], Some(4_000));
        let inner = [
            ("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
        ];
        check(&[mounts, groups, quota, period, inner[0], inner[1]], Some(1_000));
        check(&[mounts, groups, ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"), period], None);
    }

    #[test]
    fn a_stopped_group_tells_how_often() {
        let groups = ("proc/self/cgroup", "0::/a\n");
        let stat = ("sys/fs/cgroup/a/cpu.stat", "usage_usec 5\nnr_periods 40\nnr_throttled 7\nthrottled_usec 9\n");
        let told = |files: &[(&str, &str)]| throttled(root_with(files).path());
        assert_eq!(told(&[MOUNT_V2, groups, stat]), None, "without a quota nothing stops it");
        assert_eq!(told(&[MOUNT_V2, groups, stat, ("sys/fs/cgroup/a/cpu.max", "100000 100000")]), Some((7, 40)));
    }

    #[test]
    fn sets_of_cpus_are_read_as_the_kernel_writes_them() {
        let table: [(&str, &[usize]); 6] =
            [("0", &[0]), ("0-2,5", &[0, 1, 2, 5]), ("3,1\n", &[3, 1]), ("", &[]), ("x-2,7", &[7]), ("5-2", &[])];
        for (list, expected) in table {
            assert_eq!(numbers(list), expected, "{list:?}");
        }
    }

    #[test]
    fn this_machine_allows_something() {
        let allowed = AllowedCpus::read().expect("the kernel tells the mask");
        assert!(!allowed.cpus.is_empty() && allowed.budget() >= 1, "{allowed:?}");
        assert!(allowed.cpus.is_sorted());
    }
}
