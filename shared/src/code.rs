//! The one list of error codes, shared by HTTP, both UDP forms and the usage records.

/// Why a request was not answered with a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// No asset was named.
    AssetMissing = 32,
    /// The asset's text is not a symbol: 1 to 16 of `A-Z a-z 0-9`.
    AssetInvalid = 11,
    /// More assets than one request may name.
    TooManyAssets = 33,
    /// A parameter's value is not what it should be.
    ParameterInvalid = 34,
    /// The request breaks the protocol's framing.
    RequestMalformed = 9,
    /// No key was given.
    KeyMissing = 35,
    /// The key is unknown, revoked or expired: which of them is not told.
    KeyInvalid = 36,
    /// The key's tier lacks this.
    NotPermitted = 12,
    /// Nobody lists this asset.
    AssetUnknown = 1,
    /// Nothing lives at this path.
    NotFound = 37,
    /// The path exists, this method on it does not.
    MethodNotAllowed = 38,
    /// Price reads take no body.
    BodyNotAllowed = 39,
    /// The request line or head is longer than we read.
    HeadTooLarge = 40,
    /// The key's allowance for this second is used up.
    RateLimitedSecond = 5,
    /// The key's allowance for this month is used up.
    RateLimitedMonth = 6,
    /// The asset is known, but there is no price for it now.
    PriceUnavailable = 3,
    /// There is a price, but it is stale, and stale was not allowed.
    PriceStale = 2,
    /// The node has too much to do.
    Overloaded = 7,
    /// The node is going away.
    Draining = 8,
    /// The request's time is more than 30 s from ours (binary UDP only).
    ClockSkew = 10,
    /// The reply would be more than 3 × the request (UDP only): pad the request.
    ReplyTooLong = 13,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 21] = [
        Self::AssetMissing,
        Self::AssetInvalid,
        Self::TooManyAssets,
        Self::ParameterInvalid,
        Self::RequestMalformed,
        Self::KeyMissing,
        Self::KeyInvalid,
        Self::NotPermitted,
        Self::AssetUnknown,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::BodyNotAllowed,
        Self::HeadTooLarge,
        Self::RateLimitedSecond,
        Self::RateLimitedMonth,
        Self::PriceUnavailable,
        Self::PriceStale,
        Self::Overloaded,
        Self::Draining,
        Self::ClockSkew,
        Self::ReplyTooLong,
    ];

    /// The number on the wire and in usage records (binary UDP sends only those up to 13).
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The code with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// The name in problem documents, JSON datagrams and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AssetMissing => "asset_missing",
            Self::AssetInvalid => "asset_invalid",
            Self::TooManyAssets => "too_many_assets",
            Self::ParameterInvalid => "parameter_invalid",
            Self::RequestMalformed => "request_malformed",
            Self::KeyMissing => "key_missing",
            Self::KeyInvalid => "key_invalid",
            Self::NotPermitted => "not_permitted",
            Self::AssetUnknown => "asset_unknown",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyNotAllowed => "body_not_allowed",
            Self::HeadTooLarge => "head_too_large",
            Self::RateLimitedSecond => "rate_limited_second",
            Self::RateLimitedMonth => "rate_limited_month",
            Self::PriceUnavailable => "price_unavailable",
            Self::PriceStale => "price_stale",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::ClockSkew => "clock_skew",
            Self::ReplyTooLong => "reply_too_long",
        }
    }

    /// The HTTP status that goes with the code.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::AssetMissing
            | Self::AssetInvalid
            | Self::TooManyAssets
            | Self::ParameterInvalid
            | Self::RequestMalformed
            | Self::ClockSkew
            | Self::ReplyTooLong => 400,
            Self::KeyMissing | Self::KeyInvalid => 401,
            Self::NotPermitted => 403,
            Self::AssetUnknown | Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::BodyNotAllowed => 413,
            Self::HeadTooLarge => 431,
            Self::RateLimitedSecond | Self::RateLimitedMonth => 429,
            Self::PriceUnavailable | Self::PriceStale | Self::Overloaded | Self::Draining => 503,
        }
    }

    /// A short human title, the same for every occurrence of the code.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::AssetMissing => "No asset was named",
            Self::AssetInvalid => "That is not an asset symbol",
            Self::TooManyAssets => "Too many assets in one request",
            Self::ParameterInvalid => "A parameter has a bad value",
            Self::RequestMalformed => "The request breaks the protocol",
            Self::KeyMissing => "No API key was given",
            Self::KeyInvalid => "The API key is not valid",
            Self::NotPermitted => "The key does not permit this",
            Self::AssetUnknown => "No venue lists this asset",
            Self::NotFound => "Nothing lives at this path",
            Self::MethodNotAllowed => "The path does not take this method",
            Self::BodyNotAllowed => "Price reads take no body",
            Self::HeadTooLarge => "The request head is too large",
            Self::RateLimitedSecond => "The limit per second is used up",
            Self::RateLimitedMonth => "The monthly quota is used up",
            Self::PriceUnavailable => "There is no price for this asset now",
            Self::PriceStale => "The newest price is stale",
            Self::Overloaded => "The node has too much to do",
            Self::Draining => "The node is shutting down",
            Self::ClockSkew => "The request's time is too far from ours",
            Self::ReplyTooLong => "The reply would be too long for the request",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn numbers_and_names_are_unique_and_come_back() {
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(Code::from_number(code.number()), Some(code));
            for other in &Code::ALL[index + 1..] {
                assert_ne!(code.name(), other.name());
            }
        }
        assert_eq!(Code::from_number(0), None, "0 means ok on the wire");
    }

    #[test]
    fn the_binary_form_can_say_each_code_of_the_contract() {
        let wire = [(1, "asset_unknown"), (2, "price_stale"), (3, "price_unavailable"), (5, "rate_limited_second")];
        let more = [(6, "rate_limited_month"), (7, "overloaded"), (8, "draining"), (9, "request_malformed")];
        let rest = [(10, "clock_skew"), (11, "asset_invalid"), (12, "not_permitted"), (13, "reply_too_long")];
        for (number, name) in wire.into_iter().chain(more).chain(rest) {
            assert_eq!(Code::from_number(number).map(Code::name), Some(name));
        }
    }
}
