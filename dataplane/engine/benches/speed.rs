//! How much more a request costs than moving its bytes: the data plane against the bare floor, on both engines.
//!
//! Everything runs in one go, side by side: four servers (floor and data plane, io_uring and epoll), each a process pinned
//! to one CPU, and one generator pinned to another. The servers are measured in turn, round by round, so that whatever
//! else the machine does falls on all of them. Cost is CPU time of the serving thread per right answer; the ratio is
//! taken within each round and its median is shown.
//!
//! `cargo bench -p trinity-dataplane-engine --bench speed -- [--only TEXT] [--rounds N] [--millis N]
//! [--json FILE] [--write FILE]`

mod child;
mod floor;
mod listing;
mod loads;
mod median;
mod plane;
mod process;
mod settings;
mod table;
mod threads;

use child::{Order, Role, Server};
use dataplane_engine::Engine;
use loads::{Load, Sample};
use settings::Settings;
use std::io;
use std::process::ExitCode;
use tuning::cpus::AllowedCpus;
use tuning::pin;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match Order::from_arguments(&arguments) {
        Some(order) => settings::end("speed", child::run(order)),
        None => settings::main("speed", &arguments, (7, 2_000), bench),
    }
}

/// The two servers of one engine.
struct Pair {
    engine: Engine,
    floor: Server,
    plane: Server,
}

impl Pair {
    fn start(engine: Engine, cpu: Option<usize>) -> io::Result<Self> {
        let order = Order::plane(engine, cpu);
        let plane = Server::start(order)?;
        // The floor's reply is as long as a real one.
        let mut stream = std::net::TcpStream::connect(plane.tcp)?;
        let (status, _, reply_bytes) = plane::ask(&mut stream, &plane::request(0))?;
        if !status.contains(" 200 ") {
            return Err(io::Error::other(format!("the data plane answers {status}")));
        }
        let floor = Server::start(order.floor(plane::request(0).len(), reply_bytes))?;
        Ok(Self { engine, floor, plane })
    }
}

/// What one round found: for each engine and load the floor's sample and the data plane's.
type Round = Vec<(Engine, Load, Sample, Sample)>;

fn bench(settings: &Settings) -> io::Result<()> {
    tuning::sockets::raise_nofile()?;
    let cpus = AllowedCpus::read()?.cpus;
    let (server, generator) = match cpus[..] {
        [first, second, ..] => (Some(first), Some(second)),
        _ => (None, None),
    };
    if generator.is_none() {
        eprintln!("speed: one CPU only: servers and generator share it, so only the CPU per request means something");
    }
    let mut pairs = [Pair::start(Engine::IoUring, server)?, Pair::start(Engine::Epoll, server)?];
    if let Some(cpu) = generator {
        pin::pin_current_thread(cpu).map_err(io::Error::other)?;
    }
    let loads: Vec<Load> = Load::ALL.into_iter().filter(|load| load.name().contains(&settings.only)).collect();
    if loads.is_empty() {
        let names = Load::ALL.map(Load::name).join("; ");
        return Err(io::Error::other(format!("no load has {} in its name: they are {names}", settings.only)));
    }
    let mut rounds = Vec::with_capacity(settings.rounds);
    for number in 0..settings.rounds {
        let mut round: Round = Vec::new();
        for &load in &loads {
            for pair in &mut pairs {
                // Every other round the other way about: neither always comes after the same neighbour.
                let (floor, plane) = if number % 2 == 0 {
                    let floor = load.measure(Role::Floor, &mut pair.floor, settings.duration)?;
                    (floor, load.measure(Role::Plane, &mut pair.plane, settings.duration)?)
                } else {
                    let plane = load.measure(Role::Plane, &mut pair.plane, settings.duration)?;
                    (load.measure(Role::Floor, &mut pair.floor, settings.duration)?, plane)
                };
                round.push((pair.engine, load, floor, plane));
            }
        }
        rounds.push(round);
    }
    table::show(&rounds, settings)?;
    Ok(())
}
