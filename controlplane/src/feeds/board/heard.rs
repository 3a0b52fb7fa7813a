//! What a venue was last heard to say of one asset, and how far that can be trusted.
//!
//! Pure: time is an argument. The rule it serves: a quiet asset on a live connection is not dead, but after a long
//! silence its last words are compared with what the venue says over REST.

use crate::feeds::plan::Market;
use crate::feeds::timing::Timing;
use shared::moment::Moment;
use shared::price::Price;
use shared::venue::VENUE_COUNT;
use venues::protocol::VenueQuote;

/// Distance between a subscription's last price and the REST price that proves the subscription dead: 0.5 %.
const SUSPICIOUS_CENTIBPS: u32 = 5_000;

/// Silences this many times the asset's usual one are worth a check.
const QUIET_FACTOR: u64 = 8;

/// Added to how pressing a stale asset is, so that it comes before every quiet one: no silence lasts 35 years.
const STALE_BEFORE_QUIET: u64 = 1 << 40;

/// Longest silence that goes unchecked, ms, however quiet the asset usually is.
const QUIET_MS_MAX: u64 = 600_000;

/// The prices a route last gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    last: Option<Price>,
    bid: Option<Price>,
    ask: Option<Price>,
}

impl Prices {
    fn take(&mut self, quote: &VenueQuote) {
        self.last = quote.last.over(self.last);
        self.bid = quote.bid.over(self.bid);
        self.ask = quote.ask.over(self.ask);
    }

    /// How far `other` is from these, comparing like with like: mids where both have one, else last trades.
    /// `None`: nothing to compare.
    fn distance_centibps(&self, other: &Self) -> Option<u32> {
        let mid = |prices: &Self| prices.bid?.midpoint(prices.ask?);
        let pair = mid(self).zip(mid(other)).or_else(|| self.last.zip(other.last));
        let (mine, theirs) = pair?;
        theirs.distance_centibps(mine)
    }
}

/// What a REST answer says of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The subscription is not live: the answer is news.
    News,
    /// Live, and REST says the same.
    Proven,
    /// Live, and REST says a little different: a change that is not yet worth a suspicion, but newer.
    Drifted,
    /// Live by its own account, but REST says something materially different: it has gone silent.
    Suspect,
}

/// A refusal by the venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The venue's words, cut to a readable length.
    pub reason: String,
    /// When it is asked for again, monotonic ns.
    pub again_ns: u64,
}

/// One asset as heard from one venue.
#[derive(Debug)]
pub struct Heard {
    /// The market.
    pub market: Market,
    /// How many venues list the asset.
    pub sources: u16,
    /// Number of the connection on which its subscription is proven; `None`: on none.
    pub live_on: Option<u32>,
    /// Why the venue refuses it, if it does.
    pub refused: Option<Refusal>,
    /// REST does not know it until then, monotonic ns.
    pub rest_refused_ns: u64,
    /// Its connection was made anew because it alone was silent, and it has not delivered since.
    pub reconnected_for: bool,
    /// REST contradicts it: the session shall ask for it anew.
    pub suspected: bool,
    prices: Prices,
    /// Newest word over the WebSocket, monotonic ns; 0: none.
    ws_ns: u64,
    /// Newest word over REST; at first the time it became wanted, so that a start is no reason to poll.
    rest_ns: u64,
    asked_ns: u64,
    checked_ns: u64,
    usual_gap_ms: u64,
}

impl Heard {
    /// An asset from which nothing was heard yet.
    #[must_use]
    pub fn new(market: Market, now: Moment) -> Self {
        Self {
            market,
            sources: 1,
            live_on: None,
            refused: None,
            rest_refused_ns: 0,
            reconnected_for: false,
            suspected: false,
            prices: Prices::default(),
            ws_ns: 0,
            rest_ns: now.mono_ns,
            asked_ns: 0,
            checked_ns: 0,
            usual_gap_ms: 0,
        }
    }

    /// Takes a quote of connection `number`; answers whether the subscription is thereby newly proven. `None`: a
    /// younger connection already speaks for the asset, this quote is to be ignored.
    pub fn delivered(&mut self, number: u32, quote: &VenueQuote, now: Moment) -> Option<bool> {
        if self.live_on.is_some_and(|speaking| speaking > number) {
            return None;
        }
        let newly = self.live_on != Some(number);
        if self.ws_ns != 0 && !newly {
            let gap_ms = now.ms_since(self.ws_ns);
            self.usual_gap_ms = if self.usual_gap_ms == 0 { gap_ms } else { (self.usual_gap_ms * 7 + gap_ms) / 8 };
        }
        self.prices.take(quote);
        (self.ws_ns, self.live_on, self.refused) = (now.mono_ns, Some(number), None);
        (self.suspected, self.reconnected_for) = (false, false);
        Some(newly)
    }

    /// Takes a REST quote that was asked for at `asked_ns`.
    pub fn polled(&mut self, asked_ns: u64, quote: &VenueQuote, now: Moment) -> Check {
        (self.rest_ns, self.checked_ns, self.rest_refused_ns) = (now.mono_ns, now.mono_ns, 0);
        if self.live_on.is_none() {
            return Check::News;
        }
        // Anything heard since the question is newer than the answer and proof enough.
        if self.ws_ns >= asked_ns {
            return Check::Proven;
        }
        let mut said = Prices::default();
        said.take(quote);
        match self.prices.distance_centibps(&said) {
            None | Some(0) => Check::Proven,
            Some(distance) if distance > SUSPICIOUS_CENTIBPS => {
                (self.live_on, self.suspected) = (None, true);
                Check::Suspect
            }
            Some(_) => Check::Drifted,
        }
    }

    /// Notes that a REST question about it was sent.
    pub const fn asked(&mut self, now: Moment) {
        self.asked_ns = now.mono_ns;
    }

    /// Silence of the subscription that is worth a check, ms: adapts to how often the asset usually speaks.
    #[must_use]
    pub fn quiet_after_ms(&self, timing: &Timing) -> u64 {
        (self.usual_gap_ms * QUIET_FACTOR).clamp(timing.quiet_ms, timing.quiet_ms.max(QUIET_MS_MAX))
    }

    /// How long the subscription has been silent, ms; `None`: it never spoke.
    #[must_use]
    pub fn silence_ms(&self, now: Moment) -> Option<u64> {
        (self.ws_ns != 0).then(|| now.ms_since(self.ws_ns))
    }

    /// Whether a poll over REST is due, and how pressing: larger first. `venue_silent`: nothing at all was heard from
    /// the venue for as long as makes a price stale, so that no subscription counts as alive.
    #[must_use]
    pub fn poll_due(&self, now: Moment, timing: &Timing, venue_silent: bool) -> Option<u64> {
        if self.rest_refused_ns > now.mono_ns || now.ms_since(self.asked_ns) < timing.poll_ms {
            return None;
        }
        let heard_ms = now.ms_since(self.ws_ns.max(self.rest_ns));
        if self.live_on.is_none() || venue_silent {
            // Stale before quiet: those clients are being refused. And the sooner the fewer other venues there are to
            // carry the price; but nobody waits for ever.
            let waited_ms = now.ms_since(self.asked_ns.max(self.ws_ns));
            let pressing = waited_ms * VENUE_COUNT as u64 / u64::from(self.sources.max(1));
            return (heard_ms >= self.stale_after_ms(timing)).then_some(pressing + STALE_BEFORE_QUIET);
        }
        let quiet_ms = now.ms_since(self.ws_ns.max(self.checked_ns));
        (quiet_ms >= self.quiet_after_ms(timing)).then_some(quiet_ms)
    }

    /// Once REST has to carry the price, it is polled before its last word turns stale.
    fn stale_after_ms(&self, timing: &Timing) -> u64 {
        if self.asked_ns > self.ws_ns { timing.poll_ms } else { timing.stale_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::asset::{AssetId, Symbol};
    use shared::quote::{Currency, Field};
    use venues::protocol::Instrument;

    const START: Moment = Moment { mono_ns: 1_000_000_000_000, wall_ms: 1_793_500_000_000 };

    fn heard() -> Heard {
        let (base, quote) = (Symbol::new(b"BTC").expect("good"), Symbol::new(b"USD").expect("good"));
        let name = "BTC-USD".to_owned();
        let instrument = Instrument { rest_name: name.clone(), name, base, quote, trading: true };
        Heard::new(Market { asset: AssetId::new(0).expect("small"), currency: Currency::Usd, instrument }, START)
    }

    fn quote(last: i64, bid: i64, ask: i64) -> VenueQuote {
        let field = |cents: i64| if cents == 0 { Field::Unchanged } else { Field::At(Price::new(cents, -2)) };
        VenueQuote {
            base: Symbol::new(b"BTC").expect("good"),
            quote: Symbol::new(b"USD").expect("good"),
            snapshot: false,
            last: field(last),
            bid: field(bid),
            ask: field(ask),
            exchange_time_ms: None,
            sequence: None,
        }
    }

    #[track_caller]
    fn check(ws: (i64, i64, i64), rest: (i64, i64, i64), expected: Check) {
        let mut heard = heard();
        assert_eq!(heard.delivered(1, &quote(ws.0, ws.1, ws.2), START.plus_ms(1)), Some(true));
        let asked = START.plus_ms(60_000);
        let got = heard.polled(asked.mono_ns, &quote(rest.0, rest.1, rest.2), asked.plus_ms(50));
        assert_eq!(got, expected, "{ws:?} {rest:?}");
        assert_eq!(heard.suspected, expected == Check::Suspect);
        assert_eq!(heard.live_on.is_some(), expected != Check::Suspect);
    }

    #[test]
    fn rest_proves_drifts_or_contradicts() {
        check((10_000, 9_999, 10_001), (10_000, 9_999, 10_001), Check::Proven);
        check((10_000, 9_999, 10_001), (10_049, 0, 0), Check::Drifted);
        check((10_000, 9_999, 10_001), (10_051, 0, 0), Check::Suspect);
        check((10_000, 9_999, 10_001), (20_000, 9_999, 10_001), Check::Proven);
        check((10_000, 0, 0), (0, 9_999, 10_001), Check::Proven);
        check((0, 9_999, 10_001), (0, 5_000, 5_002), Check::Suspect);
    }

    #[test]
    fn an_answer_older_than_the_last_words_says_nothing() {
        let mut heard = heard();
        heard.delivered(1, &quote(10_000, 0, 0), START.plus_ms(100));
        assert_eq!(heard.polled(START.plus_ms(50).mono_ns, &quote(20_000, 0, 0), START.plus_ms(200)), Check::Proven);
    }

    #[test]
    fn the_younger_connection_speaks() {
        let mut heard = heard();
        assert_eq!(heard.delivered(1, &quote(1, 0, 0), START), Some(true));
        assert_eq!(heard.delivered(1, &quote(1, 0, 0), START), Some(false));
        assert_eq!(heard.delivered(2, &quote(1, 0, 0), START), Some(true));
        assert_eq!(heard.delivered(1, &quote(1, 0, 0), START), None);
    }

    #[test]
    fn a_start_is_no_reason_to_poll_but_nine_seconds_without_a_word_are() {
        let (heard, timing) = (heard(), Timing::default());
        assert_eq!(heard.poll_due(START.plus_ms(8_900), &timing, true), None);
        assert!(heard.poll_due(START.plus_ms(9_000), &timing, true).is_some());
    }

    #[test]
    fn a_quiet_asset_on_a_live_connection_is_checked_late_and_a_stale_one_first() {
        let timing = Timing::default();
        let mut quiet = heard();
        quiet.delivered(1, &quote(1, 0, 0), START);
        assert_eq!(quiet.poll_due(START.plus_ms(29_000), &timing, false), None, "quiet is not dead");
        let pressing = quiet.poll_due(START.plus_ms(31_000), &timing, false).expect("a check is due");
        let stale = heard().poll_due(START.plus_ms(31_000), &timing, false).expect("stale");
        assert!(stale > pressing);
        quiet.asked(START.plus_ms(31_000));
        assert_eq!(quiet.poll_due(START.plus_ms(32_000), &timing, false), None, "asked already");
        quiet.polled(START.plus_ms(31_000).mono_ns, &quote(1, 0, 0), START.plus_ms(31_100));
        assert_eq!(quiet.poll_due(START.plus_ms(50_000), &timing, false), None, "proven for another while");
        assert!(quiet.poll_due(START.plus_ms(50_000), &timing, true).is_some(), "but not when the venue is silent");
    }

    #[test]
    fn an_asset_that_no_other_venue_carries_comes_first_but_nobody_waits_for_ever() {
        let timing = Timing::default();
        let stale = |sources, asked_ms| {
            let mut heard = heard();
            heard.sources = sources;
            heard.asked(START.plus_ms(asked_ms));
            heard.poll_due(START.plus_ms(100_000), &timing, false).expect("stale")
        };
        assert!(stale(1, 80_000) > stale(7, 80_000));
        assert!(stale(7, 10_000) > stale(1, 95_000));
    }

    #[test]
    fn an_asset_that_speaks_once_a_minute_is_given_more_than_half_a_minute() {
        let timing = Timing::default();
        let mut heard = heard();
        for minute in 0..20 {
            heard.delivered(1, &quote(1, 0, 0), START.plus_ms(minute * 60_000));
        }
        assert_eq!(heard.quiet_after_ms(&timing), 480_000);
    }
}
