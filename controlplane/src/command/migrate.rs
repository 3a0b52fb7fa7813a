//! `migrate`: brings the schema to the configured database, which `serve` does by itself for SQLite alone.

use super::{environment, print};
use crate::config;
use crate::config::layers::{Profile, SettingArgs};
use crate::store;
use crate::supervisor::make_data_dir;
use anyhow::Context;
use clap::Args;
use tokio::runtime::Builder;

/// Arguments of `migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    settings: SettingArgs,
}

/// Applies what is missing and says from which version to which.
pub fn run(args: &MigrateArgs) -> anyhow::Result<()> {
    let settings = config::load(Profile::Serve, &args.settings, environment)?;
    if settings.database.is_in_data_dir() {
        make_data_dir(settings.data_dir.as_deref())?;
    }
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        let store = store::open(&settings.database, settings.data_dir.as_deref())?;
        let migrated = store.migrate().await;
        let kind = store.kind();
        store.close().await;
        let migrated = migrated.with_context(|| format!("cannot migrate the {kind} database"))?;
        let from = migrated.from.map_or_else(|| "no schema".to_owned(), |version| format!("version {version}"));
        let done = if migrated.from == Some(migrated.to) { "nothing to do" } else { "done" };
        print(&format!("{kind}: from {from} to version {}: {done}\n", migrated.to))
    })
}
