//! Whether the targets are still there: asked once in a while when requests fail, and at the end of a level.

use loadgen::job::Job;
use loadgen::plan::Level;
use loadgen::report::run::LevelFinding;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// Patience with a target that is asked whether it is still there.
const PATIENCE: Duration = Duration::from_secs(2);
/// Silence after a datagram to a target, in which the kernel would have told that nobody is there.
const SILENCE: Duration = Duration::from_millis(200);
/// Time between two such questions while a level runs: too rare to be a load.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Watches the targets while a level runs.
pub struct Watch<'a> {
    job: &'a Job,
    level: u32,
    asked_at: Instant,
    failed: u64,
    gone: Option<String>,
}

impl<'a> Watch<'a> {
    /// Begins.
    pub fn new(job: &'a Job, level: &Level) -> Self {
        Self { job, level: level.number, asked_at: Instant::now(), failed: 0, gone: None }
    }

    /// Asks the targets, if it is time and more than before has failed; why one is gone. Only a refusal counts: a busy
    /// target may leave a question unanswered.
    pub fn look(&mut self, failed: u64) -> Option<&str> {
        if self.gone.is_none() && failed > self.failed && self.asked_at.elapsed() >= ASK_EVERY {
            (self.failed, self.asked_at) = (failed, Instant::now());
            let is_refused =
                |address| connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
            let gone = self.job.targets.iter().find(|target| {
                target.tcp.is_some_and(is_refused)
                    || (target.tcp.is_none() && target.udp.is_some_and(refuses_datagrams))
            });
            self.gone = gone.map(|target| went_away(&target.name, self.level));
        }
        self.gone.as_deref()
    }

    /// Why a target is gone.
    pub fn gone(self) -> Option<String> {
        self.gone
    }
}

fn went_away(name: &str, level: u32) -> String {
    format!("target {name} went away in level {level}: what was found until then is kept; see on its side why it ended")
}

/// Why there is no sense in going on after a level: a connection broke, or nothing came back, and the question that a
/// level begins with is not answered any more.
pub fn gone(job: &Job, level: &LevelFinding) -> Option<String> {
    let is_suspect = level.by_target().any(|(_, _, tally)| {
        let came = tally.answered + tally.late + tally.wrong + tally.refused;
        tally.broken > 0 || (tally.sent > 0 && came == 0)
    });
    let refused = is_suspect.then(|| loadgen::level::probe(job).err()).flatten()?;
    let number = level.outcome.level.number;
    Some(format!("a target went away in level {number}, what was found until then is kept: {refused}"))
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, PATIENCE)
}

/// Whether the kernel tells that nobody takes datagrams there. From another machine it may not tell.
fn refuses_datagrams(address: SocketAddr) -> bool {
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let asked = || {
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.send(b"?")?;
        socket.recv(&mut [0; 64])
    };
    asked().is_err_and(|error: io::Error| error.kind() == ErrorKind::ConnectionRefused)
}
