//! JSON made of the seven protocols' own words: whatever it says, both sides of every protocol come to an end.

use proptest::prelude::*;
use shared::venue::Venue;
use venues::fuzz::fuzz_one;

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

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json(text in json()) {
        Venue::ALL.into_iter().for_each(|venue| fuzz_one(venue, text.as_bytes()));
    }
}
