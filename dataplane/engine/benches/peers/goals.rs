//! What has to be reached, and whether it was: ratios of CPU time per right answer, of the same run.
//!
//! Rates per CPU-second are such a ratio turned over.

use crate::generators::Generators;
use crate::installed::Peer;
use crate::loads::Load;
use crate::results::{Results, Spread};
use crate::subject::Kind;
use dataplane_engine::Engine;
use serde_json::{Value, json};
use std::fmt;

/// Which side of the bound is good.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}

/// One goal.
pub struct Goal {
    pub what: String,
    pub bound: Bound,
    /// `None`: one side of the ratio was not measured.
    pub measured: Option<Spread>,
}

impl Goal {
    /// Whether the median holds; `None` when there is none.
    fn met(&self) -> Option<bool> {
        self.measured.map(|spread| self.bound.holds(spread.median))
    }

    /// In one word.
    pub fn verdict(&self) -> &'static str {
        match self.met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "not measured",
        }
    }

    pub fn to_json(&self) -> Value {
        let (bound, at_most) = match self.bound {
            Bound::AtMost(most) => (most, true),
            Bound::AtLeast(least) => (least, false),
        };
        let measured = self.measured.map(Spread::to_json);
        json!({"goal": self.what, "bound": bound, "at_most": at_most, "measured": measured, "met": self.met()})
    }
}

/// Each goal, for both of our engines.
pub fn all(results: &Results, generators: &Generators) -> Vec<Goal> {
    let mut goals = Vec::new();
    for engine in [Engine::IoUring, Engine::Epoll] {
        let (ours, floor, name) = (Kind::Ours(engine), Kind::Floor(engine), engine.name());
        let mut goal = |what: &str, bound, above, below| {
            let measured = results.ratio(above, below);
            goals.push(Goal { what: format!("{name}: {what}"), bound, measured });
        };
        let tcp = (Load::Tcp, ours);
        goal("tcp, 64 connections, CPU : its floor", Bound::AtMost(1.08), tcp, (Load::Tcp, floor));
        for (peer, most) in [(Peer::Nginx, 0.75), (Peer::Redis, 0.80), (Peer::Memcached, 0.80)] {
            let what = format!("tcp, 64 connections, CPU : {}", peer.name());
            goal(&what, Bound::AtMost(most), tcp, (Load::Tcp, Kind::Peer(peer)));
        }
        let (pipelined, redis) = ((Load::TcpPipelined, ours), (Load::TcpPipelined, Kind::Peer(Peer::Redis)));
        goal("tcp, 16 deep, requests per CPU-second : redis, 16 deep", Bound::AtLeast(1.3), redis, pipelined);
        let udp = (Load::Udp, ours);
        goal("udp, CPU : its floor", Bound::AtMost(1.05), udp, (Load::Udp, floor));
        goal("udp, CPU : memcached", Bound::AtMost(0.55), udp, (Load::Udp, Kind::Peer(Peer::Memcached)));
        let trains = (Load::UdpTrains, ours);
        goal("udp, trains of 16, requests per CPU-second : one by one", Bound::AtLeast(7.0), udp, trains);
    }
    for (engine, measured) in generators.gains() {
        let what = format!("load generator, requests per CPU-second : wrk, {} serving", engine.name());
        goals.push(Goal { what, bound: Bound::AtLeast(1.3), measured });
    }
    goals
}
