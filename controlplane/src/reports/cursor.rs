//! Where the next page of a report begins, as a text for whoever reads it page by page.
//!
//! The text means nothing to them: hex digits of a version, the range, a print of the query it came from, the place, and
//! a checksum. It grants nothing: whose usage may be seen is decided with every request anew, and a range beyond what may
//! be asked is refused as in any other parameter. It guards against mishap, not against forgery, which would gain nothing
//! but another place in one's own report.

use crate::keys::{from_hex, to_hex};
use std::fmt;

/// The form that is written and read.
const VERSION: u8 = 1;

/// Bytes of the longest: two node names and an asset of full length, and numbers.
const BYTES_MAX: usize = 512;

/// What is wrong with a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorFault {
    /// It is not one, or not all of one.
    Broken,
    /// It is of a form that this program does not read.
    OtherVersion,
    /// The other parameters are not those of the page that it came with.
    OtherQuery,
}

impl fmt::Display for CursorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "broken: give the next_cursor of a page exactly as it was, or leave it out to begin anew",
            Self::OtherVersion => "of another version of this service: leave it out to begin anew",
            Self::OtherQuery => {
                "of another query: with a cursor everything but limit must be as it was; leave it out to \
                                 begin anew"
            }
        })
    }
}

/// The line that a page ended with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Its time, or its interval's begin, Unix ms.
    pub time_ms: u64,
    /// Of a group.
    pub key: u32,
    /// Of a group.
    pub status: u16,
    /// Of a group.
    pub asset: String,
    /// Of a group.
    pub protocol: String,
    /// Of a group.
    pub tier: String,
    /// Of detail and of a group.
    pub node: String,
    /// Of detail.
    pub segment: u64,
    /// Of detail.
    pub offset: u64,
}

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The range that was asked for, Unix ms.
    pub asked_ms: (u64, u64),
    /// The range that the report covers, Unix ms.
    pub covered_ms: (u64, u64),
    /// Of the query it came from.
    pub print: u32,
    /// Behind this line.
    pub mark: Mark,
}

impl Cursor {
    /// Reads what [`Cursor`]'s `Display` writes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, CursorFault> {
        if text.len() > 2 * BYTES_MAX || !text.is_ascii() {
            return Err(CursorFault::Broken);
        }
        let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().and_then(from_hex::<1>));
        let bytes: Vec<u8> =
            pairs.map(|byte| byte.map(|[byte]| byte)).collect::<Option<_>>().ok_or(CursorFault::Broken)?;
        let (bytes, sum) = bytes.split_last_chunk::<4>().ok_or(CursorFault::Broken)?;
        if crc32c::crc32c(bytes) != u32::from_le_bytes(*sum) {
            return Err(CursorFault::Broken);
        }
        let (version, rest) = bytes.split_first().ok_or(CursorFault::Broken)?;
        if *version != VERSION {
            return Err(CursorFault::OtherVersion);
        }
        Self::from_bytes(rest).ok_or(CursorFault::Broken)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let asked_ms = (reader.number()?, reader.number()?);
        let covered_ms = (reader.number()?, reader.number()?);
        let print = reader.number()?.try_into().ok()?;
        let mark = Mark {
            time_ms: reader.number()?,
            key: reader.number()?.try_into().ok()?,
            status: reader.number()?.try_into().ok()?,
            segment: reader.number()?,
            offset: reader.number()?,
            asset: reader.text()?,
            protocol: reader.text()?,
            tier: reader.text()?,
            node: reader.text()?,
        };
        reader.0.is_empty().then_some(Self { asked_ms, covered_ms, print, mark })
    }

    fn bytes(&self) -> Vec<u8> {
        let mark = &self.mark;
        let numbers = [
            self.asked_ms.0,
            self.asked_ms.1,
            self.covered_ms.0,
            self.covered_ms.1,
            self.print.into(),
            mark.time_ms,
            mark.key.into(),
            mark.status.into(),
            mark.segment,
            mark.offset,
        ];
        let mut bytes = vec![VERSION];
        for number in numbers {
            bytes.extend(number.to_le_bytes());
        }
        for text in [&mark.asset, &mark.protocol, &mark.tier, &mark.node] {
            // What is stored is shorter; were it not, the text would not be read again, rather than read wrongly.
            bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            bytes.extend(text.as_bytes());
        }
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.bytes()))
    }
}

/// Takes bytes apart.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = *self.take(1)?.first()?;
        std::str::from_utf8(self.take(length.into())?).ok().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::query::{Asking, Fault, Report, ReportQuery, Scope};
    use crate::store::NAME_BYTES_MAX;

    /// 2026-11-20 00:00 UTC.
    const NOW_MS: u64 = 1_795_132_800_000;

    fn parse(pairs: &[(&str, &str)], now_ms: u64, scope: Scope) -> Result<ReportQuery, Vec<Fault>> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ReportQuery::parse(Report::Usage, &pairs, &Asking { scope, now_ms, retention_days: 93 })
    }

    fn cursor() -> String {
        let query = parse(&[("asset", "BTC"), ("limit", "5")], NOW_MS, Scope::Own(3)).expect("good");
        let mark = Mark {
            time_ms: NOW_MS - 7,
            key: u32::MAX,
            status: 429,
            asset: "A234567890123456".to_owned(),
            protocol: "tcp".to_owned(),
            tier: "valkey".to_owned(),
            node: "ä".repeat(NAME_BYTES_MAX / 2),
            segment: u64::MAX >> 1,
            offset: 4_711,
        };
        let cursor = query.behind(mark);
        assert_eq!(Cursor::read(&cursor.to_string()), Ok(cursor.clone()));
        cursor.to_string()
    }

    #[test]
    fn a_cursor_leads_on_in_the_query_it_came_from_and_in_no_other() {
        let cursor = cursor();
        let cursor = cursor.as_str();
        let later = NOW_MS + 60_000;
        let query = parse(&[("asset", "btc"), ("cursor", cursor), ("limit", "7")], later, Scope::Own(3)).expect("good");
        assert_eq!(query.filter.to_ms, NOW_MS, "the range is that of the first page");
        for (pairs, scope) in [
            (vec![("cursor", cursor)], Scope::Own(3)),
            (vec![("cursor", cursor), ("asset", "ETH")], Scope::Own(3)),
            (vec![("cursor", cursor), ("asset", "BTC")], Scope::Own(4)),
            (vec![("cursor", cursor), ("asset", "BTC")], Scope::Admin),
            (vec![("cursor", cursor), ("asset", "BTC"), ("interval", "day")], Scope::Own(3)),
            (vec![("cursor", cursor), ("asset", "BTC"), ("tz", "Europe/Berlin")], Scope::Own(3)),
            (vec![("cursor", cursor), ("asset", "BTC"), ("to", "1795132800001")], Scope::Own(3)),
        ] {
            let faults = parse(&pairs, later, scope).expect_err("refused");
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].parameter == "cursor" && faults[0].allowed.contains("another query"), "{faults:?}");
        }
    }

    #[test]
    fn a_value_is_not_taken_for_another_parameter() {
        let print = |pairs| parse(pairs, NOW_MS, Scope::Admin).expect("good").behind(Mark::default()).print;
        assert_ne!(print(&[("node", "a&group_by=key")]), print(&[("node", "a"), ("group_by", "key")]));
    }

    #[test]
    fn a_cursor_that_no_page_ended_with_is_refused() {
        let query = parse(&[], NOW_MS, Scope::Admin).expect("good");
        let good = query.behind(Mark { time_ms: NOW_MS - 7, ..Mark::default() });
        let check = |cursor: Cursor, expected: bool| {
            let done = parse(&[("cursor", &cursor.to_string())], NOW_MS, Scope::Admin);
            assert_eq!(done.is_ok(), expected, "{cursor:?}");
        };
        check(good.clone(), true);
        let (from_ms, to_ms) = good.covered_ms;
        for covered_ms in [(0, to_ms), (from_ms, 1 << 62), (to_ms, from_ms), (from_ms, u64::MAX), (u64::MAX, u64::MAX)]
        {
            check(Cursor { covered_ms, ..good.clone() }, false);
            check(Cursor { asked_ms: covered_ms, covered_ms, ..good.clone() }, false);
        }
        for mark in [
            Mark { time_ms: u64::MAX, ..Mark::default() },
            Mark { segment: u64::MAX, ..Mark::default() },
            Mark { offset: u64::MAX, ..Mark::default() },
        ] {
            check(Cursor { mark, ..good.clone() }, false);
        }
    }

    #[test]
    fn a_broken_cursor_is_told() {
        let good = cursor();
        for place in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[place] = if bad[place] == b'0' { b'1' } else { b'0' };
            let bad = String::from_utf8(bad).expect("ASCII");
            assert!(Cursor::read(&bad).is_err(), "digit {place}");
            assert_eq!(Cursor::read(&good[..place]), Err(CursorFault::Broken), "cut at {place}");
        }
        for bad in ["", "x", "zz", "00", "ä", "0102030405", &good.repeat(2), &"0".repeat(5_000)] {
            assert_eq!(Cursor::read(bad), Err(CursorFault::Broken), "{bad}");
        }
        let mut other = vec![VERSION + 1];
        other.extend(crc32c::crc32c(&other).to_le_bytes());
        assert_eq!(Cursor::read(&to_hex(&other)), Err(CursorFault::OtherVersion));
    }
}
