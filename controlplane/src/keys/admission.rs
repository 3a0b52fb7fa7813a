//! Who is admitted on a socket that a shard has handed over: the same two questions that a shard asks of the directory,
//! whose key is this, and is there one more request in it.

use dataplane_core::access::KeyDirectory;
use shared::code::Code;
use shared::key::KeyRecord;
use shared::moment::Moment;

/// Whose key `text` is: the same answer for unknown, revoked and expired ones.
///
/// # Errors
/// That of `text`, `key_invalid`, or `not_permitted` when the key lacks one of `permissions`.
pub fn identify<'a>(
    keys: &'a KeyDirectory,
    text: Result<&[u8], Code>,
    permissions: u16,
    now: Moment,
) -> Result<&'a KeyRecord, Code> {
    let record = keys.find_text(text?).ok_or(Code::KeyInvalid)?;
    if record.expires_at_ms != 0 && record.expires_at_ms <= now.wall_ms || keys.is_refused(record.id) {
        return Err(Code::KeyInvalid);
    }
    if record.permissions.allow(permissions) { Ok(record) } else { Err(Code::NotPermitted) }
}

/// Takes one request from the key's allowance; what is left of this second.
///
/// # Errors
/// `rate_limited_month` or `rate_limited_second`.
pub fn admit(keys: &KeyDirectory, record: &KeyRecord, now: Moment) -> Result<u32, Code> {
    if keys.is_month_used_up(record.id) {
        return Err(Code::RateLimitedMonth);
    }
    keys.take_one(record.id, now.mono_ms()).ok_or(Code::RateLimitedSecond)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::directory;
    use dataplane_core::access::hash_text;
    use shared::key::{KeyId, Permissions};

    #[test]
    fn unknown_and_expired_keys_look_alike() {
        let record = |id, text: &[u8], expires_at_ms| KeyRecord {
            id: KeyId(id),
            hash: hash_text(text),
            limit_per_second: 1,
            expires_at_ms,
            permissions: Permissions(Permissions::PRICES),
            udp_secret: [0; 16],
            rank: 3,
        };
        let keys = directory(vec![record(1, b"good", 0), record(2, b"old", 1_000), record(3, b"held", 0)], 1);
        keys.refuse(KeyId(3));
        let now = Moment { mono_ns: 5_000_000_000, wall_ms: 1_000 };
        let who =
            |text: Result<&[u8], Code>, permissions| identify(&keys, text, permissions, now).map(|record| record.id.0);
        assert_eq!(who(Ok(b"good"), Permissions::PRICES), Ok(1));
        assert_eq!(who(Ok(b"good"), 1 << 9), Err(Code::NotPermitted));
        for text in [&b"old"[..], b"held", b"tb_live_nobody"] {
            assert_eq!(who(Ok(text), Permissions::PRICES), Err(Code::KeyInvalid));
        }
        assert_eq!(who(Err(Code::KeyMissing), Permissions::PRICES), Err(Code::KeyMissing));
    }
}
