//! What the venues' REST answers have in common: a refusal is a status and a few words in a JSON body, or no body at
//! all; a list is rows, of which some are ours.
//!
//! A venue's list of all tickers is asked for when several instruments are stale at once; a row that is broken spoils
//! neither the others nor the request. This file knows no venue.

use crate::json::{self, Fault, Json, clip};
use crate::protocol::{Instrument, RestRequest, VenueEvent, VenueQuote};
use shared::asset::Symbol;
use std::collections::HashMap;

/// Longest text of a venue's refusal we repeat: Gemini lists every symbol it knows.
const REASON_BYTES_MAX: usize = 160;

/// Why a request was refused, for a person: the first of the body's text fields `names` that is there, and the status.
#[must_use]
pub fn refusal(status: u16, body: &[u8], names: &[&str]) -> String {
    let root = json::parse_body(body).ok();
    let said =
        root.and_then(|root| names.iter().find_map(|name| root.get(name)?.text().filter(|text| !text.is_empty())));
    match said {
        Some(text) => format!("{} (HTTP {status})", clip(&text, REASON_BYTES_MAX)),
        None => format!("HTTP {status}"),
    }
}

/// Reads the body of an instrument list.
///
/// # Errors
/// That it was refused, or is no JSON; for a person.
pub fn list_body<'a>(status: u16, body: &'a [u8], names: &[&str]) -> Result<Json<'a>, String> {
    if status != 200 {
        return Err(refusal(status, body, names));
    }
    json::parse_body(body).map_err(|fault| fault.to_string())
}

/// The instruments that `read` finds in `rows`; what it cannot read is not for us.
///
/// # Errors
/// When there is none: such a list must not replace a good one.
pub fn instruments<Row>(
    rows: impl Iterator<Item = Row>,
    read: impl Fn(&Row) -> Option<Instrument>,
) -> Result<Vec<Instrument>, String> {
    let list: Vec<Instrument> = rows.filter_map(|row| read(&row)).collect();
    if list.is_empty() { Err("the list holds no instrument that can be read".to_owned()) } else { Ok(list) }
}

/// The instrument of a row that has its name, base and quote in the fields `[name, base, quote]`, for a venue that spells
/// names alike in both interfaces. `None` for what we do not price: a token whose name is no symbol.
#[must_use]
pub fn instrument(row: &Json<'_>, fields: [&str; 3], trading: bool) -> Option<Instrument> {
    let [name, base, quote] = row.pick(fields).map(|field| field.and_then(|field| field.text()));
    let name = name?.into_owned();
    let base = Symbol::new(base?.as_bytes())?;
    let quote = Symbol::new(quote?.as_bytes())?;
    Some(Instrument { rest_name: name.clone(), name, base, quote, trading })
}

/// Whether the field `name` of a row is the text `value`.
#[must_use]
pub fn says(row: &Json<'_>, name: &str, value: &str) -> bool {
    row.get(name).and_then(|field| field.text()).is_some_and(|text| text == value)
}

/// One instrument is asked for by its name, several by the list of all, where a venue takes no list of names.
#[must_use]
pub fn one_or_all(instruments: &[&Instrument], one: &str, all: &str) -> RestRequest {
    let path = match instruments {
        [instrument] => format!("{one}{}", instrument.rest_name),
        _ => all.to_owned(),
    };
    RestRequest { path }
}

/// Where an answer with tickers has what we look for.
pub struct TickerList {
    /// Fields of an error body that say what is wrong, the best first.
    pub reasons: &'static [&'static str],
    /// Whether a body is a refusal, and if so whether it is one of the instrument asked for (else of the request).
    pub refusal: fn(&Json<'_>) -> Option<bool>,
    /// Where the rows are, for a person.
    pub rows_name: &'static str,
    /// The rows, an array.
    pub rows: for<'a> fn(&Json<'a>) -> Option<Json<'a>>,
    /// The field of a row that is the instrument's REST name.
    pub name: &'static str,
}

impl TickerList {
    /// Tells the prices of `asked`: each row we asked for as a `Quote`, or as `Malformed` when `read`, given the row, the
    /// whole answer and the instrument, finds a fault in it; and `Refused` each instrument without a row, or all of them.
    pub fn tell(
        &self,
        (status, body): (u16, &[u8]),
        asked: &[&Instrument],
        read: impl Fn(&Json<'_>, &Json<'_>, &Instrument) -> Result<VenueQuote, Fault>,
        sink: &mut dyn FnMut(VenueEvent<'_>),
    ) {
        let answer = json::parse_body(body);
        let refused = answer.as_ref().ok().and_then(|answer| (self.refusal)(answer));
        if status != 200 || refused.is_some() {
            return tell_refusal(asked, refused == Some(true), &refusal(status, body, self.reasons), sink);
        }
        match answer.map(|answer| ((self.rows)(&answer).filter(Json::is_array), answer)) {
            Ok((Some(rows), answer)) => self.tell_rows(&rows, asked, |row, asked| read(row, &answer, asked), sink),
            Ok((None, _)) => sink(VenueEvent::Malformed { reason: format!("{} is not an array", self.rows_name) }),
            Err(fault) => sink(VenueEvent::Malformed { reason: fault.to_string() }),
        }
    }

    fn tell_rows(
        &self,
        rows: &Json<'_>,
        asked: &[&Instrument],
        read: impl Fn(&Json<'_>, &Instrument) -> Result<VenueQuote, Fault>,
        sink: &mut dyn FnMut(VenueEvent<'_>),
    ) {
        let by_name = asked.iter().map(|asked| (asked.rest_name.as_str(), *asked));
        let mut open: HashMap<&str, &Instrument> = by_name.collect();
        for row in rows.items() {
            let name = row.get(self.name).and_then(|name| name.text());
            let Some(instrument) = name.and_then(|name| open.remove(name.as_ref())) else { continue };
            match read(&row, instrument) {
                Ok(quote) => sink(VenueEvent::Quote(VenueQuote { snapshot: true, ..quote })),
                Err(fault) => sink(VenueEvent::Malformed { reason: format!("{}: {fault}", instrument.name) }),
            }
        }
        for instrument in asked.iter().filter(|asked| open.contains_key(asked.rest_name.as_str())) {
            let reason = "not in the venue's list of tickers";
            sink(VenueEvent::Refused { name: Some(&instrument.name), request: None, reason });
        }
    }
}

/// Tells that the request was refused: for the one instrument in it when the venue speaks `of_instrument`, else (a rate
/// limit, a fault of the server, a request for several) as a whole.
pub fn tell_refusal(asked: &[&Instrument], of_instrument: bool, reason: &str, sink: &mut dyn FnMut(VenueEvent<'_>)) {
    let name = match asked {
        [one] if of_instrument => Some(one.name.as_str()),
        _ => None,
    };
    sink(VenueEvent::Refused { name, request: None, reason });
}

/// Whether the `code` in the field `name` of an answer says a refusal: any but 0, and `unknown` says it of an instrument.
#[must_use]
pub fn refusal_by_code(answer: &Json<'_>, name: &str, unknown: u64) -> Option<bool> {
    let code = answer.get(name)?;
    (code.whole() != Some(0)).then(|| code.whole() == Some(unknown))
}
