//! Nodes on one cache: they see each other, leave, and notice a namesake; on a server they outlive its absence.

use super::*;
use crate::cache::CacheTimeouts;
use crate::cache::in_process::InProcessCache;
use crate::cache::names::CLUSTER_NODES;
use crate::keys::Secret;
use harness::proxy::{Fault, Proxy};
use harness::redis::Redis;
use tokio::time::{Instant, sleep};

fn counters(pid: u32) -> impl Fn() -> Counters + Send + 'static {
    move || [("started_time_ms", "5000".to_owned()), ("pid", pid.to_string())].map(|(n, v)| (n.to_owned(), v)).into()
}

fn view(nodes: &[&str], connected: bool) -> ClusterView {
    ClusterView { nodes: nodes.iter().map(|node| (*node).to_owned()).collect(), connected }
}

async fn until(cluster: &Cluster, expected: ClusterView) {
    let mut watch = cluster.watch();
    let seen = tokio::time::timeout(harness::PATIENCE, watch.wait_for(|view| *view == expected)).await;
    assert!(seen.is_ok(), "{expected:?} did not come; there is {:?}", *cluster.watch().borrow());
}

#[tokio::test(start_paused = true)]
async fn nodes_see_each_other_come_leave_and_vanish() {
    let cache: Arc<dyn Cache> = Arc::new(InProcessCache::new());
    let [one, two, three] = ["n1", "n2", "n3"].map(|node| Cluster::new(node.to_owned(), Arc::clone(&cache)));
    assert_eq!(*one.watch().borrow(), view(&["n1"], false));
    let of_one = one.run(counters(1));
    until(&one, view(&["n1"], true)).await;
    let (of_two, of_three) = (two.run(counters(2)), three.run(counters(3)));
    until(&one, view(&["n1", "n2", "n3"], true)).await;
    let everyone = one.everyone().await.expect("the cache answers");
    let pids: Vec<&str> = everyone.values().flatten().map(|counters| counters["pid"].as_str()).collect();
    assert_eq!(pids, ["1", "2", "3"]);
    // One that leaves is gone at the next beat; one that is killed, when 10 s have passed.
    of_two.stop().await;
    until(&one, view(&["n1", "n3"], true)).await;
    of_three.task.abort();
    let killed = Instant::now();
    until(&one, view(&["n1"], true)).await;
    assert!((7..=13).contains(&killed.elapsed().as_secs()), "{:?}", killed.elapsed());
    of_one.stop().await;
    assert_eq!(one.counters("n1").await, Ok(None));
}

/// Deletes all that nodes wrote of themselves, as FLUSHALL does and a server that begins empty has done.
async fn empty(cache: &dyn Cache, nodes: &[&str]) {
    let stats = nodes.iter().map(|node| CacheKey::new(CLUSTER_STATS, node).expect("a name"));
    for key in stats.chain([CacheKey::fixed(CLUSTER_NODES)]) {
        cache.delete(&key).await.expect("the cache answers");
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_known_stay_when_the_cache_is_emptied() {
    let cache: Arc<dyn Cache> = Arc::new(InProcessCache::new());
    let [one, two, three] = ["n1", "n2", "n3"].map(|node| Cluster::new(node.to_owned(), Arc::clone(&cache)));
    let beats = [one.run(counters(1)), two.run(counters(2)), three.run(counters(3))];
    for node in [&one, &two, &three] {
        until(node, view(&["n1", "n2", "n3"], true)).await;
    }
    let mut watches = [&one, &two, &three].map(|node| node.watch());
    watches.iter_mut().for_each(|watch| drop(watch.borrow_and_update()));
    empty(&*cache, &["n1", "n2", "n3"]).await;
    sleep(Duration::from_secs(30)).await;
    for watch in &watches {
        assert!(matches!(watch.has_changed(), Ok(false)), "nobody was ever missing: {:?}", *watch.borrow());
    }
    // One that has vanished at the same time is known to be gone when it has had its time.
    let [of_one, of_two, of_three] = beats;
    of_three.task.abort();
    empty(&*cache, &["n1", "n2", "n3"]).await;
    let emptied = Instant::now();
    until(&one, view(&["n1", "n2"], true)).await;
    assert!((10..=14).contains(&emptied.elapsed().as_secs()), "{:?}", emptied.elapsed());
    of_two.stop().await;
    of_one.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_namesake_is_noticed_and_its_end_too() {
    let own = counters(1)();
    let mut namesake = Namesake::default();
    let mut look = |found: Option<Counters>| {
        namesake.look("n1", found.as_ref(), &own);
        namesake.told
    };
    assert_eq!([look(None), look(Some(own.clone()))], [false, false]);
    assert_eq!([look(Some(counters(2)())), look(None)], [true, true], "nothing there tells nothing");
    assert!(!look(Some(own.clone())));
    // What stood there before the first beat is of an earlier life of this node.
    let cache: Arc<dyn Cache> = Arc::new(InProcessCache::new());
    cache.heartbeat("n1", &counters(2)(), ALIVE_MS).await.expect("the cache answers");
    let cluster = Cluster::new("n1".to_owned(), Arc::clone(&cache));
    let (mut namesake, mut remembered) = (Namesake::default(), Remembered::default());
    cluster.beat(&own, &mut namesake, &mut remembered).await;
    cluster.beat(&own, &mut namesake, &mut remembered).await;
    assert!(!namesake.told);
    cache.heartbeat("n1", &counters(2)(), ALIVE_MS).await.expect("the cache answers");
    cluster.beat(&own, &mut namesake, &mut remembered).await;
    assert!(namesake.told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_away_leaves_the_view_as_it_was_until_it_is_back() {
    let server = Redis::start();
    let proxy = Proxy::start(server.address());
    let url = Secret::new(server.url_at(proxy.address()));
    let open = || crate::cache::open(Some(&url), CacheTimeouts::default()).expect("a cache");
    let [one, two] = ["n1", "n2"].map(|node| Cluster::new(node.to_owned(), open()));
    let (of_one, of_two) = (one.run(counters(1)), two.run(counters(2)));
    until(&one, view(&["n1", "n2"], true)).await;
    assert_eq!(server.ask(&["HGET", "cluster:stats:n2", "pid"]), "2");
    for fault in [Fault::Hang, Fault::Refuse] {
        proxy.set(fault);
        until(&one, view(&["n1", "n2"], false)).await;
        assert!(matches!(one.everyone().await, Err(CacheError::Unreachable(_))));
        proxy.set(Fault::None);
        until(&one, view(&["n1", "n2"], true)).await;
    }
    server.flush_all();
    until(&two, view(&["n1", "n2"], true)).await;
    of_two.stop().await;
    let deadline = Instant::now() + harness::PATIENCE;
    while server.ask(&["EXISTS", "cluster:stats:n2"]) != "0" {
        assert!(Instant::now() < deadline, "it has not left");
        sleep(Duration::from_millis(20)).await;
    }
    until(&one, view(&["n1"], true)).await;
    of_one.stop().await;
}
