//! One place for a connection to a venue, kept filled for as long as there is something to subscribe.
//!
//! Connects, runs a session, and when it ends connects again: for ever, with full-jitter back-off, through the venue's
//! gate. When a session wants a successor, the second connection is opened first and the old one closed when the new
//! one delivers what it delivered.

use super::backoff::{Backoff, Gate};
use super::board::Board;
use super::connect::{Trust, connect};
use super::endpoint::Endpoint;
use super::session::conversation::Conversation;
use super::session::verdict::End;
use super::session::{Outcome, SIGNALS_MAX, Session, Signal};
use super::shares::Share;
use super::stop::Stop;
use super::timing::{Timing, duration_ms};
use shared::venue::Venue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use venues::VenueSettings;
use venues::protocol::VenueProtocol;

/// What everything that serves one venue shares.
pub struct VenueContext {
    /// Which venue.
    pub venue: Venue,
    /// Choices within its protocol.
    pub settings: VenueSettings,
    /// Where it is reached.
    pub endpoint: Endpoint,
    /// What TLS trusts.
    pub trust: Trust,
    /// Patience.
    pub timing: Timing,
    /// Keeps connects apart.
    pub gate: Gate,
    /// What is known of it.
    pub board: Arc<Board>,
    /// Numbers connections.
    pub numbers: AtomicU32,
}

impl VenueContext {
    /// A fresh protocol state.
    #[must_use]
    pub fn protocol(&self) -> Box<dyn VenueProtocol> {
        venues::protocol(self.venue, self.settings)
    }
}

/// Markets that may change.
pub type Markets = watch::Receiver<Arc<Share>>;

/// A session and the ways to it.
struct Running {
    number: u32,
    task: JoinHandle<Outcome>,
    signals: mpsc::Receiver<Signal>,
    retire: watch::Sender<Option<End>>,
}

/// One place for a connection.
pub struct Slot {
    context: Arc<VenueContext>,
    markets: Markets,
    stop: Stop,
    backoff: Backoff,
}

impl Slot {
    /// A place, not yet filled, for `markets`.
    #[must_use]
    pub fn new(context: Arc<VenueContext>, markets: Markets, stop: Stop) -> Self {
        let backoff = Backoff::new(context.timing.backoff_min_ms, context.timing.backoff_max_ms);
        Self { context, markets, stop, backoff }
    }

    /// Keeps the place filled until told to stop.
    pub async fn keep(mut self) {
        let mut again = false;
        while self.wait_for_markets().await {
            let Some(running) = self.establish(again).await else { return };
            again = self.attend(running).await;
        }
    }

    /// Waits until there is something to subscribe; `false` when told to stop.
    async fn wait_for_markets(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.stop.ordered() => false,
            some = self.markets.wait_for(|share| !share.markets.is_empty()) => some.is_ok(),
        }
    }

    /// Connects, however often it takes; `None` when told to stop.
    async fn establish(&mut self, again: bool) -> Option<Running> {
        loop {
            let mut stop = self.stop.clone();
            let attempt = tokio::select! {
                biased;
                () = stop.ordered() => return None,
                attempt = self.open() => attempt,
            };
            match attempt {
                Ok(running) => {
                    let counters = &mut self.context.board.lock().counters;
                    counters.reconnects += u64::from(again);
                    return Some(running);
                }
                Err(_) => {
                    let wait = self.backoff.failed();
                    self.pause(wait).await;
                }
            }
        }
    }

    /// One attempt to connect, in its turn.
    async fn open(&self) -> Result<Running, ()> {
        let context = &self.context;
        context.gate.pass().await;
        match connect(&context.endpoint.ws, &context.trust, &context.timing).await {
            Ok(socket) => {
                let number = context.numbers.fetch_add(1, Ordering::Relaxed);
                let now = tuning::clock::now();
                context.board.lock().opened(number, now);
                let mut markets = self.markets.clone();
                let present = Arc::clone(&markets.borrow_and_update());
                let board = Arc::clone(&context.board);
                let conversation =
                    Conversation::new(context.protocol(), number, &present.markets, board, context.timing, now);
                let (signal, signals) = mpsc::channel(SIGNALS_MAX);
                let (retire, retired) = watch::channel(None);
                let timing = context.timing;
                let edition = present.edition;
                let session =
                    Session { socket, conversation, markets, edition, signals: signal, retire: retired, timing };
                tracing::info!(venue = %context.venue, number, host = context.endpoint.ws.host, "feed connected");
                Ok(Running { number, task: tokio::spawn(session.run()), signals, retire })
            }
            Err(fault) => {
                let mut state = context.board.lock();
                state.counters.connect_failures += 1;
                state.fault(&fault, tuning::clock::now());
                tracing::warn!(venue = %context.venue, fault, "feed not connected; it will be tried again");
                Err(())
            }
        }
    }

    /// Looks after a running session until it has ended; answers whether to connect again.
    async fn attend(&mut self, mut running: Running) -> bool {
        loop {
            tokio::select! {
                biased;
                () = self.stop.ordered() => {
                    self.retire(running, End::Stopped).await;
                    return false;
                }
                outcome = &mut running.task => {
                    let outcome = outcome.unwrap_or_else(|fault| lost(&fault));
                    self.ended(running.number, &outcome).await;
                    return true;
                }
                Some(signal) = running.signals.recv() => {
                    if let Signal::SuccessorWanted(why) = signal {
                        running = self.hand_over(running, &why).await;
                    }
                }
            }
        }
    }

    /// Notes the end of a session and waits as long as the back-off says.
    async fn ended(&mut self, number: u32, outcome: &Outcome) {
        let context = Arc::clone(&self.context);
        {
            let mut state = context.board.lock();
            state.ended(number);
            if outcome.end != End::Stopped {
                state.fault(&outcome.end.to_string(), tuning::clock::now());
            }
        }
        tracing::info!(venue = %context.venue, number, end = %outcome.end, "feed connection ended");
        if outcome.settled {
            self.backoff.worked();
        }
        if outcome.end != End::Stopped {
            let wait = self.backoff.failed();
            self.pause(wait).await;
        }
    }

    /// Opens a second connection; when it delivers, the first is closed. If it cannot be had, the first stays.
    async fn hand_over(&mut self, mut old: Running, why: &str) -> Running {
        tracing::info!(venue = %self.context.venue, number = old.number, why, "feed connection to be replaced");
        let mut stop = self.stop.clone();
        let opened = tokio::select! {
            biased;
            () = stop.ordered() => return old,
            opened = self.open() => opened,
        };
        let Ok(mut young) = opened else { return old };
        let deadline = Instant::now() + duration_ms(self.context.timing.successor_ms);
        // Whatever the young one says first: that it is ready, that it too wants a successor (then it is no worse), or
        // its end. An old one that ends meanwhile is not waited with.
        let news = async {
            tokio::select! {
                _ = young.signals.recv() => {}
                () = closed(&mut old.signals) => {}
            }
        };
        drop(timeout_at(deadline, news).await);
        if young.task.is_finished() {
            self.retire(young, End::Replaced).await;
            return old;
        }
        self.context.board.lock().counters.handovers += 1;
        self.retire(old, End::Replaced).await;
        young
    }

    /// Ends a session and waits until it has.
    async fn retire(&self, running: Running, end: End) {
        running.retire.send_replace(Some(end));
        let outcome = running.task.await.unwrap_or_else(|fault| lost(&fault));
        self.context.board.lock().ended(running.number);
        tracing::info!(venue = %self.context.venue, number = running.number, end = %outcome.end, "feed connection ended");
    }

    async fn pause(&self, wait: Duration) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = stop.ordered() => {}
            () = sleep(wait) => {}
        }
    }
}

/// Waits until the session at the other end is gone.
async fn closed(signals: &mut mpsc::Receiver<Signal>) {
    while signals.recv().await.is_some() {}
}

/// The outcome of a session whose task panicked: a bug, but of one connection; the next one is made like any other.
fn lost(fault: &tokio::task::JoinError) -> Outcome {
    tracing::error!(%fault, "a feed session failed");
    Outcome { end: End::Closed("the session failed".to_owned()), settled: false }
}
