//! The `[[keys]]` tables of the settings file: which API keys are admitted, and how much they may ask.
//!
//! A table holds a key's SHA-256, never its text, and perhaps its UDP secret. These keys stand beside those of the store
//! and work without it; which tiers there are is only known once the store has been read.

use super::fault::Fault;
use super::layers::{self, Origin};
use crate::keys::rules::permission_bits;
use crate::keys::{self, FixedKey};
use shared::key::{KeyId, KeyRecord, Permissions, RANK_MAX};
use shared::limits::{KEY_LIMIT_PER_SECOND_MAX, KEYS_MAX};
use std::collections::HashSet;

/// What a table may hold.
const MEMBERS: [&str; 7] = ["id", "sha256", "tier", "limit", "udp_secret", "permissions", "expires_at_ms"];

/// Longest name of a tier, bytes.
const TIER_BYTES_MAX: usize = 64;

/// Most faults told of one list: a list that is wrong throughout is wrong in one way.
const FAULTS_TOLD_MAX: usize = 20;

/// Reads every table, adding what is wrong with each.
pub fn read(tables: &[toml::Value], origin: &Origin, faults: &mut Vec<Fault>) -> Vec<FixedKey> {
    if tables.len() > KEYS_MAX {
        let count = tables.len().to_string();
        faults.push(Fault::of_name("keys", &count, origin.clone(), &format!("at most {KEYS_MAX} tables")));
        return Vec::new();
    }
    let mut reader =
        Reader { origin, faults, told: 0, ids: HashSet::with_capacity(tables.len()), hashes: HashSet::new() };
    tables.iter().enumerate().filter_map(|(index, table)| reader.key(index, table)).collect()
}

struct Reader<'a> {
    origin: &'a Origin,
    faults: &'a mut Vec<Fault>,
    told: usize,
    ids: HashSet<u32>,
    hashes: HashSet<[u8; 32]>,
}

impl Reader<'_> {
    fn key(&mut self, index: usize, table: &toml::Value) -> Option<FixedKey> {
        let Some(table) = table.as_table() else {
            self.fault(index, "", "", "a table with id, sha256 and limit");
            return None;
        };
        for name in table.keys() {
            if !MEMBERS.contains(&name.as_str()) {
                self.fault(index, name, "…", &MEMBERS.join(", "));
            }
        }
        let number = |name: &str| table.get(name).and_then(toml::Value::as_integer);
        let text = |name: &str| table.get(name).and_then(toml::Value::as_str);
        let shown = |name: &str| table.get(name).map(layers::shown).unwrap_or_default();

        let id = number("id").and_then(|id| u32::try_from(id).ok()).filter(|id| *id > 0 && self.ids.insert(*id));
        let hash = text("sha256").and_then(keys::from_hex::<32>).filter(|hash| self.hashes.insert(*hash));
        let tier = match table.get("tier") {
            None => Some(None),
            Some(value) => value.as_str().filter(|tier| (1..=TIER_BYTES_MAX).contains(&tier.len())).map(Some),
        };
        let own = table.get("tier").is_none();
        let limit = match table.get("limit") {
            None => (!own).then_some(None),
            Some(value) => value.as_integer().and_then(|limit| u32::try_from(limit).ok()).map(Some),
        };
        let limit = limit.filter(|limit| limit.is_none_or(|limit| (1..=KEY_LIMIT_PER_SECOND_MAX).contains(&limit)));
        let udp_secret = match table.get("udp_secret") {
            // Nobody knows a random secret: a key without one does not get in by the binary form.
            None => Some(keys::random_bytes()),
            Some(value) => value.as_str().and_then(keys::from_hex::<16>),
        };
        let permissions = match table.get("permissions") {
            None => Some(own.then_some(Permissions::PRICES)),
            Some(value) => permissions(value).map(Some),
        };
        let expires_at_ms = number("expires_at_ms").or(table.get("expires_at_ms").is_none().then_some(0));
        let expires_at_ms = expires_at_ms.and_then(|time| u64::try_from(time).ok());

        let limits = format!("1 to {KEY_LIMIT_PER_SECOND_MAX} requests per second; needed without a tier");
        let checks = [
            (id.is_some(), "id", shown("id"), "1 to 4294967295, a different one for each key"),
            // Who takes this for the place of the key itself must not find it in the log.
            (hash.is_some(), "sha256", "********".to_owned(), "64 hex digits, a different key in each table"),
            (tier.is_some(), "tier", shown("tier"), "the name of a tier, 1 to 64 bytes"),
            (limit.is_some(), "limit", shown("limit"), limits.as_str()),
            (udp_secret.is_some(), "udp_secret", "********".to_owned(), "32 hex digits"),
            (permissions.is_some(), "permissions", shown("permissions"), "a list of prices, reports, stream"),
            (expires_at_ms.is_some(), "expires_at_ms", shown("expires_at_ms"), "Unix milliseconds; 0 for never"),
        ];
        for (good, name, value, bounds) in checks {
            if !good {
                self.fault(index, name, &value, bounds);
            }
        }
        let record = KeyRecord {
            id: KeyId(id?),
            hash: hash?,
            limit_per_second: limit?.unwrap_or(1),
            expires_at_ms: expires_at_ms?,
            permissions: Permissions(permissions?.unwrap_or_default()),
            udp_secret: udp_secret?,
            rank: RANK_MAX,
        };
        Some(FixedKey { record, tier: tier?.map(str::to_owned), limit_per_second: limit?, permissions: permissions? })
    }

    fn fault(&mut self, index: usize, name: &str, value: &str, bounds: &str) {
        self.told += 1;
        if self.told <= FAULTS_TOLD_MAX {
            let name = format!("keys[{index}].{name}");
            self.faults.push(Fault::of_name(&name, value, self.origin.clone(), bounds));
        }
    }
}

fn permissions(value: &toml::Value) -> Option<u16> {
    let names: Option<Vec<&str>> = value.as_array()?.iter().map(toml::Value::as_str).collect();
    permission_bits(names?)
}
