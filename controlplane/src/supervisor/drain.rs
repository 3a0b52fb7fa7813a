//! The way out: first be seen to leave, then refuse newcomers, then let those inside finish, then save, then go.
//!
//! UDP is answered, and feeds stay open, until the shards stop: a datagram's sender is not told that we leave.

use super::Service;
use dataplane_core::command::ShardCommand;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Longest that datagrams are answered, and open connections waited for, after accepting has ended. Balancers were seen
/// to send datagrams of old flows to a leaving target for about 75 s: with the usual wait of 35 s that is half of it.
const LINGER_MAX: Duration = Duration::from_secs(40);

/// How long open connections are waited for where nothing else is (a demo): long enough to send what is being answered.
const SETTLE: Duration = Duration::from_millis(500);

/// How often it looks whether connections have gone.
const LOOK: Duration = Duration::from_millis(50);

/// Longest that venue sessions, simulators, the last count of months and the farewell to the other nodes may each take.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Takes the service out of service. With the longest wait of 45 s the sum is 45 + 40 + 4 × 5 s and the runtime's 2 s:
/// below the 110 s that a balancer and its orchestrator give.
pub async fn drain(service: Service, wait: Duration) {
    let Service { plane, state, .. } = &service;
    state.draining.store(true, Ordering::Relaxed);
    command(&service, ShardCommand::Drain).await;
    tracing::info!(wait_s = wait.as_secs(), "unready; still accepting, so that balancers notice");
    sleep(wait).await;
    command(&service, ShardCommand::StopAccepting).await;
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
        plane, feeds, simulators, state, housekeeping, hand_overs, mut listeners, mut key_tasks, beats, ..
    } = service;
    state.governor.stop();
    if timeout(CLOSE_MAX, feeds.stop()).await.is_err() {
        tracing::warn!("venue sessions did not close in time");
    }
    let stopped = tokio::task::spawn_blocking({
        let plane = Arc::clone(&plane);
        move || plane.stop()
    });
    if stopped.await.is_err() {
        tracing::error!("the data plane did not stop cleanly");
    }
    // The others divide limits among themselves from now on; while the cache is away they see it in 10 s.
    if timeout(CLOSE_MAX, beats.stop()).await.is_err() {
        tracing::warn!("the cache did not hear in time that this node leaves");
    }
    listeners.abort_all();
    key_tasks.abort_all();
    hand_overs.stop();
    if let Some(simulators) = simulators {
        // They end with the process in any case.
        let _ = timeout(CLOSE_MAX, simulators.stop()).await;
    }
    housekeeping.stop();
    // The shards' last records came with their last turn.
    state.usage.drain();
    state.limits.stop(CLOSE_MAX).await;
    let (requests, records) = state.usage.total();
    tracing::info!(requests, records, "stopped; usage of this process");
    state.cache.close().await;
}

/// Gives every shard an instruction; the call may wait for room in a shard's channel.
async fn command(service: &Service, command: ShardCommand) {
    let plane = Arc::clone(&service.plane);
    if tokio::task::spawn_blocking(move || plane.command(&command)).await.is_err() {
        tracing::error!("the shards could not be told");
    }
}
