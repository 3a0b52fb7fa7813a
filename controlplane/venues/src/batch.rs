//! Quotes of one frame, held back until the whole frame is read: of a malformed frame nothing is used.

use crate::json::Fault;
use crate::protocol::{VenueEvent, VenueQuote};

/// Quotes one frame may hold. 1,024 × ~200 bytes = 200 KiB; the most seen in a frame is 1, the most a venue documents
/// is one for each instrument of a connection, 400.
pub const QUOTES_PER_FRAME_MAX: usize = 1_024;

/// Quotes whose room is kept between frames.
const QUOTES_KEPT: usize = 64;

/// Quotes of the frame being read.
#[derive(Debug, Default)]
pub struct QuoteBatch(Vec<VenueQuote>);

impl QuoteBatch {
    /// Adds a quote.
    ///
    /// # Errors
    /// `Wrong` when the frame holds more than `QUOTES_PER_FRAME_MAX`.
    pub fn push(&mut self, quote: VenueQuote) -> Result<(), Fault> {
        if self.0.len() == QUOTES_PER_FRAME_MAX {
            return Err(Fault::Wrong("the number of quotes", "at most 1024"));
        }
        self.0.push(quote);
        Ok(())
    }

    /// Yields what the frame gave: its quotes if it is `good`, else only that it is malformed. Empty afterwards.
    pub fn finish(&mut self, good: Result<(), Fault>, sink: &mut dyn FnMut(VenueEvent<'_>)) {
        match good {
            Ok(()) => self.0.drain(..).for_each(|quote| sink(VenueEvent::Quote(quote))),
            Err(fault) => {
                self.0.clear();
                sink(VenueEvent::Malformed { reason: fault.to_string() });
            }
        }
        self.0.shrink_to(QUOTES_KEPT);
    }
}
