//! Who sent a datagram: an address as the kernel writes it, kept as four words that are quick to compare.
//!
//! It goes back to the kernel untouched; only the shard is shown a readable form of it.

use super::control::Origin;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// A `sockaddr_in` or `sockaddr_in6`, and zeros behind it. A socket has peers of one family only, so what a shorter
/// address leaves untouched is the same for all.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    words: [u64; 4],
}

/// Room for an address, as the kernel wants it said.
pub(super) const PEER_BYTES: libc::socklen_t = size_of::<Peer>() as libc::socklen_t;

const _: () = assert!(size_of::<libc::sockaddr_in6>() <= size_of::<Peer>());

impl Peer {
    /// An address of no family.
    pub(super) const NOBODY: Self = Self { words: [0; 4] };

    /// A number in which two peers rarely agree. Who makes his agree with another's gains nothing by it.
    #[inline]
    pub(super) const fn hash(&self) -> u64 {
        // Family, port and, of IPv4, the address; then the address of IPv6.
        let [first, second, third, _] = self.words;
        (first ^ second.rotate_left(19) ^ third.rotate_left(41)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// Bytes of it that the kernel wants back.
    #[inline]
    pub(super) fn length(&self) -> libc::socklen_t {
        let [f, g, ..] = self.words[0].to_ne_bytes();
        let is_v4 = libc::c_int::from(u16::from_ne_bytes([f, g])) == libc::AF_INET;
        (if is_v4 { size_of::<libc::sockaddr_in>() } else { size_of::<libc::sockaddr_in6>() }) as libc::socklen_t
    }

    /// The address; an IPv4 peer of a dual-stack socket is shown as IPv4. `None` for a family that is not IP.
    #[inline]
    pub(super) fn address(&self) -> Option<SocketAddr> {
        // Both begin with family and port; then an IPv4 address, or a flow, an IPv6 address and its scope.
        let [f, g, port_high, port_low, a, b, c, d] = self.words[0].to_ne_bytes();
        let port = u16::from_be_bytes([port_high, port_low]);
        match libc::c_int::from(u16::from_ne_bytes([f, g])) {
            libc::AF_INET => Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port))),
            libc::AF_INET6 => {
                let both = u128::from(self.words[1].to_be()) << 64 | u128::from(self.words[2].to_be());
                let scope = self.words[3].to_ne_bytes();
                let scope = u32::from_ne_bytes([scope[0], scope[1], scope[2], scope[3]]);
                let flow = u32::from_ne_bytes([a, b, c, d]);
                Some(match IpAddr::V6(Ipv6Addr::from_bits(both)).to_canonical() {
                    IpAddr::V4(ip) => SocketAddr::V4(SocketAddrV4::new(ip, port)),
                    IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)),
                })
            }
            _ => None,
        }
    }
}

/// Who is answered, by number: the senders of a batch, or of what waited. Nothing of it changes, nor moves, between a
/// reply to one of them and the send.
pub(super) trait Addresses {
    /// To whom.
    fn peer(&self, place: usize) -> &Peer;
    /// From where.
    fn origin(&self, place: usize) -> &Origin;
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockAddr;

    #[track_caller]
    fn check(from: &str, expected: &str) {
        let from: SocketAddr = from.parse().expect("an address");
        let storage = SockAddr::from(from).as_storage();
        // SAFETY: a `Peer` is the first 32 bytes of a `sockaddr_storage`, plain integers both.
        let peer: Peer = unsafe { std::mem::transmute_copy(&storage) };
        assert_eq!(peer.address().map(|address| address.to_string()).as_deref(), Some(expected));
    }

    #[test]
    fn peers_are_shown_as_what_they_are() {
        check("127.0.0.1:2679", "127.0.0.1:2679");
        check("[2001:db8::7]:65535", "[2001:db8::7]:65535");
        check("[fe80::1%3]:53", "[fe80::1%3]:53");
        check("[::ffff:192.0.2.9]:1", "192.0.2.9:1");
    }

    #[test]
    fn another_family_is_nobody() {
        assert_eq!(Peer::NOBODY.address(), None);
    }
}
