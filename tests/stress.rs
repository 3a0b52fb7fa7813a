//! The load test as a program: against running services it tells what they did, and where something is wrong it says
//! what, keeps what it has, and fails.

use harness::http;
use harness::service::{ENGINES, Service, stress_binary};
use serde_json::Value;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A key that two services know by its SHA-256, and its secret for binary datagrams.
const SHARED_KEY: &str = "canary-two-targets";
const SHARED_KEY_SHA256: &str = "aaef1e013907d1b822a8bfe3f931c74c1278a87d5aaf823e700918d71f29c5f3";
const SHARED_ID: &str = "77";
const SHARED_SECRET: &str = "000102030405060708090a0b0c0d0e0f";

/// Short levels: connections and rate, low enough for a busy machine.
const SHORT: [&str; 8] = [
    "--level=2@200",
    "--level=4@400",
    "--level=8@800",
    "--duration=0.5",
    "--warm-up=0.2",
    "--late-ms=20000",
    "--lost-ms=20000",
    "--threads=1",
];

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(stress_binary());
    command.args(arguments).env_remove("TRINITY_KEY").env_remove("TRINITY_UDP_SECRET").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Ends with `code`, and with one line on stderr that says `words`.
#[track_caller]
fn check_refused(output: &Output, code: i32, words: &[&str]) {
    let told = text(&output.stderr);
    let own: Vec<&str> = told.lines().filter(|line| line.starts_with("trinity-stress:")).collect();
    assert_eq!((output.status.code(), own.len()), (Some(code), 1), "{told}");
    for word in words {
        assert!(own[0].contains(word), "{word}: {told}");
    }
}

/// Where the ready file of a service is, for `--ready-file`.
fn ready_file(service: &Service, folder: &Path) -> String {
    let path = folder.join(format!("ready-{}.json", service.pid()));
    std::fs::write(&path, service.ready().to_string()).expect("a file");
    format!("--ready-file={}", path.display())
}

fn count(tally: &Value, name: &str) -> u64 {
    tally[name].as_u64().unwrap_or_else(|| panic!("no {name} in {tally}"))
}

fn sum<'a>(tallies: impl Iterator<Item = &'a Value>, name: &str) -> u64 {
    tallies.map(|tally| count(tally, name)).sum()
}

fn list<'a>(object: &'a Value, name: &str) -> &'a Vec<Value> {
    object[name].as_array().unwrap_or_else(|| panic!("no list {name} in {object}"))
}

/// Every request is in exactly one column, for all targets together and for each of them.
#[track_caller]
fn check_columns(level: &Value, protocol: &str) {
    let total = &level[protocol];
    let ended: u64 = ["answered", "late", "wrong", "refused", "lost"].iter().map(|name| count(total, name)).sum();
    assert_eq!(ended, count(total, "sent"), "{total}");
    let targets = || list(level, "targets").iter().map(|target| &target[protocol]);
    for name in ["due", "sent", "answered", "late", "wrong", "refused", "lost", "unsent", "broken", "answer_bytes"] {
        assert_eq!(sum(targets(), name), count(total, name), "{name}: {level}");
    }
}

/// Requests whose time came, by the schedule: the level's rate over the time that was counted.
#[track_caller]
fn check_due(level: &Value, protocol: &str) {
    let (rate, counted_ms) = (count(level, "offered_per_second"), count(level, "elapsed_ms"));
    let accounted = count(&level[protocol], "sent") + count(&level[protocol], "unsent");
    // The counted time is told in whole ms, and its ends may fall on either side of a request.
    let due = rate * counted_ms / 1_000..=rate * (counted_ms + 1) / 1_000 + 1;
    if level["stopped"] == true {
        // Stopped, it leaves out what could still have been answered.
        assert!(accounted <= *due.end(), "{due:?}: {level}");
    } else {
        assert!(due.contains(&accounted), "{due:?}: {level}");
    }
}

#[test]
fn the_plan_is_printed_and_nothing_is_sent() {
    let table = run(&["--plan"]);
    assert_eq!(table.status.code(), Some(0), "{}", text(&table.stderr));
    assert!(text(&table.stdout).contains("13         1024     500,000"), "{}", text(&table.stdout));
    let object: Value = serde_json::from_slice(&run(&["--plan", "--json", "-"]).stdout).expect("JSON");
    let levels = list(&object, "levels");
    assert_eq!((levels.len(), count(&levels[0], "connections")), (13, 8));
    for pair in levels.windows(2) {
        assert!(count(&pair[0], "offered_per_second") < count(&pair[1], "offered_per_second"), "{pair:?}");
    }
    let own: Value = serde_json::from_slice(&run(&["--plan", "--level=3@7", "--json=-"]).stdout).expect("JSON");
    assert_eq!(count(&list(&own, "levels")[0], "offered_per_second"), 7);
}

#[test]
fn short_levels_tell_the_same_in_every_form() {
    for engine in ENGINES {
        let service = Service::demo(engine);
        service.await_price("BTC", 2);
        let folder = tempfile::tempdir().expect("a folder");
        let ready = ready_file(&service, folder.path());
        for (arguments, protocols) in [
            (&["--protocol=tcp", "--pipeline=4"][..], &["tcp"][..]),
            (&["--protocol=udp", "--train=4"], &["udp"]),
            (&["--protocol=udp", "--udp-format=json"], &["udp"]),
            (&["--protocol=both"], &["tcp", "udp"]),
        ] {
            let output = run(&[&[ready.as_str(), "--json=-"][..], &SHORT, arguments].concat());
            assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
            let object: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!((&object["ended"], list(&object, "levels").len()), (&Value::from("complete"), 3), "{object}");
            for level in list(&object, "levels") {
                for protocol in protocols {
                    check_columns(level, protocol);
                    let total = &level[protocol];
                    // Half a second of the schedule, whatever became of it.
                    let accounted = count(total, "sent") + count(total, "unsent");
                    assert_eq!(accounted, count(level, "offered_per_second") / 2, "{engine}: {total}");
                    assert_eq!(count(total, "due"), accounted, "{engine}: {total}");
                    assert!(count(total, "answered") > 0 && count(total, "latency_p50_ns") > 0, "{engine}: {total}");
                    assert_eq!((count(total, "wrong"), count(total, "refused")), (0, 0), "{engine}: {total}");
                }
                assert!(level["server"]["cpu_per_request_us"].as_f64() > Some(0.0), "{engine}: {level}");
            }
            check_no_secret(&service, &text(&output.stdout));
        }
    }
}

#[track_caller]
fn check_no_secret(service: &Service, told: &str) {
    for name in ["stress_key", "udp_secret"] {
        assert!(!told.contains(service.ready()[name].as_str().expect(name)), "{name} is told");
    }
}

#[test]
fn reports_are_written_and_need_no_network() {
    let service = Service::demo("auto");
    service.await_price("BTC", 2);
    let folder = tempfile::tempdir().expect("a folder");
    let ready = ready_file(&service, folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [json, html, hdr] = ["json", "html", "hdr"].map(|name| format!("--{name}={}", path(name)));
    std::fs::write(folder.path().join("html"), "of an earlier run, and longer: ".repeat(100_000)).expect("a file");
    let output = run(&[&[ready.as_str(), "--protocol=both", &json, &html, &hdr, "--closed"][..], &SHORT].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let read = |name: &str| std::fs::read_to_string(path(name)).expect(name);
    let object: Value = serde_json::from_str(&read("json")).expect("JSON");
    assert_eq!((&object["settings"]["pace"], list(&object, "levels").len()), (&Value::from("closed"), 3));
    assert_eq!(read("hdr").lines().filter(|line| line.starts_with("Tag=L")).count(), 6);
    let page = read("html");
    for word in ["http://", "https://", "src=", "href=", "url(", "<script", "of an earlier run"] {
        assert!(!page.contains(word), "{word} is in the page");
    }
    assert!(page.ends_with("</html>\n") && page.matches("<svg ").count() >= 8);
    let table = text(&output.stdout);
    for told in [&page, &table, &read("json"), &read("hdr")] {
        check_no_secret(&service, told);
    }
    assert!(table.contains("ANSWERED") && table.contains("SERVER CORES"), "{table}");
}

/// A service that knows [`SHARED_KEY`] besides its own keys.
fn with_shared_key(engine: &str, folder: &Path) -> Service {
    let path = folder.join(format!("{engine}.toml"));
    let keys = format!(
        "[[keys]]\nid = {SHARED_ID}\nsha256 = \"{SHARED_KEY_SHA256}\"\nlimit = 1000000\nudp_secret = \"{SHARED_SECRET}\"\n"
    );
    std::fs::write(&path, keys).expect("a settings file");
    let service = Service::start(engine, &[], |command| command.arg("--config").arg(&path));
    service.await_price("BTC", 2);
    service
}

/// A run that drives both services over both protocols.
fn on_both(services: [&Service; 2], json: &Path, more: &[&str]) -> Command {
    let place = |service: &Service| format!("{}/{}", service.address("lpo_tcp"), service.address("lpo_udp").port());
    let targets = format!("--target={},{}", place(services[0]), place(services[1]));
    let json = format!("--json={}", json.display());
    let mut command = command(&[&targets, "--protocol=both", "--udp-key-id", SHARED_ID, &json, "--assets=BTC,ETH"]);
    command.args(more).env("TRINITY_KEY", SHARED_KEY).env("TRINITY_UDP_SECRET", SHARED_SECRET);
    command
}

/// Starts a long run against both services and waits until both answer.
fn long_run(services: [&Service; 2], json: &Path, warm_up: &str) -> Child {
    let mut command = on_both(services, json, &["--level=4@400", "--duration=60", "--threads=1", warm_up]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    for service in services {
        harness::eventually("requests to be answered", || {
            let metrics = http::get(service.address("health_lpo"), "/metrics", &[]).text();
            let counted = metrics.lines().filter(|line| line.starts_with("tb_http_requests_total{"));
            let answered: u64 = counted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
            (answered >= 50).then_some(())
        });
    }
    child
}

fn ended(mut child: Child, json: &Path) -> (Option<i32>, String, Value) {
    let mut told = String::new();
    child.stderr.take().expect("its errors").read_to_string(&mut told).expect("text");
    let code = child.wait().expect("its end").code();
    let object = std::fs::read(json).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    (code, told.clone(), object.unwrap_or_else(|| panic!("no report:\n{told}")))
}

#[test]
fn each_of_two_targets_is_told_until_one_of_them_dies() {
    let folder = tempfile::tempdir().expect("a folder");
    let services = ENGINES.map(|engine| with_shared_key(engine, folder.path()));
    let json = folder.path().join("report.json");
    let child = long_run([&services[0], &services[1]], &json, "--warm-up=0");
    services[1].signal("KILL");
    let (code, told, object) = ended(child, &json);
    let dead = services[1].address("lpo_tcp").to_string();
    assert_eq!((code, &object["ended"]), (Some(1), &Value::from("failed")), "{told}");
    let line = told.lines().find(|line| line.starts_with("trinity-stress:")).unwrap_or_default();
    assert!(line.contains(&dead) && line.contains("went away"), "{told}");
    let level = &list(&object, "levels")[0];
    for protocol in ["tcp", "udp"] {
        check_columns(level, protocol);
        check_due(level, protocol);
    }
    let targets = list(level, "targets");
    assert_eq!(targets.len(), 2);
    for target in targets {
        assert!(count(&target["tcp"], "answered") > 0, "{target}");
    }
    assert!(count(&targets[0]["udp"], "answered") > 0, "{level}");
    assert_eq!(count(&targets[0]["tcp"], "broken"), 0, "{level}");
    assert!(count(&targets[1]["tcp"], "broken") > 0, "{level}");
    // What was in flight when it died was never answered, and is not left out.
    assert!(count(&targets[1]["udp"], "lost") > 0, "{level}");
}

fn interrupt(child: &Child) {
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill runs").success());
}

#[test]
fn an_interrupt_before_anything_is_counted_writes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let services = ENGINES.map(|engine| with_shared_key(engine, folder.path()));
    let json = folder.path().join("report.json");
    let child = long_run([&services[0], &services[1]], &json, "--warm-up=60");
    interrupt(&child);
    check_refused(&child.wait_with_output().expect("its end"), 1, &["before anything was counted"]);
    assert!(!json.exists(), "a report without a figure");
}

#[test]
fn cpu_per_request_is_told_where_every_target_s_process_is_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let services = ENGINES.map(|engine| with_shared_key(engine, folder.path()));
    let json = folder.path().join("report.json");
    let one = format!("--server-pid={}", services[0].pid());
    for (more, is_told) in [(&[][..], true), (&[one.as_str()], false)] {
        let arguments = [&SHORT[..], more].concat();
        let output = on_both([&services[0], &services[1]], &json, &arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let object: Value = serde_json::from_slice(&std::fs::read(&json).expect("a report")).expect("JSON");
        for level in list(&object, "levels") {
            assert!(level["server"]["cores"].is_number(), "{more:?}: {level}");
            assert_eq!(level["server"]["cpu_per_request_us"].is_number(), is_told, "{more:?}: {level}");
            assert_eq!(level["server"]["requests"].is_null(), !is_told, "{more:?}: {level}");
        }
    }
}

#[test]
fn a_reader_that_is_gone_takes_no_report_and_no_verdict_with_it() {
    let service = Service::demo("auto");
    service.await_price("BTC", 2);
    let folder = tempfile::tempdir().expect("a folder");
    let ready = ready_file(&service, folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (html, hdr) = (format!("--html={}", path("html")), format!("--hdr={}", path("hdr")));
    let json = format!("--json={}", path("json"));
    for (arguments, code, words) in
        [(&[json.as_str(), "--require=max<1ns"][..], 1, &["max<1ns"][..]), (&["--json=-", "--require=wrong=0"], 0, &[])]
    {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let all = [&[ready.as_str(), &html, &hdr], &SHORT[3..], &["--level=2@100"], arguments].concat();
        let output = command(&all).stdout(writer).output().expect("it runs");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        for word in words {
            assert!(told.contains(word), "{word}: {told}");
        }
        for name in ["html", "hdr"] {
            let written = std::fs::read(path(name)).unwrap_or_default();
            assert!(!written.is_empty(), "{name} is not written: {told}");
            std::fs::remove_file(path(name)).expect("removed");
        }
    }
    let object: Value = serde_json::from_slice(&std::fs::read(path("json")).expect("a report")).expect("JSON");
    assert_eq!(object["ended"], "complete");
    let full = run(&[&[ready.as_str(), "--html=/dev/full", &hdr], &SHORT[3..], &["--level=2@100"]].concat());
    check_refused(&full, 1, &["cannot write /dev/full"]);
    assert!(std::fs::metadata(path("hdr")).is_ok_and(|file| file.len() > 0), "one full disk loses the other report");
    assert!(text(&full.stdout).contains("ANSWERED"), "{}", text(&full.stdout));
}

#[test]
fn an_interrupt_keeps_what_was_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let services = ["auto", "epoll"].map(|engine| with_shared_key(engine, folder.path()));
    let json = folder.path().join("report.json");
    let child = long_run([&services[0], &services[1]], &json, "--warm-up=0");
    interrupt(&child);
    let (code, told, object) = ended(child, &json);
    assert_eq!((code, &object["ended"]), (Some(0), &Value::from("stopped")), "{told}");
    assert!(told.contains("stopped"), "{told}");
    let level = &list(&object, "levels")[0];
    assert_eq!(level["stopped"], true);
    assert!(count(&level["tcp"], "answered") > 0 && count(level, "elapsed_ms") < 60_000, "{level}");
    for protocol in ["tcp", "udp"] {
        check_columns(level, protocol);
        check_due(level, protocol);
    }
}

#[test]
fn conditions_decide_the_exit_code() {
    let service = Service::demo("auto");
    service.await_price("BTC", 2);
    let folder = tempfile::tempdir().expect("a folder");
    let ready = ready_file(&service, folder.path());
    let required = |conditions: &str| {
        let arguments = [ready.as_str(), "--level=2@100", "--level=2@200", "--quiet", "--require", conditions];
        run(&[&arguments[..], &SHORT[3..]].concat())
    };
    let met = required("success>=1,L2:wrong=0,tcp:max<60s,rate>0");
    assert_eq!((met.status.code(), text(&met.stdout), text(&met.stderr)), (Some(0), String::new(), String::new()));
    check_refused(&required("success>=1,L2:max<1ns"), 1, &["L2:max<1ns", "level 2 TCP"]);
    check_refused(&required("L3:wrong=0,p99<5"), 2, &["2 values"]);
}

#[test]
fn who_asks_too_much_is_refused_in_a_column_of_its_own() {
    let service = Service::demo("auto");
    service.await_price("BTC", 2);
    let address = format!("--target={}", service.address("lpo_tcp"));
    let key = format!("--key={}", service.demo_key());
    let output =
        run(&[&address, &key, "--level=2@100", "--duration=1", "--warm-up=0", "--json=-", "--require=wrong=0"]);
    let object: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let level = &list(&object, "levels")[0];
    check_columns(level, "tcp");
    check_due(level, "tcp");
    assert!(count(&level["tcp"], "refused") > 0, "{level}");
    assert!(level["server"]["cores"].is_number(), "the server is found by its listening socket: {level}");
}

#[test]
fn who_cannot_be_asked_is_one_clear_line() {
    let service = Service::demo("auto");
    service.await_price("BTC", 2);
    let tcp = format!("--target={}", service.address("lpo_tcp"));
    let udp = format!("--target={}", service.address("lpo_udp"));
    // Free a moment ago: nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let nobody = format!("--target={free}");
    let both = format!("--target={},{free}", service.address("lpo_tcp"));
    let key = format!("--key={}", service.stress_key());
    let id = service.ready()["udp_key_id"].to_string();
    let short = ["--level=2@100", "--duration=0.5", "--warm-up=0"];
    let refused = |arguments: &[&str], words: &[&str]| {
        check_refused(&run(&[arguments, &short].concat()), 1, words);
    };
    refused(&[&nobody, &key], &[&free.to_string()]);
    refused(&[&nobody, &key, "--assets=BTC"], &[&free.to_string()]);
    refused(&[&both, &key, "--assets=BTC"], &[&free.to_string()]);
    refused(&["--target=no-such-host.invalid", &key], &["no-such-host.invalid", "check the name"]);
    refused(&[&tcp, "--key=canary-wrong", "--assets=BTC"], &[&service.address("lpo_tcp").to_string(), "key"]);
    let wrong_secret =
        [&udp, "--protocol=udp", "--assets=BTC", "--udp-key-id", &id, "--udp-secret", SHARED_SECRET, "--lost-ms=1000"];
    refused(&wrong_secret, &[&service.address("lpo_udp").to_string(), "secret"]);
    refused(&[&tcp, &key, "--json=/no/such/folder/report.json"], &["--json /no/such/folder/report.json"]);
    refused(&[&tcp, &key, "--server-pid=4294967295"], &["4294967295"]);
}

#[test]
fn what_is_wrong_on_the_command_line_is_told_at_once() {
    let output = run(&["--protocol=icmp", "--duration=0", "--key=canary-secret-88", "--levels=99"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    for name in ["--target", "--protocol icmp", "--duration 0", "--levels 99"] {
        assert!(told.contains(name), "{name}: {told}");
    }
    assert!(!told.contains("canary"), "{told}");
    assert_eq!(run(&["--no-such-option"]).status.code(), Some(2));
}
