//! UDP clients: JSON datagrams and the 64-byte binary frames.

use shared::wire::{
    KIND_PRICE, REPLY_MAC_COVERS, REQUEST_MAC_COVERS, REQUEST_MAGIC, ReplyFrame, RequestFrame, VERSION,
};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

/// Sends `request` and gives the reply, waiting as long as [`crate::PATIENCE`].
pub fn ask(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let socket = socket_to(address);
    socket.set_read_timeout(Some(crate::PATIENCE)).expect("a time-out");
    socket.send(request).expect("a datagram leaves");
    let mut reply = [0; 2_048];
    let length = socket.recv(&mut reply).expect("a reply");
    reply[..length].to_vec()
}

/// Sends `request`, then a good one behind it (`probe`), and gives what came before the answer to the probe: silence is
/// proven by the next answer, not by waiting.
pub fn ask_before_probe(address: SocketAddr, request: &[u8], probe: &[u8]) -> Option<Vec<u8>> {
    let socket = socket_to(address);
    socket.set_read_timeout(Some(crate::PATIENCE)).expect("a time-out");
    socket.send(request).expect("a datagram leaves");
    socket.send(probe).expect("a datagram leaves");
    let mut first = [0; 2_048];
    let length = socket.recv(&mut first).expect("the probe's answer at least");
    let first = first[..length].to_vec();
    socket.set_read_timeout(Some(crate::http::SILENCE)).expect("a time-out");
    let mut second = [0; 2_048];
    match socket.recv(&mut second) {
        Ok(_) => Some(first),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => panic!("reading a reply: {error}"),
    }
}

fn socket_to(address: SocketAddr) -> UdpSocket {
    let any = if address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).expect("a socket");
    socket.connect(address).expect("an address to send to");
    socket
}

/// The MAC of `bytes` under `secret`, in the reference implementation's byte order.
pub fn mac(secret: &[u8; 16], bytes: &[u8]) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write(bytes);
    hasher.finish128().as_bytes()
}

/// A good binary request.
pub fn frame(key_id: u32, secret: &[u8; 16], asset: &str, request_id: u64, client_time_ms: u64) -> RequestFrame {
    let mut padded = [0; 16];
    padded[..asset.len()].copy_from_slice(asset.as_bytes());
    let mut frame = RequestFrame {
        magic: REQUEST_MAGIC.to_le_bytes(),
        version: VERSION,
        kind: KIND_PRICE,
        key_id: key_id.to_le_bytes(),
        request_id: request_id.to_le_bytes(),
        client_time_ms: client_time_ms.to_le_bytes(),
        asset: padded,
        mac: [0; 16],
        zero: [0; 8],
    };
    frame.mac = mac(secret, &bytemuck::bytes_of(&frame)[..REQUEST_MAC_COVERS]);
    frame
}

/// Reads a binary reply and checks its MAC.
pub fn reply_frame(secret: &[u8; 16], bytes: &[u8]) -> ReplyFrame {
    assert_eq!(bytes.len(), size_of::<ReplyFrame>(), "a reply is 64 bytes");
    let frame: ReplyFrame = bytemuck::pod_read_unaligned(bytes);
    assert_eq!(frame.mac[..], mac(secret, &bytes[..REPLY_MAC_COVERS])[..8], "the reply's MAC");
    frame
}
