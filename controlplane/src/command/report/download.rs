//! A report's way from the service to a file: asked for, unpacked, counted, and kept only if it came whole.
//!
//! A body is whole when the service ended it: a connection that breaks, or a compressed stream without its end, is an
//! error. What came of it stays in FILE.part.

use super::super::service::{read_json, refused_with};
use anyhow::{Context, anyhow};
use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use futures_util::TryStreamExt;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, BufReader};
use tokio_util::io::StreamReader;

/// Longest that a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Longest silence within an answer. A report over a month may look for its first row for some seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Most bytes of a page, or of a refusal: a thousand rows are some 200 KB.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// Longest wait for the next page that the service may ask for: what takes longer is no matter of pace.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How often in a row a page is asked for again.
const RETRIES_MAX: usize = 30;

/// Bytes moved at a time.
const CHUNK: usize = 64 << 10;

/// Time between two tellings of how far it is: on a terminal, and in a log.
const TELL_TERMINAL: Duration = Duration::from_millis(200);
const TELL_LOG: Duration = Duration::from_secs(5);

/// Where a report goes.
pub struct Sink {
    to: Target,
    bytes: u64,
    began: Instant,
    told: Instant,
    /// How often it is told how far it is; `None`: not at all, because the report itself is on the terminal.
    every: Option<Duration>,
}

enum Target {
    Stdout,
    File { file: File, part: PathBuf, whole: PathBuf },
}

impl Sink {
    /// A file, which must be one that can be written, or stdout.
    pub fn open(output: Option<&Path>) -> anyhow::Result<Self> {
        let (to, shows) = match output {
            None => (Target::Stdout, io::stdout().is_terminal()),
            Some(whole) => {
                let mut part = whole.as_os_str().to_owned();
                part.push(".part");
                let part = PathBuf::from(part);
                let file = File::create(&part).with_context(|| format!("cannot write {}", part.display()))?;
                (Target::File { file, part, whole: whole.to_owned() }, false)
            }
        };
        let every = if io::stderr().is_terminal() { TELL_TERMINAL } else { TELL_LOG };
        let now = Instant::now();
        Ok(Self { to, bytes: 0, began: now, told: now, every: (!shows).then_some(every) })
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match &mut self.to {
            Target::Stdout => io::stdout().lock().write_all(bytes)?,
            Target::File { file, part, .. } => {
                file.write_all(bytes).with_context(|| format!("cannot write {}", part.display()))?;
            }
        }
        self.bytes += bytes.len() as u64;
        if self.every.is_some_and(|every| self.told.elapsed() >= every) {
            self.told = Instant::now();
            let end = if io::stderr().is_terminal() { "\r" } else { "\n" };
            self.tell(end);
        }
        Ok(())
    }

    /// How far it is. Nothing can be done about a stderr that is gone.
    fn tell(&self, end: &str) {
        let _ = write!(io::stderr(), "{} bytes in {:.1} s{end}", self.bytes, self.began.elapsed().as_secs_f32());
    }

    /// The report is whole, or it is not: then there is no file.
    pub fn end(mut self, done: anyhow::Result<()>) -> anyhow::Result<()> {
        let done = done.and_then(|()| self.keep());
        match (&self.to, self.bytes) {
            (Target::Stdout, _) | (_, 0) if done.is_err() => {
                if let Target::File { part, .. } = &self.to {
                    // Empty: nobody misses it.
                    let _ = std::fs::remove_file(part);
                }
                done
            }
            (Target::File { part, whole, .. }, bytes) => done.with_context(|| {
                format!("{} is not written; the first {bytes} bytes are in {}", whole.display(), part.display())
            }),
            (Target::Stdout, _) => done,
        }
    }

    fn keep(&mut self) -> anyhow::Result<()> {
        match &mut self.to {
            Target::Stdout => io::stdout().lock().flush()?,
            Target::File { file, part, whole } => {
                file.sync_all().with_context(|| format!("cannot write {}", part.display()))?;
                std::fs::rename(&*part, &*whole).with_context(|| format!("cannot make {}", whole.display()))?;
                self.tell("\n");
            }
        }
        Ok(())
    }
}

/// A question to the service.
pub struct Asks {
    http: reqwest::Client,
    url: String,
    members: Vec<(&'static str, String)>,
    key: String,
}

impl Asks {
    /// The question at `url` with these members. Nothing is asked yet.
    pub fn new(url: String, members: Vec<(&'static str, String)>, key: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().connect_timeout(CONNECT_MAX).read_timeout(SILENCE_MAX).build();
        Ok(Self { http: http.context("cannot set up an HTTP client")?, url, members, key: key.to_owned() })
    }

    /// The body, as it comes.
    pub async fn body(&self, sink: &mut Sink) -> anyhow::Result<()> {
        let response = self.ask(None).await?;
        let mut body = plain(response)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = body.read(&mut chunk).await.map_err(|error| broken(&error, sink.bytes))?;
            if length == 0 {
                return Ok(());
            }
            sink.write(&chunk[..length])?;
        }
    }

    /// Every page, as one document.
    pub async fn pages(&self, sink: &mut Sink) -> anyhow::Result<()> {
        let mut cursor: Option<String> = None;
        let mut is_first = true;
        loop {
            let page = whole(plain(self.ask_patiently(cursor.as_deref()).await?)?, sink.bytes).await?;
            let mut page = read_json(&page)?;
            let next = page["next_cursor"].as_str().map(str::to_owned);
            let Value::Array(rows) = page["rows"].take() else {
                return Err(anyhow!("the answer has no rows: --all is for reports that have pages"));
            };
            if is_first {
                sink.write(opening(&page).as_bytes())?;
            }
            for row in rows {
                let comma = if std::mem::take(&mut is_first) { "" } else { "," };
                sink.write(format!("{comma}\n{row}").as_bytes())?;
            }
            is_first = false;
            match next {
                None => return sink.write(b"\n],\"next_cursor\":null}\n"),
                // A service that turned in a circle would never end.
                Some(next) if cursor.as_ref() == Some(&next) => return Err(anyhow!("the next page is this one again")),
                next => cursor = next,
            }
        }
    }

    /// As [`Asks::ask`], and again for as long as the service says how soon: a key may ask so often a second.
    async fn ask_patiently(&self, cursor: Option<&str>) -> anyhow::Result<Response> {
        for _ in 0..RETRIES_MAX {
            let response = self.send(cursor).await?;
            match retry_after(&response).filter(|wait| *wait <= RETRY_MAX) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return accepted(response).await,
            }
        }
        self.ask(cursor).await
    }

    /// The answer, if it is a report.
    async fn ask(&self, cursor: Option<&str>) -> anyhow::Result<Response> {
        accepted(self.send(cursor).await?).await
    }

    /// Whatever is answered.
    async fn send(&self, cursor: Option<&str>) -> anyhow::Result<Response> {
        let mut url = Url::parse(&self.url).context("--target is no address")?;
        // Without a password that may stand in it.
        let place = format!("{}{}", url.host_str().unwrap_or_default(), url.path());
        let cursor = cursor.map(|cursor| ("cursor", cursor));
        let before = |(name, _): &(&str, &str)| cursor.is_none() || *name != "cursor";
        let members = self.members.iter().map(|(name, value)| (*name, value.as_str())).filter(before);
        url.query_pairs_mut().extend_pairs(members.chain(cursor));
        let sent = self.http.get(url).bearer_auth(&self.key).header(ACCEPT_ENCODING, "zstd, gzip").send().await;
        let sent = sent.map_err(reqwest::Error::without_url);
        sent.with_context(|| format!("no answer from {place}: check --target and that it runs"))
    }
}

/// How long the service asks to wait, if it would answer then.
fn retry_after(response: &Response) -> Option<Duration> {
    let is_for_now = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let seconds = response.headers().get(RETRY_AFTER).filter(|_| is_for_now)?;
    Some(Duration::from_secs(seconds.to_str().ok()?.parse().ok()?))
}

/// The answer, if it is a report; else what the service said.
async fn accepted(response: Response) -> anyhow::Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let problem = read_json(&whole(plain(response)?, 0).await?)?;
    Err(refused_with(status.as_u16(), &problem))
}

/// A page's members but its rows and its cursor, up to where rows begin.
fn opening(page: &Value) -> String {
    let members = page.as_object().into_iter().flatten();
    let kept = members.filter(|(name, _)| !matches!(name.as_str(), "rows" | "next_cursor"));
    let kept: String = kept.map(|(name, value)| format!("{}:{value},", Value::from(name.as_str()))).collect();
    format!("{{{kept}\"rows\":[")
}

/// The body as the report is, whatever way it was packed for.
fn plain(response: Response) -> anyhow::Result<Box<dyn AsyncRead + Send + Unpin>> {
    let packed = response.headers().get(CONTENT_ENCODING).map(|name| name.as_bytes().to_ascii_lowercase());
    let bytes = response.bytes_stream().map_err(|error| io::Error::other(error.without_url()));
    let bytes: Box<dyn AsyncBufRead + Send + Unpin> = Box::new(BufReader::new(StreamReader::new(bytes)));
    Ok(match packed.as_deref() {
        None | Some(b"identity") => Box::new(bytes),
        Some(b"zstd") => {
            let mut bytes = ZstdDecoder::new(bytes);
            // Reads on to the body's own end, which tells whether it is whole.
            bytes.multiple_members(true);
            Box::new(bytes)
        }
        Some(b"gzip") => {
            let mut bytes = GzipDecoder::new(bytes);
            bytes.multiple_members(true);
            Box::new(bytes)
        }
        Some(_) => return Err(anyhow!("the answer is packed in a way that was not asked for")),
    })
}

/// A document, whole.
async fn whole(body: Box<dyn AsyncRead + Send + Unpin>, before: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = body.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes).await.map_err(|error| broken(&error, before))?;
    match length as u64 {
        DOCUMENT_BYTES_MAX => Err(anyhow!("the answer is longer than a page may be")),
        _ => Ok(bytes),
    }
}

fn broken(error: &io::Error, bytes: u64) -> anyhow::Error {
    anyhow!("the download broke off after {bytes} bytes ({error}): ask again")
}
