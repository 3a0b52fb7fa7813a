//! Whether the targets are still there: asked once in a while when requests fail, and at the end of a level.

use super::interrupt::Interrupt;
use loadgen::job::{Job, Target};
use loadgen::plan::Level;
use loadgen::report::run::LevelFinding;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// Patience with all targets together when they are asked whether they are still there.
const PATIENCE: Duration = Duration::from_secs(2);
/// Least patience with one of them: a connection or a refusal within a data centre takes a hundredth.
const PATIENCE_MIN: Duration = Duration::from_millis(10);
/// Silence after a datagram to a target, in which the kernel would have told that nobody is there.
const SILENCE: Duration = Duration::from_millis(200);
/// Time between two such questions while a level runs: too rare to be a load.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Patience at the end of a level: one target's silence over both protocols, with room to spare.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks at whether someone wants the run to end meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A question on a thread of its own: who watches a run does not wait for its answer. One answer, and room for it.
type Asked = Receiver<Option<String>>;

/// Asks; `None` when no thread can be had. A thread that nobody listens to any more ends by its own patience.
fn ask(question: impl FnOnce() -> Option<String> + Send + 'static) -> Option<Asked> {
    let (answer, asked) = mpsc::sync_channel(1);
    let body = move || {
        // Whoever asked may be gone.
        let _ = answer.send(question());
    };
    std::thread::Builder::new().name("alive".to_owned()).spawn(body).ok().map(|_| asked)
}

/// Watches the targets while a level runs.
pub struct Watch<'a> {
    job: &'a Job,
    level: u32,
    asked_at: Instant,
    failed: u64,
    asked: Option<Asked>,
    gone: Option<String>,
}

impl<'a> Watch<'a> {
    /// Begins.
    pub fn new(job: &'a Job, level: &Level) -> Self {
        Self { job, level: level.number, asked_at: Instant::now(), failed: 0, asked: None, gone: None }
    }

    /// Asks the targets, if it is time, more than before has failed, and the last question is answered; why one is gone,
    /// as far as it is known by now. Only a refusal counts: a busy target may leave a question unanswered.
    pub fn look(&mut self, failed: u64) -> Option<&str> {
        match self.asked.as_ref().map(Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => {}
            Some(Ok(gone)) => (self.asked, self.gone) = (None, gone),
            Some(Err(TryRecvError::Disconnected)) => self.asked = None,
            None if self.gone.is_none() && failed > self.failed && self.asked_at.elapsed() >= ASK_EVERY => {
                (self.failed, self.asked_at) = (failed, Instant::now());
                let (targets, level) = (self.job.targets.clone(), self.level);
                self.asked = ask(move || refusing(&targets, PATIENCE).map(|target| went_away(&target.name, level)));
            }
            None => {}
        }
        self.gone.as_deref()
    }

    /// Why a target is gone.
    pub fn gone(self) -> Option<String> {
        self.gone
    }
}

/// The first target that refuses. Each has its part of what is left of `patience`, so that a silent one does not use up
/// that of those after it.
fn refusing(targets: &[Target], patience: Duration) -> Option<&Target> {
    let until = Instant::now() + patience;
    targets.iter().enumerate().find_map(|(index, target)| {
        let left = until.saturating_duration_since(Instant::now());
        let patience = (left / u32::try_from(targets.len() - index).unwrap_or(u32::MAX)).max(PATIENCE_MIN);
        let refuses = match (target.tcp, target.udp) {
            (Some(address), _) => TcpStream::connect_timeout(&address, patience).map(drop),
            (None, Some(address)) => send_datagram(address, patience.min(SILENCE)),
            (None, None) => Ok(()),
        };
        refuses.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused).then_some(target)
    })
}

fn went_away(name: &str, level: u32) -> String {
    format!("target {name} went away in level {level}: what was found until then is kept; see on its side why it ended")
}

/// Why there is no sense in going on after a level: a connection broke, or nothing came back, and the question that a
/// level begins with is not answered any more.
/// Not waited for when someone wants the run to end.
pub fn gone(job: &Job, level: &LevelFinding, interrupt: &Interrupt) -> Option<String> {
    let is_suspect = level.by_target().any(|(_, _, tally)| {
        let came = tally.answered + tally.late + tally.wrong + tally.refused;
        tally.broken > 0 || (tally.sent > 0 && came == 0)
    });
    let number = level.outcome.level.number;
    let job = is_suspect.then(|| job.clone())?;
    let asked = ask(move || {
        let refused = loadgen::level::probe(&job).err()?;
        Some(format!("a target went away in level {number}, what was found until then is kept: {refused}"))
    })?;
    let until = Instant::now() + END_PATIENCE;
    while !interrupt.is_asked() && Instant::now() < until {
        match asked.recv_timeout(LOOK_EVERY) {
            Ok(gone) => return gone,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // Not known: what a level begins with asks again.
    None
}

/// Sends a datagram and waits for so long; refused when the kernel tells that nobody takes it there. From another machine
/// it may not tell.
fn send_datagram(address: SocketAddr, silence: Duration) -> io::Result<()> {
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(silence))?;
    socket.send(b"?")?;
    socket.recv(&mut [0; 64]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_refuses_is_found_among_those_who_do_not() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(local).expect("a port");
        let taken = UdpSocket::bind(local).expect("a port");
        let free = UdpSocket::bind(local).and_then(|socket| socket.local_addr()).expect("a port");
        let none = TcpListener::bind(local).and_then(|listener| listener.local_addr()).expect("a port");
        let tcp = |address| Target { name: "tcp".to_owned(), tcp: Some(address), udp: None };
        let udp = |address| Target { name: "udp".to_owned(), tcp: None, udp: Some(address) };
        let there = [tcp(listener.local_addr().expect("its address")), udp(taken.local_addr().expect("its address"))];
        let check = |gone: &[Target]| {
            let targets = [&there[..], gone].concat();
            assert_eq!(refusing(&targets, PATIENCE), gone.first(), "{targets:?}");
        };
        check(&[]);
        check(&[tcp(none)]);
        check(&[udp(free)]);
    }
}
