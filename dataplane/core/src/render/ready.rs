//! One asset's reply, written once per tick and sent many times: only age and length are patched into each copy.
//!
//! What all these replies have in common stands in one place that every request reads, so it stays in the cache; each
//! asset keeps only what is its own, which is what a request for another asset has to fetch.

use super::date::{DateText, http_date};
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
/// Length of what all replies have in common: up to the length of the body. That is three digits: at least 160, at most
/// `PRICE_BODY_MAX`.
const COMMON: usize = DATE_END + BEFORE_LENGTH.len();

/// Longest part of the body behind the age's digits: four fields and the brace, 64 bytes with a sequence of 20 digits.
const AFTER_AGE_MAX: usize = 64;
/// Digits of an age.
const AGE_MAX: usize = 20;
/// Room that is asked for to append a reply of any length.
const APPEND_ROOM: usize = COMMON + PRICE_REPLY_MAX + AGE_MAX + AFTER_AGE_MAX;

/// What all ready replies begin with.
pub(crate) struct CommonHead {
    text: [u8; COMMON],
    /// When the second began that the date shows, Unix ms.
    second_ms: u64,
}

impl CommonHead {
    /// With the date of 1970.
    pub(crate) fn new() -> Self {
        let mut text = [0; COMMON];
        text[..BEFORE_DATE.len()].copy_from_slice(BEFORE_DATE);
        text[DATE_END..].copy_from_slice(BEFORE_LENGTH);
        let mut head = Self { text, second_ms: 0 };
        head.renew(0);
        head
    }

    /// Shows the present date. Rendered once a second.
    #[inline]
    pub(crate) fn keep_current(&mut self, wall_ms: u64) {
        if wall_ms.wrapping_sub(self.second_ms) >= 1_000 {
            self.renew(wall_ms);
        }
    }

    #[cold]
    fn renew(&mut self, wall_ms: u64) {
        self.text[BEFORE_DATE.len()..DATE_END].copy_from_slice(&http_date(wall_ms));
        self.second_ms = wall_ms - wall_ms % 1_000;
    }

    /// The date that it shows.
    pub(crate) fn date(&self) -> DateText {
        *self.text[BEFORE_DATE.len()..].first_chunk().unwrap_or(&[b' '; 29])
    }
}

/// The reply of one asset. Empty until it is first asked for after a tick.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct ReadyReply {
    /// Where the body begins; 0 while the reply is empty.
    body_at: u16,
    before_length: u16,
    after_length: u16,
    after_age: [u8; AFTER_AGE_MAX],
    /// Head and body from the length's digits up to the age's. Last, because a short one leaves the end of it untouched.
    before_age: [u8; PRICE_REPLY_MAX],
}

impl ReadyReply {
    /// None yet.
    pub(crate) const EMPTY: Self = Self {
        body_at: 0,
        before_length: 0,
        after_length: 0,
        after_age: [0; AFTER_AGE_MAX],
        before_age: [0; PRICE_REPLY_MAX],
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
    pub(crate) fn append_to(&self, output: &mut ReplyBuffer, common: &CommonHead, age_ms: u64) -> bool {
        let Some(target) = output.tail().first_chunk_mut::<APPEND_ROOM>() else { return false };
        let (head, target) = target.split_at_mut(COMMON);
        head.copy_from_slice(&common.text);
        let (before, _) = self.before_age.split_at(usize::from(self.before_length).min(PRICE_REPLY_MAX));
        target[..before.len()].copy_from_slice(before);
        let age = write_age(age_ms, &mut target[before.len()..]);
        let end = before.len() + age;
        if let Some(after) = target[end..].first_chunk_mut::<AFTER_AGE_MAX>() {
            *after = self.after_age;
        }
        let length = end + usize::from(self.after_length);
        let body = length - usize::from(self.body_at);
        target[0] = b'0' + (body / 100) as u8;
        target[1] = b'0' + (body / 10 % 10) as u8;
        target[2] = b'0' + (body % 10) as u8;
        output.advance(COMMON + length);
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
    let digit = |number: u64| b'0' + (number % 10) as u8;
    // Nearly all ages are of less than a second.
    if let (0..1_000, Some(place)) = (age_ms, target.first_chunk_mut::<3>()) {
        let digits = [digit(age_ms / 100), digit(age_ms / 10), digit(age_ms)];
        let (text, length) = match age_ms {
            0..10 => ([digits[2], 0, 0], 1),
            10..100 => ([digits[1], digits[2], 0], 2),
            _ => (digits, 3),
        };
        *place = text;
        return length;
    }
    let mut digits = itoa::Buffer::new();
    let text = digits.format(age_ms).as_bytes();
    target[..text.len()].copy_from_slice(text);
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

    /// Of the date in the specification's example.
    fn common() -> CommonHead {
        let mut common = CommonHead::new();
        common.keep_current(784_111_777_999);
        common
    }

    #[test]
    fn the_common_head_keeps_to_the_second_both_ways() {
        let mut common = common();
        for (wall_ms, expected) in [(784_111_777_000, b"37"), (784_111_778_000, b"38"), (784_111_777_999, b"37")] {
            common.keep_current(wall_ms);
            assert_eq!(&common.date()[23..25], expected, "{wall_ms}");
        }
    }

    #[test]
    fn ages_are_written_as_numbers_are() {
        for age_ms in (0..1_200).chain([9_999, 10_000, 123_456, u64::MAX]) {
            let mut space = [b'x'; 32];
            let length = write_age(age_ms, &mut space);
            assert_eq!(core::str::from_utf8(&space[..length]).map(str::parse), Ok(Ok(age_ms)));
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
        assert!(reply.append_to(&mut output, &common(), age_ms));
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
            assert!(reply.append_to(&mut ReplyBuffer::new(), &common(), age_ms));
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
