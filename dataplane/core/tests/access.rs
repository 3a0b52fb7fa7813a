//! Keys and their limits through the seam: how much is admitted by how many shards, and what a reload changes.

mod world;

use dataplane_core::access::{Amendment, Gate, KeyDirectory, Sharing};
use dataplane_core::command::ShardCommand;
use dataplane_core::shard::{HttpConnection, StreamToken};
use shared::key::KeyId;
use shared::moment::Moment;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{KEY, SLOW_KEY, World, get, record};

/// Shards that share one key of this limit, each with one connection.
struct Fleet {
    shards: Vec<(World, HttpConnection)>,
    request: String,
}

impl Fleet {
    fn new(shards: u16, limit: u32) -> Self {
        let keys = Arc::new(KeyDirectory::build(vec![record(1, KEY, limit)], None, usize::from(shards)));
        let world = |index| World::sharing(Arc::clone(&keys), index, shards, 0);
        let connection = |index| HttpConnection::new(StreamToken(u64::from(index)));
        let shards = (0..shards).map(|index| (world(index), connection(index))).collect();
        Self { shards, request: get("/price?asset=BTC", KEY) }
    }

    /// One request to one shard, so long after the start; whether it is admitted.
    fn ask(&mut self, shard: usize, after_ns: u64) -> bool {
        let (world, connection) = &mut self.shards[shard];
        world.now.mono_ns = world::START.mono_ns + after_ns;
        world.output.clear();
        world.shard.serve_stream(world.now, connection, self.request.as_bytes(), &mut world.output);
        world.output.bytes().starts_with(b"HTTP/1.1 200")
    }

    /// Offers so many requests a second, evenly, for so many seconds; `pick` chooses the shard of each. Answers how many
    /// were admitted in each second, counted from the first request.
    fn offer(&mut self, per_second: u64, seconds: u64, pick: impl Fn(u64) -> usize) -> Vec<u64> {
        let mut admitted = vec![0; seconds as usize];
        for number in 0..per_second * seconds {
            let after_ns = number * 1_000_000_000 / per_second;
            admitted[(after_ns / 1_000_000_000) as usize] += u64::from(self.ask(pick(number), after_ns));
        }
        admitted
    }
}

#[track_caller]
fn check(limit: u32, shards: u16) {
    let wanted = u64::from(limit);
    let lease = (wanted / (128 * u64::from(shards))).max(1);
    // Large limits are slow to offer, so they get the load that tells most.
    let loads = [("steady", wanted, 3), ("half as much again", wanted * 3 / 2 + 1, 2), ("triple", wanted * 3, 3)];
    for (name, per_second, seconds) in loads.into_iter().filter(|(.., seconds)| limit < 10_000 || *seconds == 2) {
        let mut fleet = Fleet::new(shards, limit);
        // Shares of the shards that are neither equal nor in step.
        let pick = |number| ((number * number / 3 + number) % u64::from(shards)) as usize;
        let admitted = fleet.offer(per_second, seconds, pick);
        for (second, admitted) in admitted.iter().enumerate() {
            let what = format!("limit {limit}, {shards} shards, {name}, second {second}: {admitted}");
            assert!(*admitted <= wanted + lease * u64::from(shards), "{what}");
            assert!(*admitted * 100 >= wanted * 99, "{what}");
        }
    }
}

#[test]
fn small_limits_hold_exactly() {
    check(3, 1);
    check(3, 8);
}

#[test]
fn middling_limits_hold() {
    check(1_000, 1);
    check(1_000, 8);
}

#[test]
fn large_limits_hold() {
    check(100_000, 1);
    check(100_000, 8);
}

#[test]
fn a_burst_is_admitted_at_once_and_not_twice() {
    let mut fleet = Fleet::new(8, 1_000);
    let mut admitted = 0;
    for number in 0..5_000_u64 {
        admitted += u64::from(fleet.ask((number % 8) as usize, number));
    }
    assert_eq!(admitted, 1_000, "one burst finds every lease");
    assert!(!fleet.ask(0, 999_000_000));
    assert!(fleet.ask(0, 1_000_000_000));
}

#[test]
fn a_shard_that_falls_silent_keeps_no_more_than_its_lease() {
    let mut fleet = Fleet::new(8, 10_000);
    (1..8).for_each(|shard| assert!(fleet.ask(shard, 0)));
    let admitted = (0..20_000).filter(|number| fleet.ask(0, number * 10_000)).count();
    let lease = 10_000 / (128 * 8);
    assert!((10_000 - 7 * lease..10_000).contains(&admitted), "{admitted}");
}

#[test]
fn the_control_plane_takes_from_the_same_allowance() {
    let mut world = World::new();
    let (slow, now_ms) = (KeyId(2), world.now.mono_ms());
    assert_eq!(world.keys.remaining(slow, now_ms), Some(3));
    assert_eq!(world.keys.take_one(slow, now_ms), Some(2));
    assert_eq!(world.get("/price?asset=BTC", SLOW_KEY).status, 200);
    assert_eq!(world.keys.remaining(slow, now_ms), Some(1));
    assert_eq!(world.keys.take_one(slow, now_ms), Some(0));
    assert_eq!(world.keys.take_one(slow, now_ms), None);
    assert_eq!(world.get("/price?asset=BTC", SLOW_KEY).status, 429);
    assert_eq!((world.keys.take_one(KeyId(99), now_ms), world.keys.remaining(KeyId(99), now_ms)), (None, None));
}

#[test]
fn threads_that_take_at_once_get_no_more_than_there_is() {
    let keys = KeyDirectory::build(vec![record(1, KEY, 10_000)], None, 1);
    let take = || (0..5_000).filter(|_| keys.take_one(KeyId(1), 77_000).is_some()).count();
    let taken: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a count")).sum()
    });
    assert_eq!(taken, 10_000);
}

/// Four shards take leases while the control plane grants each window in two steps, having moved its start by some ms:
/// no more is admitted than was granted, or the one advance of a window that was granted less.
#[test]
fn shards_that_take_at_once_get_no_more_than_was_granted() {
    const WINDOWS: u64 = 70;
    let keys = Arc::new(KeyDirectory::build(vec![record(1, KEY, 1_280)], None, 4));
    keys.set_sharing(Sharing::Granted, 10_000);
    let grant = |window: u64| 20 + window as u32 % 7 * 100;
    // The time that all go by, ms; 0: it is over.
    let clock = AtomicU64::new(10_500);
    let take = || {
        let mut gate = Gate::new(Arc::clone(&keys), 4);
        let mut memo = gate.identify(KEY.as_bytes()).expect("the key");
        let mut admitted = 0_u32;
        while let now_ms @ 1.. = clock.load(Ordering::Acquire) {
            let now = Moment { mono_ns: now_ms * 1_000_000, wall_ms: 0 };
            match gate.admit(&mut memo, now).refused {
                None => admitted += 1,
                Some(_) => std::thread::yield_now(),
            }
        }
        admitted
    };
    let admitted: u32 = std::thread::scope(|scope| {
        let shards: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        let second = keys.second(KeyId(1)).expect("the key");
        for window in 0..WINDOWS {
            let now_ms = 10_500 + window * 1_000;
            clock.store(now_ms, Ordering::Release);
            let until = |used| {
                while second.state(now_ms).used < used {
                    std::thread::yield_now();
                }
            };
            until(1);
            let start_ms = now_ms - window % 2;
            second.shift(second.state(now_ms).start_ms, start_ms);
            second.grant(start_ms, grant(window) / 2, 0);
            second.grant(start_ms, grant(window), 0);
            until(grant(window));
        }
        clock.store(0, Ordering::Release);
        shards.into_iter().map(|shard| shard.join().expect("a count")).sum()
    });
    let granted: u32 = (0..WINDOWS).map(grant).sum();
    // What a shard still holds of a lease when the window ends is lost: 1 / 512 of the grant, and 1 at least.
    let (least, most) = (granted - 4 * 2 * WINDOWS as u32, granted);
    assert!((least..=most).contains(&admitted), "{admitted} of {granted}");
}

#[test]
fn a_reload_gives_nobody_a_fresh_second() {
    let mut world = World::new();
    (0..3).for_each(|_| assert_eq!(world.get("/price?asset=BTC", SLOW_KEY).status, 200));
    for round in 0..3 {
        // Others come and go, which moves every key's place in the directory.
        let mut records = world::records();
        records.rotate_left(round + 1);
        records.insert(0, record(100 + round as u32, &format!("newcomer {round}"), 3));
        world.use_keys(records);
        assert_eq!(world.get("/price?asset=BTC", SLOW_KEY).status, 429, "round {round}");
        assert_eq!(
            world.get("/price?asset=BTC", &format!("newcomer {round}")).status,
            200,
            "a fresh key, a fresh second"
        );
    }
    world.pass_ms(1_000);
    assert_eq!(world.get("/price?asset=BTC", SLOW_KEY).status, 200);
}

#[test]
fn a_lease_outlives_a_reload_and_is_given_back_when_the_limit_changes() {
    let mut world = World::with(vec![record(1, KEY, 1_280)], 1, 0);
    assert_eq!(world.get("/price?asset=BTC", KEY).status, 200);
    let now_ms = world.now.mono_ms();
    assert_eq!(world.keys.remaining(KeyId(1), now_ms), Some(1_270));
    world.use_keys(vec![record(2, SLOW_KEY, 1_280), record(1, KEY, 1_280)]);
    assert_eq!(world.get("/price?asset=BTC", KEY).status, 200);
    assert_eq!(world.keys.remaining(KeyId(1), now_ms), Some(1_270), "it is still used up");
    world.use_keys(vec![record(1, KEY, 640)]);
    assert_eq!(world.get("/price?asset=BTC", KEY).status, 200);
    assert_eq!(world.keys.remaining(KeyId(1), now_ms), Some(640 - 2 - 5), "given back, and a smaller one taken");
    world.use_keys(vec![record(1, KEY, 2)]);
    assert_eq!(world.get("/price?asset=BTC", KEY).status, 429);
}

/// One shard has changed over to the next directory, the other has not.
#[test]
fn shards_of_two_directories_count_in_one_second() {
    let mut fleet = Fleet::new(2, 1_280);
    let keys = Arc::clone(&fleet.shards[0].0.keys);
    let next = Arc::new(keys.amend([Amendment::Put(record(2, SLOW_KEY, 3))]));
    assert!(fleet.ask(0, 0) && fleet.ask(1, 0));
    fleet.shards[0].0.shard.apply(ShardCommand::Keys(Arc::clone(&next)));
    let admitted = (0..4_000).filter(|number| fleet.ask(number % 2, 0)).count();
    assert_eq!(admitted, 1_278);
    assert_eq!((next.remaining(KeyId(1), world::START.mono_ms()), fleet.ask(0, 0)), (Some(0), false));
    assert!(fleet.ask(0, 1_000_000_000) && fleet.ask(1, 1_000_000_000));
    next.refuse(KeyId(1));
    assert!(!fleet.ask(0, 2_000_000_000) && !fleet.ask(1, 2_000_000_000));
}

#[test]
fn a_key_is_over_at_its_millisecond() {
    for (expires_in_ms, status) in [(1, 200), (0, 401)] {
        let mut mortal = record(1, KEY, 1_000);
        mortal.expires_at_ms = world::START.wall_ms + expires_in_ms;
        let mut world = World::with(vec![mortal], 1, 0);
        assert_eq!(world.get("/price?asset=BTC", KEY).status, status);
    }
}

#[test]
fn a_revoked_key_ends_on_open_connections_too() {
    let mut world = World::new();
    let mut connections: Vec<_> = (0..3).map(|token| world.connect(token)).collect();
    let requests =
        [get("/price?asset=BTC", KEY), get("/price?asset=BTC&allow_stale=1", KEY), get("/prices?assets=BTC", KEY)];
    let mut ask = |world: &mut World| -> Vec<String> {
        let pairs = connections.iter_mut().zip(&requests);
        pairs
            .map(|(connection, request)| world.serve(connection, request.as_bytes()).reply().code().to_owned())
            .collect()
    };
    assert_eq!(ask(&mut world), ["", "", ""]);
    assert_eq!(ask(&mut world), ["", "", ""]);
    world.use_keys(world::records().split_off(1));
    assert_eq!(ask(&mut world), ["key_invalid", "key_invalid", "key_invalid"]);
    world.use_keys(world::records());
    assert_eq!(ask(&mut world), ["", "", ""]);
    world.use_keys(vec![{
        let mut record = record(1, KEY, 100);
        record.permissions = shared::key::Permissions(0);
        record
    }]);
    assert_eq!(ask(&mut world), ["not_permitted", "not_permitted", "not_permitted"]);
}

#[test]
fn what_a_connection_remembers_is_of_the_key_it_was_given() {
    let mut world = World::new();
    world.use_keys(vec![record(1, KEY, 1_000), record(2, SLOW_KEY, 1_000)]);
    let mut connection = world.connect(1);
    let ask = |world: &mut World, connection: &mut HttpConnection, key: &str| {
        let reply = world.serve(connection, get("/price?asset=BTC", key).as_bytes()).reply();
        let who = world.usage().first().map(|record| record.key);
        (reply.status, who)
    };
    assert_eq!(ask(&mut world, &mut connection, KEY), (200, Some(1)));
    assert_eq!(ask(&mut world, &mut connection, KEY), (200, Some(1)));
    assert_eq!(ask(&mut world, &mut connection, SLOW_KEY), (200, Some(2)));
    assert_eq!(ask(&mut world, &mut connection, "nobody's key"), (401, Some(0)));
    assert_eq!(ask(&mut world, &mut connection, SLOW_KEY), (200, Some(2)));
    assert_eq!(ask(&mut world, &mut connection, KEY), (200, Some(1)));
    // The same texts may belong to others after a reload.
    world.use_keys(vec![record(3, SLOW_KEY, 1_000), record(4, KEY, 1_000)]);
    assert_eq!(ask(&mut world, &mut connection, KEY), (200, Some(4)));
    assert_eq!(ask(&mut world, &mut connection, SLOW_KEY), (200, Some(3)));
    // A key that expires while the connection lives.
    let mut mortal = record(3, KEY, 1_000);
    mortal.expires_at_ms = world.now.wall_ms + 10;
    world.use_keys(vec![mortal]);
    assert_eq!(ask(&mut world, &mut connection, KEY).0, 200);
    world.pass_ms(11);
    assert_eq!(ask(&mut world, &mut connection, KEY).0, 401);
}

#[test]
fn header_blocks_of_any_length_are_served_alike() {
    let mut world = World::new();
    for length in (0..600).step_by(7) {
        let mut connection = world.connect(1);
        let padding = "p".repeat(length);
        let request = get("/price?asset=BTC", KEY).replace("test/1", &padding);
        for _ in 0..3 {
            assert_eq!(world.serve(&mut connection, request.as_bytes()).reply().status, 200, "{length}");
        }
        // One byte more or less is another block.
        for other in [request.replace("\r\n\r\n", "\r\nX: y\r\n\r\n"), request.replace("X-API-Key", "X-API-Kez")] {
            let status = if other.contains("Kez") { 401 } else { 200 };
            assert_eq!(world.serve(&mut connection, other.as_bytes()).reply().status, status, "{length}");
        }
        // A condition is never skipped, though all else is the same.
        let condition = request.replace("\r\n\r\n", "\r\nIf-None-Match: \"4711\"\r\n\r\n");
        assert_eq!(world.serve(&mut connection, condition.as_bytes()).reply().status, 304);
        assert_eq!(world.serve(&mut connection, request.as_bytes()).reply().status, 200);
    }
}

#[test]
fn directories_take_doubtful_records() {
    let mut twin = record(1, "twin", 5);
    twin.hash = record(9, SLOW_KEY, 1).hash;
    let records = vec![record(1, KEY, 0), twin, record(2, KEY, 9), record(3, SLOW_KEY, u32::MAX)];
    let directory = KeyDirectory::build(records, None, 0);
    assert_eq!(directory.len(), 2);
    assert_eq!(directory.find_text(KEY.as_bytes()).map(|record| (record.id.0, record.limit_per_second)), Some((1, 1)));
    let largest = directory.find_text(SLOW_KEY.as_bytes()).map(|record| (record.id.0, record.limit_per_second));
    assert_eq!(largest, Some((3, 16_000_000)));
    assert!(directory.find_text(b"").is_none() && directory.find_text(&[b'x'; 129]).is_none());
    assert!(directory.find_id(KeyId(2)).is_none() && directory.find_id(KeyId(0)).is_none());
    assert_eq!(format!("{directory:?}"), "KeyDirectory { keys: 2, .. }");
}

#[test]
fn many_keys_are_all_found_and_limited() {
    let records: Vec<_> = (1..=40_000).map(|id| record(id, &format!("key number {id}"), 2)).collect();
    let keys = Arc::new(KeyDirectory::build(records, None, 1));
    let mut world = World::sharing(Arc::clone(&keys), 0, 1, 0);
    // More keys in one second than the shard has places for leases: each still has its two requests, and no third.
    for status in [200, 200, 429] {
        for id in (1..=40_000_u32).step_by(if status == 429 { 997 } else { 1 }) {
            let reply = world.ask(&get("/price?asset=BTC", &format!("key number {id}")));
            assert!(reply.sent.starts_with(format!("HTTP/1.1 {status}").as_bytes()), "key {id}");
        }
    }
    // Changes of others give nobody a fresh second, though the shard's table of leases is full.
    for change in 0..100 {
        let newcomer = record(50_000 + change, &format!("newcomer {change}"), 2);
        world.keys = Arc::new(world.keys.amend([Amendment::Put(newcomer)]));
        world.shard.apply(ShardCommand::Keys(Arc::clone(&world.keys)));
        let id = change * 391 + 1;
        assert_eq!(world.get("/price?asset=BTC", &format!("key number {id}")).status, 429, "key {id}");
    }
    world.shard.apply(ShardCommand::Keys(Arc::new(KeyDirectory::build(Vec::new(), Some(&world.keys), 1))));
    assert_eq!(world.get("/price?asset=BTC", "key number 1").status, 401);
}
