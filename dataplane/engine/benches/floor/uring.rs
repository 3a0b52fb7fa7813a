//! The floor on io_uring: the probe's ring, multishot accept into direct descriptors, multishot receive from provided
//! buffers, one send in flight per connection, one submission per turn.

use super::datagrams::FloorDatagrams;
use super::{Account, FloorSetup, Replies};
use io_uring::types::{Fd, Fixed};
use io_uring::{SubmissionQueue, Submitter, cqueue, opcode, squeue};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use tuning::buffer_ring::BufferRing;
use tuning::ring_probe::{
    FILE_TABLE_ENTRIES, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS, RECEIVE_GROUP, RING_ENTRIES, ring_builder,
};

/// What a completion is about: the upper half of its user data; the lower is the connection's slot.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const CLOSE: u64 = 3;
const DATAGRAMS: u64 = 4;
const TRAINS: u64 = 5;

#[derive(Clone, Copy, Default)]
struct Connection {
    account: Account,
    /// Bytes of the send in flight that the kernel has not reported sent.
    sending: usize,
    ended: bool,
    /// Whether its slot is being given back.
    closing: bool,
}

struct Floor<'a> {
    submitter: Submitter<'a>,
    queue: SubmissionQueue<'a>,
    buffers: BufferRing,
    replies: Replies,
    connections: Vec<Connection>,
    setup: &'a FloorSetup,
    datagrams: FloorDatagrams,
    trains: FloorDatagrams,
}

pub fn serve(setup: FloorSetup) -> io::Result<()> {
    let mut ring = ring_builder().build(RING_ENTRIES)?;
    let (mut submitter, queue, mut completions) = ring.split();
    submitter.register_ring_fd()?;
    submitter.register_files_sparse(FILE_TABLE_ENTRIES)?;
    let buffers = BufferRing::register(&submitter, RECEIVE_GROUP, RECEIVE_BUFFERS, RECEIVE_BUFFER_BYTES)?;
    let mut floor = Floor {
        submitter,
        queue,
        buffers,
        replies: Replies::new(&setup.reply),
        connections: vec![Connection::default(); FILE_TABLE_ENTRIES as usize],
        setup: &setup,
        datagrams: FloorDatagrams::new(&setup.datagrams, false)?,
        trains: FloorDatagrams::new(&setup.trains, true)?,
    };
    floor.accept()?;
    floor.watch(DATAGRAMS)?;
    floor.watch(TRAINS)?;
    loop {
        floor.queue.sync();
        floor.submitter.submit_and_wait(1)?;
        completions.sync();
        for completion in &mut completions {
            floor.complete(&completion)?;
        }
        floor.buffers.publish();
    }
}

impl Floor<'_> {
    fn complete(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let slot = (completion.user_data() & u64::from(u32::MAX)) as usize;
        let more = cqueue::more(completion.flags());
        match completion.user_data() >> 32 {
            ACCEPT => {
                if let Ok(slot) = usize::try_from(completion.result()) {
                    self.connections[slot] = Connection::default();
                    self.receive(slot)?;
                }
                if more { Ok(()) } else { self.accept() }
            }
            RECEIVE => self.received(slot, completion),
            SEND => {
                let connection = &mut self.connections[slot];
                let sent = usize::try_from(completion.result()).unwrap_or(0);
                // The loads here read what they ask for, so a send is whole or its connection is gone.
                connection.ended |= sent != connection.sending;
                connection.sending = 0;
                self.turn(slot)
            }
            DATAGRAMS => {
                while self.datagrams.serve(self.setup.datagrams.as_fd())? {}
                if more { Ok(()) } else { self.watch(DATAGRAMS) }
            }
            TRAINS => {
                while self.trains.serve(self.setup.trains.as_fd())? {}
                if more { Ok(()) } else { self.watch(TRAINS) }
            }
            _ => Ok(()),
        }
    }

    fn received(&mut self, slot: usize, completion: &cqueue::Entry) -> io::Result<()> {
        if let Some(id) = cqueue::buffer_select(completion.flags()) {
            // SAFETY: this completion names the buffer, and nobody looks into it: the floor only counts bytes.
            unsafe { self.buffers.give_back(id) };
        }
        let connection = &mut self.connections[slot];
        match usize::try_from(completion.result()) {
            Ok(0) => connection.ended = true,
            Ok(bytes) => connection.account.receive(bytes, self.setup.request_bytes),
            Err(_) => connection.ended = completion.result() != -libc::ENOBUFS,
        }
        if !cqueue::more(completion.flags()) && !connection.ended {
            self.receive(slot)?;
        }
        self.turn(slot)
    }

    /// Sends what is owed, unless a send is in flight; closes what has ended.
    fn turn(&mut self, slot: usize) -> io::Result<()> {
        let connection = &mut self.connections[slot];
        if connection.sending > 0 {
            return Ok(());
        }
        if connection.ended {
            if std::mem::replace(&mut connection.closing, true) {
                return Ok(());
            }
            let close = opcode::Close::new(Fixed(slot as u32)).build();
            return self.push(close, CLOSE, slot);
        }
        if connection.account.owed == 0 {
            return Ok(());
        }
        let bytes = self.replies.take(connection.account.owed);
        connection.account.owed -= bytes.len() / self.replies.one;
        connection.sending = bytes.len();
        let send = opcode::Send::new(Fixed(slot as u32), bytes.as_ptr(), bytes.len() as u32);
        self.push(send.flags(libc::MSG_WAITALL).build(), SEND, slot)
    }

    fn accept(&mut self) -> io::Result<()> {
        let listener = Fd(self.setup.listener.as_raw_fd());
        self.push(opcode::AcceptMulti::new(listener).allocate_file_index(true).build(), ACCEPT, 0)
    }

    fn receive(&mut self, slot: usize) -> io::Result<()> {
        self.push(opcode::RecvMulti::new(Fixed(slot as u32), RECEIVE_GROUP).build(), RECEIVE, slot)
    }

    fn watch(&mut self, kind: u64) -> io::Result<()> {
        let socket = if kind == TRAINS { &self.setup.trains } else { &self.setup.datagrams };
        let socket = Fd(socket.as_raw_fd());
        self.push(opcode::PollAdd::new(socket, libc::POLLIN as u32).multi(true).build(), kind, 0)
    }

    fn push(&mut self, entry: squeue::Entry, kind: u64, slot: usize) -> io::Result<()> {
        let entry = entry.user_data(kind << 32 | slot as u64);
        loop {
            // SAFETY: a send points into `replies`, which lives as long as the ring; receives write only into the
            // registered buffers, which are never freed.
            if unsafe { self.queue.push(&entry) }.is_ok() {
                return Ok(());
            }
            self.queue.sync();
            self.submitter.submit()?;
            self.queue.sync();
        }
    }
}
