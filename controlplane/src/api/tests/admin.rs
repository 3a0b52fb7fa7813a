//! Administration over HTTP: what is there, who is admitted, and what it tells.

use super::*;
use crate::api::docs::{ENDPOINTS, Endpoint, Key, Port};

#[tokio::test]
async fn what_the_reference_names_is_there_and_its_keys_are_asked_for() {
    let (public, health) = (Bench::new().public(), Bench::new().health());
    let (status, headers, page) = ask(&public, "GET /docs", "").await;
    assert_eq!((status, headers["content-type"].as_bytes()), (200, &b"text/html; charset=utf-8"[..]));
    assert!(page.contains("<tr id=\"price_stale\">"));
    for Endpoint { target, port, key, .. } in &ENDPOINTS {
        let path = if target.contains("detail=1") { target } else { target.split('?').next().unwrap_or_default() };
        let line = if path.starts_with('/') { format!("GET {path}") } else { path.to_owned() };
        let (on_public, on_health) = (ask(&public, &line, "").await.0, ask(&health, &line, "").await.0);
        let open = if *key == Key::Nobody { 200 } else { 401 };
        let expected = match port {
            // A shard answers it before it comes here.
            Port::Price => (404, 404),
            Port::Both => (open, 404),
            Port::Everywhere => (open, open),
            Port::Health => (404, open),
        };
        assert_eq!((on_public, on_health), expected, "{target}");
    }
}

#[tokio::test]
async fn administration_tells_engine_feeds_and_usage() {
    let router = Bench::new().public();
    ask(&router, "GET /price?asset=BTC&detail=1", KEY).await;
    let (status, engine) = ask_json(&router, "GET /admin/engine", ADMIN).await;
    assert_eq!((status, &engine["engine"], &engine["reason"]), (200, &json!("epoll"), &json!("io_uring: EPERM")));
    assert_eq!(engine["shards"][0]["refused"], json!({ "request_malformed": 1 }));
    assert_eq!(engine["core_plan"]["shards"], json!([0]));
    assert_eq!(engine["steering"], json!({"by_cpu": false, "reason": "TB_STEERING=hash"}));
    let (_, feeds) = ask_json(&router, "GET /admin/feeds", ADMIN).await;
    assert_eq!((&feeds["venues"][0]["venue"], &feeds["ticks"]), (&json!("kraken"), &json!(99)));
    assert_eq!((&feeds["venues"][0]["guard"]["quarantines"], &feeds["unlisted"]), (&json!(0), &json!(["RLY"])));
    let (_, usage) = ask_json(&router, "GET /admin/usage?limit=1", ADMIN).await;
    assert_eq!((&usage["keys"][0]["key_id"], &usage["next_after"]), (&json!(1), &json!(1)));
}
