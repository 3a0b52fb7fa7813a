//! How soon a lookup is answered from the cache and by a venue's REST interface, and what lookups cost the prices that
//! need none, each beside quiet times in the same run.
//!
//! ```text
//! cargo bench -p trinity-tests --bench lookups -- [--rounds N] [--millis N] [--rate N] [--lookups N] [--only NAME]
//! ```
//!
//! One `serve` on two shards with a Redis of its own and three exchanges as processes, which list 5,000 invented assets that
//! nobody subscribes to and answer REST after 40 ms, as often as they are asked (`VENUE_REST_GAP_MS=0`). Local prices are asked
//! for over TCP and UDP on an open schedule, and the invented ones on another, each in its turn: at 1,000 a second every two
//! seconds, for each arm has half of those listed, when its last price has long been stale (`cache_ttl_seconds=1`) and 512
//! others have taken its subscription. For `valkey` the entries of the next second are written to the cache anew each
//! second, as another node would; for `rest` nobody writes
//! any, and what lookups left there is stale. Latency counts from the intended time. Arms take turns within each round; each
//! figure is the median over rounds, each ratio the median of the rounds' ratios to that round's quiet arm. `sh. : 1st` has the
//! lookups' own work in it: shards' CPU over local requests alone. On two CPUs everybody shares them.

#![expect(clippy::print_stdout, reason = "a bench says what it measured")]

mod load;

use harness::exchanges::{Exchanges, order};
use harness::planted::now_ms;
use harness::redis::Redis;
use harness::service::{ENGINES, Service};
use load::{Figures, Flags, Load, job};
use loadgen::job::Progress;
use loadgen::outcome::Tally;
use loadgen::plan::Level;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Invented assets. The arms share those that are listed: at 1,000 a second each is asked every two seconds, about.
const INVENTED: usize = 5_000;

/// What the exchanges take for a REST answer, ms.
const REST_MS: u64 = 40;

/// What is asked beside the local prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    Quiet,
    Valkey,
    Rest,
}

impl Arm {
    const ALL: [Self; 3] = [Self::Quiet, Self::Valkey, Self::Rest];

    const fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Valkey => "valkey",
            Self::Rest => "rest",
        }
    }
}

/// What came of one arm's lookups.
#[derive(Clone, Copy, Debug, Default)]
struct Looked {
    p50_ms: f64,
    p99_ms: f64,
    answered: u64,
    sent: u64,
    /// Of the desk's answers meanwhile, those of this arm's tier, percent.
    of_tier: f64,
}

struct World {
    service: Service,
    redis: Redis,
    names: Vec<&'static str>,
    next: AtomicU64,
    _exchanges: Exchanges,
}

impl World {
    fn start(engine: &str) -> Self {
        let redis = Redis::start();
        let invented = INVENTED.to_string();
        let exchanges = Exchanges::start_with(&["coinbase", "kraken", "okx"], &["--invented", &invented]);
        let mut variables = exchanges.variables("BTC,ETH,SOL,USDT");
        for (name, value) in [
            ("CACHE_URL", redis.url()),
            ("TB_SHARDS", "2".to_owned()),
            ("CACHE_TTL_SECONDS", "1".to_owned()),
            ("VENUE_REST_GAP_MS", "0".to_owned()),
        ] {
            variables.push((name.to_owned(), value));
        }
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut service = Service::serve(engine, &variables);
        let key = harness::eventually("the database", || {
            let made = service.admin_request("POST", "/admin/keys", Some(r#"{"name":"bench","tier":"stress"}"#));
            (made.status == 201).then(|| made.json())
        });
        service.use_key(&key);
        service.await_price("BTC", 3);
        exchanges.addresses().for_each(|(_, exchange)| order(exchange, &format!("kind=rest_delay&ms={REST_MS}")));
        // Names live as long as the bench: the load takes them so. Which exchanges list one is drawn from its name.
        let names = (0..INVENTED).map(|number| &*format!("C{number}").leak());
        let listed = service.admin("/assets").json();
        let has = |name: &&str| {
            let assets = listed["assets"].as_array().map_or(&[][..], Vec::as_slice);
            assets.iter().any(|asset| asset["asset"] == **name)
        };
        let mut names: Vec<&'static str> = names.filter(has).collect();
        // Of an even number the arms have one half each.
        names.truncate(names.len() / 2 * 2);
        Self { service, redis, names, next: AtomicU64::new(0), _exchanges: exchanges }
    }

    /// The arms have assets of their own: what is planted has another price than the exchanges give, and a price of the
    /// exchanges' refuses it.
    fn name(&self, arm: Arm, turn: u64) -> &'static str {
        self.names[(2 * usize::try_from(turn).unwrap_or(0) + usize::from(arm == Arm::Rest)) % self.names.len()]
    }

    fn desk_answers(&self) -> [u64; 3] {
        ["local", "valkey", "rest"].map(|tier| {
            self.service.metric(&format!("tb_lookup_seconds_count{{outcome=\"{tier}\"}}")).unwrap_or_default()
        })
    }

    /// Writes a second's entries, for assets from this place in the list on. Each is proven up to when its asset is asked for:
    /// one that was proven at the second's begin would be stale for who asks at its end.
    fn plant(&self, from: u64, count: u64) {
        let begin_ms = now_ms();
        let mut commands = String::new();
        for turn in from..from + count {
            let now_ms = begin_ms + (turn - from) * 1_000 / count;
            let name = self.name(Arm::Valkey, turn);
            let text = format!(
                r#"{{"asset":"{name}","price":"1.2345","currency":"USD","source":"median","venues":["coinbase","kraken"],"spread_bps":null,"converted":false,"exchange_time_ms":null,"received_time_ms":{now_ms},"proven_time_ms":{now_ms},"node":"elsewhere","simulated":false}}"#
            );
            let key = format!("price:{name}");
            // A write to a string does not fail.
            let _ = write!(
                commands,
                "*5\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{text}\r\n$2\r\nEX\r\n$2\r\n60\r\n",
                key.len(),
                text.len()
            );
        }
        let mut stream = TcpStream::connect(self.redis.address()).expect("redis-server");
        stream.write_all(commands.as_bytes()).expect("taken");
        stream.read_exact(&mut vec![0; "+OK\r\n".len() * usize::try_from(count).unwrap_or(0)]).expect("written");
    }

    /// Looks assets up until told to stop, a second at a time.
    fn look_up(&self, arm: Arm, per_second: u64, stop: &AtomicBool) -> Looked {
        if arm == Arm::Quiet {
            return Looked::default();
        }
        let (before, mut all, mut sent) = (self.desk_answers(), Tally::default(), 0);
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let from = self.next.fetch_add(per_second, Ordering::Relaxed);
            if arm == Arm::Valkey {
                self.plant(from, per_second);
            }
            let assets: Vec<&'static str> = (from..from + per_second).map(|turn| self.name(arm, turn)).collect();
            let load = Load {
                rate: per_second / 2,
                connections: 128,
                assets,
                duration: Duration::from_secs(1),
                cpus: Vec::new(),
            };
            let mut job = job(&self.service, &load);
            job.warm_up = Duration::ZERO;
            let level = Level { number: 1, connections: load.connections, rate: load.rate };
            let progress = Progress::default();
            let outcome = loadgen::level::run(&job, &level, &progress).expect("the level begins");
            for tally in outcome.targets.iter().flat_map(|target| [&target.tcp, &target.udp]).flatten() {
                all.add(tally);
            }
            sent += progress.sent.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
        }
        let after = self.desk_answers();
        let gained: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let of_arm = if arm == Arm::Valkey { gained[1] } else { gained[2] };
        let ms = |quantile| all.latency_ns.value_at_quantile(quantile) as f64 / 1_000_000.0;
        Looked {
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            answered: all.latency_ns.len(),
            sent,
            of_tier: of_arm as f64 * 100.0 / gained.iter().sum::<u64>().max(1) as f64,
        }
    }

    fn measure(&self, arm: Arm, flags: &Flags) -> (Figures, Looked) {
        let load = Load {
            rate: flags.number("--rate"),
            connections: 64,
            assets: vec!["BTC", "ETH", "SOL"],
            duration: flags.duration(),
            cpus: Vec::new(),
        };
        let mut looked = Looked::default();
        let figures = load::measure(&self.service, &load, |stop| {
            looked = self.look_up(arm, flags.number("--lookups"), stop);
            looked.sent
        });
        (figures, looked)
    }
}

fn run(flags: &Flags) {
    for engine in ENGINES {
        let world = World::start(engine);
        let arms: Vec<Arm> = Arm::ALL
            .into_iter()
            .filter(|arm| *arm == Arm::Quiet || flags.only.is_empty() || arm.name().contains(&flags.only))
            .collect();
        let rounds: Vec<Vec<(Figures, Looked)>> =
            (0..flags.rounds()).map(|_| arms.iter().map(|arm| world.measure(*arm, flags)).collect()).collect();
        let names: Vec<&str> = arms.iter().map(|arm| arm.name()).collect();
        let figures: Vec<Vec<Figures>> =
            rounds.iter().map(|round| round.iter().map(|(figures, _)| *figures).collect()).collect();
        let title = format!("local prices, {engine}, 2 shards, {} requests/s each protocol", flags.number("--rate"));
        load::table(&title, &names, "lookups", &figures);
        for (at, arm) in arms.iter().enumerate().filter(|(_, arm)| **arm != Arm::Quiet) {
            let middle =
                |figure: fn(&Looked) -> f64| load::median(rounds.iter().map(|round| figure(&round[at].1)).collect());
            println!(
                "lookups, {engine}, {}: {:.0} of {:.0} answered a round, p50 {:.2} ms, p99 {:.2} ms; {:.1} % of what the desk found was of this tier",
                arm.name(),
                middle(|looked| looked.answered as f64),
                middle(|looked| looked.sent as f64),
                middle(|looked| looked.p50_ms),
                middle(|looked| looked.p99_ms),
                middle(|looked| looked.of_tier)
            );
            let ratio = rounds.iter().map(|round| {
                let per_request = |(figures, looked): &(Figures, Looked)| {
                    figures.shards_ns * figures.sent as f64 / (figures.sent + looked.sent) as f64
                };
                per_request(&round[at]) / per_request(&round[0])
            });
            println!(
                "shards' CPU over all requests, lookups among them, to quiet: {:.3}\n",
                load::median(ratio.collect())
            );
        }
    }
}

fn main() -> ExitCode {
    let flags = [
        ("--rounds", 7, 100),
        ("--millis", 5_000, 60_000),
        ("--rate", 10_000, 1_000_000),
        ("--lookups", 1_000, 100_000),
    ];
    load::bench("lookups", &flags, run)
}
