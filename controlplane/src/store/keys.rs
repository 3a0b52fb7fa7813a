//! Keys and tiers in SQL.
//!
//! Their change numbers are given by triggers of the schema, so that whoever writes by other means is noticed as well.
//! Who may do what, and what a tier means, is not known here.

use super::session::Session;
use super::value::{Row, Value, stored_number, stored_text};
use super::{KeyChange, KeyRow, NAME_BYTES_MAX, NewKey, PAGE_MAX, Pulse, StoreError, Stored, TierRow};
use shared::limits::KEY_LIMIT_PER_SECOND_MAX;
use tuning::clock;

/// The columns of a key, in the order of [`key`]; a statement follows.
macro_rules! select_key {
    ($rest:literal) => {
        concat!(
            "SELECT id, hash, hint, name, tier, limit_per_second, limit_per_month, permissions, udp_secret, \
             created_time_ms, expires_time_ms, revoked_time_ms, rotated_to, change FROM api_keys ",
            $rest
        )
    };
}

fn key(row: &Row) -> Stored<KeyRow> {
    Ok(KeyRow {
        id: row.number(0)?,
        hash: row.bytes(1)?,
        hint: row.text(2)?,
        name: row.text(3)?,
        tier: row.text(4)?,
        limit_per_second: row.maybe_number(5)?,
        limit_per_month: row.maybe_number(6)?,
        permissions: row.maybe_number(7)?,
        udp_secret: row.bytes(8)?,
        created_time_ms: row.number(9)?,
        expires_time_ms: row.maybe_number(10)?,
        revoked_time_ms: row.maybe_number(11)?,
        rotated_to: row.maybe_number(12)?,
        change: row.number(13)?,
    })
}

/// At most a page of rows.
pub fn page(limit: usize) -> Value<'static> {
    Value::Int(i64::try_from(limit.min(PAGE_MAX)).unwrap_or(0))
}

pub async fn pulse(session: &mut Session) -> Stored<Pulse> {
    let rows = session.rows("SELECT name, value FROM change_counters", &[]).await?;
    let mut pulse = Pulse::default();
    for row in &rows {
        match row.text(0)?.as_str() {
            "keys" => pulse.keys = row.number(1)?,
            "reloads" => pulse.reloads = row.number(1)?,
            _ => {}
        }
    }
    Ok(pulse)
}

pub async fn changed(session: &mut Session, after: i64, limit: usize) -> Stored<Vec<KeyRow>> {
    let sql = select_key!("WHERE change > $1 ORDER BY change LIMIT $2");
    session.rows(sql, &[Value::Int(after), page(limit)]).await?.iter().map(key).collect()
}

pub async fn list(session: &mut Session, after: u32, limit: usize) -> Stored<Vec<KeyRow>> {
    let sql = select_key!("WHERE id > $1 ORDER BY id LIMIT $2");
    session.rows(sql, &[Value::Int(after.into()), page(limit)]).await?.iter().map(key).collect()
}

pub async fn one(session: &mut Session, id: u32) -> Stored<Option<KeyRow>> {
    session.row(select_key!("WHERE id = $1"), &[Value::Int(id.into())]).await?.as_ref().map(key).transpose()
}

pub async fn create(session: &mut Session, new: &NewKey, replaces: Option<(u32, u64)>) -> Stored<KeyRow> {
    check_limit(new.limit_per_second)?;
    let tier = stored_text("the tier's name", &new.tier, NAME_BYTES_MAX)?;
    hold(session).await?;
    if session.row("SELECT 1 FROM rate_limit_template WHERE name = $1", &[tier]).await?.is_none() {
        return Err(StoreError::Conflict(format!("there is no tier called {:?}", new.tier)));
    }
    if session.row("SELECT 1 FROM api_keys WHERE hash = $1", &[Value::Bytes(&new.hash)]).await?.is_some() {
        return Err(StoreError::Conflict("there is such a key already".to_owned()));
    }
    let replaced = match replaces {
        None => None,
        Some((id, until_ms)) => Some((replaceable(session, id).await?, stored_number(until_ms)?)),
    };
    let values = [
        Value::Bytes(&new.hash),
        stored_text("the hint", &new.hint, NAME_BYTES_MAX)?,
        stored_text("the name", &new.name, NAME_BYTES_MAX)?,
        tier,
        Value::MaybeInt(new.limit_per_second.map(i64::from)),
        Value::MaybeInt(new.limit_per_month.map(stored_number).transpose()?),
        Value::MaybeInt(new.permissions.map(i64::from)),
        Value::Bytes(&new.udp_secret),
        Value::Int(stored_number(clock::now().wall_ms)?),
        Value::MaybeInt(new.expires_time_ms.map(stored_number).transpose()?),
    ];
    let insert = "INSERT INTO api_keys (hash, hint, name, tier, limit_per_second, limit_per_month, permissions, \
                  udp_secret, created_time_ms, expires_time_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
                  RETURNING id";
    let id: u32 = match session.row(insert, &values).await? {
        Some(row) => row.number(0)?,
        None => return Err(StoreError::Broken("a new key was given no number".to_owned())),
    };
    if let Some((old, until_ms)) = replaced {
        let sql = "UPDATE api_keys SET rotated_to = $2, expires_time_ms = CASE WHEN expires_time_ms < $3 THEN \
                   expires_time_ms ELSE $3 END WHERE id = $1";
        session.rows(sql, &[Value::Int(old), Value::Int(id.into()), Value::Int(until_ms)]).await?;
    }
    // As it stands after the triggers.
    one(session, id).await?.ok_or(StoreError::NotFound)
}

pub async fn change(session: &mut Session, id: u32, change: KeyChange) -> Stored<KeyRow> {
    hold(session).await?;
    let (sql, time_ms) = match change {
        // A key is revoked once: the first time stands.
        KeyChange::Revoke { time_ms } => (
            "UPDATE api_keys SET revoked_time_ms = CASE WHEN revoked_time_ms < $2 THEN revoked_time_ms ELSE $2 END \
             WHERE id = $1",
            time_ms,
        ),
        KeyChange::Expire { time_ms } => (
            "UPDATE api_keys SET expires_time_ms = CASE WHEN expires_time_ms < $2 THEN expires_time_ms ELSE $2 END \
             WHERE id = $1",
            time_ms,
        ),
    };
    session.rows(sql, &[Value::Int(id.into()), Value::Int(stored_number(time_ms)?)]).await?;
    one(session, id).await?.ok_or(StoreError::NotFound)
}

pub async fn tiers(session: &mut Session) -> Stored<Vec<TierRow>> {
    let sql = "SELECT name, rank, limit_per_second, limit_per_second_performance, limit_per_month, permissions FROM \
               rate_limit_template";
    let rows = session.rows(sql, &[]).await?;
    let mut tiers = rows.iter().map(tier).collect::<Stored<Vec<TierRow>>>()?;
    // Not by the database: each orders texts by rules of its own.
    tiers.sort_by(|a, b| (a.rank, &a.name).cmp(&(b.rank, &b.name)));
    Ok(tiers)
}

fn tier(row: &Row) -> Stored<TierRow> {
    Ok(TierRow {
        name: row.text(0)?,
        rank: row.number(1)?,
        limit_per_second: row.number(2)?,
        limit_per_second_performance: row.maybe_number(3)?,
        limit_per_month: row.number(4)?,
        permissions: row.number(5)?,
    })
}

pub async fn put_tier(session: &mut Session, tier: &TierRow) -> Stored<()> {
    check_limit(Some(tier.limit_per_second))?;
    check_limit(tier.limit_per_second_performance)?;
    let values = [
        stored_text("the tier's name", &tier.name, NAME_BYTES_MAX)?,
        Value::Int(tier.rank.into()),
        Value::Int(tier.limit_per_second.into()),
        Value::MaybeInt(tier.limit_per_second_performance.map(i64::from)),
        Value::Int(stored_number(tier.limit_per_month)?),
        Value::Int(tier.permissions.into()),
    ];
    let sql = "INSERT INTO rate_limit_template (name, rank, limit_per_second, limit_per_second_performance, \
               limit_per_month, permissions) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO UPDATE SET \
               rank = excluded.rank, limit_per_second = excluded.limit_per_second, \
               limit_per_second_performance = excluded.limit_per_second_performance, \
               limit_per_month = excluded.limit_per_month, permissions = excluded.permissions";
    session.rows(sql, &values).await.map(drop)
}

/// Waits for every other change of keys and tiers to end, and lets none begin before this one has: taken before any row
/// of a key, as the schema's triggers do, so that two changes never wait for each other.
async fn hold(session: &mut Session) -> Stored<()> {
    let sql = session.pick(
        "SELECT value FROM change_counters WHERE name = 'keys'",
        "SELECT value FROM change_counters WHERE name = 'keys' FOR UPDATE",
    );
    session.rows(sql, &[]).await.map(drop)
}

/// The number of a key that another may take the place of.
async fn replaceable(session: &mut Session, id: u32) -> Stored<i64> {
    let old = one(session, id).await?.ok_or(StoreError::NotFound)?;
    if old.revoked_time_ms.is_some() {
        return Err(StoreError::Conflict(format!("key {id} is revoked: create a new one")));
    }
    if let Some(next) = old.rotated_to {
        return Err(StoreError::Conflict(format!("key {id} was rotated already: rotate key {next}")));
    }
    Ok(i64::from(id))
}

fn check_limit(limit: Option<u32>) -> Stored<()> {
    match limit {
        Some(limit) if !(1..=KEY_LIMIT_PER_SECOND_MAX).contains(&limit) => {
            Err(StoreError::Invalid(format!("a limit per second is 1 to {KEY_LIMIT_PER_SECOND_MAX}, not {limit}")))
        }
        _ => Ok(()),
    }
}
