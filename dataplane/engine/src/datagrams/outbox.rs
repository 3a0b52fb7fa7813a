//! Replies that are on their way: written one behind the other, sent together.
//!
//! Replies to one peer that are equally long (the last may be shorter) leave as one send, which the kernel, or the card,
//! cuts into datagrams (`UDP_SEGMENT`): the way through the stack is paid once. To the peer it is all the same. Where a
//! peer's route does not permit it the same replies leave one by one, his alone. The order of what one peer gets is kept; between peers
//! there is none.

use super::control::Told;
use super::peer::Addresses;
use shared::limits::DATAGRAM_OUT_MAX;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends of one system call at most: as many as messages received by one.
pub(super) const GROUPS_MAX: usize = super::inbox::MESSAGES_MAX;

/// Bytes of replies that are sent together: the longest reply to each message of a batch fits (64 × 1,200 bytes), and
/// 1,280 binary ones.
const BYTES_MAX: usize = 80 * 1_024;

/// Runs of replies to one peer that are sent together: four to each message of a batch. Clients whose datagrams come
/// mixed with others' make more runs than there are groups; 256 are 5 KiB.
const PIECES_MAX: usize = 4 * GROUPS_MAX;

/// Datagrams of one send at most: `UDP_MAX_SEGMENTS` of kernels before 6.10, now twice that.
const SEGMENTS_MAX: usize = 64;

/// Bytes of one send at most: what an IPv4 datagram may hold.
const SEND_BYTES_MAX: usize = 65_507;

/// Places to find a peer's group by its hash: twice as many as groups, so that one is always free and the way to it short.
const PLACES: usize = 2 * GROUPS_MAX;
const PLACE_SHIFT: u32 = u64::BITS - PLACES.trailing_zeros();

const _: () = assert!(BYTES_MAX >= GROUPS_MAX * DATAGRAM_OUT_MAX && PLACES.is_power_of_two() && GROUPS_MAX < 256);

/// Replies that leave as one send.
#[derive(Clone, Copy)]
struct Group {
    /// The number of whom the first of them answers: it tells to whom and from where.
    asker: usize,
    /// Length of every reply but the last, which may be shorter.
    segment: usize,
    replies: usize,
    bytes: usize,
    pieces: usize,
    is_closed: bool,
}

impl Group {
    /// Whether a reply of `length` bytes may follow.
    #[inline]
    const fn takes(&self, length: usize) -> bool {
        !self.is_closed
            && length <= self.segment
            && self.replies < SEGMENTS_MAX
            && self.bytes + length <= SEND_BYTES_MAX
    }
}

/// What a shard's datagram socket counts of its replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SendCounts {
    /// Replies the kernel would not take.
    pub(super) unsent: u64,
    /// Replies that left together with others.
    pub(super) grouped: u64,
    /// Grouped sends that were refused; their replies left one by one.
    pub(super) groups_refused: u64,
}

/// Where the replies to one message go.
pub(super) struct Recipient<'a, A> {
    addresses: &'a A,
    asker: usize,
    /// The group that the last of them joined.
    group: Option<usize>,
}

impl<'a, A: Addresses> Recipient<'a, A> {
    /// Whoever has this number.
    #[inline]
    pub(super) const fn new(addresses: &'a A, asker: usize) -> Self {
        Self { addresses, asker, group: None }
    }

    /// After a send, when no group is left.
    #[inline]
    pub(super) const fn forget_group(&mut self) {
        self.group = None;
    }
}

/// Replies and the headers that point at them. No vector is ever resized, so what is pointed at stays.
pub(super) struct Outbox {
    bytes: Vec<u8>,
    filled: usize,
    groups: Vec<Group>,
    /// In the order in which they were written.
    pieces: Vec<libc::iovec>,
    /// The group of each.
    of_groups: Vec<u8>,
    /// The same pieces by group, where those of one group do not stand together.
    gathered: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// What is told beside each send.
    told: Vec<Told>,
    /// The last group of a peer, plus one, by its hash; 0: none.
    places: [u8; PLACES],
    /// Whether the kernel knows grouped sends at all: asked before the first.
    is_known: Option<bool>,
    pub(super) counts: SendCounts,
}

impl Outbox {
    /// Allocates all that it will ever need: about 110 KiB.
    pub(super) fn new() -> Self {
        // SAFETY: plain integers and pointers, for which zero is a value.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            bytes: vec![0; BYTES_MAX],
            filled: 0,
            groups: Vec::with_capacity(GROUPS_MAX),
            pieces: Vec::with_capacity(PIECES_MAX),
            of_groups: Vec::with_capacity(PIECES_MAX),
            gathered: vec![nothing; PIECES_MAX],
            headers: vec![header; GROUPS_MAX],
            told: vec![Told::NOTHING; GROUPS_MAX],
            places: [0; PLACES],
            is_known: None,
            counts: SendCounts::default(),
        }
    }

    /// Whether one more reply might not fit: send first.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.filled + DATAGRAM_OUT_MAX > BYTES_MAX || self.groups.len() == GROUPS_MAX || self.pieces.len() == PIECES_MAX
    }

    /// Where the next reply is to be written: at least as much room as the longest needs, unless it is full.
    #[inline]
    pub(super) fn room(&mut self) -> &mut [u8] {
        let end = (self.filled + DATAGRAM_OUT_MAX).min(BYTES_MAX);
        &mut self.bytes[self.filled..end]
    }

    /// Adds the reply of `length` bytes that was written there.
    #[inline]
    pub(super) fn add(&mut self, to: &mut Recipient<'_, impl Addresses>, length: usize) {
        let length = length.min(DATAGRAM_OUT_MAX);
        let index = match to.group {
            Some(group) if self.groups[group].takes(length) => group,
            _ => self.join(to, length),
        };
        to.group = Some(index);
        let group = &mut self.groups[index];
        group.replies += 1;
        group.bytes += length;
        group.is_closed |= length < group.segment;
        // A reply that follows one of its own group lengthens that one's piece.
        if self.of_groups.last() == Some(&(index as u8))
            && let Some(last) = self.pieces.last_mut()
        {
            last.iov_len += length;
        } else {
            group.pieces += 1;
            let start = self.bytes[self.filled..].as_mut_ptr().cast();
            self.pieces.push(libc::iovec { iov_base: start, iov_len: length });
            self.of_groups.push(index as u8);
        }
        self.filled += length;
    }

    /// The recipient's last group, if a reply of this length may join it; else a new one.
    #[inline]
    fn join(&mut self, to: &Recipient<'_, impl Addresses>, length: usize) -> usize {
        let place = self.place(to);
        if let Some(group) = usize::from(self.places[place]).checked_sub(1)
            && self.groups[group].takes(length)
        {
            return group;
        }
        // Where replies leave one by one none may follow.
        let is_closed = !self.may_group();
        self.groups.push(Group { asker: to.asker, segment: length, replies: 0, bytes: 0, pieces: 0, is_closed });
        self.places[place] = self.groups.len() as u8;
        self.groups.len() - 1
    }

    #[inline]
    fn may_group(&self) -> bool {
        self.is_known != Some(false)
    }

    /// The place of whoever sent the same to the same address of ours, or the free one where he would be.
    #[inline]
    fn place(&self, to: &Recipient<'_, impl Addresses>) -> usize {
        let (addresses, peer) = (to.addresses, to.addresses.peer(to.asker));
        let mut place = (peer.hash() >> PLACE_SHIFT) as usize;
        while let Some(group) = usize::from(self.places[place]).checked_sub(1) {
            let other = self.groups[group].asker;
            if addresses.peer(other) == peer && addresses.origin(other) == addresses.origin(to.asker) {
                break;
            }
            place = (place + 1) % PLACES;
        }
        place
    }

    /// Sends everything, all of it to these. A reply the kernel refuses is passed over; when it has no room, the rest goes.
    pub(super) fn send(&mut self, addresses: &impl Addresses, socket: BorrowedFd<'_>) {
        if self.groups.is_empty() {
            return;
        }
        if self.is_known.is_none() && self.groups.iter().any(|group| group.replies > 1) {
            // An older kernel would not refuse the control message but overlook it, and send one long datagram.
            self.is_known = Some(tuning::sockets::cuts_trains(socket));
        }
        self.link(addresses);
        let mut sent = 0;
        while sent < self.groups.len() {
            sent += match self.send_from(sent, addresses, socket) {
                Some(groups) => groups,
                None => {
                    self.counts.unsent += self.groups[sent..].iter().map(|group| group.replies as u64).sum::<u64>();
                    break;
                }
            };
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.filled = 0;
        self.groups.clear();
        self.pieces.clear();
        self.of_groups.clear();
        self.places = [0; PLACES];
    }

    /// Points each group's header at its pieces.
    fn link(&mut self, addresses: &impl Addresses) {
        let mut vectors = if self.pieces.len() == self.groups.len() {
            // One piece each, in the same order.
            self.pieces.as_mut_ptr()
        } else {
            self.gather();
            self.gathered.as_mut_ptr()
        };
        for ((group, header), told) in self.groups.iter().zip(&mut self.headers).zip(&mut self.told) {
            let header = &mut header.msg_hdr;
            let peer = addresses.peer(group.asker);
            // Only ever read: it is where a reply goes.
            header.msg_name = std::ptr::from_ref(peer).cast_mut().cast();
            header.msg_namelen = peer.length();
            header.msg_iov = vectors;
            header.msg_iovlen = group.pieces;
            let cut = u16::try_from(group.segment).ok().filter(|_| group.replies > 1);
            told.tell(header, addresses.origin(group.asker), cut);
            // All pieces of all groups together are in one of the two vectors.
            vectors = vectors.wrapping_add(group.pieces);
        }
    }

    /// Brings the pieces of each group together, in their order.
    fn gather(&mut self) {
        let mut next = [0; GROUPS_MAX];
        let mut begin = 0;
        for (next, group) in next.iter_mut().zip(&self.groups) {
            *next = begin;
            begin += group.pieces;
        }
        for (piece, group) in self.pieces.iter().zip(&self.of_groups) {
            let next = &mut next[usize::from(*group)];
            self.gathered[*next] = *piece;
            *next += 1;
        }
    }

    /// Sends groups from `first` on with one system call; how many are dealt with, `None` when there is no room.
    fn send_from(&mut self, first: usize, addresses: &impl Addresses, socket: BorrowedFd<'_>) -> Option<usize> {
        let is_plain = |group: &Group| group.replies == 1;
        let mut count = self.groups.len() - first;
        if !self.may_group() {
            count = self.groups[first..].iter().take_while(|group| is_plain(group)).count();
            if count == 0 {
                return self.send_singly(first, addresses, socket).then_some(1);
            }
        }
        // SAFETY: `first + count` headers were linked; they and all they point at live in `self` and in the addresses that
        // the names are from, and nothing else writes to them during the call.
        let result = unsafe {
            let headers = self.headers[first..first + count].as_mut_ptr();
            libc::sendmmsg(socket.as_raw_fd(), headers, count as libc::c_uint, libc::MSG_DONTWAIT)
        };
        if let Ok(sent) = usize::try_from(result) {
            let together = self.groups[first..first + sent].iter().filter(|group| !is_plain(group));
            self.counts.grouped += together.map(|group| group.replies as u64).sum::<u64>();
            return Some(sent);
        }
        // The error is the first message's alone.
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => Some(0),
            _ if error.kind() == io::ErrorKind::WouldBlock => None,
            Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP | libc::ENOPROTOOPT)
                if !is_plain(&self.groups[first]) =>
            {
                // The route to this peer (a tunnel, a very small MTU): no reason to send to others one by one. Nor is it
                // remembered, since it may change, and a refused call costs less than one of those that follow it.
                self.counts.groups_refused += 1;
                self.send_singly(first, addresses, socket).then_some(1)
            }
            // No route to that peer, or a packet filter.
            _ => {
                self.counts.unsent += self.groups[first].replies as u64;
                Some(1)
            }
        }
    }

    /// Sends the replies of one group one by one; `false` when there is no room.
    fn send_singly(&mut self, group: usize, addresses: &impl Addresses, socket: BorrowedFd<'_>) -> bool {
        let header = &mut self.headers[group].msg_hdr;
        let (group, told) = (&mut self.groups[group], &mut self.told[group]);
        told.tell(header, addresses.origin(group.asker), None);
        let segment = group.segment;
        for piece in 0..group.pieces {
            // SAFETY: the header was linked to so many pieces.
            let piece = unsafe { &*header.msg_iov.add(piece) };
            for at in (0..piece.iov_len).step_by(segment) {
                let iov_base = piece.iov_base.wrapping_byte_add(at);
                let mut one = libc::iovec { iov_base, iov_len: segment.min(piece.iov_len - at) };
                let single = libc::msghdr { msg_iov: &raw mut one, msg_iovlen: 1, ..*header };
                if !send_one(socket, &single, &mut self.counts) {
                    return false;
                }
                group.replies -= 1;
            }
        }
        true
    }
}

/// Sends one datagram; `false` when there is no room. Refused otherwise, it is counted as not sent.
fn send_one(socket: BorrowedFd<'_>, header: &libc::msghdr, counts: &mut SendCounts) -> bool {
    loop {
        // SAFETY: the header and all it points at are live and not accessed by anything else during the call.
        let result = unsafe { libc::sendmsg(socket.as_raw_fd(), header, libc::MSG_DONTWAIT) };
        if result >= 0 {
            return true;
        }
        match io::Error::last_os_error().kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => return false,
            _ => {
                counts.unsent += 1;
                return true;
            }
        }
    }
}
