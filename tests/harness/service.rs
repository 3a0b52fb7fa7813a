//! The real process: started on free ports, stopped and waited for.

use crate::http::{self, Reply};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The two engines, by their `TB_ENGINE` names.
pub const ENGINES: [&str; 2] = ["io_uring", "epoll"];

/// The built `trinity-beast`, of the same profile as the test itself.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("trinity-beast"))
}

/// The built `trinity-stress`.
pub fn stress_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("trinity-stress"))
}

/// Builds a program, called as its package is; made anew if a source changed since: a test must never judge yesterday's
/// binary. Where tests are not optimised, it is built out of the very libraries that they are built of (one test among
/// what is asked for makes them so): of itself it would want half of them once more with other features.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>").to_owned();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--bin", name]);
    let is_release = profile.file_name().is_some_and(|name| name == "release");
    build.args(if is_release { ["--release", "-p", name] } else { ["--workspace", "--test", "tidy"] });
    let with_aws = cfg!(feature = "aws") && name == "trinity-beast";
    match (with_aws, is_release) {
        (true, _) => build.args(["--features", "aws"]),
        (false, false) => build.args(["--exclude", "trinity-aws"]),
        (false, true) => &mut build,
    };
    build.env("CARGO_TARGET_DIR", profile.parent().expect("target")).current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = build.status().expect("cargo runs");
    assert!(status.success(), "{name} does not build");
    profile.join(name)
}

/// Applies the schema to the database at `url`, as an operator would.
///
/// # Panics
/// When `migrate` fails; its output says why.
pub fn migrate(url: &str) {
    let output = Command::new(binary()).arg("migrate").env("DATABASE_URL", url).output().expect("trinity-beast runs");
    assert!(output.status.success(), "migrate: {}", String::from_utf8_lossy(&output.stderr));
}

/// The administrator's key of a `serve`.
const ADMIN_KEY: &str = "admin-key-of-the-harness";

/// A running `demo` or `serve`, with a directory of its own; ended when dropped.
pub struct Service {
    child: Child,
    ready: Value,
    directory: tempfile::TempDir,
}

impl Service {
    /// Starts `demo` on `engine` with free ports.
    pub fn demo(engine: &str) -> Self {
        Self::demo_with(engine, &[])
    }

    /// Starts `demo` on `engine` with free ports and these variables besides.
    pub fn demo_with(engine: &str, variables: &[(&str, &str)]) -> Self {
        Self::start(engine, variables, |command| command)
    }

    /// Starts `serve` on `engine` with free ports and these variables besides, which say where its prices come from. It has
    /// no key but the administrator's: see [`use_key`](Self::use_key).
    pub fn serve(engine: &str, variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data").display().to_string();
        let own = [("TB_DATA_DIR", data.as_str()), ("DRAIN_WAIT_SECONDS", "0"), ("BIND_ADDRESS", "127.0.0.1")];
        let variables: Vec<(&str, &str)> =
            own.into_iter().chain([("ADMIN_KEY", ADMIN_KEY)]).chain(variables.iter().copied()).collect();
        let mut service = Self::launch("serve", directory, engine, &variables, |command| command);
        service.ready["admin_key"] = ADMIN_KEY.into();
        service
    }

    /// Takes a key as it was shown once for the one that [`get`](Self::get) asks with and [`stress_key`](Self::stress_key)
    /// tells.
    pub fn use_key(&mut self, made: &Value) {
        self.ready["stress_key"] = made["key"].clone();
        self.ready["udp_key_id"] = made["key_id"].clone();
        self.ready["udp_secret"] = made["udp_secret"].clone();
    }

    /// Starts `demo` through `prepare`, which may wrap or change the command.
    pub fn start(engine: &str, variables: &[(&str, &str)], prepare: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        Self::launch("demo", tempfile::tempdir().expect("a temporary directory"), engine, variables, prepare)
    }

    fn launch(
        name: &str,
        directory: tempfile::TempDir,
        engine: &str,
        variables: &[(&str, &str)],
        prepare: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Self {
        let ready_file = directory.path().join("ready.json");
        let mut command = Command::new(binary());
        command.arg(name).arg("--ready-file").arg(&ready_file).env("TB_ENGINE", engine);
        for port in
            ["TCP_PORT_LPO", "TCP_PORT_LRS", "HEALTH_PORT_LPO", "HEALTH_PORT_LRS", "UDP_PORT_LPO", "UDP_PORT_LRS"]
        {
            command.env(port, "0");
        }
        // What a killed process leaves behind goes with this directory.
        command.env("TMPDIR", directory.path());
        let log = std::fs::File::create(directory.path().join("log")).expect("a log file");
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = prepare(&mut command).spawn().expect("trinity-beast starts");
        let deadline = Instant::now() + crate::PATIENCE;
        let ready = loop {
            if let Some(ready) = std::fs::read(&ready_file).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                break ready;
            }
            let ended = child.try_wait().expect("its state");
            let log = || std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            assert!(ended.is_none(), "{name} ended with {ended:?}:\n{}", log());
            assert!(Instant::now() < deadline, "{name} did not become ready:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        };
        Self { child, ready, directory }
    }

    /// What the ready file says.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// The address that the ready file calls `name`.
    pub fn address(&self, name: &str) -> SocketAddr {
        let text = self.ready[name].as_str().unwrap_or_else(|| panic!("ready file has no {name}: {}", self.ready));
        text.parse().expect("an address")
    }

    /// The key that may ask ten million times a second.
    pub fn stress_key(&self) -> &str {
        self.ready["stress_key"].as_str().expect("stress_key")
    }

    /// The key of three requests a second.
    pub fn demo_key(&self) -> &str {
        self.ready["demo_key"].as_str().expect("demo_key")
    }

    /// The number and the secret with which the stress key signs datagrams.
    pub fn udp_key(&self) -> (u32, [u8; 16]) {
        let text = self.ready["udp_secret"].as_str().expect("udp_secret");
        let byte = |index: usize| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).expect("hex");
        let id = self.ready["udp_key_id"].as_u64().expect("udp_key_id");
        (u32::try_from(id).expect("a key id"), std::array::from_fn(byte))
    }

    /// The simulated exchanges of a `demo`.
    pub fn exchanges(&self) -> Vec<(String, SocketAddr)> {
        let simulators = self.ready["simulators"].as_object().expect("simulators");
        let address = |text: &Value| text.as_str().and_then(|text| text.parse().ok()).expect("an address");
        simulators.iter().map(|(venue, text)| (venue.clone(), address(text))).collect()
    }

    /// GET of a path on the price port with the stress key.
    pub fn get(&self, path: &str) -> Reply {
        http::get(self.address("lpo_tcp"), path, &[("Authorization", &format!("Bearer {}", self.stress_key()))])
    }

    /// GET of a path on the price port with the admin key.
    pub fn admin(&self, path: &str) -> Reply {
        self.admin_request("GET", path, None)
    }

    /// A request with the admin key on the price port; a body is JSON.
    pub fn admin_request(&self, method: &str, path: &str, body: Option<&str>) -> Reply {
        let bearer = format!("Bearer {}", self.admin_key());
        http::request_with(self.address("lpo_tcp"), method, path, &[("Authorization", &bearer)], body)
    }

    /// The administrator's key.
    pub fn admin_key(&self) -> &str {
        self.ready["admin_key"].as_str().expect("admin_key")
    }

    /// Makes an API key of a tier: its number and its text.
    ///
    /// # Panics
    /// When it is refused.
    pub fn new_key(&self, tier: &str) -> (u64, String) {
        let key = self.make_key(&format!(r#"{{"name":"test","tier":"{tier}"}}"#));
        (key["key_id"].as_u64().expect("a number"), key["key"].as_str().expect("a text").to_owned())
    }

    /// Makes an API key as wished: all that is shown of it once.
    ///
    /// # Panics
    /// When it is refused.
    pub fn make_key(&self, wish: &str) -> Value {
        let made = self.admin_request("POST", "/admin/keys", Some(wish));
        assert_eq!(made.status, 201, "{}", made.text());
        made.json()
    }

    /// What `/metrics` says of the sample that begins so; `None`: there is none.
    pub fn metric(&self, begins: &str) -> Option<u64> {
        let text = http::get(self.address("health_lpo"), "/metrics", &[]).text();
        let line = text.lines().find(|line| line.starts_with(begins))?;
        line.rsplit(' ').next().and_then(|number| number.parse().ok())
    }

    /// Waits until `asset` has a price with at least `sources` venues behind it.
    pub fn await_price(&self, asset: &str, sources: u64) -> Value {
        crate::eventually(&format!("a price of {asset} from {sources} venues"), || {
            let reply = self.get(&format!("/price?asset={asset}"));
            (reply.status == 200).then(|| reply.json()).filter(|price| price["sources"].as_u64() >= Some(sources))
        })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status();
        assert!(status.expect("kill runs").success(), "no process to signal");
    }

    /// Kills the process with SIGKILL and waits until it is gone; the moment before.
    ///
    /// # Panics
    /// When it had ended by itself.
    pub fn kill(&mut self) -> Instant {
        assert!(self.child.try_wait().expect("its state").is_none(), "it ended by itself:\n{}", self.log());
        let before = Instant::now();
        self.child.kill().expect("a process to kill");
        self.child.wait().expect("its end");
        before
    }

    /// Waits until the process has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        crate::eventually("the process to end", || self.child.try_wait().expect("its state"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the service ---\n{}", self.log());
        }
        // Our own child, by its id; already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
