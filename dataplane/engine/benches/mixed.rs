//! How much one shard on one core answers when TCP and UDP come at once: pipelined requests and trains of datagrams.
//!
//! The server has one CPU and the clients another: 64 connections with 16 requests in flight on each, and sockets with
//! a train of 16 datagrams in flight on each, both in closed loops, each protocol on a thread of its own. In every
//! round each engine is measured under each protocol alone and under both. Shown are right answers per second, which
//! is what the machine did, and right answers per second of the serving thread's CPU time, which is what the server
//! can do where the clients do not hold it up.
//!
//! `cargo bench -p trinity-dataplane-engine --bench mixed -- [--only TEXT] [--rounds N] [--millis N]
//! [--json FILE] [--write FILE]`

#[expect(dead_code, reason = "this bench needs no floor")]
mod child;
mod floor;
mod listing;
mod median;
mod plane;
mod process;
mod settings;
mod threads;

use child::{Order, Server};
use dataplane_engine::Engine;
use listing::Listing;
use loadgen::LoadReport;
use loadgen::frame::UdpKey;
use loadgen::framing::Framing;
use loadgen::tcp::{self, Request, TcpLoad};
use loadgen::udp::{self, Dialect, UdpLoad};
use median::median;
use serde_json::json;
use settings::Settings;
use std::io;
use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};
use tuning::cpus::AllowedCpus;
use tuning::pin;

/// What the system being replaced answered in a second, on 24 CPUs.
const GOAL: f64 = 746_374.0;

/// TCP connections, and requests in flight on each.
const CONNECTIONS: usize = 64;
const PIPELINE: usize = 16;

/// UDP sockets, and datagrams of a train in flight on each.
const SOCKETS: usize = 32;
const TRAIN: usize = 16;

/// Before the rounds, so that they find memory in use and code in the caches.
const WARM_UP: Duration = Duration::from_millis(300);

const ENGINES: [(Engine, &str); 2] = [(Engine::IoUring, "io_uring"), (Engine::Epoll, "epoll")];

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mix {
    Tcp,
    Udp,
    Both,
}

impl Mix {
    const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Both];

    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP, 16 deep",
            Self::Udp => "UDP, trains of 16",
            Self::Both => "both at once",
        }
    }
}

/// What one measurement found, per second of time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    tcp: f64,
    udp: f64,
    /// Right answers per second of the serving thread's CPU time.
    per_cpu_second: f64,
    /// Share of its CPU the serving thread used.
    busy: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match Order::from_arguments(&arguments) {
        Some(order) => settings::end("mixed", child::run(order)),
        None => settings::main("mixed", &arguments, (9, 2_000), bench),
    }
}

/// One engine under one mix, and what each round found.
type Found = (&'static str, Mix, Vec<Sample>);

fn bench(settings: &Settings) -> io::Result<()> {
    let cpus = AllowedCpus::read()?.cpus;
    let (serving, generating) = match cpus[..] {
        [first, second, ..] => (Some(first), Some(second)),
        _ => (None, None),
    };
    match generating {
        Some(cpu) => pin::pin_current_thread(cpu).map_err(io::Error::other)?,
        None => eprintln!("mixed: one CPU only: server and clients share it, so only the CPU time means something"),
    }
    let mut servers = Vec::new();
    for (engine, name) in ENGINES {
        let mut server = Server::start(Order::plane(engine, serving))?;
        measure(&mut server, Mix::Both, WARM_UP)?;
        servers.push((name, server));
    }
    let mut found: Vec<Found> = Vec::new();
    for round in 0..settings.rounds {
        for mix in Mix::ALL.into_iter().filter(|mix| mix.name().contains(&settings.only)) {
            for turn in 0..servers.len() {
                let (name, server) = &mut servers[(turn + round) % ENGINES.len()];
                let sample = measure(server, mix, settings.duration)?;
                match found.iter_mut().find(|one| (one.0, one.1) == (*name, mix)) {
                    Some((_, _, samples)) => samples.push(sample),
                    None => found.push((*name, mix, vec![sample])),
                }
            }
        }
    }
    show(settings, &found)
}

/// Runs the mix, each protocol on a thread of its own.
fn measure(server: &mut Server, mix: Mix, duration: Duration) -> io::Result<Sample> {
    let (tcp_load, udp_load) = (tcp_load(server), udp_load(server));
    let barrier = Barrier::new(3);
    // Connected before anything is counted, whether the mix asks or not.
    let ask_tcp = || {
        let clients = tcp::Clients::open(&tcp_load);
        barrier.wait();
        barrier.wait();
        if mix == Mix::Udp { Ok(None) } else { clients?.run(CONNECTIONS, duration).map(Some) }
    };
    let ask_udp = || {
        let clients = udp::Clients::open(&udp_load);
        barrier.wait();
        barrier.wait();
        if mix == Mix::Tcp { Ok(None) } else { clients?.run(SOCKETS, duration).map(Some) }
    };
    let (tcp, udp, used_ns, elapsed) = thread::scope(|scope| {
        let (tcp, udp) = (scope.spawn(ask_tcp), scope.spawn(ask_udp));
        barrier.wait();
        let before = server.cpu_ns();
        let began = Instant::now();
        barrier.wait();
        let ended = |_| io::Error::other("a client ended by itself");
        let tcp = tcp.join().map_err(ended)??;
        let udp = udp.join().map_err(ended)??;
        let elapsed = began.elapsed();
        io::Result::Ok((tcp, udp, server.cpu_ns()? - before?, elapsed))
    })?;
    let mut answered = [0.0; 2];
    for (sum, report) in answered.iter_mut().zip([tcp, udp]) {
        if let Some(report) = report {
            check(&report)?;
            *sum = report.answered as f64;
        }
    }
    let seconds = elapsed.as_secs_f64();
    let used = used_ns as f64 / 1e9;
    let [tcp, udp] = answered;
    Ok(Sample { tcp: tcp / seconds, udp: udp / seconds, per_cpu_second: (tcp + udp) / used, busy: used / seconds })
}

fn check(report: &LoadReport) -> io::Result<()> {
    let LoadReport { answered, refused, wrong, lost, note, .. } = report;
    if *answered == 0 || refused + wrong > 0 || lost * 100 > *answered {
        let counts = format!("{answered} right, {refused} refused, {wrong} wrong, {lost} lost");
        return Err(io::Error::other(format!("{counts}: the figures would mean nothing")));
    }
    note.iter().for_each(|note| eprintln!("mixed: {note}"));
    Ok(())
}

fn tcp_load(server: &Server) -> TcpLoad {
    let request = |index| {
        let expect = format!("\"asset\":\"{}\"", plane::symbol(index)).into_bytes();
        Request { bytes: plane::request(index), expect }
    };
    TcpLoad {
        target: server.tcp,
        connections: CONNECTIONS,
        pipeline: PIPELINE,
        framing: Framing::Http,
        requests: (0..plane::ASSETS).map(request).collect(),
        warm_up: Duration::ZERO,
        duration: Duration::ZERO,
    }
}

fn udp_load(server: &Server) -> UdpLoad {
    let dialect = Dialect::Frames {
        keys: vec![UdpKey { id: plane::KEY_ID, secret: plane::UDP_SECRET }],
        assets: (0..plane::ASSETS).map(|index| *plane::symbol(index).padded()).collect(),
        check: true,
    };
    UdpLoad {
        target: server.udp,
        sockets: SOCKETS,
        window: TRAIN,
        train: TRAIN,
        dialect,
        warm_up: Duration::ZERO,
        duration: Duration::ZERO,
    }
}

fn show(settings: &Settings, found: &[Found]) -> io::Result<()> {
    let title = format!(
        "One shard on one core, pipelined TCP and trains of datagrams: right answers per second, medians of {} rounds \
         of {} ms",
        settings.rounds,
        settings.duration.as_millis()
    );
    let head =
        ["load", "engine", "answers/s", "(min to max)", "TCP/s", "UDP/s", "core used", "per CPU-second", "of goal"];
    let mut listing = Listing::new(title, &head);
    let mut rows = Vec::new();
    for (engine, mix, samples) in found {
        let of = |value: &dyn Fn(&Sample) -> f64| median(samples.iter().map(value).collect());
        let totals = samples.iter().map(|sample| sample.tcp + sample.udp);
        let (least, most) = (totals.clone().fold(f64::INFINITY, f64::min), totals.fold(0.0, f64::max));
        let total = of(&|sample| sample.tcp + sample.udp);
        let (tcp, udp) = (of(&|sample| sample.tcp), of(&|sample| sample.udp));
        let (busy, per_cpu_second) = (of(&|sample| sample.busy), of(&|sample| sample.per_cpu_second));
        listing.rows.push(vec![
            mix.name().to_owned(),
            (*engine).to_owned(),
            format!("{total:.0}"),
            format!("({least:.0}-{most:.0})"),
            format!("{tcp:.0}"),
            format!("{udp:.0}"),
            format!("{:.0} %", busy * 100.0),
            format!("{per_cpu_second:.0}"),
            format!("{:.2}", total / GOAL),
        ]);
        rows.push(json!({
            "load": mix.name(), "engine": engine, "answers_per_second": total, "min": least, "max": most,
            "tcp_per_second": tcp, "udp_per_second": udp, "core_used": busy, "per_cpu_second": per_cpu_second,
        }));
    }
    listing.remarks.push(format!(
        "{CONNECTIONS} connections with {PIPELINE} requests in flight on each; {SOCKETS} sockets with a train of {TRAIN} on \
         each; one thread asks over TCP and one over UDP, both on one CPU beside the server's"
    ));
    listing.remarks.push(format!("goal: {GOAL:.0} a second, what the system being replaced answered on 24 CPUs"));
    listing.print()?;
    if let Some(path) = &settings.write {
        listing.append_to(path)?;
    }
    if let Some(path) = &settings.json {
        let document =
            json!({"rounds": settings.rounds, "millis": settings.duration.as_millis(), "goal": GOAL, "rows": rows});
        std::fs::write(path, document.to_string())?;
    }
    Ok(())
}
