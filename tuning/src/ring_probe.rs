//! Whether io_uring is to be had here, found out by using it: real size, real flags, a buffer ring, one round trip.
//!
//! The parameters of the ring stand here, because a probe of another ring would prove nothing about the engine's.
//! Asking the kernel for its version or its list of operations is no substitute: some kernels carry the operation
//! and refuse the registration.

use crate::buffer_ring::BufferRing;
use io_uring::types::{Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, cqueue, opcode, squeue};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Submission entries. A turn may close, re-arm and answer every dirty connection; when full the loop submits and
/// goes on, so this is a matter of batching: 2,048 × 64 bytes = 128 KiB a shard.
pub const RING_ENTRIES: u32 = 2_048;

/// Completion entries. Half the slab's connections can speak in one turn before the kernel starts to park
/// completions aside: 8,192 × 16 bytes = 128 KiB a shard.
pub const COMPLETION_ENTRIES: u32 = 8_192;

/// Slots of the sparse file table: every connection of a full slab (16,384), and 64 on their way in or out beside it.
/// The kernel wants the nofile limit to be at least this.
pub const FILE_TABLE_ENTRIES: u32 = 16_384 + 64;

/// Receive buffers of one shard. A buffer is held for one loop turn only, so 1,024 × 4 KiB = 4 MiB serve as many
/// busy connections a turn; beyond it the receive ends with `ENOBUFS` and is armed again.
pub const RECEIVE_BUFFERS: u16 = 1_024;

/// Bytes of one receive buffer: 16 pipelined requests of 250 bytes fit. An odd number of cache lines: buffers of a whole
/// page would all begin in the same set of the first-level cache.
pub const RECEIVE_BUFFER_BYTES: usize = 4_096 + 64;

/// The one buffer group of a ring.
pub const RECEIVE_GROUP: u16 = 0;

/// Longest the probe waits for one completion. Loopback answers in microseconds; this only keeps a broken kernel
/// from hanging the start.
const PROBE_WAIT_S: u64 = 2;

/// What the probe sends to itself.
const HELLO: &[u8] = b"trinity";

/// A builder with the flags that every ring of this process has; `build(RING_ENTRIES)` on the thread that will use it.
#[must_use]
pub fn ring_builder() -> Builder<squeue::Entry, cqueue::Entry> {
    let mut builder = IoUring::builder();
    // One thread submits, and completions are worked off when that thread asks for them, not by interrupting it.
    // A failed entry must not hold back those behind it.
    builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_cqsize(COMPLETION_ENTRIES).dontfork();
    builder
}

/// Why the ring was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RingRefused {
    /// `EPERM`: a seccomp profile or the `kernel.io_uring_disabled` sysctl. AWS Fargate always.
    Denied,
    /// `ENOSYS`: the kernel is older than io_uring, or built without it.
    Missing,
    /// `EINVAL`: the kernel is too old for the flags or the buffer ring that the engine needs.
    TooOld,
    /// `ENOMEM`: raise the memlock limit. Not a reason to fall back.
    NoMemory,
    /// `EMFILE` or `ENFILE`: raise the nofile limit. Not a reason to fall back.
    NoFiles,
    /// Another errno: shown as it is. Not a reason to fall back.
    Other(i32),
}

impl RingRefused {
    /// Whether io_uring is not to be had here at all, so that epoll is the right answer; otherwise something is
    /// lacking that should be raised.
    #[must_use]
    pub const fn is_unavailable(self) -> bool {
        matches!(self, Self::Denied | Self::Missing | Self::TooOld)
    }

    /// The reason for this errno.
    #[must_use]
    pub const fn from_errno(errno: i32) -> Self {
        match errno {
            libc::EPERM | libc::EACCES => Self::Denied,
            libc::ENOSYS => Self::Missing,
            libc::EINVAL | libc::EOPNOTSUPP => Self::TooOld,
            libc::ENOMEM => Self::NoMemory,
            libc::EMFILE | libc::ENFILE => Self::NoFiles,
            other => Self::Other(other),
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Denied => {
                "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile and set \
                 kernel.io_uring_disabled=0, or use TB_ENGINE=epoll (AWS Fargate allows nothing else)"
            }
            Self::Missing => "use Linux 6.1 or newer with CONFIG_IO_URING, or TB_ENGINE=epoll",
            Self::TooOld => "use Linux 6.1 or newer, or TB_ENGINE=epoll",
            Self::NoMemory => "raise the memlock limit (ulimit -l unlimited) or the container's memory",
            Self::NoFiles => {
                "raise the hard nofile limit to 65536 (ulimit -Hn, LimitNOFILE=, or the container's ulimits)"
            }
            Self::Other(_) => "unexpected: report it, and use TB_ENGINE=epoll meanwhile",
        }
    }
}

impl fmt::Display for RingRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("denied (EPERM)"),
            Self::Missing => f.write_str("not in this kernel (ENOSYS)"),
            Self::TooOld => f.write_str("this kernel's is too old (EINVAL)"),
            Self::NoMemory => f.write_str("no memory for the ring (ENOMEM)"),
            Self::NoFiles => f.write_str("no room for its files (EMFILE)"),
            Self::Other(errno) => write!(f, "{}", io::Error::from_raw_os_error(*errno)),
        }
    }
}

/// What the probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RingVerdict {
    /// Whether `FIXED_FD_INSTALL` works (Linux 6.8): accept into direct descriptors.
    pub direct_descriptors: bool,
}

/// Probes io_uring on a thread of its own, so that nothing of it is left behind.
///
/// # Errors
/// Why it is not to be had.
pub fn probe() -> Result<RingVerdict, RingRefused> {
    let started = std::thread::Builder::new().name("ring-probe".to_owned()).spawn(round_trip);
    let outcome = started.map(std::thread::JoinHandle::join);
    let errno = |error: io::Error| RingRefused::from_errno(error.raw_os_error().unwrap_or(libc::EIO));
    match outcome {
        Ok(Ok(result)) => result.map_err(errno),
        Ok(Err(_)) => Err(RingRefused::Other(libc::EIO)),
        Err(error) => Err(errno(error)),
    }
}

/// Does what the engine will do, once: accept, receive into a provided buffer, send, and turn a direct descriptor
/// into an ordinary one.
fn round_trip() -> io::Result<RingVerdict> {
    let mut ring = ring_builder().build(RING_ENTRIES)?;
    ring.submitter().register_ring_fd()?;
    ring.submitter().register_files_sparse(FILE_TABLE_ENTRIES)?;
    let buffers = BufferRing::register(&ring.submitter(), RECEIVE_GROUP, RECEIVE_BUFFERS, RECEIVE_BUFFER_BYTES)?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    client.set_read_timeout(Some(std::time::Duration::from_secs(PROBE_WAIT_S)))?;
    let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true).build();
    let accepted = complete(&mut ring, &accept.user_data(1))?;
    let slot = Fixed(u32::try_from(accepted.result()).unwrap_or_default());

    client.write_all(HELLO)?;
    let receive = opcode::RecvMulti::new(slot, RECEIVE_GROUP).build();
    let received = complete(&mut ring, &receive.user_data(2))?;
    let id = cqueue::buffer_select(received.flags()).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let length = usize::try_from(received.result()).unwrap_or_default();
    // SAFETY: the completion just named `id`, and nothing is given back in this function.
    let echo = unsafe { buffers.filled(id, length) };
    let send = opcode::Send::new(slot, echo.as_ptr(), u32::try_from(echo.len()).unwrap_or_default()).build();
    complete(&mut ring, &send.user_data(3))?;
    let mut back = [0; HELLO.len()];
    client.read_exact(&mut back)?;
    if back != HELLO {
        return Err(io::Error::from_raw_os_error(libc::EIO));
    }

    let install = opcode::FixedFdInstall::new(slot, 0).build().user_data(4);
    let direct_descriptors = match complete(&mut ring, &install) {
        Ok(installed) => {
            // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
            drop(unsafe { OwnedFd::from_raw_fd(installed.result()) });
            true
        }
        Err(error) if error.raw_os_error().is_some_and(|errno| RingRefused::from_errno(errno).is_unavailable()) => {
            false
        }
        Err(error) => return Err(error),
    };
    buffers.unregister(&ring.submitter())?;
    Ok(RingVerdict { direct_descriptors })
}

/// Submits one entry and waits for its completion; a negative result is its error.
fn complete(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<cqueue::Entry> {
    // SAFETY: every entry of this file points at memory that outlives its completion, which is awaited below; a
    // receive writes only into registered buffers, which are leaked or unregistered but never just freed.
    unsafe { ring.submission().push(entry) }.map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))?;
    loop {
        let wait = Timespec::new().sec(PROBE_WAIT_S);
        ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&wait))?;
        let found = ring.completion().find(|completion| completion.user_data() == entry.get_user_data());
        let Some(completion) = found else { continue };
        if completion.result() < 0 {
            return Err(io::Error::from_raw_os_error(-completion.result()));
        }
        return Ok(completion);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_become_reasons() {
        let table = [
            (libc::EPERM, RingRefused::Denied, true),
            (libc::EACCES, RingRefused::Denied, true),
            (libc::ENOSYS, RingRefused::Missing, true),
            (libc::EINVAL, RingRefused::TooOld, true),
            (libc::ENOMEM, RingRefused::NoMemory, false),
            (libc::EMFILE, RingRefused::NoFiles, false),
            (libc::ENFILE, RingRefused::NoFiles, false),
            (libc::EIO, RingRefused::Other(libc::EIO), false),
        ];
        for (errno, reason, unavailable) in table {
            assert_eq!(RingRefused::from_errno(errno), reason);
            assert_eq!(reason.is_unavailable(), unavailable, "{reason:?}");
            assert!(!reason.remedy().is_empty() && !reason.to_string().is_empty());
        }
    }

    /// What the kernel says to the plainest ring there is decides what the probe may say.
    #[test]
    fn the_probe_agrees_with_the_kernel() {
        let plain = ring_builder().build(8);
        match (plain, probe()) {
            (Ok(_), Ok(verdict)) => assert_eq!(probe(), Ok(verdict), "a second probe finds the same"),
            (Ok(_), Err(refused)) => assert!(!refused.remedy().is_empty(), "{refused}"),
            (Err(error), verdict) => {
                let reason = RingRefused::from_errno(error.raw_os_error().expect("an errno"));
                assert_eq!(verdict, Err(reason));
            }
        }
    }
}
