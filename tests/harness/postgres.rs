//! A real PostgreSQL 15: on a free port, with its data in a directory of its own, ended when dropped.
//!
//! It refuses to run as root, so that it is then started as another user. Should this process vanish, the server's
//! shell sees the end of its input and ends the server. Tests of one process may share a server and take a database
//! each, because making a server takes a second or two.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Where Debian keeps what is not on the path.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// Users to run it as where this process is root's, the first there is.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// Times a start is tried.
const STARTS_MAX: u32 = 5;

/// Its owner's name, and the first database's.
const USER: &str = "trinity";

/// The owner's first password.
const PASSWORD: &str = "harness password/1";

/// The same as an address holds it.
const PASSWORD_IN_URL: &str = "harness%20password%2F1";

/// A running server.
pub struct Postgres {
    directory: tempfile::TempDir,
    port: u16,
    child: Child,
    databases: AtomicU32,
}

impl Postgres {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not answer within [`crate::PATIENCE`]; `tests/run` installs PostgreSQL 15.
    pub fn start() -> Self {
        for _ in 0..STARTS_MAX {
            let directory = tempfile::tempdir().expect("a temporary directory");
            make(directory.path());
            // A free port may be taken by somebody else before the server has it: then with another, once more.
            let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
            let port = free.expect("a free port").port();
            let child = spawn(directory.path(), port);
            let mut server = Self { directory, port, child, databases: AtomicU32::new(0) };
            if server.answers() {
                server.program("createdb", &[USER]);
                return server;
            }
        }
        panic!("postgres does not start");
    }

    /// One that the tests of this process share, as long as any of them has it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// Where programs connect to.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// `DATABASE_URL` for the server at `address`: its own, or a proxy's in front of it.
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("postgres://{USER}:{PASSWORD_IN_URL}@{address}/{USER}")
    }

    /// `DATABASE_URL` of a database of the caller's own, reached at `address`.
    pub fn new_url_at(&self, address: SocketAddr) -> String {
        let name = format!("own{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.program("createdb", &[&name]);
        format!("postgres://{USER}:{PASSWORD_IN_URL}@{address}/{name}")
    }

    /// Runs SQL in the database of `url`, as an operator would; what it answers, a row a line, columns parted by `|`.
    ///
    /// # Panics
    /// When it refuses.
    pub fn sql(&self, url: &str, sql: &str) -> String {
        let name = url.rsplit('/').next().unwrap_or(USER);
        self.program("psql", &["-v", "ON_ERROR_STOP=1", "-qAtc", sql, name])
    }

    /// The owner's name and first password.
    pub const fn credentials() -> (&'static str, &'static str) {
        (USER, PASSWORD)
    }

    /// Ends the server at once, as a crash would; its data stays.
    pub fn crash(&mut self) {
        self.stop();
    }

    /// Starts it again on the same port and data, after [`crash`](Self::crash).
    ///
    /// # Panics
    /// When it does not answer within [`crate::PATIENCE`].
    pub fn restart(&mut self) {
        self.child = spawn(self.directory.path(), self.port);
        assert!(self.answers(), "postgres does not start again");
    }

    fn stop(&mut self) {
        // The end of its input makes the shell end the server, and then itself.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }

    /// Waits until it answers; `false` when it has ended instead.
    fn answers(&mut self) -> bool {
        let log = self.directory.path().join("log");
        crate::eventually("postgres to answer", || {
            let told = fs::read_to_string(&log).unwrap_or_default();
            if told.contains("FATAL:") && told.contains("could not create any TCP/IP sockets") {
                return Some(false);
            }
            if self.child.try_wait().expect("its state").is_some() {
                return Some(false);
            }
            self.try_program("psql", &["-qAtc", "SELECT 1", "postgres"]).status.success().then_some(true)
        })
    }

    fn program(&self, name: &str, words: &[&str]) -> String {
        let output = self.try_program(name, words);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn try_program(&self, name: &str, words: &[&str]) -> Output {
        let mut command = Command::new(program(name));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER]).args(words);
        // Over the loopback address, so that the host's own settings for programs do not matter.
        command.env_clear().env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "10").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null()).output().expect("a program of PostgreSQL 15, which tests/run installs")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn program(name: &str) -> PathBuf {
    Path::new(PROGRAMS).join(name)
}

/// Number and group of the user to run as, where this process is root's.
fn other_user() -> Option<(u32, u32)> {
    // Our own entry in /proc is the user's that we run as.
    let own = fs::metadata("/proc/self").expect("/proc");
    if std::os::unix::fs::MetadataExt::uid(&own) != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("the users");
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).filter_map(|number| number.parse().ok());
        Some((numbers.next()?, numbers.next()?))
    };
    Some(USERS.into_iter().find_map(find).expect("a user that is not root"))
}

/// A command that runs as a user PostgreSQL accepts.
fn as_user(name: &str) -> Command {
    match other_user() {
        None => Command::new(program(name)),
        Some((user, group)) => {
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
            command.arg(program(name));
            command
        }
    }
}

/// Makes the files of a server.
fn make(directory: &Path) {
    if let Some((user, group)) = other_user() {
        chown(directory, Some(user), Some(group)).expect("a directory of the server's user");
    }
    let password = directory.join("password");
    fs::write(&password, PASSWORD).expect("a file");
    if let Some((user, group)) = other_user() {
        chown(&password, Some(user), Some(group)).expect("a file of the server's user");
    }
    let mut command = as_user("initdb");
    command.args(["--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--username", USER]);
    command.arg("--pwfile").arg(&password).arg("--pgdata").arg(directory.join("data")).current_dir(directory);
    let output = command.stdin(Stdio::null()).output().expect("initdb of PostgreSQL 15, which tests/run installs");
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
}

/// Starts the server below a shell that ends it when our end of the shell's input is closed, by us or by our death.
fn spawn(directory: &Path, port: u16) -> Child {
    let server = as_user("postgres");
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$0\" \"$@\" </dev/null & server=$!; cat >/dev/null; kill -QUIT $server; wait $server"]);
    shell.arg(server.get_program()).args(server.get_args()).arg("-D").arg(directory.join("data"));
    let port = format!("port={port}");
    let settings = [
        "listen_addresses=127.0.0.1",
        &port,
        "unix_socket_directories=",
        "fsync=off",
        "shared_buffers=16MB",
        "max_connections=200",
    ];
    shell.args(settings.iter().flat_map(|setting| ["-c", setting]));
    let log = File::create(directory.join("log")).expect("a log file");
    shell.current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
    shell.spawn().expect("a shell")
}
