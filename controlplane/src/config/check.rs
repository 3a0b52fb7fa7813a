//! The second step: texts become values, or faults. Every setting is looked at whatever the others say, so that one
//! start tells everything that is wrong.

use super::catalogue::{self as name, Setting};
use super::fault::Fault;
use super::layers::Layers;
use super::{DatabaseChoice, LogFormat, Role, Settings, UsageSettings, key_tables};
use crate::feeds::endpoint::{Endpoint, EndpointOverrides};
use crate::keys::Secret;
use crate::{secrets, store};
use dataplane_engine::EngineChoice;
use shared::asset::Symbol;
use shared::limits::SHARDS_MAX;
use shared::venue::{Venue, VenueSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tracing::Level;
use tuning::steering::SteeringChoice;
use venues::VenueSettings;
use venues::gemini::GeminiApi;

/// Highest CPU number plus one that Linux can be built for.
const CPUS_MAX: usize = 8_192;

/// Longest name of a node, an environment, a region: as long as a host's name.
const LABEL_BYTES_MAX: usize = 64;

/// Symbols in one venue's list: more than any venue of the replaced system had by 40 times, and four full lists
/// fit the asset directory.
pub(crate) const PREWARM_ASSETS_MAX: usize = 1_000;

/// Lengths of an administrator's key. Below 16 characters it could be guessed.
pub(crate) const ADMIN_KEY_LENGTH: RangeInclusive<usize> = 16..=128;

/// The shortest retention where usage goes through a queue, days: one more than SQS keeps a message at the most. A row
/// that it tells again after it was removed would count again.
const QUEUED_RETENTION_DAYS_MIN: u64 = 15;

/// Reads values and notes what is wrong.
struct Checker<'a> {
    layers: &'a Layers,
    faults: &'a mut Vec<Fault>,
}

impl Checker<'_> {
    /// The value of `setting`. One that `read` refuses is a fault, and its default stands in so that the rest can be
    /// looked at too; `last` stands in for a default that is refused itself, which no test lets happen.
    fn take<T>(&mut self, setting: &'static Setting, last: T, read: impl Fn(&str) -> Option<T>) -> T {
        let (text, origin) = self.layers.text(setting);
        if let Some(value) = read(text) {
            return value;
        }
        self.faults.push(Fault::new(setting, text, origin.clone()));
        read(setting.default).unwrap_or(last)
    }

    /// Notes that the value of `setting`, good by itself, does not go with the others.
    fn refuse_if(&mut self, is_bad: bool, setting: &'static Setting) {
        if is_bad {
            let (text, origin) = self.layers.text(setting);
            self.faults.push(Fault::new(setting, text, origin.clone()));
        }
    }

    fn port(&mut self, setting: &'static Setting) -> u16 {
        self.take(setting, 0, number::<u16>)
    }

    fn label(&mut self, setting: &'static Setting) -> String {
        let good = |text: &str| text.len() <= LABEL_BYTES_MAX && text.chars().all(is_label);
        self.take(setting, String::new(), |text| good(text).then(|| text.to_owned()))
    }

    fn seconds(&mut self, setting: &'static Setting, allowed: RangeInclusive<u64>) -> Duration {
        let read = |text: &str| number(text).filter(|seconds| allowed.contains(seconds)).map(Duration::from_secs);
        self.take(setting, Duration::ZERO, read)
    }
}

/// Makes the settings of the texts, adding every fault.
pub fn settings(layers: &Layers, faults: &mut Vec<Fault>) -> Settings {
    let mut take = Checker { layers, faults };
    let settings = Settings {
        role: take.take(&name::SERVER_TYPE, Role::AppReportServer, role),
        bind: take.take(&name::BIND_ADDRESS, std::net::Ipv4Addr::LOCALHOST.into(), |text| text.parse().ok()),
        tcp_port_lpo: take.port(&name::TCP_PORT_LPO),
        tcp_port_lrs: take.port(&name::TCP_PORT_LRS),
        health_port_lpo: take.port(&name::HEALTH_PORT_LPO),
        health_port_lrs: take.port(&name::HEALTH_PORT_LRS),
        udp_port_lpo: take.port(&name::UDP_PORT_LPO),
        udp_port_lrs: take.port(&name::UDP_PORT_LRS),
        node: Some(take.label(&name::CLUSTER_NODE)).filter(|name| !name.is_empty()).unwrap_or_else(host_name),
        environment: take.label(&name::NODE_ENV),
        region: take.label(&name::AWS_REGION),
        admin_key: take.take(&name::ADMIN_KEY, None, admin_key),
        database: database(&mut take),
        cache_url: take.take(&name::CACHE_URL, None, |text| optional(text, cache_url)),
        engine: take.take(&name::TB_ENGINE, EngineChoice::Auto, EngineChoice::from_name),
        shards: take.take(&name::TB_SHARDS, None, |text| optional(text, |text| count(text, 1..=SHARDS_MAX))),
        control_cpus: take.take(&name::TB_CONTROL_CPUS, Vec::new(), cpu_list),
        steering: take.take(&name::TB_STEERING, SteeringChoice::Auto, SteeringChoice::from_name),
        data_dir: take.take(&name::TB_DATA_DIR, None, |text| optional(text, |text| PathBuf::from_str(text).ok())),
        usage: usage(&mut take),
        fresh: take.seconds(&name::CACHE_TTL_SECONDS, 1..=300),
        venues: take.take(&name::VENUES, VenueSet::EMPTY, venue_set),
        venue_settings: VenueSettings { gemini: take.take(&name::GEMINI_API, GeminiApi::Current, gemini_api) },
        endpoints: endpoints(&mut take),
        rest_gap_ms: take.take(&name::VENUE_REST_GAP_MS, None, |text| optional(text, rest_gap_ms)),
        drain_wait: take.seconds(&name::DRAIN_WAIT_SECONDS, 0..=45),
        log_level: take.take(&name::LOG_LEVEL, Level::INFO, log_level),
        log_format: take.take(&name::LOG_FORMAT, LogFormat::Text, log_format),
        prewarm: std::array::from_fn(|index| take.take(&name::PREWARM[index], None, |text| optional(text, symbols))),
        keys: Vec::new(),
    };
    let (tables, origin) = layers.keys();
    Settings { keys: key_tables::read(tables, origin, faults), ..settings }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    // Digits only: the standard parser would also take a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn count(text: &str, allowed: RangeInclusive<usize>) -> Option<usize> {
    number(text).filter(|count| allowed.contains(count))
}

/// An empty text is "not set"; anything else must be read.
fn optional<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { read(text).map(Some) }
}

fn role(text: &str) -> Option<Role> {
    match text {
        "APP_REPORT_SERVER" => Some(Role::AppReportServer),
        "LPO" => Some(Role::Lpo),
        _ => None,
    }
}

/// Reads how usage is kept.
fn usage(take: &mut Checker<'_>) -> UsageSettings {
    let whole = |allowed: RangeInclusive<u64>| move |text: &str| number(text).filter(|value| allowed.contains(value));
    let queue = |text: &str| {
        let is_address = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
        let plain = !text.contains('@') && text.bytes().all(|byte| byte.is_ascii_graphic());
        (secrets::BUILT_IN && is_address && plain).then(|| text.to_owned())
    };
    let usage = UsageSettings {
        counted: take.take(&name::TB_USAGE, true, switch),
        journal_bytes_max: take.take(&name::TB_JOURNAL_BYTES_MAX, 1 << 31, whole(1 << 25..=1 << 40)),
        retention_days: take.take(&name::USAGE_RETENTION_DAYS, 93, whole(1..=3_650)),
        mirrored: take.take(&name::USAGE_CACHE, false, switch),
        queue_url: take.take(&name::SQS_USAGE_LOG_QUEUE_URL, None, |text| optional(text, queue)),
    };
    let is_short = usage.queue_url.is_some() && usage.retention_days < QUEUED_RETENTION_DAYS_MIN;
    take.refuse_if(is_short, &name::USAGE_RETENTION_DAYS);
    usage
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// Reads the pace of REST requests.
fn rest_gap_ms(text: &str) -> Option<u64> {
    number(text).filter(|gap_ms| (0..=60_000).contains(gap_ms))
}

/// Reads every venue's addresses.
fn endpoints(take: &mut Checker<'_>) -> EndpointOverrides {
    let mut endpoints = EndpointOverrides::default();
    for venue in Venue::ALL {
        let protocol = venues::protocol(venue, VenueSettings::default());
        let good = |ws: Option<&str>, rest: Option<&str>| Endpoint::new(&*protocol, ws, rest).is_ok();
        let ws = |text: &str| optional(text, |text| good(Some(text), None).then(|| text.to_owned()));
        let rest = |text: &str| optional(text, |text| good(None, Some(text)).then(|| text.to_owned()));
        let ws = take.take(&name::WS_URL[venue.index()], None, ws);
        let rest = take.take(&name::REST_URL[venue.index()], None, rest);
        endpoints.set(venue, ws, rest);
    }
    endpoints
}

/// Reads where the database is. Whether it is there is found out later, and is no reason not to start.
fn database(take: &mut Checker<'_>) -> DatabaseChoice {
    let known = |text: &str| ["postgres://", "postgresql://", "sqlite:"].iter().any(|scheme| text.starts_with(scheme));
    let url = |text: &str| known(text).then(|| Secret::new(text.to_owned()));
    let plain =
        |text: &str| (!text.contains('@') && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned());
    let place = |text: &str| plain(text).filter(|text| store::Place::read(Some(text)).is_ok());
    let secret_name = take.take(&name::DB_SECRET_NAME, None, |text| optional(text, plain));
    let choice = DatabaseChoice {
        url: take.take(&name::DATABASE_URL, None, |text| optional(text, url)),
        aurora: take.take(&name::AURORA_URL, None, |text| optional(text, place)),
        secret_region: secret_region(secret_name.as_deref(), take.layers.text(&name::AWS_REGION).0),
        secret_name,
    };
    if choice.url.is_none() {
        fetchable(take, &choice);
    }
    choice
}

/// Notes what keeps a secret from being fetched. `DATABASE_URL` is not set.
fn fetchable(take: &mut Checker<'_>, choice: &DatabaseChoice) {
    if !secrets::BUILT_IN {
        for (setting, is_set) in
            [(&name::AURORA_URL, choice.aurora.is_some()), (&name::DB_SECRET_NAME, choice.secret_name.is_some())]
        {
            take.refuse_if(is_set, setting);
        }
        return;
    }
    take.refuse_if(choice.aurora.is_some() && choice.secret_name.is_none(), &name::DB_SECRET_NAME);
    take.refuse_if(choice.secret_name.is_some() && choice.secret_region.is_empty(), &name::AWS_REGION);
}

/// The region that an ARN names, `arn:aws:secretsmanager:REGION:…`; else the configured one.
fn secret_region(secret_name: Option<&str>, configured: &str) -> String {
    let arn = secret_name.and_then(|name| name.strip_prefix("arn:"));
    arn.and_then(|arn| arn.split(':').nth(2)).unwrap_or(configured).to_owned()
}

fn cache_url(text: &str) -> Option<Secret> {
    let schemes = ["redis://", "rediss://", "redis-cluster://", "rediss-cluster://"];
    schemes.iter().any(|scheme| text.starts_with(scheme)).then(|| Secret::new(text.to_owned()))
}

fn venue_set(text: &str) -> Option<VenueSet> {
    let mut names = text.split(',').map(|name| Venue::from_name(name.trim()));
    names.try_fold(VenueSet::EMPTY, |set, venue| Some(set.with(venue?)))
}

/// Which of Gemini's interfaces a name means.
pub fn gemini_api(text: &str) -> Option<GeminiApi> {
    match text {
        "new" => Some(GeminiApi::Current),
        "v2" => Some(GeminiApi::V2),
        _ => None,
    }
}

/// Which level a name means.
pub(crate) fn log_level(text: &str) -> Option<Level> {
    match text {
        "error" => Some(Level::ERROR),
        "warn" => Some(Level::WARN),
        "info" => Some(Level::INFO),
        "debug" => Some(Level::DEBUG),
        "trace" => Some(Level::TRACE),
        _ => None,
    }
}

fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "json" => Some(LogFormat::Json),
        "text" => Some(LogFormat::Text),
        _ => None,
    }
}

fn admin_key(text: &str) -> Option<Option<Secret>> {
    optional(text, |text| {
        let good = ADMIN_KEY_LENGTH.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| Secret::new(text.to_owned()))
    })
}

/// `0,2-3` as numbers, ascending and once each.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = std::collections::BTreeSet::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (count(first.trim(), 0..=CPUS_MAX - 1)?, count(last.trim(), 0..=CPUS_MAX - 1)?);
        if first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus.into_iter().collect())
}

/// A list of assets; `none` is the empty one.
pub(crate) fn symbols(text: &str) -> Option<Vec<Symbol>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let symbols: Option<Vec<Symbol>> = text.split(',').map(|part| Symbol::new(part.trim().as_bytes())).collect();
    symbols.filter(|symbols| symbols.len() <= PREWARM_ASSETS_MAX)
}

/// Whether a name that stands in metrics may hold `c`.
const fn is_label(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

/// The host's name, for a node that was given none; the kernel lets it hold what a label may not.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.chars().filter(|c| is_label(*c)).take(LABEL_BYTES_MAX).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}
