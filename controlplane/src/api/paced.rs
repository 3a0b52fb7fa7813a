//! A socket whose peer must take what is sent: one that takes nothing for too long is given up.
//!
//! Time runs only while something waits to be written, so a long answer may take as long as its reader keeps reading,
//! and a quiet connection costs no timer.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Reads and writes `inner`; a write that nothing is taken of within the bound fails.
#[derive(Debug)]
pub struct Paced<S> {
    inner: S,
    stall_max: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    /// Gives up a peer that takes nothing for `stall_max`.
    #[must_use]
    pub const fn new(inner: S, stall_max: Duration) -> Self {
        Self { inner, stall_max, stalled: None }
    }

    /// What becomes of a write: it went on, or has waited too long.
    fn paced<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let stall_max = self.stall_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall_max)));
        stalled.as_mut().poll(context).map(|()| {
            let why = format!("the peer took nothing for {} s", stall_max.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.paced(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        self.paced(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(context);
        self.paced(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(context);
        self.paced(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const STALL_MAX: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn who_keeps_reading_may_take_hours() {
        let (socket, mut peer) = tokio::io::duplex(8);
        let sending = tokio::spawn(async move {
            let mut paced = Paced::new(socket, STALL_MAX);
            paced.write_all(&[7; 1_000]).await
        });
        let begun = tokio::time::Instant::now();
        for _ in 0..1_000 / 8 {
            sleep(STALL_MAX - Duration::from_secs(1)).await;
            peer.read_exact(&mut [0; 8]).await.expect("more");
        }
        sending.await.expect("no panic").expect("all was taken");
        assert!(begun.elapsed() > 100 * STALL_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_reading_is_given_up_and_a_quiet_connection_is_not() {
        let (socket, peer) = tokio::io::duplex(8);
        let mut paced = Paced::new(socket, STALL_MAX);
        sleep(10 * STALL_MAX).await;
        paced.write_all(&[7; 8]).await.expect("there is room");
        sleep(10 * STALL_MAX).await;
        let begun = tokio::time::Instant::now();
        let failed = paced.write_all(&[7; 1]).await.expect_err("nobody reads");
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert!((STALL_MAX..2 * STALL_MAX).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        drop(peer);
    }
}
