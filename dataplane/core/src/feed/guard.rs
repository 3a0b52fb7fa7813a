//! What is refused before it can touch a price: numbers that are none, times that cannot be, words out of order.
//!
//! A quote either passes, perhaps without a field that was unusable, or leaves no trace but a count. Whether a venue
//! is *believed* is not decided here but in `quarantine.rs`.

use super::amount::Amount;
use shared::moment::Moment;
use shared::quote::{Field, Quote, Route};
use shared::venue::{Venue, VenueSet};

/// A bid above its ask by more percent of the ask is a broken book, not a moment between two messages.
const CROSSED_PERCENT_MAX: i128 = 5;
/// Oldest venue time of a message that is not a snapshot, ms.
const TIME_OLD_MS_MAX: u64 = 60_000;
/// Furthest a venue's clock may be ahead of ours, ms.
const TIME_AHEAD_MS_MAX: u64 = 5_000;
/// How far the times of one channel may step back, ms: messages of one moment leave by several of a venue's threads.
const ORDER_TOLERANCE_MS: u64 = 100;
/// How long venues must contradict our steady wall clock, and agree with the present one, until it is set anew.
const REANCHOR_NS: u64 = 60_000_000_000;
/// A wall clock this far from the settled one has stepped, ms: rates that differ do not get there between two steps.
const STEP_MS: u64 = 1_000;
/// How much that distance may change while it counts as the same step, ms.
const SAME_STEP_MS: u64 = 100;
/// Longest time between two looks at the clocks that still counts as watching, ms: sweeps come every 100 ms.
const WATCH_MS: u64 = 5_000;

/// Why a quote is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No usable price in it.
    Price,
    /// Older than what was taken, or taken before.
    Order,
    /// A time that cannot be.
    Time,
}

/// The prices of a quote that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    /// Price of the last trade.
    pub(super) last: Field,
    /// Highest buy order.
    pub(super) bid: Field,
    /// Lowest sell order.
    pub(super) ask: Field,
    /// Whether something was refused on the way.
    pub(super) incomplete: bool,
}

impl Fields {
    /// The usable prices of `quote`. An unusable side of the book counts as unknown from now on: what was known of it
    /// no longer holds. An unusable last price leaves the one before.
    ///
    /// # Errors
    /// `Refusal::Price` when no usable price is left, or the book is crossed beyond reason.
    pub(super) fn of(quote: &Quote) -> Result<Self, Refusal> {
        let said = [quote.last, quote.bid, quote.ask];
        let unusable = |field: &Field| field.price().is_some_and(|price| Amount::of(price).is_none());
        let unless_unusable = |field: Field, instead: Field| if unusable(&field) { instead } else { field };
        let fields = Self {
            last: unless_unusable(quote.last, Field::Unchanged),
            bid: unless_unusable(quote.bid, Field::Empty),
            ask: unless_unusable(quote.ask, Field::Empty),
            incomplete: said.iter().any(unusable),
        };
        let left = [fields.last, fields.bid, fields.ask];
        let speaks = if fields.incomplete {
            left.iter().any(|field| field.price().is_some())
        } else {
            left.iter().any(|field| *field != Field::Unchanged)
        };
        if !speaks || fields.is_broken_book() { Err(Refusal::Price) } else { Ok(fields) }
    }

    fn is_broken_book(&self) -> bool {
        let amount = |field: Field| field.price().and_then(Amount::of);
        matches!((amount(self.bid), amount(self.ask)), (Some(bid), Some(ask)) if is_broken_book(bid, ask))
    }
}

/// What of `quote` may be used, given how far its listing has come.
///
/// # Errors
/// Why it is refused as a whole; nothing is remembered of it then.
pub(super) fn admit(now: Moment, quote: &Quote, order: Option<&Order>, walls: &mut Walls) -> Result<Fields, Refusal> {
    let fields = Fields::of(quote)?;
    if !walls.admits(now, quote) {
        return Err(Refusal::Time);
    }
    if order.is_some_and(|order| !order.admits(quote)) {
        return Err(Refusal::Order);
    }
    Ok(fields)
}

/// Whether `bid` is above `ask` beyond what the moment between two messages explains.
pub(super) fn is_broken_book(bid: Amount, ask: Amount) -> bool {
    bid > ask && bid.is_apart(ask, CROSSED_PERCENT_MAX)
}

/// Which of a venue's channels a message came by, as far as its prices tell: each is in order only within itself.
const CHANNELS: usize = 3;

fn channel(quote: &Quote) -> usize {
    let book = quote.bid != Field::Unchanged || quote.ask != Field::Unchanged;
    match (book, quote.last != Field::Unchanged) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// How far one venue has come with one asset, by channel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order {
    channels: [ChannelOrder; CHANNELS],
}

/// The least that is still new; zeros accept everything.
#[derive(Clone, Copy, Debug, Default)]
struct ChannelOrder {
    sequence_min: u64,
    time_ms_min: u64,
}

impl Order {
    /// Whether `quote` is not older than what was taken. Snapshots restate the market and may follow a restart of the
    /// venue's count, so they are always in order. REST has no sequence, only a time.
    pub(super) fn admits(&self, quote: &Quote) -> bool {
        let taken = &self.channels[channel(quote)];
        let in_time = quote.exchange_time_ms.is_none_or(|time_ms| time_ms >= taken.time_ms_min);
        let in_sequence = quote.venue_sequence.is_none_or(|sequence| sequence >= taken.sequence_min);
        quote.snapshot || (in_time && (in_sequence || quote.route == Route::Rest))
    }

    /// Remembers a quote that was taken. REST answers are a side channel: they do not move the WebSocket's order.
    pub(super) fn advance(&mut self, quote: &Quote) {
        if quote.route == Route::Rest {
            return;
        }
        let taken = &mut self.channels[channel(quote)];
        if quote.snapshot {
            *taken = ChannelOrder::default();
        }
        if let Some(sequence) = quote.venue_sequence {
            taken.sequence_min = sequence.saturating_add(1);
        }
        if let Some(time_ms) = quote.exchange_time_ms {
            taken.time_ms_min = taken.time_ms_min.max(time_ms.saturating_sub(ORDER_TOLERANCE_MS));
        }
    }
}

/// Our wall clock, and a second one that does not jump: the wall as it was at the start, moved on by monotonic time.
///
/// A venue's time is good if either clock finds it so; a wall clock that jumps an hour therefore refuses nothing.
/// If the start was wrong and the wall has been corrected since, venues say so, and the second clock is set anew.
///
/// Other nodes' prices are as old as the stricter clock finds them, so there one wrong clock is enough to refuse all.
/// They have a third, *settled* clock: it does not jump either, but follows a wall that has stepped once and stayed,
/// whatever venues say or do not say. Only who speaks from the wall's future holds that up: the wall is behind then, and
/// what is old would look new. A wall ahead makes prices only older. One venue that is a little ahead holds nothing up: where
/// no other is heard, a wall may be set back wrongly by as little as that. Nothing tells a wall that is set back wrongly while
/// no venue and no node is heard from one that is set right; a start with such a clock is no different.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walls {
    anchor: Option<Moment>,
    contradicted_since_mono_ns: Option<u64>,
    settled: Option<Moment>,
    stepped: Option<Step>,
}

/// A wall clock that has left the settled one.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// How far it was ahead when first seen, ms.
    ahead_ms: i64,
    since_mono_ns: u64,
    seen_mono_ns: u64,
    /// Venues that spoke from a little ahead of the wall since.
    doubted_by: VenueSet,
}

impl Walls {
    /// Whether `quote`'s own time can be.
    pub(super) fn admits(&mut self, now: Moment, quote: &Quote) -> bool {
        let steady_ms = self.steady_ms(now);
        let Some(time_ms) = quote.exchange_time_ms else {
            return true;
        };
        self.hear(now, quote.venue, time_ms);
        let fits = |wall_ms: u64| {
            time_ms <= wall_ms.saturating_add(TIME_AHEAD_MS_MAX)
                && (quote.snapshot || time_ms.saturating_add(TIME_OLD_MS_MAX) >= wall_ms)
        };
        let (by_steady, by_wall) = (fits(steady_ms), fits(now.wall_ms));
        if by_steady {
            self.contradicted_since_mono_ns = None;
        } else if by_wall && !quote.snapshot {
            let since_mono_ns = *self.contradicted_since_mono_ns.get_or_insert(now.mono_ns);
            if now.mono_ns.saturating_sub(since_mono_ns) >= REANCHOR_NS {
                *self = Self { anchor: Some(now), settled: Some(now), ..Self::default() };
            }
        }
        by_steady || by_wall
    }

    /// How long ago the last trade of `quote` was, ms, by the kinder of the two clocks. Only a snapshot speaks of old
    /// ones; any other message comes when it happens.
    pub(super) fn trade_age_ms(&mut self, now: Moment, quote: &Quote) -> u64 {
        let time_ms = quote.exchange_time_ms.filter(|_| quote.snapshot).unwrap_or(u64::MAX);
        let steady_ms = self.steady_ms(now);
        now.wall_ms.min(steady_ms).saturating_sub(time_ms)
    }

    /// Looks at the clocks: starts those that do not run yet, and sets the settled one by a wall that has stepped and
    /// stayed. To be called at least every `WATCH_MS`: nobody could doubt the wall in time that nobody saw.
    pub(super) fn watch(&mut self, now: Moment) {
        self.anchor.get_or_insert(now);
        let ahead_ms = now.wall_ms.cast_signed().saturating_sub(self.settled_ms(now).cast_signed());
        if ahead_ms.unsigned_abs() <= STEP_MS {
            self.stepped = None;
            return;
        }
        let is_same = |step: &Step| {
            ahead_ms.abs_diff(step.ahead_ms) <= SAME_STEP_MS && now.ms_since(step.seen_mono_ns) <= WATCH_MS
        };
        let begun =
            Step { ahead_ms, since_mono_ns: now.mono_ns, seen_mono_ns: now.mono_ns, doubted_by: VenueSet::EMPTY };
        let step = Step { seen_mono_ns: now.mono_ns, ..self.stepped.filter(is_same).unwrap_or(begun) };
        if now.mono_ns.saturating_sub(step.since_mono_ns) >= REANCHOR_NS {
            (self.settled, self.stepped) = (Some(now), None);
        } else {
            self.stepped = Some(step);
        }
    }

    /// Somebody says that it is, or has been, `time_ms`: a wall that is more than `ms` behind has not been set right,
    /// if by the settled clock it can be.
    pub(super) fn doubt(&mut self, now: Moment, time_ms: u64, ms: u64) {
        if self.is_behind(now, time_ms, ms) {
            self.stepped = None;
        }
    }

    /// A venue says that it is, or has been, `time_ms`. One that is ahead by no more than any may be can be ahead of the true
    /// time; two that are tell that the wall is behind it.
    fn hear(&mut self, now: Moment, venue: Venue, time_ms: u64) {
        self.doubt(now, time_ms, TIME_AHEAD_MS_MAX);
        let is_behind = self.is_behind(now, time_ms, STEP_MS);
        if let Some(step) = self.stepped.as_mut().filter(|_| is_behind) {
            step.doubted_by = step.doubted_by.with(venue);
            if step.doubted_by.len() > 1 {
                self.stepped = None;
            }
        }
    }

    fn is_behind(&mut self, now: Moment, time_ms: u64, ms: u64) -> bool {
        let can_be = time_ms <= self.settled_ms(now).saturating_add(TIME_AHEAD_MS_MAX);
        can_be && time_ms > now.wall_ms.saturating_add(ms)
    }

    /// The earlier and the later of the wall and the settled clock, Unix ms: for whom neither may be kind.
    pub(super) fn both_ms(&mut self, now: Moment) -> (u64, u64) {
        let settled_ms = self.settled_ms(now);
        (now.wall_ms.min(settled_ms), now.wall_ms.max(settled_ms))
    }

    fn steady_ms(&mut self, now: Moment) -> u64 {
        run_on_ms(*self.anchor.get_or_insert(now), now)
    }

    fn settled_ms(&mut self, now: Moment) -> u64 {
        run_on_ms(*self.settled.get_or_insert(now), now)
    }
}

/// The wall as it was at `anchor`, moved on by monotonic time until `now`.
const fn run_on_ms(anchor: Moment, now: Moment) -> u64 {
    anchor.wall_ms.saturating_add(now.ms_since(anchor.mono_ns))
}
