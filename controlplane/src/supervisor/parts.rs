//! The parts that a start puts together, each made of the settings.

use super::ready::Addresses;
use crate::api::{ApiState, NodeFacts, health_router, listen, public_router, reports};
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::config::{Role, Settings, without_effect};
use crate::feeds::instruments::{self, Catalogue, Sources, wanted};
use crate::feeds::simulator::{SimulatorSettings, Simulators};
use crate::governor::{Governed, Governor, GovernorSetup};
use crate::keys::desk::{self, KeyDesk};
use crate::keys::pulse::OnReloads;
use crate::limits::{Limits, LimitsSetup};
use crate::logging;
use crate::orders::Orders;
use crate::params::check::Base;
use crate::params::desk::{DeskSetup, ParameterDesk};
use crate::params::{Parameters, SystemMode};
use crate::reports::desk::ReportDesk;
use crate::store::{self, Store, StoreError};
use crate::usage::UsageLedger;
use crate::usage::mirror::Mirror;
use crate::usage::outlet::Outlet;
use crate::usage::pipeline::Pipeline;
use crate::usage::queue;
use crate::usage::queue::outlet::QueueOutlet;
use crate::usage::shipper::Observer;
use crate::usage::store_outlet::StoreOutlet;
use anyhow::{Context, anyhow};
use crossbeam_channel::bounded;
use dataplane_core::access::Keys;
use dataplane_core::command::ShardCommand;
use dataplane_core::feed::FeedInput;
use dataplane_engine::{CONNECTIONS_MAX, DataPlane, DataPlaneSetup, Engine, EngineChoice};
use shared::asset::{AssetDirectory, AssetId};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use tuning::clock;
use tuning::core_plan::CorePlan;
use tuning::cpus::AllowedCpus;
use tuning::sockets::Limit;

/// How long a demo waits for its first prices before it says that it is there. They come within a second or two; on a
/// busy machine it says so all the same, and `/readyz` and each answer tell the rest.
const FIRST_PRICES_WAIT: Duration = Duration::from_secs(5);

/// How long a start waits for the SQLite file to get its schema, which takes milliseconds: twice what another
/// process's change is waited for.
const SCHEMA_WAIT: Duration = Duration::from_secs(4);

/// Wait between two tries.
const SCHEMA_RETRY: Duration = Duration::from_secs(1);

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

/// Simulated exchanges for a demo, which has a seed, on any free loopback ports.
pub async fn simulators(settings: &Settings, seed: Option<u64>) -> anyhow::Result<Option<Simulators>> {
    let Some(seed) = seed else { return Ok(None) };
    let wanted = SimulatorSettings {
        seed,
        venues: settings.venues,
        settings: settings.venue_settings,
        ..SimulatorSettings::default()
    };
    Simulators::start(&wanted).await.map(Some).context("the simulated exchanges did not start")
}

/// The database, taken into use: a file of our own is given its schema here; a server's is the operator's to
/// `migrate`. That is waited for, so that the first start finds its keys, but not for long; it goes on behind the
/// service then.
pub async fn store(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    let store = store::open(&settings.database, settings.data_dir.as_deref())?;
    if store.kind() == "sqlite" {
        let (tried, first) = oneshot::channel();
        tokio::spawn(give_schema(Arc::clone(&store), tried));
        if timeout(SCHEMA_WAIT, first).await.is_err() {
            tracing::warn!("the SQLite file does not answer: serving begins without it");
        }
    }
    Ok(store)
}

/// Gives a file its schema, again and again while it cannot be reached; tells when the first try has ended.
async fn give_schema(store: Arc<dyn Store>, tried: oneshot::Sender<()>) {
    let mut tried = Some(tried);
    loop {
        let done = store.migrate().await;
        if let Err(why) = &done
            && tried.is_some()
        {
            tracing::error!(%why, "the SQLite file cannot be used: check TB_DATA_DIR or DATABASE_URL");
        } else if done.is_ok() && tried.is_none() {
            tracing::info!("the SQLite file has its schema");
        }
        // Whoever waited may have gone on.
        let _ = tried.take().map(|tried| tried.send(()));
        match done {
            // Locked by another process, or on a disk that is away.
            Err(StoreError::Unreachable(_)) => sleep(SCHEMA_RETRY).await,
            _ => return,
        }
    }
}

/// The governor of active connections.
pub fn governor(
    node: &str,
    plane: &Arc<DataPlane>,
    cluster: &Cluster,
    cache: &Arc<dyn Cache>,
    params: &ParameterDesk,
) -> Governor {
    let governed: Arc<dyn Governed> = Arc::<DataPlane>::clone(plane);
    Governor::start(GovernorSetup {
        node: node.to_owned(),
        governed,
        cache: Arc::clone(cache),
        parameters: params.watch(),
        cluster: cluster.watch(),
    })
}

/// Limits beyond one node and one second.
pub fn limits(
    node: &str,
    keys: &Arc<KeyDesk>,
    cluster: &Cluster,
    usage: &Arc<UsageLedger>,
    store: &Arc<dyn Store>,
    cache: &Arc<dyn Cache>,
) -> Limits {
    Limits::start(LimitsSetup {
        node: node.to_owned(),
        keys: keys.watch(),
        bounds: Arc::<KeyDesk>::clone(keys),
        cluster: cluster.watch(),
        usage: Arc::clone(usage),
        store: Arc::clone(store),
        cache: Arc::clone(cache),
    })
}

/// Tells the desk of parameters how many reloads there have been on all nodes.
pub fn on_reloads(params: &Arc<ParameterDesk>) -> OnReloads {
    let params = Arc::clone(params);
    Arc::new(move |reloads| {
        let params = Arc::clone(&params);
        Box::pin(async move { params.follow(reloads).await })
    })
}

/// The desk of parameters, with what is in force until the store answers.
pub fn parameters(
    settings: &Settings,
    store: &Arc<dyn Store>,
    cache: &Arc<dyn Cache>,
) -> anyhow::Result<Arc<ParameterDesk>> {
    let desk = ParameterDesk::new(DeskSetup {
        store: Arc::clone(store),
        cache: Arc::clone(cache),
        node: settings.node.clone(),
        base: Base::of(settings),
        data_dir: settings.data_dir.as_deref(),
    });
    let desk = desk.map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        anyhow!("the settings do not fit together: {}", faults.join("; "))
    })?;
    // The last good copy may say another level than the settings that the log was started with.
    let _ = logging::set_level(desk.current().log_level);
    Ok(desk)
}

/// Where reports are made, in the role that has them.
pub fn reports(
    settings: &Settings,
    store: &Arc<dyn Store>,
    cache: &Arc<dyn Cache>,
    params: &ParameterDesk,
) -> anyhow::Result<Option<Arc<ReportDesk>>> {
    if settings.role != Role::AppReportServer {
        return Ok(None);
    }
    let (store, cache) = (Arc::clone(store), Arc::clone(cache));
    ReportDesk::start(store, cache, params.watch(), settings.usage.retention_days).map(|desk| Some(Arc::new(desk)))
}

/// The desk of keys, with the last good copy until the store answers.
pub fn key_desk(
    settings: &Settings,
    store: &Arc<dyn Store>,
    cache: &Arc<dyn Cache>,
    shards: usize,
    mode: SystemMode,
) -> Arc<KeyDesk> {
    KeyDesk::new(desk::DeskSetup {
        store: Arc::clone(store),
        cache: Arc::clone(cache),
        node: settings.node.clone(),
        shards,
        fixed: settings.keys.clone(),
        mode,
        data_dir: settings.data_dir.clone(),
    })
}

/// What the feeds are made of.
pub fn sources(settings: &Settings, parameters: &Parameters, simulators: Option<&Simulators>) -> Sources {
    Sources {
        wanted: wanted(&parameters.prewarm),
        venues: settings.venues,
        settings: settings.venue_settings,
        overrides: simulators.map_or_else(|| settings.endpoints.clone(), Simulators::overrides),
        rest_gap_ms: settings.rest_gap_ms,
        data_dir: settings.data_dir.clone(),
        ..Sources::new()
    }
}

/// What the exchanges list; the first keys of the store are waited for meanwhile.
pub async fn catalogue(sources: &Sources, keys: &KeyDesk) -> anyhow::Result<Catalogue> {
    let first_read = async {
        keys.first_read().await;
        Ok(())
    };
    let (catalogue, ()) = tokio::try_join!(instruments::load(sources), first_read).map_err(|why| anyhow!(why))?;
    Ok(catalogue)
}

/// Starts the data plane and says which engine it runs, and why.
pub fn data_plane(
    settings: &Settings,
    parameters: &Parameters,
    plan: &CorePlan,
    assets: Arc<AssetDirectory>,
    keys: Keys,
    simulated: bool,
) -> anyhow::Result<Arc<DataPlane>> {
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
        shard_parameters: parameters.of_shards(),
        feed_parameters: parameters.of_feed(),
        simulated,
        counts_usage: settings.usage.counted,
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

/// What every key asks, counted, and the journal and its way to the database, if answers are counted at all.
pub fn usage(
    settings: &Settings,
    plane: &DataPlane,
    store: &Arc<dyn Store>,
    mirror: Option<&Arc<Mirror>>,
    params: &ParameterDesk,
) -> anyhow::Result<(Arc<UsageLedger>, Option<Pipeline>)> {
    if !settings.usage.counted {
        tracing::warn!("TB_USAGE=off: no answer is counted; no usage, no months, no reports");
        return Ok((Arc::new(UsageLedger::off()), None));
    }
    let ledger = Arc::new(UsageLedger::journaled(plane.take_usage()));
    let outlet: Arc<dyn Outlet> = match &settings.usage.queue_url {
        None => Arc::new(StoreOutlet::new(Arc::clone(store))),
        Some(url) => Arc::new(QueueOutlet::new(queue::open(url, &settings.region)?, params.watch())),
    };
    let copies = |mirror: Arc<Mirror>| -> Observer { Arc::new(move |rows| mirror.offer(rows)) };
    let pipeline = Pipeline::start(settings, &ledger, outlet, mirror.cloned().map(copies))?;
    Ok((ledger, Some(pipeline)))
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
    reports: Option<UdpSocket>,
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
            reports: match with_reports {
                true => Some(reports::bind(settings.bind, settings.udp_port_lrs).map_err(|why| anyhow!(why))?),
                false => None,
            },
        })
    }

    /// Where everything is bound, these ports and the data plane's.
    pub fn addresses(&self, plane: &DataPlane) -> anyhow::Result<Addresses> {
        let of = |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
        Ok(Addresses {
            lpo_tcp: plane.tcp_address(),
            lrs_tcp: of(&self.control)?,
            lpo_udp: plane.udp_address(),
            lrs_udp: self.reports.as_ref().map(UdpSocket::local_addr).transpose()?,
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
        if let (Some(socket), Some(desk)) = (self.reports, &state.reports) {
            listeners.spawn(reports::serve_datagrams(socket, Arc::clone(state), Arc::clone(desk)));
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

/// Waits until every prewarmed asset that a venue lists has a price, but not for long.
pub async fn await_prices(state: &ApiState) {
    let directory = state.assets.borrow().clone();
    let awaited = directory.iter().filter(|(_, entry)| entry.prewarmed && !entry.venues.is_empty());
    let awaited: Vec<AssetId> = awaited.map(|(id, _)| id).collect();
    let deadline = Instant::now() + FIRST_PRICES_WAIT;
    while awaited.iter().any(|id| state.prices.price(*id).is_none()) && Instant::now() < deadline {
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{ConnectOptions, Executor};

    #[tokio::test]
    async fn a_file_that_is_locked_gets_its_schema_when_it_is_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.sqlite");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut other = options.connect().await.expect("another process's connection");
        other.execute("BEGIN EXCLUSIVE").await.expect("the lock");
        let store: Arc<dyn Store> = Arc::new(SqliteStore::file(&path));
        let (tried, first) = oneshot::channel();
        let giving = tokio::spawn(give_schema(Arc::clone(&store), tried));
        timeout(harness::PATIENCE, first).await.expect("a try ends").expect("it says so");
        assert!(store.pulse().await.is_err(), "it is locked");
        other.execute("ROLLBACK").await.expect("freed");
        timeout(harness::PATIENCE, giving).await.expect("in time").expect("without a panic");
        assert!(store.pulse().await.is_ok());
    }
}
