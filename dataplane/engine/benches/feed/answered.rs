//! How long until a price just received is answered by every shard: an upper bound on what a shard knows earlier.
//!
//! For each sample a client waits on every shard for the next price of one asset (`newer_than`, `wait_ms`); then a quote
//! of that asset is stamped and given to the feed thread, as a venue session does with a frame it has just read. The
//! sample ends when the last shard's answer has been read. It contains the shard rendering and sending the answer, the
//! loopback, and this thread being scheduled.

use crate::plane;
use dataplane_core::feed::FeedInput;
use dataplane_engine::{DataPlane, FeedSender};
use hdrhistogram::Histogram;
use shared::asset::AssetId;
use shared::venue::Venue;
use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Duration;
use tuning::clock;

/// The asset that is sampled; the stream of quotes is to be about the others.
pub const PROBED: usize = 0;

/// Connections opened, for each shard, in search of one that it serves: missing a shard among two is then a chance of
/// one in 2^64.
const CONNECTIONS_TRIED: usize = 64;

/// Opens connections until every shard serves one. Which shard has which shows in the shards' counters.
pub fn one_connection_each(plane: &DataPlane) -> io::Result<Vec<TcpStream>> {
    let asked = || -> Vec<u64> { plane.stats().iter().map(|shard| shard.counters.http_requests).collect() };
    let mut found: Vec<Option<TcpStream>> = (0..asked().len()).map(|_| None).collect();
    for _ in 0..found.len() * CONNECTIONS_TRIED {
        // The counters are published twenty times a second: wait until they have settled, then for the next change.
        std::thread::sleep(Duration::from_millis(250));
        let before = asked();
        let mut stream = TcpStream::connect(plane.tcp_address())?;
        stream.set_nodelay(true)?;
        plane::ask(&mut stream, &plane::request(PROBED))?;
        let shard = loop {
            let after = asked();
            match after.iter().zip(&before).position(|(after, before)| after > before) {
                Some(shard) => break shard,
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        found[shard] = Some(stream);
        if found.iter().all(Option::is_some) {
            return Ok(found.into_iter().flatten().collect());
        }
    }
    Err(io::Error::other("the kernel gave no connection to one of the shards"))
}

/// Takes the samples, ns.
pub fn sample(feed: &FeedSender, shards: &mut [TcpStream], samples: usize) -> io::Result<Histogram<u64>> {
    let mut latency = Histogram::new_with_bounds(1, 10_000_000_000, 3).map_err(io::Error::other)?;
    let asset = AssetId::new(PROBED).expect("the first");
    let plain = String::from_utf8_lossy(&plane::request(PROBED)).into_owned();
    let mut newest = 0;
    for shard in &mut *shards {
        shard.write_all(plain.as_bytes())?;
        newest = newest.max(sequence(shard)?);
    }
    for number in 1..=samples {
        let target = format!("&newer_than={newest}&wait_ms=30000 HTTP/1.1");
        let waiting = plain.replace(" HTTP/1.1", &target);
        for shard in &mut *shards {
            shard.write_all(waiting.as_bytes())?;
        }
        // Long enough for the requests to be waiting, and never in step with the bursts.
        let number = u64::try_from(number).unwrap_or(0);
        std::thread::sleep(Duration::from_micros(1_000 + number * 37 % 700));
        let cents = 6_700_000 + i64::try_from(number * 3 % 5_000).unwrap_or(0);
        let quote = plane::quote(Venue::Coinbase, asset, cents);
        feed.try_send(FeedInput::Quote(quote)).map_err(|_| io::Error::other("the feed's channel is full"))?;
        let before = newest;
        for shard in &mut *shards {
            newest = newest.max(sequence(shard)?);
        }
        latency.saturating_record(clock::mono_ns() - quote.received_mono_ns);
        if newest == before {
            return Err(io::Error::other("an answer was not newer than what was known"));
        }
    }
    Ok(latency)
}

/// Reads one answer; its sequence.
fn sequence(shard: &mut TcpStream) -> io::Result<u64> {
    let (status, body, _) = plane::read_answer(shard)?;
    let digits = body.split_once("\"sequence\":").map_or("", |(_, rest)| rest);
    let digits = digits.split(|other: char| !other.is_ascii_digit()).next().unwrap_or_default();
    match digits.parse() {
        Ok(sequence) if status.contains(" 200 ") => Ok(sequence),
        _ => Err(io::Error::other(format!("{status}: {body}"))),
    }
}
