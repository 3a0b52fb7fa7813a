//! The simulated market: seeded random walks, correlated across venues.
//!
//! Each asset has one true mid in USD that walks. A venue shows it a little beside, with its own spread and tick, and
//! in USDT where it quotes so, at a USDT rate that walks too. One seed is one market; there is no clock here, the caller
//! says who moves next. All arithmetic is on whole numbers.

mod listing;

use self::listing::{Denomination, Listing};
use crate::protocol::Instrument;
use shared::price::Price;
use shared::venue::{VENUE_COUNT, Venue};

/// The present market of one instrument on one venue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarketQuote {
    /// Price of the last trade.
    pub last: Price,
    /// Highest buy order.
    pub bid: Price,
    /// Lowest sell order.
    pub ask: Price,
    /// Grows with each change.
    pub sequence: u64,
}

/// Most assets that can be invented: what seven venues list together is less.
pub const INVENTED_MAX: usize = 5_000;

/// Hundredths of a basis point in the whole.
const CENTIBPS: i128 = 1_000_000;

/// The factor of a venue that shows true prices, in thousandths.
pub const FACTOR_TRUE: u32 = 1_000;

/// Largest factor: prices a thousand times too high. A guard that survives this survives more.
pub const FACTOR_MAX: u32 = 1_000_000;

/// How far a mid strays from where it began before its steps lead back: 30 %, in 1/100 bps.
const STRAY_MAX: i128 = 300_000;

/// As [`STRAY_MAX`] for USDT: 0.9995 to 1.0005.
const STRAY_USDT_MAX: i128 = 500;

/// USD for one EUR, in thousandths. It stands still: nothing here is priced in EUR but noise.
const USD_PER_EUR_PERMILLE: i128 = 1_080;

/// The true price of one asset in USD: `now × 10^exponent`.
#[derive(Clone, Copy, Debug)]
struct Mid {
    now: i128,
    start: i128,
    exponent: i8,
    /// Longest step, in 1/100 bps.
    step_max: i128,
    /// Farthest from `start`, in 1/100 bps.
    stray_max: i128,
}

/// How one venue shows one asset.
#[derive(Clone, Copy, Debug)]
struct Terms {
    asset: usize,
    denomination: Denomination,
    /// Power of ten of the tick.
    tick_exponent: i8,
    /// From the mid to bid and to ask, in 1/100 bps.
    half_spread: i128,
    /// From the true mid to this venue's, in 1/100 bps.
    offset: i128,
    /// Whether it moves: what is delisted keeps its last prices.
    trading: bool,
}

/// One venue's side of the market. The three lists have the same positions.
#[derive(Clone, Debug, Default)]
struct VenueSide {
    listed: Vec<Instrument>,
    quotes: Vec<MarketQuote>,
    terms: Vec<Terms>,
    factor: u32,
}

/// Seven venues' markets.
#[derive(Clone, Debug)]
pub struct Market {
    random: Random,
    mids: Vec<Mid>,
    usdt: usize,
    venues: [VenueSide; VENUE_COUNT],
    sequence: u64,
}

impl Market {
    /// A market that depends on nothing but `seed`. It lists every default asset on at least one venue, the large ones
    /// on all, some that are in no default list, and some instruments that are not for us: delisted ones, and pairs in EUR.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(seed, 0)
    }

    /// The same with so many assets `invented` besides (`C0`, `C1`, …), at most [`INVENTED_MAX`].
    #[must_use]
    pub fn with(seed: u64, invented: usize) -> Self {
        let starts = listing::starts(invented.min(INVENTED_MAX));
        let mids: Vec<Mid> = starts.iter().map(Mid::new).collect();
        let usdt = starts.iter().position(|start| start.symbol.as_str() == "USDT").unwrap_or(0);
        let mut market = Self { random: Random(seed), mids, usdt, venues: Default::default(), sequence: 0 };
        for venue in Venue::ALL {
            market.venues[venue.index()].factor = FACTOR_TRUE;
            for listing in listing::of(venue, &starts) {
                market.list(venue, &listing);
            }
        }
        market
    }

    fn list(&mut self, venue: Venue, listing: &Listing) {
        let mid = self.mids[listing.asset];
        let terms = Terms {
            asset: listing.asset,
            denomination: listing.denomination,
            tick_exponent: listing.tick_exponent.max(mid.exponent),
            half_spread: i128::from(self.random.below(listing.half_spread_max) + listing.half_spread_max / 2),
            offset: i128::from(self.random.below(300)) - 150,
            trading: listing.instrument.trading,
        };
        let quote = self.show(&terms, FACTOR_TRUE);
        let side = &mut self.venues[venue.index()];
        side.listed.push(listing.instrument.clone());
        side.terms.push(terms);
        side.quotes.push(quote);
    }

    /// Every instrument of `venue`, the delisted ones included.
    #[must_use]
    pub fn listed(&self, venue: Venue) -> &[Instrument] {
        &self.venues[venue.index()].listed
    }

    /// The present market of each, at the same positions.
    #[must_use]
    pub fn quotes(&self, venue: Venue) -> &[MarketQuote] {
        &self.venues[venue.index()].quotes
    }

    /// Moves the asset of the instrument at `position` of `venue` by one step, and shows it there. Other venues show the
    /// step when they are moved themselves. `None` when there is no such position; a delisted instrument stays.
    pub fn step(&mut self, venue: Venue, position: usize) -> Option<MarketQuote> {
        let side = &self.venues[venue.index()];
        let (terms, factor) = (*side.terms.get(position)?, side.factor);
        if terms.trading {
            let draw = self.random.next();
            self.mids[terms.asset].step(draw);
            if terms.denomination == Denomination::Usdt {
                let draw = self.random.next();
                self.mids[self.usdt].step(draw);
            }
            let quote = self.show(&terms, factor);
            self.venues[venue.index()].quotes[position] = quote;
        }
        self.venues[venue.index()].quotes.get(position).copied()
    }

    /// From now on `venue` alone shows its prices (but for USDT's own) times `permille` / 1000: 600 is a flash crash by
    /// 40 %, `FACTOR_TRUE` ends it. At most `FACTOR_MAX`. Shown at each instrument's next step.
    pub fn set_factor(&mut self, venue: Venue, permille: u32) {
        self.venues[venue.index()].factor = permille.min(FACTOR_MAX);
    }

    /// The factor of `venue`, in thousandths.
    #[must_use]
    pub fn factor(&self, venue: Venue) -> u32 {
        self.venues[venue.index()].factor
    }

    /// Multiplies the true price of every asset but USDT by `permille` / 1000: a crash that all venues agree on. Walks
    /// go on from there.
    pub fn move_all(&mut self, permille: u32) {
        let usdt = self.usdt;
        for (_, mid) in self.mids.iter_mut().enumerate().filter(|(asset, _)| *asset != usdt) {
            mid.now = (mid.now * i128::from(permille.min(FACTOR_MAX)) / 1_000).max(1);
            mid.start = mid.now;
        }
    }

    /// What a venue with these `terms` shows now.
    fn show(&mut self, terms: &Terms, factor: u32) -> MarketQuote {
        let (mid, usdt) = (self.mids[terms.asset], self.mids[self.usdt]);
        let factor = if terms.asset == self.usdt { FACTOR_TRUE } else { factor };
        let usd = mid.now * i128::from(factor) / i128::from(FACTOR_TRUE) * (CENTIBPS + terms.offset) / CENTIBPS;
        let value = match terms.denomination {
            Denomination::Usd => usd,
            Denomination::Usdt => usd * usdt.start / usdt.now,
            Denomination::Eur => usd * 1_000 / USD_PER_EUR_PERMILLE,
        };
        let tick = 10_i128.pow(u32::from((terms.tick_exponent - mid.exponent).unsigned_abs()));
        let bid = (value * (CENTIBPS - terms.half_spread) / CENTIBPS / tick).max(1);
        let ask = (value * (CENTIBPS + terms.half_spread) / CENTIBPS / tick + 1).max(bid + 1);
        let last = match self.random.below(8) {
            0..=2 => bid,
            3..=5 => ask,
            6 => i128::midpoint(bid, ask),
            // A last trade may lie outside the book.
            _ => ask + 1,
        };
        self.sequence += 1;
        let price = |ticks: i128| Price::new(i64::try_from(ticks).unwrap_or(i64::MAX), terms.tick_exponent);
        MarketQuote { last: price(last), bid: price(bid), ask: price(ask), sequence: self.sequence }
    }
}

impl Mid {
    /// Kept with 13 digits, so that a step of 1/100 bps is never rounded away.
    fn new(start: &listing::Start) -> Self {
        let (mut now, mut exponent) = (i128::from(start.price.mantissa()), start.price.exponent());
        while now < 1_000_000_000_000 {
            now *= 10;
            exponent -= 1;
        }
        let is_usdt = start.symbol.as_str() == "USDT";
        let step_max = if is_usdt { 20 } else { i128::from(start.step_max) };
        let stray_max = if is_usdt { STRAY_USDT_MAX } else { STRAY_MAX };
        Self { now, start: now, exponent, step_max, stray_max }
    }

    /// One step, its length and direction drawn; toward the start when it has strayed too far.
    fn step(&mut self, draw: u64) {
        let span = self.step_max * 2 + 1;
        let drawn = i128::from(draw) % span - self.step_max;
        let stray = (self.now - self.start) * CENTIBPS / self.start;
        let step = match stray {
            stray if stray + drawn > self.stray_max => -drawn.abs(),
            stray if stray + drawn < -self.stray_max => drawn.abs(),
            _ => drawn,
        };
        self.now += self.now * step / CENTIBPS;
    }
}

/// Splitmix64: a full-period generator of 64-bit numbers from one seed.
#[derive(Clone, Copy, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is small: the bias of a remainder does not show.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

#[cfg(test)]
mod tests;
