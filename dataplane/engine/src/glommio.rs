//! The glommio engine, a rival: one shard's loop on a glommio executor.
//!
//! A task for each connection. glommio receives and sends by plain system calls and awaits only readiness through its
//! rings, so a silent connection holds no buffer and the shard reads into one that all share. Nothing is borrowed across
//! an await: what a task does next is decided in `rivals`, in one call. The executor runs on the shard's own thread,
//! which is pinned already; its timers are not used. glommio panics where io_uring is denied: it is made only after the
//! probe of the ring has passed.

use crate::rivals::{Next, READ_BYTES, RivalLoop};
use crate::wiring::ShardLoop;
use ::glommio::io::BufferedFile;
use ::glommio::net::{TcpListener, TcpStream};
use ::glommio::{LocalExecutorBuilder, Placement, executor, spawn_local};
use dataplane_core::shard::StreamToken;
use futures_lite::io::{AsyncRead, AsyncWrite};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tuning::ring_probe::RING_ENTRIES;

/// Steps that a connection may take without having waited: four full reply buffers, some 150 replies. Then the others
/// have their turn, and the rings are looked at: glommio by itself would do so ten times a second.
const STEPS_PER_TURN: usize = 8;

/// Memory that the executor registers for file I/O, of which there is none: the least it takes.
const IO_MEMORY_BYTES: usize = 64 * 1_024;

/// What the tasks of the shard's thread share: borrowed for one call at a time, never across an await.
#[derive(Clone)]
struct Shared {
    turn: Rc<RefCell<RivalLoop>>,
    /// Every read goes here; only what is left of it is copied.
    input: Rc<RefCell<Box<[u8]>>>,
}

/// Runs the shard until it is told to stop.
///
/// # Errors
/// One line: what the kernel refuses; before `announce` for want of resources, afterwards only through a bug.
pub(crate) fn run(setup: ShardLoop) -> Result<(), String> {
    let refused = |error: &dyn std::fmt::Display| {
        format!(
            "glommio: {error}: raise the memlock limit (ulimit -l) and the nofile limit (ulimit -n), or use TB_ENGINE=auto"
        )
    };
    let entries = RING_ENTRIES as usize;
    let builder = LocalExecutorBuilder::new(Placement::Unbound).ring_depth(entries).io_memory(IO_MEMORY_BYTES);
    let executor = builder.make().map_err(|error| refused(&error))?;
    executor.run(turn(setup)).map_err(|error| refused(&error))
}

/// Starts the other tasks, then waits for news: ticks and commands.
async fn turn(setup: ShardLoop) -> io::Result<()> {
    let input = vec![0; READ_BYTES].into_boxed_slice();
    let shared = Shared { turn: Rc::new(RefCell::new(RivalLoop::new(setup)?)), input: Rc::new(RefCell::new(input)) };
    let files = Files::open(&shared.turn.borrow())?;
    spawn_local(accept(shared.clone(), files.listener)).detach();
    spawn_local(serve_datagrams(shared.clone(), files.datagrams)).detach();
    spawn_local(keep_house(shared.clone(), files.timer)).detach();
    (0..3).for_each(|_| shared.turn.borrow_mut().task_begins());
    shared.turn.borrow().announce();
    loop {
        let idle = shared.turn.borrow_mut().park();
        if idle {
            await_count(&files.eventfd).await?;
        }
        let news = shared.turn.borrow_mut().awake();
        for newcomer in news.newcomers {
            admit(&shared, owned(newcomer.into()));
        }
        if !news.goes_on {
            break;
        }
    }
    poll_fn(|context| shared.turn.borrow_mut().ended(context)).await;
    shared.turn.borrow_mut().finish()
}

/// What the tasks that are not a connection's wait on.
struct Files {
    listener: TcpListener,
    /// Only looked at. The runtime's own type for it is of no use: its `peek` refuses a socket without a peer, and its
    /// `peek_from` panics when the socket is shut down.
    datagrams: TcpStream,
    timer: BufferedFile,
    eventfd: BufferedFile,
}

impl Files {
    fn open(of: &RivalLoop) -> io::Result<Self> {
        Ok(Self {
            listener: owned(of.listener()?.into()),
            datagrams: owned(of.datagram_socket()?),
            timer: owned(of.timer()?),
            eventfd: owned(of.eventfd()?),
        })
    }
}

/// Makes the descriptor the runtime's.
fn owned<T: FromRawFd>(descriptor: OwnedFd) -> T {
    // SAFETY: the descriptor is given up by its only owner in the same breath.
    unsafe { T::from_raw_fd(descriptor.into_raw_fd()) }
}

/// Waits until an eventfd or a timer has counted something, and takes it.
async fn await_count(file: &BufferedFile) -> io::Result<()> {
    match file.read_at(0, size_of::<u64>()).await.map_err(io::Error::from) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

async fn accept(shared: Shared, listener: TcpListener) {
    loop {
        match listener.accept().await.map_err(io::Error::from) {
            Ok(stream) => admit(&shared, stream),
            Err(error) => {
                shared.turn.borrow_mut().accept_failed(&error);
                if !poll_fn(|context| shared.turn.borrow_mut().accepts_again(context)).await {
                    break;
                }
            }
        }
    }
    drop(listener);
    shared.turn.borrow_mut().task_ends();
}

fn admit(shared: &Shared, stream: TcpStream) {
    let admitted = shared.turn.borrow_mut().admit(stream.as_raw_fd());
    if let Some(token) = admitted {
        spawn_local(serve(shared.clone(), stream, token)).detach();
    }
}

/// Awaits datagrams by a look at the first byte; they are then taken and answered as in every engine.
async fn serve_datagrams(shared: Shared, mut socket: TcpStream) {
    loop {
        let looked = socket.peek(&mut [0]).await;
        let goes_on = serve_all_that_came(&shared).await;
        if !goes_on {
            break;
        }
        // What an error says about the socket the system calls say too. But an empty datagram is taken for the end of a
        // stream, and of that the runtime would tell for ever.
        if looked.is_ok_and(|bytes| bytes == 0)
            && let Ok(again) = shared.turn.borrow().datagram_socket()
        {
            socket = owned(again);
        }
    }
    drop(socket);
    shared.turn.borrow_mut().task_ends();
}

/// Serves what was received, turn by turn, others' turns in between; whether to go on.
async fn serve_all_that_came(shared: &Shared) -> bool {
    loop {
        let (goes_on, holds) = {
            let mut turn = shared.turn.borrow_mut();
            (turn.serve_datagrams(), turn.holds_datagrams())
        };
        if !(goes_on && holds) {
            return goes_on;
        }
        executor().yield_task_queue_now().await;
    }
}

async fn keep_house(shared: Shared, timer: BufferedFile) {
    loop {
        let due = await_count(&timer).await;
        let goes_on = shared.turn.borrow_mut().keep_house(due);
        if !goes_on {
            break;
        }
    }
    drop(timer);
    shared.turn.borrow_mut().task_ends();
}

/// One connection, from its first byte to its end.
async fn serve(shared: Shared, mut stream: TcpStream, token: StreamToken) {
    let mut next = Next::Receive;
    let mut steps = 0;
    loop {
        let mut waited = false;
        next = poll_fn(|context| {
            let step = poll_step(&shared, &mut stream, token, &mut next, context);
            waited |= step.is_pending();
            step
        })
        .await;
        if matches!(next, Next::Close) {
            return;
        }
        steps = if waited { 0 } else { steps + 1 };
        if steps == STEPS_PER_TURN {
            steps = 0;
            executor().yield_task_queue_now().await;
        }
    }
}

/// Takes the step that is due, as far as the socket lets it.
fn poll_step(
    shared: &Shared,
    stream: &mut TcpStream,
    token: StreamToken,
    due: &mut Next,
    context: &mut Context<'_>,
) -> Poll<Next> {
    if matches!(due, Next::BeTold | Next::ReceiveUnlessTold) {
        let told = shared.turn.borrow_mut().told(token, context);
        if told.is_ready() || matches!(due, Next::BeTold) {
            return told;
        }
    }
    match due {
        Next::Send(outgoing) => {
            let sent = ready!(Pin::new(stream).poll_write(context, outgoing.bytes()));
            let Next::Send(outgoing) = std::mem::replace(due, Next::Close) else { return Poll::Ready(Next::Close) };
            Poll::Ready(shared.turn.borrow_mut().sent(token, outgoing, &sent))
        }
        Next::Close => Poll::Ready(Next::Close),
        Next::Receive | Next::ReceiveUnlessTold | Next::BeTold => {
            let mut input = shared.input.borrow_mut();
            let received = ready!(Pin::new(stream).poll_read(context, &mut input));
            Poll::Ready(shared.turn.borrow_mut().received(token, received.map(|length| &input[..length])))
        }
    }
}
