//! `/metrics`: every family once, in Prometheus' text form, with labels of which there are few.

use super::*;

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
