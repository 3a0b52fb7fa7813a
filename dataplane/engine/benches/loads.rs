//! The loads, whom they are aimed at, and what one run of one of them found.

use crate::child::{Role, Server};
use crate::plane;
use loadgen::LoadReport;
use loadgen::frame::UdpKey;
use loadgen::framing::Framing;
use loadgen::tcp::{self, Request, TcpLoad};
use loadgen::udp::{self, Dialect, UdpLoad};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Connections of a TCP load, and sockets of a UDP load.
pub const CLIENTS: usize = 64;

/// Requests in flight on each connection in the pipelined load, and datagrams in a train.
const DEPTH: usize = 16;

/// Asked before anything is counted, so that connections and caches are warm.
const WARM_UP: Duration = Duration::from_millis(20);

/// One kind of load. All are closed loops: a client asks again when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// 64 connections, one request in flight on each.
    Tcp,
    /// The same with 16 in flight.
    TcpPipelined,
    /// 64 sockets, one signed binary datagram in flight on each.
    Udp,
    /// 8 sockets with 16 in flight on each.
    UdpWindow,
    /// 64 sockets, one train of 16 in flight on each.
    UdpTrains,
}

/// What one server did under one load in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// CPU time of the server per right answer.
    pub cpu_ns: f64,
    /// Right answers per second.
    pub rate: f64,
    /// Latency, as the generator sees it.
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Sample {
    /// What a run found during which the server used so much CPU time.
    pub fn new(report: &LoadReport, used_ns: u64) -> Self {
        let at = |quantile| report.latency_ns.value_at_quantile(quantile) as f64 / 1_000.0;
        let cpu_ns = used_ns as f64 / report.answered as f64;
        Self { cpu_ns, rate: report.rate(), p50_us: at(0.5), p99_us: at(0.99) }
    }
}

/// Where a server is asked, and what.
pub struct Aim {
    pub tcp: SocketAddr,
    pub udp: SocketAddr,
    /// Where it takes trains.
    pub trains: SocketAddr,
    pub framing: Framing,
    pub requests: Vec<Request>,
    pub dialect: Dialect,
}

impl Aim {
    /// At a child, each of whose assets is asked for in turn.
    pub fn child(role: Role, server: &mut Server) -> io::Result<Self> {
        let mut trains = server.udp;
        if role == Role::Floor {
            trains.set_port(u16::try_from(server.number("trains")?).map_err(io::Error::other)?);
        }
        Ok(Self {
            tcp: server.tcp,
            udp: server.udp,
            trains,
            framing: Framing::Http,
            requests: Self::requests(role),
            dialect: Dialect::Frames {
                keys: vec![UdpKey { id: plane::KEY_ID, secret: plane::UDP_SECRET }],
                assets: (0..plane::ASSETS).map(|index| *plane::symbol(index).padded()).collect(),
                check: role == Role::Plane,
            },
        })
    }

    /// One for each asset; a floor may answer anything.
    pub fn requests(role: Role) -> Vec<Request> {
        let expect = |index| if role == Role::Plane { quoted(index) } else { Vec::new() };
        (0..plane::ASSETS).map(|index| Request { bytes: plane::request(index), expect: expect(index) }).collect()
    }
}

/// What tells the answer about the asset at `index` from others.
pub fn quoted(index: usize) -> Vec<u8> {
    format!("\"asset\":\"{}\"", plane::symbol(index)).into_bytes()
}

impl Aim {
    fn tcp_load(&self, pipeline: usize) -> TcpLoad {
        TcpLoad {
            target: self.tcp,
            connections: CLIENTS,
            pipeline,
            framing: self.framing,
            requests: self.requests.clone(),
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
        }
    }

    fn udp_load(&self, sockets: usize, window: usize, train: usize) -> UdpLoad {
        let target = if train > 1 { self.trains } else { self.udp };
        let (dialect, warm_up, duration) = (self.dialect.clone(), Duration::ZERO, Duration::ZERO);
        UdpLoad { target, sockets, window, train, dialect, warm_up, duration }
    }
}

impl Load {
    pub const ALL: [Self; 5] = [Self::Tcp, Self::TcpPipelined, Self::Udp, Self::UdpWindow, Self::UdpTrains];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp, 64 connections",
            Self::TcpPipelined => "tcp, 64 connections, 16 deep",
            Self::Udp => "udp, 64 sockets",
            Self::UdpWindow => "udp, 8 sockets, 16 deep",
            Self::UdpTrains => "udp, 64 sockets, trains of 16",
        }
    }

    /// Runs the load against a child on this thread; the CPU time is that of the serving thread.
    ///
    /// # Errors
    /// See [`Load::run`].
    pub fn measure(self, role: Role, server: &mut Server, duration: Duration) -> io::Result<Sample> {
        let aim = Aim::child(role, server)?;
        self.run(&aim, duration, || server.cpu_ns())
    }

    /// Runs the load on this thread, and asks before and after it for the CPU time that the server has used. Connecting
    /// is not in it, and nothing is in flight at either end.
    ///
    /// # Errors
    /// When it cannot be run, a single answer was not the right one, or more than one in a thousand got lost.
    pub fn run(self, aim: &Aim, duration: Duration, mut cpu_ns: impl FnMut() -> io::Result<u64>) -> io::Result<Sample> {
        let mut timed = |run: &mut dyn FnMut(Duration) -> io::Result<LoadReport>| {
            run(WARM_UP)?;
            let before_ns = cpu_ns()?;
            let report = run(duration)?;
            io::Result::Ok((report, cpu_ns()? - before_ns))
        };
        let (report, used_ns) = match self {
            Self::Tcp | Self::TcpPipelined => {
                let load = aim.tcp_load(if self == Self::Tcp { 1 } else { DEPTH });
                let mut clients = tcp::Clients::open(&load)?;
                timed(&mut |duration| clients.run(load.connections, duration))
            }
            Self::Udp | Self::UdpWindow | Self::UdpTrains => {
                let load = match self {
                    Self::UdpTrains => aim.udp_load(CLIENTS, DEPTH, DEPTH),
                    Self::UdpWindow => aim.udp_load(CLIENTS / 8, DEPTH, 1),
                    _ => aim.udp_load(CLIENTS, 1, 1),
                };
                let mut clients = udp::Clients::open(&load)?;
                timed(&mut |duration| clients.run(load.sockets, duration))
            }
        }?;
        let LoadReport { answered, refused, wrong, lost, .. } = report;
        let failed = |why: String| Err(io::Error::other(format!("{}: {why}", self.name())));
        if answered == 0 || refused + wrong > 0 || lost * 1_000 > answered {
            let counts = format!("{answered} right, {refused} refused, {wrong} wrong, {lost} lost");
            return failed(format!("{counts}: the figures would mean nothing"));
        }
        match &report.note {
            Some(note) if self == Self::UdpTrains => failed(note.clone()),
            _ => Ok(Sample::new(&report, used_ns)),
        }
    }
}
