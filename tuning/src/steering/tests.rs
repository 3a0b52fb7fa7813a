//! What is decided on which machine, what the program computes, and that the kernel takes it.

use super::*;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn plan(cpus: &[usize]) -> CorePlan {
    CorePlan { shards: cpus.iter().copied().map(Some).collect(), control: Vec::new() }
}

/// The root of a machine of these files.
fn files_of(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary directory");
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    root
}

fn machine(root: &tempfile::TempDir) -> Machine {
    Machine { root: root.path().to_owned(), ..Machine::default() }
}

const CARD: (&str, &str) = ("sys/class/net/eth0/device/vendor", "0x1d0f\n");
const UP: (&str, &str) = ("sys/class/net/eth0/flags", "0x1003\n");
const LOOPBACK: (&str, &str) = ("sys/class/net/lo/queues/rx-0/rps_cpus", "00\n");
const QUEUE_0: (&str, &str) = ("sys/class/net/eth0/queues/rx-0/rps_cpus", "00\n");
const QUEUE_1: (&str, &str) = ("sys/class/net/eth0/queues/rx-1/rps_cpus", "00\n");

#[track_caller]
fn check(files: &[(&str, &str)], cpus: &[usize], by_cpu: bool, says: &str) {
    let root = files_of(&[files, &[UP]].concat());
    let decided = Steering::decide_on(&machine(&root), SteeringChoice::Auto, &plan(cpus), ANY);
    assert_eq!(decided.by_cpu, by_cpu, "{decided}");
    assert!(decided.reason.contains(says), "{decided}");
}

#[test]
fn by_cpu_where_every_card_receives_on_every_serving_cpu() {
    check(&[CARD, QUEUE_0, QUEUE_1, LOOPBACK], &[0, 1], true, "eth0 receives");
    check(&[CARD, QUEUE_0, LOOPBACK], &[0, 1], false, "1 receive queues for 2");
    check(&[CARD, QUEUE_0, QUEUE_1], &[0, 1, 2], false, "2 receive queues for 3");
    check(&[LOOPBACK], &[0, 1], false, "no network card");
    let moved = |mask| ("sys/class/net/eth0/queues/rx-0/rps_cpus", mask);
    check(&[CARD, moved("3\n")], &[0, 1], true, "eth0");
    check(&[CARD, moved("00000001,00000001\n")], &[0, 32], true, "eth0");
    check(&[CARD, moved("2\n")], &[0, 1], false, "nothing on CPU 0");
    let second = [("sys/class/net/eth1/device/vendor", ""), ("sys/class/net/eth1/queues/rx-0/rps_cpus", "0")];
    let flags = |flags| ("sys/class/net/eth1/flags", flags);
    check(&[CARD, QUEUE_0, QUEUE_1, second[0], second[1], flags("0x1003")], &[0, 1], false, "eth1 has 1");
    check(&[CARD, QUEUE_0, QUEUE_1, second[0], second[1], flags("0x1002")], &[0, 1], true, "eth0 receives");
    let bridge = ("sys/class/net/docker0/queues/rx-0/rps_cpus", "0");
    check(&[CARD, QUEUE_0, QUEUE_1, bridge], &[0, 1], true, "eth0 receives");
}

#[test]
fn interrupts_that_go_elsewhere_are_a_reason_against_it() {
    let irqs = [("sys/class/net/eth0/device/msi_irqs/40", ""), ("sys/class/net/eth0/device/msi_irqs/41", "")];
    let list = |list| ("proc/irq/41/effective_affinity_list", list);
    let first = ("proc/irq/40/smp_affinity_list", "0\n");
    check(&[CARD, QUEUE_0, QUEUE_1, irqs[0], irqs[1], first, list("1\n")], &[0, 1], true, "eth0 receives");
    check(&[CARD, QUEUE_0, QUEUE_1, irqs[0], irqs[1], first, list("0\n")], &[0, 1], false, "nothing on CPU 1");
    check(&[CARD, QUEUE_0, QUEUE_1, irqs[0], irqs[1], first, list("2-3,1\n")], &[0, 3], true, "eth0 receives");
}

#[test]
fn what_is_told_is_done_where_it_can_be() {
    let root = files_of(&[CARD, QUEUE_0, QUEUE_1, UP]);
    let decide = |choice, plan: &CorePlan, bind| Steering::decide_on(&machine(&root), choice, plan, bind);
    assert!(!decide(SteeringChoice::Hash, &plan(&[0, 1]), ANY).by_cpu);
    assert!(decide(SteeringChoice::Cpu, &plan(&[0, 1]), Ipv4Addr::LOCALHOST.into()).by_cpu);
    assert!(!decide(SteeringChoice::Auto, &plan(&[0, 1]), Ipv6Addr::LOCALHOST.into()).by_cpu);
    let floating = CorePlan { shards: vec![None, None], control: Vec::new() };
    for plan in [plan(&[0]), floating] {
        let decided = decide(SteeringChoice::Cpu, &plan, ANY);
        assert!(!decided.by_cpu && decided.reason.contains("pinned"), "{decided}");
    }
}

/// What the program answers on this CPU, by the rules of the machine that runs it.
fn answer(filters: &[libc::sock_filter], cpu: u32) -> u32 {
    let (mut at, mut value) = (0, 0_u32);
    loop {
        let filter = &filters[at];
        at += 1;
        match u32::from(filter.code) {
            code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => value = cpu,
            code if code == libc::BPF_ALU | libc::BPF_SUB | libc::BPF_K => value = value.wrapping_sub(filter.k),
            code if code == libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K => value = value.wrapping_add(filter.k),
            code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => {
                at += usize::from(if value >= filter.k { filter.jt } else { filter.jf });
            }
            code if code == libc::BPF_RET | RET_A => return value,
            code if code == libc::BPF_RET | libc::BPF_K => return filter.k,
            code => panic!("instruction {code:#x}"),
        }
    }
}

#[test]
fn the_program_knows_each_cpu_s_socket_and_no_other() {
    for cpus in [&[0, 1][..], &[2, 3, 4], &[1, 3, 5], &[0, 2, 3, 7], &[5, 4, 3]] {
        let filters = program(cpus);
        for cpu in 0..10 {
            let expected = cpus.iter().position(|own| *own == cpu as usize);
            let expected = expected.map_or(u32::MAX, |index| u32::try_from(index).expect("few"));
            // Any number that no socket has will do.
            let seen = answer(&filters, cpu);
            let seen = if seen as usize >= cpus.len() { u32::MAX } else { seen };
            assert_eq!(seen, expected, "CPU {cpu} of {cpus:?}");
        }
    }
    let scattered: Vec<usize> = (0..63).map(|index| index * 2).collect();
    assert_eq!(program(&scattered).len(), 316);
}

#[test]
fn the_kernel_takes_it_for_a_shared_port_and_refuses_it_for_another() {
    let any = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let shared = crate::sockets::udp_socket(any).expect("a socket");
    steer_by_cpu(shared.as_fd(), &[0, 1]).expect("Linux 4.6");
    let alone = UdpSocket::bind(any).expect("a socket");
    let refused = steer_by_cpu(alone.as_fd(), &[0, 1]).expect_err("it shares with nobody");
    let decided = Steering { by_cpu: true, reason: String::new() }.refused(&refused);
    assert!(!decided.by_cpu && decided.reason.contains("refused"), "{decided}");
}
