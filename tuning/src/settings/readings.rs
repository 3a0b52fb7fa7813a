//! How settings are learnt that are not one number in one file: cards, CPUs, counters.
//!
//! Each function reads and shortens; what is wanted stands in the table.

use super::Reading;
use crate::card::Card;
use crate::core_plan::ranges;
use crate::cpus;
use crate::machine::{Machine, Told};
use crate::sockets::Limit;

/// Bit of CAP_IPC_LOCK in a mask of capabilities.
const CAP_IPC_LOCK: u64 = 1 << 14;

fn limit(limit: Option<Limit>) -> Vec<Reading> {
    let judged = limit.map(|limit| (limit.to_string(), limit.hard.unwrap_or(u64::MAX)));
    vec![Reading::judged(judged)]
}

/// The hard limit on descriptors: the process raises the soft one to it by itself.
pub fn nofile(machine: &Machine) -> Vec<Reading> {
    limit(machine.nofile)
}

/// The limit on locked memory, bytes; of no concern to a process that may lock what it likes.
pub fn memlock(machine: &Machine) -> Vec<Reading> {
    let status = machine.text("proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    if mask.is_some_and(|mask| mask & CAP_IPC_LOCK != 0) {
        return vec![Reading::judged(Some(("not counted: the process has CAP_IPC_LOCK".to_owned(), u64::MAX)))];
    }
    limit(machine.memlock)
}

/// Connections and datagram flows that a connection tracker follows now.
pub fn tracked(machine: &Machine) -> Vec<Reading> {
    let path = "proc/sys/net/netfilter/nf_conntrack_count";
    vec![match machine.told(path) {
        Told::Text(text) => {
            let number = text.parse().ok();
            Reading::judged(number.map(|number| (format!("{text} flows"), number)))
        }
        told => Reading::of_told(told),
    }]
}

/// For each interface that is up, whatever carries it.
fn each_interface(machine: &Machine, read: impl Fn(&str) -> Option<Reading>) -> Vec<Reading> {
    let interfaces = machine.interfaces();
    interfaces.iter().filter_map(|interface| Some(read(interface)?.on(interface))).collect()
}

/// For each interface that is a card.
fn each_card(machine: &Machine, read: impl Fn(&str) -> Option<Reading>) -> Vec<Reading> {
    each_interface(machine, |interface| if machine.is_card(interface) { read(interface) } else { None })
}

/// Longest packet.
pub fn mtu(machine: &Machine) -> Vec<Reading> {
    each_interface(machine, |interface| Some(Reading::of_told(machine.told(&format!("sys/class/net/{interface}/mtu")))))
}

/// Receive queues, and how many the card can have.
pub fn queues(machine: &Machine) -> Vec<Reading> {
    each_card(machine, |interface| {
        let count = u64::try_from(machine.receive_queues(interface).len()).ok().filter(|count| *count > 0);
        let most = machine.cards.get(interface).and_then(|card| card.queues_max);
        let of = most.map_or_else(String::new, |most| format!(" of {most} that it can have"));
        Some(Reading::judged(count.map(|count| (format!("{count}{of}"), count))))
    })
}

/// Serving CPUs that no interrupt of the card goes to. Where there are fewer queues than shards the queues are the
/// fault, and are told by themselves.
pub fn interrupts(machine: &Machine) -> Vec<Reading> {
    each_card(machine, |interface| {
        let serving = machine.serving_cpus();
        let queues = machine.receive_queues(interface).len();
        if serving.is_empty() || queues < serving.len() {
            return None;
        }
        let Some(reached) = machine.interrupt_cpus(interface) else { return Some(Reading::of_told(Told::Denied)) };
        let idle: Vec<usize> = serving.into_iter().filter(|cpu| !reached.contains(cpu)).collect();
        let text = if idle.is_empty() { "none".to_owned() } else { ranges(&idle) };
        Some(Reading::judged(Some((text, u64::try_from(idle.len()).unwrap_or(u64::MAX)))))
    })
}

/// Receive queues whose packets software moves to other CPUs.
pub fn moved_by_software(machine: &Machine) -> Vec<Reading> {
    each_card(machine, |interface| {
        let masks = machine.moving_masks(interface);
        let moved = masks.iter().filter(|mask| mask.chars().any(|digit| !matches!(digit, '0' | ','))).count();
        let text = format!("{moved} of {} queues", masks.len());
        Some(Reading::judged((!masks.is_empty()).then_some((text, u64::try_from(moved).unwrap_or(u64::MAX)))))
    })
}

fn grouping(machine: &Machine, flag: fn(&Card) -> Option<bool>) -> Vec<Reading> {
    each_card(machine, |interface| {
        let told = machine.cards.get(interface).and_then(flag);
        let told = told.map_or(Told::Denied, |on| Told::Text(if on { "on" } else { "off" }.to_owned()));
        Some(Reading::of_told(told))
    })
}

/// Whether the card's driver puts packets of one flow together.
pub fn receive_grouping(machine: &Machine) -> Vec<Reading> {
    grouping(machine, |card| card.receive_grouping)
}

/// Whether long sends are cut late.
pub fn send_grouping(machine: &Machine) -> Vec<Reading> {
    grouping(machine, |card| card.send_grouping)
}

/// Name of the clock source, and what a read costs, ns.
pub fn clock_read(machine: &Machine) -> Vec<Reading> {
    let path = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    let source = machine.text(path).unwrap_or_else(|| "unknown".to_owned());
    let cost = machine.clock_read_ns;
    vec![Reading::judged(Some((format!("{cost} ns ({source})"), cost)))]
}

/// The frequency governor of the serving CPUs, where they have one.
pub fn governor(machine: &Machine) -> Vec<Reading> {
    let path = |cpu: &usize| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
    let mut told: Vec<String> = machine.serving_cpus().iter().filter_map(|cpu| machine.text(&path(cpu))).collect();
    told.sort();
    told.dedup();
    vec![Reading::of_told(if told.is_empty() { Told::Nothing } else { Told::Text(told.join(", ")) })]
}

/// The idle state that a serving CPU takes longest to leave, µs.
pub fn idle_exit(machine: &Machine) -> Vec<Reading> {
    let states = machine.serving_cpus().into_iter().flat_map(|cpu| {
        let folder = format!("sys/devices/system/cpu/cpu{cpu}/cpuidle");
        machine.names(&folder).into_iter().map(move |state| format!("{folder}/{state}"))
    });
    let enabled = states.filter(|state| machine.number(&format!("{state}/disable")) == Some(0));
    let exits = enabled.filter_map(|state| {
        Some((machine.number(&format!("{state}/latency"))?, machine.text(&format!("{state}/name"))?))
    });
    vec![match exits.max() {
        Some((exit_us, name)) => Reading::judged(Some((format!("{exit_us} µs ({name})"), exit_us))),
        None => Reading::of_told(Told::Nothing),
    }]
}

/// Serving CPUs that are two halves of one core.
pub fn siblings(machine: &Machine) -> Vec<Reading> {
    let serving = machine.serving_cpus();
    let path = |cpu: &usize| format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    let told: Vec<String> = serving.iter().filter_map(|cpu| machine.text(&path(cpu))).collect();
    if told.is_empty() {
        return vec![Reading::of_told(Told::Denied)];
    }
    let is_shared = |list: &&String| cpus::numbers(list).iter().filter(|cpu| serving.contains(cpu)).count() > 1;
    let mut shared: Vec<&String> = told.iter().filter(is_shared).collect();
    shared.sort();
    shared.dedup();
    let text = if shared.is_empty() { "none share a core".to_owned() } else { format!("one core: {shared:?}") };
    vec![Reading::of_told(Told::Text(text.replace(['[', ']', '"'], "")))]
}

/// The kernel's moving of memory between nodes, where there is more than one.
pub fn numa_balancing(machine: &Machine) -> Vec<Reading> {
    let nodes = machine.text("sys/devices/system/node/online").unwrap_or_default();
    vec![Reading::of_told(match nodes.as_str() {
        "" | "0" => Told::Nothing,
        _ => machine.told("proc/sys/kernel/numa_balancing"),
    })]
}

/// A choice of words of which the kernel brackets the one in force.
fn bracketed(machine: &Machine, path: &str) -> Vec<Reading> {
    let chosen = |text: &str| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned());
    vec![Reading::of_told(match machine.told(path) {
        Told::Text(text) => chosen(&text).map_or(Told::Denied, Told::Text),
        told => told,
    })]
}

/// When memory is given in huge pages.
pub fn huge_pages(machine: &Machine) -> Vec<Reading> {
    bracketed(machine, "sys/kernel/mm/transparent_hugepage/enabled")
}

/// When a page fault waits for one to be put together.
pub fn huge_page_defrag(machine: &Machine) -> Vec<Reading> {
    bracketed(machine, "sys/kernel/mm/transparent_hugepage/defrag")
}

/// How readily memory is swapped out, where there is something to swap to.
pub fn swappiness(machine: &Machine) -> Vec<Reading> {
    let swaps = machine.text("proc/swaps").map(|text| text.lines().count());
    vec![Reading::of_told(match swaps {
        Some(0 | 1) => Told::Nothing,
        _ => machine.told("proc/sys/vm/swappiness"),
    })]
}

/// `part` of `whole`, and the share in millionths.
fn share(part: u64, whole: u64) -> (String, u64) {
    let millionths = u128::from(part) * 1_000_000 / u128::from(whole.max(1));
    (format!("{part} of {whole}"), u64::try_from(millionths).unwrap_or(u64::MAX))
}

/// Periods in which a control group stopped us because its quota was used up.
pub fn throttled(machine: &Machine) -> Vec<Reading> {
    let told = cpus::throttled(&machine.root);
    vec![match told {
        Some((throttled, periods)) => Reading::judged(Some((share(throttled, periods).0, throttled))),
        None => Reading::of_told(Told::Nothing),
    }]
}

/// Time that the hypervisor gave to others, of all time that was not idle.
pub fn stolen(machine: &Machine) -> Vec<Reading> {
    let stat = machine.text("proc/stat").unwrap_or_default();
    let total = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let fields: Option<Vec<u64>> = total.map(|line| line.split_whitespace().map_while(|n| n.parse().ok()).collect());
    // user nice system idle iowait irq softirq steal …
    let judged = fields.filter(|fields| fields.len() >= 8).map(|fields| {
        let busy = fields[..8].iter().sum::<u64>() - fields[3] - fields[4];
        let (_, millionths) = share(fields[7], busy);
        (format!("{}.{} %", millionths / 10_000, millionths % 10_000 / 1_000), millionths)
    });
    vec![Reading::judged(judged)]
}

/// Sums of two columns of `softnet_stat`, which has a line of hexadecimal numbers for each CPU.
fn softnet(machine: &Machine, column: usize) -> Vec<Reading> {
    let text = machine.text("proc/net/softnet_stat");
    let sum = |column: usize| {
        let lines = text.iter().flat_map(|text| text.lines());
        let number = |line: &str| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok();
        lines.filter_map(number).sum::<u64>()
    };
    vec![Reading::judged(text.is_some().then(|| share(sum(column), sum(0))))]
}

/// Packets that found a CPU's backlog full.
pub fn backlog_full(machine: &Machine) -> Vec<Reading> {
    softnet(machine, 1)
}

/// Times that a CPU left packets for later because its budget was used up.
pub fn budget_used_up(machine: &Machine) -> Vec<Reading> {
    softnet(machine, 2)
}

fn lost_datagrams(machine: &Machine, name: &str, whole: &str) -> Vec<Reading> {
    let counter = |name: &str| machine.counter("proc/net/snmp", "Udp", name);
    vec![Reading::judged(counter(name).zip(counter(whole)).map(|(lost, whole)| share(lost, whole)))]
}

/// Datagrams that found a socket's receive buffer full.
pub fn receive_buffer_full(machine: &Machine) -> Vec<Reading> {
    lost_datagrams(machine, "RcvbufErrors", "InDatagrams")
}

/// Datagrams that found a socket's send buffer full.
pub fn send_buffer_full(machine: &Machine) -> Vec<Reading> {
    lost_datagrams(machine, "SndbufErrors", "OutDatagrams")
}

/// Connections that found a listener's backlog full, of all that came.
pub fn listen_overflows(machine: &Machine) -> Vec<Reading> {
    let lost = machine.counter("proc/net/netstat", "TcpExt", "ListenOverflows");
    let all = machine.counter("proc/net/snmp", "Tcp", "PassiveOpens");
    vec![Reading::judged(lost.zip(all).map(|(lost, all)| share(lost, all + lost)))]
}

/// Packets that a card had no room for.
pub fn card_overruns(machine: &Machine) -> Vec<Reading> {
    each_card(machine, |interface| {
        let counter = |name: &str| machine.number(&format!("sys/class/net/{interface}/statistics/{name}"));
        let lost = counter("rx_missed_errors").zip(counter("rx_fifo_errors")).map(|(missed, fifo)| missed + fifo);
        Some(Reading::judged(lost.zip(counter("rx_packets")).map(|(lost, whole)| share(lost, whole))))
    })
}

/// How many ports outgoing connections to one address may take.
pub fn local_ports(machine: &Machine) -> Vec<Reading> {
    let text = machine.text("proc/sys/net/ipv4/ip_local_port_range");
    let ports = text.and_then(|text| {
        let mut ends = text.split_whitespace().map(str::parse::<u64>);
        let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
        Some((format!("{first} to {last}"), (last + 1).saturating_sub(first)))
    });
    vec![Reading::judged(ports)]
}
