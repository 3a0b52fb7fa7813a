//! A message of the queue: rows of one segment as JSON, versioned.
//!
//! `{"v":1,"node":…,"segment":…,"first":…,"rows":[[place − first, number, first time, last time, requests, asset, key,
//! shard, status, protocol, code, tier, endpoint], …]}`: everything of a record, so that a row that came through the
//! queue is the row that would have gone straight to the database. What is read is held to the bounds that the database
//! has; anybody may have written to the queue.

use super::{ENTRIES_MAX, REQUEST_BYTES_MAX};
use crate::store::{NAME_BYTES_MAX, UsageRow};
use serde::{Deserialize, Serialize};
use shared::usage::UsageRecord;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The version written, and the only one read.
pub const VERSION: u32 = 1;

/// Bytes of one message that is written: so that as many as a request may have fit into it. About 250 rows.
pub const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX / ENTRIES_MAX;

/// Numbers in a message are below this: what a database's signed column holds.
const NUMBER_MAX: u64 = i64::MAX as u64;

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Place of its first row.
    pub first: u64,
    /// Place of its last.
    pub last: u64,
    /// Its text, at most [`MESSAGE_BYTES_MAX`] bytes.
    pub body: String,
}

/// Why a message is none of ours to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is something else.
    Foreign,
    /// It is of another version of this program.
    Version(u32),
    /// It is ours by its form, and cannot be so.
    Malformed(&'static str),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("it is no usage message"),
            Self::Version(version) => write!(f, "it is of version {version}, and this program reads {VERSION}"),
            Self::Malformed(what) => write!(f, "{what}"),
        }
    }
}

/// One row: see the file's beginning.
type Row<'a> = (u64, u64, u64, u64, u64, Cow<'a, str>, u32, u16, u16, u8, u8, u8, u8);

/// As much as every version has.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    v: u32,
    node: Cow<'a, str>,
    segment: u64,
    first: u64,
    rows: Vec<Row<'a>>,
}

/// The rows as messages, by place. They are of one node's one segment.
#[must_use]
pub fn pack<'a>(rows: impl IntoIterator<Item = &'a UsageRow>) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    for row in rows {
        if let Some(message) = messages.last_mut()
            && let text = text(row, message.first)
            // A comma before, the brackets behind.
            && message.body.len() + text.len() + 3 <= MESSAGE_BYTES_MAX
        {
            message.body.push(',');
            message.body.push_str(&text);
            message.last = row.offset;
            continue;
        }
        close(messages.last_mut());
        let head = Document {
            v: VERSION,
            node: Cow::Borrowed(&row.node),
            segment: row.segment,
            first: row.offset,
            rows: Vec::new(),
        };
        let mut body = json(&head);
        body.truncate(body.len() - "]}".len());
        body.push_str(&text(row, row.offset));
        messages.push(Message { first: row.offset, last: row.offset, body });
    }
    close(messages.last_mut());
    messages
}

fn close(message: Option<&mut Message>) {
    if let Some(message) = message {
        message.body.push_str("]}");
    }
}

fn json(value: &impl Serialize) -> String {
    // Texts and numbers have a form in JSON.
    serde_json::to_string(value).unwrap_or_default()
}

fn text(row: &UsageRow, first: u64) -> String {
    let record = &row.record;
    let row: Row<'_> = (
        row.offset.saturating_sub(first),
        record.number,
        record.first_time_ms,
        record.last_time_ms,
        record.requests,
        Cow::Borrowed(row.asset()),
        record.key,
        record.shard,
        record.status,
        record.protocol,
        record.code,
        record.tier,
        record.endpoint,
    );
    json(&row)
}

/// The rows of a message.
///
/// # Errors
/// Why it is to be left alone.
pub fn unpack(body: &str) -> Result<Vec<UsageRow>, Unreadable> {
    let Versioned { v } = serde_json::from_str(body).map_err(|_| Unreadable::Foreign)?;
    if v != VERSION {
        return Err(Unreadable::Version(v));
    }
    let malformed = Unreadable::Malformed;
    if body.len() > REQUEST_BYTES_MAX {
        return Err(malformed("it is longer than a message may be"));
    }
    let document: Document<'_> =
        serde_json::from_str(body).map_err(|_| malformed("its members are not those of a usage message"))?;
    let graphic = |text: &str, most: usize| text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic());
    if document.node.is_empty() || !graphic(&document.node, NAME_BYTES_MAX) || document.segment > NUMBER_MAX {
        return Err(malformed("its node or segment cannot be"));
    }
    if document.rows.is_empty() {
        return Err(malformed("it has no rows"));
    }
    let node: Arc<str> = Arc::from(&*document.node);
    let mut rows: Vec<UsageRow> = Vec::with_capacity(document.rows.len());
    for row in &document.rows {
        let (place, number, first_time_ms, last_time_ms, requests, asset, ..) = row;
        let offset = document.first.checked_add(*place).filter(|offset| *offset <= NUMBER_MAX);
        let offset = offset.filter(|offset| rows.last().is_none_or(|last| last.offset < *offset));
        let offset = offset.ok_or(malformed("its rows are not in the order of their places"))?;
        if [number, first_time_ms, last_time_ms, requests].into_iter().any(|number| *number > NUMBER_MAX)
            || *requests == 0
            || !graphic(asset, 16)
        {
            return Err(malformed("a row has a number or an asset that cannot be"));
        }
        rows.push(UsageRow { node: Arc::clone(&node), segment: document.segment, offset, record: record(row) });
    }
    Ok(rows)
}

/// The record of a row whose asset has at most 16 bytes.
fn record(row: &Row<'_>) -> UsageRecord {
    let &(_, number, first_time_ms, last_time_ms, requests, ref asset, key, shard, status, ..) = row;
    let &(.., protocol, code, tier, endpoint) = row;
    let mut record = UsageRecord {
        number,
        first_time_ms,
        last_time_ms,
        requests,
        key,
        shard,
        status,
        protocol,
        code,
        tier,
        endpoint,
        ..UsageRecord::default()
    };
    for (to, from) in record.asset.iter_mut().zip(asset.bytes()) {
        *to = from;
    }
    record
}
