//! A real redis-server: on a free port, with its data in a directory of its own, ended when dropped.
//!
//! The service speaks of Valkey; Debian's redis-server 7.0 speaks the same protocol and has the same scripts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Slots of a cluster.
const SLOTS: u32 = 16_384;

/// Times a start is tried.
const STARTS_MAX: u32 = 5;

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether it takes TLS connections on the port that [`Redis::address`] tells. Commands of the harness itself go
    /// over a second port without.
    pub tls: bool,
    /// Password of the default user.
    pub password: Option<String>,
    /// Whether it is a member of a cluster.
    pub cluster: bool,
    /// Directory of another server whose certificates are taken, so that one authority has signed both; `None`: new ones.
    pub certificates: Option<PathBuf>,
    /// Further lines of configuration, each as `--name value …`.
    pub further: Vec<String>,
}

/// A running server.
pub struct Redis {
    options: Options,
    directory: tempfile::TempDir,
    /// What programs connect to.
    port: u16,
    /// What the harness connects to: the same where there is no TLS.
    plain_port: u16,
    child: Child,
}

impl Redis {
    /// Starts one without TLS, password or cluster.
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// Starts one.
    ///
    /// # Panics
    /// When it does not answer within [`crate::PATIENCE`]; `tests/run` installs redis-server.
    pub fn start_with(options: Options) -> Self {
        // A free port may be taken by somebody else before the server has it: then with others, once more.
        for _ in 0..STARTS_MAX {
            let directory = tempfile::tempdir().expect("a temporary directory");
            if options.tls {
                match &options.certificates {
                    Some(from) => copy_certificates(from, &directory),
                    None => write_certificates(&directory),
                }
            }
            let port = free_port();
            let plain_port = if options.tls { free_port() } else { port };
            let child = spawn(&options, &directory, port, plain_port);
            let mut server = Self { options: options.clone(), directory, port, plain_port, child };
            if server.answers() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }
}

impl Redis {
    /// Starts three masters that are one cluster.
    ///
    /// # Panics
    /// When they do not agree on being one within [`crate::PATIENCE`].
    pub fn cluster(options: &Options) -> Vec<Self> {
        let first = Self::start_with(Options { cluster: true, ..options.clone() });
        // Members talk to each other with their certificates: one authority for all.
        let certificates = Some(first.directory.path().to_owned());
        let others = Options { cluster: true, certificates, ..options.clone() };
        let members: Vec<Self> = [first].into_iter().chain((1..3).map(|_| Self::start_with(others.clone()))).collect();
        let count = u32::try_from(members.len()).expect("three");
        for (index, member) in (0..).zip(&members) {
            let (first, last) = (SLOTS * index / count, SLOTS * (index + 1) / count - 1);
            member.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            let first = &members[0];
            member.ask(&["CLUSTER", "MEET", "127.0.0.1", &first.port.to_string(), &first.bus_port()]);
        }
        for member in &members {
            crate::eventually("a cluster that is whole", || {
                let info = member.ask(&["CLUSTER", "INFO"]);
                (info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")).then_some(())
            });
        }
        members
    }

    /// Where programs connect to.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// `CACHE_URL` for the server at `address`: its own, or a proxy's in front of it.
    pub fn url_at(&self, address: SocketAddr) -> String {
        let password =
            self.options.password.as_ref().map(|password| format!("default:{password}@")).unwrap_or_default();
        let cluster = if self.options.cluster { "-cluster" } else { "" };
        format!("redis{}{cluster}://{password}{address}", if self.options.tls { "s" } else { "" })
    }

    /// `CACHE_URL` for the server.
    pub fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// The certificate that signed the server's, as a PEM file, where it has TLS.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// One command; the reply as text: lists have one item a line, an error begins with `-`, nothing is empty.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn ask(&self, words: &[&str]) -> String {
        self.try_ask(words).expect("redis-server answers")
    }

    /// Forgets every value.
    pub fn flush_all(&self) {
        assert_eq!(self.ask(&["FLUSHALL"]), "OK");
    }

    /// Stops the process without ending it: its sockets stay open and nobody answers on them.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Ends the process, so that its port refuses.
    pub fn kill(&mut self) {
        // Our own child, by its id; already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port, empty, after [`kill`](Self::kill).
    ///
    /// # Panics
    /// When it does not answer within [`crate::PATIENCE`].
    pub fn restart(&mut self) {
        self.child = spawn(&self.options, &self.directory, self.port, self.plain_port);
        assert!(self.answers(), "redis-server does not start again");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success(), "no process to signal");
    }

    /// The port on which members of a cluster talk to each other.
    fn bus_port(&self) -> String {
        // The server's own rule is port + 10,000, which may be beyond the last: it is told another.
        self.ask(&["CONFIG", "GET", "cluster-port"]).lines().nth(1).unwrap_or_default().to_owned()
    }

    /// Waits until it answers; `false` when it has ended instead.
    fn answers(&mut self) -> bool {
        crate::eventually("redis-server to answer", || {
            let ended = self.child.try_wait().expect("its state").is_some();
            let answers = || self.try_ask(&["PING"]).is_ok_and(|reply| reply == "PONG");
            if ended { Some(false) } else { answers().then_some(true) }
        })
    }

    fn try_ask(&self, words: &[&str]) -> std::io::Result<String> {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.plain_port))?);
        stream.get_ref().set_read_timeout(Some(crate::PATIENCE))?;
        if let Some(password) = &self.options.password {
            send(&mut stream, &["AUTH", password])?;
            reply(&mut stream)?;
        }
        send(&mut stream, words)?;
        reply(&mut stream)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn spawn(options: &Options, directory: &tempfile::TempDir, port: u16, plain_port: u16) -> Child {
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut words: Vec<String> = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]
        .map(str::to_owned)
        .into_iter()
        .chain([plain_port.to_string(), "--dir".to_owned(), directory.path().display().to_string()])
        .collect();
    let mut add = |line: &[&str]| words.extend(line.iter().map(|word| (*word).to_owned()));
    if options.tls {
        add(&["--tls-port", &port.to_string(), "--tls-auth-clients", "no", "--tls-ca-cert-file", &path("ca.pem")]);
        add(&["--tls-cert-file", &path("server.pem"), "--tls-key-file", &path("server.key")]);
    }
    if options.cluster {
        add(&[
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "5000",
            "--cluster-port",
            &free_port().to_string(),
        ]);
        if options.tls {
            add(&["--tls-cluster", "yes", "--tls-replication", "yes"]);
        }
    }
    if let Some(password) = &options.password {
        add(&["--requirepass", password, "--masterauth", password]);
    }
    words.extend(options.further.iter().flat_map(|line| line.split(' ').map(str::to_owned)));
    let log = std::fs::File::create(directory.path().join("log")).expect("a log file");
    let mut command = Command::new("redis-server");
    command.args(words).stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
    command.spawn().expect("redis-server, which tests/run installs")
}

/// What a server of TLS reads.
const CERTIFICATE_FILES: [&str; 3] = ["ca.pem", "server.pem", "server.key"];

fn copy_certificates(from: &Path, directory: &tempfile::TempDir) {
    for name in CERTIFICATE_FILES {
        std::fs::copy(from.join(name), directory.path().join(name)).expect("a file");
    }
}

/// A certificate authority of the server's own, and what it signed for 127.0.0.1 and localhost.
fn write_certificates(directory: &tempfile::TempDir) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    // Another name than the server's, which else would look like one that has signed itself.
    params.distinguished_name.push(rcgen::DnType::CommonName, "the harness' own authority");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let ca = params.self_signed(&ca_key).expect("a certificate");
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let server = rcgen::CertificateParams::new(names).and_then(|names| names.signed_by(&key, &issuer));
    let [ca_file, server_file, key_file] = CERTIFICATE_FILES;
    let write = |name: &str, label: &str, der: &[u8]| {
        let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
        std::fs::write(directory.path().join(name), text).expect("a file");
    };
    write(ca_file, "CERTIFICATE", ca.der());
    write(server_file, "CERTIFICATE", server.expect("a certificate").der());
    write(key_file, "PRIVATE KEY", &key.serialize_der());
}

fn send(stream: &mut BufReader<TcpStream>, words: &[&str]) -> std::io::Result<()> {
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.get_mut().write_all(command.as_bytes())
}

/// Reads one reply of the protocol's second version.
fn reply(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let count = rest.parse::<i64>().unwrap_or(-1);
    match kind {
        "$" => {
            let Ok(length) = usize::try_from(count) else { return Ok(String::new()) };
            let mut text = vec![0; length + 2];
            stream.read_exact(&mut text)?;
            Ok(String::from_utf8_lossy(&text[..length]).into_owned())
        }
        "*" => {
            let items: std::io::Result<Vec<String>> = (0..count.max(0)).map(|_| reply(stream)).collect();
            Ok(items?.join("\n"))
        }
        "-" => Ok(line.to_owned()),
        _ => Ok(rest.to_owned()),
    }
}
