//! What prices feel of everything else: latency and CPU per request while parameters are reloaded, keys are made and
//! revoked, the database hangs, the cache is gone or emptied, each beside quiet times in the same run.
//!
//! ```text
//! cargo bench -p trinity-tests --bench changes -- [--rounds N] [--millis N] [--rate N] [--only NAME]
//! ```
//!
//! One service on two shards, with a PostgreSQL and a Redis of its own behind proxies that can hang and cut, for each
//! engine. An open schedule asks it over TCP and UDP; latency counts from the intended time. Arms take turns within each
//! round, quiet first and last, and each figure is the median over rounds, each ratio the median of the rounds' ratios to
//! that round's quiet arm. On a machine of two CPUs server and generator share them, so only ratios are worth anything.

#![expect(clippy::print_stdout, reason = "a bench says what it measured")]

mod load;

use harness::postgres::Postgres;
use harness::proxy::{Fault, Proxy};
use harness::redis::Redis;
use harness::service::{ENGINES, Service};
use load::{Figures, Flags, Load};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time between two changes of one arm.
const CHANGE_EVERY: Duration = Duration::from_millis(100);

/// What happens beside the prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    Quiet,
    Reload,
    Keys,
    DatabaseHangs,
    CacheGone,
    CacheFlushed,
    QuietAgain,
}

impl Arm {
    const ALL: [Self; 7] = [
        Self::Quiet,
        Self::Reload,
        Self::Keys,
        Self::DatabaseHangs,
        Self::CacheGone,
        Self::CacheFlushed,
        Self::QuietAgain,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Reload => "reload",
            Self::Keys => "keys",
            Self::DatabaseHangs => "database hangs",
            Self::CacheGone => "cache gone",
            Self::CacheFlushed => "cache flushed",
            Self::QuietAgain => "quiet again",
        }
    }
}

/// The service under test with what it depends on.
struct World {
    database: Proxy,
    cache: Proxy,
    redis: Redis,
    service: Service,
    _postgres: Postgres,
}

impl World {
    fn start(engine: &str) -> Self {
        let postgres = Postgres::start();
        let redis = Redis::start();
        let (database, cache) = (Proxy::start(postgres.address()), Proxy::start(redis.address()));
        let database_url = postgres.url_at(database.address());
        let cache_url = format!("redis://{}", cache.address());
        harness::service::migrate(&database_url);
        let variables = [
            ("DATABASE_URL", database_url.as_str()),
            ("CACHE_URL", cache_url.as_str()),
            ("TB_SHARDS", "2"),
            ("CLUSTER_NODE", "bench"),
        ];
        let service = Service::demo_with(engine, &variables);
        service.await_price("BTC", 2);
        // Administration answers once the database is reached.
        harness::eventually("the database is in use", || {
            (service.admin_request("POST", "/admin/reload-params", None).status == 200).then_some(())
        });
        Self { database, cache, redis, service, _postgres: postgres }
    }

    /// Does the arm's work until told to stop; how often it did it.
    fn disturb(&self, arm: Arm, stop: &AtomicBool) -> u64 {
        let mut changes = 0;
        match arm {
            Arm::DatabaseHangs => self.database.set(Fault::Hang),
            Arm::CacheGone => self.cache.set(Fault::Refuse),
            _ => {}
        }
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            match arm {
                Arm::Reload => {
                    assert_eq!(self.service.admin_request("POST", "/admin/reload-params", None).status, 200);
                }
                Arm::Keys => self.make_and_revoke(),
                Arm::CacheFlushed => self.redis.flush_all(),
                _ => {}
            }
            changes += 1;
            std::thread::sleep(CHANGE_EVERY.saturating_sub(began.elapsed()));
        }
        self.database.set(Fault::None);
        self.cache.set(Fault::None);
        changes
    }

    fn make_and_revoke(&self) {
        let made = self.service.admin_request("POST", "/admin/keys", Some(r#"{"name":"bench","tier":"basic"}"#));
        assert_eq!(made.status, 201, "{made:?}");
        let id = made.json()["key_id"].as_u64().expect("a number");
        let revoked = self.service.admin_request("POST", &format!("/admin/keys/{id}/revoke"), None);
        assert_eq!(revoked.status, 200, "{revoked:?}");
    }

    fn measure(&self, arm: Arm, flags: &Flags) -> Figures {
        let load = Load {
            rate: flags.number("--rate"),
            connections: 64,
            assets: vec!["BTC", "ETH", "SOL"],
            duration: flags.duration(),
            cpus: Vec::new(),
        };
        load::measure(&self.service, &load, |stop| self.disturb(arm, stop))
    }
}

fn run(flags: &Flags) {
    for engine in ENGINES {
        let world = World::start(engine);
        let arms: Vec<Arm> = Arm::ALL
            .into_iter()
            .filter(|arm| *arm == Arm::Quiet || flags.only.is_empty() || arm.name().contains(&flags.only))
            .collect();
        let rounds: Vec<Vec<Figures>> =
            (0..flags.rounds()).map(|_| arms.iter().map(|arm| world.measure(*arm, flags)).collect()).collect();
        let title =
            format!("{engine}, 2 shards, 64 connections and 64 sockets, {} requests/s each", flags.number("--rate"));
        let names: Vec<&str> = arms.iter().map(|arm| arm.name()).collect();
        load::table(&title, &names, "changes", &rounds);
    }
}

fn main() -> ExitCode {
    load::bench("changes", &[("--rounds", 7, 100), ("--millis", 2_000, 60_000), ("--rate", 4_000, 1_000_000)], run)
}
