//! Whatever the bytes, both sides of every protocol come to an end: decoders, simulators, REST in both directions.

use proptest::prelude::*;
use shared::venue::Venue;
use std::sync::LazyLock;
use venues::gemini::GeminiApi;
use venues::protocol::Instrument;
use venues::simulate::market::Market;
use venues::simulate::{rest_simulator, simulator};
use venues::{VenueSettings, protocol};

const NOW_MS: u64 = 1_793_500_000_123;

/// Words of the seven protocols, so that what is tried gets past the first look.
const WORDS: [&str; 60] = [
    "channel",
    "event",
    "update",
    "subscribe",
    "result",
    "method",
    "data",
    "topic",
    "type",
    "snapshot",
    "delta",
    "arg",
    "instId",
    "tickers",
    "spot.tickers",
    "spot.book_ticker",
    "tickers.BTCUSDT",
    "orderbook.1.BTCUSDT",
    "ticker",
    "instrument_name",
    "BTC_USDT",
    "BTC-USD",
    "BTC/USD",
    "BTCUSDT",
    "btcusd@bookTicker",
    "b",
    "a",
    "k",
    "t",
    "ts",
    "s",
    "last",
    "price",
    "bid",
    "ask",
    "id",
    "req_id",
    "code",
    "error",
    "msg",
    "message",
    "op",
    "params",
    "channels",
    "args",
    "payload",
    "symbol",
    "events",
    "updates",
    "type",
    "l2_updates",
    "changes",
    "E",
    "u",
    "c",
    "sequence_num",
    "success",
    "public/heartbeat",
    "status",
    "pong",
];

fn json() -> impl Strategy<Value = String> {
    let word = prop::sample::select(&WORDS[..]);
    let leaf = prop_oneof![
        word.clone().prop_map(|word| format!("\"{word}\"")),
        "-?[0-9]{1,22}(\\.[0-9]{1,22})?([eE]-?[0-9]{1,4})?".prop_map(|number| number),
        "-?[0-9]{1,22}(\\.[0-9]{1,22})?".prop_map(|number| format!("\"{number}\"")),
        prop::sample::select(vec!["null", "true", "false", "\"\"", "{}", "[]", "\"\\u00e9\\ud83d\""])
            .prop_map(String::from),
    ];
    leaf.prop_recursive(5, 48, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((word.clone(), inner), 0..8).prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

static MARKET: LazyLock<Market> = LazyLock::new(|| Market::new(1));

/// Every venue reads `bytes` as a frame, as an instrument list and as tickers, and its other side reads them as a request.
fn read_everywhere(bytes: &[u8]) {
    for (venue, gemini) in
        Venue::ALL.map(|venue| (venue, GeminiApi::Current)).into_iter().chain([(Venue::Gemini, GeminiApi::V2)])
    {
        let settings = VenueSettings { gemini };
        let mut protocol = protocol(venue, settings);
        let mut events = 0;
        protocol.decode(bytes, &mut |_| events += 1);
        assert!(events > 0, "{venue} says nothing of a frame");
        _ = protocol.decode_instruments(200, bytes);
        let asked: Vec<&Instrument> = MARKET.listed(venue).iter().take(2).collect();
        for status in [200, 400] {
            protocol.decode_tickers(status, bytes, &asked, &mut |_| {});
        }
        let text = String::from_utf8_lossy(bytes);
        simulator(venue, settings).receive(&text, MARKET.listed(venue), &[], NOW_MS);
        rest_simulator(venue).get(&text, MARKET.listed(venue), MARKET.quotes(venue), NOW_MS);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_everywhere(&bytes);
    }

    #[test]
    fn any_json(text in json()) {
        read_everywhere(text.as_bytes());
    }
}
