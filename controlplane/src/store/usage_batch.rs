//! Usage rows made ready for a database: in one order, each once, within the bounds of its columns, and added up.
//!
//! Nothing in a record can make a database refuse it for ever: what no column holds is brought to the nearest that one
//! does. Which statements carry the lines is not known here.

use super::usage_write::UsageRow;
use super::value::{stored_number, stored_text};
use super::{NAME_BYTES_MAX, StoreError, Stored};
use crate::usage::outlet::BATCH_ROWS_MAX;
use serde::ser::{Serialize, SerializeSeq, Serializer};
use std::collections::{HashMap, HashSet};

/// One minute, ms.
const MINUTE_MS: i64 = 60_000;

/// One hour, ms.
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// Bytes of a row for `COPY` without its texts: a count, 11 lengths, 6 numbers.
const COPY_ROW_BYTES: usize = 2 + 11 * 4 + 6 * 8;

/// What begins data of `COPY` in its binary form: a signature, no flags, no extension.
const COPY_HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What ends it.
const COPY_END: [u8; 2] = (-1_i16).to_be_bytes();

/// Lines of a table: `N` numbers each, then the five texts node, asset, protocol, endpoint, tier. By column, as
/// PostgreSQL takes them.
pub struct Lines<'a, const N: usize> {
    pub numbers: [Vec<i64>; N],
    pub texts: [Vec<&'a str>; 5],
}

impl<'a, const N: usize> Lines<'a, N> {
    fn with_room(count: usize) -> Self {
        Self {
            numbers: std::array::from_fn(|_| Vec::with_capacity(count)),
            texts: std::array::from_fn(|_| Vec::with_capacity(count)),
        }
    }

    fn push(&mut self, numbers: [i64; N], texts: [&'a str; 5]) {
        self.numbers.iter_mut().zip(numbers).for_each(|(column, number)| column.push(number));
        self.texts.iter_mut().zip(texts).for_each(|(column, text)| column.push(text));
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.texts[0].len()
    }

    /// By line, as SQLite takes them: a list of lists.
    ///
    /// # Errors
    /// None that is known: numbers and texts always have a form.
    pub fn json(&self) -> Stored<String> {
        serde_json::to_string(self).map_err(|why| StoreError::Broken(why.to_string()))
    }

    /// As PostgreSQL's `COPY` takes them in its binary form.
    pub fn copy(&self) -> Vec<u8> {
        let texts: usize = self.texts.iter().flatten().map(|text| text.len()).sum();
        let mut data = Vec::with_capacity(COPY_HEAD.len() + self.count() * COPY_ROW_BYTES + texts + COPY_END.len());
        data.extend_from_slice(COPY_HEAD);
        let columns = u16::try_from(N + self.texts.len()).unwrap_or(u16::MAX).to_be_bytes();
        for at in 0..self.count() {
            data.extend_from_slice(&columns);
            for column in &self.numbers {
                data.extend_from_slice(&8_u32.to_be_bytes());
                data.extend_from_slice(&column[at].to_be_bytes());
            }
            for column in &self.texts {
                // Texts here are names, of at most `NAME_BYTES_MAX` bytes.
                data.extend_from_slice(&u32::try_from(column[at].len()).unwrap_or(u32::MAX).to_be_bytes());
                data.extend_from_slice(column[at].as_bytes());
            }
        }
        data.extend_from_slice(&COPY_END);
        data
    }
}

impl<const N: usize> Serialize for Lines<'_, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((0..self.count()).map(|at| Line(self, at)))
    }
}

/// One of them.
struct Line<'l, 'a, const N: usize>(&'l Lines<'a, N>, usize);

impl<const N: usize> Serialize for Line<'_, '_, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(lines, at) = *self;
        let mut line = serializer.serialize_seq(Some(N + lines.texts.len()))?;
        lines.numbers.iter().try_for_each(|column| line.serialize_element(&column[at]))?;
        lines.texts.iter().try_for_each(|column| line.serialize_element(column[at]))?;
        line.end()
    }
}

/// A row's place: which row it is.
pub type Place<'a> = (&'a str, i64, i64);

/// What sums are kept by: the bucket's beginning, key, status; node, asset, protocol, endpoint, tier.
type Group<'a> = ([i64; 3], [&'a str; 5]);

/// Sums of a batch, in the order in which every writer takes their rows' locks.
pub struct Sums<'a> {
    pub minutes: Lines<'a, 4>,
    pub hours: Lines<'a, 4>,
}

/// Rows ready to be written, by place: every writer takes their locks in that order.
pub struct Batch<'a> {
    rows: Vec<&'a UsageRow>,
}

impl<'a> Batch<'a> {
    /// Takes rows in any order, some of them more than once. A row that stands for no request is none.
    ///
    /// # Errors
    /// `Invalid` for more than [`BATCH_ROWS_MAX`], and where a place is not one: a segment or offset above 2^63 − 1, a
    /// node's name that is too long or holds a NUL.
    pub fn of(rows: &'a [UsageRow]) -> Stored<Self> {
        if rows.len() > BATCH_ROWS_MAX {
            return Err(StoreError::Invalid(format!("a batch has at most {BATCH_ROWS_MAX} rows")));
        }
        for row in rows {
            stored_text("a node's name", &row.node, NAME_BYTES_MAX)?;
            stored_number(row.segment)?;
            stored_number(row.offset)?;
        }
        let mut rows: Vec<&UsageRow> = rows.iter().filter(|row| row.record.requests > 0).collect();
        rows.sort_by(|one, other| place(one).cmp(&place(other)));
        rows.dedup_by(|later, first| place(later) == place(first));
        Ok(Self { rows })
    }

    /// How many rows.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Where each row is.
    pub fn places(&self) -> impl Iterator<Item = Place<'_>> {
        self.rows.iter().map(|row| place(row))
    }

    /// When each row's window began, Unix ms.
    pub fn times_ms(&self) -> impl Iterator<Item = i64> {
        self.rows.iter().map(|row| bounded(row.record.first_time_ms))
    }

    /// The rows as lines: time, segment, offset, key, status, requests; texts.
    pub fn lines(&self) -> Lines<'a, 6> {
        let mut lines = Lines::with_room(self.rows.len());
        for row in &self.rows {
            let (_, segment, offset) = place(row);
            let record = &row.record;
            let numbers = [
                bounded(record.first_time_ms),
                segment,
                offset,
                record.key.into(),
                record.status.into(),
                bounded(record.requests),
            ];
            lines.push(numbers, texts(row));
        }
        lines
    }

    /// Sums over the rows whose place is in `only` (`None`: over all).
    pub fn sums(&self, only: Option<&HashSet<Place<'_>>>) -> Sums<'a> {
        let mut minutes: HashMap<Group<'a>, i64> = HashMap::new();
        for row in &self.rows {
            if only.is_none_or(|places| places.contains(&place(row))) {
                let record = &row.record;
                let minute = floor(bounded(record.first_time_ms), MINUTE_MS);
                add(
                    &mut minutes,
                    [minute, record.key.into(), record.status.into()],
                    texts(row),
                    bounded(record.requests),
                );
            }
        }
        let mut hours: HashMap<Group<'a>, i64> = HashMap::new();
        for (([minute, key, status], texts), requests) in &minutes {
            add(&mut hours, [floor(*minute, HOUR_MS), *key, *status], *texts, *requests);
        }
        Sums { minutes: sorted(minutes), hours: sorted(hours) }
    }
}

fn add<'a>(sums: &mut HashMap<Group<'a>, i64>, numbers: [i64; 3], texts: [&'a str; 5], requests: i64) {
    let sum = sums.entry((numbers, texts)).or_default();
    *sum = sum.saturating_add(requests);
}

fn sorted(sums: HashMap<Group<'_>, i64>) -> Lines<'_, 4> {
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_unstable();
    let mut lines = Lines::with_room(sums.len());
    for (([bucket, key, status], texts), requests) in sums {
        lines.push([bucket, key, status, requests], texts);
    }
    lines
}

const fn floor(time_ms: i64, step_ms: i64) -> i64 {
    time_ms - time_ms % step_ms
}

/// The nearest number that a column holds.
fn bounded(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn place(row: &UsageRow) -> Place<'_> {
    (&row.node, row.segment.cast_signed(), row.offset.cast_signed())
}

fn texts(row: &UsageRow) -> [&str; 5] {
    [&row.node, row.asset(), row.protocol(), row.endpoint(), row.tier()]
}
