//! What our own venues said last, as a measure of what comes by a weaker way: from another node, or, where it is to
//! convert other prices, over REST alone.
//!
//! A single answer, to a question that nobody else was asked, may say anything; what a feed said before it tells how far that
//! can be from the truth. Whose word it is and what is published of it are not known here.

use super::amount::{Amount, Rate};
use shared::moment::Moment;
use shared::price::Price;
use shared::quote::Currency;
use shared::tick::{Tick, Tier};

/// Furthest that it may be from our own last price, in percent of ours.
const APART_PERCENT_MAX: i128 = 20;
/// As `APART_PERCENT_MAX`, for USDT, of which we know more: without a price of our own it is compared with a dollar.
const TETHER_APART_PERCENT_MAX: i128 = 10;
/// How long, from when it was last fresh, our own last price tells what is too far, ms.
const OWN_MS_MAX: u64 = 600_000;

/// A price of our own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    amount: Amount,
    /// When it was last fresh, monotonic ns.
    fresh_mono_ns: u64,
}

impl Own {
    /// What was published last, and when it was last fresh: until now, or until it was told to be stale. Neither is when it
    /// was received, for a live feed proves a quiet price for hours.
    pub(super) fn of(tick: &Tick, now: Moment) -> Option<Self> {
        let fresh_mono_ns = if tick.is_stale() { tick.published_mono_ns } else { now.mono_ns };
        Some(Self { amount: Amount::of(tick.price())?, fresh_mono_ns })
    }
}

/// Whether `amount` is too far from our own last price, if there is one that still tells; USDT else from a dollar.
pub(super) fn is_too_far(now: Moment, amount: Amount, own: Option<Own>, is_tether: bool) -> bool {
    let own = own.filter(|own| now.ms_since(own.fresh_mono_ns) < OWN_MS_MAX);
    let one_dollar = Amount::of(Price::new(1, 0)).filter(|_| is_tether);
    let percent = if is_tether { TETHER_APART_PERCENT_MAX } else { APART_PERCENT_MAX };
    own.map(|own| own.amount).or(one_dollar).is_some_and(|base| amount.is_apart(base, percent))
}

/// The USDT/USD price as a rate.
#[derive(Debug, Default)]
pub(super) struct Peg {
    /// What a venue's feed said last, alone or with others.
    heard: Option<Own>,
    /// The tick that was refused last.
    refused_sequence: u64,
}

impl Peg {
    /// The rate that the newest tick of USDT is, if it may convert anything. One that came over REST alone must not be too far
    /// from what a feed said last, however often one was taken before it: so no row of them walks away, and where USDT
    /// has lost its peg and no feed has told so for ten minutes there is no rate. Another node's price is none at all:
    /// what it would make of our venues' prices would go to all nodes as ours.
    pub(super) fn rate(&mut self, now: Moment, tick: &Tick, refused: &mut u64) -> Option<Rate> {
        if tick.sequence == 0 || tick.currency() != Currency::Usd {
            return None;
        }
        match Tier::from_number(tick.tier) {
            Some(Tier::Local) => self.heard = Own::of(tick, now).or(self.heard),
            Some(Tier::Rest) => {
                if is_too_far(now, Amount::of(tick.price())?, self.heard, true) {
                    *refused += u64::from(self.refused_sequence != tick.sequence);
                    self.refused_sequence = tick.sequence;
                    return None;
                }
            }
            Some(Tier::Valkey) | None => return None,
        }
        if tick.is_stale() { None } else { Rate::of(tick.price()) }
    }
}
