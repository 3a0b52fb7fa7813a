//! The schema's versions: what this program brings to a database, and whether one is as it should be.
//!
//! Migrations only add: a program goes on over a schema that a newer one has migrated meanwhile, but does not begin on
//! one that it does not know.

use super::fault::of_migration;
use super::session::Session;
use super::{Migrated, StoreError, Stored};
use sqlx::SqlStr;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use std::borrow::Cow;
use std::time::Duration;

/// Longest that migrating may take, waiting for another node that migrates included. Apart from the calls' bound,
/// because an index over many rows takes its time.
pub const MIGRATE_MAX: Duration = Duration::from_secs(300);

/// Where a database notes what was applied to it.
const TABLE: &str = "_sqlx_migrations";

/// The newest version that this program knows.
const VERSION: i64 = 3;

/// One version: its number, its name, and its texts for SQLite and PostgreSQL.
const VERSIONS: [(i64, &str, &str, &str); 3] = [
    (
        1,
        "first",
        include_str!("../../migrations/sqlite/0001_first.sql"),
        include_str!("../../migrations/postgres/0001_first.sql"),
    ),
    (
        2,
        "usage",
        include_str!("../../migrations/sqlite/0002_usage.sql"),
        include_str!("../../migrations/postgres/0002_usage.sql"),
    ),
    (
        VERSION,
        "sync",
        include_str!("../../migrations/sqlite/0003_sync.sql"),
        include_str!("../../migrations/postgres/0003_sync.sql"),
    ),
];

/// Every version's text for SQLite.
#[must_use]
pub fn for_sqlite() -> Migrator {
    migrator(|(.., sqlite, _)| sqlite)
}

/// Every version's text for PostgreSQL.
#[must_use]
pub fn for_postgres() -> Migrator {
    migrator(|(.., postgres)| postgres)
}

fn migrator(text: impl Fn((i64, &'static str, &'static str, &'static str)) -> &'static str) -> Migrator {
    let one = |version: (i64, &'static str, &'static str, &'static str)| {
        let (sql, name) = (SqlStr::from_static(text(version)), Cow::Borrowed(version.1));
        Migration::new(version.0, name, MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(VERSIONS.into_iter().map(one).collect())
}

/// The first version alone, as a database has it that a newer program has not met yet.
#[cfg(test)]
#[must_use]
pub fn first(versions: &Migrator) -> Migrator {
    Migrator::with_migrations(versions.iter().filter(|version| version.version == 1).cloned().collect())
}

/// Brings a connection's database to this program's version, holding whatever lock it knows meanwhile.
pub async fn migrate(connection: &mut impl Migrate, versions: &Migrator) -> Stored<Migrated> {
    let before = if versions.locking {
        // So that what was there before is asked when nobody else is changing it.
        connection.lock().await.map_err(of_migration)?;
        let before = applied(connection).await;
        let done = versions.run_direct(None, connection, false).await;
        connection.unlock().await.map_err(of_migration)?;
        done.map_err(of_migration)?;
        before?
    } else {
        let before = applied(connection).await?;
        versions.run_direct(None, connection, false).await.map_err(of_migration)?;
        before
    };
    Ok(Migrated { from: before, to: VERSION })
}

async fn applied(connection: &mut impl Migrate) -> Stored<Option<i64>> {
    connection.ensure_migrations_table(TABLE).await.map_err(of_migration)?;
    let applied = connection.list_applied_migrations(TABLE).await.map_err(of_migration)?;
    Ok(applied.iter().map(|migration| migration.version).max())
}

/// Whether the schema is the one that this program knows.
///
/// # Errors
/// `NotMigrated` when it is not.
pub async fn check(session: &mut Session) -> Stored<()> {
    let sql = "SELECT CAST(max(version) AS BIGINT) FROM _sqlx_migrations WHERE success";
    let row = session.row(sql, &[]).await?;
    let version: Option<i64> = row.map(|row| row.maybe_number(0)).transpose()?.flatten();
    match version {
        Some(VERSION) => Ok(()),
        Some(version) if version > VERSION => Err(StoreError::NotMigrated(newer(version))),
        Some(version) => Err(StoreError::NotMigrated(format!(
            "the schema is of version {version}, this program needs {VERSION}: run `trinity-beast migrate`"
        ))),
        None => Err(StoreError::NotMigrated(missing())),
    }
}

/// What to say of a schema that a newer program made.
pub fn newer(version: i64) -> String {
    format!("the schema is of version {version}, this program knows {VERSION} at the most: run the newer program")
}

/// What to say of a database without our schema.
pub fn missing() -> String {
    "the database lacks the schema: run `trinity-beast migrate`".to_owned()
}
