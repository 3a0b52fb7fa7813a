//! Every setting there is: its names, default, bounds and meaning.
//!
//! One list for the flags, the environment, the file, the `config` command and the fault messages, so that none of
//! them can know a setting the others do not. It knows no value but the defaults; how a text is read is in `check`.

use shared::venue::VENUE_COUNT;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The name in the environment. The name in the settings file is the same in lower case.
    pub name: &'static str,
    /// The name of the flag, without dashes; `None` for secrets, which any user of the machine could read from a
    /// command line.
    pub flag: Option<&'static str>,
    /// The text that stands when nobody says anything; empty for "not set".
    pub default: &'static str,
    /// The same for `demo`, where that differs.
    pub demo_default: Option<&'static str>,
    /// What is allowed, for people.
    pub bounds: &'static str,
    /// What it does, for people.
    pub meaning: &'static str,
    /// Whether its value must never be shown.
    pub secret: bool,
    /// Whether it is a port, for which `--any-port` stands in.
    pub port: bool,
}

impl Setting {
    const fn new(name: &'static str, flag: &'static str, default: &'static str) -> Self {
        let (bounds, meaning) = ("", "");
        Self { name, flag: Some(flag), default, demo_default: None, bounds, meaning, secret: false, port: false }
    }

    const fn port(name: &'static str, flag: &'static str, default: &'static str, meaning: &'static str) -> Self {
        let port = Self::new(name, flag, default).says("0 to 65535; 0 means any free port", meaning);
        Self { port: true, ..port }
    }

    const fn assets(name: &'static str, flag: &'static str, meaning: &'static str) -> Self {
        let bounds =
            "up to 1000 symbols of 1 to 16 letters and digits, separated by commas; none; empty: the built-in list";
        Self::new(name, flag, "").says(bounds, meaning)
    }

    const fn ws(name: &'static str, flag: &'static str) -> Self {
        let bounds = "wss://host[:port]/path; ws:// for loopback addresses only; empty: the public address";
        Self::new(name, flag, "").says(bounds, "where the venue's WebSocket is reached (a proxy or a simulator)")
    }

    const fn rest(name: &'static str, flag: &'static str) -> Self {
        let bounds = "https://host[:port][/path]; http:// for loopback addresses only; empty: the public address";
        Self::new(name, flag, "").says(bounds, "where the venue's REST interface is reached (a proxy or a simulator)")
    }

    const fn says(mut self, bounds: &'static str, meaning: &'static str) -> Self {
        self.bounds = bounds;
        self.meaning = meaning;
        self
    }

    const fn in_demo(mut self, default: &'static str) -> Self {
        self.demo_default = Some(default);
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self.flag = None;
        self
    }

    /// The name in the settings file.
    #[must_use]
    pub fn key(&self) -> String {
        self.name.to_ascii_lowercase()
    }
}

/// Which role the process plays.
pub static SERVER_TYPE: Setting = Setting::new("SERVER_TYPE", "server-type", "APP_REPORT_SERVER").says(
    "APP_REPORT_SERVER or LPO (LRS and WEBHOOK_SERVER are not in this version)",
    "what this process does: prices with the reports' port, or prices alone",
);
/// Where to listen.
pub static BIND_ADDRESS: Setting = Setting::new("BIND_ADDRESS", "bind-address", "0.0.0.0")
    .says("an IPv4 or IPv6 address; :: listens on both families", "the address that every port listens on")
    .in_demo("127.0.0.1");
/// Prices over HTTP.
pub static TCP_PORT_LPO: Setting = Setting::port("TCP_PORT_LPO", "tcp-port-lpo", "8080", "port for prices over HTTP");
/// Reports over HTTP.
pub static TCP_PORT_LRS: Setting = Setting::port(
    "TCP_PORT_LRS",
    "tcp-port-lrs",
    "9090",
    "port for administration and limits over HTTP, apart from prices",
);
/// Health beside the price port.
pub static HEALTH_PORT_LPO: Setting =
    Setting::port("HEALTH_PORT_LPO", "health-port-lpo", "8081", "port for health and metrics of the price service");
/// Health beside the reports' port.
pub static HEALTH_PORT_LRS: Setting =
    Setting::port("HEALTH_PORT_LRS", "health-port-lrs", "9091", "port for health and metrics of the reports' port");
/// Prices over UDP.
pub static UDP_PORT_LPO: Setting = Setting::port("UDP_PORT_LPO", "udp-port-lpo", "2679", "port for prices over UDP");
/// Reports over UDP.
pub static UDP_PORT_LRS: Setting = Setting::port("UDP_PORT_LRS", "udp-port-lrs", "2680", "port for reports over UDP");
/// This node's name.
pub static CLUSTER_NODE: Setting = Setting::new("CLUSTER_NODE", "cluster-node", "").says(
    "up to 64 letters, digits, dots, dashes, underscores; empty: the host's name",
    "this node's name, a different one for each node: of two with one name each would admit a key's whole limit",
);
/// The deployment's kind.
pub static NODE_ENV: Setting = Setting::new("NODE_ENV", "node-env", "production")
    .says("up to 64 letters, digits, dots, dashes, underscores", "the deployment's kind, shown in health")
    .in_demo("demo");
/// The region.
pub static AWS_REGION: Setting = Setting::new("AWS_REGION", "aws-region", "").says(
    "up to 64 letters, digits, dots, dashes, underscores; may be empty, but not where DB_SECRET_NAME is a name in use",
    "the region, shown in health; where the secret of DB_SECRET_NAME is, unless that is an ARN",
);
/// The administrator's key.
pub static ADMIN_KEY: Setting = Setting::new("ADMIN_KEY", "", "")
    .says(
        "16 to 128 printable characters without spaces",
        "what /admin asks for; without it /admin admits nobody (demo makes one at each start)",
    )
    .secret();
/// Where keys, parameters and all that lasts is kept.
pub static DATABASE_URL: Setting = Setting::new("DATABASE_URL", "", "")
    .says(
        "postgres://user:password@host[:port]/database[?sslmode=…], sqlite:PATH, or sqlite::memory:; it wins over \
         AURORA_URL and DB_SECRET_NAME; empty: these if they are set, else a SQLite file in TB_DATA_DIR, or in memory \
         where that is empty too",
        "the database of keys, tiers, parameters, asset lists, usage and the audit trail",
    )
    .secret();
/// What `AURORA_URL` may be: only a program built with the feature can fetch the password.
const AURORA: &str = if crate::secrets::BUILT_IN {
    "host, host:port or postgres://host[:port][/database][?sslmode=…], without user and password; sslmode is require \
     if not said, and prefer within this machine; empty: what the secret says"
} else {
    "empty, unless DATABASE_URL is set: this binary cannot fetch the password: cargo build --release --features aws"
};
/// What `DB_SECRET_NAME` may be.
const SECRET_NAME: &str = if crate::secrets::BUILT_IN {
    "the name or ARN of a secret that is a JSON object with DB_USER and DB_PASSWORD, and DB_HOST, DB_PORT, DB_NAME \
     where AURORA_URL lacks them; empty: none, which goes with no AURORA_URL but beside DATABASE_URL"
} else {
    "empty, unless DATABASE_URL is set: this binary cannot fetch secrets: cargo build --release --features aws"
};
/// Where the cluster's database is, without a password.
pub static AURORA_URL: Setting = Setting::new("AURORA_URL", "aurora-url", "").says(
    AURORA,
    "the PostgreSQL server, its user and password coming from DB_SECRET_NAME; without effect beside DATABASE_URL",
);
/// The secret that holds the database's credentials.
pub static DB_SECRET_NAME: Setting = Setting::new("DB_SECRET_NAME", "db-secret-name", "")
    .says(SECRET_NAME, "the AWS secret of the database's credentials; without effect beside DATABASE_URL");
/// The cache that nodes share.
pub static CACHE_URL: Setting = Setting::new("CACHE_URL", "", "")
    .says(
        "redis://[user:password@]host[:port], rediss:// for TLS, redis-cluster:// or rediss-cluster:// for a cluster; \
         empty: a table in this process, for a node that is alone",
        "the Valkey (or Redis) server that nodes share limits and telemetry through",
    )
    .secret();
/// What `TB_ENGINE` may be: the rivals only where this binary was built with them.
const ENGINES: &str = match (cfg!(feature = "monoio"), cfg!(feature = "glommio")) {
    (true, true) => "auto, io_uring, epoll, monoio or glommio",
    (true, false) => {
        "auto, io_uring, epoll or monoio; glommio is not in this binary: cargo build --release --features monoio,glommio"
    }
    (false, true) => {
        "auto, io_uring, epoll or glommio; monoio is not in this binary: cargo build --release --features monoio,glommio"
    }
    (false, false) => {
        "auto, io_uring or epoll; monoio and glommio are not in this binary: cargo build --release --features \
         monoio,glommio"
    }
};
/// The engine.
pub static TB_ENGINE: Setting = Setting::new("TB_ENGINE", "engine", "auto")
    .says(ENGINES, "what moves bytes for the shards; auto takes io_uring where the machine permits it");
/// How many shards.
pub static TB_SHARDS: Setting = Setting::new("TB_SHARDS", "shards", "")
    .says("1 to 63; empty: one for each allowed vCPU that is not reserved", "how many serving shards");
/// Which shard a flow meets.
pub static TB_STEERING: Setting = Setting::new("TB_STEERING", "steering", "auto").says(
    "auto, cpu or hash",
    "which shard a new flow meets: that of the CPU that receives it, or one picked by hash; auto takes cpu where shards \
     are pinned and every network card receives on all their CPUs, and hash on loopback",
);
/// CPUs kept from the shards.
pub static TB_CONTROL_CPUS: Setting = Setting::new("TB_CONTROL_CPUS", "control-cpus", "")
    .says("CPU numbers and ranges, such as 0,2-3; empty: none", "CPUs kept for everything that is not a serving shard");
/// Where files go.
pub static TB_DATA_DIR: Setting = Setting::new("TB_DATA_DIR", "data-dir", "trinity-beast-data")
    .says(
        "a directory that this process may make and write; empty (in demo): nothing is kept",
        "files that outlive the process: the usage journal, the SQLite database, the last good copies of instrument lists, \
         keys, parameters",
    )
    .in_demo("");
/// Whether answers are counted.
pub static TB_USAGE: Setting = Setting::new("TB_USAGE", "usage", "on").says(
    "on or off",
    "whether answers are counted per key; off is for measuring what counting costs: no usage, no months, no reports",
);
/// The journal's size.
pub static TB_JOURNAL_BYTES_MAX: Setting = Setting::new("TB_JOURNAL_BYTES_MAX", "journal-bytes-max", "2147483648").says(
    "33554432 to 1099511627776",
    "bytes of usage records on this node's disk (64 each) that may wait for the database; at 80 % the node is unready, \
     at 100 % detail is given up, never a count",
);
/// How long detail is kept.
pub static USAGE_RETENTION_DAYS: Setting = Setting::new("USAGE_RETENTION_DAYS", "usage-retention-days", "93").says(
    "1 to 3650, with a queue 15 to 3650",
    "days that single usage rows are kept in the database; totals by minute and hour are kept for good",
);
/// Whether usage is mirrored in the cache.
pub static USAGE_CACHE: Setting = Setting::new("USAGE_CACHE", "usage-cache", "off").says(
    "on or off",
    "whether usage rows are also written to the cache for 93 days (usage_log:<uuid> and its indexes), for programs beside \
     this one",
);
/// What the queue's address may be: only a program built with the feature can speak to it.
const QUEUE: &str = if crate::secrets::BUILT_IN {
    "https://sqs.REGION.amazonaws.com/ACCOUNT/NAME, or any http:// or https:// address of a queue; empty: rows go straight \
     to the database"
} else {
    "empty: this program was built without the feature aws, and rows go straight to the database"
};
/// The queue before the database.
pub static SQS_USAGE_LOG_QUEUE_URL: Setting = Setting::new("SQS_USAGE_LOG_QUEUE_URL", "sqs-usage-log-queue-url", "")
    .says(QUEUE, "the queue that usage rows are sent to, for `usage-writer` to bring to the database");
/// The freshness bound.
pub static CACHE_TTL_SECONDS: Setting = Setting::new("CACHE_TTL_SECONDS", "cache-ttl-seconds", "9")
    .says("1 to 300", "age in seconds after which a price is stale unless its feed is proven alive");
/// Which venues.
pub static VENUES: Setting = Setting::new("VENUES", "venues", "coinbase,gemini,kraken,gateio,cryptocom,bybit,okx")
    .says("names of venues, separated by commas", "the exchanges that are listened to");
/// Which of Gemini's interfaces.
pub static GEMINI_API: Setting =
    Setting::new("GEMINI_API", "gemini-api", "new").says("new or v2", "which of Gemini's WebSocket interfaces is used");
/// The venues' REST pace.
pub static VENUE_REST_GAP_MS: Setting = Setting::new("VENUE_REST_GAP_MS", "venue-rest-gap-ms", "").says(
    "0 to 60000, 0: none; empty: what each venue permits the public (100 to 1000)",
    "least time in milliseconds between two REST requests to one venue, for those who are permitted more and for \
     simulated exchanges; less than a venue permits gets this address banned there",
);
/// The wait between unreadiness and the end of accepting.
pub static DRAIN_WAIT_SECONDS: Setting = Setting::new("DRAIN_WAIT_SECONDS", "drain-wait-seconds", "35")
    .says(
        "0 to 45",
        "after SIGTERM: how long connections are still accepted, so that balancers notice (their delay and 5 s); then \
         open ones are served and datagrams answered for as long again, at most 40 s",
    )
    .in_demo("0");
/// How much is logged.
pub static LOG_LEVEL: Setting = Setting::new("LOG_LEVEL", "log-level", "info")
    .says("error, warn, info, debug or trace", "how much is written to stderr")
    .in_demo("warn");
/// In which form.
pub static LOG_FORMAT: Setting = Setting::new("LOG_FORMAT", "log-format", "json")
    .says("json or text", "the form of what is written to stderr")
    .in_demo("text");

/// The asset list of each venue, in the order of `Venue::ALL`. Every asset of any list is asked of every venue that
/// has it; the lists stay apart because the replaced system kept them so.
pub static PREWARM: [Setting; VENUE_COUNT] = [
    Setting::assets("COINBASE_PREWARM_ASSETS", "coinbase-prewarm-assets", "the assets kept warm: Coinbase's list"),
    Setting::assets("GEMINI_PREWARM_ASSETS", "gemini-prewarm-assets", "the assets kept warm: Gemini's list"),
    Setting::assets("KRAKEN_PREWARM_ASSETS", "kraken-prewarm-assets", "the assets kept warm: Kraken's list"),
    Setting::assets("GATEIO_PREWARM_ASSETS", "gateio-prewarm-assets", "the assets kept warm: Gate.io's list"),
    Setting::assets("CRYPTOCOM_PREWARM_ASSETS", "cryptocom-prewarm-assets", "the assets kept warm: Crypto.com's list"),
    Setting::assets("BYBIT_PREWARM_ASSETS", "bybit-prewarm-assets", "the assets kept warm: Bybit's list"),
    Setting::assets("OKX_PREWARM_ASSETS", "okx-prewarm-assets", "the assets kept warm: OKX's list"),
];

/// The WebSocket address of each venue.
pub static WS_URL: [Setting; VENUE_COUNT] = [
    Setting::ws("COINBASE_WS_URL", "coinbase-ws-url"),
    Setting::ws("GEMINI_WS_URL", "gemini-ws-url"),
    Setting::ws("KRAKEN_WS_URL", "kraken-ws-url"),
    Setting::ws("GATEIO_WS_URL", "gateio-ws-url"),
    Setting::ws("CRYPTOCOM_WS_URL", "cryptocom-ws-url"),
    Setting::ws("BYBIT_WS_URL", "bybit-ws-url"),
    Setting::ws("OKX_WS_URL", "okx-ws-url"),
];

/// The REST base address of each venue.
pub static REST_URL: [Setting; VENUE_COUNT] = [
    Setting::rest("COINBASE_REST_URL", "coinbase-rest-url"),
    Setting::rest("GEMINI_REST_URL", "gemini-rest-url"),
    Setting::rest("KRAKEN_REST_URL", "kraken-rest-url"),
    Setting::rest("GATEIO_REST_URL", "gateio-rest-url"),
    Setting::rest("CRYPTOCOM_REST_URL", "cryptocom-rest-url"),
    Setting::rest("BYBIT_REST_URL", "bybit-rest-url"),
    Setting::rest("OKX_REST_URL", "okx-rest-url"),
];

/// Every setting but the venues' own, in the order in which `config` shows them.
static PLAIN: [&Setting; 33] = [
    &SERVER_TYPE,
    &BIND_ADDRESS,
    &TCP_PORT_LPO,
    &TCP_PORT_LRS,
    &HEALTH_PORT_LPO,
    &HEALTH_PORT_LRS,
    &UDP_PORT_LPO,
    &UDP_PORT_LRS,
    &CLUSTER_NODE,
    &NODE_ENV,
    &AWS_REGION,
    &ADMIN_KEY,
    &DATABASE_URL,
    &AURORA_URL,
    &DB_SECRET_NAME,
    &CACHE_URL,
    &TB_ENGINE,
    &TB_SHARDS,
    &TB_CONTROL_CPUS,
    &TB_STEERING,
    &TB_DATA_DIR,
    &TB_USAGE,
    &TB_JOURNAL_BYTES_MAX,
    &USAGE_RETENTION_DAYS,
    &USAGE_CACHE,
    &SQS_USAGE_LOG_QUEUE_URL,
    &CACHE_TTL_SECONDS,
    &VENUES,
    &GEMINI_API,
    &VENUE_REST_GAP_MS,
    &DRAIN_WAIT_SECONDS,
    &LOG_LEVEL,
    &LOG_FORMAT,
];

/// Every setting, in the order in which `config` shows them.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    PLAIN.into_iter().chain(&PREWARM).chain(&WS_URL).chain(&REST_URL)
}

/// Names that the environment of the replaced system may hold and that do nothing in this version: a start says so,
/// lest somebody believe that they do.
pub const WITHOUT_EFFECT: [&str; 3] = ["HEALTH_PORT_WEBHOOK", "PREWARM_ASSETS", "PREWARM_INTERVAL"];
