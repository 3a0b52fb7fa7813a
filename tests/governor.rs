//! The governor on the real service: a bound set while it runs, two tiers that want more than that, and idle connections
//! that must not notice any of it. On both engines.

use harness::eventually;
use harness::http::Connection;
use harness::service::{ENGINES, Service};
use std::time::{Duration, Instant};

/// Connections of each tier that ask all the time.
const LOW: usize = 120;
const HIGH: usize = 60;

/// Connections that have asked once and then keep silent.
const IDLE: usize = 400;

/// Active connections that are let in: fewer than [`LOW`] want, more than [`HIGH`].
const BOUND: usize = 100;

/// For how long nothing may change before it counts as settled: three windows.
const SETTLED: Duration = Duration::from_secs(3);

/// What became of one request on each connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    served: usize,
    shed: usize,
}

/// Connections that ask with one key.
struct Crowd {
    request: String,
    connections: Vec<Connection>,
}

impl Crowd {
    fn connect(service: &Service, key: &str, count: usize) -> Self {
        let address = service.address("lpo_tcp");
        Self {
            request: format!("GET /price?asset=BTC HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n"),
            connections: (0..count).map(|_| Connection::open(address)).collect(),
        }
    }

    /// Asks once on each connection, all at the same time.
    fn ask(&mut self) -> Round {
        let mut round = Round::default();
        self.connections.iter_mut().for_each(|connection| connection.send(self.request.as_bytes()));
        for connection in &mut self.connections {
            let reply = connection.read(false).expect("a shed connection stays open");
            match reply.status {
                200 => round.served += 1,
                503 => {
                    assert_eq!(reply.code(), "overloaded");
                    let wait: Option<u64> = reply.header("retry-after").and_then(|text| text.parse().ok());
                    assert!(wait >= Some(2), "what adaptive_throttle_delay_ms says: {reply:?}");
                    round.shed += 1;
                }
                _ => panic!("{reply:?}"),
            }
        }
        round
    }

    fn all(&self) -> Round {
        Round { served: self.connections.len(), shed: 0 }
    }
}

/// Sets parameters, in force at once.
fn set(service: &Service, parameters: &str) {
    let reply = service.admin_request("PUT", "/admin/params?reload=1", Some(parameters));
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Sum of a metric's samples whose line begins so.
fn metric(service: &Service, begins: &str) -> u64 {
    let text = harness::http::get(service.address("health_lpo"), "/metrics", &[]).text();
    let lines = text.lines().filter(|line| line.starts_with(begins));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn beyond_the_bound_lower_tiers_are_shed_first_and_idle_connections_stay() {
    for engine in ENGINES {
        let service = Service::demo_with(engine, &[("TB_SHARDS", "2")]);
        service.await_price("BTC", 2);
        // Of rank 1, with a limit that is never reached here.
        let (_, low_key) = service.new_key("stress");
        let (_, high_key) = service.new_key("enterprise");
        let mut idle = Crowd::connect(&service, service.stress_key(), IDLE);
        let mut low = Crowd::connect(&service, &low_key, LOW);
        let mut high = Crowd::connect(&service, &high_key, HIGH);
        for key in [&low_key, &high_key] {
            eventually("a made key is known to every shard", || {
                let headers = [("X-API-Key", key.as_str())];
                let reply = |_| harness::http::get(service.address("lpo_tcp"), "/price?asset=BTC", &headers);
                (0..8).map(reply).all(|reply| reply.status == 200).then_some(())
            });
        }
        eventually("everybody is served while there is room", || {
            let rounds = [&mut idle, &mut low, &mut high].map(|crowd| (crowd.ask(), crowd.all()));
            rounds.iter().all(|(round, all)| round == all).then_some(())
        });

        set(&service, r#"{"adaptive_max_concurrent":"100","adaptive_throttle_delay_ms":"1500"}"#);
        // Those who asked lately are in to their window's end, and the shards' parts follow what is used: so it settles.
        let mut settled_at = None;
        let mut seen = Round::default();
        eventually("the low tier is shed and the high one is not, for seconds on end", || {
            let (high_round, low_round) = (high.ask(), low.ask());
            seen = low_round;
            if high_round != high.all() || low_round.served > BOUND * 7 / 10 {
                settled_at = None;
                return None;
            }
            (settled_at.get_or_insert_with(Instant::now).elapsed() >= SETTLED).then_some(())
        });
        eprintln!("{engine}: bound {BOUND}: all {HIGH} of the high tier are served, of the low one {seen:?}");
        let shed = |rank: usize| metric(&service, &format!("tb_shed_total{{rank=\"{rank}\"}}"));
        eventually("the shed are counted by rank", || (shed(1) > 0).then_some(()));
        assert_eq!((shed(0), shed(2)), (0, 0), "nobody of these ranks asks");
        assert_eq!(metric(&service, "tb_governor_bound_connections{scope=\"cluster\"}"), BOUND as u64);

        // Without the others, the same connections of the low tier are served again, as far as their rank goes.
        eventually("the low tier has seven tenths to itself", || {
            let round = low.ask();
            (round.served > BOUND / 2 && round.served <= BOUND * 7 / 10).then_some(())
        });
        set(&service, r#"{"adaptive_max_concurrent":"6000"}"#);
        eventually("everybody is served again, on the same connections", || {
            let rounds = [&mut high, &mut low].map(|crowd| (crowd.ask(), crowd.all()));
            rounds.iter().all(|(round, all)| round == all).then_some(())
        });
        assert_eq!(idle.ask(), idle.all(), "{engine}: those who were silent all the while");
    }
}
