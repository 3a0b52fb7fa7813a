//! Every name that may stand in the cache, with its type and its lifetime: the one list.
//!
//! Patterns are those of the system being replaced. A `<key>` is an API key's SHA-256 in hex, never its text.

use crate::keys::KEY_PREFIX;
use std::fmt;

const DAY_S: u64 = 24 * 60 * 60;

/// Usage details are kept for 93 days: three months and a day.
const USAGE_S: u64 = 93 * DAY_S;

/// Type of what stands under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A hash.
    Hash,
    /// A sorted set.
    Sorted,
}

impl Kind {
    /// Its name, as the server's command TYPE says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Hash => "hash",
            Self::Sorted => "zset",
        }
    }
}

/// One pattern of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The text before the variable part; the whole name where there is none.
    pub prefix: &'static str,
    /// What the variable part is, for people; `None` where there is none.
    pub variable: Option<&'static str>,
    /// Type.
    pub kind: Kind,
    /// Lifetime, s; `None`: no end.
    pub lifetime_s: Option<u64>,
    /// Whether an administrator may write it through `/admin/cache`: all but what is not of the documented list.
    pub writable: bool,
}

impl Pattern {
    /// As people write it, such as `price:<ASSET>`.
    #[must_use]
    pub fn shown(&self) -> String {
        let variable = self.variable.map(|variable| format!("<{variable}>"));
        format!("{}{}", self.prefix, variable.unwrap_or_default())
    }
}

const fn pattern(
    prefix: &'static str,
    variable: Option<&'static str>,
    kind: Kind,
    lifetime_s: Option<u64>,
    writable: bool,
) -> Pattern {
    Pattern { prefix, variable, kind, lifetime_s, writable }
}

/// `apikey:<key>`: a key's record, for programs beside this one.
pub const API_KEY: Pattern = pattern("apikey:", Some("key"), Kind::Text, Some(DAY_S), true);
/// `app:config`: the parameters in force.
pub const APP_CONFIG: Pattern = pattern("app:config", None, Kind::Hash, None, true);
/// `ratelimit:<key>`: a key's second, shared by the nodes. It lives for two windows of one second.
pub const RATE_LIMIT: Pattern = pattern("ratelimit:", Some("key"), Kind::Text, Some(2), true);
/// `usage:counter:<key>`: requests of the present month.
pub const USAGE_COUNTER: Pattern = pattern("usage:counter:", Some("key"), Kind::Text, Some(USAGE_S), true);
/// `price:<ASSET>`: a price with its own times and source. "Short" is a minute: twice the 30 s between two flushes.
pub const PRICE: Pattern = pattern("price:", Some("ASSET"), Kind::Text, Some(60), true);
/// `usage_log:<uuid>`: one usage record.
pub const USAGE_LOG: Pattern = pattern("usage_log:", Some("uuid"), Kind::Hash, Some(USAGE_S), true);
/// `usage_logs:index`: every usage record, by time.
pub const USAGE_INDEX: Pattern = pattern("usage_logs:index", None, Kind::Sorted, Some(USAGE_S), true);
/// `usage_logs:api_key:<key>`: a key's usage records, by time.
pub const USAGE_BY_KEY: Pattern = pattern("usage_logs:api_key:", Some("key"), Kind::Sorted, Some(USAGE_S), true);
/// `usage_logs:asset:<ASSET>`: an asset's usage records, by time.
pub const USAGE_BY_ASSET: Pattern = pattern("usage_logs:asset:", Some("ASSET"), Kind::Sorted, Some(USAGE_S), true);
/// `{adaptive:lpo}:successes`: answers that succeeded. The braces keep the three in one slot of a cluster.
pub const ADAPTIVE_SUCCESSES: Pattern = pattern("{adaptive:lpo}:successes", None, Kind::Text, None, true);
/// `{adaptive:lpo}:total`: answers.
pub const ADAPTIVE_TOTAL: Pattern = pattern("{adaptive:lpo}:total", None, Kind::Text, None, true);
/// `{adaptive:lpo}:throttle`: by how much the cluster throttles now.
pub const ADAPTIVE_THROTTLE: Pattern = pattern("{adaptive:lpo}:throttle", None, Kind::Text, None, true);
/// `cluster:stats:<node>`: a node's counters.
pub const CLUSTER_STATS: Pattern = pattern("cluster:stats:", Some("node"), Kind::Hash, Some(10), true);
/// `cluster:nodes`: nodes by when they were last alive, Unix ms. Ours: without it, finding the nodes would take a scan
/// of every name.
pub const CLUSTER_NODES: Pattern = pattern("cluster:nodes", None, Kind::Sorted, None, false);
/// `session:<session_id>`: a payment session that was dealt with.
pub const SESSION: Pattern = pattern("session:", Some("session_id"), Kind::Text, Some(DAY_S), true);
/// `webhook:<event_id>`: a payment event that was dealt with.
pub const WEBHOOK: Pattern = pattern("webhook:", Some("event_id"), Kind::Text, Some(DAY_S), true);
/// `kcc:daily`: the day's key figures.
pub const KCC_DAILY: Pattern = pattern("kcc:daily", None, Kind::Text, Some(DAY_S), true);
/// `translate:<lang>:<hash>`: a translation.
pub const TRANSLATE: Pattern = pattern("translate:", Some("lang:hash"), Kind::Text, Some(30 * DAY_S), true);
/// `report_usage:<id>`: one report that was asked for.
pub const REPORT_USAGE: Pattern = pattern("report_usage:", Some("id"), Kind::Hash, Some(USAGE_S), true);
/// `report:text:YYYY-MM-DD`: a day's report as text. Kept as long as the usage it was made of.
pub const REPORT_TEXT: Pattern = pattern("report:text:", Some("YYYY-MM-DD"), Kind::Text, Some(USAGE_S), true);

/// `exchange_asset_map`: for each exchange the assets it shall be asked for, parted by commas. Ours: in the replaced system
/// it had no documented name.
pub const EXCHANGE_ASSET_MAP: Pattern = pattern("exchange_asset_map", None, Kind::Hash, None, false);
/// `sync:cursor`: up to where this cache is a copy of which database. Ours.
pub const SYNC_CURSOR: Pattern = pattern("sync:cursor", None, Kind::Hash, None, false);

/// Every pattern. Longer prefixes stand before shorter ones that they begin with.
pub const ALL: [Pattern; 22] = [
    API_KEY,
    APP_CONFIG,
    RATE_LIMIT,
    USAGE_COUNTER,
    PRICE,
    USAGE_LOG,
    USAGE_INDEX,
    USAGE_BY_KEY,
    USAGE_BY_ASSET,
    ADAPTIVE_SUCCESSES,
    ADAPTIVE_TOTAL,
    ADAPTIVE_THROTTLE,
    CLUSTER_STATS,
    CLUSTER_NODES,
    SESSION,
    WEBHOOK,
    KCC_DAILY,
    TRANSLATE,
    REPORT_USAGE,
    REPORT_TEXT,
    EXCHANGE_ASSET_MAP,
    SYNC_CURSOR,
];

/// Longest variable part, bytes: a node's name is up to 64, a hash 64, a language and a hash 80.
pub const VARIABLE_MAX: usize = 128;

/// A name of one of the patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheKey {
    pattern: Pattern,
    name: String,
}

impl CacheKey {
    /// The name of `pattern` with its variable part.
    ///
    /// # Errors
    /// What is wrong with the variable part: 1 to 128 printable ASCII characters without spaces, braces or stars.
    pub fn new(pattern: Pattern, variable: &str) -> Result<Self, String> {
        let good = match pattern.variable {
            None => variable.is_empty(),
            Some(_) => {
                (1..=VARIABLE_MAX).contains(&variable.len())
                    && variable.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}*?[]\\\"".contains(&byte))
                    // Somebody's key where its hash belongs must not be kept under a name that logs and lists show.
                    && !variable.starts_with(KEY_PREFIX)
            }
        };
        if !good {
            let what = pattern.variable.unwrap_or("nothing");
            return Err(format!("after {} comes {what}, at most {VARIABLE_MAX} plain characters", pattern.prefix));
        }
        Ok(Self { pattern, name: format!("{}{variable}", pattern.prefix) })
    }

    /// A name without a variable part.
    #[must_use]
    pub fn fixed(pattern: Pattern) -> Self {
        Self { pattern, name: pattern.prefix.to_owned() }
    }

    /// Reads a name as a user gives it.
    ///
    /// # Errors
    /// When it is of no pattern, or its variable part is bad.
    pub fn parse(name: &str) -> Result<Self, String> {
        let of = |pattern: &&Pattern| match pattern.variable {
            None => name == pattern.prefix,
            Some(_) => name.starts_with(pattern.prefix),
        };
        let pattern = ALL.iter().find(of).ok_or_else(|| format!("no documented name looks like {name:?}"))?;
        Self::new(*pattern, &name[pattern.prefix.len()..])
    }

    /// Its pattern.
    #[must_use]
    pub const fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Option<Pattern>) {
        assert_eq!(CacheKey::parse(name).ok().map(|key| key.pattern), expected, "{name}");
    }

    #[test]
    fn names_are_read_by_their_patterns() {
        check("price:BTC", Some(PRICE));
        check("usage_logs:index", Some(USAGE_INDEX));
        check("usage_logs:asset:BTC", Some(USAGE_BY_ASSET));
        check("{adaptive:lpo}:total", Some(ADAPTIVE_TOTAL));
        check("translate:de:0123", Some(TRANSLATE));
        check("app:config", Some(APP_CONFIG));
        for bad in
            ["", "price:", "price:B C", "price:*", "app:config2", "app:", "other", "price:\u{e9}", "apikey:tb_live_abc"]
        {
            check(bad, None);
        }
        check(&format!("price:{}", "A".repeat(VARIABLE_MAX + 1)), None);
    }

    #[test]
    fn no_pattern_hides_another() {
        for (index, pattern) in ALL.iter().enumerate() {
            for later in &ALL[index + 1..] {
                assert!(pattern.variable.is_none() || !later.prefix.starts_with(pattern.prefix), "{later:?}");
            }
        }
    }
}
