//! `record`: one connection's frames, as the venue sent them, one per line: food for `decode`.
//!
//! It subscribes as a session does but keeps no state and does not reconnect: a recording is of one connection.

use super::{gemini_api, print, venue};
use crate::feeds::connect::{Socket, Trust, connect};
use crate::feeds::endpoint::WsAddress;
use crate::feeds::timing::Timing;
use anyhow::{Context, anyhow, bail};
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use shared::asset::Symbol;
use shared::venue::Venue;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tungstenite::Message;
use venues::VenueSettings;
use venues::gemini::GeminiApi;
use venues::protocol::{KeepAlive, VenueEvent, VenueProtocol};

/// Arguments of `record`.
#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Whom to record
    #[arg(long, value_parser = venue)]
    venue: Venue,
    /// Where to write the frames; an existing file is not touched
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What to subscribe to
    #[arg(long, value_delimiter = ',', default_value = "BTC,ETH", value_parser = symbol)]
    assets: Vec<Symbol>,
    /// What the prices are in: USD or USDT; left out: what the venue mostly quotes
    #[arg(long, value_parser = symbol)]
    quote: Option<Symbol>,
    /// How long to record, seconds; left out: until interrupted
    #[arg(long)]
    seconds: Option<u64>,
    /// Which of Gemini's interfaces
    #[arg(long, value_parser = gemini_api, default_value = "new")]
    gemini_api: GeminiApi,
    /// Another address than the public one (ws:// for loopback addresses only)
    #[arg(long)]
    ws_url: Option<String>,
}

fn symbol(text: &str) -> Result<Symbol, &'static str> {
    Symbol::new(text.as_bytes()).ok_or("a symbol is 1 to 16 letters and digits")
}

/// Records until the time is over, an interrupt comes, or the venue closes.
pub fn run(args: &RecordArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(record(args))
}

async fn record(args: &RecordArgs) -> anyhow::Result<()> {
    let mut protocol = venues::protocol(args.venue, VenueSettings { gemini: args.gemini_api });
    let address = WsAddress::parse(args.ws_url.as_deref().unwrap_or_else(|| protocol.ws_url()));
    let address = address.map_err(|why| anyhow!(why))?;
    let file = File::create_new(&args.out);
    let file =
        file.with_context(|| format!("cannot make {}: give a path that does not exist yet", args.out.display()))?;
    let mut out = BufWriter::new(file);
    let trust = Trust::platform().map_err(|why| anyhow!(why))?;
    let socket = connect(&address, &trust, &Timing::default()).await;
    let socket = socket.map_err(|why| anyhow!("{}: {why}; check the network", args.venue))?;
    let frames = opening(&*protocol, args);
    let recorded = tokio::select! {
        recorded = listen(socket, &mut *protocol, frames, &mut out) => recorded,
        () = end(args.seconds) => Ok(()),
    };
    out.flush().context("the recording could not be written to its end")?;
    recorded?;
    print(&format!("recorded {} to {}\n", args.venue, args.out.display()))
}

/// Waits for the end of the recording.
async fn end(seconds: Option<u64>) {
    let over = async {
        match seconds {
            Some(seconds) => sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        // Without a handler the recording goes on until its time is over.
        Ok(()) = tokio::signal::ctrl_c() => {}
    }
}

/// What a session would send first: the greeting, then the subscriptions within the venue's limits.
fn opening(protocol: &dyn VenueProtocol, args: &RecordArgs) -> Vec<String> {
    let usual = match args.venue {
        Venue::Coinbase | Venue::Gemini | Venue::Kraken | Venue::Cryptocom => "USD",
        Venue::Gateio | Venue::Bybit | Venue::Okx => "USDT",
    };
    let Some(quote) = args.quote.or_else(|| Symbol::new(usual.as_bytes())) else { return Vec::new() };
    let names: Vec<String> = args.assets.iter().map(|base| protocol.spell(base, &quote)).collect();
    let mut frames = protocol.greeting();
    for names in names.chunks(protocol.limits().names_per_frame.max(1)) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        frames.extend(protocol.subscribe(&names, frames.len() as u64 + 1));
    }
    frames
}

/// Sends what is due and writes down what comes.
async fn listen(
    mut socket: Socket,
    protocol: &mut dyn VenueProtocol,
    opening: Vec<String>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let limits = protocol.limits();
    let ping_ms = match protocol.keep_alive() {
        KeepAlive::Client { every_ms } => every_ms,
        KeepAlive::Server { silence_ms_max } => silence_ms_max,
    };
    let mut pings = interval(Duration::from_millis(ping_ms.max(1_000)));
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = opening.into_iter().peekable();
    let mut next_frame = Instant::now() + Duration::from_millis(limits.first_frame_wait_ms);
    let mut request = 1_000_000;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next_frame), if waiting.peek().is_some() => {
                if let Some(frame) = waiting.next() {
                    socket.send(Message::text(frame)).await?;
                }
                next_frame = Instant::now() + Duration::from_millis(limits.frame_gap_ms);
            }
            _ = pings.tick() => {
                request += 1;
                if let Some(ping) = protocol.ping(request) {
                    socket.send(Message::text(ping)).await?;
                }
            }
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    writeln!(out, "{}", text.as_str().replace(['\n', '\r'], " ")).context("the recording cannot be written")?;
                    for answer in answers(protocol, text.as_bytes()) {
                        socket.send(Message::text(answer)).await?;
                    }
                }
                Some(Ok(Message::Close(_))) | None => bail!("the venue closed the connection; what came until then is recorded"),
                Some(Ok(_)) => {}
                Some(Err(error)) => bail!("the connection broke ({error}); what came until then is recorded"),
            },
        }
    }
}

/// What the venue wants to hear in answer to a frame.
fn answers(protocol: &mut dyn VenueProtocol, frame: &[u8]) -> Vec<String> {
    let mut answers = Vec::new();
    protocol.decode(frame, &mut |event| {
        if let VenueEvent::Heartbeat { answer: Some(answer) } = event {
            answers.push(answer);
        }
    });
    answers
}
