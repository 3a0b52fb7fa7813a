//! `price`: a client that prints prices, once or as they change, over HTTP or UDP.
//!
//! It knows the service only as its users do, by the contract: nothing here is shared with the serving side.

mod http;
mod udp;

use super::print;
use super::service::ServiceArgs;
use anyhow::bail;
use clap::Args;
use serde_json::Value;
use shared::asset::{Symbol, resolve_alias};
use std::collections::HashMap;
use std::fmt::Write;
use std::io::{self, Write as _};
use std::time::Duration;

/// Arguments of `price`.
#[derive(Debug, Args)]
pub struct PriceArgs {
    /// What to price, such as BTC ETH; at most 64
    #[arg(required = true, num_args = 1..=64, value_name = "ASSET", value_parser = symbol)]
    assets: Vec<Symbol>,
    /// Ask over UDP, in JSON datagrams
    #[arg(long)]
    udp: bool,
    /// Go on printing what changes, until interrupted
    #[arg(long)]
    watch: bool,
    /// One JSON line per price, as the service gave it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: ServiceArgs,
    /// With --watch: time between two questions, ms
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    every_ms: u64,
}

fn symbol(text: &str) -> Result<Symbol, &'static str> {
    Symbol::new(text.as_bytes()).ok_or("an asset is 1 to 16 letters and digits")
}

/// What the service said to one question.
#[derive(Debug, Default)]
struct Answer {
    /// Prices, in the service's own form.
    prices: Vec<Value>,
    /// Assets it has no price for.
    missing: Vec<String>,
}

impl Answer {
    /// Takes `prices` and `missing` out of the service's object.
    fn add(&mut self, object: &mut Value) {
        if let Some(Value::Array(prices)) = object.get_mut("prices").map(Value::take) {
            self.prices.extend(prices);
        }
        if let Some(Value::Array(missing)) = object.get_mut("missing").map(Value::take) {
            self.missing.extend(missing.into_iter().filter_map(|name| Some(name.as_str()?.to_owned())));
        }
    }
}

enum Client {
    Http(http::Client),
    Udp(udp::Client),
}

/// Prints prices.
pub fn run(args: &PriceArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            done = ask(args) => done,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

async fn ask(args: &PriceArgs) -> anyhow::Result<()> {
    let mut client = if args.udp {
        Client::Udp(udp::Client::new(&args.service).await?)
    } else {
        Client::Http(http::Client::new(&args.service)?)
    };
    let mut printer = Printer { json: args.json, shown: HashMap::new() };
    let mut turns = tokio::time::interval(Duration::from_millis(args.every_ms));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut has_answered, mut trouble) = (false, String::new());
    loop {
        turns.tick().await;
        let answer = match &mut client {
            Client::Http(client) => client.ask(&args.assets).await,
            Client::Udp(client) => client.ask(&args.assets).await,
        };
        let answer = match answer {
            // Who watches wants to see it come back.
            Err(error) if args.watch && has_answered => {
                let told = format!("{error:#}");
                if told != trouble {
                    writeln!(io::stderr(), "trinity-beast: {told}; going on")?;
                }
                trouble = told;
                continue;
            }
            answer => answer?,
        };
        (has_answered, trouble) = (true, String::new());
        print(&printer.text(&answer.prices))?;
        let missing = unanswered(&args.assets, &answer);
        if !missing.is_empty() && (!args.watch || answer.prices.is_empty()) {
            bail!(
                "no price for {}: no venue lists it, or none has quoted it yet; GET /assets tells what there is",
                missing
            );
        }
        if !args.watch {
            return Ok(());
        }
    }
}

/// The assets that were asked for and did not come, as text.
fn unanswered(assets: &[Symbol], answer: &Answer) -> String {
    let came = |asset: &&Symbol| {
        let name = resolve_alias(**asset);
        answer.prices.iter().any(|price| price["asset"] == name.as_str())
    };
    let mut names: Vec<&str> = assets.iter().filter(|asset| !came(asset)).map(Symbol::as_str).collect();
    names.extend(
        answer.missing.iter().map(String::as_str).filter(|name| !assets.iter().any(|asset| asset.as_str() == *name)),
    );
    names.join(", ")
}

/// Turns prices into lines, leaving out those that have not changed since.
struct Printer {
    json: bool,
    shown: HashMap<String, u64>,
}

impl Printer {
    fn text(&mut self, prices: &[Value]) -> String {
        let mut text = String::new();
        if !self.json && self.shown.is_empty() && !prices.is_empty() {
            text.push_str("ASSET            PRICE                CUR  SOURCE         FROM  SPREAD BPS     AGE MS\n");
        }
        for price in prices {
            let asset = field(price, "asset");
            let sequence = price["sequence"].as_u64().unwrap_or(0);
            if self.shown.insert(asset.clone(), sequence) == Some(sequence) {
                continue;
            }
            // Writing to a string does not fail.
            let _ = if self.json {
                writeln!(text, "{price}")
            } else {
                let marks = [("stale", " stale"), ("simulated", " simulated")];
                let marks: String =
                    marks.into_iter().filter(|(name, _)| price[*name] == true).map(|(_, mark)| mark).collect();
                writeln!(
                    text,
                    "{asset:<16} {:<20} {:<4} {:<14} {:>4}  {:>10} {:>10}{marks}",
                    field(price, "price"),
                    field(price, "currency"),
                    field(price, "source"),
                    field(price, "sources"),
                    field(price, "spread_bps"),
                    field(price, "age_ms"),
                )
            };
        }
        text
    }
}

/// A member as text; empty where there is none.
fn field(object: &Value, name: &str) -> String {
    match &object[name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_changed_is_printed_again() {
        let mut printer = Printer { json: false, shown: HashMap::new() };
        let price = |sequence: u64| json!({ "asset": "BTC", "price": "1.5", "currency": "USD", "sequence": sequence, "stale": true });
        let first = printer.text(&[price(1)]);
        assert_eq!(first.lines().count(), 2, "a head and a row: {first}");
        assert!(first.ends_with(" stale\n"));
        assert_eq!(printer.text(&[price(1)]), "");
        assert_eq!(printer.text(&[price(2)]).lines().count(), 1);
    }

    #[test]
    fn aliases_are_answered_by_their_asset() {
        let assets = [symbol("rndr").expect("good"), symbol("NOPE").expect("good")];
        let mut answer = Answer::default();
        answer.add(&mut json!({ "prices": [{ "asset": "RENDER" }], "missing": ["NOPE"] }));
        assert_eq!(unanswered(&assets, &answer), "NOPE");
    }
}
