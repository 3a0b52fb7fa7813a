//! Turns the venues' last words about an asset into one price: the median of those that are fresh and believed.
//!
//! This file decides what the price *is* and when it must be looked at again. It numbers nothing and sends nothing,
//! and it never makes a price up: with nothing fresh there is no price, and with nothing believed the old one holds.

use super::amount::{Amount, Rate, median_sorted};
use super::guard::{Fields, Order};
use super::listing::{Listing, Standing};
use super::quarantine::{Counters, Judge, Listings, QUARANTINE_NS, View, Views, set_standing};
use super::{Exclusion, FeedParameters, VenueCounters, VenueDetail};
use alloc::boxed::Box;
use alloc::vec::Vec;
use shared::quote::{Currency, Quote, Route};
use shared::tick::{SPREAD_UNKNOWN, Source, TICK_CONVERTED, TICK_SIMULATED, Tick, Tier};
use shared::venue::{VENUE_COUNT, Venue, VenueSet};

/// A last trade older than this counts only where nothing better is to be had, ns.
const OLD_TRADE_NS: u64 = 60_000_000_000;
/// Not before something is heard.
pub(super) const NEVER: u64 = u64::MAX;
const NS_PER_MS: u64 = 1_000_000;

/// What is known of one asset: 64 bytes, and a `Listing` for each venue that was heard of it.
#[derive(Debug, Default)]
pub(super) struct AssetState {
    /// The venues' last words.
    pub(super) listings: Listings,
    /// Venues whose subscription has delivered on the present connection.
    pub(super) live: VenueSet,
    /// Whether any venue, or another node, prices it in USDT, so that it follows the USDT/USD price.
    pub(super) follows_usdt: bool,
}

impl AssetState {
    /// A venue's subscription has ended.
    fn unprove(&mut self, venue: Venue) {
        self.live = self.live.without(venue);
        if let Some(listing) = &mut self.listings[venue.index()] {
            listing.order = Order::default();
        }
    }
}

/// What an asset's price is now.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// This; `sequence` and `published_mono_ns` are not filled in yet.
    Price(Tick),
    /// What was published stands for now: the only ones who are fresh are not yet believed.
    Hold,
    /// No venue is fresh.
    Stale,
}

/// Every asset's state.
pub(super) struct Consolidator {
    /// By asset index.
    pub(super) states: Vec<AssetState>,
    /// USD for one USDT; `None` when there is no live price of it.
    pub(super) rate: Option<Rate>,
    /// Tunables.
    pub(super) parameters: FeedParameters,
    /// When each venue's connection last gave a sign of life, monotonic ns; `None`: not on the present connection.
    pub(super) heard_mono_ns: [Option<u64>; VENUE_COUNT],
    /// Whether prices come from simulated exchanges.
    pub(super) simulated: bool,
}

impl Consolidator {
    /// Knows nothing yet.
    pub(super) const fn new(parameters: FeedParameters, simulated: bool) -> Self {
        Self { states: Vec::new(), rate: None, parameters, heard_mono_ns: [None; VENUE_COUNT], simulated }
    }

    /// Remembers a sign of life. Whether the venue had been silent for too long before.
    pub(super) fn hear(&mut self, mono_ns: u64, venue: Venue, heard_mono_ns: u64) -> bool {
        let was_alive = self.alive_until_mono_ns(venue).is_some_and(|until| mono_ns <= until);
        let heard = &mut self.heard_mono_ns[venue.index()];
        *heard = (*heard).max(Some(heard_mono_ns.min(mono_ns)));
        !was_alive
    }

    /// Forgets a venue's connection: nothing is proven, and the next one may count anew.
    pub(super) fn lose(&mut self, venue: Venue) {
        self.heard_mono_ns[venue.index()] = None;
        for state in &mut self.states {
            state.unprove(venue);
        }
    }

    /// Takes what a session knows of a subscription. One that has ended may count anew when it comes back.
    pub(super) fn subscription(&mut self, venue: Venue, index: usize, live: bool) {
        let state = &mut self.states[index];
        if live {
            state.live = state.live.with(venue);
        } else {
            state.unprove(venue);
        }
    }

    /// How far the quote's venue has come with its asset, if it was heard of it in this currency.
    pub(super) fn order(&self, quote: &Quote) -> Option<&Order> {
        let listing = self.states[quote.asset.index()].listings[quote.venue.index()].as_deref()?;
        (listing.currency == quote.currency).then_some(&listing.order)
    }

    /// Takes a quote that passed the guard into the venue's listing. One that had gone stale, or changed its currency,
    /// has no past to be judged by.
    pub(super) fn merge(
        &mut self,
        mono_ns: u64,
        quote: &Quote,
        fields: &Fields,
        trade_age_ms: u64,
        counters: &mut VenueCounters,
    ) {
        let (index, venue) = (quote.asset.index(), quote.venue);
        let is_fresh = self.states[index].listings[venue.index()]
            .as_deref()
            .is_some_and(|listing| mono_ns <= self.fresh_until_mono_ns(&self.states[index], venue, listing));
        let state = &mut self.states[index];
        state.follows_usdt |= quote.currency == Currency::Usdt;
        let listing = state.listings[venue.index()].get_or_insert_with(|| Box::new(Listing::new(quote.currency)));
        if listing.currency != quote.currency {
            set_standing(listing, Standing::Trusted, counters);
            **listing = Listing::new(quote.currency);
        } else if !is_fresh {
            listing.history.clear();
        }
        listing.merge(quote, fields, trade_age_ms);
    }

    /// Remembers that the venue said something unusable. Whether its feed has just ceased to prove anything.
    pub(super) fn refuse(&mut self, quote: &Quote) -> bool {
        let listing = &mut self.states[quote.asset.index()].listings[quote.venue.index()];
        listing.as_mut().is_some_and(|listing| listing.refuse())
    }

    /// Until when a published price is fresh although none of those who can speak for it is believed.
    pub(super) fn proven_until_mono_ns(&self, tick: &Tick) -> u64 {
        let by_age = tick.received_mono_ns.saturating_add(self.parameters.fresh_ms.saturating_mul(NS_PER_MS));
        let state = &self.states[usize::from(tick.asset)];
        let live = tick.venue_set().iter().filter(|venue| state.live.contains(*venue));
        live.filter_map(|venue| self.alive_until_mono_ns(venue)).fold(by_age, u64::max)
    }

    /// What each venue contributes; only venues that were heard or are `listed`.
    pub(super) fn detail(&self, mono_ns: u64, state: &AssetState, listed: VenueSet) -> Vec<VenueDetail> {
        let excluded = exclusions(&self.views(mono_ns, state));
        let unheard = Listing::new(Currency::Usd);
        let detail = |venue: Venue| {
            let heard = state.listings[venue.index()].as_deref();
            let listing = heard.or(listed.contains(venue).then_some(&unheard))?;
            Some(VenueDetail {
                venue,
                price: listing.price(),
                currency: listing.currency,
                last: listing.last,
                bid: listing.bid,
                ask: listing.ask,
                exchange_time_ms: listing.exchange_time_ms,
                received_time_ms: listing.received_time_ms,
                received_mono_ns: listing.received_mono_ns,
                live: self.is_live(mono_ns, state, venue),
                excluded: excluded[venue.index()],
            })
        };
        Venue::ALL.into_iter().filter_map(detail).collect()
    }

    /// Whether the venue's subscription to the asset is proven alive.
    pub(super) fn is_live(&self, mono_ns: u64, state: &AssetState, venue: Venue) -> bool {
        state.live.contains(venue) && self.alive_until_mono_ns(venue).is_some_and(|until| mono_ns <= until)
    }

    fn alive_until_mono_ns(&self, venue: Venue) -> Option<u64> {
        Some(self.heard_mono_ns[venue.index()]?.saturating_add(self.parameters.alive_ms.saturating_mul(NS_PER_MS)))
    }

    /// Until when what the venue last said is fresh: its own age, or as long as a live feed would have told us more.
    pub(super) fn fresh_until_mono_ns(&self, state: &AssetState, venue: Venue, listing: &Listing) -> u64 {
        let by_age = listing.received_mono_ns.saturating_add(self.parameters.fresh_ms.saturating_mul(NS_PER_MS));
        let is_proven = state.live.contains(venue) && !listing.is_doubtful();
        let by_feed = self.alive_until_mono_ns(venue).filter(|_| is_proven);
        by_age.max(by_feed.unwrap_or(0))
    }

    /// An amount of USDT in USD by the present rate; `None` when it is USD, there is no rate, or the result is absurd.
    pub(super) fn converted(&self, amount: Amount, currency: Currency) -> Option<Amount> {
        let rate = self.rate.filter(|_| currency == Currency::Usdt)?;
        amount.converted(rate)
    }

    /// The asset's prices side by side.
    pub(super) fn views(&self, mono_ns: u64, state: &AssetState) -> Views {
        Venue::ALL.map(|venue| {
            let listing = state.listings[venue.index()].as_deref()?;
            let worth = listing.worth?;
            let converted = self.converted(worth.amount, listing.currency);
            let fresh_until_mono_ns = self.fresh_until_mono_ns(state, venue, listing);
            Some(View {
                amount: converted.unwrap_or(worth.amount),
                currency: if converted.is_some() { Currency::Usd } else { listing.currency },
                converted: converted.is_some(),
                fresh_until_mono_ns,
                fresh: mono_ns <= fresh_until_mono_ns,
                old_trade: worth.from_last && mono_ns.saturating_sub(listing.traded_mono_ns) > OLD_TRADE_NS,
                standing: listing.standing,
            })
        })
    }

    /// Judges the asset at `index` anew and says what its price is, and when to look again at the latest.
    pub(super) fn weigh(
        &mut self,
        mono_ns: u64,
        index: usize,
        spoke: Option<Venue>,
        counters: &mut Counters,
    ) -> (Outcome, u64) {
        let mut views = self.views(mono_ns, &self.states[index]);
        let listings = &mut self.states[index].listings;
        Judge { views: &mut views, listings, counters, mono_ns }.judge(spoke);
        let due_mono_ns = due_mono_ns(mono_ns, &views, &self.states[index].listings);
        let outcome = match self.price(index, &views) {
            Some(tick) => Outcome::Price(tick),
            None if views.iter().flatten().any(|view| view.fresh) => Outcome::Hold,
            None => Outcome::Stale,
        };
        (outcome, due_mono_ns)
    }

    /// The tick of those who count; `None` when nobody does.
    fn price(&self, index: usize, views: &Views) -> Option<Tick> {
        let excluded = exclusions(views);
        let mut amounts = [Amount::ZERO; VENUE_COUNT];
        let mut spreads = [0_u32; VENUE_COUNT];
        let (mut amount_count, mut spread_count) = (0, 0);
        let mut finest = i8::MAX;
        let mut tick = Tick {
            flags: if self.simulated { TICK_SIMULATED } else { 0 },
            // Until somebody contributes who was heard over a WebSocket.
            tier: Tier::Rest as u8,
            ..bytemuck::Zeroable::zeroed()
        };
        for venue in Venue::ALL {
            let (Some(view), Some(listing)) = (&views[venue.index()], &self.states[index].listings[venue.index()])
            else {
                continue;
            };
            let Some(worth) = listing.worth.filter(|_| excluded[venue.index()].is_none()) else {
                continue;
            };
            amounts[amount_count] = view.amount;
            amount_count += 1;
            if let Some(spread_centibps) = worth.spread_centibps {
                spreads[spread_count] = spread_centibps;
                spread_count += 1;
            }
            finest = finest.min(worth.finest);
            contribute(&mut tick, venue, view, listing);
        }
        let sorted = &mut amounts[..amount_count];
        sorted.sort_unstable();
        let price = median_sorted(sorted, Amount::midpoint)?.price(finest)?;
        let sorted = &mut spreads[..spread_count];
        sorted.sort_unstable();
        tick.spread_centibps = median_sorted(sorted, u32::midpoint).unwrap_or(SPREAD_UNKNOWN);
        tick.mantissa = price.mantissa();
        tick.exponent = price.exponent();
        tick.asset = index as u16;
        if amount_count > 1 {
            tick.source = Source::Median.number();
        }
        Some(tick)
    }
}

/// Adds one venue's part to a tick: its bit, its times if they are the newest, its source in case it stays alone.
fn contribute(tick: &mut Tick, venue: Venue, view: &View, listing: &Listing) {
    tick.venues |= venue.bit();
    tick.currency = view.currency as u8;
    tick.flags |= if view.converted { TICK_CONVERTED } else { 0 };
    tick.exchange_time_ms = tick.exchange_time_ms.max(listing.exchange_time_ms.unwrap_or(0));
    if listing.received_mono_ns >= tick.received_mono_ns {
        tick.received_mono_ns = listing.received_mono_ns;
        tick.received_time_ms = listing.received_time_ms;
    }
    let source = match listing.route {
        Route::Ws => Source::Ws(venue),
        Route::Rest => Source::Rest(venue),
    };
    tick.source = source.number();
    if listing.route == Route::Ws {
        tick.tier = Tier::Local as u8;
    }
}

/// Why each venue does not count; `None` for those that do.
pub(super) fn exclusions(views: &Views) -> [Option<Exclusion>; VENUE_COUNT] {
    // Dollars, if anyone fresh has any; tether only among themselves.
    let is_usd = |view: &View| view.fresh && view.currency == Currency::Usd;
    let basis = if views.iter().flatten().any(is_usd) { Currency::Usd } else { Currency::Usdt };
    let exclusion = |view: &View| match view.standing {
        _ if !view.fresh => Some(Exclusion::Stale),
        Standing::Quarantined { .. } => Some(Exclusion::Quarantined),
        Standing::Outlier => Some(Exclusion::Outlier),
        Standing::Trusted if view.currency != basis => Some(Exclusion::NoConversion),
        Standing::Trusted => None,
    };
    let has_recent = views.iter().flatten().any(|view| exclusion(view).is_none() && !view.old_trade);
    views.map(|view| match view {
        None => Some(Exclusion::NoPrice),
        Some(view) => exclusion(&view).or((view.old_trade && has_recent).then_some(Exclusion::Stale)),
    })
}

/// When, without another word from anyone, something about the asset will change.
fn due_mono_ns(mono_ns: u64, views: &Views, listings: &Listings) -> u64 {
    let mut due = NEVER;
    for (view, listing) in views.iter().zip(listings) {
        let Some(listing) = listing else {
            continue;
        };
        if let Standing::Quarantined { since_mono_ns } = listing.standing {
            due = due.min(since_mono_ns.saturating_add(QUARANTINE_NS));
        }
        let Some(view) = view.filter(|view| view.fresh) else {
            continue;
        };
        due = due.min(view.fresh_until_mono_ns.saturating_add(1));
        if listing.worth.is_some_and(|worth| worth.from_last) && !view.old_trade {
            due = due.min(listing.traded_mono_ns.saturating_add(OLD_TRADE_NS + 1));
        }
    }
    due.max(mono_ns.saturating_add(1))
}
