//! Servers that others wrote and a distribution installs: how each is set up to do what it does best.
//!
//! Each keeps nothing on disk, writes no log of requests, has one serving thread, and answers with as many bytes of
//! body as ours. None of them looks for a key, counts, or limits anybody.

use crate::command::{self, Foreign};
use crate::loads::{Aim, quoted};
use crate::plane;
use loadgen::framing::{Framing, Verdict};
use loadgen::tcp::Request;
use loadgen::udp::Dialect;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for one answer while a server is being filled.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a value under which memcached's reply over UDP is as long as ours, 64 bytes: 8 of header, `VALUE u0000 0 31`
/// with its line end 18, the value, and 7 of end marks.
const DATAGRAM_VALUE_BYTES: usize = 31;

/// What our server answers to the request that everybody is asked with, bytes.
#[derive(Clone, Copy)]
pub struct Shape {
    pub request: usize,
    pub head: usize,
    pub body: usize,
}

/// A server that others wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Nginx,
    Redis,
    Memcached,
}

impl Peer {
    pub const ALL: [Self; 3] = [Self::Nginx, Self::Redis, Self::Memcached];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Redis => "redis",
            Self::Memcached => "memcached",
        }
    }

    /// Name of its program, and of the Debian package that has it.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Redis => "redis-server",
            Self::Memcached => "memcached",
        }
    }

    /// Where it is, if it is installed.
    pub fn find(self) -> Option<PathBuf> {
        command::find(self.program())
    }

    /// What it says it is.
    pub fn version(self, program: &Path) -> io::Result<String> {
        command::first_line(program, if self == Self::Nginx { "-v" } else { "--version" })
    }

    /// Starts it on `cpu`, filled with what it will be asked for.
    pub fn start(self, program: &Path, shape: Shape, cpu: Option<usize>) -> io::Result<(Foreign, Aim)> {
        match self {
            Self::Nginx => nginx(program, shape, cpu),
            Self::Redis => redis(program, shape, cpu),
            Self::Memcached => memcached(program, shape, cpu),
        }
    }
}

fn folder() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("trinity-peers-").tempdir()
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Asked like our own server, with the same bytes; the head is filled up with a field of its own where it is shorter
/// than ours.
fn nginx(program: &Path, shape: Shape, cpu: Option<usize>) -> io::Result<(Foreign, Aim)> {
    let start = |filling: usize| {
        let (folder, address) = (folder()?, loopback(command::free_port()?));
        std::fs::write(folder.path().join("nginx.conf"), nginx_configuration(address, shape.body, filling))?;
        let mut command = command::command(program, cpu);
        command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        let server = Foreign::start(command, folder, address)?;
        let (status, body, bytes) = plane::ask(&mut TcpStream::connect(address)?, &plane::request(0))?;
        if !status.contains(" 200 ") || body.len() != shape.body {
            return Err(io::Error::other(format!("nginx answers {status} with {} bytes of body", body.len())));
        }
        Ok((server, address, bytes - body.len()))
    };
    let (mut server, mut address, head) = start(0)?;
    let lacking = shape.head.saturating_sub(head);
    // "X: " and the line end are five of them.
    if lacking > 5 {
        (server, address, _) = start(lacking - 5)?;
    }
    let requests = (0..plane::ASSETS).map(|index| Request { bytes: plane::request(index), expect: vec![b'x'; 8] });
    Ok((server, aim(address, Framing::Http, requests.collect(), Vec::new())))
}

fn nginx_configuration(address: SocketAddr, body: usize, filling: usize) -> String {
    let field = if filling > 0 { format!("add_header X {};", "x".repeat(filling)) } else { String::new() };
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("    {name}_temp_path {name};\n"))
        .collect();
    let body = "x".repeat(body);
    // One process, so that all of it is measured and all of it ends; connections and buffers large enough for any load
    // here, so that none is closed or allocated on the way.
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid nginx.pid;\nerror_log error.log crit;\n\
         events {{\n    worker_connections 1024;\n    use epoll;\n}}\n\
         http {{\n{folders}    access_log off;\n    server_tokens off;\n    default_type application/json;\n    \
         keepalive_timeout 1h;\n    keepalive_requests 1000000000;\n    client_header_buffer_size 8k;\n    \
         server {{\n        listen {address} backlog=1024;\n        {field}\n        return 200 {body};\n    }}\n}}\n"
    )
}

/// A value for each asset, and nothing that would ever write to disk.
fn redis(program: &Path, shape: Shape, cpu: Option<usize>) -> io::Result<(Foreign, Aim)> {
    let (folder, port) = (folder()?, command::free_port()?);
    let mut command = command::command(program, cpu);
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
    command.args(["--io-threads", "1", "--port", &port.to_string()]).arg("--dir").arg(folder.path());
    let server = Foreign::start(command, folder, loopback(port))?;
    let words = |words: &[&[u8]]| {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n", word.len()).into_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    };
    let name = |index| plane::symbol(index).to_string().into_bytes();
    fill(port, Framing::Resp, |index| words(&[b"SET", &name(index), &value(index, shape.body)]))?;
    let request = |index| Request { bytes: words(&[b"GET", &name(index)]), expect: quoted(index) };
    Ok((server, aim(loopback(port), Framing::Resp, (0..plane::ASSETS).map(request).collect(), Vec::new())))
}

/// A value as long as our body for each asset over TCP, and one under which the datagram is as long as ours over UDP.
fn memcached(program: &Path, shape: Shape, cpu: Option<usize>) -> io::Result<(Foreign, Aim)> {
    let (folder, port) = (folder()?, command::free_port()?);
    let mut command = command::command(program, cpu);
    let port_text = port.to_string();
    // Only a superuser's memcached looks at `-u`, and will not start without; a change of user would make the kernel
    // forget that it ends with us.
    command.args(["-l", "127.0.0.1", "-p", &port_text, "-U", &port_text, "-t", "1", "-m", "64", "-u", "root"]);
    let server = Foreign::start(command, folder, loopback(port))?;
    let set =
        |key: &str, value: &[u8]| [format!("set {key} 0 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat();
    let datagram_key = |index: usize| format!("u{index:04}");
    fill(port, Framing::Memcached, |index| set(&plane::symbol(index).to_string(), &value(index, shape.body)))?;
    fill(port, Framing::Memcached, |index| set(&datagram_key(index), &[b'x'; DATAGRAM_VALUE_BYTES]))?;
    let request =
        |index| Request { bytes: format!("get {}\r\n", plane::symbol(index)).into_bytes(), expect: quoted(index) };
    let requests = (0..plane::ASSETS).map(request).collect();
    let keys = (0..plane::ASSETS).map(datagram_key).collect();
    Ok((server, aim(loopback(port), Framing::Memcached, requests, keys)))
}

fn aim(address: SocketAddr, framing: Framing, requests: Vec<Request>, keys: Vec<String>) -> Aim {
    let dialect = Dialect::Memcached { keys };
    Aim { tcp: address, udp: address, trains: address, framing, requests, dialect }
}

/// A value of `bytes` bytes in which the asset can be found as in our own body.
fn value(index: usize, bytes: usize) -> Vec<u8> {
    let mut value = quoted(index);
    value.resize(bytes.max(value.len()), b'x');
    value
}

/// Sends one command for each asset and hears each taken.
fn fill(port: u16, framing: Framing, command: impl Fn(usize) -> Vec<u8>) -> io::Result<()> {
    let mut stream = TcpStream::connect(loopback(port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut part = [0; 1_024];
    for index in 0..plane::ASSETS {
        stream.write_all(&command(index))?;
        let mut bytes = Vec::new();
        let verdict = loop {
            if let Some(answer) = framing.split(&bytes).map_err(io::Error::other)? {
                break answer.verdict;
            }
            match stream.read(&mut part)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => bytes.extend_from_slice(&part[..length]),
            }
        };
        if verdict != Verdict::Good {
            return Err(io::Error::other(format!("a peer does not take what it is to be asked for: {framing:?}")));
        }
    }
    Ok(())
}
