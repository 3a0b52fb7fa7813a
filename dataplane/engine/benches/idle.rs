//! What idle connections cost: memory each, and what the active clients beside them notice.
//!
//! For each engine a server pinned to one CPU, 64 active clients in a closed loop pinned to another, and ten thousand
//! idle keep-alive connections that come and go. Each round measures the active clients alone and beside the idle ones,
//! in turns; the ratio is taken within a round and its median is shown. Memory is what the server's process has grown
//! by when the idle ones came for the first time; what the kernel holds for their sockets is not in it.
//!
//! `cargo bench -p trinity-dataplane-engine --bench idle -- [--rounds N] [--millis N] [--idle N] [--json FILE]`

#[expect(dead_code, reason = "this bench needs no floor")]
mod child;
#[path = "idle/crowd.rs"]
mod crowd;
mod floor;
#[expect(dead_code, reason = "this bench needs one of the loads")]
mod loads;
mod median;
mod plane;
mod process;
#[path = "idle/table.rs"]
mod table;
mod threads;

use child::{Order, Role, Server};
use crowd::Crowd;
use dataplane_engine::{CONNECTIONS_MAX, Engine};
use loads::{Load, Sample};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tuning::cpus::AllowedCpus;
use tuning::pin;

/// Active connections; the load's own number.
const ACTIVE: usize = 64;

/// Descriptors that neither side may use for idle connections: the server keeps 1,024 back, and has its own.
const FILES_KEPT: usize = 1_024 + 2 * ACTIVE;

/// A server publishes its numbers twenty times a second: longest wait for them to be as expected.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the bench is told.
struct Settings {
    rounds: usize,
    duration: Duration,
    idle: usize,
    json: Option<PathBuf>,
}

impl Settings {
    fn read(arguments: &[String]) -> Result<Self, String> {
        let mut settings = Self { rounds: 7, duration: Duration::from_secs(2), idle: 10_000, json: None };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
            let number = |text: &String| text.parse::<u64>().map_err(|_| format!("{name} needs a number, not {text}"));
            match name.as_str() {
                "--bench" => {}
                "--rounds" => settings.rounds = usize::try_from(number(value()?)?.clamp(1, 100)).unwrap_or(1),
                "--millis" => settings.duration = Duration::from_millis(number(value()?)?.clamp(50, 60_000)),
                "--idle" => settings.idle = usize::try_from(number(value()?)?.max(1)).unwrap_or(usize::MAX),
                "--json" => settings.json = Some(value()?.into()),
                _ => return Err(format!("{name} is not known: --rounds N, --millis N, --idle N, --json FILE")),
            }
        }
        Ok(settings)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match (Order::from_arguments(&arguments), arguments.first().map(String::as_str)) {
        (Some(order), _) => child::run(order),
        (None, Some(crowd::ROLE)) => crowd::run(&arguments),
        // `cargo test` runs benches too, without this flag: there is nothing to test here.
        _ if !arguments.iter().any(|argument| argument == "--bench") => Ok(()),
        _ => Settings::read(&arguments).map_err(io::Error::other).and_then(|settings| bench(&settings)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idle: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One engine's server, its idle clients, and what was found.
struct Subject {
    engine: &'static str,
    server: Server,
    crowd: Crowd,
    /// Memory the server grew by when the idle ones came first, and since then until the end, bytes.
    grown: u64,
    grown_later: u64,
    /// For each round, without and with the idle ones.
    rounds: Vec<(Sample, Sample)>,
}

fn bench(settings: &Settings) -> io::Result<()> {
    let idle = idle_within_limits(settings.idle)?;
    let cpus = AllowedCpus::read()?.cpus;
    let (serving, generating) = match cpus[..] {
        [first, second, ..] => (Some(first), Some(second)),
        _ => (None, None),
    };
    if generating.is_none() {
        eprintln!("idle: one CPU only: server and clients share it, so only the CPU per request means something");
    }
    if let Some(cpu) = generating {
        pin::pin_current_thread(cpu).map_err(io::Error::other)?;
    }
    let mut subjects = Vec::new();
    for (engine, name) in [(Engine::IoUring, "io_uring"), (Engine::Epoll, "epoll")] {
        subjects.push(Subject::start(engine, name, serving, generating, settings, idle)?);
    }
    for round in 0..settings.rounds {
        for subject in &mut subjects {
            subject.round(settings.duration, idle, round % 2 == 0)?;
        }
    }
    table::show(settings, idle, &subjects)
}

/// As many idle connections as are wanted, or as the limits allow: then it says so.
fn idle_within_limits(wanted: usize) -> io::Result<usize> {
    let files = tuning::sockets::raise_nofile()?.soft.and_then(|files| usize::try_from(files).ok());
    let by_files = files.map_or(usize::MAX, |files| files.saturating_sub(FILES_KEPT));
    let idle = wanted.min(by_files).min(CONNECTIONS_MAX - ACTIVE);
    if idle == 0 {
        return Err(io::Error::other("the limit on open files leaves no idle connection: raise it (ulimit -Hn)"));
    }
    if idle < wanted {
        let reason = match files {
            Some(files) if by_files == idle => format!("the hard limit of {files} open files (ulimit -Hn)"),
            _ => format!("a shard's bound of {CONNECTIONS_MAX} connections"),
        };
        eprintln!("idle: ONLY {idle} idle connections instead of {wanted}, because of {reason}");
    }
    Ok(idle)
}

impl Subject {
    /// Starts the server, warms it up, and lets the idle ones come for the first time.
    fn start(
        engine: Engine,
        name: &'static str,
        serving: Option<usize>,
        generating: Option<usize>,
        settings: &Settings,
        idle: usize,
    ) -> io::Result<Self> {
        let order = Order::plane(engine, serving);
        let mut server = Server::start(order)?;
        let crowd = Crowd::start(server.tcp, generating)?;
        Load::Tcp.measure(Role::Plane, &mut server, settings.duration)?;
        let mut subject = Self { engine: name, server, crowd, grown: 0, grown_later: 0, rounds: Vec::new() };
        subject.await_connections(0)?;
        let before = subject.server.number("memory")?;
        subject.hold(idle)?;
        subject.grown = subject.server.number("memory")?.saturating_sub(before);
        subject.hold(0)?;
        Ok(subject)
    }

    /// Measures once without and once with the idle ones.
    fn round(&mut self, duration: Duration, idle: usize, alone_first: bool) -> io::Result<()> {
        let mut alone = None;
        if alone_first {
            alone = Some(self.measure(duration)?);
        }
        let before = self.server.number("memory")?;
        self.hold(idle)?;
        let beside = self.measure(duration)?;
        // That nobody was closed meanwhile.
        self.await_connections(idle as u64)?;
        self.grown_later += self.server.number("memory")?.saturating_sub(before);
        self.hold(0)?;
        let alone = match alone {
            Some(alone) => alone,
            None => self.measure(duration)?,
        };
        self.rounds.push((alone, beside));
        Ok(())
    }

    fn measure(&mut self, duration: Duration) -> io::Result<Sample> {
        Load::Tcp.measure(Role::Plane, &mut self.server, duration)
    }

    /// Has the crowd hold `count` connections and waits until the server knows of exactly these.
    fn hold(&mut self, count: usize) -> io::Result<()> {
        self.crowd.hold(count)?;
        self.await_connections(count as u64)
    }

    fn await_connections(&mut self, count: u64) -> io::Result<()> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let open = self.server.number("connections")?;
            if open == count {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(io::Error::other(format!("{} holds {open} connections instead of {count}", self.engine)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
