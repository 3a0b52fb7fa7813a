//! From settings to a store, without waiting for a database.
//!
//! Texts of addresses may hold passwords, so no fault quotes one.

use super::Store;
use super::credentials::Place;
use super::postgres::PgStore;
use super::sqlite::SqliteStore;
use super::supply::Supply;
use crate::config::DatabaseChoice;
use crate::secrets;
use anyhow::{Context, anyhow, bail, ensure};
use sqlx::postgres::PgConnectOptions;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// The file in the data directory that is used when no address is set.
const FILE_NAME: &str = "trinity-beast.sqlite";

/// What may follow the `?` of a PostgreSQL address. Anything else is a slip of the pen that would do nothing.
const PARAMETERS: [&str; 13] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Prepares the store that the settings choose. Nothing is waited for: what is connected to is when it is first used,
/// and a secret is fetched in the background. Within a runtime of tokio.
///
/// # Errors
/// What is wrong with the address, without quoting it, or that this program cannot fetch a secret.
pub fn open(choice: &DatabaseChoice, data_dir: Option<&Path>) -> anyhow::Result<Arc<dyn Store>> {
    if let Some(url) = &choice.url {
        let url = url.reveal();
        return match url.strip_prefix("sqlite:") {
            Some(path) => sqlite(path),
            None => Ok(Arc::new(PgStore::lazy(postgres("DATABASE_URL", &PARAMETERS, url)?))),
        };
    }
    if let Some(name) = &choice.secret_name {
        let place = Place::read(choice.aurora.as_deref())?;
        return Ok(Supply::store(secrets::source(name, &choice.secret_region)?, place));
    }
    // Going on with a file instead would look like service, and be another database.
    ensure!(
        choice.aurora.is_none(),
        "AURORA_URL has no user and password: set DB_SECRET_NAME, or DATABASE_URL instead"
    );
    match data_dir {
        Some(folder) => Ok(Arc::new(SqliteStore::file(&folder.join(FILE_NAME)))),
        None => Ok(Arc::new(SqliteStore::memory())),
    }
}

/// The file that the settings choose; `None`: a server, or a table in memory.
#[must_use]
pub fn sqlite_file(choice: &DatabaseChoice, data_dir: Option<&Path>) -> Option<PathBuf> {
    if choice.is_in_data_dir() {
        return data_dir.map(|folder| folder.join(FILE_NAME));
    }
    let path = choice.url.as_ref()?.reveal().strip_prefix("sqlite:")?;
    Some(path.strip_prefix("//").unwrap_or(path)).filter(|path| *path != ":memory:").map(PathBuf::from)
}

/// `PATH`, `//PATH` or `:memory:`, as after `sqlite:`.
fn sqlite(text: &str) -> anyhow::Result<Arc<dyn Store>> {
    let path = text.strip_prefix("//").unwrap_or(text);
    match path {
        ":memory:" => Ok(Arc::new(SqliteStore::memory())),
        "" => bail!("DATABASE_URL names no file: sqlite:PATH, or sqlite::memory:"),
        path if path.contains('?') => {
            bail!("DATABASE_URL: what follows the ? of sqlite:PATH has no meaning: leave it out")
        }
        path => Ok(Arc::new(SqliteStore::file(Path::new(path)))),
    }
}

/// Reads the PostgreSQL address that `setting` holds, which may have `parameters`.
pub fn postgres(setting: &str, parameters: &[&str], url: &str) -> anyhow::Result<PgConnectOptions> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let name = part.split(['=', '[']).next().unwrap_or_default();
        if !parameters.contains(&name) {
            bail!("{setting}: after the ? stands none of {}", parameters.join(", "));
        }
    }
    let options = PgConnectOptions::from_str(url).map_err(|_| anyhow!("its form is wrong"));
    let form = "postgres://[user:password@]host[:port]/database[?sslmode=…], with %XX for special characters";
    let options = options.with_context(|| format!("{setting}: {form}"))?;
    Ok(options.application_name("trinity-beast"))
}
