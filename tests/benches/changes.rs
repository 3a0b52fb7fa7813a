//! What prices feel of everything else: latency and CPU per request while parameters are reloaded, keys are made and
//! revoked, the database hangs, the cache is gone or emptied, each beside quiet times in the same run.
//!
//! ```text
//! cargo bench -p trinity-tests --bench changes -- [--rounds N] [--millis N] [--rate N] [--only NAME]
//! ```
//!
//! One service on two shards, with a PostgreSQL and a Redis of its own behind proxies that can hang and cut, for each
//! engine. An open schedule asks it over TCP and UDP; latency counts from the intended time. Arms take turns within each
//! round, quiet first and last, and each figure is the median over rounds, each ratio the median of the rounds' ratios to
//! that round's quiet arm. On a machine of two CPUs server and generator share them, so only ratios are worth anything.

#![expect(clippy::print_stdout, reason = "a bench says what it measured")]

use harness::postgres::Postgres;
use harness::proxy::{Fault, Proxy};
use harness::redis::Redis;
use harness::service::{ENGINES, Service};
use loadgen::job::{Credentials, DatagramFormat, Job, Pace, Progress, Target};
use loadgen::outcome::{LevelOutcome, Tally};
use loadgen::plan::Level;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time between two changes of one arm.
const CHANGE_EVERY: Duration = Duration::from_millis(100);

/// What happens beside the prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    Quiet,
    Reload,
    Keys,
    DatabaseHangs,
    CacheGone,
    CacheFlushed,
    QuietAgain,
}

impl Arm {
    const ALL: [Self; 7] = [
        Self::Quiet,
        Self::Reload,
        Self::Keys,
        Self::DatabaseHangs,
        Self::CacheGone,
        Self::CacheFlushed,
        Self::QuietAgain,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Reload => "reload",
            Self::Keys => "keys",
            Self::DatabaseHangs => "database hangs",
            Self::CacheGone => "cache gone",
            Self::CacheFlushed => "cache flushed",
            Self::QuietAgain => "quiet again",
        }
    }
}

/// What is measured, and for how long.
struct Settings {
    rounds: usize,
    duration: Duration,
    rate: u64,
    only: String,
}

/// What one arm of one round found.
#[derive(Clone, Copy)]
struct Figures {
    p50_us: f64,
    p99_us: f64,
    cpu_ns: f64,
    success: f64,
    broken: u64,
    changes: u64,
}

/// The service under test with what it depends on.
struct World {
    database: Proxy,
    cache: Proxy,
    redis: Redis,
    service: Service,
    _postgres: Postgres,
}

impl World {
    fn start(engine: &str) -> Self {
        let postgres = Postgres::start();
        let redis = Redis::start();
        let (database, cache) = (Proxy::start(postgres.address()), Proxy::start(redis.address()));
        let database_url = postgres.url_at(database.address());
        let cache_url = format!("redis://{}", cache.address());
        harness::service::migrate(&database_url);
        let variables = [
            ("DATABASE_URL", database_url.as_str()),
            ("CACHE_URL", cache_url.as_str()),
            ("TB_SHARDS", "2"),
            ("CLUSTER_NODE", "bench"),
        ];
        let service = Service::demo_with(engine, &variables);
        service.await_price("BTC", 2);
        // Administration answers once the database is reached.
        harness::eventually("the database is in use", || {
            (service.admin_request("POST", "/admin/reload-params", None).status == 200).then_some(())
        });
        Self { database, cache, redis, service, _postgres: postgres }
    }

    /// Does the arm's work until told to stop; how often it did it.
    fn disturb(&self, arm: Arm, stop: &AtomicBool, changes: &AtomicU64) {
        match arm {
            Arm::DatabaseHangs => self.database.set(Fault::Hang),
            Arm::CacheGone => self.cache.set(Fault::Refuse),
            _ => {}
        }
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            match arm {
                Arm::Reload => {
                    assert_eq!(self.service.admin_request("POST", "/admin/reload-params", None).status, 200);
                }
                Arm::Keys => self.make_and_revoke(),
                Arm::CacheFlushed => self.redis.flush_all(),
                _ => {}
            }
            changes.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(CHANGE_EVERY.saturating_sub(began.elapsed()));
        }
        self.database.set(Fault::None);
        self.cache.set(Fault::None);
    }

    fn make_and_revoke(&self) {
        let made = self.service.admin_request("POST", "/admin/keys", Some(r#"{"name":"bench","tier":"basic"}"#));
        assert_eq!(made.status, 201, "{made:?}");
        let id = made.json()["key_id"].as_u64().expect("a number");
        let revoked = self.service.admin_request("POST", &format!("/admin/keys/{id}/revoke"), None);
        assert_eq!(revoked.status, 200, "{revoked:?}");
    }

    fn job(&self, duration: Duration) -> Job {
        let ready = self.service.ready();
        let text = |name: &str| ready[name].as_str().expect("in the ready file").to_owned();
        let mut udp_secret = [0; 16];
        for (byte, pair) in udp_secret.iter_mut().zip(text("udp_secret").as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).expect("hex");
            *byte = u8::from_str_radix(pair, 16).expect("hex");
        }
        Job {
            targets: vec![Target {
                name: "bench".to_owned(),
                tcp: Some(self.service.address("lpo_tcp")),
                udp: Some(self.service.address("lpo_udp")),
            }],
            credentials: Credentials {
                key: text("stress_key"),
                udp_key_id: u32::try_from(ready["udp_key_id"].as_u64().expect("a number")).expect("a key's number"),
                udp_secret,
            },
            pace: Pace::Open,
            pipeline: 1,
            train: 1,
            format: DatagramFormat::Binary,
            assets: ["BTC", "ETH", "SOL"].map(|name| shared::asset::Symbol::new(name.as_bytes()).expect("good")).into(),
            warm_up: Duration::from_millis(200),
            duration,
            late_after: Duration::from_secs(5),
            lost_after: Duration::from_secs(5),
            age_max: Duration::from_secs(60),
            cpus: Vec::new(),
            threads: 1,
        }
    }

    fn measure(&self, arm: Arm, settings: &Settings) -> Figures {
        let (stop, changes, progress) = (AtomicBool::new(false), AtomicU64::new(0), Progress::default());
        let cpu = || tuning::clock::process_cpu_ns_of(self.service.pid()).expect("the service runs");
        let before = cpu();
        let level = Level { number: 1, connections: 64, rate: settings.rate };
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| self.disturb(arm, &stop, &changes));
            let outcome = loadgen::level::run(&self.job(settings.duration), &level, &progress);
            stop.store(true, Ordering::Relaxed);
            outcome.expect("the level begins")
        });
        let sent = progress.sent.load(Ordering::Relaxed).max(1);
        figures(&outcome, (cpu() - before) as f64 / sent as f64, changes.load(Ordering::Relaxed))
    }
}

fn figures(outcome: &LevelOutcome, cpu_ns: f64, changes: u64) -> Figures {
    let mut all = Tally::default();
    for tally in outcome.targets.iter().flat_map(|target| [&target.tcp, &target.udp]).flatten() {
        all.add(tally);
    }
    for fault in &all.faults {
        eprintln!("changes: {fault}");
    }
    let micros = |quantile| all.latency_ns.value_at_quantile(quantile) as f64 / 1_000.0;
    Figures {
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        cpu_ns,
        success: all.success_percent().unwrap_or_default(),
        broken: all.broken,
        changes,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn run(settings: &Settings) {
    for engine in ENGINES {
        let world = World::start(engine);
        let arms: Vec<Arm> = Arm::ALL
            .into_iter()
            .filter(|arm| *arm == Arm::Quiet || settings.only.is_empty() || arm.name().contains(&settings.only))
            .collect();
        let rounds: Vec<Vec<Figures>> =
            (0..settings.rounds).map(|_| arms.iter().map(|arm| world.measure(*arm, settings)).collect()).collect();
        println!("{engine}, 2 shards, 64 connections and 64 sockets, {} requests/s each", settings.rate);
        println!(
            "{:<16}{:>9}{:>10}{:>10}{:>10}{:>12}{:>12}{:>10}{:>9}",
            "", "p50 µs", "p99 µs", "p99 : q", "CPU ns", "CPU : q", "success %", "broken", "changes"
        );
        for (index, arm) in arms.iter().enumerate() {
            let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(|round| figure(&round[index])).collect());
            let ratio = |figure: fn(&Figures) -> f64| {
                median(rounds.iter().map(|round| figure(&round[index]) / figure(&round[0])).collect())
            };
            let sum = |figure: fn(&Figures) -> u64| rounds.iter().map(|round| figure(&round[index])).sum::<u64>();
            let worst = rounds.iter().map(|round| round[index].success).fold(100.0, f64::min);
            println!(
                "{:<16}{:>9.0}{:>10.0}{:>10.3}{:>10.0}{:>12.3}{worst:>12.4}{:>10}{:>9}",
                arm.name(),
                of(|figures| figures.p50_us),
                of(|figures| figures.p99_us),
                ratio(|figures| figures.p99_us),
                of(|figures| figures.cpu_ns),
                ratio(|figures| figures.cpu_ns),
                sum(|figures| figures.broken),
                sum(|figures| figures.changes),
            );
        }
        println!();
    }
}

fn read(arguments: &[String]) -> Result<Settings, String> {
    let mut settings = Settings { rounds: 7, duration: Duration::from_secs(2), rate: 4_000, only: String::new() };
    let mut arguments = arguments.iter().filter(|argument| *argument != "--bench");
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        let number = value.parse::<u64>().map_err(|_| format!("{name} needs a number, not {value}"));
        match name.as_str() {
            "--rounds" => settings.rounds = usize::try_from(number?.clamp(1, 100)).unwrap_or(1),
            "--millis" => settings.duration = Duration::from_millis(number?.clamp(100, 60_000)),
            "--rate" => settings.rate = number?.clamp(1, 1_000_000),
            "--only" => settings.only.clone_from(value),
            _ => return Err(format!("{name} is not known: --rounds N, --millis N, --rate N, --only NAME")),
        }
    }
    Ok(settings)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test` runs benches too, without this flag: there is nothing to test here.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match read(&arguments) {
        Ok(settings) => {
            run(&settings);
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("changes: {wrong}");
            ExitCode::from(2)
        }
    }
}
