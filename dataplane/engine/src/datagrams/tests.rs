//! Datagrams through real sockets and a real shard, batch by batch.

use super::*;
use dataplane_core::access::{KeyDirectory, hash_text};
use dataplane_core::command::{ShardCommand, ShardParameters};
use dataplane_core::lookup::{Ask, AskKind, NotFound};
use dataplane_core::shard::ShardSetup;
use nix::sys::socket::{setsockopt, sockopt};
use rtrb::Consumer;
use shared::asset::{AssetDirectory, Symbol};
use shared::code::Code;
use shared::key::{KeyId, KeyRecord, Permissions};
use shared::limits::DATAGRAM_IN_MAX;
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// A shard that knows one key and no asset, and what it asks.
fn shard() -> (Shard, Consumer<Ask>) {
    let (asks, asked) = rtrb::RingBuffer::new(64);
    let key = KeyRecord {
        id: KeyId(1),
        hash: hash_text(b"key"),
        limit_per_second: 1_000_000,
        expires_at_ms: 0,
        permissions: Permissions(Permissions::PRICES),
        udp_secret: [0; 16],
        rank: 3,
    };
    let setup = ShardSetup {
        index: 0,
        shards: 1,
        assets: Arc::new(AssetDirectory::new()),
        keys: Arc::new(KeyDirectory::build(vec![key], None, 1)),
        parameters: ShardParameters::default(),
        ticks: rtrb::RingBuffer::new(64).1,
        usage: rtrb::RingBuffer::new(64).0,
        asks,
        counts_usage: true,
        hash_seed: 1,
    };
    (Shard::new(setup), asked)
}

/// A serving socket on loopback, what serves it, and when.
struct World {
    socket: UdpSocket,
    shard: Shard,
    datagrams: Datagrams,
    ready: ReadyList,
    asked: Consumer<Ask>,
    now: Moment,
}

impl World {
    /// Bound to this address as the data plane binds it.
    fn bound(address: &str) -> Self {
        let ip = address.parse().expect("an address");
        let mut bound = crate::sockets::bind(ip, 0, 0, 1).expect("free ports");
        let (_, socket) = bound.of_shards.remove(0);
        let (shard, asked) = shard();
        let (datagrams, ready, now) = (Datagrams::new(), ReadyList::default(), tuning::clock::now());
        Self { socket, shard, datagrams, ready, asked, now }
    }

    fn new() -> Self {
        Self::bound("127.0.0.1")
    }

    /// A client on this address that asks the server at that one.
    fn client(&self, own: &str, server: &str) -> UdpSocket {
        let client = UdpSocket::bind((own, 0)).expect("a socket");
        let port = self.socket.local_addr().expect("bound").port();
        client.connect((server, port)).expect("connected");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        client
    }

    fn local_client(&self) -> UdpSocket {
        self.client("127.0.0.1", "127.0.0.1")
    }

    /// Serves one turn; whether there is to be another.
    fn turn(&mut self) -> bool {
        let Self { socket, shard, datagrams, ready, now, .. } = self;
        let mut feed_lag = LagHistogram::default();
        datagrams.serve(socket.as_fd(), shard, &mut feed_lag, ready, *now).expect("a good socket")
    }

    /// Serves a turn's worth of those that waited; how many are left.
    fn turn_waiting(&mut self) -> usize {
        let Self { socket, shard, datagrams, ready, now, .. } = self;
        datagrams.serve_waiting(socket.as_fd(), shard, &mut LagHistogram::default(), ready, *now);
        ready.datagrams.len()
    }

    /// Tells the shard that nobody knows the asset that it asks for.
    fn tell_unknown(&mut self) {
        let Ask { symbol, kind, .. } = self.asked.pop().expect("it has asked");
        let AskKind::Find { number, .. } = kind else { panic!("{kind:?}") };
        assert!(self.asked.is_empty(), "once");
        let nothing = Arc::new([NotFound { symbol, number, code: Code::AssetUnknown }]);
        self.shard.apply(ShardCommand::NotFound(nothing));
        self.shard.drain_feed(self.now, &mut self.ready);
    }

    /// Serves until nothing is left; the number of turns.
    fn serve(&mut self) -> usize {
        (1..).find(|_| !self.turn()).expect("an end")
    }

    fn counts(&self) -> SendCounts {
        self.datagrams.outbox.counts
    }
}

/// A request for an asset that there cannot be, padded to this length so that the refusal may be told.
fn request_of(id: u64, length: usize) -> Vec<u8> {
    request_for("N-NE", id, length)
}

fn request_for(asset: &str, id: u64, length: usize) -> Vec<u8> {
    let (head, tail) = (format!("{{\"key\":\"key\",\"asset\":\"{asset}\",\"id\":{id},\"pad\":\""), "\"}");
    let pad = length.checked_sub(head.len() + tail.len()).expect("room for it");
    format!("{head}{}{tail}", "x".repeat(pad)).into_bytes()
}

fn request(id: u64) -> Vec<u8> {
    request_of(id, 100)
}

/// Sends these requests as datagrams of their own.
fn send_all(client: &UdpSocket, requests: impl IntoIterator<Item = Vec<u8>>) {
    for request in requests {
        client.send(&request).expect("sent");
    }
}

/// Sends these requests as one train.
fn send_train(client: &UdpSocket, length: usize, requests: &[Vec<u8>]) {
    setsockopt(client, sockopt::UdpGsoSegment, &i32::try_from(length).expect("small")).expect("Linux 4.18");
    assert_eq!(client.send(&requests.concat()).expect("sent"), requests.iter().map(Vec::len).sum());
    setsockopt(client, sockopt::UdpGsoSegment, &0).expect("set");
}

fn reply(client: &UdpSocket) -> String {
    let mut bytes = [0; 2_048];
    let length = client.recv(&mut bytes).expect("a reply");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Takes the next replies, which are to these requests in this order.
#[track_caller]
fn expect_replies(client: &UdpSocket, ids: impl IntoIterator<Item = u64>) {
    expect_refusals(client, ids, Code::AssetInvalid);
}

#[track_caller]
fn expect_refusals(client: &UdpSocket, ids: impl IntoIterator<Item = u64>, code: Code) {
    for id in ids {
        let reply = reply(client);
        assert!(reply.contains(&format!("\"id\":{id},")) && reply.contains(code.name()), "{id}: {reply}");
    }
}

#[test]
fn every_datagram_of_several_batches_is_answered_in_order() {
    let mut world = World::new();
    let client = world.local_client();
    // Twice, so that headers the kernel has written to are used again.
    for _ in 0..2 {
        send_all(&client, (0..150).map(request));
        assert_eq!(world.serve(), 3);
        expect_replies(&client, 0..150);
    }
    assert_eq!((world.shard.counters().datagram_replies, world.counts().unsent), (300, 0));
}

#[test]
fn a_train_is_taken_apart_and_its_replies_come_one_by_one() {
    let mut world = World::new();
    let client = world.local_client();
    // Lengths of replies grow with the ids' digits, in the middle of the train.
    for ids in [0..16, 90..120, 995..1_059, 5..6] {
        let mut requests: Vec<Vec<u8>> = ids.clone().map(request).collect();
        if let Some(last) = requests.last_mut().filter(|_| ids.end > 16) {
            *last = request_of(ids.end - 1, 80);
        }
        send_train(&client, 100, &requests);
        let before = world.shard.counters().datagrams;
        world.serve();
        assert_eq!(world.shard.counters().datagrams - before, requests.len() as u64);
        expect_replies(&client, ids);
    }
    assert_eq!((world.counts().unsent, world.counts().groups_refused), (0, 0));
}

#[test]
fn replies_to_one_peer_leave_together() {
    let mut world = World::new();
    let client = world.local_client();
    setsockopt(&client, sockopt::UdpGroSegment, &true).expect("Linux 5.0");
    let mut bytes = vec![0; 65_536];
    // As a train, and as datagrams that came alone.
    for grouped in [16, 32] {
        let requests: Vec<Vec<u8>> = (10..26).map(request).collect();
        if grouped == 16 {
            send_train(&client, 100, &requests);
        } else {
            send_all(&client, requests);
        }
        world.serve();
        let length = client.recv(&mut bytes).expect("replies");
        assert_eq!(bytes[..length].iter().filter(|byte| **byte == b'}').count(), 16, "all in one message");
        assert_eq!(world.counts().grouped, grouped);
    }
}

#[test]
fn peers_that_come_mixed_get_their_own_in_order() {
    let mut world = World::new();
    let clients: Vec<UdpSocket> = (0..5).map(|_| world.local_client()).collect();
    for id in 0..12 {
        for (number, client) in clients.iter().enumerate() {
            client.send(&request(100 * number as u64 + 10 + id)).expect("sent");
        }
    }
    let train: Vec<Vec<u8>> = (50..60).map(request).collect();
    send_train(&clients[0], 100, &train);
    world.serve();
    expect_replies(&clients[0], (10..22).chain(50..60));
    for (number, client) in clients.iter().enumerate().skip(1) {
        let first = 100 * number as u64 + 10;
        expect_replies(client, first..first + 12);
    }
    assert!(world.counts().grouped >= 60, "mixed ones are grouped too: {:?}", world.counts());
}

#[test]
fn more_clients_and_replies_than_leave_at_once() {
    let mut world = World::new();
    let clients: Vec<UdpSocket> = (0..100).map(|_| world.local_client()).collect();
    let trains = |first: Range<u64>| -> Vec<Vec<u8>> { first.map(request).collect() };
    for client in &clients {
        send_train(client, 100, &trains(10..74));
        client.send(&request(7)).expect("sent");
    }
    world.serve();
    clients.iter().for_each(|client| expect_replies(client, (10..74).chain([7])));
    assert_eq!(world.shard.counters().datagram_replies, 6_500);
}

#[test]
fn one_bad_member_spoils_no_train() {
    let mut world = World::new();
    let client = world.local_client();
    let mut train: Vec<Vec<u8>> = (10..20).map(request).collect();
    train[0] = vec![b'x'; 100];
    train[4] = String::from_utf8(request(14)).expect("text").replace("\"key\":\"key\"", "\"key\":\"kex\"").into_bytes();
    train[9] = vec![b'{'];
    send_train(&client, 100, &train);
    world.serve();
    expect_replies(&client, [11, 12, 13, 15, 16, 17, 18]);
    let counters = world.shard.counters();
    assert_eq!((counters.datagrams, counters.datagram_replies, counters.datagrams_silent), (10, 7, 3));
}

#[test]
fn empty_and_oversized_ones_are_counted_and_harm_nobody() {
    let mut world = World::new();
    let client = world.local_client();
    let good = request(7);
    // Cut off at what a datagram may be, the long one would be a good request with blanks behind it.
    let mut long = good.clone();
    long.resize(DATAGRAM_IN_MAX + 100, b' ');
    for bytes in [&[][..], &long, &good[..]] {
        client.send(bytes).expect("sent");
    }
    // A train of such is as many malformed datagrams; its last is short enough to be one.
    send_train(&client, long.len(), &[long.clone(), long.clone(), request(8)]);
    world.serve();
    assert_eq!((world.shard.counters().datagrams, world.shard.counters().datagrams_silent), (6, 4));
    expect_replies(&client, [7, 8]);
}

#[test]
fn a_turn_ends_after_so_many_datagrams_and_the_next_goes_on() {
    const TRAIN: u64 = 64;
    let mut world = World::new();
    let clients: Vec<UdpSocket> = (0..20).map(|_| world.local_client()).collect();
    let late = world.local_client();
    for client in &clients {
        send_train(client, 100, &(10..10 + TRAIN).map(request).collect::<Vec<_>>());
    }
    let (mut turns, mut before, mut goes_on) = (0, 0, true);
    while goes_on {
        goes_on = world.turn();
        turns += 1;
        let served = world.shard.counters().datagrams;
        assert!(served - before < (TURN_DATAGRAMS as u64 + TRAIN), "turn {turns}: {}", served - before);
        before = served;
        // What comes while some are held is not forgotten, though nobody tells of it again.
        if turns == 1 {
            assert!(world.datagrams.holds());
            late.send(&request(7)).expect("sent");
        }
    }
    assert!(turns > 2 && !world.datagrams.holds());
    clients.iter().for_each(|client| expect_replies(client, 10..10 + TRAIN));
    expect_replies(&late, [7]);
}

/// Sets an option that is an `int`.
fn set(socket: &UdpSocket, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    // SAFETY: `value` is a live `int` that the call only reads.
    let set = unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        let fd = std::os::fd::AsRawFd::as_raw_fd(socket);
        libc::setsockopt(fd, level, option, (&raw const value).cast(), length)
    };
    assert_eq!(set, 0, "option {option}");
}

#[test]
fn where_grouped_sends_are_refused_replies_leave_one_by_one() {
    let mut world = World::new();
    let (client, other) = (world.local_client(), world.local_client());
    // Without checksums of its own the kernel cuts no trains: it answers EINVAL, as it does for a route that cannot. What
    // is refused now is no reason not to try the next time.
    for (no_check, groups_refused, grouped) in [(1, 2, 0), (1, 4, 0), (0, 4, 33), (1, 6, 33), (0, 6, 66)] {
        set(&world.socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, no_check);
        let requests: Vec<Vec<u8>> = (10..26).map(request).collect();
        send_train(&client, 100, &requests);
        other.send(&request(1)).expect("sent");
        send_train(&other, 100, &requests);
        client.send(&request(2)).expect("sent");
        world.serve();
        expect_replies(&client, (10..26).chain([2]));
        expect_replies(&other, [1].into_iter().chain(10..26));
        assert_eq!(world.counts(), SendCounts { unsent: 0, grouped, groups_refused });
    }
}

#[test]
fn what_one_peers_route_refuses_is_sent_together_to_others() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 here");
        return;
    }
    let mut world = World::bound("::");
    // Without checksums over IPv6 the kernel cuts no trains for those peers.
    set(&world.socket, libc::SOL_UDP, libc::UDP_NO_CHECK6_TX, 1);
    let refused = world.client("::1", "::1");
    set(&refused, libc::SOL_UDP, libc::UDP_NO_CHECK6_RX, 1);
    let others = [world.local_client(), world.local_client()];
    for round in 1..4 {
        // One before and one behind it in the same batch.
        for client in [&others[0], &refused, &others[1]] {
            send_train(client, 100, &(10..20).map(request).collect::<Vec<_>>());
        }
        world.serve();
        for client in [&others[0], &refused, &others[1]] {
            expect_replies(client, 10..20);
        }
        assert_eq!(world.counts(), SendCounts { unsent: 0, grouped: 20 * round, groups_refused: round });
    }
}

#[test]
fn the_address_that_was_asked_answers() {
    let has_ipv6 = UdpSocket::bind("[::1]:0").is_ok();
    let table = [("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "127.0.0.2"), ("::", "127.0.0.2"), ("::", "::1")];
    for (bound, asked) in table {
        if bound == "::" && !has_ipv6 {
            eprintln!("{bound} skipped: no IPv6 here");
            continue;
        }
        let mut world = World::bound(bound);
        // A connected client takes no reply from another address.
        let client = world.client(if asked == "::1" { "::1" } else { "127.0.0.1" }, asked);
        client.send(&request(7)).expect("sent");
        world.serve();
        expect_replies(&client, [7]);
        send_train(&client, 100, &(10..20).map(request).collect::<Vec<_>>());
        world.serve();
        expect_replies(&client, 10..20);
        assert_eq!(world.counts(), SendCounts { unsent: 0, grouped: 10, groups_refused: 0 }, "{bound} {asked}");
    }
}

#[test]
fn one_peer_that_asks_two_addresses_gets_each_answer_from_its_own() {
    let mut world = World::bound("0.0.0.0");
    let port = world.socket.local_addr().expect("bound").port();
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let asked = |id: u64| if id.is_multiple_of(2) { "127.0.0.2" } else { "127.0.0.3" };
    for id in 10..20 {
        client.send_to(&request(id), (asked(id), port)).expect("sent");
    }
    world.serve();
    let mut ids = Vec::new();
    for _ in 10..20 {
        let mut bytes = [0; 200];
        let (length, from) = client.recv_from(&mut bytes).expect("a reply");
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let id = text.split(['{', ':', ',']).nth(2).and_then(|id| id.parse().ok()).expect("an id");
        assert_eq!(from.ip().to_string(), asked(id));
        ids.push(id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (10..20).collect::<Vec<_>>());
}

/// A request that has to wait.
fn unknown(id: u64) -> Vec<u8> {
    request_for("NOBODYS", id, 100)
}

#[test]
fn who_has_waited_is_answered_from_the_address_that_was_asked() {
    let has_ipv6 = UdpSocket::bind("[::1]:0").is_ok();
    for (bound, own, asked) in [("0.0.0.0", "127.0.0.1", ["127.0.0.2", "127.0.0.3"]), ("::", "::1", ["::1", "::1"])] {
        if bound == "::" && !has_ipv6 {
            eprintln!("{bound} skipped: no IPv6 here");
            continue;
        }
        let mut world = World::bound(bound);
        // Connected clients take no reply from another address.
        let clients = asked.map(|asked| world.client(own, asked));
        for (client, first) in clients.iter().zip([10, 30]) {
            send_train(client, 100, &(first..first + 10).map(unknown).collect::<Vec<_>>());
            // In between one that need not wait.
            client.send(&request(first + 10)).expect("sent");
        }
        world.serve();
        clients.iter().zip([20, 40]).for_each(|(client, id)| expect_replies(client, [id]));
        assert_eq!(world.counts(), SendCounts::default());
        world.tell_unknown();
        assert_eq!((world.ready.datagrams.len(), world.turn_waiting()), (20, 0));
        for (client, first) in clients.iter().zip([10, 30]) {
            expect_refusals(client, first..first + 10, Code::AssetUnknown);
        }
        assert_eq!(world.counts(), SendCounts { unsent: 0, grouped: 20, groups_refused: 0 }, "{bound}");
    }
}

#[test]
fn a_turn_of_those_that_waited_ends_and_their_places_are_used_again() {
    let mut world = World::new();
    for round in 0..3 {
        // Others each time, who get the tickets of those before.
        let clients: Vec<UdpSocket> = (0..20).map(|_| world.local_client()).collect();
        for client in &clients {
            send_train(client, 100, &(10..42).map(unknown).collect::<Vec<_>>());
        }
        world.serve();
        let symbol = Symbol::new(b"NOBODYS").expect("a symbol");
        assert_eq!(world.asked.peek().map(|ask| ask.symbol), Ok(symbol));
        world.tell_unknown();
        assert_eq!(world.ready.datagrams.len(), 640);
        assert_eq!((world.turn_waiting(), world.turn_waiting()), (640 - TURN_DATAGRAMS, 0), "round {round}");
        clients.iter().for_each(|client| expect_refusals(client, 10..42, Code::AssetUnknown));
        // What came to nothing is remembered for a while.
        world.now.mono_ns += 10_000_000_000;
    }
    assert_eq!((world.shard.counters().datagram_replies, world.shard.counters().datagrams_waiting), (1_920, 0));
}
