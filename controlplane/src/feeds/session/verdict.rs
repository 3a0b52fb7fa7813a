//! Why a connection ends or wants to be replaced, in words for people.

use std::fmt;

/// What a conversation has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The connection is of no more use.
    End(End),
    /// It still works, but another should be opened and then take its place: why.
    Successor(String),
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The venue closed it, or the transport failed.
    Closed(String),
    /// Nothing came, not even an answer to our ping: half-open TCP, a dead peer, a dead path.
    Dead {
        /// Silence, ms.
        silent_ms: u64,
    },
    /// Pings are answered, but the venue's own signs of life have stopped.
    Mute {
        /// Silence, ms.
        silent_ms: u64,
    },
    /// A message was lost.
    Gap {
        /// Number that should have come.
        expected: u64,
        /// Number that came.
        got: u64,
    },
    /// Too many frames in a row broke the protocol.
    Malformed,
    /// Subscriptions were asked for and none delivered.
    NothingDelivered,
    /// Heartbeats go on, quotes have stopped.
    QuotesStopped {
        /// Silence, ms.
        silent_ms: u64,
    },
    /// A younger connection took its place.
    Replaced,
    /// We were told to stop, or nothing is to be subscribed any more.
    Stopped,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(why) => write!(f, "closed: {why}"),
            Self::Dead { silent_ms } => write!(f, "dead: nothing came for {silent_ms} ms, not even a pong"),
            Self::Mute { silent_ms } => write!(f, "mute: no frame of the venue's own for {silent_ms} ms"),
            Self::Gap { expected, got } => write!(f, "a message was lost: expected number {expected}, got {got}"),
            Self::Malformed => f.write_str("too many frames in a row break the protocol"),
            Self::NothingDelivered => f.write_str("subscriptions were asked for and none delivered"),
            Self::QuotesStopped { silent_ms } => write!(f, "heartbeats go on, but no quote came for {silent_ms} ms"),
            Self::Replaced => f.write_str("replaced by a younger connection"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}
