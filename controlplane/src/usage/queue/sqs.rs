//! The queue in SQS, as usage needs it. What SQS is asked is known to the crate for AWS alone.

use super::{ENTRIES_MAX, Outcome, Received, UsageQueue};
use crate::usage::outlet::OutletError;
use async_trait::async_trait;
use aws::{Queue, QueueFault};
use std::time::Duration;

const _: () = assert!(ENTRIES_MAX == aws::ENTRIES_MAX);

impl From<QueueFault> for OutletError {
    fn from(fault: QueueFault) -> Self {
        match fault {
            QueueFault::Away(why) => Self::Away(format!("the queue cannot be reached: {why}")),
            QueueFault::Refused(why) => Self::Refused(why),
        }
    }
}

fn told(outcomes: Vec<Result<(), QueueFault>>) -> Vec<Outcome> {
    outcomes.into_iter().map(|outcome| outcome.map_err(OutletError::from)).collect()
}

#[async_trait]
impl UsageQueue for Queue {
    async fn send(&self, bodies: &[String]) -> Result<Vec<Outcome>, OutletError> {
        Ok(told(Self::send(self, bodies).await?))
    }

    async fn receive(&self, most: usize, wait: Duration) -> Result<Vec<Received>, OutletError> {
        let messages = Self::receive(self, most, wait.as_secs()).await?.into_iter();
        Ok(messages.map(|aws::Message { id, receipt, body }| Received { id, receipt, body }).collect())
    }

    async fn delete(&self, receipts: &[String]) -> Result<Vec<Outcome>, OutletError> {
        Ok(told(Self::delete(self, receipts).await?))
    }
}
