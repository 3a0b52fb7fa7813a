//! Asking over UDP in JSON datagrams, up to eight assets in one.

use super::super::service::{ServiceArgs, read_json, refused, with_port};
use super::Answer;
use anyhow::{Context, bail};
use serde_json::json;
use shared::asset::Symbol;
use shared::code::Code;
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
    /// A client of this service.
    pub async fn new(service: &ServiceArgs) -> anyhow::Result<Self> {
        let target = with_port(&service.target, PORT);
        let looked_up = tokio::net::lookup_host(&target).await.ok().and_then(|mut found| found.next());
        let address = looked_up.with_context(|| format!("cannot find {target}: check --target"))?;
        let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await.context("cannot open a UDP socket")?;
        socket.connect(address).await.with_context(|| format!("cannot reach {target}"))?;
        Ok(Self { socket, target, key: service.key.clone(), last_id: 0 })
    }

    /// Asks for `assets`.
    pub async fn ask(&mut self, assets: &[Symbol]) -> anyhow::Result<Answer> {
        let mut answer = Answer::default();
        let mut unasked: Vec<&[Symbol]> = assets.chunks(ASSETS_PER_DATAGRAM_MAX).rev().collect();
        while let Some(some) = unasked.pop() {
            let mut object = self.ask_some(some).await?;
            let code = object["code"].as_str().unwrap_or_default();
            match object["status"].as_u64() {
                None => answer.add(&mut object),
                // Eight long prices are more than a datagram: halves of them are not.
                Some(_) if code == Code::ReplyTooLong.name() && some.len() > 1 => {
                    let (first, second) = some.split_at(some.len() / 2);
                    unasked.extend([second, first]);
                }
                Some(status) => {
                    let known = Code::ALL.into_iter().find(|known| known.name() == code);
                    return Err(refused(status, code, known.map_or("an unknown code", Code::title)));
                }
            }
        }
        Ok(answer)
    }

    /// What the service says to one request.
    async fn ask_some(&mut self, assets: &[Symbol]) -> anyhow::Result<serde_json::Value> {
        for _ in 0..TRIES {
            self.last_id += 1;
            self.socket.send(&request(&self.key, assets, self.last_id)).await.context("the datagram did not leave")?;
            match timeout(PATIENCE, self.reply(self.last_id)).await {
                Ok(reply) => return reply,
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

    #[tokio::test]
    async fn what_does_not_fit_into_one_reply_is_asked_for_in_parts() {
        let service = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let target = service.local_addr().expect("its address").to_string();
        let serving = tokio::spawn(async move {
            let mut bytes = [0; DATAGRAM_IN_MAX];
            loop {
                let (length, from) = service.recv_from(&mut bytes).await.expect("a request");
                let asked = read_json(&bytes[..length]).expect("JSON");
                let names = asked["assets"].as_array().expect("assets");
                let prices: Vec<_> = names.iter().map(|name| json!({ "asset": name })).collect();
                let reply = match names.len() {
                    0..=2 => json!({ "id": asked["id"], "prices": prices, "missing": [] }),
                    _ => json!({ "id": asked["id"], "status": 400, "code": "reply_too_long" }),
                };
                service.send_to(reply.to_string().as_bytes(), from).await.expect("sent");
            }
        });
        let assets: Vec<Symbol> =
            (0..11).map(|index| Symbol::new(format!("A{index}").as_bytes()).expect("a symbol")).collect();
        let mut client = Client::new(&ServiceArgs { target, key: "key".to_owned() }).await.expect("a client");
        let answer = client.ask(&assets).await.expect("an answer");
        let came: Vec<&str> = answer.prices.iter().filter_map(|price| price["asset"].as_str()).collect();
        assert_eq!(came, assets.iter().map(Symbol::as_str).collect::<Vec<_>>(), "all, in their order");
        serving.abort();
    }

    #[test]
    fn a_request_is_long_enough_for_its_reply_and_not_too_long() {
        let assets = [Symbol::new(b"ABCDEFGHIJKLMNOP").expect("a symbol"); ASSETS_PER_DATAGRAM_MAX];
        for count in 1..=assets.len() {
            let length = request(&"k".repeat(40), &assets[..count], u64::MAX).len();
            assert!((REQUEST_BYTES..=DATAGRAM_IN_MAX).contains(&length), "{length} bytes for {count}");
        }
    }
}
