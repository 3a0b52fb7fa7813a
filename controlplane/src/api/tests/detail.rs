//! A price with what every venue says, and what it takes to have one.

use super::*;
use shared::tick::Tier;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test]
async fn a_detailed_price_tells_every_venue_and_counts() {
    let state = Bench::new().state();
    let router = public_router(Arc::clone(&state));
    let (status, headers, body) = ask(&router, "GET /price?asset=btc&detail=1", KEY).await;
    assert_eq!(status, 200, "{body}");
    assert!(body.starts_with("{\"asset\":\"BTC\",\"price\":\"67123.45\",\"currency\":\"USD\""), "{body}");
    let price: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&price["sequence"], &price["stale"]), (&json!(4_711), &json!(false)));
    let (kraken, okx) = (&price["venues"][0], &price["venues"][1]);
    assert_eq!((&kraken["venue"], &kraken["price"]), (&json!("kraken"), &json!("67123.45")));
    assert_eq!((&kraken["included"], &kraken["excluded"]), (&json!(true), &Value::Null));
    assert_eq!((&okx["included"], &okx["excluded"]), (&json!(false), &json!("quarantined")));
    assert_eq!(headers["cache-control"], "private, max-age=1");
    assert_eq!(headers["etag"], "\"4711\"");
    assert!(!headers.contains_key("ratelimit"), "half of the limit is left");

    assert_eq!(ask(&router, "GET /price?asset=BTC&detail=1", KEY).await.1["ratelimit"], "\"key\";r=0;t=1");
    let limited = ask(&router, "GET /price?asset=BTC&detail=1", KEY).await;
    check_problem(&limited, "rate_limited_second");
    assert_eq!(
        (limited.1["ratelimit-policy"].as_bytes(), limited.1["retry-after"].as_bytes()),
        (&b"\"key\";q=2;w=1"[..], &b"1"[..])
    );
    let used = state.usage.of(KeyId(1));
    assert_eq!(json!(used.outcomes), json!({ "ok": 2, "rate_limited_second": 1 }));
}

#[tokio::test]
async fn a_price_that_is_not_to_be_had_says_why() {
    for (query, status, code) in [
        ("asset=ETH", 503, "price_unavailable"),
        ("asset=SOL", 503, "price_stale"),
        ("asset=NOSUCH", 404, "asset_unknown"),
        ("asset=", 400, "asset_missing"),
        ("asset=A-B", 400, "asset_invalid"),
        ("asset=BTC&asset=ETH", 400, "parameter_invalid"),
        ("asset=BTC&newer_than=x", 400, "parameter_invalid"),
        ("asset=BTC&newer_than=+1", 400, "parameter_invalid"),
        ("asset=BTC&wait_ms=30001", 400, "parameter_invalid"),
        ("asset=BTC&allow_stale=7", 400, "parameter_invalid"),
    ] {
        let router = Bench::new().public();
        let answer = ask(&router, &format!("GET /price?{query}&detail=1"), KEY).await;
        assert_eq!(answer.0, status, "{query}: {}", answer.2);
        check_problem(&answer, code);
        assert_eq!(answer.2.contains("\"quarantined\""), status == 503, "the venues say why: {}", answer.2);
    }
    let stale = ask_json(&Bench::new().public(), "GET /price?asset=SOL&detail=1&allow_stale=1", KEY).await;
    assert_eq!((stale.0, &stale.1["stale"]), (200, &json!(true)));
    let mut mute = Bench::new();
    mute.plane.details = None;
    check_problem(&ask(&mute.public(), "GET /price?asset=BTC&detail=1", KEY).await, "overloaded");
}

#[tokio::test]
async fn a_detailed_price_that_the_client_has_is_not_sent_again() {
    for (field, value, status) in [
        ("if-none-match", "\"4711\"", 304),
        ("if-none-match", "W/\"1\", W/\"4711\"", 304),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"4710\"", 200),
        ("content-length", "0", 200),
        ("content-length", "5", 413),
        ("transfer-encoding", "chunked", 413),
    ] {
        let request = Request::get("/price?asset=BTC&detail=1").header("x-api-key", KEY).header(field, value);
        let request = request.body(Body::empty()).expect("a request");
        let answer = Bench::new().public().oneshot(request).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{field}: {value}");
        assert_eq!(answer.headers().contains_key("etag"), status != 413, "{field}: {value}");
    }
    let plain = ask(&Bench::new().public(), "GET /price?asset=BTC", KEY).await;
    check_problem(&plain, "not_found");
    assert!(plain.2.contains("price port"), "{}", plain.2);
}

#[tokio::test]
async fn a_newer_price_is_waited_for() {
    let mut bench = Bench::new();
    bench.ticks.push(Tick { sequence: 4_712, ..tick(0, 0) }).expect("room");
    let router = bench.public();
    let newer = ask_json(&router, "GET /price?asset=BTC&detail=1&newer_than=4711&wait_ms=30000", KEY).await;
    assert_eq!((newer.0, &newer.1["sequence"]), (200, &json!(4_712)));
    let unchanged = ask(&router, "GET /price?asset=BTC&detail=1&newer_than=4712&wait_ms=1", KEY).await;
    assert_eq!((unchanged.0, unchanged.1["etag"].as_bytes()), (304, &b"\"4712\""[..]));
    let never = ask(&Bench::new().public(), "GET /price?asset=ETH&detail=1&newer_than=1&wait_ms=1", KEY).await;
    check_problem(&never, "price_unavailable");
    assert!(never.2.contains("\"detail\":\"ETH: "), "{}", never.2);
}

#[tokio::test(start_paused = true)]
async fn whoever_has_another_nodes_sequence_is_given_the_price_as_it_stands() {
    for (asked, status, longest_ms) in [
        ("newer_than=1053288&wait_ms=30000", 200, 0_u64),
        ("newer_than=1053288", 200, 0),
        ("newer_than=1053287&wait_ms=999", 304, 999),
        ("newer_than=1053287&wait_ms=3000", 200, 1_010),
        ("newer_than=4711&wait_ms=3000", 304, 3_000),
    ] {
        let (router, began) = (Bench::new().public(), Instant::now());
        let answer = ask(&router, &format!("GET /price?asset=BTC&detail=1&{asked}"), KEY).await;
        assert_eq!((answer.0, answer.1["etag"].as_bytes()), (status, &b"\"4711\""[..]), "{asked}");
        let waited_ms = u64::try_from(began.elapsed().as_millis()).expect("brief");
        assert!((longest_ms.saturating_sub(20)..=longest_ms + 20).contains(&waited_ms), "{asked}: {waited_ms} ms");
    }
}

#[tokio::test]
async fn an_answer_counts_for_the_tier_that_its_price_came_from() {
    for (tier, field) in [(Tier::Local, ""), (Tier::Valkey, ""), (Tier::Rest, ""), (Tier::Rest, "&newer_than=4712")] {
        let mut bench = Bench::new();
        bench.ticks.push(Tick { sequence: 4_712, tier: tier as u8, ..tick(0, 0) }).expect("room");
        let state = bench.state();
        ask(&public_router(Arc::clone(&state)), &format!("GET /price?asset=BTC&detail=1{field}"), KEY).await;
        let mut records = Vec::new();
        state.usage.take(&mut records, 9);
        let tiers: Vec<_> = records.iter().map(|record| Tier::from_number(record.tier)).collect();
        assert_eq!(tiers, [Some(tier)], "{field}");
    }
}

/// Says what came of a lookup, and has a tick on the price board by then.
struct Says {
    outcome: Option<Outcome>,
    found: Mutex<(rtrb::Producer<Tick>, Vec<Tick>)>,
    asked: Mutex<Vec<(Symbol, KeyId)>>,
}

impl Says {
    /// Puts it into the bench; `None`: it never ends.
    fn put(bench: &mut Bench, outcome: Option<Outcome>, found: Vec<Tick>) -> Arc<Self> {
        let ticks = std::mem::replace(&mut bench.ticks, rtrb::RingBuffer::new(1).0);
        let says = Arc::new(Self { outcome, found: Mutex::new((ticks, found)), asked: Mutex::default() });
        bench.lookups = Arc::<Self>::clone(&says);
        says
    }
}

#[async_trait]
impl Lookups for Says {
    async fn look_up(&self, asset: Symbol, key: KeyId) -> Outcome {
        self.asked.lock().expect("sound").push((asset, key));
        let Some(outcome) = self.outcome else { return std::future::pending().await };
        let (ticks, found) = &mut *self.found.lock().expect("sound");
        found.drain(..).for_each(|tick| ticks.push(tick).expect("room"));
        outcome
    }

    async fn warm(&self, _: &[Symbol], _: VenueSet, _: tokio::time::Instant) -> Warmed {
        Warmed::default()
    }
}

#[tokio::test]
async fn an_asset_without_a_price_to_give_is_looked_up() {
    let (found, fresh) = (Some(Outcome::Found), |asset| vec![tick(asset, 0)]);
    let nothing = |code| Some(Outcome::Nothing(code));
    let table = [
        ("asset=ETH", found, fresh(1), 200, "ETH"),
        ("asset=eth&newer_than=0", found, fresh(1), 200, "ETH"),
        ("asset=SOL", found, fresh(2), 200, "SOL"),
        // With a price to give there is nothing to look for.
        ("asset=BTC", None, Vec::new(), 200, ""),
        ("asset=SOL&allow_stale=1", None, Vec::new(), 200, ""),
        ("asset=SOL", nothing(Code::PriceUnavailable), Vec::new(), 503, "price_stale"),
        ("asset=SOL", nothing(Code::Overloaded), Vec::new(), 503, "overloaded"),
        ("asset=ETH", nothing(Code::AssetUnknown), Vec::new(), 503, "price_unavailable"),
        ("asset=NOSUCH", nothing(Code::Overloaded), Vec::new(), 503, "overloaded"),
        ("asset=NOSUCH", nothing(Code::AssetUnknown), Vec::new(), 404, "asset_unknown"),
    ];
    for (query, outcome, ticks, status, said) in table {
        let mut bench = Bench::new();
        let says = Says::put(&mut bench, outcome, ticks);
        let answer = ask(&bench.public(), &format!("GET /price?{query}&detail=1"), KEY).await;
        assert_eq!(answer.0, status, "{query}: {}", answer.2);
        let asked = says.asked.lock().expect("sound").clone();
        if status == 200 {
            let price: Value = serde_json::from_str(&answer.2).expect("JSON");
            let is_stale = query.contains("allow_stale");
            assert_eq!((price["stale"].as_bool(), asked.is_empty()), (Some(is_stale), said.is_empty()), "{query}");
            assert!(said.is_empty() || price["asset"] == said, "{price}");
        } else {
            check_problem(&answer, said);
        }
        assert!(asked.iter().all(|(_, key)| *key == KeyId(1)) && asked.len() <= 1, "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_is_waited_for_no_longer_than_that() {
    for (query, longest) in [("asset=ETH", 1_500), ("asset=SOL", 1_500), ("asset=ETH&newer_than=0&wait_ms=40", 40)] {
        let mut bench = Bench::new();
        let _says = Says::put(&mut bench, None, Vec::new());
        let (router, began) = (bench.public(), Instant::now());
        let answer = ask(&router, &format!("GET /price?{query}&detail=1"), KEY).await;
        check_problem(&answer, if query == "asset=SOL" { "price_stale" } else { "price_unavailable" });
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(longest), "{query}: {waited:?}");
        assert!(waited < Duration::from_millis(longest + 50), "{query}: {waited:?}");
    }
}

#[tokio::test]
async fn nothing_is_looked_up_on_a_node_that_is_about_to_go() {
    let mut bench = Bench { draining: true, ..Bench::new() };
    let says = Says::put(&mut bench, Some(Outcome::Found), vec![tick(1, 0)]);
    check_problem(&ask(&bench.public(), "GET /price?asset=ETH&detail=1", KEY).await, "draining");
    assert!(says.asked.lock().expect("sound").is_empty());
}
