//! The slowest answer of a thousand at half of the peak rate, and what this machine alone makes slow.
//!
//! First the peak of each data plane in a closed loop, over TCP and over UDP. Then, round by round, an open schedule at
//! half of it: latency counts from the moment a request was due, whether it could be sent then or not. The bare floor
//! gets the same schedule over TCP: what it does is what the machine allows. Around the rounds nobody asks, and an
//! idle loop on each CPU tells how long work that arrives at any moment waits for that CPU: the machine's own noise.
//!
//! The floor is not asked over UDP: its replies are not signed, so every one of them would be a wrong answer.
//!
//! `cargo bench -p trinity-dataplane-engine --bench tail -- [--only TEXT] [--rounds N] [--millis N]
//! [--json FILE] [--write FILE]`

#[expect(dead_code, reason = "this bench asks the clients, not the servers")]
mod child;
mod floor;
mod listing;
mod median;
mod plane;
mod process;
mod settings;
#[path = "tail/subject.rs"]
mod subject;
#[path = "tail/table.rs"]
mod table;
mod threads;

use child::Order;
use dataplane_engine::Engine;
use loadgen::job::Pace;
use settings::Settings;
use std::io;
use std::process::ExitCode;
use std::time::Duration;
use subject::Subject;
use tuning::cpus::AllowedCpus;
use tuning::noise::{self, Noise};

/// Connections over TCP, and sockets over UDP.
const CLIENTS: usize = 64;

/// How long is listened for the machine's noise before each round and after the last.
const LISTENED: Duration = Duration::from_secs(1);

/// Runs of which the peak is the median, and how long each is.
const PEAK_RUNS: usize = 3;
const PEAK_RUN: Duration = Duration::from_millis(700);

const ENGINES: [Engine; 2] = [Engine::IoUring, Engine::Epoll];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match Order::from_arguments(&arguments) {
        Some(order) => settings::end("tail", child::run(order)),
        None => settings::main("tail", &arguments, (7, 3_000), bench),
    }
}

fn bench(settings: &Settings) -> io::Result<()> {
    let cpus = AllowedCpus::read()?.cpus;
    let (serving, generating) = match cpus[..] {
        [first, second, ..] => (Some(first), Some(second)),
        _ => (None, None),
    };
    if generating.is_none() {
        eprintln!("tail: one CPU only: server and clients take turns on it, which is part of every latency");
    }
    let mut subjects = Vec::new();
    for engine in ENGINES {
        subjects.extend(Subject::of_engine(engine, (serving, generating))?);
    }
    subjects.retain(|subject| subject.name.contains(&settings.only));
    find_rates(&mut subjects)?;
    let mut noises: Vec<Vec<Noise>> = Vec::new();
    for round in 0..settings.rounds {
        noises.push(noise::listen(&cpus, LISTENED)?);
        let count = subjects.len();
        for turn in 0..count {
            // Every other round the other way about: none always comes after the same neighbour.
            let index = if round % 2 == 0 { turn } else { count - 1 - turn };
            let found = subjects[index].measure(Pace::Open, settings.duration)?;
            subjects[index].rounds.push(found);
        }
    }
    noises.push(noise::listen(&cpus, LISTENED)?);
    table::show(settings, &subjects, &noises)
}

/// Half of each data plane's peak; a floor gets the rate of the data plane that stands over it.
fn find_rates(subjects: &mut [Subject]) -> io::Result<()> {
    let mut peaks = Vec::new();
    for subject in subjects.iter_mut().filter(|subject| !subject.is_floor()) {
        let mut rates = Vec::new();
        for _ in 0..PEAK_RUNS {
            rates.push(subject.measure(Pace::Closed, PEAK_RUN)?.rate);
        }
        subject.peak = median::median(rates);
        peaks.push((subject.place(), subject.peak));
    }
    for subject in subjects.iter_mut().filter(|subject| subject.is_floor()) {
        let above = peaks.iter().find(|(place, _)| *place == subject.place());
        subject.peak = above.ok_or_else(|| io::Error::other("a floor alone: choose its data plane as well"))?.1;
    }
    Ok(())
}
