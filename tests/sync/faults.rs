//! What a sync does when the cache goes under it, or the database goes on from an earlier moment: it ends in bounded time and
//! says what to do, the note says no more than is there, and the next one makes it good.

use super::world::{DAY_MS, World, now_ms, summary};
use controlplane::store::KeyChange;
use harness::eventually;
use harness::proxy::{Fault, Proxy};
use harness::redis::Redis;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// What every fault of a server says to do.
const SEE_SERVER: &str = "see that the server of CACHE_URL runs";

/// Each piece that a program sends goes on so much later: a copy of some thousand rows then takes seconds.
const SLOWLY: Fault = Fault::Delay { there: Duration::from_millis(20), back: Duration::ZERO };

fn number(cache: &Redis, words: &[&str]) -> u64 {
    let told = cache.ask(words);
    told.parse().unwrap_or_else(|_| panic!("{words:?}: {told}"))
}

/// A sync over a proxy, once it has written something and is far from its end.
fn amid(world: &World, proxy: &Proxy) -> Child {
    let before = number(&world.cache, &["DBSIZE"]);
    proxy.set(SLOWLY);
    let mut command = world.command(&world.cache, &[]);
    command.env("CACHE_URL", world.cache.url_at(proxy.address())).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("trinity-beast runs");
    eventually("the first rows", || (number(&world.cache, &["DBSIZE"]) > before + 100).then_some(()));
    assert_eq!(child.try_wait().expect("its state"), None);
    child
}

/// That it failed, and what it said.
#[track_caller]
fn has_failed(output: &Output, part: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(part), "{part}: {told}");
    assert!(told.contains("the next sync begins where this one did"), "{told}");
}

/// Ends, is started anew and hangs, each amid a copy.
fn goes_amid_a_round(world: &mut World) {
    let proxy = Proxy::start(world.cache.address());
    world.commit("n1", 0..5_000, now_ms() - DAY_MS);
    let child = amid(world, &proxy);
    world.cache.kill();
    has_failed(&child.wait_with_output().expect("its end"), SEE_SERVER);
    world.cache.restart();
    proxy.set(Fault::None);
    assert_eq!(world.sync(&[])["full"], "the cache holds no copy yet");
    assert!(world.content() == world.expected(), "after its end");
    // Of what comes after a copy only that is written: the note stays where it is while it is not.
    world.commit("n2", 0..5_000, now_ms() - DAY_MS);
    let (child, note) = (amid(world, &proxy), world.note());
    world.cache.freeze();
    let output = child.wait_with_output().expect("its end");
    world.cache.thaw();
    has_failed(&output, SEE_SERVER);
    proxy.set(Fault::None);
    assert_eq!(world.note(), note);
    world.follows("after it hung");
    // Empty from one moment to the next.
    world.commit("n3", 0..5_000, now_ms() - DAY_MS);
    let child = amid(world, &proxy);
    world.cache.kill();
    world.cache.restart();
    has_failed(&child.wait_with_output().expect("its end"), SEE_SERVER);
    proxy.set(Fault::None);
    assert_eq!(world.sync(&[])["full"], "the cache holds no copy yet");
    assert!(world.content() == world.expected(), "after it was started anew");
}

/// The same between two rounds of a sync that goes on, and meanwhile amid one.
pub fn goes_between_two_rounds_and_amid_one() {
    let mut world = World::new(false);
    let (mut dies, hangs) = (Redis::start(), Redis::start());
    world.commit("n0", 0..10, now_ms());
    let mut children = [&dies, &hangs].map(|cache| world.spawn_to(cache, &["--every", "* * * * *"]));
    let is_noted = |cache: &Redis| cache.ask(&["HEXISTS", "sync:cursor", "usage"]) == "1";
    for cache in [&dies, &hangs] {
        eventually("the first round", || is_noted(cache).then_some(()));
    }
    dies.kill();
    dies.restart();
    hangs.freeze();
    // The next round is due within a minute.
    goes_amid_a_round(&mut world);
    hangs.thaw();
    let rows = world.database.count().to_string();
    eventually("a round after it was started anew", || is_noted(&dies).then_some(()));
    for cache in [&dies, &hangs] {
        eventually("every row", || (cache.ask(&["ZCARD", "usage_logs:index"]) == rows).then_some(()));
    }
    for child in &mut children {
        assert_eq!(child.try_wait().expect("its state"), None);
        let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
        assert!(told.success() && child.wait().expect("its end").success());
    }
}

#[test]
fn a_cache_that_is_full_amid_a_round_is_noted_as_it_was() {
    let world = World::new(false);
    world.commit("n1", 0..100, now_ms() - DAY_MS);
    world.sync(&[]);
    let note = world.note();
    world.commit("n2", 0..20_000, now_ms() - DAY_MS);
    let used = world.cache.ask(&["INFO", "memory"]);
    let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("it is told").trim();
    let most = used.parse::<u64>().expect("a number") + (3 << 20);
    world.cache.ask(&["CONFIG", "SET", "maxmemory", &most.to_string()]);
    let output = world.command(&world.cache, &[]).output().expect("trinity-beast runs");
    has_failed(&output, "see the server's maxmemory");
    let there = number(&world.cache, &["DBSIZE"]);
    assert!((200..20_000).contains(&there), "midway: {there}");
    assert_eq!(world.note(), note);
    world.cache.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    world.follows("there is room again");
}

/// As nodes do: a key is revoked in the database, and then its entry goes.
#[test]
fn a_key_that_is_revoked_beside_a_sync_has_no_entry_after_it() {
    const KEYS: u8 = 120;
    let world = World::new(false);
    for number in 1..=KEYS {
        world.key(number, None);
    }
    let name = |number: u8| format!("apikey:{}", format!("{number:02x}").repeat(32));
    let proxy = Proxy::start(world.cache.address());
    proxy.set(SLOWLY);
    let gone = AtomicU8::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=KEYS {
                world.change(number.into(), KeyChange::Revoke { time_ms: now_ms() });
                world.cache.ask(&["DEL", &name(number)]);
                gone.store(number, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        while gone.load(Ordering::SeqCst) < KEYS {
            let mut command = world.command(&world.cache, &["--full", "--json"]);
            command.env("CACHE_URL", world.cache.url_at(proxy.address()));
            summary(&command.output().expect("trinity-beast runs"));
            for number in 1..=gone.load(Ordering::SeqCst) {
                assert_eq!(world.cache.ask(&["EXISTS", &name(number)]), "0", "key {number} works again");
            }
        }
    });
    world.follows("all are revoked");
}

const SET_BACK: &str = "the database does not have what it had last";

#[test]
fn a_file_that_was_put_back_is_noticed_once_it_has_gone_past_the_note() {
    let mut world = World::new(false);
    let copy = tempfile::tempdir().expect("a directory");
    let copy = copy.path().join("copy");
    let rows_of = |world: &World, node: &str| world.content().matches(&format!(" node={node} ")).count();
    world.key(1, None);
    world.key(2, None);
    world.commit("n1", 0..10, now_ms() - DAY_MS);
    world.sync(&[]);
    world.change_by_hand(&format!("VACUUM INTO '{}'", copy.display()));
    // Rows that are lost with it, and others that come in their place, and further.
    world.commit("n1", 10..20, now_ms() - DAY_MS);
    assert!(world.sync(&[])["full"].is_null());
    world.put_back(&copy);
    for from in [0, 10, 20] {
        world.commit("n2", from..from + 10, now_ms() - DAY_MS);
    }
    assert_eq!(world.sync(&[])["full"], SET_BACK);
    assert_eq!(rows_of(&world, "n2"), 30);
    assert!(world.sync(&[])["full"].is_null(), "once");
    // The same of keys alone: a revocation in the place of another change.
    world.change_by_hand(&format!("VACUUM INTO '{}2'", copy.display()));
    world.key(3, None);
    assert!(world.sync(&[])["full"].is_null());
    world.put_back(&copy.with_file_name("copy2"));
    world.change(1, KeyChange::Revoke { time_ms: now_ms() });
    world.change(2, KeyChange::Expire { time_ms: now_ms() + DAY_MS });
    assert_eq!(world.sync(&[])["full"], SET_BACK);
    assert_eq!(world.cache.ask(&["EXISTS", &format!("apikey:{}", "01".repeat(32))]), "0");
    assert!(world.sync(&[])["full"].is_null(), "once");
}

#[test]
fn a_server_that_went_on_from_an_earlier_moment_is_noticed() {
    let world = World::new(true);
    world.commit("n1", 0..10, now_ms() - DAY_MS);
    world.reports(1..3);
    world.key(1, None);
    world.sync(&[]);
    let is_below = || {
        let summary = world.sync(&[]);
        assert!(summary["full"].is_null(), "{summary}");
        let last =
            "SELECT greatest((SELECT max(change) FROM usage_arrivals), (SELECT max(change) FROM report_usage_logs))";
        number(&world.cache, &["HGET", "sync:cursor", "usage"]) > world.database.number(last)
    };
    for (key, lost) in [
        (2, "DELETE FROM usage_arrivals WHERE change = (SELECT max(change) FROM usage_arrivals)"),
        (3, "DELETE FROM report_usage_logs WHERE change = (SELECT max(change) FROM report_usage_logs)"),
        (4, "DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)"),
    ] {
        let from = 10 * u64::from(key - 1);
        world.commit("n1", from..from + 10, now_ms() - DAY_MS);
        world.reports(from..from + 2);
        world.key(key, None);
        eventually("all of it below the note", || is_below().then_some(()));
        world.change_by_hand(lost);
        assert_eq!(world.sync(&[])["full"], SET_BACK, "{lost}");
    }
}
