//! Flows meet the shard of the CPU that receives them, over loopback: a datagram is received on the CPU that sends it.

use crate::rig::{Client, KEY, PATIENCE, Rig, Wish, eventually, on_each_engine};
use std::net::UdpSocket;
use tuning::cpus::AllowedCpus;
use tuning::pin::pin_current_thread;
use tuning::steering::SteeringChoice;

/// Clients of each kind and CPU.
const CLIENTS: u64 = 24;

/// Two CPUs to serve on, or the news that there is one only.
fn two_cpus() -> Option<Vec<usize>> {
    let cpus = AllowedCpus::read().expect("the kernel tells").cpus;
    if cpus.len() < 2 {
        eprintln!("skipped: one CPU only");
        return None;
    }
    Some(cpus[..2].to_vec())
}

/// Asks by TCP and by UDP from this CPU, each client from a port of its own.
fn ask_from(rig: &Rig, cpu: usize) {
    let (tcp, udp) = (rig.plane.tcp_address(), rig.plane.udp_address());
    let asking = std::thread::spawn(move || {
        pin_current_thread(cpu).expect("an allowed CPU");
        let pad = "x".repeat(80);
        let datagram = format!("{{\"key\":\"{KEY}\",\"asset\":\"BTC\",\"id\":1,\"pad\":\"{pad}\"}}");
        for _ in 0..CLIENTS {
            let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            client.set_read_timeout(Some(PATIENCE)).expect("a time-out");
            client.send_to(datagram.as_bytes(), udp).expect("sent");
            assert!(client.recv(&mut [0; 1_024]).expect("a reply") > 0);
            assert_eq!(Client::to(tcp).price("BTC").status, 200);
        }
    });
    asking.join().expect("every client is answered");
}

/// Connections and datagrams that each shard has seen, once all of so many have been counted.
fn seen(rig: &Rig, clients: u64) -> Vec<(u64, u64)> {
    eventually("all are counted", || {
        let stats = rig.plane.stats();
        let seen: Vec<(u64, u64)> = stats.iter().map(|shard| (shard.accepted, shard.counters.datagrams)).collect();
        let sum = seen.iter().fold((0, 0), |sum, shard| (sum.0 + shard.0, sum.1 + shard.1));
        (sum == (clients, clients)).then_some(seen)
    })
}

#[test]
fn by_cpu_each_flow_meets_the_shard_of_its_cpu() {
    let Some(cpus) = two_cpus() else { return };
    on_each_engine(|engine| {
        // Also where the first shard is not on the first CPU.
        for cpus in [cpus.clone(), cpus.iter().rev().copied().collect()] {
            let wish = Wish { shards: 2, cpus: cpus.clone(), steering: SteeringChoice::Cpu, ..Wish::of(engine) };
            let rig = Rig::priced_as(wish);
            assert!(rig.plane.steering().by_cpu, "{}", rig.plane.steering());
            ask_from(&rig, cpus[0]);
            assert_eq!(seen(&rig, CLIENTS), [(CLIENTS, CLIENTS), (0, 0)]);
            ask_from(&rig, cpus[1]);
            assert_eq!(seen(&rig, 2 * CLIENTS), [(CLIENTS, CLIENTS); 2]);
        }
    });
}

#[test]
fn a_cpu_without_a_shard_is_spread_by_hash() {
    let Some(cpus) = two_cpus() else { return };
    on_each_engine(|engine| {
        // Shards are asked onto CPUs that this machine may not have: they run anywhere, and no flow comes in there.
        let cpus = vec![cpus[0], 8_000];
        let rig = Rig::priced_as(Wish { shards: 2, cpus, steering: SteeringChoice::Cpu, ..Wish::of(engine) });
        assert!(rig.plane.steering().by_cpu && !rig.plane.warnings().is_empty());
        let others = AllowedCpus::read().expect("the kernel tells").cpus;
        ask_from(&rig, others[1]);
        assert!(seen(&rig, CLIENTS).iter().all(|shard| *shard != (0, 0)), "both are met");
    });
}

#[test]
fn by_hash_one_cpu_s_flows_meet_all_shards() {
    let Some(cpus) = two_cpus() else { return };
    on_each_engine(|engine| {
        for steering in [SteeringChoice::Hash, SteeringChoice::Auto] {
            let rig = Rig::priced_as(Wish { shards: 2, cpus: cpus.clone(), steering, ..Wish::of(engine) });
            assert!(!rig.plane.steering().by_cpu);
            ask_from(&rig, cpus[0]);
            assert!(seen(&rig, CLIENTS).iter().all(|shard| shard.0 > 0 && shard.1 > 0), "both are met");
        }
    });
}
