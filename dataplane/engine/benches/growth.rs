//! What a request costs when there is more of everything: keys, assets, connections, quotes.
//!
//! For each engine there are data planes of several sizes and the bare floor, each a process pinned to one CPU, and
//! clients in processes of their own on another. In every round every cell is measured; cost is CPU time of the
//! serving thread per right answer; a cell's ratio is taken to the first of its row, within the round, and its median
//! is shown. What is over [`CLIFF`] is marked. Rows on the floor tell how much of a growth is the kernel's.
//!
//! Nothing is in flight when the CPU time is read, and connecting is not in it.
//!
//! `cargo bench -p trinity-dataplane-engine --bench growth -- [--only TEXT] [--rounds N] [--millis N]
//! [--json FILE] [--write FILE]`

#[path = "growth/cell.rs"]
mod cell;
mod child;
#[path = "growth/clients.rs"]
mod clients;
mod floor;
mod listing;
mod median;
#[path = "growth/memory.rs"]
mod memory;
mod plane;
mod process;
mod settings;
#[path = "growth/table.rs"]
mod table;
mod threads;

use cell::{Cell, Clients, Place};
use child::{Order, Role, Server};
use clients::{Crowd, Seen};
use dataplane_engine::Engine;
use memory::Memory;
use settings::Settings;
use std::io;
use std::process::ExitCode;
use std::time::Duration;
use tuning::cpus::AllowedCpus;
use tuning::pin;

/// Ratio over which a growth is a cliff that wants an explanation.
const CLIFF: f64 = 1.25;

/// The engines compared.
const ENGINES: [(Engine, &str); 2] = [(Engine::IoUring, "io_uring"), (Engine::Epoll, "epoll")];

/// After the rate of quotes was changed: until the new one holds.
const SETTLING: Duration = Duration::from_millis(150);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match (Order::from_arguments(&arguments), arguments.first().map(String::as_str)) {
        (Some(order), _) => settings::end("growth", child::run(order)),
        (None, Some(clients::ROLE)) => settings::end("growth", clients::run(&arguments)),
        _ => settings::main("growth", &arguments, (7, 400), bench),
    }
}

/// What one measurement found.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// CPU time of the serving thread per right answer.
    cpu_ns: f64,
    /// Right answers per second.
    rate: f64,
}

/// One engine: its servers, their clients, and what was found in each cell, round by round.
struct Subject {
    engine: &'static str,
    servers: Vec<(Place, Server)>,
    crowds: Vec<(Place, Clients, Crowd)>,
    cells: Vec<(Cell, Vec<Sample>)>,
    memory: Memory,
}

fn bench(settings: &Settings) -> io::Result<()> {
    tuning::sockets::raise_nofile()?;
    let cpus = AllowedCpus::read()?.cpus;
    let (serving, generating) = match cpus[..] {
        [first, second, ..] => (Some(first), Some(second)),
        _ => (None, None),
    };
    if let Some(cpu) = generating {
        pin::pin_current_thread(cpu).map_err(io::Error::other)?;
    } else {
        eprintln!("growth: one CPU only: servers and clients share it, which is part of every figure");
    }
    let mut rows = cell::rows();
    rows.retain(|row| row.name.contains(&settings.only));
    if rows.is_empty() {
        return Err(io::Error::other(format!("no row has {} in its name: see cell.rs", settings.only)));
    }
    let mut cells: Vec<Cell> = Vec::new();
    for (_, cell) in rows.iter().flat_map(|row| &row.cells) {
        if !cells.contains(cell) {
            cells.push(*cell);
        }
    }
    let mut subjects = Vec::new();
    for (engine, name) in ENGINES {
        subjects.push(Subject::start(engine, name, &cells, (serving, generating), settings.duration)?);
    }
    for round in 0..settings.rounds {
        for subject in &mut subjects {
            subject.round(settings.duration, round % 2 == 1)?;
        }
    }
    table::show(settings, &rows, &subjects)
}

impl Subject {
    /// Starts servers and clients, and has every cell run once, so that the rounds find all memory in use.
    fn start(
        engine: Engine,
        name: &'static str,
        cells: &[Cell],
        (serving, generating): (Option<usize>, Option<usize>),
        duration: Duration,
    ) -> io::Result<Self> {
        let cells = cells.iter().map(|&cell| (cell, Vec::new())).collect();
        let mut subject =
            Self { engine: name, servers: Vec::new(), crowds: Vec::new(), cells, memory: Memory::default() };
        let order = Order::plane(engine, serving);
        let reply_bytes = reply_bytes(order)?;
        for index in 0..subject.cells.len() {
            let (cell, _) = subject.cells[index];
            let Place { role, size, fed } = cell.place;
            if subject.server(cell.place).is_none() {
                let order = Order { size, beside: if fed { generating } else { serving }, ..order };
                let order = if role == Role::Floor { order.floor(plane::request(0).len(), reply_bytes) } else { order };
                subject.servers.push((cell.place, Server::start(order)?));
            }
            let known = subject.crowds.iter().any(|crowd| (crowd.0, crowd.1) == (cell.place, cell.clients));
            let before = subject.memory_of(cell)?;
            if !known {
                let server = subject.server(cell.place).ok_or(io::ErrorKind::NotFound)?;
                let crowd = Crowd::start(cell.clients, cell.place, server, generating)?;
                subject.crowds.push((cell.place, cell.clients, crowd));
            }
            subject.measure(cell, duration)?;
            let after = subject.memory_of(cell)?;
            subject.memory.note(cell, before, after);
        }
        Ok(subject)
    }

    fn server(&mut self, place: Place) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.0 == place).map(|server| &mut server.1)
    }

    /// Resident memory of the cell's server, bytes.
    fn memory_of(&mut self, cell: Cell) -> io::Result<u64> {
        self.server(cell.place).ok_or(io::ErrorKind::NotFound)?.number("memory")
    }

    /// Measures every cell once. Every other round the other way about: none always comes after the same neighbour.
    fn round(&mut self, duration: Duration, backwards: bool) -> io::Result<()> {
        for turn in 0..self.cells.len() {
            let index = if backwards { self.cells.len() - 1 - turn } else { turn };
            let sample = self.measure(self.cells[index].0, duration)?;
            self.cells[index].1.push(sample);
        }
        Ok(())
    }

    fn measure(&mut self, cell: Cell, duration: Duration) -> io::Result<Sample> {
        let named = |error: io::Error| {
            let Clients { protocol, count, .. } = cell.clients;
            io::Error::new(
                error.kind(),
                format!("{}, {count} clients, {:?}: {error}", protocol.name(), cell.place.size),
            )
        };
        let lost = || io::Error::other("a cell without server or clients");
        let server = self.servers.iter_mut().find(|server| server.0 == cell.place).ok_or_else(lost)?;
        let server = &mut server.1;
        let crowd = self.crowds.iter_mut().find(|crowd| (crowd.0, crowd.1) == (cell.place, cell.clients));
        let (_, _, crowd) = crowd.ok_or_else(lost)?;
        if cell.quotes > 0 {
            server.number(&format!("quotes {}", cell.quotes))?;
            std::thread::sleep(SETTLING);
        }
        let before = server.cpu_ns()?;
        let Seen { answered, rate } = crowd.run(cell.at_once, duration).map_err(named)?;
        let used_ns = server.cpu_ns()? - before;
        if cell.quotes > 0 {
            server.number("quotes 0")?;
            std::thread::sleep(SETTLING);
        }
        Ok(Sample { cpu_ns: used_ns as f64 / answered as f64, rate })
    }
}

/// Bytes of a whole answer: the floor's are as long.
fn reply_bytes(order: Order) -> io::Result<usize> {
    let server = Server::start(order)?;
    let (status, _, bytes) = plane::ask(&mut std::net::TcpStream::connect(server.tcp)?, &plane::request(0))?;
    if status.contains(" 200 ") { Ok(bytes) } else { Err(io::Error::other(format!("the data plane answers {status}"))) }
}
