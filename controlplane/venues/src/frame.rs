//! What a decoder read out of one frame, before anyone is told.
//!
//! A frame is used whole or not at all: a decoder collects what the frame says, and only a frame without a fault is
//! told. This file knows no venue.

use crate::json::{self, Fault, Json, clip};
use crate::protocol::{VenueEvent, VenueQuote};
use shared::quote::Field;
use std::borrow::Cow;

/// Longest text of a venue that is passed on for people to read; its longest known refusal (OKX) has 160 bytes.
const TEXT_BYTES_MAX: usize = 256;

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
                let reason = clip(reason, TEXT_BYTES_MAX);
                VenueEvent::Refused { name: name.as_deref(), request: *request, reason }
            }
            Self::Heartbeat { answer } => VenueEvent::Heartbeat { answer: answer.clone() },
            Self::Status { text, reconnect } => {
                VenueEvent::Status { text: clip(text, TEXT_BYTES_MAX), reconnect: *reconnect }
            }
            Self::Ignored { what } => VenueEvent::Ignored { what: clip(what, TEXT_BYTES_MAX) },
        }
    }
}

/// Things one frame may say. 1,024 × ~250 bytes = 256 KiB; the most a venue documents is one for each instrument of a
/// connection, 400.
pub const SAID_PER_FRAME_MAX: usize = 1_024;

/// Adds what a frame says `next`.
///
/// # Errors
/// `Wrong` when it has said `SAID_PER_FRAME_MAX` things.
pub fn push<'a>(said: &mut Vec<Said<'a>>, next: Said<'a>) -> Result<(), Fault> {
    if said.len() >= SAID_PER_FRAME_MAX {
        return Err(Fault::Wrong("the number of entries", "at most 1024"));
    }
    said.push(next);
    Ok(())
}

/// Reads a frame that is an object, as every JSON frame of our venues is.
///
/// # Errors
/// As [`json::parse`], and `Wrong` when it is something else.
pub fn object(bytes: &[u8]) -> Result<Json<'_>, Fault> {
    let frame = json::parse(bytes)?;
    if frame.is_object() { Ok(frame) } else { Err(Fault::Wrong("frame", "an object")) }
}

/// Tells what was read, in the frame's order; a fault is told alone.
pub fn tell(read: Result<Vec<Said<'_>>, Fault>, sink: &mut dyn FnMut(VenueEvent<'_>)) {
    match read {
        Ok(said) => said.iter().for_each(|said| sink(said.event())),
        Err(fault) => sink(VenueEvent::Malformed { reason: fault.to_string() }),
    }
}

/// The name that stands right after `marker` in a venue's prose (`instId:NMR-USDT doesn't exist`): letters, digits,
/// `_` and `-`. Some venues name a refused instrument nowhere else.
#[must_use]
pub fn name_after<'a>(prose: &Cow<'a, str>, marker: &str) -> Option<Cow<'a, str>> {
    let start = prose.find(marker)? + marker.len();
    let rest = &prose[start..];
    let end = rest.find(|letter: char| !letter.is_alphanumeric() && !matches!(letter, '_' | '-')).unwrap_or(rest.len());
    (end > 0).then(|| part(prose, start, start + end))
}

/// The bytes `from..to` of `text`, borrowed where it is.
#[must_use]
pub fn part<'a>(text: &Cow<'a, str>, from: usize, to: usize) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[from..to]),
        Cow::Owned(text) => Cow::Owned(text[from..to].to_owned()),
    }
}

/// `quote`, if it speaks of at least one price.
///
/// # Errors
/// `Missing` with the name of the `field` that should have been there.
pub fn with_a_price(quote: VenueQuote, field: &'static str) -> Result<VenueQuote, Fault> {
    let silent = [quote.last, quote.bid, quote.ask].iter().all(|price| *price == Field::Unchanged);
    if silent { Err(Fault::Missing(field)) } else { Ok(quote) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_prose() {
        for (prose, marker, expected) in [
            ("Wrong URL or channel:tickers,instId:NMR-USDT doesn't exist.", "instId:", Some("NMR-USDT")),
            ("unknown currency pair: NOPE_USD", "pair: ", Some("NOPE_USD")),
            ("unknown currency pair: ", "pair: ", None),
            ("something else", "pair: ", None),
        ] {
            assert_eq!(name_after(&Cow::Borrowed(prose), marker).as_deref(), expected, "{prose}");
            assert_eq!(name_after(&Cow::Owned(prose.to_owned()), marker).as_deref(), expected, "{prose}");
        }
    }

    #[test]
    fn what_is_for_people_is_clipped() {
        let long = "é".repeat(1_000);
        let status = Said::Status { text: Cow::Borrowed(&long), reconnect: true };
        for said in [Said::ignored(long.as_str()), Said::refused(long.as_str()), status] {
            let mut told = 0;
            tell(Ok(vec![said]), &mut |event| match event {
                VenueEvent::Ignored { what: text }
                | VenueEvent::Refused { reason: text, .. }
                | VenueEvent::Status { text, .. } => told = text.len(),
                _ => {}
            });
            assert_eq!(told, TEXT_BYTES_MAX);
        }
    }

    #[test]
    fn a_fault_is_told_alone() {
        let mut told = Vec::new();
        tell(Err(Fault::Missing("b")), &mut |event| told.push(format!("{event:?}")));
        tell(Ok(vec![Said::ignored("a"), Said::refused("b")]), &mut |event| told.push(format!("{event:?}")));
        assert_eq!(
            told,
            [
                "Malformed { reason: \"b is missing\" }",
                "Ignored { what: \"a\" }",
                "Refused { name: None, request: None, reason: \"b\" }"
            ]
        );
    }
}
