//! Parameters on the running service: in force on every shard, live, and nobody's connection is harmed by it.

use harness::eventually;
use harness::http::Connection;
use harness::service::{ENGINES, Service};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Reloads under load: enough that some meet every moment of a request's life.
const RELOADS: usize = 100;

/// Requests sent at once on a busy connection.
const PIPELINED: usize = 16;

fn put(service: &Service, body: &Value) -> Value {
    let reply = service.admin_request("PUT", "/admin/params?reload=1", Some(&body.to_string()));
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// The value in force.
fn value(service: &Service, name: &str) -> Value {
    let list = service.admin("/admin/params").json();
    let rows = list["parameters"].as_array().expect("parameters");
    rows.iter().find(|row| row["name"] == name).expect("the parameter")["value"].clone()
}

fn ask(service: &Service, asset: &str) -> String {
    format!("GET /price?asset={asset} HTTP/1.1\r\nHost: h\r\nX-API-Key: {}\r\n\r\n", service.stress_key())
}

/// Whether the server closes the connection, which says nothing any more.
fn is_closed(connection: &mut Connection) -> bool {
    connection.read(false).is_none()
}

#[test]
fn time_outs_are_in_force_on_every_shard_and_open_connections_live_on() {
    for engine in ENGINES {
        let service = Service::demo_with(engine, &[("TB_SHARDS", "2")]);
        service.await_price("BTC", 3);
        // Enough that both shards have some.
        let mut open: Vec<Connection> = (0..16).map(|_| Connection::open(service.address("lpo_tcp"))).collect();
        let mut served = |round: &str| {
            for connection in &mut open {
                connection.send(ask(&service, "BTC").as_bytes());
                let reply = connection.read(false).unwrap_or_else(|| panic!("{engine}: closed {round}"));
                assert_eq!(reply.status, 200, "{}", reply.text());
            }
        };
        served("at first");
        // Five minutes first: whoever is closed within this test's patience is closed by the second change.
        put(&service, &json!({"http_read_timeout_seconds": "300"}));
        let changed = put(&service, &json!({"http_read_timeout_seconds": "1", "http_idle_timeout_seconds": "60"}));
        assert_eq!(changed["reloaded"]["changed"].as_array().map(Vec::len), Some(2), "{changed}");
        served("by a reload");
        // Half a head on each of many: every shard closes its share.
        let mut slow: Vec<Connection> = (0..16).map(|_| Connection::open(service.address("lpo_tcp"))).collect();
        slow.iter_mut().for_each(|connection| connection.send(b"GET /price?asset=BTC HTTP/1.1\r\nHost: h\r\n"));
        assert!(slow.iter_mut().all(is_closed), "{engine}");
        served("by the others' time-outs");
    }
}

#[test]
fn assets_come_and_go_live() {
    let service = Service::demo_with("epoll", &[("OKX_PREWARM_ASSETS", "none"), ("VENUES", "okx,kraken,coinbase")]);
    service.await_price("BTC", 2);
    let everything = |service: &Service| service.get("/prices?assets=all&ignore_unknown=1").text();
    // What is listed can be asked for at any time; whether it is kept warm is another matter.
    let is_kept = |service: &Service| {
        let assets = service.get("/assets").json();
        let found = assets["assets"].as_array().and_then(|all| all.iter().find(|one| one["asset"] == "KAS")).cloned();
        let kas = found.unwrap_or_else(|| panic!("OKX lists it: {assets}"));
        kas["prewarmed"] == true && kas["subscribed"] == true
    };
    assert!(!is_kept(&service) && !everything(&service).contains("\"KAS\""));
    put(&service, &json!({"okx_prewarm_assets": "KAS"}));
    eventually("it is kept warm", || is_kept(&service).then_some(()));
    eventually("the new asset is among all", || everything(&service).contains("\"KAS\"").then_some(()));
    let subscribed = |service: &Service| {
        let feeds = service.admin("/admin/feeds").json();
        let venues = feeds["venues"].as_array().expect("venues");
        venues.iter().find(|venue| venue["venue"] == "okx").and_then(|okx| okx["subscribed"].as_u64()).expect("a count")
    };
    let with = subscribed(&service);
    put(&service, &json!({"okx_prewarm_assets": "none"}));
    eventually("it is unsubscribed", || (subscribed(&service) + 1 == with).then_some(()));
    eventually("and among all no more", || (!everything(&service).contains("\"KAS\"")).then_some(()));
    service.await_price("BTC", 2);
    let feeds = service.admin("/admin/feeds").json();
    let connects = |venue: &Value| venue["connects"].as_u64();
    let counts: Vec<_> = feeds["venues"].as_array().expect("venues").iter().map(connects).collect();
    assert!(counts.iter().all(|count| *count == Some(1)), "no venue was connected to anew: {feeds}");
}

#[test]
fn freshness_level_and_profile_change_while_it_runs() {
    let service =
        Service::demo_with("epoll", &[("LOG_LEVEL", "info"), ("LOG_FORMAT", "json"), ("CACHE_TTL_SECONDS", "300")]);
    service.await_price("BTC", 3);
    put(&service, &json!({"log_level": "debug"}));
    let refused = || drop(service.admin("/admin/audit?limit=0"));
    eventually("what was too fine is logged now", || {
        refused();
        service.log().contains("\"level\":\"DEBUG\"").then_some(())
    });
    let reply = service.admin_request("POST", "/admin/system-mode?mode=performance", None);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!((value(&service, "log_level"), value(&service, "system_mode")), (json!("error"), json!("performance")));
    let length = service.log().len();
    refused();
    assert!(!service.log()[length..].contains("DEBUG"), "{}", &service.log()[length..]);
    put(&service, &json!({"cache_ttl_seconds": "1"}));
    // The exchanges are gone: nothing proves the last price any more. Five minutes old is more than this test's patience.
    for (_, address) in service.ready()["simulators"].as_object().expect("simulators") {
        let address = address.as_str().and_then(|text| text.parse().ok()).expect("an address");
        for kind in ["rest_down", "down"] {
            harness::http::request_with(address, "POST", &format!("/simulator/fault?kind={kind}"), &[], None);
        }
    }
    eventually("the price is stale", || (service.get("/price?asset=BTC").status == 503).then_some(()));
    let keys = service.admin("/admin/params").text() + &service.log();
    assert!(!keys.contains(service.admin_key()), "no key is shown");
}

#[test]
fn one_bad_value_refuses_all_on_the_running_service() {
    let service = Service::demo("epoll");
    let body = json!({"cache_ttl_seconds": "20", "log_level": "loud", "nonsense": "1", "sqs_batch_size": "11"});
    let reply = service.admin_request("PUT", "/admin/params?reload=1", Some(&body.to_string()));
    assert_eq!((reply.status, reply.code().as_str()), (422, "parameter_invalid"));
    let faults = reply.json()["errors"].as_array().map(Vec::len);
    assert_eq!((faults, value(&service, "cache_ttl_seconds")), (Some(3), json!("9")));
    assert_eq!(service.admin("/admin/reload-params").json()["changed"], json!([]));
}

/// Sends batches until told to stop; answers that were right. Any other, or a closed connection, fails the test.
fn keep_asking(service: &Service, stop: &AtomicBool, answered: &AtomicU64) {
    let mut connection = Connection::open(service.address("lpo_tcp"));
    let batch = ask(service, "BTC").repeat(PIPELINED);
    while !stop.load(Ordering::Relaxed) {
        connection.send(batch.as_bytes());
        for _ in 0..PIPELINED {
            let reply = connection.read(false).expect("not one connection is closed");
            assert_eq!(reply.status, 200, "{}", reply.text());
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_hundred_reloads_fail_no_request_and_close_no_connection() {
    for engine in ENGINES {
        let service = Arc::new(Service::demo_with(engine, &[("TB_SHARDS", "2")]));
        service.await_price("BTC", 3);
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let askers: Vec<_> = (0..4)
            .map(|_| {
                let (service, stop, answered) = (Arc::clone(&service), Arc::clone(&stop), Arc::clone(&answered));
                thread::spawn(move || keep_asking(&service, &stop, &answered))
            })
            .collect();
        for round in 0..RELOADS {
            let list = if round % 2 == 0 { "BTC,KAS" } else { "BTC" };
            let idle = (60 + round).to_string();
            let before = answered.load(Ordering::Relaxed);
            put(
                &service,
                &json!({"http_idle_timeout_seconds": idle, "okx_prewarm_assets": list, "cache_ttl_seconds": idle}),
            );
            eventually("answers go on", || (answered.load(Ordering::Relaxed) > before).then_some(()));
        }
        stop.store(true, Ordering::Relaxed);
        for asker in askers {
            asker.join().unwrap_or_else(|_| panic!("{engine}: a request failed"));
        }
        assert_eq!(value(&service, "http_idle_timeout_seconds"), json!("159"));
    }
}
