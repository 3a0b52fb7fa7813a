//! JSON as the venues send it: borrowed, bounded, and with every number left as the text it came in.
//!
//! The seven decoders and the simulators share this one way in. sonic-rs finds the values; nothing here ever makes a
//! number of a price's text but `Price::parse`. What a field *means* is not known here.

use shared::price::{Price, PriceRefused};
use shared::quote::Field;
use sonic_rs::{JsonValueTrait, LazyValue};
use std::borrow::Cow;
use std::fmt;

/// Longest frame we read: 1 MiB. The largest recorded one (a whole Gemini book) is 170 KiB.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Longest REST body we read: 8 MiB. The largest is an instrument list of about 1,500 pairs of 1 KiB each.
pub const BODY_BYTES_MAX: usize = 8 << 20;

/// Deepest nesting we read. The deepest venue frame has 6 levels; parsing recurses, so this bounds the stack.
pub const DEPTH_MAX: usize = 32;

/// Longest text of a syntax error we repeat: sonic-rs quotes the frame in it.
const SYNTAX_TEXT_MAX: usize = 120;

/// Why a frame, or a field of it, cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Longer than the bound; the number is its length in bytes.
    TooLarge(usize),
    /// Bytes that are not UTF-8.
    NotUtf8,
    /// Nested deeper than `DEPTH_MAX`.
    TooDeep,
    /// Not JSON; what the parser says.
    Syntax(String),
    /// A field that must be there is not.
    Missing(&'static str),
    /// A field is of the wrong kind; its name and what it should be.
    Wrong(&'static str, &'static str),
    /// A price field is not a price; its name and why.
    BadPrice(&'static str, PriceRefused),
    /// A price field is below zero.
    Negative(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes) => write!(f, "{bytes} bytes are more than we read"),
            Self::NotUtf8 => f.write_str("not UTF-8"),
            Self::TooDeep => write!(f, "nested deeper than {DEPTH_MAX}"),
            Self::Syntax(text) => write!(f, "not JSON: {text}"),
            Self::Missing(field) => write!(f, "{field} is missing"),
            Self::Wrong(field, want) => write!(f, "{field} is not {want}"),
            Self::BadPrice(field, why) => write!(f, "{field}: {why}"),
            Self::Negative(field) => write!(f, "{field}: price is below zero"),
        }
    }
}

impl std::error::Error for Fault {}

/// One JSON value, borrowed from the frame it stands in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Json<'a>(LazyValue<'a>);

/// Reads a WebSocket frame. The whole text is checked, so every value found in it later is well-formed.
///
/// # Errors
/// `TooLarge`, `NotUtf8`, `TooDeep` or `Syntax`.
pub fn parse(frame: &[u8]) -> Result<Json<'_>, Fault> {
    parse_within(frame, FRAME_BYTES_MAX)
}

/// Reads a REST body: as [`parse`], up to `BODY_BYTES_MAX`.
///
/// # Errors
/// As [`parse`].
pub fn parse_body(body: &[u8]) -> Result<Json<'_>, Fault> {
    parse_within(body, BODY_BYTES_MAX)
}

fn parse_within(bytes: &[u8], bytes_max: usize) -> Result<Json<'_>, Fault> {
    if bytes.len() > bytes_max {
        return Err(Fault::TooLarge(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Fault::NotUtf8)?;
    check_shape(bytes)?;
    let value: LazyValue<'_> = sonic_rs::from_str(text).map_err(|error| {
        let line = error.to_string().lines().next().unwrap_or_default().to_owned();
        Fault::Syntax(clip(&line, SYNTAX_TEXT_MAX).to_owned())
    })?;
    Ok(Json(value))
}

/// Depth and escapes in one pass. sonic-rs bounds no depth when it skips, and skips `\u` escapes without looking at the
/// digits; what passes here and there is JSON to the letter.
fn check_shape(bytes: &[u8]) -> Result<(), Fault> {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match (in_string, byte) {
            (true, b'\\') => at += escape_length(&bytes[at..])?,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(Fault::TooDeep);
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Length of the escape whose text after the backslash opens `rest`.
fn escape_length(rest: &[u8]) -> Result<usize, Fault> {
    let hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    match rest {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Ok(1),
        [b'u', digits @ ..] if digits.get(..4).is_some_and(hex) => Ok(5),
        _ => Err(Fault::Syntax("bad escape in a string".to_owned())),
    }
}

impl<'a> Json<'a> {
    /// The fields of an object in their order, repeated ones too; none for anything else.
    pub fn fields(&self) -> impl Iterator<Item = (Cow<'a, str>, Self)> + use<'a> {
        let fields = self.0.clone().into_object_iter();
        fields.into_iter().flatten().map_while(Result::ok).map(|(name, value)| (name, Self(value)))
    }

    /// The values of an array in their order; none for anything else.
    pub fn items(&self) -> impl Iterator<Item = Self> + use<'a> {
        self.0.clone().into_array_iter().into_iter().flatten().map_while(Result::ok).map(Self)
    }

    /// The values of several fields of an object, found in one pass. Of a repeated field the last counts.
    #[must_use]
    pub fn pick<const N: usize>(&self, names: [&str; N]) -> [Option<Self>; N] {
        let mut found = [const { None }; N];
        for (name, value) in self.fields() {
            if let Some(at) = names.iter().position(|wanted| *wanted == name) {
                found[at] = Some(value);
            }
        }
        found
    }

    /// The value of one field of an object. Of a repeated field the last counts.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Self> {
        let [value] = self.pick([name]);
        value
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.0.is_object()
    }

    /// Whether it is an array.
    #[must_use]
    pub fn is_array(&self) -> bool {
        self.0.is_array()
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// The value of `true` or `false`.
    #[must_use]
    pub fn flag(&self) -> Option<bool> {
        self.0.as_bool()
    }

    /// The text it is written in, quotes included.
    #[must_use]
    pub fn raw(&self) -> Cow<'a, str> {
        // Behind a number sonic-rs leaves the white space that stood there.
        match self.0.as_raw_cow() {
            Cow::Borrowed(raw) => Cow::Borrowed(raw.trim_ascii_end()),
            Cow::Owned(raw) => Cow::Owned(raw.trim_ascii_end().to_owned()),
        }
    }

    /// The text of a string, escapes resolved; `None` for anything else, and for half a surrogate pair.
    #[must_use]
    pub fn text(&self) -> Option<Cow<'a, str>> {
        if !self.0.is_str() {
            return None;
        }
        match self.0.as_raw_cow() {
            Cow::Borrowed(raw) if !raw.contains('\\') => raw.get(1..raw.len() - 1).map(Cow::Borrowed),
            raw => sonic_rs::from_str::<String>(&raw).ok().map(Cow::Owned),
        }
    }

    /// The text of a string, or of a number as it was written; `None` for anything else.
    #[must_use]
    pub fn text_or_number(&self) -> Option<Cow<'a, str>> {
        if self.0.is_number() { Some(self.raw()) } else { self.text() }
    }

    /// A whole number written as digits alone, bare or in quotes, below 2^64.
    #[must_use]
    pub fn whole(&self) -> Option<u64> {
        parse_whole(&self.text_or_number()?)
    }

    /// The whole part of a number at or above zero, bare or in quotes: `"1790359171119.653000"` gives 1790359171119.
    #[must_use]
    pub fn whole_part(&self) -> Option<u64> {
        let text = self.text_or_number()?;
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
        parse_whole(fraction.get(..1)?)?;
        fraction.bytes().all(|digit| digit.is_ascii_digit()).then(|| parse_whole(whole)).flatten()
    }
}

/// Digits alone, as a number; a sign is not a digit.
pub(crate) fn parse_whole(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A price field: absent → `Unchanged`; `""` and `null` → `Empty`; a string or a bare number → its exact value.
///
/// # Errors
/// `Wrong` when it is neither string, number nor null; `BadPrice` or `Negative` when it is no price.
pub fn price(name: &'static str, value: Option<&Json<'_>>) -> Result<Field, Fault> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(if value.is_some() { Field::Empty } else { Field::Unchanged });
    };
    let text = value.text_or_number().ok_or(Fault::Wrong(name, "a string or a number"))?;
    if text.is_empty() {
        return Ok(Field::Empty);
    }
    let price = Price::parse(text.as_bytes()).map_err(|why| Fault::BadPrice(name, why))?;
    if price.mantissa() < 0 { Err(Fault::Negative(name)) } else { Ok(Field::At(price)) }
}

/// A price field of a venue that writes zero where there is no price: as [`price`], and zero → `Empty`.
///
/// # Errors
/// As [`price`].
pub fn price_zero_absent(name: &'static str, value: Option<&Json<'_>>) -> Result<Field, Fault> {
    let field = price(name, value)?;
    Ok(if field.price().is_some_and(|price| !price.is_positive()) { Field::Empty } else { field })
}

/// The text of a string field that must be there.
///
/// # Errors
/// `Missing`, or `Wrong` when it is not a string.
pub fn required_text<'a>(name: &'static str, value: Option<&Json<'a>>) -> Result<Cow<'a, str>, Fault> {
    value.ok_or(Fault::Missing(name))?.text().ok_or(Fault::Wrong(name, "a string"))
}

/// The first `bytes_max` bytes of `text`, or fewer, cut between characters.
#[must_use]
pub fn clip(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// `text` as a JSON string, quotes included.
#[must_use]
pub fn quoted(text: &str) -> String {
    // A string always serializes.
    sonic_rs::to_string(text).unwrap_or_default()
}

/// `texts` as a JSON array of strings.
#[must_use]
pub fn quoted_list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let quoted: Vec<String> = texts.into_iter().map(|text| quoted(text.as_ref())).collect();
    format!("[{}]", quoted.join(","))
}

#[cfg(test)]
mod tests;
