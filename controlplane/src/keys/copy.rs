//! The last good copy of the stored keys, on disk: with it a node that starts while the database is away serves whom it
//! served before.
//!
//! One file, for its owner only: it holds hashes and UDP secrets, no key's text. It ends with a checksum, so that a
//! damaged one is not taken for good.

use super::rules::Rule;
use crate::private_file;
use crate::store::TierRow;
use dataplane_core::access::hash_text;
use serde::{Deserialize, Serialize};
use shared::key::{KeyId, KeyRecord, Permissions};
use shared::limits::KEYS_MAX;
use std::io::{self, ErrorKind};
use std::path::Path;

const MAGIC: &[u8; 8] = b"TBKEYS1\n";

/// Bytes of one key: number, hash, UDP secret, expiry, place of its tier's name, which of the three that follow are its
/// own, permissions, limit per second, limit per month.
const KEY_BYTES: usize = 4 + 32 + 16 + 8 + 2 + 2 + 2 + 4 + 8;

/// Longest head: tiers and names of tiers. A few hundred tiers of 200 bytes.
const HEAD_BYTES_MAX: usize = 64 * 1_024;

const CHECKSUM_BYTES: usize = 32;

/// Largest copy that is read: 78 MB for `KEYS_MAX` keys.
const COPY_BYTES_MAX: u64 = (MAGIC.len() + 4 + HEAD_BYTES_MAX + KEYS_MAX * KEY_BYTES + CHECKSUM_BYTES) as u64;

/// Name of the file in the data directory.
pub(super) const FILE_NAME: &str = "keys.copy";

#[derive(Serialize, Deserialize)]
struct Tier {
    name: String,
    rank: u8,
    limit_per_second: u32,
    limit_per_second_performance: Option<u32>,
    limit_per_month: u64,
    permissions: u16,
}

#[derive(Serialize, Deserialize)]
struct Head {
    tiers: Vec<Tier>,
    names: Vec<String>,
}

/// What a copy holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Copied {
    pub(super) tiers: Vec<TierRow>,
    /// Names of tiers, by the places that rules name.
    pub(super) names: Vec<String>,
    pub(super) keys: Vec<(KeyRecord, Rule)>,
}

/// Makes the file's content.
pub(super) fn encode(copied: &Copied) -> io::Result<Vec<u8>> {
    let tiers = copied.tiers.iter().map(|row| Tier {
        name: row.name.clone(),
        rank: row.rank,
        limit_per_second: row.limit_per_second,
        limit_per_second_performance: row.limit_per_second_performance,
        limit_per_month: row.limit_per_month,
        permissions: row.permissions,
    });
    let head = serde_json::to_vec(&Head { tiers: tiers.collect(), names: copied.names.clone() })?;
    let length = u32::try_from(head.len()).ok().filter(|_| head.len() <= HEAD_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "too many tiers"))?;
    let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + head.len() + copied.keys.len() * KEY_BYTES + CHECKSUM_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(length.to_le_bytes());
    bytes.extend(head);
    copied.keys.iter().for_each(|(record, rule)| encode_key(record, rule, &mut bytes));
    let checksum = hash_text(&bytes);
    bytes.extend(checksum);
    Ok(bytes)
}

fn encode_key(record: &KeyRecord, rule: &Rule, bytes: &mut Vec<u8>) {
    let own = [rule.permissions.is_some(), rule.limit_per_second.is_some(), rule.limit_per_month.is_some()];
    let own = (0..).zip(own).fold(0_u16, |bits, (place, own)| bits | u16::from(own) << place);
    bytes.extend(record.id.0.to_le_bytes());
    bytes.extend(record.hash);
    bytes.extend(record.udp_secret);
    bytes.extend(record.expires_at_ms.to_le_bytes());
    bytes.extend(rule.tier.to_le_bytes());
    bytes.extend(own.to_le_bytes());
    bytes.extend(rule.permissions.unwrap_or_default().to_le_bytes());
    bytes.extend(rule.limit_per_second.unwrap_or_default().to_le_bytes());
    bytes.extend(rule.limit_per_month.unwrap_or_default().to_le_bytes());
}

/// Reads the file's content.
pub(super) fn decode(bytes: &[u8]) -> Option<Copied> {
    let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    if hash_text(content) != checksum {
        return None;
    }
    let rest = content.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk()?;
    let (head, keys) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let Head { tiers, names } = serde_json::from_slice(head).ok()?;
    let tiers = tiers.into_iter().map(|tier| TierRow {
        name: tier.name,
        rank: tier.rank,
        limit_per_second: tier.limit_per_second,
        limit_per_second_performance: tier.limit_per_second_performance,
        limit_per_month: tier.limit_per_month,
        permissions: tier.permissions,
    });
    let chunks = keys.chunks_exact(KEY_BYTES);
    if !chunks.remainder().is_empty() {
        return None;
    }
    Some(Copied { tiers: tiers.collect(), names, keys: chunks.map(decode_key).collect::<Option<_>>()? })
}

fn decode_key(mut bytes: &[u8]) -> Option<(KeyRecord, Rule)> {
    fn next<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (first, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*first)
    }
    let bytes = &mut bytes;
    let record = KeyRecord {
        id: KeyId(u32::from_le_bytes(next(bytes)?)),
        hash: next(bytes)?,
        udp_secret: next(bytes)?,
        expires_at_ms: u64::from_le_bytes(next(bytes)?),
        limit_per_second: 1,
        permissions: Permissions::default(),
        rank: 0,
    };
    let tier = u16::from_le_bytes(next(bytes)?);
    let own = u16::from_le_bytes(next(bytes)?);
    let rule = Rule {
        tier,
        permissions: Some(u16::from_le_bytes(next(bytes)?)).filter(|_| own & 1 != 0),
        limit_per_second: Some(u32::from_le_bytes(next(bytes)?)).filter(|_| own & 2 != 0),
        limit_per_month: Some(u64::from_le_bytes(next(bytes)?)).filter(|_| own & 4 != 0),
    };
    Some((record, rule))
}

/// Reads the copy at `path`, if there is a good one. A bad one is told of and stays until the next good one is written.
pub(super) fn read(path: &Path) -> Option<Copied> {
    let bytes = match private_file::read(path, COPY_BYTES_MAX) {
        Ok(bytes) => bytes?,
        Err(fault) => {
            tracing::warn!(%fault, path = %path.display(), "the copy of the keys cannot be read: check TB_DATA_DIR");
            return None;
        }
    };
    let copied = decode(&bytes);
    if copied.is_none() {
        tracing::warn!(path = %path.display(), "the copy of the keys is damaged; the next one replaces it");
    }
    copied
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::rules::first_tiers;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn copied() -> Copied {
        let key = |id: u32, rule| {
            let record = KeyRecord {
                id: KeyId(id),
                hash: [id as u8; 32],
                limit_per_second: 1,
                expires_at_ms: u64::from(id) * 1_000,
                permissions: Permissions::default(),
                udp_secret: [9; 16],
                rank: 0,
            };
            (record, rule)
        };
        let none = Rule { tier: 1, limit_per_month: None, limit_per_second: None, permissions: None };
        let all = Rule { tier: 0, limit_per_month: Some(0), limit_per_second: Some(7), permissions: Some(0) };
        Copied {
            tiers: first_tiers(),
            names: vec!["pro".to_owned(), "demo".to_owned()],
            keys: vec![key(1, none), key(u32::MAX, all)],
        }
    }

    #[test]
    fn what_is_written_is_read_and_for_its_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE_NAME);
        assert_eq!(read(&path), None);
        for expected in [Copied::default(), copied()] {
            private_file::replace(&path, &encode(&expected).expect("bytes")).expect("written");
            assert_eq!(read(&path), Some(expected));
        }
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_damaged_copy_is_no_copy() {
        let good = encode(&copied()).expect("bytes");
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert_eq!(decode(&bad), None, "byte {place}");
            assert_eq!(decode(&good[..place]), None, "cut at {place}");
        }
    }
}
