//! What the venues' tests have in common: events as lines, and the ways every protocol is tried.

use crate::json;
use crate::pair::split_at_separator;
use crate::protocol::{Instrument, VenueEvent, VenueProtocol};
use crate::simulate::market::MarketQuote;
use crate::simulate::{RestSimulator, VenueSimulator};
use shared::price::Price;
use shared::quote::Field;

/// One event as a line: `quote BTC/USDT snapshot last 1.5 bid = ask - at 1700000000000 number 7`, where `=` is unchanged
/// and `-` is none.
pub(crate) fn line(event: &VenueEvent<'_>) -> String {
    let field = |field: &Field| match field {
        Field::Unchanged => "=".to_owned(),
        Field::Empty => "-".to_owned(),
        Field::At(price) => price.to_string(),
    };
    let number = |number: &Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    match event {
        VenueEvent::Quote(quote) => format!(
            "quote {}/{} {} last {} bid {} ask {} at {} number {}",
            quote.base,
            quote.quote,
            if quote.snapshot { "snapshot" } else { "change" },
            field(&quote.last),
            field(&quote.bid),
            field(&quote.ask),
            number(&quote.exchange_time_ms),
            number(&quote.sequence)
        ),
        VenueEvent::Subscribed { name, request } => {
            format!("subscribed {} by {}", name.unwrap_or("-"), number(request))
        }
        VenueEvent::Refused { name, request, reason } => {
            format!("refused {} by {}: {reason}", name.unwrap_or("-"), number(request))
        }
        VenueEvent::Heartbeat { answer } => format!("heartbeat {}", answer.as_deref().unwrap_or("-")),
        VenueEvent::Status { text, reconnect } => format!("status reconnect={reconnect}: {text}"),
        VenueEvent::Gap { expected, got } => format!("gap {expected} {got}"),
        VenueEvent::Ignored { what } => format!("ignored {what}"),
        VenueEvent::Malformed { reason } => format!("malformed {reason}"),
    }
}

/// What a protocol tells of one frame.
pub(crate) fn told(protocol: &mut dyn VenueProtocol, frame: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    protocol.decode(frame, &mut |event| lines.push(line(&event)));
    lines
}

/// Checks what a fresh connection tells of one frame.
#[track_caller]
pub(crate) fn check(protocol: &mut dyn VenueProtocol, frame: &str, expected: &[&str]) {
    protocol.reset();
    assert_eq!(told(protocol, frame.as_bytes()), expected, "{frame}");
}

/// Checks what a protocol tells of the REST answer (status, body) to a request for `asked`.
#[track_caller]
pub(crate) fn check_tickers(
    protocol: &dyn VenueProtocol,
    (status, body): (u16, &str),
    asked: &[&Instrument],
    expected: &[&str],
) {
    let mut lines = Vec::new();
    protocol.decode_tickers(status, body.as_bytes(), asked, &mut |event| lines.push(line(&event)));
    assert_eq!(lines, expected, "{body}");
}

/// The instrument `name`, whose symbols `separator` joins, spelled alike in both interfaces.
pub(crate) fn instrument(name: &str, separator: char) -> Instrument {
    let (base, quote) = split_at_separator(name, separator).expect("a pair");
    Instrument { name: name.to_owned(), rest_name: name.to_owned(), base, quote, trading: true }
}

/// A market with these prices.
pub(crate) fn market(last: &str, bid: &str, ask: &str, sequence: u64) -> MarketQuote {
    let price = |text: &str| Price::parse(text.as_bytes()).expect("a price");
    MarketQuote { last: price(last), bid: price(bid), ask: price(ask), sequence }
}

/// Every head of every frame, and every frame with each byte replaced by each of a few: whatever the bytes, decoding ends,
/// and a frame that is not JSON is told as one malformed frame.
pub(crate) fn check_survives(protocol: &mut dyn VenueProtocol, frames: &[&str]) {
    let mut try_one = |bytes: &[u8]| {
        let lines = told(protocol, bytes);
        if json::parse(bytes).is_err() && bytes.trim_ascii() != b"pong" {
            let malformed = lines.iter().filter(|line| line.starts_with("malformed")).count();
            assert_eq!((malformed, lines.len()), (1, 1), "{lines:?}");
        }
        let asked = [instrument("BTC_USDT", '_')];
        let asked: Vec<&Instrument> = asked.iter().collect();
        protocol.decode_tickers(200, bytes, &asked, &mut |_| {});
        _ = protocol.decode_instruments(200, bytes);
    };
    for frame in frames {
        let bytes = frame.as_bytes();
        (0..bytes.len()).for_each(|end| try_one(&bytes[..end]));
        for at in 0..bytes.len() {
            for other in *b"\x00\xff\"\\{[}]:,-0e" {
                let mut changed = bytes.to_vec();
                changed[at] = other;
                try_one(&changed);
            }
        }
    }
}

/// One venue's two sides talk: what is offered is subscribed and told exactly, what is refused is refused by name and
/// spoils nothing, an end is an end, the REST lists agree.
pub(crate) fn check_conversation(
    protocol: &mut dyn VenueProtocol,
    simulator: &mut dyn VenueSimulator,
    rest: &dyn RestSimulator,
    listed: &[Instrument; 3],
) {
    const NOW_MS: u64 = 1_790_000_000_000;
    let [good, refused, halted] = listed;
    let halted = Instrument { trading: false, ..halted.clone() };
    let listed = [good.clone(), refused.clone(), halted.clone()];
    let markets = [market("67123.50", "67123.40", "67123.60", 7), market("2", "1", "3", 8), market("5", "4", "6", 9)];
    let names: Vec<&str> = listed.iter().map(|instrument| instrument.name.as_str()).collect();
    let mut now_ms = NOW_MS;
    let mut lines = Vec::new();
    for frame in simulator.greeting(now_ms) {
        lines.extend(told(protocol, frame.as_bytes()));
    }
    for name in &names {
        for frame in protocol.subscribe(&[name], 41) {
            for answer in simulator.receive(&frame, &listed, std::slice::from_ref(&refused.name), now_ms) {
                lines.extend(told(protocol, answer.as_bytes()));
            }
        }
    }
    assert!(
        lines.iter().any(|line| line.starts_with(&format!("subscribed {}", good.name)) || line == "subscribed - by 41")
    );
    for bad in [&refused.name, &halted.name] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("refused {bad} by "))), "{bad}: {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.starts_with("malformed")), "{lines:?}");
    assert_eq!(simulator.subscriptions(), 1);
    check_quotes(protocol, simulator, good, &mut now_ms);
    assert!(simulator.quote(refused, &markets[1], now_ms).is_empty());
    for frame in protocol.unsubscribe(&[&good.name], 50) {
        for answer in simulator.receive(&frame, &listed, &[], now_ms) {
            assert!(!told(protocol, answer.as_bytes()).iter().any(|line| line.starts_with("refused")), "{answer}");
        }
    }
    assert_eq!(simulator.subscriptions(), 0);
    assert!(simulator.quote(good, &markets[0], now_ms + 10_000).is_empty());
    check_rest(protocol, rest, &listed, &markets);
}

/// Two changes of a market, told exactly, the first as a snapshot.
fn check_quotes(
    protocol: &mut dyn VenueProtocol,
    simulator: &mut dyn VenueSimulator,
    instrument: &Instrument,
    now_ms: &mut u64,
) {
    for (prices, opening) in [(["10.50", "10.4", "10.60"], true), (["0.00001234", "0.00001233", "0.00001235"], false)] {
        *now_ms += 1_500;
        let (mut last, mut bid, mut ask) = (None, None, None);
        for frame in simulator.quote(instrument, &market(prices[0], prices[1], prices[2], *now_ms), *now_ms) {
            protocol.decode(frame.as_bytes(), &mut |event| {
                let VenueEvent::Quote(quote) = event else { panic!("{}", line(&event)) };
                assert_eq!((quote.base, quote.quote), (instrument.base, instrument.quote));
                assert_eq!(quote.snapshot, opening);
                assert_eq!(quote.exchange_time_ms, Some(*now_ms));
                (last, bid, ask) = (quote.last.over(last), quote.bid.over(bid), quote.ask.over(ask));
            });
        }
        let got = [last, bid, ask].map(|price| price.map(|price| price.to_string()));
        assert_eq!(got, prices.map(|price| Some(price.to_owned())));
    }
}

/// The list of instruments, one instrument's ticker, several, an unlisted one.
fn check_rest(
    protocol: &dyn VenueProtocol,
    rest: &dyn RestSimulator,
    listed: &[Instrument; 3],
    markets: &[MarketQuote; 3],
) {
    let now_ms = 1_790_000_000_000;
    let mut found = Vec::new();
    for request in protocol.instruments() {
        let (status, body) = rest.get(&request.path, listed, markets, now_ms);
        found.extend(protocol.decode_instruments(status, body.as_bytes()).expect("a list"));
    }
    assert_eq!(found, listed);
    let [good, other, halted] = listed;
    let unlisted = Instrument { name: "GONE".to_owned(), rest_name: "GONE".to_owned(), ..good.clone() };
    for (asked, expected) in [
        (vec![good], vec![format!("quote {}/{} snapshot last 67123.50", good.base, good.quote)]),
        (vec![&unlisted], vec!["refused GONE by -: ".to_owned()]),
        (vec![halted], vec![format!("refused {} by -: ", halted.name)]),
        (
            vec![good, other, &unlisted],
            vec![
                format!("quote {}/{} snapshot last 67123.50", good.base, good.quote),
                format!("quote {}/{} snapshot last 2 bid 1 ask 3", other.base, other.quote),
                "refused GONE by -: not in the venue's list".to_owned(),
            ],
        ),
    ] {
        let request = protocol.tickers(&asked);
        let (status, body) = rest.get(&request.path, listed, markets, now_ms);
        let mut lines = Vec::new();
        protocol.decode_tickers(status, body.as_bytes(), &asked, &mut |event| lines.push(line(&event)));
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        for (line, expected) in lines.iter().zip(&expected) {
            assert!(line.starts_with(expected.as_str()), "{line} does not start with {expected}");
        }
    }
}
