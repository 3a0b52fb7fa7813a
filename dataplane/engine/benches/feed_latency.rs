//! From a venue's frame to every shard: how long until a price just received can be had from all of them.
//!
//! A thread on the last allowed CPU sends a steady stream of quotes, each stamped as received just before it is given to
//! the feed thread, as a venue session does with a frame it has just read. Each shard counts, for each price, the time
//! from that stamp until the price is in its table; that is the figure shown. Engines and numbers of shards take turns.
//!
//! What has to hold for every shard is told from above: of the prices that were late anywhere, each is taken to have
//! been late in one shard only. Quantiles are read from the shards' own histograms, at most an eighth too high.
//!
//! Afterwards the same is measured from outside, through clients that wait for the price: see `answered`.
//!
//! `cargo bench -p trinity-dataplane-engine --bench feed_latency -- [--rounds N] [--seconds N] [--quotes N]
//! [--samples N] [--json FILE]`

#[path = "feed/answered.rs"]
mod answered;
mod median;
mod plane;
#[path = "feed/stream.rs"]
mod stream;
#[path = "feed/table.rs"]
mod table;
mod threads;

use dataplane_engine::{DataPlane, EngineChoice, LagHistogram};
use hdrhistogram::Histogram;
use plane::Size;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use stream::{Sent, Stream};
use tuning::core_plan::CorePlan;
use tuning::cpus::AllowedCpus;
use tuning::{noise, pin};

/// Quotes before each run, so that the run finds everything warm and each of its quotes changes a price.
const WARM_UP: Duration = Duration::from_millis(300);

/// Shards publish their numbers twenty times a second: after this long without news they have settled.
const SETTLED: Duration = Duration::from_millis(250);

/// How long each CPU's own noise is listened to.
const NOISE_HEARD: Duration = Duration::from_secs(2);

/// What the bench is told.
struct Settings {
    rounds: usize,
    duration: Duration,
    quotes_per_second: u64,
    /// Of the measurement from outside, for each engine; 0 leaves it out.
    samples: usize,
    json: Option<PathBuf>,
}

impl Settings {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (rounds, duration, samples) = (7, Duration::from_secs(2), 2_000);
        let mut settings = Self { rounds, duration, quotes_per_second: 20_000, samples, json: None };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
            let number = |text: String| text.parse::<u64>().map_err(|_| format!("{name} needs a number, not {text}"));
            match name.as_str() {
                "--bench" => {}
                "--rounds" => settings.rounds = usize::try_from(number(value()?)?.clamp(1, 100)).unwrap_or(1),
                "--seconds" => settings.duration = Duration::from_secs(number(value()?)?.clamp(1, 600)),
                "--quotes" => settings.quotes_per_second = number(value()?)?.clamp(1, 1_000_000),
                "--samples" => settings.samples = usize::try_from(number(value()?)?.min(1_000_000)).unwrap_or(0),
                "--json" => settings.json = Some(value()?.into()),
                _ => {
                    return Err(format!(
                        "{name} is not known: --rounds N, --seconds N (each run), --quotes N (a second), --samples N, \
                         --json FILE"
                    ));
                }
            }
        }
        Ok(settings)
    }
}

fn main() -> ExitCode {
    // `cargo test` runs benches too, without this flag: there is nothing to test here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match Settings::read(std::env::args().skip(1)).map_err(io::Error::other).and_then(|settings| bench(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("feed_latency: {error}");
            ExitCode::FAILURE
        }
    }
}

const ENGINES: [(EngineChoice, &str); 2] = [(EngineChoice::IoUring, "io_uring"), (EngineChoice::Epoll, "epoll")];

/// What one run found.
struct Run {
    engine: &'static str,
    shards: usize,
    sent: Sent,
    /// Prices that the shards took, over all shards.
    ticks: u64,
    conflated: u64,
    /// Lags of all shards.
    lag: LagHistogram,
    /// CPU time for each quote, ns: of the feed thread, and of all shards.
    feed_ns: f64,
    shards_ns: f64,
}

/// What the clients of one engine saw.
struct Outside {
    engine: &'static str,
    shards: usize,
    latency: Histogram<u64>,
}

fn bench(settings: &Settings) -> io::Result<()> {
    let cpus = AllowedCpus::read()?.cpus;
    let mut counts = vec![1];
    if cpus.len() > 1 {
        counts.push(2);
    } else {
        eprintln!("feed_latency: one CPU only: the stream, the feed and the shard take turns on it");
    }
    let mut runs = Vec::new();
    for round in 0..settings.rounds {
        for &shards in &counts {
            let turn = ENGINES.into_iter().cycle().skip(round % ENGINES.len()).take(ENGINES.len());
            for (choice, engine) in turn {
                runs.push(run(settings, choice, engine, &cpus, shards)?);
            }
        }
    }
    let mut outside = Vec::new();
    if settings.samples > 0 {
        for (choice, engine) in ENGINES {
            outside.push(from_outside(settings, choice, engine)?);
        }
    }
    table::show(settings, &runs, &outside)?;
    for noise in noise::listen(&cpus, NOISE_HEARD)? {
        writeln!(io::stdout(), "{noise}")?;
    }
    Ok(())
}

/// The first CPUs for the shards; everything else where the scheduler puts it, as in service.
fn plan(cpus: &[usize], shards: usize) -> CorePlan {
    CorePlan { shards: cpus.iter().copied().take(shards).map(Some).collect(), control: Vec::new() }
}

fn run(
    settings: &Settings,
    choice: EngineChoice,
    engine: &'static str,
    cpus: &[usize],
    shards: usize,
) -> io::Result<Run> {
    let plane = plane::start(choice, plan(cpus, shards), Size::USUAL)?;
    let (feed, mut ticks) = (plane.feed(), plane.take_ticks().ok_or(io::ErrorKind::NotFound)?);
    let (rate, last) = (settings.quotes_per_second, cpus.last().copied());
    let quotes = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX) * rate / 1_000;
    let (plane, sending) = (&plane, quotes(settings.duration));
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            if let Some(cpu) = last {
                pin::pin_current_thread(cpu).map_err(io::Error::other)?;
            }
            stream::sleep_exactly();
            let mut stream = Stream::default();
            stream.run(&feed, &mut ticks, 0, rate, quotes(WARM_UP));
            let before = settled(plane)?;
            let sent = stream.run(&feed, &mut ticks, 0, rate, sending);
            let after = settled(plane)?;
            let each = |ns: u64| ns as f64 / sent.quotes as f64;
            Ok(Run {
                engine,
                shards,
                sent,
                ticks: after.ticks - before.ticks,
                conflated: after.conflated - before.conflated,
                lag: after.lag.since(&before.lag),
                feed_ns: each(after.feed_cpu_ns - before.feed_cpu_ns),
                shards_ns: each(after.shards_cpu_ns - before.shards_cpu_ns),
            })
        });
        sender.join().map_err(|_| io::Error::other("the stream of quotes ended by itself"))?
    })
}

/// Where the data plane stands.
struct Standing {
    ticks: u64,
    conflated: u64,
    lag: LagHistogram,
    feed_cpu_ns: u64,
    shards_cpu_ns: u64,
}

/// Reads where the data plane stands, once its published numbers do not change any more.
fn settled(plane: &DataPlane) -> io::Result<Standing> {
    let read = || {
        let zero = (0, LagHistogram::default());
        plane.stats().iter().fold(zero, |(ticks, lag), shard| (ticks + shard.counters.ticks, lag.with(&shard.feed_lag)))
    };
    let give_up = Instant::now() + Duration::from_secs(10);
    let (mut before, mut since) = (read(), Instant::now());
    while since.elapsed() < SETTLED {
        std::thread::sleep(Duration::from_millis(20));
        let now = read();
        if now != before {
            (before, since) = (now, Instant::now());
        }
        if Instant::now() > give_up {
            return Err(io::Error::other("the shards' numbers do not settle"));
        }
    }
    let (ticks, lag) = before;
    let conflated = plane.feed_counters().conflated;
    let (feed_cpu_ns, shards_cpu_ns) = (threads::cpu_ns("feed")?, threads::cpu_ns("shard")?);
    Ok(Standing { ticks, conflated, lag, feed_cpu_ns, shards_cpu_ns })
}

/// One engine on every allowed CPU under the same stream, measured by clients.
fn from_outside(settings: &Settings, choice: EngineChoice, engine: &'static str) -> io::Result<Outside> {
    let plane = plane::start(choice, CorePlan::new(None, &[]).map_err(io::Error::other)?, Size::USUAL)?;
    let mut clients = answered::one_connection_each(&plane)?;
    let mut ticks = plane.take_ticks().ok_or(io::ErrorKind::NotFound)?;
    let (stop, rate) = (Arc::new(AtomicBool::new(false)), settings.quotes_per_second);
    let stream = {
        let (feed, stop) = (plane.feed(), Arc::clone(&stop));
        std::thread::spawn(move || {
            stream::sleep_exactly();
            let mut stream = Stream::default();
            while !stop.load(Ordering::Relaxed) {
                stream.run(&feed, &mut ticks, answered::PROBED + 1, rate, rate.div_ceil(20));
            }
        })
    };
    let latency = answered::sample(&plane.feed(), &mut clients, settings.samples);
    stop.store(true, Ordering::Relaxed);
    stream.join().map_err(|_| io::Error::other("the stream of quotes ended by itself"))?;
    Ok(Outside { engine, shards: clients.len(), latency: latency? })
}
