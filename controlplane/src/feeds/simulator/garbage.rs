//! Frames that no exchange should send, for the sessions to survive.

use super::fault::Garbage;
use tungstenite::Message;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// Size of a huge frame: ten times what a session takes.
const HUGE_BYTES: usize = 10_000_000;

/// Depth of a deeply nested frame: past any sane parser's recursion limit.
const DEPTH: usize = 20_000;

/// Digits of an absurdly long price.
const DIGITS: usize = 10_000;

/// The frames of a kind of garbage.
#[must_use]
pub fn frames(kind: Garbage) -> Vec<Message> {
    match kind {
        Garbage::Text => texts().into_iter().map(Message::text).collect(),
        Garbage::Binary => vec![Message::binary(vec![0_u8, 1, 2, 255])],
        Garbage::Huge => vec![Message::text("9".repeat(HUGE_BYTES))],
        Garbage::Utf8 => {
            let frame = Frame::message(vec![b'{', 0xff, 0xfe, b'}'], OpCode::Data(Data::Text), true);
            vec![Message::Frame(frame)]
        }
    }
}

/// Text that is no frame of any venue, or nearly one of one of them.
fn texts() -> Vec<String> {
    let digits = "7".repeat(DIGITS);
    let ticker = |price: &str| {
        format!(
            r#"{{"channel":"ticker","type":"update","data":[{{"symbol":"BTC/USD","bid":{price},"ask":{price},"last":{price}}}]}}"#
        )
    };
    let mut texts = vec![
        String::new(),
        " ".to_owned(),
        "null".to_owned(),
        "true".to_owned(),
        "[]".to_owned(),
        "{".to_owned(),
        r#"{"channel":"#.to_owned(),
        "NaN".to_owned(),
        "<html><body>502 Bad Gateway</body></html>".to_owned(),
        "[".repeat(DEPTH),
        format!("{}{}", r#"{"a":"#.repeat(DEPTH), "1"),
        r#"{"channel":17,"data":"none"}"#.to_owned(),
        r#"{"topic":"orderbook.1.BTCUSDT","type":"snapshot","data":{"s":"BTCUSDT","b":[["NaN","1"]],"a":[["-1","1"]]}}"#.to_owned(),
        r#"{"channel":"spot.book_ticker","event":"update","result":{"s":"BTC_USDT","b":"Infinity","a":"1e999"}}"#.to_owned(),
        r#"{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","last":"0x10","bidPx":"--1","askPx":[]}]}"#.to_owned(),
        r#"{"id":-1,"method":"subscribe","code":0,"result":{"instrument_name":"BTC_USD","channel":"ticker","data":[{"a":{},"b":"","k":"1,5"}]}}"#.to_owned(),
        r#"{"u":1,"E":"yesterday","s":"btcusd","b":"1e","a":"."}"#.to_owned(),
        r#"{"channel":"ticker","timestamp":"x","sequence_num":"x","events":[{"type":"update","tickers":[{"product_id":"BTC-USD","price":"+1"}]}]}"#.to_owned(),
    ];
    texts.extend(["NaN", "-1", "0", "1e308", "1e-400", "\"\"", "{}", digits.as_str()].map(ticker));
    texts
}
