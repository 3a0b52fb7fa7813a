//! A queue in memory, for tests: it does what SQS may do, on demand. Messages come again, in another order, late; entries
//! of a request fail, answers are lost.

use super::{Outcome, Received, UsageQueue};
use crate::usage::outlet::OutletError;
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::sleep;

/// What the next requests meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody answers, and nothing was done.
    Away,
    /// It was done, and the answer is lost.
    AnswerLost,
    /// No answer ever comes.
    Hangs,
    /// Every second entry is not taken.
    HalfTaken,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Received>,
    /// Received and not deleted.
    hidden: Vec<Received>,
    /// What the next requests meet, in order.
    troubles: VecDeque<Trouble>,
    sent: u64,
    receipts: u64,
    requests: Vec<usize>,
}

/// A queue in memory.
#[derive(Default)]
pub struct Double(Mutex<State>);

impl Double {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panicked")
    }

    /// The next requests meet these, one each.
    pub fn meets(&self, troubles: &[Trouble]) {
        self.state().troubles.extend(troubles);
    }

    /// Puts a message in, whatever it says.
    pub fn put(&self, body: &str) {
        let mut state = self.state();
        state.sent += 1;
        let id = format!("m{}", state.sent);
        state.waiting.push_back(Received { id, receipt: String::new(), body: body.to_owned() });
    }

    /// Every message that is there comes twice.
    pub fn double(&self) {
        let mut state = self.state();
        let again = state.waiting.clone();
        state.waiting.extend(again);
    }

    /// Messages come in the other order.
    pub fn reverse(&self) {
        self.state().waiting.make_contiguous().reverse();
    }

    /// Time passes: what was received and not deleted is there again.
    pub fn redeliver(&self) {
        let mut state = self.state();
        let hidden = std::mem::take(&mut state.hidden);
        state.waiting.extend(hidden);
    }

    /// Messages that wait, and those received and not deleted.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.waiting.len(), state.hidden.len())
    }

    /// What the messages that wait say.
    pub fn bodies(&self) -> Vec<String> {
        self.state().waiting.iter().map(|message| message.body.clone()).collect()
    }

    /// Entries of each request to send, in order.
    pub fn requests(&self) -> Vec<usize> {
        self.state().requests.clone()
    }

    /// One request: `work` for each entry that is taken.
    async fn request<T>(&self, entries: &[T], work: impl Fn(&mut State, &T) + Send) -> Result<Vec<Outcome>, OutletError>
    where
        T: Sync,
    {
        let lost = || OutletError::Away("no answer".to_owned());
        let trouble = self.state().troubles.pop_front();
        match trouble {
            Some(Trouble::Away) => return Err(lost()),
            Some(Trouble::Hangs) => std::future::pending().await,
            _ => {}
        }
        let mut outcomes = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            if trouble == Some(Trouble::HalfTaken) && index % 2 == 0 {
                outcomes.push(Err(OutletError::Away("not this one".to_owned())));
            } else {
                work(&mut self.state(), entry);
                outcomes.push(Ok(()));
            }
        }
        if trouble == Some(Trouble::AnswerLost) { Err(lost()) } else { Ok(outcomes) }
    }
}

#[async_trait]
impl UsageQueue for Double {
    async fn send(&self, bodies: &[String]) -> Result<Vec<Outcome>, OutletError> {
        self.state().requests.push(bodies.len());
        let put = |state: &mut State, body: &String| {
            state.sent += 1;
            let id = format!("m{}", state.sent);
            state.waiting.push_back(Received { id, receipt: String::new(), body: body.clone() });
        };
        self.request(bodies, put).await
    }

    async fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Received>, OutletError> {
        self.request(&[(); 0], |_, ()| {}).await?;
        if self.state().waiting.is_empty() {
            sleep(wait).await;
        }
        let mut state = self.state();
        let count = most.min(state.waiting.len());
        let mut some: Vec<Received> = state.waiting.drain(..count).collect();
        for message in &mut some {
            state.receipts += 1;
            message.receipt = format!("r{}", state.receipts);
        }
        state.hidden.extend(some.iter().cloned());
        Ok(some)
    }

    async fn delete(&self, receipts: &[String]) -> Result<Vec<Outcome>, OutletError> {
        let delete = |state: &mut State, receipt: &String| state.hidden.retain(|message| message.receipt != *receipt);
        self.request(receipts, delete).await
    }
}
