//! From texts to values: the whole set is valid, or every fault of it is told.
//!
//! A parameter's text is its row in the store, else the setting of its name (`CACHE_TTL_SECONDS`, `LOG_LEVEL`,
//! `*_PREWARM_ASSETS`), else its default. A venue's list is its own row, else (Coinbase and Gemini) the row `prewarm_assets`,
//! else the venue's enabled rows in `exchange_asset_map`, else its setting, else the list built in.

use super::catalogue::{self as name, Kind, Parameter};
use super::{Adaptive, Parameters, PrewarmTurns, QueueBounds, SystemMode};
use crate::cache::CacheTimeouts;
use crate::config::{ADMIN_KEY_LENGTH, PREWARM_ASSETS_MAX, Settings, log_level, symbols};
use crate::keys::{from_hex, to_hex};
use crate::store::AssetRow;
use dataplane_core::access::hash_text;
use serde::Serialize;
use shared::asset::{Symbol, resolve_alias};
use shared::limits::PREWARMED_MAX;
use shared::venue::Venue;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use tracing::Level;

/// Longest value that a fault repeats, in characters: enough to recognise it.
const SHOWN_VALUE_MAX: usize = 80;

/// Most faults that are told of one set: every parameter there is, and a table full of names that nobody knows.
const FAULTS_MAX: usize = 1_000;

/// What stands in a secret's place.
pub const MASK: &str = "********";

/// How a stored administrator's key begins.
const HASH_PREFIX: &str = "sha256:";

/// Where a parameter's text came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Its row in `application_parameters`.
    Store,
    /// The row `prewarm_assets`.
    PrewarmAssets,
    /// The venue's rows in `exchange_asset_map`.
    ExchangeAssetMap,
    /// The setting of its name.
    Setting,
    /// Nobody said anything.
    Default,
}

/// What is wrong with one parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ParameterFault {
    /// Its name, or that of the table.
    pub name: String,
    /// The refused value; secrets are masked.
    pub value: String,
    /// What is allowed.
    pub bounds: String,
    /// What the parameter does.
    pub meaning: String,
}

impl fmt::Display for ParameterFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?} is refused; allowed: {}", self.name, self.value, self.bounds)
    }
}

impl ParameterFault {
    fn new(parameter: &Parameter, value: &str) -> Self {
        Self::breaking(parameter, value, parameter.bounds())
    }

    fn breaking(parameter: &Parameter, value: &str, bounds: String) -> Self {
        let value = if parameter.is_secret() { MASK.to_owned() } else { shortened(value) };
        Self { name: parameter.name.to_owned(), value, bounds, meaning: parameter.meaning.to_owned() }
    }

    /// A name that no parameter has. Its value may be a secret under a misspelt name.
    #[must_use]
    pub fn unknown(name: &str) -> Self {
        let bounds = "a name that GET /admin/params shows; unset this one".to_owned();
        Self {
            name: shortened(name), value: "…".to_owned(), bounds, meaning: "there is no such parameter".to_owned()
        }
    }

    /// A value that is no text.
    #[must_use]
    pub fn of_type(name: &str, value: &str) -> Self {
        match name::find(name) {
            Some(parameter) => Self::breaking(parameter, value, format!("a JSON string: {}", parameter.bounds())),
            None => Self::unknown(name),
        }
    }

    fn asset_row(row: &AssetRow, bounds: &str) -> Self {
        Self {
            name: "exchange_asset_map".to_owned(),
            value: shortened(&format!("{}: {}", row.exchange, row.asset)),
            bounds: bounds.to_owned(),
            meaning: "the assets that each venue is asked for".to_owned(),
        }
    }
}

fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_VALUE_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// What the store says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// `application_parameters`.
    pub parameters: BTreeMap<String, String>,
    /// `exchange_asset_map`.
    pub assets: Vec<AssetRow>,
}

/// What stands where the store says nothing: the settings that have a parameter of their name.
#[derive(Clone, Debug, Default)]
pub struct Base(BTreeMap<&'static str, String>);

impl Base {
    /// The texts of validated settings.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let mut texts = BTreeMap::new();
        texts.insert(name::CACHE_TTL_SECONDS.name, settings.fresh.as_secs().to_string());
        texts.insert(name::LOG_LEVEL.name, settings.log_level.as_str().to_ascii_lowercase());
        for (list, parameter) in settings.prewarm.iter().zip(&name::PREWARM) {
            texts.extend(list.as_ref().map(|list| (parameter.name, list_text(list))));
        }
        Self(texts)
    }
}

/// The text in force of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// In its plainest form; [`MASK`] for a secret that is set.
    pub text: String,
    /// Where it came from.
    pub origin: Origin,
}

/// A valid set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Its values.
    pub parameters: Parameters,
    /// Its texts, of every parameter.
    pub standing: BTreeMap<&'static str, Standing>,
}

/// Makes values of the texts.
///
/// # Errors
/// Every fault of the set; nothing of it may be used then.
pub fn check(rows: &Rows, base: &Base) -> Result<Checked, Vec<ParameterFault>> {
    let mut take = Reader { rows, base, faults: Vec::new(), standing: BTreeMap::new() };
    let unknown = rows.parameters.keys().filter(|name| name::find(name).is_none());
    take.faults.extend(unknown.map(|name| ParameterFault::unknown(name)));
    let parameters = Parameters {
        mode: take
            .read(&name::SYSTEM_MODE, |text| SystemMode::from_name(text).map(|mode| (mode, mode.name().to_owned()))),
        adaptive: Adaptive {
            max_concurrent: take.whole(&name::ADAPTIVE_MAX_CONCURRENT),
            success_threshold_permille: take.read(&name::ADAPTIVE_SUCCESS_THRESHOLD, share),
            throttle_delay_ms: take.whole(&name::ADAPTIVE_THROTTLE_DELAY_MS),
        },
        udp_max_concurrent_lpo: take.whole(&name::UDP_MAX_CONCURRENT_LPO),
        udp_max_concurrent_lrs: take.whole(&name::UDP_MAX_CONCURRENT_LRS),
        db_max_open: take.whole(&name::DB_MAX_OPEN_CONNS),
        db_max_idle: take.whole(&name::DB_MAX_IDLE_CONNS),
        cache_timeouts: CacheTimeouts {
            dial_ms: take.whole(&name::CACHE_DIAL_TIMEOUT_MS).into(),
            read_ms: take.whole(&name::CACHE_READ_TIMEOUT_MS).into(),
            write_ms: take.whole(&name::CACHE_WRITE_TIMEOUT_MS).into(),
        },
        queue: QueueBounds {
            batch_messages: take.whole(&name::SQS_BATCH_SIZE) as usize,
            flush_ms: take.whole(&name::SQS_FLUSH_MS).into(),
            buffer_rows: take.whole(&name::SQS_BUFFER_SIZE) as usize,
            timeout_ms: take.whole(&name::SQS_TIMEOUT_MS).into(),
        },
        http_idle_timeout_s: take.whole(&name::HTTP_IDLE_TIMEOUT_SECONDS),
        http_read_timeout_s: take.whole(&name::HTTP_READ_TIMEOUT_SECONDS),
        http_write_timeout_s: take.whole(&name::HTTP_WRITE_TIMEOUT_SECONDS),
        cache_ttl_s: take.whole(&name::CACHE_TTL_SECONDS),
        log_level: take.read(&name::LOG_LEVEL, level).0,
        prewarm: take.lists(),
        prewarm_turns: PrewarmTurns {
            every: minutes(take.whole(&name::PREWARM_INTERVAL)),
            kraken_every: minutes(take.whole(&name::KRAKEN_PREWARM_INTERVAL_MINUTES)),
            kraken_later: Duration::from_secs(take.whole(&name::KRAKEN_PREWARM_OFFSET_SECONDS).into()),
        },
        admin_key_hash: take.read(&name::ADMIN_KEY, admin_key),
    };
    let (pool, kept) = (take.whole(&name::CACHE_POOL_SIZE), take.whole(&name::CACHE_MIN_IDLE_CONNS));
    take.at_most(&name::DB_MAX_IDLE_CONNS, parameters.db_max_idle, &name::DB_MAX_OPEN_CONNS, parameters.db_max_open);
    take.at_most(&name::CACHE_MIN_IDLE_CONNS, kept, &name::CACHE_POOL_SIZE, pool);
    for parameter in name::all().filter(|parameter| matches!(parameter.effect, name::Effect::None(_))) {
        if !take.is_read(parameter) {
            take.whole(parameter);
        }
    }
    take.fits_the_directory(&parameters);
    let Reader { mut faults, standing, .. } = take;
    faults.truncate(FAULTS_MAX);
    if faults.is_empty() { Ok(Checked { parameters, standing }) } else { Err(faults) }
}

fn minutes(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 60)
}

/// The form in which a text is stored: trimmed, and of a key only its SHA-256. A text that will not do stays as it is, for
/// [`check`] to refuse.
#[must_use]
pub fn stored_form(name: &str, text: &str) -> String {
    let text = text.trim();
    if name == name::ADMIN_KEY.name
        && let Some((Some(hash), _)) = admin_key(text)
    {
        return format!("{HASH_PREFIX}{}", to_hex(&hash));
    }
    text.to_owned()
}

/// Reads values and notes what is wrong.
struct Reader<'a> {
    rows: &'a Rows,
    base: &'a Base,
    faults: Vec<ParameterFault>,
    standing: BTreeMap<&'static str, Standing>,
}

impl Reader<'_> {
    fn is_read(&self, parameter: &Parameter) -> bool {
        self.standing.contains_key(parameter.name) || self.faults.iter().any(|fault| fault.name == parameter.name)
    }

    /// The row of `parameter`, where one is set.
    fn row(&self, parameter: &Parameter) -> Option<&str> {
        let text = self.rows.parameters.get(parameter.name)?.trim();
        (!text.is_empty() || !parameter.empty_is_unset()).then_some(text)
    }

    /// The value of `parameter`, which `read` gives with its plainest text. One that is refused is a fault, and the default
    /// stands in so that the rest can be looked at too.
    fn read<T: Default>(&mut self, parameter: &'static Parameter, read: impl Fn(&str) -> Option<(T, String)>) -> T {
        let default = parameter.default();
        let (text, origin) = match (self.row(parameter), self.base.0.get(parameter.name)) {
            (Some(row), _) => (row, Origin::Store),
            (None, Some(setting)) if *setting != default => (setting.as_str(), Origin::Setting),
            (None, _) => (default.as_str(), Origin::Default),
        };
        if let Some((value, text)) = read(text) {
            self.standing.insert(parameter.name, Standing { text, origin });
            return value;
        }
        let fault = ParameterFault::new(parameter, text);
        self.faults.push(fault);
        read(&default).map(|(value, _)| value).unwrap_or_default()
    }

    fn whole(&mut self, parameter: &'static Parameter) -> u32 {
        let (min, max) = match parameter.kind {
            Kind::Whole { min, max } => (min, max),
            _ => (0, u32::MAX),
        };
        let good = |number: &u32| (min..=max).contains(number);
        self.read(parameter, |text| digits(text).filter(good).map(|number| (number, number.to_string())))
    }

    /// A rule between two parameters; not looked at where one of them is refused already.
    fn at_most(&mut self, parameter: &'static Parameter, value: u32, other: &'static Parameter, bound: u32) {
        let both = self.standing.contains_key(parameter.name) && self.standing.contains_key(other.name);
        if both && value > bound {
            let bounds = format!("at most {}, which is {bound}", other.name);
            self.faults.push(ParameterFault::breaking(parameter, &value.to_string(), bounds));
        }
    }

    /// Every venue's list; `None` for the one built in.
    fn lists(&mut self) -> [Option<Vec<Symbol>>; Venue::ALL.len()] {
        let legacy = self.row(&name::PREWARM_ASSETS).map(str::to_owned);
        let both = self.read(&name::PREWARM_ASSETS, |text| match text {
            "" => Some((None, String::new())),
            _ => symbols(text).map(|list| (Some(list.clone()), list_text(&list))),
        });
        let mut mapped = self.mapped();
        Venue::ALL.map(|venue| {
            let parameter = &name::PREWARM[venue.index()];
            let shared_list = legacy.is_some() && matches!(venue, Venue::Coinbase | Venue::Gemini);
            let (list, origin) = match (self.row(parameter), mapped.remove(&venue)) {
                (None, _) if shared_list => (both.clone().unwrap_or_default(), Origin::PrewarmAssets),
                (None, Some(list)) => (list, Origin::ExchangeAssetMap),
                (own, _) => {
                    let is_set = own.is_some() || self.base.0.contains_key(parameter.name);
                    let list = self.read(parameter, |text| symbols(text).map(|list| (list.clone(), list_text(&list))));
                    return is_set.then_some(list);
                }
            };
            self.standing.insert(parameter.name, Standing { text: list_text(&list), origin });
            Some(list)
        })
    }

    /// The enabled rows of `exchange_asset_map`, by venue. Rows that are not enabled do nothing, whatever they hold.
    fn mapped(&mut self) -> BTreeMap<Venue, Vec<Symbol>> {
        let mut lists: BTreeMap<Venue, Vec<Symbol>> = BTreeMap::new();
        for row in self.rows.assets.iter().filter(|row| row.enabled) {
            let exchange = row.exchange.trim().to_ascii_lowercase();
            let fault = match (Venue::from_name(&exchange), Symbol::new(row.asset.trim().as_bytes())) {
                (Some(venue), Some(symbol)) => {
                    let list = lists.entry(venue).or_default();
                    list.push(symbol);
                    // Told once, by the first row too many.
                    (list.len() == PREWARM_ASSETS_MAX + 1).then_some("up to 1000 enabled rows for each exchange")
                }
                (None, _) => Some("exchange: coinbase, gemini, kraken, gateio, cryptocom, bybit or okx"),
                (Some(_), None) => Some("asset: 1 to 16 letters and digits"),
            };
            self.faults.extend(fault.map(|bounds| ParameterFault::asset_row(row, bounds)));
        }
        lists
    }

    /// All lists together must fit the directory, with room for what is always priced.
    fn fits_the_directory(&mut self, parameters: &Parameters) {
        let wanted = crate::feeds::instruments::wanted(&parameters.prewarm);
        let distinct: BTreeSet<Symbol> = wanted.iter().map(|wanted| resolve_alias(wanted.symbol)).collect();
        if distinct.len() > PREWARMED_MAX {
            self.faults.push(ParameterFault {
                name: "*_prewarm_assets".to_owned(),
                value: format!("{} different assets", distinct.len()),
                bounds: format!("all lists together name at most {PREWARMED_MAX} different assets"),
                meaning: "the assets kept warm".to_owned(),
            });
        }
    }
}

/// Digits only: the standard parser would also take a sign.
fn digits(text: &str) -> Option<u32> {
    let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if good { text.parse().ok() } else { None }
}

/// `0.50` as thousandths.
fn share(text: &str) -> Option<(u16, String)> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if part.is_empty() || part.len() > 3 {
        return None;
    }
    let thousandths = digits(whole)?.checked_mul(1_000)?.checked_add(digits(&format!("{part:0<3}"))?)?;
    let value = u16::try_from(thousandths).ok().filter(|value| *value <= 1_000)?;
    let text = format!("{}.{:03}", value / 1_000, value % 1_000);
    Some((value, text.trim_end_matches('0').trim_end_matches('.').to_owned()))
}

/// A level, for [`Reader::read`], which wants a default.
struct LogLevel(Level);

impl Default for LogLevel {
    fn default() -> Self {
        Self(Level::INFO)
    }
}

fn level(text: &str) -> Option<(LogLevel, String)> {
    log_level(text).map(|level| (LogLevel(level), text.to_owned()))
}

/// The SHA-256 of an administrator's key, given as such or as the key itself; `None` where none is set.
fn admin_key(text: &str) -> Option<(Option<[u8; 32]>, String)> {
    if text.is_empty() {
        return Some((None, String::new()));
    }
    if let Some(hex) = text.strip_prefix(HASH_PREFIX) {
        return from_hex::<32>(hex).map(|hash| (Some(hash), MASK.to_owned()));
    }
    let good = ADMIN_KEY_LENGTH.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| (Some(hash_text(text.as_bytes())), MASK.to_owned()))
}

fn list_text(list: &[Symbol]) -> String {
    if list.is_empty() {
        return "none".to_owned();
    }
    list.iter().map(Symbol::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
