//! What a client would rather have: a format by `Accept`, an encoding by `Accept-Encoding`.
//!
//! A head that names nothing we have is answered in the usual way, never refused: `format=` says it exactly.

use crate::reports::query::Format;
use crate::reports::stream::Encoding;
use axum::http::{HeaderMap, HeaderName, header};

/// Items of one field that are looked at; a head of 8 KiB could hold a thousand.
const ITEMS_MAX: usize = 64;

/// The media types by which a format is asked for, the first being its own.
const fn media_types(format: Format) -> &'static [&'static str] {
    match format {
        Format::Json => &["application/json"],
        Format::Csv => &["text/csv"],
        Format::Tsv => &["text/tab-separated-values"],
        Format::Text => &["text/plain"],
        Format::Ndjson => &["application/x-ndjson", "application/ndjson", "application/jsonl"],
        Format::Html => &["text/html", "application/xhtml+xml"],
    }
}

/// The items of a field with their weights, thousandths: lower case, without other parameters.
fn items(headers: &HeaderMap, name: HeaderName) -> Vec<(String, u32)> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let item = |item: &str| {
        let mut parts = item.split(';').map(str::trim);
        let what = parts.next().filter(|what| !what.is_empty())?.to_ascii_lowercase();
        let weight = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then(|| thousandths(value.trim()).unwrap_or(0))
        });
        Some((what, weight.unwrap_or(1_000)))
    };
    values.flat_map(|value| value.split(',')).filter_map(item).take(ITEMS_MAX).collect()
}

/// A weight: `0`, `1`, and up to three digits behind a point.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let good = matches!(whole, "0" | "1") && part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    let weight = format!("{whole}{part:0<3}").parse().ok().filter(|_| good)?;
    (weight <= 1_000).then_some(weight)
}

/// The format with the highest weight; `json` where none is named, or all weigh the same.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let items = items(headers, header::ACCEPT);
    let named = |range: &str| items.iter().find(|(item, _)| item == range).map(|(_, weight)| *weight);
    let weight = |format: Format| {
        let own = media_types(format);
        let major = own[0].split('/').next().map(|major| format!("{major}/*")).unwrap_or_default();
        let exact = own.iter().filter_map(|media| named(media)).max();
        exact.or_else(|| named(&major)).or_else(|| named("*/*")).unwrap_or(0)
    };
    let mut best = (Format::Json, weight(Format::Json));
    for format in Format::ALL {
        let weight = weight(format);
        if weight > best.1 {
            best = (format, weight);
        }
    }
    best.0
}

/// The encoding with the highest weight among those named; none where none is.
pub(super) fn encoding(headers: &HeaderMap) -> Encoding {
    let items = items(headers, header::ACCEPT_ENCODING);
    let weight = |name: &str| items.iter().find(|(item, _)| item == name).map_or(0, |(_, weight)| *weight);
    let gzip = weight("gzip").max(weight("x-gzip"));
    let (zstd, identity) = (weight("zstd"), weight("identity"));
    match zstd.max(gzip) {
        0 => Encoding::Identity,
        best if identity > best => Encoding::Identity,
        best if zstd == best => Encoding::Zstd,
        _ => Encoding::Gzip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a value"))])
    }

    #[test]
    fn a_format_is_chosen_by_weight() {
        for (accept, expected) in [
            ("", Format::Json),
            ("*/*", Format::Json),
            ("text/csv", Format::Csv),
            ("TEXT/CSV; charset=utf-8", Format::Csv),
            ("text/*", Format::Csv),
            ("text/plain, text/csv;q=0.9", Format::Text),
            ("text/csv;q=0.1, application/x-ndjson;q=0.2", Format::Ndjson),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", Format::Html),
            ("text/tab-separated-values, */*;q=0.1", Format::Tsv),
            ("image/png", Format::Json),
            ("text/csv;q=0, image/png", Format::Json),
            ("text/csv;q=7", Format::Json),
            ("application/json;q=0, */*", Format::Csv),
            (",;q=1,,", Format::Json),
        ] {
            assert_eq!(format(&headers(header::ACCEPT, accept)), expected, "{accept}");
        }
    }

    #[test]
    fn an_encoding_is_used_where_it_is_asked_for() {
        for (accept, expected) in [
            ("", Encoding::Identity),
            ("*", Encoding::Identity),
            ("br", Encoding::Identity),
            ("gzip", Encoding::Gzip),
            ("GZIP;q=1.0", Encoding::Gzip),
            ("gzip, deflate, br, zstd", Encoding::Zstd),
            ("gzip;q=1, zstd;q=0.9", Encoding::Gzip),
            ("gzip;q=0", Encoding::Identity),
            ("gzip;q=0.5, identity", Encoding::Identity),
            ("gzip;q=x", Encoding::Identity),
            ("zstd;q=0.001", Encoding::Zstd),
        ] {
            assert_eq!(encoding(&headers(header::ACCEPT_ENCODING, accept)), expected, "{accept}");
        }
    }
}
