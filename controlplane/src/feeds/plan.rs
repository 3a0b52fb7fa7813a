//! Which market of which venue prices which asset: from asset lists and instrument lists to subscriptions.
//!
//! Pure: the lists come from `instruments`. An asset is taken from every venue that lists it and trades it, so that
//! one price has several sources. Dollars are preferred to Tether where a venue has both. Every asset that is listed
//! anywhere has an id from the start, wanted or not: that it is subscribed is another matter, told by `markets`.

use shared::asset::{AssetDirectory, AssetId, Symbol, resolve_alias};
use shared::limits::ASSETS_MAX;
use shared::quote::Currency;
use shared::venue::{VENUE_COUNT, Venue, VenueSet};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use venues::protocol::Instrument;

/// Assets that an id is kept for although no venue lists them. Ids are never used again, so this is for the life of the
/// process.
pub const KNOWN_MAX: usize = 1_024;

/// Assets listed at most, wanted ones aside: seven venues list some 4,000 bases, and newly listed ones come to these
/// over the life of a process.
const LISTED_MAX: usize = ASSETS_MAX - KNOWN_MAX;

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

/// Everything that venues trade in dollars or Tether, by asset: at most one market of a venue for each.
#[derive(Clone, Debug, Default)]
pub struct Offers(BTreeMap<Symbol, Vec<Offer>>);

impl Offers {
    /// What `listings` offer. With seven lists of 20,000 instruments it takes tens of milliseconds: once for a new list.
    #[must_use]
    pub fn new(listings: &[Listing; VENUE_COUNT]) -> Self {
        let mut offers: BTreeMap<Symbol, Vec<Offer>> = BTreeMap::new();
        for venue in Venue::ALL {
            for (symbol, (currency, instrument)) in best(listings[venue.index()].instruments()) {
                offers.entry(symbol).or_default().push(Offer { venue, currency, instrument: instrument.clone() });
            }
        }
        Self(offers)
    }

    /// The markets in which venues trade `symbol`'s asset, in the order of `Venue::ALL`.
    #[must_use]
    pub fn of(&self, symbol: &Symbol) -> &[Offer] {
        self.0.get(&resolve_alias(*symbol)).map_or(&[], Vec::as_slice)
    }

    /// Every asset that is traded somewhere, by name, with who trades it.
    fn assets(&self) -> impl Iterator<Item = (Symbol, VenueSet)> {
        self.0.iter().map(|(symbol, offers)| (*symbol, venues_of(offers)))
    }
}

/// What shall be known and subscribed.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Assets to price for as long as the parameters say so.
    pub wanted: Vec<Wanted>,
    /// Assets to price for as long as somebody asks for them, wherever they are listed.
    pub on_demand: Vec<Symbol>,
    /// Assets that need an id although no venue may list them: another node has a price. At most [`KNOWN_MAX`].
    pub known: Vec<Symbol>,
}

/// Who prices what.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every asset that some venue lists or somebody knows, and every one that an earlier plan had: ids never change.
    pub directory: Arc<AssetDirectory>,
    /// Each venue's markets to subscribe to, in asset order.
    pub markets: [Arc<Vec<Market>>; VENUE_COUNT],
    /// Those of them that are wanted, as opposed to asked for on demand.
    pub lasting: BTreeSet<AssetId>,
    /// Wanted assets that no venue lists, in the order wanted.
    pub unlisted: Vec<Symbol>,
    /// Assets for which the directory had no room.
    pub left_out: usize,
    /// What venues trade, subscribed or not.
    pub offers: Arc<Offers>,
    /// Grows when lists or wanted assets change, not when assets come and go on demand: then what a venue refused is
    /// asked again.
    pub edition: u64,
}

impl Plan {
    /// Plans `wishes` over `offers`, keeping the ids of `before`. Wanted assets get the lowest new ids, in their order; the
    /// others follow by name.
    #[must_use]
    pub fn new(wishes: &Wishes, offers: &Arc<Offers>, before: &Arc<AssetDirectory>, edition: u64) -> Self {
        let mut directory = AssetDirectory::clone(before);
        let known: Vec<AssetId> = directory.iter().map(|(id, _)| id).collect();
        known.into_iter().for_each(|id| directory.set(id, false, VenueSet::EMPTY));
        let (mut unlisted, mut left_out) = (Vec::new(), 0);
        for Wanted { symbol, prewarmed } in &wishes.wanted {
            let symbol = resolve_alias(*symbol);
            let venues = venues_of(offers.of(&symbol));
            if venues.is_empty() && !unlisted.contains(&symbol) {
                unlisted.push(symbol);
            }
            if !venues.is_empty() || directory.find(&symbol).is_some() {
                left_out += usize::from(directory.add(symbol, *prewarmed, venues).is_none());
            }
        }
        for (symbol, venues) in offers.assets() {
            let has_room = directory.len() < LISTED_MAX || directory.find(&symbol).is_some();
            let added = has_room.then(|| directory.add(symbol, false, venues)).flatten();
            left_out += usize::from(added.is_none());
        }
        for symbol in &wishes.known {
            left_out += usize::from(directory.add(*symbol, false, VenueSet::EMPTY).is_none());
        }
        let markets = markets(wishes, offers, &directory);
        let lasting = wishes.wanted.iter().filter_map(|wanted| directory.find(&wanted.symbol)).collect();
        let is_same = directory.iter().map(|(_, entry)| entry).eq(before.iter().map(|(_, entry)| entry));
        let directory = if is_same { Arc::clone(before) } else { Arc::new(directory) };
        Self { directory, markets, lasting, unlisted, left_out, offers: Arc::clone(offers), edition }
    }

    /// The venue's markets.
    #[must_use]
    pub fn of(&self, venue: Venue) -> &Arc<Vec<Market>> {
        &self.markets[venue.index()]
    }
}

/// The markets of every asset that is wanted or asked for, by venue, in asset order.
fn markets(wishes: &Wishes, offers: &Offers, directory: &AssetDirectory) -> [Arc<Vec<Market>>; VENUE_COUNT] {
    let wanted = wishes.wanted.iter().map(|wanted| &wanted.symbol).chain(&wishes.on_demand);
    let assets: BTreeMap<AssetId, &Symbol> =
        wanted.filter_map(|symbol| Some((directory.find(symbol)?, symbol))).collect();
    let mut markets: [Vec<Market>; VENUE_COUNT] = Default::default();
    for (asset, symbol) in assets {
        for Offer { venue, currency, instrument } in offers.of(symbol) {
            markets[venue.index()].push(Market { asset, currency: *currency, instrument: instrument.clone() });
        }
    }
    markets.map(Arc::new)
}

fn venues_of(offers: &[Offer]) -> VenueSet {
    offers.iter().map(|offer| offer.venue).fold(VenueSet::EMPTY, VenueSet::with)
}

/// The best market for each base that a venue trades in dollars or Tether.
fn best(instruments: &[Instrument]) -> HashMap<Symbol, (Currency, &Instrument)> {
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

    fn plan(wanted: &str, lists: &[(Venue, &str)], before: &Arc<AssetDirectory>) -> Plan {
        let wanted = wanted.split_whitespace().map(|text| Wanted { symbol: symbol(text), prewarmed: true });
        let wishes = Wishes { wanted: wanted.collect(), ..Wishes::default() };
        Plan::new(&wishes, &Arc::new(Offers::new(&listings(lists))), before, 0)
    }

    /// The plan as text: `venue:asset=instrument`, in venue and asset order.
    #[track_caller]
    fn check(wanted: &str, lists: &[(Venue, &str)], expected: &str, unlisted: &str) {
        let plan = plan(wanted, lists, &Arc::default());
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
        let first = plan("BTC ETH", &[(Venue::Okx, "BTC-USDT ETH-USDT")], &Arc::default());
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

    /// The directory in id order: `*` marks what is prewarmed, `+` what is subscribed somewhere.
    #[track_caller]
    fn check_directory(plan: &Plan, expected: &str) {
        let subscribed = |asset| plan.markets.iter().any(|markets| markets.iter().any(|market| market.asset == asset));
        let entry = |(id, entry): (AssetId, &shared::asset::AssetEntry)| {
            let mark = |is: bool, mark| if is { mark } else { "" };
            format!("{}{}{}", entry.symbol, mark(entry.prewarmed, "*"), mark(subscribed(id), "+"))
        };
        assert_eq!(plan.directory.iter().map(entry).collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn everything_listed_has_an_id_and_only_what_is_wished_for_is_subscribed() {
        let lists = [(Venue::Okx, "ZRX-USDT BTC-USDT ABC-USDT OLD-USDT!"), (Venue::Kraken, "XBT-USD DEF-EUR")];
        let offers = Arc::new(Offers::new(&listings(&lists)));
        let wanted = vec![Wanted { symbol: symbol("BTC"), prewarmed: true }];
        let mut wishes = Wishes { wanted, on_demand: vec![symbol("ZRX"), symbol("NONE")], known: Vec::new() };
        let first = Plan::new(&wishes, &offers, &Arc::default(), 0);
        check_directory(&first, "BTC*+ ABC ZRX+");
        // What comes and goes on demand changes no directory.
        wishes.on_demand = vec![symbol("ABC")];
        let second = Plan::new(&wishes, &offers, &first.directory, 0);
        check_directory(&second, "BTC*+ ABC+ ZRX");
        assert!(Arc::ptr_eq(&first.directory, &second.directory));
        // What only another node knows gets an id, once; what is wanted later keeps the one it has.
        wishes.known = vec![symbol("FAR"), symbol("ZRX")];
        wishes.wanted.push(Wanted { symbol: symbol("ZRX"), prewarmed: true });
        let third = Plan::new(&wishes, &offers, &second.directory, 1);
        check_directory(&third, "BTC*+ ABC+ ZRX*+ FAR");
        assert_eq!((third.left_out, third.unlisted.len()), (0, 0));
    }

    #[test]
    fn an_offer_names_each_venue_once_by_any_name_of_the_asset() {
        let lists = [(Venue::Okx, "BTC-USDT"), (Venue::Cryptocom, "BTC-USDT BTC-USD"), (Venue::Kraken, "XBT-USD")];
        let offers = Offers::new(&listings(&lists));
        let text = |name| {
            let offer = |offer: &Offer| format!("{}:{}", offer.venue, offer.instrument.name);
            offers.of(&symbol(name)).iter().map(offer).collect::<Vec<_>>().join(" ")
        };
        let expected = "kraken:XBT-USD cryptocom:BTC-USD okx:BTC-USDT";
        assert_eq!((text("BTC"), text("XBT"), text("ETH")), (expected.to_owned(), expected.to_owned(), String::new()));
    }

    #[test]
    fn a_full_directory_leaves_out_what_is_listed_before_what_is_wanted_or_known() {
        let every: Vec<String> = (0..LISTED_MAX + 5).map(|index| format!("A{index}-USDT")).collect();
        let offers = Arc::new(Offers::new(&listings(&[(Venue::Gateio, &every.join(" "))])));
        let last = symbol(&format!("A{}", LISTED_MAX - 1));
        let wishes = Wishes {
            wanted: vec![Wanted { symbol: last, prewarmed: true }],
            known: (0..KNOWN_MAX).map(|index| symbol(&format!("K{index}"))).collect(),
            ..Wishes::default()
        };
        let plan = Plan::new(&wishes, &offers, &Arc::default(), 0);
        assert_eq!((plan.left_out, plan.directory.len()), (5, ASSETS_MAX));
        assert_eq!(plan.directory.find(&last), AssetId::new(0));
    }
}
