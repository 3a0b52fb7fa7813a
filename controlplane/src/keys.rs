//! API keys in the control plane: secrets that never show, new keys, and who is admitted on a handed-over socket.
//!
//! What a shard needs to know of a key is in the data plane's directory; this file makes that directory's records and
//! asks it the same two questions that a shard asks: whose key is this, and is there one more request in it.

use dataplane_core::access::{KeyDirectory, Keys, hash_text};
use rand::{Rng, RngExt};
use shared::code::Code;
use shared::key::{KeyId, KeyRecord, Permissions};
use shared::moment::Moment;
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// What every key of ours begins with, so that a leaked one is recognised by scanners.
const KEY_PREFIX: &str = "tb_live_";

/// Random characters after the prefix: 32 of 62 are 190 bits, and the key is 40 characters long.
const KEY_RANDOM_CHARS: usize = 32;

const KEY_ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Requests per second of the demo key.
pub const DEMO_LIMIT_PER_SECOND: u32 = 3;

/// Requests per second of the demo's stress key: more than one machine serves.
const STRESS_LIMIT_PER_SECOND: u32 = 10_000_000;

/// A text that must not be shown: neither in logs nor in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text`.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one who must send or store it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `offered` is this secret. Takes the same time whatever differs, lengths included, because digests are
    /// compared.
    #[must_use]
    pub fn matches(&self, offered: &[u8]) -> bool {
        hash_text(self.0.as_bytes()).ct_eq(&hash_text(offered)).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(********)")
    }
}

/// A new key's text, from the operating system's randomness by way of a CSPRNG.
#[must_use]
pub fn new_key_text() -> Secret {
    let mut random = rand::rng();
    let mut text = KEY_PREFIX.to_owned();
    text.extend((0..KEY_RANDOM_CHARS).map(|_| char::from(KEY_ALPHABET[random.random_range(0..KEY_ALPHABET.len())])));
    Secret(text)
}

/// `N` bytes that nobody can guess.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// Reads `2 × N` hex digits of either case.
#[must_use]
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Bytes as lower-case hex digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The keys that a demo makes for itself at each start.
#[derive(Debug)]
pub struct DemoKeys {
    /// Three requests a second.
    pub demo: Secret,
    /// Ten million a second.
    pub stress: Secret,
    /// The stress key's number, for the binary UDP form.
    pub udp_key_id: u32,
    /// Its UDP secret, as hex.
    pub udp_secret: Secret,
    /// The administrator's.
    pub admin: Secret,
}

impl DemoKeys {
    /// New keys, and their records; `admin` is kept where the operator gave one.
    #[must_use]
    pub fn make(admin: Option<Secret>) -> (Self, Vec<KeyRecord>) {
        let (demo, stress) = (new_key_text(), new_key_text());
        let udp_secret: [u8; 16] = random_bytes();
        let record = |id: u32, text: &Secret, limit_per_second: u32, udp_secret: [u8; 16]| KeyRecord {
            id: KeyId(id),
            hash: hash_text(text.reveal().as_bytes()),
            limit_per_second,
            expires_at_ms: 0,
            permissions: Permissions(Permissions::PRICES | Permissions::REPORTS | Permissions::STREAM),
            udp_secret,
            rank: 3,
        };
        let records = vec![
            record(1, &demo, DEMO_LIMIT_PER_SECOND, random_bytes()),
            record(2, &stress, STRESS_LIMIT_PER_SECOND, udp_secret),
        ];
        let udp_secret = Secret::new(to_hex(&udp_secret));
        (Self { demo, stress, udp_key_id: 2, udp_secret, admin: admin.unwrap_or_else(new_key_text) }, records)
    }
}

/// The directory that shards and control plane share.
#[must_use]
pub fn directory(records: Vec<KeyRecord>, shards: usize) -> Keys {
    Arc::new(KeyDirectory::build(records, None, shards))
}

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

    #[test]
    fn a_new_key_has_the_documented_form_and_is_never_the_same() {
        let (one, other) = (new_key_text(), new_key_text());
        assert_eq!(one.reveal().len(), 40);
        assert!(one.reveal().starts_with("tb_live_"));
        assert!(one.reveal().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        assert_ne!(one, other);
    }

    #[test]
    fn a_secret_does_not_show_and_matches_itself_alone() {
        let secret = Secret::new("canary-in-the-coal-mine".to_owned());
        assert!(!format!("{secret:?}").contains("canary"));
        assert!(secret.matches(b"canary-in-the-coal-mine"));
        for other in [&b""[..], b"canary-in-the-coal-min", b"canary-in-the-coal-mines", b"Canary-in-the-coal-mine"] {
            assert!(!secret.matches(other));
        }
    }

    #[test]
    fn demo_keys_show_no_secret_and_keep_the_operator_s() {
        let (keys, records) = DemoKeys::make(Some(Secret::new("operators-own-key".to_owned())));
        assert_eq!(keys.admin.reveal(), "operators-own-key");
        let shown = format!("{keys:?} {records:?}");
        for secret in [&keys.demo, &keys.stress, &keys.udp_secret, &keys.admin] {
            assert!(!shown.contains(secret.reveal()));
        }
        assert_eq!(records.iter().map(|record| record.limit_per_second).collect::<Vec<_>>(), [3, 10_000_000]);
        assert_eq!(records[1].id, KeyId(keys.udp_key_id));
        assert_eq!(to_hex(&records[1].udp_secret), keys.udp_secret.reveal());
    }

    #[test]
    fn hex_is_read_strictly() {
        assert_eq!(from_hex::<2>("0aFf"), Some([0x0a, 0xff]));
        for bad in ["", "0a", "0aff0", "0aff00", "0agf", "+aff", "0äf"] {
            assert_eq!(from_hex::<2>(bad), None, "{bad}");
        }
        assert_eq!(to_hex(&[0x0a, 0xff]), "0aff");
    }

    #[test]
    fn unknown_and_expired_keys_look_alike() {
        let (texts, mut records) = DemoKeys::make(None);
        records[1].expires_at_ms = 1_000;
        let keys = directory(records, 1);
        let now = Moment { mono_ns: 5_000_000_000, wall_ms: 1_000 };
        let who =
            |text: Result<&[u8], Code>, permissions| identify(&keys, text, permissions, now).map(|record| record.id.0);
        assert_eq!(who(Ok(texts.demo.reveal().as_bytes()), Permissions::PRICES), Ok(1));
        assert_eq!(who(Ok(texts.demo.reveal().as_bytes()), 1 << 9), Err(Code::NotPermitted));
        assert_eq!(who(Ok(texts.stress.reveal().as_bytes()), Permissions::PRICES), Err(Code::KeyInvalid));
        assert_eq!(who(Ok(b"tb_live_nobody"), Permissions::PRICES), Err(Code::KeyInvalid));
        assert_eq!(who(Err(Code::KeyMissing), Permissions::PRICES), Err(Code::KeyMissing));
    }
}
