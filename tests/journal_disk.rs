//! The journal's disk fills up under a running service, and has room again, or is simply small: prices go on as if nothing
//! were, and no count is lost. And a directory that a process has is refused to a second one.
//!
//! The disk is a tmpfs of a few megabytes in a mount namespace of the service's own: it needs the rights of root, and
//! goes with the process.

use harness::eventually;
use harness::history::database::Database;
use harness::http;
use harness::service::{ENGINES, Service, binary, migrate};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The disk: room for the copies of keys and instrument lists, and for some thousand records.
const DISK: &str = "size=4m";

/// Requests in each part of the test.
const ASKED: u64 = 300;

/// What is left of the disk where it is to be small: room for 1,000 records and their file's head.
const LEFT_BYTES: u64 = 64 << 10;

/// Wraps the command so that it has a small disk of its own at `path`.
fn on_small_disk<'a>(command: &'a mut Command, path: &Path) -> &'a mut Command {
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let ready_file = Path::new(arguments.last().expect("the ready file is the last argument"));
    let log = OpenOptions::new().append(true).open(ready_file.with_file_name("log")).expect("the log");
    let mut wrapped = Command::new("unshare");
    wrapped.args(["-m", "sh", "-c", "mount -t tmpfs -o \"$0\" tmpfs \"$1\" && shift && exec \"$@\"", DISK]);
    wrapped.arg(path).arg(command.get_program()).args(arguments);
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    *command = wrapped;
    command
}

/// A service with a journal on a small disk and its database elsewhere.
struct Small {
    service: Service,
    database: Database,
    /// The disk, as seen from outside of the service's namespace.
    disk: PathBuf,
    asked: u64,
    _directory: tempfile::TempDir,
}

impl Small {
    fn start(engine: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (data, file) = (directory.path().join("data"), directory.path().join("usage.sqlite"));
        std::fs::create_dir(&data).expect("a directory");
        let database = Database::Sqlite(file);
        migrate(&database.url());
        let (url, data_dir) = (database.url(), data.to_str().expect("a path in UTF-8").to_owned());
        let variables = [
            ("DATABASE_URL", url.as_str()),
            ("TB_DATA_DIR", &data_dir),
            ("DRAIN_WAIT_SECONDS", "0"),
            // The end of trouble is told at this level.
            ("LOG_LEVEL", "info"),
        ];
        let service = Service::start(engine, &variables, |command| on_small_disk(command, &data));
        let disk = Path::new("/proc").join(service.pid().to_string()).join("root");
        let disk = disk.join(data.strip_prefix("/").expect("an absolute path"));
        let small = Self { service, database, disk, asked: 0, _directory: directory };
        small.service.await_price("BTC", 1);
        small
    }

    /// Asks prices, every one of which must be answered.
    fn ask(&mut self, requests: u64) {
        for request in 0..requests {
            // Not of the asset that the start waits for: these alone are counted here.
            let asset = ["ETH", "SOL"][request as usize % 2];
            let reply = self.service.get(&format!("/price?asset={asset}&allow_stale=1"));
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        self.asked += requests;
    }

    fn metric(&self, name: &str) -> u64 {
        let text = http::get(self.service.address("health_lpo"), "/metrics", &[]).text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
    }

    /// Takes all the room there is, but `left` bytes.
    fn fill(&self, left: u64) {
        let path = self.disk.join("filler");
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the small disk");
        for block in [vec![7; 4_096], vec![7; 1]] {
            let full = loop {
                if let Err(full) = file.write_all(&block) {
                    break full;
                }
            };
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        }
        if left > 0 {
            let bytes = file.metadata().expect("its length").len();
            file.set_len(bytes.checked_sub(left).expect("a disk with more room")).expect("room again");
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.disk.join("filler")).expect("the filler");
    }

    fn in_database(&self) -> u64 {
        self.database.number("SELECT coalesce(sum(requests), 0) FROM usage_logs WHERE asset IN ('ETH', 'SOL')")
    }

    /// Waits until everything asked is in the database, and the journal is well.
    fn await_all(&self, what: &str) {
        eventually(what, || {
            (self.in_database() >= self.asked && self.metric("tb_usage_journal_up") == 1).then_some(())
        });
        assert_eq!((self.in_database(), self.metric("tb_usage_held_records")), (self.asked, 0), "{what}");
    }

    /// Ends the service: all is there, and trouble was told as often as its end.
    fn finish(mut self) {
        self.service.signal("TERM");
        assert!(self.service.wait().success());
        assert_eq!(self.in_database(), self.asked, "and stays so");
        self.database.judge_rollups();
        let log = self.service.log();
        let told = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        let (begun, ended) =
            (told("usage cannot be written to the journal"), told("usage is written to the journal again"));
        assert!(begun > 0 && begun == ended, "{log}");
    }
}

#[test]
fn a_disk_that_fills_up_costs_no_price_and_no_count() {
    for engine in ENGINES {
        let mut small = Small::start(engine);
        small.ask(ASKED);
        small.await_all("the first to be in the database");
        // What was delivered goes, and makes room: that is taken too.
        eventually("the disk to be full, and all that could be written delivered", || {
            small.fill(0);
            small.ask(20);
            (small.metric("tb_usage_held_records") > 0 && small.metric("tb_usage_segments") == 0).then_some(())
        });
        small.fill(0);
        small.ask(ASKED);
        eventually("the disk to be felt", || (small.metric("tb_usage_journal_up") == 0).then_some(()));
        assert!(small.metric("tb_usage_append_failures_total") > 0);
        let ready = http::get(small.service.address("health_lpo"), "/readyz", &[]);
        assert_eq!(ready.status, 200, "prices are served as before: {}", ready.text());
        small.empty();
        small.ask(ASKED);
        small.await_all("all to be in the database");
        small.finish();
    }
}

/// Nobody makes room here but the journal itself: its files go when they are delivered.
#[test]
fn a_disk_that_is_simply_small_is_no_end_of_the_journal() {
    for engine in ENGINES {
        let mut small = Small::start(engine);
        small.fill(LEFT_BYTES);
        let enough = 5 * LEFT_BYTES / 64;
        eventually("five times the disk to be written", || {
            small.ask(100);
            (small.metric("tb_usage_journaled_records_total") >= enough).then_some(())
        });
        small.await_all("all to be in the database");
        assert!(small.metric("tb_usage_append_failures_total") > 0, "the disk was never full");
        assert_eq!(small.metric("tb_usage_detail_given_up_total"), 0);
        small.finish();
    }
}

#[test]
fn a_second_process_on_the_same_directory_is_refused_with_the_remedy() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let data_dir = data.path().to_str().expect("a path in UTF-8");
    let variables = [("TB_DATA_DIR", data_dir), ("DATABASE_URL", "sqlite::memory:"), ("DRAIN_WAIT_SECONDS", "0")];
    let mut first = Service::demo_with("epoll", &variables);
    let mut second = Command::new(binary());
    second.args(["demo", "--any-port"]).env("TB_ENGINE", "epoll").envs(variables).stdin(Stdio::null());
    let output = second.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let last = told.lines().last().unwrap_or_default();
    assert!(last.contains("another process has the journal") && last.contains("TB_DATA_DIR"), "{told}");
    first.signal("TERM");
    assert!(first.wait().success());
    let mut third = Service::demo_with("epoll", &variables);
    third.signal("TERM");
    assert!(third.wait().success());
}
