//! The journal's disk fills up under a running service, and has room again: prices go on as if nothing were, and no count
//! is lost. And a directory that a process has is refused to a second one.
//!
//! The disk is a tmpfs of a few megabytes in a mount namespace of the service's own: it needs the rights of root, and
//! goes with the process.

use harness::eventually;
use harness::history::database::Database;
use harness::http;
use harness::service::{ENGINES, Service, binary, migrate};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Room on the disk: the copies of keys and instrument lists, and some thousand records.
const DISK: &str = "size=4m";

/// Requests in each part of the test.
const ASKED: u64 = 300;

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
        let variables = [("DATABASE_URL", url.as_str()), ("TB_DATA_DIR", &data_dir), ("DRAIN_WAIT_SECONDS", "0")];
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
            let asset = ["BTC", "ETH", "SOL"][request as usize % 3];
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

    /// Takes all the room there is.
    fn fill(&self) {
        let mut file = File::create(self.disk.join("filler")).expect("the small disk");
        for block in [vec![7; 4_096], vec![7; 1]] {
            let full = loop {
                if let Err(full) = file.write_all(&block) {
                    break full;
                }
            };
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.disk.join("filler")).expect("the filler");
    }

    fn requests_in_database(&self) -> u64 {
        self.database.number("SELECT coalesce(sum(requests), 0) FROM usage_logs")
    }
}

#[test]
fn a_disk_that_fills_up_costs_no_price_and_no_count() {
    for engine in ENGINES {
        let mut small = Small::start(engine);
        let before = small.metric("tb_usage_requests_total");
        small.ask(ASKED);
        eventually("the first to be in the journal", || {
            (small.metric("tb_usage_journaled_requests_total") == before + ASKED).then_some(())
        });
        small.fill();
        // The last page of the segment has room for some 60 more.
        eventually("the disk to be felt", || {
            small.ask(20);
            (small.metric("tb_usage_journal_up") == 0).then_some(())
        });
        small.ask(ASKED);
        eventually("what is counted to be held in memory", || {
            (small.metric("tb_usage_held_records") > 0).then_some(())
        });
        assert!(small.metric("tb_usage_append_failures_total") > 0);
        let ready = http::get(small.service.address("health_lpo"), "/readyz", &[]);
        assert_eq!(ready.status, 200, "prices are served as before: {}", ready.text());
        let counted = small.metric("tb_usage_requests_total");
        assert!(small.metric("tb_usage_journaled_requests_total") < counted);
        small.empty();
        small.ask(ASKED);
        eventually("all to be in the journal", || {
            let journaled = small.metric("tb_usage_journaled_requests_total");
            (journaled == before + small.asked && small.metric("tb_usage_journal_up") == 1).then_some(())
        });
        assert_eq!(small.metric("tb_usage_held_records"), 0);
        let all = before + small.asked;
        eventually("all to be in the database", || (small.requests_in_database() >= all).then_some(()));
        assert_eq!(small.requests_in_database(), all, "on {engine}");
        small.service.signal("TERM");
        assert!(small.service.wait().success());
        assert_eq!(small.requests_in_database(), all, "and stays so");
        let log = small.service.log();
        let told = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        assert_eq!(told("usage cannot be written to the journal"), 1, "{log}");
        assert_eq!(told("usage is written to the journal again"), 1, "{log}");
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
