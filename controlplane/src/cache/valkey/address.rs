//! From `CACHE_URL` to what the client needs: which servers, whether a cluster, credentials, TLS.

use fred::types::config::{Config, TlsConfig, TlsConnector};
use rustls::ClientConfig;

/// Schemes of `CACHE_URL`, and what the client calls the same without TLS.
const SCHEMES: [(&str, &str, bool); 4] = [
    ("redis://", "redis://", false),
    ("rediss://", "redis://", true),
    ("redis-cluster://", "redis-cluster://", false),
    ("rediss-cluster://", "redis-cluster://", true),
];

const REMEDY: &str = "CACHE_URL must be redis://[user:password@]host[:port], rediss:// for TLS, redis-cluster:// or \
                      rediss-cluster:// for a cluster";

/// Reads the URL. `tls` is asked for only where the scheme wants it. A password's special characters are percent-encoded.
///
/// # Errors
/// What to mend; the URL is not shown.
pub fn read(url: &str, tls: impl FnOnce() -> Result<ClientConfig, String>) -> Result<Config, String> {
    let known = SCHEMES.iter().find(|(scheme, ..)| url.starts_with(scheme));
    let (scheme, plain, wants_tls) = known.ok_or(REMEDY)?;
    let rest = &url[scheme.len()..];
    // Only the password: the user called default.
    let mut config = Config::from_url(&format!("{plain}{}", with_port(rest))).map_err(|_| REMEDY)?;
    if config.username.is_some() && config.password.is_none() {
        return Err(format!("{REMEDY}; a user needs a password, and a password alone is written :password@"));
    }
    if *wants_tls {
        config.tls = Some(TlsConfig::from(TlsConnector::from(tls()?)));
    }
    Ok(config)
}

/// A cluster's address has no port by default in the client.
fn with_port(rest: &str) -> String {
    let (authority, tail) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && !port.ends_with(']'));
    if has_port || host.is_empty() { rest.to_owned() } else { format!("{authority}:6379{tail}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, hosts: &[&str], cluster: bool, user: Option<&str>, password: Option<&str>) {
        let config = read(url, || Err("no TLS".to_owned())).unwrap_or_else(|why| panic!("{url}: {why}"));
        let mut found: Vec<String> = config.server.hosts().iter().map(|host| host.to_string()).collect();
        found.sort();
        assert_eq!(found, hosts, "{url}");
        assert_eq!(config.server.is_clustered(), cluster, "{url}");
        assert_eq!((config.username.as_deref(), config.password.as_deref()), (user, password), "{url}");
    }

    #[test]
    fn addresses_are_read() {
        check("redis://cache", &["cache:6379"], false, None, None);
        check("redis://10.0.0.1:7000", &["10.0.0.1:7000"], false, None, None);
        check("redis://[::1]", &["[::1]:6379"], false, None, None);
        check("redis://[::1]:7000/", &["[::1]:7000"], false, None, None);
        check("redis://u:p%40ss@cache:7000/3", &["cache:7000"], false, Some("u"), Some("p@ss"));
        check("redis://:pass@cache", &["cache:6379"], false, None, Some("pass"));
        check("redis-cluster://cache", &["cache:6379"], true, None, None);
        check("redis-cluster://a:1?node=b:2", &["a:1", "b:2"], true, None, None);
    }

    #[test]
    fn what_is_no_address_is_refused_without_being_shown() {
        for url in ["", "http://cache", "redis://", "redis://u:secret@", "redis://cache:port", "redis://secret@cache"] {
            let why = read(url, || Err("no TLS".to_owned())).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(why.contains("CACHE_URL must be") && !why.contains("secret"), "{url}: {why}");
        }
        assert_eq!(read("rediss://cache", || Err("no TLS".to_owned())).err().as_deref(), Some("no TLS"));
    }
}
