//! What somebody wants a key to be, checked once for the command line and for administration alike.
//!
//! Every fault of a wish is told at once, each with its name, value, bounds and why. Nothing here reaches a store.

use super::rules::permission_bits;
use crate::store::{KeyRow, TierRow};
use serde::Serialize;
use serde_json::{Map, Value};
use shared::limits::KEY_LIMIT_PER_SECOND_MAX;

/// Longest name of a key, bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Highest limit per month: it stays exact in every JSON reader.
pub const LIMIT_PER_MONTH_MAX: u64 = 1_000_000_000_000_000;

/// Last time that can be written with a year of four digits, Unix ms.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// How long the old key of a rotation works on where nobody says otherwise, hours.
pub const OVERLAP_HOURS: u64 = 24;

/// How long it may at most: 30 days.
pub const OVERLAP_HOURS_MAX: u64 = 30 * 24;

const HOUR_MS: u64 = 60 * 60 * 1_000;

/// Members of a wish for a new key.
const MEMBERS: [&str; 6] = ["name", "tier", "limit_per_second", "limit_per_month", "permissions", "expires_time_ms"];

/// One thing that will not do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WishFault {
    /// Which member.
    pub name: String,
    /// What was given; nothing for what is missing.
    pub value: Value,
    /// What it may be.
    pub bounds: String,
    /// What is wrong.
    pub why: &'static str,
}

/// A new key as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyWish {
    /// See [`KeyRow::name`].
    pub name: String,
    /// Name of a tier that there is.
    pub tier: String,
    /// See [`KeyRow::limit_per_second`].
    pub limit_per_second: Option<u32>,
    /// See [`KeyRow::limit_per_month`].
    pub limit_per_month: Option<u64>,
    /// See [`KeyRow::permissions`].
    pub permissions: Option<u16>,
    /// See [`KeyRow::expires_time_ms`].
    pub expires_time_ms: Option<u64>,
}

impl From<KeyRow> for KeyWish {
    /// A key just like that one.
    fn from(row: KeyRow) -> Self {
        let KeyRow { name, tier, limit_per_second, limit_per_month, permissions, expires_time_ms, .. } = row;
        Self { name, tier, limit_per_second, limit_per_month, permissions, expires_time_ms }
    }
}

/// Reads one member after the other and notes what is wrong.
struct Reader<'a> {
    members: &'a Map<String, Value>,
    faults: Vec<WishFault>,
}

impl Reader<'_> {
    fn fault(&mut self, name: &str, bounds: impl Into<String>, why: &'static str) {
        let value = self.members.get(name).cloned().unwrap_or_default();
        self.faults.push(WishFault { name: name.to_owned(), value, bounds: bounds.into(), why });
    }

    /// Members that are not known.
    fn unknown(&mut self, known: &[&str]) {
        let names: Vec<String> = self.members.keys().filter(|name| !known.contains(&name.as_str())).cloned().collect();
        for name in names {
            // The value may be a secret under a misspelt name.
            let fault =
                WishFault { name, value: Value::Null, bounds: known.join(", "), why: "there is no such member" };
            self.faults.push(fault);
        }
    }

    /// A whole number from `least` to `most`; a member that is missing or null is none.
    fn number(&mut self, name: &str, least: u64, most: u64) -> Option<u64> {
        let value = self.members.get(name).filter(|value| !value.is_null())?;
        let number = value.as_u64().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.fault(name, format!("{least} to {most}"), "it is no whole number within the bounds");
        }
        number
    }

    fn name(&mut self) -> Option<String> {
        let good = |name: &&str| {
            (1..=NAME_BYTES_MAX).contains(&name.len()) && name.trim() == *name && !name.chars().any(char::is_control)
        };
        let name = self.members.get("name").and_then(Value::as_str).filter(good).map(str::to_owned);
        if name.is_none() {
            let bounds = format!("1 to {NAME_BYTES_MAX} bytes of text without control characters or spaces around it");
            self.fault("name", bounds, "a key needs a name to know it by");
        }
        name
    }

    fn tier(&mut self, tiers: &[TierRow]) -> Option<String> {
        let wanted = self.members.get("tier").and_then(Value::as_str);
        let tier = wanted.filter(|wanted| tiers.iter().any(|tier| tier.name == *wanted)).map(str::to_owned);
        if tier.is_none() {
            let names: Vec<&str> = tiers.iter().map(|tier| tier.name.as_str()).collect();
            self.fault("tier", names.join(", "), "there is no such tier");
        }
        tier
    }

    fn permissions(&mut self) -> Option<u16> {
        let value = self.members.get("permissions").filter(|value| !value.is_null())?;
        let names = value.as_array().and_then(|names| names.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let bits = names.and_then(permission_bits);
        if bits.is_none() {
            self.fault("permissions", "a list of prices, reports, stream", "it is no list of permissions");
        }
        bits
    }
}

/// Reads a wish for a new key. `tiers` are those that there are.
///
/// # Errors
/// Everything that is wrong with it.
pub fn new_key(members: &Map<String, Value>, tiers: &[TierRow], now_ms: u64) -> Result<KeyWish, Vec<WishFault>> {
    let mut reader = Reader { members, faults: Vec::new() };
    reader.unknown(&MEMBERS);
    let (name, tier) = (reader.name(), reader.tier(tiers));
    let per_second = reader.number("limit_per_second", 1, KEY_LIMIT_PER_SECOND_MAX.into());
    let limit_per_month = reader.number("limit_per_month", 0, LIMIT_PER_MONTH_MAX);
    let permissions = reader.permissions();
    let expires_time_ms = reader.number("expires_time_ms", now_ms + 1, TIME_MS_MAX);
    match (name, tier) {
        (Some(name), Some(tier)) if reader.faults.is_empty() => Ok(KeyWish {
            name,
            tier,
            limit_per_second: per_second.and_then(|limit| u32::try_from(limit).ok()),
            limit_per_month,
            permissions,
            expires_time_ms,
        }),
        _ => Err(reader.faults),
    }
}

/// Reads for how long the old key of a rotation works on, ms.
///
/// # Errors
/// Everything that is wrong with it.
pub fn overlap(members: &Map<String, Value>) -> Result<u64, Vec<WishFault>> {
    let mut reader = Reader { members, faults: Vec::new() };
    reader.unknown(&["overlap_hours"]);
    let hours = reader.number("overlap_hours", 0, OVERLAP_HOURS_MAX).unwrap_or(OVERLAP_HOURS);
    if reader.faults.is_empty() { Ok(hours * HOUR_MS) } else { Err(reader.faults) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::rules::first_tiers;
    use serde_json::json;

    const NOW_MS: u64 = 1_800_000_000_000;

    #[track_caller]
    fn check(wish: Value, expected: Result<KeyWish, &[&str]>) {
        let read = new_key(wish.as_object().expect("members"), &first_tiers(), NOW_MS);
        let names = |faults: Vec<WishFault>| -> Vec<String> { faults.into_iter().map(|fault| fault.name).collect() };
        let expected = expected.map_err(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(read.map_err(names), expected, "{wish}");
    }

    fn plain() -> KeyWish {
        KeyWish {
            name: "a".to_owned(),
            tier: "pro".to_owned(),
            limit_per_second: None,
            limit_per_month: None,
            permissions: None,
            expires_time_ms: None,
        }
    }

    #[test]
    fn good_wishes_are_read() {
        check(json!({"name": "a", "tier": "pro"}), Ok(plain()));
        check(json!({"name": "a", "tier": "pro", "limit_per_second": null, "permissions": null}), Ok(plain()));
        let all = json!({"name": "a", "tier": "pro", "limit_per_second": 16_000_000, "limit_per_month": 0,
            "permissions": ["prices", "reports", "prices"], "expires_time_ms": NOW_MS + 1});
        let expected = KeyWish {
            limit_per_second: Some(16_000_000),
            limit_per_month: Some(0),
            permissions: Some(3),
            expires_time_ms: Some(NOW_MS + 1),
            ..plain()
        };
        check(all, Ok(expected));
    }

    #[test]
    fn every_fault_of_a_bad_wish_is_told() {
        check(json!({}), Err(&["name", "tier"]));
        check(json!({"name": "a", "tier": "gold"}), Err(&["tier"]));
        check(json!({"name": "a", "tier": 1}), Err(&["tier"]));
        for name in [json!(""), json!(" a"), json!("a\nb"), json!("a".repeat(129)), json!(["a"])] {
            check(json!({"name": name, "tier": "pro"}), Err(&["name"]));
        }
        for (member, value) in [
            ("limit_per_second", json!(0)),
            ("limit_per_second", json!(16_000_001)),
            ("limit_per_second", json!("5")),
            ("limit_per_second", json!(1.5)),
            ("limit_per_month", json!(-1)),
            ("limit_per_month", json!(LIMIT_PER_MONTH_MAX + 1)),
            ("permissions", json!("prices")),
            ("permissions", json!(["all"])),
            ("permissions", json!([1])),
            ("expires_time_ms", json!(NOW_MS)),
            ("expires_time_ms", json!("2030-01-01")),
            ("key", json!("tb_live_canary")),
        ] {
            check(json!({"name": "a", "tier": "pro", member: value}), Err(&[member]));
        }
        let faults = new_key(json!({"key": "canary"}).as_object().expect("members"), &first_tiers(), NOW_MS);
        assert!(!format!("{faults:?}").contains("canary"), "what stands under an unknown name is not repeated");
    }

    #[test]
    fn an_overlap_is_in_hours() {
        let read = |wish: Value| overlap(wish.as_object().expect("members"));
        assert_eq!(read(json!({})), Ok(24 * HOUR_MS));
        assert_eq!(read(json!({"overlap_hours": 0})), Ok(0));
        assert_eq!(read(json!({"overlap_hours": 720})), Ok(720 * HOUR_MS));
        for bad in [json!({"overlap_hours": 721}), json!({"overlap_hours": "1"}), json!({"hours": 1})] {
            assert!(read(bad).is_err());
        }
    }
}
