//! Simulated exchanges: all seven venues' real protocols over real loopback sockets, fed by one seeded market.
//!
//! `demo` prices from these, `simulate` runs one alone, tests make them fail. Each has one port for WebSocket and REST,
//! and takes orders to misbehave through [`Simulators::fault`] or over HTTP:
//!
//! ```text
//! curl -X POST 'http://127.0.0.1:PORT/simulator/fault?kind=jump&percent=-40'
//! curl -X POST 'http://127.0.0.1:PORT/simulator/fault?kind=resume'
//! curl 'http://127.0.0.1:PORT/simulator/requests'            # what was asked over REST; -X DELETE counts afresh
//! ```
//!
//! It never pretends to be the market: whoever prices from it must say `simulated`.

mod answer;
mod client;
mod exchange;
pub mod fault;
mod garbage;
mod serve;
pub mod tally;

use self::exchange::Exchange;
use self::fault::Fault;
use self::tally::Requests;
use super::endpoint::EndpointOverrides;
use super::stop::{self, Stop, StopOrder};
use shared::venue::{VENUE_COUNT, Venue, VenueSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use venues::VenueSettings;
use venues::simulate::market::Market;

/// Time between two looks at who is due to move.
const PULSE_MS: u64 = 50;

/// Assets that move often.
const MAJORS: &[&str] = &["BTC", "ETH", "SOL", "XRP", "DOGE", "USDT"];

/// How the simulated exchanges behave.
#[derive(Clone, Debug)]
pub struct SimulatorSettings {
    /// One seed, one market.
    pub seed: u64,
    /// Which venues to play.
    pub venues: VenueSet,
    /// Choices within their protocols.
    pub settings: VenueSettings,
    /// Address to listen on.
    pub bind: IpAddr,
    /// Port of each venue, by its index; 0: any.
    pub ports: [u16; VENUE_COUNT],
    /// Time between two moves of a major asset at one venue, ms.
    pub major_every_ms: u64,
    /// Time between two moves of any other asset at one venue, ms.
    pub other_every_ms: u64,
    /// Invented assets to list besides, called `C0`, `C1`, …: for whoever asks for many that nobody subscribes to.
    pub invented: usize,
}

impl Default for SimulatorSettings {
    /// All venues on any loopback ports; majors 5 times a second and the others once in 2 s at each venue, which is
    /// about 600 quotes a second altogether: a few percent of one core.
    fn default() -> Self {
        Self {
            seed: 1,
            venues: Venue::ALL.into_iter().fold(VenueSet::EMPTY, VenueSet::with),
            settings: VenueSettings::default(),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: [0; VENUE_COUNT],
            major_every_ms: 200,
            other_every_ms: 2_000,
            invented: 0,
        }
    }
}

/// The running simulated exchanges.
pub struct Simulators {
    exchanges: Vec<(Arc<Exchange>, SocketAddr)>,
    stop: StopOrder,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl Simulators {
    /// Starts them. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When a port cannot be had: says which.
    pub async fn start(settings: &SimulatorSettings) -> io::Result<Self> {
        let market = Arc::new(Mutex::new(Market::with(settings.seed, settings.invented)));
        let (stop, stopped) = stop::channel();
        let mut tasks = JoinSet::new();
        let mut exchanges = Vec::new();
        for venue in settings.venues.iter() {
            let wanted = SocketAddr::new(settings.bind, settings.ports[venue.index()]);
            let listener = TcpListener::bind(wanted).await.map_err(|fault| {
                io::Error::new(fault.kind(), format!("simulated {venue} cannot listen on {wanted}: {fault}"))
            })?;
            let address = listener.local_addr()?;
            let exchange = Arc::new(Exchange::new(venue, settings.settings, Arc::clone(&market)));
            tasks.spawn(serve::run(listener, Arc::clone(&exchange), stopped.clone()));
            exchanges.push((exchange, address));
        }
        let players: Vec<Arc<Exchange>> = exchanges.iter().map(|(exchange, _)| Arc::clone(exchange)).collect();
        tasks.spawn(pulse(players, settings.major_every_ms, settings.other_every_ms, stopped));
        Ok(Self { exchanges, stop, tasks: tokio::sync::Mutex::new(tasks) })
    }

    /// Where each venue listens.
    pub fn addresses(&self) -> impl Iterator<Item = (Venue, SocketAddr)> {
        self.exchanges.iter().map(|(exchange, address)| (exchange.venue, *address))
    }

    /// The addresses for the feeds' settings, in place of the public ones.
    #[must_use]
    pub fn overrides(&self) -> EndpointOverrides {
        let mut overrides = EndpointOverrides::default();
        for (venue, address) in self.addresses() {
            overrides.set(venue, Some(format!("ws://{address}/")), Some(format!("http://{address}")));
        }
        overrides
    }

    /// Makes something go wrong at `venue`, or right again. A venue that is not played is left alone.
    pub fn fault(&self, venue: Venue, fault: &Fault) {
        if let Some((exchange, _)) = self.exchanges.iter().find(|(exchange, _)| exchange.venue == venue) {
            exchange.take(fault);
        }
    }

    /// WebSocket clients of `venue` now.
    #[must_use]
    pub fn clients(&self, venue: Venue) -> usize {
        let exchange = self.exchanges.iter().find(|(exchange, _)| exchange.venue == venue);
        exchange.map_or(0, |(exchange, _)| exchange.clients())
    }

    /// What was asked of `venue` over REST; `None` where it is not played.
    #[must_use]
    pub fn requests(&self, venue: Venue) -> Option<Requests> {
        let exchange = self.exchanges.iter().find(|(exchange, _)| exchange.venue == venue);
        exchange.map(|(exchange, _)| exchange.tally().shown())
    }

    /// Closes every connection and port. Calling it again does nothing.
    pub async fn stop(&self) {
        self.stop.give();
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

/// Moves every market at its pace. Instruments of one pace are spread over it, so that the load is even.
async fn pulse(players: Vec<Arc<Exchange>>, major_ms: u64, other_ms: u64, mut stop: Stop) {
    let pulses = |every_ms: u64| (every_ms / PULSE_MS).max(1);
    let (major, other) = (pulses(major_ms), pulses(other_ms));
    let paces: Vec<Vec<u64>> = players
        .iter()
        .map(|exchange| {
            let pace = |base: &str| if MAJORS.contains(&base) { major } else { other };
            exchange.listed.iter().map(|instrument| pace(instrument.base.as_str())).collect()
        })
        .collect();
    let mut ticks = interval(Duration::from_millis(PULSE_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut count: u64 = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.ordered() => return,
            _ = ticks.tick() => {}
        }
        for (exchange, paces) in players.iter().zip(&paces) {
            let due = paces.iter().zip(0_u64..).zip(0..);
            let due = due.filter(|((pace, spread), _)| (count + spread).is_multiple_of(**pace));
            exchange.step(due.map(|(_, position)| position));
        }
        count += 1;
    }
}
