//! The body of a report: parts as they come, an error where the last one does not, and a note of how far it went: to
//! its end once all of it was handed to the connection, which tells nobody what arrived.

use crate::reports::desk::Place;
use crate::reports::log::Note;
use crate::reports::stream::Part;
use axum::body::{Body, Bytes};
use futures_util::stream;
use std::io;
use tokio::sync::mpsc::Receiver;

/// What the body holds until the connection lets go of it.
struct Sending {
    parts: Receiver<Part>,
    note: Note,
    /// Kept until the reader has everything, or is gone.
    place: Option<Place>,
    is_over: bool,
}

/// The body of the parts that come: it fails where the last is missing, so that the connection ends without the body's
/// end. Whoever lets go of it ends the work behind it.
pub(super) fn of(parts: Receiver<Part>, note: Note, place: Option<Place>) -> Body {
    let sending = Sending { parts, note, place, is_over: false };
    Body::from_stream(stream::unfold(sending, |mut sending| async move {
        if sending.is_over {
            return None;
        }
        let next = match sending.parts.recv().await {
            Some(part) => {
                sending.is_over = part.is_last;
                sending.note.sent(part.lines, part.plain_bytes);
                if part.is_last {
                    sending.note.complete();
                    sending.place = None;
                }
                Ok(Bytes::from(part.bytes))
            }
            None => {
                sending.is_over = true;
                Err(io::Error::other("the report ended early"))
            }
        };
        Some((next, sending))
    }))
}
