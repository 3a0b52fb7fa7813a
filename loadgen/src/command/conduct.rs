//! A run from its settings to its reports: what is looked at before, the levels one after the other, and what is
//! written at the end. The clients' work is the library's; here they are only started, watched and stopped.

use super::alive::{self, Watch};
use super::interrupt::Interrupt;
use super::live::Live;
use super::options::Options;
use super::outputs::{HDR, HTML, JSON, Outputs};
use super::server::{Meter, Servers};
use super::settings::{self, Settings};
use super::{assets, print, tell};
use anyhow::{Context, anyhow, bail};
use loadgen::job::{Job, Progress, Target};
use loadgen::level::LevelRefused;
use loadgen::outcome::LevelOutcome;
use loadgen::plan::Level;
use loadgen::report::run::{Ending, LevelFinding, Machine, Run, ServerCpu};
use loadgen::report::{condition, hdr, html, json, table};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};
use tuning::cpus::AllowedCpus;
use tuning::noise;

/// Time between two looks at a running level: as often as the clients write their counters.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the machine is listened to before a run: rates over it mean something, and nobody minds the wait.
const LISTENED: Duration = Duration::from_millis(500);
/// Descriptors besides the connections and the threads' own: standard streams, reports, signals, `/proc`, questions
/// whether the targets are there.
const DESCRIPTORS_BESIDE: u64 = 64;
/// Descriptors of a generating thread: its poll, a copy of it for each protocol, and one under `/proc`.
const DESCRIPTORS_PER_THREAD: u64 = 4;

/// Runs the load test.
///
/// # Errors
/// When it could not begin: faults on the command line, a target that is not there, a file that cannot be written.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let settings = settings::read(options)?;
    let wanted =
        [("--json", options.json.as_ref()), ("--html", options.html.as_ref()), ("--hdr", options.hdr.as_ref())];
    let mut outputs = Outputs::open(wanted)?;
    check_descriptors(&settings)?;
    let interrupt = Interrupt::listen()?;
    let mut live = Live::new(settings.quiet);
    let (mut run, servers) = prepare(&settings, &live)?;
    levels(&mut run, &servers, &interrupt, &mut live)?;
    if run.levels.is_empty() {
        return match run.ending {
            Ending::Failed(why) => Err(anyhow!(why)),
            Ending::Stopped | Ending::Complete => {
                Err(anyhow!("stopped before anything was counted: nothing is written"))
            }
        };
    }
    run.verdicts = condition::judge(&settings.conditions, &run);
    let unwritten = write(&run, &mut outputs, settings.quiet);
    for error in &unwritten {
        tell(&format!("{error:#}"));
    }
    let code = verdict(&run);
    Ok(if unwritten.is_empty() { code } else { ExitCode::FAILURE })
}

/// Tells what failed; the exit code.
fn verdict(run: &Run) -> ExitCode {
    let mut failed = false;
    if let Ending::Failed(why) = &run.ending {
        tell(why);
        failed = true;
    }
    if run.ending == Ending::Stopped {
        tell("stopped: what was found until then is told and written");
    }
    for verdict in run.verdicts.iter().filter(|verdict| !verdict.held) {
        tell(&format!("required: {verdict}"));
        failed = true;
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Writes every report, whatever becomes of the others, and what goes to stdout last; what could not be written.
fn write(run: &Run, outputs: &mut Outputs, quiet: bool) -> Vec<anyhow::Error> {
    let mut written = Vec::new();
    if outputs.has(HTML) {
        written.push(outputs.write(HTML, html::render(run).as_bytes()));
    }
    if outputs.has(HDR) {
        let log = hdr::render(run).context("cannot write the histograms down");
        written.push(log.and_then(|log| outputs.write(HDR, &log)));
    }
    if outputs.has(JSON) {
        written.push(outputs.write(JSON, format!("{:#}\n", json::render(run)).as_bytes()));
    }
    if !quiet && !outputs.is_stdout(JSON) {
        let tables = print(format!("\n{}", table::render(run)).as_bytes());
        written.push(tables.context("cannot print the tables: give --json FILE and --quiet"));
    }
    written.into_iter().filter_map(Result::err).collect()
}

/// Makes sure that the biggest level's connections can be open at once.
fn check_descriptors(settings: &Settings) -> anyhow::Result<()> {
    let protocols = u64::from(settings.driven.tcp) + u64::from(settings.driven.udp);
    let connections = settings.levels.iter().map(|level| level.connections as u64).max().unwrap_or(0);
    let cpus = AllowedCpus::read().map_or(1, |allowed| allowed.cpus.len());
    let threads = settings.threads.unwrap_or(cpus.max(settings.cpus.len())) as u64;
    let needed = connections * protocols + threads * DESCRIPTORS_PER_THREAD + DESCRIPTORS_BESIDE;
    // What it could be raised to is what counts; a refusal shows there.
    let _ = tuning::sockets::raise_nofile();
    let limit = tuning::sockets::Limit::nofile().ok().and_then(|limit| limit.soft).unwrap_or(u64::MAX);
    if limit < needed {
        bail!(
            "{connections} connections need {needed} descriptors and the limit is {limit}: raise it (ulimit -n), or pick lower levels"
        );
    }
    Ok(())
}

/// Finds addresses, assets, servers and the machine's noise.
fn prepare(settings: &Settings, live: &Live) -> anyhow::Result<(Run, Servers)> {
    let mut targets = Vec::new();
    let mut lists_assets = None;
    for place in &settings.places {
        let (target, tcp) = place.resolve(settings.driven)?;
        targets.push(target);
        lists_assets.get_or_insert(tcp);
    }
    let symbols = match (settings.assets.is_empty(), lists_assets) {
        (true, Some(address)) => ask_assets(settings, address, live)?,
        _ => settings.assets.clone(),
    };
    let servers =
        if settings.pids.is_empty() { Servers::listening(&targets) } else { Servers::given(&settings.pids, &targets)? };
    let cpus = AllowedCpus::read().map(|allowed| allowed.cpus).unwrap_or_default();
    let is_local = !servers.is_empty() || targets.iter().any(is_loopback);
    let threads = settings.threads.unwrap_or(if is_local { cpus.len() / 2 } else { cpus.len() }).max(1);
    let job = Job {
        targets,
        credentials: settings.credentials.clone(),
        pace: settings.pace,
        pipeline: settings.pipeline,
        train: settings.train,
        format: settings.format,
        assets: symbols,
        warm_up: settings.warm_up,
        duration: settings.duration,
        late_after: settings.late_after,
        lost_after: settings.lost_after,
        age_max: settings.age_max,
        cpus: settings.cpus.clone(),
        threads,
    };
    let run = Run {
        job,
        planned: settings.levels.clone(),
        machine: machine(&cpus, &servers, live),
        began: SystemTime::now(),
        levels: Vec::new(),
        ending: Ending::Complete,
        verdicts: Vec::new(),
    };
    Ok((run, servers))
}

fn is_loopback(target: &Target) -> bool {
    target.tcp.or(target.udp).is_some_and(|address| address.ip().is_loopback())
}

fn ask_assets(settings: &Settings, address: SocketAddr, live: &Live) -> anyhow::Result<Vec<shared::asset::Symbol>> {
    let error = match assets::listed(address) {
        Ok(symbols) => return Ok(symbols),
        Err(assets::NoList::Unreachable(error)) if settings.driven.tcp => {
            return Err(error.context(format!("cannot reach target {address}: check --target and that it runs")));
        }
        Err(assets::NoList::Unreachable(error) | assets::NoList::NotListed(error)) => error,
    };
    let usual = assets::usual();
    let names: Vec<&str> = usual.iter().map(shared::asset::Symbol::as_str).collect();
    live.say(&format!("no list of assets from http://{address}/assets ({error:#}): asking for {}", names.join(",")));
    Ok(usual)
}

/// What the generator runs on, and how quiet it is there before anything is asked.
fn machine(cpus: &[usize], servers: &Servers, live: &Live) -> Machine {
    let (began, before) = (Instant::now(), servers.cpu());
    let noise = noise::listen(cpus, LISTENED).unwrap_or_else(|error| {
        live.say(&format!("the machine's own noise is not known: {error}"));
        Vec::new()
    });
    let over = began.elapsed().as_secs_f64();
    let idle = before.zip(servers.cpu()).map(|(before, after)| after.saturating_sub(before).as_secs_f64() / over);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo").lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    Machine {
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cpu_model: model.unwrap_or_default(),
        cpus_allowed: cpus.len(),
        noise,
        server_idle_cores: idle,
    }
}

/// Runs the levels until one cannot be run, a target is gone, or someone stops it.
fn levels(run: &mut Run, servers: &Servers, interrupt: &Interrupt, live: &mut Live) -> anyhow::Result<()> {
    run.began = SystemTime::now();
    let began = Instant::now();
    for level in run.planned.clone() {
        if interrupt.is_asked() {
            run.ending = Ending::Stopped;
            break;
        }
        let seen = one_level(&run.job, &level, servers, interrupt, live)?;
        let outcome = match seen.found {
            Ok(outcome) => outcome,
            Err(refused) => {
                live.end(None);
                run.ending = Ending::Failed(refused.to_string());
                break;
            }
        };
        let (stopped, elapsed) = (outcome.stopped, outcome.elapsed);
        let began_after = outcome.counted_from.saturating_duration_since(began);
        if stopped && elapsed.is_zero() {
            // It was still warming up: nothing of it was counted.
            live.end(None);
            run.ending = seen.gone.map_or(Ending::Stopped, Ending::Failed);
            break;
        }
        let finding = LevelFinding::new(outcome, began_after, seen.server);
        live.end(Some(&finding));
        let at_its_end = || if stopped { None } else { alive::gone(&run.job, &finding, interrupt) };
        let gone = seen.gone.or_else(at_its_end);
        run.levels.push(finding);
        if let Some(why) = gone {
            run.ending = Ending::Failed(why);
            break;
        }
        if stopped {
            run.ending = Ending::Stopped;
            break;
        }
    }
    Ok(())
}

/// What was seen of a level.
struct Seen {
    found: Result<LevelOutcome, LevelRefused>,
    server: Option<ServerCpu>,
    /// Why it ended before its time, if a target went away.
    gone: Option<String>,
}

/// Runs one level on a thread of its own and watches it.
fn one_level(
    job: &Job,
    level: &Level,
    servers: &Servers,
    interrupt: &Interrupt,
    live: &mut Live,
) -> anyhow::Result<Seen> {
    let progress = Progress::default();
    let mut meter = Meter::new(servers);
    let mut watch = Watch::new(job, level);
    live.begin(level, job.pace, job.warm_up + job.duration);
    let found = std::thread::scope(|scope| {
        // One value: room for it is all that is needed.
        let (done, waiting) = mpsc::sync_channel(1);
        let progress = &progress;
        std::thread::Builder::new().name("level".to_owned()).spawn_scoped(scope, move || {
            // Who waits leaves only after this.
            let _ = done.send(loadgen::level::run(job, level, progress));
        })?;
        loop {
            match waiting.recv_timeout(LOOK_EVERY) {
                Ok(found) => return Ok(found),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("the clients ended without a finding: a bug; see above")
                }
            }
            let failed = progress.failed.load(Ordering::Relaxed);
            if interrupt.is_asked() {
                progress.stop();
            } else if watch.look(failed).is_some() {
                progress.target_gone();
            }
            let ended = progress.answered.load(Ordering::Relaxed) + failed;
            meter.look(progress.sent.load(Ordering::Relaxed), ended);
            live.tick(progress);
        }
    })?;
    Ok(Seen { found, server: meter.read(), gone: watch.gone() })
}
