//! The cache and the cluster over HTTP: what may be seen and changed, and what is said while either server is away.

use super::*;
use crate::cache::names::{API_KEY, APP_CONFIG, CacheKey, PRICE};
use crate::cache::{CacheTimeouts, Value as Cached};
use crate::cluster::counters::COUNTERS;

/// A router over a store that has its schema.
async fn router() -> (Router, Arc<ApiState>) {
    let store = Arc::new(SqliteStore::in_memory().await.expect("a store"));
    let state = Bench { store, ..Bench::new() }.state();
    (public_router(Arc::clone(&state)), state)
}

async fn ask_with(router: &Router, line: &str, body: &str) -> (u16, Value) {
    let (status, _, answer) = send(router, line, ADMIN, body.to_owned()).await;
    (status, serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

#[tokio::test]
async fn documented_names_are_written_read_and_deleted_with_a_trail() {
    let (router, _) = router().await;
    for (name, value, kind, lifetime_ms) in [
        ("price:BTC", json!("67123.45"), "string", Some(60_000)),
        ("usage_log:0a", json!({"asset": "BTC", "n": "1"}), "hash", Some(93 * 86_400_000_u64)),
        ("usage_logs:index", json!([["a", 1], ["b", 2]]), "zset", Some(93 * 86_400_000)),
        ("kcc:daily", json!("\u{20ac}"), "string", Some(86_400_000)),
    ] {
        let (path, body) = (format!("/admin/cache/{name}"), json!({ "value": value }).to_string());
        assert_eq!(ask_json(&router, &format!("GET {path}"), ADMIN).await.0, 404);
        let (status, put) = ask_with(&router, &format!("PUT {path}"), &body).await;
        assert_eq!((status, &put["value"], &put["type"]), (200, &value, &json!(kind)), "{put}");
        let left_ms = put["ttl_ms"].as_u64();
        assert!(left_ms <= lifetime_ms && left_ms.unwrap_or(0) + 30_000 >= lifetime_ms.unwrap_or(0), "{put}");
        assert_eq!(ask_json(&router, &format!("GET {path}"), ADMIN).await.1["value"], value);
        assert_eq!(ask_with(&router, &format!("POST {path}"), &body).await.0, 200);
        let (_, page) = ask_json(&router, "GET /admin/audit?limit=2", ADMIN).await;
        let [last, first] = [0, 1].map(|index| &page["entries"][index]);
        assert_eq!((&last["action"], &last["before"], &last["after"]), (&json!("cache.write"), &value, &value));
        assert_eq!((&first["before"], &first["target"]), (&Value::Null, &put["key"]));
        assert_eq!(ask_json(&router, &format!("DELETE {path}"), ADMIN).await.1["deleted"], true);
        assert_eq!(ask_json(&router, &format!("DELETE {path}"), ADMIN).await.1["deleted"], false);
        assert_eq!(ask_json(&router, &format!("GET {path}"), ADMIN).await.0, 404);
    }
    // Braces come encoded; the governor writes there too, so that only what is fixed is looked at.
    let (status, put) = ask_with(&router, "PUT /admin/cache/%7Badaptive:lpo%7D:total", r#"{"value":"7"}"#).await;
    assert_eq!((status, &put["key"], &put["ttl_ms"]), (200, &json!("{adaptive:lpo}:total"), &Value::Null));
}

#[tokio::test]
async fn what_is_not_for_administrators_is_refused_and_changes_nothing() {
    let (router, state) = router().await;
    let long = json!({ "value": "x".repeat(70_000) }).to_string();
    for (line, body, status, code) in [
        ("GET /admin/cache/other", "", 403, "not_permitted"),
        ("GET /admin/cache/price:*", "", 403, "not_permitted"),
        ("GET /admin/cache/price:%FF", "", 400, "parameter_invalid"),
        ("DELETE /admin/cache/other", "", 403, "not_permitted"),
        ("PUT /admin/cache/apikey:tb_live_0a", r#"{"value":"x"}"#, 403, "not_permitted"),
        ("DELETE /admin/cache/cluster:nodes", "", 403, "not_permitted"),
        ("PUT /admin/cache/price:BTC", "", 400, "parameter_invalid"),
        ("PUT /admin/cache/price:BTC", r#"{"value":1}"#, 400, "parameter_invalid"),
        ("PUT /admin/cache/price:BTC", r#"{"value":"1","ttl":5}"#, 400, "parameter_invalid"),
        ("PUT /admin/cache/usage_log:0a", r#"{"value":{"a":1}}"#, 400, "parameter_invalid"),
        ("PUT /admin/cache/usage_log:0a", r#"{"value":{}}"#, 422, "parameter_invalid"),
        ("PUT /admin/cache/usage_logs:index", r#"{"value":[["a",1.5]]}"#, 400, "parameter_invalid"),
        ("PUT /admin/cache/usage_logs:index", r#"{"value":[["a",9007199254740993]]}"#, 422, "parameter_invalid"),
        ("PUT /admin/cache/price:BTC", &long, 413, "body_too_large"),
    ] {
        let answer = send(&router, line, ADMIN, body.to_owned()).await;
        assert_eq!(answer.0, status, "{line} {body}: {}", answer.2);
        check_problem(&answer, code);
    }
    assert_eq!(ask(&router, "PUT /admin/cache/price:BTC", KEY).await.0, 401);
    let allowed = send(&router, "PATCH /admin/cache/price:BTC", ADMIN, String::new()).await;
    assert_eq!((allowed.0, allowed.1["allow"].as_bytes()), (405, &b"GET, HEAD, PUT, POST, DELETE, OPTIONS"[..]));
    assert_eq!(state.cache.health().held.map(|(values, _)| values), Some(0));
    let (_, page) = ask_json(&router, "GET /admin/audit", ADMIN).await;
    assert_eq!(page["entries"], json!([]), "nothing was tried");
}

#[tokio::test]
async fn what_may_be_secret_is_not_shown() {
    let (router, state) = router().await;
    let record = |name: &str| CacheKey::new(API_KEY, name).expect("a name");
    let put = async |key: &CacheKey, value: Cached| state.cache.put(key, &value).await.expect("written");
    let text = r#"{"key_id":7,"udp_secret":"planted","hash":"planted","tier":"pro"}"#;
    put(&record("0a"), Cached::Text(text.to_owned())).await;
    put(&record("0b"), Cached::Text("planted".to_owned())).await;
    let config = [("ADMIN_KEY_HASH", "planted"), ("log_level", "info")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    put(&CacheKey::fixed(APP_CONFIG), Cached::Hash(config.into())).await;
    for (name, shown) in [("apikey:0a", "pro"), ("apikey:0b", "****"), ("app:config", "info")] {
        let (status, _, answer) = ask(&router, &format!("GET /admin/cache/{name}"), ADMIN).await;
        assert!(status == 200 && !answer.contains("planted") && answer.contains(shown), "{answer}");
    }
}

#[tokio::test]
async fn without_the_store_nothing_is_written_and_without_the_cache_the_node_still_tells_of_itself() {
    // A store without its schema cannot take the trail's row.
    let state = Bench::new().state();
    let router = public_router(Arc::clone(&state));
    let answer = send(&router, "PUT /admin/cache/price:BTC", ADMIN, r#"{"value":"1"}"#.to_owned()).await;
    assert_eq!(answer.0, 503, "{}", answer.2);
    check_problem(&answer, "store_unavailable");
    let price = CacheKey::new(PRICE, "BTC").expect("a name");
    assert_eq!(state.cache.get(&price).await, Ok(None));

    let store = Arc::new(SqliteStore::in_memory().await.expect("a store"));
    // Nobody listens there: the port is the harness' own, and refuses.
    let nobody = harness::proxy::Proxy::start(([127, 0, 0, 1], 9).into());
    nobody.set(harness::proxy::Fault::Refuse);
    let url = Secret::new(format!("redis://:planted@{}", nobody.address()));
    let cache = crate::cache::open(Some(&url), CacheTimeouts::default()).expect("a cache");
    let router = public_router(Bench { store, cache, ..Bench::new() }.state());
    for line in ["GET", "PUT", "DELETE"] {
        let line = format!("{line} /admin/cache/price:BTC");
        let answer = send(&router, &line, ADMIN, r#"{"value":"1"}"#.to_owned()).await;
        assert!(answer.0 == 503 && !answer.2.contains("planted"), "{}", answer.2);
        check_problem(&answer, "cache_unavailable");
    }
    let (status, cluster) = ask_json(&router, "GET /admin/cluster", ADMIN).await;
    assert_eq!((status, &cluster["connected"], &cluster["alive"]), (200, &json!(false), &json!(["n1"])));
    assert_eq!(cluster["nodes"]["n1"]["http_requests"], 7);
}

#[tokio::test]
async fn the_cluster_is_shown_with_every_number_of_every_node() {
    let (router, state) = router().await;
    let other = [("http_requests", "12"), ("version", "x")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    state.cache.heartbeat("n2", &other.into(), 10_000).await.expect("noted");
    let told = Arc::clone(&state);
    let beats = state.cluster.run(move || crate::cluster::counters::of(&told));
    state.cluster.watch().wait_for(|view| view.connected).await.expect("a beat");
    let (status, cluster) = ask_json(&router, "GET /admin/cluster", ADMIN).await;
    assert_eq!((status, &cluster["connected"], &cluster["alive"]), (200, &json!(true), &json!(["n1", "n2"])));
    assert_eq!(cluster["nodes"]["n2"], json!({"http_requests": 12, "version": "x"}));
    let own = cluster["nodes"]["n1"].as_object().expect("numbers");
    assert_eq!(own.len(), 24);
    for counter in &COUNTERS {
        assert!(own[counter.name].is_u64() && cluster["meanings"][counter.name].is_string(), "{}", counter.name);
    }
    for (name, number) in
        [("started_time_ms", 5_000), ("connections_now", 3), ("shards_cpu_ms", 1_234), ("refused_else", 1)]
    {
        assert_eq!(own[name], number, "{name}");
    }
    beats.stop().await;
    assert_eq!(state.cluster.counters("n1").await, Ok(None), "it has left");
}
