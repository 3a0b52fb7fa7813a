//! Where a venue is reached: its WebSocket address and its REST base, checked once.
//!
//! Unencrypted addresses are for simulated exchanges on this machine only; anything else must be `wss://` and
//! `https://`. Addresses are public values: no credentials are taken in them.

use shared::venue::{VENUE_COUNT, Venue};
use std::net::IpAddr;
use tungstenite::http::Uri;
use venues::protocol::VenueProtocol;

/// Where one venue is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// WebSocket address.
    pub ws: WsAddress,
    /// REST base address, without a trailing slash.
    pub rest: String,
}

/// A checked WebSocket address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsAddress {
    /// The whole address.
    pub uri: Uri,
    /// Host name or literal address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
}

impl Endpoint {
    /// The venue's public addresses, unless `ws` or `rest` say otherwise.
    ///
    /// # Errors
    /// One line that says which address is refused and what is wanted instead.
    pub fn new(protocol: &dyn VenueProtocol, ws: Option<&str>, rest: Option<&str>) -> Result<Self, String> {
        let ws = WsAddress::parse(ws.unwrap_or_else(|| protocol.ws_url()))?;
        let rest = check_rest(rest.unwrap_or_else(|| protocol.rest_url()))?;
        Ok(Self { ws, rest })
    }
}

impl WsAddress {
    /// Reads `wss://host[:port]/path`, or `ws://` where the host is a loopback address.
    ///
    /// # Errors
    /// One line that says what is wanted instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (uri, host) = split(text)?;
        let tls = match uri.scheme_str() {
            Some("wss") => true,
            Some("ws") if is_loopback(&host) => false,
            Some("ws") => return Err(format!("{text}: ws:// is for loopback addresses only; use wss://")),
            _ => return Err(format!("{text}: a WebSocket address begins with wss://")),
        };
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { uri, host, port, tls })
    }
}

/// Reads `https://host[:port][/path]`, or `http://` where the host is a loopback address.
fn check_rest(text: &str) -> Result<String, String> {
    let (uri, host) = split(text)?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if is_loopback(&host) => {}
        Some("http") => return Err(format!("{text}: http:// is for loopback addresses only; use https://")),
        _ => return Err(format!("{text}: a REST address begins with https://")),
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn split(text: &str) -> Result<(Uri, String), String> {
    let uri: Uri = text.parse().map_err(|fault| format!("{text}: not an address ({fault})"))?;
    let authority = uri.authority().ok_or_else(|| format!("{text}: the host is missing"))?;
    if authority.as_str().contains('@') {
        // Not repeated in the message: what stands before the @ may be a password.
        return Err("a venue address takes no user name: market data is public".to_owned());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return Err(format!("{text}: the host is missing"));
    }
    Ok((uri, host))
}

/// Whether `host` names this machine: a loopback literal, or `localhost` (whose resolved address is checked again).
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Addresses that settings put in place of the public ones, by venue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointOverrides {
    ws: [Option<String>; VENUE_COUNT],
    rest: [Option<String>; VENUE_COUNT],
}

impl EndpointOverrides {
    /// Puts `ws` and `rest` in place of the venue's public addresses; `None` leaves one as it is.
    pub fn set(&mut self, venue: Venue, ws: Option<String>, rest: Option<String>) {
        self.ws[venue.index()] = ws;
        self.rest[venue.index()] = rest;
    }

    /// The WebSocket address put in place, if one was.
    #[must_use]
    pub fn ws(&self, venue: Venue) -> Option<&str> {
        self.ws[venue.index()].as_deref()
    }

    /// The REST base put in place, if one was.
    #[must_use]
    pub fn rest(&self, venue: Venue) -> Option<&str> {
        self.rest[venue.index()].as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_ws(text: &str, expected: Result<(&str, u16, bool), &str>) {
        match (WsAddress::parse(text), expected) {
            (Ok(address), Ok((host, port, tls))) => {
                assert_eq!((address.host.as_str(), address.port, address.tls), (host, port, tls));
            }
            (Err(fault), Err(part)) => assert!(fault.contains(part), "{text}: {fault}"),
            (got, _) => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn only_loopback_may_go_without_tls() {
        check_ws("wss://ws.okx.com:8443/ws/v5/public", Ok(("ws.okx.com", 8443, true)));
        check_ws("wss://stream.crypto.com/exchange/v1/market", Ok(("stream.crypto.com", 443, true)));
        check_ws("ws://127.0.0.1:4001/", Ok(("127.0.0.1", 4001, false)));
        check_ws("ws://[::1]:4001", Ok(("::1", 4001, false)));
        check_ws("ws://localhost:4001/v2", Ok(("localhost", 4001, false)));
        check_ws("ws://ws.okx.com/", Err("loopback"));
        check_ws("ws://10.0.0.1/", Err("loopback"));
        check_ws("ws://127.0.0.1.evil.example/", Err("loopback"));
        check_ws("https://ws.okx.com/", Err("wss://"));
        check_ws("wss:///path", Err("not an address"));
        check_ws("", Err(""));
    }

    #[test]
    fn a_user_name_is_refused_and_not_repeated() {
        let fault = WsAddress::parse("wss://user:secret@ws.okx.com/").expect_err("credentials");
        assert!(!fault.contains("secret"), "{fault}");
    }

    #[track_caller]
    fn check_http(text: &str, expected: Option<&str>) {
        assert_eq!(check_rest(text).ok().as_deref(), expected, "{text}");
    }

    #[test]
    fn rest_bases_lose_their_slash_and_need_tls() {
        check_http("https://api.kraken.com/", Some("https://api.kraken.com"));
        check_http("http://127.0.0.1:9", Some("http://127.0.0.1:9"));
        check_http("http://api.kraken.com", None);
        check_http("ftp://api.kraken.com", None);
    }
}
