//! Rows on their way to the queue: a delivery becomes messages, and is taken when the queue has all of them.
//!
//! At least once: an answer that is lost, or a node that ends in between, sends a message again. Entries of a request
//! that the queue did not take are sent again by themselves, and what it has taken of a delivery that failed is not sent
//! again with the next try. Which rows wait, and for how long, is the shipper's to know.

use super::message::{self, Message};
use super::{Outcome, UsageQueue};
use crate::params::{Parameters, QueueBounds};
use crate::usage::outlet::{BATCH_ROWS_MAX, Delivery, Outlet, OutletError};
use async_trait::async_trait;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Times that entries of a request are sent before the delivery is given back.
const TRIES: u32 = 3;

/// Pause before the second try; twice that before the third.
const PAUSE: Duration = Duration::from_millis(50);

/// The queue as an outlet.
pub struct QueueOutlet {
    queue: Arc<dyn UsageQueue>,
    parameters: watch::Receiver<Arc<Parameters>>,
    taken: Mutex<Taken>,
}

/// What the queue has of a delivery that failed: first and last places of messages. Not more of them than one delivery
/// has messages, [`BATCH_ROWS_MAX`] at the most; with the next delivery that succeeds they are forgotten.
#[derive(Default)]
struct Taken {
    node: Option<Arc<str>>,
    segment: u64,
    spans: Vec<(u64, u64)>,
}

impl Taken {
    fn has(&self, place: u64) -> bool {
        self.spans.iter().any(|(first, last)| (*first..=*last).contains(&place))
    }
}

impl QueueOutlet {
    /// An outlet to `queue`, within the bounds of the parameters in force.
    #[must_use]
    pub fn new(queue: Arc<dyn UsageQueue>, parameters: watch::Receiver<Arc<Parameters>>) -> Self {
        Self { queue, parameters, taken: Mutex::default() }
    }

    fn bounds(&self) -> QueueBounds {
        self.parameters.borrow().queue
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of the delivery the queue does not have yet, as messages.
    fn missing(&self, delivery: &Delivery) -> Vec<Message> {
        let mut taken = self.taken();
        if taken.node.as_ref() != Some(&delivery.node) || taken.segment != delivery.segment {
            *taken = Taken { node: Some(Arc::clone(&delivery.node)), segment: delivery.segment, spans: Vec::new() };
        }
        message::pack(delivery.rows.iter().filter(|row| !taken.has(row.offset)))
    }

    /// Sends the messages of one request until the queue has them all.
    async fn send(&self, messages: &[Message]) -> Result<(), OutletError> {
        let mut waiting: Vec<&Message> = messages.iter().collect();
        for turn in 1.. {
            let bodies: Vec<String> = waiting.iter().map(|message| message.body.clone()).collect();
            let outcomes = self.request(&bodies).await?;
            let mut outcomes = outcomes.into_iter().chain(std::iter::repeat_with(unnamed));
            let mut why = None;
            waiting.retain(|message| match outcomes.next() {
                Some(Err(error)) => {
                    why = Some(error);
                    true
                }
                _ => {
                    self.taken().spans.push((message.first, message.last));
                    false
                }
            });
            match why {
                None => break,
                Some(why) if turn >= TRIES => return Err(why),
                Some(_) => sleep(PAUSE * turn).await,
            }
        }
        Ok(())
    }

    async fn request(&self, bodies: &[String]) -> Result<Vec<Outcome>, OutletError> {
        let bound = Duration::from_millis(self.bounds().timeout_ms);
        match timeout(bound, self.queue.send(bodies)).await {
            Ok(answer) => answer,
            Err(_) => Err(OutletError::Away(format!("the queue did not answer within {} ms", bound.as_millis()))),
        }
    }
}

/// What is to be made of an entry that an answer leaves out.
fn unnamed() -> Outcome {
    Err(OutletError::Away("the queue's answer says nothing of a message".to_owned()))
}

#[async_trait]
impl Outlet for QueueOutlet {
    fn kind(&self) -> &'static str {
        "queue"
    }

    fn pace(&self) -> Duration {
        Duration::from_millis(self.bounds().flush_ms)
    }

    fn rows_max(&self) -> usize {
        self.bounds().buffer_rows.clamp(1, BATCH_ROWS_MAX)
    }

    async fn position(&self, _node: &str, _segment: u64) -> Result<Option<u64>, OutletError> {
        Ok(None)
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<u64, OutletError> {
        let messages = self.missing(delivery);
        for request in messages.chunks(self.bounds().batch_messages.max(1)) {
            self.send(request).await?;
        }
        *self.taken() = Taken::default();
        Ok(delivery.to)
    }
}
