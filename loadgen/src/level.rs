//! One level: so many connections, so many requests a second, and what became of every one of them.
//!
//! Each thread has its share of the connections and its own part of one schedule (`crate::schedule`); threads meet only
//! at the start. Once begun, a level always ends with an outcome: what dies under it is counted.

mod count;
mod course;
mod datagrams;
mod lane;
mod probe;
mod question;
mod streams;
mod worker;

use crate::job::{Job, Progress};
use crate::outcome::{LevelOutcome, Tally, TargetOutcome, behind_histogram};
use crate::plan::Level;
use count::Window;
use course::{Course, Share};
use datagrams::Datagrams;

use shared::asset::Symbol;
use std::io;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};
use streams::Streams;
use thiserror::Error;
use tuning::clock::mono_ns;
use tuning::cpus::AllowedCpus;
use tuning::{pin, sockets};
use worker::{ThreadOutcome, Times, Worker, socket_token, stream_token};

/// Time between the moment that all threads are ready and the first request: all know of it by then.
const START_NS: u64 = 2_000_000;

/// Why a level could not be begun.
#[derive(Debug, Error)]
pub enum LevelRefused {
    /// Nothing to do.
    #[error("nothing to drive: {0}")]
    Empty(&'static str),
    /// No connection, or no answer that is HTTP.
    #[error("no answer from {target} at {address}: {reason}; check that the service runs there, and its ports")]
    Unreachable {
        /// Its name.
        target: String,
        /// Where it was looked for.
        address: SocketAddr,
        /// What the kernel says, or what is wrong with the answer.
        reason: io::Error,
    },
    /// It does not take the key.
    #[error("wrong key: {target} answers {status}; give a key that it knows and that may read prices")]
    Key {
        /// Its name.
        target: String,
        /// 401 or 403.
        status: u16,
    },
    /// It does not know the asset.
    #[error("{target} does not know {asset}: choose assets that its GET /assets lists")]
    Asset {
        /// Its name.
        target: String,
        /// The first asset of the job.
        asset: Symbol,
    },
    /// Another answer than a price service gives.
    #[error("{target} answers {status} to a price request ({body}); check that it is a price service")]
    Status {
        /// Its name.
        target: String,
        /// Its status.
        status: u16,
        /// The beginning of what it says.
        body: String,
    },
    /// A reply over UDP that is not the right one.
    #[error("{target} replies over UDP with {wrong}; check the asset, the key's UDP secret and this machine's clock")]
    Reply {
        /// Its name.
        target: String,
        /// What is wrong with it.
        wrong: String,
    },
    /// Silence over UDP.
    #[error(
        "no reply over UDP from {target} at {address}: wrong port, or a key, key id or secret that it does not know"
    )]
    Silent {
        /// Its name.
        target: String,
        /// Where it was asked.
        address: SocketAddr,
    },
    /// A CPU that this process may not use.
    #[error("CPU {cpu} is not one that this process may use: choose from {allowed:?}")]
    Cpu {
        /// Asked for.
        cpu: usize,
        /// May be used.
        allowed: Vec<usize>,
    },
    /// Descriptors, memory or threads.
    #[error("cannot open {connections} connections: {reason}; raise the open file limit (ulimit -n) or ask for fewer")]
    Resources {
        /// Wanted.
        connections: usize,
        /// What the kernel says.
        reason: io::Error,
    },
}

/// Asks every target one question over each protocol, as a level does before it begins.
///
/// # Errors
/// The first that does not answer, or refuses the key or the asset.
pub fn probe(job: &Job) -> Result<(), LevelRefused> {
    probe::all(job, mono_ns())
}

/// Drives one level. What `progress` says may be read meanwhile; when it is told to stop, the level ends within about
/// 100 ms with what it has, leaving out what was in flight and would still have been in time; when it is told that a target
/// is gone, what is in flight is waited for as at its end, and lost where no answer comes.
///
/// # Errors
/// When it could not be begun.
pub fn run(job: &Job, level: &Level, progress: &Progress) -> Result<LevelOutcome, LevelRefused> {
    check(job)?;
    let connections = level.connections.max(1);
    let level = Level { connections, rate: level.rate.max(1), ..*level };
    let refused = |reason| LevelRefused::Resources { connections, reason };
    sockets::raise_nofile().map_err(refused)?;
    if !progress.stopped() {
        probe(job)?;
    }
    let threads = thread_count(job).min(connections);
    let (counted_from, outcomes) = drive(job, level, progress, threads).map_err(refused)?;
    Ok(merge(job, level, counted_from, outcomes))
}

/// Everything about a job that no target needs to be asked for.
fn check(job: &Job) -> Result<(), LevelRefused> {
    if job.targets.iter().all(|target| target.tcp.is_none() && target.udp.is_none()) {
        return Err(LevelRefused::Empty("no target has an address; name one with a TCP or a UDP port"));
    }
    if job.assets.is_empty() {
        return Err(LevelRefused::Empty("no asset is asked for; name at least one"));
    }
    if !job.credentials.key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
        return Err(LevelRefused::Empty("the key has characters that no key has; check what was given"));
    }
    let allowed = AllowedCpus::read().map_or_else(|_| job.cpus.clone(), |allowed| allowed.cpus);
    match job.cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        Some(cpu) => Err(LevelRefused::Cpu { cpu: *cpu, allowed }),
        None => Ok(()),
    }
}

fn thread_count(job: &Job) -> usize {
    if job.cpus.is_empty() { job.threads.max(1) } else { job.cpus.len() }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A thread's part, its connections being opened.
fn worker<'a>(
    job: &'a Job,
    level: Level,
    progress: &'a Progress,
    thread: usize,
    threads: usize,
) -> io::Result<Worker<'a>> {
    let share = Share { thread, threads, connections: level.connections };
    let window = Window {
        from_ns: u64::MAX,
        end_ns: u64::MAX,
        late_ns: nanoseconds(job.late_after),
        lost_ns: nanoseconds(job.lost_after),
        age_max_ms: u64::try_from(job.age_max.as_millis()).unwrap_or(u64::MAX),
    };
    Worker::new(job, level, progress, |poll| {
        let tcp = job.targets.iter().any(|target| target.tcp.is_some());
        let udp = job.targets.iter().any(|target| target.udp.is_some());
        let tcp = tcp.then(|| Streams::open(job, window, share, poll.registry().try_clone()?, stream_token));
        let udp = udp.then(|| Datagrams::open(job, window, share, level.rate, poll.registry(), socket_token));
        Ok((tcp.transpose()?, udp.transpose()?))
    })
}

/// Runs every thread's part, all by one clock; also when the counted time began. A thread whose connections cannot be opened keeps the others from beginning.
fn drive<'a>(
    job: &'a Job,
    level: Level,
    progress: &'a Progress,
    threads: usize,
) -> io::Result<(Instant, Vec<ThreadOutcome<'a>>)> {
    thread::scope(|scope| {
        let (ready, all_ready) = sync_channel(threads);
        let (mut running, mut starts) = (Vec::new(), Vec::new());
        for index in 0..threads {
            let (start, started) = sync_channel::<Times>(1);
            let ready = ready.clone();
            let body = move || {
                if let Some(cpu) = job.cpus.get(index) {
                    // Allowed, as was checked; where it is refused all the same the thread runs unpinned.
                    let _ = pin::pin_current_thread(*cpu);
                }
                let connected = worker(job, level, progress, index, threads)
                    .and_then(|mut worker| worker.connect().map(|()| worker));
                let (worker, outcome) =
                    connected.map_or_else(|error| (None, Err(error)), |worker| (Some(worker), Ok(())));
                // Neither fails while the level's own thread waits.
                let _ = ready.send(outcome);
                let times = started.recv().ok();
                worker.zip(times).map(|(worker, times)| worker.run(times)).transpose()
            };
            running.push(thread::Builder::new().name(format!("stress-{index}")).spawn_scoped(scope, body)?);
            starts.push(start);
        }
        drop(ready);
        for _ in 0..threads {
            all_ready.recv().map_err(io::Error::other)??;
        }
        let start_ns = mono_ns() + START_NS;
        let counted_from = Instant::now() + Duration::from_nanos(START_NS) + job.warm_up;
        let count_from_ns = start_ns.saturating_add(nanoseconds(job.warm_up));
        let end_ns = count_from_ns.saturating_add(nanoseconds(job.duration));
        for start in starts {
            start.send(Times { start_ns, count_from_ns, end_ns }).map_err(io::Error::other)?;
        }
        let ended = running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        Ok((counted_from, ended.filter_map(Result::transpose).collect::<io::Result<_>>()?))
    })
}

/// Adds up what the threads found.
fn merge(job: &Job, level: Level, counted_from: Instant, outcomes: Vec<ThreadOutcome<'_>>) -> LevelOutcome {
    let blank = |target: &crate::job::Target| TargetOutcome {
        name: target.name.clone(),
        tcp: target.tcp.map(|_| Tally::default()),
        udp: target.udp.map(|_| Tally::default()),
    };
    let mut merged = LevelOutcome {
        level,
        counted_from,
        elapsed: Duration::ZERO,
        targets: job.targets.iter().map(blank).collect(),
        behind_ns: behind_histogram(),
        generator_cpu: Duration::ZERO,
        generator_delay: Duration::ZERO,
        stopped: false,
    };
    for outcome in outcomes {
        let ThreadOutcome { tcp, udp, used, counted_ns, stopped } = outcome;
        merged.elapsed = merged.elapsed.max(Duration::from_nanos(counted_ns));
        merged.generator_cpu += Duration::from_nanos(used.cpu_ns);
        merged.generator_delay += Duration::from_nanos(used.delay_ns);
        merged.stopped |= stopped;
        let LevelOutcome { targets, behind_ns, .. } = &mut merged;
        let mut add = |lane: Option<Course<'_>>, tallies: Vec<&mut Tally>| {
            let Some(lane) = lane else { return };
            tallies.into_iter().zip(&lane.counters).for_each(|(tally, counter)| tally.add(&counter.tally));
            behind_ns.add(&lane.behind_ns).expect("the same bounds");
        };
        add(tcp, targets.iter_mut().filter_map(|target| target.tcp.as_mut()).collect());
        add(udp, targets.iter_mut().filter_map(|target| target.udp.as_mut()).collect());
    }
    merged
}
