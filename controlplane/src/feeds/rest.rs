//! REST requests to one venue: paced, timed, bounded, and told to slow down when the venue says so.
//!
//! It knows HTTP and nothing of what the bodies mean. A venue's REST interface is a fallback and a witness, never the
//! main source: requests are few, and every one of a venue goes through one gate. Prices are asked for by one task, for
//! whoever waits in the `queue` and for what the venue's board finds stale (`poll`).

mod answer;
pub mod poll;
pub mod queue;

use self::queue::{Answered, Class, Queue};
use super::backoff::{Gate, Outages};
use super::connect::Trust;
use super::plan::Market;
use super::timing::{Timing, duration_ms};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
use tokio::time::Instant;
use venues::protocol::RestRequest;

/// How long we stay away when a venue limits us without saying for how long.
const LIMITED_WAIT: Duration = Duration::from_secs(30);

/// Longest wait a venue can impose on us, whatever it says: Bybit bans for 10 minutes.
const LIMITED_WAIT_MAX: Duration = Duration::from_secs(600);

/// Requests for prices that may be under way at one venue: at 40 ms each they are 3,200 a second, far above what any
/// venue permits.
pub const REQUESTS_MAX: usize = 128;

/// How long a connection stays open that carries nothing: venues close theirs after a minute or so.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// For so long a venue that failed is asked after those that did not.
const TROUBLED: Duration = Duration::from_secs(10);

/// Longest that the last of those who wait should wait for requests of their own; beyond, they share requests. A shared
/// one may be the list of everything that the venue trades, half a megabyte, and is not worth less.
const SHARE_AFTER: Duration = Duration::from_millis(50);

/// A REST interface of a venue. One for each venue, shared by whoever asks it.
pub struct RestClient {
    http: Client,
    base: String,
    names: usize,
    gate: Gate,
    /// Who does not answer within this is down; within less, it is only too slow for whoever asked.
    answers_within: Duration,
    outages: Mutex<Outages>,
    queue: Queue,
    failed: Mutex<Option<Instant>>,
}

/// Why a request gave no body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestFault {
    /// No connection, or it broke.
    Unreachable(String),
    /// No whole answer within the patience of whoever asked.
    Late(Duration),
    /// The venue told us to slow down; the gate is held for this long.
    Limited(Duration),
    /// The body is larger than we read.
    TooLarge {
        /// The bound, bytes.
        bytes_max: usize,
    },
}

impl std::fmt::Display for RestFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "REST: {why}"),
            Self::Late(patience) => write!(f, "REST: no whole answer within {} ms", patience.as_millis()),
            Self::Limited(wait) => write!(f, "REST: the venue limits us; next request in {} s", wait.as_secs()),
            Self::TooLarge { bytes_max } => write!(f, "REST: the answer is over {bytes_max} bytes"),
        }
    }
}

/// An answer of any status, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestAnswer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// The HTTP client that all venues share: no redirects, no proxy, nothing but TLS 1.2 or better towards the outside.
///
/// # Errors
/// When TLS cannot be set up.
pub fn http_client(trust: &Trust, timing: &Timing) -> Result<Client, String> {
    // A proxy setting of the environment must not lead a loopback simulator's traffic away.
    Client::builder()
        .tls_backend_preconfigured(trust.config())
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(duration_ms(timing.rest_ms))
        .pool_max_idle_per_host(REQUESTS_MAX)
        .pool_idle_timeout(IDLE_MAX)
        .user_agent(concat!("trinity-beast/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|fault| format!("HTTPS cannot be set up: {}", reason(&fault)))
}

impl RestClient {
    /// A client of the interface at `base`, which takes up to `names` markets in a request for prices and at most one
    /// request every `gap_ms`.
    #[must_use]
    pub fn new(http: Client, base: String, names: usize, gap_ms: u64, timing: &Timing) -> Self {
        let outages = Mutex::new(Outages::new(timing.backoff_min_ms, timing.backoff_max_ms));
        let (names, gate) = (names.max(1), Gate::new(gap_ms));
        let (answers_within, queue) = (duration_ms(timing.rest_ms), Queue::default());
        Self { http, base, names, gate, answers_within, outages, queue, failed: Mutex::default() }
    }

    /// The base address.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks for the price of a market. The answer comes by what is returned; dropping that withdraws the question, and
    /// then no request is made for it alone. `None`: too many wait.
    pub fn ask(&self, market: Market, class: Class, until: Instant) -> Option<oneshot::Receiver<Answered>> {
        self.queue.ask(market, class, until)
    }

    /// How long the request of whoever asks now would wait, about. Uses nothing.
    #[must_use]
    pub fn wait(&self, class: Class) -> Duration {
        let requests = self.queue.waiting_before(class) / self.names;
        self.gate.wait() + self.gate.gap().saturating_mul(u32::try_from(requests).unwrap_or(u32::MAX))
    }

    /// Whether it failed lately.
    #[must_use]
    pub fn is_troubled(&self) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|failed| failed.elapsed() < TROUBLED)
    }

    /// Notes whether it answered as it should.
    fn note(&self, is_well: bool) {
        let failed = (!is_well).then(Instant::now);
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }

    /// How many markets a request for clients should take now.
    fn share(&self) -> usize {
        let waiting = u32::try_from(self.queue.clients_waiting()).unwrap_or(u32::MAX);
        if self.gate.gap().saturating_mul(waiting) > SHARE_AFTER { self.names } else { 1 }
    }

    /// Asks, in turn, and waits `patience` for the whole answer, at most `bytes_max` of it. An answer of any status is an
    /// answer, but for 429, a ban, and 503 that says for how long; after several other 5xx about different things, with
    /// nothing else in between, the gate is held as after a fault.
    ///
    /// # Errors
    /// See [`RestFault`]. After a fault the gate stays closed for a while, unless only the patience was short.
    pub async fn get(
        &self,
        request: &RestRequest,
        bytes_max: usize,
        patience: Duration,
    ) -> Result<RestAnswer, RestFault> {
        self.gate.pass().await;
        self.send(request, bytes_max, patience).await
    }

    /// As [`RestClient::get`], in a turn that was taken. An outage that meets many requests is counted once.
    async fn send(&self, request: &RestRequest, bytes_max: usize, patience: Duration) -> Result<RestAnswer, RestFault> {
        let sent = Instant::now();
        let answer = self.fetch(request, bytes_max, patience).await;
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        let hold = match &answer {
            // One instrument that the venue cannot tell of must not take the others away.
            Ok(answer) if answer.status >= 500 => outages.refused(sent, &request.path),
            Ok(_) => {
                outages.worked(sent);
                None
            }
            Err(RestFault::Limited(wait)) => Some(*wait),
            // One key's clients must not take a slow venue's REST away from everybody else.
            Err(RestFault::Late(waited)) if *waited < self.answers_within => None,
            Err(_) => outages.failed(sent),
        };
        drop(outages);
        if let Some(wait) = hold {
            self.gate.hold(wait);
        }
        answer
    }

    async fn fetch(
        &self,
        request: &RestRequest,
        bytes_max: usize,
        patience: Duration,
    ) -> Result<RestAnswer, RestFault> {
        let failed = |fault: reqwest::Error| {
            if fault.is_timeout() && !fault.is_connect() {
                return RestFault::Late(patience);
            }
            // The address is public and ours; leaving it out only keeps the text short.
            RestFault::Unreachable(reason(&fault.without_url()))
        };
        let url = format!("{}{}", self.base, request.path);
        let mut response = self.http.get(url).timeout(patience).send().await.map_err(failed)?;
        if let Some(wait) = limited(response.status(), response.headers(), SystemTime::now()) {
            return Err(RestFault::Limited(wait));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > bytes_max {
                return Err(RestFault::TooLarge { bytes_max });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(RestAnswer { status: response.status().as_u16(), body })
    }
}

/// How long to stay away from `now` on, if the venue says that we ask too often or that it is closed for a while. 403 is
/// how Bybit bans; 418 is the same elsewhere.
fn limited(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|text| retry_after(text, now));
    let wait = match status.as_u16() {
        429 => said.unwrap_or(LIMITED_WAIT),
        403 | 418 => said.unwrap_or(LIMITED_WAIT_MAX),
        503 => said?,
        _ => return None,
    };
    Some(wait.min(LIMITED_WAIT_MAX))
}

/// How long from `now` on `Retry-After` says, in seconds or as a date. A date that is past says nothing: the clocks differ.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(text).ok()?.duration_since(now).ok()
}

/// The innermost cause: reqwest's own words (`error sending request`) say nothing.
fn reason(fault: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = fault;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    /// How long a venue has in these tests, ms.
    const ANSWERS_WITHIN_MS: u64 = 200;

    /// A client of a venue that says this to every request, or nothing. To be kept until the end: the venue.
    async fn client(reply: Option<&'static str>) -> (RestClient, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        let mut venue = JoinSet::new();
        venue.spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 4_096];
            loop {
                let length = stream.read(&mut request).await.expect("a request");
                assert!(length > 0);
                let reply = if request[..length].starts_with(b"GET /good ") { Some("200 OK") } else { reply };
                if let Some(reply) = reply {
                    let text = format!("HTTP/1.1 {reply}\r\ncontent-length: 0\r\n\r\n");
                    stream.write_all(text.as_bytes()).await.expect("sent");
                }
            }
        });
        let timing =
            Timing { rest_ms: ANSWERS_WITHIN_MS, backoff_min_ms: 20_000, backoff_max_ms: 30_000, ..Timing::default() };
        let http = http_client(&Trust::nobody().expect("TLS"), &timing).expect("a client");
        (RestClient::new(http, base, 1, 0, &timing), venue)
    }

    /// What becomes of a request for `path`.
    async fn get(client: &RestClient, path: &str, patience_ms: u64) -> Result<u16, RestFault> {
        let request = RestRequest { path: path.to_owned() };
        client.get(&request, 1_024, duration_ms(patience_ms)).await.map(|answer| answer.status)
    }

    /// What becomes of a request to a venue that says this to it, or nothing; and for how long its gate is held then.
    async fn ask(reply: Option<&'static str>, patience_ms: u64) -> (Result<u16, RestFault>, Duration) {
        let (client, _venue) = client(reply).await;
        let answer = get(&client, "/x", patience_ms).await;
        (answer, client.gate.wait())
    }

    #[tokio::test]
    async fn who_has_little_patience_shuts_the_gate_for_nobody() {
        let late = |ms| Err(RestFault::Late(duration_ms(ms)));
        assert_eq!(ask(None, ANSWERS_WITHIN_MS / 2).await, (late(ANSWERS_WITHIN_MS / 2), Duration::ZERO));
        let (answer, held) = ask(None, ANSWERS_WITHIN_MS).await;
        assert_eq!((answer, held.is_zero()), (late(ANSWERS_WITHIN_MS), false));
        assert_eq!(ask(Some("200 OK"), 30_000).await, (Ok(200), Duration::ZERO));
    }

    /// The last answer of a venue that says this to each of these requests (but 200 to `/good`), and whether the gate is
    /// held only then, and for at least so long.
    async fn check_gate(reply: &'static str, paths: &[&str], answer: Result<u16, RestFault>, held_s: Option<u64>) {
        let (client, _venue) = client(Some(reply)).await;
        let mut last = Ok(0);
        for path in paths {
            assert!(client.gate.is_open(), "{reply}: before {path}");
            last = get(&client, path, 30_000).await;
        }
        assert_eq!(last, answer, "{reply}");
        // A little of it is over when it is looked at.
        let least = Duration::from_secs(held_s.map_or(0, |held_s| held_s - 10));
        let held = client.gate.wait();
        assert!(held >= least && held.is_zero() == held_s.is_none(), "{reply} {paths:?}: {held:?}");
    }

    #[tokio::test]
    async fn a_venue_that_fails_is_left_alone_but_not_for_one_instrument() {
        for (reply, status) in [("500 Internal Server Error", 500), ("502 Bad Gateway", 502), ("503 Busy", 503)] {
            check_gate(reply, &["/a", "/a", "/a", "/a", "/a"], Ok(status), None).await;
            check_gate(reply, &["/a", "/b", "/good", "/c"], Ok(status), None).await;
            check_gate(reply, &["/a", "/b", "/c"], Ok(status), Some(20)).await;
        }
        check_gate("404 Not Found", &["/a", "/b", "/c", "/d"], Ok(404), None).await;
        let closed = Err(RestFault::Limited(Duration::from_secs(60)));
        check_gate("503 Service Unavailable\r\nretry-after: 60", &["/a"], closed, Some(60)).await;
    }

    #[track_caller]
    fn check(status: u16, retry_after: Option<&'static str>, wait_s: Option<u64>) {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").expect("a date");
        let mut headers = HeaderMap::new();
        headers.extend(retry_after.map(|text| (RETRY_AFTER, HeaderValue::from_static(text))));
        let status = StatusCode::from_u16(status).expect("a status");
        assert_eq!(limited(status, &headers, now), wait_s.map(Duration::from_secs), "{status} {retry_after:?}");
    }

    #[test]
    fn a_limit_is_honoured_within_reason() {
        check(200, None, None);
        check(200, Some("5"), None);
        check(500, Some("5"), None);
        check(503, None, None);
        check(503, Some("soon"), None);
        check(503, Some("5"), Some(5));
        check(503, Some("99999999"), Some(600));
        check(503, Some("Wed, 21 Oct 2026 07:29:30 GMT"), Some(90));
        check(429, Some("7"), Some(7));
        check(429, None, Some(30));
        check(429, Some("soon"), Some(30));
        check(429, Some("Wed, 21 Oct 2026 07:28:45 GMT"), Some(45));
        check(429, Some("Wed, 21 Oct 2026 08:28:00 GMT"), Some(600));
        check(429, Some("0"), Some(0));
        check(429, Some("Wed, 21 Oct 2026 07:00:00 GMT"), Some(30));
        check(503, Some("Wed, 21 Oct 2026 07:00:00 GMT"), None);
        check(429, Some("99999999"), Some(600));
        check(403, None, Some(600));
        check(403, Some("Wed, 21 Oct 2026 07:30:00 GMT"), Some(120));
        check(418, Some("60"), Some(60));
    }
}
