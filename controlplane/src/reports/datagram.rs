//! Report datagrams: what is answered at all, and how long an answer may be. Bytes in, bytes out.
//!
//! A request is one JSON object of at most 512 bytes:
//! `{"key":"…","report":"usage","from":…,"to":…,"id":7,"pad":"…"}`. `key` and `report` must be there; `from` and `to` are
//! Unix ms or RFC 3339 text, without them it is the last 24 h; `asset`, `protocol`, `status`, `tier` and `node` choose as in
//! `GET /reports/usage`. Usage is the key's own; the administrator's key means nothing here, because a datagram shows it
//! to whoever looks. The reply is
//! `{"id":7,"report":"usage","from_ms":…,"to_ms":…,"requests":9,"by_protocol":{"tcp":8,"udp":1},"by_status":{"200":9}}`,
//! `id` where the request had one. It is at most three times as long as the request and at most 1,200 bytes: `by_status`,
//! then `by_protocol`, are left out where there is no room for them, and what is still too long is `reply_too_long`: pad
//! the request. An error is `{"id":7,"status":429,"code":"rate_limited_second"}`, and nothing where that would be longer than the
//! request. Whoever has shown no valid key gets nothing at all, as does what comes from the port of a service that answers
//! anything, from our own port, or looks like a reply.

use serde::Deserialize;
use serde::de::{Error, MapAccess, Visitor};
use serde_json::Value;
use shared::limits::{DATAGRAM_IN_MAX, DATAGRAM_OUT_MAX};
use shared::wire::REPLY_MAGIC;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// Source ports of services that answer anything: an answer to them would come back as a request.
const REFLECTOR_PORTS: [u16; 9] = [0, 7, 13, 17, 19, 53, 123, 1_900, 11_211];

/// How many times its request a reply may be.
const REPLY_FACTOR_MAX: usize = 3;

/// Parameters of a report that mean nothing for totals.
const OF_LINES: [&str; 8] = ["group_by", "interval", "limit", "cursor", "format", "raw", "tz", "key_id"];

/// What a datagram asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The key's text.
    pub key: String,
    /// To be given back.
    pub id: Option<u64>,
    /// The report's name.
    pub report: Option<String>,
    /// The parameters of the report; `None` where one is of a type that none has.
    pub pairs: Option<Vec<(String, String)>>,
    /// The request's length, bytes.
    pub length: usize,
}

/// The members of an object in their order, each name once.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose names are different")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members: Vec<(String, Value)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom("a name stands there twice"));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Reads a datagram from `from` to our port `own_port`; `None` for what is met with silence.
#[must_use]
pub fn read(bytes: &[u8], from: SocketAddr, own_port: u16) -> Option<Request> {
    let is_reflected = REFLECTOR_PORTS.contains(&from.port()) || from.port() == own_port;
    if is_reflected || bytes.starts_with(&REPLY_MAGIC.to_le_bytes()) || bytes.len() > DATAGRAM_IN_MAX {
        return None;
    }
    let Members(members) =
        bytes.first().filter(|first| **first == b'{').and_then(|_| serde_json::from_slice(bytes).ok())?;
    let mut request = Request { length: bytes.len(), pairs: Some(Vec::new()), ..Request::default() };
    let mut key = None;
    for (name, value) in members {
        match (name.as_str(), value) {
            ("key", Value::String(text)) => key = Some(text),
            ("key", _) => return None,
            ("report", Value::String(text)) => request.report = Some(text),
            ("pad", _) => {}
            ("id", Value::Number(number)) if number.is_u64() => request.id = number.as_u64(),
            ("report" | "id", _) => request.pairs = None,
            (name, _) if OF_LINES.contains(&name) => request.pairs = None,
            (name, value) => {
                let text = match value {
                    Value::String(text) => Some(text),
                    Value::Number(number) => Some(number.to_string()),
                    _ => None,
                };
                request.pairs = request.pairs.zip(text).map(|(mut pairs, text)| {
                    pairs.push((name.to_owned(), text));
                    pairs
                });
            }
        }
    }
    request.key = key.filter(|key| !key.is_empty())?;
    Some(request)
}

/// Totals of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// From this time on, Unix ms.
    pub from_ms: u64,
    /// Up to and without this time, Unix ms.
    pub to_ms: u64,
    /// Requests in all.
    pub requests: u64,
    /// Requests by protocol.
    pub by_protocol: BTreeMap<String, u64>,
    /// Requests by HTTP status.
    pub by_status: BTreeMap<u16, u64>,
}

impl Request {
    /// The beginning of every reply.
    fn begin(&self) -> String {
        self.id.map_or_else(|| "{".to_owned(), |id| format!("{{\"id\":{id},"))
    }

    /// The reply with the totals of the report called `report`; `None` when it would be too long.
    #[must_use]
    pub fn reply(&self, report: &str, totals: &Totals) -> Option<Vec<u8>> {
        let Totals { from_ms, to_ms, requests, by_protocol, by_status } = totals;
        let room = (self.length * REPLY_FACTOR_MAX).min(DATAGRAM_OUT_MAX);
        let sums = format!("\"report\":\"{report}\",\"from_ms\":{from_ms},\"to_ms\":{to_ms},\"requests\":{requests}");
        let protocols = format!(",\"by_protocol\":{}", serde_json::json!(by_protocol));
        let statuses = format!(",\"by_status\":{}", serde_json::json!(by_status));
        let begin = self.begin();
        let most_first = [format!("{begin}{sums}{protocols}{statuses}}}"), format!("{begin}{sums}{protocols}}}")];
        let replies = most_first.into_iter().chain([format!("{begin}{sums}}}")]);
        replies.into_iter().find(|reply| reply.len() <= room).map(String::into_bytes)
    }

    /// The reply that says why there are no totals; `None` where it would be longer than the request.
    #[must_use]
    pub fn refusal(&self, status: u16, code: &str) -> Option<Vec<u8>> {
        let reply = format!("{}\"status\":{status},\"code\":\"{code}\"}}", self.begin());
        (reply.len() <= self.length).then(|| reply.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN_PORT: u16 = 2_680;

    fn from(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[track_caller]
    fn check(text: &str, expected: Option<Option<&[(&str, &str)]>>) {
        let request = read(text.as_bytes(), from(40_000), OWN_PORT);
        let pairs = request.map(|request| request.pairs);
        let expected = expected.map(|pairs| {
            pairs.map(|pairs| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        });
        assert_eq!(pairs, expected, "{text}");
    }

    #[test]
    fn what_is_no_object_with_a_key_is_met_with_silence() {
        let long = format!(r#"{{"key":"k","pad":"{}"}}"#, "x".repeat(DATAGRAM_IN_MAX));
        for silent in [
            "",
            "x",
            "{",
            "[]",
            "7",
            "{}",
            " {\"key\":\"k\"}",
            r#"{"report":"usage"}"#,
            r#"{"key":7,"report":"usage"}"#,
            r#"{"key":"","report":"usage"}"#,
            r#"{"key":"k","key":"k"}"#,
            r#"{"key":"k","from":1,"from":2}"#,
            r#"{"key":"k"}x"#,
            "TB",
            &long,
        ] {
            check(silent, None);
        }
        check(r#"{"key":"k"}"#, Some(Some(&[])));
    }

    #[test]
    fn parameters_come_as_texts() {
        check(
            r#"{"key":"k","report":"usage","from":1793500000000,"to":"2026-11-22T00:00:00Z","asset":"BTC","pad":"xx"}"#,
            Some(Some(&[("from", "1793500000000"), ("to", "2026-11-22T00:00:00Z"), ("asset", "BTC")])),
        );
        for bad in [
            r#"{"key":"k","from":null}"#,
            r#"{"key":"k","from":[1]}"#,
            r#"{"key":"k","id":-1}"#,
            r#"{"key":"k","id":"7"}"#,
            r#"{"key":"k","report":7}"#,
            r#"{"key":"k","group_by":"asset"}"#,
            r#"{"key":"k","key_id":"7"}"#,
            r#"{"key":"k","limit":7}"#,
        ] {
            check(bad, Some(None));
        }
    }

    #[test]
    fn reflectors_our_own_port_and_replies_get_nothing() {
        let request = br#"{"key":"k","report":"usage"}"#;
        assert!(read(request, from(40_000), OWN_PORT).is_some());
        for port in REFLECTOR_PORTS.into_iter().chain([OWN_PORT]) {
            assert_eq!(read(request, from(port), OWN_PORT), None, "{port}");
        }
        let mut reply = REPLY_MAGIC.to_le_bytes().to_vec();
        reply.extend(request);
        assert_eq!(read(&reply, from(40_000), OWN_PORT), None);
    }

    fn totals() -> Totals {
        Totals {
            from_ms: 1_793_500_000_000,
            to_ms: 1_793_500_060_000,
            requests: 9,
            by_protocol: BTreeMap::from([("tcp".to_owned(), 8), ("udp".to_owned(), 1)]),
            by_status: BTreeMap::from([(200, 9)]),
        }
    }

    #[test]
    fn a_reply_says_as_much_as_three_requests_have_room_for() {
        let whole = "{\"id\":7,\"report\":\"usage\",\"from_ms\":1793500000000,\"to_ms\":1793500060000,\"requests\":9,\
                     \"by_protocol\":{\"tcp\":8,\"udp\":1},\"by_status\":{\"200\":9}}";
        let without = |part: &str| whole.split(part).next().map(|text| format!("{text}}}")).expect("a part");
        let (protocols, sums) = (without(",\"by_status\""), without(",\"by_protocol\""));
        for length in 1..=DATAGRAM_IN_MAX {
            let request = Request { id: Some(7), length, ..Request::default() };
            let room = length * REPLY_FACTOR_MAX;
            let expected = [whole, &protocols, &sums].into_iter().find(|reply| reply.len() <= room);
            let reply = request.reply("usage", &totals());
            assert_eq!(reply.as_deref(), expected.map(str::as_bytes), "{length}");
            assert_eq!(request.refusal(400, "reply_too_long").is_some(), length >= 45, "{length}");
        }
    }

    #[test]
    fn no_reply_is_longer_than_a_datagram() {
        let by_status = (100..600).map(|status| (status, u64::MAX)).collect();
        let request = Request { length: DATAGRAM_IN_MAX, ..Request::default() };
        let reply = request.reply("usage", &Totals { by_status, ..totals() }).expect("without them it fits");
        assert!(reply.len() <= DATAGRAM_OUT_MAX && !String::from_utf8_lossy(&reply).contains("by_status"));
    }
}
