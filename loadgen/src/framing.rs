//! How a stream of answers is cut into single answers, and what the head of each says.
//!
//! Three protocols are known: HTTP/1.1 with a Content-Length, redis' RESP, and memcached's text protocol. Nothing here
//! knows what was asked for: whether a body is the right one is for the caller to judge. Bytes in, answers out.

use crate::field::{Field, whole_number};
use memchr::memmem;
use std::{mem, str};
use thiserror::Error;

/// Longest head of an HTTP answer, and longest line of the others: 20 times what the price service sends.
const HEAD_MAX: usize = 8 * 1_024;
/// Longest body: a thousand prices. What is longer is not an answer to anything that is asked here.
const BODY_MAX: usize = 512 * 1_024;

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// HTTP/1.1 answers with a Content-Length.
    #[default]
    Http,
    /// redis' RESP2: `$length` bulk strings, `+` and `:` lines, nil and `-ERR`.
    Resp,
    /// memcached's text protocol: `VALUE … END` after a `get`, or one line.
    Memcached,
}

/// What the head of an answer says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What was asked for is in the body.
    Good,
    /// Not now, or not to you: HTTP 401, 403, 429 and 503.
    Refused,
    /// Anything else: an error, nil, a miss.
    Failed,
}

/// One whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// What its head says.
    pub verdict: Verdict,
    /// The status of an HTTP answer; 0 where the protocol has none.
    pub status: u16,
    /// What is asked for, without head and end marks.
    pub body: &'a [u8],
    /// Bytes of it all.
    pub length: usize,
}

/// Bytes that are no answer: nothing after them can be told apart, so the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Garbled {
    /// No `HTTP/1.x` with a three-digit status.
    #[error("an answer that does not begin as HTTP/1.1 does: is this port an HTTP service?")]
    NotHttp,
    /// No single Content-Length.
    #[error("an HTTP answer without a Content-Length that can be read: chunked answers are not understood")]
    NoLength,
    /// Neither a bulk string nor a line.
    #[error("an answer that is not RESP: is this port a redis server?")]
    NotResp,
    /// Neither a value nor a line.
    #[error("an answer that is not memcached's text protocol: is this port a memcached server?")]
    NotMemcached,
    /// A head above [`HEAD_MAX`] or a body above [`BODY_MAX`].
    #[error("an answer above {HEAD_MAX} bytes of head or {BODY_MAX} bytes of body: it is not read on")]
    TooLong,
}

impl Framing {
    /// The first answer in `bytes`; `None` when it is not whole yet.
    ///
    /// # Errors
    /// When `bytes` begin with something that will never be an answer.
    pub fn split(self, bytes: &[u8]) -> Result<Option<Answer<'_>>, Garbled> {
        Splitter::new(self).split(bytes)
    }
}

/// Cuts one answer after the other and remembers how their heads look. What it says does not depend on what it remembers.
pub(crate) struct Splitter {
    framing: Framing,
    blank_line: memmem::Finder<'static>,
    content_length: Field,
    connection: memmem::Finder<'static>,
    closed: bool,
}

impl Splitter {
    pub(crate) fn new(framing: Framing) -> Self {
        let blank_line = memmem::Finder::new(b"\r\n\r\n");
        // Written with a small or a great first letter.
        let connection = memmem::Finder::new(b"onnection:");
        Self { framing, blank_line, content_length: Field::new("\r\nContent-Length: "), connection, closed: false }
    }

    /// Whether an answer since the last time this was asked said that it is the last one of its connection.
    pub(crate) fn closed(&mut self) -> bool {
        mem::take(&mut self.closed)
    }

    /// See [`Framing::split`].
    #[inline]
    pub(crate) fn split<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Answer<'a>>, Garbled> {
        match self.framing {
            Framing::Http => self.http(bytes),
            Framing::Resp => resp(bytes),
            Framing::Memcached => memcached(bytes),
        }
    }

    #[inline]
    fn http<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Answer<'a>>, Garbled> {
        let begin = b"HTTP/1.";
        let seen = bytes.len().min(begin.len());
        if bytes[..seen] != begin[..seen] {
            return Err(Garbled::NotHttp);
        }
        let Some(head_end) = self.blank_line.find(bytes) else { return unfinished(bytes, HEAD_MAX) };
        // With the end of its last line, so that every field ends alike.
        let head = &bytes[..head_end + 2];
        let status = head.get(9..12).and_then(whole_number).filter(|(_, digits)| *digits == 3);
        let status = status.and_then(|(status, _)| u16::try_from(status).ok()).ok_or(Garbled::NotHttp)?;
        let length = self.content_length(head).ok_or(Garbled::NoLength)?;
        if length > BODY_MAX {
            return Err(Garbled::TooLong);
        }
        let verdict = match status {
            200 => Verdict::Good,
            _ if is_refusal(status) => Verdict::Refused,
            _ => Verdict::Failed,
        };
        let answer = whole(bytes, verdict, status, head_end + 4, length, 0);
        self.closed |= answer.is_some() && self.says_close(head);
        Ok(answer)
    }

    /// Whether `head` has a Connection field that says "close".
    #[inline]
    fn says_close(&self, head: &[u8]) -> bool {
        self.connection.find_iter(head).any(|at| {
            let is_field = at >= 2 && head[at - 2] == b'\n' && matches!(head[at - 1], b'C' | b'c');
            let value = &head[at + b"onnection:".len()..];
            let value = value.split(|byte| *byte == b'\r').next().unwrap_or_default();
            is_field && value.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(b"close"))
        })
    }

    /// The number in the Content-Length field of `head`, whichever way its name is written.
    #[inline]
    fn content_length(&mut self, head: &[u8]) -> Option<usize> {
        if let Some(at) = self.content_length.after(head) {
            let (length, digits) = whole_number(&head[at..])?;
            return (head.get(at + digits) == Some(&b'\r')).then(|| usize::try_from(length).ok())?;
        }
        head.split(|byte| *byte == b'\n').find_map(|line| {
            let (name, value) = line.split_at(memchr::memchr(b':', line)?);
            name.eq_ignore_ascii_case(b"content-length").then(|| number(value[1..].trim_ascii()))?
        })
    }
}

/// Whether an HTTP status says "not now" or "not to you".
pub(crate) const fn is_refusal(status: u16) -> bool {
    matches!(status, 401 | 403 | 429 | 503)
}

fn resp(bytes: &[u8]) -> Result<Option<Answer<'_>>, Garbled> {
    let Some((line, line_end)) = first_line(bytes) else {
        return if matches!(bytes.first(), None | Some(b'$' | b'+' | b':' | b'-')) {
            unfinished(bytes, HEAD_MAX)
        } else {
            Err(Garbled::NotResp)
        };
    };
    match line.split_first() {
        Some((b'$', b"-1")) => Ok(whole(bytes, Verdict::Failed, 0, line_end, 0, 0)),
        Some((b'$', digits)) => {
            let length = number(digits).ok_or(Garbled::NotResp)?;
            if length > BODY_MAX {
                return Err(Garbled::TooLong);
            }
            Ok(whole(bytes, Verdict::Good, 0, line_end, length, 2))
        }
        Some((b'+' | b':', body)) => Ok(Some(Answer { verdict: Verdict::Good, status: 0, body, length: line_end })),
        Some((b'-', body)) => Ok(Some(Answer { verdict: Verdict::Failed, status: 0, body, length: line_end })),
        _ => Err(Garbled::NotResp),
    }
}

fn memcached(bytes: &[u8]) -> Result<Option<Answer<'_>>, Garbled> {
    let Some((line, line_end)) = first_line(bytes) else { return unfinished(bytes, HEAD_MAX) };
    if let Some(value) = line.strip_prefix(b"VALUE ") {
        // VALUE <key> <flags> <bytes> [<unique>]
        let digits = value.split(|byte| *byte == b' ').nth(2);
        let length = digits.and_then(number).ok_or(Garbled::NotMemcached)?;
        if length > BODY_MAX {
            return Err(Garbled::TooLong);
        }
        const AFTER: &[u8] = b"\r\nEND\r\n";
        let answer = whole(bytes, Verdict::Good, 0, line_end, length, AFTER.len());
        return match answer {
            Some(answer) if bytes[..answer.length].ends_with(AFTER) => Ok(Some(answer)),
            Some(_) => Err(Garbled::NotMemcached),
            None => Ok(None),
        };
    }
    let verdict = match line {
        b"STORED" | b"OK" => Verdict::Good,
        // A miss, and the three ways it says that something is wrong.
        b"END" | b"ERROR" | b"NOT_FOUND" | b"NOT_STORED" => Verdict::Failed,
        _ if line.starts_with(b"SERVER_ERROR") || line.starts_with(b"CLIENT_ERROR") => Verdict::Failed,
        _ => return Err(Garbled::NotMemcached),
    };
    Ok(Some(Answer { verdict, status: 0, body: line, length: line_end }))
}

/// The answer whose body of `body_length` bytes begins at `body_at` and is followed by `after` bytes, if it is all there.
#[inline]
fn whole(
    bytes: &[u8],
    verdict: Verdict,
    status: u16,
    body_at: usize,
    body_length: usize,
    after: usize,
) -> Option<Answer<'_>> {
    let length = body_at + body_length + after;
    (bytes.len() >= length).then(|| Answer { verdict, status, body: &bytes[body_at..body_at + body_length], length })
}

/// The first line without its end, and where the next begins.
fn first_line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = memmem::find(&bytes[..bytes.len().min(HEAD_MAX)], b"\r\n")?;
    Some((&bytes[..end], end + 2))
}

fn unfinished(bytes: &[u8], most: usize) -> Result<Option<Answer<'_>>, Garbled> {
    if bytes.len() >= most { Err(Garbled::TooLong) } else { Ok(None) }
}

fn number(digits: &[u8]) -> Option<usize> {
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `bytes` followed by more hold one answer; no true part of them holds one, nor is any part refused.
    #[track_caller]
    fn check(framing: Framing, bytes: &str, expected: (Verdict, u16, &str)) {
        for cut in 0..bytes.len() {
            assert_eq!(framing.split(&bytes.as_bytes()[..cut]), Ok(None), "{cut} bytes of {bytes:?}");
        }
        let more = format!("{bytes}{bytes}");
        let answer = framing.split(more.as_bytes()).expect("an answer").expect("a whole one");
        assert_eq!((answer.verdict, answer.status, str::from_utf8(answer.body).unwrap_or("?")), expected);
        assert_eq!(answer.length, bytes.len());
    }

    #[track_caller]
    fn refused(framing: Framing, bytes: &[u8], expected: Garbled) {
        assert_eq!(framing.split(bytes), Err(expected));
    }

    #[test]
    fn http_answers() {
        use Verdict::{Failed, Good, Refused};
        let with = |status: &str, field: &str| format!("HTTP/1.1 {status}\r\nDate: x\r\n{field}\r\n\r\nhello");
        check(Framing::Http, &with("200 OK", "Content-Length: 5"), (Good, 200, "hello"));
        check(Framing::Http, &with("200 OK", "content-length: 5"), (Good, 200, "hello"));
        check(Framing::Http, &with("200 OK", "CONTENT-LENGTH:5 "), (Good, 200, "hello"));
        for status in [401, 403, 429, 503] {
            check(Framing::Http, &with(&format!("{status} No"), "Content-Length: 5"), (Refused, status, "hello"));
        }
        check(Framing::Http, &with("404 Not Found", "Content-Length: 5"), (Failed, 404, "hello"));
        check(Framing::Http, "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", (Failed, 500, ""));
    }

    #[test]
    fn http_garbage() {
        refused(Framing::Http, b"SSH-2.0-OpenSSH", Garbled::NotHttp);
        refused(Framing::Http, b"HTTP/1.1 abc\r\nContent-Length: 0\r\n\r\n", Garbled::NotHttp);
        refused(Framing::Http, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Garbled::NoLength);
        refused(Framing::Http, b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Garbled::NoLength);
        refused(Framing::Http, b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", Garbled::TooLong);
        let endless = [b"HTTP/1.1 200 OK\r\n".as_slice(), &[b'x'; HEAD_MAX]].concat();
        refused(Framing::Http, &endless, Garbled::TooLong);
    }

    #[test]
    fn redis_answers() {
        check(Framing::Resp, "$5\r\nhello\r\n", (Verdict::Good, 0, "hello"));
        check(Framing::Resp, "$0\r\n\r\n", (Verdict::Good, 0, ""));
        check(Framing::Resp, "$4\r\na\r\nb\r\n", (Verdict::Good, 0, "a\r\nb"));
        check(Framing::Resp, "+OK\r\n", (Verdict::Good, 0, "OK"));
        check(Framing::Resp, ":7\r\n", (Verdict::Good, 0, "7"));
        check(Framing::Resp, "$-1\r\n", (Verdict::Failed, 0, ""));
        check(Framing::Resp, "-ERR unknown command\r\n", (Verdict::Failed, 0, "ERR unknown command"));
        refused(Framing::Resp, b"HTTP/1.1 200 OK\r\n", Garbled::NotResp);
        refused(Framing::Resp, b"HTTP", Garbled::NotResp);
        refused(Framing::Resp, b"$x\r\n", Garbled::NotResp);
    }

    #[test]
    fn memcached_answers() {
        check(Framing::Memcached, "VALUE k 0 5\r\nhello\r\nEND\r\n", (Verdict::Good, 0, "hello"));
        check(Framing::Memcached, "VALUE k 0 4\r\na\r\nb\r\nEND\r\n", (Verdict::Good, 0, "a\r\nb"));
        check(Framing::Memcached, "STORED\r\n", (Verdict::Good, 0, "STORED"));
        check(Framing::Memcached, "END\r\n", (Verdict::Failed, 0, "END"));
        check(Framing::Memcached, "SERVER_ERROR out of memory\r\n", (Verdict::Failed, 0, "SERVER_ERROR out of memory"));
        refused(Framing::Memcached, b"VALUE k 0 x\r\n", Garbled::NotMemcached);
        refused(Framing::Memcached, b"VALUE k 0 2\r\nhello\r\nEND\r\n", Garbled::NotMemcached);
        refused(Framing::Memcached, b"HTTP/1.1 400 Bad\r\n", Garbled::NotMemcached);
    }
}
