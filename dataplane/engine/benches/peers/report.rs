//! The table, the goals, the file and the JSON: the same figures for whoever looks.

use crate::generators::Generators;
use crate::goals::{self, Goal};
use crate::loads::{Load, Sample};
use crate::machine::Machine;
use crate::results::{Results, Spread};
use crate::selection::Selection;
use crate::settings::Settings;
use crate::subject::Kind;
use dataplane_engine::Engine;
use serde_json::{Value, json};
use std::fmt::{self, Write};
use std::fs::OpenOptions;
use std::io;
use std::path::Path;

/// Everything there is to tell.
pub struct Report<'a> {
    pub settings: &'a Settings,
    pub selection: Selection,
    pub machine: Machine,
    /// A line for each that was wanted and is not to be had.
    pub missing: Vec<String>,
    pub results: Results,
    pub generators: Generators,
}

/// What the figures are.
const LEGEND: &str = "\
CPU ns: CPU time of the whole server process, all its threads, per right answer; for ours too, so that it is the same
measure for everyone. Ours has authentication, limits and usage counting on; the others have nothing of the kind.
Latency is that of a closed loop, as the generator sees it. : is a ratio of CPU ns, taken within each round. In brackets
the least and the most over rounds.
";

impl Report<'_> {
    /// Shows and writes it all.
    pub fn show(&self) -> io::Result<()> {
        let mut goals = goals::all(&self.results, &self.generators);
        // Who asks for a part does not want to hear of the others.
        goals.retain(|goal| goal.measured.is_some() || self.selection.is_whole());
        let text = self.text(&goals).map_err(io::Error::other)?;
        io::Write::write_all(&mut io::stdout().lock(), text.as_bytes())?;
        if let Some(path) = &self.settings.json {
            std::fs::write(path, format!("{:#}\n", self.to_json(&goals)))?;
        }
        match &self.settings.write {
            Some(path) => self.append(path, &text),
            None => Ok(()),
        }
    }

    /// Appends it to the file of results, which gets a title if it is new.
    fn append(&self, path: &Path, text: &str) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let title = match path.exists() {
            true => String::new(),
            false => {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                format!("# {name}: our server beside its floor and beside others\n")
            }
        };
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(named)?;
        let text = format!("{title}\n`{}`\n\n```\n{text}```\n", self.command());
        io::Write::write_all(&mut file, text.as_bytes()).map_err(named)?;
        eprintln!("peers: written to {}", path.display());
        Ok(())
    }

    /// The command that was given, without the names of files.
    fn command(&self) -> String {
        let (rounds, millis) = (self.settings.rounds, self.settings.duration.as_millis());
        let only = if self.selection.is_whole() { String::new() } else { format!(" --only {}", self.selection.list) };
        format!("tuning/peers --rounds {rounds} --millis {millis}{only}")
    }

    fn text(&self, goals: &[Goal]) -> Result<String, fmt::Error> {
        let mut text = format!("{}", self.machine);
        for version in self.results.servers.iter().filter_map(|(_, version)| version.as_ref()) {
            writeln!(text, "{version}")?;
        }
        if let Some(version) = &self.generators.version {
            writeln!(text, "{version}")?;
        }
        for missing in &self.missing {
            writeln!(text, "MISSING {missing}")?;
        }
        let (rounds, millis) = (self.settings.rounds, self.settings.duration.as_millis());
        writeln!(text, "medians of {rounds} interleaved rounds of {millis} ms for each load and server")?;
        if !self.results.servers.is_empty() {
            write!(text, "{LEGEND}")?;
        }
        for &load in &self.selection.loads {
            self.table(&mut text, load)?;
        }
        self.generator_lines(&mut text)?;
        if !goals.is_empty() {
            writeln!(text, "\n{:<66} {:>6}  {:<24} verdict", "goal", "bound", "measured")?;
        }
        for goal in goals {
            let measured = goal.measured.map_or_else(|| "-".to_owned(), |spread| spread.to_string());
            writeln!(text, "{:<66} {:>6}  {measured:<24} {}", goal.what, goal.bound.to_string(), goal.verdict())?;
        }
        Ok(text)
    }

    fn table(&self, text: &mut String, load: Load) -> fmt::Result {
        let servers = self.results.servers.iter().map(|(kind, _)| *kind);
        let mut rows = servers.filter_map(|kind| Row::new(&self.results, load, kind)).peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let [floor, uring, epoll] = ["it : floor", "io_uring : it", "epoll : it"];
        let figures = format!("{:>22} {:>9} {:>8} {:>9}", "CPU ns", "req/s", "p50 µs", "p99 µs");
        writeln!(text, "\n{:<28} {figures}  {floor:<20} {uring:<20} {epoll}", load.name())?;
        for row in rows {
            let [rate, p50, p99] = row.middles.map(|spread| spread.median);
            let cpu_ns = format!("{:.0}", row.cpu_ns);
            let figures = format!("{cpu_ns:>22} {rate:>9.0} {p50:>8.1} {p99:>9.1}");
            let ratios = row.ratios.map(|ratio| ratio.map_or_else(String::new, |spread| spread.to_string()));
            let line = format!("{:<28} {figures}  {:<20} {:<20} {}", row.kind.name(), ratios[0], ratios[1], ratios[2]);
            writeln!(text, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn generator_lines(&self, text: &mut String) -> fmt::Result {
        let costs = self.generators.costs();
        if costs.iter().any(|(_, ours, wrk)| ours.is_some() && wrk.is_some()) {
            writeln!(
                text,
                "\nload generators, 64 connections, rounds of whole seconds: CPU ns of the generator's process per answer"
            )?;
        }
        for (engine, ours, wrk) in costs {
            if let (Some(ours), Some(wrk)) = (ours, wrk) {
                writeln!(text, "{:<9} serving: ours {ours:.0}, wrk {wrk:.0}", engine.name())?;
            }
        }
        Ok(())
    }

    fn to_json(&self, goals: &[Goal]) -> Value {
        let servers: Vec<Kind> = self.results.servers.iter().map(|(kind, _)| *kind).collect();
        let rows: Vec<Value> = (self.selection.loads.iter())
            .flat_map(|load| servers.iter().filter_map(|kind| Row::new(&self.results, *load, *kind)))
            .map(|row| row.to_json())
            .collect();
        let versions = self.results.servers.iter().filter_map(|(_, version)| version.as_ref());
        let versions: Vec<&String> = versions.chain(&self.generators.version).collect();
        json!({
            "command": self.command(), "rounds": self.settings.rounds,
            "millis": self.settings.duration.as_millis(), "machine": self.machine.to_json(), "versions": versions,
            "missing": self.missing, "rows": rows, "generators": self.generators.to_json(),
            "goals": goals.iter().map(Goal::to_json).collect::<Vec<_>>(),
        })
    }
}

/// One server under one load.
struct Row {
    load: Load,
    kind: Kind,
    cpu_ns: Spread,
    /// Rate, p50 and p99.
    middles: [Spread; 3],
    /// Of ours to the floor under it; of our two engines to it.
    ratios: [Option<Spread>; 3],
}

impl Row {
    fn new(results: &Results, load: Load, kind: Kind) -> Option<Self> {
        let spread = |of: fn(&Sample) -> f64| results.spread(load, kind, of);
        let to_it = |engine| results.ratio((load, Kind::Ours(engine)), (load, kind));
        let ratios = match kind {
            Kind::Floor(_) => [None; 3],
            // The rivals run on io_uring too.
            Kind::Ours(engine) => {
                let floor = if engine == Engine::Epoll { engine } else { Engine::IoUring };
                [results.ratio((load, kind), (load, Kind::Floor(floor))), None, None]
            }
            Kind::Peer(_) => [None, to_it(Engine::IoUring), to_it(Engine::Epoll)],
        };
        let cpu_ns = spread(|sample| sample.cpu_ns)?;
        let middles = [spread(|sample| sample.rate)?, spread(|sample| sample.p50_us)?, spread(|sample| sample.p99_us)?];
        Some(Self { load, kind, cpu_ns, middles, ratios })
    }

    fn to_json(&self) -> Value {
        let [rate, p50, p99] = self.middles.map(Spread::to_json);
        let [floor, uring, epoll] = self.ratios.map(|ratio| ratio.map(Spread::to_json));
        json!({
            "load": self.load.name(), "server": self.kind.name(), "cpu_ns": self.cpu_ns.to_json(),
            "requests_per_second": rate, "p50_us": p50, "p99_us": p99,
            "to_floor": floor, "io_uring_to_it": uring, "epoll_to_it": epoll,
        })
    }
}
