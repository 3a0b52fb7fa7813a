//! What a venue's REST refusals have in common: a status, and a few words in a JSON body, or no body at all.

use crate::json::{self, Json, clip};

/// Longest text of a venue's refusal we repeat: Gemini lists every symbol it knows.
const REASON_BYTES_MAX: usize = 160;

/// Why a request was refused, for a person: the first of the body's text fields `names` that is there, and the status.
#[must_use]
pub fn refusal(status: u16, body: &[u8], names: &[&str]) -> String {
    let root = json::parse_body(body).ok();
    let said = root.and_then(|root| names.iter().find_map(|name| root.get(name)?.text().filter(|text| !text.is_empty())));
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
