//! What a decoder read out of one frame, before anyone is told.
//!
//! A frame is used whole or not at all: a decoder collects what the frame says, and only a frame without a fault is
//! told. This file knows no venue.

use crate::json::Fault;
use crate::protocol::{VenueEvent, VenueQuote};
use std::borrow::Cow;

/// A [`VenueEvent`] whose text may be the frame's own or, where that had escapes in it, a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// See [`VenueEvent::Quote`].
    Quote(VenueQuote),
    /// See [`VenueEvent::Subscribed`].
    Subscribed {
        /// The instrument.
        name: Option<Cow<'a, str>>,
        /// Our request's number.
        request: Option<u64>,
    },
    /// See [`VenueEvent::Refused`].
    Refused {
        /// The instrument.
        name: Option<Cow<'a, str>>,
        /// Our request's number.
        request: Option<u64>,
        /// What the venue says.
        reason: Cow<'a, str>,
    },
    /// See [`VenueEvent::Heartbeat`].
    Heartbeat {
        /// Text to send.
        answer: Option<String>,
    },
    /// See [`VenueEvent::Status`].
    Status {
        /// What it says.
        text: Cow<'a, str>,
        /// Whether to open another connection.
        reconnect: bool,
    },
    /// See [`VenueEvent::Ignored`].
    Ignored {
        /// What it is.
        what: Cow<'a, str>,
    },
}

impl<'a> Said<'a> {
    /// A frame that is not for us.
    pub fn ignored(what: impl Into<Cow<'a, str>>) -> Self {
        Self::Ignored { what: what.into() }
    }

    /// A refused request that names no instrument.
    pub fn refused(reason: impl Into<Cow<'a, str>>) -> Self {
        Self::Refused { name: None, request: None, reason: reason.into() }
    }

    fn event(&self) -> VenueEvent<'_> {
        match self {
            Self::Quote(quote) => VenueEvent::Quote(quote.clone()),
            Self::Subscribed { name, request } => VenueEvent::Subscribed { name: name.as_deref(), request: *request },
            Self::Refused { name, request, reason } => {
                VenueEvent::Refused { name: name.as_deref(), request: *request, reason }
            }
            Self::Heartbeat { answer } => VenueEvent::Heartbeat { answer: answer.clone() },
            Self::Status { text, reconnect } => VenueEvent::Status { text, reconnect: *reconnect },
            Self::Ignored { what } => VenueEvent::Ignored { what },
        }
    }
}

/// Tells what was read, in the frame's order; a fault is told alone.
pub fn tell(read: Result<Vec<Said<'_>>, Fault>, sink: &mut dyn FnMut(VenueEvent<'_>)) {
    match read {
        Ok(said) => said.iter().for_each(|said| sink(said.event())),
        Err(fault) => sink(VenueEvent::Malformed { reason: fault.to_string() }),
    }
}
