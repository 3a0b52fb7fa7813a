//! A socket with bytes in front of it that were read before it came here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads `prefix` first, then from `inner`; writes go to `inner`.
#[derive(Debug)]
pub struct Prefixed<S> {
    prefix: Vec<u8>,
    read: usize,
    inner: S,
}

impl<S> Prefixed<S> {
    /// Puts `prefix` in front of `inner`.
    #[must_use]
    pub const fn new(prefix: Vec<u8>, inner: S) -> Self {
        Self { prefix, read: 0, inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let waiting = &this.prefix[this.read..];
        if waiting.is_empty() {
            return Pin::new(&mut this.inner).poll_read(context, into);
        }
        let length = waiting.len().min(into.remaining());
        into.put_slice(&waiting[..length]);
        this.read += length;
        if this.read == this.prefix.len() {
            // The connection may live on for a while: its first bytes need not.
            (this.prefix, this.read) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Reads everything in pieces of `piece` bytes.
    async fn check(prefix: &str, rest: &'static str, piece: usize) {
        let mut stream = Prefixed::new(prefix.as_bytes().to_vec(), rest.as_bytes());
        let (mut got, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            let length = stream.read(&mut buffer).await.expect("memory reads");
            got.extend_from_slice(&buffer[..length]);
            if length == 0 {
                break;
            }
        }
        assert_eq!(String::from_utf8_lossy(&got), format!("{prefix}{rest}"));
    }

    #[tokio::test]
    async fn the_prefix_comes_first_in_pieces_of_any_size() {
        for piece in [1, 2, 3, 7, 100] {
            check("GET / HTTP", "/1.1\r\n\r\n", piece).await;
            check("", "all of it", piece).await;
            check("all of it", "", piece).await;
        }
    }

    #[tokio::test]
    async fn writes_go_to_the_socket() {
        let (client, mut server) = tokio::io::duplex(64);
        let mut stream = Prefixed::new(b"unread".to_vec(), client);
        stream.write_all(b"answer").await.expect("room");
        stream.shutdown().await.expect("closed");
        let mut got = String::new();
        server.read_to_string(&mut got).await.expect("text");
        assert_eq!(got, "answer");
    }
}
