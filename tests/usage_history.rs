//! The process is killed at random instants under load, over and over, on the same journal and the same database: what
//! clients were answered is held against what was counted. Then the same with a disk that tears and flips what it holds.
//!
//! One seed makes one sequence of instants and questions; a run prints its seed, and `TB_HISTORY_SEED` plays it again.
//! `TB_HISTORY_ROUNDS` asks for more kills than the usual ones.

use harness::eventually;
use harness::history::client::{Clients, Key, Target};
use harness::history::database::Database;
use harness::history::pulse::Pulse;
use harness::history::segments::{Folder, Segment};
use harness::history::{Chance, History, LOSS_WINDOW};
use harness::http;
use harness::service::{ENGINES, Service};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Kills on PostgreSQL and on a SQLite file; together above 100.
const ROUNDS: u64 = 90;
const SQLITE_ROUNDS: u64 = 16;

/// Rounds with damage.
const DAMAGE_ROUNDS: u64 = 8;

/// How long clients ask before the kill, ms: at least, and so much more at most.
const LOAD_MS: (u64, u64) = (60, 440);

/// Entries with a flipped bit in one round, at most.
const FLIPS_MAX: u64 = 3;

/// The administrator's key, the same for each process.
const ADMIN_KEY: &str = "history-administrator";

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// What was done to a journal.
#[derive(Debug, Default)]
struct Damage {
    /// Entries with a flipped bit.
    flipped: u64,
    /// Segments with a torn end.
    torn: u64,
    /// Requests in those entries.
    lost: u64,
}

/// A journal and a database that outlive their processes.
struct Run {
    data: tempfile::TempDir,
    database: Database,
    folder: Folder,
    history: History,
    keys: Vec<Key>,
    chance: Chance,
    seed: u64,
}

impl Run {
    fn new(database: impl FnOnce(&Path) -> Database) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let (folder, database) = (Folder::of(data.path()), database(data.path()));
        let seed = number("TB_HISTORY_SEED", 20_261_122);
        let (history, chance) = (History::default(), Chance::new(seed));
        Self { data, database, folder, history, keys: Vec::new(), chance, seed }
    }

    fn start(&self) -> Service {
        let engine = ENGINES[self.history.tally.rounds as usize % ENGINES.len()];
        let (url, data) = (self.database.url(), self.data.path().to_str().expect("a path in UTF-8"));
        let own = [
            ("DATABASE_URL", url.as_str()),
            ("TB_DATA_DIR", data),
            ("ADMIN_KEY", ADMIN_KEY),
            ("CLUSTER_NODE", "history"),
            ("TB_SHARDS", "2"),
        ];
        Service::demo_with(engine, &own)
    }

    /// Starts a process, lets clients ask for a while, kills it, and looks at what it left; its segments.
    fn round(&mut self) -> Vec<Segment> {
        let mut service = self.start();
        if self.keys.is_empty() {
            self.keys = (0..3).map(|_| make_key(&service)).collect();
        }
        let target =
            Target { tcp: service.address("lpo_tcp"), udp: service.address("lpo_udp"), keys: self.keys.clone() };
        let pulse = Pulse::start();
        let clients = Clients::start(target, self.seed + self.history.tally.rounds);
        std::thread::sleep(Duration::from_millis(LOAD_MS.0 + self.chance.below(LOAD_MS.1)));
        let killed = service.kill();
        let (asked, stall) = (clients.end(), pulse.end(killed, 2 * LOSS_WINDOW));
        let mut segments = self.folder.read_new();
        segments.iter_mut().for_each(|segment| assert!(segment.drop_tail() <= 1, "a tail of more than one entry"));
        self.history.close_round(&asked, &segments, killed, stall);
        segments
    }

    /// Starts a process that nobody asks for prices, and waits until everything is in the database.
    fn deliver(&mut self) -> Service {
        let service = self.start();
        let expected = self.history.records();
        eventually("everything that is in the journal to be in the database", || {
            (self.database.count() >= expected).then_some(())
        });
        service
    }

    /// Has the disk damage entries that nobody has read yet; what it did.
    fn damage(&mut self, segments: &[Segment]) -> Damage {
        self.database.await_quiet();
        let mut done = Damage::default();
        let Some(segment) = segments.last() else { return done };
        let (read, there) = (self.database.position(segment.number), segment.entries.len() as u64);
        if there < read + FLIPS_MAX + 2 {
            return done;
        }
        // The last but one is left alone: what fails before a good entry is damage, behind it is a tail.
        let mut places = BTreeSet::new();
        for _ in 0..=self.chance.below(FLIPS_MAX) {
            places.insert(read + self.chance.below(there - 2 - read));
        }
        places.iter().for_each(|place| segment.flip(*place, self.chance.below(512)));
        done.flipped = places.len() as u64;
        if self.chance.below(2) == 0 {
            segment.tear(there - 1, 1 + self.chance.below(63));
            places.insert(there - 1);
            done.torn = 1;
        }
        done.lost = self.history.strike(segment.number, places);
        done
    }

    /// Judges the database, and says what the run came to.
    fn finish(mut self, what: &str) {
        let service = self.deliver();
        self.history.judge_rows(&self.database.rows());
        self.database.judge_rollups();
        self.history.judge_reports(&service);
        drop(service);
        let tally = &self.history.tally;
        assert!(tally.answered > tally.rounds * 10, "hardly anything was asked: {tally:?}");
        eprintln!(
            "{what}, seed {}: {} kills; {} asked, {} answered, {} in the journal ({} records), all of them in rows, sums \
             and reports: lost 0, duplicates 0; answered and not in the journal {}, the earliest {:?} before its kill \
             (the machine stood still for {:?} at most)",
            self.seed,
            tally.rounds,
            tally.asked,
            tally.answered,
            tally.journaled,
            tally.records,
            tally.unjournaled,
            tally.loss_window,
            tally.stall
        );
    }
}

fn make_key(service: &Service) -> Key {
    let made = service.admin_request("POST", "/admin/keys", Some(r#"{"name":"history","tier":"enterprise"}"#)).json();
    let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("no {name}: {made}")).to_owned();
    let secret = u128::from_str_radix(&text("udp_secret"), 16).expect("hexadecimal digits");
    let id = made["key_id"].as_u64().and_then(|id| u32::try_from(id).ok()).expect("a number");
    Key { id, text: text("key"), udp_secret: secret.to_be_bytes() }
}

/// The sample of this name in `/metrics`.
fn sample(service: &Service, name: &str) -> u64 {
    let text = http::get(service.address("health_lpo"), "/metrics", &[]).text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in:\n{text}"))
}

fn kill_and_judge(database: impl FnOnce(&Path) -> Database, rounds: u64, what: &str) {
    let mut run = Run::new(database);
    for _ in 0..rounds {
        drop(run.round());
    }
    run.finish(what);
}

#[test]
fn killed_at_any_instant_nothing_counted_is_lost_or_counted_twice() {
    kill_and_judge(|_| Database::new_postgres(), number("TB_HISTORY_ROUNDS", ROUNDS), "PostgreSQL");
    kill_and_judge(|data| Database::Sqlite(data.join("trinity-beast.sqlite")), SQLITE_ROUNDS, "SQLite");
}

#[test]
fn a_disk_that_tears_and_flips_costs_what_it_hit_and_no_more() {
    let mut run = Run::new(|_| Database::new_postgres());
    let mut total = Damage::default();
    for _ in 0..DAMAGE_ROUNDS {
        let segments = run.round();
        let done = run.damage(&segments);
        let service = run.deliver();
        let told = || (sample(&service, "tb_usage_damaged_total"), sample(&service, "tb_usage_torn_total"));
        // Both are told with a segment's end, which comes after its last row.
        eventually("all of an earlier process to be delivered and removed", || {
            (told() >= (done.flipped, done.torn)).then_some(())
        });
        assert_eq!(told(), (done.flipped, done.torn), "{done:?}");
        total.flipped += done.flipped;
        total.torn += done.torn;
        total.lost += done.lost;
    }
    assert!(total.flipped > 0 && total.torn > 0, "nothing was left to damage: {total:?}");
    eprintln!("damaged: {total:?}: these and no others are missing");
    run.finish("PostgreSQL, a bad disk");
}
