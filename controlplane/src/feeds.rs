//! The venue feeds: from seven exchanges' sockets to the feed thread's channel.
//!
//! `instruments::load` reads what each venue lists and gives the first asset directory; then the data plane can start;
//! then [`start`] opens the connections. A venue's connections (`slot`, `session`), its REST poller (`rest`) and its
//! status meet on its `board`. Nothing here knows how a price is made of quotes, and nothing is in the path of an answer.
//!
//! ```text
//! instruments ─plan─► slots ─► session ─frames─► conversation ─quotes─► board ─► outlet ─► feed thread
//!                                rest/poll ─────────────────────quotes──┘
//! ```

pub mod backoff;
pub mod board;
pub mod connect;
pub mod endpoint;
pub mod instruments;
pub mod outlet;
pub mod plan;
pub mod rest;
pub mod session;
pub mod shares;
pub mod simulator;
pub mod slot;
pub mod status;
pub mod stop;
pub mod timing;

#[cfg(test)]
mod tests;

use self::backoff::Gate;
use self::board::Board;
use self::instruments::refresh::{Outcomes, Refresh};
use self::instruments::{Catalogue, ListReader, Sources};
use self::outlet::FeedSink;
use self::plan::{KNOWN_MAX, Offer, Plan, Wanted, Wishes};
use self::rest::RestClient;
use self::shares::{Share, Shares};
use self::slot::{Slot, VenueContext};
use self::status::{FeedsStatus, venue_status};
use self::stop::{Stop, StopOrder};
use shared::asset::{AssetDirectory, AssetId, Symbol, resolve_alias};
use shared::limits::ASSETS_MAX;
use shared::venue::Venue;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Time between two looks whether markets that wait for a turn may be subscribed: turns come back by the hour.
const TURNS_EVERY: Duration = Duration::from_secs(60);

/// What the feeds are made of.
pub struct FeedsSetup {
    /// The same that `instruments::load` was given.
    pub sources: Sources,
    /// What it gave.
    pub catalogue: Catalogue,
    /// Where quotes go: the data plane's `FeedSender`.
    pub sink: Arc<dyn FeedSink>,
}

/// The running feeds.
pub struct Feeds {
    contexts: Vec<Arc<VenueContext>>,
    plan: watch::Receiver<Arc<Plan>>,
    directory: watch::Receiver<Arc<AssetDirectory>>,
    wishes: watch::Sender<Wishes>,
    clients: Vec<(Venue, Arc<RestClient>)>,
    stop: StopOrder,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

/// Opens the connections to every venue and keeps them. Must be called within a Tokio runtime.
#[must_use]
pub fn start(setup: FeedsSetup) -> Feeds {
    let FeedsSetup { sources, catalogue, sink } = setup;
    let Catalogue { plan, readers, trust } = catalogue;
    let (stop, stopped) = stop::channel();
    let (directory, directories) = watch::channel(Arc::clone(&plan.directory));
    let (plan, plans) = watch::channel(Arc::new(plan));
    let (wishes, wished) = watch::channel(Wishes { wanted: sources.wanted.clone(), ..Wishes::default() });
    let mut tasks = JoinSet::new();
    let mut contexts = Vec::new();
    let mut boards = Vec::new();
    let mut clients = Vec::new();
    for reader in readers {
        let context = Arc::new(context(&reader, &sources, &trust, Arc::clone(&sink)));
        tasks.spawn(run_venue(Arc::clone(&context), plans.clone(), stopped.clone()));
        tasks.spawn(rest::poll::run(Arc::clone(&context), Arc::clone(&reader.client), stopped.clone()));
        clients.push((reader.venue, Arc::clone(&reader.client)));
        boards.push((reader, Arc::clone(&context.board)));
        contexts.push(context);
    }
    let refresh = Refresh::new(boards, wished, Outcomes { directory, plan }, sources.timing);
    tasks.spawn(refresh.run(stopped));
    let tasks = tokio::sync::Mutex::new(tasks);
    Feeds { contexts, plan: plans, directory: directories, wishes, clients, stop, tasks }
}

fn context(reader: &ListReader, sources: &Sources, trust: &connect::Trust, sink: Arc<dyn FeedSink>) -> VenueContext {
    let venue = reader.venue;
    let limits = venues::protocol(venue, sources.settings).limits();
    VenueContext {
        venue,
        settings: sources.settings,
        endpoint: reader.endpoint.clone(),
        trust: trust.clone(),
        timing: sources.timing,
        gate: Gate::new(limits.connect_gap_ms.max(sources.timing.connect_gap_ms)),
        board: Arc::new(Board::new(venue, sink)),
        numbers: AtomicU32::new(1),
    }
}

/// Keeps one venue's slots, as many as its markets need, until told to stop.
async fn run_venue(context: Arc<VenueContext>, mut plans: watch::Receiver<Arc<Plan>>, mut stop: Stop) {
    let mut shares = Shares::new(&context.protocol().limits());
    let mut slots = JoinSet::new();
    let mut given: Vec<watch::Sender<Arc<Share>>> = Vec::new();
    let mut edition = None;
    loop {
        let plan = Arc::clone(&plans.borrow_and_update());
        let (markets, now) = (plan.of(context.venue), tuning::clock::now());
        let renewed = edition.replace(plan.edition) != Some(plan.edition);
        context.board.lock().change_markets(markets, &plan.directory, renewed, now);
        shares.deal(markets, &plan.lasting, now.mono_ns);
        for (at, markets) in shares.each().enumerate() {
            let share = Share { markets, edition: plan.edition };
            match given.get(at) {
                Some(given) => _ = given.send_if_modified(|present| replace(present, share)),
                None => {
                    let (sender, receiver) = watch::channel(Arc::new(share));
                    given.push(sender);
                    slots.spawn(Slot::new(Arc::clone(&context), receiver, stop.clone()).keep());
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.ordered() => break,
            changed = plans.changed() => {
                if changed.is_err() {
                    break;
                }
            }
            () = sleep(TURNS_EVERY), if shares.waiting() > 0 => {}
        }
    }
    // Each slot heard the same order to stop.
    while slots.join_next().await.is_some() {}
}

/// Puts `share` in the place of another one; answers whether it is another.
fn replace(present: &mut Arc<Share>, share: Share) -> bool {
    let is_other = **present != share;
    if is_other {
        *present = Arc::new(share);
    }
    is_other
}

impl Feeds {
    /// Every asset, again whenever that changes. Publish each new directory to the shards first, then to the feed
    /// thread; the new assets are subscribed `Timing::directory_settle_ms` later.
    #[must_use]
    pub fn directory(&self) -> watch::Receiver<Arc<AssetDirectory>> {
        self.directory.clone()
    }

    /// Prices `wanted` instead of what is wanted now; what is kept on demand stays. Ids of assets that are left out stay
    /// valid.
    pub fn want(&self, wanted: Vec<Wanted>) {
        self.wishes.send_modify(|wishes| wishes.wanted = wanted);
    }

    /// Keeps these subscribed besides, wherever they are listed, and no others that are not wanted: assets that somebody
    /// asks for. Whoever calls it bounds how many, and how often it changes.
    pub fn keep(&self, mut on_demand: Vec<Symbol>) {
        // Another order is no news.
        on_demand.sort_unstable();
        self.wishes.send_if_modified(|wishes| {
            let is_news = wishes.on_demand != on_demand;
            wishes.on_demand = on_demand;
            is_news
        });
    }

    /// The id of an asset that no venue may list, but another node has a price of; it gets one, for good, if it has none.
    /// Answers when everybody has heard of it, `Timing::directory_settle_ms` after those who take the directory could.
    /// `None`: [`KNOWN_MAX`] such assets have an id already, or the feeds have stopped.
    pub async fn know(&self, symbol: Symbol) -> Option<AssetId> {
        let mut plans = self.plan.clone();
        if let Some(id) = plans.borrow_and_update().directory.find(&symbol) {
            return Some(id);
        }
        let symbol = resolve_alias(symbol);
        self.wishes.send_if_modified(|wishes| {
            let is_news = wishes.known.len() < KNOWN_MAX && !wishes.known.contains(&symbol);
            if is_news {
                wishes.known.push(symbol);
            }
            is_news
        });
        if !self.wishes.borrow().known.contains(&symbol) {
            return None;
        }
        let is_settled =
            |plan: &Arc<Plan>| plan.directory.find(&symbol).is_some() || plan.directory.len() == ASSETS_MAX;
        plans.wait_for(is_settled).await.ok()?.directory.find(&symbol)
    }

    /// The markets in which venues trade the asset, in the order of `Venue::ALL`, whether subscribed or not.
    #[must_use]
    pub fn offers(&self, symbol: &Symbol) -> Vec<Offer> {
        self.plan.borrow().offers.of(symbol).to_vec()
    }

    /// Who prices what now.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.borrow())
    }

    /// The venue's REST interface, if the venue is used. Everybody who asks the venue shares its pace.
    #[must_use]
    pub fn rest(&self, venue: Venue) -> Option<Arc<RestClient>> {
        self.clients.iter().find(|(of, _)| *of == venue).map(|(_, client)| Arc::clone(client))
    }

    /// What each venue is doing.
    #[must_use]
    pub fn status(&self) -> FeedsStatus {
        let plan = self.plan();
        let now = tuning::clock::now();
        let venues = self.contexts.iter().map(|context| venue_status(context, &plan.directory, now)).collect();
        FeedsStatus { venues, unlisted: plan.unlisted.iter().map(Symbol::to_string).collect() }
    }

    /// Closes every connection and waits until all is quiet. Calling it again does nothing.
    pub async fn stop(&self) {
        self.stop.give();
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}
