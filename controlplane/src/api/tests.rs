//! The routes, asked one request at a time, over a data plane that says what a test wants.

mod admin;
mod cache;
mod detail;
mod keys;
mod metrics;
mod params;

use super::caller::AdminGate;
use super::plane::{FeedView, Plane};
use super::{ApiState, NodeFacts, health_router, public_router};
use crate::cache::Cache;
use crate::cache::in_process::InProcessCache;
use crate::cluster::{Cluster, ClusterView};
use crate::feeds::board::Counters;
use crate::feeds::plan::{Market, Plan};
use crate::feeds::status::{FeedsStatus, VenueStatus};
use crate::keys::Secret;
use crate::limits::{Limits, LimitsSetup};
use crate::lookup::{Lookups, Outcome, Warmed};
use crate::params::check::Base;
use crate::params::desk::{DeskSetup, ParameterDesk};
use crate::prices::PriceBoard;
use crate::reports::desk::ReportDesk;
use crate::store::Store;
use crate::store::sqlite::SqliteStore;
use crate::usage::UsageLedger;
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use bytemuck::Zeroable;
use dataplane_core::counters::ShardCounters;
use dataplane_core::feed::{Exclusion, FeedCounters, VenueDetail};
use dataplane_engine::{Engine, ShardStats};
use serde_json::{Value, json};
use shared::asset::{AssetDirectory, AssetId, Symbol};
use shared::code::Code;
use shared::key::KeyId;
use shared::price::Price;
use shared::quote::Currency;
use shared::tick::{SPREAD_UNKNOWN, TICK_STALE, Tick};
use shared::venue::{Venue, VenueSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tower::ServiceExt;
use tuning::{core_plan::CorePlan, steering::Steering};
use venues::protocol::Instrument;

const KEY: &str = "tb_live_0123456789abcdefghijklmnopqrstuv";
const EXPIRED: &str = "tb_live_expired";
const ADMIN: &str = "the-operators-own-key";

/// A plane of one shard that turned just now, unless told otherwise.
struct SaidPlane {
    plan: CorePlan,
    turned_ms_ago: u64,
    details: Option<Vec<VenueDetail>>,
}

impl Plane for SaidPlane {
    fn engine(&self) -> (Engine, String) {
        (Engine::Epoll, "io_uring: EPERM".to_owned())
    }

    fn core_plan(&self) -> &CorePlan {
        &self.plan
    }

    fn steering(&self) -> Steering {
        Steering { by_cpu: false, reason: "TB_STEERING=hash".to_owned() }
    }

    fn stats(&self) -> Vec<ShardStats> {
        let mut counters = ShardCounters { http_requests: 7, ..ShardCounters::default() };
        counters.refuse(Code::RequestMalformed);
        vec![ShardStats {
            cpu: Some(0),
            connections: 3,
            accepted: 4,
            parks: 5,
            cpu_ns: 1_234_567_890,
            turned_mono_ms: tuning::clock::now().mono_ms() - self.turned_ms_ago,
            counters,
            ..ShardStats::default()
        }]
    }

    fn feed_counters(&self) -> FeedCounters {
        FeedCounters { ticks: 99, ..FeedCounters::default() }
    }

    fn inspect(&self, _asset: AssetId) -> Option<Vec<VenueDetail>> {
        self.details.clone()
    }
}

struct SaidFeeds;

/// Looks nothing up: of what is listed here there is no price, and anything else is not known.
struct FindsNothing;

#[async_trait]
impl Lookups for FindsNothing {
    async fn look_up(&self, asset: Symbol, _: KeyId) -> Outcome {
        let is_listed = ["BTC", "ETH", "SOL"].contains(&asset.as_str());
        Outcome::Nothing(if is_listed { Code::PriceUnavailable } else { Code::AssetUnknown })
    }

    async fn warm(&self, assets: &[Symbol], _: VenueSet, _: tokio::time::Instant) -> Warmed {
        Warmed { missing: assets.len(), ..Warmed::default() }
    }
}

impl FeedView for SaidFeeds {
    fn status(&self) -> FeedsStatus {
        let kraken = VenueStatus {
            venue: "kraken",
            host: "127.0.0.1".to_owned(),
            connected: true,
            connections: 1,
            connected_for_ms: Some(10_000),
            subscribed: 3,
            live: 2,
            refused_symbols: Vec::new(),
            silent_symbols: Vec::new(),
            last_frame_age_ms: Some(1_250),
            frames_per_second: "12.5".to_owned(),
            conflated: 0,
            counters: Counters::default(),
            last_error: None,
            last_error_time_ms: None,
            instrument_list: None,
        };
        FeedsStatus { venues: vec![kraken], unlisted: vec!["RLY".to_owned()] }
    }

    /// Kraken is to carry BTC always, and SOL because somebody asks for it.
    fn plan(&self) -> Arc<Plan> {
        let market = |index| {
            let (name, currency) = ("X".to_owned(), Currency::Usd);
            let instrument =
                Instrument { rest_name: name.clone(), name, base: symbol("X"), quote: symbol("USD"), trading: true };
            Market { asset: AssetId::new(index).expect("an id"), currency, instrument }
        };
        let mut plan = Plan { lasting: AssetId::new(0).into_iter().collect(), ..Plan::default() };
        plan.markets[Venue::Kraken.index()] = Arc::new(vec![market(0), market(2)]);
        Arc::new(plan)
    }
}

/// A state under test, with the ends that feed it.
struct Bench {
    plane: SaidPlane,
    ticks: rtrb::Producer<Tick>,
    board: PriceBoard,
    lookups: Arc<dyn Lookups>,
    draining: bool,
    store: Arc<dyn Store>,
    cache: Arc<dyn Cache>,
}

/// The parameters as they stand by default.
fn desk(store: &Arc<dyn Store>, cache: &Arc<dyn Cache>) -> Arc<ParameterDesk> {
    let (store, cache) = (Arc::clone(store), Arc::clone(cache));
    let setup = DeskSetup { store, cache, node: "n1".to_owned(), base: Base::default(), data_dir: None };
    ParameterDesk::new(setup).expect("good settings")
}

fn symbol(text: &str) -> Symbol {
    Symbol::new(text.as_bytes()).expect("a symbol")
}

fn detail(venue: Venue, excluded: Option<Exclusion>) -> VenueDetail {
    let now = tuning::clock::now();
    VenueDetail {
        venue,
        price: Some(Price::new(6_712_345, -2)),
        currency: Currency::Usd,
        last: Some(Price::new(6_712_300, -2)),
        bid: None,
        ask: None,
        exchange_time_ms: None,
        received_time_ms: now.wall_ms,
        received_mono_ns: now.mono_ns,
        live: true,
        excluded,
    }
}

fn tick(asset: u16, flags: u16) -> Tick {
    let now = tuning::clock::now();
    Tick {
        mantissa: 6_712_345,
        exponent: -2,
        sequence: 4_711,
        received_time_ms: now.wall_ms,
        received_mono_ns: now.mono_ns,
        spread_centibps: SPREAD_UNKNOWN,
        venues: VenueSet::EMPTY.with(Venue::Kraken).with(Venue::Coinbase).bits(),
        currency: 1,
        asset,
        flags,
        ..Tick::zeroed()
    }
}

impl Bench {
    /// BTC (0) has a price, ETH (1) has none, SOL (2) a stale one.
    fn new() -> Self {
        let (mut ticks, consumer) = rtrb::RingBuffer::new(8);
        ticks.push(tick(0, 0)).expect("room");
        ticks.push(tick(2, TICK_STALE)).expect("room");
        let details = vec![detail(Venue::Kraken, None), detail(Venue::Okx, Some(Exclusion::Quarantined))];
        let plan = CorePlan { shards: vec![Some(0)], control: Vec::new() };
        let plane = SaidPlane { plan, turned_ms_ago: 0, details: Some(details) };
        Self {
            plane,
            ticks,
            board: PriceBoard::new(Some(consumer)),
            lookups: Arc::new(FindsNothing),
            draining: false,
            store: Arc::new(SqliteStore::memory()),
            cache: Arc::new(InProcessCache::new()),
        }
    }

    fn state(self) -> Arc<ApiState> {
        let mut directory = AssetDirectory::new();
        let venues = VenueSet::EMPTY.with(Venue::Kraken);
        for (name, prewarmed) in [("BTC", true), ("ETH", true), ("SOL", false)] {
            directory.add(symbol(name), prewarmed, venues);
        }
        let facts = NodeFacts {
            node: "n1".to_owned(),
            role: "LPO",
            environment: "test".to_owned(),
            region: String::new(),
            version: "0",
            simulated: false,
            started_time_ms: 5_000,
        };
        let (store, cache): (Arc<dyn Store>, _) = (self.store, self.cache);
        let params = desk(&store, &cache);
        let (desk, usage) = (keys::desk(&store, &cache), Arc::new(UsageLedger::journaled(Vec::new())));
        let alone = ClusterView { nodes: vec!["n1".to_owned()], connected: false };
        let limits = Limits::start(LimitsSetup {
            node: "n1".to_owned(),
            keys: desk.watch(),
            bounds: Arc::<crate::keys::desk::KeyDesk>::clone(&desk),
            cluster: tokio::sync::watch::channel(alone).1,
            usage: Arc::clone(&usage),
            store: Arc::clone(&store),
            cache: Arc::clone(&cache),
        });
        let (trail_store, trail_cache) = (Arc::clone(&store), Arc::clone(&cache));
        let reports = ReportDesk::start(trail_store, trail_cache, params.watch(), 93).expect("threads");
        Arc::new(ApiState {
            facts,
            reports: Some(Arc::new(reports)),
            plane: Box::new(self.plane),
            feeds: Box::new(SaidFeeds),
            assets: tokio::sync::watch::channel(Arc::new(directory)).1,
            keys: desk,
            prices: Arc::new(self.board),
            lookups: self.lookups,
            usage,
            journal: None,
            mirror: None,
            admin: AdminGate::new(Some(Secret::new(ADMIN.to_owned()))).or_of(params.watch()),
            store,
            governor: metrics::governor(&cache, &params),
            warm: metrics::warm(&cache, &params),
            params,
            cluster: Cluster::new("n1".to_owned(), Arc::clone(&cache)),
            cache,
            limits: Arc::new(limits),
            draining: Arc::new(AtomicBool::new(self.draining)),
        })
    }

    fn public(self) -> Router {
        public_router(self.state())
    }

    fn health(self) -> Router {
        health_router(self.state())
    }
}

/// One request without a body; status, head and body.
async fn ask(router: &Router, line: &str, key: &str) -> (u16, HeaderMap, String) {
    send(router, line, key, Body::empty()).await
}

/// One request; status, head and body.
async fn send(router: &Router, line: &str, key: &str, body: impl Into<Body>) -> (u16, HeaderMap, String) {
    let (method, path) = line.split_once(' ').expect("a method and a path");
    let mut request = Request::builder().method(method).uri(path);
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request.body(body.into()).expect("a request");
    let (head, body) = router.clone().oneshot(request).await.expect("an answer").into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).expect("text"))
}

async fn ask_json(router: &Router, line: &str, key: &str) -> (u16, Value) {
    let (status, _, body) = ask(router, line, key).await;
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

/// The answer to `line` is the problem `code`, whole.
#[track_caller]
fn check_problem(answer: &(u16, HeaderMap, String), code: &str) {
    let (status, headers, body) = answer;
    assert_eq!(headers["content-type"], "application/problem+json", "{body}");
    let problem: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)));
    for name in ["type", "title", "detail", "request_id"] {
        assert!(problem[name].as_str().is_some_and(|text| !text.is_empty()), "{name} in {problem}");
    }
    assert_eq!(problem["request_id"], headers["x-request-id"].to_str().expect("text"));
}

#[tokio::test]
async fn wrong_paths_methods_and_keys_get_their_problem() {
    let router = Bench::new().public();
    for (line, key, status, code) in [
        ("GET /nowhere", "", 404, "not_found"),
        ("GET /", KEY, 404, "not_found"),
        ("GET /admin/nothing", ADMIN, 404, "not_found"),
        ("POST /assets", "", 405, "method_not_allowed"),
        ("DELETE /admin/engine", ADMIN, 405, "method_not_allowed"),
        ("GET /limits", "", 401, "key_missing"),
        ("GET /limits", "tb_live_wrong", 401, "key_invalid"),
        ("GET /limits", EXPIRED, 401, "key_invalid"),
        ("GET /price?asset=BTC&detail=1", "", 401, "key_missing"),
        ("GET /price?asset=BTC&detail=1", "tb_live_wrong", 401, "key_invalid"),
        ("GET /admin/engine", "", 401, "key_missing"),
        ("GET /admin/engine", KEY, 401, "key_invalid"),
        ("GET /admin/feeds", "x", 401, "key_invalid"),
        ("GET /admin/usage", "x", 401, "key_invalid"),
        ("GET /admin/usage?limit=0", ADMIN, 400, "parameter_invalid"),
        ("GET /admin/usage?after=x", ADMIN, 400, "parameter_invalid"),
    ] {
        let answer = ask(&router, line, key).await;
        assert_eq!(answer.0, status, "{line}: {}", answer.2);
        check_problem(&answer, code);
        assert_eq!(answer.1.contains_key("www-authenticate"), status == 401, "{line}");
        assert_eq!(answer.1.contains_key("allow"), status == 405, "{line}");
    }
}

#[tokio::test]
async fn options_and_head_are_answered() {
    let router = Bench::new().public();
    let (status, headers, body) = ask(&router, "OPTIONS *", "").await;
    assert_eq!((status, headers["allow"].as_bytes(), body.as_str()), (204, &b"GET, HEAD, OPTIONS"[..], ""));
    check_problem(&ask(&router, "OPTIONS /nowhere", "").await, "not_found");
    let (status, headers, body) = ask(&router, "OPTIONS /assets", "").await;
    assert_eq!((status, headers["allow"].as_bytes(), body.as_str()), (204, &b"GET, HEAD, OPTIONS"[..], ""));
    let (status, headers, body) = ask(&router, "HEAD /assets", "").await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["cache-control"], "no-store");
}

#[tokio::test]
async fn assets_are_listed_by_venue_with_their_other_names() {
    let (status, assets) = ask_json(&Bench::new().public(), "GET /assets", "").await;
    assert_eq!(status, 200);
    let expected = json!({ "asset": "BTC", "prewarmed": true, "subscribed": true, "on_demand": false, "priced": true,
        "venues": ["kraken"], "aliases": ["XBT"] });
    assert_eq!(assets["assets"][0], expected);
    let standing = |index: usize| {
        ["prewarmed", "subscribed", "on_demand"].map(|name| assets["assets"][index][name].as_bool().expect("a flag"))
    };
    assert_eq!((standing(1), standing(2)), ([true, false, false], [false, true, true]));
    assert_eq!(assets["venues"]["kraken"], json!(["BTC", "ETH", "SOL"]));
    assert_eq!(assets["venues"]["okx"], json!([]));
}

#[tokio::test]
async fn limits_tell_the_caller_s_own() {
    let router = Bench::new().public();
    ask(&router, "GET /price?asset=BTC&detail=1", KEY).await;
    let (status, limits) = ask_json(&router, "GET /limits", KEY).await;
    assert_eq!(status, 200);
    assert_eq!((&limits["limit_per_second"], &limits["remaining"]), (&json!(2), &json!(1)));
    assert_eq!((&limits["used"]["requests"], &limits["used"]["outcomes"]), (&json!(1), &json!({ "ok": 1 })));
    assert_eq!(ask_json(&router, "GET /limits", KEY).await.1["remaining"], json!(1), "asking takes nothing");
}

#[tokio::test]
async fn health_says_what_is_wrong() {
    let fine = Bench::new().health();
    for path in ["/health", "/readyz", "/livez"] {
        assert_eq!(ask(&fine, &format!("GET {path}"), "").await.0, 200, "{path}");
    }
    let mut draining = Bench::new();
    draining.draining = true;
    let mut stuck = Bench::new();
    stuck.plane.turned_ms_ago = 1_500;
    let mut unheard = Bench::new();
    unheard.board = PriceBoard::new(None);
    for (bench, live, reason) in
        [(draining, 200, "draining"), (stuck, 503, "has not turned"), (unheard, 200, "no price")]
    {
        let router = bench.health();
        let (status, answer) = ask_json(&router, "GET /readyz", "").await;
        assert_eq!(status, 503, "{reason}");
        assert!(answer["reasons"][0].as_str().is_some_and(|text| text.contains(reason)), "{answer}");
        assert_eq!(ask(&router, "GET /livez", "").await.0, live, "{reason}");
    }
    assert_eq!(ask(&fine, "GET /assets", "").await.0, 404, "the health ports are for health");
}

#[tokio::test]
async fn a_draining_node_keeps_answering_and_closes() {
    let bench = Bench::new();
    let state = bench.state();
    let router = public_router(Arc::clone(&state));
    assert!(!ask(&router, "GET /assets", "").await.1.contains_key("connection"));
    state.draining.store(true, Ordering::Relaxed);
    let (status, headers, _) = ask(&router, "GET /assets", "").await;
    assert_eq!((status, headers["connection"].as_bytes()), (200, &b"close"[..]));
}
