//! What a key may ask: its own limits, or those of its tier, in the mode that is in force.
//!
//! Of each key is kept which tier it has and what it has of its own, so that another mode or another tier changes every
//! key without a look into the store. Where keys come from is not known here.

use crate::params::SystemMode;
use crate::store::{KeyRow, TierRow};
use shared::key::{KeyId, KeyRecord, Permissions, RANK_MAX};
use shared::limits::KEY_LIMIT_PER_SECOND_MAX;
use std::collections::BTreeMap;

/// Names of the permissions, in documents and on the command line.
pub const PERMISSIONS: [(&str, u16); 3] =
    [("prices", Permissions::PRICES), ("reports", Permissions::REPORTS), ("stream", Permissions::STREAM)];

/// The names of these permission bits.
#[must_use]
pub fn permission_names(bits: u16) -> Vec<&'static str> {
    PERMISSIONS.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name).collect()
}

/// The bits of these permission names; `None` when one is no permission.
#[must_use]
pub fn permission_bits<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<u16> {
    let bit = |wanted: &str| PERMISSIONS.iter().find(|(name, _)| *name == wanted).map(|(_, bit)| *bit);
    names.into_iter().try_fold(0, |all, name| Some(all | bit(name)?))
}

/// A key that does not come from the store: of the settings file, or a demo's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedKey {
    /// Number, hash, expiry and UDP secret; limit, permissions and rank are resolved.
    pub record: KeyRecord,
    /// Its tier; without one it has rank 3 and what is its own.
    pub tier: Option<String>,
    /// Requests per second in place of its tier's.
    pub limit_per_second: Option<u32>,
    /// Permission bits in place of its tier's.
    pub permissions: Option<u16>,
}

/// No tier.
const NO_TIER: u16 = u16::MAX;

/// Which tier a key has, and what it has of its own. 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) limit_per_month: Option<u64>,
    pub(super) limit_per_second: Option<u32>,
    pub(super) permissions: Option<u16>,
    /// Place of its tier's name.
    pub(super) tier: u16,
}

/// The tiers that the first migration makes: in force until the store has been read once.
#[must_use]
pub fn first_tiers() -> Vec<TierRow> {
    let reads = Permissions::PRICES | Permissions::STREAM;
    let tier = |name: &str, rank, limit_per_second, limit_per_month, permissions| TierRow {
        name: name.to_owned(),
        rank,
        limit_per_second,
        limit_per_second_performance: (name == "demo").then_some(1_000),
        limit_per_month,
        permissions,
    };
    vec![
        tier("demo", 0, 3, 0, reads | Permissions::REPORTS),
        tier("basic", 1, 100, 10_000_000, reads),
        tier("pro", 2, 1_000, 100_000_000, reads),
        tier("enterprise", 3, 10_000, 0, reads | Permissions::REPORTS),
        tier("stress", 1, 100_000, 0, reads | Permissions::REPORTS),
    ]
}

/// What a tier allows per second in this mode.
#[must_use]
pub fn tier_limit(tier: &TierRow, mode: SystemMode) -> u32 {
    match (mode, tier.limit_per_second_performance) {
        (SystemMode::Performance, Some(limit)) => limit,
        _ => tier.limit_per_second,
    }
}

/// Every key's rule, the tiers, and the mode.
pub(super) struct Rules {
    tiers: Vec<TierRow>,
    /// Names of tiers that keys have, in the order in which they were met first.
    names: Vec<String>,
    mode: SystemMode,
    /// By number. One that grows never moves the others, which would hold everybody up.
    of: BTreeMap<u32, Rule>,
}

impl Rules {
    pub(super) fn new(tiers: Vec<TierRow>, mode: SystemMode) -> Self {
        Self { tiers, names: Vec::new(), mode, of: BTreeMap::new() }
    }

    /// Takes other tiers or another mode into use; whether any key may be another now.
    pub(super) fn change(&mut self, tiers: Option<Vec<TierRow>>, mode: SystemMode) -> bool {
        let tiers = tiers.unwrap_or_else(|| self.tiers.clone());
        let changed = mode != self.mode || tiers != self.tiers;
        (self.tiers, self.mode) = (tiers, mode);
        changed
    }

    pub(super) fn tiers(&self) -> &[TierRow] {
        &self.tiers
    }

    pub(super) fn mode(&self) -> SystemMode {
        self.mode
    }

    /// Names of tiers, by the places that rules name.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Names of tiers as a copy has them, before any rule is made.
    pub(super) fn set_names(&mut self, names: Vec<String>) {
        self.names = names;
    }

    /// How many keys have a rule.
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    fn place_of(&mut self, tier: &str) -> u16 {
        let known = self.names.iter().position(|name| name == tier);
        let place = known.unwrap_or_else(|| {
            self.names.push(tier.to_owned());
            self.names.len() - 1
        });
        u16::try_from(place).unwrap_or(NO_TIER)
    }

    pub(super) fn of_row(&mut self, row: &KeyRow) -> Rule {
        Rule {
            limit_per_month: row.limit_per_month,
            limit_per_second: row.limit_per_second,
            permissions: row.permissions,
            tier: self.place_of(&row.tier),
        }
    }

    pub(super) fn of_fixed(&mut self, key: &FixedKey) -> Rule {
        let own = key.tier.is_none();
        Rule {
            limit_per_month: own.then_some(0),
            limit_per_second: key.limit_per_second,
            permissions: key.permissions,
            tier: key.tier.as_deref().map_or(NO_TIER, |tier| self.place_of(tier)),
        }
    }

    pub(super) fn set(&mut self, id: u32, rule: Option<Rule>) {
        match rule {
            Some(rule) => drop(self.of.insert(id, rule)),
            None => drop(self.of.remove(&id)),
        }
    }

    pub(super) fn get(&self, id: u32) -> Option<&Rule> {
        self.of.get(&id)
    }

    /// The name of the rule's tier.
    pub(super) fn tier_name(&self, rule: &Rule) -> Option<&str> {
        self.names.get(usize::from(rule.tier)).map(String::as_str)
    }

    fn tier(&self, rule: &Rule) -> Option<&TierRow> {
        let name = self.tier_name(rule)?;
        self.tiers.iter().find(|tier| tier.name == name)
    }

    /// The record as this rule makes it; `None` for a tier that there is not, or without a limit: such a key does not work.
    pub(super) fn resolve(&self, record: &KeyRecord, rule: &Rule) -> Option<KeyRecord> {
        let tier = self.tier(rule);
        if tier.is_none() && rule.tier != NO_TIER {
            return None;
        }
        let limit = rule.limit_per_second.or_else(|| tier.map(|tier| tier_limit(tier, self.mode)))?;
        let permissions = rule.permissions.or_else(|| tier.map(|tier| tier.permissions))?;
        Some(KeyRecord {
            limit_per_second: limit.clamp(1, KEY_LIMIT_PER_SECOND_MAX),
            permissions: Permissions(permissions),
            rank: tier.map_or(RANK_MAX, |tier| tier.rank.min(RANK_MAX)),
            ..record.clone()
        })
    }

    /// Requests per calendar month; 0: no bound.
    pub(super) fn limit_per_month(&self, id: KeyId) -> u64 {
        let Some(rule) = self.of.get(&id.0) else { return 0 };
        rule.limit_per_month.or_else(|| self.tier(rule).map(|tier| tier.limit_per_month)).unwrap_or(0)
    }
}
