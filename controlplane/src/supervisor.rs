//! The order of start and stop, and who watches whom in between.
//!
//! Start: ports of our own, core plan, directories, data plane, venue sessions, administration. A port that cannot be
//! had is found before anything else has begun. Nobody can ask for a price before the database's keys are in force, or
//! the database is known to be away. Stop: see [`drain`]. What any of the parts does is not known here.

mod drain;
mod housekeeping;
mod lookups;
mod parts;
mod ready;
mod signals;

pub use self::parts::make_data_dir;
pub use self::ready::Addresses;
pub use self::signals::Signals;

use self::housekeeping::Housekeeping;
use self::lookups::{Around, RunningLookups};
use self::parts::OwnPorts;
use crate::api::caller::AdminGate;
use crate::api::{ApiState, RunningPlane};
use crate::cache::{self, CacheTimeouts};
use crate::cluster::{self, Beats, Cluster};
use crate::config::Settings;
use crate::feeds::simulator::Simulators;
use crate::feeds::{self, Feeds, FeedsSetup};
use crate::keys::DemoKeys;
use crate::logging;
use crate::orders::Orders;
use crate::params::Parameters;
use crate::params::apply::Hands;
use crate::usage::mirror::Mirror;
use crate::usage::pipeline::Pipeline;
use crate::usage::retention;
use anyhow::{Context, anyhow, bail};
use dataplane_engine::DataPlane;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tuning::core_plan::CorePlan;
use tuning::pin;

/// Threads of the control plane's runtime: its work is short and seldom, and every further one competes with shards.
const RUNTIME_THREADS: usize = 2;

/// Threads for what blocks: files, orders to the feed thread, building key directories, and looking up names, which
/// with a resolver that hangs takes a thread for half a minute and more whoever has given up waiting. Database and
/// cache take one each for that; 8 venues that try again every few seconds can take some 40. Made when needed, and
/// ended after 10 s.
const BLOCKING_THREADS_MAX: usize = 64;

/// How long the runtime may take to end tasks that block.
const RUNTIME_END_WAIT: Duration = Duration::from_secs(2);

/// How a demo is announced.
pub type Announce = fn(&Addresses, &DemoKeys) -> anyhow::Result<()>;

/// What to start.
pub struct Order {
    /// Validated settings.
    pub settings: Settings,
    /// Where to write the bound addresses.
    pub ready_file: Option<PathBuf>,
    /// Whether prices come from simulated exchanges.
    pub demo: Option<Demo>,
    /// What to tell the person who started a demo.
    pub announce: Option<Announce>,
}

/// What a demo has besides.
pub struct Demo {
    /// Its keys.
    pub keys: DemoKeys,
    /// Seed of its market.
    pub seed: u64,
}

/// The running service.
struct Service {
    plane: Arc<DataPlane>,
    feeds: Arc<Feeds>,
    simulators: Option<Simulators>,
    state: Arc<ApiState>,
    housekeeping: Housekeeping,
    hand_overs: parts::HandOvers,
    /// Who looks up what the shards do not have.
    lookups: RunningLookups,
    listeners: JoinSet<()>,
    /// What the key desk does in the background.
    key_tasks: JoinSet<()>,
    /// What tells the other nodes of this one.
    beats: Beats,
    /// Journal and shipper.
    pipeline: Option<Pipeline>,
}

/// Starts the service, runs it until it is told to stop, and stops it.
///
/// # Errors
/// Why it did not start, or that a thread of the data plane or of the lookup desk ended by itself.
pub fn run(order: Order) -> anyhow::Result<()> {
    logging::start(&order.settings);
    let plan = CorePlan::new(order.settings.shards, &order.settings.control_cpus).map_err(|why| anyhow!(why))?;
    let runtime = runtime(&plan).context("cannot start the control plane's threads; raise the limit on processes")?;
    let outcome = runtime.block_on(serve(order, plan));
    runtime.shutdown_timeout(RUNTIME_END_WAIT);
    outcome
}

async fn serve(order: Order, plan: CorePlan) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let drain_wait = order.settings.drain_wait;
    let mut service = tokio::select! {
        service = start(order, plan) => service?,
        signal = signals.next() => {
            tracing::info!(signal, "told to stop before the start was done");
            return Ok(());
        }
    };
    let failed = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "told to stop");
            None
        }
        thread = service.housekeeping.failure() => Some(thread),
    };
    signals.exit_at_the_next();
    match failed {
        None => {
            drain::drain(service, drain_wait).await;
            Ok(())
        }
        Some(thread) => {
            // What can be saved is saved; going on with a part missing would only look like service.
            drain::flush(service).await;
            bail!("{thread} ended by itself, which is a bug: start again, and report it with the log");
        }
    }
}

/// The control plane's runtime. With `TB_CONTROL_CPUS` its threads stay on those.
fn runtime(plan: &CorePlan) -> std::io::Result<Runtime> {
    let cpus = plan.control.clone();
    let next = AtomicUsize::new(0);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(1, usize::from).min(RUNTIME_THREADS))
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("control")
        .on_thread_start(move || {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            let Some(cpu) = cpus.get(turn % cpus.len().max(1)) else { return };
            if let Err(refused) = pin::pin_current_thread(*cpu) {
                tracing::warn!("{refused}");
            }
        })
        .enable_all()
        .build()
}

async fn start(order: Order, plan: CorePlan) -> anyhow::Result<Service> {
    let Order { settings, ready_file, demo, announce } = order;
    parts::say_hello(&settings, &plan);
    // Our own ports first: one that is taken must be known before anything else has begun.
    let ports = OwnPorts::bind(&settings)?;
    parts::make_data_dir(settings.data_dir.as_deref())?;
    let simulators = parts::simulators(&settings, demo.as_ref().map(|demo| demo.seed)).await?;
    let store = parts::store(&settings).await?;
    let cache = cache::open(settings.cache_url.as_ref(), CacheTimeouts::default())?;
    let params = parts::parameters(&settings, &store, &cache)?;
    let begun_with = params.current();
    let sources = parts::sources(&settings, &begun_with, simulators.as_ref());
    let keys = parts::key_desk(&settings, &store, &cache, plan.shards.len(), begun_with.mode);
    let mut key_tasks = keys.run(params.watch(), parts::on_reloads(&params));
    let catalogue = parts::catalogue(&sources, &keys).await?;
    let (assets, known) = (catalogue.directory(), keys.current());
    let plane = parts::data_plane(&settings, &begun_with, &plan, assets, Arc::clone(&known), demo.is_some())?;
    keys.attach(Arc::<DataPlane>::clone(&plane), &known);
    let feeds = Arc::new(feeds::start(FeedsSetup { sources, catalogue, sink: Arc::new(plane.feed()) }));
    let cluster = Cluster::new(settings.node.clone(), Arc::clone(&cache));
    let mirror = settings.usage.mirrored.then(|| Mirror::start(Arc::clone(&cache), keys.watch()));
    let (usage, pipeline) = parts::usage(&settings, &plane, &store, mirror.as_ref(), &params)?;
    key_tasks.spawn(Arc::clone(&keys).mirror_used(Arc::clone(&usage)));
    let limits = parts::limits(&settings.node, &keys, &cluster, &usage, &store, &cache);
    let around = Around { plane: &plane, feeds: &feeds, cache: &cache, params: &params };
    let lookups = lookups::start(&settings.node, demo.is_some(), &around)?;
    let state = Arc::new(ApiState {
        facts: parts::facts(&settings, demo.is_some()),
        plane: Box::new(RunningPlane { plane: Arc::clone(&plane), plan }),
        feeds: Box::new(Arc::clone(&feeds)),
        assets: feeds.directory(),
        keys: Arc::clone(&keys),
        prices: Arc::clone(&lookups.prices),
        lookups: Arc::new(Arc::clone(&lookups.desk)),
        warm: lookups.keep_warm(&settings.node, &cluster, &around),
        usage,
        journal: pipeline.as_ref().map(|pipeline| Arc::clone(pipeline.status())),
        mirror,
        admin: AdminGate::new(settings.admin_key.clone()).or_of(params.watch()),
        reports: parts::reports(&settings, &store, &cache, &params)?,
        store,
        cache: Arc::clone(&cache),
        cluster: Arc::clone(&cluster),
        params: Arc::clone(&params),
        governor: parts::governor(&settings.node, &plane, &cluster, &cache, &params),
        limits: Arc::new(limits),
        draining: Arc::new(AtomicBool::new(false)),
    });
    let hand_overs = parts::hand_overs(&plane, &state)?;
    let housekeeping = Housekeeping::start(housekeeping::rings(&state), lookups.watch(&plane))?;
    follow(&plane, &feeds, &state, begun_with, settings.usage.retention_days);
    let told = Arc::clone(&state);
    let beats = cluster.run(move || cluster::counters::of(&told));
    let addresses = ports.addresses(&plane)?;
    let listeners = ports.serve(&state);
    tell(&state, &addresses, ready_file.as_deref(), demo.as_ref(), simulators.as_ref(), announce).await?;
    Ok(Service {
        plane,
        feeds,
        simulators,
        state,
        housekeeping,
        hand_overs,
        lookups,
        listeners,
        key_tasks,
        beats,
        pipeline,
    })
}

/// Sets going what follows the database, the parameters and the lists of assets.
fn follow(
    plane: &Arc<DataPlane>,
    feeds: &Arc<Feeds>,
    state: &Arc<ApiState>,
    begun_with: Arc<Parameters>,
    retention_days: u64,
) {
    let params = &state.params;
    let orders: Arc<dyn Orders> = Arc::<DataPlane>::clone(plane);
    tokio::spawn(parts::forward_directories(Arc::clone(&orders), feeds.directory()));
    let hands = Hands { orders, feeds: Arc::<Feeds>::clone(feeds), log_level: logging::set_level };
    tokio::spawn(Arc::clone(params).serve(hands, begun_with));
    tokio::spawn(retention::keep(Arc::clone(&state.store), retention_days));
}

/// Tells whoever waits that everything answers: the ready file, and a demo's person.
async fn tell(
    state: &ApiState,
    addresses: &Addresses,
    ready_file: Option<&Path>,
    demo: Option<&Demo>,
    simulators: Option<&Simulators>,
    announce: Option<Announce>,
) -> anyhow::Result<()> {
    if demo.is_some() {
        parts::await_prices(state).await;
    }
    let demo_keys = demo.map(|demo| &demo.keys);
    if let Some(path) = ready_file {
        ready::write(path, addresses, demo_keys, simulators)?;
    }
    if let (Some(announce), Some(keys)) = (announce, demo_keys) {
        announce(addresses, keys)?;
    }
    tracing::info!(lpo_tcp = %addresses.lpo_tcp, lpo_udp = %addresses.lpo_udp, engine = addresses.engine, "serving");
    Ok(())
}
