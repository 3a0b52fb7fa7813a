//! Start, settings and stop, as whoever operates the service sees them.

use harness::http::Connection;
use harness::service::{ENGINES, Service, binary};
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).output().expect("it runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn bad_settings_are_all_named_at_once() {
    let bad = [("TCP_PORT_LPO", "70000"), ("TB_ENGINE", "kqueue"), ("TB_SHARDS", "0"), ("BIND_ADDRESS", "here")];
    let output = run(&["demo"], &bad);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    for (name, value) in bad {
        assert!(stderr(&output).contains(name) && stderr(&output).contains(value), "{name}:\n{}", stderr(&output));
    }
}

#[test]
fn wrong_usage_ends_with_two() {
    for arguments in [&["no-such-command"][..], &["decode"], &["decode", "--venue", "mtgox"], &["price"]] {
        assert_eq!(run(arguments, &[]).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_taken_port_is_one_clear_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let zero =
        ["UDP_PORT_LPO", "TCP_PORT_LRS", "UDP_PORT_LRS", "HEALTH_PORT_LPO", "HEALTH_PORT_LRS"].map(|name| (name, "0"));
    let variables: Vec<_> = zero.into_iter().chain([("TCP_PORT_LPO", port.as_str())]).collect();
    let output = run(&["demo"], &variables);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&port), "{}", stderr(&output));
}

#[test]
fn config_shows_where_each_value_came_from_and_masks_secrets() {
    let output = run(&["config"], &[("ADMIN_KEY", "canary-secret-77"), ("TCP_PORT_LPO", "18080")]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("18080") && said.contains("TCP_PORT_LPO"), "{said}");
    assert!(!said.contains("canary-secret-77"), "a secret is shown");
}

#[test]
fn host_says_what_the_machine_permits() {
    let output = run(&["host", "--json"], &[]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(report.to_string().contains("io_uring"), "{report}");
    assert_eq!(run(&["host"], &[]).status.code(), Some(0));
}

#[test]
fn sigterm_drains_and_exits_zero() {
    for engine in ENGINES {
        let mut service = Service::demo(engine);
        service.await_price("BTC", 2);
        let mut open = Connection::open(service.address("lpo_tcp"));
        let key = service.stress_key().to_owned();
        let request = format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n");
        open.send(request.as_bytes());
        assert_eq!(open.read(false).expect("an answer").header("connection"), None);
        service.signal("TERM");
        assert_eq!(service.wait().code(), Some(0), "{}", service.log());
        assert!(!service.log().contains("panicked"), "{}", service.log());
    }
}

#[test]
fn who_waits_is_answered_before_the_process_goes() {
    for engine in ENGINES {
        let mut service = Service::demo_with(engine, &[("LOG_LEVEL", "info")]);
        service.await_price("BTC", 2);
        let mut waiting = Connection::open(service.address("lpo_tcp"));
        let newest = service.get("/price?asset=BTC").json()["sequence"].as_u64().expect("a sequence");
        let path = format!("/price?asset=BTC&newer_than={}&wait_ms=30000", newest + 500_000);
        let key = service.stress_key().to_owned();
        waiting.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n").as_bytes());
        harness::eventually("the request to wait", || {
            let metrics = harness::http::get(service.address("health_lpo"), "/metrics", &[]).text();
            metrics.lines().any(|line| line.starts_with("tb_waiting{") && line.ends_with(" 1")).then_some(())
        });
        service.signal("TERM");
        let reply = waiting.read(false).expect("an answer before the end");
        // 200: it had waited long enough for it to be clear that no such price will come.
        assert!(matches!(reply.status, 200 | 304) && reply.header("connection") == Some("close"), "{engine}");
        assert_eq!(service.wait().code(), Some(0), "{}", service.log());
        assert!(!service.log().contains('\u{1b}'), "colours are for terminals: {}", service.log());
    }
}

#[test]
fn what_failed_is_told_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let folder = env!("CARGO_MANIFEST_DIR");
    for (arguments, remedy) in [
        (&["decode", "--venue", "okx", folder][..], "give a file"),
        (&["decode", "--venue", "okx", "/no/such/file"], "check the path"),
        (&["simulate", "--venue", "okx", "--port", &port], "choose another --port"),
        (&["price", "BTC", "--key", "x", "--target", "127.0.0.1:1"], "check --target"),
    ] {
        let output = run(arguments, &[]);
        let said = stderr(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{arguments:?}: {said}");
        assert!(said.contains(remedy), "{arguments:?}: {said}");
    }
}

#[test]
fn watching_goes_on_through_an_outage() {
    let service = Service::demo("auto");
    service.await_price("BTC", 2);
    let target = service.address("lpo_tcp").to_string();
    let mut command = Command::new(binary());
    command
        .args(["price", "BTC", "--watch", "--every-ms", "20", "--target", &target])
        .env("TB_KEY", service.stress_key());
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(watch.stdout.take().expect("its output")).lines();
    let first = lines.by_ref().take(2).map(|line| line.expect("text")).last().expect("a price");
    assert!(first.starts_with("BTC "), "{first}");
    drop(service);
    let trouble =
        BufReader::new(watch.stderr.take().expect("its errors")).lines().next().expect("a line").expect("text");
    assert!(trouble.ends_with("; going on"), "{trouble}");
    assert!(watch.try_wait().expect("its state").is_none(), "it goes on");
    watch.kill().expect("our own child");
    watch.wait().expect("its end");
}

#[test]
fn no_secret_is_in_the_log() {
    let mut service = Service::demo_with("auto", &[("RUST_LOG", "trace"), ("LOG_LEVEL", "trace")]);
    service.await_price("BTC", 2);
    let ready = service.ready().clone();
    let metrics = harness::http::get(service.address("health_lpo"), "/metrics", &[]).text();
    let told = service.admin("/admin/engine").text() + &service.admin("/admin/feeds").text() + &metrics;
    service.signal("TERM");
    service.wait();
    for name in ["demo_key", "stress_key", "admin_key", "udp_secret"] {
        let secret = ready[name].as_str().expect(name);
        assert!(!service.log().contains(secret), "{name} is in the log");
        assert!(!told.contains(secret), "{name} is in an answer");
    }
}
