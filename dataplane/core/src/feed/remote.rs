//! Other nodes' prices, as they came from the cache: which of them may be believed, and for how long.
//!
//! A price of ours that is fresh goes before them all; here it is only decided what may stand where there is none. A
//! remote price is as old as its writer says, by the stricter of our two clocks, and fresh for `fresh_ms` from when its
//! writer last knew it to be. Where it comes from and who asked for it is not known here.

use super::amount::Amount;
use super::consolidator::Consolidator;
use super::guard::Walls;
use super::own::{Own, is_too_far};
use super::{FeedParameters, RemoteCounters, RemotePrice};
use alloc::collections::BTreeMap;
use shared::moment::Moment;
use shared::quote::Currency;
use shared::tick::{Source, TICK_CONVERTED, TICK_SIMULATED, Tick, Tier};

/// Furthest that another node's clock may be ahead of ours, ms.
const AHEAD_MS_MAX: u64 = 5_000;
const NS_PER_MS: u64 = 1_000_000;

/// Why a remote price is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// It is none, it is absurd, or nobody stands behind it.
    Price,
    /// A time ahead of ours.
    Time,
    /// It is not fresh.
    Stale,
    /// What we have is newer.
    Older,
    /// Too far from our own last price.
    Apart,
}

/// The newest remote price of an asset, fresh or not any more.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// As it is published, but for number and time.
    tick: Tick,
    /// When its writer last knew it to be fresh: by the writer's clock, Unix ms, and by ours, monotonic ns.
    known_time_ms: u64,
    known_mono_ns: u64,
    /// Our own last price before the first of a row of remote ones.
    own: Option<Own>,
}

/// The remote prices of all assets: 112 bytes for each that has one, at most `ASSETS_MAX` of them (0.9 MiB).
#[derive(Debug, Default)]
pub(super) struct Remotes(BTreeMap<usize, Held>);

impl Remotes {
    /// The asset's remote price, if there is one that is fresh, and until when, monotonic ns. One in USDT is converted
    /// with the present rate of `market`, if that has one.
    pub(super) fn fresh(&self, mono_ns: u64, index: usize, market: &Consolidator) -> Option<(Tick, u64)> {
        let held = self.0.get(&index)?;
        let until_mono_ns = fresh_until_mono_ns(held.known_mono_ns, &market.parameters);
        let tick = converted(&held.tick, market).unwrap_or(held.tick);
        (mono_ns <= until_mono_ns).then_some((tick, until_mono_ns))
    }

    /// Drops the asset's remote price: our own have taken over.
    pub(super) fn forget(&mut self, index: usize) {
        self.0.remove(&index);
    }

    /// Takes a remote price, if it can be believed, and counts it. `newest` is what was published of the asset last,
    /// `is_tether` whether the asset is USDT. Whether it is to be looked at.
    pub(super) fn take(&mut self, taking: &Taking<'_>, walls: &mut Walls, counters: &mut RemoteCounters) -> bool {
        let index = taking.remote.asset.index();
        match taking.judge(self.0.get(&index), walls) {
            Ok(held) => {
                counters.taken += 1;
                self.0.insert(index, held);
                true
            }
            Err(refusal) => {
                let count = match refusal {
                    Refusal::Price => &mut counters.refused_price,
                    Refusal::Time => &mut counters.refused_time,
                    Refusal::Stale => &mut counters.refused_stale,
                    Refusal::Older => &mut counters.refused_older,
                    Refusal::Apart => &mut counters.refused_apart,
                };
                *count += 1;
                false
            }
        }
    }
}

/// A remote price and what it is judged by.
pub(super) struct Taking<'a> {
    /// The time.
    pub(super) now: Moment,
    /// The price.
    pub(super) remote: &'a RemotePrice,
    /// What was published of the asset last; `sequence` 0 where nothing was.
    pub(super) newest: &'a Tick,
    /// Whether the asset is USDT, whose price in USDT says nothing.
    pub(super) is_tether: bool,
    /// Our own market.
    pub(super) market: &'a Consolidator,
}

impl Taking<'_> {
    fn judge(&self, held: Option<&Held>, walls: &mut Walls) -> Result<Held, Refusal> {
        let Self { now, remote, newest, .. } = *self;
        let is_usable = !remote.venues.is_empty() && (remote.currency == Currency::Usd || !self.is_tether);
        let amount = Amount::of(remote.price).filter(|_| is_usable).ok_or(Refusal::Price)?;
        let known_time_ms = remote.proven_time_ms.max(remote.received_time_ms);
        let newest_time_ms = known_time_ms.max(remote.exchange_time_ms.unwrap_or(0));
        let (earliest_ms, latest_ms) = walls.both_ms(now);
        walls.doubt(now, newest_time_ms, AHEAD_MS_MAX);
        if newest_time_ms > earliest_ms.saturating_add(AHEAD_MS_MAX) {
            return Err(Refusal::Time);
        }
        let mono_ns = |time_ms: u64| {
            let age_ns = latest_ms.saturating_sub(time_ms).saturating_mul(NS_PER_MS);
            now.mono_ns.saturating_sub(age_ns)
        };
        let known_mono_ns = mono_ns(known_time_ms);
        if now.mono_ns > fresh_until_mono_ns(known_mono_ns, &self.market.parameters) {
            return Err(Refusal::Stale);
        }
        let is_own = newest.sequence != 0 && newest.tier != Tier::Valkey as u8;
        // One that has ended refuses nothing: its time may be from before the clocks were set.
        let standing =
            held.filter(|held| now.mono_ns <= fresh_until_mono_ns(held.known_mono_ns, &self.market.parameters));
        let is_older = standing.is_some_and(|held| known_time_ms <= held.known_time_ms);
        if is_older || (is_own && newest.received_mono_ns > known_mono_ns) {
            return Err(Refusal::Older);
        }
        let own = if is_own { Own::of(newest, now) } else { held.and_then(|held| held.own) };
        let amount = self.market.converted(amount, remote.currency).unwrap_or(amount);
        if is_too_far(now, amount, own, self.is_tether) {
            return Err(Refusal::Apart);
        }
        // The two clocks do not tick together: to reckon the same arrival anew would move it by up to a millisecond.
        let same = held.filter(|held| held.tick.received_time_ms == remote.received_time_ms);
        let received_mono_ns = same.map_or(mono_ns(remote.received_time_ms), |held| held.tick.received_mono_ns);
        let flags =
            if remote.converted { TICK_CONVERTED } else { 0 } | if self.market.simulated { TICK_SIMULATED } else { 0 };
        let tick = Tick {
            mantissa: remote.price.mantissa(),
            exponent: remote.price.exponent(),
            exchange_time_ms: remote.exchange_time_ms.unwrap_or(0),
            received_time_ms: remote.received_time_ms,
            received_mono_ns,
            spread_centibps: remote.spread_centibps,
            asset: remote.asset.number(),
            flags,
            venues: remote.venues.bits(),
            currency: remote.currency as u8,
            source: Source::Valkey.number(),
            tier: Tier::Valkey as u8,
            ..bytemuck::Zeroable::zeroed()
        };
        Ok(Held { tick, known_time_ms, known_mono_ns, own })
    }
}

/// A tick in USDT in USD by our own rate, if it can be.
fn converted(tick: &Tick, market: &Consolidator) -> Option<Tick> {
    let price = market.converted(Amount::of(tick.price())?, tick.currency())?.price(tick.exponent)?;
    let (mantissa, exponent, flags) = (price.mantissa(), price.exponent(), tick.flags | TICK_CONVERTED);
    Some(Tick { mantissa, exponent, flags, currency: Currency::Usd as u8, ..*tick })
}

const fn fresh_until_mono_ns(known_mono_ns: u64, parameters: &FeedParameters) -> u64 {
    known_mono_ns.saturating_add(parameters.fresh_ms.saturating_mul(NS_PER_MS))
}
