//! Simulated exchanges as processes of their own, so that several nodes listen to the same market; and orders to any
//! simulated exchange to misbehave.

use crate::http;
use crate::service::binary;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

/// One running exchange.
struct Exchange {
    venue: String,
    address: SocketAddr,
    child: Child,
    /// Kept open: whoever writes to a closed one ends.
    _stdout: BufReader<ChildStdout>,
}

/// Running exchanges; ended when dropped.
pub struct Exchanges(Vec<Exchange>);

impl Exchanges {
    /// Starts one for each of these venues, on any ports.
    ///
    /// # Panics
    /// When one does not say where it listens.
    pub fn start(venues: &[&str]) -> Self {
        Self::start_with(venues, &[])
    }

    /// The same with further arguments.
    pub fn start_with(venues: &[&str], further: &[&str]) -> Self {
        let start = |venue: &&str| {
            let mut command = Command::new(binary());
            command.args(["simulate", "--venue", venue]).args(further).stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = command.stderr(Stdio::null()).spawn().expect("trinity-beast starts");
            let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
            let mut line = String::new();
            stdout.read_line(&mut line).expect("its first line");
            let address = line.trim().rsplit("http://").next().and_then(|text| text.parse().ok());
            let address = address.unwrap_or_else(|| panic!("{venue} says no address: {line:?}"));
            Exchange { venue: (*venue).to_owned(), address, child, _stdout: stdout }
        };
        Self(venues.iter().map(start).collect())
    }

    /// The settings with which a node listens to these and no others, each priced for `assets`.
    pub fn variables(&self, assets: &str) -> Vec<(String, String)> {
        let venues: Vec<&str> = self.0.iter().map(|exchange| exchange.venue.as_str()).collect();
        let mut variables = vec![("VENUES".to_owned(), venues.join(","))];
        for exchange in &self.0 {
            let name = |what: &str| format!("{}_{what}", exchange.venue.to_ascii_uppercase());
            variables.push((name("WS_URL"), format!("ws://{}/", exchange.address)));
            variables.push((name("REST_URL"), format!("http://{}", exchange.address)));
            variables.push((name("PREWARM_ASSETS"), assets.to_owned()));
        }
        variables
    }

    /// Where each venue is.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.0.iter().map(|exchange| (exchange.venue.as_str(), exchange.address))
    }
}

impl Drop for Exchanges {
    fn drop(&mut self) {
        for exchange in &mut self.0 {
            // Our own children, by their ids; already ended is fine.
            let _ = exchange.child.kill();
            let _ = exchange.child.wait();
        }
    }
}

/// Makes something go wrong at the exchange, or right again; see `/simulator/fault`.
///
/// # Panics
/// When the exchange does not know the order.
pub fn order(exchange: SocketAddr, query: &str) {
    let path = format!("/simulator/fault?{query}");
    let reply = http::request(exchange, "POST", &path, &[("Content-Length", "0")]);
    assert_eq!(reply.status, 200, "{query}: {}", reply.text());
}

/// What was asked of the exchange over REST: `total`, `most_in_a_second`, `paths` with the count of each.
pub fn asked(exchange: SocketAddr) -> Value {
    http::get(exchange, "/simulator/requests", &[]).json()
}

/// Counts afresh what is asked of the exchange over REST.
pub fn forget(exchange: SocketAddr) {
    assert_eq!(http::request(exchange, "DELETE", "/simulator/requests", &[]).status, 200);
}
