//! Settings, in two steps: `layers` finds for each name the text in force, `check` makes values of the texts or says
//! everything that is wrong with them at once. Nothing else in the process reads the environment for a setting.

pub mod catalogue;
mod check;
pub mod fault;
mod key_tables;
pub mod layers;

pub use self::check::gemini_api;
pub(crate) use self::check::{ADMIN_KEY_LENGTH, PREWARM_ASSETS_MAX, log_level, symbols};

use self::fault::Fault;
use self::layers::{Layers, Profile, SettingArgs};
use crate::feeds::endpoint::EndpointOverrides;
use crate::keys::{FixedKey, Secret};
use dataplane_engine::EngineChoice;
use shared::asset::Symbol;
use shared::venue::{VENUE_COUNT, VenueSet};
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tracing::Level;
use tuning::steering::SteeringChoice;
use venues::VenueSettings;

/// What this process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Prices, and the port that reports are asked on.
    AppReportServer,
    /// Prices alone.
    Lpo,
}

impl Role {
    /// The name in `SERVER_TYPE`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AppReportServer => "APP_REPORT_SERVER",
            Self::Lpo => "LPO",
        }
    }
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Which database, before it is reached.
#[derive(Clone, Debug, Default)]
pub struct DatabaseChoice {
    /// `DATABASE_URL`, checked for its form; `None`: what the others say, or SQLite in the data directory.
    pub url: Option<Secret>,
    /// `AURORA_URL`.
    pub aurora: Option<String>,
    /// `DB_SECRET_NAME`.
    pub secret_name: Option<String>,
    /// Where that secret is: the region in its ARN, or `AWS_REGION`.
    pub secret_region: String,
}

impl DatabaseChoice {
    /// Whether it is our own file, in the data directory.
    #[must_use]
    pub const fn is_in_data_dir(&self) -> bool {
        self.url.is_none() && self.aurora.is_none() && self.secret_name.is_none()
    }
}

/// How usage is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageSettings {
    /// `TB_USAGE`: whether answers are counted.
    pub counted: bool,
    /// `TB_JOURNAL_BYTES_MAX`.
    pub journal_bytes_max: u64,
    /// `USAGE_RETENTION_DAYS`.
    pub retention_days: u64,
    /// `USAGE_CACHE`: whether rows are mirrored in the cache.
    pub mirrored: bool,
    /// `SQS_USAGE_LOG_QUEUE_URL`.
    pub queue_url: Option<String>,
}

/// Validated settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `SERVER_TYPE`.
    pub role: Role,
    /// `BIND_ADDRESS`.
    pub bind: IpAddr,
    /// `TCP_PORT_LPO`.
    pub tcp_port_lpo: u16,
    /// `TCP_PORT_LRS`.
    pub tcp_port_lrs: u16,
    /// `HEALTH_PORT_LPO`.
    pub health_port_lpo: u16,
    /// `HEALTH_PORT_LRS`.
    pub health_port_lrs: u16,
    /// `UDP_PORT_LPO`.
    pub udp_port_lpo: u16,
    /// `UDP_PORT_LRS`.
    pub udp_port_lrs: u16,
    /// `CLUSTER_NODE`, or the host's name.
    pub node: String,
    /// `NODE_ENV`.
    pub environment: String,
    /// `AWS_REGION`; may be empty.
    pub region: String,
    /// `ADMIN_KEY`; without it nobody administrates.
    pub admin_key: Option<Secret>,
    /// `DATABASE_URL`, `AURORA_URL`, `DB_SECRET_NAME`.
    pub database: DatabaseChoice,
    /// `CACHE_URL`; `None`: a table in this process.
    pub cache_url: Option<Secret>,
    /// `TB_ENGINE`.
    pub engine: EngineChoice,
    /// `TB_SHARDS`; `None`: one per allowed vCPU that is not reserved.
    pub shards: Option<usize>,
    /// `TB_CONTROL_CPUS`, ascending.
    pub control_cpus: Vec<usize>,
    /// `TB_STEERING`.
    pub steering: SteeringChoice,
    /// `TB_DATA_DIR`; `None`: nothing is kept on disk (a demo's default).
    pub data_dir: Option<PathBuf>,
    /// How usage is kept.
    pub usage: UsageSettings,
    /// `CACHE_TTL_SECONDS`.
    pub fresh: Duration,
    /// `VENUES`.
    pub venues: VenueSet,
    /// Choices within the venues' protocols: `GEMINI_API`.
    pub venue_settings: VenueSettings,
    /// `*_WS_URL` and `*_REST_URL`: addresses in place of the public ones.
    pub endpoints: EndpointOverrides,
    /// `VENUE_REST_GAP_MS`: `None`: what each venue permits the public.
    pub rest_gap_ms: Option<u64>,
    /// `DRAIN_WAIT_SECONDS`.
    pub drain_wait: Duration,
    /// `LOG_LEVEL`.
    pub log_level: Level,
    /// `LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `*_PREWARM_ASSETS` by venue; `None`: the built-in list.
    pub prewarm: [Option<Vec<Symbol>>; VENUE_COUNT],
    /// `[[keys]]` of the settings file.
    pub keys: Vec<FixedKey>,
}

/// Settings that the process cannot start with: every fault there is.
#[derive(Debug)]
pub struct BadSettings(pub Vec<Fault>);

impl fmt::Display for BadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} bad setting{}; mend and start again:", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for BadSettings {}

/// Reads the settings from flags, environment, file and defaults.
///
/// # Errors
/// Every fault of every layer.
pub fn load(
    profile: Profile,
    args: &SettingArgs,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Settings, BadSettings> {
    let mut faults = Vec::new();
    let layers = Layers::gather(profile, args, environment, &mut faults);
    let settings = check::settings(&layers, &mut faults);
    if faults.is_empty() { Ok(settings) } else { Err(BadSettings(faults)) }
}

/// The texts in force, for showing, and what is wrong with them.
#[must_use]
pub fn inspect(
    profile: Profile,
    args: &SettingArgs,
    environment: impl Fn(&str) -> Option<OsString>,
) -> (Layers, Vec<Fault>) {
    let mut faults = Vec::new();
    let layers = Layers::gather(profile, args, environment, &mut faults);
    check::settings(&layers, &mut faults);
    (layers, faults)
}

/// Names in the environment that would be settings in another version and do nothing in this one.
pub fn without_effect(environment: impl Fn(&str) -> Option<OsString>) -> impl Iterator<Item = &'static str> {
    catalogue::WITHOUT_EFFECT.into_iter().filter(move |name| environment(name).is_some_and(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests;
