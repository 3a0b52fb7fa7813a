//! The list itself. Order within a group: what differs most often, or costs most, first; what is left alone last.

use super::Wanted::{AtLeast, AtLeastFor, AtMost, AtMostInAMillion, LeftAlone, OneOf};
use super::readings;
use super::{Group, Read, SYSCTL, Setting};
use crate::machine::Machine;
use crate::ring_probe::FILE_TABLE_ENTRIES;
use crate::sockets::{DATAGRAM_RECEIVE_BYTES, DATAGRAM_SEND_BYTES, LISTEN_BACKLOG};

/// Descriptors beside those of connections: feeds, the control plane's sockets, files.
const FILES_BESIDE: u64 = 1_024;

/// Locked memory that one shard's ring counts for, bytes: 280 to 290 KiB measured, and a little.
const RING_LOCKED_BYTES: u64 = 320 * 1_024;

/// Smallest pages of all architectures we run on; where they are larger fewer are needed.
const PAGE_BYTES: u64 = 4_096;

/// Longest datagram we send (1,200 bytes) with the headers of UDP (8) and IPv4 (20). IPv6 itself demands 1,280.
const DATAGRAM_PACKET_BYTES: u64 = 1_200 + 8 + 20;

fn files(machine: &Machine) -> u64 {
    machine.shards() * u64::from(FILE_TABLE_ENTRIES) + FILES_BESIDE
}

/// Every shard's ring, and the one the probe has just closed, which still counts for a moment.
fn locked_bytes(machine: &Machine) -> u64 {
    (machine.shards() + 1) * RING_LOCKED_BYTES
}

/// One page for each connection of full slabs: what one with a request or a reply on its way takes at least.
fn connection_pages(machine: &Machine) -> u64 {
    machine.shards() * u64::from(FILE_TABLE_ENTRIES)
}

/// The kernel counts twice what a socket asks for.
fn datagram_pages(machine: &Machine) -> u64 {
    machine.shards() * 2 * (DATAGRAM_RECEIVE_BYTES + DATAGRAM_SEND_BYTES) as u64 / PAGE_BYTES
}

/// Everything that is looked at.
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "kernel.io_uring_disabled",
        group: Group::Engine,
        read: Read::SysctlIfAny,
        wanted: AtMost(0),
        why: "2 (or 1 without CAP_SYS_ADMIN) denies io_uring: the node then serves on epoll",
        known: "kernel documentation; the probe",
        remedy: SYSCTL,
    },
    Setting {
        name: "nofile",
        group: Group::Engine,
        read: Read::By(readings::nofile),
        wanted: AtLeastFor(files, "at least 16,448 for each shard and 1,024"),
        why: "the ring's file table must fit under it; on epoll, a descriptor for each connection. Fewer means fewer connections",
        known: "tried: the kernel refuses less than the table",
        remedy: "LimitNOFILE={wanted} (systemd), --ulimit nofile={wanted} (Docker), ulimits in ECS, or tuning/limits.conf",
    },
    Setting {
        name: "memlock",
        group: Group::Engine,
        read: Read::By(readings::memlock),
        wanted: AtLeastFor(locked_bytes, "at least 320 KiB for each shard and 320 KiB"),
        why: "an unprivileged user's rings count against it; too little and the io_uring engine does not start",
        known: "measured on Linux 6.18: 280 to 290 KiB a shard",
        remedy: "LimitMEMLOCK={wanted} (systemd), --ulimit memlock={wanted} (Docker), ulimits in ECS, or tuning/limits.conf",
    },
    Setting {
        name: "net.netfilter.nf_conntrack_count",
        group: Group::Connections,
        read: Read::By(readings::tracked),
        wanted: AtMost(0),
        why: "a connection tracker on the path looks at every packet, and refuses new flows when its table is full",
        known: "measured with nftables: CPU per request +10 % to +25 % for datagrams, 0 to +28 % for connections",
        remedy: "take the service's ports out of tracking: nft add rule … notrack (in a prerouting and an output chain of \
                 priority raw), or unload the rules that need it",
    },
    Setting {
        name: "net.core.somaxconn",
        group: Group::Connections,
        read: Read::Sysctl(0),
        wanted: AtLeast(LISTEN_BACKLOG as u64),
        why: "cuts the listeners' backlog: connections accepted by the kernel and not yet by a shard",
        known: "arithmetic: src/sockets.rs",
        remedy: SYSCTL,
    },
    Setting {
        name: "net.ipv4.tcp_max_syn_backlog",
        group: Group::Connections,
        read: Read::Sysctl(0),
        wanted: AtLeast(2 * LISTEN_BACKLOG as u64),
        why: "half-open connections of each listener: a crowd that comes back behind slow links",
        known: "unmeasured",
        remedy: SYSCTL,
    },
    Setting {
        name: "net.ipv4.tcp_syncookies",
        group: Group::Connections,
        read: Read::Sysctl(0),
        wanted: AtLeast(1),
        why: "without them a flood of half-open connections keeps everybody out",
        known: "kernel documentation",
        remedy: SYSCTL,
    },
    Setting {
        name: "net.ipv4.tcp_slow_start_after_idle",
        group: Group::Connections,
        read: Read::Sysctl(0),
        wanted: AtMost(0),
        why: "a kept connection that was quiet begins again with 10 packets (14 KB): a list of prices or a deep pipeline \
              then waits for one more round trip",
        known: "arithmetic; unmeasured, loopback has no distance. One price is one packet: no difference",
        remedy: SYSCTL,
    },
    Setting {
        name: "net.ipv4.tcp_mem",
        group: Group::Connections,
        read: Read::Sysctl(1),
        wanted: AtLeastFor(connection_pages, "the second at least 16,448 pages for each shard"),
        why: "above it the kernel shrinks every connection's buffers: room for a page of each connection of full shards",
        known: "arithmetic",
        remedy: SYSCTL,
    },
    Setting {
        name: "net.ipv4.tcp_congestion_control",
        group: Group::Connections,
        read: Read::Sysctl(0),
        wanted: LeftAlone,
        why: "bbr, which paces with a timer for each connection, against cubic: no difference on loopback",
        known: "measured: CPU per request 0.90 to 1.06, within the noise",
        remedy: "",
    },
    Setting {
        name: "net.ipv4.tcp_rmem",
        group: Group::Connections,
        read: Read::Sysctl(1),
        wanted: LeftAlone,
        why: "a receive of ours takes 4 KiB at a time, and the usual 128 KiB hold 500 requests in wait",
        known: "arithmetic",
        remedy: "",
    },
    Setting {
        name: "net.ipv4.tcp_wmem",
        group: Group::Connections,
        read: Read::Sysctl(1),
        wanted: LeftAlone,
        why: "grows by itself with what a connection is sent; a larger first size changes nothing",
        known: "measured at 64 KiB: within the noise",
        remedy: "",
    },
    Setting {
        name: "net.ipv4.tcp_notsent_lowat",
        group: Group::Connections,
        read: Read::Sysctl(0),
        wanted: LeftAlone,
        why: "bounds what waits for a slow reader, at the price of more wake-ups; ours waits for one send at a time",
        known: "measured at 16 KiB: within the noise",
        remedy: "",
    },
    Setting {
        name: "net.core.rmem_max",
        group: Group::Datagrams,
        read: Read::Sysctl(0),
        wanted: AtLeast(DATAGRAM_RECEIVE_BYTES as u64),
        why: "cuts the datagram sockets' receive buffer: 10 ms of small datagrams at 500,000 a second; the usual 208 KiB \
              hold 270",
        known: "arithmetic: src/sockets.rs",
        remedy: SYSCTL,
    },
    Setting {
        name: "net.core.wmem_max",
        group: Group::Datagrams,
        read: Read::Sysctl(0),
        wanted: AtLeast(DATAGRAM_SEND_BYTES as u64),
        why: "cuts the datagram sockets' send buffer: a burst of replies while the link is busy",
        known: "arithmetic: src/sockets.rs",
        remedy: SYSCTL,
    },
    Setting {
        name: "net.ipv4.udp_mem",
        group: Group::Datagrams,
        read: Read::Sysctl(2),
        wanted: AtLeastFor(datagram_pages, "the third at least 2,560 pages for each shard"),
        why: "above it datagrams are dropped, whatever room a socket has left: both buffers of each shard, full",
        known: "arithmetic",
        remedy: SYSCTL,
    },
    Setting {
        name: "net.ipv4.udp_early_demux",
        group: Group::Datagrams,
        read: Read::Sysctl(0),
        wanted: LeftAlone,
        why: "a look-up of a connected socket, of which the service has none, before each datagram: no difference",
        known: "measured off: CPU per request 0.92 to 1.11, within the noise",
        remedy: "",
    },
    Setting {
        name: "mtu",
        group: Group::Cards,
        read: Read::By(readings::mtu),
        wanted: AtLeast(DATAGRAM_PACKET_BYTES),
        why: "the longest datagram is 1,200 bytes and is sent unfragmented",
        known: "arithmetic",
        remedy: "ip link set dev {of} mtu 1500",
    },
    Setting {
        name: "receive queues",
        group: Group::Cards,
        read: Read::By(readings::queues),
        wanted: AtLeastFor(Machine::shards, "one for each shard"),
        why: "a packet is handled on the core of the shard that answers it; with fewer queues some cores do it for others",
        known: "unmeasured: loopback has no queues",
        remedy: "tuning/nic-queues.sh {of} CPU,… ; where the card has no more, a machine whose card has",
    },
    Setting {
        name: "serving CPUs without an interrupt",
        group: Group::Cards,
        read: Read::By(readings::interrupts),
        wanted: AtMost(0),
        why: "the same: each queue's interrupt on the core of a shard of its own",
        known: "unmeasured: loopback has no interrupts",
        remedy: "tuning/nic-queues.sh {of} CPU,… --apply",
    },
    Setting {
        name: "queues moved by software (RPS)",
        group: Group::Cards,
        read: Read::By(readings::moved_by_software),
        wanted: AtMost(0),
        why: "the queue is on the right core already: to move its packets is work, and a wait for another core",
        known: "unmeasured: loopback has no queues",
        remedy: "echo 0 | tee /sys/class/net/{of}/queues/rx-*/rps_cpus",
    },
    Setting {
        name: "net.core.rps_sock_flow_entries",
        group: Group::Cards,
        read: Read::Sysctl(0),
        wanted: AtMost(0),
        why: "the same, by flow (RFS): costs an entry's write for each receive and a look-up for each packet",
        known: "unmeasured",
        remedy: SYSCTL,
    },
    Setting {
        name: "GRO",
        group: Group::Cards,
        read: Read::By(readings::receive_grouping),
        wanted: OneOf(&["on"]),
        why: "packets of one flow go through the stack as one: pipelined requests, and trains of datagrams (UDP_GRO)",
        known: "kernel documentation; unmeasured: loopback sends trains whole",
        remedy: "ethtool -K {of} gro on",
    },
    Setting {
        name: "GSO",
        group: Group::Cards,
        read: Read::By(readings::send_grouping),
        wanted: OneOf(&["on"]),
        why: "long replies and trains of datagrams (UDP_SEGMENT) go through the stack as one",
        known: "kernel documentation; unmeasured on a card",
        remedy: "ethtool -K {of} gso on",
    },
    Setting {
        name: "net.core.busy_poll",
        group: Group::Cards,
        read: Read::Sysctl(0),
        wanted: AtMost(0),
        why: "makes epoll spin before it sleeps: a core for microseconds, taken from whatever else runs there",
        known: "kernel documentation; unmeasured: loopback has no queue to poll",
        remedy: SYSCTL,
    },
    Setting {
        name: "net.core.busy_read",
        group: Group::Cards,
        read: Read::Sysctl(0),
        wanted: AtMost(0),
        why: "the same for blocking reads",
        known: "kernel documentation; unmeasured",
        remedy: SYSCTL,
    },
    Setting {
        name: "net.core.netdev_max_backlog",
        group: Group::Cards,
        read: Read::Sysctl(0),
        wanted: LeftAlone,
        why: "only packets that software moves (RPS, veth, loopback) wait there; see \"packets dropped before a socket\"",
        known: "kernel documentation",
        remedy: "",
    },
    Setting {
        name: "net.core.netdev_budget",
        group: Group::Cards,
        read: Read::Sysctl(0),
        wanted: LeftAlone,
        why: "see \"budget of a receive turn used up\": without that there is nothing to raise",
        known: "kernel documentation",
        remedy: "",
    },
    Setting {
        name: "net.core.default_qdisc",
        group: Group::Cards,
        read: Read::Sysctl(0),
        wanted: LeftAlone,
        why: "orders packets that wait for the link; the replies of a node are a small part of a link",
        known: "unmeasured: loopback has no queue",
        remedy: "",
    },
    Setting {
        name: "clock read",
        group: Group::Cpus,
        read: Read::By(readings::clock_read),
        wanted: AtMost(100),
        why: "every turn of a shard reads both clocks; a clock source that needs a system call makes that a tenth of a request",
        known: "measured here, now",
        remedy: "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource (if it is among \
                 available_clocksource), or another kind of machine",
    },
    Setting {
        name: "CPU governor",
        group: Group::Cpus,
        read: Read::By(readings::governor),
        wanted: OneOf(&["performance"]),
        why: "others lower the clock of a core that is mostly idle, and the next answer is made at that speed",
        known: "unmeasured: a guest has none",
        remedy: "cpupower frequency-set -g performance",
    },
    Setting {
        name: "slowest idle state",
        group: Group::Cpus,
        read: Read::By(readings::idle_exit),
        wanted: AtMost(50),
        why: "µs that a parked shard's core needs before it can answer",
        known: "kernel documentation; unmeasured: a guest has none",
        remedy: "cpupower idle-set -D 50, or processor.max_cstate=1 on the kernel's command line",
    },
    Setting {
        name: "kernel.numa_balancing",
        group: Group::Cpus,
        read: Read::By(readings::numa_balancing),
        wanted: AtMost(0),
        why: "takes pages away to see who asks for them; shards are pinned before they allocate, so nothing needs moving",
        known: "unmeasured: one node only",
        remedy: SYSCTL,
    },
    Setting {
        name: "transparent_hugepage/defrag",
        group: Group::Cpus,
        read: Read::By(readings::huge_page_defrag),
        wanted: OneOf(&["madvise", "defer+madvise", "defer", "never"]),
        why: "with always, whoever touches new memory waits until the kernel has put a huge page together",
        known: "kernel documentation",
        remedy: "echo madvise > /sys/kernel/mm/transparent_hugepage/defrag",
    },
    Setting {
        name: "vm.swappiness",
        group: Group::Cpus,
        read: Read::By(readings::swappiness),
        wanted: AtMost(10),
        why: "a page of a shard that was swapped out costs milliseconds; without swap space it does not matter",
        known: "unmeasured",
        remedy: SYSCTL,
    },
    Setting {
        name: "transparent_hugepage/enabled",
        group: Group::Cpus,
        read: Read::By(readings::huge_pages),
        wanted: LeftAlone,
        why: "a shard's tables are some MiB; the large one is the key directory of a million keys",
        known: "unmeasured",
        remedy: "",
    },
    Setting {
        name: "cores shared by serving CPUs",
        group: Group::Cpus,
        read: Read::By(readings::siblings),
        wanted: LeftAlone,
        why: "two shards on one core serve more than one shard and less than two cores; TB_CONTROL_CPUS gives the second \
              half to everything else",
        known: "unmeasured",
        remedy: "",
    },
    Setting {
        name: "kernel.sched_autogroup_enabled",
        group: Group::Cpus,
        read: Read::SysctlIfAny,
        wanted: LeftAlone,
        why: "shares CPU between sessions; under systemd and in containers control groups do that",
        known: "kernel documentation",
        remedy: "",
    },
    Setting {
        name: "periods stopped by the CPU quota",
        group: Group::Lost,
        read: Read::By(readings::throttled),
        wanted: AtMost(0),
        why: "all threads stand still for the rest of a period (100 ms): the worst tail there is",
        known: "kernel documentation",
        remedy: "raise the container's CPU limit to whole CPUs above TB_SHARDS, or give it a cpuset and no quota",
    },
    Setting {
        name: "time stolen by the hypervisor",
        group: Group::Lost,
        read: Read::By(readings::stolen),
        wanted: AtMostInAMillion(10_000),
        why: "a guest's CPU that is given to other guests answers nobody",
        known: "measured with the tails: src/noise.rs",
        remedy: "a machine whose CPUs are its own",
    },
    Setting {
        name: "datagrams dropped, receive buffer full",
        group: Group::Lost,
        read: Read::By(readings::receive_buffer_full),
        wanted: AtMostInAMillion(10),
        why: "requests that no shard took in time",
        known: "counted by the kernel",
        remedy: "more shards, or fewer requests; and net.core.rmem_max above",
    },
    Setting {
        name: "datagrams dropped, send buffer full",
        group: Group::Lost,
        read: Read::By(readings::send_buffer_full),
        wanted: AtMostInAMillion(10),
        why: "replies that the link did not take in time",
        known: "counted by the kernel",
        remedy: "a faster link; and net.core.wmem_max above",
    },
    Setting {
        name: "connections refused, backlog full",
        group: Group::Lost,
        read: Read::By(readings::listen_overflows),
        wanted: AtMostInAMillion(10),
        why: "clients that came faster than they were accepted, and try again after a second",
        known: "counted by the kernel",
        remedy: "net.core.somaxconn above; ss -lnt shows whose backlog it is",
    },
    Setting {
        name: "packets dropped before a socket",
        group: Group::Lost,
        read: Read::By(readings::backlog_full),
        wanted: AtMostInAMillion(10),
        why: "a CPU's backlog was full: requests and acknowledgements that never reached a socket",
        known: "counted by the kernel",
        remedy: "sysctl -w net.core.netdev_max_backlog=4096",
    },
    Setting {
        name: "budget of a receive turn used up",
        group: Group::Lost,
        read: Read::By(readings::budget_used_up),
        wanted: AtMostInAMillion(1_000),
        why: "a CPU had more packets than one turn of the kernel may take (netdev_budget, 300): the rest waited",
        known: "counted by the kernel",
        remedy: "sysctl -w net.core.netdev_budget=600",
    },
    Setting {
        name: "packets that the card had no room for",
        group: Group::Lost,
        read: Read::By(readings::card_overruns),
        wanted: AtMostInAMillion(10),
        why: "its receive ring was full: requests lost before the kernel saw them",
        known: "counted by the driver",
        remedy: "ethtool -G {of} rx 4096 (ethtool -g {of} shows the most it can have)",
    },
    Setting {
        name: "net.ipv4.ip_local_port_range",
        group: Group::Generator,
        read: Read::By(readings::local_ports),
        wanted: AtLeast(20_000),
        why: "ports for 10,000 connections to one address, and for as many just closed",
        known: "arithmetic",
        remedy: "sysctl -w net.ipv4.ip_local_port_range='10240 60999'",
    },
];
