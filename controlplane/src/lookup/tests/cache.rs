//! The cache: fresh, old, wrong, slow and away.

use super::super::Lookups;
use super::super::Outcome;
use super::super::entry::{self, Odd, PriceEntry};
use super::world::{Setting, World, symbol};
use super::{UNAVAILABLE, UNKNOWN};
use crate::cache::names::CacheKey;
use crate::cache::{Cache, VALUE_BYTES_MAX, Value};
use crate::feeds::simulator::fault::Fault as Down;
use harness::proxy::Fault;
use shared::key::KeyId;
use shared::price::Price;
use shared::quote::Currency;
use shared::tick::{Source, Tier};
use shared::venue::{Venue, VenueSet};
use std::time::Duration;

/// Another node's price of `name`, `age_ms` old.
pub fn entry(name: &str, age_ms: u64) -> PriceEntry {
    let received_time_ms = tuning::clock::now().wall_ms - age_ms;
    PriceEntry {
        symbol: symbol(name),
        price: Price::new(4_250, -2),
        currency: Currency::Usd,
        source: Source::Ws(Venue::Kraken),
        venues: VenueSet::EMPTY.with(Venue::Kraken),
        spread_centibps: 20,
        converted: false,
        exchange_time_ms: Some(received_time_ms - 10),
        received_time_ms,
        proven_time_ms: received_time_ms,
        node: "n2".to_owned(),
        simulated: false,
    }
}

fn name(asset: &str) -> CacheKey {
    entry::name(&symbol(asset)).expect("a name")
}

async fn put(cache: &dyn Cache, asset: &str, value: &Value) {
    cache.put(&name(asset), value).await.expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_nodes_fresh_price_is_found_without_a_request() {
    let world = World::start(Setting::default()).await;
    let before = world.requests();
    put(&*world.cache(), "QNT", &entry("QNT", 1_000).value()).await;
    assert_eq!(world.desk.look_up(symbol("QNT"), KeyId(1)).await, Outcome::Found);
    let tick = world.tick("QNT").expect("a tick");
    assert_eq!(
        (tick.price(), tick.tier, tick.source),
        (Price::new(4_250, -2), Tier::Valkey as u8, Source::Valkey.number())
    );
    assert_eq!(world.requests(), before);
    assert_eq!(world.counters().written, [0, 0], "what another node said is not said again");
    // One that no venue lists gets a number for it.
    put(&*world.cache(), "ELSEWHERE", &entry("ELSEWHERE", 1_000).value()).await;
    assert_eq!(world.desk.look_up(symbol("ELSEWHERE"), KeyId(1)).await, Outcome::Found);
    assert_eq!(world.tier("ELSEWHERE"), Some(Tier::Valkey));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_old_or_wrong_in_the_cache_is_never_a_price() {
    let world = World::start(Setting::default()).await;
    let cache = world.cache();
    let text = |entry: PriceEntry| match entry.value() {
        Value::Text(text) => text,
        other => panic!("{other:?}"),
    };
    let wrong = [
        (text(entry("QNT", 1_000)).replace("\"42.50\"", "\"-42.50\""), Some(Odd::Price)),
        (text(entry("ZIL", 1_000)), Some(Odd::Asset)),
        ("<html>".to_owned(), Some(Odd::Form)),
        (text(PriceEntry { simulated: true, ..entry("QNT", 1_000) }), Some(Odd::Simulated)),
        (text(PriceEntry { proven_time_ms: u64::MAX / 2, ..entry("QNT", 1_000) }), Some(Odd::Time)),
        (text(entry("QNT", 9_100)), None),
    ];
    let assets = ["QNT", "YFI", "DASH", "CELO", "BAL", "RPL"];
    for (asset, (text, odd)) in assets.into_iter().zip(wrong) {
        let before = world.counters();
        // The same wrong text, of this asset where that is not what is wrong.
        put(&*cache, asset, &Value::Text(text.replace("\"QNT\"", &format!("\"{asset}\"")))).await;
        assert_eq!(world.desk.look_up(symbol(asset), KeyId(1)).await, Outcome::Found, "{asset}");
        assert_eq!(world.tier(asset), Some(Tier::Rest), "{asset}: {text}");
        let after = world.counters();
        match odd {
            Some(odd) => assert_eq!(after.odd[odd as usize], before.odd[odd as usize] + 1, "{text}"),
            None => assert_eq!(after.cache[1], before.cache[1] + 1, "{text}"),
        }
    }
    put(&*cache, "NOSUCH", &Value::Text("67123.45".to_owned())).await;
    assert_eq!(world.desk.look_up(symbol("NOSUCH"), KeyId(1)).await, UNKNOWN);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_is_read_and_another_type_there_is_no_price() {
    let (setting, server, proxy) = Setting::with_slow_cache();
    let world = World::start(setting).await;
    let cache = world.cache();
    world.until("the cache to answer", || cache.health().away_since_ms.is_none()).await;
    put(&*cache, "QNT", &entry("QNT", 1_000).value()).await;
    assert_eq!(world.desk.look_up(symbol("QNT"), KeyId(1)).await, Outcome::Found);
    assert_eq!(world.tier("QNT"), Some(Tier::Valkey));
    assert_eq!(server.ask(&["HSET", "price:ZIL", "price", "1"]), "1");
    assert_eq!(world.desk.look_up(symbol("ZIL"), KeyId(1)).await, Outcome::Found);
    assert_eq!((world.tier("ZIL"), world.counters().odd[Odd::Type as usize]), (Some(Tier::Rest), 1));
    world.until("the price to be left in its place", || world.counters().written[0] == 1).await;
    assert_eq!(server.ask(&["TYPE", "price:ZIL"]), "string");
    // A value that is too large to be read is refused as well, and is of no other type.
    assert_eq!(
        server.ask(&["SETRANGE", "price:YFI", &VALUE_BYTES_MAX.to_string(), "1"]),
        (VALUE_BYTES_MAX + 1).to_string()
    );
    let before = world.counters();
    // Where venues answer, a slow machine may not hear of it in time.
    [Venue::Coinbase, Venue::Gemini, Venue::Kraken].iter().for_each(|venue| world.fault(*venue, &Down::RestDown));
    assert_eq!(world.desk.look_up(symbol("YFI"), KeyId(1)).await, UNAVAILABLE);
    let after = world.counters();
    assert_eq!((after.odd, after.cache[3]), (before.odd, before.cache[3] + 1));
    world.stop().await;
    drop(proxy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_cache_that_answers_makes_an_asset_unknown() {
    let (setting, server, proxy) = Setting::with_slow_cache();
    let world = World::start(setting).await;
    let cache = world.cache();
    world.until("the cache to answer", || cache.health().away_since_ms.is_none()).await;
    assert_eq!(world.desk.look_up(symbol("NOSUCH"), KeyId(1)).await, UNKNOWN);
    for (fault, asset) in [(Fault::Hang, "NOSUCHA"), (Fault::Refuse, "NOSUCHB")] {
        proxy.set(fault);
        assert_eq!(world.desk.look_up(symbol(asset), KeyId(1)).await, UNAVAILABLE, "{asset}");
    }
    world.stop().await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_is_slow_or_away_keeps_nobody_from_the_venues() {
    let (setting, server, proxy) = Setting::with_slow_cache();
    let world = World::start(setting).await;
    let cache = world.cache();
    world.until("the cache to answer", || cache.health().away_since_ms.is_none()).await;
    let slow = Fault::Delay { there: Duration::from_millis(300), back: Duration::ZERO };
    for (fault, asset) in [(slow, "QNT"), (Fault::Hang, "ZIL"), (Fault::Refuse, "YFI")] {
        proxy.set(fault);
        assert_eq!(world.desk.look_up(symbol(asset), KeyId(1)).await, Outcome::Found, "{asset}");
        assert_eq!(world.tier(asset), Some(Tier::Rest), "{asset}");
    }
    world.stop().await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_price_comes_before_its_name_has_arrived_everywhere() {
    let world = World::start(Setting { settle_ms: 5_000, ..Setting::default() }).await;
    put(&*world.cache(), "ELSEWHERE", &entry("ELSEWHERE", 10).value()).await;
    // The search that has the asset named waits for as long; those after it must not think that it is.
    assert_eq!(world.desk.look_up(symbol("ELSEWHERE"), KeyId(1)).await, UNAVAILABLE);
    world.until("the name to be on its way", || world.is_named("ELSEWHERE").0).await;
    let found = world.desk.find(&symbol("ELSEWHERE"));
    let (_, is_settled) = world.is_named("ELSEWHERE");
    assert!(found.is_none() || is_settled, "{found:?}");
    world.until("the name to have arrived", || world.desk.find(&symbol("ELSEWHERE")).is_some()).await;
    assert_eq!(world.is_named("ELSEWHERE"), (true, true));
    world.stop().await;
}
