//! Who is believed: a venue that jumps alone is not, for at most five seconds; a move that two venues agree on is.
//!
//! The guard refuses what cannot be true; here a price is possible but only one venue says so. Judged are fresh
//! listings of one asset side by side, in one currency. A venue in quarantine or out of line keeps its state, is shown
//! in the details, and is judged again whenever the asset is looked at.
//!
//! Where only two venues are left and they disagree, nobody can tell who is right: after the quarantine both count,
//! and the price is halfway between them until a third speaks.

use super::VenueCounters;
use super::amount::{Amount, median_sorted};
use super::listing::{Listing, Standing};
use shared::quote::Currency;
use shared::venue::{VENUE_COUNT, Venue};

/// A jump from the venue's own median of 30 s, or from the others where it has no past, in percent.
const JUMP_PERCENT: i128 = 10;
/// Distance within which two prices agree, in percent.
const AGREE_PERCENT: i128 = 5;
/// Longest quarantine. The promise is 5 s; a sweep comes every 100 ms, and with every asset due at once it takes
/// eight of them to get round (see `sweep`), so 4 s leave room.
pub(super) const QUARANTINE_NS: u64 = 4_000_000_000;

/// One venue's price of the asset, ready to be compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// The price, converted to USD where it can be.
    pub(super) amount: Amount,
    /// What it is in now.
    pub(super) currency: Currency,
    /// Whether it was converted from USDT.
    pub(super) converted: bool,
    /// The last moment up to which it is fresh, monotonic ns.
    pub(super) fresh_until_mono_ns: u64,
    /// Whether it is fresh.
    pub(super) fresh: bool,
    /// Whether it is a last trade of more than a minute ago.
    pub(super) old_trade: bool,
    /// Whether the venue is believed.
    pub(super) standing: Standing,
}

/// The venues' prices of one asset, by venue; `None` where a venue has none.
pub(super) type Views = [Option<View>; VENUE_COUNT];
/// What each venue last said about one asset, by venue.
pub(super) type Listings = [Option<alloc::boxed::Box<Listing>>; VENUE_COUNT];
/// What is counted, by venue.
pub(super) type Counters = [VenueCounters; VENUE_COUNT];

/// Decides anew whom to believe, after `spoke` said something or time has passed.
pub(super) struct Judge<'a> {
    /// The asset's prices; standings are brought up to date.
    pub(super) views: &'a mut Views,
    /// The same venues' states.
    pub(super) listings: &'a mut Listings,
    /// Where quarantines are counted.
    pub(super) counters: &'a mut Counters,
    /// The time.
    pub(super) mono_ns: u64,
}

impl Judge<'_> {
    /// Judges the asset.
    pub(super) fn judge(&mut self, spoke: Option<Venue>) {
        if let Some(venue) = spoke
            && self.jumped_alone(venue)
        {
            self.set(venue, Standing::Quarantined { since_mono_ns: self.mono_ns });
        }
        for venue in Venue::ALL {
            self.reconsider(venue);
        }
        let Some(venue) = spoke else {
            return;
        };
        if let (Some(view), Some(listing)) = (&self.views[venue.index()], &mut self.listings[venue.index()])
            && view.standing == Standing::Trusted
            && let Some(worth) = &listing.worth
        {
            listing.history.record(self.mono_ns, worth.amount);
        }
    }

    /// Whether a believed venue's new price is one that nobody else knows of. A venue without a past is held to the
    /// others alone. Where another venue agrees, both are believed from here on.
    fn jumped_alone(&mut self, venue: Venue) -> bool {
        let Some(view) = self.fresh(venue).filter(|view| view.standing == Standing::Trusted) else {
            return false;
        };
        let others = others_median(self.views, venue);
        let away_from_own = self.away_from_own(venue);
        let jumped = match (away_from_own, others) {
            (Some(away), Some(others)) => away && view.amount.is_apart(others, AGREE_PERCENT),
            (Some(away), None) => away,
            (None, Some(others)) => view.amount.is_apart(others, JUMP_PERCENT),
            (None, None) => false,
        };
        if !jumped {
            return false;
        }
        if self.has_ally(venue) {
            self.believe(venue);
            return false;
        }
        true
    }

    /// Whether the venue's price is far from its own median; `None` when it has no past.
    fn away_from_own(&mut self, venue: Venue) -> Option<bool> {
        let listing = self.listings[venue.index()].as_mut()?;
        let (amount, own) = (listing.worth?.amount, listing.history.median(self.mono_ns)?);
        Some(amount.is_apart(own, JUMP_PERCENT))
    }

    /// Looks again at a venue that is not believed.
    fn reconsider(&mut self, venue: Venue) {
        let Some(standing) = self.listings[venue.index()].as_ref().map(|listing| listing.standing) else {
            return;
        };
        if standing == Standing::Trusted {
            return;
        }
        let is_over = match standing {
            Standing::Quarantined { since_mono_ns } => self.mono_ns.saturating_sub(since_mono_ns) >= QUARANTINE_NS,
            Standing::Trusted | Standing::Outlier => true,
        };
        let Some(view) = self.fresh(venue) else {
            // Nobody asks for its word now. Should its feed prove the same price once more, it is looked at again.
            if is_over {
                self.set(venue, Standing::Outlier);
            }
            return;
        };
        let is_back = match (others_median(self.views, venue), standing) {
            (Some(others), _) => !view.amount.is_apart(others, AGREE_PERCENT),
            (None, Standing::Quarantined { .. }) => self.away_from_own(venue) == Some(false),
            (None, _) => false,
        };
        if is_back || self.has_ally(venue) {
            self.believe(venue);
        } else if is_over && others_agree(self.views, venue) {
            self.set(venue, Standing::Outlier);
        } else if is_over {
            self.believe(venue);
        }
    }

    /// Believes `venue`, and everyone who says the same. Who comes to be believed away from its past begins a new one.
    fn believe(&mut self, venue: Venue) {
        for ally in Venue::ALL {
            if ally == venue || are_allies(self.views, venue, ally) {
                let is_settled = self.away_from_own(ally) == Some(false);
                self.set(ally, Standing::Trusted);
                if let Some(listing) = &mut self.listings[ally.index()]
                    && let Some(worth) = &listing.worth
                    && !is_settled
                {
                    listing.history.restart(self.mono_ns, worth.amount);
                }
            }
        }
    }

    fn has_ally(&self, venue: Venue) -> bool {
        Venue::ALL.into_iter().any(|ally| are_allies(self.views, venue, ally))
    }

    fn fresh(&self, venue: Venue) -> Option<View> {
        self.views[venue.index()].filter(|view| view.fresh)
    }

    fn set(&mut self, venue: Venue, standing: Standing) {
        if let Some(view) = &mut self.views[venue.index()] {
            view.standing = standing;
        }
        if let Some(listing) = &mut self.listings[venue.index()] {
            set_standing(listing, standing, &mut self.counters[venue.index()]);
        }
    }
}

/// Changes a standing and counts it.
pub(super) fn set_standing(listing: &mut Listing, standing: Standing, counters: &mut VenueCounters) {
    let is_quarantined = |standing| matches!(standing, Standing::Quarantined { .. });
    match (is_quarantined(listing.standing), is_quarantined(standing)) {
        (false, true) => {
            counters.quarantines += 1;
            counters.quarantined += 1;
        }
        (true, false) => counters.quarantined -= 1,
        _ => {}
    }
    listing.standing = standing;
}

/// Prices of other venues that can be compared with `venue`'s, in ascending order.
fn others(views: &Views, venue: Venue, sorted: &mut [Amount; VENUE_COUNT]) -> usize {
    let Some(mine) = views[venue.index()] else {
        return 0;
    };
    let mut count = 0;
    for (index, view) in views.iter().enumerate() {
        if let Some(view) = view
            && index != venue.index()
            && view.fresh
            && !view.old_trade
            && view.standing == Standing::Trusted
            && view.currency == mine.currency
        {
            sorted[count] = view.amount;
            count += 1;
        }
    }
    sorted[..count].sort_unstable();
    count
}

/// The median of what the other fresh and believed venues say; `None` when there are none.
fn others_median(views: &Views, venue: Venue) -> Option<Amount> {
    let mut sorted = [Amount::ZERO; VENUE_COUNT];
    let count = others(views, venue, &mut sorted);
    median_sorted(&sorted[..count], Amount::midpoint)
}

/// Whether at least two other fresh and believed venues agree with each other.
fn others_agree(views: &Views, venue: Venue) -> bool {
    let mut sorted = [Amount::ZERO; VENUE_COUNT];
    let count = others(views, venue, &mut sorted);
    sorted[..count].windows(2).any(|pair| !pair[1].is_apart(pair[0], AGREE_PERCENT))
}

/// Whether two venues say the same about the asset now, believed or not.
fn are_allies(views: &Views, venue: Venue, ally: Venue) -> bool {
    let (Some(mine), Some(theirs)) = (&views[venue.index()], &views[ally.index()]) else {
        return false;
    };
    let comparable = venue != ally && mine.currency == theirs.currency && theirs.fresh && !theirs.old_trade;
    comparable && !mine.amount.is_apart(theirs.amount, AGREE_PERCENT)
}
