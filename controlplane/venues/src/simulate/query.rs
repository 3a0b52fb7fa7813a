//! The path and the query of a REST request, as the simulated venues take them apart.

use std::borrow::Cow;

/// A request's path and its query parameters, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The path, as it was written.
    pub path: &'a str,
    parameters: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Takes `path_and_query` apart.
    #[must_use]
    pub fn parse(path_and_query: &'a str) -> Self {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let parameters = query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .map(|(name, value)| (percent_decoded(name), percent_decoded(value)))
            .collect();
        Self { path, parameters }
    }

    /// The value of the first parameter called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref())
    }
}

/// `text` with `%XX` resolved; as it is where that makes no UTF-8.
fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        match (byte, escaped(after)) {
            (b'%', Some(value)) => {
                bytes.push(value);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The byte that two hex digits at the start of `digits` write.
fn escaped(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    match digits {
        [high, low, ..] => Some(value(*high)? * 16 + value(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_decoded() {
        for (request, path, name, expected) in [
            ("/a/b?x=1&y=2", "/a/b", "y", Some("2")),
            ("/a?symbols=%5B%22BTC%2FUSD%22%5D", "/a", "symbols", Some("[\"BTC/USD\"]")),
            ("/a?x=%zz%4", "/a", "x", Some("%zz%4")),
            ("/a?x=%ff", "/a", "x", Some("%ff")),
            ("/a?x", "/a", "x", Some("")),
            ("/a?x=1&x=2", "/a", "x", Some("1")),
            ("/a", "/a", "x", None),
            ("", "", "x", None),
        ] {
            let query = Query::parse(request);
            assert_eq!((query.path, query.get(name)), (path, expected), "{request}");
        }
    }
}
