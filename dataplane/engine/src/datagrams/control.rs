//! Control messages: what the kernel says beside a datagram, and what it is told beside a reply.
//!
//! Read and written as words, since every part of them is aligned to eight bytes. It knows three kinds: into what
//! lengths a train is to be cut, both ways, and which of our addresses was asked.

/// Words beside one message: a length (3 words) and an address (IPv4: 4, IPv6: 5).
pub(super) const CONTROL_WORDS: usize = 8;

/// Bytes of it.
pub(super) const CONTROL_BYTES: usize = CONTROL_WORDS * size_of::<u64>();

/// Words of a header: its length, then level and type.
const HEADER_WORDS: usize = 2;
const HEADER_BYTES: usize = HEADER_WORDS * size_of::<u64>();
const _: () = assert!(size_of::<libc::cmsghdr>() == HEADER_BYTES && size_of::<usize>() == size_of::<u64>());

/// Words that tell into what lengths a reply is to be cut.
const CUT_WORDS: usize = HEADER_WORDS + 1;

/// Room beside one message.
pub(super) type Control = [u64; CONTROL_WORDS];

/// Which of our addresses a reply leaves from: the control message for it, or nothing (the routing chooses).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    words: [u64; CONTROL_WORDS - CUT_WORDS],
    bytes: usize,
}

impl Origin {
    /// The routing chooses.
    pub(super) const ANY: Self = Self { words: [0; CONTROL_WORDS - CUT_WORDS], bytes: 0 };
}

/// What stood beside a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beside {
    /// Bytes of each of its datagrams but the last, which may be shorter; 0 when it is a single one.
    pub(super) cut: usize,
    /// The address that was asked.
    pub(super) origin: Origin,
}

impl Beside {
    /// Nothing: one datagram, answered from wherever the routing says.
    pub(super) const NOTHING: Self = Self { cut: 0, origin: Origin::ANY };

    /// Reads the first `bytes` bytes.
    pub(super) fn read(control: &Control, bytes: usize) -> Self {
        let mut beside = Self::NOTHING;
        // The kernel counts what aligns a message in.
        let mut rest = &control[..bytes.min(CONTROL_BYTES) / size_of::<u64>()];
        while let [length, kind, body @ ..] = rest {
            let length = usize::try_from(*length).unwrap_or(0);
            let words = length.saturating_sub(HEADER_BYTES).div_ceil(size_of::<u64>());
            if words == 0 || words > body.len() {
                break;
            }
            beside.note(*kind, &body[..words]);
            rest = &body[words..];
        }
        beside
    }

    fn note(&mut self, kind: u64, body: &[u64]) {
        match (kind, body) {
            (GRO, [cut]) => self.cut = usize::try_from(int(*cut, 0)).unwrap_or(0),
            (PACKET_INFO_4, [first, address]) => {
                // Interface, our address for a reply, the address that stood in the datagram. Which interface the reply
                // takes is the routing's business.
                let ours = (int(*first, 1).cast_unsigned()).to_ne_bytes();
                let [a, b, c, d] = ours;
                let first = u64::from_ne_bytes([0, 0, 0, 0, a, b, c, d]);
                let words = [(HEADER_BYTES + 12) as u64, kind, first, *address, 0];
                self.origin = Origin { words, bytes: HEADER_BYTES + 16 };
            }
            (PACKET_INFO_6, [high, low, interface]) => {
                let first = high.to_ne_bytes();
                if first[0] == 0xff {
                    // Sent to a group: no address to answer from.
                    return;
                }
                // An address of the link's means nothing without its interface.
                let is_link_local = first[0] == 0xfe && first[1] & 0xc0 == 0x80;
                let interface = if is_link_local { *interface } else { 0 };
                let words = [(HEADER_BYTES + 20) as u64, kind, *high, *low, interface];
                self.origin = Origin { words, bytes: HEADER_BYTES + 24 };
            }
            _ => {}
        }
    }
}

/// What is told beside a reply, or a train of them.
#[derive(Clone, Copy)]
pub(super) struct Told {
    /// The cut, then the origin: either can be told alone.
    words: Control,
}

impl Told {
    pub(super) const NOTHING: Self = Self { words: [0; CONTROL_WORDS] };

    /// Puts into a header where its message leaves from, and into what lengths it is to be cut, if it is.
    #[inline]
    pub(super) fn tell(&mut self, header: &mut libc::msghdr, origin: &Origin, cut: Option<u16>) {
        if origin.bytes > 0 {
            self.words[CUT_WORDS..].copy_from_slice(&origin.words);
        }
        let from = match cut {
            Some(cut) => {
                let [low, high] = cut.to_ne_bytes();
                let body = u64::from_ne_bytes([low, high, 0, 0, 0, 0, 0, 0]);
                self.words[..CUT_WORDS].copy_from_slice(&[(HEADER_BYTES + size_of::<u16>()) as u64, SEGMENT, body]);
                0
            }
            None => CUT_WORDS,
        };
        let bytes = (CUT_WORDS - from) * size_of::<u64>() + origin.bytes;
        header.msg_controllen = bytes;
        header.msg_control = if bytes == 0 { std::ptr::null_mut() } else { (&raw mut self.words[from..]).cast() };
    }
}

/// Level and type, as one word.
const fn kind(level: libc::c_int, kind: libc::c_int) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (level.to_ne_bytes(), kind.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

const GRO: u64 = kind(libc::SOL_UDP, libc::UDP_GRO);
const SEGMENT: u64 = kind(libc::SOL_UDP, libc::UDP_SEGMENT);
const PACKET_INFO_4: u64 = kind(libc::IPPROTO_IP, libc::IP_PKTINFO);
const PACKET_INFO_6: u64 = kind(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);

/// The first or second `int` of a word.
const fn int(word: u64, index: usize) -> i32 {
    let bytes = word.to_ne_bytes();
    let at = index * size_of::<i32>();
    i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(bytes: &[u8]) -> Control {
        let mut control = [0; CONTROL_WORDS];
        for (word, chunk) in control.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_ne_bytes(whole);
        }
        control
    }

    /// One message: its header, its body, and what aligns the next.
    fn message(level: libc::c_int, kind: libc::c_int, body: &[u8]) -> Vec<u8> {
        let mut bytes = (HEADER_BYTES + body.len()).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn a_cut_and_an_address_are_read_in_any_order() {
        let cut = message(libc::SOL_UDP, libc::UDP_GRO, &64_i32.to_ne_bytes());
        let asked = [7, 0, 0, 0, 127, 0, 0, 2, 127, 0, 0, 2];
        let asked = message(libc::IPPROTO_IP, libc::IP_PKTINFO, &asked);
        for both in [[cut.clone(), asked.clone()].concat(), [asked, cut].concat()] {
            let beside = Beside::read(&words(&both), both.len());
            assert_eq!(beside.cut, 64);
            let mut header: libc::msghdr = header();
            let mut told = Told::NOTHING;
            told.tell(&mut header, &beside.origin, None);
            assert_eq!(header.msg_controllen, 32);
            // Interface 0, and the address that was asked.
            assert_eq!(told.words[5].to_ne_bytes(), [0, 0, 0, 0, 127, 0, 0, 2]);
            told.tell(&mut header, &beside.origin, Some(64));
            assert_eq!(header.msg_controllen, 24 + 32);
        }
    }

    #[test]
    fn an_interface_is_kept_for_an_address_of_the_link_only() {
        let asked = |first: [u8; 2]| {
            let mut body = [0; 20];
            body[..2].copy_from_slice(&first);
            body[16] = 3;
            let bytes = message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &body);
            Beside::read(&words(&bytes), bytes.len()).origin
        };
        for (first, interface) in [([0x20, 1], 0), ([0xfe, 0x80], 3), ([0xfe, 0xbf], 3), ([0xfd, 0x80], 0)] {
            let origin = asked(first);
            assert_eq!((origin.bytes, int(origin.words[4], 0)), (40, interface), "{first:?}");
        }
        assert_eq!(asked([0xff, 2]), Origin::ANY, "a group");
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        let other = message(libc::SOL_SOCKET, libc::SO_TIMESTAMP, &[0; 16]);
        assert_eq!(Beside::read(&words(&other), other.len()), Beside::NOTHING);
        let mut torn = message(libc::SOL_UDP, libc::UDP_GRO, &64_i32.to_ne_bytes());
        torn[0] = 255;
        assert_eq!(Beside::read(&words(&torn), torn.len()), Beside::NOTHING);
        assert_eq!(Beside::read(&[0; CONTROL_WORDS], CONTROL_BYTES), Beside::NOTHING);
        assert_eq!(Beside::read(&[u64::MAX; CONTROL_WORDS], usize::MAX), Beside::NOTHING);
    }

    fn header() -> libc::msghdr {
        // SAFETY: plain integers and pointers, for which zero is a value.
        unsafe { std::mem::zeroed() }
    }
}
