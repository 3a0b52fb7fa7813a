//! Bytes of a report on their way out: formatted, perhaps compressed, and handed over part by part.
//!
//! Who reads them sets the pace: a few parts wait at most, and whoever stops reading stops the work. A report that ends
//! early ends with an error, never like one that is whole. How parts travel is not known here.

use super::format::{LineWriter, Opening};
use super::source::{Page, ReportSource};
use crate::store::StoreError;
use async_compression::Level;
use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use std::io;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Lines of one part: about 100 KB, a millisecond's work, so that others get their turn.
const PART_LINES: usize = 1_000;

/// Parts that wait for the reader: with the pages they are made of a report holds some 4 MB.
const PARTS_MAX: usize = 4;

/// How hard `zstd` tries, of 22: more makes a stream slower than its reader and little smaller.
const ZSTD_LEVEL: i32 = 1;

/// How hard `gzip` tries, of 9.
const GZIP_LEVEL: i32 = 3;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// The name in `Content-Encoding`; `None` for none.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// Encodes what is written to it into memory.
enum Encoder {
    Identity(Vec<u8>),
    Gzip(Box<GzipEncoder<Vec<u8>>>),
    Zstd(Box<ZstdEncoder<Vec<u8>>>),
}

impl Encoder {
    fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Identity => Self::Identity(Vec::new()),
            Encoding::Gzip => Self::Gzip(Box::new(GzipEncoder::with_quality(Vec::new(), Level::Precise(GZIP_LEVEL)))),
            Encoding::Zstd => Self::Zstd(Box::new(ZstdEncoder::with_quality(Vec::new(), Level::Precise(ZSTD_LEVEL)))),
        }
    }

    /// Encodes `bytes`; what has come out so far, which may be nothing yet.
    async fn push(&mut self, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity(_) => Ok(bytes),
            Self::Gzip(encoder) => {
                encoder.write_all(&bytes).await?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Self::Zstd(encoder) => {
                encoder.write_all(&bytes).await?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }

    /// What ends it.
    async fn end(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity(rest) => Ok(std::mem::take(rest)),
            Self::Gzip(encoder) => {
                encoder.shutdown().await?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Self::Zstd(encoder) => {
                encoder.shutdown().await?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }
}

/// A whole text, encoded.
///
/// # Errors
/// None that memory has.
pub async fn encoded(text: Vec<u8>, encoding: Encoding) -> io::Result<Vec<u8>> {
    let mut encoder = Encoder::new(encoding);
    let mut bytes = encoder.push(text).await?;
    bytes.extend(encoder.end().await?);
    Ok(bytes)
}

/// A part of a report.
#[derive(Debug, Default)]
pub struct Part {
    /// Its bytes, encoded.
    pub bytes: Vec<u8>,
    /// Lines in it.
    pub lines: u64,
    /// Bytes before they were encoded.
    pub plain_bytes: u64,
    /// Whether the report ends with it.
    pub is_last: bool,
}

/// Why a report ended early.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// Its reader is gone.
    #[error("the reader went away")]
    Gone,
    /// No further lines are to be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be written down.
    #[error("it could not be written: {0}")]
    Writing(#[from] io::Error),
}

/// The two ends of a report on its way.
#[must_use]
pub fn parts() -> (Sender<Part>, Receiver<Part>) {
    channel(PARTS_MAX)
}

/// Writes a report from its first page to its end. The reader knows a report that ended early by its last part, which
/// is missing.
///
/// # Errors
/// Why it ended early.
pub async fn pump(
    first: Page,
    mut source: ReportSource,
    mut writer: LineWriter,
    opening: Option<Opening>,
    encoding: Encoding,
    parts: &Sender<Part>,
) -> Result<(), Broken> {
    tokio::select! {
        // A page may take long: whoever is gone is not worked for meanwhile.
        biased;
        () = parts.closed() => Err(Broken::Gone),
        outcome = async {
            let mut encoder = Encoder::new(encoding);
            let mut text = Vec::new();
            writer.begin(&first.lines, opening.as_ref(), &mut text)?;
            let mut page = Some(first);
            while let Some(Page { lines, next }) = page {
                for some in lines.chunks(PART_LINES) {
                    let before = writer.lines();
                    writer.write(some, &mut text)?;
                    let part = Part { lines: writer.lines() - before, ..part(&mut encoder, &mut text).await? };
                    parts.send(part).await.map_err(|_| Broken::Gone)?;
                }
                page = match next {
                    Some(_) if !writer.is_full() => source.next_page().await?,
                    _ => None,
                };
            }
            writer.end(&mut text)?;
            let mut last = part(&mut encoder, &mut text).await?;
            last.bytes.extend(encoder.end().await?);
            last.is_last = true;
            parts.send(last).await.map_err(|_| Broken::Gone)
        } => outcome,
    }
}

/// Makes a part of the text written so far.
async fn part(encoder: &mut Encoder, text: &mut Vec<u8>) -> io::Result<Part> {
    let text = std::mem::take(text);
    let plain_bytes = text.len() as u64;
    Ok(Part { bytes: encoder.push(text).await?, plain_bytes, ..Part::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::cursor::Mark;
    use crate::reports::query::{Asking, Format, Report, ReportQuery, Scope};
    use crate::store::sqlite::SqliteStore;
    use crate::store::{Store, UsageLine};
    use async_compression::tokio::write::{GzipDecoder, ZstdDecoder};
    use std::sync::Arc;

    /// Lines of a page: three parts, the last one short.
    const LINES: u64 = 2 * PART_LINES as u64 + 7;

    fn page() -> Page {
        let line = |time_ms| UsageLine {
            time_ms,
            key: 7,
            asset: "BTC".into(),
            protocol: "tcp".into(),
            endpoint: "/price".into(),
            status: 200,
            tier: "local".into(),
            node: "n1".into(),
            requests: 1,
            segment: 1,
            offset: time_ms,
        };
        Page { lines: (0..LINES).map(line).collect(), next: None }
    }

    fn query() -> ReportQuery {
        let asking = Asking { scope: Scope::Admin, now_ms: 1_793_500_000_000, retention_days: 93 };
        ReportQuery::parse(Report::Usage, &[], &asking).expect("a good query")
    }

    /// A source without a database, and a writer of `csv`.
    fn ends() -> (ReportSource, LineWriter) {
        let query = query();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::memory());
        let writer = LineWriter::new(Format::Csv, &query);
        (ReportSource::new(store, Arc::new(query)), writer)
    }

    async fn sent(encoding: Encoding) -> (Vec<u8>, u64, u64) {
        let (sender, mut receiver) = parts();
        let (source, writer) = ends();
        let pumping = tokio::spawn(async move { pump(page(), source, writer, None, encoding, &sender).await });
        let (mut bytes, mut lines, mut plain_bytes, mut is_over) = (Vec::new(), 0, 0, false);
        while let Some(part) = receiver.recv().await {
            assert!(!is_over, "nothing comes behind the last");
            bytes.extend(part.bytes);
            (lines, plain_bytes, is_over) = (lines + part.lines, plain_bytes + part.plain_bytes, part.is_last);
        }
        assert!(is_over && pumping.await.expect("no panic").is_ok());
        (bytes, lines, plain_bytes)
    }

    #[tokio::test]
    async fn what_is_unpacked_is_what_was_written() {
        let (plain, lines, plain_bytes) = sent(Encoding::Identity).await;
        assert_eq!((lines, plain_bytes), (LINES, plain.len() as u64));
        let (packed, ..) = sent(Encoding::Gzip).await;
        let mut decoder = GzipDecoder::new(Vec::new());
        decoder.write_all(&packed).await.expect("gzip");
        decoder.shutdown().await.expect("to its end");
        assert!(decoder.into_inner() == plain && packed.len() < plain.len() / 4);
        let (packed, ..) = sent(Encoding::Zstd).await;
        let mut decoder = ZstdDecoder::new(Vec::new());
        decoder.write_all(&packed).await.expect("zstd");
        decoder.shutdown().await.expect("to its end");
        assert!(decoder.into_inner() == plain && packed.len() < plain.len() / 4);
    }

    #[tokio::test]
    async fn whoever_stops_reading_stops_the_work() {
        let (sender, receiver) = parts();
        let (source, writer) = ends();
        drop(receiver);
        let outcome = pump(page(), source, writer, None, Encoding::Identity, &sender).await;
        assert!(matches!(outcome, Err(Broken::Gone)), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_database_that_goes_leaves_the_last_part_missing() {
        let (sender, mut receiver) = parts();
        let (source, writer) = ends();
        // The store in memory has no schema: its next page is a fault.
        let first = Page { next: Some(query().behind(Mark::default())), ..page() };
        let pumping = tokio::spawn(async move { pump(first, source, writer, None, Encoding::Identity, &sender).await });
        let mut lines = 0;
        while let Some(part) = receiver.recv().await {
            assert!(!part.is_last);
            lines += part.lines;
        }
        let outcome = pumping.await.expect("no panic");
        assert!(matches!(outcome, Err(Broken::Store(_))), "{outcome:?}");
        assert_eq!(lines, LINES);
    }
}
