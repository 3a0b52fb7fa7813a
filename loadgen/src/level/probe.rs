//! One request to each target before a level begins: is it there, and does it know the key?
//!
//! What the first answer says decides whether there is a level at all; everything that can change while it runs (limits,
//! prices that are not there yet) is left to the level to count.

use super::question::Question;
use super::streams::price_request;
use super::{LevelRefused, count::Verdict};
use crate::exchange::Exchange;
use crate::framing::Framing;
use crate::job::{Job, Target};
use crate::price::Excerpts;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use tuning::clock;

/// Longest wait for a connection, and for its first answer.
const TCP_WAIT: Duration = Duration::from_secs(3);
/// Datagrams sent before silence is believed, and how long each is waited for.
const UDP_TRIES: u64 = 4;
const UDP_WAIT: Duration = Duration::from_millis(500);
/// Time between looks for a reply: a probe is not measured.
const UDP_LOOK: Duration = Duration::from_millis(1);

/// Asks every target once over every protocol that is driven.
///
/// # Errors
/// The first that does not answer, or refuses the key or the asset.
pub(super) fn all(job: &Job, seed: u64) -> Result<(), LevelRefused> {
    for target in &job.targets {
        if let Some(address) = target.tcp {
            tcp(job, target, address)?;
        }
        if let Some(address) = target.udp {
            udp(job, target, address, seed)?;
        }
    }
    Ok(())
}

fn tcp(job: &Job, target: &Target, address: SocketAddr) -> Result<(), LevelRefused> {
    let no_answer = |reason: io::Error| LevelRefused::Unreachable { target: target.name.clone(), address, reason };
    let asset = job.assets[0];
    let request = price_request(asset.as_str(), address, &job.credentials.key);
    let mut stream = TcpStream::connect_timeout(&address, TCP_WAIT).map_err(no_answer)?;
    stream.set_read_timeout(Some(TCP_WAIT)).and_then(|()| stream.write_all(&request)).map_err(no_answer)?;
    let (mut bytes, mut part) = (Vec::new(), [0; 4_096]);
    loop {
        let answer = Framing::Http.split(&bytes).map_err(|garbled| no_answer(io::Error::other(garbled)))?;
        if let Some(answer) = answer {
            return status(job, target, answer.status, answer.body);
        }
        match stream.read(&mut part) {
            Ok(0) => return Err(no_answer(ErrorKind::UnexpectedEof.into())),
            Ok(length) => bytes.extend_from_slice(&part[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(no_answer(ErrorKind::TimedOut.into())),
            Err(error) => return Err(no_answer(error)),
        }
    }
}

/// What the status of a first answer means for the level.
fn status(job: &Job, target: &Target, status: u16, body: &[u8]) -> Result<(), LevelRefused> {
    let target = target.name.clone();
    match status {
        401 | 403 => Err(LevelRefused::Key { target, status }),
        404 => Err(LevelRefused::Asset { target, asset: job.assets[0] }),
        // Limits and missing prices pass; so does what is right.
        200 | 429 | 503 => Ok(()),
        _ => Err(LevelRefused::Status { target, status, body: Excerpts::new(&job.credentials).of(body) }),
    }
}

fn udp(job: &Job, target: &Target, address: SocketAddr, seed: u64) -> Result<(), LevelRefused> {
    let unreachable = |reason| LevelRefused::Unreachable { target: target.name.clone(), address, reason };
    let mut question = Question::new(job, false, seed);
    let mut exchange = Exchange::new(0);
    let socket = exchange.open(address).map_err(unreachable)?;
    for number in 0..UDP_TRIES {
        socket.send(question.ask(0, number, clock::now().wall_ms)).map_err(unreachable)?;
        let until = Instant::now() + UDP_WAIT;
        while Instant::now() < until {
            let mut verdict = None;
            let outcome = exchange.receive(&socket, 1, |bytes| {
                if question.answered(bytes).is_some_and(|answered| answered <= number) {
                    verdict = Some(question.judge(bytes, 0, 0, clock::now().wall_ms));
                }
            });
            match (verdict, outcome) {
                (Some(Verdict::Price { .. } | Verdict::Refused(_)), _) => return Ok(()),
                (Some(Verdict::Wrong(wrong)), _) => {
                    return Err(LevelRefused::Reply { target: target.name.clone(), wrong: wrong.to_string() });
                }
                (None, Err(error)) => return Err(unreachable(error)),
                (None, Ok(_)) => thread::sleep(UDP_LOOK),
            }
        }
    }
    Err(LevelRefused::Silent { target: target.name.clone(), address })
}
