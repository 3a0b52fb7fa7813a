//! Up to where a cache is a copy of which database: noted in the cache, so that it is lost together with the copy.
//!
//! A copy's first round gives the cache a token. Whoever ends a round finds the same token, or the cache was emptied or
//! taken by another database meanwhile, and nothing is noted. Numbers only grow, so that of two rounds at once the one that
//! came further counts, in whichever order they end. With them stands what the database has last below them: one that was
//! set back, and has gone past them since, has something else there. In a cluster the note stands on one server: that
//! another one was emptied alone is not seen, nor that a server let entries go because it is full; a full round mends both.

use super::SyncError;
use crate::cache::names::{CacheKey, SYNC_CURSOR};
use crate::cache::{Cache, CacheError, Cached, News, Value};
use crate::keys::to_hex;
use crate::store::{Store, Stored, SyncMarks, WitnessMarks};
use dataplane_core::access::hash_text;
use std::collections::BTreeMap;
use uuid::Uuid;

const DATABASE: &str = "database";
const EPOCH: &str = "epoch";
const USAGE: &str = "usage";
const REPORTS: &str = "reports";
const KEYS: &str = "keys";
const TIERS: &str = "tiers";
const KEYS_TIME: &str = "keys_time_ms";
const TIME: &str = "time_ms";
const WITNESS: &str = "witness";

const UNREADABLE: &str = "the cache's note cannot be read";

/// Up to where everything is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Usage that came before this change.
    pub usage: i64,
    /// Reports that came before this change.
    pub reports: i64,
    /// Keys up to this change.
    pub keys: i64,
    /// Digest of the tiers and the mode that keys were written with.
    pub tiers: String,
    /// When all keys were written last, Unix ms.
    pub keys_time_ms: u64,
    /// What the database has last below these, as [`witness`] tells it.
    pub witness: String,
}

/// How a cache stands to a database.
pub struct Standing {
    /// Its token.
    pub epoch: String,
    /// Up to where it is written, if it was ever written whole.
    pub cursor: Option<Cursor>,
    /// Why everything is to be written, if it is.
    pub why: Option<&'static str>,
}

fn key() -> CacheKey {
    CacheKey::fixed(SYNC_CURSOR)
}

/// Looks how the cache stands to the database, and gives it to it where it holds no copy; and how far that has come. A copy
/// of another database makes way only where it `may_go`.
pub async fn begin(cache: &dyn Cache, store: &dyn Store, may_go: bool) -> Result<(Standing, SyncMarks), SyncError> {
    let noted = cache.get(&key()).await;
    // Behind the note, so that one of another round which ended meanwhile is not ahead of them.
    let marks = store.sync_marks().await?;
    let standing = match noted {
        Ok(Some((Value::Hash(fields), _))) => {
            let is_other = fields.get(DATABASE).is_some_and(|database| *database != marks.identity);
            if is_other && !may_go {
                return Err(SyncError::OtherDatabase);
            }
            judge(cache, store, &marks, &fields).await?
        }
        Ok(_) => anew(cache, &marks, "the cache holds no copy yet").await?,
        // Something else stands there, and makes way.
        Err(CacheError::Refused(_)) => anew(cache, &marks, UNREADABLE).await?,
        Err(why) => return Err(why.into()),
    };
    Ok((standing, marks))
}

async fn judge(
    cache: &dyn Cache,
    store: &dyn Store,
    marks: &SyncMarks,
    fields: &BTreeMap<String, String>,
) -> Result<Standing, SyncError> {
    if fields.get(DATABASE) != Some(&marks.identity) {
        return Ok(anew(cache, marks, "the cache held a copy of another database").await?);
    }
    let Some(epoch) = fields.get(EPOCH).cloned() else { return Ok(anew(cache, marks, UNREADABLE).await?) };
    let Some(cursor) = read(fields) else {
        return Ok(Standing { epoch, cursor: None, why: Some("the last one was not ended") });
    };
    if cursor.usage > marks.usage || cursor.reports > marks.reports || cursor.keys > marks.keys {
        return Ok(anew(cache, marks, "the database was set back").await?);
    }
    let is_long_ago = cursor.usage <= marks.pruned;
    if !is_long_ago && !is_witnessed(store, &cursor).await? {
        return Ok(anew(cache, marks, "the database does not have what it had last").await?);
    }
    Ok(Standing { epoch, cursor: Some(cursor), why: is_long_ago.then_some("the last one was too long ago") })
}

/// What the database has last below a cursor's numbers, and up to an entry of the audit trail; and below which they were.
pub async fn witness(store: &dyn Store, usage: i64, reports: i64, audit: i64) -> Stored<String> {
    let last = store.sync_witness(&WitnessMarks { usage, reports, audit }).await?;
    Ok(format!("{usage} {reports} {} {}", last.audit, to_hex(&hash_text(last.text.as_bytes()))))
}

/// Whether the database still has what it had last below the cursor. Of two rounds at once one may have noted its numbers
/// and the other its witness: that tells nothing, until the next has noted both.
async fn is_witnessed(store: &dyn Store, cursor: &Cursor) -> Stored<bool> {
    let numbers: Vec<i64> = cursor.witness.split(' ').map_while(|word| word.parse().ok()).take(3).collect();
    match numbers[..] {
        [usage, reports, audit] if (usage, reports) == (cursor.usage, cursor.reports) => {
            Ok(witness(store, usage, reports, audit).await? == cursor.witness)
        }
        _ => Ok(true),
    }
}

async fn anew(cache: &dyn Cache, marks: &SyncMarks, why: &'static str) -> Cached<Standing> {
    let epoch = Uuid::now_v7().to_string();
    let fields = [(DATABASE, marks.identity.clone()), (EPOCH, epoch.clone())];
    let fields = fields.map(|(name, value)| (name.to_owned(), value)).into();
    cache.put(&key(), &Value::Hash(fields)).await?;
    Ok(Standing { epoch, cursor: None, why: Some(why) })
}

fn read(fields: &BTreeMap<String, String>) -> Option<Cursor> {
    let number = |name: &str| fields.get(name)?.parse().ok();
    Some(Cursor {
        usage: number(USAGE)?,
        reports: number(REPORTS)?,
        keys: number(KEYS)?,
        tiers: fields.get(TIERS)?.clone(),
        keys_time_ms: fields.get(KEYS_TIME)?.parse().ok()?,
        witness: fields.get(WITNESS)?.clone(),
    })
}

/// Notes up to where everything is written; whether the cache is still the one that it was written to.
pub async fn end(cache: &dyn Cache, epoch: &str, done: &Cursor, now_ms: u64) -> Cached<bool> {
    let time = |time_ms: u64| News::Number(i64::try_from(time_ms).unwrap_or(i64::MAX));
    let news = [
        (USAGE, News::Number(done.usage)),
        (REPORTS, News::Number(done.reports)),
        (KEYS, News::Number(done.keys)),
        (TIERS, News::Text(done.tiers.clone())),
        (KEYS_TIME, time(done.keys_time_ms)),
        (TIME, time(now_ms)),
        (WITNESS, News::Text(done.witness.clone())),
    ];
    cache.advance(&key(), (EPOCH, epoch), &news).await
}
