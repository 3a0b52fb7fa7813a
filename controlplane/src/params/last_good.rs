//! What the store said last, for a start at which it is away: a file in the data directory, and the cache's `app:config`.
//!
//! The file holds the rows as they stood, of an administrator's key only the SHA-256, behind a checksum. `app:config` holds
//! every parameter's text in force, for other programs too, and names those that came from the store; keys are left out.

use super::catalogue::{ADMIN_KEY, PREWARM};
use super::check::{Checked, Origin, Rows, stored_form};
use crate::keys::to_hex;
use crate::private_file;
use crate::store::AssetRow;
use dataplane_core::access::hash_text;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Largest copy that is read: eight lists of 1,000 assets of 17 bytes, as many rows of `exchange_asset_map` at 60, and
/// everything else, five times over.
const COPY_BYTES_MAX: u64 = 4 << 20;

/// The field of `app:config` that names the parameters which came from the store.
const FROM_STORE: &str = "from_store";

#[derive(Serialize, Deserialize)]
struct Copy {
    /// SHA-256 of `rows`, hex.
    sha256: String,
    /// The rows, as JSON text.
    rows: String,
}

#[derive(Serialize, Deserialize)]
struct CopiedRows {
    parameters: BTreeMap<String, String>,
    assets: Vec<(String, String, bool)>,
}

/// The file.
#[derive(Clone, Debug)]
pub struct LastGood(Option<PathBuf>);

impl LastGood {
    /// The copy below the data directory; `None`: none is kept.
    #[must_use]
    pub fn new(data_dir: Option<&Path>) -> Self {
        Self(data_dir.map(|folder| folder.join("parameters.json")))
    }

    /// The rows, if there is a good copy. One that is torn or altered is told and not used.
    #[must_use]
    pub fn read(&self) -> Option<Rows> {
        let path = self.0.as_ref()?;
        let rows =
            private_file::read(path, COPY_BYTES_MAX).and_then(|bytes| bytes.map(|bytes| decode(&bytes)).transpose());
        rows.unwrap_or_else(|fault| {
            tracing::warn!(%fault, path = %path.display(), "copy of the parameters not read; it will be replaced");
            None
        })
    }

    /// Keeps `rows`. A failure is told: the parameters are in force all the same.
    pub fn write(&self, rows: &Rows) {
        let Some(path) = &self.0 else { return };
        if let Err(fault) = encode(rows).and_then(|bytes| private_file::replace(path, &bytes)) {
            tracing::warn!(%fault, path = %path.display(), "copy of the parameters not written: check TB_DATA_DIR");
        }
    }
}

fn encode(rows: &Rows) -> io::Result<Vec<u8>> {
    let parameters = rows.parameters.iter().map(|(name, text)| (name.clone(), stored_form(name, text))).collect();
    let assets = rows.assets.iter().map(|row| (row.exchange.clone(), row.asset.clone(), row.enabled)).collect();
    let rows = serde_json::to_string(&CopiedRows { parameters, assets })?;
    Ok(serde_json::to_vec(&Copy { sha256: to_hex(&hash_text(rows.as_bytes())), rows })?)
}

fn decode(bytes: &[u8]) -> io::Result<Rows> {
    let Copy { sha256, rows } = serde_json::from_slice(bytes)?;
    if to_hex(&hash_text(rows.as_bytes())) != sha256 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong"));
    }
    let CopiedRows { parameters, assets } = serde_json::from_str(&rows)?;
    let asset = |(exchange, asset, enabled)| AssetRow { exchange, asset, enabled };
    Ok(Rows { parameters, assets: assets.into_iter().map(asset).collect() })
}

/// The fields of `app:config`.
#[must_use]
pub fn config_fields(checked: &Checked) -> BTreeMap<String, String> {
    let open = checked.standing.iter().filter(|(name, _)| **name != ADMIN_KEY.name);
    let mut fields: BTreeMap<String, String> =
        open.clone().map(|(name, standing)| ((*name).to_owned(), standing.text.clone())).collect();
    let stored = open.filter(|(_, standing)| !matches!(standing.origin, Origin::Setting | Origin::Default));
    let names: Vec<&str> = stored.map(|(name, _)| *name).collect();
    fields.insert(FROM_STORE.to_owned(), names.join(","));
    fields
}

/// The rows that stood when `fields` were written, as far as they tell: lists that came from other rows stand as the
/// venue's own.
#[must_use]
pub fn rows_of_config(fields: &BTreeMap<String, String>) -> Rows {
    let names = fields.get(FROM_STORE).map(String::as_str).unwrap_or_default();
    let row = |name: &str| fields.get(name).map(|text| (name.to_owned(), text.clone()));
    let mut parameters: BTreeMap<String, String> = names.split(',').filter_map(row).collect();
    let is_list = |name: &str| PREWARM.iter().any(|list| list.name == name);
    parameters.retain(|name, text| !text.is_empty() || is_list(name));
    Rows { parameters, assets: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::check::{Base, check};
    use std::fs;

    fn rows() -> Rows {
        let lines =
            [("cache_ttl_seconds", "30"), ("ADMIN_KEY", "canary-key-0123456789"), ("prewarm_assets", "BTC,ETH")];
        let parameters = lines.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        let okx = AssetRow { exchange: "okx".to_owned(), asset: "SOL".to_owned(), enabled: true };
        Rows { parameters, assets: vec![okx] }
    }

    fn values(rows: &Rows) -> crate::params::Parameters {
        check(rows, &Base::default()).expect("a good set").parameters
    }

    #[test]
    fn a_copy_comes_back_without_the_key_s_text_and_a_torn_one_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let copy = LastGood::new(Some(folder.path()));
        assert_eq!(copy.read(), None);
        copy.write(&rows());
        assert_eq!(copy.read().map(|back| values(&back)), Some(values(&rows())));
        let path = folder.path().join("parameters.json");
        let text = fs::read_to_string(&path).expect("text");
        assert!(!text.contains("canary"), "{text}");
        for torn in [&text[..text.len() / 2], &text.replace("30", "31"), "", "{}", "null"] {
            fs::write(&path, torn).expect("written");
            assert_eq!(copy.read(), None, "{torn}");
        }
        assert_eq!(LastGood::new(None).read(), None);
    }

    #[test]
    fn what_the_cache_holds_gives_the_same_values_but_for_the_key() {
        let checked = check(&rows(), &Base::default()).expect("a good set");
        let fields = config_fields(&checked);
        assert!(!format!("{fields:?}").contains("ADMIN_KEY"));
        assert_eq!(fields["cache_ttl_seconds"], "30");
        let expected = crate::params::Parameters { admin_key_hash: None, ..values(&rows()) };
        assert_eq!(values(&rows_of_config(&fields)), expected);
        assert_eq!(rows_of_config(&BTreeMap::new()), Rows::default());
    }
}
