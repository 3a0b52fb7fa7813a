//! Which streams of a connection have spoken: the first frame of one restates its market, the others report changes.
//!
//! Four venues send whole restatements every time, so that their own word "snapshot" (Bybit) or their silence about it
//! (Gate.io, Crypto.com, OKX) says nothing; only the first frame may carry an old time or follow a gap.

use std::collections::HashSet;

/// Streams remembered on one connection. A connection carries at most 400 instruments on two channels each; what lies
/// beyond this is a server that sends what nobody asked for, and its frames count as changes.
pub const STREAMS_MAX: usize = 1_024;

/// The streams that have spoken since the connection was made.
#[derive(Clone, Debug, Default)]
pub struct Heard(HashSet<Box<str>>);

impl Heard {
    /// Whether this is the first time that `stream` speaks; from now on it is not.
    pub fn is_first(&mut self, stream: &str) -> bool {
        if self.0.contains(stream) || self.0.len() >= STREAMS_MAX {
            return false;
        }
        self.0.insert(stream.into())
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_time_is_first() {
        let mut heard = Heard::default();
        assert!(heard.is_first("a"));
        assert!(heard.is_first("b"));
        assert!(!heard.is_first("a"));
        heard.clear();
        assert!(heard.is_first("a"));
    }

    #[test]
    fn memory_is_bounded() {
        let mut heard = Heard::default();
        let firsts = (0..STREAMS_MAX + 10).filter(|index| heard.is_first(&index.to_string())).count();
        assert_eq!(firsts, STREAMS_MAX);
    }
}
