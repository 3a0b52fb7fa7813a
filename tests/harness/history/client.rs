//! Clients that ask prices over TCP and UDP at a pace, and write down every answer with the moment it came, until the
//! service goes away under their hands.

use super::{Chance, Class};
use crate::udp::{frame, reply_frame};
use shared::code::Code;
use shared::usage::{PROTOCOL_TCP, PROTOCOL_UDP};
use shared::wire::FRAME_SIZE;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Assets that are asked for, the last of which nobody knows.
const ASSETS: [&str; 5] = ["BTC", "ETH", "SOL", "DOGE", "NOPE"];

/// Longest pause of a client between an answer and its next request, µs.
const PAUSE_MAX_US: u64 = 2_000;

/// How long a datagram's answer is awaited at a time; then the client looks whether it is over.
const DATAGRAM_WAIT: Duration = Duration::from_millis(20);

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The key's number; 0 for one that there is not.
    pub key: u32,
    /// As in a usage record.
    pub protocol: u8,
    /// What the answer made of it, and when it was there.
    pub answer: Option<(Class, Instant)>,
}

/// A key to ask with.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its number.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Its secret for binary datagrams.
    pub udp_secret: [u8; 16],
}

/// Whom to ask, and as whom.
pub struct Target {
    /// The price port.
    pub tcp: SocketAddr,
    /// The datagram port.
    pub udp: SocketAddr,
    /// At least one.
    pub keys: Vec<Key>,
}

/// A way of asking: asks until it is over, and says what came.
type Way = fn(&Target, &AtomicBool, Chance) -> Vec<Asked>;

/// Clients, each on a thread of its own.
pub struct Clients {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Asked>>>,
}

impl Clients {
    /// Begins to ask: two connections and two sockets. `seed` is for what they ask.
    #[must_use]
    pub fn start(target: Target, seed: u64) -> Self {
        let (target, over) = (Arc::new(target), Arc::new(AtomicBool::new(false)));
        let ways: [Way; 4] = [over_tcp, over_tcp, over_udp_json, over_udp_binary];
        let start = |(way, number): (Way, u64)| {
            let (target, over) = (Arc::clone(&target), Arc::clone(&over));
            std::thread::spawn(move || way(&target, &over, Chance::new(seed * 4 + number)))
        };
        Self { threads: ways.into_iter().zip(0..).map(start).collect(), over }
    }

    /// Everything that was asked. Call it when the service is gone.
    ///
    /// # Panics
    /// When a client met what no answer may be.
    #[must_use]
    pub fn end(self) -> Vec<Asked> {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().expect("a client's answers")).collect()
    }
}

fn pause(chance: &mut Chance) {
    std::thread::sleep(Duration::from_micros(chance.below(PAUSE_MAX_US)));
}

pub(super) fn padded(asset: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    padded[..asset.len()].copy_from_slice(asset.as_bytes());
    padded
}

/// The class of an answer: one about a price names its asset, whether there is the price or not.
fn class_of(key: u32, asset: &str, protocol: u8, status: u16, code: Option<Code>) -> Class {
    let names = matches!(code, None | Some(Code::PriceUnavailable | Code::PriceStale));
    Class { key, asset: if names { padded(asset) } else { [0; 16] }, protocol, status }
}

fn over_tcp(target: &Target, over: &AtomicBool, mut chance: Chance) -> Vec<Asked> {
    let mut asked = Vec::new();
    let Ok(mut stream) = TcpStream::connect(target.tcp) else { return asked };
    stream.set_read_timeout(Some(crate::PATIENCE)).expect("a time-out");
    stream.set_nodelay(true).expect("nodelay");
    while !over.load(Ordering::Relaxed) {
        let key = &target.keys[chance.below(target.keys.len() as u64) as usize];
        let (key, text) = if chance.below(16) == 0 { (0, "nobody") } else { (key.id, key.text.as_str()) };
        let asset = ASSETS[chance.below(ASSETS.len() as u64) as usize];
        let request = format!("GET /price?asset={asset} HTTP/1.1\r\nHost: x\r\nX-API-Key: {text}\r\n\r\n");
        let answer = stream.write_all(request.as_bytes()).and_then(|()| read_answer(&mut stream)).ok();
        let answer = answer.map(|(status, code)| (class_of(key, asset, PROTOCOL_TCP, status, code), Instant::now()));
        asked.push(Asked { key, protocol: PROTOCOL_TCP, answer });
        if answer.is_none() {
            break;
        }
        pause(&mut chance);
    }
    asked
}

/// Status and code of one whole answer; an error where the service went away before its end.
fn read_answer(stream: &mut TcpStream) -> io::Result<(u16, Option<Code>)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
            if body.len() >= length.expect("an answer's length") {
                let status = head.get(9..12).and_then(|digits| digits.parse().ok()).expect("a status");
                return Ok((status, code_in(body)));
            }
        }
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => bytes.extend_from_slice(&chunk[..length]),
        }
    }
}

fn code_in(body: &str) -> Option<Code> {
    let object: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let name = object["code"].as_str()?;
    (0..=u8::MAX).filter_map(Code::from_number).find(|code| code.name() == name)
}

/// A connected socket. A service that is gone is told of by an error or by silence.
fn socket(target: &Target) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(target.udp).expect("an address");
    socket.set_read_timeout(Some(DATAGRAM_WAIT)).expect("a time-out");
    socket
}

/// Sends a datagram and awaits the answer that `read` takes for its own, until it is over.
fn exchange<T>(
    socket: &UdpSocket,
    over: &AtomicBool,
    request: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
) -> Option<(T, Instant)> {
    socket.send(request).ok()?;
    let mut reply = [0; 2_048];
    let deadline = Instant::now() + crate::PATIENCE;
    while !over.load(Ordering::Relaxed) {
        match socket.recv(&mut reply) {
            Ok(length) => {
                if let Some(answer) = read(&reply[..length]) {
                    return Some((answer, Instant::now()));
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => return None,
        }
        assert!(Instant::now() < deadline, "a datagram without an answer");
    }
    None
}

fn over_udp_json(target: &Target, over: &AtomicBool, mut chance: Chance) -> Vec<Asked> {
    let (socket, mut asked, pad) = (socket(target), Vec::new(), "x".repeat(160));
    while !over.load(Ordering::Relaxed) {
        let key = &target.keys[chance.below(target.keys.len() as u64) as usize];
        let asset = ASSETS[chance.below(ASSETS.len() as u64) as usize];
        let id = asked.len();
        let request = format!(r#"{{"key":"{}","asset":"{asset}","id":{id},"pad":"{pad}"}}"#, key.text);
        let answer = exchange(&socket, over, request.as_bytes(), |reply| {
            let object: serde_json::Value = serde_json::from_slice(reply).expect("JSON");
            (object["id"] == id).then(|| code_in(&object.to_string()))
        });
        asked.push(of_datagram(key, asset, answer));
        if answer.is_none() {
            break;
        }
        pause(&mut chance);
    }
    asked
}

fn over_udp_binary(target: &Target, over: &AtomicBool, mut chance: Chance) -> Vec<Asked> {
    let (socket, mut asked) = (socket(target), Vec::new());
    while !over.load(Ordering::Relaxed) {
        let key = &target.keys[chance.below(target.keys.len() as u64) as usize];
        let asset = ASSETS[chance.below(ASSETS.len() as u64) as usize];
        let id = asked.len() as u64;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        let request = frame(key.id, &key.udp_secret, asset, id, u64::try_from(now_ms).expect("small"));
        let answer = exchange(&socket, over, bytemuck::bytes_of(&request), |reply| {
            assert_eq!(reply.len(), FRAME_SIZE);
            let reply = reply_frame(&key.udp_secret, reply);
            (reply.request_id == id.to_le_bytes()).then(|| Code::from_number(reply.status))
        });
        asked.push(of_datagram(key, asset, answer));
        if answer.is_none() {
            break;
        }
        pause(&mut chance);
    }
    asked
}

fn of_datagram(key: &Key, asset: &str, answer: Option<(Option<Code>, Instant)>) -> Asked {
    let answer = answer.map(|(code, at)| {
        let status = code.map_or(200, Code::status);
        (class_of(key.id, asset, PROTOCOL_UDP, status, code), at)
    });
    Asked { key: key.id, protocol: PROTOCOL_UDP, answer }
}
