//! The parts that a start puts together, each made of the settings.

use super::ready::Addresses;
use crate::api::{ApiState, NodeFacts, health_router, listen, public_router};
use crate::config::{Role, Settings, without_effect};
use crate::feeds::instruments::Sources;
use crate::feeds::plan::Wanted;
use crate::feeds::simulator::{SimulatorSettings, Simulators};
use crate::orders::Orders;
use anyhow::{Context, anyhow};
use crossbeam_channel::bounded;
use dataplane_core::access::Keys;
use dataplane_core::command::{ShardCommand, ShardParameters};
use dataplane_core::feed::{FeedInput, FeedParameters};
use dataplane_engine::{CONNECTIONS_MAX, DataPlane, DataPlaneSetup, Engine, EngineChoice};
use shared::asset::{AssetDirectory, Symbol};
use shared::venue::Venue;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep};
use tuning::clock;
use tuning::core_plan::CorePlan;
use tuning::cpus::AllowedCpus;
use tuning::sockets::Limit;
use venues::assets::{ALWAYS, default_assets};

/// How long a demo waits for its first prices before it says that it is there. They come within a second or two; on a
/// busy machine it says so all the same, and `/readyz` and each answer tell the rest.
const FIRST_PRICES_WAIT: Duration = Duration::from_secs(5);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// The first lines of the log: what starts where.
pub fn say_hello(settings: &Settings, plan: &CorePlan) {
    let (version, role) = (env!("CARGO_PKG_VERSION"), settings.role.name());
    tracing::info!(version, role, node = settings.node, shards = plan.shards.len(), "starting");
    if let (Ok(cpus), Ok(nofile)) = (AllowedCpus::read(), Limit::nofile()) {
        tracing::info!(cpus = ?cpus.cpus, quota_millis = cpus.quota_millis, ?nofile, "what the host permits; see `host`");
    }
    for name in without_effect(|name| std::env::var_os(name)) {
        tracing::warn!("{name} is set, but does nothing in this version");
    }
    if let Some(warning) = plan.warning() {
        tracing::warn!("{warning}");
    }
    if settings.keys.is_empty() {
        tracing::warn!("no API key is known: every price read will be refused; add [[keys]] to the settings file");
    }
    if settings.admin_key.is_none() {
        tracing::warn!("ADMIN_KEY is not set: /admin admits nobody");
    }
}

/// Makes the directory for files, where one is set.
pub fn make_data_dir(wanted: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = wanted else { return Ok(()) };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make the directory {}: set TB_DATA_DIR to one that can be", path.display()))
}

/// Simulated exchanges for a demo, on any free loopback ports.
pub async fn simulators(settings: &Settings, seed: u64) -> anyhow::Result<Simulators> {
    let wanted = SimulatorSettings {
        seed,
        venues: settings.venues,
        settings: settings.venue_settings,
        ..SimulatorSettings::default()
    };
    Simulators::start(&wanted).await.context("the simulated exchanges did not start")
}

/// What the feeds are made of.
pub fn sources(settings: &Settings, simulators: Option<&Simulators>) -> Sources {
    Sources {
        wanted: wanted(settings),
        venues: settings.venues,
        settings: settings.venue_settings,
        overrides: simulators.map_or_else(|| settings.endpoints.clone(), Simulators::overrides),
        data_dir: settings.data_dir.clone(),
        ..Sources::new()
    }
}

/// Every asset of every list, set or built in, and those that are always needed.
fn wanted(settings: &Settings) -> Vec<Wanted> {
    let symbol = |name: &&str| Symbol::new(name.as_bytes());
    let mut wanted = Vec::new();
    for venue in Venue::ALL {
        let symbols = match &settings.prewarm[venue.index()] {
            Some(list) => list.clone(),
            None => default_assets(venue).iter().filter_map(symbol).collect(),
        };
        wanted.extend(symbols.into_iter().map(|symbol| Wanted { symbol, prewarmed: true }));
    }
    wanted.extend(ALWAYS.iter().filter_map(symbol).map(|symbol| Wanted { symbol, prewarmed: false }));
    wanted
}

/// Starts the data plane and says which engine it runs, and why.
pub fn data_plane(
    settings: &Settings,
    plan: &CorePlan,
    assets: Arc<AssetDirectory>,
    keys: Keys,
    simulated: bool,
) -> anyhow::Result<Arc<DataPlane>> {
    let fresh_ms = u64::try_from(settings.fresh.as_millis()).unwrap_or(u64::MAX);
    let plane = DataPlane::start(DataPlaneSetup {
        engine: settings.engine,
        bind: settings.bind,
        tcp_port: settings.tcp_port_lpo,
        udp_port: settings.udp_port_lpo,
        plan: plan.clone(),
        steering: settings.steering,
        connections_max: CONNECTIONS_MAX,
        assets,
        keys,
        shard_parameters: ShardParameters::default(),
        feed_parameters: FeedParameters { fresh_ms, ..FeedParameters::default() },
        simulated,
    })?;
    let (engine, reason) = (plane.engine().name(), plane.engine_reason());
    if settings.engine == EngineChoice::Auto && plane.engine() == Engine::Epoll {
        tracing::warn!(engine, "serving on {engine}: {reason}");
    } else {
        tracing::info!(engine, "serving on {engine}: {reason}");
    }
    tracing::info!("flows find their shards {}", plane.steering());
    for warning in plane.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(Arc::new(plane))
}

/// What the node says of itself.
pub fn facts(settings: &Settings, simulated: bool) -> NodeFacts {
    NodeFacts {
        node: settings.node.clone(),
        role: settings.role.name(),
        environment: settings.environment.clone(),
        region: settings.region.clone(),
        version: env!("CARGO_PKG_VERSION"),
        simulated,
        started_time_ms: clock::now().wall_ms,
    }
}

/// The ports that the control plane listens on itself.
pub struct OwnPorts {
    control: Option<TcpListener>,
    health_lpo: TcpListener,
    health_lrs: Option<TcpListener>,
}

impl OwnPorts {
    /// Opens them.
    pub fn bind(settings: &Settings) -> anyhow::Result<Self> {
        let bind = |port, name| listen::bind(settings.bind, port, name).map_err(|why| anyhow!(why));
        let with_reports = settings.role == Role::AppReportServer;
        let if_reports = |port, name| if with_reports { bind(port, name).map(Some) } else { Ok(None) };
        Ok(Self {
            control: if_reports(settings.tcp_port_lrs, "TCP_PORT_LRS")?,
            health_lpo: bind(settings.health_port_lpo, "HEALTH_PORT_LPO")?,
            health_lrs: if_reports(settings.health_port_lrs, "HEALTH_PORT_LRS")?,
        })
    }

    /// Where everything is bound, these ports and the data plane's.
    pub fn addresses(&self, plane: &DataPlane) -> anyhow::Result<Addresses> {
        let of = |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
        Ok(Addresses {
            lpo_tcp: plane.tcp_address(),
            lrs_tcp: of(&self.control)?,
            lpo_udp: plane.udp_address(),
            lrs_udp: None,
            health_lpo: self.health_lpo.local_addr()?,
            health_lrs: of(&self.health_lrs)?,
            engine: plane.engine().name(),
            shards: plane.stats().len(),
            pid: std::process::id(),
        })
    }

    /// Serves on them until the tasks are aborted.
    pub fn serve(self, state: &Arc<ApiState>) -> JoinSet<()> {
        let mut listeners = JoinSet::new();
        for health in self.health_lrs.into_iter().chain([self.health_lpo]) {
            listeners.spawn(listen::accept(health, health_router(Arc::clone(state))));
        }
        if let Some(control) = self.control {
            listeners.spawn(listen::accept(control, public_router(Arc::clone(state))));
        }
        listeners
    }
}

/// The thread that takes the shards' sockets.
pub struct HandOvers {
    stop: crossbeam_channel::Sender<()>,
    thread: JoinHandle<()>,
}

impl HandOvers {
    /// Ends the thread.
    pub fn stop(self) {
        drop(self.stop);
        // A thread that panicked has said so on stderr.
        let _ = self.thread.join();
    }
}

/// Starts the thread that takes the shards' sockets.
pub fn hand_overs(plane: &DataPlane, state: &Arc<ApiState>) -> anyhow::Result<HandOvers> {
    let (stop, stopped) = bounded(1);
    let router = public_router(Arc::clone(state));
    let thread = listen::take_hand_overs(plane.hand_overs(), stopped, router, Handle::current())?;
    Ok(HandOvers { stop, thread })
}

/// Gives each new asset directory to the shards, then to the feed thread: a price must never come before its name.
pub async fn forward_directories(orders: Arc<dyn Orders>, mut directories: watch::Receiver<Arc<AssetDirectory>>) {
    while directories.changed().await.is_ok() {
        let directory = Arc::clone(&directories.borrow_and_update());
        let orders = Arc::clone(&orders);
        let told = spawn_blocking(move || {
            orders.shards(&ShardCommand::Assets(Arc::clone(&directory)));
            orders.feed(FeedInput::Assets(directory))
        });
        match told.await {
            Ok(true) => tracing::debug!("a new asset directory is in force"),
            Ok(false) | Err(_) => tracing::error!("the feed thread did not take a new asset directory"),
        }
    }
}

/// Waits until every asset that a venue lists has a price, but not for long.
pub async fn await_prices(state: &ApiState) {
    let directory = state.assets.borrow().clone();
    let listed = directory.iter().filter(|(_, entry)| !entry.venues.is_empty()).count();
    let deadline = Instant::now() + FIRST_PRICES_WAIT;
    while state.prices.state().priced < listed && Instant::now() < deadline {
        sleep(LOOK).await;
    }
}
