//! What went wrong in a database, as the callers of a store know it.
//!
//! No text made here holds a value that was asked for or sent: a server's own words name columns and constraints, and
//! they are told; its details, which quote rows, are not.

use super::StoreError;
use sqlx::error::{DatabaseError, ErrorKind};
use sqlx::migrate::MigrateError;

/// Longest part of a server's words that is told on.
const WORDS_CHARS_MAX: usize = 200;

/// A statement that was stopped because it took too long, or because nobody waited for it any more.
const TOO_LONG: &str = "it took too long and was stopped: ask for less at a time, or again later";

/// What a fault of `sqlx` means.
pub fn meaning(error: &sqlx::Error) -> StoreError {
    use sqlx::Error as E;
    match error {
        E::Database(error) => of_database(&**error),
        E::RowNotFound => StoreError::NotFound,
        E::PoolTimedOut => StoreError::Unreachable(
            "no connection in time: see that the database runs, and that its address and the pool's bounds are right"
                .to_owned(),
        ),
        E::PoolClosed => StoreError::Unreachable("the store is closed".to_owned()),
        E::WorkerCrashed => StoreError::Unreachable("the thread of the database file ended".to_owned()),
        E::Io(why) => StoreError::Unreachable(why.to_string()),
        E::Tls(why) => StoreError::Unreachable(format!("TLS: {why}; see sslmode and sslrootcert in DATABASE_URL")),
        E::Protocol(why) => StoreError::Unreachable(words(why)),
        E::Configuration(why) => StoreError::Unreachable(words(&why.to_string())),
        other => StoreError::Broken(words(&other.to_string())),
    }
}

/// What a fault of a migration means.
pub fn of_migration(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(why) | MigrateError::ExecuteMigration(why, _) => meaning(&why),
        MigrateError::VersionMissing(version) => StoreError::NotMigrated(super::schema::newer(version)),
        MigrateError::VersionMismatch(version) => StoreError::Broken(format!(
            "the schema's version {version} was applied by another build of this program: use that one, or an empty \
             database"
        )),
        MigrateError::Dirty(version) => StoreError::Broken(format!(
            "the schema's version {version} was applied in part: restore the database, then migrate again"
        )),
        other => StoreError::Broken(words(&other.to_string())),
    }
}

fn of_database(error: &dyn DatabaseError) -> StoreError {
    let code = error.code().unwrap_or_default();
    let told = words(error.message());
    if let Some(extended) = error.try_downcast_ref::<sqlx::sqlite::SqliteError>().and_then(|_| code.parse::<i32>().ok())
    {
        return of_sqlite(extended & 0xff, error.kind(), told);
    }
    match &*code {
        "42P01" | "42703" | "3F000" | "42883" => StoreError::NotMigrated(super::schema::missing()),
        "40001" | "40P01" => StoreError::Conflict("another change came in between: try again".to_owned()),
        // Beyond a column's bounds, or a text that the database's encoding cannot hold.
        "22003" | "22021" | "22001" => StoreError::Invalid(told),
        "28P01" | "28000" => StoreError::Unreachable(format!("it refused the user or the password: {told}")),
        "42501" => StoreError::Unreachable(format!("the user may not do this: {told}")),
        "25006" => StoreError::Unreachable("it is read-only: connect to the writer, not to a reader".to_owned()),
        "57014" => StoreError::Unreachable(TOO_LONG.to_owned()),
        code if ["08", "53", "55", "57", "58", "3D", "25"].iter().any(|class| code.starts_with(class)) => {
            StoreError::Unreachable(told)
        }
        _ => of_kind(error.kind(), told),
    }
}

/// What one of SQLite's primary result codes means.
fn of_sqlite(code: i32, kind: ErrorKind, told: String) -> StoreError {
    match code {
        1 if told.contains("no such table") || told.contains("no such column") => {
            StoreError::NotMigrated(super::schema::missing())
        }
        9 => StoreError::Unreachable(TOO_LONG.to_owned()),
        // BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN: of the machine, and may pass.
        5..=8 | 10 | 13 | 14 => StoreError::Unreachable(told),
        _ => of_kind(kind, told),
    }
}

fn of_kind(kind: ErrorKind, told: String) -> StoreError {
    match kind {
        ErrorKind::UniqueViolation => StoreError::Conflict(format!("there is such a row already: {told}")),
        ErrorKind::ForeignKeyViolation => StoreError::Conflict(format!("what it refers to is not there: {told}")),
        ErrorKind::CheckViolation | ErrorKind::NotNullViolation => StoreError::Invalid(told),
        _ => StoreError::Broken(told),
    }
}

/// The first line of a server's words, of bounded length.
fn words(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(WORDS_CHARS_MAX).collect()
}
