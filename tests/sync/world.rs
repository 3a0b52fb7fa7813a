//! What a sync is tried on: a database, its store as nodes have it, a cache to copy it to, and another to judge by. What is
//! expected of it is the tests' to know.

use controlplane::config::DatabaseChoice;
use controlplane::keys::Secret;
use controlplane::store::{self, AuditEntry, Committed, KeyChange, NewKey, ReportLog, Store, UsageRow, UsageSpan};
use harness::history::database::Database;
use harness::redis::Redis;
use harness::service::{binary, migrate};
use serde_json::Value;
use shared::usage::UsageRecord;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;

pub const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Everything that stands in a cache, a line each, with the end of what ends by its own time, as a key does that works for
/// less than half a day; without the note of how far
/// it is a copy, which tells times.
const DUMP: &str = "local out = {} \
    for _, k in ipairs(redis.call('KEYS', '*')) do if k ~= 'sync:cursor' then \
      local t, v = redis.call('TYPE', k).ok, nil \
      if t == 'string' then v = redis.call('GET', k) \
      elseif t == 'hash' then local h, p = redis.call('HGETALL', k), {} \
        for i = 1, #h, 2 do p[#p + 1] = h[i] .. '=' .. h[i + 1] end table.sort(p) v = table.concat(p, ' ') \
      else v = table.concat(redis.call('ZRANGE', k, 0, -1, 'WITHSCORES'), ' ') end \
      local e = redis.call('PTTL', k) > 0 and 'ends' or 'stays' \
      if k:find('^usage_log:') or k:find('^report_usage:') then e = redis.call('PEXPIRETIME', k) end \
      if k:find('^apikey:') and redis.call('PTTL', k) < 43200000 then e = redis.call('PEXPIRETIME', k) end \
      out[#out + 1] = k .. ' ' .. e .. ' ' .. v end end \
    table.sort(out) return out";

pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("small")
}

fn audit() -> AuditEntry {
    let text = |text: &str| text.to_owned();
    AuditEntry {
        time_ms: now_ms(),
        node: text("n"),
        caller: text("test"),
        action: text("a"),
        target: text("t"),
        before: text("null"),
        after: text("null"),
    }
}

/// Rows of a segment from this time on, 10 ms after each other, of four keys or nobody's, and of three assets or none.
pub fn rows(node: &str, places: std::ops::Range<u64>, from_ms: u64) -> Vec<UsageRow> {
    let row = |offset: u64| {
        let assets: [&[u8; 16]; 4] = [
            &[0; 16],
            b"BTC\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"ETH\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"SOL\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ];
        let first_time_ms = from_ms + (offset - places.start) * 10;
        let record = UsageRecord {
            first_time_ms,
            last_time_ms: first_time_ms + 5,
            requests: 1 + offset % 3,
            asset: *assets[(offset % 4) as usize],
            key: (offset % 5) as u32,
            status: if offset.is_multiple_of(11) { 429 } else { 200 },
            protocol: (offset % 2) as u8,
            ..UsageRecord::default()
        };
        UsageRow { node: Arc::from(node), segment: 3, offset, record }
    };
    places.clone().map(row).collect()
}

fn report(number: u64) -> ReportLog {
    let text = |text: &str| text.to_owned();
    ReportLog {
        id: format!("00000000-0000-7000-8000-{number:012}"),
        time_ms: now_ms() - number * 1_000,
        key: 1,
        report: text("usage"),
        protocol: text("tcp"),
        format: text("csv"),
        query: text("asset=BTC"),
        status: 200,
        lines: 3,
        bytes: 99,
        took_ms: 7,
        complete: true,
        node: text("n1"),
    }
}

fn open(database: &Database, runtime: &Runtime) -> Arc<dyn Store> {
    let choice = DatabaseChoice { url: Some(Secret::new(database.url())), ..DatabaseChoice::default() };
    runtime.block_on(async { store::open(&choice, None) }).expect("an address")
}

/// A database, its store as nodes have it, a cache to copy it to, and another to judge by.
pub struct World {
    pub database: Database,
    pub runtime: Runtime,
    pub store: Arc<dyn Store>,
    pub cache: Redis,
    pub judge: Redis,
    /// When the world began, Unix ms.
    pub began_ms: u64,
    _directory: tempfile::TempDir,
}

impl World {
    pub fn new(on_postgres: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let database = match on_postgres {
            true => Database::new_postgres(),
            false => Database::Sqlite(directory.path().join("store.sqlite")),
        };
        if !on_postgres {
            migrate(&database.url());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let store = open(&database, &runtime);
        Self {
            database,
            runtime,
            store,
            cache: Redis::start(),
            judge: Redis::start(),
            began_ms: now_ms(),
            _directory: directory,
        }
    }

    /// Puts a copy of its file in the place of what the database is now, as an operator does.
    pub fn put_back(&mut self, copy: &Path) {
        let Database::Sqlite(file) = &self.database else { unreachable!("it is a file") };
        self.runtime.block_on(self.store.close());
        for beside in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{beside}", file.display()));
        }
        std::fs::copy(copy, file).expect("the copy");
        self.store = open(&self.database, &self.runtime);
    }

    /// Commits rows as their node does.
    pub fn commit(&self, node: &str, places: std::ops::Range<u64>, from_ms: u64) {
        for from in places.clone().step_by(10_000) {
            let to = (from + 10_000).min(places.end);
            let rows = rows(node, from..to, from_ms + (from - places.start) * 10);
            let span = UsageSpan { node, segment: 3, from, to };
            assert_eq!(self.runtime.block_on(self.store.commit_usage(span, &rows)), Ok(Committed::Done));
        }
    }

    pub fn key(&self, number: u8, expires_time_ms: Option<u64>) {
        let key = NewKey {
            hash: [number; 32],
            hint: "tb_live_abcd".to_owned(),
            name: format!("key {number}"),
            tier: "pro".to_owned(),
            limit_per_second: None,
            limit_per_month: None,
            permissions: None,
            udp_secret: [number; 16],
            expires_time_ms,
        };
        self.runtime.block_on(self.store.create_key(&key, None, &audit())).expect("a key");
    }

    pub fn change(&self, id: u32, change: KeyChange) {
        self.runtime.block_on(self.store.change_key(id, change, &audit())).expect("a change");
    }

    pub fn parameters(&self, changes: &[(&str, Option<&str>)]) {
        let changes: BTreeMap<_, _> =
            changes.iter().map(|(name, text)| ((*name).to_owned(), text.map(str::to_owned))).collect();
        let anything = BTreeMap::new();
        let done = self.store.put_parameters(&changes, &anything, &[]);
        self.runtime.block_on(done).expect("parameters");
    }

    /// As an operator would.
    pub fn change_by_hand(&self, sql: &str) {
        assert_eq!(self.database.sql(sql), "");
    }

    pub fn reports(&self, numbers: std::ops::Range<u64>) {
        let reports: Vec<ReportLog> = numbers.map(report).collect();
        self.runtime.block_on(self.store.log_reports(&reports)).expect("reports");
    }

    pub fn command(&self, cache: &Redis, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("sync").args(words).env_clear().stdin(Stdio::null());
        command.env("DATABASE_URL", self.database.url()).env("CACHE_URL", cache.url());
        command
    }

    pub fn spawn(&self, words: &[&str]) -> Child {
        self.spawn_to(&self.cache, words)
    }

    pub fn spawn_to(&self, cache: &Redis, words: &[&str]) -> Child {
        self.command(cache, words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a child")
    }

    /// What the cache says of how far it is a copy.
    pub fn note(&self) -> String {
        self.cache.ask(&["HGETALL", "sync:cursor"])
    }

    /// Syncs once; the summary.
    pub fn sync(&self, words: &[&str]) -> Value {
        summary(&self.command(&self.cache, &[words, &["--json"]].concat()).output().expect("trinity-beast runs"))
    }

    /// Everything in the cache.
    pub fn content(&self) -> String {
        self.cache.ask(&["EVAL", DUMP, "0"])
    }

    /// What a copy made anew now is.
    pub fn expected(&self) -> String {
        self.judge.flush_all();
        let made = summary(&self.command(&self.judge, &["--json"]).output().expect("trinity-beast runs"));
        assert!(made["full"].is_string(), "{made}");
        self.judge.ask(&["EVAL", DUMP, "0"])
    }

    /// Syncs until the cache is what it should be, and never fully.
    pub fn follows(&self, what: &str) {
        let (expected, deadline) = (self.expected(), Instant::now() + harness::PATIENCE / 2);
        loop {
            let summary = self.sync(&[]);
            assert!(summary["full"].is_null(), "{what}: {summary}");
            let content = self.content();
            if content == expected {
                return;
            }
            let other = content.lines().zip(expected.lines()).find(|(found, wanted)| found != wanted);
            assert!(Instant::now() < deadline, "{what}: {other:.400?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[track_caller]
pub fn summary(output: &Output) -> Value {
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{failed}");
    serde_json::from_str(&said).unwrap_or_else(|why| panic!("{why}: {said}{failed}"))
}
