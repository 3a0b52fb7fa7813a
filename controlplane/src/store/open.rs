//! From settings to a store, without waiting for a database.
//!
//! Texts of addresses may hold passwords, so no fault quotes one.

use super::Store;
use super::postgres::PgStore;
use super::sqlite::SqliteStore;
use crate::config::DatabaseChoice;
use anyhow::{Context, anyhow, bail};
use sqlx::postgres::PgConnectOptions;
use std::path::Path;
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

/// Prepares the store that the settings choose. Nothing is connected to, read or written yet.
///
/// # Errors
/// What is wrong with the address, without quoting it.
pub fn open(choice: &DatabaseChoice, data_dir: Option<&Path>) -> anyhow::Result<Arc<dyn Store>> {
    if let Some(url) = &choice.url {
        let url = url.reveal();
        return match url.strip_prefix("sqlite:") {
            Some(path) => sqlite(path),
            None => Ok(Arc::new(PgStore::lazy(postgres(url)?))),
        };
    }
    if choice.aurora.is_some() || choice.secret_name.is_some() {
        // Going on with a file instead would look like service, and be another database.
        bail!(
            "AURORA_URL and DB_SECRET_NAME: this program cannot fetch a secret (it is built without the feature aws): set \
             DATABASE_URL"
        );
    }
    match data_dir {
        Some(folder) => Ok(Arc::new(SqliteStore::file(&folder.join(FILE_NAME)))),
        None => Ok(Arc::new(SqliteStore::memory())),
    }
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

/// Reads a PostgreSQL address.
fn postgres(url: &str) -> anyhow::Result<PgConnectOptions> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let name = part.split(['=', '[']).next().unwrap_or_default();
        if !PARAMETERS.contains(&name) {
            bail!("DATABASE_URL: after the ? stands none of {}", PARAMETERS.join(", "));
        }
    }
    let options = PgConnectOptions::from_str(url).map_err(|_| anyhow!("its form is wrong"));
    let form =
        "DATABASE_URL: postgres://user:password@host[:port]/database[?sslmode=…], with %XX for special characters";
    Ok(options.context(form)?.application_name("trinity-beast"))
}
