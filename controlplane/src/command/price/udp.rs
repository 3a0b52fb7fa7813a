//! Asking over UDP in JSON datagrams, up to eight assets in one.

use super::{Answer, read_json, refused, with_port};
use anyhow::{Context, bail};
use serde_json::json;
use shared::asset::Symbol;
use shared::limits::{ASSETS_PER_DATAGRAM_MAX, DATAGRAM_OUT_MAX};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Port of prices over UDP.
const PORT: u16 = 2_679;

/// A reply is at most three times its request: one of this length allows the longest reply there is.
const REQUEST_BYTES: usize = DATAGRAM_OUT_MAX.div_ceil(3);

/// Datagrams get lost: this many are sent before giving up.
const TRIES: usize = 3;

/// Patience for one reply.
const PATIENCE: Duration = Duration::from_secs(1);

/// A UDP client of one service.
pub struct Client {
    socket: UdpSocket,
    target: String,
    key: String,
    last_id: u64,
}

impl Client {
    /// A client of the service at `target`.
    pub async fn new(target: &str, key: &str) -> anyhow::Result<Self> {
        let target = with_port(target, PORT);
        let looked_up = tokio::net::lookup_host(&target).await.ok().and_then(|mut found| found.next());
        let address = looked_up.with_context(|| format!("cannot find {target}: check --target"))?;
        let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await.context("cannot open a UDP socket")?;
        socket.connect(address).await.with_context(|| format!("cannot reach {target}"))?;
        Ok(Self { socket, target, key: key.to_owned(), last_id: 0 })
    }

    /// Asks for `assets`.
    pub async fn ask(&mut self, assets: &[Symbol]) -> anyhow::Result<Answer> {
        let mut answer = Answer::default();
        for some in assets.chunks(ASSETS_PER_DATAGRAM_MAX) {
            self.ask_some(some, &mut answer).await?;
        }
        Ok(answer)
    }

    async fn ask_some(&mut self, assets: &[Symbol], answer: &mut Answer) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            self.last_id += 1;
            self.socket.send(&request(&self.key, assets, self.last_id)).await.context("the datagram did not leave")?;
            match timeout(PATIENCE, self.reply(self.last_id)).await {
                Ok(reply) => {
                    let mut object = reply?;
                    if let Some(status) = object["status"].as_u64() {
                        return Err(refused(
                            status,
                            object["code"].as_str().unwrap_or_default(),
                            "see the contract's codes",
                        ));
                    }
                    answer.add(&mut object);
                    return Ok(());
                }
                Err(_) => continue,
            }
        }
        bail!("no reply from {} over UDP: check --target, and the key (a wrong one is met with silence)", self.target)
    }

    /// The reply to request `id`; late replies to earlier ones are dropped.
    async fn reply(&self, id: u64) -> anyhow::Result<serde_json::Value> {
        let mut bytes = [0; DATAGRAM_OUT_MAX];
        loop {
            let received = self.socket.recv(&mut bytes).await;
            let length = received.with_context(|| format!("nothing listens at {}: check --target", self.target))?;
            let object = read_json(&bytes[..length])?;
            if object["id"].as_u64() == Some(id) {
                return Ok(object);
            }
        }
    }
}

/// One request, padded so that its reply may be as long as replies get.
fn request(key: &str, assets: &[Symbol], id: u64) -> Vec<u8> {
    let names: Vec<&str> = assets.iter().map(Symbol::as_str).collect();
    let bare = json!({ "key": key, "assets": names, "id": id, "pad": "" }).to_string();
    let pad = ".".repeat(REQUEST_BYTES.saturating_sub(bare.len()));
    json!({ "key": key, "assets": names, "id": id, "pad": pad }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::limits::DATAGRAM_IN_MAX;

    #[test]
    fn a_request_is_long_enough_for_its_reply_and_not_too_long() {
        let assets = [Symbol::new(b"ABCDEFGHIJKLMNOP").expect("a symbol"); ASSETS_PER_DATAGRAM_MAX];
        for count in 1..=assets.len() {
            let length = request(&"k".repeat(40), &assets[..count], u64::MAX).len();
            assert!((REQUEST_BYTES..=DATAGRAM_IN_MAX).contains(&length), "{length} bytes for {count}");
        }
    }
}
