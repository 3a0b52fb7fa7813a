//! What happens at the bounds: full slab, silent and slow clients, a control plane that is behind, short buffers.

use crate::rig::{Client, PATIENCE, Rig, Wish, eventually, get, on_each_engine, request};
use dataplane_core::command::ShardParameters;
use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

#[test]
fn a_full_slab_closes_newcomers_and_recovers() {
    on_each_engine(|engine| {
        let rig = Rig::priced_as(Wish { connections_max: 10, ..Wish::of(engine) });
        let mut clients: Vec<Client> = (0..10).map(|_| rig.connect()).collect();
        assert!(clients.iter_mut().all(|client| client.price("BTC").status == 200));
        for _ in 0..5 {
            assert!(rig.connect().is_closed());
        }
        assert!(clients.iter_mut().all(|client| client.price("BTC").status == 200));
        rig.await_stats("counted", |stats| stats.closed_by_us == 5 && stats.connections == 10);
        clients.truncate(3);
        rig.await_stats("slots are free", |stats| stats.connections == 3);
        assert_eq!(rig.connect().price("BTC").status, 200);
    });
}

#[test]
fn half_a_head_is_closed_in_time_and_others_are_not() {
    on_each_engine(|engine| {
        let parameters = ShardParameters { head_timeout_ms: 300, ..ShardParameters::default() };
        let rig = Rig::priced_as(Wish { parameters, ..Wish::of(engine) });
        let mut good = rig.connect();
        assert_eq!(good.price("BTC").status, 200);
        let mut slow: Vec<Client> = (0..100).map(|_| rig.connect()).collect();
        let began = Instant::now();
        slow.iter().for_each(|client| client.send("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\n"));
        assert!(slow.iter_mut().all(Client::is_closed));
        assert!(began.elapsed() < PATIENCE);
        rig.await_stats("counted", |stats| stats.closed_by_us == 100 && stats.connections == 1);
        assert_eq!(good.price("BTC").status, 200);
    });
}

#[test]
fn an_idle_connection_is_closed_after_its_keep_alive() {
    on_each_engine(|engine| {
        let parameters = ShardParameters { keep_alive_ms: 300, ..ShardParameters::default() };
        let rig = Rig::priced_as(Wish { parameters, ..Wish::of(engine) });
        let mut client = rig.connect();
        assert_eq!(client.price("BTC").status, 200);
        assert!(client.is_closed());
    });
}

#[test]
fn a_client_that_never_reads_is_closed_and_holds_up_nobody() {
    on_each_engine(|engine| {
        let parameters = ShardParameters { write_stall_ms: 300, ..ShardParameters::default() };
        let rig = Rig::priced_as(Wish { parameters, ..Wish::of(engine) });
        let stalled = rig.connect();
        let mut good = rig.connect();
        let heap = request("BTC", "").repeat(1_000);
        stalled.socket().set_nonblocking(true).expect("non-blocking");
        eventually("it is closed for its stalled reply", || {
            while stalled.socket().write(heap.as_bytes()).is_ok() {}
            assert_eq!(good.price("ETH").status, 200);
            (rig.stats().closed_by_us == 1).then_some(())
        });
    });
}

#[test]
fn when_the_control_plane_is_behind_the_answer_is_overloaded() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        // Nobody receives: the channel fills up, and then every further one is told so.
        let waiting = rig.plane.hand_overs();
        let capacity = waiting.capacity().expect("bounded");
        let mut handed_over: Vec<Client> = Vec::new();
        for _ in 0..capacity {
            let client = rig.connect();
            client.send(&get("/limits"));
            handed_over.push(client);
        }
        eventually("the channel is full", || waiting.is_full().then_some(()));
        for _ in 0..3 {
            let mut client = rig.connect();
            client.send(&format!("{}{}", request("BTC", ""), get("/limits")));
            assert_eq!(client.read().expect("the price before it").status, 200);
            let reply = client.read().expect("an answer");
            assert_eq!((reply.status, reply.json()["code"].as_str()), (503, Some("overloaded")));
            assert!(client.is_closed());
        }
        waiting.try_iter().for_each(drop);
        let client = rig.connect();
        client.send(&get("/limits"));
        assert!(waiting.recv_timeout(PATIENCE).is_ok(), "there is room again");
    });
}

#[test]
fn a_burst_beyond_all_receive_buffers_is_answered_whole() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        // 200 clients with 60 KB each: 12 MB at once, thrice what the buffers of one shard hold.
        let count = 500;
        let burst = request("SOL", "").repeat(count);
        let mut clients: Vec<Client> = (0..200).map(|_| rig.connect()).collect();
        std::thread::scope(|scope| {
            for part in clients.chunks_mut(50) {
                scope.spawn(|| {
                    part.iter().for_each(|client| client.send(&burst));
                    for client in part {
                        for index in 0..count {
                            assert_eq!(client.read().unwrap_or_else(|| panic!("no answer {index}")).status, 200);
                        }
                    }
                });
            }
        });
        assert_eq!(rig.stats().closed_by_us, 0);
    });
}

/// A client that sends as much as it can before it reads a little.
struct Eager {
    client: Client,
    unsent: usize,
    answers_left: usize,
}

impl Eager {
    /// Whether it has had its answers. A body is one object, so braces are counted.
    fn go_on(&mut self, burst: &[u8], part: &mut [u8]) -> bool {
        let Self { client, unsent, answers_left } = self;
        while *unsent > 0 {
            match client.socket().write(&burst[burst.len() - *unsent..]) {
                Ok(length) => *unsent -= length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error} with {unsent} bytes unsent and {answers_left} answers missing"),
            }
        }
        match client.socket().read(part) {
            Ok(0) => panic!("closed with {answers_left} answers missing"),
            Ok(length) => *answers_left -= part[..length].iter().filter(|byte| **byte == b'}').count(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error} with {answers_left} answers missing"),
        }
        *answers_left == 0
    }
}

#[test]
fn hundreds_of_clients_that_pipeline_more_than_they_read_are_all_answered() {
    on_each_engine(|engine| {
        // One thread plays them all: on a slow machine it comes round to each more rarely than a client may leave its answers.
        let parameters = ShardParameters { write_stall_ms: 60_000, ..ShardParameters::default() };
        let rig = Rig::priced_as(Wish { parameters, ..Wish::of(engine) });
        // 98 KB each, which would be 75 MB of kept input, and 400 KB of answers each: more than sockets hold.
        let burst = request("SOL", "").repeat(1_000).into_bytes();
        let mut innocent = rig.connect();
        let mut eager: Vec<Eager> = (0..600)
            .map(|_| Eager { client: rig.connect(), unsent: burst.len(), answers_left: 1_000 })
            .inspect(|eager| eager.client.socket().set_nonblocking(true).expect("non-blocking"))
            .collect();
        let mut part = vec![0; 32 * 1_024];
        while !eager.is_empty() {
            eager.retain_mut(|eager| !eager.go_on(&burst, &mut part));
            assert_eq!(innocent.price("BTC").status, 200);
        }
        assert_eq!(rig.stats().closed_by_us, 0);
    });
}
