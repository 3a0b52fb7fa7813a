//! What accounting costs a price, and what a report costs it: CPU per request with usage counted against not counted,
//! and the shards' CPU and the latency beside a download against none.
//!
//! ```text
//! cargo bench -p trinity-tests --bench usage -- [--rounds N] [--millis N] [--rate N] [--rows N] [--only NAME]
//! ```
//!
//! Two services on one PostgreSQL, one of them with `TB_USAGE=off`, each with one shard on the first allowed CPU; the
//! generator is on the second. They take turns in rounds, in an order that alternates; figures are medians over rounds,
//! ratios medians of the rounds' ratios. CPU of the process includes everything behind a count: journal, deliveries, and
//! feeds, which both arms have.

#![expect(clippy::print_stdout, reason = "a bench says what it measured")]

mod load;

use harness::postgres::Postgres;
use harness::service::{ENGINES, Service};
use load::{Figures, Flags, Load, measure, table};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Assets asked for in turn: with one key, as many sums in each window.
const ASSETS: [&str; 16] = [
    "BTC", "ETH", "SOL", "DOGE", "XRP", "LINK", "DOT", "LTC", "AVAX", "UNI", "PEPE", "XLM", "ICP", "AAVE", "ADA",
    "ATOM",
];

fn start(engine: &str, database_url: &str, usage: &str, cpu: usize) -> Service {
    let cpus = cpu.to_string();
    let variables = [
        ("DATABASE_URL", database_url),
        ("TB_SHARDS", "1"),
        ("TB_USAGE", usage),
        ("CLUSTER_NODE", usage),
        ("TB_CONTROL_CPUS", cpus.as_str()),
    ];
    let service = Service::demo_with(engine, &variables);
    service.await_price("ATOM", 1);
    service
}

/// Takes turns, whoever was second in a round is first in the next.
fn rounds(count: usize, arms: [&dyn Fn() -> Figures; 2]) -> Vec<Vec<Figures>> {
    let turn = |round: usize| {
        if round.is_multiple_of(2) {
            let first = arms[0]();
            vec![first, arms[1]()]
        } else {
            let second = arms[1]();
            vec![arms[0](), second]
        }
    };
    (0..count).map(turn).collect()
}

/// Downloads the whole report again and again until told to stop; the bytes that came.
fn download(service: &Service, stop: &AtomicBool) -> u64 {
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        let mut socket = TcpStream::connect(service.address("lrs_tcp")).expect("the reports' port");
        let asked = format!(
            "GET /reports/usage?format=csv&from=2020-01-01T00:00:00Z&to=2030-01-01T00:00:00Z HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\
             Authorization: Bearer {}\r\n\r\n",
            service.admin_key()
        );
        socket.write_all(asked.as_bytes()).expect("sent");
        let first = socket.read(&mut buffer).expect("an answer");
        let head = String::from_utf8_lossy(&buffer[..first.min(12)]).into_owned();
        assert_eq!(head, "HTTP/1.1 200", "a report is given");
        while !stop.load(Ordering::Relaxed) {
            match socket.read(&mut buffer).expect("the report goes on") {
                0 => break,
                read => bytes += read as u64,
            }
        }
    }
    bytes
}

/// Rows of a past day, as any node could have written them.
fn fill(postgres: &Postgres, url: &str, rows: u64) {
    let sql = format!(
        "INSERT INTO usage_logs (node, segment, record_offset, time_ms, key_id, asset, protocol, endpoint, status, tier, \
         requests) SELECT 'filled', 1, n, 1790000000000 + n * 17, 1 + n % 20, 'A' || n % 150, CASE n % 2 WHEN 0 THEN \
         'tcp' ELSE 'udp' END, '/price', 200, 'local', 1 + n % 7 FROM generate_series(1, {rows}) AS n"
    );
    postgres.sql(url, &sql);
    postgres.sql(url, "VACUUM ANALYZE usage_logs");
}

fn run(flags: &Flags) {
    let plan = tuning::cpus::AllowedCpus::read().expect("the CPUs that may be used").cpus;
    let (control, generator) = (plan.last().copied().unwrap_or(0), plan.last().copied().unwrap_or(0));
    for engine in ENGINES {
        let postgres = Postgres::start();
        let url = postgres.url_at(postgres.address());
        harness::service::migrate(&url);
        let load = |rate| Load {
            rate,
            connections: 64,
            assets: ASSETS.to_vec(),
            duration: flags.duration(),
            cpus: vec![generator],
        };
        let on = start(engine, &url, "on", control);
        if "accounting".contains(&flags.only) {
            let off = start(engine, &url, "off", control);
            for (rate, pace) in [(0, "as fast as it goes"), (flags.number("--rate"), "on a schedule")] {
                let arm = |service: &Service| measure(service, &load(rate), |_| 0);
                let rounds = rounds(flags.rounds(), [&|| arm(&off), &|| arm(&on)]);
                table(&format!("accounting, {engine}, 1 shard, {pace}"), &["off", "on"], "-", &rounds);
            }
        }
        if "report".contains(&flags.only) {
            fill(&postgres, &url, flags.number("--rows"));
            let arm =
                |reporting: bool| {
                    measure(&on, &load(flags.number("--rate")), |stop| {
                        if reporting { download(&on, stop) / 1_000_000 } else { 0 }
                    })
                };
            let rounds = rounds(flags.rounds(), [&|| arm(false), &|| arm(true)]);
            let title = format!("report, {engine}, 1 shard, {} requests/s each", flags.number("--rate"));
            table(&title, &["none", "running"], "MB", &rounds);
        }
    }
}

fn main() -> ExitCode {
    load::bench(
        "usage",
        &[
            ("--rounds", 9, 100),
            ("--millis", 2_000, 60_000),
            ("--rate", 4_000, 1_000_000),
            ("--rows", 1_000_000, 100_000_000),
        ],
        run,
    )
}
