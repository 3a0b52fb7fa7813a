//! From an address to an open WebSocket: name, TCP, TLS, handshake, all inside one deadline.
//!
//! The certificate is checked by the platform's verifier against the name in the address; there is no setting that
//! turns this off. Only a loopback address may be reached without TLS, which `endpoint` and the check here enforce.

use super::endpoint::WsAddress;
use super::timing::{FRAME_BYTES_MAX, MESSAGE_BYTES_MAX, Timing, duration_ms};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_platform_verifier::BuilderVerifierExt;
use socket2::SockRef;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tungstenite::protocol::WebSocketConfig;

/// Bytes a session's socket may hold unsent: subscribe frames and pongs are under 8 KiB together.
const WRITE_BUFFER_MAX: usize = 256 << 10;

/// Read buffer of a connection. A venue's frames are mostly under 1 KiB; at 16 KiB one read takes many of them.
const READ_BUFFER: usize = 16 << 10;

/// Resolved addresses that are tried before giving up.
const ADDRESSES_MAX: usize = 4;

/// A byte stream, encrypted or not.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// An open WebSocket to a venue.
pub type Socket = WebSocketStream<Box<dyn Transport>>;

/// What TLS connections trust. Cheap to clone.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts what this machine trusts; TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// When the platform's trust store cannot be used: install the CA certificates (`ca-certificates`).
    pub fn platform() -> Result<Self, String> {
        let config = versions().and_then(BuilderVerifierExt::with_platform_verifier);
        Ok(Self(Arc::new(config.map_err(no_tls)?.with_no_client_auth())))
    }

    /// Trusts nobody: for exchanges simulated on this machine, which need no certificates to be installed.
    ///
    /// # Errors
    /// When TLS cannot be set up at all.
    pub fn nobody() -> Result<Self, String> {
        let config = versions().map_err(no_tls)?.with_root_certificates(RootCertStore::empty());
        Ok(Self(Arc::new(config.with_no_client_auth())))
    }

    /// Trusts what was signed by `root`, and nothing else.
    #[cfg(test)]
    pub(crate) fn only(root: rustls::pki_types::CertificateDer<'static>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root).expect("a good certificate");
        let config = versions().expect("TLS").with_root_certificates(roots);
        Self(Arc::new(config.with_no_client_auth()))
    }

    /// The same trust, for an HTTP client.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        ClientConfig::clone(&self.0)
    }
}

fn versions() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

fn no_tls(fault: rustls::Error) -> String {
    format!("TLS cannot be set up ({fault}): install the CA certificates of this system")
}

/// Limits of a WebSocket connection, for a session and for a simulated exchange alike.
#[must_use]
pub fn socket_config() -> WebSocketConfig {
    // Frames are written eagerly: each is one small message that someone waits for.
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

/// Opens a WebSocket within `timing.connect_ms`.
///
/// # Errors
/// What failed, for a person: the step and the system's words.
pub async fn connect(address: &WsAddress, trust: &Trust, timing: &Timing) -> Result<Socket, String> {
    let limit = duration_ms(timing.connect_ms);
    timeout(limit, open(address, trust, timing))
        .await
        .unwrap_or_else(|_| Err(format!("no connection within {} ms", timing.connect_ms)))
}

async fn open(address: &WsAddress, trust: &Trust, timing: &Timing) -> Result<Socket, String> {
    let tcp = reach(address, timing).await?;
    let stream: Box<dyn Transport> = if address.tls {
        let name = ServerName::try_from(address.host.clone()).map_err(|fault| format!("host name: {fault}"))?;
        let tls = TlsConnector::from(Arc::clone(&trust.0)).connect(name, tcp).await;
        Box::new(tls.map_err(|fault| format!("TLS: {fault}"))?)
    } else {
        Box::new(tcp)
    };
    // The handshake's Host header is the address's authority: without a port where the address has none.
    let (socket, _) = tokio_tungstenite::client_async_with_config(&address.uri, stream, Some(socket_config()))
        .await
        .map_err(|fault| format!("WebSocket handshake: {fault}"))?;
    Ok(socket)
}

async fn reach(address: &WsAddress, timing: &Timing) -> Result<TcpStream, String> {
    let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
    let found = found.map_err(|fault| format!("name lookup of {}: {fault}", address.host))?;
    let mut last = format!("name lookup of {}: no address", address.host);
    // One unreachable address must leave time for the next.
    let each = duration_ms(timing.connect_ms / 3);
    for target in found.take(ADDRESSES_MAX) {
        if !address.tls && !target.ip().is_loopback() {
            last = format!("{} is {}, not loopback: use wss://", address.host, target.ip());
            continue;
        }
        match timeout(each, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => return prepare(stream, target, timing),
            Ok(Err(fault)) => last = format!("TCP connect to {target}: {fault}"),
            Err(_) => last = format!("TCP connect to {target}: no answer within {} ms", each.as_millis()),
        }
    }
    Err(last)
}

/// Small frames go out at once, and data that nobody acknowledges ends the connection.
fn prepare(stream: TcpStream, target: SocketAddr, timing: &Timing) -> Result<TcpStream, String> {
    let dead_ms = timing.ping_after_ms + timing.pong_within_ms;
    let socket = SockRef::from(&stream);
    let set = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_user_timeout(Some(duration_ms(dead_ms))));
    set.map_err(|fault| format!("TCP options towards {target}: {fault}"))?;
    Ok(stream)
}
