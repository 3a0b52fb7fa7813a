//! The way of one venue's words to the feed thread: at once while there is room, else the newest per asset.
//!
//! Bounded by the directory: at most one quote and one subscription note wait for each asset (4,096 × ~200 bytes).
//! What waits keeps its order in the only sense that matters: the loss of the connection first, then each asset's
//! newest words, then its subscription's standing.

use dataplane_core::feed::FeedInput;
use dataplane_engine::FeedSender;
use shared::asset::AssetId;
use shared::moment::Moment;
use shared::quote::{Field, Quote};
use shared::venue::Venue;
use std::collections::HashMap;
use std::sync::Arc;

/// Least time between two signs of life of one venue, ms.
const ALIVE_EVERY_MS: u64 = 1_000;

/// Where the sessions' words go: the feed thread's channel, or a test's ear.
pub trait FeedSink: Send + Sync + 'static {
    /// Takes `input` without waiting.
    ///
    /// # Errors
    /// Gives it back when there is no room.
    #[expect(clippy::result_large_err, reason = "the input is given back, not an error made for it")]
    fn try_send(&self, input: FeedInput) -> Result<(), FeedInput>;
}

impl FeedSink for FeedSender {
    fn try_send(&self, input: FeedInput) -> Result<(), FeedInput> {
        Self::try_send(self, input)
    }
}

/// One venue's outgoing words.
pub struct Outlet {
    venue: Venue,
    sink: Arc<dyn FeedSink>,
    lost: bool,
    quotes: HashMap<AssetId, Quote>,
    subscriptions: HashMap<AssetId, bool>,
    alive_sent_ns: u64,
    conflated: u64,
}

impl Outlet {
    /// An outlet with nothing waiting.
    #[must_use]
    pub fn new(venue: Venue, sink: Arc<dyn FeedSink>) -> Self {
        let (quotes, subscriptions) = (HashMap::new(), HashMap::new());
        Self { venue, sink, lost: false, quotes, subscriptions, alive_sent_ns: 0, conflated: 0 }
    }

    /// Quotes replaced by a newer one of the same asset before the feed thread took them.
    #[must_use]
    pub const fn conflated(&self) -> u64 {
        self.conflated
    }

    /// Whether words wait for room.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.lost || !self.quotes.is_empty() || !self.subscriptions.is_empty()
    }

    /// Passes on a quote.
    pub fn quote(&mut self, quote: Quote) {
        if let Some(waiting) = self.quotes.get_mut(&quote.asset) {
            *waiting = merge(waiting, quote);
            self.conflated += 1;
            return;
        }
        if self.lost || self.sink.try_send(FeedInput::Quote(quote)).is_err() {
            self.quotes.insert(quote.asset, quote);
        }
    }

    /// Passes on whether a subscription is proven alive.
    pub fn subscription(&mut self, asset: AssetId, live: bool) {
        let note = FeedInput::Subscription { venue: self.venue, asset, live };
        if self.is_waiting() || self.sink.try_send(note).is_err() {
            self.subscriptions.insert(asset, live);
        }
    }

    /// Passes on that the venue's last connection is gone. What waits to be said of single subscriptions is void.
    pub fn lost(&mut self) {
        self.subscriptions.clear();
        self.alive_sent_ns = 0;
        self.lost = self.sink.try_send(FeedInput::VenueLost(self.venue)).is_err();
    }

    /// Passes on a sign of life, at most one a second. One that finds no room is not kept: the next is near.
    pub fn alive(&mut self, now: Moment) {
        let due = self.alive_sent_ns == 0 || now.ms_since(self.alive_sent_ns) >= ALIVE_EVERY_MS;
        if due && !self.lost && self.sink.try_send(FeedInput::VenueAlive(self.venue)).is_ok() {
            self.alive_sent_ns = now.mono_ns;
        }
    }

    /// Sends what waits, as far as there is room.
    pub fn flush(&mut self) {
        if self.lost {
            self.lost = self.sink.try_send(FeedInput::VenueLost(self.venue)).is_err();
        }
        let (venue, sink, mut room) = (self.venue, &self.sink, !self.lost);
        self.quotes.retain(|_, quote| {
            room = room && sink.try_send(FeedInput::Quote(*quote)).is_ok();
            !room
        });
        self.subscriptions.retain(|asset, live| {
            let note = FeedInput::Subscription { venue, asset: *asset, live: *live };
            room = room && sink.try_send(note).is_ok();
            !room
        });
    }
}

/// Two quotes of one asset as one: the newer's word where it speaks, the older's where it is silent.
fn merge(older: &Quote, newer: Quote) -> Quote {
    let pick = |older: Field, newer: Field| if newer == Field::Unchanged { older } else { newer };
    Quote {
        snapshot: older.snapshot || newer.snapshot,
        last: pick(older.last, newer.last),
        bid: pick(older.bid, newer.bid),
        ask: pick(older.ask, newer.ask),
        exchange_time_ms: newer.exchange_time_ms.or(older.exchange_time_ms),
        venue_sequence: newer.venue_sequence.or(older.venue_sequence),
        ..newer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::price::Price;
    use shared::quote::{Currency, Route};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A sink that can be full.
    #[derive(Default)]
    struct Ear {
        full: AtomicBool,
        heard: Mutex<Vec<String>>,
    }

    impl FeedSink for Ear {
        fn try_send(&self, input: FeedInput) -> Result<(), FeedInput> {
            if self.full.load(Ordering::Relaxed) {
                return Err(input);
            }
            let text = match input {
                FeedInput::Quote(quote) => {
                    let text = |field: Field| match field {
                        Field::Unchanged => "=".to_owned(),
                        Field::Empty => "-".to_owned(),
                        Field::At(price) => price.to_string(),
                    };
                    let snapshot = if quote.snapshot { "!" } else { "" };
                    format!("{}{snapshot} {} {}", quote.asset.index(), text(quote.bid), text(quote.ask))
                }
                FeedInput::Subscription { asset, live, .. } => format!("{} live={live}", asset.index()),
                FeedInput::VenueLost(_) => "lost".to_owned(),
                FeedInput::VenueAlive(_) => "alive".to_owned(),
                other => format!("{other:?}"),
            };
            self.heard.lock().expect("no panic").push(text);
            Ok(())
        }
    }

    fn quote(asset: usize, bid: Field, ask: Field, snapshot: bool) -> Quote {
        Quote {
            venue: Venue::Okx,
            asset: AssetId::new(asset).expect("small"),
            currency: Currency::Usdt,
            route: Route::Ws,
            snapshot,
            last: Field::Unchanged,
            bid,
            ask,
            exchange_time_ms: None,
            venue_sequence: None,
            received_time_ms: 1,
            received_mono_ns: 1,
        }
    }

    fn at(cents: i64) -> Field {
        Field::At(Price::new(cents, -2))
    }

    fn outlet() -> (Outlet, Arc<Ear>) {
        let ear = Arc::new(Ear::default());
        (Outlet::new(Venue::Okx, Arc::clone(&ear) as Arc<dyn FeedSink>), ear)
    }

    fn heard(ear: &Ear) -> Vec<String> {
        std::mem::take(&mut ear.heard.lock().expect("no panic"))
    }

    #[test]
    fn words_pass_at_once_while_there_is_room() {
        let (mut outlet, ear) = outlet();
        outlet.quote(quote(0, at(1), at(2), true));
        outlet.subscription(AssetId::new(0).expect("small"), true);
        outlet.quote(quote(0, at(3), Field::Unchanged, false));
        assert_eq!(heard(&ear), ["0! 0.01 0.02", "0 live=true", "0 0.03 ="]);
        assert!(!outlet.is_waiting());
    }

    #[test]
    fn a_full_channel_keeps_the_newest_words_of_each_asset() {
        let (mut outlet, ear) = outlet();
        ear.full.store(true, Ordering::Relaxed);
        outlet.quote(quote(7, at(100), at(200), true));
        outlet.quote(quote(7, at(101), Field::Unchanged, false));
        outlet.quote(quote(7, Field::Unchanged, Field::Empty, false));
        assert!(outlet.is_waiting());
        outlet.flush();
        assert_eq!(heard(&ear), [""; 0]);
        ear.full.store(false, Ordering::Relaxed);
        outlet.flush();
        assert_eq!(heard(&ear), ["7! 1.01 -"]);
        assert_eq!(outlet.conflated(), 2);
        assert!(!outlet.is_waiting());
    }

    #[test]
    fn a_lost_connection_is_told_before_anything_newer() {
        let (mut outlet, ear) = outlet();
        ear.full.store(true, Ordering::Relaxed);
        outlet.subscription(AssetId::new(1).expect("small"), true);
        outlet.lost();
        outlet.quote(quote(2, at(5), at(6), true));
        outlet.subscription(AssetId::new(2).expect("small"), true);
        ear.full.store(false, Ordering::Relaxed);
        outlet.alive(Moment { mono_ns: 1, wall_ms: 1 });
        outlet.quote(quote(3, at(7), at(8), true));
        outlet.flush();
        let heard = heard(&ear);
        assert_eq!(heard[0], "lost", "{heard:?}");
        assert_eq!(heard.last().map(String::as_str), Some("2 live=true"), "{heard:?}");
        assert_eq!(heard.len(), 4, "{heard:?}");
    }

    #[test]
    fn life_is_told_once_a_second() {
        let (mut outlet, ear) = outlet();
        let start = Moment { mono_ns: 5_000_000_000, wall_ms: 0 };
        for ms in [0, 10, 999, 1_000, 1_001, 2_500] {
            outlet.alive(start.plus_ms(ms));
        }
        assert_eq!(heard(&ear).len(), 3);
    }
}
