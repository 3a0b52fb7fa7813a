//! What a start finds when it has waited for the first keys, and for how long it waits at the most.

use super::*;
use crate::keys::desk::first::READ_MAX;
use tokio::time::pause;

/// Waits as a start does.
async fn wait(node: &Node) {
    timeout(LONG, node.desk.first_read()).await.expect("no start waits without end");
}

#[tokio::test]
async fn who_has_waited_finds_the_keys_and_tiers_of_the_store_in_force() {
    let before = Node::alone().await;
    let one = before.create("one", "basic").await;
    let mut tier = before.desk.tiers().into_iter().find(|tier| tier.name == "basic").expect("a tier");
    tier.limit_per_second = 77;
    let audit = before.desk.entry("tier.put", "basic".to_owned(), "admin");
    before.store.put_tier(&tier, &audit).await.expect("stored");
    let of_the_tier = FixedKey { tier: Some("basic".to_owned()), limit_per_second: None, ..fixed(50, "fixed") };
    let after = Node::start(&before.store, vec![of_the_tier], None);
    assert_eq!(after.limit_of(&one.text), None, "nothing has been read yet");
    wait(&after).await;
    let fixed = Secret::new("fixed".to_owned());
    assert_eq!((after.limit_of(&one.text), after.limit_of(&fixed)), (Some(77), Some(77)));
    // Nothing is waited for twice.
    wait(&after).await;
}

#[tokio::test]
async fn one_call_that_fails_is_no_outage() {
    let store = shaky().await;
    store.away.store(true, Ordering::Relaxed);
    let node = Node::start(&store, Vec::new(), None);
    let back = async {
        node.until("a call has failed", |desk| desk.counters().pulse_failures > 0).await;
        store.away.store(false, Ordering::Relaxed);
    };
    tokio::join!(wait(&node), back);
    assert!(node.desk.counters().loaded);
}

#[tokio::test]
async fn a_store_that_is_away_keeps_nobody_from_starting() {
    let before = Node::alone().await;
    let one = before.create("one", "pro").await;
    before.store.away.store(true, Ordering::Relaxed);
    let node = Node::start(&before.store, vec![fixed(50, "fixed")], None);
    wait(&node).await;
    assert!(!node.desk.counters().loaded);
    assert_eq!((node.limit_of(&one.text), node.limit_of(&Secret::new("fixed".to_owned()))), (None, Some(9)));
    before.store.away.store(false, Ordering::Relaxed);
    node.until("the keys have come", |_| node.limit_of(&one.text) == Some(1_000)).await;
}

#[tokio::test]
async fn nor_does_one_that_hangs_without_end() {
    let store = shaky().await;
    store.hangs.store(true, Ordering::Relaxed);
    let node = Node::start(&store, Vec::new(), None);
    pause();
    let begun = Instant::now();
    node.desk.first_read().await;
    assert_eq!((begun.elapsed().as_secs(), node.desk.counters().loaded), (READ_MAX.as_secs(), false));
}

#[tokio::test]
async fn shards_miss_no_directory_that_came_into_force_while_they_started() {
    let node = Node::alone().await;
    let known = node.desk.current();
    let told_by = |started_with: &Keys| {
        let ear = Arc::new(Ear::default());
        node.desk.attach(Arc::<Ear>::clone(&ear), started_with);
        ear.0.load(Ordering::Relaxed)
    };
    assert_eq!(told_by(&known), 0);
    node.create("meanwhile", "pro").await;
    assert_eq!((told_by(&known), told_by(&node.desk.current())), (1, 0));
}
