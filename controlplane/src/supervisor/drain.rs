//! The way out: first be seen to leave, then refuse newcomers, then let those inside finish, then save, then go.
//!
//! UDP is answered, and feeds stay open, until the shards stop: a datagram's sender is not told that we leave.

use super::{RUNTIME_END_WAIT, Service};
use dataplane_core::command::ShardCommand;
use dataplane_engine::DataPlane;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

/// Longest that datagrams are answered, and open connections waited for, after accepting has ended. Balancers were
/// seen to send datagrams of old flows to a leaving target for about 75 s: with the usual wait of 35 s that is half of
/// it.
const LINGER_MAX: Duration = Duration::from_secs(40);

/// How long open connections are waited for where nothing else is (a demo): long enough to send what is being
/// answered.
const SETTLE: Duration = Duration::from_millis(500);

/// How often it looks whether connections have gone.
const LOOK: Duration = Duration::from_millis(50);

/// Longest that the shards may take to hear an instruction: they look at their inputs many times a millisecond. The
/// lookup desk's threads may take as long to end: they look every 100 ms.
const ORDER_MAX: Duration = Duration::from_secs(1);

/// Longest that venue sessions, the data plane, the farewell to the other nodes beside the simulators, and the closing
/// of database and cache may each take.
const CLOSE_MAX: Duration = Duration::from_secs(3);

/// Longest that the last count of months may take: more than one call of the database. A second more is for what is in
/// memory.
const MONTHS_MAX: Duration = Duration::from_secs(5);

/// Longest that the last usage records may take to the disk and to the database, at the same time as the months: of it
/// 2 s are for the disk, and one call of the database is left. What is not delivered then waits for the next process.
const USAGE_MAX: Duration = Duration::from_secs(6);

/// Longest that the notes of the last reports may take: one that waits for a database that is away is given up.
const NOTES_MAX: Duration = Duration::from_secs(1);

/// The longest `DRAIN_WAIT_SECONDS`.
const WAIT_MAX: Duration = Duration::from_secs(45);

/// What a balancer and its orchestrator give a process to end.
const GIVEN: Duration = Duration::from_secs(110);

/// With the longest wait: two orders and the end of the lookup desk, four times [`CLOSE_MAX`], months and usage together, notes, the runtime's end.
const SUM: u64 = WAIT_MAX.as_secs()
    + LINGER_MAX.as_secs()
    + 3 * ORDER_MAX.as_secs()
    + 4 * CLOSE_MAX.as_secs()
    + NOTES_MAX.as_secs()
    + USAGE_MAX.as_secs()
    + RUNTIME_END_WAIT.as_secs();

const _: () = assert!(MONTHS_MAX.as_secs() < USAGE_MAX.as_secs() && SUM == 109 && SUM < GIVEN.as_secs());

/// Takes the service out of service.
pub async fn drain(service: Service, wait: Duration) {
    let Service { plane, state, .. } = &service;
    state.draining.store(true, Ordering::Relaxed);
    command(plane, ShardCommand::Drain).await;
    tracing::info!(wait_s = wait.as_secs(), "unready; still accepting, so that balancers notice");
    sleep(wait).await;
    command(plane, ShardCommand::StopAccepting).await;
    let linger = wait.min(LINGER_MAX);
    tracing::info!(linger_s = linger.as_secs(), "accepting no more; datagrams are still answered");
    sleep(linger).await;
    let open = || plane.stats().iter().map(|shard| shard.connections).sum::<u64>();
    let deadline = Instant::now() + SETTLE.saturating_sub(linger);
    while open() > 0 && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    tracing::info!(open = open(), "closing");
    flush(service).await;
}

/// Closes what is open and saves what can be saved.
pub async fn flush(service: Service) {
    let Service {
        plane,
        feeds,
        simulators,
        state,
        housekeeping,
        hand_overs,
        lookups,
        mut listeners,
        mut key_tasks,
        beats,
        pipeline,
        ..
    } = service;
    state.governor.stop();
    state.warm.stop();
    if timeout(CLOSE_MAX, feeds.stop()).await.is_err() {
        tracing::warn!("venue sessions did not close in time");
    }
    if !apart(ORDER_MAX, move || lookups.stop()).await {
        tracing::warn!("the lookup desk did not stop in time");
    }
    let stopping = Arc::clone(&plane);
    if !apart(CLOSE_MAX, move || stopping.stop()).await {
        tracing::error!("the data plane did not stop cleanly");
    }
    // The others divide limits among themselves from now on; while the cache is away they see it in 10 s. Simulators
    // end with the process in any case.
    let simulated = async {
        if let Some(simulators) = &simulators {
            simulators.stop().await;
        }
    };
    let (left, _) = tokio::join!(timeout(CLOSE_MAX, beats.stop()), timeout(CLOSE_MAX, simulated));
    if left.is_err() {
        tracing::warn!("the cache did not hear in time that this node leaves");
    }
    listeners.abort_all();
    key_tasks.abort_all();
    hand_overs.stop();
    housekeeping.stop();
    if let Some(reports) = &state.reports {
        reports.trail.settle(NOTES_MAX).await;
    }
    // The shards' last records came with their last turn.
    state.usage.drain();
    let delivered = async {
        if let Some(pipeline) = pipeline {
            pipeline.stop(USAGE_MAX).await;
        }
    };
    tokio::join!(state.limits.stop(MONTHS_MAX), delivered);
    let (requests, records) = state.usage.total();
    tracing::info!(requests, records, "stopped; usage of this process");
    let closed = async { tokio::join!(state.keys.close(), state.store.close(), state.cache.close()) };
    if timeout(CLOSE_MAX, closed).await.is_err() {
        tracing::warn!("database, cache and the copy of the keys did not close in time");
    }
}

/// Gives every shard an instruction; the call may wait for room in a shard's channel.
async fn command(plane: &Arc<DataPlane>, command: ShardCommand) {
    let plane = Arc::clone(plane);
    if !apart(ORDER_MAX, move || plane.command(&command)).await {
        tracing::error!("the shards could not be told");
    }
}

/// Does what may block on a thread of its own: those that the runtime has for it may all be waiting for something that
/// does not answer, which must not be waited for here. Whether it ended well within this time.
async fn apart(most: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    let (done, ended) = oneshot::channel();
    let run = move || {
        work();
        // Whoever waited may have given up.
        let _ = done.send(());
    };
    let begun = std::thread::Builder::new().name("drain".to_owned()).spawn(run);
    begun.is_ok() && matches!(timeout(most, ended).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::spawn_blocking;

    #[test]
    fn what_must_be_done_waits_for_no_thread_of_the_runtime_and_for_nothing_without_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_time().build();
        let runtime = runtime.expect("a runtime");
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let (last, held) = std::sync::mpsc::channel::<()>();
        let wait = move || {
            // It ends with the test.
            let _ = held.recv();
        };
        runtime.block_on(async {
            drop(spawn_blocking(move || gate.recv()));
            assert!(apart(harness::PATIENCE, || {}).await, "its only thread for what blocks is taken");
            assert!(!apart(Duration::from_millis(20), wait).await, "the other end is given up");
            assert!(!apart(harness::PATIENCE, || panic!("as a test wants it")).await);
        });
        drop((open, last));
    }
}
