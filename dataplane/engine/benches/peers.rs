//! Our server beside its floor and beside other people's: what a request costs each of them, on this machine, in one go.
//!
//! Measured are the bare floor and the data plane on every engine of this build, and, where installed, nginx (`return
//! 200`), redis (`GET`) and memcached (`get`, over TCP and UDP), which answer with as many bytes as we do and know no
//! keys, limits or usage; ours has all of that on. Each is a process pinned to one CPU, the generator is pinned to
//! another. Each load is put to all of them in turn, every round in another order, so that whatever else the machine
//! does falls on all of them. Cost is the CPU time of the whole process, all its threads, per right answer: the same
//! measure for everyone. Ratios are taken within a round; shown are medians over rounds, and the extremes.
//!
//! At the end stands which goals are met. `wrk`, where installed, is compared with our load generator in the same way.
//!
//! `tuning/peers [--rounds N] [--millis N] [--only LIST] [--json FILE] [--write FILE | --no-write]`

mod child;
mod floor;
#[expect(dead_code, reason = "other benches ask for the serving thread's CPU time alone")]
mod loads;
mod median;
mod plane;
mod process;
mod threads;

#[path = "peers/command.rs"]
mod command;
#[path = "peers/generators.rs"]
mod generators;
#[path = "peers/goals.rs"]
mod goals;
#[path = "peers/installed.rs"]
mod installed;
#[path = "peers/machine.rs"]
mod machine;
#[path = "peers/report.rs"]
mod report;
#[path = "peers/results.rs"]
mod results;
#[path = "peers/selection.rs"]
mod selection;
mod settings;
#[path = "peers/subject.rs"]
mod subject;

use child::Order;
use generators::Generators;
use loads::Load;
use machine::Machine;
use report::Report;
use results::Results;
use selection::Selection;
use settings::Settings;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use subject::Subject;
use tuning::cpus::AllowedCpus;
use tuning::pin;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(order) = Order::from_arguments(&arguments) {
        return settings::end("peers", child::run(order));
    }
    if let Some(order) = generators::Order::from_arguments(&arguments) {
        return settings::end("peers", generators::run(&order));
    }
    settings::main("peers", &arguments, (7, 1_000), bench)
}

/// The CPU of whatever is measured, and the generator's.
#[derive(Clone, Copy)]
struct Cpus {
    server: Option<usize>,
    generator: Option<usize>,
}

/// Asked to end, by a signal. Whatever was started ends with the bench's own values, so nothing is done here but to look.
struct Interruption(Arc<AtomicBool>);

impl Interruption {
    fn watch() -> io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted: nothing is written, and everything that was started is ended"));
        }
        Ok(())
    }
}

fn bench(settings: &Settings) -> io::Result<()> {
    let selection = Selection::read(&settings.only).map_err(io::Error::other)?;
    let interruption = Interruption::watch()?;
    command::end_with_parent(libc::SIGTERM)?;
    tuning::sockets::raise_nofile()?;
    let cpus = match AllowedCpus::read()?.cpus[..] {
        [first, second, ..] => Cpus { server: Some(first), generator: Some(second) },
        _ => Cpus { server: None, generator: None },
    };
    if cpus.generator.is_none() {
        eprintln!("peers: one CPU only: servers and generator share it, so only the CPU per request means something");
    }
    // Before anything runs beside it.
    let machine = Machine::look(cpus)?;
    if let Some(cpu) = cpus.generator {
        pin::pin_current_thread(cpu).map_err(io::Error::other)?;
    }
    let (subjects, missing) = Subject::start_all(&selection, cpus.server)?;
    let results = measure(settings, &selection.loads, &subjects, &interruption)?;
    let (generators, no_generators) = match selection.generators {
        true => generators::compare(settings, cpus, &interruption)?,
        false => (Generators::default(), None),
    };
    let missing = missing.into_iter().chain(no_generators).collect();
    drop(subjects);
    Report { settings, selection, machine, missing, results, generators }.show()
}

/// All rounds: every load, every server, each round beginning with another one.
fn measure(
    settings: &Settings,
    loads: &[Load],
    subjects: &[Subject],
    interruption: &Interruption,
) -> io::Result<Results> {
    let mut results = Results::new(subjects);
    for round in 0..settings.rounds {
        eprintln!("peers: round {} of {}", round + 1, settings.rounds);
        for &load in loads {
            for turn in 0..subjects.len() {
                let index = (turn + round) % subjects.len();
                let subject = &subjects[index];
                if !subject.takes(load) {
                    continue;
                }
                let sample = subject.measure(load, settings.duration);
                // A signal breaks the load off: that is what to say then.
                interruption.check()?;
                results.add(load, index, sample?);
            }
        }
    }
    Ok(results)
}
