//! Start, commands, drain, stop; and starts that are refused.

use crate::rig::{Client, KEY, Rig, Wish, eventually, on_each_engine, request};
use dataplane_core::access::KeyDirectory;
use dataplane_core::command::ShardCommand;
use dataplane_engine::{EngineChoice, StartRefused};
use std::net::TcpStream;
use std::sync::Arc;

#[test]
fn the_chosen_engine_runs_and_says_why() {
    on_each_engine(|wanted| {
        let rig = Wish::of(wanted).start();
        assert_eq!(rig.plane.engine().choice(), wanted);
        assert!(rig.plane.engine_reason().contains("TB_ENGINE"), "{}", rig.plane.engine_reason());
        assert_eq!(rig.plane.failed_thread(), None);
        let warnings = rig.plane.warnings();
        assert!(warnings.iter().all(|text| text.contains("not pinned")), "{warnings:?}");
    });
}

#[test]
fn every_shard_serves_on_the_same_ports() {
    on_each_engine(|engine| {
        let rig = Rig::priced_as(Wish { shards: 3, ..Wish::of(engine) });
        let mut clients: Vec<Client> = (0..200).map(|_| rig.connect()).collect();
        assert!(clients.iter_mut().all(|client| client.price("BTC").status == 200));
        eventually("each shard has its share", || {
            let stats = rig.plane.stats();
            (stats.iter().all(|shard| shard.accepted > 20)
                && stats.iter().map(|shard| shard.accepted).sum::<u64>() == 200)
                .then_some(())
        });
    });
}

#[test]
fn a_taken_port_is_refused_with_the_remedy() {
    on_each_engine(|engine| {
        let first = Wish::of(engine).start();
        let again = Wish { tcp_port: first.plane.tcp_address().port(), ..Wish::of(engine) }.try_start();
        match again {
            Err(StartRefused::Bind(text)) => assert!(text.contains("another program has it"), "{text}"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("two services share a port"),
        }
    });
}

#[test]
fn a_plan_without_shards_is_refused() {
    let refused = Wish { shards: 0, ..Wish::of(EngineChoice::Epoll) }.try_start().err().expect("refused");
    assert!(refused.to_string().contains("TB_SHARDS"), "{refused}");
}

#[test]
fn commands_take_effect_on_open_connections() {
    on_each_engine(|engine| {
        let rig = Rig::priced_as(Wish { shards: 2, ..Wish::of(engine) });
        let mut clients: Vec<Client> = (0..20).map(|_| rig.connect()).collect();
        assert!(clients.iter_mut().all(|client| client.price("BTC").status == 200));
        rig.plane.command(&ShardCommand::Keys(Arc::new(KeyDirectory::build(Vec::new(), None, 2))));
        for client in &mut clients {
            eventually("the key is gone", || (client.price("BTC").status == 401).then_some(()));
        }
    });
}

#[test]
fn no_shard_is_the_last_to_let_go_of_a_key_directory() {
    on_each_engine(|engine| {
        let rig = Rig::priced_as(Wish { shards: 2, ..Wish::of(engine) });
        let mut clients: Vec<Client> = (0..20).map(|_| rig.connect()).collect();
        let nobody = || Arc::new(KeyDirectory::build(Vec::new(), None, 2));
        let first = nobody();
        let watched = Arc::downgrade(&first);
        for next in [first, nobody()] {
            rig.plane.command(&ShardCommand::Keys(next));
        }
        for client in &mut clients {
            eventually("the key is gone", || (client.price("BTC").status == 401).then_some(()));
        }
        eventually("both shards have let go", || (watched.strong_count() == 1).then_some(()));
        let _freed_here = rig.plane.stats();
        assert_eq!(watched.strong_count(), 0);
    });
}

#[test]
fn a_crowd_that_came_before_the_end_of_accepting_is_served() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut crowd: Vec<Client> = (0..500).map(|_| rig.connect()).collect();
        rig.plane.command(&ShardCommand::StopAccepting);
        let address = rig.plane.tcp_address();
        eventually("newcomers are refused", || TcpStream::connect(address).is_err().then_some(()));
        assert!(crowd.iter_mut().all(|client| client.price("BTC").status == 200));
    });
}

#[test]
fn drain_keeps_serving_stop_accepting_refuses_newcomers_only() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut open = rig.connect();
        assert_eq!(open.price("BTC").status, 200);
        rig.plane.command(&ShardCommand::StopAccepting);
        let address = rig.plane.tcp_address();
        eventually("newcomers are refused", || TcpStream::connect(address).is_err().then_some(()));
        assert_eq!(open.price("BTC").status, 200, "open connections are served on");
        let socket = rig.datagrams();
        let pad = "x".repeat(100);
        socket.send(format!("{{\"key\":\"{KEY}\",\"asset\":\"BTC\",\"pad\":\"{pad}\"}}").as_bytes()).expect("sent");
        assert!(socket.recv(&mut [0; 2_048]).expect("an answer") > 0, "datagrams are answered to the end");
        rig.plane.command(&ShardCommand::Drain);
        let last = eventually("the connection is told to close", || {
            open.send(&request("BTC", ""));
            let reply = open.read().expect("an answer");
            reply.head.to_ascii_lowercase().contains("connection: close").then_some(reply)
        });
        assert_eq!(last.status, 200);
        assert!(open.is_closed());
    });
}

#[test]
fn stop_ends_every_thread_and_every_connection() {
    on_each_engine(|engine| {
        let rig = Rig::priced_as(Wish { shards: 2, ..Wish::of(engine) });
        let mut idle: Vec<Client> = (0..50).map(|_| rig.connect()).collect();
        assert!(idle.iter_mut().all(|client| client.price("BTC").status == 200));
        let newest = idle[1].price("BTC").sequence();
        // Some in every state: half a head, a waiting request, replies that nobody reads.
        idle[0].send("GET /price");
        idle[1].send(&request("BTC", &format!("&newer_than={newest}&wait_ms=30000")));
        idle[2].send(&request("BTC", "").repeat(2_000));
        let address = rig.plane.tcp_address();
        rig.plane.stop();
        assert!(TcpStream::connect(address).is_err(), "the port is free");
        assert!(idle.drain(3..).all(|mut client| client.is_closed()));
        assert_eq!(rig.plane.failed_thread(), None, "told to");
        rig.plane.stop();
        drop(rig);
        Wish { tcp_port: address.port(), ..Wish::of(engine) }.start();
    });
}
