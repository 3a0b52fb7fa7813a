//! Names of machines, looked up one at a time for each part that needs one.
//!
//! A look-up cannot be given up: whoever waits for it may, but the thread that asks the resolver stays until that
//! answers, which with a resolver that hangs is half a minute and more. A part that tries again every second would
//! soon hold every thread that there is for what blocks. So it first asks here whether its name can be found, and here
//! one thread asks until it has ended. What is done with the address is not known here: clients look the name up
//! again.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

type Resolve = Arc<dyn Fn(&str, u16) -> io::Result<()> + Send + Sync>;

/// The look-ups of one part.
pub struct Resolver {
    turn: Arc<Semaphore>,
    resolve: Resolve,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::with(|host, port| (host, port).to_socket_addrs().map(drop))
    }
}

impl Resolver {
    fn with(resolve: impl Fn(&str, u16) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), resolve: Arc::new(resolve) }
    }

    /// Waits until `host` was found; an address is at once. Waits for as long as the resolver takes, for one look-up
    /// before too: bound it. Given up, it goes on by itself, and the next one waits for its end.
    ///
    /// # Errors
    /// The resolver's.
    pub async fn found(&self, host: &str, port: u16) -> io::Result<()> {
        if host.parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        // It is never closed.
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else { return Ok(()) };
        let (host, resolve) = (host.to_owned(), Arc::clone(&self.resolve));
        let looked = spawn_blocking(move || {
            let found = resolve(&host, port);
            drop(turn);
            found
        });
        looked.await.unwrap_or_else(|_| Err(io::Error::other("the look-up ended with the runtime")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_resolver_that_hangs_holds_one_thread_however_often_it_is_asked() {
        let asked = Arc::new(AtomicUsize::new(0));
        let (answer, answers) = mpsc::channel::<()>();
        let (counted, answers) = (Arc::clone(&asked), Mutex::new(answers));
        let resolver = Resolver::with(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            answers.lock().expect("answers").recv().map_err(io::Error::other)
        });
        for _ in 0..20 {
            assert!(timeout(Duration::from_millis(5), resolver.found("database.test", 1)).await.is_err());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(resolver.found("127.0.0.1", 1).await.is_ok(), "an address needs nobody");
        // It ends, and the next one is asked about.
        answer.send(()).expect("it waits");
        answer.send(()).expect("it is there");
        let found = timeout(harness::PATIENCE, resolver.found("database.test", 1)).await.expect("in time");
        assert!(found.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        drop(answer);
        let refused = timeout(harness::PATIENCE, resolver.found("database.test", 1)).await.expect("in time");
        assert!(refused.is_err(), "and what it says is told");
    }
}
