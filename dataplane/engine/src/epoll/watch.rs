//! The kernel's side of the epoll engine: the watched set, the wait, the housekeeping timer, one accept.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;

/// Events taken by one wait. A busy shard then passes once over 256 connections between two looks at the clock and
/// the commands; those beyond wait their turn in the kernel, which keeps them in order.
const EVENTS_PER_TURN: usize = 256;

/// What is watched for: bytes to read.
pub(super) const READABLE: u32 = libc::EPOLLIN as u32;
/// What is watched for: room to write.
pub(super) const WRITABLE: u32 = libc::EPOLLOUT as u32;
/// What is watched for: nothing but the end of the connection, which is always told.
pub(super) const NOTHING: u32 = 0;

/// One thing that happened.
#[derive(Clone, Copy)]
pub(super) struct Event {
    /// Whose it is.
    pub(super) token: u64,
    what: u32,
}

impl Event {
    /// Whether the connection is broken or closed on both sides.
    pub(super) fn is_hang_up(self) -> bool {
        self.what & (libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0
    }
}

/// The watched set.
pub(super) struct Watch {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes a number and touches no memory of ours.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_TURN] })
    }

    /// Starts to watch, level-triggered.
    pub(super) fn add(&self, descriptor: RawFd, token: u64, what: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor, token, what)
    }

    /// Watches for something else from now on.
    pub(super) fn change(&self, descriptor: RawFd, token: u64, what: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, descriptor, token, what)
    }

    /// Ceases to watch. A closed descriptor leaves the set by itself.
    pub(super) fn remove(&self, descriptor: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, descriptor, 0, NOTHING)
    }

    fn control(&self, operation: libc::c_int, descriptor: RawFd, token: u64, what: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: what, u64: token };
        // SAFETY: `event` is live during the call; the kernel copies it.
        let result = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, descriptor, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// How many things happened, at most `EVENTS_PER_TURN`. `sleep`: until one does; otherwise only looks.
    pub(super) fn wait(&mut self, sleep: bool) -> io::Result<usize> {
        // Never a time-out: -1 sleeps until something happens, 0 returns at once (invariant I12).
        let patience = if sleep { -1 } else { 0 };
        let room = EVENTS_PER_TURN as libc::c_int;
        // SAFETY: `events` has `EVENTS_PER_TURN` entries and is not accessed during the call.
        let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), self.events.as_mut_ptr(), room, patience) };
        match usize::try_from(count) {
            Ok(count) => Ok(count.min(EVENTS_PER_TURN)),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }

    /// The thing at `index` of the last wait.
    pub(super) fn event(&self, index: usize) -> Event {
        // The kernel's structure is packed on some machines: its fields are copied out, never referred to.
        let libc::epoll_event { events, u64 } = self.events[index];
        Event { token: u64, what: events }
    }
}

/// A timer that becomes readable every `period_ms`.
pub(crate) fn timer(period_ms: u64) -> io::Result<OwnedFd> {
    let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
    // SAFETY: takes two numbers and touches no memory of ours.
    let timer = owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
    let seconds = libc::time_t::try_from(period_ms / 1_000).unwrap_or(libc::time_t::MAX);
    let period = libc::timespec { tv_sec: seconds, tv_nsec: (period_ms % 1_000 * 1_000_000) as libc::c_long };
    let setting = libc::itimerspec { it_interval: period, it_value: period };
    // SAFETY: `setting` is live and only read; a null pointer asks for no copy of the old setting.
    let result = unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const setting, null_mut()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(timer) }
}

/// Makes the timer unreadable until its next period.
pub(super) fn clear_timer(timer: &OwnedFd) {
    let mut periods = 0_u64;
    // SAFETY: writes at most the 8 bytes of `periods`. It can only fail when no period has passed.
    unsafe { libc::read(timer.as_raw_fd(), (&raw mut periods).cast(), size_of::<u64>()) };
}

/// Accepts one connection, non-blocking.
///
/// # Errors
/// `WouldBlock` when none waits; otherwise what the kernel says.
pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<TcpStream> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null pointers ask for no address; touches no memory of ours.
    let descriptor = unsafe { libc::accept4(listener.as_raw_fd(), null_mut(), null_mut(), flags) };
    Ok(TcpStream::from(owned(descriptor)?))
}

fn owned(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
