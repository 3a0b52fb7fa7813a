//! Instrument lists: read, copied, assumed, read again.

use super::world::{Plan, World, simulators, sources};
use crate::feeds::instruments::{self, ListSource};
use crate::feeds::simulator::fault::Fault;
use crate::feeds::timing::Timing;
use shared::asset::AssetEntry;
use shared::venue::{Venue, VenueSet};

fn venues_of(catalogue: &instruments::Catalogue, name: &str) -> VenueSet {
    let directory = catalogue.directory();
    let id = directory.find(&super::world::symbol(name));
    let entry: Option<AssetEntry> = id.and_then(|id| directory.entry(id).copied());
    entry.map(|entry| entry.venues).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lists_say_who_prices_what() {
    let plan = Plan { assets: "BTC EOS RNDR NOSUCHCOIN", ..Plan::of(&Venue::ALL) };
    let simulators = simulators(&plan).await;
    let catalogue = instruments::load(&sources(&plan, &simulators)).await.expect("good settings");
    assert_eq!(venues_of(&catalogue, "BTC").len(), 7);
    assert!(!venues_of(&catalogue, "EOS").contains(Venue::Coinbase), "listed there, but it does not trade");
    assert!(venues_of(&catalogue, "RENDER").contains(Venue::Coinbase), "RNDR does not trade there, RENDER does");
    assert_eq!(catalogue.unlisted().iter().map(ToString::to_string).collect::<Vec<_>>(), ["NOSUCHCOIN"]);
    simulators.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_cannot_be_read_is_taken_from_its_copy_or_assumed_and_read_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let timing = Timing { lists_ms: 2_000, ..super::world::hasty() };
    let plan = Plan { assets: "BTC KAS", timing, ..Plan::of(&[Venue::Okx]) };
    let simulators = simulators(&plan).await;
    let mut sources = sources(&plan, &simulators);
    sources.data_dir = Some(folder.path().to_owned());

    // Down from the first: OKX is assumed to have its own default assets, KAS but not BTC.
    simulators.fault(Venue::Okx, &Fault::RestDown);
    let assumed = instruments::load(&sources).await.expect("good settings");
    assert_eq!((venues_of(&assumed, "KAS").len(), venues_of(&assumed, "BTC").len()), (1, 0));

    // Read well once, then down again: the copy stands in.
    simulators.fault(Venue::Okx, &Fault::Resume);
    let read = instruments::load(&sources).await.expect("good settings");
    assert_eq!(venues_of(&read, "BTC").len(), 1);
    simulators.fault(Venue::Okx, &Fault::RestGarbage);
    let copied = instruments::load(&sources).await.expect("good settings");
    assert_eq!(venues_of(&copied, "BTC").len(), 1);

    // The feeds run on it, and read the venue's own list as soon as they can.
    let world = World::on(simulators, sources).await;
    world.all_live().await;
    let source = |world: &World| world.status(Venue::Okx).instrument_list.map(|list| list.source);
    assert_eq!(source(&world), Some(ListSource::Copy));
    world.fault(Venue::Okx, Fault::Resume);
    world.until("the list is read", || source(&world) == Some(ListSource::Venue)).await;
    assert_eq!(world.status(Venue::Okx).counters.connects, 1, "the same list changes nothing");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assumed_list_is_replaced_by_the_real_one_without_a_new_connection() {
    let timing = Timing { lists_ms: 200, ..super::world::hasty() };
    let plan = Plan { assets: "BTC KAS", timing, faults: vec![Fault::RestDown], ..Plan::of(&[Venue::Okx]) };
    let world = World::start(plan).await;
    world.all_live().await;
    assert_eq!(world.status(Venue::Okx).subscribed, 1);
    world.fault(Venue::Okx, Fault::Resume);
    world.until_status(Venue::Okx, "the other asset is subscribed as well", |status| status.live == 2).await;
    assert_eq!(world.status(Venue::Okx).counters.connects, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_addresses_are_all_told_at_once() {
    let mut sources = instruments::Sources::new();
    sources.overrides.set(Venue::Okx, Some("ws://ws.okx.com/".to_owned()), None);
    sources.overrides.set(Venue::Kraken, None, Some("http://api.kraken.com".to_owned()));
    let fault = instruments::load(&sources).await.err().expect("refused");
    assert!(fault.contains("okx: ws://") && fault.contains("kraken: http://"), "{fault}");
}
