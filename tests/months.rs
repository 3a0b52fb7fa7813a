//! What a key may ask in a month, and what the `demo` tier may ask in a second, on the real service: refused over HTTP and
//! both encodings of UDP with the time to wait, lifted as soon as the bound is raised. On both engines.

use harness::eventually;
use harness::http::{self, Reply};
use harness::postgres::Postgres;
use harness::service::{ENGINES, Service, migrate};
use harness::udp::{ask, frame, reply_frame};
use serde_json::Value;
use shared::code::Code;
use std::time::{SystemTime, UNIX_EPOCH};

/// Requests a month of the key under test.
const LIMIT: u64 = 20;

/// Requests that one after the other do not fit a limit of three a second, and fit one of 1,000.
const ROUND: usize = 12;

/// A key, as it is shown once.
struct Key {
    id: u32,
    text: String,
    udp_secret: [u8; 16],
}

impl Key {
    fn make(service: &Service, wish: &str) -> Self {
        let made = service.admin_request("POST", "/admin/keys", Some(wish));
        assert_eq!(made.status, 201, "{}", made.text());
        let key = made.json();
        let text = |name: &str| key[name].as_str().expect("a text").to_owned();
        let secret = text("udp_secret");
        let byte = |index: usize| u8::from_str_radix(&secret[2 * index..2 * index + 2], 16).expect("hex");
        let id = key["key_id"].as_u64().and_then(|id| u32::try_from(id).ok()).expect("a number");
        Self { id, text: text("key"), udp_secret: std::array::from_fn(byte) }
    }

    fn price(&self, service: &Service) -> Reply {
        http::get(service.address("lpo_tcp"), "/price?asset=BTC", &[("X-API-Key", &self.text)])
    }

    fn limits(&self, service: &Service) -> Value {
        http::get(service.address("lpo_tcp"), "/limits", &[("X-API-Key", &self.text)]).json()
    }

    fn json_over_udp(&self, service: &Service) -> Value {
        let request = format!(r#"{{"key":"{}","asset":"BTC","id":7}}"#, self.text);
        serde_json::from_slice(&ask(service.address("lpo_udp"), request.as_bytes())).expect("a JSON reply")
    }

    fn binary_status(&self, service: &Service) -> u8 {
        let request = frame(self.id, &self.udp_secret, "BTC", 42, now_ms());
        reply_frame(&self.udp_secret, &ask(service.address("lpo_udp"), bytemuck::bytes_of(&request))).status
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("small")
}

/// Asks until the month is used up, and answers how many requests were admitted until then.
fn use_up(service: &Service, key: &Key) -> u64 {
    let mut admitted = 0;
    eventually("the month to be used up", || {
        let reply = key.price(service);
        match reply.status {
            200 => {
                admitted += 1;
                None
            }
            429 if reply.code() == "rate_limited_month" => Some(()),
            _ => panic!("{reply:?}"),
        }
    });
    admitted
}

fn hold_the_month(engine: &str, database: &Postgres, url: &str) {
    let service = Service::demo_with(engine, &[("TB_SHARDS", "2"), ("DATABASE_URL", url)]);
    service.await_price("BTC", 1);
    let wish = format!(r#"{{"name":"month","tier":"enterprise","limit_per_month":{LIMIT}}}"#);
    let (key, other) = (Key::make(&service, &wish), Key::make(&service, r#"{"name":"other","tier":"enterprise"}"#));
    let admitted = use_up(&service, &key);
    assert!(admitted >= LIMIT, "{engine}: refused after {admitted} of {LIMIT}");

    // Over HTTP with the time to wait: until the month's end by this clock, give or take the turn of a second.
    let refused = key.price(&service);
    let wait_s: u64 = refused.header("retry-after").and_then(|text| text.parse().ok()).expect("seconds to wait");
    let month = &key.limits(&service)["month"];
    let ends_at_ms = month["ends_at_ms"].as_u64().expect("the month's end");
    assert_eq!((month["limit"].as_u64(), month["remaining"].as_u64()), (Some(LIMIT), Some(0)), "{month}");
    assert_eq!(month["used_up"], true, "{month}");
    assert!(month["used"].as_u64() >= Some(LIMIT), "{month}");
    let left_s = ends_at_ms.saturating_sub(now_ms()) / 1_000;
    assert!(wait_s.abs_diff(left_s) <= harness::PATIENCE.as_secs(), "{engine}: {wait_s} s of {left_s} s");
    // And over UDP in both encodings.
    let reply = key.json_over_udp(&service);
    assert_eq!((reply["status"].as_u64(), reply["code"].as_str()), (Some(429), Some("rate_limited_month")), "{reply}");
    assert_eq!(key.binary_status(&service), Code::RateLimitedMonth.number());
    // Nobody else is refused for it.
    assert_eq!((other.price(&service).status, other.binary_status(&service)), (200, 0));

    // Keys and tiers may be changed by SQL: what is admitted follows without a restart.
    database.sql(url, &format!("UPDATE api_keys SET limit_per_month = 1000000 WHERE id = {}", key.id));
    eventually("the month to be lifted", || (key.price(&service).status == 200).then_some(()));
    assert_eq!(key.binary_status(&service), 0);
    assert_eq!(key.limits(&service)["month"]["used_up"], false);
}

#[test]
fn a_used_up_month_is_refused_everywhere_until_the_bound_is_raised() {
    let database = Postgres::shared();
    let url = database.new_url_at(database.address());
    migrate(&url);
    ENGINES.into_iter().for_each(|engine| hold_the_month(engine, &database, &url));
}

/// Requests one after the other, and how many were admitted; refusals must be of the second.
fn admitted_of_round(service: &Service) -> usize {
    let ask = |_: usize| {
        let reply = http::get(service.address("lpo_tcp"), "/price?asset=BTC", &[("X-API-Key", service.demo_key())]);
        if reply.status != 200 {
            assert_eq!((reply.status, reply.code().as_str()), (429, "rate_limited_second"), "{reply:?}");
            assert_eq!(reply.header("retry-after"), Some("1"), "{reply:?}");
        }
        usize::from(reply.status == 200)
    };
    (0..ROUND).map(ask).sum()
}

#[test]
fn the_demo_tier_has_three_a_second_and_a_thousand_in_performance_mode() {
    for engine in ENGINES {
        let service = Service::demo_with(engine, &[("TB_SHARDS", "1")]);
        service.await_price("BTC", 1);
        let key = ("X-API-Key", service.demo_key());
        let limit = || http::get(service.address("lpo_tcp"), "/limits", &[key]).json()["limit_per_second"].as_u64();
        for (mode, expected) in [("standard", 3), ("performance", 1_000), ("standard", 3)] {
            let set = service.admin_request("POST", &format!("/admin/system-mode?mode={mode}"), None);
            assert_eq!(set.status, 200, "{}", set.text());
            eventually("the tier's limit", || (limit() == Some(expected)).then_some(()));
            // What a shard admits follows, with the first second that begins after it.
            eventually(&format!("{expected} a second"), || {
                let admitted = admitted_of_round(&service);
                let is_so = if expected == 3 { admitted < ROUND } else { admitted == ROUND };
                is_so.then_some(())
            });
        }
    }
}
