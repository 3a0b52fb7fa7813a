//! The database's credentials out of AWS Secrets Manager, through the real program and AWS's own SDK, from a stand-in
//! of the service to a real PostgreSQL. Built with the feature `aws` alone.
//!
//! How the fetching keeps its pace is tested where it is done; here, that everything fits together and nothing leaks.

use harness::eventually;
use harness::http;
use harness::postgres::Postgres;
use harness::secrets::{Held, SecretsManager};
use harness::service::{Service, binary};
use std::process::{Command, Output};
use std::sync::Arc;

/// Whose the question is; none of it may come out anywhere, the last not even in part.
const ACCESS_KEY: &str = "AKIACANARY0000000001";
const SECRET_KEY: &str = "canary-secret-access-key-4d11";
const SESSION_TOKEN: &str = "canary-session-token-93ab";

const NAME: &str = "trinity-beast-secrets";

/// A database whose user's password a test may change.
struct Bench {
    server: Arc<Postgres>,
    url: String,
}

impl Bench {
    fn new(user_password: &str) -> Self {
        let server = Postgres::shared();
        let url = server.new_url_at(server.address());
        let bench = Self { server, url };
        bench
            .server
            .sql(&bench.url, &format!("CREATE ROLE {} LOGIN SUPERUSER PASSWORD '{user_password}'", bench.user()));
        bench
    }

    fn user(&self) -> String {
        format!("user_of_{}", self.database())
    }

    fn database(&self) -> &str {
        self.url.rsplit('/').next().expect("a database")
    }

    fn rotate(&self, password: &str) {
        let user = self.user();
        self.server.sql(&self.url, &format!("ALTER ROLE {user} PASSWORD '{password}'"));
        let all = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'");
        self.server.sql(&self.url, &all);
    }

    /// A secret that says everything, and more than is asked for.
    fn secret(&self, password: &str) -> Held {
        let address = self.server.address();
        let document = serde_json::json!({
            "DB_HOST": address.ip().to_string(), "DB_PORT": address.port().to_string(), "DB_NAME": self.database(),
            "DB_USER": self.user(), "DB_PASSWORD": password, "STRIPE_SECRET_KEY": "canary-stripe-key-1f",
        });
        Held::Text(document.to_string())
    }
}

fn variables(manager: &SecretsManager) -> Vec<(&'static str, String)> {
    manager.variables(ACCESS_KEY, SECRET_KEY, SESSION_TOKEN)
}

fn migrate(manager: &SecretsManager, more: &[(&str, &str)]) -> (Output, String) {
    let mut command = Command::new(binary());
    command.arg("migrate").envs(variables(manager)).envs(more.iter().copied()).env("LOG_LEVEL", "trace");
    let output = command.output().expect("trinity-beast runs");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_silent(&said);
    (output, said)
}

fn assert_silent(said: &str) {
    assert!(!said.to_lowercase().contains("canary"), "a secret came out:\n{said}");
}

#[test]
fn migrate_works_with_a_secret() {
    let bench = Bench::new("canary-password-1");
    let manager = SecretsManager::start(NAME, bench.secret("canary-password-1"));
    for expected in ["postgres: from no schema to version", ": nothing to do"] {
        let (output, said) = migrate(&manager, &[]);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    // The address wins over the secret's, and DATABASE_URL over both.
    let elsewhere = [("AURORA_URL", "127.0.0.1:1")];
    let (output, said) = migrate(&manager, &elsewhere);
    assert!(output.status.code() == Some(1) && said.contains("cannot be reached"), "{said}");
    let asked = manager.asked();
    let (output, said) = migrate(&manager, &[("DATABASE_URL", &bench.url), elsewhere[0]]);
    assert!(output.status.code() == Some(0) && manager.asked() == asked, "{said}");
}

#[test]
fn what_is_wrong_with_a_secret_is_told_in_one_line_that_shows_nothing() {
    let manager = SecretsManager::start(NAME, Held::Nothing);
    for (held, expected) in [
        (Held::Nothing, "it could not be asked for"),
        (Held::Error("AccessDeniedException"), "allow this role secretsmanager:GetSecretValue"),
        (Held::Error("InternalServiceError"), "refused with InternalServiceError"),
        (Held::Nonsense("{\"SecretString\": canary".to_owned()), "not one of Secrets Manager"),
        (Held::Nonsense("{}".to_owned()), "it holds bytes"),
        (Held::Text("canary".to_owned()), "not a JSON object with DB_USER, DB_PASSWORD, DB_HOST, DB_PORT, DB_NAME"),
        (
            Held::Text("{\"DB_USER\":\"canary\",\"DB_HOST\":\"canary\"}".to_owned()),
            "lacks DB_PASSWORD, DB_PORT, DB_NAME",
        ),
    ] {
        manager.holds(held.clone());
        let (output, said) = migrate(&manager, &[]);
        assert_eq!(output.status.code(), Some(1), "{held:?}: {said}");
        assert!(said.contains("DB_SECRET_NAME") && said.contains(expected), "{held:?}: {said}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{said}");
    }
    let (output, said) = migrate(&manager, &[("DB_SECRET_NAME", "another")]);
    assert!(output.status.code() == Some(1) && said.contains("there is none of that name"), "{said}");
}

#[test]
fn prices_wait_for_no_secret_and_a_changed_password_needs_no_restart() {
    let bench = Bench::new("canary-password-1");
    let manager = SecretsManager::start(NAME, bench.secret("canary-password-1"));
    assert_eq!(migrate(&manager, &[]).0.status.code(), Some(0));
    manager.holds(Held::Nothing);
    let variables = variables(&manager);
    let mut variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    variables.push(("LOG_LEVEL", "trace"));
    let service = Service::demo_with("epoll", &variables);
    service.await_price("BTC", 2);
    let asked = manager.asked();
    eventually("it is asked again", || (manager.asked() > asked + 1).then_some(()));
    manager.holds(bench.secret("canary-password-1"));
    let can_write = || {
        let made = service.admin_request("POST", "/admin/keys", Some(r#"{"name":"of a test","tier":"basic"}"#));
        (made.status == 201).then_some(())
    };
    eventually("the database is in use", can_write);
    for password in ["canary-password-2", "canary-password-3"] {
        bench.rotate(password);
        eventually("the old password is refused", || can_write().is_none().then_some(()));
        manager.holds(bench.secret(password));
        eventually("the new password is in use", can_write);
        assert_eq!(service.get("/price?asset=BTC").status, 200);
    }
    let metrics = http::get(service.address("health_lpo"), "/metrics", &[]).text();
    assert_silent(&metrics);
    let log = service.log();
    assert_silent(&log);
    let told = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    // Whoever waits for the database tells the reason too; that it is tried again is told once.
    assert_eq!(told("trying again, and prices do not wait for it"), 1, "{log}");
    assert_eq!(told("the secret of DB_SECRET_NAME is fetched"), 3, "once it is back and with each new one:\n{log}");
}
