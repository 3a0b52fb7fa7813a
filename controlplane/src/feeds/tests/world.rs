//! Simulated exchanges, feeds on them with little patience, and an ear where the data plane would be.

use crate::feeds::instruments::{self, Sources};
use crate::feeds::outlet::FeedSink;
use crate::feeds::simulator::fault::Fault;
use crate::feeds::simulator::{SimulatorSettings, Simulators};
use crate::feeds::status::VenueStatus;
use crate::feeds::timing::Timing;
use crate::feeds::{Feeds, FeedsSetup, start};
use dataplane_core::feed::FeedInput;
use shared::asset::{AssetId, Symbol};
use shared::quote::{Quote, Route};
use shared::venue::{Venue, VenueSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use venues::VenueSettings;

/// How long a condition may take to come true. Far above what any needs: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// A day's patience in a second.
pub fn hasty() -> Timing {
    Timing {
        connect_ms: 5_000,
        connect_gap_ms: 50,
        backoff_min_ms: 20,
        backoff_max_ms: 200,
        settled_ms: 500,
        ping_after_ms: 1_000,
        pong_within_ms: 1_000,
        first_quote_ms: 1_500,
        refusal_settle_ms: 150,
        refused_retry_ms: 1_000,
        quiet_ms: 1_000,
        quotes_stopped_ms: 1_500,
        stale_ms: 1_500,
        poll_ms: 500,
        tick_ms: 20,
        handover_gap_ms: 1_000,
        successor_ms: 5_000,
        lists_ms: 10_000,
        refresh_ms: 86_400_000,
        refresh_retry_ms: 100,
        directory_settle_ms: 10,
        rest_ms: 2_000,
        list_ms: 5_000,
    }
}

/// A sink that remembers, and that can be full.
#[derive(Default)]
pub struct Ear {
    inputs: Mutex<Vec<FeedInput>>,
    full: AtomicBool,
}

impl FeedSink for Ear {
    fn try_send(&self, input: FeedInput) -> Result<(), FeedInput> {
        if self.full.load(Ordering::Relaxed) {
            return Err(input);
        }
        self.inputs.lock().expect("no panic").push(input);
        Ok(())
    }
}

impl Ear {
    /// Lets nothing in, or everything again.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Forgets what was heard.
    pub fn clear(&self) {
        self.inputs.lock().expect("no panic").clear();
    }

    /// How many inputs satisfy `wanted`.
    pub fn count(&self, wanted: impl Fn(&FeedInput) -> bool) -> usize {
        self.inputs.lock().expect("no panic").iter().filter(|input| wanted(input)).count()
    }

    /// The quotes of `venue` for `asset`, oldest first.
    pub fn quotes(&self, venue: Venue, asset: AssetId) -> Vec<Quote> {
        let inputs = self.inputs.lock().expect("no panic");
        let quotes = inputs.iter().filter_map(|input| match input {
            FeedInput::Quote(quote) if quote.venue == venue && quote.asset == asset => Some(*quote),
            _ => None,
        });
        quotes.collect()
    }

    /// Quotes of `venue` that came over REST.
    pub fn rest_quotes(&self, venue: Venue) -> usize {
        self.count(
            |input| matches!(input, FeedInput::Quote(quote) if quote.venue == venue && quote.route == Route::Rest),
        )
    }

    /// The last word on the subscription of `asset` at `venue`.
    pub fn is_live(&self, venue: Venue, asset: AssetId) -> bool {
        let inputs = self.inputs.lock().expect("no panic");
        let words = inputs.iter().rev().find_map(|input| match input {
            FeedInput::Subscription { venue: of, asset: about, live } if (*of, *about) == (venue, asset) => Some(*live),
            FeedInput::VenueLost(of) if *of == venue => Some(false),
            _ => None,
        });
        words.unwrap_or(false)
    }

    /// How often the loss of `venue` was told.
    pub fn losses(&self, venue: Venue) -> usize {
        self.count(|input| matches!(input, FeedInput::VenueLost(of) if *of == venue))
    }
}

/// What a world is made of.
pub struct Plan {
    /// Venues to simulate and to feed from.
    pub venues: &'static [Venue],
    /// Assets to price.
    pub assets: &'static str,
    /// Choices within the protocols.
    pub settings: VenueSettings,
    /// Patience.
    pub timing: Timing,
    /// Time between two moves of anything, ms.
    pub every_ms: u64,
    /// What is wrong from the start.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// One venue, a few assets that move often, nothing wrong.
    pub fn of(venues: &'static [Venue]) -> Self {
        let assets = "BTC ETH SOL XRP DOGE LTC LINK AVAX";
        let settings = VenueSettings::default();
        Self { venues, assets, settings, timing: hasty(), every_ms: 50, faults: Vec::new() }
    }
}

/// A running world.
pub struct World {
    /// The exchanges.
    pub simulators: Simulators,
    /// The feeds.
    pub feeds: Feeds,
    /// What they said.
    pub ear: Arc<Ear>,
}

/// Assets by name.
pub fn wanted(assets: &str) -> Vec<crate::feeds::plan::Wanted> {
    let wanted = |name: &str| crate::feeds::plan::Wanted { symbol: symbol(name), prewarmed: true };
    assets.split_whitespace().map(wanted).collect()
}

/// A symbol.
pub fn symbol(name: &str) -> Symbol {
    Symbol::new(name.as_bytes()).expect("a good symbol")
}

/// Simulated exchanges for `plan`, with its faults in force.
pub async fn simulators(plan: &Plan) -> Simulators {
    let settings = SimulatorSettings {
        venues: plan.venues.iter().copied().fold(VenueSet::EMPTY, VenueSet::with),
        settings: plan.settings,
        major_every_ms: plan.every_ms,
        other_every_ms: plan.every_ms,
        ..SimulatorSettings::default()
    };
    let simulators = Simulators::start(&settings).await.expect("free ports");
    for venue in plan.venues {
        plan.faults.iter().for_each(|fault| simulators.fault(*venue, fault));
    }
    simulators
}

/// Sources for `plan` at `simulators`.
pub fn sources(plan: &Plan, simulators: &Simulators) -> Sources {
    Sources {
        wanted: wanted(plan.assets),
        venues: plan.venues.iter().copied().fold(VenueSet::EMPTY, VenueSet::with),
        settings: plan.settings,
        overrides: simulators.overrides(),
        timing: plan.timing,
        ..Sources::new()
    }
}

impl World {
    /// A world by `plan`, feeds running.
    pub async fn start(plan: Plan) -> Self {
        let simulators = simulators(&plan).await;
        let sources = sources(&plan, &simulators);
        Self::on(simulators, sources).await
    }

    /// Feeds from `sources` on `simulators`.
    pub async fn on(simulators: Simulators, sources: Sources) -> Self {
        let catalogue = instruments::load(&sources).await.expect("good settings");
        let ear = Arc::new(Ear::default());
        let sink = Arc::clone(&ear) as Arc<dyn FeedSink>;
        let feeds = start(FeedsSetup { sources, catalogue, sink });
        Self { simulators, feeds, ear }
    }

    /// A world by `plan` in which every subscription delivers.
    pub async fn live(plan: Plan) -> Self {
        let world = Self::start(plan).await;
        world.all_live().await;
        world
    }

    /// Waits until every subscription of every venue delivers.
    pub async fn all_live(&self) {
        self.until("every subscription delivers", || {
            self.feeds.status().venues.iter().all(|venue| venue.subscribed > 0 && venue.live == venue.subscribed)
        })
        .await;
    }

    /// Orders a fault.
    pub fn fault(&self, venue: Venue, fault: Fault) {
        self.simulators.fault(venue, &fault);
    }

    /// The id of an asset.
    pub fn asset(&self, name: &str) -> AssetId {
        let directory = Arc::clone(&self.feeds.directory().borrow());
        directory.find(&symbol(name)).expect("a known asset")
    }

    /// The status of a venue.
    pub fn status(&self, venue: Venue) -> VenueStatus {
        let mut venues = self.feeds.status().venues.into_iter();
        venues.find(|status| status.venue == venue.name()).expect("a venue in use")
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    /// When it does not within the deadline, with the status of all venues.
    pub async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}\n{:#?}", self.feeds.status());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a condition on the status of `venue` holds.
    pub async fn until_status(&self, venue: Venue, what: &str, condition: impl Fn(&VenueStatus) -> bool) {
        self.until(what, || condition(&self.status(venue))).await;
    }

    /// Waits until something new was heard of `asset` at `venue` over `route`.
    pub async fn until_heard(&self, venue: Venue, asset: AssetId, route: Route) {
        let heard = || self.ear.quotes(venue, asset).iter().filter(|quote| quote.route == route).count();
        let before = heard();
        self.until(&format!("{venue} speaks over {route:?}"), || heard() > before).await;
    }

    /// Ends the world.
    pub async fn stop(self) {
        self.feeds.stop().await;
        self.simulators.stop().await;
    }
}
