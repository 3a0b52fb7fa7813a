//! What `trinity-beast demo --ready-file` wrote, as far as a load test wants it.

use anyhow::Context;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The members that are wanted. `Debug` is left out: keys stand in here.
#[derive(Deserialize)]
pub struct ReadyFile {
    lpo_tcp: SocketAddr,
    lpo_udp: SocketAddr,
    /// Key without a limit that matters; `demo` only.
    pub stress_key: Option<String>,
    /// Number of the key, for binary datagrams; `demo` only.
    pub udp_key_id: Option<u32>,
    /// Its UDP secret, hex; `demo` only.
    pub udp_secret: Option<String>,
    /// The service.
    pub pid: u32,
}

impl ReadyFile {
    /// Reads it.
    ///
    /// # Errors
    /// When it cannot be read, or is not one.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let bytes = std::fs::read(path).with_context(|| {
            format!("cannot read the ready file {shown}: start trinity-beast demo --ready-file {shown}")
        })?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{shown} is not a ready file: give one that trinity-beast wrote"))
    }

    /// Where it answers HTTP.
    pub fn tcp(&self) -> SocketAddr {
        reachable(self.lpo_tcp)
    }

    /// Where it answers datagrams.
    pub fn udp(&self) -> SocketAddr {
        reachable(self.lpo_udp)
    }
}

/// Bound to all addresses, a server is reached on the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_reached_on_loopback() {
        for (bound, expected) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")] {
            assert_eq!(reachable(bound.parse().expect("an address")).to_string(), expected);
        }
    }

    #[test]
    fn what_serve_writes_has_no_keys_and_is_enough() {
        let text = br#"{"lpo_tcp":"127.0.0.1:1","lpo_udp":"127.0.0.1:2","engine":"epoll","shards":1,"pid":7}"#;
        let file: ReadyFile = serde_json::from_slice(text).expect("a ready file");
        assert!(file.stress_key.is_none() && file.pid == 7);
    }
}
