//! Where everything is, and the file that tells it.

use crate::feeds::simulator::Simulators;
use crate::keys::DemoKeys;
use crate::private_file;
use anyhow::Context;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::path::Path;

/// Every bound address, and what serves on them.
#[derive(Clone, Debug, Serialize)]
pub struct Addresses {
    /// Prices over HTTP.
    pub lpo_tcp: SocketAddr,
    /// The control plane's own port; `None` in the role `LPO`.
    pub lrs_tcp: Option<SocketAddr>,
    /// Prices over UDP.
    pub lpo_udp: SocketAddr,
    /// Reports over UDP; `None` in the role `LPO`.
    pub lrs_udp: Option<SocketAddr>,
    /// Health beside prices.
    pub health_lpo: SocketAddr,
    /// Health beside the control plane's own port; `None` in the role `LPO`.
    pub health_lrs: Option<SocketAddr>,
    /// The engine.
    pub engine: &'static str,
    /// Serving shards.
    pub shards: usize,
    /// This process.
    pub pid: u32,
}

/// Writes the ready file: whole or not at all, and for its owner only, since a demo's keys stand in it.
///
/// # Errors
/// Why it cannot be written.
pub fn write(
    path: &Path,
    addresses: &Addresses,
    demo: Option<&DemoKeys>,
    simulators: Option<&Simulators>,
) -> anyhow::Result<()> {
    let mut object = json!(addresses);
    if let (Some(object), Some(keys)) = (object.as_object_mut(), demo) {
        object.extend(demo_members(keys));
        let simulators = simulators.into_iter().flat_map(Simulators::addresses);
        let simulators: Map<String, Value> =
            simulators.map(|(venue, address)| (venue.name().to_owned(), address.to_string().into())).collect();
        object.insert("simulators".to_owned(), simulators.into());
    }
    let remedy =
        || format!("cannot write the ready file {}: give a path in a directory that can be written", path.display());
    private_file::replace(path, format!("{object}\n").as_bytes()).with_context(remedy)
}

fn demo_members(keys: &DemoKeys) -> [(String, Value); 5] {
    [
        ("demo_key".to_owned(), keys.demo.reveal().into()),
        ("stress_key".to_owned(), keys.stress.reveal().into()),
        ("udp_key_id".to_owned(), keys.udp_key_id.into()),
        ("udp_secret".to_owned(), keys.udp_secret.reveal().into()),
        ("admin_key".to_owned(), keys.admin.reveal().into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn addresses() -> Addresses {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Addresses {
            lpo_tcp: address(8080),
            lrs_tcp: Some(address(9090)),
            lpo_udp: address(2679),
            lrs_udp: None,
            health_lpo: address(8081),
            health_lrs: None,
            engine: "epoll",
            shards: 2,
            pid: 7,
        }
    }

    #[test]
    fn the_file_is_whole_private_and_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ready.json");
        fs::write(&path, "of an earlier start, and longer than what comes: ".repeat(100)).expect("an old file");
        let (keys, _) = DemoKeys::make(None);
        write(&path, &addresses(), Some(&keys), None).expect("written");
        let object: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
        assert_eq!((&object["lpo_tcp"], &object["lrs_udp"]), (&json!("127.0.0.1:8080"), &Value::Null));
        assert_eq!((&object["shards"], &object["udp_key_id"]), (&json!(2), &json!(u32::MAX)));
        assert_eq!(object["demo_key"], keys.demo.reveal());
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn without_a_demo_there_is_no_key_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ready.json");
        write(&path, &addresses(), None, None).expect("written");
        let object: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
        assert!(object.as_object().is_some_and(|members| members.keys().all(|name| !name.contains("key"))), "{object}");
    }

    #[test]
    fn a_path_that_cannot_be_written_is_named() {
        let failed = write(Path::new("/no/such/folder/ready.json"), &addresses(), None, None).expect_err("no folder");
        assert!(format!("{failed:#}").contains("/no/such/folder/ready.json"));
    }
}
