//! `/metrics`: every family once, in Prometheus' text form, with labels of which there are few.

use super::*;
use crate::cluster::ClusterView;
use crate::governor::{Governed, Governor, GovernorSetup, ShardCounts};
use crate::warm::{Warm, WarmSetup};
use dataplane_core::governor::GovernorBounds;

/// No shards.
struct Nobody;

impl Governed for Nobody {
    fn counts(&self) -> Vec<ShardCounts> {
        Vec::new()
    }

    fn bind(&self, _: GovernorBounds) {}
}

/// A governor of nobody.
pub fn governor(cache: &Arc<dyn Cache>, params: &ParameterDesk) -> Governor {
    let alone = ClusterView { nodes: vec!["n1".to_owned()], connected: true };
    Governor::start(GovernorSetup {
        node: "n1".to_owned(),
        governed: Arc::new(Nobody),
        cache: Arc::clone(cache),
        parameters: params.watch(),
        cluster: tokio::sync::watch::channel(alone).1,
    })
}

/// Nothing is kept warm.
pub fn warm(cache: &Arc<dyn Cache>, params: &ParameterDesk) -> Warm {
    let alone = ClusterView { nodes: vec!["n1".to_owned()], connected: true };
    Warm::start(WarmSetup {
        node: "n1".to_owned(),
        cache: Arc::clone(cache),
        cluster: tokio::sync::watch::channel(alone).1,
        prices: Arc::new(PriceBoard::new(None)),
        assets: tokio::sync::watch::channel(Arc::default()).1,
        parameters: params.watch(),
        lookups: Arc::new(FindsNothing),
    })
}

#[tokio::test]
async fn metrics_are_prometheus_text_without_keys() {
    let (status, headers, text) = ask(&Bench::new().health(), "GET /metrics", "").await;
    assert_eq!(status, 200);
    assert!(headers["content-type"].to_str().is_ok_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    for line in [
        "tb_http_requests_total{shard=\"0\"} 7",
        "tb_refused_total{code=\"request_malformed\"} 1",
        "tb_feed_age_seconds{exchange=\"kraken\"} 1.250",
        "tb_feed_connected{exchange=\"kraken\"} 1",
        "tb_io_backend_info{backend=\"epoll\"} 1",
        "tb_shard_cpu_seconds_total{shard=\"0\"} 1.234",
        "tb_ready 1",
        "# TYPE tb_connections gauge",
        "# TYPE tb_feed_lag_seconds histogram",
        "tb_feed_lag_seconds_bucket{le=\"0.000001024\"} 0",
        "tb_feed_lag_seconds_bucket{le=\"+Inf\"} 0",
        "tb_feed_lag_seconds_count 0",
        "tb_active_connections{shard=\"0\"} 0",
        "tb_shed_total{rank=\"3\"} 0",
        "tb_governor_alone 0",
        "tb_governor_withheld_ratio 0.000",
        "tb_governor_bound_connections{scope=\"cluster\"} 0",
        "tb_store_up{kind=\"sqlite\"} 1",
        "tb_store_failures_total{kind=\"not_migrated\"} 0",
        "tb_params_reloads_total{result=\"ok\"} 0",
        "tb_params_mode_info{mode=\"standard\"} 1",
        "tb_keys 2",
        "tb_cluster_connected 0",
        "tb_limits_failures_total{kind=\"late\"} 0",
        "tb_quota_lag_seconds 0.000",
        "tb_cache_up{kind=\"in-process\"} 1",
        "tb_cache_away_seconds 0.000",
        "tb_cache_failures_total{kind=\"unreachable\"} 0",
        "# TYPE tb_cache_round_trip_seconds gauge",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
    }
    let mut families = std::collections::HashSet::new();
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(family) => assert!(families.insert(family.to_owned()), "{family} twice"),
            None => assert!(line.starts_with("# HELP ") || line.starts_with("tb_"), "{line}"),
        }
    }
    assert!(!text.contains(KEY) && !text.contains(ADMIN));
}
