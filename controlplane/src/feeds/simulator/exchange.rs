//! One simulated exchange: what it lists, how it feels, and who listens to it. Shared by its clients and its REST side.

use super::fault::{Conditions, Fault};
use super::tally::Tally;
use shared::venue::Venue;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, watch};
use venues::VenueSettings;
use venues::protocol::Instrument;
use venues::simulate::market::{FACTOR_TRUE, Market, MarketQuote};

/// Batches of changes a client may lag before it misses some, as a slow client of a real venue does: 64 batches of
/// 50 ms are 3 s.
const BATCHES_MAX: usize = 64;

/// Orders that may wait for a client.
const ORDERS_MAX: usize = 64;

/// Instruments that changed, by position.
pub type Batch = Arc<Vec<(usize, MarketQuote)>>;

/// One simulated exchange.
pub struct Exchange {
    /// Which venue it plays.
    pub venue: Venue,
    /// Choices within its protocol.
    pub settings: VenueSettings,
    /// What it lists.
    pub listed: Arc<Vec<Instrument>>,
    market: Arc<Mutex<Market>>,
    conditions: watch::Sender<Arc<Conditions>>,
    batches: broadcast::Sender<Batch>,
    orders: broadcast::Sender<Fault>,
    clients: AtomicUsize,
    tally: Mutex<Tally>,
}

/// Counts a client for as long as it is there.
pub struct Presence<'a>(&'a Exchange);

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Exchange {
    /// The exchange of `venue` in `market`.
    #[must_use]
    pub fn new(venue: Venue, settings: VenueSettings, market: Arc<Mutex<Market>>) -> Self {
        let listed = Arc::new(lock(&market).listed(venue).to_vec());
        Self {
            venue,
            settings,
            listed,
            market,
            conditions: watch::Sender::new(Arc::default()),
            batches: broadcast::Sender::new(BATCHES_MAX),
            orders: broadcast::Sender::new(ORDERS_MAX),
            clients: AtomicUsize::new(0),
            tally: Mutex::default(),
        }
    }

    /// Takes an order. What lasts is in force for every present and future client; the rest is done once.
    pub fn take(&self, fault: &Fault) {
        self.conditions.send_modify(|conditions| {
            Arc::make_mut(conditions).take(fault);
        });
        match fault {
            Fault::Jump(permille) => self.market().set_factor(self.venue, *permille),
            Fault::Crash(permille) => self.market().move_all(*permille),
            Fault::Resume => self.market().set_factor(self.venue, FACTOR_TRUE),
            _ => {}
        }
        if matches!(fault, Fault::Jump(_) | Fault::Crash(_) | Fault::Resume) {
            self.step(0..self.listed.len());
        }
        // Nobody may be listening.
        drop(self.orders.send(fault.clone()));
    }

    /// Moves the instruments at `positions` by one step each and tells the clients.
    pub fn step(&self, positions: impl Iterator<Item = usize>) {
        let batch: Vec<(usize, MarketQuote)> = {
            let mut market = self.market();
            positions.filter_map(|position| Some((position, market.step(self.venue, position)?))).collect()
        };
        if !batch.is_empty() {
            drop(self.batches.send(Arc::new(batch)));
        }
    }

    /// The present market, by position.
    #[must_use]
    pub fn quotes(&self) -> Vec<MarketQuote> {
        self.market().quotes(self.venue).to_vec()
    }

    /// The status and body of the venue's REST answer to `path_and_query`, on the present market as `seen`.
    #[must_use]
    pub fn answer(&self, path_and_query: &str, seen: impl Fn(&MarketQuote) -> MarketQuote) -> (u16, String) {
        let quotes: Vec<MarketQuote> = self.market().quotes(self.venue).iter().map(seen).collect();
        let now_ms = tuning::clock::now().wall_ms;
        venues::simulate::rest_simulator(self.venue).get(path_and_query, &self.listed, &quotes, now_ms)
    }

    /// What was asked over REST.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    /// What is wrong, now and whenever it changes.
    #[must_use]
    pub fn conditions(&self) -> watch::Receiver<Arc<Conditions>> {
        self.conditions.subscribe()
    }

    /// Changes of the market from now on.
    #[must_use]
    pub fn batches(&self) -> broadcast::Receiver<Batch> {
        self.batches.subscribe()
    }

    /// Orders from now on.
    #[must_use]
    pub fn orders(&self) -> broadcast::Receiver<Fault> {
        self.orders.subscribe()
    }

    /// Counts a client in.
    pub fn enter(&self) -> Presence<'_> {
        self.clients.fetch_add(1, Ordering::Relaxed);
        Presence(self)
    }

    /// WebSocket clients there are.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// The factor it shows its prices by, in thousandths.
    #[must_use]
    pub fn factor(&self) -> u32 {
        self.market().factor(self.venue)
    }

    fn market(&self) -> MutexGuard<'_, Market> {
        lock(&self.market)
    }
}

/// A panic while it was held would leave a market one step short, or a tally one request: good enough for either.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
