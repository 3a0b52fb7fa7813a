//! Parameters and the exchanges' assets: small, and always written whole, so that what is gone goes.
//!
//! Parameters are those that nodes would take into force by a reload now. A set that is not valid is not written: nodes
//! would not take it either.

use super::{Part, Round, SyncError, since_ms};
use crate::cache::names::{APP_CONFIG, CacheKey, EXCHANGE_ASSET_MAP};
use crate::cache::{Cached, Value};
use crate::params::SystemMode;
use crate::params::catalogue::SYSTEM_MODE;
use crate::params::check::{Base, Checked, Rows, check};
use crate::params::last_good::config_fields;
use crate::store::AssetRow;
use std::collections::BTreeMap;
use std::time::Instant;

/// Faults of a set that are told.
const FAULTS_TOLD: usize = 4;

/// What became of them.
pub struct Written {
    pub parameters: Part,
    pub assets: Part,
    /// Why `app:config` was left as it stands.
    pub refused: Option<String>,
    /// The mode in force; where the set is not valid the one that it names, and `None` where that is none either: which
    /// one nodes have in force then is not known here.
    pub mode: Option<SystemMode>,
}

/// Writes both.
pub async fn write(round: &Round, base: &Base) -> Result<Written, SyncError> {
    let began = Instant::now();
    let (parameters, assets) = tokio::try_join!(round.store.parameters(), round.store.asset_map())?;
    let rows = Rows { parameters, assets };
    let by_exchange = by_exchange(&rows.assets);
    let mut asset_part = Part { written: by_exchange.len() as u64, ..Part::default() };
    let checked = check(&rows, base);
    let (config, assets) =
        tokio::try_join!(write_config(round, checked.as_ref().ok()), write_assets(round, by_exchange))?;
    asset_part.deleted = u64::from(assets);
    asset_part.took_ms = since_ms(began);
    let parameters = Part { written: config, deleted: 0, took_ms: since_ms(began) };
    let (mode, refused) = match checked {
        Ok(checked) => (Some(checked.parameters.mode), None),
        Err(faults) => {
            let told: Vec<String> = faults.iter().take(FAULTS_TOLD).map(ToString::to_string).collect();
            (mode_alone(rows, base), Some(format!("{} faults, such as {}", faults.len(), told.join("; "))))
        }
    };
    Ok(Written { parameters, assets: asset_part, refused, mode })
}

/// The mode by itself.
fn mode_alone(mut rows: Rows, base: &Base) -> Option<SystemMode> {
    rows.parameters.retain(|name, _| name == SYSTEM_MODE.name);
    rows.assets.clear();
    check(&rows, base).ok().map(|alone| alone.parameters.mode)
}

/// How many fields it has.
async fn write_config(round: &Round, checked: Option<&Checked>) -> Cached<u64> {
    let Some(checked) = checked else { return Ok(0) };
    let fields = config_fields(checked);
    let count = fields.len() as u64;
    round.cache.put(&CacheKey::fixed(APP_CONFIG), &Value::Hash(fields)).await?;
    Ok(count)
}

/// Whether it was deleted.
async fn write_assets(round: &Round, by_exchange: BTreeMap<String, String>) -> Cached<bool> {
    let key = CacheKey::fixed(EXCHANGE_ASSET_MAP);
    if by_exchange.is_empty() {
        return round.cache.delete(&key).await;
    }
    round.cache.put(&key, &Value::Hash(by_exchange)).await?;
    Ok(false)
}

/// The assets of each exchange that are enabled, parted by commas.
fn by_exchange(rows: &[AssetRow]) -> BTreeMap<String, String> {
    let mut lists: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for row in rows {
        let list = lists.entry(row.exchange.clone()).or_default();
        if row.enabled {
            list.push(&row.asset);
        }
    }
    lists.into_iter().map(|(exchange, list)| (exchange, list.join(","))).collect()
}
