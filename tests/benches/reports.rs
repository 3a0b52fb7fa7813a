//! What reports over millions of rows take: sums from the totals per hour and minute, and a download of every row
//! against `psql`'s `\copy` of the same query.
//!
//! ```text
//! cargo bench -p trinity-tests --bench reports -- [--rounds N] [--rows N] [--only sums|downloads]
//! ```
//!
//! One service on one PostgreSQL, which holds `--rows` rows of yesterday: 20 keys × 150 assets, and what else there is.
//! Sums are asked for over HTTP, each as often as there are rounds and once before that. Downloads take turns with
//! `\copy`, both into nothing. Memory is the peak of the service's process after the downloads against what it had
//! before them.

#![expect(clippy::print_stdout, reason = "a bench says what it measured")]

#[path = "load/flags.rs"]
mod flags;

use flags::{Flags, bench, median};
use harness::http;
use harness::postgres::Postgres;
use harness::service::{ENGINES, Service, migrate};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

/// A day, ms.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Rows of one statement.
const CHUNK_ROWS: u64 = 1_000_000;

/// Fills the day that begins at `day_ms` with rows and their totals.
fn fill(server: &Postgres, url: &str, day_ms: u64, rows: u64) {
    server.sql(url, &format!("SELECT usage_logs_make_day({})", day_ms / DAY_MS));
    for from in (0..rows).step_by(usize::try_from(CHUNK_ROWS).unwrap_or(usize::MAX)) {
        let to = (from + CHUNK_ROWS).min(rows);
        let sql = format!(
            "INSERT INTO usage_logs (time_ms, node, segment, record_offset, key_id, asset, protocol, endpoint, status, \
             tier, requests) SELECT {day_ms} + i * {DAY_MS} / {rows}, 'node-' || h % 2, 1, i, 1 + (h >> 2) % 20, 'A' || \
             (h >> 8) % 150, CASE WHEN (h >> 16) % 3 = 0 THEN 'udp' ELSE 'tcp' END, CASE WHEN (h >> 16) % 3 = 0 THEN \
             'udp-json' ELSE '/price' END, CASE WHEN (h >> 20) % 50 = 0 THEN 429 ELSE 200 END, 'local', 1 + (h >> 24) % 3 \
             FROM (SELECT i, abs(hashint8(i)::bigint) AS h FROM generate_series({from}::bigint, {to} - 1) AS s (i)) AS n"
        );
        server.sql(url, &sql);
    }
    for (sums, source, time, step) in
        [("usage_minutes", "usage_logs", "time_ms", 60_000), ("usage_hours", "usage_minutes", "bucket_ms", 3_600_000)]
    {
        let sql = format!(
            "INSERT INTO {sums} (bucket_ms, key_id, asset, protocol, endpoint, status, tier, node, requests) SELECT {time} \
             - {time} % {step}, key_id, asset, protocol, endpoint, status, tier, node, sum(requests)::bigint FROM {source} \
             GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2"
        );
        server.sql(url, &sql);
    }
    server.sql(url, "VACUUM ANALYZE");
}

/// A figure of `/proc/<pid>/status`, KiB.
fn memory_kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the service runs");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a figure");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Downloads a report; how long it took, and its bytes.
fn download(service: &Service, path: &str) -> (Duration, u64) {
    let began = Instant::now();
    let mut socket = TcpStream::connect(service.address("lrs_tcp")).expect("the reports' port");
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
        service.admin_key()
    );
    socket.write_all(head.as_bytes()).expect("sent");
    let (mut buffer, mut bytes, mut last) = (vec![0; 1 << 18], 0, Vec::new());
    loop {
        let read = socket.read(&mut buffer).expect("the report goes on");
        if read == 0 {
            break;
        }
        if bytes == 0 {
            assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..read]));
        }
        bytes += read as u64;
        last.extend_from_slice(&buffer[read.saturating_sub(5)..read]);
        last.drain(..last.len().saturating_sub(5));
    }
    assert_eq!(last, b"0\r\n\r\n", "the body ends as a whole one does");
    (began.elapsed(), bytes)
}

fn sums(service: &Service, rounds: usize, day_ms: u64) {
    let bearer = format!("Bearer {}", service.admin_key());
    let whole = (day_ms, day_ms + DAY_MS);
    // The worst edges: half an hour of minutes at both, and records.
    let odd = (day_ms + 30 * 60_000 + 1, day_ms + DAY_MS - 30 * 60_000 - 1);
    println!("{:<58}{:>12}{:>12}", "sums over HTTP", "median ms", "most ms");
    for (name, (from_ms, to_ms), query) in [
        ("a day by asset", whole, "group_by=asset"),
        ("a day by key and asset, first page of 1,000", whole, "group_by=key,asset&limit=1000"),
        ("a day by hour and key", whole, "group_by=key&interval=hour"),
        ("a day by day in Asia/Kolkata and status", whole, "group_by=status&interval=day&tz=Asia/Kolkata"),
        ("a day with odd edges by asset", odd, "group_by=asset"),
        ("a day of one key by asset", whole, "group_by=asset&key_id=7"),
        ("a day by minute, first page of 1,000", whole, "interval=minute"),
    ] {
        let path = format!("/reports/usage?{query}&from={from_ms}&to={to_ms}");
        let ask = || {
            let began = Instant::now();
            let reply = http::get(service.address("lrs_tcp"), &path, &[("Authorization", &bearer)]);
            assert_eq!(reply.status, 200, "{}", reply.text());
            began.elapsed().as_secs_f64() * 1_000.0
        };
        ask();
        let times: Vec<f64> = (0..rounds).map(|_| ask()).collect();
        let most = times.iter().copied().fold(0.0, f64::max);
        println!("{name:<58}{:>12.1}{most:>12.1}", median(times));
    }
    println!();
}

fn downloads(service: &Service, server: &Postgres, url: &str, rounds: usize, day_ms: u64) {
    let to_ms = day_ms + DAY_MS;
    let path = format!("/reports/usage?format=csv&from={day_ms}&to={to_ms}");
    let copy = format!(
        "\\copy (SELECT time_ms, key_id, asset, protocol, endpoint, status, tier, node, requests FROM usage_logs WHERE \
         time_ms >= {day_ms} AND time_ms < {to_ms} ORDER BY time_ms, node, segment, record_offset) TO '/dev/null' CSV HEADER"
    );
    let before_kib = memory_kib(service.pid(), "VmRSS");
    println!("{:<10}{:>12}{:>12}{:>10}{:>16}", "download", "csv s", "\\copy s", "ratio", "bytes");
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let began = Instant::now();
        server.sql(url, &copy);
        let copied = began.elapsed().as_secs_f64();
        let (took, bytes) = download(service, &path);
        ratios.push(took.as_secs_f64() / copied);
        println!(
            "{round:<10}{:>12.2}{copied:>12.2}{:>10.2}{bytes:>16}",
            took.as_secs_f64(),
            took.as_secs_f64() / copied
        );
    }
    let peak_kib = memory_kib(service.pid(), "VmHWM");
    let more = peak_kib.saturating_sub(before_kib) / 1_024;
    println!("median ratio {:.2}; memory {} MiB before, peak {more} MiB more", median(ratios), before_kib / 1_024);
}

fn run(flags: &Flags) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let day_ms = (now.as_secs() / 86_400 - 1) * DAY_MS;
    let server = Postgres::start();
    let url = server.url_at(server.address());
    migrate(&url);
    fill(&server, &url, day_ms, flags.number("--rows"));
    let counts = "SELECT (SELECT count(*) FROM usage_logs), (SELECT count(*) FROM usage_minutes), (SELECT count(*) FROM \
                  usage_hours)";
    println!("rows | minutes | hours: {}\n", server.sql(&url, counts));
    let service = Service::demo_with(ENGINES[1], &[("DATABASE_URL", &url), ("TB_SHARDS", "1")]);
    if "sums".contains(&flags.only) {
        sums(&service, flags.rounds(), day_ms);
    }
    if "downloads".contains(&flags.only) {
        downloads(&service, &server, &url, flags.rounds(), day_ms);
    }
}

fn main() -> ExitCode {
    bench("reports", &[("--rounds", 3, 1_000), ("--rows", 5_000_000, 100_000_000)], run)
}
