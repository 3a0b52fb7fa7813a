//! Who is calling: the key in a request's head, and the administrator's gate.

use super::problem::Problem;
use crate::keys::Secret;
use crate::params::Parameters;
use axum::http::{HeaderMap, header};
use dataplane_core::access::hash_text;
use shared::code::Code;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

/// Wrong administrator's keys that are answered in one second; further ones are told to come back later. The right
/// key is never held up, so that nobody can lock the operator out; at 95 bits and more it is not found by trying.
const WRONG_PER_SECOND_MAX: u32 = 10;

/// The API key of a request: `Authorization: Bearer KEY` or `X-API-Key: KEY`.
///
/// # Errors
/// `key_missing`; `key_invalid` for two that differ, as in a shard: whichever was meant, the other is not it.
pub fn key_text(headers: &HeaderMap) -> Result<&[u8], Code> {
    let plain = headers.get_all("x-api-key").iter().map(|value| value.as_bytes().trim_ascii());
    let mut keys = bearers(headers).chain(plain.filter(|key| !key.is_empty()));
    let key = keys.next().ok_or(Code::KeyMissing)?;
    if keys.all(|other| other == key) { Ok(key) } else { Err(Code::KeyInvalid) }
}

fn bearers(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
        let key = key.trim_ascii();
        (scheme.eq_ignore_ascii_case(b"Bearer ") && !key.is_empty()).then_some(key)
    })
}

/// Admits whoever knows the administrator's key.
#[derive(Debug)]
pub struct AdminGate {
    key: Option<Secret>,
    parameters: Option<watch::Receiver<Arc<Parameters>>>,
    wrong: AtomicU64,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    began_mono_ms: u64,
    wrong: u32,
}

impl AdminGate {
    /// A gate for `key`; without one it admits nobody.
    #[must_use]
    pub fn new(key: Option<Secret>) -> Self {
        Self { key, parameters: None, wrong: AtomicU64::new(0), window: Mutex::default() }
    }

    /// The same gate, which admits the key of the parameter `ADMIN_KEY` too.
    #[must_use]
    pub fn or_of(self, parameters: watch::Receiver<Arc<Parameters>>) -> Self {
        Self { parameters: Some(parameters), ..self }
    }

    /// Whether `offered` is one of the keys; compared in the same time whatever differs.
    fn knows(&self, offered: &[u8]) -> bool {
        let own = self.key.as_ref().is_some_and(|key| key.matches(offered));
        let second = self.parameters.as_ref().and_then(|parameters| parameters.borrow().admin_key_hash);
        own | second.is_some_and(|hash| hash.ct_eq(&hash_text(offered)).into())
    }

    /// Whether the request carries the administrator's key, where others' keys are welcome too: a key that is none is
    /// not counted here, because most of those are a client's own.
    #[must_use]
    pub fn is_carried(&self, headers: &HeaderMap) -> bool {
        let mut offered = bearers(headers);
        offered.next().is_some_and(|offered| self.knows(offered)) && offered.next().is_none()
    }

    /// How many were turned away since start.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed)
    }

    /// Whether the request carries the administrator's key.
    ///
    /// # Errors
    /// `key_missing`, `key_invalid`, or `rate_limited_second` for one wrong key too many.
    pub fn admit(&self, headers: &HeaderMap, mono_ms: u64) -> Result<(), Problem> {
        let Some(offered) = bearers(headers).next() else {
            let how = "Give the administrator's key as Authorization: Bearer KEY.";
            return Err(Problem::saying(Code::KeyMissing, how));
        };
        if self.knows(offered) {
            return Ok(());
        }
        self.wrong.fetch_add(1, Ordering::Relaxed);
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if mono_ms.saturating_sub(window.began_mono_ms) >= 1_000 {
            *window = Window { began_mono_ms: mono_ms, wrong: 0 };
        }
        window.wrong = window.wrong.saturating_add(1);
        if window.wrong > WRONG_PER_SECOND_MAX {
            let why = "Too many wrong administrator's keys: try again later.";
            return Err(Problem::saying(Code::RateLimitedSecond, why));
        }
        if window.wrong == 1 {
            tracing::warn!("a request to /admin carried a wrong key");
        }
        Err(Problem::saying(
            Code::KeyInvalid,
            "This is not the administrator's key (the setting or the parameter ADMIN_KEY).",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};
    use axum::response::IntoResponse;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn keys_are_found_where_the_contract_puts_them() {
        for (lines, expected) in [
            (&[("authorization", "Bearer abc")][..], Ok(&b"abc"[..])),
            (&[("authorization", "bearer  abc ")], Ok(b"abc")),
            (&[("x-api-key", "abc")], Ok(b"abc")),
            (&[("authorization", "Basic abc"), ("x-api-key", "def")], Ok(b"def")),
            (&[("authorization", "Bearer abc"), ("x-api-key", "abc")], Ok(b"abc")),
            (&[("authorization", "Bearer abc"), ("x-api-key", "")], Ok(b"abc")),
            (&[("authorization", "Bearer abc"), ("x-api-key", "def")], Err(Code::KeyInvalid)),
            (&[("x-api-key", "abc"), ("x-api-key", "def")], Err(Code::KeyInvalid)),
            (&[("authorization", "Basic abc")], Err(Code::KeyMissing)),
            (&[("authorization", "Bearer")], Err(Code::KeyMissing)),
            (&[("authorization", "Bearer ")], Err(Code::KeyMissing)),
            (&[("x-api-key", "")], Err(Code::KeyMissing)),
            (&[], Err(Code::KeyMissing)),
        ] {
            assert_eq!(key_text(&headers(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn wrong_keys_are_counted_and_slowed_but_the_right_one_always_passes() {
        let gate = AdminGate::new(Some(Secret::new("the-operators-own-key".to_owned())));
        let right = headers(&[("authorization", "Bearer the-operators-own-key")]);
        let wrong = headers(&[("authorization", "Bearer the-operators-own-kez")]);
        let status = |headers: &HeaderMap, now| match gate.admit(headers, now) {
            Ok(()) => 200,
            Err(problem) => problem.into_response().status().as_u16(),
        };
        let answers: Vec<u16> = (0..12).map(|_| status(&wrong, 5_000)).collect();
        assert_eq!(answers, [401, 401, 401, 401, 401, 401, 401, 401, 401, 401, 429, 429]);
        assert_eq!(status(&right, 5_000), 200);
        assert_eq!(status(&wrong, 6_000), 401, "a new second");
        assert_eq!(status(&headers(&[("x-api-key", "the-operators-own-key")]), 6_000), 401);
        assert_eq!(gate.turned_away(), 13);
    }

    #[test]
    fn without_a_key_nobody_is_admitted() {
        let gate = AdminGate::new(None);
        assert!(gate.admit(&headers(&[("authorization", "Bearer  ")]), 0).is_err());
        assert!(gate.admit(&headers(&[("authorization", "Bearer x")]), 0).is_err());
        assert!(!gate.is_carried(&headers(&[("authorization", "Bearer x")])));
    }

    #[test]
    fn where_others_are_welcome_too_the_administrator_is_known_and_nobody_is_counted() {
        let gate = AdminGate::new(Some(Secret::new("the-operators-own-key".to_owned())));
        let right = ("authorization", "Bearer the-operators-own-key");
        let wrong = ("authorization", "Bearer tb_live_somebody");
        for (lines, expected) in [
            (&[right][..], true),
            (&[wrong], false),
            (&[right, wrong], false),
            (&[], false),
            (&[("x-api-key", "x")], false),
        ] {
            assert_eq!(gate.is_carried(&headers(lines)), expected, "{lines:?}");
        }
        assert_eq!(gate.turned_away(), 0);
    }
}
