//! Keys far below their limits: whenever their traffic begins or nodes join, nothing of theirs is refused.

use super::*;

/// Each way to the cache and back takes 50 ms, in which such a key asks four times.
const SLOW_US: (u64, u64) = (25_000, 25_000);

/// Everything that arrives is admitted.
#[track_caller]
fn check_whole(scene: Scene) {
    let outcome = World::new(scene.clone()).run();
    let is_whole = |(arrived, admitted): &(u64, u64)| arrived == admitted;
    assert!(outcome.seconds.iter().all(is_whole), "{scene:?}: {:?}", outcome.seconds);
    assert!(outcome.seconds.iter().any(|(arrived, _)| *arrived > 0), "{scene:?}: nobody asked");
}

#[test]
fn wherever_and_whenever_traffic_begins_with_a_single_request() {
    for first_ms in (1_000..2_000).step_by(230) {
        for after_ms in [120, 700, 1_100] {
            let arrival = Arrival::Late { first_ms, from_ms: first_ms + after_ms };
            let offered = vec![80, 80];
            let seconds = 4;
            check_whole(Scene { limit: 100_000, offered, arrival, way_us: SLOW_US, seconds, ..Scene::default() });
        }
    }
}

#[test]
fn when_nodes_notice_that_they_are_not_alone() {
    // Of 4,000 a second a node may take 31 in advance, and such a key has used more of most windows.
    let (offered, way_us) = (vec![80, 80], (500, 2_000));
    let near = Scene { limit: 4_000, shards: 2, offered, way_us, seconds: 6, ..Scene::default() };
    for alone_ms in (1_000..2_000).step_by(110) {
        check_whole(Scene { alone_ms, ..near.clone() });
    }
}
