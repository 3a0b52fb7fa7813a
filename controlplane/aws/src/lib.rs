//! What is asked of AWS: a secret's value, from Secrets Manager, and messages of a queue, from SQS. Apart from the rest
//! because its SDK is large, and built only where the feature `aws` is wanted.
//!
//! What a secret or a message holds, how often it is asked for and what a failure means are the caller's to know. Who
//! asks is found as every AWS program finds it: in the environment, the profile files, the container's or the machine's
//! role.
#![forbid(unsafe_code)]

mod queue;
mod secret;

pub use self::queue::{ENTRIES_MAX, Message, Queue, QueueFault};
pub use self::secret::SecretsManager;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region};
use std::error::Error;

/// Longest part of a library's own words that is told on, in characters.
const WORDS_CHARS_MAX: usize = 200;

/// The settings of a client in `region`. Nothing is tried again within a try, but by whoever asks.
fn settings(region: &str) -> ConfigLoader {
    let retry = RetryConfig::disabled();
    aws_config::defaults(BehaviorVersion::latest()).region(Region::new(region.to_owned())).retry_config(retry)
}

/// The innermost causes' words.
fn cause(error: &dyn Error) -> String {
    let mut words = Vec::new();
    let mut next = error.source();
    while let Some(error) = next {
        words.push(error.to_string());
        next = error.source();
    }
    shortened(&words.join(": "))
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS_CHARS_MAX).collect()
}
