//! What the clients share: where the service is, with which key it is asked, and what it says when it refuses.

use anyhow::Context;
use clap::Args;
use serde_json::Value;

/// Where the service is, and who asks.
#[derive(Args)]
pub struct ServiceArgs {
    /// Where the service is: HOST, HOST:PORT, or a whole http(s):// address
    #[arg(long, visible_alias = "url", env = "TB_TARGET", default_value = "127.0.0.1")]
    pub target: String,
    /// The API key
    #[arg(long, env = "TB_KEY", hide_env_values = true)]
    pub key: String,
}

impl std::fmt::Debug for ServiceArgs {
    /// Does not show the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceArgs").field("target", &self.target).finish_non_exhaustive()
    }
}

impl ServiceArgs {
    /// The address that paths are appended to, with `port` where none is given.
    pub fn base(&self, port: u16) -> String {
        match self.target.contains("://") {
            true => self.target.trim_end_matches('/').to_owned(),
            false => format!("http://{}", with_port(&self.target, port)),
        }
    }
}

/// The error that a refused question ends with.
pub fn refused(status: u64, code: &str, detail: &str) -> anyhow::Error {
    anyhow::anyhow!("the service answered {status} {code}: {detail}")
}

/// The error of an answer over HTTP that is a problem document.
pub fn refused_with(status: u16, problem: &Value) -> anyhow::Error {
    let text = |name: &str| problem[name].as_str().unwrap_or_default();
    refused(u64::from(status), text("code"), text("detail"))
}

/// Splits `HOST[:PORT]`, putting `port` where none is given; brackets around IPv6 addresses are kept.
pub fn with_port(target: &str, port: u16) -> String {
    let has_port = match target.rsplit_once(']') {
        Some((_, after)) => after.starts_with(':'),
        None => target.matches(':').count() == 1,
    };
    if has_port {
        return target.to_owned();
    }
    let bare_v6 = target.contains(':') && !target.starts_with('[');
    if bare_v6 { format!("[{target}]:{port}") } else { format!("{target}:{port}") }
}

/// Reads the service's JSON.
pub fn read_json(bytes: &[u8]) -> anyhow::Result<Value> {
    serde_json::from_slice(bytes).context("the answer is not JSON: is this the price service? Check --target")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_get_their_port() {
        for (target, expected) in [
            ("host", "host:80"),
            ("host:1", "host:1"),
            ("127.0.0.1", "127.0.0.1:80"),
            ("::1", "[::1]:80"),
            ("[::1]", "[::1]:80"),
            ("[::1]:2", "[::1]:2"),
        ] {
            assert_eq!(with_port(target, 80), expected);
        }
        let base = |target: &str| ServiceArgs { target: target.to_owned(), key: String::new() }.base(80);
        assert_eq!((base("host"), base("https://h/")), ("http://host:80".to_owned(), "https://h".to_owned()));
    }
}
