//! Datagrams over real sockets on each engine: trains, mixed peers, bad members, clients that know nothing of trains.

use crate::rig::{ASSETS, KEY, Rig, UDP_SECRET, on_each_engine};
use loadgen::frame::UdpKey;
use nix::sys::socket::{setsockopt, sockopt};
use shared::asset::Symbol;
use shared::wire::{FRAME_SIZE, ReplyFrame};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of every JSON request here.
const JSON_BYTES: usize = 160;

/// A request for the asset whose turn `id` is, signed with the key's secret.
fn frame(key_id: u32, id: u64) -> Vec<u8> {
    let symbol = Symbol::new(asset_of(id).as_bytes()).expect("a symbol");
    key(key_id).request(*symbol.padded(), id, tuning::clock::now().wall_ms).to_vec()
}

const fn key(id: u32) -> UdpKey {
    UdpKey { id, secret: UDP_SECRET }
}

fn asset_of(id: u64) -> &'static str {
    ASSETS[usize::try_from(id).expect("small") % ASSETS.len()]
}

fn json(id: u64) -> Vec<u8> {
    let symbol = asset_of(id);
    let head = format!("{{\"key\":\"{KEY}\",\"asset\":\"{symbol}\",\"id\":{id},\"pad\":\"");
    format!("{head}{}\"}}", "x".repeat(JSON_BYTES - head.len() - 2)).into_bytes()
}

/// The id that a reply bears; it must be a price.
#[track_caller]
fn id_of(reply: &[u8]) -> u64 {
    if reply.len() == FRAME_SIZE {
        let frame: ReplyFrame = bytemuck::pod_read_unaligned(reply);
        assert!(key(1).signed(&frame) && frame.status == 0);
        return u64::from_le_bytes(frame.request_id);
    }
    let reply: serde_json::Value = serde_json::from_slice(reply).expect("JSON");
    assert!(reply["price"].is_string(), "{reply}");
    reply["id"].as_u64().expect("an id")
}

/// Sends these requests, all of one length, as one train.
pub fn send_train(client: &UdpSocket, requests: &[Vec<u8>]) {
    let length = i32::try_from(requests[0].len()).expect("small");
    setsockopt(client, sockopt::UdpGsoSegment, &length).expect("Linux 4.18");
    client.send(&requests.concat()).expect("sent");
    setsockopt(client, sockopt::UdpGsoSegment, &0).expect("set");
}

/// Takes the next replies: prices with these ids, in this order, each in a datagram of its own.
#[track_caller]
fn expect(client: &UdpSocket, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        let mut reply = [0; 2_048];
        let length = client.recv(&mut reply).expect("a reply");
        assert_eq!(id_of(&reply[..length]), id);
    }
}

#[test]
fn trains_of_both_encodings_are_answered_in_order() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let client = rig.datagrams();
        for length in [1, 2, 16, 63, 64] {
            send_train(&client, &(0..length).map(|id| frame(1, id)).collect::<Vec<_>>());
            expect(&client, 0..length);
            // Replies of several lengths: the assets' names and ids differ in theirs.
            send_train(&client, &(95..95 + length).map(json).collect::<Vec<_>>());
            expect(&client, 95..95 + length);
        }
        rig.await_stats("counted", |stats| stats.counters.datagram_replies == 292 && stats.datagrams_grouped > 200);
        assert_eq!((rig.stats().datagrams_unsent, rig.stats().datagram_groups_refused), (0, 0));
    });
}

#[test]
fn bad_members_are_met_with_silence_and_the_others_answered() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let client = rig.datagrams();
        let mut train: Vec<Vec<u8>> = (0..8).map(|id| frame(1, id)).collect();
        train[0] = frame(99, 0);
        train[3][20] ^= 1;
        train[5] = vec![b'x'; FRAME_SIZE];
        train[7].truncate(FRAME_SIZE - 1);
        send_train(&client, &train);
        expect(&client, [1, 2, 4, 6]);
        rig.await_stats("counted", |stats| stats.counters.datagrams_silent == 4);
    });
}

#[test]
fn peers_that_come_mixed_get_their_own_in_order() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let clients: Vec<UdpSocket> = (0..5).map(|_| rig.datagrams()).collect();
        for round in 0..10 {
            for (number, client) in clients.iter().enumerate() {
                let first = 1_000 * number as u64 + 10 * round;
                match number % 3 {
                    0 => (first..first + 4).for_each(|id| drop(client.send(&frame(1, id)))),
                    1 => send_train(client, &(first..first + 4).map(|id| frame(1, id)).collect::<Vec<_>>()),
                    _ => send_train(client, &(first..first + 4).map(json).collect::<Vec<_>>()),
                }
            }
        }
        for (number, client) in clients.iter().enumerate() {
            for round in 0..10 {
                let first = 1_000 * number as u64 + 10 * round;
                expect(client, first..first + 4);
            }
        }
    });
}

#[test]
fn a_client_that_takes_trains_gets_whole_ones() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let client = rig.datagrams();
        setsockopt(&client, sockopt::UdpGroSegment, &true).expect("Linux 5.0");
        send_train(&client, &(0..16).map(|id| frame(1, id)).collect::<Vec<_>>());
        let mut replies = [0; 65_536];
        let length = client.recv(&mut replies).expect("replies");
        let ids: Vec<u64> = replies[..length].chunks(FRAME_SIZE).map(id_of).collect();
        assert_eq!(ids, (0..16).collect::<Vec<_>>());
    });
}

#[test]
fn a_flood_of_trains_is_answered_and_connections_meanwhile() {
    // Together more than one turn of a shard serves, sent before any reply is read.
    const CLIENTS: usize = 12;
    const TRAIN: u64 = 64;
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let clients: Vec<UdpSocket> = (0..CLIENTS).map(|_| rig.datagrams()).collect();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut rounds = 0;
                while rounds < 3 || !is_over.load(Ordering::Relaxed) {
                    for client in &clients {
                        send_train(client, &(100..100 + TRAIN).map(json).collect::<Vec<_>>());
                    }
                    clients.iter().for_each(|client| expect(client, 100..100 + TRAIN));
                    rounds += 1;
                }
            });
            let mut client = rig.connect();
            for turn in 0..100 {
                assert_eq!(client.price(ASSETS[turn % ASSETS.len()]).status, 200);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        // Nothing is left behind that only the next datagram would bring out.
        rig.await_stats("counted", |stats| stats.counters.datagram_replies >= 3 * CLIENTS as u64 * TRAIN);
        let stats = rig.stats();
        assert_eq!((stats.counters.datagrams_silent, stats.datagrams_unsent), (0, 0));
    });
}
