//! What the bench is told: how long, what of it, and where the results go.

use crate::installed::Peer;
use crate::loads::Load;
use dataplane_engine::Engine;
use std::path::PathBuf;
use std::time::Duration;

/// Engines that a build may lack, by their cargo features.
pub const RIVALS: [&str; 2] = ["monoio", "glommio"];

const USAGE: &str = "--rounds N (7), --millis N (each load, 1000), --only LIST, --json FILE, --write FILE; LIST names \
                     servers (floor, io_uring, epoll, monoio, glommio, nginx, redis, memcached) and loads (tcp, \
                     pipelined, udp, window, trains, wrk), with commas; all of a kind of which none is named";

/// What the bench is told.
pub struct Settings {
    pub rounds: usize,
    /// Of each load on each server in each round.
    pub duration: Duration,
    /// Names of servers; empty: all.
    only: Vec<String>,
    pub loads: Vec<Load>,
    /// Whether our load generator is compared with wrk.
    pub generators: bool,
    pub json: Option<PathBuf>,
    /// Where the results go in words.
    pub write: Option<PathBuf>,
}

/// A load's name in the list.
const fn tag(load: Load) -> &'static str {
    match load {
        Load::Tcp => "tcp",
        Load::TcpPipelined => "pipelined",
        Load::Udp => "udp",
        Load::UdpWindow => "window",
        Load::UdpTrains => "trains",
    }
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// What is wrong, and what may be said.
    pub fn read(arguments: &[String]) -> Result<Self, String> {
        let (rounds, duration) = (7, Duration::from_secs(1));
        let (mut settings, mut list) = (Self::all(rounds, duration), String::new());
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{name} needs a value: {USAGE}"));
            let number = |text: &String| text.parse::<u64>().map_err(|_| format!("{name} needs a number, not {text}"));
            match name.as_str() {
                "--bench" => {}
                "--rounds" => settings.rounds = usize::try_from(number(value()?)?.clamp(1, 100)).unwrap_or(1),
                "--millis" => settings.duration = Duration::from_millis(number(value()?)?.clamp(50, 60_000)),
                "--only" => list.clone_from(value()?),
                "--json" => settings.json = Some(value()?.into()),
                "--write" => settings.write = Some(value()?.into()),
                _ => return Err(format!("{name} is not known: {USAGE}")),
            }
        }
        settings.choose(&list)?;
        Ok(settings)
    }

    fn all(rounds: usize, duration: Duration) -> Self {
        let loads = Load::ALL.to_vec();
        Self { rounds, duration, only: Vec::new(), loads, generators: true, json: None, write: None }
    }

    /// Keeps what the list names.
    fn choose(&mut self, list: &str) -> Result<(), String> {
        let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let mut loads = Vec::new();
        for &name in &names {
            let is_engine = Engine::ALL.iter().any(|engine| engine.name() == name) || RIVALS.contains(&name);
            if name == "floor" || is_engine || Peer::ALL.iter().any(|peer| peer.name() == name) {
                self.only.push(name.to_owned());
            } else if let Some(&load) = Load::ALL.iter().find(|load| tag(**load) == name) {
                loads.push(load);
            } else if name != "wrk" {
                return Err(format!("{name} is neither a server nor a load: {USAGE}"));
            }
        }
        let wrk = names.contains(&"wrk");
        if wrk || !loads.is_empty() {
            (self.loads, self.generators) = (loads, wrk);
        } else if !self.only.is_empty() {
            self.generators = false;
        }
        Ok(())
    }

    /// Whether nothing is left out.
    pub fn is_whole(&self) -> bool {
        self.only.is_empty() && self.generators && self.loads.len() == Load::ALL.len()
    }

    /// Whether this server is to be measured.
    pub fn wants(&self, server: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == server)
    }

    /// The command that was given, without the names of files.
    pub fn command(&self) -> String {
        let (rounds, millis) = (self.rounds, self.duration.as_millis());
        let loads = if self.loads.len() == Load::ALL.len() { &[] } else { &self.loads[..] };
        let mut names: Vec<&str> = self.only.iter().map(String::as_str).collect();
        names.extend(loads.iter().map(|load| tag(*load)));
        if self.generators && self.loads.len() < Load::ALL.len() {
            names.push("wrk");
        }
        let only = if names.is_empty() { String::new() } else { format!(" --only {}", names.join(",")) };
        format!("tuning/peers --rounds {rounds} --millis {millis}{only}")
    }
}
