//! Error answers: the problem document of HTTP, the short object of JSON datagrams, and the words in them.

use super::Writer;
use super::date;
use shared::asset::Symbol;
use shared::code::Code;

/// An error with its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Which.
    pub(crate) code: Code,
    /// What to do about it, where the code's own words are not all there is to say.
    detail: &'static str,
    /// The asset it is about, if it is about one of several.
    asset: Option<Symbol>,
    /// Least `Retry-After`, s, where there is one.
    wait_s: u32,
    /// It is of a lookup: no load of requests is to blame for it.
    pub(crate) is_of_lookup: bool,
}

impl Problem {
    /// The error in its usual words.
    pub(crate) const fn of(code: Code) -> Self {
        Self::saying(code, usual_detail(code))
    }

    /// The error of a request that needs a lookup. More of them than there may be are one key's doing, or the venues', and
    /// having fewer connections would not help.
    pub(crate) const fn of_lookup(code: Code) -> Self {
        let usual = match code {
            Code::Overloaded => Self::saying(code, "More is being looked up than may be at a time. Try again."),
            _ => Self::of(code),
        };
        Self { is_of_lookup: true, ..usual }
    }

    /// The error in words of its own: plain ASCII without quotes, for they go into JSON as they are.
    pub(crate) const fn saying(code: Code, detail: &'static str) -> Self {
        Self { code, detail, asset: None, wait_s: 0, is_of_lookup: false }
    }

    /// The same error, about `asset`.
    pub(crate) const fn about(self, asset: Symbol) -> Self {
        Self { asset: Some(asset), ..self }
    }

    /// The same error, after which to wait so long at least.
    pub(crate) const fn after(self, wait_s: u32) -> Self {
        Self { wait_s, ..self }
    }

    /// `Retry-After`, seconds, where trying again can help.
    pub(crate) fn retry_after_s(&self, wall_ms: u64) -> Option<u64> {
        retry_after_s(self.code, wall_ms).map(|usual_s| usual_s.max(u64::from(self.wait_s)))
    }

    /// Writes the problem document.
    pub(crate) fn push_document(&self, writer: &mut Writer<'_>) {
        writer.push(b"{\"type\":\"/docs#");
        writer.push(self.code.name().as_bytes());
        writer.push(b"\",\"title\":\"");
        writer.push(self.code.title().as_bytes());
        writer.push(b"\",\"status\":");
        writer.push_number(u64::from(self.code.status()));
        writer.push(b",\"code\":\"");
        writer.push(self.code.name().as_bytes());
        writer.push(b"\",\"detail\":\"");
        if let Some(asset) = self.asset {
            writer.push(asset.as_str().as_bytes());
            writer.push(b": ");
        }
        writer.push(self.detail.as_bytes());
        writer.push(b"\"}");
    }
}

/// Writes the error object of a JSON datagram.
pub(crate) fn push_datagram_error(writer: &mut Writer<'_>, id: Option<u64>, code: Code) {
    writer.push(b"{");
    if let Some(id) = id {
        writer.push(b"\"id\":");
        writer.push_number(id);
        writer.push(b",");
    }
    writer.push(b"\"status\":");
    writer.push_number(u64::from(code.status()));
    writer.push(b",\"code\":\"");
    writer.push(code.name().as_bytes());
    writer.push(b"\"}");
}

/// `Retry-After` of an error, seconds, where trying again can help.
#[must_use]
pub const fn retry_after_s(code: Code, wall_ms: u64) -> Option<u64> {
    match code {
        Code::RateLimitedMonth => Some(date::seconds_to_next_month(wall_ms)),
        _ if matches!(code.status(), 429 | 503) => Some(1),
        _ => None,
    }
}

/// What to do about an error, in a sentence.
#[must_use]
pub const fn usual_detail(code: Code) -> &'static str {
    match code {
        Code::AssetMissing => "Name an asset, as in /price?asset=BTC.",
        Code::AssetInvalid => "A symbol is 1 to 16 letters and digits, such as BTC or 1INCH.",
        Code::TooManyAssets => "Ask for at most 64 assets at a time, or for all.",
        Code::ParameterInvalid => "See the reference for what this parameter takes.",
        Code::RequestMalformed => "The request is not well-formed HTTP/1.1. The connection is closed.",
        Code::KeyMissing => "Send the key as Authorization: Bearer KEY or as X-API-Key: KEY.",
        Code::KeyInvalid => "The key is not valid. Check it, or ask for a new one.",
        Code::NotPermitted => "The key's tier does not include prices. Ask for another tier.",
        Code::AssetUnknown => "No venue lists it. GET /assets tells what can be asked for.",
        Code::NotFound => "See /docs for the paths there are.",
        Code::MethodNotAllowed => "Use a method of the Allow field.",
        Code::BodyNotAllowed => "Send the request without a body. The connection is closed.",
        Code::HeadTooLarge => {
            "The request line may have 4096 bytes, the head 8192 bytes and 64 fields. The connection is closed."
        }
        Code::RateLimitedSecond => "Wait as long as Retry-After says, and spread the requests. GET /limits tells all.",
        Code::RateLimitedMonth => "Wait for the next month, or ask for another tier. GET /limits tells all.",
        Code::PriceUnavailable => "No venue has given a price yet. Try again.",
        Code::PriceStale => "No venue is proven alive for it. Try again, or take the old price with allow_stale=1.",
        Code::Overloaded => "Try again, or another node.",
        Code::Draining => "Connect again: another node will answer.",
        Code::ClockSkew => "Set the clock.",
        Code::ReplyTooLong => "Pad the request, or ask for fewer assets.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    #[track_caller]
    fn document(problem: Problem) -> String {
        let mut space = [0; 512];
        let mut writer = Writer::new(&mut space);
        problem.push_document(&mut writer);
        let length = writer.finish().expect("512 bytes hold every document");
        String::from_utf8_lossy(&space[..length]).into_owned()
    }

    #[test]
    fn documents_have_the_agreed_fields() {
        let btc = Symbol::new(b"BTC").expect("a symbol");
        assert_eq!(
            document(Problem::of(Code::PriceUnavailable).about(btc)),
            "{\"type\":\"/docs#price_unavailable\",\"title\":\"There is no price for this asset now\",\"status\":503,\
             \"code\":\"price_unavailable\",\"detail\":\"BTC: No venue has given a price yet. Try again.\"}"
        );
    }

    #[test]
    fn no_words_need_escaping() {
        for code in Code::ALL {
            let text = usual_detail(code);
            assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\'), "{text}");
            assert!(document(Problem::of(code)).len() < 400, "{text}");
        }
    }

    #[test]
    fn waiting_helps_where_it_says_so() {
        for (code, expected) in [
            (Code::RateLimitedSecond, Some(1)),
            (Code::RateLimitedMonth, Some(31 * 86_400)),
            (Code::PriceStale, Some(1)),
            (Code::PriceUnavailable, Some(1)),
            (Code::Overloaded, Some(1)),
            (Code::AssetUnknown, None),
            (Code::KeyInvalid, None),
        ] {
            assert_eq!(Problem::of(code).retry_after_s(0), expected);
        }
    }
}
