//! Servers under measurement, each in a process of its own: the same program, started again with a role.
//!
//! A child pins itself before it allocates, says where it listens, and answers each line on its standard input with the
//! CPU time its shard has used. It ends when that input ends, so it cannot outlive the bench.

use crate::floor::{self, FloorSetup};
use crate::plane;
use dataplane_engine::{Engine, EngineChoice};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use tuning::core_plan::CorePlan;
use tuning::{clock, pin, sockets};

/// What a child serves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The bare floor.
    Floor,
    /// The data plane.
    Plane,
}

/// What a child is told.
#[derive(Clone, Copy)]
pub struct Order {
    pub role: Role,
    pub engine: Engine,
    pub cpu: Option<usize>,
    /// For the floor: bytes of a request and of a reply.
    pub request_bytes: usize,
    pub reply_bytes: usize,
}

impl Order {
    fn to_arguments(self) -> Vec<String> {
        let role = if self.role == Role::Floor { "floor" } else { "plane" };
        let engine = if self.engine == Engine::IoUring { "io_uring" } else { "epoll" };
        let cpu = self.cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
        let sizes = [self.request_bytes.to_string(), self.reply_bytes.to_string()];
        ["child", role, engine].map(str::to_owned).into_iter().chain([cpu]).chain(sizes).collect()
    }

    /// The order in the arguments of this process, if it was started as a child.
    pub fn from_arguments(arguments: &[String]) -> Option<Self> {
        let [first, role, engine, cpu, request_bytes, reply_bytes] = arguments else { return None };
        if first != "child" {
            return None;
        }
        Some(Self {
            role: if role == "floor" { Role::Floor } else { Role::Plane },
            engine: if engine == "io_uring" { Engine::IoUring } else { Engine::Epoll },
            cpu: cpu.parse().ok(),
            request_bytes: request_bytes.parse().ok()?,
            reply_bytes: reply_bytes.parse().ok()?,
        })
    }
}

/// A running child, seen from the bench. Dropping it ends it.
pub struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub tcp: SocketAddr,
    pub udp: SocketAddr,
}

impl Server {
    /// Starts a child and waits until it listens.
    pub fn start(order: Order) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(order.to_arguments()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut server = Self { child, input, output, tcp: nowhere, udp: nowhere };
        let line = server.line()?;
        let mut parts = line.split_whitespace().filter_map(|text| text.parse().ok());
        let (tcp, udp) = parts.next().zip(parts.next()).ok_or_else(|| io::Error::other(line.clone()))?;
        (server.tcp, server.udp) = (tcp, udp);
        Ok(server)
    }

    /// CPU time the child's shard has used, ns.
    pub fn cpu_ns(&mut self) -> io::Result<u64> {
        self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(b"cpu\n")?;
        self.line()?.trim().parse().map_err(io::Error::other)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() { Err(io::Error::other("a server ended by itself: see above")) } else { Ok(line) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        // It ends by itself now; it was started by us in any case.
        let _ = self.child.wait();
    }
}

/// Runs a child to its end.
pub fn run(order: Order) -> io::Result<()> {
    if let Some(cpu) = order.cpu {
        pin::pin_current_thread(cpu).map_err(io::Error::other)?;
    }
    match order.role {
        Role::Floor => {
            sockets::raise_nofile()?;
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let (listener, datagrams) = (sockets::tcp_listener(any)?, sockets::udp_socket(any)?);
            let (tcp, udp) = (listener.local_addr()?, datagrams.local_addr()?);
            let reply = reply_of(order.reply_bytes);
            let setup = FloorSetup { listener, datagrams, request_bytes: order.request_bytes, reply };
            // Named as the engines name theirs, so that its CPU time is found the same way.
            let body = move || {
                if let Err(error) = floor::serve(order.engine, setup) {
                    eprintln!("the floor ended: {error}");
                    std::process::exit(1);
                }
            };
            std::thread::Builder::new().name("shard-0".to_owned()).spawn(body)?;
            answer(tcp, udp)
        }
        Role::Plane => {
            let wanted = if order.engine == Engine::IoUring { EngineChoice::IoUring } else { EngineChoice::Epoll };
            let plane = plane::start(wanted, CorePlan { shards: vec![order.cpu], control: Vec::new() })?;
            let mut usage = plane.take_usage();
            // Stands for the control plane: takes the usage records, so that their ring is never full.
            std::thread::spawn(move || {
                loop {
                    for ring in &mut usage {
                        while ring.pop().is_ok() {}
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            answer(plane.tcp_address(), plane.udp_address())
        }
    }
}

/// A reply of `bytes` bytes in all, answering with as much body as makes it so.
fn reply_of(bytes: usize) -> Vec<u8> {
    // The length with leading zeros, so that the head is always as long.
    let head =
        |body: usize| format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {body:04}\r\n\r\n");
    let body = bytes.saturating_sub(head(0).len());
    let mut reply = head(body).into_bytes();
    reply.resize(reply.len() + body, b'x');
    reply
}

/// Tells where the server listens, then the shard's CPU time whenever asked, until the input ends.
fn answer(tcp: SocketAddr, udp: SocketAddr) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{tcp} {udp}")?;
    output.flush()?;
    for line in io::stdin().lock().lines() {
        line?;
        writeln!(output, "{}", shard_cpu_ns()?)?;
        output.flush()?;
    }
    Ok(())
}

/// CPU time of this process's threads called `shard…`, ns.
fn shard_cpu_ns() -> io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir("/proc/self/task")? {
        let path = entry?.path();
        let is_shard = std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("shard"));
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<i32>().ok());
        if let Some(thread) = number.filter(|_| is_shard) {
            sum += clock::thread_cpu_ns_of(thread)?;
        }
    }
    Ok(sum)
}
