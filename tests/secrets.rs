//! No secret leaves the service: canaries are planted everywhere a secret can stand, everything is driven, well and badly,
//! with every line logged, and each byte that came out is searched for each of them.
//!
//! What is not searched: the ready file and the demo's announcement, which are there to tell keys, and the one answer that
//! shows a key to whoever made it.

use harness::eventually;
use harness::http;
use harness::postgres::Postgres;
use harness::proxy::{Fault, Proxy};
use harness::redis::{Options, Redis};
use harness::service::{ENGINES, Service, binary, migrate};
use std::process::Command;

const ADMIN_KEY: &str = "canary-admin-key-9f3a51c7";
const SECOND_ADMIN_KEY: &str = "canary-second-admin-key-77b1";
const CACHE_PASSWORD: &str = "canary-cache-password-1d20";
const WRONG_PASSWORD: &str = "canary-wrong-password-5e81";
const WRONG_KEY: &str = "tb_live_canaryWrongKey0000000000000000000";

/// Everything that came out so far, and what must not be in it.
#[derive(Default)]
struct Search {
    canaries: Vec<(&'static str, String)>,
    found: Vec<String>,
    searched_bytes: usize,
}

impl Search {
    fn plant(&mut self, what: &'static str, canary: &str) {
        assert!(canary.len() >= 8, "too short to be told from chance: {what}");
        self.canaries.push((what, canary.to_owned()));
    }

    fn through(&mut self, place: &str, output: &[u8]) {
        self.searched_bytes += output.len();
        for (what, canary) in &self.canaries {
            if output.windows(canary.len()).any(|window| window == canary.as_bytes()) {
                self.found.push(format!("{what} in {place}"));
            }
        }
    }

    fn through_reply(&mut self, place: &str, reply: &http::Reply) {
        let text = format!("{:?}\n", reply.headers);
        self.through(place, &[text.as_bytes(), &reply.body].concat());
    }
}

/// Asks administration; what it answers is searched.
fn administer(search: &mut Search, service: &Service, method: &str, path: &str, body: Option<&str>) -> http::Reply {
    let reply = service.admin_request(method, path, body);
    search.through_reply(&format!("{method} {path}"), &reply);
    reply
}

/// Every page of administration and the metrics.
fn read_everything(search: &mut Search, service: &Service, key_id: u64) {
    let status = format!("/admin/key-status?key_id={key_id}");
    for path in [
        "/admin/feeds",
        "/admin/engine",
        "/admin/usage",
        "/admin/keys",
        "/admin/params",
        "/admin/audit",
        "/admin/cluster",
        "/admin/cache/app:config",
        "/admin/cache/cluster:stats:n1",
        "/docs",
        "/assets",
        &status,
    ] {
        administer(search, service, "GET", path, None);
    }
    for path in ["/metrics", "/readyz", "/livez"] {
        let reply = http::get(service.address("health_lpo"), path, &[]);
        search.through_reply(path, &reply);
    }
}

/// Requests that are wrong in ways that carry a secret to where it does not belong.
fn ask_badly(search: &mut Search, service: &Service, key: &str) {
    let address = service.address("lpo_tcp");
    for (path, header) in [
        (format!("/price?asset=BTC&key={key}"), ("X-API-Key", WRONG_KEY)),
        (format!("/price?asset={}", &key[..16]), ("X-API-Key", key)),
        (format!("/limits?key={key}"), ("Authorization", WRONG_KEY)),
        ("/limits".to_owned(), ("Authorization", WRONG_KEY)),
        ("/price?asset=BTC&detail=1".to_owned(), ("X-API-Key", WRONG_KEY)),
        (format!("/admin/{key}"), ("X-API-Key", key)),
        (format!("/admin/key-status?key_id={key}"), ("Authorization", ADMIN_KEY)),
        ("/admin/keys".to_owned(), ("Authorization", WRONG_KEY)),
    ] {
        search.through_reply(&path, &http::get(address, &path, &[header]));
    }
    let broken = format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key : {key}\r\nX-API-Key: {key}\r\n\r\n");
    search.through("a broken head", &http::exchange(address, broken.as_bytes()));
    for (method, path, body) in [
        ("POST", "/admin/keys", format!("{{\"name\":\"x\",\"tier\":\"{WRONG_KEY}\"}}")),
        ("PUT", "/admin/params", format!("{{\"ADMIN_KEY\":\"{} {}\"}}", SECOND_ADMIN_KEY, "x".repeat(200))),
        ("PUT", "/admin/params", format!("not JSON {SECOND_ADMIN_KEY}")),
    ] {
        // An answer may repeat what the caller sent; the log may not.
        let reply = service.admin_request(method, path, Some(&body));
        assert!((400..500).contains(&reply.status), "{method} {path}: {reply:?}");
    }
}

#[test]
fn no_canary_is_in_anything_that_comes_out() {
    let postgres = Postgres::start();
    let redis = Redis::start_with(Options { password: Some(CACHE_PASSWORD.to_owned()), ..Options::default() });
    let (database, cache) = (Proxy::start(postgres.address()), Proxy::start(redis.address()));
    let url = postgres.url_at(database.address());
    migrate(&url);
    for engine in ENGINES {
        let mut search = Search::default();
        let (_, password) = Postgres::credentials();
        let in_url = url.split(':').nth(2).and_then(|rest| rest.split('@').next()).expect("a password").to_owned();
        search.plant("the database's password", password);
        search.plant("the database's password as in the URL", &in_url);
        search.plant("the cache's password", CACHE_PASSWORD);
        search.plant("the administrator's key", ADMIN_KEY);
        search.plant("the second administrator's key", SECOND_ADMIN_KEY);
        search.plant("a key that is none", WRONG_KEY);
        let cache_url = redis.url_at(cache.address());
        let variables = [
            ("DATABASE_URL", url.as_str()),
            ("CACHE_URL", &cache_url),
            ("ADMIN_KEY", ADMIN_KEY),
            ("LOG_LEVEL", "trace"),
            ("CLUSTER_NODE", "n1"),
            ("TB_SHARDS", "2"),
        ];
        let service = Service::demo_with(engine, &variables);
        for name in ["demo_key", "stress_key", "udp_secret"] {
            search.plant("a demo's secret", service.ready()[name].as_str().expect("in the ready file"));
        }
        service.await_price("BTC", 2);
        let made = eventually("the database is in use", || {
            let made = service.admin_request("POST", "/admin/keys", Some(r#"{"name":"canary","tier":"basic"}"#));
            (made.status == 201).then(|| made.json())
        });
        let (key, key_id) = (made["key"].as_str().expect("a text"), made["key_id"].as_u64().expect("a number"));
        search.plant("a key", key);
        search.plant("a key's UDP secret", made["udp_secret"].as_str().expect("hex"));
        let rotated = service.admin_request("POST", &format!("/admin/keys/{key_id}/rotate"), None);
        search.plant("a rotated key", rotated.json()["key"].as_str().expect("a text"));
        let second = format!("{{\"ADMIN_KEY\":\"{SECOND_ADMIN_KEY}\"}}");
        administer(&mut search, &service, "PUT", "/admin/params?reload=1", Some(&second));
        read_everything(&mut search, &service, key_id);
        ask_badly(&mut search, &service, key);
        for fault in [Fault::Refuse, Fault::Hang] {
            database.set(fault);
            cache.set(fault);
            administer(&mut search, &service, "POST", "/admin/reload-params", None);
            read_everything(&mut search, &service, key_id);
            for proxy in [&database, &cache] {
                proxy.set(Fault::None);
                proxy.cut();
            }
            eventually("the database is in use again", || {
                (administer(&mut search, &service, "POST", "/admin/reload-params", None).status == 200).then_some(())
            });
        }
        let revoke = format!("/admin/keys/{key_id}/revoke");
        administer(&mut search, &service, "POST", &revoke, None);
        read_everything(&mut search, &service, key_id);
        for words in [&["config"][..], &["config", "--json"]] {
            let output = Command::new(binary()).args(words).envs(variables).output().expect("it runs");
            search.through(&words.join(" "), &[output.stdout, output.stderr].concat());
        }
        let log = service.log();
        assert!(log.lines().count() > 100, "everything is logged: {} lines", log.lines().count());
        search.through("the log", log.as_bytes());
        eprintln!("{engine}: {} bytes searched for {} canaries", search.searched_bytes, search.canaries.len());
        assert_eq!(search.found, Vec::<String>::new(), "{engine}");
    }
}

#[test]
fn wrong_passwords_are_not_told() {
    let postgres = Postgres::start();
    let redis = Redis::start_with(Options { password: Some(CACHE_PASSWORD.to_owned()), ..Options::default() });
    let mut search = Search::default();
    search.plant("a wrong password", WRONG_PASSWORD);
    let (user, _) = Postgres::credentials();
    let url = format!("postgres://{user}:{WRONG_PASSWORD}@{}/{user}", postgres.address());
    let cache_url = format!("redis://default:{WRONG_PASSWORD}@{}", redis.address());
    let variables = [("DATABASE_URL", url.as_str()), ("CACHE_URL", &cache_url), ("LOG_LEVEL", "trace")];
    let service = Service::demo_with("auto", &variables);
    service.await_price("BTC", 2);
    eventually("both are noticed to be out of reach", || {
        let metrics = http::get(service.address("health_lpo"), "/metrics", &[]).text();
        search.through("metrics", metrics.as_bytes());
        let is_down = |name: &str| metrics.lines().any(|line| line.starts_with(name) && line.ends_with(" 0"));
        (is_down("tb_store_up") && is_down("tb_cache_up")).then_some(())
    });
    for path in ["/admin/keys", "/admin/audit", "/admin/cache/app:config"] {
        administer(&mut search, &service, "GET", path, None);
    }
    let output = Command::new(binary()).arg("migrate").env("DATABASE_URL", &url).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "it cannot log in");
    search.through("migrate", &[output.stdout, output.stderr].concat());
    for (name, value) in [
        ("DATABASE_URL", format!("mysql://{user}:{WRONG_PASSWORD}@localhost/x")),
        ("CACHE_URL", format!("http://default:{WRONG_PASSWORD}@localhost")),
        ("ADMIN_KEY", format!("{WRONG_PASSWORD} with spaces")),
    ] {
        let output = Command::new(binary()).arg("demo").env(name, &value).output().expect("it runs");
        assert_ne!(output.status.code(), Some(0), "{name} is refused");
        search.through(name, &[output.stdout, output.stderr].concat());
    }
    search.through("the log", service.log().as_bytes());
    assert_eq!(search.found, Vec::<String>::new());
}
