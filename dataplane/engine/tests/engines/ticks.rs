//! Prices on their way to clients: waiting requests, shards that sleep, datagrams.

use crate::rig::{ASSETS, KEY, PATIENCE, Rig, Wish, eventually, get, on_each_engine, request};
use shared::asset::AssetId;
use std::net::Shutdown;
use std::time::Duration;

#[test]
fn an_idle_shard_sees_a_new_tick() {
    on_each_engine(|engine| {
        let rig = Rig::priced_as(Wish { shards: 2, ..Wish::of(engine) });
        let parked = |shard: usize| rig.plane.stats()[shard].parks;
        for _ in 0..50 {
            let before: Vec<u64> = rig.plane.stats().iter().map(|shard| shard.counters.generation).collect();
            rig.quote(0);
            eventually("every shard has the tick", || {
                let stats = rig.plane.stats();
                stats.iter().zip(&before).all(|(shard, before)| shard.counters.generation > *before).then_some(())
            });
        }
        assert!((0..2).all(|shard| parked(shard) > 0), "they slept meanwhile");
    });
}

#[test]
fn a_request_waits_for_a_newer_price() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut client = rig.connect();
        let mut newest = client.price("BTC").sequence();
        for _ in 0..20 {
            client.send(&request("BTC", &format!("&newer_than={newest}&wait_ms=30000")));
            rig.await_stats("it waits", |stats| stats.counters.waiting == 1);
            // Another asset's tick is not what it waits for.
            rig.quote(1);
            rig.quote(0);
            let reply = client.read().expect("an answer");
            assert_eq!(reply.status, 200);
            assert!(reply.sequence() > newest);
            newest = reply.sequence();
        }
    });
}

#[test]
fn what_is_pipelined_behind_a_waiting_request_is_answered_after_it() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut client = rig.connect();
        let newest = client.price("BTC").sequence();
        let waiting = request("BTC", &format!("&newer_than={newest}&wait_ms=30000"));
        client.send(&format!("{}{waiting}{}", request("ETH", ""), request("SOL", "").repeat(500)));
        assert_eq!(client.read().expect("the one before").json()["asset"], "ETH");
        rig.await_stats("it waits", |stats| stats.counters.waiting == 1);
        rig.quote(0);
        assert!(client.read().expect("the one that waited").sequence() > newest);
        for index in 0..500 {
            assert_eq!(client.read().unwrap_or_else(|| panic!("no answer {index}")).json()["asset"], "SOL");
        }
    });
}

/// Clients that wait at once: more than the 4,096 reply buffers of a shard.
const CROWD: usize = 4_500;

#[test]
fn a_tick_that_releases_more_requests_than_there_are_reply_buffers_answers_them_all() {
    let files = tuning::sockets::raise_nofile().expect("the limit is readable").soft;
    if files.is_some_and(|files| files < 4 * CROWD as u64) {
        return eprintln!("skipped: only {files:?} open files are allowed");
    }
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let newest = rig.connect().price("BTC").sequence();
        let waiting = request("BTC", &format!("&newer_than={newest}&wait_ms=30000"));
        let mut crowd: Vec<_> = (0..CROWD).map(|_| rig.connect()).collect();
        crowd.iter().for_each(|client| client.send(&waiting));
        rig.await_stats("all wait", |stats| stats.counters.waiting == CROWD as u64);
        rig.quote(0);
        for (index, client) in crowd.iter_mut().enumerate() {
            let reply = client.read().unwrap_or_else(|| panic!("client {index} was closed instead"));
            assert!(reply.sequence() > newest);
        }
        assert_eq!(rig.stats().closed_by_us, 0);
    });
}

#[test]
fn a_wait_ends_without_news() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut client = rig.connect();
        let newest = client.price("BTC").sequence();
        client.send(&request("BTC", &format!("&newer_than={newest}&wait_ms=150")));
        assert_eq!(client.read().expect("an answer").status, 304);
        assert_eq!(client.price("BTC").sequence(), newest);
    });
}

#[test]
fn a_price_that_the_client_has_is_not_sent_again() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut client = rig.connect();
        let first = client.price("BTC");
        let tag = first.head.lines().find_map(|line| line.strip_prefix("ETag: ")).expect("a tag").to_owned();
        assert_eq!(tag, format!("\"{}\"", first.sequence()));
        let knowing = request("BTC", "").replace("\r\n\r\n", &format!("\r\nIf-None-Match: \"1x\", W/{tag}\r\n\r\n"));
        // As one of many in a row, too.
        client.send(&knowing.repeat(3));
        for _ in 0..3 {
            let reply = client.read().expect("an answer");
            assert!(reply.status == 304 && reply.head.contains(&format!("ETag: {tag}\r\n")), "{}", reply.head);
        }
        rig.quote(0);
        let reply = eventually("another price", || {
            client.send(&knowing);
            client.read().filter(|reply| reply.status == 200)
        });
        assert!(reply.sequence() > first.sequence());
    });
}

#[test]
fn many_prices_are_of_one_moment_while_they_change() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut client = rig.connect();
        let all = get("/prices?assets=all");
        let (mut last, mut changed) = (0, 0);
        for turn in 0..200 {
            rig.quote(turn % ASSETS.len());
            // Several in one turn of the shard, which takes ticks in between.
            client.send(&all.repeat(4));
            for _ in 0..4 {
                let reply = client.read().expect("an answer").json();
                let prices = reply["prices"].as_array().expect("prices");
                let newest = prices.iter().filter_map(|price| price["sequence"].as_u64()).max();
                assert_eq!((prices.len(), reply["generation"].as_u64()), (ASSETS.len(), newest), "{reply}");
                changed += usize::from(newest > Some(last));
                assert!(newest >= Some(last), "never back");
                last = newest.unwrap_or(last);
            }
        }
        assert!(changed > 100, "{changed} generations were seen");
    });
}

#[test]
fn a_client_that_vanishes_while_it_waits_is_forgotten() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let newest = rig.connect().price("BTC").sequence();
        let waiting = request("BTC", &format!("&newer_than={newest}&wait_ms=30000"));
        let clients: Vec<_> = (0..20).map(|_| rig.connect()).collect();
        clients.iter().for_each(|client| client.send(&waiting));
        rig.await_stats("all wait", |stats| stats.counters.waiting == 20);
        for client in &clients {
            socket2::SockRef::from(client.socket()).set_linger(Some(std::time::Duration::ZERO)).expect("an option");
        }
        drop(clients);
        rig.await_stats("none waits", |stats| stats.counters.waiting == 0 && stats.connections == 0);
    });
}

#[test]
fn a_waiting_client_that_resets_after_closing_its_side_is_forgotten_before_its_time() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut client = rig.connect();
        let newest = client.price("BTC").sequence();
        client.send(&request("BTC", &format!("&newer_than={newest}&wait_ms=30000")));
        client.socket().shutdown(Shutdown::Write).expect("open");
        rig.await_stats("it waits", |stats| stats.counters.waiting == 1 && stats.connections == 1);
        let answered = rig.stats().counters.http_requests;
        socket2::SockRef::from(client.socket()).set_linger(Some(Duration::ZERO)).expect("a socket");
        drop(client);
        rig.await_stats("it is forgotten", |stats| stats.connections == 0 && stats.counters.waiting == 0);
        assert_eq!(rig.stats().counters.http_requests, answered, "not by the end of its wait");
    });
}

#[test]
fn the_sequence_never_goes_back_on_one_connection() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut client = rig.connect();
        let mut newest = 0;
        for _ in 0..500 {
            rig.quote(0);
            let sequence = client.price("BTC").sequence();
            assert!(sequence >= newest, "{sequence} after {newest}");
            newest = sequence;
        }
    });
}

#[test]
fn datagrams_are_answered() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let socket = rig.datagrams();
        let pad = "x".repeat(100);
        let ask = |id: u64| format!("{{\"key\":\"{KEY}\",\"asset\":\"ETH\",\"id\":{id},\"pad\":\"{pad}\"}}");
        let mut reply = [0; 2_048];
        // More than one batch waits at once; loopback keeps them in order and drops none of so few.
        for round in 0..20 {
            for id in 0..200 {
                socket.send(ask(round * 200 + id).as_bytes()).expect("sent");
            }
            for id in 0..200 {
                let length = socket.recv(&mut reply).expect("an answer");
                let json: serde_json::Value = serde_json::from_slice(&reply[..length]).expect("JSON");
                assert_eq!((json["id"].as_u64(), json["asset"].as_str()), (Some(round * 200 + id), Some("ETH")));
            }
        }
        socket.send(&[b'x'; 600]).expect("sent");
        socket.send(b"").expect("sent");
        socket.send(ask(9).as_bytes()).expect("sent");
        let length = socket.recv(&mut reply).expect("an answer");
        let json: serde_json::Value = serde_json::from_slice(&reply[..length]).expect("JSON");
        assert_eq!(json["id"], 9, "bad ones are met with silence");
    });
}

#[test]
fn the_feed_thread_tells_what_is_behind_a_price() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let asset = AssetId::new(0).expect("an asset");
        let detail = rig.plane.inspect(asset, PATIENCE).expect("an answer");
        assert!(detail.iter().any(|venue| venue.price.is_some() && venue.excluded.is_none()), "{detail:?}");
        eventually("its counters are published", || (rig.plane.feed_counters().ticks >= 3).then_some(()));
        let mut ticks = rig.plane.take_ticks().expect("the control plane's ring");
        assert!(rig.plane.take_ticks().is_none(), "once");
        assert!(ticks.pop().is_ok());
        assert_eq!(rig.plane.take_usage().len(), 1);
        assert!(rig.plane.take_usage().is_empty(), "once");
    });
}
