//! Parameters over HTTP: what comes in is refused whole or taken whole, and what is shown shows no secret.

use super::*;
use crate::keys::to_hex;
use dataplane_core::access::hash_text;

/// A router over a store that has its schema.
async fn router() -> (Router, Arc<ApiState>) {
    let store = Arc::new(SqliteStore::in_memory().await.expect("a store"));
    let state = Bench { store, ..Bench::new() }.state();
    (public_router(Arc::clone(&state)), state)
}

async fn send_json(router: &Router, line: &str, body: &str) -> (u16, Value) {
    let (status, _, answer) = send(router, line, ADMIN, body.to_owned()).await;
    (status, serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

fn of<'a>(list: &'a Value, name: &str) -> &'a Value {
    let rows = list["parameters"].as_array().expect("parameters");
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name} in {list}"))
}

#[tokio::test]
async fn parameters_are_shown_changed_and_brought_into_force() {
    let (router, state) = router().await;
    let (status, list) = ask_json(&router, "GET /admin/params", ADMIN).await;
    let ttl = of(&list, "cache_ttl_seconds");
    assert_eq!((status, &ttl["value"], &ttl["stored"], &ttl["unit"]), (200, &json!("9"), &Value::Null, &json!("s")));
    assert_eq!((&ttl["origin"], &ttl["default"], &ttl["has_effect"]), (&json!("default"), &json!("9"), &json!(true)));
    assert_eq!(of(&list, "cache_pool_size")["has_effect"], false);
    assert!(of(&list, "okx_prewarm_assets")["value"].as_str().is_some_and(|list| list.starts_with("KAS,")));

    let (status, put) = send_json(&router, "PUT /admin/params", r#"{"cache_ttl_seconds":"30"}"#).await;
    assert_eq!((status, &put["stored"][0]["to"], &put["reloaded"]), (200, &json!("30"), &Value::Null));
    let (_, list) = ask_json(&router, "GET /admin/params", ADMIN).await;
    let ttl = of(&list, "cache_ttl_seconds");
    assert_eq!((&ttl["value"], &ttl["stored"]), (&json!("9"), &json!("30")), "stored is not in force");
    let changed = json!([{"name": "cache_ttl_seconds", "from": "9", "to": "30"}]);
    let (status, reloaded) = ask_json(&router, "GET /admin/reload-params", ADMIN).await;
    assert_eq!((status, &reloaded["changed"]), (200, &changed));
    assert_eq!(state.params.current().cache_ttl_s, 30);

    let (status, put) = send_json(&router, "PUT /admin/params?reload=1", r#"{"cache_ttl_seconds":null}"#).await;
    assert_eq!((status, &put["reloaded"]["changed"][0]["to"]), (200, &json!("9")));
    let (status, set) = send_json(&router, "POST /admin/system-mode?mode=performance", "").await;
    assert_eq!((status, state.params.current().mode.name()), (200, "performance"), "{set}");
    let (_, page) = ask_json(&router, "GET /admin/audit?limit=2", ADMIN).await;
    assert_eq!(
        (&page["entries"][0]["action"], &page["entries"][0]["caller"]),
        (&json!("params.reload"), &json!("admin"))
    );
    let next = format!("GET /admin/audit?before={}", page["next_before"]);
    let (_, rest) = ask_json(&router, &next, ADMIN).await;
    let last = rest["entries"].as_array().and_then(|entries| entries.last()).expect("entries");
    assert_eq!((&last["action"], &last["before"], &last["after"]), (&json!("params.put"), &Value::Null, &json!("30")));
    assert_eq!(rest["next_before"], Value::Null);
}

#[tokio::test]
async fn every_fault_of_a_set_is_listed_and_nothing_has_changed() {
    let (router, state) = router().await;
    let before = state.params.in_force();
    let long = format!(r#"{{"okx_prewarm_assets":"{}"}}"#, vec!["A"; 1_001].join(","));
    for (body, names) in [
        (
            r#"{"cache_ttl_seconds":"0","log_level":"loud","db_max_open_conns":"80"}"#,
            &["cache_ttl_seconds", "log_level"][..],
        ),
        (r#"{"cache_ttl_seconds":9,"log_level":true,"no_such":[1]}"#, &["cache_ttl_seconds", "log_level", "no_such"]),
        (r#"{"no_such":"1"}"#, &["no_such"]),
        (r#"{"db_max_open_conns":"10"}"#, &["db_max_idle_conns"]),
        (&long, &["okx_prewarm_assets"]),
        (r#"{"ADMIN_KEY":"short-canary"}"#, &["ADMIN_KEY"]),
        (r#"{"ADMIN_KEYS":"misspelt-canary"}"#, &["ADMIN_KEYS"]),
    ] {
        let answer = send(&router, "PUT /admin/params?reload=1", ADMIN, body.to_owned()).await;
        assert_eq!(answer.0, 422, "{}", answer.2);
        check_problem(&answer, "parameter_invalid");
        assert!(!answer.2.contains("canary"), "{}", answer.2);
        let problem: Value = serde_json::from_str(&answer.2).expect("JSON");
        let mut found: Vec<&str> =
            problem["errors"].as_array().expect("errors").iter().filter_map(|fault| fault["name"].as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, names, "{body}");
        for member in ["value", "bounds", "meaning"] {
            assert!(problem["errors"][0][member].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
    }
    assert!(Arc::ptr_eq(&before, &state.params.in_force()));
    assert_eq!(state.store.parameters().await.expect("rows").len(), 0);
    assert_eq!(state.store.audit_page(None, 10).await.expect("a page").len(), 0);
}

#[tokio::test]
async fn what_is_no_request_is_told_so() {
    let (router, state) = router().await;
    let large = format!(r#"{{"prewarm_assets":"{}"}}"#, "A,".repeat(40_000));
    for (line, body, status, code) in [
        ("PUT /admin/params", "", 400, "parameter_invalid"),
        ("PUT /admin/params", "{", 400, "parameter_invalid"),
        ("PUT /admin/params", "[]", 400, "parameter_invalid"),
        ("PUT /admin/params", "{}", 400, "parameter_invalid"),
        ("PUT /admin/params", "\u{0}", 400, "parameter_invalid"),
        ("PUT /admin/params", r#"{"log_level":"warn","log_level":"info"}"#, 400, "parameter_invalid"),
        ("PUT /admin/params", r#"{"log_level":"warn"} {}"#, 400, "parameter_invalid"),
        ("PUT /admin/params", &large, 413, "body_too_large"),
        ("PUT /admin/params?reload=yes", r#"{"log_level":"warn"}"#, 400, "parameter_invalid"),
        ("PUT /admin/params?reload=1&reload=1", r#"{"log_level":"warn"}"#, 400, "parameter_invalid"),
        ("POST /admin/system-mode", "", 400, "parameter_invalid"),
        ("POST /admin/system-mode?mode=turbo", "", 400, "parameter_invalid"),
        ("GET /admin/system-mode?mode=", "", 400, "parameter_invalid"),
        ("GET /admin/audit?limit=0", "", 400, "parameter_invalid"),
        ("GET /admin/audit?limit=101", "", 400, "parameter_invalid"),
        ("GET /admin/audit?before=x", "", 400, "parameter_invalid"),
        ("POST /admin/params", "{}", 405, "method_not_allowed"),
        ("DELETE /admin/reload-params", "", 405, "method_not_allowed"),
    ] {
        let answer = send(&router, line, ADMIN, body.to_owned()).await;
        assert_eq!(answer.0, status, "{line} {body:.60}: {}", answer.2);
        check_problem(&answer, code);
    }
    for key in ["", KEY, "wrong"] {
        let answer = send(&router, "PUT /admin/params", key, r#"{"log_level":"warn"}"#).await;
        assert_eq!(answer.0, 401, "{}", answer.2);
    }
    for line in ["HEAD /admin/reload-params", "HEAD /admin/system-mode?mode=performance"] {
        assert_eq!(ask(&router, line, ADMIN).await.0, 405, "{line}: HEAD changes nothing");
    }
    assert_eq!(state.store.parameters().await.expect("rows").len(), 0);
    let allowed = send(&router, "OPTIONS /admin/params", "", "").await;
    assert_eq!(allowed.1["allow"], "GET, HEAD, PUT, OPTIONS");
}

#[tokio::test]
async fn without_a_store_nothing_changes_and_what_is_in_force_is_shown() {
    // It has no schema.
    let state = Bench::new().state();
    let router = public_router(Arc::clone(&state));
    for (line, body) in [
        ("PUT /admin/params", r#"{"log_level":"warn"}"#),
        ("POST /admin/reload-params", ""),
        ("POST /admin/system-mode?mode=demo", ""),
        ("GET /admin/audit", ""),
    ] {
        let answer = send(&router, line, ADMIN, body).await;
        assert_eq!((answer.0, answer.1["retry-after"].as_bytes()), (503, &b"1"[..]), "{line}: {}", answer.2);
        check_problem(&answer, "store_unavailable");
        assert!(answer.2.contains("migrate"), "the remedy: {}", answer.2);
    }
    let (status, list) = ask_json(&router, "GET /admin/params", ADMIN).await;
    assert_eq!((status, &list["source"]), (200, &json!("settings")));
    assert!(list["store"].as_str().is_some_and(|text| text.contains("migrate")), "{list}");
}

#[tokio::test]
async fn a_second_administrator_s_key_opens_and_is_never_shown() {
    let (router, _) = router().await;
    let other = "canary-second-admin-key";
    assert_eq!(ask(&router, "GET /admin/params", other).await.0, 401);
    let (status, put) =
        send_json(&router, "PUT /admin/params?reload=1", &format!(r#"{{"ADMIN_KEY":"{other}"}}"#)).await;
    assert_eq!(status, 200, "{put}");
    assert_eq!(ask(&router, "GET /admin/params", other).await.0, 200);
    assert_eq!(ask(&router, "GET /admin/params", ADMIN).await.0, 200);
    let hash = to_hex(&hash_text(other.as_bytes()));
    for line in ["GET /admin/params", "GET /admin/audit"] {
        let text = ask(&router, line, other).await.2;
        assert!(!text.contains("canary") && !text.contains(&hash), "{line}: {text}");
    }
    send_json(&router, "PUT /admin/params?reload=1", r#"{"ADMIN_KEY":null}"#).await;
    assert_eq!(ask(&router, "GET /admin/params", other).await.0, 401, "unset, it opens no more");
}
