//! The sockets of all shards: one listener and one datagram socket each, every one on the same two ports.

use crate::facade::StartRefused;
use crate::limits::{RECEIVE_SOCKET_BYTES, SEND_SOCKET_BYTES};
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use tuning::sockets::{check_free, take_trains, tcp_listener, tell_asked_address, udp_socket};
use tuning::steering::steer_by_cpu;

/// Bound sockets.
pub(crate) struct Sockets {
    /// By shard.
    pub(crate) of_shards: Vec<(TcpListener, UdpSocket)>,
    /// Where the listeners listen.
    pub(crate) tcp: SocketAddr,
    /// Where the datagram sockets listen.
    pub(crate) udp: SocketAddr,
}

impl Sockets {
    /// Has the kernel give each flow to the shard of the CPU that receives it; `cpus`: the CPU of each shard.
    ///
    /// # Errors
    /// What the kernel says; flows are then spread by hash.
    pub(crate) fn steer_by_cpu(&self, cpus: &[usize]) -> io::Result<()> {
        // They were bound, and began to listen, in the order of the shards. A program is the whole group's.
        let Some((listener, datagrams)) = self.of_shards.first() else { return Ok(()) };
        steer_by_cpu(datagrams.as_fd(), cpus)?;
        // What it takes for the one it takes for the other, so they are never steered differently.
        steer_by_cpu(listener.as_fd(), cpus)
    }
}

/// Binds everything. Port 0 is decided once and used for all.
pub(crate) fn bind(ip: IpAddr, tcp_port: u16, udp_port: u16, shards: usize) -> Result<Sockets, StartRefused> {
    let refused = |what: &str, port: u16, error: &io::Error| {
        let address = SocketAddr::new(ip, port);
        StartRefused::Bind(format!("{what} {address}: {error}: {}", remedy(error)))
    };
    // A port that is shared from the start could be one that another copy of this program shares already: an
    // unshared socket decides.
    let tcp_port = decide(tcp_port, || TcpListener::bind((ip, 0))?.local_addr())
        .map_err(|error| refused("TCP", tcp_port, &error))?;
    let udp_port = decide(udp_port, || UdpSocket::bind((ip, 0))?.local_addr())
        .map_err(|error| refused("UDP", udp_port, &error))?;
    let (tcp, udp) = (SocketAddr::new(ip, tcp_port), SocketAddr::new(ip, udp_port));
    check_free(tcp, SocketAddr::new(ip, 0)).map_err(|error| refused("TCP", tcp_port, &error))?;
    check_free(SocketAddr::new(ip, 0), udp).map_err(|error| refused("UDP", udp_port, &error))?;
    let mut of_shards = Vec::with_capacity(shards);
    for _ in 0..shards {
        let listener = tcp_listener(tcp).map_err(|error| refused("TCP", tcp_port, &error))?;
        // Connections inherit it.
        let socket = SockRef::from(&listener);
        let bounded = socket.set_send_buffer_size(SEND_SOCKET_BYTES);
        let bounded = bounded.and_then(|()| socket.set_recv_buffer_size(RECEIVE_SOCKET_BYTES));
        bounded.map_err(|error| refused("TCP", tcp_port, &error))?;
        let datagrams = udp_socket(udp).map_err(|error| refused("UDP", udp_port, &error))?;
        prepare(&datagrams, ip);
        of_shards.push((listener, datagrams));
    }
    Ok(Sockets { of_shards, tcp, udp })
}

/// Has the datagram socket tell what it can beside each datagram. An older kernel knows neither: then datagrams come one
/// by one, and replies leave from wherever the routing says.
fn prepare(datagrams: &UdpSocket, ip: IpAddr) {
    let _ = take_trains(datagrams.as_fd());
    // Bound to one address, replies leave from it anyway.
    if ip.is_unspecified() {
        let _ = tell_asked_address(datagrams.as_fd(), ip);
    }
}

fn decide(port: u16, free: impl FnOnce() -> io::Result<SocketAddr>) -> io::Result<u16> {
    if port == 0 { free().map(|address| address.port()) } else { Ok(port) }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program has it; stop that one or choose another port",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; set BIND_ADDRESS to one it has",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one or grant it"
        }
        _ => "see the open files limit and the network's settings",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn shards_share_the_ports_and_strangers_do_not() {
        let first = bind(LOOPBACK, 0, 0, 3).expect("free ports");
        assert_eq!(first.of_shards.len(), 3);
        for (listener, datagrams) in &first.of_shards {
            assert_eq!(listener.local_addr().expect("bound"), first.tcp);
            assert_eq!(datagrams.local_addr().expect("bound"), first.udp);
        }
        for (tcp, udp, says) in [(first.tcp.port(), 0, "TCP"), (0, first.udp.port(), "UDP")] {
            let Err(refused) = bind(LOOPBACK, tcp, udp, 1) else { panic!("the port is taken") };
            let text = refused.to_string();
            assert!(text.contains(says) && text.contains("another program has it"), "{text}");
        }
    }

    #[test]
    fn an_address_of_another_machine_says_what_to_set() {
        let Err(refused) = bind(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 0, 0, 1) else { panic!("not ours") };
        assert!(refused.to_string().contains("BIND_ADDRESS"), "{refused}");
    }
}
