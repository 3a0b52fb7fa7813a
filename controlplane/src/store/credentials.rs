//! Where a PostgreSQL is, from `AURORA_URL`, and who may enter, from the secret of `DB_SECRET_NAME`: together a way to
//! connect.
//!
//! No fault quotes any part of a secret, only names of its members. How a secret is had is not known here.

use super::open::postgres;
use crate::keys::Secret;
use anyhow::{bail, ensure};
use serde_json::{Map, Value};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::net::IpAddr;

/// What may follow the `?` of `AURORA_URL`: nothing that says who or where.
const PARAMETERS: [&str; 7] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "statement-cache-capacity", "application_name", "options"];

/// What `AURORA_URL` says of a server; what it leaves out, the secret says.
pub struct Place {
    options: PgConnectOptions,
    has_host: bool,
    has_port: bool,
    has_name: bool,
    has_mode: bool,
}

impl Place {
    /// Reads `HOST`, `HOST:PORT` or `postgres://HOST[:PORT][/DATABASE][?sslmode=…]`; `None`: the secret says all.
    ///
    /// # Errors
    /// What is wrong with it, without quoting it.
    pub fn read(text: Option<&str>) -> anyhow::Result<Self> {
        let Some(text) = text else {
            let options = PgConnectOptions::new_without_pgpass().application_name("trinity-beast");
            return Ok(Self { options, has_host: false, has_port: false, has_name: false, has_mode: false });
        };
        ensure!(!text.contains('@'), "AURORA_URL: user and password come from DB_SECRET_NAME");
        let url = if text.contains("://") { text.to_owned() } else { format!("postgres://{text}") };
        let parts = url.split_once("://").filter(|(scheme, _)| ["postgres", "postgresql"].contains(scheme));
        let Some((_, rest)) = parts else { bail!("AURORA_URL: it begins with postgres://, or with the host") };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (server, name) = rest.split_once('/').unwrap_or((rest, ""));
        // A colon within brackets is part of an IPv6 address.
        let after_brackets = server.rsplit(']').next().unwrap_or_default();
        let (host, port) = after_brackets.split_once(':').unwrap_or((after_brackets, ""));
        ensure!(!host.is_empty() || server.starts_with('['), "AURORA_URL: it names no host");
        Ok(Self {
            options: postgres("AURORA_URL", &PARAMETERS, &url)?,
            has_host: true,
            has_port: !port.is_empty(),
            has_name: !name.is_empty(),
            has_mode: query.split('&').any(|part| part.starts_with("sslmode=")),
        })
    }

    /// The way in, with what the secret's document adds. Unless `AURORA_URL` says otherwise the connection is
    /// encrypted; within this machine (a tunnel's end, a proxy) it is only where the server offers it.
    ///
    /// # Errors
    /// Which members are missing or wrong, without their values.
    pub fn with(&self, document: &Secret) -> Result<PgConnectOptions, String> {
        let wanted = self.wanted();
        let Ok(Value::Object(members)) = serde_json::from_str(document.reveal()) else {
            return Err(format!("it is not a JSON object with {}", wanted.join(", ")));
        };
        let is_missing = |name: &&&str| member(&members, name).is_none_or(|text| text.is_empty());
        let missing: Vec<&str> = wanted.iter().filter(is_missing).copied().collect();
        if !missing.is_empty() {
            return Err(format!("it lacks {} (texts that are not empty)", missing.join(", ")));
        }
        let text = |name| member(&members, name).unwrap_or_default();
        let mut options = self.options.clone().username(&text("DB_USER")).password(&text("DB_PASSWORD"));
        if !self.has_host {
            options = options.host(&text("DB_HOST"));
        }
        if !self.has_port {
            let port = text("DB_PORT").parse().ok().filter(|port| *port > 0);
            options = options.port(port.ok_or("its DB_PORT is no port: 1 to 65535")?);
        }
        if !self.has_name {
            options = options.database(&text("DB_NAME"));
        }
        if !self.has_mode {
            let mode = if is_local(options.get_host()) { PgSslMode::Prefer } else { PgSslMode::Require };
            options = options.ssl_mode(mode);
        }
        Ok(options)
    }

    /// Names of the members that the document must have.
    fn wanted(&self) -> Vec<&'static str> {
        let all = [
            ("DB_USER", true),
            ("DB_PASSWORD", true),
            ("DB_HOST", !self.has_host),
            ("DB_PORT", !self.has_port),
            ("DB_NAME", !self.has_name),
        ];
        all.into_iter().filter_map(|(name, wanted)| wanted.then_some(name)).collect()
    }
}

/// A member that is a text or, as ports are often written, a number.
fn member(members: &Map<String, Value>, name: &str) -> Option<String> {
    match members.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way_in(place: Option<&str>, document: &str) -> Result<String, String> {
        let place = Place::read(place).expect("a place");
        let options = place.with(&Secret::new(document.to_owned()))?;
        let name = options.get_database().unwrap_or_default();
        let (host, port, user) = (options.get_host(), options.get_port(), options.get_username());
        Ok(format!("{user} {host} {port} {name} {:?}", options.get_ssl_mode()))
    }

    #[test]
    fn what_the_address_leaves_out_the_secret_says() {
        const ALL: &str = r#"{"DB_USER":"u","DB_PASSWORD":"p","DB_HOST":"far","DB_PORT":"7","DB_NAME":"n"}"#;
        for (place, document, expected) in [
            (None, ALL, "u far 7 n Require"),
            (None, &ALL.replace("\"7\"", "7"), "u far 7 n Require"),
            (None, &ALL.replace("far", "127.0.0.1"), "u 127.0.0.1 7 n Prefer"),
            (Some("near"), ALL, "u near 7 n Require"),
            (Some("near:8"), ALL, "u near 8 n Require"),
            (Some("localhost:8"), ALL, "u localhost 8 n Prefer"),
            (Some("[::1]:8"), ALL, "u [::1] 8 n Prefer"),
            (Some("[2001:db8::1]"), ALL, "u [2001:db8::1] 7 n Require"),
            (Some("postgres://near:8/m"), r#"{"DB_USER":"u","DB_PASSWORD":"p"}"#, "u near 8 m Require"),
            (Some("postgres://near/m?sslmode=verify-full"), ALL, "u near 7 m VerifyFull"),
            (Some("postgresql://near?sslmode=disable"), ALL, "u near 7 n Disable"),
        ] {
            assert_eq!(way_in(place, document).as_deref(), Ok(expected), "{place:?}");
        }
    }

    #[test]
    fn a_bad_secret_is_told_by_the_names_of_its_members_alone() {
        for (document, expected) in [
            ("canary", "JSON object with DB_USER, DB_PASSWORD, DB_PORT"),
            ("[\"canary\"]", "JSON object"),
            ("{\"canary\":\"canary\"}", "lacks DB_USER, DB_PASSWORD, DB_PORT, DB_NAME"),
            (r#"{"DB_USER":"canary","DB_PASSWORD":"","DB_PORT":1,"DB_NAME":["canary"]}"#, "lacks DB_PASSWORD, DB_NAME"),
            (r#"{"DB_USER":"canary","DB_PASSWORD":"canary","DB_PORT":"canary","DB_NAME":"x"}"#, "DB_PORT is no port"),
            (r#"{"DB_USER":"canary","DB_PASSWORD":"canary","DB_PORT":0,"DB_NAME":"x"}"#, "DB_PORT is no port"),
        ] {
            let told = way_in(Some("host"), document).expect_err(document);
            assert!(told.contains(expected) && !told.contains("canary"), "{document}: {told}");
        }
    }

    #[test]
    fn a_bad_place_is_refused() {
        for bad in [
            "user:canary@host",
            "mysql://host",
            "",
            ":5432",
            "postgres:///name",
            "host:port",
            "host:99999",
            "postgres://host/name?password=canary",
            "postgres://host/name?host=canary",
            "postgres://host/name?sslmode=canary",
        ] {
            let told = Place::read(Some(bad)).map(drop).expect_err(bad).to_string();
            assert!(told.contains("AURORA_URL") && !told.contains("canary"), "{bad}: {told}");
        }
    }
}
