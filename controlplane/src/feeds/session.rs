//! One WebSocket connection to a venue: moves frames between the socket and the conversation, and tells the time.
//!
//! It knows nothing of any venue's protocol and decides nothing; `conversation` does. One task runs one session.

pub mod conversation;
pub mod roster;
pub mod verdict;

use self::conversation::Conversation;
use self::verdict::{End, Verdict};
use super::connect::Socket;
use super::shares::Share;
use super::timing::{Timing, duration_ms};
use futures_util::{SinkExt, StreamExt};
use shared::moment::Moment;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tungstenite::error::ProtocolError;
use tungstenite::{Error, Message};

/// How long a polite close may take, ms.
const CLOSE_MS: u64 = 500;

/// What a running session tells whoever keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Its subscriptions deliver, all that will.
    Ready,
    /// It works, but should be replaced: why.
    SuccessorWanted(String),
}

/// Signals that may wait: one of each kind, and a second wish after a first that came to nothing.
pub const SIGNALS_MAX: usize = 4;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why.
    pub end: End,
    /// Whether it had lived long enough and delivered: the next attempt need not wait long.
    pub settled: bool,
}

/// What a session runs on.
pub struct Session {
    /// The open connection.
    pub socket: Socket,
    /// What is said on it.
    pub conversation: Conversation,
    /// What to subscribe to; may change.
    pub markets: watch::Receiver<Arc<Share>>,
    /// Edition of the markets that the conversation began with.
    pub edition: u64,
    /// Where signals go.
    pub signals: mpsc::Sender<Signal>,
    /// Becomes something when the session shall end.
    pub retire: watch::Receiver<Option<End>>,
    /// Patience.
    pub timing: Timing,
}

/// Why the loop woke.
enum Woken {
    Frame(Option<Result<Message, Error>>),
    Time,
    Markets,
    Retired(End),
}

impl Session {
    /// Runs until the connection ends.
    pub async fn run(mut self) -> Outcome {
        let mut ticked = tuning::clock::now();
        let mut ready = false;
        let end = loop {
            if let Err(why) = self.speak().await {
                break End::Closed(why);
            }
            if !ready && self.conversation.is_ready(tuning::clock::now()) {
                ready = self.signals.try_send(Signal::Ready).is_ok();
            }
            match self.conversation.take_verdict() {
                Some(Verdict::End(end)) => break end,
                Some(Verdict::Successor(why)) => drop(self.signals.try_send(Signal::SuccessorWanted(why))),
                None => {}
            }
            let woken = self.wait().await;
            let now = tuning::clock::now();
            let ended = match woken {
                Woken::Frame(frame) => self.hear(frame, now),
                Woken::Time => None,
                Woken::Markets => self.change_markets(),
                Woken::Retired(end) => Some(end),
            };
            if let Some(end) = ended {
                break end;
            }
            // Frames may come without a pause: the watchdogs are not left to the timer alone.
            if now.ms_since(ticked.mono_ns) >= self.timing.tick_ms {
                ticked = now;
                self.conversation.tick(now);
                if self.markets.has_changed().unwrap_or(false)
                    && let Some(end) = self.change_markets()
                {
                    break end;
                }
            }
        };
        if matches!(end, End::Replaced | End::Stopped) {
            // A courtesy; the socket is closed either way.
            drop(timeout(duration_ms(CLOSE_MS), self.socket.close(None)).await);
        }
        let lasted_ms = self.conversation.lasted_ms(tuning::clock::now());
        Outcome { end, settled: self.conversation.has_delivered() && lasted_ms >= self.timing.settled_ms }
    }

    /// Takes over the markets that are wanted now; answers the end when there is none.
    fn change_markets(&mut self) -> Option<End> {
        let share = Arc::clone(&self.markets.borrow_and_update());
        let renewed = std::mem::replace(&mut self.edition, share.edition) != share.edition;
        self.conversation.change_markets(&share.markets, renewed);
        share.markets.is_empty().then_some(End::Stopped)
    }

    async fn wait(&mut self) -> Woken {
        let wake_in_ms = self.conversation.wake_in_ms(tuning::clock::now());
        tokio::select! {
            // In this order: while frames are there, no timer is armed for them.
            biased;
            retired = self.retire.wait_for(Option::is_some) => {
                Woken::Retired(retired.ok().and_then(|end| end.clone()).unwrap_or(End::Stopped))
            }
            frame = self.socket.next() => Woken::Frame(frame),
            changed = self.markets.changed() => {
                if changed.is_ok() { Woken::Markets } else { Woken::Retired(End::Stopped) }
            }
            () = sleep(duration_ms(wake_in_ms)) => Woken::Time,
        }
    }

    /// Sends what may be sent now.
    async fn speak(&mut self) -> Result<(), String> {
        let patience = duration_ms(self.timing.pong_within_ms);
        while let Some(text) = self.conversation.next_text(tuning::clock::now()) {
            send(&mut self.socket, Message::text(text), patience).await?;
        }
        if self.conversation.take_ping(tuning::clock::now()) {
            send(&mut self.socket, Message::Ping(tungstenite::Bytes::new()), patience).await?;
        }
        Ok(())
    }

    /// Takes one frame; answers the end if it is one.
    fn hear(&mut self, frame: Option<Result<Message, Error>>, now: Moment) -> Option<End> {
        match frame {
            Some(Ok(Message::Text(text))) => self.conversation.text(text.as_bytes(), now),
            // The library answers pings by itself.
            Some(Ok(Message::Ping(_))) => self.conversation.sign_of_life(false, now),
            Some(Ok(Message::Pong(_))) => self.conversation.sign_of_life(true, now),
            Some(Ok(Message::Binary(_))) => self.conversation.broken("a binary frame", now),
            Some(Ok(Message::Close(frame))) => {
                let why = frame.map_or_else(|| "no reason given".to_owned(), |frame| frame.to_string());
                return Some(End::Closed(why));
            }
            Some(Ok(Message::Frame(_))) => {}
            Some(Err(fault)) => {
                // A reset is how connections end, not how frames break.
                let reset = matches!(fault, Error::Protocol(ProtocolError::ResetWithoutClosingHandshake));
                if !reset && matches!(fault, Error::Capacity(_) | Error::Utf8(_) | Error::Protocol(_)) {
                    self.conversation.broken(&fault.to_string(), now);
                }
                return Some(End::Closed(fault.to_string()));
            }
            None => return Some(End::Closed("end of stream".to_owned())),
        }
        None
    }
}

async fn send(socket: &mut Socket, message: Message, patience: std::time::Duration) -> Result<(), String> {
    match timeout(patience, socket.send(message)).await {
        Ok(sent) => sent.map_err(|fault| fault.to_string()),
        Err(_) => Err(format!("nothing could be sent for {} ms", patience.as_millis())),
    }
}
