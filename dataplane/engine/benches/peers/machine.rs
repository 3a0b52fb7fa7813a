//! On what it was measured: without it no figure means anything to anybody else.

use crate::Cpus;
use serde_json::{Value, json};
use std::fmt;
use std::io;
use std::time::Duration;
use tuning::noise::{self, Noise};

/// How long each CPU's own noise is listened to.
const NOISE_HEARD: Duration = Duration::from_secs(2);

/// The machine.
pub struct Machine {
    model: String,
    kernel: String,
    virtual_machine: bool,
    cpus: Cpus,
    noise: Vec<Noise>,
}

impl Machine {
    /// Looks at it and listens to its noise: nothing else of ours may run meanwhile.
    pub fn look(cpus: Cpus) -> io::Result<Self> {
        let info = std::fs::read_to_string("/proc/cpuinfo")?;
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
            line.unwrap_or_default().trim()
        };
        let listening: Vec<usize> = [cpus.server, cpus.generator].into_iter().flatten().collect();
        Ok(Self {
            model: field("model name").to_owned(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            virtual_machine: field("flags").split(' ').any(|flag| flag == "hypervisor"),
            cpus,
            noise: noise::listen(&listening, NOISE_HEARD)?,
        })
    }

    pub fn to_json(&self) -> Value {
        let (server, generator) = (self.cpus.server, self.cpus.generator);
        json!({
            "cpu": self.model, "kernel": self.kernel, "virtual": self.virtual_machine,
            "server_cpu": server, "generator_cpu": generator, "noise": self.noise,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.virtual_machine { " (a virtual machine)" } else { "" };
        writeln!(f, "{}{kind}, Linux {}, loopback", self.model, self.kernel)?;
        match (self.cpus.server, self.cpus.generator) {
            (Some(server), Some(generator)) => writeln!(f, "servers on CPU {server}, generator on CPU {generator}")?,
            _ => writeln!(f, "servers and generator share one CPU")?,
        }
        self.noise.iter().try_for_each(|noise| writeln!(f, "{noise}"))
    }
}
