//! Keys in the store: made, rotated, revoked, listed, each change with its audit row.
//!
//! The command line and the key desk both work through here. Who is told of a change is not known here.

use super::rules::permission_names;
use super::secret::{Secret, hint, new_key_text, random_bytes, to_hex};
use super::wish::KeyWish;
use crate::store::{AuditEntry, KeyChange, KeyRow, NewKey, PAGE_MAX, Store, StoreError, Stored};
use dataplane_core::access::hash_text;
use serde_json::{Value, json};
use std::collections::HashSet;

/// Numbers that the settings file has taken and a new key is led past, one at a time.
const TAKEN_TRIES: usize = 64;

/// Pages of the store that one page of a filtered list looks through: 10,000 keys, in well under a second.
const PAGES_PER_LIST: usize = 10;

/// A key just made. Its text is nowhere else.
#[derive(Debug)]
pub struct Issued {
    /// As stored.
    pub row: KeyRow,
    /// Its text.
    pub text: Secret,
    /// Its UDP secret, in hex.
    pub udp_secret: Secret,
}

impl Issued {
    /// As the one answer shows it that made the key: the only place where its secrets are shown.
    #[must_use]
    pub fn shown_once(&self, now_ms: u64) -> Value {
        let mut shown = document(&self.row, now_ms);
        shown["key"] = self.text.reveal().into();
        shown["udp_secret"] = self.udp_secret.reveal().into();
        shown
    }
}

/// How a stored key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It works.
    Active,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl KeyState {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Active, Self::Expired, Self::Revoked];

    /// How the key stands at this time, Unix ms. Revoked is revoked, by whichever node's clock it was.
    #[must_use]
    pub fn of(row: &KeyRow, now_ms: u64) -> Self {
        if row.revoked_time_ms.is_some() {
            Self::Revoked
        } else if row.expires_time_ms.is_some_and(|time| time <= now_ms) {
            Self::Expired
        } else {
            Self::Active
        }
    }

    /// Its name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// A key as documents show it: everything but secrets.
#[must_use]
pub fn document(row: &KeyRow, now_ms: u64) -> Value {
    json!({
        "key_id": row.id,
        "hint": row.hint,
        "name": row.name,
        "tier": row.tier,
        "state": KeyState::of(row, now_ms).name(),
        "limit_per_second": row.limit_per_second,
        "limit_per_month": row.limit_per_month,
        "permissions": row.permissions.map(permission_names),
        "created_time_ms": row.created_time_ms,
        "expires_time_ms": row.expires_time_ms,
        "revoked_time_ms": row.revoked_time_ms,
        "rotated_to": row.rotated_to,
    })
}

/// Which keys to list.
#[derive(Clone, Debug, Default)]
pub struct ListWish {
    /// From behind this number.
    pub after: u32,
    /// So many at most.
    pub limit: usize,
    /// Of this tier alone.
    pub tier: Option<String>,
    /// Those that stand so alone.
    pub state: Option<KeyState>,
}

/// Whoever changes keys, and where.
pub struct Issuer<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// This node's name.
    pub node: &'a str,
    /// Who wants it.
    pub caller: &'a str,
    /// Numbers of the settings file's keys, so that no stored key can have them.
    pub taken: &'a HashSet<u32>,
}

impl Issuer<'_> {
    fn audit(&self, action: &str, target: String, before: &Value, after: &Value, now_ms: u64) -> AuditEntry {
        AuditEntry {
            time_ms: now_ms,
            node: self.node.to_owned(),
            caller: self.caller.to_owned(),
            action: action.to_owned(),
            target,
            before: before.to_string(),
            after: after.to_string(),
        }
    }

    /// Makes a key.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn create(&self, wish: &KeyWish, now_ms: u64) -> Stored<Issued> {
        self.issue("key.create", wish, None, now_ms).await
    }

    /// Makes a key in place of `id`, which works on for `overlap_ms`. Answers the old one too, as it then stands.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a key that was rotated already or does not work any more.
    pub async fn rotate(&self, id: u32, overlap_ms: u64, now_ms: u64) -> Stored<(Issued, KeyRow)> {
        let old = self.store.key(id).await?.ok_or(StoreError::NotFound)?;
        let state = KeyState::of(&old, now_ms);
        if state != KeyState::Active {
            return Err(StoreError::Conflict(format!("key {id} is {}: create a new one", state.name())));
        }
        if let Some(next) = old.rotated_to {
            return Err(StoreError::Conflict(format!("key {id} was rotated already: rotate key {next}")));
        }
        let ends_ms = old.expires_time_ms.unwrap_or(u64::MAX).min(now_ms + overlap_ms);
        let issued = self.issue("key.rotate", &old.clone().into(), Some((&old, ends_ms)), now_ms).await?;
        let old = self.store.key(id).await?.ok_or(StoreError::NotFound)?;
        Ok((issued, old))
    }

    /// Stores a key under a number that the settings file has not taken. Where one is burnt on the way, a rotated key's
    /// `rotated_to` names it and not the key that took its place; all else is as it should be.
    async fn issue(
        &self,
        action: &str,
        wish: &KeyWish,
        mut replaces: Option<(&KeyRow, u64)>,
        now_ms: u64,
    ) -> Stored<Issued> {
        let before = replaces.map_or(Value::Null, |(old, _)| document(old, now_ms));
        let old = replaces.map(|(old, _)| old.id.to_string());
        for _ in 0..TAKEN_TRIES {
            let (text, udp_secret) = (new_key_text(), random_bytes());
            let key = new_key(wish, &text, udp_secret);
            let target = old.clone().unwrap_or_else(|| key.hint.clone());
            let audit = self.audit(action, target, &before, &wish_document(&key), now_ms);
            let replaces = replaces.take().map(|(old, ends_ms)| (old.id, ends_ms));
            let row = self.store.create_key(&key, replaces, &audit).await?;
            if !self.taken.contains(&row.id) {
                return Ok(Issued { row, text, udp_secret: Secret::new(to_hex(&udp_secret)) });
            }
            tracing::warn!(key_id = row.id, "the settings file has a key of this number: the stored one is revoked");
            self.revoke(row.id, now_ms).await?;
        }
        Err(StoreError::Conflict("the settings file has taken the next numbers: give its keys higher ones".to_owned()))
    }

    /// Revokes a key; one that is revoked already stays as it is.
    ///
    /// # Errors
    /// `NotFound`, and those of the store.
    pub async fn revoke(&self, id: u32, now_ms: u64) -> Stored<KeyRow> {
        let old = self.store.key(id).await?.ok_or(StoreError::NotFound)?;
        if old.revoked_time_ms.is_some() {
            return Ok(old);
        }
        let after = json!({ "revoked_time_ms": now_ms });
        let audit = self.audit("key.revoke", id.to_string(), &document(&old, now_ms), &after, now_ms);
        self.store.change_key(id, KeyChange::Revoke { time_ms: now_ms }, &audit).await
    }
}

fn new_key(wish: &KeyWish, text: &Secret, udp_secret: [u8; 16]) -> NewKey {
    NewKey {
        hash: hash_text(text.reveal().as_bytes()),
        hint: hint(text),
        name: wish.name.clone(),
        tier: wish.tier.clone(),
        limit_per_second: wish.limit_per_second,
        limit_per_month: wish.limit_per_month,
        permissions: wish.permissions,
        udp_secret,
        expires_time_ms: wish.expires_time_ms,
    }
}

/// A new key as the audit trail shows it.
fn wish_document(key: &NewKey) -> Value {
    json!({
        "hint": key.hint,
        "name": key.name,
        "tier": key.tier,
        "limit_per_second": key.limit_per_second,
        "limit_per_month": key.limit_per_month,
        "permissions": key.permissions.map(permission_names),
        "expires_time_ms": key.expires_time_ms,
    })
}

/// Lists keys by number, and tells where to go on, if there may be more. A filtered page may be short, or empty, though
/// there are more: it looks through 10,000 keys at most.
///
/// # Errors
/// Those of the store.
pub async fn list(store: &dyn Store, wish: &ListWish, now_ms: u64) -> Stored<(Vec<KeyRow>, Option<u32>)> {
    let mut found = Vec::new();
    let mut after = wish.after;
    for _ in 0..PAGES_PER_LIST {
        let page = store.keys(after, PAGE_MAX).await?;
        let is_last = page.len() < PAGE_MAX;
        for row in page {
            if found.len() == wish.limit {
                return Ok((found, Some(after)));
            }
            after = row.id;
            let fits = wish.tier.as_ref().is_none_or(|tier| row.tier == *tier)
                && wish.state.is_none_or(|state| KeyState::of(&row, now_ms) == state);
            if fits {
                found.push(row);
            }
        }
        if is_last {
            return Ok((found, None));
        }
    }
    Ok((found, Some(after)))
}
