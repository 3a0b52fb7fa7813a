//! No secret leaves the service: canaries are planted everywhere a secret can stand, everything is driven, well and badly,
//! with every line logged, and each byte that came out is searched for each of them.
//!
//! What may hold one: a demo's ready file and announcement, which are there to tell keys; the one answer that shows a key
//! to whoever made it; in the database a key's UDP secret (signatures are made with it) and the row of `ADMIN_KEY`, which
//! the operator wrote; in the data directory the last good copies of both. Those are looked into for everything else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use harness::eventually;
use harness::http;
use harness::postgres::Postgres;
use harness::proxy::{Fault, Proxy};
use harness::redis::{Options, Redis};
use harness::service::{ENGINES, Service, binary, migrate};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const ADMIN_KEY: &str = "canary-admin-key-9f3a51c7";
const SECOND_ADMIN_KEY: &str = "canary-second-admin-key-77b1";
const CACHE_PASSWORD: &str = "canary-cache-password-1d20";
const WRONG_PASSWORD: &str = "canary-wrong-password-5e81";
const UDP_SECRET: &str = "a key's UDP secret";
const ADMIN_KEY_ROW: &str = "the second administrator's key";
const WRONG_KEY: &str = "tb_live_canaryWrongKey0000000000000000000";

/// Everything that came out so far, and what must not be in it.
#[derive(Default)]
struct Search {
    /// What it is, and one form of it.
    canaries: Vec<(&'static str, Vec<u8>)>,
    found: Vec<String>,
    searched_bytes: usize,
}

impl Search {
    fn plant(&mut self, what: &'static str, canary: &str) {
        assert!(canary.len() >= 8, "too short to be told from chance: {what}");
        self.canaries.push((what, canary.into()));
        self.canaries.push((what, STANDARD_NO_PAD.encode(canary).into()));
    }

    /// Bytes, told as hex: as any program might write them.
    fn plant_bytes(&mut self, what: &'static str, hex: &str) {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let listed = format!("{bytes:?}");
        self.plant(what, hex);
        self.plant(what, &hex.to_uppercase());
        self.plant(what, listed.trim_matches(['[', ']']));
        self.canaries.push((what, STANDARD_NO_PAD.encode(&bytes).into()));
        self.canaries.push((what, bytes));
    }

    /// What an answer shows that made a key.
    fn plant_key(&mut self, made: &Value) {
        self.plant("a key", made["key"].as_str().expect("a text"));
        self.plant_bytes(UDP_SECRET, made["udp_secret"].as_str().expect("hex"));
    }

    fn through(&mut self, place: &str, output: &[u8]) {
        self.through_but(place, output, &[]);
    }

    /// Everything but what may be there.
    fn through_but(&mut self, place: &str, output: &[u8], may_be_there: &[&str]) {
        self.searched_bytes += output.len();
        for (what, canary) in &self.canaries {
            if !may_be_there.contains(what) && contains(output, canary) {
                self.found.push(format!("{what} in {place}"));
            }
        }
    }

    fn through_reply(&mut self, place: &str, reply: &http::Reply) {
        let text = format!("{:?}\n", reply.headers);
        self.through(place, &[text.as_bytes(), &reply.body].concat());
    }

    /// Runs the program with one word line; what it wrote on stdout. All it writes is searched.
    fn through_command(&mut self, words: &[&str], variables: &[(&str, &str)]) -> String {
        let output = Command::new(binary()).args(words).envs(variables.iter().copied()).output().expect("it runs");
        let told = [output.stdout.clone(), output.stderr].concat();
        self.through(&words.join(" "), &told);
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&told));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn end(self, engine: &str) {
        eprintln!("{engine}: {} bytes searched for {} canaries", self.searched_bytes, self.canaries.len());
        assert_eq!(self.found, Vec::<String>::new(), "{engine}");
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    // The first byte alone rules most places out.
    haystack.windows(needle.len()).any(|window| window[0] == needle[0] && window == needle)
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

/// The service's surroundings, which want passwords.
struct World {
    postgres: Postgres,
    redis: Redis,
    database: Proxy,
    cache: Proxy,
    url: String,
    cache_url: String,
}

impl World {
    fn new() -> Self {
        let postgres = Postgres::start();
        let redis = Redis::start_with(Options { password: Some(CACHE_PASSWORD.to_owned()), ..Options::default() });
        let (database, cache) = (Proxy::start(postgres.address()), Proxy::start(redis.address()));
        let (url, cache_url) = (postgres.url_at(database.address()), redis.url_at(cache.address()));
        Self { postgres, redis, database, cache, url, cache_url }
    }

    fn variables(&self) -> [(&'static str, &str); 7] {
        [
            ("DATABASE_URL", &self.url),
            ("CACHE_URL", &self.cache_url),
            ("ADMIN_KEY", ADMIN_KEY),
            ("LOG_LEVEL", "trace"),
            ("CLUSTER_NODE", "n1"),
            ("TB_SHARDS", "2"),
            ("TB_DATA_DIR", ""),
        ]
    }

    fn search(&self) -> Search {
        let mut search = Search::default();
        let in_url = self.url.split(':').nth(2).and_then(|rest| rest.split('@').next()).expect("a password");
        search.plant("the database's password", Postgres::credentials().1);
        search.plant("the database's password as in the URL", in_url);
        search.plant("the cache's password", CACHE_PASSWORD);
        search.plant("the administrator's key", ADMIN_KEY);
        search.plant(ADMIN_KEY_ROW, SECOND_ADMIN_KEY);
        search.plant("a key that is none", WRONG_KEY);
        search
    }

    /// What stands in the cache, names and values, and how administration shows it.
    fn search_cache(&self, search: &mut Search, service: &Service) {
        let names = eventually("everything stands in the cache", || {
            let names = self.redis.ask(&["KEYS", "*"]);
            ["app:config", "apikey:", "cluster:stats:n1"].iter().all(|name| names.contains(name)).then_some(names)
        });
        search.through("the cache's names", names.as_bytes());
        for name in names.lines() {
            let value = match self.redis.ask(&["TYPE", name]).as_str() {
                "string" => self.redis.ask(&["GET", name]),
                "hash" => self.redis.ask(&["HGETALL", name]),
                "zset" => self.redis.ask(&["ZRANGE", name, "0", "-1"]),
                // It has just come to its end.
                "none" => String::new(),
                other => panic!("{name} is a {other}"),
            };
            search.through(&format!("{name} in the cache"), value.as_bytes());
            let name = name.replace('{', "%7B").replace('}', "%7D");
            administer(search, service, "GET", &format!("/admin/cache/{name}"), None);
        }
    }

    /// Every row of every table.
    fn search_database(&self, search: &mut Search) {
        let tables = self.postgres.sql(&self.url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'");
        assert!(tables.lines().any(|table| table == "audit"), "{tables}");
        for table in tables.lines() {
            let rows = self.postgres.sql(&self.url, &format!("SELECT t::text FROM \"{table}\" t"));
            let may_be_there: &[&str] = match table {
                "api_keys" => &[UDP_SECRET],
                "application_parameters" => &[ADMIN_KEY_ROW],
                _ => &[],
            };
            search.through_but(&format!("the table {table}"), rows.as_bytes(), may_be_there);
        }
        let audited = self.postgres.sql(&self.url, "SELECT count(*) FROM audit");
        assert!(audited.trim().parse::<u64>().is_ok_and(|count| count > 4), "{audited} rows of audit");
    }

    /// The command line, on the same database; every key that it makes is planted once it has been shown.
    fn search_commands(&self, search: &mut Search) {
        let variables = self.variables();
        let create = ["keys", "create", "--name", "by hand", "--tier", "basic", "--json"];
        let made: Value = serde_json::from_str(&search.through_command(&create, &variables)).expect("JSON");
        search.plant_key(&made);
        let id = made["key_id"].to_string();
        let rotate = ["keys", "rotate", &id, "--json"];
        let rotated: Value = serde_json::from_str(&search.through_command(&rotate, &variables)).expect("JSON");
        search.plant_key(&rotated);
        for words in [
            &["keys", "list"][..],
            &["keys", "list", "--json"],
            &["keys", "revoke", &id],
            &["keys", "list", "--state", "revoked"],
            &["migrate"],
            &["config"],
            &["config", "--json"],
        ] {
            search.through_command(words, &variables);
        }
    }
}

#[test]
fn no_canary_is_in_anything_that_comes_out() {
    let world = World::new();
    migrate(&world.url);
    for engine in ENGINES {
        let mut search = world.search();
        let service = Service::demo_with(engine, &world.variables());
        for name in ["demo_key", "stress_key"] {
            search.plant("a demo's key", service.ready()[name].as_str().expect("in the ready file"));
        }
        search.plant_bytes("a demo's UDP secret", service.ready()["udp_secret"].as_str().expect("in the ready file"));
        service.await_price("BTC", 2);
        let made = eventually("the database is in use", || {
            let made = service.admin_request("POST", "/admin/keys", Some(r#"{"name":"canary","tier":"basic"}"#));
            (made.status == 201).then(|| made.json())
        });
        search.plant_key(&made);
        let (key, key_id) = (made["key"].as_str().expect("a text"), made["key_id"].as_u64().expect("a number"));
        let rotated = service.admin_request("POST", &format!("/admin/keys/{key_id}/rotate"), None);
        search.plant_key(&rotated.json());
        let second = format!("{{\"ADMIN_KEY\":\"{SECOND_ADMIN_KEY}\"}}");
        administer(&mut search, &service, "PUT", "/admin/params?reload=1", Some(&second));
        read_everything(&mut search, &service, key_id);
        ask_badly(&mut search, &service, key);
        for fault in [Fault::Refuse, Fault::Hang] {
            world.database.set(fault);
            world.cache.set(fault);
            administer(&mut search, &service, "POST", "/admin/reload-params", None);
            read_everything(&mut search, &service, key_id);
            for proxy in [&world.database, &world.cache] {
                proxy.set(Fault::None);
                proxy.cut();
            }
            eventually("the database is in use again", || {
                (administer(&mut search, &service, "POST", "/admin/reload-params", None).status == 200).then_some(())
            });
            eventually("the cache is in use again", || {
                (administer(&mut search, &service, "GET", "/admin/cache/app:config", None).status == 200).then_some(())
            });
        }
        world.search_commands(&mut search);
        let revoke = format!("/admin/keys/{key_id}/revoke");
        administer(&mut search, &service, "POST", &revoke, None);
        read_everything(&mut search, &service, key_id);
        world.search_cache(&mut search, &service);
        world.search_database(&mut search);
        // In the log not even what a key is known by in the cache.
        let hashes = world.postgres.sql(&world.url, "SELECT encode(hash, 'hex') FROM api_keys");
        hashes.lines().for_each(|hash| search.plant_bytes("a key's hash", hash));
        let log = service.log();
        assert!(log.contains("DEBUG"), "everything is logged:\n{log}");
        search.through("the log", log.as_bytes());
        search.end(engine);
    }
}

/// A program of ours that runs on, ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Our own child, by its id; already ended is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every file below, one behind the other.
fn files_below(folder: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(folder).expect("a directory");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        // One that was replaced meanwhile is not there any more.
        if path.is_dir() { files_below(&path) } else { std::fs::read(path).unwrap_or_default() }
    };
    entries.flat_map(read).collect()
}

#[test]
fn serve_tells_no_secret_and_keeps_only_what_it_must() {
    // The exchange that `serve` listens to is a demo's simulated one.
    let exchanges = Service::demo("auto");
    let exchange = exchanges.ready()["simulators"]["kraken"].as_str().expect("its simulator");
    let (ws_url, rest_url) = (format!("ws://{exchange}/"), format!("http://{exchange}"));
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (data_dir, ready_file) = (path("data"), path("ready.json"));
    let variables = [
        ("TB_DATA_DIR", data_dir.as_str()),
        ("ADMIN_KEY", ADMIN_KEY),
        ("LOG_LEVEL", "trace"),
        ("VENUES", "kraken"),
        ("KRAKEN_WS_URL", &ws_url),
        ("KRAKEN_REST_URL", &rest_url),
        ("TB_SHARDS", "1"),
        ("DRAIN_WAIT_SECONDS", "0"),
    ];
    let mut search = Search::default();
    search.plant("the administrator's key", ADMIN_KEY);
    let create = ["keys", "create", "--name", "by hand", "--tier", "basic", "--json"];
    let made: Value = serde_json::from_str(&search.through_command(&create, &variables)).expect("JSON");
    search.plant_key(&made);
    let log = std::fs::File::create(path("log")).expect("a log file");
    let mut command = Command::new(binary());
    command.args(["serve", "--any-port", "--ready-file", &ready_file]).envs(variables);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("the same")).stderr(log);
    let _serve = Running(command.spawn().expect("it starts"));
    let ready = eventually("serve is ready", || std::fs::read(&ready_file).ok());
    search.through("the ready file", &ready);
    let ready: Value = serde_json::from_slice(&ready).expect("JSON");
    let address = ready["lpo_tcp"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    let key = made["key"].as_str().expect("a text");
    eventually("the key works", || {
        (http::get(address, "/price?asset=BTC", &[("X-API-Key", key)]).status == 200).then_some(())
    });
    let bearer = format!("Bearer {ADMIN_KEY}");
    for path in ["/admin/keys", "/admin/params", "/admin/audit", "/admin/usage", "/admin/engine", "/admin/feeds"] {
        search.through_reply(path, &http::get(address, path, &[("Authorization", &bearer)]));
    }
    search.through("the log", &std::fs::read(path("log")).expect("a log"));
    search.through_but("the data directory", &files_below(Path::new(&data_dir)), &[UDP_SECRET]);
    search.end("serve");
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
    search.end("wrong passwords");
}
