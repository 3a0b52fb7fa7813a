//! A directory that is amended: what is found, whose second goes on, and that no two keys share one.

mod world;

use dataplane_core::access::{Amendment, KeyDirectory};
use dataplane_core::command::ShardCommand;
use dataplane_core::shard::Then;
use shared::code::Code;
use shared::key::{KeyId, KeyRecord};
use std::collections::BTreeMap;
use std::sync::Arc;
use world::{KEY, World, binary, get, record, secret};

const NOW_MS: u64 = 77_000;

/// Key `id` with a text of its own.
fn key(id: u32) -> KeyRecord {
    record(id, &format!("key {id}"), 3)
}

/// Key `id` with another text than its first.
fn renewed(id: u32) -> KeyRecord {
    record(id, &format!("key {id} renewed"), 5)
}

fn put(record: KeyRecord) -> Amendment {
    Amendment::Put(record)
}

fn remove(id: u32) -> Amendment {
    Amendment::Remove(KeyId(id))
}

/// Who is found by the texts `key 1` … `key 9` and their renewed ones, and that the same are found by number.
#[track_caller]
fn check(keys: &KeyDirectory, expected: &[&str]) {
    let texts = (1..=9).flat_map(|id| [format!("key {id}"), format!("key {id} renewed")]);
    let found: Vec<String> = texts.filter(|text| keys.find_text(text.as_bytes()).is_some()).collect();
    assert_eq!(found, expected);
    assert_eq!(keys.len(), expected.len());
    let mut by_text: Vec<u32> = found.iter().filter_map(|text| Some(keys.find_text(text.as_bytes())?.id.0)).collect();
    let mut listed: Vec<u32> = keys.records().map(|record| record.id.0).collect();
    let by_id: Vec<u32> = (0..=99).filter(|id| keys.find_id(KeyId(*id)).is_some()).collect();
    by_text.sort_unstable();
    listed.sort_unstable();
    assert_eq!((&by_text, &listed), (&by_id, &by_id));
    assert!(by_id.iter().all(|id| keys.find_id(KeyId(*id)).is_some_and(|record| record.id.0 == *id)));
}

fn one_to_three() -> KeyDirectory {
    KeyDirectory::build((1..=3).map(key).collect(), None, 1)
}

#[test]
fn amendments_are_seen_in_place_of_what_they_change() {
    let keys = one_to_three();
    check(&keys.amend([]), &["key 1", "key 2", "key 3"]);
    check(&keys.amend([put(key(4))]), &["key 1", "key 2", "key 3", "key 4"]);
    check(&keys.amend([remove(2)]), &["key 1", "key 3"]);
    check(&keys.amend([remove(9)]), &["key 1", "key 2", "key 3"]);
    check(&keys.amend([put(renewed(2))]), &["key 1", "key 2 renewed", "key 3"]);
    check(&keys.amend([remove(2), put(renewed(2))]), &["key 1", "key 2 renewed", "key 3"]);
    check(&keys.amend([put(renewed(2)), remove(2)]), &["key 1", "key 3"]);
    check(&keys.amend([put(key(4)), remove(4)]), &["key 1", "key 2", "key 3"]);
    let again = keys.amend([remove(2)]).amend([put(key(5))]).amend([put(key(2)), remove(1)]);
    check(&again, &["key 2", "key 3", "key 5"]);
    assert_eq!(
        (keys.changed(), again.changed(), again.is_changed(KeyId(5)), again.is_changed(KeyId(3))),
        (0, 3, true, false)
    );
    check(&keys, &["key 1", "key 2", "key 3"]);
}

#[test]
fn a_text_belongs_to_one_key() {
    let keys = one_to_three();
    let twin = |id, of: u32| put(record(id, &format!("key {of}"), 9));
    check(&keys.amend([twin(4, 2)]), &["key 1", "key 2", "key 3"]);
    // The one who had it gives it up in the same amendment.
    let moved = keys.amend([twin(4, 2), remove(2)]);
    check(&moved, &["key 1", "key 2", "key 3"]);
    assert_eq!(moved.find_text(b"key 2").map(|record| record.id.0), Some(4));
    // A number whose new text is another's is nobody's.
    check(&keys.amend([twin(1, 2)]), &["key 2", "key 3"]);
    let bounded = keys.amend([put(record(4, "key 4", 0)), put(record(5, "key 5", u32::MAX))]);
    assert_eq!(bounded.find_id(KeyId(4)).map(|record| record.limit_per_second), Some(1));
    assert_eq!(bounded.find_id(KeyId(5)).map(|record| record.limit_per_second), Some(16_000_000));
}

#[test]
fn a_change_gives_nobody_a_fresh_second_and_nobody_anothers() {
    let keys = one_to_three();
    assert_eq!((keys.take_one(KeyId(2), NOW_MS), keys.take_one(KeyId(3), NOW_MS)), (Some(2), Some(2)));
    let next = keys.amend([put(renewed(2)), put(key(4)), remove(3)]);
    assert_eq!(next.remaining(KeyId(2), NOW_MS), Some(4), "a limit of 5, of which 1 is used");
    assert_eq!(next.take_one(KeyId(4), NOW_MS), Some(2));
    let back = next.amend([put(key(3)), put(key(5))]);
    assert_eq!(back.remaining(KeyId(3), NOW_MS), Some(2), "removed and put again");
    assert_eq!((back.remaining(KeyId(4), NOW_MS), back.remaining(KeyId(5), NOW_MS)), (Some(2), Some(3)));
    // Merged, nothing is different, and a home that is free for long is given away with a fresh second.
    let gone = back.amend([remove(2)]);
    let merged = KeyDirectory::build(gone.records().cloned().collect(), Some(&gone), 1);
    let merged = KeyDirectory::build(merged.records().cloned().collect(), Some(&merged), 1);
    assert_eq!((merged.changed(), merged.remaining(KeyId(4), NOW_MS)), (0, Some(2)));
    let newcomers = merged.amend((6..=9).map(|id| put(key(id))));
    assert!((6..=9).all(|id| newcomers.remaining(KeyId(id), NOW_MS + 1_000) == Some(3)));
}

#[test]
fn marks_hold_at_once_in_every_directory_of_the_line() {
    let before = one_to_three();
    let keys = before.amend([put(key(4))]);
    assert!(keys.refuse(KeyId(2)) && before.set_month_used_up(KeyId(3), true) && !keys.refuse(KeyId(9)));
    assert_eq!((before.is_refused(KeyId(2)), keys.is_month_used_up(KeyId(3))), (true, true));
    let after = keys.amend([remove(2)]);
    assert!(after.refuse(KeyId(2)) && !after.is_refused(KeyId(2)), "shards may still use a directory that has it");
    assert!(after.amend([put(key(2))]).admit_again(KeyId(2)) && !before.is_refused(KeyId(2)));
    // Whoever gets the home of a key that is gone does not get its marks.
    before.refuse(KeyId(1));
    let gone = after.amend([remove(1), remove(3)]);
    let merged = (0..2).fold(gone, |gone, _| KeyDirectory::build(gone.records().cloned().collect(), Some(&gone), 1));
    let newcomers = merged.amend((5..=9).map(|id| put(key(id))));
    assert!((5..=9).all(|id| !newcomers.is_refused(KeyId(id)) && !newcomers.is_month_used_up(KeyId(id))));
}

#[test]
fn what_changes_while_a_large_part_is_built_is_not_lost() {
    let snapshot = one_to_three().amend([put(key(4)), put(key(5)), remove(1)]);
    let faster = |record: &KeyRecord| KeyRecord { limit_per_second: 7, ..record.clone() };
    let built = KeyDirectory::build(snapshot.records().map(faster).collect(), Some(&snapshot), 1);
    let present = snapshot.amend([remove(2), put(renewed(4)), put(key(6)), put(key(1)), put(key(7)), remove(7)]);
    present.take_one(KeyId(6), NOW_MS);
    let merged = built.catch_up(&snapshot, &present).expect("the same large part");
    check(&merged, &["key 1", "key 3", "key 4 renewed", "key 5", "key 6"]);
    let limit = |id| merged.find_id(KeyId(id)).map(|record| record.limit_per_second);
    assert_eq!([1, 3, 4, 5, 6].map(limit), [Some(3), Some(7), Some(5), Some(7), Some(3)]);
    assert_eq!(merged.remaining(KeyId(6), NOW_MS), Some(2));
    let more = merged.amend([put(key(8)), put(key(9))]);
    assert_eq!((more.remaining(KeyId(8), NOW_MS), more.remaining(KeyId(6), NOW_MS)), (Some(3), Some(2)));
}

#[test]
fn a_large_part_is_of_no_use_when_another_was_put_in_force_meanwhile() {
    let snapshot = one_to_three();
    let build = || KeyDirectory::build(snapshot.records().cloned().collect(), Some(&snapshot), 1);
    let others = KeyDirectory::build((3..=5).map(key).collect(), Some(&snapshot), 1);
    let amended = others.amend([remove(4)]);
    assert!(build().catch_up(&snapshot, &others).is_none(), "keys 1 and 2 were revoked");
    assert!(build().catch_up(&snapshot, &amended).is_none());
    assert!(build().catch_up(&snapshot, &snapshot.amend([remove(1)])).is_some());
}

/// Keys come, go and change at random, merged now and then while amendments go on, or while another large part is put in
/// force: what is found is what a plain map says, and no two keys ever count in one place.
#[test]
fn any_sequence_of_changes_gives_what_a_map_would() {
    let mut dice = 88_172_645_463_325_252_u64;
    let mut roll = |below: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % below
    };
    let mut keys = one_to_three();
    let mut map: BTreeMap<u32, KeyRecord> = (1..=3).map(|id| (id, key(id))).collect();
    let mut merging: Option<(KeyDirectory, KeyDirectory)> = None;
    let mut is_overtaken = false;
    for round in 0..3_000_u64 {
        let amendments: Vec<Amendment> = (0..roll(4))
            .map(|_| {
                let id = roll(60) as u32 + 1;
                match roll(3) {
                    0 => remove(id),
                    1 => put(renewed(id)),
                    _ => put(key(id)),
                }
            })
            .collect();
        for amendment in &amendments {
            match amendment {
                Amendment::Put(record) => drop(map.insert(record.id.0, record.clone())),
                Amendment::Remove(id) => drop(map.remove(&id.0)),
            }
        }
        keys = keys.amend(amendments);
        match merging.take() {
            None if roll(10) == 0 => {
                let built = KeyDirectory::build(keys.records().cloned().collect(), Some(&keys), 1);
                (merging, is_overtaken) = (Some((keys.amend([]), built)), false);
            }
            Some((snapshot, built)) if roll(4) == 0 => {
                let merged = built.catch_up(&snapshot, &keys);
                assert_eq!(merged.is_none(), is_overtaken, "round {round}");
                keys = merged.unwrap_or(keys);
            }
            Some(other) if roll(8) == 0 => {
                keys = KeyDirectory::build(keys.records().cloned().collect(), Some(&keys), 1);
                (merging, is_overtaken) = (Some(other), true);
            }
            other => merging = other,
        }
        let found: BTreeMap<u32, KeyRecord> = keys.records().map(|record| (record.id.0, record.clone())).collect();
        assert_eq!(found, map, "round {round}");
        assert_eq!(keys.len(), map.len());
        // Each takes all it has in a second of this round: if two shared a place, one would find less.
        let now_ms = NOW_MS + round * 5_000;
        for record in map.values() {
            assert_eq!(keys.find_id(record.id), Some(record));
            for left in (0..record.limit_per_second).rev() {
                assert_eq!(keys.take_one(record.id, now_ms), Some(left), "round {round}, key {}", record.id.0);
            }
        }
    }
}

#[test]
fn shards_obey_marks_and_amendments_on_connections_they_know() {
    let mut world = World::with(vec![record(1, KEY, 1_000)], 1, 0);
    let mut connection = world.connect(1);
    let request = get("/price?asset=BTC", KEY);
    let mut ask = |world: &mut World| world.serve(&mut connection, request.as_bytes()).reply().status;
    let amend = |world: &mut World, amendment| {
        world.keys = Arc::new(world.keys.amend([amendment]));
        world.shard.apply(ShardCommand::Keys(Arc::clone(&world.keys)));
    };
    assert_eq!([ask(&mut world), ask(&mut world)], [200, 200]);
    world.keys.refuse(KeyId(1));
    assert_eq!(ask(&mut world), 401);
    amend(&mut world, remove(1));
    assert_eq!(ask(&mut world), 401);
    amend(&mut world, put(record(1, KEY, 1_000)));
    world.keys.admit_again(KeyId(1));
    assert_eq!(ask(&mut world), 200);
    world.keys.set_month_used_up(KeyId(1), true);
    assert_eq!(ask(&mut world), 429);
    world.keys.set_month_used_up(KeyId(1), false);
    amend(&mut world, put(record(1, "another text", 1_000)));
    assert_eq!(ask(&mut world), 401);
}

/// Who is remembered is remembered over changes of others, of whichever part of the directory it is, and whatever
/// changes about it is in force with the next request: over HTTP, waiting, and by datagrams of both kinds.
#[test]
fn changes_of_others_are_passed_over_and_ones_own_are_seen_at_once() {
    for is_in_overlay in [false, true] {
        let first = if is_in_overlay { Vec::new() } else { vec![record(1, KEY, 1_000)] };
        let mut world = World::with(first, 1, 0);
        let mut connection = world.connect(1);
        let mut other_id = 10;
        let mut amend = |world: &mut World, own: Option<KeyRecord>| {
            other_id += 1;
            let amendments = [put(key(other_id)), remove(other_id - 1)].into_iter().chain(own.map(put));
            world.keys = Arc::new(world.keys.amend(amendments));
            world.shard.apply(ShardCommand::Keys(Arc::clone(&world.keys)));
        };
        let mut ask = |world: &mut World| {
            let plain = world.serve(&mut connection, get("/price?asset=BTC", KEY).as_bytes()).reply();
            let binary = world.datagram(&binary(1, &secret(1), "BTC", world.now.wall_ms));
            let json = world.datagram(format!("{{\"key\":\"{KEY}\",\"asset\":\"BTC\",\"id\":7}}").as_bytes());
            (plain.status, binary.get(3).copied(), json.is_empty())
        };
        amend(&mut world, is_in_overlay.then(|| record(1, KEY, 1_000)));
        let known = ask(&mut world);
        assert_eq!(known, (200, Some(0), false));
        for _ in 0..3 {
            amend(&mut world, None);
            assert_eq!((ask(&mut world).0, ask(&mut world).1), (200, Some(0)));
        }
        // A limit of four, of which none is left: more than that was used under the old one.
        amend(&mut world, Some(record(1, KEY, 4)));
        assert_eq!((ask(&mut world).0, ask(&mut world).1), (429, Some(Code::RateLimitedSecond.number())));
        world.pass_ms(1_000);
        assert_eq!(ask(&mut world).0, 200);
        amend(&mut world, Some(record(1, KEY, 1_000)));
        assert!((0..9).all(|_| ask(&mut world).0 == 200), "most of a thousand is left");
        amend(&mut world, Some(record(1, "another text", 1_000)));
        assert_eq!(ask(&mut world), (401, Some(0), true), "the text is another, the number is not");
        amend(&mut world, Some(KeyRecord { udp_secret: secret(2), ..record(1, KEY, 1_000) }));
        let renewed = ask(&mut world);
        assert_eq!(renewed, (200, None, false), "another UDP secret");
    }
}

#[test]
fn a_key_that_is_refused_is_met_with_silence_and_ends_a_wait() {
    let mut world = World::with(vec![record(1, KEY, 1_000)], 1, 0);
    let datagrams = [
        binary(1, &secret(1), "BTC", world.now.wall_ms),
        format!("{{\"key\":\"{KEY}\",\"asset\":\"BTC\",\"id\":7}}").into_bytes(),
    ];
    let mut waiting = world.connect(1);
    let request = get("/price?asset=BTC&newer_than=4711&wait_ms=30000", KEY);
    assert_eq!(world.serve(&mut waiting, request.as_bytes()).step.then, Then::Wait);
    for is_refused in [false, true] {
        if is_refused {
            world.keys.refuse(KeyId(1));
        }
        for datagram in &datagrams {
            assert_eq!(world.datagram(datagram).is_empty(), is_refused);
        }
    }
    world.publish(world::tick(0, 5_000, 1));
    assert_eq!(world.serve(&mut waiting, request.as_bytes()).reply().status, 401);
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1_024
}

/// Says how long a million keys take. Run it by `cargo test --release -p trinity-dataplane-core --test directory --
/// --ignored --nocapture`.
#[test]
#[ignore = "a measurement, worth something in a release build alone"]
#[expect(clippy::print_stdout, reason = "figures are what this is for")]
fn what_a_million_keys_cost() {
    let before = resident();
    let records: Vec<KeyRecord> = (1..=1_000_000).map(key).collect();
    let began = std::time::Instant::now();
    let keys = KeyDirectory::build(records, None, 8);
    println!("build: {:?}", began.elapsed());
    println!("memory: {} bytes a key", (resident() - before) / 1_000_000);
    let began = std::time::Instant::now();
    let next = keys.amend([put(renewed(500_000))]);
    println!("amend one: {:?}", began.elapsed());
    let began = std::time::Instant::now();
    let changed = next.amend((1..=2_048).map(|id| put(renewed(id))));
    println!("amend 2,048: {:?}", began.elapsed());
    let began = std::time::Instant::now();
    let one_more = changed.amend([remove(500_000)]);
    println!("amend one beside 2,048: {:?}", began.elapsed());
    let began = std::time::Instant::now();
    let built = KeyDirectory::build(one_more.records().cloned().collect(), Some(&one_more), 8);
    let merged = built.catch_up(&one_more, &one_more).expect("the same large part");
    println!("merge: {:?}", began.elapsed());
    println!("memory with the new large part beside the old: {} bytes a key", (resident() - before) / 1_000_000);
    assert_eq!((merged.len(), merged.changed()), (999_999, 0));
}
