//! The `[[keys]]` tables of the settings file: which API keys are admitted, and how much they may ask.
//!
//! A table holds a key's SHA-256, never its text, and perhaps its UDP secret. Until there is a store of keys, this is
//! where `serve` knows them from.

use super::fault::Fault;
use super::layers::{self, Origin};
use crate::keys;
use shared::key::{KeyId, KeyRecord, Permissions};
use shared::limits::{KEY_LIMIT_PER_SECOND_MAX, KEYS_MAX};
use std::collections::HashSet;

/// Names of the permissions that a table may list.
const PERMISSIONS: [(&str, u16); 3] =
    [("prices", Permissions::PRICES), ("reports", Permissions::REPORTS), ("stream", Permissions::STREAM)];

/// Most faults told of one list: a list that is wrong throughout is wrong in one way.
const FAULTS_TOLD_MAX: usize = 20;

/// Reads every table, adding what is wrong with each.
pub fn read(tables: &[toml::Value], origin: &Origin, faults: &mut Vec<Fault>) -> Vec<KeyRecord> {
    if tables.len() > KEYS_MAX {
        let count = tables.len().to_string();
        faults.push(Fault::of_name("keys", &count, origin.clone(), &format!("at most {KEYS_MAX} tables")));
        return Vec::new();
    }
    let mut reader =
        Reader { origin, faults, told: 0, ids: HashSet::with_capacity(tables.len()), hashes: HashSet::new() };
    tables.iter().enumerate().filter_map(|(index, table)| reader.record(index, table)).collect()
}

struct Reader<'a> {
    origin: &'a Origin,
    faults: &'a mut Vec<Fault>,
    told: usize,
    ids: HashSet<u32>,
    hashes: HashSet<[u8; 32]>,
}

impl Reader<'_> {
    fn record(&mut self, index: usize, table: &toml::Value) -> Option<KeyRecord> {
        let Some(table) = table.as_table() else {
            self.fault(index, "", "", "a table with id, sha256 and limit");
            return None;
        };
        for name in table.keys() {
            if !["id", "sha256", "limit", "udp_secret", "permissions", "expires_at_ms"].contains(&name.as_str()) {
                let known = "id, sha256, limit, udp_secret, permissions or expires_at_ms";
                self.fault(index, name, "…", known);
            }
        }
        let number = |name: &str| table.get(name).and_then(toml::Value::as_integer);
        let text = |name: &str| table.get(name).and_then(toml::Value::as_str);
        let shown = |name: &str| table.get(name).map(layers::shown).unwrap_or_default();

        let id = number("id").and_then(|id| u32::try_from(id).ok()).filter(|id| *id > 0 && self.ids.insert(*id));
        let hash = text("sha256").and_then(keys::from_hex::<32>).filter(|hash| self.hashes.insert(*hash));
        let limit = number("limit").and_then(|limit| u32::try_from(limit).ok());
        let limit = limit.filter(|limit| (1..=KEY_LIMIT_PER_SECOND_MAX).contains(limit));
        let udp_secret = match table.get("udp_secret") {
            // Nobody knows a random secret: a key without one does not get in by the binary form.
            None => Some(keys::random_bytes()),
            Some(value) => value.as_str().and_then(keys::from_hex::<16>),
        };
        let permissions = match table.get("permissions") {
            None => Some(Permissions(Permissions::PRICES)),
            Some(value) => permissions(value),
        };
        let expires_at_ms = number("expires_at_ms").or(table.get("expires_at_ms").is_none().then_some(0));
        let expires_at_ms = expires_at_ms.and_then(|time| u64::try_from(time).ok());

        let limits = format!("1 to {KEY_LIMIT_PER_SECOND_MAX} requests per second");
        let checks = [
            (id.is_some(), "id", shown("id"), "1 to 4294967295, a different one for each key"),
            // Who takes this for the place of the key itself must not find it in the log.
            (hash.is_some(), "sha256", "********".to_owned(), "64 hex digits, a different key in each table"),
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
        Some(KeyRecord {
            id: KeyId(id?),
            hash: hash?,
            limit_per_second: limit?,
            expires_at_ms: expires_at_ms?,
            permissions: permissions?,
            udp_secret: udp_secret?,
            rank: 3,
        })
    }

    fn fault(&mut self, index: usize, name: &str, value: &str, bounds: &str) {
        self.told += 1;
        if self.told <= FAULTS_TOLD_MAX {
            let name = format!("keys[{index}].{name}");
            self.faults.push(Fault::of_name(&name, value, self.origin.clone(), bounds));
        }
    }
}

fn permissions(value: &toml::Value) -> Option<Permissions> {
    let bit =
        |value: &toml::Value| PERMISSIONS.iter().find(|(name, _)| Some(*name) == value.as_str()).map(|(_, bit)| *bit);
    let bits: Option<Vec<u16>> = value.as_array()?.iter().map(bit).collect();
    Some(Permissions(bits?.into_iter().fold(0, |all, bit| all | bit)))
}
