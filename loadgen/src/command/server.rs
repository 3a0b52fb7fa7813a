//! CPU time of the servers where they are processes of this machine: named by the user or the ready file, or found as
//! whoever listens at a target's loopback address.

use anyhow::Context;
use loadgen::job::Target;
use loadgen::report::run::ServerCpu;
use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};
use tuning::clock;

/// State of a listening TCP socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// The servers' processes.
#[derive(Debug, Default)]
pub struct Servers {
    pids: Vec<u32>,
    /// They are the whole of what is driven: each target has its process among them. Where one has not, what the others
    /// used says nothing about a request, for all targets' requests are counted together.
    are_all: bool,
}

impl Servers {
    /// Those with these ids. They are all when there is one for each target, or when they hold every target's sockets.
    ///
    /// # Errors
    /// When one is not there.
    pub fn given(pids: &[u32], targets: &[Target]) -> anyhow::Result<Self> {
        for &pid in pids {
            clock::process_cpu_ns_of(pid)
                .with_context(|| format!("no process {pid} on this machine: check --server-pid or the ready file"))?;
        }
        let mut pids = pids.to_vec();
        pids.sort_unstable();
        pids.dedup();
        let are_all = pids.len() >= targets.len() || {
            let sockets = sockets_of(targets);
            let mut owners = owners(&sockets);
            owners.retain(|(pid, _)| pids.contains(pid));
            hold_all(&owners, &sockets)
        };
        Ok(Self { pids, are_all })
    }

    /// Whoever listens at the targets' loopback addresses, as far as this user may see it.
    pub fn listening(targets: &[Target]) -> Self {
        let sockets = sockets_of(targets);
        let owners = owners(&sockets);
        Self { are_all: hold_all(&owners, &sockets), pids: owners.into_iter().map(|(pid, _)| pid).collect() }
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    /// CPU time that all of them have used; `None` when there is none, or one is gone.
    pub fn cpu(&self) -> Option<Duration> {
        let ns = self.pids.iter().map(|pid| clock::process_cpu_ns_of(*pid).ok()).sum::<Option<u64>>()?;
        (!self.pids.is_empty()).then(|| Duration::from_nanos(ns))
    }
}

/// Inodes of the sockets behind each driven address; none for one that is not a loopback one.
fn sockets_of(targets: &[Target]) -> Vec<Vec<u64>> {
    let of = |target: &Target| {
        let tcp = target.tcp.map(|address| inodes_at(address, ["tcp", "tcp6"], Some(LISTENING)));
        let udp = target.udp.map(|address| inodes_at(address, ["udp", "udp6"], None));
        [tcp, udp]
    };
    targets.iter().flat_map(of).flatten().collect()
}

/// Whether every address has sockets, and these processes hold each of them.
fn hold_all(owners: &[(u32, HashSet<u64>)], sockets: &[Vec<u64>]) -> bool {
    let is_held = |inode: &u64| owners.iter().any(|(_, held)| held.contains(inode));
    sockets.iter().all(|inodes| !inodes.is_empty() && inodes.iter().all(is_held))
}

/// Inodes of the sockets that take what is sent to `address`, a loopback one.
fn inodes_at(address: SocketAddr, tables: [&str; 2], state: Option<&str>) -> Vec<u64> {
    if !address.ip().is_loopback() {
        return Vec::new();
    }
    let text = |table| fs::read_to_string(Path::new("/proc/net").join(table)).unwrap_or_default();
    tables.into_iter().map(text).flat_map(|text| inodes_in(&text, address, state)).collect()
}

/// Reads a table of `/proc/net`: the second field is the local address, the fourth the state, the tenth the inode.
fn inodes_in(table: &str, address: SocketAddr, state: Option<&str>) -> Vec<u64> {
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let ip = read_ip(ip)?;
        let fits = u16::from_str_radix(port, 16) == Ok(address.port())
            && (ip == address.ip() || ip.is_unspecified())
            && state.is_none_or(|state| fields.get(3) == Some(&state));
        fits.then(|| fields.get(9)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// An address as the kernel prints it: words of 32 bits in hex, each in the machine's own byte order.
fn read_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let mut bytes = [0; 16];
    for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
        part.copy_from_slice(&word(index * 8)?);
    }
    Some(Ipv6Addr::from(bytes).into())
}

/// Processes that hold some of these sockets, and which; others' processes are not seen without privilege.
fn owners(sockets: &[Vec<u64>]) -> Vec<(u32, HashSet<u64>)> {
    let inodes: HashSet<u64> = sockets.iter().flatten().copied().collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let held = |pid: u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let inode = |link: &Path| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
        let held = descriptors.filter_map(|entry| inode(&fs::read_link(entry.path()).ok()?));
        (pid, held.filter(|inode| inodes.contains(inode)).collect::<HashSet<u64>>())
    };
    pids.filter(|pid| *pid != std::process::id()).map(held).filter(|(_, held)| !held.is_empty()).collect()
}

/// Measures the servers from the first request of a level to its last: connecting before, and waiting for what is lost
/// after, are left out.
#[derive(Debug)]
pub struct Meter<'a> {
    servers: &'a Servers,
    from: Option<Sample>,
    to: Option<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    cpu: Duration,
    sent: u64,
    ended: u64,
}

impl<'a> Meter<'a> {
    /// One for a level.
    pub fn new(servers: &'a Servers) -> Self {
        Self { servers, from: None, to: None }
    }

    /// Looks at the servers now, when so many requests were sent and so many have ended, however they ended.
    pub fn look(&mut self, sent: u64, ended: u64) {
        let Some(cpu) = self.servers.cpu() else { return };
        let now = Sample { at: Instant::now(), cpu, sent, ended };
        match self.to {
            // Nothing sent yet: the level begins here or later.
            _ if sent == 0 => (self.from, self.to) = (Some(now), Some(now)),
            Some(before) if before.sent == sent => {}
            _ => {
                self.from.get_or_insert(now);
                self.to = Some(now);
            }
        }
    }

    /// What was seen; `None` when there is no server here, or it was not seen twice.
    pub fn read(&self) -> Option<ServerCpu> {
        let (from, to) = (self.from?, self.to?);
        let over = to.at - from.at;
        let cpu = to.cpu.saturating_sub(from.cpu);
        (!over.is_zero()).then(|| {
            let requests = self.servers.are_all.then(|| to.ended.saturating_sub(from.ended));
            ServerCpu { cpu, over, requests }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
           0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0\n\
           1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0\n\
           2: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0\n\
           3: 0200007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 444 1 0 100 0\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_are_found_in_the_kernel_s_table() {
        let check = |address: &str, state, expected: &[u64]| {
            assert_eq!(inodes_in(TABLE, address.parse().expect("an address"), state), expected, "{address}");
        };
        check("127.0.0.1:8080", Some(LISTENING), &[111, 222]);
        check("127.0.0.1:8080", None, &[111, 222, 333]);
        check("127.0.0.1:8081", None, &[]);
        check("[::1]:8080", Some(LISTENING), &[222]);
    }

    #[test]
    fn own_listeners_are_nobody_else_s() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        assert_eq!(inodes_at(address, ["tcp", "tcp6"], Some(LISTENING)).len(), 1);
        let target = Target { name: "own".to_owned(), tcp: Some(address), udp: None };
        assert!(Servers::listening(&[target]).is_empty());
    }

    #[test]
    fn a_process_that_is_not_there_is_told() {
        assert!(Servers::given(&[u32::MAX], &[]).is_err());
        let own = Servers::given(&[std::process::id()], &[]).expect("this process");
        assert!(own.cpu().is_some_and(|cpu| !cpu.is_zero()));
        assert_eq!(Servers::default().cpu(), None);
    }

    #[test]
    fn a_meter_runs_from_the_first_request_to_the_last() {
        let own = Servers::given(&[std::process::id()], &[]).expect("this process");
        let mut meter = Meter::new(&own);
        assert_eq!(meter.read(), None);
        for (sent, ended) in [(0, 0), (0, 0), (10, 8), (20, 18), (20, 20)] {
            meter.look(sent, ended);
        }
        assert_eq!(meter.read().map(|seen| seen.requests), Some(Some(18)));
    }

    #[test]
    fn a_process_for_some_targets_says_nothing_about_a_request() {
        let target = |address: &str| Target { name: address.to_owned(), tcp: address.parse().ok(), udp: None };
        for (targets, expected) in [(1, Some(5)), (2, None)] {
            let targets = vec![target("192.0.2.1:8080"); targets];
            let own = Servers::given(&[std::process::id(); 2], &targets).expect("this process");
            let mut meter = Meter::new(&own);
            meter.look(0, 0);
            meter.look(5, 5);
            assert_eq!(meter.read().map(|seen| seen.requests), Some(expected), "{} targets", targets.len());
        }
    }

    #[test]
    fn every_socket_of_every_address_must_be_held() {
        let owners = [(7, HashSet::from([1, 2])), (8, HashSet::from([3]))];
        let check = |sockets: &[&[u64]], expected: bool| {
            let sockets: Vec<Vec<u64>> = sockets.iter().map(|inodes| inodes.to_vec()).collect();
            assert_eq!(hold_all(&owners, &sockets), expected, "{sockets:?}");
        };
        check(&[&[1, 2], &[3]], true);
        check(&[&[1, 2], &[4]], false);
        check(&[&[1, 4]], false);
        check(&[&[1], &[]], false);
    }
}
