//! What one venue's sessions and its REST poller know together, and the one way of their words to the feed thread.
//!
//! A venue's connections and its poller share one board behind one lock, taken once a frame and never across an await:
//! at most a handful of tasks of one venue meet here, so it is all but uncontended. Everything that `/admin/feeds`
//! shows of a venue is read from here.

mod counters;
mod heard;

pub use counters::Counters;
pub use heard::Check;

use self::counters::Rate;
use self::heard::{Heard, Refusal};
use super::instruments::ListSource;
use super::outlet::{FeedSink, Outlet};
use super::plan::Market;
use super::timing::Timing;
use shared::asset::{AssetDirectory, AssetId};
use shared::moment::Moment;
use shared::quote::{Quote, Route};
use shared::venue::Venue;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use venues::protocol::VenueQuote;

/// Longest text of a venue that is kept or logged, in characters.
const TEXT_MAX: usize = 200;

/// One venue's board.
pub struct Board {
    state: Mutex<BoardState>,
}

/// A fault, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// When, Unix ms.
    pub time_ms: u64,
    /// What.
    pub text: String,
}

/// The venue's present instrument list, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ListShown {
    /// Where it came from.
    pub source: ListSource,
    /// When the venue gave it, Unix ms.
    pub read_time_ms: Option<u64>,
    /// Instruments in it that are priced in USD or USDT.
    pub instruments: usize,
}

/// What stands on the board.
pub struct BoardState {
    venue: Venue,
    outlet: Outlet,
    heard: BTreeMap<AssetId, Heard>,
    connections: BTreeMap<u32, u64>,
    rate: Rate,
    frame_ns: u64,
    fault: Option<Noted>,
    list: Option<ListShown>,
    /// What has been counted.
    pub counters: Counters,
}

impl Board {
    /// An empty board.
    #[must_use]
    pub fn new(venue: Venue, sink: Arc<dyn FeedSink>) -> Self {
        let state = BoardState {
            venue,
            outlet: Outlet::new(venue, sink),
            heard: BTreeMap::new(),
            connections: BTreeMap::new(),
            rate: Rate::default(),
            frame_ns: 0,
            fault: None,
            list: None,
            counters: Counters::default(),
        };
        Self { state: Mutex::new(state) }
    }

    /// The board, to read or write. Never held across an await. A panic while it was held leaves counters at worst
    /// one behind, so a poisoned lock is taken all the same.
    pub fn lock(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BoardState {
    /// Makes the board one of `markets`, whose assets are in `directory`. What is known of markets that stay is kept;
    /// where the lists are new (`renewed`), refused ones get another try.
    pub fn change_markets(&mut self, markets: &[Market], directory: &AssetDirectory, renewed: bool, now: Moment) {
        let mut before = std::mem::take(&mut self.heard);
        for market in markets {
            let known = before.remove(&market.asset).filter(|heard| heard.market == *market);
            let mut heard = known.unwrap_or_else(|| Heard::new(market.clone(), now));
            heard.sources = directory.entry(market.asset).map_or(1, |entry| entry.venues.len());
            if renewed {
                heard.rest_refused_ns = 0;
                heard.refused.iter_mut().for_each(|refusal| refusal.again_ns = 0);
            }
            self.heard.insert(market.asset, heard);
        }
        for (asset, _) in before.into_iter().filter(|(_, heard)| heard.live_on.is_some()) {
            self.outlet.subscription(asset, false);
        }
    }

    /// Notes that connection `number` is open.
    pub fn opened(&mut self, number: u32, now: Moment) {
        self.counters.connects += 1;
        self.connections.insert(number, now.mono_ns);
    }

    /// Notes that connection `number` is gone, and with it the proof of what it carried.
    pub fn ended(&mut self, number: u32) {
        self.connections.remove(&number);
        let last = self.connections.is_empty();
        for (asset, heard) in self.heard.iter_mut().filter(|(_, heard)| heard.live_on == Some(number)) {
            heard.live_on = None;
            if !last {
                self.outlet.subscription(*asset, false);
            }
        }
        if last {
            self.outlet.lost();
        }
    }

    /// Counts a text frame of `bytes` bytes, a sign of life.
    pub fn frame(&mut self, bytes: usize, now: Moment) {
        self.counters.frames += 1;
        self.counters.bytes += bytes as u64;
        self.rate.count(now);
        self.alive(now);
    }

    /// Notes a sign of life.
    pub fn alive(&mut self, now: Moment) {
        self.frame_ns = now.mono_ns;
        self.outlet.alive(now);
    }

    /// Takes a quote of connection `number`.
    pub fn quote(&mut self, number: u32, asset: AssetId, quote: &VenueQuote, now: Moment) {
        let Some(heard) = self.heard.get_mut(&asset) else { return };
        let Some(newly) = heard.delivered(number, quote, now) else { return };
        self.counters.quotes += 1;
        let snapshot = quote.snapshot || newly;
        self.outlet.quote(feed_quote(self.venue, &heard.market, quote, snapshot, Route::Ws, now));
        if newly {
            self.outlet.subscription(asset, true);
        }
    }

    /// Takes a quote of a REST answer that was asked for at `asked_ns`.
    pub fn rest_quote(&mut self, asset: AssetId, quote: &VenueQuote, asked_ns: u64, now: Moment) -> Option<Check> {
        let heard = self.heard.get_mut(&asset)?;
        self.counters.rest_quotes += 1;
        let check = heard.polled(asked_ns, quote, now);
        if check == Check::Suspect {
            self.counters.suspected += 1;
            self.outlet.subscription(asset, false);
        }
        if check != Check::Proven {
            self.outlet.quote(feed_quote(self.venue, &heard.market, quote, true, Route::Rest, now));
        }
        Some(check)
    }

    /// Notes that REST does not give `asset` a price; it is asked again after `again_ns`.
    pub fn rest_refused(&mut self, asset: AssetId, again_ns: u64) {
        if let Some(heard) = self.heard.get_mut(&asset) {
            heard.rest_refused_ns = again_ns;
        }
    }

    /// Notes that the venue refuses the subscription of `asset`.
    pub fn refused(&mut self, asset: AssetId, reason: &str, again_ns: u64) {
        let Some(heard) = self.heard.get_mut(&asset) else { return };
        heard.refused = Some(Refusal { reason: readable(reason), again_ns });
        if heard.live_on.take().is_some() {
            self.outlet.subscription(asset, false);
        }
    }

    /// Until when a new connection shall leave `asset` alone, monotonic ns, because it was refused lately.
    #[must_use]
    pub fn rests_until_ns(&self, asset: AssetId, now: Moment) -> Option<u64> {
        let refusal = self.heard.get(&asset)?.refused.as_ref()?;
        Some(refusal.again_ns).filter(|again_ns| *again_ns > now.mono_ns)
    }

    /// Notes that the subscription of `asset` is not to be believed any more.
    pub fn doubted(&mut self, asset: AssetId) {
        if let Some(heard) = self.heard.get_mut(&asset)
            && heard.live_on.take().is_some()
        {
            self.outlet.subscription(asset, false);
        }
    }

    /// The assets among those that `is_mine` whose subscription REST contradicted since the last call.
    pub fn take_suspects(&mut self, is_mine: &dyn Fn(AssetId) -> bool) -> Vec<AssetId> {
        let suspects = self.heard.iter_mut().filter(|(asset, heard)| heard.suspected && is_mine(**asset));
        suspects.map(|(asset, heard)| (*asset, heard.suspected = false).0).collect()
    }

    /// Whether a connection may be made anew for the sake of `asset` alone: once, until it delivers again.
    pub fn take_reconnect_for(&mut self, asset: AssetId) -> bool {
        self.heard.get_mut(&asset).is_some_and(|heard| !std::mem::replace(&mut heard.reconnected_for, true))
    }

    /// Assets to poll over REST now, the most pressing first, at most `limit`; they count as asked.
    pub fn take_polls(&mut self, now: Moment, timing: &Timing, limit: usize) -> Vec<Market> {
        let venue_silent = self.connections.is_empty() || now.ms_since(self.frame_ns) >= timing.stale_ms;
        let due =
            self.heard.iter().filter_map(|(asset, heard)| Some((heard.poll_due(now, timing, venue_silent)?, *asset)));
        let mut due: Vec<(u64, AssetId)> = due.collect();
        due.sort_unstable_by_key(|(pressing, asset)| (Reverse(*pressing), *asset));
        due.truncate(limit);
        let mut markets = Vec::with_capacity(due.len());
        for (_, asset) in due {
            let Some(heard) = self.heard.get_mut(&asset) else { continue };
            heard.asked(now);
            markets.push(heard.market.clone());
        }
        markets
    }

    /// Sends what waited for room in the feed thread's channel.
    pub fn flush(&mut self) {
        self.outlet.flush();
    }

    /// Whether words wait for room in the feed thread's channel.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.outlet.is_waiting()
    }

    /// Notes a fault, for people.
    pub fn fault(&mut self, text: &str, now: Moment) {
        self.fault = Some(Noted { time_ms: now.wall_ms, text: readable(text) });
    }

    /// Shows where the venue's instrument list came from.
    pub const fn show_list(&mut self, source: ListSource, read_time_ms: Option<u64>, instruments: usize) {
        self.list = Some(ListShown { source, read_time_ms, instruments });
    }

    /// The venue's present instrument list.
    #[must_use]
    pub const fn list(&self) -> Option<ListShown> {
        self.list
    }

    /// Quotes replaced by newer ones before the feed thread took them.
    #[must_use]
    pub const fn conflated(&self) -> u64 {
        self.outlet.conflated()
    }

    /// The last fault.
    #[must_use]
    pub const fn last_fault(&self) -> Option<&Noted> {
        self.fault.as_ref()
    }

    /// Open connections: number and the monotonic time of their opening, ns.
    #[must_use]
    pub const fn connections(&self) -> &BTreeMap<u32, u64> {
        &self.connections
    }

    /// How long nothing has been heard, ms; `None`: nothing ever was.
    #[must_use]
    pub fn silence_ms(&self, now: Moment) -> Option<u64> {
        (self.frame_ns != 0).then(|| now.ms_since(self.frame_ns))
    }

    /// Text frames in the last ten seconds.
    pub fn frames_in_ten_seconds(&mut self, now: Moment) -> u64 {
        self.rate.over_ten_seconds(now)
    }

    /// Every asset of the venue, in id order.
    pub fn heard(&self) -> impl Iterator<Item = &Heard> {
        self.heard.values()
    }
}

/// A venue's text, cut and cleaned so that it can stand in a log line and in JSON.
fn readable(text: &str) -> String {
    let clean = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    clean.take(TEXT_MAX).collect()
}

/// A venue's words as the feed thread takes them.
pub(in crate::feeds) fn feed_quote(
    venue: Venue,
    market: &Market,
    quote: &VenueQuote,
    snapshot: bool,
    route: Route,
    now: Moment,
) -> Quote {
    Quote {
        venue,
        asset: market.asset,
        currency: market.currency,
        route,
        snapshot,
        last: quote.last,
        bid: quote.bid,
        ask: quote.ask,
        exchange_time_ms: quote.exchange_time_ms,
        // A venue numbers its WebSocket channel; REST knows nothing of that order.
        venue_sequence: if route == Route::Ws { quote.sequence } else { None },
        received_time_ms: now.wall_ms,
        received_mono_ns: now.mono_ns,
    }
}
