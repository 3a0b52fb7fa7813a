//! The venues' REST interfaces: failing in every way, slow, and limiting us.

use super::super::{Lookups, Outcome};
use super::UNAVAILABLE;
use super::world::{Setting, World, symbol};
use crate::feeds::simulator::fault::{Fault, Nonsense};
use futures_util::future::join_all;
use shared::key::KeyId;
use shared::venue::Venue;

/// Everybody but Gate.io, and an asset that only it trades.
const OTHERS: [(Venue, &str); 6] = [
    (Venue::Coinbase, "KNC"),
    (Venue::Gemini, "GUSD"),
    (Venue::Kraken, "TBTC"),
    (Venue::Cryptocom, "VVS"),
    (Venue::Bybit, "MNT"),
    (Venue::Okx, "OKB"),
];

/// Assets that everybody trades.
const EVERYWHERE: [&str; 10] = ["ETH", "SOL", "XRP", "DOGE", "LTC", "LINK", "AVAX", "DOT", "ADA", "UNI"];

/// From then on Gate.io is the only one that may be asked over REST.
async fn only_gateio(world: &World) {
    for (venue, asset) in OTHERS {
        world.fault(venue, &Fault::RestLimited(600));
        assert_eq!(world.desk.look_up(symbol(asset), KeyId(9)).await, UNAVAILABLE, "{venue} says when to come again");
    }
}

/// Looks all of them up at once.
async fn look_up_all(world: &World, assets: &[&str]) -> Vec<Outcome> {
    let asked = assets.iter().map(|asset| world.desk.look_up(symbol(asset), KeyId(1)));
    tokio::time::timeout(harness::PATIENCE, join_all(asked)).await.expect("in time")
}

/// Where QNT is traded.
const QNT: [Venue; 4] = [Venue::Coinbase, Venue::Kraken, Venue::Cryptocom, Venue::Okx];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_good_venue_is_enough_whatever_the_others_say() {
    let faults = [
        Fault::RestDown,
        Fault::RestGarbage,
        Fault::RestNonsense(Nonsense::Zero),
        Fault::RestNonsense(Nonsense::Huge),
        Fault::RestLimited(60),
    ];
    for fault in faults {
        let world = World::start(Setting::default()).await;
        QNT[..3].iter().for_each(|venue| world.fault(*venue, &fault));
        let before = QNT.map(|venue| world.requests_to(venue));
        assert_eq!(world.desk.look_up(symbol("QNT"), KeyId(1)).await, Outcome::Found, "{fault:?}");
        let venues = world.tick("QNT").expect("a tick").venue_set();
        assert!(venues.contains(Venue::Okx) && venues.len() == 1, "{fault:?}: {venues:?}");
        for (venue, before) in QNT.into_iter().zip(before) {
            assert!(world.requests_to(venue) - before <= 1, "{fault:?}: {venue} was asked twice");
        }
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_instruments_price_is_not_taken() {
    let world = World::start(Setting::default()).await;
    world.fault(Venue::Kraken, &Fault::RestNonsense(Nonsense::Wrong));
    assert_eq!(world.desk.look_up(symbol("TBTC"), KeyId(1)).await, UNAVAILABLE);
    assert_eq!(world.tick("TBTC"), None);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venue_that_hangs_is_not_waited_for() {
    for fault in [Fault::RestHang, Fault::RestDelay(5_000)] {
        let world = World::start(Setting::default()).await;
        world.fault(Venue::Coinbase, &fault);
        let before = QNT.map(|venue| world.requests_to(venue));
        assert_eq!(world.desk.look_up(symbol("QNT"), KeyId(1)).await, Outcome::Found, "{fault:?}");
        let asked: Vec<u64> =
            QNT.into_iter().zip(before).map(|(venue, before)| world.requests_to(venue) - before).collect();
        assert!(asked[0] == 1 && asked.iter().all(|count| *count <= 1), "{fault:?}: {asked:?}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venue_that_hung_for_a_moment_is_asked_again_at_once_however_many_waited_for_it() {
    let world = World::start(Setting { backoff_ms: [500, 30_000], ..Setting::default() }).await;
    only_gateio(&world).await;
    world.fault(Venue::Gateio, &Fault::RestHang);
    let before = world.requests_to(Venue::Gateio);
    // A lookup has 1.5 s, its request 1.4.
    assert_eq!(look_up_all(&world, &EVERYWHERE).await, [UNAVAILABLE; EVERYWHERE.len()]);
    assert!(world.requests_to(Venue::Gateio) - before >= 5, "many requests meet it");
    world.fault(Venue::Gateio, &Fault::Resume);
    let began = std::time::Instant::now();
    while look_up_all(&world, &EVERYWHERE).await != [Outcome::Found; EVERYWHERE.len()] {
        assert!(began.elapsed() < std::time::Duration::from_secs(3), "{:?}", world.desk.state());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_every_venue_down_nothing_is_found_until_they_are_back() {
    let world = World::start(Setting::default()).await;
    Venue::ALL.into_iter().for_each(|venue| world.fault(venue, &Fault::RestDown));
    world.ask("QNT", 2);
    assert_eq!(world.desk.look_up(symbol("QNT"), KeyId(1)).await, UNAVAILABLE);
    world.until("the shard to be told", || world.told().len() == 1).await;
    let asked = world.requests();
    assert_eq!(world.desk.look_up(symbol("QNT"), KeyId(1)).await, UNAVAILABLE);
    assert_eq!(world.requests(), asked, "what came to nothing is known for a second");
    Venue::ALL.into_iter().for_each(|venue| world.fault(venue, &Fault::Resume));
    let found = || async { world.desk.look_up(symbol("QNT"), KeyId(1)).await == Outcome::Found };
    let began = std::time::Instant::now();
    while !found().await {
        assert!(began.elapsed() < harness::PATIENCE, "recovery without a person");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venue_that_limits_us_is_left_alone_and_an_asset_of_its_own_is_unavailable_at_once() {
    let world = World::start(Setting::default()).await;
    world.fault(Venue::Coinbase, &Fault::RestLimited(3_600));
    assert_eq!(world.desk.look_up(symbol("KNC"), KeyId(1)).await, UNAVAILABLE);
    let before = world.requests_to(Venue::Coinbase);
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(1_100) {
        assert_eq!(world.desk.look_up(symbol("KNC"), KeyId(1)).await, UNAVAILABLE);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(world.requests_to(Venue::Coinbase), before);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn assets_that_wait_for_one_gate_share_a_request() {
    let world = World::start(Setting { gap_ms: 400, ..Setting::default() }).await;
    only_gateio(&world).await;
    let before = world.requests_to(Venue::Gateio);
    // In the 1.5 s of a lookup it has four turns.
    let outcomes = look_up_all(&world, &EVERYWHERE).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Found), "{outcomes:?}");
    let asked = world.requests_to(Venue::Gateio) - before;
    assert!(asked <= 3, "{asked} requests for {} assets", EVERYWHERE.len());
    world.stop().await;
}
