//! Usage records of each engine: when they leave, that the last ones do, and that none do when nobody wants them.

use crate::rig::{KEY, Rig, Wish, eventually, on_each_engine};
use rtrb::Consumer;
use shared::usage::{Endpoint, UsageRecord};
use std::time::Duration;

/// Between two requests of a client: a shard on its own waits a third of a millisecond after a record.
const PAUSE: Duration = Duration::from_millis(2);

fn usage(rig: &Rig) -> Consumer<UsageRecord> {
    rig.plane.take_usage().pop().expect("one shard")
}

/// Asks `count` times each way, with a pause after each; the shard is told of nothing else meanwhile.
fn ask(rig: &Rig, count: usize) {
    let (mut client, datagrams) = (rig.connect(), rig.datagrams());
    // As long as its answer: a shorter one is not answered with a price.
    let request = format!("{{\"key\":\"{KEY}\",\"asset\":\"BTC\",\"pad\":\"{}\"}}", "x".repeat(200));
    for _ in 0..count {
        assert_eq!(client.price("BTC").status, 200);
        std::thread::sleep(PAUSE);
        datagrams.send(request.as_bytes()).expect("sent");
        assert!(datagrams.recv(&mut [0; 2_048]).expect("a reply") > 0);
        std::thread::sleep(PAUSE);
    }
}

#[test]
fn a_quiet_shard_s_records_leave_with_the_turn_that_made_them() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut usage = usage(&rig);
        ask(&rig, 30);
        let mut records = Vec::new();
        eventually("every request is recorded", || {
            records.extend(std::iter::from_fn(|| usage.pop().ok()));
            (records.iter().map(|record| record.requests).sum::<u64>() == 60).then_some(())
        });
        assert_eq!(records.len(), 60, "{}: one record for each request: {records:?}", rig.plane.engine().name());
        let given = |record: &&UsageRecord| record.status == 200 && record.requests == 1;
        let of = |endpoint: Endpoint| {
            records.iter().filter(given).filter(|record| record.endpoint == endpoint as u8).count()
        };
        assert_eq!((of(Endpoint::Price), of(Endpoint::DatagramJson)), (30, 30));
        assert!(records.iter().zip(0..).all(|(record, number)| record.number == number));
    });
}

#[test]
fn what_is_left_in_the_meter_leaves_with_the_shard() {
    on_each_engine(|engine| {
        let rig = Rig::priced(engine);
        let mut usage = usage(&rig);
        let mut client = rig.connect();
        (0..500).for_each(|_| assert_eq!(client.price("ETH").status, 200));
        rig.plane.stop();
        let recorded: u64 = std::iter::from_fn(|| usage.pop().ok()).map(|record| record.requests).sum();
        assert_eq!(recorded, 500, "{}", rig.plane.engine().name());
    });
}

#[test]
fn a_shard_that_is_not_to_count_records_nothing() {
    on_each_engine(|engine| {
        let rig = Rig::priced_as(Wish { counts_usage: false, ..Wish::of(engine) });
        let mut usage = usage(&rig);
        ask(&rig, 3);
        rig.plane.stop();
        assert!(usage.pop().is_err(), "{}", rig.plane.engine().name());
        let stats = rig.stats();
        assert_eq!(stats.counters.answered, 6, "its own counters count on: {stats:?}");
    });
}
