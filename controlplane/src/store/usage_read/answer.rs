//! Answers of a database that become lines.
//!
//! A page has few different texts, each of which is kept once and shared by its lines. A server's lists are read from
//! their binary form where they lie.

use super::UsageLine;
use crate::store::value::{Row, unexpected};
use crate::store::{StoreError, Stored};
use std::collections::HashSet;
use std::sync::Arc;

/// What a column of an answer is of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Time,
    Key,
    Status,
    Requests,
    Segment,
    Offset,
    Asset,
    Protocol,
    Endpoint,
    Tier,
    Node,
}

impl Part {
    /// Those of a row.
    pub const ROW: [Self; 11] = [
        Self::Time,
        Self::Key,
        Self::Status,
        Self::Requests,
        Self::Segment,
        Self::Offset,
        Self::Asset,
        Self::Protocol,
        Self::Endpoint,
        Self::Tier,
        Self::Node,
    ];

    /// The column's name.
    pub const fn column(self) -> &'static str {
        match self {
            Self::Time => "time_ms",
            Self::Key => "key_id",
            Self::Status => "status",
            Self::Requests => "requests",
            Self::Segment => "segment",
            Self::Offset => "record_offset",
            Self::Asset => "asset",
            Self::Protocol => "protocol",
            Self::Endpoint => "endpoint",
            Self::Tier => "tier",
            Self::Node => "node",
        }
    }

    const fn is_text(self) -> bool {
        matches!(self, Self::Asset | Self::Protocol | Self::Endpoint | Self::Tier | Self::Node)
    }

    /// It of a line, where it is a number.
    pub fn number_of(self, line: &UsageLine) -> Option<u64> {
        match self {
            Self::Time => Some(line.time_ms),
            Self::Key => Some(line.key.into()),
            Self::Status => Some(line.status.into()),
            Self::Requests => Some(line.requests),
            Self::Segment => Some(line.segment),
            Self::Offset => Some(line.offset),
            Self::Asset | Self::Protocol | Self::Endpoint | Self::Tier | Self::Node => None,
        }
    }

    /// It of a line, where it is a text.
    pub fn text_of(self, line: &UsageLine) -> &str {
        match self {
            Self::Asset => &line.asset,
            Self::Protocol => &line.protocol,
            Self::Endpoint => &line.endpoint,
            Self::Tier => &line.tier,
            Self::Node => &line.node,
            Self::Time | Self::Key | Self::Status | Self::Requests | Self::Segment | Self::Offset => "",
        }
    }

    /// Puts a number into a line; `None` when it does not fit.
    fn put_number(self, line: &mut UsageLine, number: i64) -> Option<()> {
        match self {
            Self::Time => line.time_ms = u64::try_from(number).ok()?,
            Self::Key => line.key = u32::try_from(number).ok()?,
            Self::Status => line.status = u16::try_from(number).ok()?,
            Self::Requests => line.requests = u64::try_from(number).ok()?,
            Self::Segment => line.segment = u64::try_from(number).ok()?,
            Self::Offset => line.offset = u64::try_from(number).ok()?,
            Self::Asset | Self::Protocol | Self::Endpoint | Self::Tier | Self::Node => return None,
        }
        Some(())
    }

    fn put_text(self, line: &mut UsageLine, text: Arc<str>) {
        match self {
            Self::Asset => line.asset = text,
            Self::Protocol => line.protocol = text,
            Self::Endpoint => line.endpoint = text,
            Self::Tier => line.tier = text,
            Self::Node => line.node = text,
            Self::Time | Self::Key | Self::Status | Self::Requests | Self::Segment | Self::Offset => {}
        }
    }
}

/// The texts of one column of a page, each once.
struct Texts {
    last: Arc<str>,
    all: HashSet<Arc<str>>,
}

impl Texts {
    fn new(empty: &Arc<str>) -> Self {
        Self { last: Arc::clone(empty), all: HashSet::new() }
    }

    fn shared(&mut self, text: &str) -> Arc<str> {
        if &*self.last != text {
            self.last = match self.all.get(text) {
                Some(known) => Arc::clone(known),
                None => {
                    let new: Arc<str> = Arc::from(text);
                    self.all.insert(Arc::clone(&new));
                    new
                }
            };
        }
        Arc::clone(&self.last)
    }
}

/// What a database answered.
pub enum Answer {
    /// Rows.
    Rows(Vec<Row>),
    /// What a server copied out, in its binary form.
    Copied(Vec<u8>),
}

/// The lines of an answer whose columns are `parts`.
///
/// # Errors
/// `Broken` when there is another thing in a column.
pub fn lines(answer: &Answer, parts: &[Part]) -> Stored<Vec<UsageLine>> {
    match answer {
        Answer::Copied(bytes) => of_copy(bytes, parts),
        Answer::Rows(rows) => match rows.as_slice() {
            [Row::Postgres(_)] => of_lists(&rows[0], parts),
            rows => of_rows(rows, parts),
        },
    }
}

/// What every copy begins with, before its flags and the length of what else is at its begin, 4 bytes each.
const COPY_BEGIN: &[u8] = b"PGCOPY\n\xff\r\n\0";

fn of_copy(bytes: &[u8], parts: &[Part]) -> Stored<Vec<UsageLine>> {
    let cut = || StoreError::Broken("its copy is not of the form that is known".to_owned());
    let empty = UsageLine::default();
    let mut texts: Vec<Texts> = parts.iter().map(|_| Texts::new(&empty.asset)).collect();
    // Flags would change the form; nothing else is at its begin.
    let rest = bytes.strip_prefix(COPY_BEGIN).and_then(|rest| rest.strip_prefix(&[0; 8])).ok_or_else(cut)?;
    let mut fields = Fields { rest };
    let mut lines = Vec::new();
    loop {
        match fields.half().ok_or_else(cut)? {
            // Behind the last.
            -1 if fields.rest.is_empty() => return Ok(lines),
            count if usize::try_from(count) == Ok(parts.len()) => {}
            _ => return Err(cut()),
        }
        let mut line = empty.clone();
        for (index, (part, texts)) in parts.iter().zip(&mut texts).enumerate() {
            let bytes = fields.next().ok_or_else(|| unexpected(index))?;
            put(*part, bytes, texts, &mut line).ok_or_else(|| unexpected(index))?;
        }
        lines.push(line);
    }
}

fn of_rows(rows: &[Row], parts: &[Part]) -> Stored<Vec<UsageLine>> {
    let empty = UsageLine::default();
    let mut texts: Vec<Texts> = parts.iter().map(|_| Texts::new(&empty.asset)).collect();
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let mut line = empty.clone();
        for (index, (part, texts)) in parts.iter().zip(&mut texts).enumerate() {
            if part.is_text() {
                part.put_text(&mut line, texts.shared(row.text_in_place(index)?));
            } else {
                part.put_number(&mut line, row.number(index)?).ok_or_else(|| unexpected(index))?;
            }
        }
        lines.push(line);
    }
    Ok(lines)
}

fn of_lists(row: &Row, parts: &[Part]) -> Stored<Vec<UsageLine>> {
    let empty = UsageLine::default();
    let mut columns = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        // No lines make no lists.
        let Some(bytes) = row.raw(index)? else { return Ok(Vec::new()) };
        columns.push((*part, List::read(bytes).ok_or_else(|| unexpected(index))?, Texts::new(&empty.asset)));
    }
    let count = columns.first().map_or(0, |(_, list, _)| list.left);
    // A server sends what it says it sends: its answer is in memory already, so that this is in proportion to it.
    let mut lines = Vec::with_capacity(count);
    for _ in 0..count {
        let mut line = empty.clone();
        for (index, (part, list, texts)) in columns.iter_mut().enumerate() {
            let bytes = list.next().ok_or_else(|| unexpected(index))?;
            put(*part, bytes, texts, &mut line).ok_or_else(|| unexpected(index))?;
        }
        lines.push(line);
    }
    if columns.iter().any(|(_, list, _)| list.left > 0) {
        return Err(StoreError::Broken("the lists of its answer differ in length".to_owned()));
    }
    Ok(lines)
}

#[inline]
fn put(part: Part, bytes: &[u8], texts: &mut Texts, line: &mut UsageLine) -> Option<()> {
    if part.is_text() {
        part.put_text(line, texts.shared(std::str::from_utf8(bytes).ok()?));
        Some(())
    } else {
        part.put_number(line, i64::from_be_bytes(bytes.try_into().ok()?))
    }
}

/// What PostgreSQL sends in its binary form, each field behind its length.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    fn half(&mut self) -> Option<i16> {
        let (half, rest) = self.rest.split_first_chunk::<2>()?;
        self.rest = rest;
        Some(i16::from_be_bytes(*half))
    }

    #[inline]
    fn word(&mut self) -> Option<i32> {
        let (word, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        Some(i32::from_be_bytes(*word))
    }

    /// The next field; `None` for NULL, and where the bytes end too soon.
    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.word()?).ok()?;
        let (field, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(field)
    }
}

/// A list of one dimension: dimensions, whether it holds NULL, the elements' type, length, first index, and the elements.
struct List<'a> {
    fields: Fields<'a>,
    left: usize,
}

impl<'a> List<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Fields { rest: bytes };
        let (dimensions, _nulls, _kind) = (fields.word()?, fields.word()?, fields.word()?);
        if dimensions == 0 {
            return Some(Self { fields, left: 0 });
        }
        let (length, _first) = (fields.word()?, fields.word()?);
        let left = usize::try_from(length).ok()?;
        // An element takes 4 bytes at the least.
        (dimensions == 1 && left <= fields.rest.len() / 4).then_some(Self { fields, left })
    }

    /// The next element; `None` behind the last, for NULL, and where the bytes end too soon.
    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        self.fields.next()
    }
}
