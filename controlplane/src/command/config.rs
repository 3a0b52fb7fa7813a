//! `config`: every setting, as `serve` or `demo` would take it here and now.

use super::{environment, print};
use crate::config::fault::shown;
use crate::config::layers::{Layers, Profile, SettingArgs};
use crate::config::{self, catalogue, catalogue::Setting};
use anyhow::bail;
use clap::Args;
use serde::Serialize;
use std::fmt::Write;

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// As `demo` would take them, not `serve`
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    settings: SettingArgs,
}

/// One setting as it is shown.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    value: String,
    origin: String,
    default: &'static str,
    bounds: &'static str,
    meaning: &'static str,
    flag: Option<String>,
    key: String,
}

/// Shows the settings; fails when some are bad, after showing them.
pub fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    let profile = if args.demo { Profile::Demo } else { Profile::Serve };
    let (layers, faults) = config::inspect(profile, &args.settings, environment);
    let rows: Vec<Row> = catalogue::all().map(|setting| row(setting, &layers, args.demo)).collect();
    if args.json {
        print(&(serde_json::to_string_pretty(&rows)? + "\n"))?;
    } else {
        print(&text(&rows))?;
    }
    if !faults.is_empty() {
        bail!(config::BadSettings(faults));
    }
    Ok(())
}

fn row(setting: &'static Setting, layers: &Layers, demo: bool) -> Row {
    let (value, origin) = layers.text(setting);
    Row {
        name: setting.name,
        value: shown(setting, value),
        origin: origin.to_string(),
        default: setting.demo_default.filter(|_| demo).unwrap_or(setting.default),
        bounds: setting.bounds,
        meaning: setting.meaning,
        flag: setting.flag.map(|flag| format!("--{flag}")),
        key: setting.key(),
    }
}

fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let shown = |value: &str| if value.is_empty() { "(not set)".to_owned() } else { value.to_owned() };
        let (value, default) = (shown(&row.value), shown(row.default));
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{} = {value}\n    from {}; default {default}\n    allowed: {}\n    {}\n",
            row.name, row.origin, row.bounds, row.meaning
        );
    }
    text
}
