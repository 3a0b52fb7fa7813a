//! Which assets are asked for when the user names none: what the first target lists, else a few that every exchange has.

use anyhow::{Context, ensure};
use serde::Deserialize;
use shared::asset::Symbol;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Assets asked for at most: a list that is not longer keeps each of them asked often in every level.
const ASSETS_MAX: usize = 256;
/// Bytes of a list at most: 4,096 assets of 256 bytes.
const LIST_BYTES_MAX: u64 = 1_048_576;
/// Patience with one list; a service gives it in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where no list is to be had.
const USUAL: [&str; 8] = ["BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "LTC", "LINK"];

#[derive(Deserialize)]
struct List {
    assets: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    asset: String,
    #[serde(default)]
    priced: bool,
}

/// The usual ones.
pub fn usual() -> Vec<Symbol> {
    USUAL.iter().filter_map(|name| Symbol::new(name.as_bytes())).collect()
}

/// Why there is no list.
pub enum NoList {
    /// Nobody takes a connection there.
    Unreachable(anyhow::Error),
    /// Someone does, and has no list.
    NotListed(anyhow::Error),
}

/// What the service at `address` lists as priced.
pub fn listed(address: SocketAddr) -> Result<Vec<Symbol>, NoList> {
    let connection =
        TcpStream::connect_timeout(&address, PATIENCE).context("no connection").map_err(NoList::Unreachable)?;
    ask(connection, address).and_then(|answer| read(&answer)).map_err(NoList::NotListed)
}

/// Asks as HTTP/1.0: the answer is then whole when the connection ends, in whatever way a proxy passes it on.
fn ask(mut connection: TcpStream, address: SocketAddr) -> anyhow::Result<Vec<u8>> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /assets HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).context("the question was not taken")?;
    let mut answer = Vec::new();
    connection.take(LIST_BYTES_MAX).read_to_end(&mut answer).context("no whole answer")?;
    Ok(answer)
}

fn read(answer: &[u8]) -> anyhow::Result<Vec<Symbol>> {
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("the answer is not HTTP")?;
    let status = answer.get(9..12).unwrap_or_default();
    ensure!(status == b"200", "the answer's status is {}", String::from_utf8_lossy(status));
    let list: List = serde_json::from_slice(&answer[head_end + 4..]).context("the answer is not a list of assets")?;
    let priced = list.assets.iter().filter(|listed| listed.priced);
    let symbols: Vec<Symbol> =
        priced.filter_map(|listed| Symbol::new(listed.asset.as_bytes())).take(ASSETS_MAX).collect();
    ensure!(!symbols.is_empty(), "no asset has a price yet");
    Ok(symbols)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(head: &str, body: &str, expected: Option<&[&str]>) {
        let found = read(format!("{head}\r\n\r\n{body}").as_bytes()).ok();
        let names = found.as_ref().map(|symbols| symbols.iter().map(Symbol::as_str).collect::<Vec<_>>());
        assert_eq!(names.as_deref(), expected, "{head} {body}");
    }

    #[test]
    fn priced_assets_are_taken_from_a_list() {
        let list = r#"{"assets":[{"asset":"BTC","priced":true},{"asset":"NEW","priced":false},{"asset":"ETH","priced":true}]}"#;
        check("HTTP/1.1 200 OK", list, Some(&["BTC", "ETH"]));
        check("HTTP/1.1 404 Not Found", list, None);
        check("HTTP/1.1 200 OK", r#"{"assets":[]}"#, None);
        check("HTTP/1.1 200 OK", "hello", None);
        check("hello", "", None);
    }

    #[test]
    fn the_usual_ones_are_symbols() {
        assert_eq!(usual().len(), USUAL.len());
    }
}
