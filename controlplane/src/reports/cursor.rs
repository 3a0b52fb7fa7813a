//! Where the next page of a report begins, as a text for whoever reads it page by page.
//!
//! The text means nothing to them: hex digits of a version, the range, a print of the query it came from, the place, and
//! a checksum. It grants nothing: whose usage may be seen is decided with every request anew. It guards against mishap,
//! not against forgery, which would gain nothing but another place in one's own report.

use super::query::ReportQuery;
use crate::keys::{from_hex, to_hex};
use std::fmt;

/// The form that is written and read.
const VERSION: u8 = 1;

/// Bytes of the longest: two node names and an asset of full length, and numbers.
const BYTES_MAX: usize = 512;

/// What is wrong with a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorFault {
    /// It is not one, or not all of one.
    Broken,
    /// It is of a form that this program does not read.
    OtherVersion,
    /// The other parameters are not those of the page that it came with.
    OtherQuery,
}

impl fmt::Display for CursorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "broken: give the next_cursor of a page exactly as it was, or leave it out to begin anew",
            Self::OtherVersion => "of another version of this service: leave it out to begin anew",
            Self::OtherQuery => {
                "of another query: with a cursor everything but limit must be as it was; leave it out to \
                                 begin anew"
            }
        })
    }
}

/// The line that a page ended with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Its time, or its interval's begin, Unix ms.
    pub time_ms: u64,
    /// Of a group.
    pub key: u32,
    /// Of a group.
    pub status: u16,
    /// Of a group.
    pub asset: String,
    /// Of a group.
    pub protocol: String,
    /// Of a group.
    pub tier: String,
    /// Of detail and of a group.
    pub node: String,
    /// Of detail.
    pub segment: u64,
    /// Of detail.
    pub offset: u64,
}

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The range that was asked for, Unix ms.
    pub asked_ms: (u64, u64),
    /// The range that the report covers, Unix ms.
    pub covered_ms: (u64, u64),
    /// Of the query.
    print: u32,
    /// Behind this line.
    pub mark: Mark,
}

impl Cursor {
    /// The place behind `mark` in the report that `query` is.
    #[must_use]
    pub fn behind(query: &ReportQuery, mark: Mark) -> Self {
        let covered_ms = (query.filter.from_ms, query.filter.to_ms);
        Self { asked_ms: query.asked_ms, covered_ms, print: print(query), mark }
    }

    /// Whether it came from that query.
    #[must_use]
    pub fn fits(&self, query: &ReportQuery) -> bool {
        self.print == print(query)
    }

    /// Reads what [`Cursor`]'s `Display` writes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, CursorFault> {
        if text.len() > 2 * BYTES_MAX || !text.is_ascii() {
            return Err(CursorFault::Broken);
        }
        let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().and_then(from_hex::<1>));
        let bytes: Vec<u8> =
            pairs.map(|byte| byte.map(|[byte]| byte)).collect::<Option<_>>().ok_or(CursorFault::Broken)?;
        let (bytes, sum) = bytes.split_last_chunk::<4>().ok_or(CursorFault::Broken)?;
        if crc32c::crc32c(bytes) != u32::from_le_bytes(*sum) {
            return Err(CursorFault::Broken);
        }
        let (version, rest) = bytes.split_first().ok_or(CursorFault::Broken)?;
        if *version != VERSION {
            return Err(CursorFault::OtherVersion);
        }
        Self::from_bytes(rest).ok_or(CursorFault::Broken)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let asked_ms = (reader.number()?, reader.number()?);
        let covered_ms = (reader.number()?, reader.number()?);
        let print = reader.number()?.try_into().ok()?;
        let mark = Mark {
            time_ms: reader.number()?,
            key: reader.number()?.try_into().ok()?,
            status: reader.number()?.try_into().ok()?,
            segment: reader.number()?,
            offset: reader.number()?,
            asset: reader.text()?,
            protocol: reader.text()?,
            tier: reader.text()?,
            node: reader.text()?,
        };
        reader.0.is_empty().then_some(Self { asked_ms, covered_ms, print, mark })
    }

    fn bytes(&self) -> Vec<u8> {
        let mark = &self.mark;
        let numbers = [
            self.asked_ms.0,
            self.asked_ms.1,
            self.covered_ms.0,
            self.covered_ms.1,
            self.print.into(),
            mark.time_ms,
            mark.key.into(),
            mark.status.into(),
            mark.segment,
            mark.offset,
        ];
        let mut bytes = vec![VERSION];
        for number in numbers {
            bytes.extend(number.to_le_bytes());
        }
        for text in [&mark.asset, &mark.protocol, &mark.tier, &mark.node] {
            // What is stored is shorter; were it not, the text would not be read again, rather than read wrongly.
            bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            bytes.extend(text.as_bytes());
        }
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.bytes()))
    }
}

/// What tells queries apart: everything that decides which lines there are and in which order.
fn print(query: &ReportQuery) -> u32 {
    crc32c::crc32c(format!("{}?{query}", query.report.name()).as_bytes())
}

/// Takes bytes apart.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = *self.take(1)?.first()?;
        std::str::from_utf8(self.take(length.into())?).ok().map(str::to_owned)
    }
}
