//! One WebSocket client of a simulated exchange, served as the venue would serve it, or as badly as ordered.

use super::exchange::{Batch, Exchange};
use super::fault::{Conditions, Fault};
use super::garbage;
use crate::feeds::stop::Stop;
use futures_util::{SinkExt, StreamExt};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, interval, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use venues::simulate::VenueSimulator;
use venues::simulate::market::MarketQuote;

/// Frames kept to be replayed: some seconds of a few instruments.
const REMEMBERED_MAX: usize = 256;

/// How long a frozen connection is held: longer than any client should need to notice.
const FROZEN: Duration = Duration::from_secs(600);

/// The code of an end without a close frame (RFC 6455, 7.4.1): it never travels.
const CLOSED_WITHOUT_A_WORD: u16 = 1006;

/// A venue whose server sends no heartbeats is looked at this rarely.
const NO_HEARTBEAT: Duration = Duration::from_secs(3_600);

/// One client.
pub struct Client<'a, S> {
    socket: WebSocketStream<S>,
    exchange: &'a Exchange,
    simulator: Box<dyn VenueSimulator>,
    conditions: watch::Receiver<Arc<Conditions>>,
    batches: broadcast::Receiver<Batch>,
    orders: broadcast::Receiver<Fault>,
    /// Positions whose snapshot was sent.
    begun: HashSet<usize>,
    /// The last quote frames.
    said: VecDeque<String>,
    /// Frames still to be lost.
    losing: u32,
}

/// The connection is over; the client is not told why, or has been.
struct Over;

type Step = Result<(), Over>;

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Client<'a, S> {
    /// A client that has just connected.
    pub fn new(socket: WebSocketStream<S>, exchange: &'a Exchange) -> Self {
        let (conditions, batches, orders) = (exchange.conditions(), exchange.batches(), exchange.orders());
        let simulator = venues::simulate::simulator(exchange.venue, exchange.settings);
        let (begun, said) = (HashSet::new(), VecDeque::new());
        Self { socket, exchange, simulator, conditions, batches, orders, begun, said, losing: 0 }
    }

    /// Serves until one side has enough, or `stop`.
    pub async fn serve(mut self, mut stop: Stop) {
        tokio::select! {
            biased;
            () = stop.ordered() => {}
            _ = self.converse() => {}
        }
    }

    async fn converse(&mut self) -> Step {
        let greeting = self.simulator.greeting(now_ms());
        self.say(greeting).await?;
        let every = match self.simulator.heartbeat_every_ms() {
            0 => NO_HEARTBEAT,
            ms => Duration::from_millis(ms),
        };
        let mut beat = Instant::now() + every;
        let mut look = interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                frame = self.socket.next() => match frame {
                    Some(Ok(Message::Text(text))) => self.hear(text.as_str()).await?,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Over),
                    Some(Ok(_)) => {}
                },
                batch = self.batches.recv() => match batch {
                    Ok(batch) => self.tell(&batch).await?,
                    // As at a real venue, a slow reader misses what it was too slow for.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Err(Over),
                },
                order = self.orders.recv() => if let Ok(order) = order {
                    self.obey(&order).await?;
                },
                () = sleep_until(beat) => {
                    beat += every;
                    let frames = self.simulator.heartbeat(now_ms());
                    self.say(frames).await?;
                    self.part().await?;
                }
                _ = look.tick() => self.part().await?,
            }
        }
    }

    /// Closes the connection if the client has not kept it alive by the venue's rule.
    async fn part(&mut self) -> Step {
        let Some(code) = self.simulator.must_close(now_ms()) else { return Ok(()) };
        if code != CLOSED_WITHOUT_A_WORD {
            let frame = CloseFrame { code: code.into(), reason: "not kept alive".into() };
            // It is over, whether the client hears it or not.
            drop(self.socket.close(Some(frame)).await);
        }
        Err(Over)
    }

    /// Takes a frame of the client: answers, and snapshots of what it has newly subscribed.
    async fn hear(&mut self, text: &str) -> Step {
        let conditions = self.now();
        let answers = self.simulator.receive(text, &self.exchange.listed, &conditions.refused, now_ms());
        self.say(answers).await?;
        if self.simulator.subscriptions() > self.begun.len() {
            let quotes = self.exchange.quotes();
            let fresh = (0..quotes.len()).filter(|position| !self.begun.contains(position));
            let fresh: Vec<(usize, MarketQuote)> = fresh.map(|position| (position, quotes[position])).collect();
            self.tell(&fresh).await?;
        }
        Ok(())
    }

    /// Tells the client of changed markets, as far as it is subscribed to them.
    async fn tell(&mut self, batch: &[(usize, MarketQuote)]) -> Step {
        let conditions = self.now();
        let mut frames = Vec::new();
        for (position, quote) in batch {
            let Some(instrument) = self.exchange.listed.get(*position) else { continue };
            if !conditions.quotes(&instrument.name) {
                continue;
            }
            let told = self.simulator.quote(instrument, quote, now_ms());
            if !told.is_empty() {
                self.begun.insert(*position);
                frames.extend(told);
            }
        }
        for frame in &frames {
            if self.said.len() == REMEMBERED_MAX {
                self.said.pop_front();
            }
            self.said.push_back(frame.clone());
        }
        self.say(frames).await
    }

    /// Carries out what an order means for a present client.
    async fn obey(&mut self, order: &Fault) -> Step {
        match order {
            Fault::Drop | Fault::Down => Err(Over),
            Fault::HalfOpen => {
                tokio::time::sleep(FROZEN).await;
                Err(Over)
            }
            Fault::Garbage(kind) => {
                for frame in garbage::frames(*kind) {
                    self.socket.feed(frame).await.map_err(|_| Over)?;
                }
                self.socket.flush().await.map_err(|_| Over)
            }
            Fault::Lose(frames) => {
                self.losing = *frames;
                Ok(())
            }
            Fault::Replay(frames) => {
                let skip = self.said.len().saturating_sub(*frames as usize);
                let again = self.said.iter().skip(skip).cloned().collect();
                self.say(again).await
            }
            Fault::Say(text) => self.say(vec![text.clone()]).await,
            _ => Ok(()),
        }
    }

    async fn say(&mut self, frames: Vec<String>) -> Step {
        if frames.is_empty() || self.now().silent {
            return Ok(());
        }
        for frame in frames {
            if self.losing > 0 {
                self.losing -= 1;
                continue;
            }
            self.socket.feed(Message::text(frame)).await.map_err(|_| Over)?;
        }
        self.socket.flush().await.map_err(|_| Over)
    }

    fn now(&self) -> Arc<Conditions> {
        Arc::clone(&self.conditions.borrow())
    }
}

fn now_ms() -> u64 {
    tuning::clock::now().wall_ms
}
