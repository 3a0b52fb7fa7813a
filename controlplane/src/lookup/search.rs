//! One flight's search: the cache first, then the venues, the best first and the next one when that takes long.
//!
//! A source is of use only when a fresh price stands on the price board after it was heard: the feed thread may refuse
//! what it is given. So no source here says that it found something; whoever watches the board ends the search.

use super::Outcome;
use super::counters::CacheGave;
use super::desk::LookupDesk;
use super::entry;
use super::table::Flight;
use crate::feeds::plan::{Market, Offer};
use crate::feeds::rest::RestClient;
use crate::feeds::rest::queue::{Answered, Class};
use dataplane_core::feed::FeedInput;
use dataplane_core::limits::LOOKUP_WAIT_MS;
use futures_util::stream::{FuturesUnordered, StreamExt};
use shared::asset::{AssetId, Symbol};
use shared::code::Code;
use shared::quote::Currency;
use shared::venue::VenueSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long the cache alone is asked: it answers in one or two milliseconds, and a slow one must cost a client little.
const CACHE_AHEAD: Duration = Duration::from_millis(60);

/// After this another venue is asked beside the one that has not answered: venues answer in 40 to 200 ms.
const HEDGE_AFTER: Duration = Duration::from_millis(350);

/// How long a price that the feed thread was given may take to the board before another source is tried.
pub(super) const PROOF_WAIT: Duration = Duration::from_millis(100);

/// How long the last venues asked are waited for: the search ends before.
const TO_THE_END: Duration = Duration::from_millis(2 * LOOKUP_WAIT_MS);

/// Venues whose requests would go out within so long of one another are as good as each other, ms.
const AS_SOON_MS: u128 = 50;

impl LookupDesk {
    /// Searches until there is a fresh price, every source has failed, or time is up.
    pub(super) async fn search(&self, flight: &Flight) -> Outcome {
        let until = flight.began + Duration::from_millis(LOOKUP_WAIT_MS);
        tokio::select! {
            biased;
            () = flight.fresh.notified() => return Outcome::Found,
            () = self.try_sources(flight, until) => {}
            () = sleep_until(until) => {}
        }
        match flight.asset() {
            Some(_) if self.has_news(flight) => Outcome::Found,
            None if flight.is_nowhere() => Outcome::Nothing(Code::AssetUnknown),
            // Without the cache's word nobody knows whether there is such an asset.
            Some(_) | None => Outcome::Nothing(Code::PriceUnavailable),
        }
    }

    async fn try_sources(&self, flight: &Flight, until: Instant) {
        let mut cached = pin!(self.try_cache(flight));
        let venues = self.try_venues(flight, until);
        if timeout(CACHE_AHEAD, &mut cached).await.is_ok() {
            venues.await;
        } else {
            tokio::join!(cached, venues);
        }
    }

    /// Tries another node's price.
    async fn try_cache(&self, flight: &Flight) {
        let Some(name) = entry::name(&flight.symbol) else { return flight.set_nowhere() };
        let got = self.setup.cache.get(&name).await;
        let entry = match self.judge(&flight.symbol, got) {
            Ok(entry) => entry,
            Err(CacheGave::Failed) => return,
            Err(_) => return flight.set_nowhere(),
        };
        let asset = match flight.asset() {
            Some(asset) => asset,
            None => match self.setup.feeds.know(flight.symbol).await {
                Some(asset) => asset,
                None => return,
            },
        };
        flight.set_asset(asset);
        if self.feed(FeedInput::Remote(entry.remote(asset))).await {
            sleep(PROOF_WAIT).await;
        }
    }

    /// Tries the venues, each once at the most.
    async fn try_venues(&self, flight: &Flight, until: Instant) {
        let Some(asset) = flight.asset() else { return };
        let class = Class::Client(flight.key.0);
        let left = until.saturating_duration_since(Instant::now());
        let all = VenueSet::from_bits(u16::MAX);
        let mut venues = self.ranked(&flight.symbol, asset, all, class, left).into_iter();
        let mut waiting = FuturesUnordered::new();
        loop {
            match venues.next() {
                Some((client, market)) => waiting.extend(client.ask(market, class, until)),
                None if waiting.is_empty() => return,
                None => {}
            }
            let patience = if venues.len() > 0 { HEDGE_AFTER } else { TO_THE_END };
            // Whatever else it comes to: the next one at once, or the next one besides.
            if let Ok(Some(Ok(Answered::Priced(quote)))) = timeout(patience, waiting.next()).await {
                if let Some(quote) = quote {
                    self.feed(FeedInput::Quote(*quote)).await;
                }
                sleep(PROOF_WAIT).await;
            }
        }
    }

    /// The venues among `venues` that trade the asset and can be asked within `left`, the best first: those that did not
    /// fail lately, then those whose turn is next, then those that price it in dollars.
    pub(super) fn ranked(
        &self,
        symbol: &Symbol,
        asset: AssetId,
        venues: VenueSet,
        class: Class,
        left: Duration,
    ) -> Vec<(Arc<RestClient>, Market)> {
        let offers = self.setup.feeds.offers(symbol).into_iter().filter(|offer| venues.contains(offer.venue));
        let asked = offers.filter_map(|offer| {
            let client = self.setup.feeds.rest(offer.venue)?;
            let wait = client.wait(class);
            (wait < left).then_some((wait, client, offer))
        });
        let mut ranked: Vec<_> = asked.collect();
        ranked.sort_by_key(|(wait, client, offer)| {
            (client.is_troubled(), wait.as_millis() / AS_SOON_MS, offer.currency == Currency::Usdt)
        });
        let market = |Offer { currency, instrument, .. }| Market { asset, currency, instrument };
        ranked.into_iter().map(|(_, client, offer)| (client, market(offer))).collect()
    }
}
