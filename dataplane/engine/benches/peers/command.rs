//! Other people's programs as processes of ours: pinned, on loopback, and gone when we are.
//!
//! Three things see to it that none outlives the bench: dropping it ends it, the kernel ends it when the bench's main
//! thread is no more, and it stays in the bench's process group, so that Ctrl-C reaches it too.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tuning::pin;

/// Longest wait for a server that was started.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Where programs are looked for behind `PATH`: servers of a distribution are not always on a user's.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"];

/// The program of that name, if it is installed.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// First line of what the program says to `argument`.
pub fn first_line(program: &Path, argument: &str) -> io::Result<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned())
}

/// Has the kernel send `signal` to this process when the thread that started it is no more.
pub fn end_with_parent(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: takes numbers and touches no memory of ours.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The program, to be run on `cpu` and no longer than we live.
pub fn command(program: &Path, cpu: Option<usize>) -> Command {
    let bench = std::process::id();
    let mut command = Command::new(program);
    let before_it_runs = move || {
        end_with_parent(libc::SIGKILL)?;
        // The bench may have ended before that.
        if std::os::unix::process::parent_id() != bench {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        cpu.map_or(Ok(()), |cpu| pin::pin_current_thread(cpu).map_err(|_| io::ErrorKind::PermissionDenied.into()))
    };
    // SAFETY: between fork and exec the closure makes system calls only (`prctl`, `getppid`, `sched_setaffinity`); it
    // takes no lock and allocates nothing, its errors included.
    unsafe { command.pre_exec(before_it_runs) };
    command.stdin(Stdio::null());
    command
}

/// A port that is free for TCP and for UDP on loopback now.
pub fn free_port() -> io::Result<u16> {
    let port = |listener: &TcpListener| io::Result::Ok(listener.local_addr()?.port());
    for _ in 0..100 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        if UdpSocket::bind(listener.local_addr()?).is_ok() {
            return port(&listener);
        }
    }
    Err(io::Error::other("no port is free for TCP and for UDP at once"))
}

/// A server of someone else's, with a folder of its own. Dropping it ends it and removes the folder.
pub struct Foreign {
    child: Child,
    _folder: TempDir,
}

impl Foreign {
    /// Starts it and waits until it takes connections at `address`. What it says goes to a file in its folder.
    ///
    /// # Errors
    /// When it does not start, with the last it said.
    pub fn start(mut command: Command, folder: TempDir, address: SocketAddr) -> io::Result<Self> {
        let log = folder.path().join("log");
        let file = File::create(&log)?;
        let child = command.stdout(file.try_clone()?).stderr(file).current_dir(folder.path()).spawn()?;
        let mut server = Self { child, _folder: folder };
        let give_up = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            let ended = server.child.try_wait()?;
            if ended.is_some() || Instant::now() > give_up {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let last = said.lines().last().unwrap_or("it said nothing").to_owned();
                let program = command.get_program().to_string_lossy().into_owned();
                return Err(io::Error::other(format!("{program} does not serve {address}: {last}")));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(server)
    }

    /// Number of its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Of a process that has ended by itself both say so, and it is gone all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
