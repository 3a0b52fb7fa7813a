//! The monoio engine, a rival: one shard's loop on the monoio runtime and its io_uring driver.
//!
//! A task for each connection: one receive or one send in flight, each submitted and completed through the ring, and
//! the buffer of either owned by the runtime meanwhile. Nothing is borrowed across an await: what a task does next is
//! decided in `rivals`, in one call. The runtime's epoll driver is not built in: where io_uring is denied this engine
//! does not start. Its timers are not used, so that its wait has no time-out: housekeeping reads a timer of the kernel.

use crate::rivals::{Next, Outgoing, READ_BYTES, RivalLoop};
use crate::wiring::ShardLoop;
use ::monoio::buf::IoBuf;
use ::monoio::fs::File;
use ::monoio::io::{AsyncReadRent, AsyncWriteRent};
use ::monoio::net::udp::UdpSocket;
use ::monoio::net::{TcpListener, TcpStream};
use ::monoio::{IoUringDriver, RuntimeBuilder, spawn};
use dataplane_core::shard::StreamToken;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use tuning::ring_probe::{RING_ENTRIES, RingRefused};

/// Bytes of a receive while a connection is quiet: 30 pipelined requests fit, and 16,384 silent connections hold 64 MiB.
const RECEIVE_BYTES: usize = 4 * 1_024;

/// The loop, for the tasks of its thread: borrowed for one call at a time, never across an await.
type Shared = Rc<RefCell<RivalLoop>>;

/// Runs the shard until it is told to stop.
///
/// # Errors
/// One line: what the kernel refuses; before `announce` for want of resources, afterwards only through a bug.
pub(crate) fn run(setup: ShardLoop) -> Result<(), String> {
    turn_until_stopped(setup).map_err(|error| {
        let refused = RingRefused::from_errno(error.raw_os_error().unwrap_or(libc::EIO));
        format!("monoio: {refused}: {}", refused.remedy())
    })
}

fn turn_until_stopped(setup: ShardLoop) -> io::Result<()> {
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new().with_entries(RING_ENTRIES).build()?;
    runtime.block_on(turn(Rc::new(RefCell::new(RivalLoop::new(setup)?))))
}

/// Starts the other tasks, then waits for news: ticks and commands.
async fn turn(shared: Shared) -> io::Result<()> {
    let files = Files::open(&shared.borrow())?;
    spawn(accept(Rc::clone(&shared), files.listener));
    spawn(serve_datagrams(Rc::clone(&shared), files.datagrams));
    spawn(keep_house(Rc::clone(&shared), files.timer));
    (0..3).for_each(|_| shared.borrow_mut().task_begins());
    shared.borrow().announce();
    loop {
        let idle = shared.borrow_mut().park();
        if idle {
            await_count(&files.eventfd).await?;
        }
        let news = shared.borrow_mut().awake();
        for newcomer in news.newcomers {
            admit(&shared, TcpStream::from_std(newcomer)?);
        }
        if !news.goes_on {
            break;
        }
    }
    poll_fn(|context| shared.borrow_mut().ended(context)).await;
    shared.borrow_mut().finish()
}

/// What the tasks that are not a connection's wait on.
struct Files {
    listener: TcpListener,
    datagrams: UdpSocket,
    timer: File,
    eventfd: File,
}

impl Files {
    fn open(of: &RivalLoop) -> io::Result<Self> {
        let file = |descriptor: OwnedFd| File::from_std(descriptor.into());
        Ok(Self {
            listener: TcpListener::from_std(of.listener()?)?,
            datagrams: UdpSocket::from_std(of.datagram_socket()?.into())?,
            timer: file(of.timer()?)?,
            eventfd: file(of.eventfd()?)?,
        })
    }
}

/// Waits until an eventfd or a timer has counted something, and takes it.
async fn await_count(file: &File) -> io::Result<()> {
    let (count, _buffer) = file.read_at(Box::new([0_u8; size_of::<u64>()]), 0).await;
    match count {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

async fn accept(shared: Shared, listener: TcpListener) {
    loop {
        let accepted = listener.accept().await;
        match accepted {
            Ok((stream, _)) => admit(&shared, stream),
            Err(error) => {
                shared.borrow_mut().accept_failed(&error);
                if !poll_fn(|context| shared.borrow_mut().accepts_again(context)).await {
                    break;
                }
            }
        }
    }
    drop(listener);
    shared.borrow_mut().task_ends();
}

fn admit(shared: &Shared, stream: TcpStream) {
    let admitted = shared.borrow_mut().admit(stream.as_raw_fd());
    if let Some(token) = admitted {
        spawn(serve(Rc::clone(shared), stream, token));
    }
}

/// Awaits datagrams through the ring; they are then taken and answered as in every engine.
async fn serve_datagrams(shared: Shared, socket: UdpSocket) {
    loop {
        if shared.borrow().holds_datagrams() {
            let_others_run().await;
        } else {
            // What an error says about the socket the system calls say too.
            let _ = socket.readable(true).await;
        }
        let goes_on = shared.borrow_mut().serve_datagrams();
        if !goes_on {
            break;
        }
    }
    drop(socket);
    shared.borrow_mut().task_ends();
}

/// Goes to the end of the tasks that can run. The runtime looks at its ring in between, however many there are.
async fn let_others_run() {
    let mut has_waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn keep_house(shared: Shared, timer: File) {
    loop {
        let due = await_count(&timer).await;
        let goes_on = shared.borrow_mut().keep_house(due);
        if !goes_on {
            break;
        }
    }
    drop(timer);
    shared.borrow_mut().task_ends();
}

/// One connection, from its first byte to its end.
async fn serve(shared: Shared, mut stream: TcpStream, token: StreamToken) {
    let mut input = Vec::with_capacity(RECEIVE_BYTES);
    let mut next = Next::Receive;
    loop {
        next = match next {
            Next::Receive => {
                let (received, filled) = stream.read(input).await;
                let next = shared.borrow_mut().received(token, received.map(|length| &filled[..length]));
                input = fitting(filled);
                next
            }
            Next::ReceiveUnlessTold => told_or_readable(&shared, &stream, token).await,
            Next::BeTold => poll_fn(|context| shared.borrow_mut().told(token, context)).await,
            Next::Send(outgoing) => {
                let (sent, outgoing) = stream.write(outgoing).await;
                shared.borrow_mut().sent(token, outgoing, &sent)
            }
            Next::Close => return,
        };
    }
}

/// Waits to be told, or for bytes to be there. A receive would take bytes that may be the next owner's.
async fn told_or_readable(shared: &Shared, stream: &TcpStream, token: StreamToken) -> Next {
    let mut readable = pin!(stream.readable(true));
    poll_fn(|context| match shared.borrow_mut().told(token, context) {
        Poll::Ready(next) => Poll::Ready(next),
        Poll::Pending => readable.as_mut().poll(context).map(|_| Next::Receive),
    })
    .await
}

/// The buffer for the next receive: the runtime holds one for as long as a connection is silent, so it is small, unless
/// the last was filled.
fn fitting(last: Vec<u8>) -> Vec<u8> {
    let wanted = if last.len() == last.capacity() { READ_BYTES } else { RECEIVE_BYTES };
    if last.capacity() == wanted { last } else { Vec::with_capacity(wanted) }
}

// SAFETY: the bytes lie on the heap and stay there until the value is dropped, wherever it moves; nobody can write to
// them while the runtime owns it.
unsafe impl IoBuf for Outgoing {
    fn read_ptr(&self) -> *const u8 {
        self.bytes().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.bytes().len()
    }
}
