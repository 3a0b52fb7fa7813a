//! A server under an open schedule, and what one run of it found.

use crate::CLIENTS;
use crate::child::{Order, Role, Server};
use crate::plane;
use dataplane_engine::Engine;
use hdrhistogram::Histogram;
use loadgen::job::{Credentials, DatagramFormat, Job, Pace, Progress, Target};
use loadgen::level;
use loadgen::outcome::Tally;
use loadgen::plan::Level;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(200);

/// How long an answer may take to count, and to be waited for at all: far beyond every stall of a machine in order.
const PATIENCE: Duration = Duration::from_secs(2);

/// Prices in this bench are never renewed.
const AGE_MAX: Duration = Duration::from_secs(3_600);

/// What one run found.
pub struct Found {
    /// Right answers per second.
    pub rate: f64,
    /// From the moment a request was due.
    pub latency_ns: Histogram<u64>,
    /// How far the generator was behind its own schedule.
    pub behind_ns: Histogram<u64>,
}

/// One server over one protocol.
pub struct Subject {
    pub name: String,
    engine: Engine,
    role: Role,
    server: Rc<Server>,
    is_udp: bool,
    generating: Option<usize>,
    /// Right answers per second in a closed loop.
    pub peak: f64,
    pub rounds: Vec<Found>,
}

impl Subject {
    /// The data plane over TCP, its floor over TCP, and the data plane over UDP.
    pub fn of_engine(engine: Engine, (serving, generating): (Option<usize>, Option<usize>)) -> io::Result<Vec<Self>> {
        let order = Order::plane(engine, serving);
        let server = Server::start(order)?;
        let reply_bytes = plane::ask(&mut TcpStream::connect(server.tcp)?, &plane::request(0))?.2;
        let floor = Server::start(order.floor(request_bytes()?, reply_bytes))?;
        let (server, floor) = (Rc::new(server), Rc::new(floor));
        let subject = |what: &str, role, server: &Rc<Server>, is_udp| Self {
            name: format!("{}, {what}", engine.name()),
            engine,
            role,
            server: Rc::clone(server),
            is_udp,
            generating,
            peak: f64::NAN,
            rounds: Vec::new(),
        };
        Ok(vec![
            subject("TCP", Role::Plane, &server, false),
            subject("TCP, floor", Role::Floor, &floor, false),
            subject("UDP", Role::Plane, &server, true),
        ])
    }

    pub fn is_floor(&self) -> bool {
        self.role == Role::Floor
    }

    /// What a floor shares with the data plane above it.
    pub fn place(&self) -> (Engine, bool) {
        (self.engine, self.is_udp)
    }

    /// Half of the peak.
    pub fn rate(&self) -> u64 {
        (self.peak / 2.0) as u64
    }

    /// Runs it: the open schedule at half of the peak, or the closed loop.
    ///
    /// # Errors
    /// When it cannot be run, or answers were not the right ones.
    pub fn measure(&self, pace: Pace, duration: Duration) -> io::Result<Found> {
        let rate = if pace == Pace::Open { self.rate() } else { 1 };
        let (tcp, udp) = if self.is_udp { (None, Some(self.server.udp)) } else { (Some(self.server.tcp), None) };
        let mut job = job(Target { name: self.name.clone(), tcp, udp });
        // The floor says the same to every request: it can only be right about one asset.
        job.assets.truncate(if self.is_floor() { 1 } else { plane::ASSETS });
        (job.pace, job.duration, job.cpus) = (pace, duration, self.generating.into_iter().collect());
        let mut outcome = level::run(&job, &clients(rate), &Progress::default()).map_err(io::Error::other)?;
        let target = outcome.targets.pop().ok_or(io::ErrorKind::NotFound)?;
        let tally = if self.is_udp { target.udp } else { target.tcp }.ok_or(io::ErrorKind::NotFound)?;
        check(&self.name, &tally)?;
        let rate = tally.answered as f64 / outcome.elapsed.as_secs_f64();
        Ok(Found { rate, latency_ns: tally.latency_ns, behind_ns: outcome.behind_ns })
    }
}

const fn clients(rate: u64) -> Level {
    Level { number: 1, connections: CLIENTS, rate }
}

/// What all runs have in common.
fn job(target: Target) -> Job {
    let (udp_key_id, udp_secret) = plane::udp_key(0);
    Job {
        targets: vec![target],
        credentials: Credentials { key: plane::key_text(0), udp_key_id, udp_secret },
        pace: Pace::Open,
        pipeline: 1,
        train: 1,
        format: DatagramFormat::Binary,
        assets: (0..plane::ASSETS).map(plane::symbol).collect(),
        warm_up: WARM_UP,
        duration: WARM_UP,
        late_after: PATIENCE,
        lost_after: PATIENCE,
        age_max: AGE_MAX,
        cpus: Vec::new(),
        threads: 1,
    }
}

/// A latency means something only when the answers were there and right. Datagrams may be lost; that is told.
fn check(name: &str, tally: &Tally) -> io::Result<()> {
    let Tally { answered, late, wrong, refused, lost, unsent, broken, faults, .. } = tally;
    if *answered == 0 || wrong + refused + broken > 0 || (late + lost + unsent) * 100 > *answered {
        let counts =
            format!("{answered} right, {late} late, {wrong} wrong, {refused} refused, {lost} lost, {unsent} unsent");
        let faults = faults.join("; ");
        return Err(io::Error::other(format!("{name}: {counts}: the figures would mean nothing ({faults})")));
    }
    Ok(())
}

/// Bytes of the generator's request, which the floor must know: the generator is given someone to ask who only counts
/// and refuses. All ports that the kernel chooses have as many digits.
fn request_bytes() -> io::Result<usize> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let target = Target { name: "nobody".to_owned(), tcp: Some(listener.local_addr()?), udp: None };
    std::thread::scope(|scope| {
        let counted = scope.spawn(move || -> io::Result<usize> {
            let (mut stream, _) = listener.accept()?;
            let (mut bytes, mut part) = (Vec::new(), [0; 1_024]);
            while !bytes.ends_with(b"\r\n\r\n") {
                match stream.read(&mut part)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    length => bytes.extend_from_slice(&part[..length]),
                }
            }
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")?;
            Ok(bytes.len())
        });
        // It is refused, as it must be.
        let _refused = level::run(&job(target), &clients(1), &Progress::default());
        counted.join().map_err(|_| io::Error::other("nobody was asked"))?
    })
}
