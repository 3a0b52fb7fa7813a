//! Bytes of answers: a writer over fixed space, and the JSON of prices.
//!
//! Everything here is given what to write; it decides nothing and looks nothing up.

pub(crate) mod date;
pub(crate) mod head;
pub(crate) mod problem;
pub(crate) mod ready;

pub use date::month_of;
pub use problem::{retry_after_s, usual_detail};

use crate::limits::PRICE_BODY_MAX;
use alloc::vec::Vec;
use shared::asset::Symbol;
use shared::price::PRICE_TEXT_MAX;
use shared::tick::{SPREAD_UNKNOWN, Source, TICK_SIMULATED, Tick, Tier};

/// Appends to fixed space. What does not fit is not written, and `finish` says so: no reply is ever cut short.
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    length: usize,
    overflown: bool,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(out: &'a mut [u8]) -> Self {
        Self { out, length: 0, overflown: false }
    }

    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        match self.out.get_mut(self.length..self.length + bytes.len()) {
            Some(target) => {
                target.copy_from_slice(bytes);
                self.length += bytes.len();
            }
            None => self.overflown = true,
        }
    }

    #[inline]
    pub(crate) fn push_number(&mut self, number: u64) {
        self.push(itoa::Buffer::new().format(number).as_bytes());
    }

    /// Bytes written so far.
    #[inline]
    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    /// How much was written; `None` when something did not fit.
    #[inline]
    pub(crate) const fn finish(self) -> Option<usize> {
        if self.overflown { None } else { Some(self.length) }
    }
}

/// The fields that every form of a price begins with: `"asset":…,…,"sources":n`.
fn push_common_fields(writer: &mut Writer<'_>, symbol: &Symbol, tick: &Tick) {
    writer.push(b"\"asset\":\"");
    writer.push(symbol.as_str().as_bytes());
    writer.push(b"\",\"price\":\"");
    let mut price = [0; PRICE_TEXT_MAX];
    let length = tick.price().write(&mut price);
    writer.push(&price[..length]);
    writer.push(b"\",\"currency\":\"");
    writer.push(tick.currency().code().as_bytes());
    writer.push(b"\",\"source\":\"");
    writer.push(Source::from_number(tick.source).map_or("median", Source::tag).as_bytes());
    writer.push(b"\",\"sources\":");
    writer.push_number(u64::from(tick.venue_set().len()));
}

fn push_exchange_time(writer: &mut Writer<'_>, tick: &Tick) {
    writer.push(b",\"exchange_time_ms\":");
    // 1970 would be a lie: where no contributor gives a time, there is none.
    if tick.exchange_time_ms == 0 { writer.push(b"null") } else { writer.push_number(tick.exchange_time_ms) }
}

fn push_end(writer: &mut Writer<'_>, tick: &Tick) {
    if tick.flags & TICK_SIMULATED != 0 {
        writer.push(b",\"simulated\":true");
    }
    writer.push(b"}");
}

fn push_stale(writer: &mut Writer<'_>, tick: &Tick) {
    writer.push(if tick.is_stale() { b",\"stale\":true" } else { b",\"stale\":false" });
}

fn push_sequence(writer: &mut Writer<'_>, tick: &Tick) {
    writer.push(b",\"sequence\":");
    writer.push_number(tick.sequence);
}

/// 1/100 basis points as basis points, without needless zeros: 180 is `1.8`, 5 is `0.05`, 300 is `3`.
fn push_spread(writer: &mut Writer<'_>, centibps: u32) {
    writer.push_number(u64::from(centibps / 100));
    let (tenths, hundredths) = ((centibps / 10 % 10) as u8, (centibps % 10) as u8);
    if tenths != 0 || hundredths != 0 {
        writer.push(&[b'.', b'0' + tenths]);
    }
    if hundredths != 0 {
        writer.push(&[b'0' + hundredths]);
    }
}

/// A price's HTTP form as a whole, for answers that are made off the hot path.
#[must_use]
pub fn price_body(symbol: &Symbol, tick: &Tick, age_ms: u64) -> Vec<u8> {
    let mut space = [0; PRICE_BODY_MAX];
    let mut writer = Writer::new(&mut space);
    push_before_age(&mut writer, symbol, tick);
    writer.push_number(age_ms);
    push_after_age(&mut writer, tick);
    let length = writer.finish().unwrap_or_default();
    space[..length].to_vec()
}

/// The part of a price's HTTP form that stands before the age's digits.
fn push_before_age(writer: &mut Writer<'_>, symbol: &Symbol, tick: &Tick) {
    writer.push(b"{");
    push_common_fields(writer, symbol, tick);
    if tick.spread_centibps != SPREAD_UNKNOWN {
        writer.push(b",\"spread_bps\":\"");
        push_spread(writer, tick.spread_centibps);
        writer.push(b"\"");
    }
    writer.push(b",\"tier\":\"");
    writer.push(Tier::from_number(tick.tier).unwrap_or(Tier::Local).name().as_bytes());
    writer.push(b"\"");
    push_exchange_time(writer, tick);
    writer.push(b",\"received_time_ms\":");
    writer.push_number(tick.received_time_ms);
    writer.push(b",\"age_ms\":");
}

/// The part that stands after them.
fn push_after_age(writer: &mut Writer<'_>, tick: &Tick) {
    push_stale(writer, tick);
    push_sequence(writer, tick);
    push_end(writer, tick);
}

/// A price's short form, for datagrams, without the opening brace: an id may stand before it.
pub(crate) fn push_short_form(writer: &mut Writer<'_>, symbol: &Symbol, tick: &Tick, age_ms: u64) {
    push_common_fields(writer, symbol, tick);
    writer.push(b",\"age_ms\":");
    writer.push_number(age_ms);
    push_stale(writer, tick);
    push_exchange_time(writer, tick);
    push_sequence(writer, tick);
    push_end(writer, tick);
}
