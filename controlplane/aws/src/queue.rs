//! A queue of SQS: messages sent, received and deleted, up to ten a request, each entry with its own outcome.
//!
//! A request is made once and takes as long as it takes: its bound, and another try, are the caller's. What a message
//! says is not known here.

use super::{cause, settings, shortened};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{BatchResultErrorEntry, DeleteMessageBatchRequestEntry, SendMessageBatchRequestEntry};
use std::sync::OnceLock;

/// Most entries of one request, as SQS has it.
pub const ENTRIES_MAX: usize = 10;

/// Longest that SQS lets a receiver wait for a message, s.
const WAIT_MAX_S: u64 = 20;

/// Where the region is taken from when neither the address nor a setting tells it: what stands in for SQS asks for none.
const ANY_REGION: &str = "us-east-1";

/// Why a request, or one entry of it, was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueFault {
    /// Nobody answered, or the queue is not well: it may have been done.
    Away(String),
    /// The queue refuses it as it is.
    Refused(String),
}

/// A message as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its number, for people.
    pub id: String,
    /// What deletes it.
    pub receipt: String,
    /// What it says.
    pub body: String,
}

/// A queue in SQS.
pub struct Queue {
    url: String,
    region: String,
    /// Made when it is first used: it reads the environment and files.
    client: OnceLock<Client>,
}

impl Queue {
    /// The queue at `url`. Its region is what the host says, else `region`. Nothing is read or asked yet.
    #[must_use]
    pub fn new(url: &str, region: &str) -> Self {
        let region = [region_of(url), region, ANY_REGION].into_iter().find(|region| !region.is_empty());
        Self { url: url.to_owned(), region: region.unwrap_or(ANY_REGION).to_owned(), client: OnceLock::new() }
    }

    /// Sends up to [`ENTRIES_MAX`] messages; the outcome of each, in order.
    ///
    /// # Errors
    /// When nothing is known of any.
    pub async fn send(&self, bodies: &[String]) -> Result<Vec<Result<(), QueueFault>>, QueueFault> {
        let entry = |(index, body): (usize, &String)| {
            SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(body).build()
        };
        let entries = bodies.iter().enumerate().map(entry).collect::<Result<_, _>>().map_err(odd)?;
        let request = self.client().await.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
        let answer = request.send().await.map_err(|error| told(&error))?;
        let done = answer.successful().iter().map(|entry| entry.id());
        Ok(outcomes(bodies.len(), done, answer.failed()))
    }

    /// Up to `most` messages, waiting up to `wait_s` seconds for the first; none of them is gone before it is deleted.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn receive(&self, most: usize, wait_s: u64) -> Result<Vec<Message>, QueueFault> {
        let most = i32::try_from(most.clamp(1, ENTRIES_MAX)).unwrap_or(1);
        let wait_s = i32::try_from(wait_s.min(WAIT_MAX_S)).unwrap_or(0);
        let request = self.client().await.receive_message().queue_url(&self.url);
        let request = request.max_number_of_messages(most).wait_time_seconds(wait_s);
        let answer = request.send().await.map_err(|error| told(&error))?;
        let text = |text: Option<String>| text.unwrap_or_default();
        let messages = answer.messages.unwrap_or_default().into_iter();
        Ok(messages
            .map(|message| Message {
                id: text(message.message_id),
                receipt: text(message.receipt_handle),
                body: text(message.body),
            })
            .collect())
    }

    /// Deletes up to [`ENTRIES_MAX`] messages by their receipts; the outcome of each, in order.
    ///
    /// # Errors
    /// When nothing is known of any.
    pub async fn delete(&self, receipts: &[String]) -> Result<Vec<Result<(), QueueFault>>, QueueFault> {
        let entry = |(index, receipt): (usize, &String)| {
            DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(receipt).build()
        };
        let entries = receipts.iter().enumerate().map(entry).collect::<Result<_, _>>().map_err(odd)?;
        let request = self.client().await.delete_message_batch().queue_url(&self.url).set_entries(Some(entries));
        let answer = request.send().await.map_err(|error| told(&error))?;
        let done = answer.successful().iter().map(|entry| entry.id());
        Ok(outcomes(receipts.len(), done, answer.failed()))
    }

    async fn client(&self) -> Client {
        if let Some(client) = self.client.get() {
            return client.clone();
        }
        let config = settings(&self.region).load().await;
        let mut config = aws_sdk_sqs::config::Builder::from(&config);
        // A queue is asked where its address says, whatever else is set.
        config = config.endpoint_url(origin(&self.url));
        self.client.get_or_init(|| Client::from_conf(config.build())).clone()
    }
}

/// What became of each of `count` entries; one that the answer does not name may have been done.
fn outcomes<'a>(
    count: usize,
    done: impl Iterator<Item = &'a str>,
    failed: &[BatchResultErrorEntry],
) -> Vec<Result<(), QueueFault>> {
    let unnamed = || Err(QueueFault::Away("the answer says nothing of it".to_owned()));
    let mut outcomes: Vec<_> = (0..count).map(|_| unnamed()).collect();
    let place = |id: &str| id.parse::<usize>().ok().filter(|place| *place < count);
    for at in done.filter_map(place) {
        outcomes[at] = Ok(());
    }
    for entry in failed {
        let Some(at) = place(entry.id()) else { continue };
        let why = format!("SQS refused it with {}", shortened(entry.code()));
        outcomes[at] = Err(if entry.sender_fault() { QueueFault::Refused(why) } else { QueueFault::Away(why) });
    }
    outcomes
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |end| &url[..host + end])
}

/// The region that a host of SQS names: `sqs.REGION.amazonaws.com`, `REGION.queue.amazonaws.com`,
/// `vpce-….sqs.REGION.vpce.amazonaws.com`; empty for other hosts.
fn region_of(url: &str) -> &str {
    let origin = origin(url);
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let Some((name, _)) = host.split_once(".amazonaws.com") else { return "" };
    if let Some(region) = name.strip_suffix(".queue") {
        return region;
    }
    let after =
        if name.starts_with("sqs.") { name.strip_prefix("sqs.") } else { name.split_once(".sqs.").map(|(_, at)| at) };
    after.and_then(|region| region.split('.').next()).unwrap_or_default()
}

fn odd(error: BuildError) -> QueueFault {
    QueueFault::Refused(shortened(&error.to_string()))
}

/// What went wrong with a whole request, for people.
fn told<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E>) -> QueueFault {
    match error {
        SdkError::ServiceError(answer) => {
            let code = error.code().unwrap_or("no code");
            let remedy = match code {
                code if code.contains("NonExistentQueue") || code == "QueueDoesNotExist" => {
                    "there is no such queue: see that SQS_USAGE_LOG_QUEUE_URL is right"
                }
                "AccessDenied" | "AccessDeniedException" => {
                    "it is not allowed: allow this role sqs:SendMessage, sqs:ReceiveMessage and sqs:DeleteMessage on it"
                }
                _ => "see SQS_USAGE_LOG_QUEUE_URL and this role",
            };
            let why = format!("SQS refused with {}: {remedy}", shortened(code));
            // Throttling passes by itself, whatever its status.
            match answer.raw().status().is_server_error() || code.contains("Thrott") {
                true => QueueFault::Away(why),
                false => QueueFault::Refused(why),
            }
        }
        SdkError::TimeoutError(_) => QueueFault::Away("no answer in time".to_owned()),
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => QueueFault::Away(format!(
            "it could not be asked: {}; see that the network and a role lead there",
            cause(error)
        )),
        _ => QueueFault::Away("the answer is not one of SQS".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_asked_where_its_address_says() {
        for (url, at, region) in [
            ("https://sqs.eu-west-1.amazonaws.com/123/q", "https://sqs.eu-west-1.amazonaws.com", "eu-west-1"),
            ("https://eu-west-1.queue.amazonaws.com/123/q", "https://eu-west-1.queue.amazonaws.com", "eu-west-1"),
            (
                "https://vpce-1.sqs.us-east-2.vpce.amazonaws.com/123/q",
                "https://vpce-1.sqs.us-east-2.vpce.amazonaws.com",
                "us-east-2",
            ),
            ("http://127.0.0.1:5000/123/q", "http://127.0.0.1:5000", ""),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000", ""),
        ] {
            assert_eq!((origin(url), region_of(url)), (at, region), "{url}");
        }
        assert_eq!(Queue::new("http://127.0.0.1:1/q", "").region, ANY_REGION);
        assert_eq!(Queue::new("http://127.0.0.1:1/q", "eu-north-1").region, "eu-north-1");
        assert_eq!(Queue::new("https://sqs.eu-west-1.amazonaws.com/1/q", "eu-north-1").region, "eu-west-1");
    }

    #[test]
    fn each_entry_has_its_own_outcome() {
        let failed = |id: &str, at_fault: bool| {
            let entry = BatchResultErrorEntry::builder().id(id).code("X").sender_fault(at_fault).build();
            entry.expect("an entry")
        };
        let answer = outcomes(4, ["3", "7"].into_iter(), &[failed("0", true), failed("1", false), failed("x", true)]);
        assert!(matches!(answer[0], Err(QueueFault::Refused(_))));
        assert!(matches!(answer[1], Err(QueueFault::Away(_))) && matches!(answer[2], Err(QueueFault::Away(_))));
        assert_eq!(answer[3], Ok(()));
    }
}
