//! The order in which the data plane comes up: limits, engine, ports, rings, feed thread, shards.

use super::keys_in_use::KeysInUse;
use super::{DataPlane, DataPlaneSetup, ShardHandle, StartRefused, Thread};
use crate::asks::AskReceiver;
use crate::choice::{Chosen, choose};
use crate::feed_thread::{self, FeedLoop, FeedSender};
use crate::handover::HandedOver;
use crate::limits::{COMMANDS_WAITING_MAX, CONNECTIONS_MAX, FILES_RESERVED, HAND_OVERS_WAITING_MAX};
use crate::shard_thread::{self, ShardThread};
use crate::sockets::{self, Sockets};
use crate::stats::PublishedStats;
use crate::wake::{ShardWake, ThreadWake};
use crossbeam_channel::{Receiver, Sender, bounded};
use dataplane_core::command::ShardCommand;
use dataplane_core::feed::{FeedCounters, FeedSetup};
use dataplane_core::limits::ASKS_WAITING_MAX;
use dataplane_core::lookup::Ask;
use dataplane_core::shard::ShardSetup;
use rtrb::{Consumer, Producer, RingBuffer};
use shared::limits::{SHARDS_MAX, TICK_RING_CAPACITY, USAGE_RING_CAPACITY};
use shared::tick::{Tick, first_sequence};
use shared::usage::UsageRecord;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tuning::ring_probe::{RingRefused, RingVerdict};
use tuning::steering::{Steering, SteeringChoice};

/// Shards beside which the control plane's ring of ticks still fits the feed's 64-bit set of rings.
const SERVING_SHARDS_MAX: usize = if SHARDS_MAX < 63 { SHARDS_MAX } else { 63 };

/// Starts everything; `probe` tells whether io_uring is to be had.
pub(super) fn start(
    setup: &DataPlaneSetup,
    probe: impl FnOnce() -> Result<RingVerdict, RingRefused>,
) -> Result<DataPlane, StartRefused> {
    let shards = setup.plan.shards.len();
    if shards == 0 || shards > SERVING_SHARDS_MAX {
        let text = format!("{shards} serving shards are planned: set TB_SHARDS to 1 to {SERVING_SHARDS_MAX}");
        return Err(StartRefused::Thread(text));
    }
    let mut warnings: Vec<String> = setup.plan.warning().into_iter().collect();
    let files = tuning::sockets::raise_nofile().unwrap_or_else(|error| {
        warnings.push(format!("the limit on open files stays as it is: {error}"));
        tuning::sockets::Limit { soft: None, hard: None }
    });
    let chosen = choose(setup.engine, probe)?;
    let connections_max = connections_max(setup, &chosen, files.soft, &mut warnings);
    let bound = sockets::bind(setup.bind, setup.tcp_port, setup.udp_port, shards)?;
    let steering = steer(setup, |cpus| bound.steer_by_cpu(cpus), &mut warnings);
    let (tcp, udp) = (bound.tcp, bound.udp);
    let rings = Rings::new(shards);
    let (feed, received) = feed_thread::channel();
    let feed_counters = Arc::new(Mutex::new(FeedCounters::default()));
    let (hand_over, hand_overs) = bounded(HAND_OVERS_WAITING_MAX);
    let feed_setup = FeedSetup {
        assets: Arc::clone(&setup.assets),
        parameters: setup.feed_parameters,
        first_sequence: first_sequence(tuning::clock::now().wall_ms),
        rings: rings.tick_producers,
        simulated: setup.simulated,
    };
    let asks = Arc::<ThreadWake>::default();
    let parts = Parts { setup, chosen: &chosen, connections_max, hand_over, asks: Arc::clone(&asks) };
    let mut starting = Starting::new(feed.clone(), shards);
    let ends = ShardEnds { ticks: rings.tick_consumers, usage: rings.usage_producers, asks: rings.ask_producers };
    starting.shards(&parts, bound, ends)?;
    let wakes = starting.handles.iter().map(|shard| Arc::clone(&shard.wake)).collect();
    let (turning, feed_turns) = bounded(1);
    // The control plane's runtime begins at the front of those CPUs.
    let cpu = setup.plan.control.last().copied();
    let counters = Arc::clone(&feed_counters);
    let feed_loop = FeedLoop { setup: feed_setup, received, wakes, counters, cpu, turning };
    starting.thread("feed".to_owned(), move || feed_thread::run(feed_loop))?;
    starting.await_turns()?;
    let feed_warning =
        feed_turns.recv().map_err(|_| StartRefused::Thread("the feed thread ended at once: a bug".to_owned()))?;
    warnings.extend(starting.warned.try_iter().chain(feed_warning));
    let (handles, threads) = starting.finish();
    Ok(DataPlane {
        engine: chosen.engine,
        reason: chosen.reason,
        warnings,
        steering,
        tcp,
        udp,
        shards: handles,
        feed,
        feed_counters,
        hand_overs,
        keys: Mutex::new(KeysInUse::new(Arc::clone(&setup.keys))),
        ticks: Mutex::new(Some(rings.control_ticks)),
        usage: Mutex::new(rings.usage_consumers),
        asks: Mutex::new(Some(AskReceiver::new(rings.ask_consumers, asks))),
        threads: Mutex::new(threads),
        stopping: AtomicBool::new(false),
    })
}

/// Connections one shard may hold: what was asked for, or less where the process may not open that many files.
fn connections_max(setup: &DataPlaneSetup, chosen: &Chosen, files: Option<u64>, warnings: &mut Vec<String>) -> usize {
    let wanted = setup.connections_max.clamp(1, CONNECTIONS_MAX);
    // Direct descriptors are the ring's, not the process's.
    let Some(files) = files.filter(|_| !chosen.direct_descriptors) else { return wanted };
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let granted = (files.saturating_sub(FILES_RESERVED.min(files / 2)) / setup.plan.shards.len()).max(1);
    if granted < wanted {
        warnings.push(format!(
            "the open files limit of {files} leaves {granted} connections a shard instead of {wanted}: raise the hard \
             nofile limit (ulimit -Hn, LimitNOFILE=)"
        ));
    }
    granted.min(wanted)
}

/// Decides how flows find their shards, and sees to it. What was asked for and cannot be had is no reason not to serve.
fn steer(
    setup: &DataPlaneSetup,
    attach: impl FnOnce(&[usize]) -> io::Result<()>,
    warnings: &mut Vec<String>,
) -> Steering {
    let decided = Steering::decide(setup.steering, &setup.plan, setup.bind);
    let cpus: Vec<usize> = setup.plan.shards.iter().copied().flatten().collect();
    let attached = if decided.by_cpu { attach(&cpus) } else { Ok(()) };
    let steering = attached.err().map_or_else(|| decided.clone(), |error| decided.refused(&error));
    if !steering.by_cpu && (decided.by_cpu || setup.steering == SteeringChoice::Cpu) {
        warnings.push(format!("flows are spread over the shards {steering}"));
    }
    steering
}

/// Every SPSC ring, split into its ends.
struct Rings {
    tick_producers: Vec<Producer<Tick>>,
    tick_consumers: Vec<Consumer<Tick>>,
    control_ticks: Consumer<Tick>,
    usage_producers: Vec<Producer<UsageRecord>>,
    usage_consumers: Vec<Consumer<UsageRecord>>,
    ask_producers: Vec<Producer<Ask>>,
    ask_consumers: Vec<Consumer<Ask>>,
}

impl Rings {
    /// One ring of each kind for each shard, and one of ticks for the control plane behind them.
    fn new(shards: usize) -> Self {
        let (mut tick_producers, tick_consumers): (Vec<_>, Vec<_>) =
            (0..shards).map(|_| RingBuffer::new(TICK_RING_CAPACITY)).unzip();
        let (control, control_ticks) = RingBuffer::new(TICK_RING_CAPACITY);
        tick_producers.push(control);
        let (usage_producers, usage_consumers) = (0..shards).map(|_| RingBuffer::new(USAGE_RING_CAPACITY)).unzip();
        let (ask_producers, ask_consumers) = (0..shards).map(|_| RingBuffer::new(ASKS_WAITING_MAX)).unzip();
        Self {
            tick_producers,
            tick_consumers,
            control_ticks,
            usage_producers,
            usage_consumers,
            ask_producers,
            ask_consumers,
        }
    }
}

/// The shards' ends of the rings, by shard.
struct ShardEnds {
    ticks: Vec<Consumer<Tick>>,
    usage: Vec<Producer<UsageRecord>>,
    asks: Vec<Producer<Ask>>,
}

/// What all shards are made from.
struct Parts<'a> {
    setup: &'a DataPlaneSetup,
    chosen: &'a Chosen,
    connections_max: usize,
    hand_over: Sender<HandedOver>,
    /// Wakes whoever takes what shards ask.
    asks: Arc<ThreadWake>,
}

/// What runs so far. Dropped before `finish`, it stops it again.
struct Starting {
    handles: Vec<ShardHandle>,
    threads: Vec<Thread>,
    feed: FeedSender,
    turning: Vec<Receiver<Result<(), String>>>,
    warn: Sender<String>,
    warned: Receiver<String>,
}

impl Starting {
    fn new(feed: FeedSender, shards: usize) -> Self {
        let (warn, warned) = bounded(shards);
        Self { handles: Vec::new(), threads: Vec::new(), feed, turning: Vec::new(), warn, warned }
    }

    fn shards(&mut self, parts: &Parts<'_>, bound: Sockets, ends: ShardEnds) -> Result<(), StartRefused> {
        let shards = u16::try_from(parts.setup.plan.shards.len()).unwrap_or(u16::MAX);
        let ShardEnds { ticks, usage, asks } = ends;
        let ends = ticks.into_iter().zip(usage).zip(asks);
        for ((index, sockets), ((ticks, usage), asks)) in (0..shards).zip(bound.of_shards).zip(ends) {
            let setup = ShardSetup {
                index,
                shards,
                assets: Arc::clone(&parts.setup.assets),
                keys: Arc::clone(&parts.setup.keys),
                parameters: parts.setup.shard_parameters,
                ticks,
                usage,
                asks,
                counts_usage: parts.setup.counts_usage,
                // Each `RandomState` has keys of its own.
                hash_seed: RandomState::new().build_hasher().finish(),
            };
            self.shard(parts, setup, sockets)?;
        }
        Ok(())
    }

    fn shard(
        &mut self,
        parts: &Parts<'_>,
        setup: ShardSetup,
        (listener, datagrams): (std::net::TcpListener, std::net::UdpSocket),
    ) -> Result<(), StartRefused> {
        let index = usize::from(setup.index);
        let wake = ShardWake::new().map_err(|error| {
            StartRefused::Thread(format!("shard {index}: no eventfd: {error}: raise the nofile limit (ulimit -n)"))
        })?;
        let (commands, command_queue) = bounded(COMMANDS_WAITING_MAX);
        let (turning, turns) = bounded(1);
        let handle = ShardHandle { commands, wake: Arc::new(wake), stats: Arc::new(PublishedStats::new(index)) };
        let thread = ShardThread {
            engine: parts.chosen.engine,
            direct_descriptors: parts.chosen.direct_descriptors,
            cpu: parts.setup.plan.shards.get(index).copied().flatten(),
            setup,
            listener,
            datagrams,
            commands: command_queue,
            hand_overs: parts.hand_over.clone(),
            stats: Arc::clone(&handle.stats),
            wake: Arc::clone(&handle.wake),
            asks: Arc::clone(&parts.asks),
            connections_max: parts.connections_max,
            turning,
            warnings: self.warn.clone(),
        };
        self.thread(format!("shard-{index}"), move || shard_thread::run(thread))?;
        self.handles.push(handle);
        self.turning.push(turns);
        Ok(())
    }

    fn thread(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<(), StartRefused> {
        let started = std::thread::Builder::new().name(name.clone()).spawn(body);
        let handle = started.map_err(|error| {
            StartRefused::Thread(format!("thread {name} could not be started: {error}: raise the limit on processes"))
        })?;
        self.threads.push(Thread { name, handle });
        Ok(())
    }

    /// Waits until every shard turns.
    fn await_turns(&self) -> Result<(), StartRefused> {
        for (index, turns) in self.turning.iter().enumerate() {
            match turns.recv() {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => return Err(StartRefused::Engine(format!("shard {index}: {reason}"))),
                Err(_) => return Err(StartRefused::Thread(format!("shard {index} ended before it served: a bug"))),
            }
        }
        Ok(())
    }

    fn finish(mut self) -> (Vec<ShardHandle>, Vec<Thread>) {
        (std::mem::take(&mut self.handles), std::mem::take(&mut self.threads))
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        for shard in &self.handles {
            // It can only fail when the shard has ended already.
            let _ = shard.commands.send(ShardCommand::Stop);
            shard.wake.tell();
        }
        self.feed.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::{Engine, EngineChoice};
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::{Duration, Instant};
    use tuning::core_plan::CorePlan;

    fn setup(engine: EngineChoice, shards: usize, connections_max: usize) -> DataPlaneSetup {
        DataPlaneSetup {
            engine,
            bind: std::net::Ipv4Addr::LOCALHOST.into(),
            tcp_port: 0,
            udp_port: 0,
            plan: CorePlan { shards: vec![None; shards], control: Vec::new() },
            steering: SteeringChoice::Auto,
            connections_max,
            assets: Arc::default(),
            keys: Arc::default(),
            shard_parameters: dataplane_core::command::ShardParameters::default(),
            feed_parameters: dataplane_core::feed::FeedParameters::default(),
            simulated: false,
            counts_usage: true,
        }
    }

    #[track_caller]
    fn check(direct_descriptors: bool, shards: usize, files: Option<u64>, asked: usize, granted: usize) {
        let setup = setup(EngineChoice::Auto, shards, asked);
        let chosen = Chosen { engine: Engine::Epoll, reason: String::new(), direct_descriptors };
        let mut warnings = Vec::new();
        assert_eq!(connections_max(&setup, &chosen, files, &mut warnings), granted);
        assert_eq!(warnings.is_empty(), granted == asked.clamp(1, CONNECTIONS_MAX), "{warnings:?}");
    }

    #[test]
    fn connections_fit_the_open_files_limit() {
        check(false, 2, Some(1_000_000), CONNECTIONS_MAX, CONNECTIONS_MAX);
        check(false, 2, None, usize::MAX, CONNECTIONS_MAX);
        check(false, 2, Some(20_000), CONNECTIONS_MAX, 9_488);
        check(false, 4, Some(1_024), CONNECTIONS_MAX, 128);
        check(true, 4, Some(1_024), CONNECTIONS_MAX, CONNECTIONS_MAX);
        check(false, 1, Some(1_000_000), 0, 1);
    }

    #[test]
    fn steering_that_is_refused_is_told_once_and_left() {
        let pinned = CorePlan { shards: vec![Some(3), Some(5)], control: Vec::new() };
        let setup = |steering, plan: &CorePlan| DataPlaneSetup {
            steering,
            plan: plan.clone(),
            ..setup(EngineChoice::Epoll, 2, 1)
        };
        let mut warnings = Vec::new();
        let asked = setup(SteeringChoice::Cpu, &pinned);
        let refused = steer(&asked, |_| Err(io::ErrorKind::PermissionDenied.into()), &mut warnings);
        assert!(!refused.by_cpu && warnings.len() == 1 && warnings[0].contains("refused"), "{warnings:?}");
        let mut attached: Vec<usize> = Vec::new();
        let attach = |cpus: &[usize]| {
            attached.extend(cpus);
            Ok(())
        };
        assert!(steer(&asked, attach, &mut warnings).by_cpu && warnings.len() == 1, "{warnings:?}");
        assert_eq!(attached, [3, 5]);
        let floating = CorePlan { shards: vec![None; 2], control: Vec::new() };
        let never = |_: &[usize]| panic!("there is nothing to attach");
        steer(&setup(SteeringChoice::Cpu, &floating), never, &mut warnings);
        assert!(warnings.len() == 2 && warnings[1].contains("pinned"), "{warnings:?}");
        // What was not asked for is not missed.
        assert!(!steer(&setup(SteeringChoice::Auto, &pinned), never, &mut warnings).by_cpu);
        assert!(!steer(&setup(SteeringChoice::Hash, &pinned), never, &mut warnings).by_cpu);
        assert_eq!(warnings.len(), 2);
    }

    /// As on Linux 6.1 to 6.7, where a direct descriptor cannot be handed over: see `Chosen::direct_descriptors`.
    #[test]
    fn ordinary_descriptors_are_served_handed_over_and_closed() {
        if let Err(refused) = tuning::ring_probe::probe() {
            eprintln!("skipped: {refused}");
            return;
        }
        let older = || Ok(RingVerdict { direct_descriptors: false });
        let plane = start(&setup(EngineChoice::IoUring, 1, 20), older).expect("started");
        assert!(plane.engine_reason().contains("ordinary"), "{}", plane.engine_reason());
        let connect = || {
            let stream = TcpStream::connect(plane.tcp_address()).expect("a connection");
            stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
            stream
        };
        for _ in 0..100 {
            let mut client = connect();
            client.write_all(b"GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
            let mut reply = String::new();
            client.read_to_string(&mut reply).expect("an answer, then the end");
            assert!(reply.starts_with("HTTP/1.1 401 "), "{reply}");
        }
        let mut client = connect();
        client.write_all(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let mut given =
            plane.hand_overs().recv_deadline(Instant::now() + Duration::from_secs(30)).expect("handed over");
        assert!(given.bytes.starts_with(b"GET /other "));
        given.stream.write_all(b"bye").expect("sent");
        drop(given);
        let mut reply = String::new();
        client.read_to_string(&mut reply).expect("what the new owner says, then the end");
        assert_eq!(reply, "bye");
        plane.command(&ShardCommand::StopAccepting);
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(plane.tcp_address()).is_ok() {
            assert!(Instant::now() < deadline, "newcomers are refused");
        }
    }

    /// CPU lists of this process's feed threads. Tests run beside each other, so there may be several.
    fn feed_threads_run_on() -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
        let status = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
        let of_feed = status.filter(|text| text.starts_with("Name:\tfeed\n"));
        of_feed.filter_map(|text| Some(text.split("Cpus_allowed_list:\t").nth(1)?.lines().next()?.to_owned())).collect()
    }

    #[test]
    fn the_feed_thread_runs_on_the_control_plane_s_cpus() {
        let last = *tuning::cpus::AllowedCpus::read().expect("a mask").cpus.last().expect("one at least");
        let mut setup = setup(EngineChoice::Epoll, 1, 1);
        setup.plan.control = vec![0, last];
        let plane = start(&setup, || panic!("not asked for")).expect("started");
        assert!(plane.warnings().iter().all(|line| !line.starts_with("feed:")), "{:?}", plane.warnings());
        let found = feed_threads_run_on();
        assert!(found.contains(&last.to_string()), "{found:?} and not {last}");
        setup.plan.control = vec![usize::MAX];
        let plane = start(&setup, || panic!("not asked for")).expect("started all the same");
        assert!(plane.warnings().iter().any(|line| line.starts_with("feed: not pinned")), "{:?}", plane.warnings());
    }

    #[test]
    fn a_thread_that_ends_unbidden_is_told_by_name() {
        let plane = start(&setup(EngineChoice::Epoll, 1, 1), || panic!("not asked for")).expect("started");
        assert_eq!(plane.failed_thread(), None);
        let handle = std::thread::spawn(|| {});
        let deadline = Instant::now() + Duration::from_secs(30);
        while !handle.is_finished() {
            assert!(Instant::now() < deadline, "an empty thread ends");
        }
        plane.threads.lock().expect("sound").push(Thread { name: "shard-9".to_owned(), handle });
        assert_eq!(plane.failed_thread().as_deref(), Some("shard-9"));
        plane.stop();
        assert_eq!(plane.failed_thread(), None, "told to");
    }
}
