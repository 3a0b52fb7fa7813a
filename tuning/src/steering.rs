//! Which shard a new flow meets: the one of the CPU that receives it, or one that the kernel picks by a hash.
//!
//! All shards' sockets share one port. Left to itself the kernel spreads flows by a hash of their addresses, so that most
//! of them are received on one CPU and answered on another. A program on the sockets' group (`SO_ATTACH_REUSEPORT_CBPF`)
//! gives each flow to the shard that is pinned to the CPU it came in on: its packets then stay on one core. That is right
//! only where packets come in on all the shards' CPUs: with one receive queue, or from one client on the loopback
//! interface, it would give everything to one shard. So unless told otherwise it is done only where every network card
//! is seen to have its queues on the serving CPUs. This file does not know what a shard does.

use crate::core_plan::{CorePlan, ranges};
use crate::machine::Machine;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

/// What `TB_STEERING` may say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SteeringChoice {
    /// By CPU where every card's queues are on the serving CPUs, else by hash.
    #[default]
    Auto,
    /// By CPU wherever shards are pinned.
    Cpu,
    /// By hash.
    Hash,
}

impl SteeringChoice {
    /// The choice with this name in settings.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "hash" => Some(Self::Hash),
            _ => None,
        }
    }
}

/// How flows find their shards, and why so.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Steering {
    /// Whether by the CPU that receives them; else by hash.
    pub by_cpu: bool,
    /// One line.
    pub reason: String,
}

impl fmt::Display for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.by_cpu { "by CPU" } else { "by hash" }, self.reason)
    }
}

impl Steering {
    /// Decides for sockets bound to `bind` whose shards run as planned. Looks at the machine only where that matters.
    #[must_use]
    pub fn decide(choice: SteeringChoice, plan: &CorePlan, bind: IpAddr) -> Self {
        Self::decide_on(&Machine { root: PathBuf::from("/"), ..Machine::default() }, choice, plan, bind)
    }

    fn decide_on(machine: &Machine, choice: SteeringChoice, plan: &CorePlan, bind: IpAddr) -> Self {
        let by_hash = |reason: String| Self { by_cpu: false, reason };
        if choice == SteeringChoice::Hash {
            return by_hash("TB_STEERING=hash".to_owned());
        }
        let Some(serving) = pinned(plan) else {
            return by_hash("it takes two shards or more, all of them pinned to CPUs".to_owned());
        };
        if choice == SteeringChoice::Cpu {
            return Self { by_cpu: true, reason: "TB_STEERING=cpu".to_owned() };
        }
        if bind.is_loopback() {
            return by_hash("bound to loopback, where a client's flows come in on the client's own CPU".to_owned());
        }
        match receiving(machine, &serving) {
            Ok(cards) => Self { by_cpu: true, reason: format!("{cards} receives on every serving CPU") },
            Err(reason) => by_hash(reason),
        }
    }

    /// What it is when the kernel has refused it.
    #[must_use]
    pub fn refused(&self, error: &io::Error) -> Self {
        Self { by_cpu: false, reason: format!("the kernel refused the program for steering by CPU: {error}") }
    }
}

/// The shards' CPUs in the order of the shards, where there are several shards and each has one.
fn pinned(plan: &CorePlan) -> Option<Vec<usize>> {
    let cpus: Vec<usize> = plan.shards.iter().copied().collect::<Option<_>>()?;
    (cpus.len() > 1).then_some(cpus)
}

/// The names of the cards, if all of them receive on every serving CPU.
///
/// # Errors
/// Which does not, or that there is none, as a reason.
fn receiving(machine: &Machine, serving: &[usize]) -> Result<String, String> {
    // What has no device behind it (bridges, tunnels, a container's end of a pair) passes on what a card received.
    let cards: Vec<String> = machine.interfaces().into_iter().filter(|name| machine.is_card(name)).collect();
    if cards.is_empty() {
        return Err("no network card is visible here, so nobody knows which CPUs receive".to_owned());
    }
    cards.iter().try_for_each(|card| receives(machine, card, serving))?;
    Ok(cards.join(", "))
}

/// Whether a card's packets come in on every serving CPU.
fn receives(machine: &Machine, card: &str, serving: &[usize]) -> Result<(), String> {
    let all_of = |reached: &[usize]| {
        let idle: Vec<usize> = serving.iter().copied().filter(|cpu| !reached.contains(cpu)).collect();
        let lacks = || format!("{card} receives nothing on CPU {}; see tuning/nic-queues.sh", ranges(&idle));
        if idle.is_empty() { Ok(()) } else { Err(lacks()) }
    };
    let moved: Vec<Vec<usize>> = machine.moving_masks(card).iter().map(|mask| cpus_of_mask(mask)).collect();
    // Where software moves the packets of every queue, where the interrupts go plays no part.
    if !moved.is_empty() && moved.iter().all(|cpus| !cpus.is_empty()) {
        return all_of(&moved.concat());
    }
    let (has, wants) = (machine.receive_queues(card).len(), serving.len());
    if has < wants {
        return Err(format!("{card} has {has} receive queues for {wants} serving CPUs; see tuning/nic-queues.sh"));
    }
    // As many queues as CPUs, one to each as drivers do it; where interrupts can be seen they must say so too.
    machine.interrupt_cpus(card).map_or(Ok(()), |reached| all_of(&reached))
}

/// The CPUs of a mask such as `00000001,00000003`, 32 to a word, the highest word first.
fn cpus_of_mask(mask: &str) -> Vec<usize> {
    let words = mask.rsplit(',').map(|word| u32::from_str_radix(word.trim(), 16).unwrap_or(0));
    let cpus =
        |(index, word): (usize, u32)| (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| index * 32 + bit);
    words.enumerate().flat_map(cpus).collect()
}

/// Has the group that `socket` shares its port with give each new flow (of TCP: each connection; of UDP: each datagram) to
/// the socket of the CPU that receives it. `cpus`: the CPU of each socket, in the order in which they were bound, and of
/// TCP began to listen. What comes in on another CPU is spread by hash as before.
///
/// # Errors
/// What the kernel says: before Linux 4.6 there is no such thing, and a sandbox may forbid it. Nothing has changed then.
pub fn steer_by_cpu(socket: BorrowedFd<'_>, cpus: &[usize]) -> io::Result<()> {
    let mut filters = program(cpus);
    let length = u16::try_from(filters.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: filters.as_mut_ptr() };
    let bytes = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: `program` is live and points at `length` live instructions; the call only reads them.
    let result = unsafe {
        let (fd, program) = (socket.as_raw_fd(), (&raw const program).cast());
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, program, bytes)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Consecutive CPUs whose sockets are consecutive too.
struct Run {
    first: usize,
    index: usize,
    length: usize,
}

/// The program: answers the index of the receiving CPU's socket, or one that no socket has. Five instructions for each run
/// of consecutive CPUs, so 316 at the most for 63 shards; the kernel takes 4,096.
fn program(cpus: &[usize]) -> Vec<libc::sock_filter> {
    let instruction = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let mut filters = Vec::new();
    for Run { first, index, length } in runs(cpus) {
        // `A` is the receiving CPU, then its distance from the run's first; below that it wraps to a large number.
        let cpu = (libc::SKF_AD_OFF + libc::SKF_AD_CPU).cast_unsigned();
        filters.push(instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, cpu));
        filters.push(instruction(libc::BPF_ALU | libc::BPF_SUB | libc::BPF_K, 0, 0, number(first)));
        filters.push(instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 2, 0, number(length)));
        filters.push(instruction(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, 0, 0, number(index)));
        filters.push(instruction(libc::BPF_RET | RET_A, 0, 0, 0));
    }
    filters.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX));
    filters
}

/// `BPF_A`: a return of what has been computed.
const RET_A: u32 = 0x10;

fn runs(cpus: &[usize]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, cpu) in cpus.iter().copied().enumerate() {
        match runs.last_mut() {
            Some(run) if run.first + run.length == cpu => run.length += 1,
            _ => runs.push(Run { first: cpu, index, length: 1 }),
        }
    }
    runs
}

#[cfg(test)]
mod tests;
