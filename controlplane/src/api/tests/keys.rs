//! Keys, made and changed by an administrator.

use super::{ADMIN, Bench, EXPIRED, KEY, ask, check_problem, send};
use crate::cache::Cache;
use crate::keys::FixedKey;
use crate::keys::desk::{DeskSetup, KeyDesk};
use crate::params::SystemMode;
use crate::store::Store;
use crate::store::sqlite::SqliteStore;
use dataplane_core::access::hash_text;
use serde_json::{Value, json};
use shared::key::{KeyId, KeyRecord, Permissions};
use std::sync::Arc;

/// A desk with a key that works and one whose time is over, neither of the store.
pub fn desk(store: &Arc<dyn Store>, cache: &Arc<dyn Cache>) -> Arc<KeyDesk> {
    let key = |id, text: &str, expires_at_ms| FixedKey {
        record: KeyRecord {
            id: KeyId(id),
            hash: hash_text(text.as_bytes()),
            limit_per_second: 1,
            expires_at_ms,
            permissions: Permissions::default(),
            udp_secret: [0; 16],
            rank: 0,
        },
        tier: None,
        limit_per_second: Some(2),
        permissions: Some(Permissions::PRICES),
    };
    KeyDesk::new(DeskSetup {
        store: Arc::clone(store),
        cache: Arc::clone(cache),
        node: "n1".to_owned(),
        shards: 1,
        fixed: vec![key(1, KEY, 0), key(2, EXPIRED, 1)],
        mode: SystemMode::Standard,
        data_dir: None,
    })
}

async fn bench() -> Bench {
    Bench { store: Arc::new(SqliteStore::in_memory().await.expect("a store")), ..Bench::new() }
}

#[tokio::test]
async fn keys_are_made_shown_once_rotated_and_revoked() {
    let router = bench().await.public();
    let post = async |target: &str, body: &str| {
        let (status, headers, body) = send(&router, &format!("POST {target}"), ADMIN, body.to_owned()).await;
        assert_eq!(headers["cache-control"], "no-store");
        (status, serde_json::from_str::<Value>(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
    };
    let get = async |target: &str| {
        let (status, headers, body) = ask(&router, &format!("GET {target}"), ADMIN).await;
        let link = headers.get("link").map(|link| link.to_str().expect("text").to_owned());
        (status, serde_json::from_str::<Value>(&body).unwrap_or_else(|error| panic!("{error}: {body}")), link)
    };
    // Numbers 1 and 2 are the settings file's.
    let (status, made) = post("/admin/keys", r#"{"name":"one","tier":"pro","limit_per_second":7}"#).await;
    let text = made["key"].as_str().expect("a text");
    assert_eq!((status, &made["key_id"], text.len()), (201, &json!(3), 40));
    assert_eq!(made["udp_secret"].as_str().map(str::len), Some(32));
    assert_eq!(ask(&router, "GET /limits", text).await.0, 200);
    let (status, rotated) = post("/admin/keys/3/rotate", r#"{"overlap_hours":1}"#).await;
    assert_eq!((status, &rotated["key_id"], &rotated["replaces"]["rotated_to"]), (201, &json!(4), &json!(4)));
    let (status, revoked) = post("/admin/keys/3/revoke", "").await;
    assert_eq!((status, &revoked["state"], revoked.get("key")), (200, &json!("revoked"), None));
    assert_eq!(ask(&router, "GET /limits", text).await.0, 401);
    let (_, page, link) = get("/admin/keys?after=2&limit=1&state=active").await;
    assert_eq!((&page["keys"][0]["key_id"], &page["next_after"], link), (&json!(4), &Value::Null, None));
    let (_, page, link) = get("/admin/keys?after=2&limit=1").await;
    assert_eq!(page["keys"][0]["key_id"], json!(3));
    assert_eq!(link.as_deref(), Some("</admin/keys?after=3&limit=1>; rel=\"next\""));
    let (status, shown, _) = get("/admin/key-status?key_id=4").await;
    assert_eq!((status, &shown["in_force"]["limit_per_second"]), (200, &json!(7)));
    let (status, outcome, _) = get("/admin/invalidate-key?key_id=4").await;
    assert_eq!((status, &outcome["outcome"]), (200, &json!("works")));
    let secret = rotated["udp_secret"].as_str().expect("a secret");
    for shown in [page.to_string(), shown.to_string(), revoked.to_string()] {
        assert!(!shown.contains(secret) && !shown.contains(rotated["key"].as_str().expect("a text")), "{shown}");
    }
}

#[tokio::test]
async fn bad_wishes_for_keys_change_nothing() {
    let router = bench().await.public();
    let long = format!("{{\"name\":\"{}\"}}", "a".repeat(16 * 1_024));
    for (line, body, status, code) in [
        ("POST /admin/keys", "", 422, "parameter_invalid"),
        ("POST /admin/keys", "{", 400, "request_malformed"),
        ("POST /admin/keys", "[1]", 400, "request_malformed"),
        ("POST /admin/keys", r#"{"name":"a","tier":"pro","key":"x"}"#, 422, "parameter_invalid"),
        ("POST /admin/keys", r#"{"name":"a","tier":"gold"}"#, 422, "parameter_invalid"),
        ("POST /admin/keys", long.as_str(), 413, "body_too_large"),
        ("POST /admin/keys/3/rotate", "", 404, "not_found"),
        ("POST /admin/keys/1/rotate", "", 409, "conflict"),
        ("POST /admin/keys/1/revoke", "", 409, "conflict"),
        ("POST /admin/keys/3/revoke", "", 404, "not_found"),
        ("POST /admin/keys/0/revoke", "", 400, "parameter_invalid"),
        ("POST /admin/keys/x/revoke", "", 400, "parameter_invalid"),
        ("POST /admin/keys/4294967296/revoke", "", 400, "parameter_invalid"),
        ("POST /admin/keys/3/rotate", r#"{"overlap_hours":721}"#, 422, "parameter_invalid"),
        ("POST /admin/invalidate-key?key_id=3", "", 404, "not_found"),
        ("GET /admin/invalidate-key", "", 400, "parameter_invalid"),
        ("GET /admin/key-status?key_id=-1", "", 400, "parameter_invalid"),
        ("GET /admin/key-status?key_id=3", "", 404, "not_found"),
        ("GET /admin/keys?limit=0", "", 400, "parameter_invalid"),
        ("GET /admin/keys?limit=1001", "", 400, "parameter_invalid"),
        ("GET /admin/keys?state=lost", "", 400, "parameter_invalid"),
        ("GET /admin/keys?tier=a%20b", "", 400, "parameter_invalid"),
    ] {
        let answer = send(&router, line, ADMIN, body.to_owned()).await;
        assert_eq!(answer.0, status, "{line} {body}: {}", answer.2);
        check_problem(&answer, code);
    }
    let (_, _, page) = ask(&router, "GET /admin/keys", ADMIN).await;
    assert_eq!(serde_json::from_str::<Value>(&page).expect("JSON")["keys"], json!([]));
    // Without a schema, or without the database, nothing can be changed.
    let answer = send(&Bench::new().public(), "POST /admin/keys", ADMIN, r#"{"name":"a","tier":"pro"}"#).await;
    assert_eq!(answer.0, 503);
    check_problem(&answer, "store_unavailable");
}
