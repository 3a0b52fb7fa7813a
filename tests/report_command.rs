//! `trinity-beast report` against the real service: whole reports become files, everything else an error that says what
//! happened, and a download that is cut midway leaves no file.

use harness::eventually;
use harness::history::database::Database;
use harness::proxy::{Fault, Proxy};
use harness::service::{Service, binary};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Rows of the past, put there as if the service had: incompressible names, so that a packed report is long too.
const ROWS: u64 = 60_000;

struct Bench {
    service: Service,
    _database: Database,
}

impl Bench {
    fn new() -> Self {
        let database = Database::new_postgres();
        // An hour ago, a row each ms.
        let begins = "(extract(epoch FROM now())::bigint - 3600) * 1000";
        let _ = database.sql(&format!(
            "INSERT INTO usage_logs (time_ms, segment, record_offset, key_id, status, requests, node, asset, protocol, \
             endpoint, tier) SELECT {begins} + i, 1, i, 7, 200, 1, md5(i::text), 'BTC', 'tcp', '/price', 'local' \
             FROM generate_series(0, {}) AS i",
            ROWS - 1
        ));
        let service = Service::demo_with("epoll", &[("DATABASE_URL", &database.url())]);
        Self { service, _database: database }
    }

    fn command(&self, at: SocketAddr, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .arg("report")
            .args(words)
            .args(["--url", &format!("http://{at}")])
            .env("TB_KEY", self.service.admin_key());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn report(&self, words: &[&str]) -> (Output, String) {
        let output = self.command(self.service.address("lrs_tcp"), words).output().expect("trinity-beast runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains(self.service.admin_key()), "{said}");
        (output, said)
    }
}

#[test]
fn reports_become_files_and_refusals_become_errors() {
    let bench = Bench::new();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("usage.csv");
    let path = file.to_str().expect("a path");
    let csv = ["usage", "--from", "-2h", "--key-id", "7", "--format", "csv"];
    let (output, said) = bench.report(&[&csv[..], &["-o", path]].concat());
    assert_eq!(output.status.code(), Some(0), "{said}");
    let text = std::fs::read_to_string(&file).expect("a file");
    assert_eq!(text.lines().count() as u64, ROWS + 1, "a head and every row");
    assert!(said.contains(" bytes in ") && output.stdout.is_empty(), "{said}");
    // The same on stdout.
    let (output, _) = bench.report(&csv);
    assert_eq!(String::from_utf8_lossy(&output.stdout), text);
    // One page, and all of them.
    let json = |words: &[&str]| -> Value {
        let (output, said) = bench.report(words);
        assert_eq!(output.status.code(), Some(0), "{said}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}"))
    };
    let page = json(&["usage", "--from", "-2h", "--key-id", "7", "--limit", "10"]);
    assert_eq!(page["rows"].as_array().map(Vec::len), Some(10));
    let from = page["rows"][0]["time_ms"].as_u64().expect("a time");
    let (from, to) = (from.to_string(), (from + 2_500).to_string());
    let all = json(&["usage", "--from", &from, "--to", &to, "--key-id", "7", "--all"]);
    let places: Vec<u64> =
        all["rows"].as_array().expect("rows").iter().filter_map(|row| row["time_ms"].as_u64()).collect();
    assert_eq!(places.len(), 2_500);
    assert!(places.windows(2).all(|pair| pair[0] < pair[1]) && all["next_cursor"].is_null(), "each row once, in order");
    assert_eq!(all["report"], "usage");
    // What the service refuses is told as it says it, and leaves no file.
    let refused = directory.path().join("refused.csv");
    let path = refused.to_str().expect("a path");
    for (words, expected) in [
        (&["usage", "--from", "2000", "--to", "1000"][..], "400"),
        (&["usage", "--protocol", "smoke"], "400"),
        (&["usage", "--key", "tb_no_such_key_at_all"], "401 key_invalid"),
    ] {
        let (output, said) = bench.report(&[words, &["--format", "csv", "-o", path]].concat());
        assert!(output.status.code() == Some(1) && said.contains(expected), "{words:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert!(is_empty_but(directory.path(), "usage.csv"));
    let all_of_csv = &["usage", "--all", "--format", "csv"];
    for words in [
        &["usage", "--format", "pdf"][..],
        all_of_csv,
        &["summary", "--all"],
        &["usage", "--from", "yesterday"],
        &["nothing"],
    ] {
        assert_eq!(bench.report(words).0.status.code(), Some(2), "{words:?}");
    }
}

fn is_empty_but(directory: &Path, name: &str) -> bool {
    let mut names =
        std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    names.all(|found| found == name)
}

#[test]
fn a_download_that_is_cut_leaves_no_file() {
    let bench = Bench::new();
    let directory = tempfile::tempdir().expect("a directory");
    let proxy = Proxy::start(bench.service.address("lrs_tcp"));
    proxy.set(Fault::Delay { there: Duration::ZERO, back: Duration::from_millis(40) });
    for format in ["csv", "ndjson"] {
        let file = directory.path().join(format);
        let part = directory.path().join(format!("{format}.part"));
        let words =
            ["usage", "--from", "-2h", "--key-id", "7", "--format", format, "-o", file.to_str().expect("a path")];
        let mut child = bench.command(proxy.address(), &words).spawn().expect("trinity-beast runs");
        eventually("a part of it", || {
            let length = std::fs::metadata(&part).map_or(0, |file| file.len());
            assert!(child.try_wait().expect("its state").is_none(), "it ended before it was cut");
            (length > 0).then_some(())
        });
        proxy.cut();
        let output = child.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains("is not written") && last.contains("broke off after"), "{said}");
        assert!(!file.exists() && part.exists());
    }
}
