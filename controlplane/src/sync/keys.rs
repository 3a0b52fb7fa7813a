//! API keys: those that have changed, or all of them where the tiers have, or where their entries would end before the
//! next time.
//!
//! Entries live for a day. What a node has noted of a key meanwhile may be newer than what was read here: so what has
//! changed is asked for until nothing has, after the last was written. Entries of keys that there are not, which only another
//! database can have left, are not looked for: they end by themselves.

use super::cursor::Cursor;
use super::{DAY_MS, Part, Round, SyncError, since_ms};
use crate::cache::load::Loads;
use crate::keys::entry::{self, Entries};
use crate::keys::to_hex;
use crate::params::SystemMode;
use crate::store::{KeyRow, PAGE_MAX, SyncMarks, TierRow};
use dataplane_core::access::hash_text;
use std::time::Instant;

/// All keys are written again after this time, ms: within half of their entries' life, so that a round each twelve hours
/// writes them each time.
const AGAIN_MS: u64 = DAY_MS / 2 - 3_600_000;

/// What became of them.
pub struct Written {
    pub part: Part,
    /// Up to which change.
    pub keys: i64,
    /// Digest of the tiers and the mode.
    pub tiers: String,
    /// When all of them were written last, Unix ms.
    pub time_ms: u64,
}

/// Whether the entries that are there are of these tiers, and live on long enough.
fn are_good(cursor: &Cursor, tiers: &str, now_ms: u64) -> bool {
    cursor.tiers == tiers && now_ms.abs_diff(cursor.keys_time_ms) < AGAIN_MS
}

fn digest(tiers: &[TierRow], mode: SystemMode) -> String {
    let text = serde_json::json!([tiers, mode.name()]).to_string();
    to_hex(&hash_text(text.as_bytes()))
}

/// Writes them.
pub async fn write(round: &Round, marks: &SyncMarks, mode: Option<SystemMode>) -> Result<Written, SyncError> {
    let began = Instant::now();
    let Some(mode) = mode else { return Ok(left(round.since.as_ref())) };
    let tiers = round.store.tiers().await?;
    let tiers_digest = digest(&tiers, mode);
    let good = round.since.as_ref().filter(|cursor| are_good(cursor, &tiers_digest, round.now_ms));
    let mut part = Part::default();
    let (mut after, time_ms) = good.map_or((0, round.now_ms), |cursor| (cursor.keys, cursor.keys_time_ms));
    let mut entries = Entries::new(tiers, mode);
    let mut is_read = false;
    while good.is_none() || is_read || after < marks.keys {
        let page = round.store.keys_changed(after, PAGE_MAX).await?;
        // It ends with an empty page: a key that was revoked while the last was on its way is deleted again.
        let Some(last) = page.last() else { break };
        after = last.change;
        is_read = true;
        round.cache.load(loads(&page, &mut entries, round.now_ms, &mut part)?).await?;
    }
    part.took_ms = since_ms(began);
    Ok(Written { part, keys: marks.keys, tiers: tiers_digest, time_ms })
}

/// Nothing is written, and what was noted stays: the next round begins where this one did.
fn left(since: Option<&Cursor>) -> Written {
    let (keys, tiers, time_ms) =
        since.map_or((0, String::new(), 0), |cursor| (cursor.keys, cursor.tiers.clone(), cursor.keys_time_ms));
    Written { part: Part::default(), keys, tiers, time_ms }
}

/// What becomes of a page of keys.
fn loads(page: &[KeyRow], entries: &mut Entries, now_ms: u64, part: &mut Part) -> Result<Loads, SyncError> {
    let mut loads = Loads::default();
    for row in page {
        let Some(name) = entry::name(&row.hash) else { continue };
        match entries.of(row, now_ms) {
            Some(text) => {
                let ends_ms = row.expires_time_ms.unwrap_or(u64::MAX).min(now_ms + DAY_MS);
                loads.text(&name, &text, ends_ms)?;
                part.written += 1;
            }
            None => {
                loads.delete(&name)?;
                part.deleted += 1;
            }
        }
    }
    Ok(loads)
}
