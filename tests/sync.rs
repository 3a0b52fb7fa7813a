//! `trinity-beast sync` on a real database and a real cache: what stands in the cache afterwards is what the database
//! holds, whichever way it came there, and however often the program was ended on the way.
//!
//! A copy is judged by one that was made anew in another cache at the same moment; the first is judged by the database.
//! A server of PostgreSQL tells what has come once no older transaction is open, autovacuum's included: so a test waits
//! until a copy is what it should be, and none of the rounds until then may be a full one.

#[path = "sync/faults.rs"]
mod faults;
#[path = "sync/world.rs"]
mod world;

use controlplane::store::KeyChange;
use harness::history::database::Database;
use harness::{eventually, history::Chance};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;
use world::{DAY_MS, World, now_ms, rows, summary};

/// Everything there is to copy, some of it not to be.
fn plant(world: &World) {
    let now_ms = world.began_ms;
    for number in 1..=4 {
        world.key(number, (number == 3).then_some(now_ms + 3_600_000));
    }
    world.change(2, KeyChange::Revoke { time_ms: now_ms });
    world.change(4, KeyChange::Expire { time_ms: now_ms - 1 });
    world.commit("n1", 0..2_500, now_ms - 60_000);
    world.commit("n2", 0..500, now_ms - 40 * DAY_MS);
    world.commit("n3", 0..50, now_ms - 94 * DAY_MS);
    world.reports(1..4);
    world.parameters(&[("cache_ttl_seconds", Some("30")), ("ADMIN_KEY", Some("canary-administrator-key"))]);
    world.change_by_hand("INSERT INTO exchange_asset_map (exchange, asset) VALUES ('okx', 'SOL'), ('okx', 'BTC')");
}

/// What the first copy is, by what was planted.
fn judge_first(world: &World, summary: &Value) {
    for (part, written, deleted) in [("usage", 3_000, 0), ("keys", 2, 2), ("reports", 3, 0), ("assets", 1, 0)] {
        assert_eq!(
            (&summary[part]["written"], &summary[part]["deleted"]),
            (&written.into(), &deleted.into()),
            "{part}"
        );
    }
    let content = world.content();
    assert!(!content.contains("canary"), "a secret");
    let of = |start: &str| content.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>();
    assert_eq!((of("usage_log:").len(), of("report_usage:").len(), of("apikey:").len()), (3_000, 3, 2));
    assert_eq!(world.cache.ask(&["ZCARD", "usage_logs:index"]), "3000");
    // Sets have what the database finds.
    let counted =
        |what: &str| world.database.number(&format!("SELECT count(*) FROM usage_logs WHERE {what} AND node <> 'n3'"));
    assert_eq!(world.cache.ask(&["ZCARD", "usage_logs:asset:BTC"]), counted("asset = 'BTC'").to_string());
    let set = format!("usage_logs:api_key:{}", "01".repeat(32));
    assert_eq!(world.cache.ask(&["ZCARD", &set]), counted("key_id = 1").to_string());
    let newest = "SELECT time_ms FROM usage_logs ORDER BY time_ms DESC LIMIT 1";
    let last = world.cache.ask(&["ZRANGE", "usage_logs:index", "-1", "-1", "WITHSCORES"]);
    let (uuid, score) = last.split_once('\n').expect("a member and its score");
    assert_eq!(score, world.database.sql(newest));
    let row = format!(
        "usage_log:{uuid} {} asset=SOL endpoint=/price key_id=4 node=n1 offset=2499 protocol=udp requests=1 segment=3 status=200 \
         tier=local time_ms={score}",
        score.parse::<u64>().expect("a time") + 93 * DAY_MS
    );
    let asked = of(&format!("usage_log:{uuid}"))[0];
    assert_eq!(asked, row);
    assert!(of("app:config")[0].contains(" cache_ttl_seconds=30 "));
    assert_eq!(of("exchange_asset_map"), ["exchange_asset_map stays okx=BTC,SOL"]);
    assert!(of("apikey:01")[0].contains("\"limit_per_second\":1000,\"limit_per_month\":100000000"));
    // Nothing lives longer than a day, nor than its key works; sets live for 93 days from now on.
    let end = |name: &str| world.cache.ask(&["PEXPIRETIME", name]).parse::<u64>().expect("a time");
    let key = |number: &str| format!("apikey:{}", number.repeat(32));
    assert_eq!(end(&key("03")), world.began_ms + 3_600_000);
    let since = |lifetime_ms: u64| world.began_ms + lifetime_ms..=now_ms() + lifetime_ms;
    assert!(since(DAY_MS).contains(&end(&key("01"))));
    for set in ["usage_logs:index", "usage_logs:asset:BTC", &set] {
        assert!(since(93 * DAY_MS).contains(&end(set)), "{set}");
    }
}

/// Full, nothing new, and everything that may come: on either database.
fn a_copy_is_whole_and_then_follows(world: &World) {
    plant(world);
    let first = world.sync(&[]);
    assert_eq!(first["full"], "the cache holds no copy yet");
    judge_first(world, &first);
    world.follows("nothing new");
    let idle = world.sync(&[]);
    for part in ["usage", "keys", "reports"] {
        assert_eq!((&idle[part]["written"], &idle[part]["deleted"]), (&0.into(), &0.into()), "{part}: {idle}");
    }
    let now_ms = now_ms();
    // New rows; rows of a node that was cut off; rows of the queue, twice and between others; too old ones.
    world.commit("n1", 2_500..2_700, now_ms - 3_000);
    world.commit("n4", 0..100, now_ms - 92 * DAY_MS);
    world.commit("n3", 50..60, now_ms - 95 * DAY_MS);
    let mut queued = rows("n5", 40..90, now_ms - 3 * DAY_MS);
    queued.extend(rows("n1", 2_400..2_500, world.began_ms - 36_000));
    queued.retain(|row| row.offset % 3 != 0);
    for _ in 0..2 {
        world.runtime.block_on(world.store.add_usage(&queued)).expect("added");
    }
    world.reports(10..12);
    world.key(5, None);
    world.change(1, KeyChange::Revoke { time_ms: now_ms });
    world.follows("what has come");
    // What is gone goes, and what follows from tiers does.
    world.parameters(&[("cache_ttl_seconds", None)]);
    world.change_by_hand("DELETE FROM exchange_asset_map WHERE asset = 'BTC'");
    world.change_by_hand("UPDATE rate_limit_template SET limit_per_second = 777 WHERE name = 'pro'");
    world.follows("what has changed");
    assert!(world.content().contains("\"limit_per_second\":777"));
    world.change_by_hand("DELETE FROM exchange_asset_map");
    world.follows("an empty list");
    // Lost with the cache, and with it what was noted.
    world.cache.flush_all();
    assert_eq!(world.sync(&[])["full"], "the cache holds no copy yet");
    assert_eq!(world.content(), world.expected());
    // What others have put there makes way.
    for (name, value) in [("usage_logs:index", "x"), ("sync:cursor", "x"), ("app:config", "x")] {
        world.cache.ask(&["SET", name, value]);
    }
    assert_eq!(world.sync(&[])["full"], "the cache's note cannot be read");
    assert_eq!(world.content(), world.expected());
    assert_eq!(world.sync(&["--full"])["full"], "asked for");
    assert_eq!(world.content(), world.expected());
}

/// The first by its name, and so begun first: it waits for the next minute.
#[test]
fn a_cache_that_goes_between_two_rounds_or_amid_one_is_made_good() {
    faults::goes_between_two_rounds_and_amid_one();
}

#[test]
fn a_copy_of_postgres_is_whole_and_then_follows() {
    a_copy_is_whole_and_then_follows(&World::new(true));
}

#[test]
fn a_copy_of_sqlite_is_whole_and_then_follows() {
    a_copy_is_whole_and_then_follows(&World::new(false));
}

#[test]
fn one_that_is_killed_leaves_a_note_behind_the_copy_and_never_ahead() {
    let world = World::new(true);
    plant(&world);
    world.commit("n6", 0..20_000, now_ms() - 50 * DAY_MS);
    let (mut chance, mut torn) = (Chance::new(20_261_122), 0);
    for round in 0..9 {
        if round % 3 == 0 {
            world.cache.flush_all();
        }
        let mut child = world.spawn([["--full"].as_slice(), &[]][round % 2]);
        std::thread::sleep(Duration::from_millis(20 + chance.below(450)));
        child.kill().expect("ours");
        child.wait().expect("its end");
        let is_noted = world.cache.ask(&["HEXISTS", "sync:cursor", "usage"]) == "1";
        torn += u32::from(!is_noted);
        if is_noted {
            // All that came before the note is there, also where the one that was killed had something to add.
            let noted = world.cache.ask(&["HGET", "sync:cursor", "usage"]);
            let told =
                format!("SELECT coalesce(sum(records), 0) FROM usage_arrivals WHERE change < {noted} AND node <> 'n3'");
            let there = world.content().lines().filter(|line| line.starts_with("usage_log:")).count();
            assert!(there as u64 >= world.database.number(&told), "round {round}: noted, and not whole");
        }
        let from = round as u64 * 500;
        world.commit("n7", from..from + 500, now_ms() - 20 * DAY_MS);
    }
    assert!(torn > 0, "none was killed on the way");
    world.sync(&[]);
    world.follows("a copy that was torn");
}

#[test]
fn two_at_once_and_a_cache_that_is_emptied_meanwhile_come_to_the_same() {
    let world = World::new(true);
    plant(&world);
    world.commit("n6", 0..10_000, now_ms() - 50 * DAY_MS);
    for words in [[].as_slice(), &["--full"]] {
        world.cache.flush_all();
        let mut pair = [world.spawn(words), world.spawn(words)];
        if !words.is_empty() {
            // Emptied while it is written to, which is noticed and mended.
            eventually("the first rows", || (world.cache.ask(&["EXISTS", "usage_logs:index"]) == "1").then_some(()));
            world.cache.flush_all();
        }
        for child in &mut pair {
            assert!(child.wait().expect("its end").success());
        }
        assert!(world.content() == world.expected(), "{words:?}");
        world.follows("nothing new");
    }
}

#[test]
fn what_is_committed_after_later_numbers_is_found() {
    let world = World::new(true);
    let Database::Postgres(server, url) = &world.database else { unreachable!("it is one") };
    // A lifetime counts from now at the latest: rows of the next moment would end otherwise in each copy.
    let now_ms = now_ms() - 10_000;
    world.commit("n1", 0..10, now_ms);
    world.sync(&[]);
    // Takes its number, and ends after others that come later. The rows are as a node writes them.
    let late = format!(
        "INSERT INTO usage_logs (time_ms, segment, record_offset, key_id, status, requests, node, asset, protocol, \
         endpoint, tier) VALUES ({now_ms}, 9, 0, 1, 200, 1, 'late', 'BTC', 'tcp', 'price', 'local'); INSERT INTO \
         usage_arrivals (segment, from_place, to_place, from_ms, to_ms, records, arrived_ms, node) VALUES (9, 0, 0, \
         {now_ms}, {now_ms}, 1, {now_ms}, 'late'); SELECT pg_sleep(3)"
    );
    std::thread::scope(|scope| {
        let open = scope.spawn(|| server.sql(url, &late));
        let asleep =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        eventually("a transaction that stays open", || (server.sql(url, asleep) == "1").then_some(()));
        world.commit("n1", 10..20, now_ms);
        // Rounds meanwhile must not go on behind it.
        for _ in 0..3 {
            assert!(world.sync(&[])["full"].is_null());
        }
        open.join().expect("its end");
    });
    world.follows("the one that was late");
    assert_eq!(world.cache.ask(&["ZCARD", "usage_logs:index"]), "21");
}

#[test]
fn another_database_and_one_that_was_too_long_away_are_copied_anew() {
    let (world, other) = (World::new(true), World::new(false));
    world.commit("n1", 0..10, now_ms());
    other.commit("n2", 0..10, now_ms());
    world.sync(&[]);
    // Of two that are pointed at one cache by mistake the first has it.
    let before = (world.content(), world.note());
    check(other.command(&world.cache, &[]), 1, "run sync --full once");
    assert_eq!((world.content(), world.note()), before);
    let taken = other.command(&world.cache, &["--full", "--json"]).output().expect("it runs");
    assert_eq!(summary(&taken)["full"], "the cache held a copy of another database");
    assert_eq!(world.cache.ask(&["ZCARD", "usage_logs:index"]), "20", "the other's end by themselves");
    check(world.command(&world.cache, &[]), 1, "the cache holds a copy of another database");
    assert_eq!(world.sync(&["--full"])["full"], "the cache held a copy of another database");
    // Arrivals that are not told of any more.
    world.change_by_hand("UPDATE sync_state SET pruned = txid_current()");
    assert_eq!(world.sync(&[])["full"], "the last one was too long ago");
    eventually("changes above it", || world.sync(&[])["full"].is_null().then_some(()));
    // Numbers that came along with a copy from another cluster, and that none has here yet.
    world.reports(1..2);
    world.change_by_hand("UPDATE report_usage_logs SET change = 500000000000");
    world.change_by_hand("UPDATE sync_state SET pruned = 490000000000");
    assert!(world.sync(&[])["full"].is_null());
    assert_eq!(world.sync(&["--full"])["reports"]["written"], 1);
    world.cache.ask(&["HSET", "sync:cursor", "usage", "4000000000"]);
    assert_eq!(world.sync(&[])["full"], "the database was set back");
}

#[track_caller]
fn check(mut command: Command, code: i32, part: &str) {
    let output = command.output().expect("trinity-beast runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(part), "{part}: {told}");
}

#[test]
fn what_cannot_be_is_said_with_what_to_do() {
    let world = World::new(false);
    world.commit("n1", 0..10, now_ms());
    let mut without = world.command(&world.cache, &[]);
    without.env_remove("CACHE_URL");
    check(without, 1, "CACHE_URL is not set");
    check(world.command(&world.cache, &["--every", "at six"]), 2, "five fields in UTC");
    let mut nowhere = world.command(&world.cache, &[]);
    nowhere.env("CACHE_URL", "redis://127.0.0.1:1");
    check(nowhere, 1, "the cache cannot be reached");
    // No database is no empty one.
    let mut lost = world.command(&world.cache, &[]);
    let directory = tempfile::tempdir().expect("a directory");
    lost.env_remove("DATABASE_URL").env("TB_DATA_DIR", directory.path());
    check(lost, 1, "there is no database to sync from");
    assert_eq!(std::fs::read_dir(directory.path()).expect("it is there").count(), 0);
    assert_eq!(world.cache.ask(&["DBSIZE"]), "0");
    // Parameters that no node would take: the rest is copied, keys by the mode that is named.
    world.key(1, None);
    let key = format!("apikey:{}", "01".repeat(32));
    world.parameters(&[("system_mode", Some("performance"))]);
    world.sync(&[]);
    let before = world.cache.ask(&["GET", &key]);
    world.cache.flush_all();
    world.parameters(&[("cache_ttl_seconds", Some("never"))]);
    check(world.command(&world.cache, &[]), 1, "app:config was left as it stands");
    assert_eq!(world.cache.ask(&["ZCARD", "usage_logs:index"]), "10");
    assert_eq!(world.cache.ask(&["EXISTS", "app:config"]), "0");
    assert_eq!(world.cache.ask(&["GET", &key]), before);
    // A mode that is none: keys are left as they stand.
    world.parameters(&[("system_mode", Some("odd"))]);
    world.cache.ask(&["SET", &key, "x"]);
    check(world.command(&world.cache, &["--full"]), 1, "app:config was left as it stands");
    assert_eq!(world.cache.ask(&["GET", &key]), "x");
}

#[test]
fn at_its_times_it_goes_on_until_told_to_stop() {
    let world = World::new(false);
    world.commit("n1", 0..10, now_ms());
    let mut child = world.spawn(&["--every", "cron(0 6 * * ? *)"]);
    eventually("the first round", || (world.cache.ask(&["HEXISTS", "sync:cursor", "usage"]) == "1").then_some(()));
    assert_eq!(child.try_wait().expect("its state"), None);
    let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(told.success() && child.wait().expect("its end").success());
}
