//! What must be true after every step, told without the shard's own reasoning: order, range of prices, freshness.

use crate::world::{ASSETS, TETHER, asset};
use dataplane_core::feed::{Exclusion, FeedParameters, FeedShard, RemotePrice};
use shared::moment::Moment;
use shared::price::{EXPONENT_MIN, Price};
use shared::quote::{Currency, Quote, Route};
use shared::tick::{Source, TICK_CONVERTED, TICK_SIMULATED, Tick, Tier};
use shared::venue::{VENUE_COUNT, Venue, VenueSet};

/// Time that may pass until a sweep tells of what has changed, ms.
const SWEEP_MS: u64 = 100;
/// Longest that a price may stand while the only ones who are fresh are not believed, ms.
const QUARANTINE_MS: u64 = 5_000;
/// How long our own last price tells which remote ones are too far, ms.
const OWN_MS: u64 = 600_000;

#[derive(Default)]
pub struct Oracle {
    /// By asset: the newest tick of the fast reader, and of the slow one.
    pub newest: [Option<Tick>; ASSETS],
    pub newest_slow: [Option<Tick>; ASSETS],
    pub stale_ticks: u64,
    sequence: u64,
    /// When each listing last said anything at all, taken or refused.
    said_mono_ns: [[u64; ASSETS]; VENUE_COUNT],
    heard_mono_ns: [u64; VENUE_COUNT],
    live: [VenueSet; ASSETS],
    /// By which way the last quote of each listing came that was taken.
    routes: [[Option<Route>; ASSETS]; VENUE_COUNT],
    /// A quote on its way, and how many of its venue's had been taken before.
    saying: Option<(Quote, u64)>,
    /// What other nodes said, each with when it was known to be true, by a clock that never jumps.
    remotes: [Vec<(RemotePrice, u64)>; ASSETS],
    /// By asset: the newest tick that was no other node's price.
    pub own: [Option<Tick>; ASSETS],
    /// Ticks by tier.
    pub tiers: [u64; 3],
}

impl Oracle {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn said(&mut self, quote: &Quote, taken_before: u64) {
        self.saying = Some((*quote, taken_before));
        let said = &mut self.said_mono_ns[quote.venue.index()][quote.asset.index()];
        *said = (*said).max(quote.received_mono_ns);
        if quote.route == Route::Ws {
            self.heard(quote.venue, quote.received_mono_ns);
        }
    }

    /// Another node's price is about to come, said to be true as of `known_mono_ns`.
    pub fn offered(&mut self, remote: &RemotePrice, known_mono_ns: u64) {
        self.remotes[remote.asset.index()].push((*remote, known_mono_ns));
    }

    pub fn heard(&mut self, venue: Venue, mono_ns: u64) {
        let heard = &mut self.heard_mono_ns[venue.index()];
        *heard = (*heard).max(mono_ns);
    }

    pub fn lost(&mut self, venue: Venue) {
        self.heard_mono_ns[venue.index()] = 0;
        self.live.iter_mut().for_each(|live| *live = live.without(venue));
    }

    pub fn subscription(&mut self, venue: Venue, index: usize, live: bool) {
        let set = &mut self.live[index];
        *set = if live { set.with(venue) } else { set.without(venue) };
    }

    /// Whether anything can make the venue's word on the asset fresh.
    fn can_be_fresh(&self, now: Moment, venue: Venue, index: usize, grace_ms: u64) -> bool {
        let bounds = FeedParameters::default();
        let is_young = now.ms_since(self.said_mono_ns[venue.index()][index]) <= bounds.fresh_ms + grace_ms;
        let is_alive = now.ms_since(self.heard_mono_ns[venue.index()]) <= bounds.alive_ms + grace_ms;
        is_young || (self.live[index].contains(venue) && is_alive)
    }

    /// Checks what the fast reader got in one step.
    pub fn check(&mut self, now: Moment, shard: &FeedShard, ticks: &[Tick]) {
        if let Some((quote, taken_before)) = self.saying.take()
            && shard.counters().venues[quote.venue.index()].quotes > taken_before
        {
            self.routes[quote.venue.index()][quote.asset.index()] = Some(quote.route);
        }
        let is_rate_new = ticks.iter().any(|tick| usize::from(tick.asset) == TETHER);
        for tick in ticks {
            assert!(tick.sequence > self.sequence, "{} after {}", tick.sequence, self.sequence);
            self.sequence = tick.sequence;
            assert!(tick.flags & TICK_SIMULATED != 0 && tick.reserved == 0);
            let is_remote = tick.tier == Tier::Valkey as u8;
            assert_eq!(is_remote, tick.source == Source::Valkey.number(), "{tick:?}");
            assert!(tick.published_mono_ns == now.mono_ns && tick.received_mono_ns <= now.mono_ns);
            let index = usize::from(tick.asset);
            if tick.is_stale() {
                self.stale_ticks += 1;
                self.check_stale(tick, index);
            } else if is_remote {
                self.check_remote(now, shard, tick, is_rate_new);
            } else {
                self.check_contributors(now, shard, tick, is_rate_new);
            }
            self.tiers[usize::from(tick.tier)] += 1;
            self.newest[index] = Some(*tick);
            if !is_remote {
                self.own[index] = Some(*tick);
            }
        }
    }

    /// A stale tick is the one before, told to be stale: nothing else about it is new.
    fn check_stale(&self, tick: &Tick, index: usize) {
        let before = self.newest[index].expect("nothing goes stale before it was published");
        assert!(!before.is_stale() && !tick.is_prompt(), "told twice, or for a frame: {tick:?}");
        let told = |tick: &Tick| (tick.price(), tick.received_mono_ns, tick.received_time_ms, tick.venues, tick.tier);
        assert_eq!(told(tick), told(&before));
    }

    /// Another node's price stands only where none of ours is fresh, as that node said it, not after its time, and not far
    /// from our own last one.
    fn check_remote(&self, now: Moment, shard: &FeedShard, tick: &Tick, is_rate_new: bool) {
        let index = usize::from(tick.asset);
        let silent = [Some(Exclusion::Stale), Some(Exclusion::NoPrice)];
        let details = shard.detail(now, asset(index));
        assert!(details.iter().all(|detail| silent.contains(&detail.excluded)), "{tick:?} {details:?}");
        let known_mono_ns = self.known_mono_ns(tick).expect("somebody said it");
        assert!(now.ms_since(known_mono_ns) <= FeedParameters::default().fresh_ms, "{tick:?} is not fresh");
        let one = Price::new(1, 0);
        // What is in USDT is compared when it comes, and the rate may have moved since.
        let is_in_tether = self.said_by_others(tick).any(|(remote, _)| remote.currency == Currency::Usdt);
        if is_in_tether {
            assert!(is_rate_new || self.is_converted_rightly(tick), "{tick:?} {:?}", self.newest[TETHER]);
            return;
        }
        let own = self.own[index].filter(|own| now.ms_since(own.published_mono_ns) < OWN_MS);
        if let Some((own, price)) = own.map(|own| (units(own.price(), one), units(tick.price(), one))) {
            assert!((own - price).abs() * 5 <= own, "{tick:?} is far from {own}");
        }
    }

    /// Whether another node's price that came in USDT is in USD by our own rate, or in USDT where we have none.
    fn is_converted_rightly(&self, tick: &Tick) -> bool {
        let rate = self.newest[TETHER].filter(|rate| !rate.is_stale() && rate.tier != Tier::Valkey as u8);
        let Some(rate) = rate else {
            return tick.currency() == Currency::Usdt;
        };
        if tick.currency() == Currency::Usdt {
            // One that came over REST alone may be too far away to be a rate.
            return rate.tier == Tier::Rest as u8;
        }
        let one = Price::new(1, 0);
        let (published, place) = (units(tick.price(), one), units(Price::new(1, tick.exponent), one));
        let is_it = |said: &RemotePrice| (units(said.price, rate.price()) - published).abs() * 2 <= place;
        tick.flags & TICK_CONVERTED != 0 && self.said_by_others(tick).any(|(remote, _)| is_it(remote))
    }

    /// When the price of a tick that another node's was made of was last known to be true.
    fn known_mono_ns(&self, tick: &Tick) -> Option<u64> {
        self.said_by_others(tick).map(|(_, known_mono_ns)| *known_mono_ns).max()
    }

    /// What other nodes said that the tick may have been made of: one in USDT may have been converted since.
    fn said_by_others(&self, tick: &Tick) -> impl Iterator<Item = &(RemotePrice, u64)> {
        let (time_ms, venues, price) = (tick.received_time_ms, tick.venues, tick.price());
        self.remotes[usize::from(tick.asset)].iter().filter(move |(remote, _)| {
            (remote.received_time_ms, remote.venues.bits()) == (time_ms, venues)
                && (remote.price == price || remote.currency == Currency::Usdt)
        })
    }

    /// A price lies between those of its contributors, who are the ones that the details do not exclude.
    fn check_contributors(&self, now: Moment, shard: &FeedShard, tick: &Tick, is_rate_new: bool) {
        let index = usize::from(tick.asset);
        let details = shard.detail(now, asset(index));
        let counting: Vec<_> = details.iter().filter(|detail| detail.excluded.is_none()).collect();
        // When the rate changed in the same step the details already speak of the new one.
        if is_rate_new && index != TETHER {
            return;
        }
        let venues = counting.iter().fold(VenueSet::EMPTY, |set, detail| set.with(detail.venue));
        assert_eq!(tick.venue_set(), venues, "{tick:?} {details:?}");
        let is_local = venues.iter().any(|venue| self.routes[venue.index()][index] == Some(Route::Ws));
        assert_eq!(tick.tier, if is_local { Tier::Local } else { Tier::Rest } as u8, "{tick:?}");
        let converted = tick.flags & TICK_CONVERTED != 0;
        let has_usdt = counting.iter().any(|detail| detail.currency == Currency::Usdt);
        assert_eq!(has_usdt, converted || tick.currency() == Currency::Usdt, "{tick:?}");
        let rate = self.newest[TETHER].filter(|_| converted);
        assert!(rate.is_none_or(|rate| rate.tier != Tier::Valkey as u8), "another node's rate: {tick:?}");
        let rate = if converted { rate.expect("a rate").price() } else { Price::new(1, 0) };
        let prices = counting.iter().map(|detail| {
            assert!(self.can_be_fresh(now, detail.venue, index, 0), "{detail:?} is not fresh");
            let price = detail.price.expect("who counts has a price");
            units(price, if detail.currency == Currency::Usdt { rate } else { Price::new(1, 0) })
        });
        let prices: Vec<i128> = prices.collect();
        let (low, high) = (prices.iter().min().expect("someone"), prices.iter().max().expect("someone"));
        // Rounding to the tick's own last place may carry it half a place out.
        let one = Price::new(1, 0);
        let (published, place) = (units(tick.price(), one), units(Price::new(1, tick.exponent), one));
        assert!((low - published) * 2 <= place, "{tick:?} below {low}");
        assert!((published - high) * 2 <= place, "{tick:?} above {high}");
    }

    /// What the slow reader gets may miss ticks in between, never their order.
    pub fn check_slow(&mut self, tick: &Tick) {
        let newest = &mut self.newest_slow[usize::from(tick.asset)];
        assert!(newest.is_none_or(|before| before.sequence < tick.sequence), "{newest:?} then {tick:?}");
        *newest = Some(*tick);
    }

    /// After a sweep, whatever is not marked stale has somebody to prove it.
    pub fn check_freshness(&self, now: Moment) {
        for (index, tick) in self.newest.iter().enumerate() {
            let Some(tick) = tick.filter(|tick| !tick.is_stale()) else {
                continue;
            };
            if tick.tier == Tier::Valkey as u8 {
                let age_ms = now.ms_since(self.known_mono_ns(&tick).expect("somebody said it"));
                assert!(age_ms <= FeedParameters::default().fresh_ms + SWEEP_MS, "{tick:?} is older than its bound");
                continue;
            }
            let proven = tick.venue_set().iter().any(|venue| self.can_be_fresh(now, venue, index, SWEEP_MS));
            assert!(proven, "{tick:?} is older than its bound");
            let anyone_live = Venue::ALL.into_iter().any(|venue| self.live[index].contains(venue));
            let bound_ms = FeedParameters::default().fresh_ms + SWEEP_MS + QUARANTINE_MS;
            assert!(anyone_live || now.ms_since(tick.received_mono_ns) <= bound_ms, "{tick:?} is unproven");
        }
    }
}

/// `price × rate` in units of 10^-24.
fn units(price: Price, rate: Price) -> i128 {
    let places = price.exponent() + rate.exponent() - EXPONENT_MIN;
    let scale = 10_i128.pow(u32::try_from(places).expect("no more than 24 places"));
    i128::from(price.mantissa()) * i128::from(rate.mantissa()) * scale
}
