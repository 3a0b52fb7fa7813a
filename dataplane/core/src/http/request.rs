//! Request heads: where one ends, and what it says. Strict, because a lenient reading beside another party's strict one
//! is how requests are smuggled.
//!
//! `HeadScan` judges byte by byte, so a head gets the same verdict however it was split in transit; `Request::parse`
//! then reads the whole head with `httparse` and adds the rules that HTTP leaves to its users.

use crate::limits::{REQUEST_FIELDS_MAX, REQUEST_HEAD_MAX, REQUEST_LINE_MAX};
use crate::render::problem::Problem;
use core::mem::MaybeUninit;
use httparse::Header;
use shared::code::Code;

/// Space for the fields of one head.
pub(crate) type FieldSpace<'a> = [MaybeUninit<Header<'a>>; REQUEST_FIELDS_MAX];

const fn malformed(detail: &'static str) -> Problem {
    Problem::saying(Code::RequestMalformed, detail)
}

const BARE_LINE_END: Problem = malformed("Every line of the head ends with CR LF.");
const CONTROL_BYTE: Problem = malformed("The head has a control character in it.");
const BAD_REQUEST_LINE: Problem = malformed("The request line is not METHOD SP target SP HTTP/1.1 or HTTP/1.0.");
const BAD_FIELD: Problem = malformed("A header field is not name: value on one line.");
const BAD_TARGET: Problem = malformed("The request target has a character that must be percent-encoded.");
const BAD_HOST: Problem =
    malformed("Send exactly one Host field with a host in it, the same as in an absolute target.");
const BAD_LENGTH: Problem = malformed("Send at most one Content-Length field, of digits only.");
const BAD_CODING: Problem =
    malformed("The only Transfer-Encoding is chunked, sent once, in HTTP/1.1, without a Content-Length.");
const HEAD_TOO_LARGE: Problem = Problem::of(Code::HeadTooLarge);

/// What is known of a head so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// It goes on.
    Partial,
    /// It ends before this position, its empty line included.
    Whole(usize),
    /// It is no good, whatever follows.
    Refused(Problem),
}

/// How far a head has been looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeadScan {
    at: u16,
    line_start: u16,
    /// Lines that have ended, the request line included.
    lines: u8,
}

impl HeadScan {
    /// Looks at the bytes that are new since the last call with the same head.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Scanned {
        let mut at = usize::from(self.at);
        loop {
            at += plain_run(&bytes[at..]);
            // A line end is judged when both its bytes are there, and has to lie within the head as a whole.
            let is_cr = bytes.get(at) == Some(&b'\r');
            if at + usize::from(is_cr) >= REQUEST_HEAD_MAX || (self.lines == 0 && at > REQUEST_LINE_MAX) {
                return Scanned::Refused(HEAD_TOO_LARGE);
            }
            let verdict = match (bytes.get(at), bytes.get(at + 1)) {
                (None, _) | (Some(b'\r'), None) => break,
                (Some(b'\r'), Some(b'\n')) => self.end_line(at + 1),
                (Some(b'\r' | b'\n'), _) => Scanned::Refused(BARE_LINE_END),
                (Some(_), _) => Scanned::Refused(CONTROL_BYTE),
            };
            if verdict != Scanned::Partial {
                return verdict;
            }
            at += 2;
        }
        self.at = at as u16;
        Scanned::Partial
    }

    /// A line ends with the byte at `at`.
    fn end_line(&mut self, at: usize) -> Scanned {
        let is_empty = usize::from(self.line_start) + 1 == at;
        if is_empty && self.lines > 0 {
            return Scanned::Whole(at + 1);
        }
        self.lines += 1;
        self.line_start = at as u16 + 1;
        // The request line and the fields.
        if usize::from(self.lines) > 1 + REQUEST_FIELDS_MAX {
            return Scanned::Refused(HEAD_TOO_LARGE);
        }
        Scanned::Partial
    }
}

/// How many bytes there are before one that may end a line or may not be in a head at all.
fn plain_run(bytes: &[u8]) -> usize {
    let is_odd = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 127;
    // Sixteen at a time and without a branch for each, which compilers turn into a few wide instructions.
    let has_odd = |chunk: &&[u8]| chunk.iter().fold(false, |odd, byte| odd | is_odd(byte));
    let whole = bytes.chunks_exact(16).take_while(|chunk| !has_odd(chunk)).count() * 16;
    whole + bytes[whole..].iter().position(is_odd).unwrap_or(bytes.len() - whole)
}

/// The methods that price paths know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Options,
    Other,
}

/// The key, as the request gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyText<'a> {
    Missing,
    Given(&'a [u8]),
    /// Two that differ: whichever was meant, the other is not it.
    Conflicting,
    /// The one of the connection's last request.
    Remembered,
}

impl<'a> KeyText<'a> {
    fn and(self, text: &'a [u8]) -> Self {
        match self {
            _ if text.is_empty() => self,
            Self::Missing => Self::Given(text),
            Self::Given(before) if before == text => self,
            Self::Given(_) | Self::Conflicting | Self::Remembered => Self::Conflicting,
        }
    }
}

/// A well-formed request head.
#[derive(Debug)]
pub(crate) struct Request<'h, 'b> {
    pub(crate) method: Method,
    /// Path and query; the part before them is cut off an absolute target. `*` stays `*`.
    pub(crate) target: &'b [u8],
    pub(crate) is_version_11: bool,
    /// What the `Connection` field says: close, and keep alive.
    pub(crate) says_close: bool,
    pub(crate) says_keep_alive: bool,
    /// A body follows.
    pub(crate) has_body: bool,
    pub(crate) key: KeyText<'b>,
    /// All fields are such that another request with the same ones means the same by them.
    pub(crate) is_memorable: bool,
    fields: &'h [Header<'b>],
}

/// What the fields that decide framing say.
#[derive(Default)]
struct Framing<'b> {
    host: Option<&'b [u8]>,
    length: Option<&'b [u8]>,
    is_chunked: bool,
}

impl<'h, 'b> Request<'h, 'b> {
    /// Reads a head that `HeadScan` found whole.
    ///
    /// # Errors
    /// `request_malformed`, saying which rule was broken.
    pub(crate) fn parse(head: &'b [u8], space: &'h mut FieldSpace<'b>) -> Result<Self, Problem> {
        let mut parsed = httparse::Request::new(&mut []);
        let outcome = parsed.parse_with_uninit_headers(head, space);
        let is_line =
            |error| matches!(error, httparse::Error::Token | httparse::Error::NewLine | httparse::Error::Version);
        let status = outcome.map_err(|error| if is_line(error) { BAD_REQUEST_LINE } else { BAD_FIELD })?;
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(BAD_REQUEST_LINE);
        };
        // The scan and the parser must agree on where the head ends, or the rest would be read as another request.
        if status != httparse::Status::Complete(head.len()) {
            return Err(BAD_FIELD);
        }
        let mut request = Self {
            method: method_of(method),
            target: target.as_bytes(),
            is_version_11: version == 1,
            says_close: false,
            says_keep_alive: false,
            has_body: false,
            key: KeyText::Missing,
            is_memorable: true,
            fields: parsed.headers,
        };
        let mut framing = Framing::default();
        for field in request.fields {
            request.take_field(field.name.as_bytes(), field.value, &mut framing)?;
        }
        request.has_body = framing.is_chunked || framing.length.is_some_and(|length| length.iter().any(|b| *b != b'0'));
        request.check_framing(&framing)?;
        Ok(request)
    }

    fn take_field(&mut self, name: &'b [u8], value: &'b [u8], framing: &mut Framing<'b>) -> Result<(), Problem> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        match name.len() {
            4 if is("host") => {
                let is_good = framing.host.is_none() && value.iter().all(is_host_byte);
                framing.host = Some(value);
                return if is_good { Ok(()) } else { Err(BAD_HOST) };
            }
            // No body is wanted, so there is nothing to continue with; a request that has one is refused at once.
            6 if is("expect") => self.is_memorable = false,
            9 if is("x-api-key") => self.key = self.key.and(value),
            10 if is("connection") => self.take_connection(value),
            13 if is("authorization") => self.key = bearer(value).map_or(self.key, |text| self.key.and(text)),
            13 if is("if-none-match") => self.is_memorable = false,
            14 if is("content-length") => {
                let digits = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
                let is_good = framing.length.is_none() && digits;
                framing.length = Some(value);
                self.is_memorable = false;
                return if is_good { Ok(()) } else { Err(BAD_LENGTH) };
            }
            17 if is("transfer-encoding") => {
                let is_good = !framing.is_chunked && value.eq_ignore_ascii_case(b"chunked");
                framing.is_chunked = true;
                self.is_memorable = false;
                return if is_good { Ok(()) } else { Err(BAD_CODING) };
            }
            _ => {}
        }
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.says_close |= option.eq_ignore_ascii_case(b"close");
            self.says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
        self.is_memorable &= !self.says_close;
    }

    fn check_framing(&mut self, framing: &Framing<'b>) -> Result<(), Problem> {
        if framing.is_chunked && (framing.length.is_some() || !self.is_version_11) {
            return Err(BAD_CODING);
        }
        if self.is_version_11 && framing.host.is_none() {
            return Err(BAD_HOST);
        }
        if !self.target.iter().all(is_target_byte) {
            return Err(BAD_TARGET);
        }
        if matches!(self.target, [b'/', ..]) || (self.target == b"*" && self.method == Method::Options) {
            return Ok(());
        }
        let (host, target) = split_absolute(self.target).ok_or(BAD_REQUEST_LINE)?;
        // An absolute target names the host itself; naming two is a request for two servers.
        if framing.host.is_some_and(|field| !field.eq_ignore_ascii_case(host)) {
            return Err(BAD_HOST);
        }
        self.target = target;
        Ok(())
    }

    /// A `GET` of HTTP/1.1 whose fields are known to have no more to them than the remembered key. Answers it with the
    /// length of its request line, CRLF included, if `bytes` begin with one that is beyond reproach.
    pub(crate) fn recall(bytes: &'b [u8]) -> Option<(Self, usize)> {
        const BEFORE: &[u8] = b"GET ";
        const AFTER: &[u8] = b" HTTP/1.1\r\n";
        let rest = bytes.strip_prefix(BEFORE).filter(|rest| rest.first() == Some(&b'/'))?;
        let end = rest.iter().take(REQUEST_LINE_MAX).position(|byte| !is_target_byte(byte))?;
        let (target, after) = rest.split_at(end);
        let length = BEFORE.len() + end + AFTER.len();
        let is_good = after.starts_with(AFTER) && length <= REQUEST_LINE_MAX + 2;
        let request = Self {
            method: Method::Get,
            target,
            is_version_11: true,
            says_close: false,
            says_keep_alive: false,
            has_body: false,
            key: KeyText::Remembered,
            is_memorable: false,
            fields: &[],
        };
        is_good.then_some((request, length))
    }

    /// Whether the connection ends after this request's answer.
    pub(crate) const fn closes(&self) -> bool {
        self.says_close || (!self.is_version_11 && !self.says_keep_alive)
    }

    /// Whether `If-None-Match` says that the client has this version already.
    pub(crate) fn has_etag(&self, sequence: u64) -> bool {
        let mut digits = itoa::Buffer::new();
        let wanted = digits.format(sequence).as_bytes();
        self.fields
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case("if-none-match"))
            .any(|field| names_etag(field.value, wanted))
    }
}

fn is_target_byte(byte: &u8) -> bool {
    byte.is_ascii_graphic() && *byte != b'#'
}

fn method_of(text: &str) -> Method {
    match text {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    }
}

/// Bytes of a host and port. Commas and spaces are not among them, so two hosts in one field are not a host.
fn is_host_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(byte)
}

/// The key after `Bearer`, which may be written in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, text) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| text.trim_ascii())
}

/// Host, and path with query, of `http://host/path?query`.
fn split_absolute(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let after = |scheme: &[u8]| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = after(b"http://").or_else(|| after(b"https://"))?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let is_good = !host.is_empty() && host.iter().all(is_host_byte);
    match path {
        _ if !is_good => None,
        [b'/', ..] => Some((host, path)),
        // A path may be left out; with a query behind it, it would have to be invented, so that is not taken.
        [] => Some((host, b"/")),
        _ => None,
    }
}

/// Whether an `If-None-Match` value lists the tag with this text, weakly compared, or is `*`.
#[must_use]
pub fn names_etag(value: &[u8], wanted: &[u8]) -> bool {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|tag| {
        let opaque = tag.strip_prefix(b"W/").unwrap_or(tag);
        tag == b"*" || opaque.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) == Some(wanted)
    })
}
