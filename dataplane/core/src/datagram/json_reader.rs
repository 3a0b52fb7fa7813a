//! Reads the one JSON object of a datagram, in place: at most 512 bytes, nothing allocated, nothing forgiven.

use shared::code::Code;
use shared::limits::{ASSETS_PER_DATAGRAM_MAX, DATAGRAM_IN_MAX};

/// Deepest nesting of values under fields that we do not know.
const DEPTH_MAX: u32 = 8;

/// The inside of a JSON string as it stands in the datagram, escapes and all.
pub(super) type RawText<'a> = &'a [u8];

/// What a datagram says. Fields that are no good for us leave a `fault` instead; their owner may be told.
#[derive(Debug, Default)]
pub(super) struct JsonRequest<'a> {
    pub(super) key: Option<RawText<'a>>,
    pub(super) id: Option<u64>,
    pub(super) asset: Option<RawText<'a>>,
    pub(super) assets: Option<&'a [RawText<'a>]>,
    pub(super) allow_stale: bool,
    pub(super) fault: Option<Code>,
}

/// Space for the symbols of one datagram.
pub(super) type AssetSpace<'a> = [RawText<'a>; ASSETS_PER_DATAGRAM_MAX];

/// One value, as far as we tell them apart.
enum Value<'a> {
    Text(RawText<'a>),
    Number(&'a [u8]),
    Flag(bool),
    /// An array of strings only, by how many there were (those beyond the space are not kept); `None` for other arrays.
    Texts(Option<usize>),
    Other,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> JsonRequest<'a> {
    /// Reads a datagram; `None` when it is not one JSON object, or gives a field of ours twice.
    pub(super) fn read(bytes: &'a [u8], space: &'a mut AssetSpace<'a>) -> Option<Self> {
        debug_assert!(bytes.len() <= DATAGRAM_IN_MAX);
        core::str::from_utf8(bytes).ok()?;
        let mut reader = Reader { bytes, at: 0 };
        let mut request = Self::default();
        let mut assets = None;
        let mut seen = 0_u8;
        let mut once = |field: u8| {
            let is_first = seen & 1 << field == 0;
            seen |= 1 << field;
            is_first.then_some(())
        };
        reader.expect(b'{')?;
        let mut is_first = true;
        while let Some(name) = reader.next_name(&mut is_first)? {
            // Only `assets` may write to the space: a later array of another field must not.
            let mut nowhere = [&[][..]; ASSETS_PER_DATAGRAM_MAX];
            let is_assets = name == b"assets";
            let value = reader.value(if is_assets { &mut *space } else { &mut nowhere }, DEPTH_MAX)?;
            match name {
                b"key" => {
                    once(0)?;
                    request.key = Some(value.text()?);
                }
                b"id" => {
                    once(1)?;
                    request.id = value.whole_number();
                    request.note(request.id.is_none(), Code::RequestMalformed);
                }
                b"asset" => {
                    once(2)?;
                    request.asset = value.text();
                    request.note(request.asset.is_none(), Code::RequestMalformed);
                }
                b"assets" => {
                    once(3)?;
                    assets = value.texts();
                    request.note(assets.is_none(), Code::RequestMalformed);
                }
                b"allow_stale" => {
                    once(4)?;
                    request.allow_stale = value.is_yes();
                }
                _ => {}
            }
        }
        reader.skip_space();
        if reader.at != bytes.len() {
            return None;
        }
        if let Some(count) = assets {
            request.note(count > ASSETS_PER_DATAGRAM_MAX, Code::TooManyAssets);
            request.note(request.asset.is_some(), Code::RequestMalformed);
            request.assets = space.get(..count);
        }
        Some(request)
    }

    fn note(&mut self, is_fault: bool, code: Code) {
        if is_fault && self.fault.is_none() {
            self.fault = Some(code);
        }
    }
}

impl<'a> Value<'a> {
    const fn text(&self) -> Option<RawText<'a>> {
        if let Self::Text(text) = self { Some(*text) } else { None }
    }

    const fn texts(&self) -> Option<usize> {
        if let Self::Texts(count) = self { *count } else { None }
    }

    fn whole_number(&self) -> Option<u64> {
        let Self::Number(digits) = self else { return None };
        core::str::from_utf8(digits).ok()?.parse().ok()
    }

    const fn is_yes(&self) -> bool {
        matches!(self, Self::Flag(true) | Self::Number(b"1"))
    }
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is not space, left where it is.
    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Whether the container ends here; else goes past the comma that must stand between its parts.
    fn ends(&mut self, end: u8, is_first: &mut bool) -> Option<bool> {
        if self.peek()? == end {
            self.at += 1;
            return Some(true);
        }
        if !*is_first {
            self.expect(b',')?;
        }
        *is_first = false;
        Some(false)
    }

    /// The next field's name, its colon passed; inner `None` at the object's end.
    fn next_name(&mut self, is_first: &mut bool) -> Option<Option<RawText<'a>>> {
        if self.ends(b'}', is_first)? {
            return Some(None);
        }
        let name = self.string()?;
        self.expect(b':')?;
        Some(Some(name))
    }

    fn value(&mut self, space: &mut AssetSpace<'a>, depth: u32) -> Option<Value<'a>> {
        match self.peek()? {
            b'"' => self.string().map(Value::Text),
            b'[' => self.array(space, depth.checked_sub(1)?),
            b'{' => self.object(space, depth.checked_sub(1)?),
            b't' => self.word(b"true", Value::Flag(true)),
            b'f' => self.word(b"false", Value::Flag(false)),
            b'n' => self.word(b"null", Value::Other),
            _ => self.number().map(Value::Number),
        }
    }

    fn word(&mut self, word: &[u8], value: Value<'a>) -> Option<Value<'a>> {
        self.bytes[self.at..].starts_with(word).then(|| self.at += word.len())?;
        Some(value)
    }

    fn array(&mut self, space: &mut AssetSpace<'a>, depth: u32) -> Option<Value<'a>> {
        self.expect(b'[')?;
        let (mut count, mut is_first, mut is_texts) = (0, true, true);
        while !self.ends(b']', &mut is_first)? {
            let mut inner = [&[][..]; ASSETS_PER_DATAGRAM_MAX];
            match self.value(&mut inner, depth)? {
                Value::Text(text) => {
                    space.iter_mut().skip(count).take(1).for_each(|place| *place = text);
                    count += 1;
                }
                _ => is_texts = false,
            }
        }
        Some(Value::Texts(is_texts.then_some(count)))
    }

    fn object(&mut self, space: &mut AssetSpace<'a>, depth: u32) -> Option<Value<'a>> {
        self.expect(b'{')?;
        let mut is_first = true;
        while self.next_name(&mut is_first)?.is_some() {
            self.value(space, depth)?;
        }
        Some(Value::Other)
    }

    /// A string's inside. Escapes are checked, not decoded.
    fn string(&mut self) -> Option<RawText<'a>> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return self.bytes.get(start..self.at - 1),
                b'\\' => match *self.bytes.get(self.at)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                    b'u' => {
                        let digits = self.bytes.get(self.at + 1..self.at + 5)?;
                        digits.iter().all(u8::is_ascii_hexdigit).then(|| self.at += 5)?;
                    }
                    _ => return None,
                },
                0..=31 => return None,
                _ => {}
            }
        }
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let skip = |reader: &mut Self, bytes: &[u8]| {
            let is_there = reader.bytes.get(reader.at).is_some_and(|byte| bytes.contains(byte));
            reader.at += usize::from(is_there);
            is_there
        };
        skip(self, b"-");
        if !skip(self, b"0") {
            self.digits()?;
        }
        if skip(self, b".") {
            self.digits()?;
        }
        if skip(self, b"eE") {
            skip(self, b"+-");
            self.digits()?;
        }
        self.bytes.get(start..self.at)
    }
}

/// The text of a string's inside, decoded into `space`; `None` when it does not fit, or has half a surrogate pair in it.
pub(super) fn decode<'s>(raw: RawText<'s>, space: &'s mut [u8]) -> Option<&'s [u8]> {
    if !raw.contains(&b'\\') {
        return Some(raw);
    }
    let (mut at, mut length) = (0, 0);
    while at < raw.len() {
        let (letter, width) = match (raw[at], raw.get(at + 1)) {
            (b'\\', Some(b'u')) => {
                let digits = core::str::from_utf8(raw.get(at + 2..at + 6)?).ok()?;
                (char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, 6)
            }
            (b'\\', Some(escape)) => (unescaped(*escape), 2),
            (byte, _) => {
                *space.get_mut(length)? = byte;
                length += 1;
                at += 1;
                continue;
            }
        };
        let bytes = letter.len_utf8();
        letter.encode_utf8(space.get_mut(length..length + bytes)?);
        length += bytes;
        at += width;
    }
    space.get(..length)
}

const fn unescaped(escape: u8) -> char {
    match escape {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        itself => itself as char,
    }
}
