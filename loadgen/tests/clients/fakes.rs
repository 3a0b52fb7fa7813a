//! Servers of a few lines that do what a test tells them: answer, rightly or not, be silent, pause, close.

use loadgen::frame::UdpKey;
use shared::wire::{REPLY_MAC_COVERS, REPLY_MAGIC, ReplyFrame, RequestFrame, VERSION};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a server does with one request.
pub enum Act {
    Say(Vec<u8>),
    /// Nothing: the connection stays open.
    Ignore,
    Pause(Duration, Vec<u8>),
    Close,
    /// The answer, and then the end.
    Last(Vec<u8>),
}

/// What a connection is told to do with each request, by its text.
pub type Script = Arc<dyn Fn(&str) -> Act + Send + Sync>;

/// Serves every connection of a listener. Requests end in `end`.
pub fn serve_all(listener: TcpListener, end: &'static str, script: Script) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, script) = (stream.expect("a connection"), Arc::clone(&script));
            thread::spawn(move || serve(stream, end, &script));
        }
    });
}

/// Serves one connection until it is closed by either side.
pub fn serve(mut stream: TcpStream, end: &str, script: &Script) {
    let (mut bytes, mut part) = (String::new(), [0; 4_096]);
    while let Ok(length @ 1..) = stream.read(&mut part) {
        bytes.push_str(std::str::from_utf8(&part[..length]).expect("text"));
        while let Some((request, rest)) = bytes.split_once(end) {
            let said = match script(request) {
                Act::Say(answer) => stream.write_all(&answer),
                Act::Ignore => Ok(()),
                Act::Pause(time, answer) => {
                    thread::sleep(time);
                    stream.write_all(&answer)
                }
                Act::Close => return,
                Act::Last(answer) => {
                    let _ = stream.write_all(&answer);
                    return;
                }
            };
            if said.is_err() {
                return;
            }
            bytes = rest.to_owned();
        }
    }
}

/// A TCP server on a free port.
pub fn tcp(end: &'static str, script: impl Fn(&str) -> Act + Send + Sync + 'static) -> SocketAddr {
    tcp_at("127.0.0.1:0", end, script)
}

/// The same at an address of the test's choice.
pub fn tcp_at(
    address: impl ToSocketAddrs,
    end: &'static str,
    script: impl Fn(&str) -> Act + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("a free port");
    let address = listener.local_addr().expect("bound");
    serve_all(listener, end, Arc::new(script));
    address
}

/// A server that answers each datagram with what `answer` makes of it; an empty reply is none.
pub fn udp(answer: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    udp_at("127.0.0.1:0", answer)
}

/// The same at an address of the test's choice.
pub fn udp_at(address: impl ToSocketAddrs, mut answer: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind(address).expect("a free port");
    let address = socket.local_addr().expect("bound");
    thread::spawn(move || {
        let mut bytes = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let reply = answer(&bytes[..length]);
            if !reply.is_empty() {
                let _ = socket.send_to(&reply, from);
            }
        }
    });
    address
}

/// An HTTP answer.
pub fn http(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The asset that a request is about.
pub fn asset_of(request: &str) -> &str {
    let rest = request.split_once("asset=").expect("an asset").1;
    rest.split_once(' ').map_or(rest, |(asset, _)| asset)
}

/// A right price object.
pub fn price(asset: &str, sequence: u64, age_ms: u64) -> String {
    let price = "\"price\":\"67123.45\",\"currency\":\"USD\"";
    format!("{{\"asset\":\"{asset}\",{price},\"age_ms\":{age_ms},\"sequence\":{sequence}}}")
}

/// The key that [`frame_reply`] knows.
pub const KEY: UdpKey = UdpKey { id: 7, secret: [3; 16] };

/// The signed reply to a request frame.
pub fn frame_reply(request: &[u8], status: u8, sequence: u64, age_ms: u64) -> Vec<u8> {
    let request: RequestFrame = bytemuck::pod_read_unaligned(request);
    let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let mut reply = ReplyFrame {
        magic: REPLY_MAGIC.to_le_bytes(),
        version: VERSION,
        status,
        request_id: request.request_id,
        ..bytemuck::Zeroable::zeroed()
    };
    if status == 0 {
        reply.currency = 1;
        reply.sequence = sequence.to_le_bytes();
        reply.mantissa = 6_712_345_i64.to_le_bytes();
        reply.received_time_ms = (wall_ms - age_ms).to_le_bytes();
    }
    let mut hasher = SipHasher24::new_with_key(&KEY.secret);
    hasher.write(&bytemuck::bytes_of(&reply)[..REPLY_MAC_COVERS]);
    reply.mac.copy_from_slice(&hasher.finish128().as_bytes()[..8]);
    bytemuck::bytes_of(&reply).to_vec()
}
