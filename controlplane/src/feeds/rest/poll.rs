//! The one task that asks a venue for prices over REST: for whoever waits, and for what the board finds stale or too
//! quiet.
//!
//! Clients that wait come first, but every fourth request may be the board's; what is asked in advance comes last. Every
//! request takes its turn at the venue's gate when it is made, so none is made that nobody wants any more, and an asset is
//! in one request at a time: whoever else waits for it gets the same answer.

use super::answer::{self, Reading};
use super::queue::{Answered, Question};
use super::{REQUESTS_MAX, RestAnswer, RestClient, RestFault};
use crate::feeds::plan::Market;
use crate::feeds::slot::VenueContext;
use crate::feeds::stop::Stop;
use crate::feeds::timing::{TICKER_BYTES_MAX, duration_ms};
use shared::asset::AssetId;
use shared::moment::Moment;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};
use venues::protocol::Instrument;

/// Requests for clients in a row while the board's wait.
const CLIENTS_IN_A_ROW_MAX: u32 = 3;

/// Patience with a request that a client waits for: less than the client's own, so that it is the venue that failed.
const CLIENT_PATIENCE: Duration = Duration::from_millis(1_400);

/// Requests for several markets that may be under way at a time: each may bring [`TICKER_BYTES_MAX`].
const SHARED_MAX: usize = 4;

/// Largest answer to a request for one market that we read: the largest recorded one is under 2 KiB.
const ONE_BYTES_MAX: usize = 64 << 10;

/// An answer longer than this is read on a thread that may take its time.
const READ_HERE_MAX: usize = 32 << 10;

/// A request under way.
struct Request {
    markets: Vec<Market>,
    /// Whoever waits; none for the board's own.
    questions: Vec<Question>,
    asked: Moment,
}

type Outcome = Result<Reading, RestFault>;

/// What the task knows.
struct Desk {
    context: Arc<VenueContext>,
    client: Arc<RestClient>,
    running: JoinSet<Outcome>,
    under_way: HashMap<Id, Request>,
    in_air: HashSet<AssetId>,
    clients_in_a_row: u32,
    /// The board's own request under way: it has one at a time.
    polling: Option<Id>,
    /// When to look at the board again.
    look_at: Instant,
}

/// Asks for prices until told to stop.
pub async fn run(context: Arc<VenueContext>, client: Arc<RestClient>, mut stop: Stop) {
    let look_at = Instant::now() + duration_ms(context.timing.tick_ms);
    let mut desk = Desk {
        context,
        client,
        running: JoinSet::new(),
        under_way: HashMap::new(),
        in_air: HashSet::new(),
        clients_in_a_row: 0,
        polling: None,
        look_at,
    };
    loop {
        desk.ask_all();
        let wait = desk.wait();
        tokio::select! {
            biased;
            () = stop.ordered() => return,
            Some(ended) = desk.running.join_next_with_id() => match ended {
                Ok((id, outcome)) => desk.end(id, Some(outcome)),
                Err(panicked) => desk.end(panicked.id(), None),
            },
            () = desk.client.queue.asked() => {}
            () = sleep(wait) => {}
        }
    }
}

impl Desk {
    /// How long there is nothing to do, unless something is asked or answered.
    fn wait(&self) -> Duration {
        let gate = self.client.gate.wait();
        let is_busy = self.polling.is_some() || self.running.len() >= REQUESTS_MAX;
        let look = if is_busy { duration_ms(self.context.timing.tick_ms) } else { duration_ms(1) };
        let look = look.max(self.look_at.saturating_duration_since(Instant::now()));
        // While the gate is closed there is nothing to look for; when it opens, somebody may wait.
        if gate.is_zero() { look } else { gate }
    }

    /// Sends what may be sent now.
    fn ask_all(&mut self) {
        while self.running.len() < REQUESTS_MAX && self.client.gate.is_open() {
            let is_boards_turn = self.clients_in_a_row >= CLIENTS_IN_A_ROW_MAX;
            let sent = (is_boards_turn && self.ask_for_board())
                || self.ask_for_clients()
                || (!is_boards_turn && self.ask_for_board())
                || self.ask_ahead();
            if !sent {
                break;
            }
        }
    }

    fn ask_for_clients(&mut self) -> bool {
        let names = self.client.share();
        let sent = self.ask_from_queue(false, names);
        self.clients_in_a_row = if sent { self.clients_in_a_row.saturating_add(1) } else { 0 };
        sent
    }

    fn ask_ahead(&mut self) -> bool {
        self.ask_from_queue(true, self.client.names)
    }

    fn ask_from_queue(&mut self, ahead: bool, names: usize) -> bool {
        let shared = self.under_way.values().filter(|request| request.markets.len() > 1).count();
        let names = if shared < SHARED_MAX { names } else { 1 };
        let questions = self.client.queue.take(ahead, names, &|asset| self.in_air.contains(&asset));
        let markets: Vec<Market> = questions.iter().map(|question| question.market.clone()).collect();
        let patience = if ahead { duration_ms(self.context.timing.rest_ms) } else { CLIENT_PATIENCE };
        self.send(markets, questions, patience).is_some()
    }

    /// Asks for what the board finds due; it is looked at a few times a second.
    fn ask_for_board(&mut self) -> bool {
        if self.polling.is_some() || Instant::now() < self.look_at {
            return false;
        }
        let timing = self.context.timing;
        let mut markets = self.context.board.lock().take_polls(tuning::clock::now(), &timing, self.client.names);
        if markets.is_empty() {
            self.look_at = Instant::now() + duration_ms(timing.tick_ms);
            return false;
        }
        // Those are being asked for already, and the board will hear of it.
        markets.retain(|market| !self.in_air.contains(&market.asset));
        self.clients_in_a_row = 0;
        self.polling = self.send(markets, Vec::new(), duration_ms(timing.rest_ms));
        self.polling.is_some()
    }

    /// Sends one request, if it is for anything.
    fn send(&mut self, markets: Vec<Market>, questions: Vec<Question>, patience: Duration) -> Option<Id> {
        if markets.is_empty() {
            return None;
        }
        self.context.board.lock().counters.rest_requests += 1;
        self.in_air.extend(markets.iter().map(|market| market.asset));
        let turn = self.client.gate.turn();
        let work = request(Arc::clone(&self.context), Arc::clone(&self.client), markets.clone(), turn, patience);
        let id = self.running.spawn(work).id();
        self.under_way.insert(id, Request { markets, questions, asked: tuning::clock::now() });
        Some(id)
    }

    /// Tells whoever waits what became of a request; `None`: it ended in a panic.
    fn end(&mut self, id: Id, outcome: Option<Outcome>) {
        if self.polling == Some(id) {
            self.polling = None;
        }
        let Some(Request { markets, questions, asked }) = self.under_way.remove(&id) else { return };
        markets.iter().for_each(|market| _ = self.in_air.remove(&market.asset));
        self.client.note(matches!(&outcome, Some(Ok(reading)) if reading.is_of_use()));
        let answered = match outcome {
            Some(Ok(reading)) => reading.hand_over(&self.context, &markets, asked),
            Some(Err(fault)) => {
                self.note_fault(&fault);
                vec![Answered::Failed; markets.len()]
            }
            None => vec![Answered::Failed; markets.len()],
        };
        let told: HashMap<AssetId, Answered> = markets.iter().map(|market| market.asset).zip(answered).collect();
        let others = self.client.queue.take_about(&|asset| told.contains_key(&asset));
        for question in questions.into_iter().chain(others) {
            if let Some(answered) = told.get(&question.market.asset) {
                question.answer(answered.clone());
            }
        }
    }

    fn note_fault(&self, fault: &RestFault) {
        let mut state = self.context.board.lock();
        state.counters.rest_errors += 1;
        state.counters.rest_limited += u64::from(matches!(fault, RestFault::Limited(_)));
        state.fault(&fault.to_string(), tuning::clock::now());
    }
}

/// One request, in its turn, and its answer read.
async fn request(
    context: Arc<VenueContext>,
    client: Arc<RestClient>,
    markets: Vec<Market>,
    turn: Instant,
    patience: Duration,
) -> Outcome {
    sleep_until(turn).await;
    let instruments: Vec<&Instrument> = markets.iter().map(|market| &market.instrument).collect();
    let request = context.protocol().tickers(&instruments);
    let bytes_max = if markets.len() == 1 { ONE_BYTES_MAX } else { TICKER_BYTES_MAX };
    let answer = client.send(&request, bytes_max, patience).await?;
    if answer.body.len() <= READ_HERE_MAX {
        return Ok(answer::read(&*context.protocol(), &answer, &markets));
    }
    Ok(read_apart(context, answer, markets).await)
}

async fn read_apart(context: Arc<VenueContext>, answer: RestAnswer, markets: Vec<Market>) -> Reading {
    let reading = spawn_blocking(move || answer::read(&*context.protocol(), &answer, &markets)).await;
    // A panic, or the end of the process.
    reading.unwrap_or_else(|why| Reading { said: Vec::new(), fault: Some(why.to_string()) })
}
