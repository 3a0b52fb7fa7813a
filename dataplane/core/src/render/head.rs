//! Response heads: every one but the ready-made head of a plain price.

use super::Writer;
use super::date::DateText;

/// What a client is told about its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateFields {
    /// Requests per second.
    pub(crate) limit: u32,
    /// Requests left this second.
    pub(crate) left: u32,
}

/// What the response says about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionField {
    /// Nothing: HTTP/1.1 persists.
    None,
    /// It is closed after this response.
    Close,
    /// It is kept, though HTTP/1.0 would not by itself.
    KeepAlive,
}

/// One response head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) status: u16,
    pub(crate) date: &'a DateText,
    /// Type and length of the body that follows, or that would follow were this not a `HEAD`.
    pub(crate) content: Option<(&'static str, usize)>,
    pub(crate) etag: Option<u64>,
    pub(crate) rate: Option<RateFields>,
    pub(crate) retry_after_s: Option<u64>,
    pub(crate) connection: ConnectionField,
}

/// Methods of the price paths, for `Allow`.
const ALLOW: &[u8] = b"\r\nAllow: GET, HEAD, OPTIONS";

/// Type of an answer with a price.
pub(crate) const JSON: &str = "application/json";
/// Type of an error.
pub(crate) const PROBLEM: &str = "application/problem+json";

const fn status_line(status: u16) -> &'static [u8] {
    match status {
        200 => b"HTTP/1.1 200 OK",
        204 => b"HTTP/1.1 204 No Content",
        304 => b"HTTP/1.1 304 Not Modified",
        401 => b"HTTP/1.1 401 Unauthorized",
        403 => b"HTTP/1.1 403 Forbidden",
        404 => b"HTTP/1.1 404 Not Found",
        405 => b"HTTP/1.1 405 Method Not Allowed",
        413 => b"HTTP/1.1 413 Content Too Large",
        429 => b"HTTP/1.1 429 Too Many Requests",
        431 => b"HTTP/1.1 431 Request Header Fields Too Large",
        503 => b"HTTP/1.1 503 Service Unavailable",
        _ => b"HTTP/1.1 400 Bad Request",
    }
}

/// `ETag`, after a line that is not yet ended.
pub(crate) fn push_etag(writer: &mut Writer<'_>, sequence: u64) {
    writer.push(b"\r\nETag: \"");
    writer.push_number(sequence);
    writer.push(b"\"");
}

impl Head<'_> {
    /// Writes the head with its empty line. Fields begin with the line end of the one before.
    pub(crate) fn push(&self, writer: &mut Writer<'_>) {
        writer.push(status_line(self.status));
        if let Some((kind, _)) = self.content {
            writer.push(b"\r\nContent-Type: ");
            writer.push(kind.as_bytes());
        }
        if self.etag.is_some() {
            writer.push(b"\r\nCache-Control: private, max-age=1");
        }
        writer.push(b"\r\nDate: ");
        writer.push(self.date);
        if let Some((_, length)) = self.content {
            writer.push(b"\r\nContent-Length: ");
            writer.push_number(length as u64);
        }
        if let Some(sequence) = self.etag {
            push_etag(writer, sequence);
        }
        self.push_conditions(writer);
        writer.push(match self.connection {
            ConnectionField::None => b"\r\n\r\n",
            ConnectionField::Close => b"\r\nConnection: close\r\n\r\n",
            ConnectionField::KeepAlive => b"\r\nConnection: keep-alive\r\n\r\n",
        });
    }

    /// Fields that say under which conditions a request would do better.
    fn push_conditions(&self, writer: &mut Writer<'_>) {
        match self.status {
            204 | 405 => writer.push(ALLOW),
            401 => writer.push(b"\r\nWWW-Authenticate: Bearer"),
            _ => {}
        }
        if let Some(RateFields { limit, left }) = self.rate {
            writer.push(b"\r\nRateLimit-Policy: \"key\";q=");
            writer.push_number(u64::from(limit));
            writer.push(b";w=1\r\nRateLimit: \"key\";r=");
            writer.push_number(u64::from(left));
            // A window lasts one second, so what is left of it is one second, rounded up.
            writer.push(b";t=1");
        }
        if let Some(seconds) = self.retry_after_s {
            writer.push(b"\r\nRetry-After: ");
            writer.push_number(seconds);
        }
    }
}
