//! Where a target is: `HOST[:PORT[/UDP_PORT]]`, and the addresses behind a name.

use anyhow::{Context, bail};
use loadgen::job::Target;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// How a target is written, for messages.
pub const FORM: &str = "HOST, HOST:PORT or HOST:PORT/UDP_PORT, ports 1 to 65535, IPv6 with a port in brackets, such as \
     10.0.0.7, [::1]:8080 or node-1:8080/2679";

/// A target as it was written, its ports known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As it was written.
    pub name: String,
    host: String,
    /// Port for TCP, driven or not: the list of assets is asked for there.
    tcp_port: u16,
    udp_port: u16,
}

/// Which protocols are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driven {
    /// HTTP over TCP.
    pub tcp: bool,
    /// Datagrams.
    pub udp: bool,
}

impl Place {
    /// Reads a target; the ports given besides stand where it names none.
    pub fn parse(text: &str, driven: Driven, tcp_port: u16, udp_port: u16) -> Option<Self> {
        let text = text.trim();
        let (host, ports) = split_host(text)?;
        let mut place = Self { name: text.to_owned(), host: host.to_owned(), tcp_port, udp_port };
        if let Some(ports) = ports {
            let (first, second) = match ports.split_once('/') {
                Some((first, second)) => (port(first)?, Some(port(second)?)),
                None => (port(ports)?, None),
            };
            match (driven.tcp, second) {
                (_, Some(second)) => (place.tcp_port, place.udp_port) = (first, second),
                (true, None) => place.tcp_port = first,
                (false, None) => place.udp_port = first,
            }
        }
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        (!host.is_empty() && host.chars().all(is_name)).then_some(place)
    }

    /// A target with these addresses; the one that is driven first is its name.
    pub fn of(tcp: SocketAddr, udp: SocketAddr, driven: Driven) -> Self {
        let name = if driven.tcp { tcp } else { udp };
        let host = tcp.ip().to_string();
        Self { name: name.to_string(), host, tcp_port: tcp.port(), udp_port: udp.port() }
    }

    /// The addresses: the first one that the name stands for.
    ///
    /// # Errors
    /// When it stands for none.
    pub fn resolve(&self, driven: Driven) -> anyhow::Result<(Target, SocketAddr)> {
        let ip = match self.host.parse::<IpAddr>() {
            Ok(ip) => ip,
            Err(_) => {
                let remedy = || format!("no address for target {}: check the name, or give an address", self.name);
                let mut found = (self.host.as_str(), self.tcp_port).to_socket_addrs().with_context(remedy)?;
                let Some(first) = found.next() else { bail!(remedy()) };
                first.ip()
            }
        };
        let (tcp, udp) = (SocketAddr::new(ip, self.tcp_port), SocketAddr::new(ip, self.udp_port));
        let target = Target { name: self.name.clone(), tcp: driven.tcp.then_some(tcp), udp: driven.udp.then_some(udp) };
        Ok((target, tcp))
    }
}

/// Host and ports; a bare IPv6 address has no port.
fn split_host(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(inside) = text.strip_prefix('[') {
        let (host, after) = inside.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match after {
            "" => Some((host, None)),
            after => Some((host, Some(after.strip_prefix(':')?))),
        };
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some((text, None));
    }
    match text.split_once(':') {
        Some((_, ports)) if ports.contains(':') => None,
        Some((host, ports)) => Some((host, Some(ports))),
        None => Some((text, None)),
    }
}

fn port(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Driven = Driven { tcp: true, udp: true };
    const UDP: Driven = Driven { tcp: false, udp: true };

    #[track_caller]
    fn check(text: &str, driven: Driven, expected: Option<(&str, u16, u16)>) {
        let place = Place::parse(text, driven, 80, 53);
        let found = place.as_ref().map(|place| (place.host.as_str(), place.tcp_port, place.udp_port));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn targets_are_read() {
        check("node-1", BOTH, Some(("node-1", 80, 53)));
        check("node-1:1", BOTH, Some(("node-1", 1, 53)));
        check("node-1:1", UDP, Some(("node-1", 80, 1)));
        check("127.0.0.1:1/2", BOTH, Some(("127.0.0.1", 1, 2)));
        check("127.0.0.1:1/2", UDP, Some(("127.0.0.1", 1, 2)));
        check("::1", BOTH, Some(("::1", 80, 53)));
        check("[::1]", BOTH, Some(("::1", 80, 53)));
        check("[::1]:7", BOTH, Some(("::1", 7, 53)));
        check("[::1]:7/8", BOTH, Some(("::1", 7, 8)));
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in
            ["", ":1", "a:0", "a:65536", "a:b", "a:1/", "a:1/0", "[::1", "[a]:1", "[::1]7", "a:1:2", "a b", "http://a"]
        {
            check(text, BOTH, None);
        }
    }

    #[test]
    fn a_name_becomes_addresses_of_what_is_driven() {
        let place = Place::parse("127.0.0.1:1/2", UDP, 80, 53).expect("a target");
        let (target, tcp) = place.resolve(UDP).expect("an address");
        assert_eq!((target.tcp, target.udp), (None, Some(SocketAddr::from(([127, 0, 0, 1], 2)))));
        assert_eq!((tcp.port(), target.name.as_str()), (1, "127.0.0.1:1/2"));
        assert!(Place::parse("no-such-host.invalid", UDP, 80, 53).expect("a name").resolve(UDP).is_err());
    }
}
