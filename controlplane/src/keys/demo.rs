//! The keys that a demo makes for itself at each start.

use super::rules::FixedKey;
use super::secret::{Secret, new_key_text, random_bytes, to_hex};
use dataplane_core::access::hash_text;
use shared::key::{KeyId, KeyRecord, Permissions};

/// Requests per second of the demo's stress key: more than one machine serves.
const STRESS_LIMIT_PER_SECOND: u32 = 10_000_000;

/// Numbers of a demo's own keys: the highest there are, which no store comes to give.
const DEMO_ID: u32 = u32::MAX - 1;
const STRESS_ID: u32 = u32::MAX;

/// The texts of a demo's keys.
#[derive(Debug)]
pub struct DemoKeys {
    /// Of the tier `demo`: three requests a second, 1,000 in performance mode.
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
    /// New keys, for a key desk; `admin` is kept where the operator gave one.
    #[must_use]
    pub fn make(admin: Option<Secret>) -> (Self, Vec<FixedKey>) {
        let (demo, stress) = (new_key_text(), new_key_text());
        let udp_secret: [u8; 16] = random_bytes();
        let key = |id: u32, text: &Secret, tier: &str, limit_per_second, udp_secret: [u8; 16]| FixedKey {
            record: KeyRecord {
                id: KeyId(id),
                hash: hash_text(text.reveal().as_bytes()),
                limit_per_second: 1,
                expires_at_ms: 0,
                permissions: Permissions::default(),
                udp_secret,
                rank: 0,
            },
            tier: Some(tier.to_owned()),
            limit_per_second,
            permissions: None,
        };
        let keys = vec![
            key(DEMO_ID, &demo, "demo", None, random_bytes()),
            key(STRESS_ID, &stress, "stress", Some(STRESS_LIMIT_PER_SECOND), udp_secret),
        ];
        let udp_secret = Secret::new(to_hex(&udp_secret));
        (Self { demo, stress, udp_key_id: STRESS_ID, udp_secret, admin: admin.unwrap_or_else(new_key_text) }, keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_keys_show_no_secret_and_keep_the_operator_s() {
        let (texts, keys) = DemoKeys::make(Some(Secret::new("operators-own-key".to_owned())));
        assert_eq!(texts.admin.reveal(), "operators-own-key");
        let shown = format!("{texts:?} {keys:?}");
        for secret in [&texts.demo, &texts.stress, &texts.udp_secret, &texts.admin] {
            assert!(!shown.contains(secret.reveal()));
        }
        assert_eq!(keys.iter().map(|key| key.limit_per_second).collect::<Vec<_>>(), [None, Some(10_000_000)]);
        assert_eq!(keys[1].record.id, KeyId(texts.udp_key_id));
        assert_eq!(to_hex(&keys[1].record.udp_secret), texts.udp_secret.reveal());
    }
}
