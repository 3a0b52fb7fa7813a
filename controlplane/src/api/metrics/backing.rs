//! What stands behind the prices and what they do not wait for: the cache that nodes share.
//!
//! `tb_*_up` is 0 while calls fail for that side's own sake; nothing that serves prices depends on it.

use super::{Exposition, Kind, Nanoseconds, Seconds};
use crate::cache::{Cache, CacheHealth};

/// Milliseconds since then; 0 when it is not away.
fn away(since_ms: Option<u64>) -> Seconds {
    Seconds::of_ms(since_ms.map_or(0, |since_ms| tuning::clock::now().wall_ms.saturating_sub(since_ms)))
}

fn labelled(label: &str, values: impl IntoIterator<Item = (&'static str, u64)>) -> Vec<(String, u64)> {
    values.into_iter().map(|(name, value)| (format!("{label}=\"{name}\""), value)).collect()
}

/// The cache.
pub(super) fn cache(text: &mut Exposition, cache: &dyn Cache) {
    let CacheHealth { calls, unreachable, refused, connections, away_since_ms, round_trip_us, held } = cache.health();
    let up = [(format!("kind=\"{}\"", cache.kind()), u8::from(away_since_ms.is_none()))];
    text.family("tb_cache_up", Kind::Gauge, "Whether the cache answers.", up);
    text.one("tb_cache_away_seconds", Kind::Gauge, "Since when the cache is away; 0: it answers.", away(away_since_ms));
    text.one("tb_cache_calls_total", Kind::Counter, "Calls to the cache.", calls);
    let failures = labelled("kind", [("unreachable", unreachable), ("refused", refused)]);
    text.family("tb_cache_failures_total", Kind::Counter, "Calls that failed, by kind.", failures);
    text.one("tb_cache_connections_total", Kind::Counter, "Connections made to the cache.", connections);
    let last = Nanoseconds(round_trip_us.saturating_mul(1_000));
    text.one("tb_cache_round_trip_seconds", Kind::Gauge, "Time of the last call that was answered.", last);
    if let Some((values, bytes)) = held {
        text.one("tb_cache_values", Kind::Gauge, "Values in the in-process cache.", values);
        text.one("tb_cache_bytes", Kind::Gauge, "Bytes of the in-process cache.", bytes);
    }
}
