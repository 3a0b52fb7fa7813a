//! Every parameter there is: its name, kind, bounds, default, unit, meaning, and whether it has an effect here.
//!
//! Names are those of the system being replaced. One whose part has no counterpart here is kept all the same: rows of an
//! old table are accepted, held to their bounds, and said to do nothing. How a text becomes a value is in `check`.

use super::SystemMode;
use shared::venue::{VENUE_COUNT, Venue};
use venues::assets::default_assets;

/// What a text may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number, both ends included.
    Whole {
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// 0 to 1, with up to three decimals.
    Share,
    /// A log level.
    Level,
    /// A [`SystemMode`].
    Mode,
    /// Symbols separated by commas, or `none`; empty is "not set".
    Assets,
    /// An administrator's key, or `sha256:` and the hex SHA-256 of one; empty is "not set".
    AdminKey,
}

/// Whether a parameter does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does, from the reload on; and on what.
    Reload(&'static str),
    /// It does not, and why.
    None(&'static str),
}

/// One parameter.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in `application_parameters`, `app:config` and `/admin/params`.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// The text that stands where neither a row nor a setting says anything; empty for "not set".
    default: &'static str,
    /// What its number counts; empty for none.
    pub unit: &'static str,
    /// What it does, for people.
    pub meaning: &'static str,
    /// Whether it does it here.
    pub effect: Effect,
    /// Whether `system_mode` writes it.
    pub in_profile: bool,
}

impl Parameter {
    const fn whole(
        name: &'static str,
        (min, max): (u32, u32),
        default: &'static str,
        unit: &'static str,
        meaning: &'static str,
    ) -> Self {
        let effect = Effect::Reload("at once");
        Self { name, kind: Kind::Whole { min, max }, default, unit, meaning, effect, in_profile: true }
    }

    const fn word(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Self {
        let effect = Effect::Reload("at once");
        Self { name, kind, default, unit: "", meaning, effect, in_profile: false }
    }

    const fn assets(name: &'static str, meaning: &'static str) -> Self {
        Self::word(name, Kind::Assets, "", meaning)
            .from("at once: assets that are new are subscribed, those that are gone unsubscribed; their numbers stay")
    }

    const fn from(mut self, when: &'static str) -> Self {
        self.effect = Effect::Reload(when);
        self
    }

    const fn idle(mut self, why: &'static str) -> Self {
        self.effect = Effect::None(why);
        self
    }

    const fn apart(mut self) -> Self {
        self.in_profile = false;
        self
    }

    const fn profiled(mut self) -> Self {
        self.in_profile = true;
        self
    }

    /// What is allowed, for people.
    #[must_use]
    pub fn bounds(&self) -> String {
        match self.kind {
            Kind::Whole { min, max } => format!("{min} to {max}, decimal digits"),
            Kind::Share => "0 to 1, with up to three decimals".to_owned(),
            Kind::Level => "error, warn, info, debug or trace".to_owned(),
            Kind::Mode => "performance, standard or demo".to_owned(),
            Kind::Assets => {
                "up to 1000 symbols of 1 to 16 letters and digits, separated by commas; none; empty: not set".to_owned()
            }
            Kind::AdminKey => {
                "16 to 128 printable characters without spaces, or sha256: and 64 hex digits; empty: not set".to_owned()
            }
        }
    }

    /// The text that stands where nobody says anything; for a venue's list, the one built in.
    #[must_use]
    pub fn default(&self) -> String {
        match PREWARM.iter().position(|list| list.name == self.name).and_then(|index| Venue::ALL.get(index)) {
            Some(venue) => default_assets(*venue).join(","),
            None => self.default.to_owned(),
        }
    }

    /// Whether an empty text is none at all.
    #[must_use]
    pub const fn empty_is_unset(&self) -> bool {
        matches!(self.kind, Kind::Assets | Kind::AdminKey)
    }

    /// Whether its value must never be shown.
    #[must_use]
    pub const fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::AdminKey)
    }
}

const ONE_CONNECTION: &str = "requests to the cache share few connections, whatever their number: there is no pool";
const QUEUE: &str = "with the next delivery, where SQS_USAGE_LOG_QUEUE_URL is set; without effect elsewhere";
const INTERVAL: &str = "at once: for the wait that has begun, too; nodes take turns within the interval";
const POOL: &str = "at once with PostgreSQL; without effect on SQLite, which has one writer";
const WAITS: &str = "for every connection's next wait; connections stay open";

/// The profile.
pub static SYSTEM_MODE: Parameter = Parameter::word(
    "system_mode",
    Kind::Mode,
    "standard",
    "the profile: performance, standard or demo. Set through /admin/system-mode it writes the whole profile",
);
/// The governor's bound.
pub static ADAPTIVE_MAX_CONCURRENT: Parameter = Parameter::whole(
    "adaptive_max_concurrent",
    (1, 10_000_000),
    "6000",
    "connections",
    "active connections of all nodes together before the lower tiers are refused",
);
/// When the governor's bound shrinks.
pub static ADAPTIVE_SUCCESS_THRESHOLD: Parameter = Parameter::word(
    "adaptive_success_threshold",
    Kind::Share,
    "0.5",
    "share of answers that succeed below which the bound on connections shrinks",
)
.profiled();
/// What refused clients wait.
pub static ADAPTIVE_THROTTLE_DELAY_MS: Parameter = Parameter::whole(
    "adaptive_throttle_delay_ms",
    (0, 60_000),
    "0",
    "ms",
    "what a client that is refused for too many connections is told to wait at least",
);
/// UDP lookups.
pub static UDP_MAX_CONCURRENT_LPO: Parameter = Parameter::whole(
    "udp_max_concurrent_lpo",
    (1, 1_000_000),
    "3000",
    "datagrams",
    "price datagrams of one node that may wait for a lookup, shared evenly by its shards, at most 16384 on each; others are \
     answered overloaded",
);
/// UDP reports.
pub static UDP_MAX_CONCURRENT_LRS: Parameter = Parameter::whole(
    "udp_max_concurrent_lrs",
    (1, 1_000_000),
    "3000",
    "datagrams",
    "report datagrams of one node that may wait for the database",
);
/// The database's pool.
pub static DB_MAX_OPEN_CONNS: Parameter =
    Parameter::whole("db_max_open_conns", (1, 1_000), "150", "connections", "most connections to the database")
        .from(POOL);
/// What the pool keeps.
pub static DB_MAX_IDLE_CONNS: Parameter = Parameter::whole(
    "db_max_idle_conns",
    (0, 1_000),
    "75",
    "connections",
    "connections to the database that are kept when idle; at most db_max_open_conns",
)
.from(POOL);
/// The cache's pool.
pub static CACHE_POOL_SIZE: Parameter =
    Parameter::whole("cache_pool_size", (1, 10_000), "300", "connections", "most connections to the cache")
        .idle(ONE_CONNECTION);
/// What the cache's pool keeps.
pub static CACHE_MIN_IDLE_CONNS: Parameter = Parameter::whole(
    "cache_min_idle_conns",
    (0, 10_000),
    "60",
    "connections",
    "idle connections to the cache that are kept; at most cache_pool_size",
)
.idle(ONE_CONNECTION);
/// The cache's patience.
pub static CACHE_DIAL_TIMEOUT_MS: Parameter = Parameter::whole(
    "cache_dial_timeout_ms",
    (10, 10_000),
    "500",
    "ms",
    "longest that a connection to the cache may take",
);
/// The cache's patience.
pub static CACHE_READ_TIMEOUT_MS: Parameter =
    Parameter::whole("cache_read_timeout_ms", (10, 10_000), "500", "ms", "longest that the cache may take to answer");
/// The cache's patience.
pub static CACHE_WRITE_TIMEOUT_MS: Parameter =
    Parameter::whole("cache_write_timeout_ms", (10, 10_000), "500", "ms", "longest that a write to the cache may take");
/// The queue.
pub static SQS_BATCH_SIZE: Parameter =
    Parameter::whole("sqs_batch_size", (1, 10), "10", "messages", "usage messages sent to the queue in one request")
        .from(QUEUE);
/// The queue.
pub static SQS_FLUSH_MS: Parameter = Parameter::whole(
    "sqs_flush_ms",
    (1, 60_000),
    "100",
    "ms",
    "time between two deliveries of usage to the queue while little waits",
)
.from(QUEUE);
/// The queue.
pub static SQS_BUFFER_SIZE: Parameter = Parameter::whole(
    "sqs_buffer_size",
    (1, 10_000_000),
    "50000",
    "rows",
    "usage rows that are on their way to the queue at a time, at most 20,000; the others wait in the journal",
)
.from(QUEUE);
/// The queue.
pub static SQS_TIMEOUT_MS: Parameter = Parameter::whole(
    "sqs_timeout_ms",
    (10, 60_000),
    "3000",
    "ms",
    "longest that the queue may take to answer a request with usage",
)
.from(QUEUE);
/// Keep-alive.
pub static HTTP_IDLE_TIMEOUT_SECONDS: Parameter = Parameter::whole(
    "http_idle_timeout_seconds",
    (1, 3_600),
    "300",
    "s",
    "the balancer's idle time: an idle connection is kept for 15 s longer",
)
.from(WAITS);
/// Slow heads.
pub static HTTP_READ_TIMEOUT_SECONDS: Parameter = Parameter::whole(
    "http_read_timeout_seconds",
    (1, 300),
    "5",
    "s",
    "longest from a request's first byte to the end of its head",
)
.from(WAITS);
/// Slow readers.
pub static HTTP_WRITE_TIMEOUT_SECONDS: Parameter = Parameter::whole(
    "http_write_timeout_seconds",
    (1, 300),
    "5",
    "s",
    "longest that a client may take nothing of its answer",
)
.from(WAITS);
/// Freshness.
pub static CACHE_TTL_SECONDS: Parameter = Parameter::whole(
    "cache_ttl_seconds",
    (1, 300),
    "9",
    "s",
    "age after which a price is stale unless its feed is proven alive",
);
/// The log.
pub static LOG_LEVEL: Parameter =
    Parameter::word("log_level", Kind::Level, "info", "what is logged: this level and those above it").profiled();
/// Both old lists in one.
pub static PREWARM_ASSETS: Parameter = Parameter::assets(
    "prewarm_assets",
    "the assets kept warm: the list of Coinbase and of Gemini, for whichever has none of its own",
);
/// The interval of prewarming.
pub static PREWARM_INTERVAL: Parameter = Parameter::whole(
    "prewarm_interval",
    (1, 1_440),
    "3",
    "min",
    "time between two lookups of assets kept warm that have no fresh price",
)
.from(INTERVAL)
.apart();
/// Kraken's interval.
pub static KRAKEN_PREWARM_INTERVAL_MINUTES: Parameter = Parameter::whole(
    "kraken_prewarm_interval_minutes",
    (1, 1_440),
    "3",
    "min",
    "the same for Kraken's assets with Kraken",
)
.from(INTERVAL)
.apart();
/// Kraken's offset.
pub static KRAKEN_PREWARM_OFFSET_SECONDS: Parameter = Parameter::whole(
    "kraken_prewarm_offset_seconds",
    (0, 3_600),
    "15",
    "s",
    "how much later than the others' Kraken's turn is",
)
.from(INTERVAL)
.apart();
/// Another administrator's key.
pub static ADMIN_KEY: Parameter = Parameter::word(
    "ADMIN_KEY",
    Kind::AdminKey,
    "",
    "a key that /admin admits besides the setting ADMIN_KEY, for changing keys without a restart; stored as its SHA-256",
);
/// The asset list of each venue, by `Venue::index`.
pub static PREWARM: [Parameter; VENUE_COUNT] = [
    Parameter::assets("coinbase_prewarm_assets", "the assets kept warm: Coinbase's list"),
    Parameter::assets("gemini_prewarm_assets", "the assets kept warm: Gemini's list"),
    Parameter::assets("kraken_prewarm_assets", "the assets kept warm: Kraken's list"),
    Parameter::assets("gateio_prewarm_assets", "the assets kept warm: Gate.io's list"),
    Parameter::assets("cryptocom_prewarm_assets", "the assets kept warm: Crypto.com's list"),
    Parameter::assets("bybit_prewarm_assets", "the assets kept warm: Bybit's list"),
    Parameter::assets("okx_prewarm_assets", "the assets kept warm: OKX's list"),
];

/// Every parameter but the venues' lists, in the order in which they are shown.
static PLAIN: [&Parameter; 27] = [
    &SYSTEM_MODE,
    &ADAPTIVE_MAX_CONCURRENT,
    &ADAPTIVE_SUCCESS_THRESHOLD,
    &ADAPTIVE_THROTTLE_DELAY_MS,
    &UDP_MAX_CONCURRENT_LPO,
    &UDP_MAX_CONCURRENT_LRS,
    &DB_MAX_OPEN_CONNS,
    &DB_MAX_IDLE_CONNS,
    &CACHE_POOL_SIZE,
    &CACHE_MIN_IDLE_CONNS,
    &CACHE_DIAL_TIMEOUT_MS,
    &CACHE_READ_TIMEOUT_MS,
    &CACHE_WRITE_TIMEOUT_MS,
    &SQS_BATCH_SIZE,
    &SQS_FLUSH_MS,
    &SQS_BUFFER_SIZE,
    &SQS_TIMEOUT_MS,
    &HTTP_IDLE_TIMEOUT_SECONDS,
    &HTTP_READ_TIMEOUT_SECONDS,
    &HTTP_WRITE_TIMEOUT_SECONDS,
    &CACHE_TTL_SECONDS,
    &LOG_LEVEL,
    &ADMIN_KEY,
    &PREWARM_INTERVAL,
    &KRAKEN_PREWARM_INTERVAL_MINUTES,
    &KRAKEN_PREWARM_OFFSET_SECONDS,
    &PREWARM_ASSETS,
];

/// Every parameter, in the order in which they are shown.
pub fn all() -> impl Iterator<Item = &'static Parameter> {
    PLAIN.into_iter().chain(&PREWARM)
}

/// The parameter of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Parameter> {
    all().find(|parameter| parameter.name == name)
}

/// What a profile writes: for each of its parameters the row that then stands, or that none does.
///
/// `performance` sets every number to the one that the replaced system ran at, whatever the settings say, and logs errors
/// alone; `standard` unsets them all, so that each stands at its setting or default; `demo` does the same and logs warnings.
pub fn profile(mode: SystemMode) -> impl Iterator<Item = (&'static str, Option<String>)> {
    let row = move |parameter: &'static Parameter| match (mode, parameter.kind) {
        (SystemMode::Performance, Kind::Level) => Some("error".to_owned()),
        (SystemMode::Demo, Kind::Level) => Some("warn".to_owned()),
        (SystemMode::Performance, _) => Some(parameter.default()),
        (SystemMode::Standard | SystemMode::Demo, _) => None,
    };
    let rows = all().filter(|parameter| parameter.in_profile).map(move |parameter| (parameter.name, row(parameter)));
    rows.chain([(SYSTEM_MODE.name, Some(mode.name().to_owned()))])
}
