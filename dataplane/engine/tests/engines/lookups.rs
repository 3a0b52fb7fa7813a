//! What a shard cannot answer by itself, through real sockets: what it asks of the control plane, for whom it lets the
//! request wait, and how each wait ends.

use crate::datagrams::send_train;
use crate::rig::{Client, KEY, PATIENCE, Reply, Rig, UDP_SECRET, Wish, eventually, get, on_each_engine, request};
use dataplane_core::command::{ShardCommand, ShardParameters};
use dataplane_core::limits::LOOKUP_WAIT_MS;
use dataplane_core::lookup::{Ask, AskKind, NotFound};
use dataplane_engine::{AskReceiver, EngineChoice};
use loadgen::frame::UdpKey;
use shared::asset::Symbol;
use shared::code::Code;
use shared::key::KeyId;
use shared::wire::ReplyFrame;
use std::collections::HashMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a request waits when nobody answers.
const LOOKUP_WAIT: Duration = Duration::from_millis(LOOKUP_WAIT_MS);

/// An asset that no directory holds.
const NOBODYS: &str = "NOBODYS";

const UDP_KEY: UdpKey = UdpKey { id: 1, secret: UDP_SECRET };

fn symbol(text: &str) -> Symbol {
    Symbol::new(text.as_bytes()).expect("a symbol")
}

/// Stands for the control plane: takes what the shards ask, and tells them what the test says.
struct Desk {
    asks: AskReceiver,
    /// Taken and not yet looked at.
    taken: Vec<Ask>,
    /// The newest lookup of each asset of each shard among those looked at.
    numbers: HashMap<(u16, Symbol), u32>,
}

impl Desk {
    fn of(rig: &Rig) -> Self {
        let asks = rig.plane.take_asks().expect("nobody has taken it");
        Self { asks, taken: Vec::new(), numbers: HashMap::new() }
    }

    /// The next word of each of so many shards about an asset; none of them says more than one.
    #[track_caller]
    fn asked(&mut self, count: usize) -> Vec<Ask> {
        let deadline = Instant::now() + PATIENCE;
        while self.taken.len() < count {
            assert!(Instant::now() < deadline, "asked for {:?} only", self.taken);
            self.asks.wait(&mut self.taken, Duration::from_millis(50));
        }
        assert_eq!(self.taken.len(), count, "{:?}", self.taken);
        let asks = std::mem::take(&mut self.taken);
        self.numbers.extend(asks.iter().map(|ask| ((ask.shard, ask.symbol), number_of(ask))));
        asks
    }

    /// The only shard asks for this asset and for nothing else.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let asks = self.asked(1);
        let kind = AskKind::Find { key: KeyId(1), number: number_of(&asks[0]), sequence: 0 };
        assert_eq!(asks, [Ask { symbol: symbol(text), shard: 0, kind }]);
    }

    /// Tells a shard what came of its newest lookup of this asset.
    fn tell(&self, rig: &Rig, shard: u16, text: &str, code: Code) {
        let symbol = symbol(text);
        let number = self.numbers.get(&(shard, symbol)).copied().unwrap_or(0);
        rig.plane.command_one(shard, ShardCommand::NotFound(Arc::from([NotFound { symbol, number, code }])));
    }
}

#[track_caller]
fn number_of(ask: &Ask) -> u32 {
    match ask.kind {
        AskKind::Find { number, .. } => number,
        AskKind::InUse => panic!("{ask:?}"),
    }
}

/// A rig of one shard without any price.
fn cold(engine: EngineChoice) -> Rig {
    Wish::of(engine).start()
}

fn json(asset: &str, id: u64) -> Vec<u8> {
    let pad = "x".repeat(100);
    format!("{{\"key\":\"{KEY}\",\"asset\":\"{asset}\",\"id\":{id},\"pad\":\"{pad}\"}}").into_bytes()
}

fn frame(asset: &str, id: u64) -> Vec<u8> {
    UDP_KEY.request(*symbol(asset).padded(), id, tuning::clock::now().wall_ms).to_vec()
}

/// One reply to a JSON datagram.
#[track_caller]
fn json_reply(socket: &UdpSocket) -> serde_json::Value {
    let mut bytes = [0; 2_048];
    let length = socket.recv(&mut bytes).expect("a reply");
    serde_json::from_slice(&bytes[..length]).expect("JSON")
}

/// Id and status of one reply to a binary datagram.
#[track_caller]
fn frame_reply(socket: &UdpSocket) -> (u64, u8) {
    let mut bytes = [0; 2_048];
    let length = socket.recv(&mut bytes).expect("a reply");
    let frame: ReplyFrame = bytemuck::pod_read_unaligned(&bytes[..length]);
    assert!(UDP_KEY.signed(&frame));
    (u64::from_le_bytes(frame.request_id), frame.status)
}

/// One client of each kind that asks for `asset`.
struct Askers {
    http: Client,
    json: UdpSocket,
    binary: UdpSocket,
}

impl Askers {
    fn of(rig: &Rig, asset: &str) -> Self {
        let askers = Self { http: rig.connect(), json: rig.datagrams(), binary: rig.datagrams() };
        askers.http.send(&request(asset, ""));
        askers.json.send(&json(asset, 7)).expect("sent");
        askers.binary.send(&frame(asset, 9)).expect("sent");
        askers
    }

    /// As above, when they wait: they and nobody else.
    fn waiting(rig: &Rig, asset: &str) -> Self {
        let askers = Self::of(rig, asset);
        rig.await_stats("they wait", |stats| {
            (stats.counters.waiting, stats.counters.datagrams_waiting, stats.counters.lookups_under_way) == (3, 2, 1)
        });
        askers
    }

    /// Each is given a price.
    #[track_caller]
    fn expect_price(mut self, asset: &str) {
        let reply = self.http.read().expect("an answer");
        assert_eq!((reply.status, reply.json()["asset"].as_str()), (200, Some(asset)));
        let reply = json_reply(&self.json);
        assert_eq!((reply["id"].as_u64(), reply["asset"].as_str()), (Some(7), Some(asset)), "{reply}");
        assert!(reply["price"].is_string(), "{reply}");
        assert_eq!(frame_reply(&self.binary), (9, 0));
    }

    /// Each is told this.
    #[track_caller]
    fn expect_code(mut self, code: Code) {
        let reply = self.http.read().expect("an answer");
        check_refused(&reply, code);
        let reply = json_reply(&self.json);
        assert_eq!((reply["id"].as_u64(), reply["code"].as_str()), (Some(7), Some(code.name())), "{reply}");
        assert_eq!(frame_reply(&self.binary), (9, code.number()));
    }
}

#[track_caller]
fn check_refused(reply: &Reply, code: Code) {
    let said = (reply.status, reply.json()["code"].as_str().map(str::to_owned));
    assert_eq!(said, (code.status(), Some(code.name().to_owned())), "{}", reply.body);
}

#[test]
fn a_cold_asset_is_waited_for_and_answered_by_its_tick() {
    on_each_engine(|engine| {
        let rig = cold(engine);
        let mut desk = Desk::of(&rig);
        let askers = Askers::waiting(&rig, "BTC");
        desk.expect("BTC");
        // Another asset's price is not what they wait for.
        rig.quote(1);
        rig.quote(0);
        askers.expect_price("BTC");
        rig.await_stats("all three are counted", |stats| stats.counters.answered == 3 && stats.counters.waiting == 0);
    });
}

#[test]
fn where_there_is_nothing_each_is_told_so() {
    on_each_engine(|engine| {
        let rig = cold(engine);
        let mut desk = Desk::of(&rig);
        for (asset, code) in [(NOBODYS, Code::AssetUnknown), ("BTC", Code::PriceUnavailable), ("ETH", Code::Overloaded)]
        {
            let askers = Askers::waiting(&rig, asset);
            desk.expect(asset);
            desk.tell(&rig, 0, asset, code);
            askers.expect_code(code);
        }
    });
}

#[test]
fn a_wait_that_nobody_ends_is_ended_by_the_clock() {
    on_each_engine(|engine| {
        let rig = cold(engine);
        let began = Instant::now();
        let askers = Askers::waiting(&rig, "BTC");
        askers.expect_code(Code::PriceUnavailable);
        assert!(began.elapsed() >= LOOKUP_WAIT, "given up after {:?}", began.elapsed());
    });
}

#[test]
fn each_shard_asks_once_and_is_told_by_itself() {
    on_each_engine(|engine| {
        let rig = Wish { shards: 2, ..Wish::of(engine) }.start();
        let mut desk = Desk::of(&rig);
        assert!(rig.plane.take_asks().is_none(), "once");
        let mut clients: Vec<Client> = (0..64).map(|_| rig.connect()).collect();
        clients.iter().for_each(|client| client.send(&request(NOBODYS, "")));
        let mut asks = desk.asked(2);
        asks.sort_unstable_by_key(|ask| ask.shard);
        for (ask, shard) in asks.iter().zip(0..) {
            let kind = AskKind::Find { key: KeyId(1), number: number_of(ask), sequence: 0 };
            assert_eq!(*ask, Ask { symbol: symbol(NOBODYS), shard, kind });
        }
        // Of no such shard there is nothing to tell.
        desk.tell(&rig, 2, NOBODYS, Code::AssetUnknown);
        desk.tell(&rig, 1, NOBODYS, Code::AssetUnknown);
        desk.tell(&rig, 0, NOBODYS, Code::AssetUnknown);
        clients.iter_mut().for_each(|client| check_refused(&client.read().expect("an answer"), Code::AssetUnknown));
    });
}

#[test]
fn whoever_takes_the_words_waits_no_longer_than_it_says() {
    on_each_engine(|engine| {
        let rig = cold(engine);
        let mut asks = rig.plane.take_asks().expect("nobody has taken it");
        let has_waited = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&has_waited);
        let waiter = std::thread::spawn(move || {
            let mut taken = Vec::new();
            asks.wait(&mut taken, Duration::from_millis(1));
            assert_eq!(taken, []);
            told.store(true, Ordering::Release);
            // Nothing but the word itself ends this: it would sleep for far longer than a test may take.
            while taken.is_empty() {
                asks.wait(&mut taken, 100 * PATIENCE);
            }
            taken
        });
        eventually("a short wait is over", || has_waited.load(Ordering::Acquire).then_some(()));
        let client = rig.connect();
        client.send(&request("BTC", ""));
        eventually("it is woken", || waiter.is_finished().then_some(()));
        assert_eq!(waiter.join().expect("no panic").len(), 1);
    });
}

#[test]
fn others_are_served_while_some_wait() {
    on_each_engine(|engine| {
        let rig = cold(engine);
        let mut desk = Desk::of(&rig);
        rig.quote(1);
        let mut other = rig.connect();
        eventually("a price", || (rig.stats().counters.ticks > 0).then_some(()));
        assert_eq!(other.price("ETH").status, 200);
        let askers = Askers::waiting(&rig, "BTC");
        desk.expect("BTC");
        for id in 0..50 {
            assert_eq!(other.price("ETH").status, 200);
            // The same peers too: a datagram's answer waits for no other's.
            askers.json.send(&json("ETH", id)).expect("sent");
            assert_eq!(json_reply(&askers.json)["id"].as_u64(), Some(id));
            askers.binary.send(&frame("ETH", id)).expect("sent");
            assert_eq!(frame_reply(&askers.binary), (id, 0));
        }
        rig.quote(0);
        askers.expect_price("BTC");
    });
}

#[test]
fn what_is_pipelined_behind_a_lookup_is_answered_after_it() {
    on_each_engine(|engine| {
        let rig = cold(engine);
        let mut desk = Desk::of(&rig);
        rig.quote(1);
        eventually("a price", || (rig.stats().counters.ticks > 0).then_some(()));
        let mut client = rig.connect();
        let (eth, two) = (request("ETH", ""), get("/prices?assets=BTC,ETH"));
        client.send(&format!("{eth}{}{}{two}{}", request(NOBODYS, ""), request("BTC", ""), eth.repeat(300)));
        assert_eq!(client.read().expect("the one before").json()["asset"], "ETH");
        // One after the other: the second is not read before the first is over.
        desk.expect(NOBODYS);
        desk.tell(&rig, 0, NOBODYS, Code::AssetUnknown);
        check_refused(&client.read().expect("the first that waited"), Code::AssetUnknown);
        desk.expect("BTC");
        rig.quote(0);
        assert_eq!(client.read().expect("the second").json()["asset"], "BTC");
        assert_eq!(client.read().expect("both").json()["prices"].as_array().map(Vec::len), Some(2));
        for index in 0..300 {
            assert_eq!(client.read().unwrap_or_else(|| panic!("no answer {index}")).json()["asset"], "ETH");
        }
    });
}

#[test]
fn several_assets_are_waited_for_together() {
    on_each_engine(|engine| {
        let rig = cold(engine);
        let mut desk = Desk::of(&rig);
        let mut client = rig.connect();
        client.send(&get(&format!("/prices?assets=BTC,{NOBODYS},ETH&ignore_unknown=1")));
        let mut asked: Vec<Symbol> = desk.asked(3).iter().map(|ask| ask.symbol).collect();
        asked.sort_unstable_by_key(|symbol| *symbol.padded());
        assert_eq!(asked, [symbol("BTC"), symbol("ETH"), symbol(NOBODYS)]);
        rig.quote(1);
        rig.quote(0);
        desk.tell(&rig, 0, NOBODYS, Code::AssetUnknown);
        let reply = client.read().expect("an answer").json();
        assert_eq!((reply["prices"].as_array().map(Vec::len), &reply["missing"][0]), (Some(2), &NOBODYS.into()));
        let newest =
            reply["prices"].as_array().and_then(|all| all.iter().filter_map(|one| one["sequence"].as_u64()).max());
        assert_eq!(reply["generation"].as_u64(), newest, "{reply}");
    });
}

#[test]
fn who_wants_a_newer_price_has_a_cold_asset_looked_up() {
    on_each_engine(|engine| {
        let rig = cold(engine);
        let mut desk = Desk::of(&rig);
        let mut client = rig.connect();
        client.send(&request("BTC", "&newer_than=0&wait_ms=30000"));
        desk.expect("BTC");
        // That there is none now does not end the wait: one may come.
        desk.tell(&rig, 0, "BTC", Code::PriceUnavailable);
        rig.await_stats("told", |stats| (stats.counters.lookups_fruitless, stats.counters.waiting) == (1, 1));
        rig.quote(0);
        let newest = client.read().expect("an answer").sequence();
        client.send(&request("BTC", &format!("&newer_than={newest}&wait_ms=20")));
        assert_eq!(client.read().expect("an answer").status, 304);
        client.send(&request("ETH", "&newer_than=0&wait_ms=20"));
        desk.expect("ETH");
        assert_eq!(client.read().expect("an answer").status, 503);
    });
}

#[test]
fn clients_that_leave_while_they_wait_harm_nobody() {
    on_each_engine(|engine| {
        let rig = cold(engine);
        let mut desk = Desk::of(&rig);
        let gone: Vec<Askers> = (0..10).map(|_| Askers::of(&rig, "BTC")).collect();
        desk.expect("BTC");
        let stays = Askers::of(&rig, "BTC");
        rig.await_stats("all wait", |stats| stats.counters.waiting == 33);
        for askers in &gone {
            socket2::SockRef::from(askers.http.socket()).set_linger(Some(Duration::ZERO)).expect("an option");
        }
        drop(gone);
        rig.await_stats("they are forgotten", |stats| stats.connections == 1);
        rig.quote(0);
        stays.expect_price("BTC");
        // What comes afterwards is answered as ever: the refusals of ports that are closed were nobody's fault.
        Askers::of(&rig, "BTC").expect_price("BTC");
        rig.await_stats("nobody waits", |stats| stats.counters.waiting == 0);
    });
}

/// Clients that wait for one asset at once: more than a shard has reply buffers.
const CROWD: usize = 10_000;

/// What a client of a crowd is told: the price, or that none came when it has waited for so long. Whether it was a price.
#[track_caller]
fn is_price(reply: &Reply, began: Instant) -> bool {
    if reply.status != 200 {
        // So many may have taken their time, on a slow machine.
        check_refused(reply, Code::PriceUnavailable);
        assert!(began.elapsed() >= LOOKUP_WAIT, "given up after {:?}", began.elapsed());
    }
    reply.status == 200
}

#[test]
fn a_crowd_that_waits_for_one_asset_is_answered_to_the_last() {
    let files = tuning::sockets::raise_nofile().expect("the limit is readable").soft;
    if files.is_some_and(|files| files < 3 * CROWD as u64) {
        return eprintln!("skipped: only {files:?} open files are allowed");
    }
    on_each_engine(|engine| {
        let rig = cold(engine);
        let mut desk = Desk::of(&rig);
        let mut crowd: Vec<Client> = (0..CROWD).map(|_| rig.connect()).collect();
        rig.await_stats("all are taken in", |stats| stats.connections == CROWD as u64);
        let (began, text) = (Instant::now(), request("BTC", ""));
        crowd.iter().for_each(|client| client.send(&text));
        desk.expect("BTC");
        rig.await_stats("all wait", |stats| stats.counters.waiting == CROWD as u64 || began.elapsed() >= LOOKUP_WAIT);
        rig.quote(0);
        let mut priced = 0;
        for (index, client) in crowd.iter_mut().enumerate() {
            let reply = client.read().unwrap_or_else(|| panic!("client {index} was closed instead"));
            priced += usize::from(is_price(&reply, began));
        }
        assert!(priced > 0, "a price for none of them");
        assert_eq!(rig.stats().closed_by_us, 0);
        // And on the same connections afterwards.
        assert!(crowd.iter_mut().take(50).all(|client| client.price("BTC").status == 200));
    });
}

/// Datagrams of each of so many clients: together several turns of a shard.
const TRAIN: u64 = 64;
const TRAINS: usize = 40;

#[test]
fn datagrams_that_wait_in_thousands_are_all_answered_together() {
    on_each_engine(|engine| {
        let parameters = ShardParameters { datagrams_waiting: 16_384, ..ShardParameters::default() };
        let rig = Wish { parameters, ..Wish::of(engine) }.start();
        let mut desk = Desk::of(&rig);
        let clients: Vec<UdpSocket> = (0..TRAINS).map(|_| rig.datagrams()).collect();
        let began = Instant::now();
        for (number, client) in (0..).zip(&clients) {
            send_train(client, &(0..TRAIN).map(|id| frame("BTC", 100 * number + id)).collect::<Vec<_>>());
        }
        desk.expect("BTC");
        rig.await_stats("all wait", |stats| {
            stats.counters.datagrams_waiting == TRAIN * TRAINS as u64 || began.elapsed() >= LOOKUP_WAIT
        });
        rig.quote(0);
        for (number, client) in (0..).zip(&clients) {
            let mut replies: Vec<(u64, u8)> = (0..TRAIN).map(|_| frame_reply(client)).collect();
            replies.sort_unstable();
            for ((id, status), expected) in replies.into_iter().zip(100 * number..) {
                assert_eq!(id, expected);
                assert!(status == 0 || began.elapsed() >= LOOKUP_WAIT, "status {status}");
            }
        }
        rig.await_stats("all left together with others", |stats| stats.datagrams_grouped == TRAIN * TRAINS as u64);
        assert_eq!((rig.stats().datagrams_unsent, rig.stats().counters.datagrams_waiting), (0, 0));
    });
}

#[test]
fn more_datagrams_than_may_wait_are_told_at_once() {
    on_each_engine(|engine| {
        // Half of which one key may have.
        let parameters = ShardParameters { datagrams_waiting: 20, ..ShardParameters::default() };
        let rig = Wish { parameters, ..Wish::of(engine) }.start();
        let client = rig.datagrams();
        send_train(&client, &(0..16).map(|id| frame("BTC", id)).collect::<Vec<_>>());
        for id in 10..16 {
            assert_eq!(frame_reply(&client), (id, Code::Overloaded.number()));
        }
        rig.quote(0);
        let mut ids: Vec<_> = (0..10).map(|_| frame_reply(&client)).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..10).map(|id| (id, 0)).collect::<Vec<_>>());
        // Their places are free again.
        send_train(&client, &(20..30).map(|id| frame("ETH", id)).collect::<Vec<_>>());
        rig.await_stats("they wait", |stats| stats.counters.datagrams_waiting == 10);
    });
}

#[test]
fn nobody_waits_on_when_the_node_is_about_to_go() {
    on_each_engine(|engine| {
        let rig = cold(engine);
        let askers = Askers::waiting(&rig, "BTC");
        rig.plane.command(&ShardCommand::StopAccepting);
        askers.expect_code(Code::Draining);
        // Whoever asks now is told at once.
        let socket = rig.datagrams();
        socket.send(&frame("ETH", 1)).expect("sent");
        assert_eq!(frame_reply(&socket), (1, Code::Draining.number()));
        assert_eq!(rig.stats().counters.lookups_begun, 1);
    });
}
