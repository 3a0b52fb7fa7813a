//! What of it is measured: the servers and the loads that a list names.

use crate::installed::Peer;
use crate::loads::Load;
use dataplane_engine::Engine;

/// Engines that a build may lack, by their cargo features.
pub const RIVALS: [&str; 2] = ["monoio", "glommio"];

/// What a list may name.
const NAMES: &str = "servers (floor, io_uring, epoll, monoio, glommio, nginx, redis, memcached) and loads (tcp, pipelined, \
                     udp, window, trains, wrk), with commas; all of a kind of which none is named";

/// What is measured.
pub struct Selection {
    /// As it was asked for.
    pub list: String,
    /// Names of servers; empty: all.
    servers: Vec<String>,
    pub loads: Vec<Load>,
    /// Whether our load generator is compared with wrk.
    pub generators: bool,
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

impl Selection {
    /// Reads the list.
    ///
    /// # Errors
    /// The name that is not known, and those that are.
    pub fn read(list: &str) -> Result<Self, String> {
        let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let (mut servers, mut loads) = (Vec::new(), Vec::new());
        for &name in &names {
            let is_engine = Engine::ALL.iter().any(|engine| engine.name() == name) || RIVALS.contains(&name);
            if name == "floor" || is_engine || Peer::ALL.iter().any(|peer| peer.name() == name) {
                servers.push(name.to_owned());
            } else if let Some(&load) = Load::ALL.iter().find(|load| tag(**load) == name) {
                loads.push(load);
            } else if name != "wrk" {
                return Err(format!("{name} is not known: --only takes {NAMES}"));
            }
        }
        let wrk = names.contains(&"wrk");
        let all_loads = !wrk && loads.is_empty();
        Ok(Self {
            list: list.to_owned(),
            generators: wrk || names.is_empty(),
            servers,
            loads: if all_loads { Load::ALL.to_vec() } else { loads },
        })
    }

    /// Whether nothing is left out.
    pub fn is_whole(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether this server is to be measured.
    pub fn has(&self, server: &str) -> bool {
        self.servers.is_empty() || self.servers.iter().any(|name| name == server)
    }
}
