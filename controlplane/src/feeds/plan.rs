//! Which market of which venue prices which asset: from asset lists and instrument lists to subscriptions.
//!
//! Pure: the lists come from `instruments`. An asset is taken from every venue that lists it and trades it, so that
//! one price has several sources. Dollars are preferred to Tether where a venue has both.

use shared::asset::{AssetDirectory, AssetId, Symbol, resolve_alias};
use shared::quote::Currency;
use shared::venue::{VENUE_COUNT, Venue, VenueSet};
use std::collections::HashMap;
use std::sync::Arc;
use venues::protocol::Instrument;

/// One venue's market for one asset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Market {
    /// What it prices.
    pub asset: AssetId,
    /// What the price is in.
    pub currency: Currency,
    /// The venue's own words for it.
    pub instrument: Instrument,
}

/// What is known of one venue's instruments.
#[derive(Clone, Debug, Default)]
pub enum Listing {
    /// Nothing: the venue is not used.
    #[default]
    Unused,
    /// The venue's own list, of now or of a good day before.
    Known(Arc<Vec<Instrument>>),
    /// No list could be had: it is assumed to trade its own default assets.
    Assumed(Arc<Vec<Instrument>>),
}

impl Listing {
    /// The instruments, known or assumed.
    #[must_use]
    pub fn instruments(&self) -> &[Instrument] {
        match self {
            Self::Unused => &[],
            Self::Known(instruments) | Self::Assumed(instruments) => instruments,
        }
    }
}

/// An asset that shall be priced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its symbol; an alias is resolved.
    pub symbol: Symbol,
    /// Whether it belongs to `all` in `/prices`.
    pub prewarmed: bool,
}

/// A market in which a venue trades an asset, whether we listen to it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where.
    pub venue: Venue,
    /// What the price is in.
    pub currency: Currency,
    /// The venue's own words for it.
    pub instrument: Instrument,
}

/// Who prices what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Every asset that some venue prices, and every one that an earlier plan had: ids never change.
    pub directory: Arc<AssetDirectory>,
    /// Each venue's markets, in asset order.
    pub markets: [Arc<Vec<Market>>; VENUE_COUNT],
    /// Wanted assets that no venue lists, in the order wanted.
    pub unlisted: Vec<Symbol>,
}

impl Plan {
    /// Plans `wanted` over `listings`, keeping the ids of `before`.
    #[must_use]
    pub fn new(wanted: &[Wanted], listings: &[Listing; VENUE_COUNT], before: &AssetDirectory) -> Self {
        let offers = Venue::ALL.map(|venue| offers(listings[venue.index()].instruments()));
        let mut directory = before.clone();
        let known: Vec<AssetId> = directory.iter().map(|(id, _)| id).collect();
        known.into_iter().for_each(|id| directory.set(id, false, VenueSet::EMPTY));
        let mut markets: [Vec<Market>; VENUE_COUNT] = Default::default();
        let mut unlisted = Vec::new();
        for Wanted { symbol, prewarmed } in wanted {
            let symbol = resolve_alias(*symbol);
            let listing = Venue::ALL.into_iter().filter(|venue| offers[venue.index()].contains_key(&symbol));
            let venues = listing.fold(VenueSet::EMPTY, VenueSet::with);
            if venues.is_empty() && directory.find(&symbol).is_none() {
                unlisted.push(symbol);
                continue;
            }
            let Some(asset) = directory.add(symbol, *prewarmed, venues) else {
                tracing::warn!(%symbol, "asset left out: the directory is full; shorten the asset lists");
                continue;
            };
            for venue in venues.iter() {
                let (currency, instrument) = offers[venue.index()][&symbol];
                markets[venue.index()].push(Market { asset, currency, instrument: instrument.clone() });
            }
        }
        let markets = markets.map(|mut markets| {
            markets.sort_by_key(|market| market.asset);
            markets.dedup_by_key(|market| market.asset);
            Arc::new(markets)
        });
        Self { directory: Arc::new(directory), markets, unlisted }
    }

    /// The markets in which venues trade the asset, in the order of `Venue::ALL`.
    #[must_use]
    pub fn offers(&self, symbol: &Symbol) -> Vec<Offer> {
        let _ = symbol;
        Vec::new()
    }

    /// The venue's markets.
    #[must_use]
    pub fn of(&self, venue: Venue) -> &Arc<Vec<Market>> {
        &self.markets[venue.index()]
    }
}

/// The best market for each base that a venue trades in dollars or Tether.
fn offers(instruments: &[Instrument]) -> HashMap<Symbol, (Currency, &Instrument)> {
    let mut offers: HashMap<Symbol, (Currency, &Instrument)> = HashMap::new();
    for instrument in instruments.iter().filter(|instrument| instrument.trading) {
        let Some(currency) = Currency::from_code(instrument.quote.as_str()) else { continue };
        let asset = resolve_alias(instrument.base);
        // USD before USDT; then the asset's own name before an older one.
        let rank = |currency: Currency, base: Symbol| (currency != Currency::Usd, base != asset);
        let better = offers
            .get(&asset)
            .is_none_or(|(held_currency, held)| rank(currency, instrument.base) < rank(*held_currency, held.base));
        if better {
            offers.insert(asset, (currency, instrument));
        }
    }
    offers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(text: &str) -> Symbol {
        Symbol::new(text.as_bytes()).expect("a good symbol")
    }

    fn instrument(text: &str) -> Instrument {
        let (text, trading) = text.strip_suffix('!').map_or((text, true), |text| (text, false));
        let (base, quote) = text.split_once('-').expect("BASE-QUOTE");
        let (name, rest_name) = (text.to_owned(), text.to_owned());
        Instrument { name, rest_name, base: symbol(base), quote: symbol(quote), trading }
    }

    fn listings(lists: &[(Venue, &str)]) -> [Listing; VENUE_COUNT] {
        let mut listings: [Listing; VENUE_COUNT] = Default::default();
        for (venue, list) in lists {
            let instruments = list.split_whitespace().map(instrument).collect();
            listings[venue.index()] = Listing::Known(Arc::new(instruments));
        }
        listings
    }

    fn plan(wanted: &str, lists: &[(Venue, &str)], before: &AssetDirectory) -> Plan {
        let wanted = wanted.split_whitespace().map(|text| Wanted { symbol: symbol(text), prewarmed: true });
        Plan::new(&wanted.collect::<Vec<_>>(), &listings(lists), before)
    }

    /// The plan as text: `venue:asset=instrument`, in venue and asset order.
    #[track_caller]
    fn check(wanted: &str, lists: &[(Venue, &str)], expected: &str, unlisted: &str) {
        let plan = plan(wanted, lists, &AssetDirectory::new());
        let name = |asset| plan.directory.entry(asset).map_or(String::new(), |entry| entry.symbol.to_string());
        let text = |venue: Venue| {
            let markets = plan.of(venue).iter();
            markets
                .map(|market| format!("{venue}:{}={}", name(market.asset), market.instrument.name))
                .collect::<Vec<_>>()
        };
        assert_eq!(Venue::ALL.into_iter().flat_map(text).collect::<Vec<_>>().join(" "), expected);
        assert_eq!(plan.unlisted.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), unlisted);
    }

    #[test]
    fn an_asset_is_taken_from_every_venue_that_lists_it() {
        let lists = [(Venue::Coinbase, "BTC-USD ETH-USD"), (Venue::Okx, "BTC-USDT SOL-USDT")];
        check("BTC ETH SOL", &lists, "coinbase:BTC=BTC-USD coinbase:ETH=ETH-USD okx:BTC=BTC-USDT okx:SOL=SOL-USDT", "");
    }

    #[test]
    fn dollars_are_preferred_to_tether_and_nothing_else_will_do() {
        check("BTC", &[(Venue::Cryptocom, "BTC-USDT BTC-USD")], "cryptocom:BTC=BTC-USD", "");
        check("BTC", &[(Venue::Cryptocom, "BTC-USD BTC-USDT BTC-EUR")], "cryptocom:BTC=BTC-USD", "");
        check("BTC", &[(Venue::Cryptocom, "BTC-EUR BTC-USDC")], "", "BTC");
    }

    #[test]
    fn what_does_not_trade_is_not_listed() {
        check("EOS BTC", &[(Venue::Coinbase, "EOS-USD! BTC-USD")], "coinbase:BTC=BTC-USD", "EOS");
        check("BTC", &[(Venue::Cryptocom, "BTC-USD! BTC-USDT")], "cryptocom:BTC=BTC-USDT", "");
    }

    #[test]
    fn an_old_name_and_its_new_one_are_one_asset() {
        check("RNDR RENDER", &[(Venue::Coinbase, "RNDR-USD! RENDER-USD")], "coinbase:RENDER=RENDER-USD", "");
        check("RENDER", &[(Venue::Coinbase, "RNDR-USD RENDER-USD")], "coinbase:RENDER=RENDER-USD", "");
        check("POL", &[(Venue::Gateio, "MATIC-USDT")], "gateio:POL=MATIC-USDT", "");
        check("BTC", &[(Venue::Kraken, "XBT-USD")], "kraken:BTC=XBT-USD", "");
    }

    #[test]
    fn ids_survive_and_an_asset_that_left_every_list_stays_known() {
        let first = plan("BTC ETH", &[(Venue::Okx, "BTC-USDT ETH-USDT")], &AssetDirectory::new());
        let second = plan("SOL ETH", &[(Venue::Okx, "SOL-USDT ETH-USDT")], &first.directory);
        for (text, index, venues) in [("BTC", 0, 0), ("ETH", 1, 64), ("SOL", 2, 64)] {
            let id = second.directory.find(&symbol(text)).expect("known");
            let entry = second.directory.entry(id).expect("known");
            assert_eq!((id.index(), entry.venues.bits()), (index, venues), "{text}");
        }
        let btc = second.directory.entry(AssetId::new(0).expect("small")).expect("known");
        assert!(!btc.prewarmed, "no longer wanted");
        assert_eq!(second.of(Venue::Okx).len(), 2);
    }
}
