//! Who is measured: each a process of its own, all running from the beginning to the end, one under load at a time.

use crate::child::{Order, Role, Server};
use crate::command::Foreign;
use crate::installed::{Peer, Shape};
use crate::loads::{Aim, Load, Sample};
use crate::plane;
use crate::selection::{RIVALS, Selection};
use dataplane_engine::Engine;
use loadgen::udp::Dialect;
use std::io;
use std::net::TcpStream;
use std::time::Duration;
use tuning::clock;

/// What kind of server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Floor(Engine),
    Ours(Engine),
    Peer(Peer),
}

/// One server.
pub struct Subject {
    pub kind: Kind,
    /// What a peer says it is.
    pub version: Option<String>,
    aim: Aim,
    process: u32,
    /// Ends it when dropped.
    _running: Running,
}

/// What ends the server when dropped.
enum Running {
    #[expect(dead_code, reason = "held to be dropped")]
    Child(Server),
    #[expect(dead_code, reason = "held to be dropped")]
    Foreign(Foreign),
}

impl Kind {
    pub fn name(self) -> String {
        match self {
            Self::Floor(engine) => format!("floor, {}", engine.name()),
            Self::Ours(engine) => format!("ours, {}", engine.name()),
            Self::Peer(peer) => peer.name().to_owned(),
        }
    }
}

impl Subject {
    /// Starts everyone that is wanted on `cpu`; and a line for each that is wanted but not to be had.
    pub fn start_all(selection: &Selection, cpu: Option<usize>) -> io::Result<(Vec<Self>, Vec<String>)> {
        let (mut subjects, mut missing) = (Vec::new(), Vec::new());
        if selection.loads.is_empty() {
            return Ok((subjects, missing));
        }
        let shape = shape(cpu)?;
        for engine in [Engine::IoUring, Engine::Epoll] {
            if selection.has("floor") {
                let order = Order::plane(engine, cpu).floor(shape.request, shape.head + shape.body);
                subjects.push(Self::child(Kind::Floor(engine), order)?);
            }
        }
        for &engine in Engine::ALL {
            if selection.has(engine.name()) {
                subjects.push(Self::child(Kind::Ours(engine), Order::plane(engine, cpu))?);
            }
        }
        for name in RIVALS {
            if selection.has(name) && !Engine::ALL.iter().any(|engine| engine.name() == name) {
                missing.push(format!("{name}: not in this build; it is with --features {name}"));
            }
        }
        for peer in Peer::ALL.into_iter().filter(|peer| selection.has(peer.name())) {
            let Some(program) = peer.find() else {
                missing.push(format!("{}: not installed; Debian has it as {}", peer.name(), peer.program()));
                continue;
            };
            let (server, aim) = peer.start(&program, shape, cpu)?;
            subjects.push(Self {
                kind: Kind::Peer(peer),
                version: Some(peer.version(&program)?),
                aim,
                process: server.process(),
                _running: Running::Foreign(server),
            });
        }
        Ok((subjects, missing))
    }

    fn child(kind: Kind, order: Order) -> io::Result<Self> {
        let mut server = Server::start(order)?;
        let process = u32::try_from(server.number("pid")?).map_err(io::Error::other)?;
        let aim = Aim::child(order.role, &mut server)?;
        Ok(Self { kind, version: None, aim, process, _running: Running::Child(server) })
    }

    /// Whether it speaks what this load speaks.
    pub fn takes(&self, load: Load) -> bool {
        match (load, self.kind) {
            (Load::Tcp | Load::TcpPipelined, _) | (_, Kind::Floor(_) | Kind::Ours(_)) => true,
            // memcached knows no trains: it would be measured without what it is about.
            (Load::Udp | Load::UdpWindow, Kind::Peer(_)) => {
                matches!(&self.aim.dialect, Dialect::Memcached { keys } if !keys.is_empty())
            }
            (Load::UdpTrains, Kind::Peer(_)) => false,
        }
    }

    /// Puts the load to it from this thread.
    pub fn measure(&self, load: Load, duration: Duration) -> io::Result<Sample> {
        let cpu_ns = || clock::process_cpu_ns_of(self.process);
        let named = |error| io::Error::other(format!("{}: {error}", self.kind.name()));
        load.run(&self.aim, duration, cpu_ns).map_err(named)
    }
}

/// What our server answers, asked once on the engine that every machine has.
fn shape(cpu: Option<usize>) -> io::Result<Shape> {
    let server = Server::start(Order { role: Role::Plane, ..Order::plane(Engine::Epoll, cpu) })?;
    let request = plane::request(0);
    let (status, body, bytes) = plane::ask(&mut TcpStream::connect(server.tcp)?, &request)?;
    if !status.contains(" 200 ") {
        return Err(io::Error::other(format!("the data plane answers {status}")));
    }
    Ok(Shape { request: request.len(), head: bytes - body.len(), body: body.len() })
}
