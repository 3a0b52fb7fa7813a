//! From a venue's frame to every shard: how long until a price just received can be had from all of them.
//!
//! The whole data plane runs on every allowed CPU, under a steady stream of quotes. For each sample a client waits on
//! every shard for the next price of one asset (`newer_than`, `wait_ms`); then a quote of that asset is stamped and given
//! to the feed thread, as a venue session does with a frame it has just read. The sample ends when the last shard's
//! answer has been read. It therefore contains more than the question asks for: the shard rendering and sending the
//! answer, the loopback, and this thread being scheduled; what a shard sees, it sees earlier.
//!
//! `cargo bench -p trinity-dataplane-engine --bench feed_latency -- [--samples N] [--quotes N] [--engine E] [--json FILE]`

mod plane;

use dataplane_core::feed::FeedInput;
use dataplane_engine::{DataPlane, EngineChoice, FeedSender};
use hdrhistogram::Histogram;
use rtrb::Consumer;
use shared::asset::AssetId;
use shared::tick::Tick;
use shared::venue::Venue;
use std::io::{self, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tuning::clock;
use tuning::core_plan::CorePlan;

/// The asset that is sampled; the stream of quotes is about the others.
const PROBED: usize = 0;

/// The stream comes in bursts of this period, as frames do.
const BURST_PERIOD: Duration = Duration::from_micros(500);

/// Connections opened, for each shard, in search of one that it serves: missing a shard among two is then a chance of
/// one in 2^64.
const CONNECTIONS_TRIED: usize = 64;

/// What the bench is told.
struct Settings {
    samples: usize,
    quotes_per_second: u64,
    engine: EngineChoice,
    json: Option<String>,
}

impl Settings {
    fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut settings = Self { samples: 5_000, quotes_per_second: 20_000, engine: EngineChoice::Auto, json: None };
        let mut arguments = arguments;
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
            let number = |text: String| text.parse::<u64>().map_err(|_| format!("{name} needs a number, not {text}"));
            match name.as_str() {
                "--bench" => {}
                "--samples" => settings.samples = usize::try_from(number(value()?)?.clamp(1, 1_000_000)).unwrap_or(1),
                "--quotes" => settings.quotes_per_second = number(value()?)?.min(1_000_000),
                "--json" => settings.json = Some(value()?),
                "--engine" => {
                    settings.engine = match value()?.as_str() {
                        "io_uring" => EngineChoice::IoUring,
                        "epoll" => EngineChoice::Epoll,
                        _ => EngineChoice::Auto,
                    }
                }
                _ => {
                    return Err(format!(
                        "{name} is not known: --samples N, --quotes N (a second), --engine E, --json FILE"
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

fn bench(settings: &Settings) -> io::Result<()> {
    let plane = plane::start(settings.engine, CorePlan::new(None, &[]).map_err(io::Error::other)?)?;
    let mut shards = one_connection_each(&plane)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stream = {
        let (feed, stop, rate) = (plane.feed(), Arc::clone(&stop), settings.quotes_per_second);
        let ticks = plane.take_ticks().ok_or_else(|| io::Error::other("the ticks are taken"))?;
        std::thread::spawn(move || stream(&feed, ticks, rate, &stop))
    };
    let began = Instant::now();
    let sampled = sample(&plane.feed(), &mut shards, settings.samples);
    let elapsed = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (quotes, refused) = stream.join().map_err(|_| io::Error::other("the stream of quotes ended by itself"))?;
    show(settings, &plane, &sampled?, quotes as f64 / elapsed.as_secs_f64(), refused)
}

/// Sends quotes about all assets but the probed one, at `rate` a second; how many were sent, and how many found the
/// channel full. Takes the control plane's ticks, so that its ring is never full.
fn stream(feed: &FeedSender, mut ticks: Consumer<Tick>, rate: u64, stop: &AtomicBool) -> (u64, u64) {
    let began = Instant::now();
    let (mut sent, mut refused) = (0_u64, 0_u64);
    while !stop.load(Ordering::Relaxed) {
        let due = u64::try_from(began.elapsed().as_micros()).unwrap_or(0) * rate / 1_000_000;
        while sent < due {
            let turn = usize::try_from(sent).unwrap_or(0);
            let asset = AssetId::new(1 + turn % (plane::ASSETS - 1)).expect("a few");
            let venue = [Venue::Coinbase, Venue::Kraken][turn / plane::ASSETS % 2];
            // The bid wanders within a tenth of a percent: a price that jumps alone would be quarantined.
            let cents = 6_700_000 + i64::try_from(sent * 7 % 5_000).unwrap_or(0);
            refused += u64::from(feed.try_send(FeedInput::Quote(plane::quote(venue, asset, cents))).is_err());
            sent += 1;
        }
        while ticks.pop().is_ok() {}
        std::thread::sleep(BURST_PERIOD);
    }
    (sent, refused)
}

/// Opens connections until every shard serves one. Which shard has which shows in the shards' counters.
fn one_connection_each(plane: &DataPlane) -> io::Result<Vec<TcpStream>> {
    let asked = || -> Vec<u64> { plane.stats().iter().map(|shard| shard.counters.http_requests).collect() };
    let mut found: Vec<Option<TcpStream>> = (0..asked().len()).map(|_| None).collect();
    for _ in 0..found.len() * CONNECTIONS_TRIED {
        // The counters are published ten times a second: wait until they have settled, then for the next change.
        std::thread::sleep(Duration::from_millis(250));
        let before = asked();
        let mut stream = TcpStream::connect(plane.tcp_address())?;
        stream.set_nodelay(true)?;
        plane::ask(&mut stream, &plane::request(PROBED))?;
        let shard = loop {
            let after = asked();
            match after.iter().zip(&before).position(|(after, before)| after > before) {
                Some(shard) => break shard,
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        found[shard] = Some(stream);
        if found.iter().all(Option::is_some) {
            return Ok(found.into_iter().flatten().collect());
        }
    }
    Err(io::Error::other("the kernel gave no connection to one of the shards"))
}

/// Takes the samples, ns.
fn sample(feed: &FeedSender, shards: &mut [TcpStream], samples: usize) -> io::Result<Histogram<u64>> {
    let mut latency = Histogram::new_with_bounds(1, 10_000_000_000, 3).map_err(io::Error::other)?;
    let asset = AssetId::new(PROBED).expect("the first");
    let plain = String::from_utf8_lossy(&plane::request(PROBED)).into_owned();
    let mut newest = 0;
    for shard in &mut *shards {
        shard.write_all(plain.as_bytes())?;
        newest = newest.max(sequence(shard)?);
    }
    for number in 1..=samples {
        let target = format!("&newer_than={newest}&wait_ms=30000 HTTP/1.1");
        let waiting = plain.replace(" HTTP/1.1", &target);
        for shard in &mut *shards {
            shard.write_all(waiting.as_bytes())?;
        }
        // Long enough for the requests to be waiting, and never in step with the bursts.
        let number = u64::try_from(number).unwrap_or(0);
        std::thread::sleep(Duration::from_micros(1_000 + number * 37 % 700));
        let cents = 6_700_000 + i64::try_from(number * 3 % 5_000).unwrap_or(0);
        let quote = plane::quote(Venue::Coinbase, asset, cents);
        feed.try_send(FeedInput::Quote(quote)).map_err(|_| io::Error::other("the feed's channel is full"))?;
        let before = newest;
        for shard in &mut *shards {
            newest = newest.max(sequence(shard)?);
        }
        latency.saturating_record(clock::mono_ns() - quote.received_mono_ns);
        if newest == before {
            return Err(io::Error::other("an answer was not newer than what was known"));
        }
    }
    Ok(latency)
}

/// Reads one answer; its sequence.
fn sequence(shard: &mut TcpStream) -> io::Result<u64> {
    let (status, body, _) = plane::read_answer(shard)?;
    let digits = body.split_once("\"sequence\":").map_or("", |(_, rest)| rest);
    let digits = digits.split(|other: char| !other.is_ascii_digit()).next().unwrap_or_default();
    match digits.parse() {
        Ok(sequence) if status.contains(" 200 ") => Ok(sequence),
        _ => Err(io::Error::other(format!("{status}: {body}"))),
    }
}

fn show(settings: &Settings, plane: &DataPlane, latency: &Histogram<u64>, rate: f64, refused: u64) -> io::Result<()> {
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1_000.0;
    let (shards, conflated) = (plane.stats().len(), plane.feed_counters().conflated);
    let mut out = io::stdout().lock();
    writeln!(out, "{} samples, {shards} shards, {}", latency.len(), plane.engine_reason())?;
    writeln!(out, "stream: {rate:.0} quotes/s, {refused} refused by the channel, {conflated} ticks conflated")?;
    writeln!(
        out,
        "quote received → answered from every shard, µs: p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    )?;
    if let Some(path) = &settings.json {
        let value = serde_json::json!({
            "samples": latency.len(), "shards": shards, "engine": plane.engine_reason(), "quotes_per_second": rate,
            "refused": refused, "conflated": conflated,
            "us": {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": at(1.0)},
        });
        std::fs::write(path, value.to_string())?;
    }
    Ok(())
}
