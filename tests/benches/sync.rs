//! How long `trinity-beast sync` takes: a full copy against `redis-cli --pipe` of the very commands that it sends, and one
//! that finds nothing new.
//!
//! ```text
//! cargo bench -p trinity-tests --bench sync -- [--rounds N] [--rows N] [--keys N]
//! ```
//!
//! Both servers of its own. The commands are taken off the wire once, on the program's way to the cache, and kept in a
//! file; then the two take turns on an emptied cache, and a round's ratio is of its own two. Of `redis-cli` the whole run is
//! counted, of the program both the whole run, from its start to its end with reading the database, and what it says
//! itself.

#![expect(clippy::print_stdout, reason = "a bench says what it measured")]

#[path = "load/flags.rs"]
mod flags;

use flags::{Flags, bench, median};
use harness::postgres::Postgres;
use harness::redis::Redis;
use harness::service::{binary, migrate};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Rows that the replaced system had, and twice what would be its keys.
const ROWS: u64 = 249_000;
const KEYS: u64 = 10_000;

/// No round begins after this time, however many are asked for: planting takes half a minute, a round some seconds.
const ROUNDS_MAX: Duration = Duration::from_secs(120);

/// Rows and keys as nodes leave them: over 90 days, ten assets, each key as often.
fn plant(server: &Postgres, url: &str, rows: u64, keys: u64) {
    migrate(url);
    server.sql(
        url,
        &format!(
            "INSERT INTO api_keys (hash, hint, name, tier, udp_secret, created_time_ms) SELECT sha256(n::text::bytea), \
             'tb_live_abcd', 'key ' || n, 'pro', substr(sha256(n::text::bytea), 1, 16), 0 FROM generate_series(1, {keys}) AS n"
        ),
    );
    let days = "SELECT usage_logs_make_day(day) FROM generate_series((extract(epoch FROM now()) / 86400)::bigint - 90, \
                (extract(epoch FROM now()) / 86400)::bigint) AS day";
    server.sql(url, days);
    server.sql(
        url,
        &format!(
            "INSERT INTO usage_logs (time_ms, segment, record_offset, key_id, status, requests, node, asset, protocol, \
             endpoint, tier) SELECT (extract(epoch FROM now()) * 1000)::bigint - 7776000000 + n * 7776000000 / {rows}, 1, n, \
             1 + n * 7919 % {keys}, 200, 1 + n % 900, 'bench-node-' || n % 4, (ARRAY['BTC', 'ETH', 'SOL', 'XRP', 'ADA', \
             'DOGE', 'LINK', 'DOT', 'AVAX', 'KAS'])[1 + n % 10], 'tcp', 'price', 'local' FROM generate_series(1, {rows}) AS n"
        ),
    );
    server.sql(url, "ANALYZE");
}

/// What one connection sent.
type Kept = Arc<Mutex<Vec<u8>>>;

/// Passes connections on to `to`, and keeps what is sent there.
struct Tap {
    address: SocketAddr,
    sent: Arc<Mutex<Vec<Kept>>>,
}

impl Tap {
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let sent: Arc<Mutex<Vec<Kept>>> = Arc::default();
        let all = Arc::clone(&sent);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(to).expect("a server");
                let kept = Arc::new(Mutex::new(Vec::new()));
                all.lock().expect("the list").push(Arc::clone(&kept));
                let back = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
                std::thread::spawn(move || pass(back.0, back.1, None));
                std::thread::spawn(move || pass(client, server, Some(&kept)));
            }
        });
        Self { address, sent }
    }

    /// Everything that was sent, a connection after the other: each sends whole commands.
    fn write(&self, path: &Path) -> usize {
        let mut file = File::create(path).expect("a file");
        let sent = self.sent.lock().expect("the list");
        sent.iter()
            .map(|kept| {
                let kept = kept.lock().expect("bytes");
                file.write_all(&kept).expect("written");
                kept.len()
            })
            .sum()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, kept: Option<&Mutex<Vec<u8>>>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count) = from.read(&mut bytes)
        && count > 0
    {
        if let Some(kept) = kept {
            kept.lock().expect("bytes").extend_from_slice(&bytes[..count]);
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

struct World {
    database: String,
    _server: Postgres,
    cache: Redis,
}

impl World {
    /// The program's run; seconds, and what it said.
    fn sync(&self, cache: &str, words: &[&str]) -> (f64, serde_json::Value) {
        let mut command = Command::new(binary());
        command.args(["sync", "--json"]).args(words).env_clear().stdin(Stdio::null());
        command.env("DATABASE_URL", &self.database).env("CACHE_URL", cache);
        let began = Instant::now();
        let output = command.output().expect("trinity-beast runs");
        let took = began.elapsed().as_secs_f64();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (took, serde_json::from_slice(&output.stdout).expect("a summary"))
    }

    /// Seconds that `redis-cli` takes for a file of commands.
    fn pipe(&self, path: &Path) -> f64 {
        let port = self.cache.address().port().to_string();
        let mut command = Command::new("redis-cli");
        command.args(["-p", &port, "--pipe"]).stdin(File::open(path).expect("the file"));
        let began = Instant::now();
        let output = command.output().expect("redis-cli, which tests/run installs");
        let took = began.elapsed().as_secs_f64();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("errors: 0,"), "{said}");
        took
    }

    fn names(&self) -> String {
        self.cache.ask(&["DBSIZE"])
    }
}

fn own_ms(summary: &serde_json::Value) -> f64 {
    summary["took_ms"].as_f64().expect("a number")
}

fn row(name: &str, [pipe, whole, ratio, own_ms]: [f64; 4]) {
    println!("{name:>6}  {pipe:>13.3}  {whole:>12.3}  {ratio:>8.2}  {own_ms:>12.0}");
}

fn run(flags: &Flags) {
    let (rows, keys) = (flags.number("--rows"), flags.number("--keys"));
    let server = Postgres::start();
    let database = server.url_at(server.address());
    plant(&server, &database, rows, keys);
    let world = World { database, _server: server, cache: Redis::start() };
    let url = world.cache.url();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("commands");
    let tap = Tap::start(world.cache.address());
    world.sync(&world.cache.url_at(tap.address), &["--full"]);
    let bytes = tap.write(&file);
    let names = world.names();
    println!("{rows} rows, {keys} keys: {names} names, {bytes} bytes of commands");
    println!("{:>6}  {:>13}  {:>12}  {:>8}  {:>12}", "round", "redis-cli (s)", "sync (s)", "ratio", "its own (ms)");
    let began = Instant::now();
    let (mut ratios, mut wholes, mut pipes, mut owns) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=flags.rounds() {
        world.cache.flush_all();
        let pipe = world.pipe(&file);
        assert_eq!(world.names(), names, "redis-cli has loaded something else");
        world.cache.flush_all();
        let (whole, summary) = world.sync(&url, &["--full"]);
        assert_eq!(world.names(), names, "the program has loaded something else");
        row(&round.to_string(), [pipe, whole, whole / pipe, own_ms(&summary)]);
        ratios.push(whole / pipe);
        owns.push(own_ms(&summary));
        wholes.push(whole);
        pipes.push(pipe);
        if began.elapsed() > ROUNDS_MAX {
            println!("no more rounds: these took {} s", began.elapsed().as_secs());
            break;
        }
    }
    row("median", [median(pipes), median(wholes), median(ratios), median(owns)]);
    let (mut wholes, mut owns) = (Vec::new(), Vec::new());
    for _ in 0..flags.rounds().clamp(5, 20) {
        let (whole, summary) = world.sync(&url, &[]);
        assert!(summary["full"].is_null() && summary["usage"]["written"] == 0, "{summary}");
        wholes.push(whole * 1_000.0);
        owns.push(own_ms(&summary));
    }
    println!("nothing new: {:.0} ms from start to end, {:.0} ms by its own count", median(wholes), median(owns));
}

fn main() -> ExitCode {
    let flags = [("--rounds", 5, 100), ("--rows", ROWS, 10_000_000), ("--keys", KEYS, 1_000_000)];
    bench("sync", &flags, run)
}
