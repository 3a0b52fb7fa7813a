//! What the simulated market promises: one seed is one market, and prices stay believable.

use super::*;
use crate::assets::{ALWAYS, default_assets};
use shared::asset::{Symbol, resolve_alias};

fn position(market: &Market, venue: Venue, base: &str, quote: &str) -> usize {
    let wanted = |instrument: &&Instrument| instrument.base.as_str() == base && instrument.quote.as_str() == quote;
    let found = market.listed(venue).iter().filter(|instrument| instrument.trading).find(wanted);
    let name = &found.expect("listed").name;
    market.listed(venue).iter().position(|instrument| instrument.name == *name).expect("listed")
}

fn sources(market: &Market, symbol: Symbol) -> usize {
    let prices = |instrument: &&Instrument| {
        instrument.trading && resolve_alias(instrument.base) == symbol && instrument.quote.as_str() != "EUR"
    };
    Venue::ALL.iter().filter(|venue| market.listed(**venue).iter().any(|instrument| prices(&instrument))).count()
}

#[test]
fn every_default_asset_has_a_price_and_most_have_several() {
    let market = Market::new(1);
    let names = Venue::ALL.iter().flat_map(|venue| default_assets(*venue)).chain(ALWAYS);
    let symbols: Vec<Symbol> = names.map(|name| resolve_alias(Symbol::new(name.as_bytes()).expect("symbol"))).collect();
    for symbol in &symbols {
        assert!(sources(&market, *symbol) > 0, "{symbol} is listed nowhere");
    }
    let several = symbols.iter().filter(|symbol| sources(&market, **symbol) > 1).count();
    assert!(several > 120, "only {several} have two sources");
    assert_eq!(sources(&market, Symbol::new(b"BTC").expect("symbol")), VENUE_COUNT);
    for venue in Venue::ALL {
        assert_eq!(market.listed(venue).len(), market.quotes(venue).len());
    }
}

#[test]
fn one_seed_is_one_market() {
    let run = |seed| {
        let mut market = Market::new(seed);
        (0..500).map(|turn| market.step(Venue::ALL[turn % VENUE_COUNT], turn % 20)).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn venues_agree_and_the_book_is_never_crossed() {
    let mut market = Market::new(3);
    let coinbase = position(&market, Venue::Coinbase, "BTC", "USD");
    let okx = position(&market, Venue::Okx, "BTC", "USDT");
    let usdt = position(&market, Venue::Kraken, "USDT", "USD");
    for _ in 0..20_000 {
        let usd = market.step(Venue::Coinbase, coinbase).expect("listed");
        let tether = market.step(Venue::Okx, okx).expect("listed");
        let rate = market.step(Venue::Kraken, usdt).expect("listed");
        assert!(usd.bid < usd.ask && tether.bid < tether.ask, "{usd:?} {tether:?}");
        let (low, high) = (Price::new(99_930, -5), Price::new(100_070, -5));
        assert!(rate.bid > low && rate.ask < high, "{rate:?}");
        let converted = tether.bid.converted(rate.bid, -2).expect("fits");
        assert!(converted.distance_centibps(usd.bid).is_some_and(|distance| distance < 5_000), "{usd:?} {tether:?}");
        let stray = usd.bid.distance_centibps(Price::new(6_712_345, -2)).expect("comparable");
        assert!(stray < 310_000, "{usd:?}");
    }
}

#[test]
fn a_venue_crashes_alone_and_comes_back() {
    let mut market = Market::new(5);
    let gemini = position(&market, Venue::Gemini, "ETH", "USD");
    let before = market.quotes(Venue::Gemini)[gemini].bid;
    for (factor, low, high) in [(600, 390_000, 410_000), (FACTOR_TRUE, 0, 5_000), (FACTOR_MAX, 900_000_000, u32::MAX)] {
        market.set_factor(Venue::Gemini, factor);
        let after = market.step(Venue::Gemini, gemini).expect("listed").bid;
        let distance = after.distance_centibps(before).expect("comparable");
        assert!((low..=high).contains(&distance), "{factor}: {distance}");
    }
    let usdt = position(&market, Venue::Gemini, "USDT", "USD");
    let rate = market.step(Venue::Gemini, usdt).expect("listed");
    assert!(rate.ask < Price::new(1_001, -3), "the rate is not part of a crash: {rate:?}");
}

#[test]
fn a_real_crash_is_everywhere() {
    let mut market = Market::new(5);
    market.move_all(800);
    for venue in [Venue::Coinbase, Venue::Kraken] {
        let btc = position(&market, venue, "BTC", "USD");
        let bid = market.step(venue, btc).expect("listed").bid;
        let distance = bid.distance_centibps(Price::new(6_712_345, -2)).expect("comparable");
        assert!((195_000..205_000).contains(&distance), "{venue} {bid}");
    }
}

#[test]
fn what_is_delisted_stands_still() {
    let mut market = Market::new(5);
    let at = market.listed(Venue::Coinbase).iter().position(|one| one.name == "RNDR-USD").expect("listed");
    let before = market.quotes(Venue::Coinbase)[at];
    market.move_all(500);
    assert_eq!(market.step(Venue::Coinbase, at), Some(before));
    assert!(market.listed(Venue::Coinbase).iter().any(|one| one.name == "RENDER-USD" && one.trading));
    assert_eq!(market.step(Venue::Coinbase, 100_000), None);
}

/// Where an asset can be had, in dollars or Tether.
fn homes(market: &Market, name: &str) -> Vec<&'static str> {
    let lists = |venue: &Venue| market.listed(*venue).iter().any(|one| one.trading && one.base.as_str() == name);
    Venue::ALL.into_iter().filter(lists).map(Venue::name).collect()
}

#[test]
fn some_assets_are_in_no_default_list_and_not_the_same_on_every_venue() {
    let market = Market::new(1);
    let defaults: Vec<&str> = Venue::ALL.iter().flat_map(|venue| default_assets(*venue)).copied().collect();
    for venue in Venue::ALL {
        let unasked = |one: &&Instrument| {
            let symbol = resolve_alias(one.base);
            let is_default = |name: &&str| Symbol::new(name.as_bytes()).map(resolve_alias) == Some(symbol);
            one.trading && symbol.as_str() != "USDT" && !defaults.iter().any(is_default)
        };
        let only_here = |one: &&Instrument| homes(&market, one.base.as_str()).len() == 1;
        let here: Vec<&Instrument> = market.listed(venue).iter().filter(unasked).collect();
        assert!(here.len() >= 2 && here.iter().any(only_here), "{venue}: {here:?}");
        assert!(here.iter().all(|one| one.quote.as_str() != "EUR"));
    }
    assert_eq!((homes(&market, "OKB"), homes(&market, "DASH")), (vec!["okx"], vec!["coinbase", "kraken"]));
}

#[test]
fn invented_assets_are_listed_priced_and_move() {
    let mut market = Market::with(1, 400);
    let homes: Vec<usize> = (0..400).map(|number| homes(&market, &format!("C{number}")).len()).collect();
    let of = |count: usize| homes.iter().filter(|homes| **homes == count).count();
    assert_eq!((of(0), of(1), of(1) + of(2) + of(3) + of(4)), (0, 100, 400));
    for venue in Venue::ALL {
        let at = market.listed(venue).iter().rposition(|one| one.base.as_str().starts_with('C')).expect("invented");
        let before = market.quotes(venue)[at];
        assert!(before.bid.mantissa() > 0 && before.bid < before.ask, "{before:?}");
        assert_ne!(market.step(venue, at), Some(before));
    }
    assert_eq!(Market::with(1, usize::MAX).mids.len(), Market::with(1, INVENTED_MAX).mids.len());
}
