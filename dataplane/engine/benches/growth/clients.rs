//! The clients of a cell, in a process of their own: so neither they nor the server reach the limit on open files
//! together, and their connections stay open while others are measured.
//!
//! They know what to ask and what is right; what it costs is asked of the server.

use crate::cell::{Clients, KeyUse, Place, Protocol};
use crate::child::{Role, Server};
use crate::plane::{self, Size};
use crate::process::{self, Process};
use loadgen::LoadReport;
use loadgen::frame::UdpKey;
use loadgen::framing::Framing;
use loadgen::tcp::{self, Request, TcpLoad};
use loadgen::udp::{self, Dialect, UdpLoad};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tuning::{pin, sockets};

/// First argument of the process.
pub const ROLE: &str = "clients";

/// HTTP requests with different keys that the clients hold ready: 45 MB. It is a whole number of turns through a
/// thousand keys and through the usual assets, and above what a second takes.
const REQUESTS_MAX: usize = 150_000;

/// From one key used to the next, in places of the table: the golden section of a million, without a factor of ten.
const KEY_STEP: usize = 618_033;

/// What one run found, as the clients saw it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Right answers, all of whose cost the server has had by now.
    pub answered: u64,
    /// Right answers per second.
    pub rate: f64,
}

/// The running clients of one server, seen from the bench.
pub struct Crowd {
    process: Process,
}

impl Crowd {
    /// Starts them; answers when they are connected.
    pub fn start(clients: Clients, place: Place, server: &Server, cpu: Option<usize>) -> io::Result<Self> {
        let Clients { protocol, count, key_use } = clients;
        let target = if protocol == Protocol::Tcp { server.tcp } else { server.udp };
        let cpu = cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
        let role = if place.role == Role::Floor { "floor" } else { "plane" };
        let key_use = match key_use {
            KeyUse::First => "first",
            KeyUse::EachClient => "client",
            KeyUse::EachRequest => "request",
        };
        let words = [ROLE, protocol.name(), role, key_use].map(str::to_owned).into_iter();
        let numbers = [count, place.size.keys, place.size.assets].map(|number| number.to_string());
        let arguments: Vec<String> = words.chain([target.to_string(), cpu]).chain(numbers).collect();
        let mut process = Process::start(&arguments)?;
        process.line()?;
        Ok(Self { process })
    }

    /// Has them ask for `duration`, `at_once` at a time.
    ///
    /// # Errors
    /// When it cannot be done, or a single answer was not the right one.
    pub fn run(&mut self, at_once: usize, duration: Duration) -> io::Result<Seen> {
        let line = self.process.ask(&format!("{} {at_once}", duration.as_millis()))?;
        let numbers: Vec<u64> = line.split_whitespace().map_while(|text| text.parse().ok()).collect();
        let [answered, refused, wrong, lost, elapsed_ns] = numbers[..] else { return Err(io::Error::other(line)) };
        if answered == 0 || refused + wrong > 0 || lost * 1_000 > answered {
            let counts = format!("{answered} right, {refused} refused, {wrong} wrong, {lost} lost");
            return Err(io::Error::other(format!("{counts}: the figures would mean nothing")));
        }
        Ok(Seen { answered, rate: answered as f64 * 1e9 / elapsed_ns as f64 })
    }
}

/// Runs the process to its end.
pub fn run(arguments: &[String]) -> io::Result<()> {
    let wrong = || io::Error::other("clients need to be told what to do by the bench");
    let [_, protocol, role, key_use, target, cpu, numbers @ ..] = arguments else { return Err(wrong()) };
    let numbers: Vec<usize> = numbers.iter().map_while(|text| text.parse().ok()).collect();
    let [count, keys, assets] = numbers[..] else { return Err(wrong()) };
    let target: SocketAddr = target.parse().map_err(io::Error::other)?;
    if let Ok(cpu) = cpu.parse() {
        pin::pin_current_thread(cpu).map_err(io::Error::other)?;
    }
    sockets::raise_nofile()?;
    let key_use = match key_use.as_str() {
        "first" => KeyUse::First,
        "client" => KeyUse::EachClient,
        _ => KeyUse::EachRequest,
    };
    let (check, size) = (role == "plane", Size { keys, assets });
    if protocol == Protocol::Udp.name() {
        let load = udp_load(target, count, key_use, size, check);
        // Opened for each run: nobody keeps anything for them between two, and ports are fewer than all cells want.
        return answer(|at_once, duration| udp::Clients::open(&load)?.run(at_once, duration));
    }
    let load = tcp_load(target, count, key_use, size, check);
    let mut clients = tcp::Clients::open(&load)?;
    answer(|at_once, duration| clients.run(at_once, duration))
}

fn answer(mut run: impl FnMut(usize, Duration) -> io::Result<LoadReport>) -> io::Result<()> {
    process::answer("ready", |question| {
        let numbers: Vec<u64> = question.split(' ').map_while(|text| text.parse().ok()).collect();
        let [millis, at_once] = numbers[..] else { return Err(io::Error::other("for how long, how many at once?")) };
        let report = run(usize::try_from(at_once).unwrap_or(1), Duration::from_millis(millis))?;
        let LoadReport { answered, refused, wrong, lost, elapsed, .. } = report;
        Ok(format!("{answered} {refused} {wrong} {lost} {}", elapsed.as_nanos()))
    })
}

/// The key that is used `turn`-th.
const fn key_at(turn: usize, keys: usize) -> usize {
    turn * KEY_STEP % keys
}

fn tcp_load(target: SocketAddr, connections: usize, key_use: KeyUse, size: Size, check: bool) -> TcpLoad {
    let count = match key_use {
        KeyUse::First => size.assets,
        KeyUse::EachClient => connections,
        KeyUse::EachRequest => REQUESTS_MAX,
    };
    let request = |turn: usize| {
        let key = if key_use == KeyUse::First { 0 } else { key_at(turn, size.keys) };
        let asset = turn % size.assets;
        let expect = format!("\"asset\":\"{}\"", plane::symbol(asset));
        Request { bytes: plane::request_with(key, asset), expect: if check { expect.into_bytes() } else { Vec::new() } }
    };
    TcpLoad {
        target,
        connections,
        pipeline: 1,
        framing: Framing::Http,
        requests: (0..count).map(request).collect(),
        warm_up: Duration::ZERO,
        duration: Duration::ZERO,
    }
}

fn udp_load(target: SocketAddr, sockets: usize, key_use: KeyUse, size: Size, check: bool) -> UdpLoad {
    let keys = if key_use == KeyUse::First { 1 } else { size.keys };
    let key = |turn| {
        let (id, secret) = plane::udp_key(key_at(turn, size.keys));
        UdpKey { id, secret }
    };
    let dialect = Dialect::Frames {
        keys: (0..keys).map(key).collect(),
        assets: (0..size.assets).map(|index| *plane::symbol(index).padded()).collect(),
        check,
    };
    UdpLoad { target, sockets, window: 1, train: 1, dialect, warm_up: Duration::ZERO, duration: Duration::ZERO }
}
