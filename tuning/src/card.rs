//! What a network card's driver tells through `ethtool`'s calls, without a privilege.
//!
//! Only questions are asked; settings are changed by `nic-queues.sh` or by hand.

use libc::{c_char, c_int, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Questions of `linux/ethtool.h`.
const GET_GRO: u32 = 0x2b;
const GET_GSO: u32 = 0x23;
const GET_CHANNELS: u32 = 0x3c;

/// The call that carries them (`linux/sockios.h`).
const SIOCETHTOOL: c_ulong = 0x8946;

/// What is known of one card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Card {
    /// Whether packets of one flow are put together before the stack sees them (GRO).
    pub receive_grouping: Option<bool>,
    /// Whether long sends are cut as late as possible (GSO).
    pub send_grouping: Option<bool>,
    /// Most receive queues that the card can have.
    pub queues_max: Option<u64>,
}

impl Card {
    /// Asks the driver of `interface`; `None` where there is no such interface, or nothing may be asked.
    #[must_use]
    pub fn read(interface: &str) -> Option<Self> {
        let socket = socket().ok()?;
        let flag = |question| {
            let mut answer = Flag { question, value: 0 };
            ask(&socket, interface, (&raw mut answer).cast()).ok().map(|()| answer.value != 0)
        };
        let mut channels = Channels { question: GET_CHANNELS, ..Channels::default() };
        let queues_max = ask(&socket, interface, (&raw mut channels).cast())
            .ok()
            .map(|()| u64::from(channels.combined_max.max(channels.receive_max)))
            .filter(|most| *most > 0);
        let card = Self { receive_grouping: flag(GET_GRO), send_grouping: flag(GET_GSO), queues_max };
        (card != Self::default()).then_some(card)
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct Flag {
    question: u32,
    value: u32,
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    question: u32,
    receive_max: u32,
    send_max: u32,
    other_max: u32,
    combined_max: u32,
    receive: u32,
    send: u32,
    other: u32,
    combined: u32,
}

/// Any socket will do: the call is about the interface.
fn socket() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// Puts one question; `answer` is a structure of `ethtool.h` that begins with it.
fn ask(socket: &OwnedFd, interface: &str, answer: *mut c_char) -> io::Result<()> {
    if interface.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: an `ifreq` is plain numbers and pointers, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = answer;
    // SAFETY: `request` is live, its name ends in a zero (checked above), and `answer` points at a live structure of the
    // size that the kernel takes from the question in its first field.
    let result: c_int = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_groups_and_has_no_queues_to_set() {
        let Some(loopback) = Card::read("lo") else {
            eprintln!("skipped: no interface called lo, or no ethtool calls here");
            return;
        };
        assert!(loopback.send_grouping.is_some(), "{loopback:?}");
        assert_eq!(loopback.queues_max, None);
    }

    #[test]
    fn no_such_card_tells_nothing() {
        for name in ["", "no-such-card", "a-name-longer-than-any-interface"] {
            assert_eq!(Card::read(name), None, "{name:?}");
        }
    }
}
