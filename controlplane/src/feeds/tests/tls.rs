//! Certificates: the right one is taken, every wrong one refused.

use crate::feeds::connect::{Trust, connect};
use crate::feeds::endpoint::WsAddress;
use crate::feeds::timing::Timing;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// An authority of our own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A WebSocket server with a certificate for `name`, valid until `year`.
    async fn server(&self, name: &str, year: i32) -> u16 {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a good pair");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that refuses our certificate is what most of these tests want.
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                drop(tokio_tungstenite::accept_async(stream).await);
            }
        });
        port
    }
}

/// Connects to a server with a certificate for `name` valid until `year`; `trusted`: its authority is trusted.
async fn check(name: &str, year: i32, trusted: bool, refused: Option<&str>) {
    let authority = Authority::new("ours");
    let port = authority.server(name, year).await;
    let trust = if trusted { Trust::only(authority.root()) } else { Trust::only(Authority::new("another").root()) };
    let address = WsAddress::parse(&format!("wss://localhost:{port}/")).expect("an address");
    match (connect(&address, &trust, &Timing::default()).await, refused) {
        (Ok(_), None) => {}
        (Err(fault), Some(part)) => assert!(fault.contains("certificate") && fault.contains(part), "{fault}"),
        (Ok(_), Some(part)) => panic!("a certificate for {name} until {year} was taken, not refused as {part}"),
        (Err(fault), None) => panic!("{fault}"),
    }
}

#[tokio::test]
async fn the_right_certificate_is_taken() {
    check("localhost", 2_120, true, None).await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    check("ws.okx.com", 2_120, true, Some("not valid for name")).await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    check("localhost", 2_021, true, Some("expired")).await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    check("localhost", 2_120, false, Some("UnknownIssuer")).await;
}

#[tokio::test]
async fn tls_is_not_left_out_when_the_server_speaks_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(tokio_tungstenite::accept_async(stream).await);
        }
    });
    let address = WsAddress::parse(&format!("wss://localhost:{port}/")).expect("an address");
    let trust = Trust::nobody().expect("TLS");
    let fault = connect(&address, &trust, &Timing::default()).await.err().expect("refused");
    assert!(fault.starts_with("TLS"), "{fault}");
}
