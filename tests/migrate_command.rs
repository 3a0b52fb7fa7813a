//! `trinity-beast migrate`, as who deploys a new version sees it: what it says, and what it exits with.

use harness::postgres::Postgres;
use harness::service::binary;
use std::process::{Command, Stdio};

/// Runs `migrate` with these variables alone; checks the exit code and the parts of what it says on stdout and stderr.
#[track_caller]
fn check(variables: &[(&str, &str)], code: i32, expected: &[&str]) {
    let mut command = Command::new(binary());
    command.arg("migrate").env_clear().envs(variables.iter().copied()).stdin(Stdio::null());
    let output = command.output().expect("trinity-beast runs");
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{variables:?}: {said}{failed}");
    for part in expected {
        assert!(if code == 0 { &said } else { &failed }.contains(part), "{variables:?}: {part}: {said}{failed}");
    }
    let secret = Postgres::credentials().1.split(' ').next().expect("a word");
    assert!(!said.contains(secret) && !failed.contains(secret), "a password is shown: {said}{failed}");
    // Whichever it is, the other says nothing: a script may take stdout as it is.
    assert!(if code == 0 { failed.is_empty() } else { said.is_empty() }, "{variables:?}: {said}{failed}");
}

#[test]
fn a_file_is_made_and_then_left_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, data) = (directory.path().join("file.sqlite"), directory.path().join("data"));
    let url = format!("sqlite:{}", path.display());
    check(&[("DATABASE_URL", &url)], 0, &["sqlite: from no schema to version ", ": done"]);
    check(&[("DATABASE_URL", &url)], 0, &["sqlite: from version ", ": nothing to do"]);
    assert!(path.exists() && !data.exists());
    let data_dir = data.to_str().expect("a path");
    check(&[("TB_DATA_DIR", data_dir)], 0, &["sqlite: from no schema to version ", ": done"]);
    check(&[("TB_DATA_DIR", data_dir)], 0, &[": nothing to do"]);
}

#[test]
fn a_server_is_migrated_once() {
    let server = Postgres::shared();
    let url = server.new_url_at(server.address());
    check(&[("DATABASE_URL", &url)], 0, &["postgres: from no schema to version ", ": done"]);
    check(&[("DATABASE_URL", &url)], 0, &["postgres: from version ", ": nothing to do"]);
}

#[test]
fn a_database_that_cannot_be_had_ends_with_one_and_says_which() {
    let server = Postgres::shared();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let refused = server.url_at(server.address()).replacen('@', "-wrong@", 1);
    for (url, part) in [
        (server.url_at(free).as_str(), "cannot be reached"),
        (refused.as_str(), "refused the user or the password"),
        ("sqlite:/no/such/folder/file", "cannot migrate the sqlite database"),
    ] {
        check(&[("DATABASE_URL", url)], 1, &["cannot migrate the ", part]);
    }
}

#[test]
fn a_bad_setting_ends_as_with_every_command() {
    check(&[("DATABASE_URL", "mysql://host"), ("TB_SHARDS", "0")], 1, &["2 bad settings", "DATABASE_URL", "TB_SHARDS"]);
    check(&[("DATABASE_URL", "postgres://user@host/name?pasword=x")], 1, &["DATABASE_URL: after the ? stands none of"]);
}
