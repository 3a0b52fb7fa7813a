//! Servers under measurement, each in a process of its own: the same program, started again with a role.
//!
//! A child pins itself before it allocates, says where it listens, and answers questions about itself.

mod quotes;

use crate::floor::{self, FloorSetup};
use crate::plane::{self, Size};
use crate::process::{self, Process};
use crate::threads;
use dataplane_engine::{Engine, ShardStats};
use quotes::Quotes;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tuning::core_plan::CorePlan;
use tuning::{pin, sockets};

/// What a child serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The bare floor.
    Floor,
    /// The data plane.
    Plane,
}

/// What a child is told.
#[derive(Clone, Copy)]
pub struct Order {
    pub role: Role,
    pub engine: Engine,
    /// CPU of the serving thread.
    pub cpu: Option<usize>,
    /// CPU of everything else in the process.
    pub beside: Option<usize>,
    /// For the floor: bytes of a request and of a reply.
    pub request_bytes: usize,
    pub reply_bytes: usize,
    /// For the data plane: how much it has to look up.
    pub size: Size,
}

impl Order {
    /// A data plane of the usual size, all of it on one CPU.
    pub const fn plane(engine: Engine, cpu: Option<usize>) -> Self {
        Self { role: Role::Plane, engine, cpu, beside: cpu, request_bytes: 0, reply_bytes: 0, size: Size::USUAL }
    }

    /// The floor under it, whose requests and replies are as long.
    pub const fn floor(self, request_bytes: usize, reply_bytes: usize) -> Self {
        Self { role: Role::Floor, request_bytes, reply_bytes, ..self }
    }

    fn to_arguments(self) -> Vec<String> {
        let role = if self.role == Role::Floor { "floor" } else { "plane" };
        let cpus = [self.cpu, self.beside].map(|cpu| cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string()));
        let numbers = [self.request_bytes, self.reply_bytes, self.size.keys, self.size.assets];
        let numbers = numbers.map(|number| number.to_string());
        ["child", role, self.engine.name()].map(str::to_owned).into_iter().chain(cpus).chain(numbers).collect()
    }

    /// The order in the arguments of this process, if it was started as a child.
    pub fn from_arguments(arguments: &[String]) -> Option<Self> {
        let [first, role, engine, cpu, beside, numbers @ ..] = arguments else { return None };
        let numbers: Vec<usize> = numbers.iter().map_while(|text| text.parse().ok()).collect();
        let [request_bytes, reply_bytes, keys, assets] = numbers[..] else { return None };
        let engine = Engine::ALL.iter().copied().find(|known| known.name() == engine)?;
        (first == "child").then(|| Self {
            role: if role == "floor" { Role::Floor } else { Role::Plane },
            engine,
            cpu: cpu.parse().ok(),
            beside: beside.parse().ok(),
            request_bytes,
            reply_bytes,
            size: Size { keys, assets },
        })
    }
}

/// A running child, seen from the bench. Dropping it ends it.
pub struct Server {
    process: Process,
    pub tcp: SocketAddr,
    pub udp: SocketAddr,
}

impl Server {
    /// Starts a child and waits until it listens.
    pub fn start(order: Order) -> io::Result<Self> {
        let mut process = Process::start(&order.to_arguments())?;
        let line = process.line()?;
        let mut parts = line.split_whitespace().filter_map(|text| text.parse().ok());
        let (tcp, udp) = parts.next().zip(parts.next()).ok_or_else(|| io::Error::other(line.clone()))?;
        Ok(Self { process, tcp, udp })
    }

    /// CPU time the child's shard has used, ns.
    pub fn cpu_ns(&mut self) -> io::Result<u64> {
        self.number("cpu")
    }

    /// What the child answers to one of the questions in [`run`].
    pub fn number(&mut self, question: &str) -> io::Result<u64> {
        self.process.ask(question)?.parse().map_err(io::Error::other)
    }
}

/// Runs a child to its end.
pub fn run(order: Order) -> io::Result<()> {
    if let Some(cpu) = order.beside {
        pin::pin_current_thread(cpu).map_err(io::Error::other)?;
    }
    match order.role {
        Role::Floor => run_floor(order),
        Role::Plane => run_plane(order),
    }
}

fn run_floor(order: Order) -> io::Result<()> {
    sockets::raise_nofile()?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (listener, datagrams) = (sockets::tcp_listener(any)?, sockets::udp_socket(any)?);
    let trains = sockets::udp_socket(any)?;
    let (tcp, udp) = (listener.local_addr()?, datagrams.local_addr()?);
    let trains_port = trains.local_addr()?.port();
    let reply = reply_of(order.reply_bytes);
    let setup = FloorSetup { listener, datagrams, trains, request_bytes: order.request_bytes, reply };
    let body = move || {
        let pinned = order.cpu.map_or(Ok(()), |cpu| pin::pin_current_thread(cpu).map_err(io::Error::other));
        if let Err(error) = pinned.and_then(|()| floor::serve(order.engine, setup)) {
            eprintln!("the floor ended: {error}");
            std::process::exit(1);
        }
    };
    // Named as the engines name theirs, so that its CPU time is found the same way.
    std::thread::Builder::new().name("shard-0".to_owned()).spawn(body)?;
    answer(tcp, udp, |question| (question == "trains").then(|| trains_port.into()))
}

fn run_plane(order: Order) -> io::Result<()> {
    let plan = CorePlan { shards: vec![order.cpu], control: Vec::new() };
    let plane = plane::start(order.engine.choice(), plan, order.size)?;
    let mut usage = plane.take_usage();
    // Stands for the control plane: takes the usage records, so that their ring is never full.
    std::thread::spawn(move || {
        loop {
            for ring in &mut usage {
                while ring.pop().is_ok() {}
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let quotes = Quotes::new(&plane)?;
    answer(plane.tcp_address(), plane.udp_address(), |question| {
        let sum = |of: fn(&ShardStats) -> u64| plane.stats().iter().map(of).sum();
        match question.split_once(' ') {
            None if question == "connections" => Some(sum(|shard| shard.connections)),
            None if question == "ticks" => Some(sum(|shard| shard.counters.ticks)),
            Some(("quotes", rate)) => rate.parse().ok().map(|rate| quotes.set_rate(rate)),
            _ => None,
        }
    })
}

/// A reply of `bytes` bytes in all: a price of the first asset, filled up with blanks.
fn reply_of(bytes: usize) -> Vec<u8> {
    // The length with leading zeros, so that the head is always as long.
    let head =
        |body: usize| format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {body:04}\r\n\r\n");
    let body = bytes.saturating_sub(head(0).len());
    let asset = plane::symbol(0);
    let price = format!("{{\"asset\":\"{asset}\",\"price\":\"1\",\"currency\":\"USD\",\"age_ms\":0,\"sequence\":1}}");
    let mut reply = [head(body), price].concat().into_bytes();
    reply.resize(bytes, b' ');
    reply
}

/// Tells where the server listens, then answers questions: `cpu`, of the shard, ns; `memory`, of the process, bytes;
/// `pid`; of the floor also `trains`, the UDP port that takes trains; of the data plane also `connections`, open;
/// `ticks`, taken; `quotes N`, to come in each second from now on.
fn answer(tcp: SocketAddr, udp: SocketAddr, other: impl Fn(&str) -> Option<u64>) -> io::Result<()> {
    process::answer(&format!("{tcp} {udp}"), |question| {
        let number = match question {
            "cpu" => threads::cpu_ns("shard")?,
            "memory" => resident_bytes()?,
            "pid" => u64::from(std::process::id()),
            _ => other(question).ok_or_else(|| io::Error::other(format!("{question} is no question")))?,
        };
        Ok(number.to_string())
    })
}

/// Memory of this process that is resident now, counted page by page.
fn resident_bytes() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap_or_default();
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().map_err(io::Error::other)?;
    Ok(kib * 1_024)
}
