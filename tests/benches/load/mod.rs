//! What benches over a whole service share: the load they put on it, what its process and its shards used meanwhile, and
//! medians over rounds.

mod flags;

pub use self::flags::{Flags, bench, median};

use harness::service::Service;
use loadgen::job::{Credentials, DatagramFormat, Job, Pace, Progress, Target};
use loadgen::outcome::Tally;
use loadgen::plan::Level;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

impl Flags {
    /// `--millis`, as it is used.
    pub fn duration(&self) -> Duration {
        Duration::from_millis(self.number("--millis"))
    }
}

/// What to ask, how fast, and from where.
#[derive(Clone, Debug)]
pub struct Load {
    /// Requests per second and protocol; 0: each connection asks again as soon as it is answered.
    pub rate: u64,
    /// Connections, and as many sockets.
    pub connections: usize,
    /// Assets asked for in turn.
    pub assets: Vec<&'static str>,
    /// How long.
    pub duration: Duration,
    /// CPUs of the generator; empty: wherever.
    pub cpus: Vec<usize>,
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Latency from the intended time, µs.
    pub p50_us: f64,
    /// The same.
    pub p99_us: f64,
    /// CPU of the whole process per request, ns.
    pub cpu_ns: f64,
    /// CPU of the shards' threads per request, ns.
    pub shards_ns: f64,
    /// Right answers in time, percent.
    pub success: f64,
    /// Connections that broke.
    pub broken: u64,
    /// Requests sent.
    pub sent: u64,
    /// How much was done beside it, as `beside` tells.
    pub beside: u64,
}

/// CPU that the threads of a process whose names begin with `name` have used, ns.
pub fn threads_cpu_ns(pid: u32, name: &str) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let of = |task: std::path::PathBuf| {
        let comm = fs::read_to_string(task.join("comm")).ok()?;
        let stat = comm.starts_with(name).then(|| fs::read_to_string(task.join("schedstat")).ok())??;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.flatten().filter_map(|task| of(task.path())).sum()
}

/// The load as the generator takes it.
pub fn job(service: &Service, load: &Load) -> Job {
    let ready = service.ready();
    let text = |name: &str| ready[name].as_str().expect("in the ready file").to_owned();
    let mut udp_secret = [0; 16];
    for (byte, pair) in udp_secret.iter_mut().zip(text("udp_secret").as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).expect("hex");
        *byte = u8::from_str_radix(pair, 16).expect("hex");
    }
    Job {
        targets: vec![Target {
            name: "bench".to_owned(),
            tcp: Some(service.address("lpo_tcp")),
            udp: Some(service.address("lpo_udp")),
        }],
        credentials: Credentials {
            key: text("stress_key"),
            udp_key_id: u32::try_from(ready["udp_key_id"].as_u64().expect("a number")).expect("a key's number"),
            udp_secret,
        },
        pace: if load.rate == 0 { Pace::Closed } else { Pace::Open },
        pipeline: 1,
        train: 1,
        format: DatagramFormat::Binary,
        assets: load.assets.iter().map(|name| shared::asset::Symbol::new(name.as_bytes()).expect("good")).collect(),
        warm_up: Duration::from_millis(200),
        duration: load.duration,
        late_after: Duration::from_secs(5),
        lost_after: Duration::from_secs(5),
        age_max: Duration::from_secs(60),
        cpus: load.cpus.clone(),
        threads: 1,
    }
}

/// Puts the load on the service and tells what came of it. `beside` runs meanwhile on a thread of its own, until what
/// it is given says that the load is over.
pub fn measure(service: &Service, load: &Load, beside: impl FnOnce(&AtomicBool) -> u64 + Send) -> Figures {
    let (stop, progress) = (AtomicBool::new(false), Progress::default());
    let cpu = || tuning::clock::process_cpu_ns_of(service.pid()).expect("the service runs");
    let (before, shards_before) = (cpu(), threads_cpu_ns(service.pid(), "shard"));
    let level = Level { number: 1, connections: load.connections, rate: load.rate.max(1) };
    let (outcome, beside) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| beside(&stop));
        let outcome = loadgen::level::run(&job(service, load), &level, &progress);
        stop.store(true, Ordering::Relaxed);
        (outcome.expect("the level begins"), beside.join().expect("what was beside it ended well"))
    });
    let (used, by_shards) = (cpu() - before, threads_cpu_ns(service.pid(), "shard") - shards_before);
    let sent = progress.sent.load(Ordering::Relaxed).max(1);
    let mut all = Tally::default();
    for tally in outcome.targets.iter().flat_map(|target| [&target.tcp, &target.udp]).flatten() {
        all.add(tally);
    }
    for fault in &all.faults {
        eprintln!("bench: {fault}");
    }
    let micros = |quantile| all.latency_ns.value_at_quantile(quantile) as f64 / 1_000.0;
    Figures {
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        cpu_ns: used as f64 / sent as f64,
        shards_ns: by_shards as f64 / sent as f64,
        success: all.success_percent().unwrap_or_default(),
        broken: all.broken,
        sent,
        beside,
    }
}

/// Prints a table: an arm a line, of each figure the median over rounds, and of some the median of the rounds' ratios to
/// the first arm. `beside` heads the column of what was done beside the load, in all rounds together.
pub fn table(title: &str, arms: &[&str], beside: &str, rounds: &[Vec<Figures>]) {
    println!("{title}");
    println!(
        "{:<16}{:>9}{:>10}{:>10}{:>10}{:>10}{:>11}{:>10}{:>11}{:>11}{:>8}{beside:>10}",
        "",
        "p50 µs",
        "p99 µs",
        "p99 : 1st",
        "CPU ns",
        "CPU : 1st",
        "shards ns",
        "sh. : 1st",
        "success %",
        "requests",
        "broken"
    );
    for (arm, name) in arms.iter().enumerate() {
        let middle = |figure: fn(&Figures) -> f64| median(rounds.iter().map(|round| figure(&round[arm])).collect());
        let ratio = |figure: fn(&Figures) -> f64| {
            median(rounds.iter().map(|round| figure(&round[arm]) / figure(&round[0])).collect())
        };
        let sum = |figure: fn(&Figures) -> u64| rounds.iter().map(|round| figure(&round[arm])).sum::<u64>();
        let worst = rounds.iter().map(|round| round[arm].success).fold(100.0, f64::min);
        println!(
            "{name:<16}{:>9.0}{:>10.0}{:>10.3}{:>10.0}{:>10.3}{:>11.0}{:>10.3}{worst:>11.4}{:>11}{:>8}{:>10}",
            middle(|figures| figures.p50_us),
            middle(|figures| figures.p99_us),
            ratio(|figures| figures.p99_us),
            middle(|figures| figures.cpu_ns),
            ratio(|figures| figures.cpu_ns),
            middle(|figures| figures.shards_ns),
            ratio(|figures| figures.shards_ns),
            sum(|figures| figures.sent),
            sum(|figures| figures.broken),
            sum(|figures| figures.beside),
        );
    }
    println!();
}
