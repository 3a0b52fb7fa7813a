//! A TCP proxy that goes wrong on demand: between a program and the server it needs.
//!
//! Own threads, two for each connection, and ends with its value. Bytes are moved, never read: it knows no protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a thread looks whether the fault has changed, or the proxy is to end.
const LOOK: Duration = Duration::from_millis(5);

/// Bytes moved at a time.
const CHUNK: usize = 16 << 10;

/// Longest that the server behind may take to accept.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// What goes wrong, for open connections and new ones alike, from when it is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Open connections are reset, new ones too: as if no process listened any more.
    Refuse,
    /// Connections are accepted and kept, and what comes on them, from either side, is swallowed: a peer that is gone
    /// without a word. What was swallowed is lost, so that a connection which was held must not be trusted after it.
    Hang,
    /// Each piece is passed on this much later, towards the server and back.
    Delay {
        /// Towards the server.
        there: Duration,
        /// Towards the program.
        back: Duration,
    },
}

/// What its threads share.
struct Shared {
    target: SocketAddr,
    fault: Mutex<Fault>,
    /// Ends of the open connections' sockets, so that they can be cut.
    open: Mutex<Vec<TcpStream>>,
    accepted: AtomicU64,
    passed_bytes: AtomicU64,
    ends: AtomicBool,
}

fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running proxy; ends, with every connection, when dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepts: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free loopback port in front of `target`, which need not be there yet.
    ///
    /// # Panics
    /// When the system refuses a port or a thread.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a listener that is polled");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            target,
            fault: Mutex::default(),
            open: Mutex::default(),
            accepted: AtomicU64::new(0),
            passed_bytes: AtomicU64::new(0),
            ends: AtomicBool::new(false),
        });
        let accepts = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { shared, address, accepts: Some(accepts) }
    }

    /// Where programs connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this goes wrong. With [`Fault::Refuse`] the open connections are cut before this returns.
    pub fn set(&self, fault: Fault) {
        *locked(&self.shared.fault) = fault;
        if fault == Fault::Refuse {
            self.cut();
        }
    }

    /// Cuts every open connection, once; new ones fare as the fault says.
    pub fn cut(&self) {
        for socket in locked(&self.shared.open).drain(..) {
            abort(&socket);
        }
    }

    /// Connections accepted since start, refused ones not counted.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Bytes passed on since start, both ways together.
    pub fn passed_bytes(&self) -> u64 {
        self.shared.passed_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.cut();
        if let Some(accepts) = self.accepts.take() {
            // A thread that panicked has said so on stderr.
            let _ = accepts.join();
        }
    }
}

/// Closes a socket so that its peer gets a reset rather than an orderly end.
fn abort(socket: &TcpStream) {
    // A socket that is gone already needs neither.
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    let _ = socket.shutdown(Shutdown::Both);
}

/// Takes connections until the proxy ends, then waits for their threads.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut movers: Vec<JoinHandle<()>> = Vec::new();
    while !shared.ends.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((program, _)) => match *locked(&shared.fault) {
                Fault::Refuse => abort(&program),
                fault => movers.extend(open(program, fault, shared)),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(LOOK),
            Err(error) => eprintln!("the proxy cannot accept: {error}"),
        }
        movers.retain(|mover| !mover.is_finished());
    }
    for mover in movers {
        let _ = mover.join();
    }
}

/// Connects through and starts both directions; nothing where the server refuses, which the program then sees too.
fn open(program: TcpStream, fault: Fault, shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    shared.accepted.fetch_add(1, Ordering::Relaxed);
    // A server that hangs may be one that cannot be connected to either: the program must not notice it here.
    let server = if fault == Fault::Hang { None } else { TcpStream::connect_timeout(&shared.target, CONNECT_MAX).ok() };
    let Some(server) = server else {
        if fault == Fault::Hang {
            return vec![std::thread::spawn({
                let shared = Arc::clone(shared);
                keep(&shared, &[&program]);
                move || swallow(program, &shared)
            })];
        }
        abort(&program);
        return Vec::new();
    };
    keep(shared, &[&program, &server]);
    let pairs = [(&program, &server, true), (&server, &program, false)];
    let copies = pairs.map(|(from, to, there)| Some((from.try_clone().ok()?, to.try_clone().ok()?, there)));
    let start = |(from, to, there): (TcpStream, TcpStream, bool)| {
        let shared = Arc::clone(shared);
        std::thread::spawn(move || pass(from, to, there, &shared))
    };
    copies.into_iter().flatten().map(start).collect()
}

/// Remembers sockets, to cut them; forgets those that have ended.
fn keep(shared: &Shared, sockets: &[&TcpStream]) {
    let mut open = locked(&shared.open);
    open.retain(|socket| socket.peer_addr().is_ok());
    open.extend(sockets.iter().filter_map(|socket| socket.try_clone().ok()));
}

/// Reads and forgets until the connection ends.
fn swallow(mut from: TcpStream, shared: &Shared) {
    while read(&mut from, &mut [0; CHUNK], shared).is_some() {}
}

/// Moves one direction until either side ends.
fn pass(mut from: TcpStream, mut to: TcpStream, there: bool, shared: &Shared) {
    let mut chunk = [0; CHUNK];
    while let Some(length) = read(&mut from, &mut chunk, shared) {
        let wait = match *locked(&shared.fault) {
            Fault::Hang => continue,
            Fault::Delay { there: wait, .. } if there => wait,
            Fault::Delay { back, .. } => back,
            Fault::None | Fault::Refuse => Duration::ZERO,
        };
        pause(wait, shared);
        if to.write_all(&chunk[..length]).is_err() {
            break;
        }
        shared.passed_bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
    // The other side learns that this one has ended.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// The next bytes; `None` at the connection's end or the proxy's.
fn read(from: &mut TcpStream, chunk: &mut [u8], shared: &Shared) -> Option<usize> {
    // Without a time-out a thread would outlive its proxy.
    from.set_read_timeout(Some(LOOK * 10)).ok()?;
    while !shared.ends.load(Ordering::Relaxed) {
        match from.read(chunk) {
            Ok(0) => return None,
            Ok(length) => return Some(length),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    None
}

/// Waits, but not beyond the proxy's end.
fn pause(wait: Duration, shared: &Shared) {
    let until = Instant::now() + wait;
    while Instant::now() < until && !shared.ends.load(Ordering::Relaxed) {
        std::thread::sleep(until.saturating_duration_since(Instant::now()).min(LOOK));
    }
}
