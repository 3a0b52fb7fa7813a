//! A shard with a clock that stands still, a few assets and keys, and the other ends of its rings.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use dataplane_core::access::{KeyDirectory, hash_text};
use dataplane_core::command::{ShardCommand, ShardParameters};
use dataplane_core::limits::ASKS_WAITING_MAX;
use dataplane_core::lookup::{Ask, AskKind, NotFound};
use dataplane_core::reply::ReplyBuffer;
use dataplane_core::shard::{
    DatagramStep, HttpConnection, ReadyList, Shard, ShardSetup, StreamStep, StreamToken, Then,
};
use rtrb::{Consumer, Producer, RingBuffer};
use shared::asset::{AssetDirectory, AssetId, Symbol};
use shared::code::Code;
use shared::key::{KeyId, KeyRecord, Permissions};
use shared::limits::{DATAGRAM_OUT_MAX, TICK_RING_CAPACITY, USAGE_RING_CAPACITY};
use shared::moment::Moment;
use shared::tick::{SPREAD_UNKNOWN, TICK_STALE, Tick};
use shared::usage::UsageRecord;
use shared::venue::VenueSet;
use shared::wire::{FRAME_SIZE, KIND_PRICE, REQUEST_MAC_COVERS, REQUEST_MAGIC, VERSION};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::collections::HashMap;
use std::hash::Hasher;
use std::net::SocketAddr;
use std::sync::Arc;

/// A key with ten million requests a second.
pub const KEY: &str = "tb_test_0123456789abcdefghijklmnopqrstuv";
/// A key with three.
pub const SLOW_KEY: &str = "tb_slow_0123456789abcdefghijklmnopqrstuv";
/// A key that may not read prices.
pub const REPORT_KEY: &str = "tb_rept_0123456789abcdefghijklmnopqrstuv";
/// A key that has expired.
pub const OLD_KEY: &str = "tb_old__0123456789abcdefghijklmnopqrstuv";
/// A key whose month is used up.
pub const SPENT_KEY: &str = "tb_spnt_0123456789abcdefghijklmnopqrstuv";

/// The number of a test key: its place in this list, from 1.
pub const KEYS: [&str; 5] = [KEY, SLOW_KEY, REPORT_KEY, OLD_KEY, SPENT_KEY];

/// 2026-11-01 02:26:40 UTC.
pub const START: Moment = Moment { mono_ns: 5_000_000_000_000, wall_ms: 1_793_500_000_000 };

/// The UDP secret of the key with this number.
pub fn secret(id: u32) -> [u8; 16] {
    let mut secret = *b"udp secret 0000!";
    secret[11..15].copy_from_slice(&id.to_be_bytes());
    secret
}

/// A record of `text`, number `id`.
pub fn record(id: u32, text: &str, limit_per_second: u32) -> KeyRecord {
    KeyRecord {
        id: KeyId(id),
        hash: hash_text(text.as_bytes()),
        limit_per_second,
        expires_at_ms: 0,
        permissions: Permissions(Permissions::PRICES),
        udp_secret: secret(id),
        rank: 3,
    }
}

/// The records of all test keys.
pub fn records() -> Vec<KeyRecord> {
    let mut records: Vec<KeyRecord> = KEYS.iter().zip(1..).map(|(text, id)| record(id, text, 10_000_000)).collect();
    records[1].limit_per_second = 3;
    records[2].permissions = Permissions(Permissions::REPORTS);
    records[3].expires_at_ms = START.wall_ms - 1;
    records
}

/// Assets 0 to 4: BTC, ETH, DOGE (gets no price), OLD (stale), RENDER; then `more` prewarmed ones called A0, A1, ….
pub fn assets(more: usize) -> AssetDirectory {
    let mut directory = AssetDirectory::new();
    let extra = (0..more).map(|number| format!("A{number}"));
    for name in ["BTC", "ETH", "DOGE", "OLD", "RENDER"].into_iter().map(str::to_owned).chain(extra) {
        let symbol = Symbol::new(name.as_bytes()).expect("a symbol");
        directory.add(symbol, true, VenueSet::EMPTY).expect("room");
    }
    directory
}

/// A price of asset number `asset`: five venues, in dollars and cents.
pub fn tick(asset: usize, sequence: u64, cents: i64) -> Tick {
    Tick {
        mantissa: cents,
        sequence,
        exchange_time_ms: START.wall_ms - 60,
        received_time_ms: START.wall_ms - 37,
        received_mono_ns: START.mono_ns - 37_000_000,
        published_mono_ns: START.mono_ns - 36_000_000,
        spread_centibps: if asset == 0 { 180 } else { SPREAD_UNKNOWN },
        asset: AssetId::new(asset).expect("an id").number(),
        flags: if asset == 3 { TICK_STALE } else { 0 },
        venues: 0b11111,
        exponent: -2,
        currency: 1,
        source: 0,
        tier: 0,
        prompt: 0,
        reserved: 0,
    }
}

/// A shard and everything around it.
pub struct World {
    pub shard: Shard,
    pub now: Moment,
    pub ticks: Producer<Tick>,
    pub usage: Consumer<UsageRecord>,
    pub asked: Consumer<Ask>,
    /// The newest lookup of each asset among what was taken out of it.
    pub numbers: HashMap<Symbol, u32>,
    /// Whether what is asked for is at once said not to be found, as if no venue had it. So it begins.
    pub finds_nothing: bool,
    pub ready: ReadyList,
    pub output: ReplyBuffer,
    pub keys: Arc<KeyDirectory>,
}

/// What became of a request: the bytes sent, and the last step.
pub struct Outcome {
    pub sent: Vec<u8>,
    pub step: StreamStep,
    /// Input that was not consumed.
    pub rest: Vec<u8>,
}

impl World {
    /// The usual world.
    pub fn new() -> Self {
        Self::with(records(), 1, 0)
    }

    /// A world of these keys, of so many shards and assets.
    pub fn with(records: Vec<KeyRecord>, shards: u16, more_assets: usize) -> Self {
        let keys = Arc::new(KeyDirectory::build(records, None, usize::from(shards)));
        if let Some(spent) = keys.find_text(SPENT_KEY.as_bytes()) {
            keys.set_month_used_up(spent.id, true);
        }
        Self::sharing(keys, 0, shards, more_assets)
    }

    /// A world that is one of several shards with the same keys.
    pub fn sharing(keys: Arc<KeyDirectory>, index: u16, shards: u16, more_assets: usize) -> Self {
        Self::counting(keys, index, shards, more_assets, true)
    }

    /// The same, which need not count usage.
    pub fn counting(keys: Arc<KeyDirectory>, index: u16, shards: u16, more_assets: usize, counts_usage: bool) -> Self {
        let (ticks, ticks_out) = RingBuffer::new(TICK_RING_CAPACITY);
        let (usage_in, usage) = RingBuffer::new(USAGE_RING_CAPACITY);
        let (asks, asked) = RingBuffer::new(ASKS_WAITING_MAX);
        let shard = Shard::new(ShardSetup {
            index,
            shards,
            assets: Arc::new(assets(more_assets)),
            keys: Arc::clone(&keys),
            parameters: ShardParameters::default(),
            ticks: ticks_out,
            usage: usage_in,
            asks,
            counts_usage,
            hash_seed: 42,
        });
        let (ready, output) = (ReadyList::new(), ReplyBuffer::new());
        let (now, numbers) = (START, HashMap::new());
        let mut world = Self { shard, now, ticks, usage, asked, numbers, finds_nothing: true, ready, output, keys };
        world.publish(tick(0, 4_711, 6_712_345));
        world.publish(tick(1, 4_712, 345_678));
        world.publish(tick(3, 4_713, 100));
        world.publish(tick(4, 4_714, 512));
        for number in 0..more_assets {
            world.publish(tick(5 + number, 4_715 + number as u64, 1_000 + number as i64));
        }
        world
    }

    /// Sends a tick and has the shard take it.
    pub fn publish(&mut self, tick: Tick) {
        self.ticks.push(tick).expect("room in the ring");
        self.shard.drain_feed(self.now, &mut self.ready);
    }

    /// Moves the clock.
    pub fn pass_ms(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    pub fn connect(&self, token: u64) -> HttpConnection {
        HttpConnection::new(StreamToken(token))
    }

    /// Serves `input` as an engine does, until the shard wants something else than an emptier output.
    pub fn serve(&mut self, connection: &mut HttpConnection, input: &[u8]) -> Outcome {
        let (mut sent, mut at) = (Vec::new(), 0);
        loop {
            self.output.clear();
            let step = self.shard.serve_stream(self.now, connection, &input[at..], &mut self.output);
            sent.extend_from_slice(self.output.bytes());
            at += step.consumed;
            if step.then == Then::Wait && self.finds_nothing && self.find_nothing() > 0 {
                self.ready.streams.retain(|ready| *ready != connection.token());
                continue;
            }
            if step.then != Then::Write {
                return Outcome { sent, step, rest: input[at..].to_vec() };
            }
            assert!(!self.output.is_empty(), "asked to write nothing");
            assert!(at < input.len(), "asked to be called again without input");
        }
    }

    /// Serves `input` on a new connection and closes it.
    pub fn ask(&mut self, input: &str) -> Outcome {
        let mut connection = self.connect(1);
        let outcome = self.serve(&mut connection, input.as_bytes());
        self.shard.close_stream(&mut connection);
        outcome
    }

    /// Takes out what has been asked for.
    pub fn asks(&mut self) -> Vec<Ask> {
        let asks: Vec<Ask> = std::iter::from_fn(|| self.asked.pop().ok()).collect();
        self.numbers.extend(asks.iter().filter_map(lookup_of));
        asks
    }

    /// The newest lookup of an asset that was asked for, or 0 if none was.
    pub fn number(&mut self, symbol: Symbol) -> u32 {
        let waiting = self.asked.read_chunk(self.asked.slots()).expect("so many are there");
        let (first, second) = waiting.as_slices();
        let waiting = first.iter().chain(second).filter_map(lookup_of).rfind(|(of, _)| *of == symbol);
        waiting.map(|(_, number)| number).or(self.numbers.get(&symbol).copied()).unwrap_or(0)
    }

    /// Says that these were not found when they were looked for last.
    pub fn tell_nothing(&mut self, symbols: impl IntoIterator<Item = Symbol>, code: Code) {
        let numbered = symbols.into_iter().map(|symbol| (symbol, self.number(symbol))).collect::<Vec<_>>();
        self.tell_nothing_of(numbered, code);
    }

    /// Says that these lookups came to nothing.
    pub fn tell_nothing_of(&mut self, lookups: impl IntoIterator<Item = (Symbol, u32)>, code: Code) {
        let not_found = lookups.into_iter().map(|(symbol, number)| NotFound { symbol, number, code }).collect();
        self.shard.apply(ShardCommand::NotFound(not_found));
        assert!(self.shard.feed_is_empty() || self.shard.drain_feed(self.now, &mut self.ready) == 0);
    }

    /// Answers what has been asked for: nobody knows it. How much that was.
    fn find_nothing(&mut self) -> usize {
        let asks = self.asks().into_iter().filter(|ask| matches!(ask.kind, AskKind::Find { .. }));
        let symbols: Vec<Symbol> = asks.map(|ask| ask.symbol).collect();
        let count = symbols.len();
        self.tell_nothing(symbols, Code::AssetUnknown);
        count
    }

    /// `GET target` with `key`.
    pub fn get(&mut self, target: &str, key: &str) -> Reply {
        self.ask(&get(target, key)).reply()
    }

    /// Serves a datagram; empty for silence.
    pub fn datagram(&mut self, request: &[u8]) -> Vec<u8> {
        self.datagram_from(40_000, request)
    }

    /// Serves a datagram that comes from this port.
    pub fn datagram_from(&mut self, port: u16, request: &[u8]) -> Vec<u8> {
        let mut reply = [0xAA; DATAGRAM_OUT_MAX];
        let from = SocketAddr::from(([127, 0, 0, 1], port));
        let mut step = self.shard.serve_datagram(self.now, from, request, &mut reply);
        while let DatagramStep::Wait(ticket) = step
            && self.finds_nothing
        {
            assert!(self.find_nothing() > 0, "it waits for what is asked for");
            self.ready.datagrams.retain(|ready| *ready != ticket);
            step = self.shard.serve_waiting(self.now, ticket, &mut reply);
        }
        match step {
            DatagramStep::Wait(_) | DatagramStep::Silent => Vec::new(),
            DatagramStep::Reply(length) => reply[..length].to_vec(),
        }
    }

    /// Uses other keys from now on.
    pub fn use_keys(&mut self, records: Vec<KeyRecord>) {
        self.keys = Arc::new(KeyDirectory::build(records, Some(&self.keys), 1));
        self.shard.apply(ShardCommand::Keys(Arc::clone(&self.keys)));
    }

    /// Everything that has been metered so far.
    pub fn usage(&mut self) -> Vec<UsageRecord> {
        self.shard.idle_tick(self.now, &mut self.ready);
        std::iter::from_fn(|| self.usage.pop().ok()).collect()
    }
}

/// Asset and number of the lookup that a word from a shard begins.
pub fn lookup_of(ask: &Ask) -> Option<(Symbol, u32)> {
    match ask.kind {
        AskKind::Find { number, .. } => Some((ask.symbol, number)),
        AskKind::InUse => None,
    }
}

/// `GET target` with `key`, as a program sends it.
pub fn get(target: &str, key: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test:8080\r\nUser-Agent: test/1\r\nX-API-Key: {key}\r\n\r\n")
}

/// A binary datagram of this key for `symbol`, with a good MAC.
pub fn binary(id: u32, secret: &[u8; 16], symbol: &str, client_time_ms: u64) -> Vec<u8> {
    let mut frame = vec![0; FRAME_SIZE];
    frame[..2].copy_from_slice(&REQUEST_MAGIC.to_le_bytes());
    (frame[2], frame[3]) = (VERSION, KIND_PRICE);
    frame[4..8].copy_from_slice(&id.to_le_bytes());
    frame[8..16].copy_from_slice(&0x0102_0304_0506_0708_u64.to_le_bytes());
    frame[16..24].copy_from_slice(&client_time_ms.to_le_bytes());
    frame[24..24 + symbol.len()].copy_from_slice(symbol.as_bytes());
    sign(&mut frame, secret);
    frame
}

/// Gives a request frame the MAC that its bytes should have.
pub fn sign(frame: &mut [u8], secret: &[u8; 16]) {
    let mac = mac(secret, &frame[..REQUEST_MAC_COVERS]);
    frame[REQUEST_MAC_COVERS..REQUEST_MAC_COVERS + 16].copy_from_slice(&mac);
}

/// SipHash-2-4-128, as a client computes it.
pub fn mac(secret: &[u8; 16], covered: &[u8]) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write(covered);
    hasher.finish128().as_bytes()
}

/// One parsed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The `code` of a problem document; the empty text of anything else.
    pub fn code(&self) -> &str {
        let is_problem = self.field("Content-Type") == Some("application/problem+json");
        let after = self.body.split("\"code\":\"").nth(1).filter(|_| is_problem);
        after.and_then(|rest| rest.split('"').next()).unwrap_or("")
    }
}

impl Outcome {
    /// The one answer there was.
    pub fn reply(&self) -> Reply {
        let mut replies = self.replies(false);
        assert_eq!(replies.len(), 1, "{}", String::from_utf8_lossy(&self.sent));
        replies.remove(0)
    }

    /// All answers; `is_head`: to `HEAD` requests.
    pub fn replies(&self, is_head: bool) -> Vec<Reply> {
        let mut rest = std::str::from_utf8(&self.sent).expect("text");
        let mut replies = Vec::new();
        while !rest.is_empty() {
            let (head, after) = rest.split_once("\r\n\r\n").expect("a whole head");
            let mut lines = head.split("\r\n");
            let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
            let fields: Vec<(String, String)> = lines
                .map(|line| line.split_once(": ").expect("a field"))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let length = fields
                .iter()
                .find(|(name, _)| name == "Content-Length")
                .map_or(0, |(_, value)| value.parse::<usize>().expect("a length"));
            let (body, more) = after.split_at(if is_head { 0 } else { length });
            replies.push(Reply { status: status.parse().expect("a number"), fields, body: body.to_owned() });
            rest = more;
        }
        replies
    }
}
