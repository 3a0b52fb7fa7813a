//! What a price answer must say to be the right one: the asset asked for, a price, its currency, and how old it is.
//!
//! Two forms: the JSON object (over HTTP, and in a datagram) and the signed frame. Only what is checked is read; that the
//! answer belongs to a request (order, id, signature) is known elsewhere.

use crate::field::Field;
use crate::job::Credentials;
use memchr::memmem::Finder;
use shared::asset::{Symbol, resolve_alias};
use shared::wire::ReplyFrame;
use std::ops::Range;
use thiserror::Error;

/// What a right answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Price {
    /// Never goes back for one asset on one connection.
    pub(crate) sequence: u64,
    pub(crate) age_ms: u64,
}

/// Why an answer is not the right one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Wrong {
    #[error("status {0}: {1}")]
    Status(u16, String),
    #[error("an answer about something else: {0}")]
    Asset(String),
    #[error("an answer without {0}")]
    Without(&'static str),
    #[error("not signed with this key's secret")]
    Signature,
    #[error("sequence {sequence} after {before} on one connection")]
    WentBack { sequence: u64, before: u64 },
    #[error("{age_ms} ms old; at most {age_max_ms} ms is allowed")]
    Old { age_ms: u64, age_max_ms: u64 },
}

/// Reads price objects.
pub(crate) struct PriceReader {
    excerpts: Excerpts,
    assets: Vec<Field>,
    id: Field,
    status: Field,
    price: Field,
    currency: Field,
    age_ms: Field,
    sequence: Field,
}

impl PriceReader {
    /// For answers to `credentials` about `assets`, which are told apart by their position.
    pub(crate) fn new(assets: &[Symbol], credentials: &Credentials) -> Self {
        let named = |asset: &Symbol| Field::new(&format!("\"asset\":\"{}\"", resolve_alias(*asset)));
        Self {
            excerpts: Excerpts::new(credentials),
            assets: assets.iter().map(named).collect(),
            id: Field::new("\"id\":"),
            status: Field::new("\"status\":"),
            price: Field::new("\"price\":\""),
            currency: Field::new("\"currency\":\""),
            age_ms: Field::new("\"age_ms\":"),
            sequence: Field::new("\"sequence\":"),
        }
    }

    /// The price of the asset at `asked` in a JSON object.
    #[inline]
    pub(crate) fn read(&mut self, body: &[u8], asked: usize) -> Result<Price, Wrong> {
        if self.assets[asked].after(body).is_none() {
            return Err(Wrong::Asset(self.excerpts.of(body)));
        }
        if !self.price.has_text(body) {
            return Err(Wrong::Without("a price"));
        }
        if !self.currency.has_text(body) {
            return Err(Wrong::Without("a currency"));
        }
        let age_ms = self.age_ms.number(body).ok_or(Wrong::Without("age_ms"))?;
        let sequence = self.sequence.number(body).ok_or(Wrong::Without("a sequence"))?;
        Ok(Price { sequence, age_ms })
    }

    /// The beginning of an answer: see [`Excerpts::of`].
    pub(crate) fn excerpt(&self, body: &[u8]) -> String {
        self.excerpts.of(body)
    }

    /// The request id in a JSON datagram.
    #[inline]
    pub(crate) fn id(&mut self, datagram: &[u8]) -> Option<u64> {
        self.id.number(datagram)
    }

    /// The status of a JSON datagram that is not a price.
    #[inline]
    pub(crate) fn status(&mut self, datagram: &[u8]) -> Option<u16> {
        let number = self.status.number(datagram)?;
        u16::try_from(number).ok()
    }
}

/// The price in a frame whose status is 0; `wall_ms` is the time now.
#[inline]
pub(crate) fn read_frame(frame: &ReplyFrame, wall_ms: u64) -> Result<Price, Wrong> {
    if i64::from_le_bytes(frame.mantissa) <= 0 {
        return Err(Wrong::Without("a price"));
    }
    if !matches!(frame.currency, 1 | 2) {
        return Err(Wrong::Without("a currency"));
    }
    // The server's clock may be ahead of ours: an age is never negative.
    let age_ms = wall_ms.saturating_sub(u64::from_le_bytes(frame.received_time_ms));
    Ok(Price { sequence: u64::from_le_bytes(frame.sequence), age_ms })
}

/// Bytes of an answer that a fault line shows.
const EXCERPT: Range<usize> = 0..80;

/// Shows the beginnings of answers, but none of an answer that repeats what only the asker may know.
pub(crate) struct Excerpts {
    secrets: Vec<Finder<'static>>,
}

impl Excerpts {
    /// For answers to `credentials`.
    pub(crate) fn new(credentials: &Credentials) -> Self {
        let hex = |upper: bool| -> String {
            let digits = |byte: &u8| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
            credentials.udp_secret.iter().map(digits).collect()
        };
        let texts = [credentials.key.clone().into_bytes(), hex(false).into_bytes(), hex(true).into_bytes()];
        let secrets = texts.into_iter().chain([credentials.udp_secret.to_vec()]).filter(|secret| !secret.is_empty());
        Self { secrets: secrets.map(|secret| Finder::new(&secret).into_owned()).collect() }
    }

    /// The beginning of an answer, fit to be shown on one line. All of it is searched for secrets, so that none is shown
    /// in part either.
    pub(crate) fn of(&self, bytes: &[u8]) -> String {
        if self.secrets.iter().any(|secret| secret.find(bytes).is_some()) {
            return "(not shown: it repeats the key or its secret)".to_owned();
        }
        let part = &bytes[..bytes.len().min(EXCERPT.end)];
        part.iter().map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"asset":"BTC","price":"67123.45","currency":"USD","age_ms":37,"stale":false,"sequence":4711}"#;

    #[track_caller]
    fn check(body: &str, expected: Result<(u64, u64), &str>) {
        let assets = ["ETH", "BTC", "RNDR"].map(|text| Symbol::new(text.as_bytes()).expect("a symbol"));
        let mut reader = PriceReader::new(&assets, &Credentials::default());
        // The second time, every field is where it is remembered to be, or is not there any more.
        for _ in 0..2 {
            let got = reader.read(body.as_bytes(), 1).map(|price| (price.sequence, price.age_ms));
            assert_eq!(got.as_ref().map_err(ToString::to_string), expected.as_ref().map_err(|text| (*text).to_owned()));
            assert_eq!(reader.read(GOOD.as_bytes(), 1), Ok(Price { sequence: 4711, age_ms: 37 }));
        }
    }

    #[test]
    fn a_price_must_be_whole() {
        check(GOOD, Ok((4711, 37)));
        check(r#"{"sequence":1,"age_ms":0,"currency":"USDT","price":"1","asset":"BTC"}"#, Ok((1, 0)));
        check(
            &GOOD.replace("BTC", "ETH"),
            Err(&format!("an answer about something else: {}", &GOOD.replace("BTC", "ETH")[..80])),
        );
        check(&GOOD.replace("\"price\"", "\"p\""), Err("an answer without a price"));
        check(&GOOD.replace("67123.45", ""), Err("an answer without a price"));
        check(&GOOD.replace("USD", ""), Err("an answer without a currency"));
        check(&GOOD.replace("37", "null"), Err("an answer without age_ms"));
        check(&GOOD.replace("4711", "-1"), Err("an answer without a sequence"));
        check(&GOOD.replace("4711", "99999999999999999999999"), Err("an answer without a sequence"));
        check("", Err("an answer about something else: "));
    }

    #[test]
    fn an_alias_is_answered_under_its_asset_s_name() {
        let mut reader = PriceReader::new(&[Symbol::new(b"RNDR").expect("a symbol")], &Credentials::default());
        assert!(reader.read(GOOD.replace("BTC", "RENDER").as_bytes(), 0).is_ok());
        assert!(reader.read(GOOD.replace("BTC", "RNDR").as_bytes(), 0).is_err());
    }

    #[test]
    fn a_datagram_says_which_and_whether() {
        let mut reader = PriceReader::new(&[], &Credentials::default());
        let error = br#"{"id":7,"status":404,"code":"asset_unknown"}"#;
        assert_eq!((reader.id(error), reader.status(error)), (Some(7), Some(404)));
        assert_eq!((reader.id(GOOD.as_bytes()), reader.status(GOOD.as_bytes())), (None, None));
    }

    #[test]
    fn a_frame_must_be_whole_and_its_age_is_never_negative() {
        let good = ReplyFrame {
            mantissa: 5_i64.to_le_bytes(),
            currency: 2,
            sequence: 9_u64.to_le_bytes(),
            received_time_ms: 1_000_u64.to_le_bytes(),
            ..bytemuck::Zeroable::zeroed()
        };
        assert_eq!(read_frame(&good, 1_020), Ok(Price { sequence: 9, age_ms: 20 }));
        assert_eq!(read_frame(&good, 900), Ok(Price { sequence: 9, age_ms: 0 }));
        assert_eq!(read_frame(&ReplyFrame { mantissa: [0; 8], ..good }, 0), Err(Wrong::Without("a price")));
        assert_eq!(read_frame(&ReplyFrame { currency: 0, ..good }, 0), Err(Wrong::Without("a currency")));
    }

    #[test]
    fn an_excerpt_is_one_line() {
        let excerpts = Excerpts::new(&Credentials::default());
        assert_eq!(excerpts.of(b"a\r\n\x1b[31m\xff"), "a...[31m.");
        assert_eq!(excerpts.of(&[b'x'; 500]).len(), EXCERPT.end);
    }

    #[test]
    fn an_answer_that_repeats_a_secret_is_not_shown() {
        let credentials = Credentials { key: "canary-key".to_owned(), udp_key_id: 1, udp_secret: [0xab; 16] };
        let excerpts = Excerpts::new(&credentials);
        let secrets =
            [b"canary-key".to_vec(), "ab".repeat(16).into_bytes(), "AB".repeat(16).into_bytes(), vec![0xab; 16]];
        for secret in secrets {
            // At the beginning, across the cut, and behind it.
            for before in [0, EXCERPT.end - 3, 500] {
                let body = [&vec![b'x'; before][..], &secret, b" and more"].concat();
                assert!(excerpts.of(&body).starts_with("(not shown"), "{before}: {}", excerpts.of(&body));
            }
        }
        assert_eq!(excerpts.of(b"canary"), "canary");
    }
}
