//! Sockets that asked for something other than a price, on their way to the control plane.

use std::fmt;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use crossbeam_channel::{Sender, TrySendError};

/// A socket that asked for something other than a price, with the bytes read from it so far.
pub struct HandedOver {
    /// The connection, in blocking mode.
    pub stream: TcpStream,
    /// Everything read from it that has not been answered: the request begins here.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for HandedOver {
    /// Shows no byte of the request: keys stand in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandedOver").field("stream", &self.stream).field("bytes", &self.bytes.len()).finish()
    }
}

/// Gives a connection away. When the control plane is behind, gives it back: the answer is then `overloaded`.
///
/// The descriptor may be in either mode; it arrives in blocking mode.
pub(crate) fn hand_over(to: &Sender<HandedOver>, descriptor: OwnedFd, bytes: &[u8]) -> Result<(), OwnedFd> {
    let stream = TcpStream::from(descriptor);
    // It can only fail for a descriptor that is none; the receiver would find out by its first read.
    let _ = stream.set_nonblocking(false);
    to.try_send(HandedOver { stream, bytes: bytes.to_vec() }).map_err(|error| match error {
        TrySendError::Full(refused) | TrySendError::Disconnected(refused) => OwnedFd::from(refused.stream),
    })
}
