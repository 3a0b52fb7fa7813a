//! What the settings' table reads: the kernel's files under a root directory, and what only system calls tell.
//!
//! Nothing here judges, and nothing it cannot read is an error: it is a value that is not there. Tests replace the root.

use crate::card::Card;
use crate::core_plan::CorePlan;
use crate::cpus;
use crate::sockets::Limit;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// Where a machine's settings are read, and for whom.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// What stands for `/`.
    pub root: PathBuf,
    /// Who would run where; wanted values hang on the number of shards.
    pub plan: Option<CorePlan>,
    /// Limit on open descriptors, as the process was started with.
    pub nofile: Option<Limit>,
    /// Limit on locked memory, bytes.
    pub memlock: Option<Limit>,
    /// What one read of the clock costs, ns.
    pub clock_read_ns: u64,
    /// What the drivers of the network cards tell, by the interface's name.
    pub cards: BTreeMap<String, Card>,
}

/// What a file of the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Its text, without the line's end.
    Text(String),
    /// There is no such file: the kernel or the machine lacks the thing, or a container hides it.
    Nothing,
    /// It may not be read.
    Denied,
}

impl Machine {
    /// This machine; `limits` as the process was started with.
    #[must_use]
    pub fn read(plan: Option<CorePlan>, nofile: Option<Limit>, memlock: Option<Limit>) -> Self {
        let clock_read_ns = crate::clock::read_cost_ns();
        let mut machine =
            Self { root: PathBuf::from("/"), plan, nofile, memlock, clock_read_ns, cards: BTreeMap::new() };
        let known = |name: String| Card::read(&name).map(|card| (name, card));
        machine.cards = machine.interfaces().into_iter().filter_map(known).collect();
        machine
    }

    /// How many shards would serve; one where it could not be planned.
    #[must_use]
    pub fn shards(&self) -> u64 {
        self.plan.as_ref().map_or(1, |plan| u64::try_from(plan.shards.len()).unwrap_or(u64::MAX))
    }

    /// CPUs that shards are pinned to, ascending.
    #[must_use]
    pub fn serving_cpus(&self) -> Vec<usize> {
        let mut cpus: Vec<usize> = self.plan.iter().flat_map(|plan| plan.shards.iter().copied().flatten()).collect();
        cpus.sort_unstable();
        cpus
    }

    /// What the file at `path`, relative to the root, says.
    #[must_use]
    pub fn told(&self, path: &str) -> Told {
        match std::fs::read_to_string(self.root.join(path)) {
            Ok(text) => Told::Text(text.trim_end().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Told::Nothing,
            Err(_) => Told::Denied,
        }
    }

    /// The text of a file, where it can be read.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        match self.told(path) {
            Told::Text(text) => Some(text),
            Told::Nothing | Told::Denied => None,
        }
    }

    /// The number that is all of a file.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.trim().parse().ok()
    }

    /// Names in a directory, sorted; none where it is not there.
    #[must_use]
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Network interfaces that are up and not the loopback one.
    #[must_use]
    pub fn interfaces(&self) -> Vec<String> {
        let is_up = |name: &String| {
            let flags = self.text(&format!("sys/class/net/{name}/flags")).unwrap_or_default();
            let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(0);
            // IFF_UP without IFF_LOOPBACK.
            flags & 1 != 0 && flags & 8 == 0
        };
        self.names("sys/class/net").into_iter().filter(is_up).collect()
    }

    /// Whether an interface is a card (or a hypervisor's), with queues and interrupts, and not software alone.
    #[must_use]
    pub fn is_card(&self, interface: &str) -> bool {
        self.root.join(format!("sys/class/net/{interface}/device")).exists()
    }

    /// Names of an interface's receive queues.
    #[must_use]
    pub fn receive_queues(&self, interface: &str) -> Vec<String> {
        let queues = self.names(&format!("sys/class/net/{interface}/queues")).into_iter();
        queues.filter(|queue| queue.starts_with("rx-")).collect()
    }

    /// CPUs that the interrupts of an interface go to, in no order; `None` where they cannot be seen.
    #[must_use]
    pub fn interrupt_cpus(&self, interface: &str) -> Option<Vec<usize>> {
        // A virtio card's interrupts are its parent's.
        let lists = ["device/msi_irqs", "device/../msi_irqs"];
        let lists = lists.map(|path| self.names(&format!("sys/class/net/{interface}/{path}")));
        let of = |irq: &String| {
            let list = |name: &str| self.text(&format!("proc/irq/{irq}/{name}")).filter(|list| !list.is_empty());
            list("effective_affinity_list").or_else(|| list("smp_affinity_list"))
        };
        let lists: Vec<String> = lists.iter().find(|irqs| !irqs.is_empty())?.iter().filter_map(of).collect();
        (!lists.is_empty()).then(|| lists.iter().flat_map(|list| cpus::numbers(list)).collect())
    }

    /// For each receive queue of an interface the mask of CPUs that software moves its packets to (RPS), as the kernel
    /// writes it; queues whose mask cannot be read are left out.
    #[must_use]
    pub fn moving_masks(&self, interface: &str) -> Vec<String> {
        let mask = |queue: &String| self.text(&format!("sys/class/net/{interface}/queues/{queue}/rps_cpus"));
        self.receive_queues(interface).iter().filter_map(mask).collect()
    }

    /// A counter of `/proc/net/snmp` or `/proc/net/netstat`: lines of names and of values, both beginning with `section`.
    #[must_use]
    pub fn counter(&self, file: &str, section: &str, name: &str) -> Option<u64> {
        let text = self.text(file)?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(section)?.strip_prefix(':'));
        let position = lines.next()?.split_whitespace().position(|found| found == name)?;
        lines.next()?.split_whitespace().nth(position)?.parse().ok()
    }
}
