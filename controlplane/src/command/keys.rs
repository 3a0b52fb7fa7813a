//! `keys`: API keys in the configured store, made, listed, rotated and revoked without a running service.
//!
//! A running one takes a change over within a second. What a key may be is checked where administration checks it.

use super::{environment, print};
use crate::config;
use crate::config::Settings;
use crate::config::layers::{Profile, SettingArgs};
use crate::keys::issue::{Issuer, KeyState, ListWish, document, list};
use crate::keys::wish::{self, WishFault};
use crate::store::{self, PAGE_MAX, Store};
use crate::supervisor::make_data_dir;
use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;
use tokio::runtime::Builder;
use tuning::clock;
use venues::timestamp::rfc3339_ms;

/// What the audit trail calls whoever works here.
const CALLER: &str = "command line";

/// Arguments of `keys`.
#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a key: its text and its UDP secret are shown once, here
    Create(Box<CreateArgs>),
    /// List stored keys by number, without secrets
    List(Box<ListArgs>),
    /// Make a key in place of another, which works on for a while
    Rotate(Box<RotateArgs>),
    /// Refuse a key from now on, on every node
    Revoke(Box<RevokeArgs>),
}

/// What holds for all of them.
#[derive(Debug, Args)]
struct Where {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingArgs,
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// What to know it by, up to 128 bytes
    #[arg(long)]
    name: String,
    /// Its tier: demo, basic, pro, enterprise, stress, or one of your own
    #[arg(long)]
    tier: String,
    /// Requests per second in place of its tier's, 1 to 16000000
    #[arg(long, value_name = "N")]
    limit_per_second: Option<u64>,
    /// Requests per calendar month (UTC) in place of its tier's; 0: no bound
    #[arg(long, value_name = "N")]
    limit_per_month: Option<u64>,
    /// prices, reports, stream in place of its tier's
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    permissions: Option<Vec<String>>,
    /// From when on it does not work any more: RFC 3339, or Unix ms
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// From behind this number
    #[arg(long, default_value_t = 0, value_name = "ID")]
    after: u32,
    /// So many at most
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    limit: u16,
    /// Of this tier alone
    #[arg(long)]
    tier: Option<String>,
    /// active, expired or revoked ones alone
    #[arg(long, value_parser = state)]
    state: Option<KeyState>,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
struct RotateArgs {
    /// Number of the key
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    id: u32,
    /// For how long the old key works on, 0 to 720
    #[arg(long, default_value_t = wish::OVERLAP_HOURS, value_name = "HOURS")]
    overlap_hours: u64,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// Number of the key
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    id: u32,
    #[command(flatten)]
    place: Where,
}

fn state(text: &str) -> Result<KeyState, &'static str> {
    KeyState::ALL.into_iter().find(|state| state.name() == text).ok_or("a state is active, expired or revoked")
}

/// Does what is wanted and closes the store.
pub fn run(args: &KeysArgs) -> anyhow::Result<()> {
    let place = match &args.what {
        What::Create(args) => &args.place,
        What::List(args) => &args.place,
        What::Rotate(args) => &args.place,
        What::Revoke(args) => &args.place,
    };
    let settings = config::load(Profile::Serve, &place.settings, environment)?;
    if settings.database.is_in_data_dir() {
        make_data_dir(settings.data_dir.as_deref())?;
    }
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        let store = open(&settings).await?;
        let done = carry_out(&args.what, place.json, &settings, &*store).await;
        store.close().await;
        print(&done?)
    })
}

/// The store; a SQLite file is brought to this version's schema, as `serve` does.
async fn open(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    let store = store::open(&settings.database, settings.data_dir.as_deref())?;
    if store.kind() == "sqlite" {
        store.migrate().await.context("cannot use the SQLite database; see DATABASE_URL and TB_DATA_DIR")?;
    }
    Ok(store)
}

async fn carry_out(what: &What, as_json: bool, settings: &Settings, store: &dyn Store) -> anyhow::Result<String> {
    let taken: HashSet<u32> = settings.keys.iter().map(|key| key.record.id.0).collect();
    let issuer = Issuer { store, node: &settings.node, caller: CALLER, taken: &taken };
    let now_ms = clock::now().wall_ms;
    let shown = match what {
        What::Create(args) => {
            let members = members(args)?;
            let wish = wish::new_key(&members, &store.tiers().await?, now_ms).map_err(|faults| refused(&faults))?;
            issuer.create(&wish, now_ms).await?.shown_once(now_ms)
        }
        What::Rotate(args) => {
            let members = Map::from_iter([("overlap_hours".to_owned(), json!(args.overlap_hours))]);
            let overlap_ms = wish::overlap(&members).map_err(|faults| refused(&faults))?;
            let made = issuer.rotate(args.id, overlap_ms, now_ms).await;
            made.with_context(|| format!("key {} is not rotated", args.id))?.0.shown_once(now_ms)
        }
        What::Revoke(args) => {
            let row = issuer.revoke(args.id, now_ms).await;
            document(&row.with_context(|| format!("key {} is not revoked", args.id))?, now_ms)
        }
        What::List(args) => {
            let wish = ListWish {
                after: args.after,
                limit: usize::from(args.limit).min(PAGE_MAX),
                tier: args.tier.clone(),
                state: args.state,
            };
            let (rows, next) = list(store, &wish, now_ms).await?;
            let rows: Vec<Value> = rows.iter().map(|row| document(row, now_ms)).collect();
            if !as_json {
                return Ok(table(&rows, next));
            }
            json!({ "keys": rows, "next_after": next })
        }
    };
    Ok(if as_json { serde_json::to_string_pretty(&shown)? + "\n" } else { lines(&shown) })
}

/// The wish as administration would get it.
fn members(args: &CreateArgs) -> anyhow::Result<Map<String, Value>> {
    let expires = match &args.expires {
        None => None,
        Some(text) => match text.parse().ok().or_else(|| rfc3339_ms(text)) {
            Some(time_ms) => Some(time_ms),
            None => bail!("--expires is a time as 2030-01-31T00:00:00Z, or Unix milliseconds"),
        },
    };
    let wish = json!({
        "name": args.name,
        "tier": args.tier,
        "limit_per_second": args.limit_per_second,
        "limit_per_month": args.limit_per_month,
        "permissions": args.permissions,
        "expires_time_ms": expires,
    });
    wish.as_object().cloned().context("a wish is an object")
}

fn refused(faults: &[WishFault]) -> anyhow::Error {
    let told = |fault: &WishFault| format!("{}: {} (allowed: {})", fault.name, fault.why, fault.bounds);
    anyhow!("nothing was changed: {}", faults.iter().map(told).collect::<Vec<_>>().join("; "))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// One key, a member a line.
fn lines(key: &Value) -> String {
    let mut text = String::new();
    for (name, value) in key.as_object().into_iter().flatten() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<18} {}", cell(value));
    }
    if key.get("key").is_some() {
        text.push_str("The key and its UDP secret are not shown again.\n");
    }
    text
}

/// Many keys, one a line.
fn table(rows: &[Value], next: Option<u32>) -> String {
    const COLUMNS: [(&str, usize); 6] =
        [("key_id", 10), ("hint", 13), ("state", 8), ("tier", 12), ("limit_per_second", 16), ("name", 0)];
    let mut text = String::new();
    for (name, width) in COLUMNS {
        let _ = write!(text, "{name:<width$} ");
    }
    text.push('\n');
    for row in rows {
        for (name, width) in COLUMNS {
            let _ = write!(text, "{:<width$} ", cell(&row[name]));
        }
        text.push('\n');
    }
    if let Some(after) = next {
        let _ = writeln!(text, "There may be more: --after {after}");
    }
    text
}
