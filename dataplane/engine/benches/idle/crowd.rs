//! Idle clients, in a process of their own: so neither they nor the server reach the limit on open files together.
//!
//! Each connection has asked once, and been answered, so that the server holds for it what it holds for any keep-alive
//! client between two requests.

use crate::plane;
use crate::process::{self, Process};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tuning::{pin, sockets};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// First argument of the process.
pub const ROLE: &str = "crowd";

/// The crowd of one server, seen from the bench.
pub struct Crowd {
    process: Process,
}

impl Crowd {
    /// Starts the process; it holds no connection yet.
    pub fn start(target: SocketAddr, cpu: Option<usize>) -> io::Result<Self> {
        let cpu = cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
        let mut process = Process::start(&[ROLE.to_owned(), target.to_string(), cpu])?;
        process.line()?;
        Ok(Self { process })
    }

    /// Opens or closes connections until there are `count`.
    pub fn hold(&mut self, count: usize) -> io::Result<()> {
        match self.process.ask(&count.to_string())? {
            held if held == count.to_string() => Ok(()),
            complaint => Err(io::Error::other(complaint)),
        }
    }
}

/// Runs the process to its end.
pub fn run(arguments: &[String]) -> io::Result<()> {
    let [_, target, cpu] = arguments else { return Err(io::Error::other("a crowd needs a target and a CPU")) };
    let target: SocketAddr = target.parse().map_err(io::Error::other)?;
    if let Ok(cpu) = cpu.parse() {
        pin::pin_current_thread(cpu).map_err(io::Error::other)?;
    }
    sockets::raise_nofile()?;
    let mut held: Vec<TcpStream> = Vec::new();
    process::answer("ready", |count| {
        let count: usize = count.parse().map_err(io::Error::other)?;
        held.truncate(count);
        while held.len() < count {
            match client(target, held.len()) {
                Ok(stream) => held.push(stream),
                Err(error) => return Ok(format!("idle connection {} of {count}: {error}", held.len() + 1)),
            }
        }
        Ok(held.len().to_string())
    })
}

/// A connection that has asked once. It ends with a reset: ten thousand ports in TIME_WAIT would be in the way.
fn client(target: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(target)?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    match plane::ask(&mut stream, &plane::request(number % plane::ASSETS))?.0 {
        status if status.contains(" 200 ") => Ok(stream),
        status => Err(io::Error::other(status)),
    }
}
