//! What stands behind the prices, which do not wait for it: database, cache, keys, parameters, the governor's decisions.
//!
//! `tb_*_up` is 0 while calls fail for that side's own sake; nothing that serves prices depends on it.

use super::{Exposition, Kind, Nanoseconds, Seconds};
use crate::cache::{Cache, CacheHealth};
use crate::cluster::ClusterView;
use crate::governor::GovernorStatus;
use crate::keys::desk::{DeskCounters, KeyDesk};
use crate::limits::Limits;
use crate::params::desk::ParameterDesk;
use crate::store::Store;

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

/// The database.
pub(super) fn store(text: &mut Exposition, store: &dyn Store) {
    let health = store.health();
    let up = [(format!("kind=\"{}\"", store.kind()), u8::from(health.away_since_ms.is_none()))];
    text.family("tb_store_up", Kind::Gauge, "Whether the database answers and has its schema.", up);
    let away = away(health.away_since_ms);
    text.one("tb_store_away_seconds", Kind::Gauge, "Since when the database is away; 0: it answers.", away);
    text.one("tb_store_calls_total", Kind::Counter, "Calls to the database.", health.calls);
    let failures = labelled(
        "kind",
        [
            ("unreachable", health.unreachable),
            ("not_migrated", health.not_migrated),
            ("refused", health.refused),
            ("broken", health.broken),
        ],
    );
    text.family("tb_store_failures_total", Kind::Counter, "Calls that failed, by kind.", failures);
    let idle = u64::from(health.connections_idle);
    let connections = labelled("state", [("used", u64::from(health.connections).saturating_sub(idle)), ("idle", idle)]);
    text.family("tb_store_connections", Kind::Gauge, "Connections to the database, by state.", connections);
    let good = health.secret_fetches.saturating_sub(health.secret_failures);
    let fetches = labelled("result", [("ok", good), ("failed", health.secret_failures)]);
    text.family("tb_store_secret_fetches_total", Kind::Counter, "Fetches of DB_SECRET_NAME, by result.", fetches);
}

/// The parameters.
pub(super) fn params(text: &mut Exposition, desk: &ParameterDesk) {
    let counts = desk.counts();
    let results = labelled("result", [("ok", counts.reloads), ("refused", counts.refused)]);
    text.family("tb_params_reloads_total", Kind::Counter, "Sets of parameters read, by what became of them.", results);
    let mode = [(format!("mode=\"{}\"", desk.current().mode.name()), 1)];
    text.family("tb_params_mode_info", Kind::Gauge, "The profile in force.", mode);
    let since_s = desk.in_force().since_ms / 1_000;
    text.one("tb_params_since_seconds", Kind::Gauge, "Since when this set is in force, Unix time.", since_s);
}

/// The keys.
pub(super) fn keys(text: &mut Exposition, desk: &KeyDesk) {
    let DeskCounters { keys, changed, loaded, published, store_is_there, pulse_failures } = desk.counters();
    text.one("tb_keys", Kind::Gauge, "Keys in force.", keys);
    text.one("tb_keys_changed", Kind::Gauge, "Keys in force in the directory's overlay.", changed);
    text.one(
        "tb_keys_loaded",
        Kind::Gauge,
        "Whether the database's keys have been read since start.",
        u8::from(loaded),
    );
    text.one("tb_keys_published_total", Kind::Counter, "Key directories given to the shards.", published);
    text.one("tb_pulse_up", Kind::Gauge, "Whether the database's pulse was heard.", u8::from(store_is_there));
    text.one("tb_pulse_failures_total", Kind::Counter, "Pulses of the database not heard.", pulse_failures);
}

/// The other nodes.
pub(super) fn cluster(text: &mut Exposition, view: &ClusterView) {
    text.one("tb_cluster_nodes", Kind::Gauge, "Nodes alive, this one included, as known last.", view.nodes.len());
    let help = "Whether the nodes alive are known now.";
    text.one("tb_cluster_connected", Kind::Gauge, help, u8::from(view.connected));
}

/// Limits beyond one node and one second.
pub(super) fn limits(text: &mut Exposition, limits: &Limits) {
    let (leaser, quota) = (limits.leaser(), limits.quota());
    let counts = leaser.counts;
    text.one("tb_limits_nodes", Kind::Gauge, "Nodes that share the keys' seconds.", leaser.nodes);
    text.one("tb_limits_keys", Kind::Gauge, "Keys whose seconds are shared now.", leaser.keys);
    text.one("tb_limits_away_total", Kind::Counter, "Times the cache went away.", leaser.times_away);
    text.one("tb_limits_asks_total", Kind::Counter, "Questions to the cache for parts of seconds.", counts.asks);
    let help = "Questions that brought nothing, by kind.";
    let failures = labelled("kind", [("failed", counts.failures), ("late", counts.late)]);
    text.family("tb_limits_failures_total", Kind::Counter, help, failures);
    text.one("tb_limits_grants_total", Kind::Counter, "Answers that granted something.", counts.grants);
    text.one("tb_limits_granted_requests_total", Kind::Counter, "Requests granted.", counts.granted);
    let help = "Seconds of keys in which this node's part of the limit stood in for a grant.";
    text.one("tb_limits_local_share_windows_total", Kind::Counter, help, counts.local_windows);
    text.one("tb_quota_keys_over", Kind::Gauge, "Keys that are over their months.", quota.keys_over);
    text.one("tb_quota_waiting_requests", Kind::Gauge, "Requests not known to be in the database.", quota.waiting);
    text.one("tb_quota_batches_total", Kind::Counter, "Batches added to the months.", quota.batches);
    text.one("tb_quota_failures_total", Kind::Counter, "Tries to add that failed.", quota.failures);
    let lag = away(quota.away_since_ms);
    text.one("tb_quota_lag_seconds", Kind::Gauge, "Since when the database takes no counts; 0: it does.", lag);
}

/// What the governor has decided; what shards do with it is among the shards' metrics.
pub(super) fn governor(text: &mut Exposition, status: GovernorStatus) {
    let GovernorStatus { cluster_bound, node_bound, active, withheld_permille, success_permille, alone } = status;
    let bounds = labelled("scope", [("cluster", u64::from(cluster_bound)), ("node", u64::from(node_bound))]);
    let help = "Active connections that may be: on all nodes, and this node's part.";
    text.family("tb_governor_bound_connections", Kind::Gauge, help, bounds);
    text.one("tb_governor_active_connections", Kind::Gauge, "Active connections of this node.", active);
    let ratio = |permille: u16| Seconds::of_ms(permille.into());
    let help = "What part of adaptive_max_concurrent is withheld.";
    text.one("tb_governor_withheld_ratio", Kind::Gauge, help, ratio(withheld_permille));
    let success = success_permille.map(|permille| (String::new(), ratio(permille)));
    text.family(
        "tb_governor_success_ratio",
        Kind::Gauge,
        "Share of late answers that succeeded; none: too few.",
        success,
    );
    text.one("tb_governor_alone", Kind::Gauge, "Whether it goes by this node alone.", u8::from(alone));
}
