//! Secrets: texts that never show, new keys' texts, and the hex that bytes are written in.
//!
//! Nothing here knows what a secret opens.

use dataplane_core::access::hash_text;
use rand::{Rng, RngExt};
use std::fmt;
use subtle::ConstantTimeEq;

/// What every key of ours begins with, so that a leaked one is recognised by scanners.
pub const KEY_PREFIX: &str = "tb_live_";

/// Random characters after the prefix: 32 of 62 are 190 bits, and the key is 40 characters long.
const KEY_RANDOM_CHARS: usize = 32;

const KEY_ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Characters of a key's text that are kept to recognise it by: the prefix and 4 more, which leaves 166 bits.
const HINT_CHARS: usize = KEY_PREFIX.len() + 4;

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
    Secret::new(text)
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

/// The first characters of a key's text, to recognise it by.
#[must_use]
pub fn hint(text: &Secret) -> String {
    text.reveal().chars().take(HINT_CHARS).collect()
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
    fn hex_is_read_strictly() {
        assert_eq!(from_hex::<2>("0aFf"), Some([0x0a, 0xff]));
        for bad in ["", "0a", "0aff0", "0aff00", "0agf", "+aff", "0äf"] {
            assert_eq!(from_hex::<2>(bad), None, "{bad}");
        }
        assert_eq!(to_hex(&[0x0a, 0xff]), "0aff");
    }
}
