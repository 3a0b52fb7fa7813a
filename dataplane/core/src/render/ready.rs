//! One asset's reply, written once per tick and sent many times: only date, age and length are patched into each copy.

use super::date::DateText;
use super::head;
use super::{Writer, push_after_age, push_before_age};
use crate::limits::PRICE_REPLY_MAX;
use crate::reply::ReplyBuffer;
use alloc::vec::Vec;
use shared::asset::Symbol;
use shared::tick::Tick;

/// Up to the date. The rest of the head follows it in an order that puts what varies in one stretch.
const BEFORE_DATE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: private, max-age=1\r\nDate: ";
const DATE_END: usize = BEFORE_DATE.len() + 29;
const BEFORE_LENGTH: &[u8] = b"\r\nContent-Length: ";
/// A body has three digits' worth of bytes: at least 160, at most `PRICE_BODY_MAX`.
const LENGTH_AT: usize = DATE_END + BEFORE_LENGTH.len();

/// Longest part of the body behind the age's digits: four fields and the brace, 64 bytes with a sequence of 20 digits.
const AFTER_AGE_MAX: usize = 64;
/// Digits of an age.
const AGE_MAX: usize = 20;
/// Room that is asked for to append a reply of any length.
const APPEND_ROOM: usize = PRICE_REPLY_MAX + AGE_MAX + AFTER_AGE_MAX;

/// The reply of one asset. Empty until it is first asked for after a tick.
#[derive(Clone)]
pub(crate) struct ReadyReply {
    /// Head and body up to the age's digits.
    before_age: [u8; PRICE_REPLY_MAX],
    after_age: [u8; AFTER_AGE_MAX],
    /// Where the body begins; 0 while the reply is empty.
    body_at: u16,
    before_length: u16,
    after_length: u16,
}

impl ReadyReply {
    /// None yet.
    pub(crate) const EMPTY: Self = Self {
        before_age: [0; PRICE_REPLY_MAX],
        after_age: [0; AFTER_AGE_MAX],
        body_at: 0,
        before_length: 0,
        after_length: 0,
    };

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.body_at == 0
    }

    /// The tick has changed: what is written is no longer true.
    #[inline]
    pub(crate) const fn forget(&mut self) {
        self.body_at = 0;
    }

    /// Writes the reply of `tick`.
    pub(crate) fn fill(&mut self, symbol: &Symbol, tick: &Tick) {
        let mut writer = Writer::new(&mut self.before_age);
        writer.push(BEFORE_DATE);
        writer.push(&[b' '; 29]);
        writer.push(BEFORE_LENGTH);
        writer.push(b"000");
        head::push_etag(&mut writer, tick.sequence);
        writer.push(b"\r\n\r\n");
        self.body_at = writer.length() as u16;
        push_before_age(&mut writer, symbol, tick);
        let before = writer.finish();
        let mut writer = Writer::new(&mut self.after_age);
        push_after_age(&mut writer, tick);
        let after = writer.finish();
        debug_assert!(before.is_some() && after.is_some(), "there is space for the longest values");
        self.before_length = before.unwrap_or(0) as u16;
        self.after_length = after.unwrap_or(0) as u16;
    }

    /// Appends the whole reply, head and body; `false` when there is no room.
    ///
    /// The parts behind the first are copied at their greatest length, and what is too much of one is written over by
    /// the next: copies of a length known beforehand are a few instructions each.
    #[inline]
    #[must_use]
    pub(crate) fn append_to(&self, output: &mut ReplyBuffer, date: &DateText, age_ms: u64) -> bool {
        let Some(target) = output.tail().first_chunk_mut::<APPEND_ROOM>() else { return false };
        let (before, _) = self.before_age.split_at(usize::from(self.before_length).min(PRICE_REPLY_MAX));
        target[..before.len()].copy_from_slice(before);
        target[BEFORE_DATE.len()..DATE_END].copy_from_slice(date);
        let age = write_age(age_ms, &mut target[before.len()..]);
        let end = before.len() + age;
        if let Some(after) = target[end..].first_chunk_mut::<AFTER_AGE_MAX>() {
            *after = self.after_age;
        }
        let length = end + usize::from(self.after_length);
        let body = length - usize::from(self.body_at);
        target[LENGTH_AT] = b'0' + (body / 100) as u8;
        target[LENGTH_AT + 1] = b'0' + (body / 10 % 10) as u8;
        target[LENGTH_AT + 2] = b'0' + (body % 10) as u8;
        output.advance(length);
        true
    }

    /// Length of the body with this age.
    pub(crate) fn body_length(&self, age_ms: u64) -> usize {
        let (before, after) = self.body_parts();
        before.len() + itoa::Buffer::new().format(age_ms).len() + after.len()
    }

    /// The body in two parts, between which the age's digits belong.
    #[inline]
    fn body_parts(&self) -> (&[u8], &[u8]) {
        let before = &self.before_age[usize::from(self.body_at)..usize::from(self.before_length)];
        (before, &self.after_age[..usize::from(self.after_length)])
    }

    /// Appends the body alone.
    pub(crate) fn push_body(&self, writer: &mut Writer<'_>, age_ms: u64) {
        let (before, after) = self.body_parts();
        writer.push(before);
        writer.push_number(age_ms);
        writer.push(after);
    }

    /// Appends the body alone to a long body, whose capacity its owner has seen to.
    pub(crate) fn extend_body(&self, body: &mut Vec<u8>, age_ms: u64) {
        let (before, after) = self.body_parts();
        body.extend_from_slice(before);
        body.extend_from_slice(itoa::Buffer::new().format(age_ms).as_bytes());
        body.extend_from_slice(after);
    }
}

/// Writes an age's digits to the front of `target` and answers how many there are.
#[inline]
fn write_age(age_ms: u64, target: &mut [u8]) -> usize {
    let mut digits = itoa::Buffer::new();
    let text = digits.format(age_ms).as_bytes();
    // Most are short, and for those a loop is less than a call.
    for (to, from) in target.iter_mut().zip(text) {
        *to = *from;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PRICE_BODY_MAX;
    use alloc::string::String;
    use shared::tick::{SPREAD_UNKNOWN, TICK_SIMULATED, TICK_STALE};

    fn tick() -> Tick {
        Tick {
            mantissa: 6_712_345,
            sequence: 4_711,
            exchange_time_ms: 1_793_500_000_123,
            received_time_ms: 1_793_500_000_150,
            received_mono_ns: 0,
            published_mono_ns: 0,
            spread_centibps: 180,
            asset: 0,
            flags: 0,
            venues: 0b11111,
            exponent: -2,
            currency: 1,
            source: 0,
            tier: 0,
            prompt: 0,
            reserved: 0,
        }
    }

    #[track_caller]
    fn check(symbol: &str, tick: &Tick, age_ms: u64, expected: &str) {
        let mut reply = ReadyReply::EMPTY;
        reply.fill(&Symbol::new(symbol.as_bytes()).expect("a symbol"), tick);
        let mut space = [0; PRICE_BODY_MAX];
        let mut writer = Writer::new(&mut space);
        reply.push_body(&mut writer, age_ms);
        let length = writer.finish().expect("it fits");
        assert_eq!(core::str::from_utf8(&space[..length]), Ok(expected));
        assert_eq!(reply.body_length(age_ms), length);

        let mut output = ReplyBuffer::new();
        assert!(reply.append_to(&mut output, b"Sun, 06 Nov 1994 08:49:37 GMT", age_ms));
        let whole = alloc::format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: private, max-age=1\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: {length}\r\nETag: \"{}\"\r\n\r\n{expected}",
            tick.sequence
        );
        assert_eq!(String::from_utf8_lossy(output.bytes()), whole);
    }

    #[test]
    fn the_contracts_example() {
        check(
            "BTC",
            &tick(),
            37,
            "{\"asset\":\"BTC\",\"price\":\"67123.45\",\"currency\":\"USD\",\"source\":\"median\",\"sources\":5,\
             \"spread_bps\":\"1.8\",\"tier\":\"local\",\"exchange_time_ms\":1793500000123,\
             \"received_time_ms\":1793500000150,\"age_ms\":37,\"stale\":false,\"sequence\":4711}",
        );
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let one = Tick { spread_centibps: SPREAD_UNKNOWN, exchange_time_ms: 0, source: 18, venues: 4, ..tick() };
        check(
            "1INCH",
            &Tick { currency: 2, tier: 1, flags: TICK_STALE | TICK_SIMULATED, ..one },
            0,
            "{\"asset\":\"1INCH\",\"price\":\"67123.45\",\"currency\":\"USDT\",\"source\":\"kraken-ws\",\"sources\":1,\
             \"tier\":\"valkey\",\"exchange_time_ms\":null,\"received_time_ms\":1793500000150,\"age_ms\":0,\
             \"stale\":true,\"sequence\":4711,\"simulated\":true}",
        );
    }

    #[test]
    fn the_longest_and_the_shortest_fit() {
        let longest = Tick {
            mantissa: i64::MIN,
            exponent: 12,
            sequence: u64::MAX,
            exchange_time_ms: u64::MAX,
            received_time_ms: u64::MAX,
            spread_centibps: u32::MAX - 1,
            flags: TICK_STALE | TICK_SIMULATED,
            currency: 2,
            source: 36,
            tier: 1,
            venues: u16::MAX,
            ..tick()
        };
        let shortest = Tick {
            mantissa: 0,
            exponent: 0,
            sequence: 1,
            exchange_time_ms: 0,
            received_time_ms: 0,
            spread_centibps: SPREAD_UNKNOWN,
            venues: 0,
            ..tick()
        };
        for (symbol, tick, age_ms) in [("ABCDEFGHIJKLMNOP", longest, u64::MAX), ("B", shortest, 0)] {
            let mut reply = ReadyReply::EMPTY;
            reply.fill(&Symbol::new(symbol.as_bytes()).expect("a symbol"), &tick);
            let length = reply.body_length(age_ms);
            assert!((100..=PRICE_BODY_MAX).contains(&length), "{length}");
            assert!(reply.append_to(&mut ReplyBuffer::new(), b"Sun, 06 Nov 1994 08:49:37 GMT", age_ms));
        }
    }

    #[test]
    fn spreads_carry_no_needless_zeros() {
        for (centibps, expected) in [(0, "0"), (5, "0.05"), (10, "0.1"), (100, "1"), (180, "1.8"), (12_345, "123.45")] {
            let mut space = [0; 16];
            let mut writer = Writer::new(&mut space);
            super::super::push_spread(&mut writer, centibps);
            let length = writer.finish().expect("it fits");
            assert_eq!(core::str::from_utf8(&space[..length]), Ok(expected));
        }
    }
}
