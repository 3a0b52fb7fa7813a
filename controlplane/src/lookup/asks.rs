//! The two threads between the shards and the desk: one takes what the shards ask, the other tells them what came to
//! nothing.
//!
//! Neither is a task of the runtime: one sleeps until a shard wakes it, the other may have to wait for room in a shard's
//! channel, and neither wait may hold up the other.

use super::desk::LookupDesk;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use dataplane_core::command::ShardCommand;
use dataplane_core::lookup::NotFound;
use dataplane_engine::{AskReceiver, DataPlane};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Answers that may wait to be told: each shard has 1,024 lookups under way at most, so with 16 shards none is lost even
/// if all end at once. 28 bytes each.
const UNTOLD_MAX: usize = 16_384;

/// Answers told in one command.
const TOLD_AT_ONCE_MAX: usize = 256;

/// How long the threads may take to notice that they are to end.
const LOOK: Duration = Duration::from_millis(100);

/// An answer for a shard.
pub type Told = (u16, NotFound);

/// The way of answers to the shards.
#[must_use]
pub fn answers() -> (Sender<Told>, Receiver<Told>) {
    bounded(UNTOLD_MAX)
}

/// The running threads.
pub struct AskThreads {
    ended: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl AskThreads {
    /// Starts them, in a runtime.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        plane: &Arc<DataPlane>,
        desk: &Arc<LookupDesk>,
        mut asks: AskReceiver,
        answers: Receiver<Told>,
    ) -> io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Handle::current();
        let (desk, ends) = (Arc::clone(desk), Arc::clone(&ended));
        let taking = std::thread::Builder::new().name("lookups".to_owned()).spawn(move || {
            let _inside = runtime.enter();
            let mut taken = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                asks.wait(&mut taken, LOOK);
                taken.drain(..).for_each(|ask| desk.take(ask));
            }
        })?;
        let (plane, ends) = (Arc::clone(plane), Arc::clone(&ended));
        let telling = std::thread::Builder::new().name("lookups-told".to_owned()).spawn(move || {
            let tell = |shard, found: Arc<[NotFound]>| plane.command_one(shard, ShardCommand::NotFound(found));
            tell_all(&answers, &ends, tell);
        })?;
        Ok(Self { ended, threads: Mutex::new(vec![taking, telling]) })
    }

    /// The name of a thread that has ended by itself, if one has: without it no lookup would come to anything.
    #[must_use]
    pub fn failed_thread(&self) -> Option<String> {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = threads.iter().find(|thread| thread.is_finished())?;
        // Looked at after the thread, so that one which ended because it was told to is not taken for another.
        let was_told = self.ended.load(Ordering::Acquire);
        (!was_told).then(|| failed.thread().name().unwrap_or("lookups").to_owned())
    }

    /// Ends them. To be called before the data plane stops: a shard that has ended takes nothing.
    pub fn stop(&self) {
        self.ended.store(true, Ordering::Release);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

/// Tells each shard its answers, several in a command, until it is to end.
fn tell_all(answers: &Receiver<Told>, ends: &AtomicBool, tell: impl Fn(u16, Arc<[NotFound]>)) {
    while !ends.load(Ordering::Relaxed) {
        let first = match answers.recv_timeout(LOOK) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut by_shard: BTreeMap<u16, Vec<NotFound>> = BTreeMap::new();
        for (shard, found) in [first].into_iter().chain(answers.try_iter().take(TOLD_AT_ONCE_MAX - 1)) {
            by_shard.entry(shard).or_default().push(found);
        }
        for (shard, found) in by_shard {
            tell(shard, found.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::asset::Symbol;
    use shared::code::Code;

    #[test]
    fn answers_reach_their_shards_in_order_and_together() {
        let (sender, receiver) = answers();
        let not_found = |number: usize| {
            let symbol = Symbol::new(format!("A{number}").as_bytes()).expect("a good symbol");
            NotFound { symbol, number: 0, code: Code::AssetUnknown }
        };
        for number in 0..1_000 {
            let shard = u16::from(number % 2 == 1);
            sender.try_send((shard, not_found(number))).expect("room");
        }
        drop(sender);
        let told: Mutex<Vec<(u16, Arc<[NotFound]>)>> = Mutex::default();
        tell_all(&receiver, &AtomicBool::new(false), |shard, found| {
            told.lock().expect("no panic").push((shard, found))
        });
        let told = told.into_inner().expect("no panic");
        assert!(told.len() <= 2 * 1_000_usize.div_ceil(TOLD_AT_ONCE_MAX), "{} commands", told.len());
        for shard in 0..2 {
            let heard: Vec<NotFound> = told
                .iter()
                .filter(|(of, _)| usize::from(*of) == shard)
                .flat_map(|(_, found)| found.iter().copied())
                .collect();
            let expected: Vec<NotFound> = (0..1_000).filter(|number| number % 2 == shard).map(not_found).collect();
            assert_eq!(heard, expected);
        }
    }

    fn running(work: impl FnOnce(&AtomicBool) + Send + 'static) -> AskThreads {
        let ended = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&ended);
        let thread = std::thread::Builder::new().name("lookups".to_owned()).spawn(move || work(&ends));
        AskThreads { ended, threads: Mutex::new(vec![thread.expect("a thread")]) }
    }

    #[test]
    fn a_thread_that_ends_unasked_is_told_and_one_that_was_told_to_is_not() {
        let failing = running(|_| panic!("as a test wants it"));
        let deadline = std::time::Instant::now() + harness::PATIENCE;
        while failing.failed_thread().is_none() {
            assert!(std::time::Instant::now() < deadline, "nobody noticed");
            std::thread::yield_now();
        }
        assert_eq!(failing.failed_thread().as_deref(), Some("lookups"));
        let well = running(|ends| {
            while !ends.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        });
        assert_eq!(well.failed_thread(), None);
        well.stop();
        assert_eq!(well.failed_thread(), None);
    }
}
