//! The loads, and what one run of one of them found.

use crate::child::{Role, Server};
use crate::plane;
use loadgen::LoadReport;
use loadgen::frame::UdpKey;
use loadgen::framing::Framing;
use loadgen::tcp::{self, Request, TcpLoad};
use loadgen::udp::{self, Dialect, UdpLoad};
use std::io;
use std::time::Duration;

/// Connections of a TCP load, and sockets of a UDP load.
const CLIENTS: usize = 64;

/// Requests in flight on each connection in the pipelined load.
const PIPELINE: usize = 16;

/// One kind of load. All are closed loops: a client asks again when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// 64 connections, one request in flight on each.
    Tcp,
    /// The same with 16 in flight.
    TcpPipelined,
    /// 64 sockets, one signed binary datagram in flight on each.
    Udp,
    /// 8 sockets with 16 in flight on each.
    UdpWindow,
}

/// What one server did under one load in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// CPU time of the serving thread per right answer.
    pub cpu_ns: f64,
    /// Right answers per second.
    pub rate: f64,
    /// Latency, as the generator sees it.
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Load {
    pub const ALL: [Self; 4] = [Self::Tcp, Self::TcpPipelined, Self::Udp, Self::UdpWindow];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp, 64 connections",
            Self::TcpPipelined => "tcp, 64 connections, 16 deep",
            Self::Udp => "udp, 64 sockets",
            Self::UdpWindow => "udp, 8 sockets, 16 deep",
        }
    }

    /// Runs the load on this thread.
    ///
    /// # Errors
    /// When it cannot be run, or a single answer was not the right one.
    pub fn measure(self, role: Role, server: &mut Server, duration: Duration) -> io::Result<Sample> {
        let before = server.cpu_ns()?;
        let report = match self {
            Self::Tcp => tcp::run(&tcp_load(role, server, 1, duration)),
            Self::TcpPipelined => tcp::run(&tcp_load(role, server, PIPELINE, duration)),
            Self::Udp => udp::run(&udp_load(role, server, CLIENTS, 1, duration)),
            Self::UdpWindow => udp::run(&udp_load(role, server, CLIENTS / 8, PIPELINE, duration)),
        }?;
        let used_ns = server.cpu_ns()? - before;
        check(self, &report)?;
        let at = |quantile| report.latency_ns.value_at_quantile(quantile) as f64 / 1_000.0;
        let cpu_ns = used_ns as f64 / report.answered as f64;
        Ok(Sample { cpu_ns, rate: report.rate(), p50_us: at(0.5), p99_us: at(0.99) })
    }
}

fn check(load: Load, report: &LoadReport) -> io::Result<()> {
    let LoadReport { answered, refused, wrong, lost, .. } = *report;
    if answered == 0 || refused + wrong > 0 || lost * 1_000 > answered {
        let counts = format!("{answered} right, {refused} refused, {wrong} wrong, {lost} lost");
        return Err(io::Error::other(format!("{}: {counts}: the figures would mean nothing", load.name())));
    }
    Ok(())
}

// No warm-up is left out: the CPU time covers the whole run, and so must the answers. The servers are warm from the
// round before, and 64 connections cost less than a thousandth of a run.

fn tcp_load(role: Role, server: &Server, pipeline: usize, duration: Duration) -> TcpLoad {
    let expect = |index| match role {
        Role::Floor => Vec::new(),
        Role::Plane => format!("\"asset\":\"{}\"", plane::symbol(index)).into_bytes(),
    };
    let requests = (0..plane::ASSETS).map(|index| Request { bytes: plane::request(index), expect: expect(index) });
    TcpLoad {
        target: server.tcp,
        connections: CLIENTS,
        pipeline,
        framing: Framing::Http,
        requests: requests.collect(),
        warm_up: Duration::ZERO,
        duration,
    }
}

fn udp_load(role: Role, server: &Server, sockets: usize, window: usize, duration: Duration) -> UdpLoad {
    UdpLoad {
        target: server.udp,
        sockets,
        window,
        train: 1,
        dialect: Dialect::Frames {
            keys: vec![UdpKey { id: plane::KEY_ID, secret: plane::UDP_SECRET }],
            assets: (0..plane::ASSETS).map(|index| *plane::symbol(index).padded()).collect(),
            check: role == Role::Plane,
        },
        warm_up: Duration::ZERO,
        duration,
    }
}
