//! The schema: missing, brought there once and at once, newer than the program; and what a file and an address may be.

use super::{Bench, choice, new_database, on_every_store};
use crate::config::DatabaseChoice;
use crate::store::sqlite::SqliteStore;
use crate::store::{Migrated, Store, StoreError, open};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

on_every_store!(migrating_again_does_nothing, a_newer_schema_is_not_begun_on);

async fn migrating_again_does_nothing(bench: Bench) {
    assert_eq!(bench.store.migrate().await, Ok(Migrated { from: Some(3), to: 3 }));
    assert_eq!(bench.store.tiers().await.expect("tiers").len(), 5);
}

async fn a_newer_schema_is_not_begun_on(bench: Bench) {
    bench.store.pulse().await.expect("a pulse");
    let Some(other) = bench.other() else { return };
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, \
                 'later', true, 'x', 0)";
    assert_eq!(bench.sql(newer).await.as_deref(), Some(""));
    for refused in [other.pulse().await.map(drop), other.migrate().await.map(drop)] {
        let Err(StoreError::NotMigrated(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("99") && why.contains("newer program"), "{why}");
    }
    // Who began before goes on: a newer schema only adds.
    bench.store.pulse().await.expect("a pulse");
}

/// A store without a schema says so, and is well as soon as somebody has migrated.
async fn is_used_once_it_is_migrated(store: Arc<dyn Store>, other: Arc<dyn Store>) {
    for _ in 0..2 {
        let Err(StoreError::NotMigrated(why)) = store.pulse().await else { panic!("a schema out of nowhere") };
        assert!(why.contains("trinity-beast migrate"), "{why}");
    }
    assert!(store.health().away_since_ms.is_some());
    let (one, two) = tokio::join!(store.migrate(), other.migrate());
    let mut from = [one.expect("migrated").from, two.expect("migrated").from];
    from.sort_unstable();
    // At once, and yet one after the other.
    assert!(from == [None, Some(3)] || Arc::ptr_eq(&store, &other), "{from:?}");
    for store in [&store, &other] {
        store.pulse().await.expect("a pulse");
        assert_eq!(store.health().away_since_ms, None);
        assert_eq!(store.tiers().await.expect("tiers").len(), 5);
    }
    store.close().await;
    assert!(matches!(store.pulse().await, Err(StoreError::Unreachable(_))));
}

#[tokio::test]
async fn a_server_is_used_once_it_is_migrated() {
    let (_server, url) = new_database().await;
    let store = || open(&choice(&url), None).expect("an address");
    is_used_once_it_is_migrated(store(), store()).await;
}

#[tokio::test]
async fn a_file_is_used_once_it_is_migrated() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = || open(&DatabaseChoice::default(), Some(directory.path())).expect("a file");
    is_used_once_it_is_migrated(store(), store()).await;
    // It holds secrets: nobody else may read it, nor what SQLite keeps beside it.
    let files = std::fs::read_dir(directory.path()).expect("the directory");
    let modes: Vec<u32> =
        files.map(|file| file.expect("a file").metadata().expect("its mode").permissions().mode() & 0o777).collect();
    assert!(!modes.is_empty() && modes.iter().all(|mode| *mode == 0o600), "{modes:?}");
}

#[tokio::test]
async fn memory_is_used_once_it_is_migrated() {
    let store: Arc<dyn Store> = open(&DatabaseChoice::default(), None).expect("memory");
    is_used_once_it_is_migrated(Arc::clone(&store), store).await;
    assert_eq!(SqliteStore::in_memory().await.expect("memory").pulse().await.map(|pulse| pulse.keys), Ok(0));
}

#[tokio::test]
async fn a_file_that_cannot_be_is_told_of_with_its_remedy() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::file(&directory.path().join("absent/store.sqlite"));
    let Err(StoreError::Unreachable(why)) = store.pulse().await else { panic!("a file out of nowhere") };
    assert!(why.contains("DATABASE_URL"), "{why}");
    let other = directory.path().join("text");
    std::fs::write(
        &other,
        "this is not a database, and longer than a header of one hundred bytes, which is read first of all",
    )
    .expect("a file");
    let refused = SqliteStore::file(&other).pulse().await;
    assert!(matches!(refused, Err(StoreError::Broken(_))), "{refused:?}");
}

#[track_caller]
fn check(url: &str, wanted: &str) {
    let opened = open(&choice(url), None);
    let told = opened.map_or_else(|error| format!("{error:#}"), |store| store.kind().to_owned());
    assert!(told.contains(wanted), "{told}");
    assert!(!told.contains("hidden"), "{told}");
}

#[tokio::test]
async fn addresses() {
    check("sqlite::memory:", "sqlite");
    check("sqlite:some/file", "sqlite");
    check("sqlite:///some/file", "sqlite");
    check("sqlite:", "names no file");
    check("sqlite:hidden?mode=ro", "leave it out");
    check("postgres://user:hidden@host", "postgres");
    check("postgresql://user:hidden@host:5433/name?sslmode=verify-full&sslrootcert=/a.pem", "postgres");
    check("postgres://user:hidden@host:port/name", "form");
    check("postgres://user:hidden@host/name?sslmode=hidden", "form");
    check("postgres://user@host/name?pasword=hidden", "none of");
}

#[tokio::test]
async fn a_secret_that_cannot_be_fetched_is_no_reason_to_use_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let aurora = DatabaseChoice { aurora: Some("host".to_owned()), ..DatabaseChoice::default() };
    let secret = DatabaseChoice { secret_name: Some("name".to_owned()), ..DatabaseChoice::default() };
    for (choice, is_refused) in [(aurora, true), (secret, !crate::secrets::BUILT_IN)] {
        match open(&choice, Some(directory.path())) {
            Ok(store) => assert!(!is_refused && store.kind() == "postgres", "{choice:?}"),
            Err(why) => assert!(is_refused && why.to_string().contains("DATABASE_URL"), "{choice:?}: {why}"),
        }
    }
    assert_eq!(std::fs::read_dir(directory.path()).expect("the directory").count(), 0);
}
