//! Every recorded REST body that answers a request of ours: prices, refusals and instrument lists.
//!
//! The recordings lie beside the repository, in `../shared/venues`; where they are not, these tests say so and pass.
#![expect(clippy::print_stdout, reason = "a skipped test must say so")]

use shared::asset::Symbol;
use shared::quote::Field;
use shared::venue::Venue;
use std::fs;
use std::path::Path;
use venues::protocol::{Instrument, VenueEvent, VenueProtocol};
use venues::{VenueSettings, protocol};

/// The recorded body, if the recordings are there.
fn body(file: &str) -> Option<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/venues");
    if !folder.is_dir() {
        println!("skipped: no recordings at {}", folder.display());
        return None;
    }
    Some(fs::read(folder.join(file)).expect("readable"))
}

fn venue_of(file: &str) -> Box<dyn VenueProtocol> {
    let venue = Venue::from_name(file.split('/').next().unwrap_or_default()).expect("a venue");
    protocol(venue, VenueSettings::default())
}

/// `BTC/USD=XXBTZUSD`: base, quote, and the name in REST.
fn instrument(protocol: &dyn VenueProtocol, text: &str) -> Instrument {
    let (pair, rest_name) = text.split_once('=').expect("a name");
    let (base, quote) = pair.split_once('/').expect("a pair");
    let symbol = |text: &str| Symbol::new(text.as_bytes()).expect("a symbol");
    let (base, quote) = (symbol(base), symbol(quote));
    Instrument { name: protocol.spell(&base, &quote), rest_name: rest_name.to_owned(), base, quote, trading: true }
}

fn field(field: Field) -> String {
    field.price().map_or_else(|| "-".to_owned(), |price| price.to_string())
}

fn line(event: &VenueEvent<'_>) -> String {
    match event {
        VenueEvent::Quote(quote) => {
            assert!(quote.snapshot, "a REST answer restates the market");
            let time = quote.exchange_time_ms.map_or_else(|| "-".to_owned(), |time| time.to_string());
            let [last, bid, ask] = [quote.last, quote.bid, quote.ask].map(field);
            format!("{}/{} {last} {bid} {ask} {time}", quote.base, quote.quote)
        }
        VenueEvent::Refused { name, reason, .. } => format!("refused {}: {reason}", name.unwrap_or("-")),
        other => format!("{other:?}"),
    }
}

#[track_caller]
fn check(file: &str, status: u16, asked: &[&str], expected: &[&str]) {
    let Some(body) = body(file) else { return };
    let protocol = venue_of(file);
    let asked: Vec<Instrument> = asked.iter().map(|text| instrument(protocol.as_ref(), text)).collect();
    let mut lines = Vec::new();
    let asked: Vec<&Instrument> = asked.iter().collect();
    protocol.decode_tickers(status, &body, &asked, &mut |event| lines.push(line(&event)));
    assert_eq!(lines, expected, "{file}");
}

#[test]
fn coinbase() {
    check(
        "coinbase/rest_product_ticker_2026-04-07.json",
        200,
        &["BTC/USD=BTC-USD"],
        &["BTC/USD 68923.67 68923.66 68923.67 1775521738544"],
    );
}

#[test]
fn gemini() {
    let btc = ["BTC/USD=btcusd"];
    check("gemini/rest_v1_pubticker_btcusd.json", 200, &btc, &["BTC/USD 11381.47 11381.50 11388.08 1565587800000"]);
    check("gemini/rest_error_rate_limit_http429.json", 429, &btc, &["refused -: Too Many Requests (HTTP 429)"]);
    check(
        "gemini/rest_error_v1_book_unknown_symbol_http400.json",
        400,
        &btc,
        &["refused btcusd: Supplied value 'NOSUCHPERP' is not a valid symbol (HTTP 400)"],
    );
    check(
        "gemini/rest_error_symbol_details_http400.json",
        400,
        &btc,
        &["refused btcusd: Received unsupported symbol 'nosuchperp' (HTTP 400)"],
    );
    check(
        "gemini/rest_error_v1_pubticker_bla.json",
        400,
        &btc,
        &[
            "refused btcusd: Supplied value 'bla' is not a valid symbol.  Please correct your API request to use one of \
           the supported symbols: [zecbch, bchbtc, zecusd, ethusd, zecbtc, bchet (HTTP 400)",
        ],
    );
}

#[test]
fn kraken() {
    check(
        "kraken/rest_ticker_multi_trimmed_2026-07.json",
        200,
        &["BTC/USD=XXBTZUSD", "DOGE/USD=XDGUSD", "USDT/USD=USDTZUSD", "NEAR/USD=NEARUSD"],
        &[
            "BTC/USD 65231.80000 65231.90000 65232.00000 -",
            "DOGE/USD 0.072637900 0.072630000 0.072640000 -",
            "USDT/USD 0.99908000 0.99900000 0.99910000 -",
            "NEAR/USD 1.84550 1.84580 1.84640 -",
        ],
    );
    check(
        "kraken/rest_ticker_dead_market_RHEAUSD.json",
        200,
        &["RHEA/USD=RHEAUSD"],
        &["RHEA/USD - 0.004470000 0.034000000 -"],
    );
    check(
        "kraken/rest_ticker_single_2014.json",
        200,
        &["BTC/EUR=XXBTZEUR"],
        &["BTC/EUR 560.87711 560.46600 562.26651 -"],
    );
    let unknown = "kraken/rest_error_unknown_pair.json";
    check(unknown, 200, &["AIO/USD=AIOUSD"], &["refused AIO/USD: EQuery:Unknown asset pair"]);
    check(unknown, 200, &["AIO/USD=AIOUSD", "AIOZ/USD=AIOZUSD"], &["refused -: EQuery:Unknown asset pair"]);
}

#[test]
fn gateio() {
    check(
        "gateio/rest_spot_tickers_btc_usdt_2023.json",
        200,
        &["BTC/USDT=BTC_USDT"],
        &["BTC/USDT 26028.7 26026.7 26026.8 -"],
    );
    check(
        "gateio/rest_spot_tickers_two_2026-07.json",
        200,
        &["ETH/USDT=ETH_USDT", "NEAR/USDT=NEAR_USDT"],
        &["NEAR/USDT 1.838 1.837 1.838 -", "ETH/USDT 1958.48 1958.48 1958.49 -"],
    );
    check(
        "gateio/rest_error_invalid_currency.json",
        400,
        &["NOTACOIN/USDT=NOTACOIN_USDT"],
        &["refused NOTACOIN_USDT: Invalid currency NOTACOIN (HTTP 400)"],
    );
}

#[test]
fn cryptocom_bybit_and_okx() {
    check(
        "cryptocom/rest_get_tickers_two_2026-07.json",
        200,
        &["ETH/USDT=ETH_USDT"],
        &["ETH/USDT 1958.43 1958.61 1958.62 1785143387083"],
    );
    check(
        "bybit/rest_tickers_spot_2023.json",
        200,
        &["BTC/USDT=BTCUSDT"],
        &["BTC/USDT 20533.13 20517.96 20527.77 1673859087947"],
    );
    check(
        "okx/rest_tickers_three_trimmed_2026-07.json",
        200,
        &["USDT/USD=USDT-USD", "BTC/USDT=BTC-USDT"],
        &["USDT/USD 0.999 0.9989 0.9991 1785145938265", "BTC/USDT 65304 65304 65305 1785145938264"],
    );
    let reason = "Instrument ID, Instrument ID code, or Spread ID doesn't exist.";
    let Some(error) = body("okx/rest_error_51001_http200.json") else { return };
    assert!(String::from_utf8_lossy(&error).contains(reason));
    check(
        "okx/rest_error_51001_http200.json",
        200,
        &["NOPE/USDT=NOPE-USDT"],
        &[&format!("refused NOPE-USDT: {reason} (HTTP 200)")],
    );
    check(
        "bybit/rest_error_not_supported_symbols.json",
        200,
        &["NOPE/USDT=NOPEUSDT"],
        &["refused NOPEUSDT: Not supported symbols (HTTP 200)"],
    );
}

/// Checks how many instruments a list holds, how many of them trade, and some of them by name.
#[track_caller]
fn check_list(file: &str, (count, trading): (usize, usize), some: &[&str]) {
    let Some(body) = body(file) else { return };
    let list = venue_of(file).decode_instruments(200, &body).expect("a list");
    assert_eq!((list.len(), list.iter().filter(|one| one.trading).count()), (count, trading), "{file}");
    for expected in some {
        let found = list.iter().any(|one| {
            let trades = if one.trading { "trades" } else { "halted" };
            format!("{} {} {}/{} {trades}", one.name, one.rest_name, one.base, one.quote) == *expected
        });
        assert!(found, "{file}: {expected} not in {list:?}");
    }
}

#[test]
fn instrument_lists() {
    check_list(
        "coinbase/rest_market_products_excerpt_2026-08-09.json",
        (23, 21),
        &["BTC-USD BTC-USD BTC/USD trades", "RNDR-USD RNDR-USD RNDR/USD halted", "EOS-USD EOS-USD EOS/USD halted"],
    );
    check_list(
        "gemini/rest_v1_symbols_2026-08-09.json",
        (334, 334),
        &["btcusd btcusd BTC/USD trades", "paxgusd paxgusd PAXG/USD trades", "btcgusd btcgusd BTC/GUSD trades"],
    );
    check_list(
        "kraken/rest_asset_pairs_excerpt_2026-09-25.json",
        (5, 4),
        &[
            "BTC/USD XXBTZUSD BTC/USD trades",
            "DOGE/USD XDGUSD DOGE/USD trades",
            "ETH/BTC XETHXXBT ETH/BTC trades",
            "SOL/USD SOLUSD SOL/USD trades",
            "ACA/EUR ACAEUR ACA/EUR halted",
        ],
    );
    check_list(
        "gateio/rest_currency_pairs_excerpt_2026-09-25.json",
        (3, 1),
        &["BTC_USDT BTC_USDT BTC/USDT trades", "POOLX_USDT POOLX_USDT POOLX/USDT halted"],
    );
    check_list(
        "bybit/rest_instruments_spot_excerpt_2026-08-09.json",
        (18, 18),
        &["1INCHUSDT 1INCHUSDT 1INCH/USDT trades"],
    );
}

#[test]
fn a_refused_list_is_an_error() {
    for (file, status) in [
        ("gemini/rest_error_rate_limit_http429.json", 429),
        ("kraken/rest_error_unknown_pair.json", 200),
        ("okx/rest_error_51001_http200.json", 200),
        ("bybit/rest_error_not_supported_symbols.json", 200),
        ("gateio/rest_error_missing_param.json", 400),
    ] {
        let Some(body) = body(file) else { return };
        assert!(venue_of(file).decode_instruments(status, &body).is_err(), "{file}");
    }
}
