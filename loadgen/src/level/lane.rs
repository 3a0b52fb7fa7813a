//! What the loop of a thread asks of the connections of one protocol.
//!
//! TCP and UDP each are a lane: the loop knows when turns are due and when something came; a lane knows how to send, what
//! an answer is worth, and what is lost. Neither knows of other threads.

use super::course::Course;
use mio::event::Event;

/// One protocol's connections on one thread.
pub(crate) trait Lane<'a> {
    /// What is due, and what is counted.
    fn course(&mut self) -> &mut Course<'a>;

    /// How many connections there are.
    fn len(&self) -> usize;

    /// Something happened to the connection at `index`. True: it may have room for requests that are due.
    fn happened(&mut self, index: usize, event: &Event) -> bool;

    /// Sends what is due at the connection at `index`, as far as there is room; in a closed loop, what there is room for.
    fn send(&mut self, index: usize, now_ns: u64);

    /// Gives up what is lost, and mends what is broken. Called about twenty times a second.
    fn sweep(&mut self, now_ns: u64);

    /// Ends the count: what is in flight is lost, but what was meant for `left_out_from_ns` or later is left out.
    fn finish(self, left_out_from_ns: u64) -> Course<'a>
    where
        Self: Sized;
}
