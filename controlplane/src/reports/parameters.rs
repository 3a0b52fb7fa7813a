//! Reads the parameters of a request for a report one by one, and gathers what is wrong with them.
//!
//! A value that will not do is quoted in its fault, shortened; the value of a name that means nothing is not, since it
//! may be a key. What comes of the values together is not known here.

use super::cursor::{Cursor, CursorFault};
use super::lines::Column;
use super::terms::{Format, Interval, LIMIT_MAX, Report, Scope, Span};
use super::zone::{MINUTE_MS, Zone};
use crate::store::NAME_BYTES_MAX;
use jiff::Timestamp;
use shared::asset::{Symbol, resolve_alias};
use shared::code::Code;
use shared::tick::Tier;
use std::fmt;

/// The range of a report without one: what came before now, or before its end, ms.
const USUAL_MS: u64 = 24 * 60 * 60 * 1_000;

/// Earliest time that can be asked about, Unix ms: 2015-01-01. There was no usage before, and a time below it is most
/// likely one in seconds.
const TIME_MS_MIN: u64 = 1_420_070_400_000;

/// Latest time that can be asked about, Unix ms: 2100-01-01.
const TIME_MS_MAX: u64 = 4_102_444_800_000;

/// Longest range, ms: ten years and a few days, as long as detail can be told to be kept.
const RANGE_MS_MAX: u64 = 3_660 * 24 * 60 * 60 * 1_000;

/// Characters of a value that a fault quotes.
const QUOTED_CHARS_MAX: usize = 64;

/// Faults that are told at once; a request line of 4 KiB could hold a thousand.
const FAULTS_MAX: usize = 16;

/// What is wrong with a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The contract's code: `parameter_invalid`, `asset_invalid` or `not_permitted`.
    pub code: Code,
    /// Its name.
    pub parameter: String,
    /// Its value, at most 64 characters of it; empty where it is not told.
    pub value: String,
    /// What would do.
    pub allowed: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_str() {
            "" => write!(f, "{}: {}", self.parameter, self.allowed),
            value => write!(f, "{}: {value:?} will not do: {}", self.parameter, self.allowed),
        }
    }
}

/// The parameters of one request.
pub struct Parameters<'a> {
    pairs: &'a [(String, String)],
    /// Names that mean something here, whether they were given or not.
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl<'a> Parameters<'a> {
    pub const fn new(pairs: &'a [(String, String)]) -> Self {
        Self { pairs, known: Vec::new(), faults: Vec::new() }
    }

    /// Everything that was read is good, and nothing was left over.
    ///
    /// # Errors
    /// Every fault, as they were found.
    pub fn end(mut self) -> Result<(), Vec<Fault>> {
        for (name, _) in self.pairs {
            if !self.known.contains(&name.as_str()) {
                let allowed = format!("not a parameter of this report: {}", self.known.join(", "));
                self.fault(Code::ParameterInvalid, name, "", allowed);
            }
        }
        if self.faults.is_empty() { Ok(()) } else { Err(self.faults) }
    }

    fn fault(&mut self, code: Code, parameter: &str, value: &str, allowed: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            let short = |text: &str| text.chars().take(QUOTED_CHARS_MAX).collect();
            let fault = Fault { code, parameter: short(parameter), value: short(value), allowed: allowed.into() };
            self.faults.push(fault);
        }
    }

    /// The value of a parameter, which may be given once.
    fn take(&mut self, name: &'static str) -> Option<&'a str> {
        self.known.push(name);
        let mut values = self.pairs.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str());
        let value = values.next();
        if values.next().is_some() {
            self.fault(Code::ParameterInvalid, name, "", "given more than once");
        }
        value
    }

    /// A parameter as `read` has it.
    fn read<T>(&mut self, name: &'static str, allowed: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let value = self.take(name)?;
        let good = read(value);
        if good.is_none() {
            self.fault(Code::ParameterInvalid, name, value, allowed);
        }
        good
    }

    /// A range: that of the cursor, or what was asked for, or the last 24 hours.
    pub fn span(&mut self, cursor: Option<&Cursor>, now_ms: u64) -> Span {
        let from = self.read("from", TIMES, time_ms);
        let to = self.read("to", TIMES, time_ms);
        if let Some(cursor) = cursor {
            let (from_ms, to_ms) = cursor.asked_ms;
            if from.is_some_and(|from| from != from_ms) || to.is_some_and(|to| to != to_ms) {
                self.refuse_cursor(CursorFault::OtherQuery);
            }
            return Span { from_ms, to_ms };
        }
        let to_ms = to.unwrap_or_else(|| now_ms.max(TIME_MS_MIN + USUAL_MS));
        let from_ms = from.unwrap_or(to_ms.saturating_sub(USUAL_MS));
        if from_ms >= to_ms {
            let whole = format!("{from_ms} to {to_ms}");
            self.fault(
                Code::ParameterInvalid,
                "from",
                &whole,
                "from must be before to, which is now if it is not given",
            );
        } else if to_ms - from_ms > RANGE_MS_MAX {
            let whole = format!("{from_ms} to {to_ms}");
            self.fault(Code::ParameterInvalid, "from", &whole, "a range of ten years (3660 days) at the most");
        }
        Span { from_ms, to_ms }
    }

    pub fn key(&mut self, scope: Scope) -> Option<u32> {
        let asked = self.read("key_id", "the number of a key, 0 for requests of nobody", number::<u32>);
        match scope {
            Scope::Admin => asked,
            Scope::Own(own) => {
                if asked.is_some_and(|asked| asked != own) {
                    let why = "the administrator's key alone shows the usage of others: leave it out";
                    self.fault(Code::NotPermitted, "key_id", "", why);
                }
                Some(own)
            }
        }
    }

    /// An asset; aliases are resolved, as records are.
    pub fn asset(&mut self) -> Option<String> {
        let value = self.take("asset")?;
        match Symbol::new(value.as_bytes()) {
            Some(symbol) => Some(resolve_alias(symbol).as_str().to_owned()),
            None => {
                self.fault(Code::AssetInvalid, "asset", value, "a symbol: 1 to 16 of A-Z and 0-9");
                None
            }
        }
    }

    pub fn protocol(&mut self) -> Option<String> {
        self.read("protocol", "tcp or udp", |text| one_of(&["tcp", "udp"], text))
    }

    pub fn status(&mut self) -> Option<u16> {
        let good = |text: &str| number::<u16>(text).filter(|status| (100..=599).contains(status));
        self.read("status", "an HTTP status, 100 to 599", good)
    }

    pub fn tier(&mut self) -> Option<String> {
        let names = [Tier::Local, Tier::Valkey, Tier::Rest].map(Tier::name);
        self.read("tier", "local, valkey or rest", |text| one_of(&names, text))
    }

    pub fn node(&mut self) -> Option<String> {
        let good = |text: &str| !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control);
        self.read("node", "the name of a node, up to 128 bytes", |text| good(text).then(|| text.to_owned()))
    }

    /// What lines are grouped by, in the order of columns, each once.
    pub fn grouping(&mut self, report: Report) -> (Vec<Column>, Option<Interval>) {
        if report == Report::Summary {
            return (Vec::new(), None);
        }
        let column = |name: &str| Column::GROUPS.into_iter().find(|column| column.group_name() == name);
        let groups =
            self.read("group_by", "one or more of key,asset,protocol,status,tier,node, parted by commas", |text| {
                let mut columns: Vec<Column> =
                    text.split(',').map(|name| column(name.trim())).collect::<Option<_>>()?;
                columns.sort_unstable();
                columns.windows(2).all(|pair| pair[0] != pair[1]).then_some(columns)
            });
        let interval = self.read("interval", "minute, hour or day", |text| {
            Interval::ALL.into_iter().find(|interval| interval.name() == text)
        });
        (groups.unwrap_or_default(), interval)
    }

    pub fn zone(&mut self) -> Zone {
        let allowed = "the name of a time zone, such as Europe/Berlin, or an offset +hh:mm of 14 hours at the most";
        self.read("tz", allowed, Zone::named).unwrap_or_else(Zone::utc)
    }

    pub fn format(&mut self) -> Option<Format> {
        self.read("format", "json, csv, tsv, text, ndjson or html", Format::named)
    }

    pub fn limit(&mut self, report: Report) -> Option<usize> {
        if report == Report::Summary {
            return None;
        }
        let good = |text: &str| number::<usize>(text).filter(|limit| (1..=LIMIT_MAX).contains(limit));
        self.read("limit", "1 to 1000 lines a page; the other formats than json have no bound", good)
    }

    pub fn raw(&mut self) -> bool {
        self.read("raw", "1 or 0", |text| one_of(&["0", "1"], text)).is_some_and(|text| text == "1")
    }

    pub fn cursor(&mut self, report: Report) -> Option<Cursor> {
        if report == Report::Summary {
            return None;
        }
        let value = self.take("cursor")?;
        match Cursor::read(value) {
            Ok(cursor) if !is_possible(&cursor) => {
                self.refuse_cursor(CursorFault::Broken);
                None
            }
            Ok(cursor) => Some(cursor),
            Err(why) => {
                self.refuse_cursor(why);
                None
            }
        }
    }

    pub fn refuse_cursor(&mut self, why: CursorFault) {
        if !self.faults.iter().any(|fault| fault.parameter == "cursor") {
            self.fault(Code::ParameterInvalid, "cursor", "", why.to_string());
        }
    }
}

/// Whether a page could have ended so: anybody can put a cursor together, and no question may be larger for it.
fn is_possible(cursor: &Cursor) -> bool {
    let ((from_ms, to_ms), (first_ms, last_ms)) = (cursor.asked_ms, cursor.covered_ms);
    let is_range = from_ms < to_ms && TIME_MS_MIN <= from_ms && to_ms <= TIME_MS_MAX && to_ms - from_ms <= RANGE_MS_MAX;
    // Sums may cover the minutes at the edges.
    let is_within = is_range
        && first_ms <= last_ms
        && from_ms - from_ms % MINUTE_MS <= first_ms
        && last_ms <= to_ms.next_multiple_of(MINUTE_MS);
    let mark = &cursor.mark;
    let is_stored = [mark.segment, mark.offset].into_iter().all(|number| i64::try_from(number).is_ok());
    is_within && mark.time_ms <= last_ms && is_stored
}

/// What `from` and `to` may be.
const TIMES: &str = "a time with its offset (RFC 3339, such as 2026-11-22T00:00:00Z) or Unix milliseconds, from 2015 to \
                     2100";

/// Reads RFC 3339 or Unix ms. A blank in the place of a sign is a `+` that was not escaped in a query.
fn time_ms(text: &str) -> Option<u64> {
    let time_ms = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        number::<u64>(text)?
    } else {
        let (rest, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
        let spaced = offset.starts_with(' ').then(|| format!("{rest}+{}", &offset[1..]));
        let time: Timestamp = spaced.as_deref().unwrap_or(text).parse().ok()?;
        u64::try_from(time.as_millisecond()).ok()?
    };
    (TIME_MS_MIN..=TIME_MS_MAX).contains(&time_ms).then_some(time_ms)
}

/// Reads digits alone: no sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn one_of(names: &[&str], text: &str) -> Option<String> {
    names.contains(&text).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::reports::query::{Asking, Format, Interval, Report, ReportQuery, Scope};
    use shared::code::Code;

    /// 2026-11-20 00:00 UTC.
    const NOW_MS: u64 = 1_795_132_800_000;

    /// Reads `name=value&…`; the faults as `code parameter`.
    fn parse(report: Report, text: &str, scope: Scope) -> Result<ReportQuery, Vec<String>> {
        let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let pairs: Vec<(String, String)> = text.split('&').filter_map(pair).collect();
        let query = ReportQuery::parse(report, &pairs, &Asking { scope, now_ms: NOW_MS, retention_days: 93 });
        query.map_err(|faults| {
            assert!(faults.iter().all(|fault| !fault.allowed.is_empty() && fault.value.chars().count() <= 64));
            faults.iter().map(|fault| format!("{} {}", fault.code.name(), fault.parameter)).collect()
        })
    }

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &[&str]>) {
        let told = parse(Report::Usage, text, Scope::Own(3)).map(|query| query.to_string());
        let expected =
            expected.map(str::to_owned).map_err(|faults| faults.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(told, expected, "{text}");
    }

    #[test]
    fn what_is_left_out_is_the_last_day_of_ones_own() {
        check("", Ok("from=1795046400000&to=1795132800000&key_id=3&tz=UTC"));
        check("to=1795000000000", Ok("from=1794913600000&to=1795000000000&key_id=3&tz=UTC"));
        check("from=1795000000000", Ok("from=1795000000000&to=1795132800000&key_id=3&tz=UTC"));
        check("key_id=3", Ok("from=1795046400000&to=1795132800000&key_id=3&tz=UTC"));
        let all = parse(Report::Usage, "", Scope::Admin).expect("good");
        assert_eq!((all.filter.key, all.limit, all.format, all.raw), (None, None, None, false));
    }

    #[test]
    fn times_are_read_as_users_write_them() {
        for text in ["2026-11-19T00:00:00Z", "2026-11-19T02:00:00+02:00", "2026-11-19T02:00:00 02:00", "1795046400000"]
        {
            check(&format!("from={text}"), Ok("from=1795046400000&to=1795132800000&key_id=3&tz=UTC"));
        }
        check("from=2026-11-19T00:00:00.123456Z", Ok("from=1795046400123&to=1795132800000&key_id=3&tz=UTC"));
        for text in [
            "",
            "x",
            "-1",
            "+1795046400000",
            "1795046400",
            "2026-11-19",
            "2026-11-19T00:00:00",
            "2026-13-01T00:00:00Z",
            "99999999999999999999999",
            "4102444800001",
            "1e12",
            "ä",
        ] {
            check(&format!("from={text}"), Err(&["parameter_invalid from"]));
        }
    }

    #[test]
    fn ranges_have_bounds() {
        check("from=1795046400000&to=1795046400001", Ok("from=1795046400000&to=1795046400001&key_id=3&tz=UTC"));
        for text in [
            "from=1795046400000&to=1795046400000",
            "from=1795046400001&to=1795046400000",
            "from=1795132800001",
            "from=2015-01-01T00:00:00Z&to=2026-01-01T00:00:00Z",
        ] {
            check(text, Err(&["parameter_invalid from"]));
        }
    }

    #[test]
    fn everything_can_be_filtered_and_grouped_in_the_order_of_columns() {
        let text = "asset=xbt&protocol=udp&status=429&tier=rest&node=a b&group_by=node, key&interval=day&tz= 02:00";
        let told = "from=1795046400000&to=1795132800000&key_id=3&asset=BTC&protocol=udp&tier=rest&status=429&node=a%20b\
                    &group_by=key,node&interval=day&tz=%2B02%3A00";
        check(text, Ok(told));
        let query =
            parse(Report::Usage, "group_by=node,key&interval=hour&format=ndjson&raw=1", Scope::Admin).expect("good");
        let columns: Vec<&str> = query.columns().iter().map(|column| column.name()).collect();
        assert_eq!(columns, ["time_ms", "key_id", "node", "requests"]);
        assert_eq!((query.interval, query.format, query.raw), (Some(Interval::Hour), Some(Format::Ndjson), true));
        let detail = parse(Report::Usage, "limit=1000", Scope::Admin).expect("good");
        let columns: Vec<&str> = detail.columns().iter().map(|column| column.name()).collect();
        let all = ["time_ms", "key_id", "asset", "protocol", "endpoint", "status", "tier", "node", "requests"];
        assert_eq!(columns, all);
        assert_eq!(detail.fits(Format::Json), Ok(()));
        let faults = detail.fits(Format::Csv).expect_err("csv has no pages");
        assert_eq!(faults[0].to_string(), "limit: with format=json alone: the others give the whole report at once");
    }

    #[test]
    fn faults_are_told_all_at_once() {
        for (text, fault) in [
            ("asset=", "asset_invalid asset"),
            ("asset=B/C", "asset_invalid asset"),
            ("protocol=icmp", "parameter_invalid protocol"),
            ("status=99", "parameter_invalid status"),
            ("status=2xx", "parameter_invalid status"),
            ("tier=gold", "parameter_invalid tier"),
            ("node=", "parameter_invalid node"),
            ("key_id=4", "not_permitted key_id"),
            ("key_id=-1", "parameter_invalid key_id"),
            ("group_by=", "parameter_invalid group_by"),
            ("group_by=key,key", "parameter_invalid group_by"),
            ("group_by=endpoint", "parameter_invalid group_by"),
            ("interval=week", "parameter_invalid interval"),
            ("limit=0", "parameter_invalid limit"),
            ("limit=1001", "parameter_invalid limit"),
            ("limit=99999999999999999999", "parameter_invalid limit"),
            ("tz=Mars", "parameter_invalid tz"),
            ("format=xlsx", "parameter_invalid format"),
            ("raw=yes", "parameter_invalid raw"),
            ("cursor=abc", "parameter_invalid cursor"),
            ("FROM=1", "parameter_invalid FROM"),
            ("asset=BTC&asset=ETH", "parameter_invalid asset"),
        ] {
            check(text, Err(&[fault]));
        }
        check(
            "limit=0&tz=x&nope=1",
            Err(&["parameter_invalid tz", "parameter_invalid limit", "parameter_invalid nope"]),
        );
        let many: Vec<String> = (0..500).map(|number| format!("p{number}=x")).collect();
        assert_eq!(parse(Report::Usage, &many.join("&"), Scope::Admin).expect_err("refused").len(), super::FAULTS_MAX);
    }

    #[test]
    fn values_of_unknown_parameters_are_not_quoted() {
        let pairs = [("api_key".to_owned(), "tb_live_canary".to_owned())];
        let asking = Asking { scope: Scope::Own(1), now_ms: NOW_MS, retention_days: 93 };
        let faults = ReportQuery::parse(Report::Usage, &pairs, &asking).expect_err("refused");
        assert_eq!(faults[0].code, Code::ParameterInvalid);
        assert!(!format!("{faults:?}{}", faults[0]).contains("canary"));
    }

    #[test]
    fn a_summary_has_neither_groups_nor_pages() {
        for name in ["group_by=key", "interval=day", "limit=5", "cursor=00"] {
            let faults = parse(Report::Summary, name, Scope::Admin).expect_err("refused");
            assert_eq!(faults.len(), 1, "{faults:?}");
        }
        assert!(parse(Report::Summary, "asset=BTC&tz=Asia/Kolkata&format=html", Scope::Own(1)).is_ok());
    }

    #[test]
    fn what_is_not_kept_any_more_is_not_promised() {
        let kept_ms = NOW_MS - 93 * 24 * 60 * 60 * 1_000;
        let from = format!("from={}&to={}", kept_ms - 61_001, kept_ms - 1);
        let detail = parse(Report::Usage, &from, Scope::Admin).expect("good");
        assert_eq!((detail.filter.from_ms, detail.filter.to_ms), (kept_ms - 1, kept_ms - 1), "nothing");
        assert_eq!(detail.asked_ms, (kept_ms - 61_001, kept_ms - 1));
        let grouped = parse(Report::Usage, &format!("{from}&group_by=key"), Scope::Admin).expect("good");
        assert_eq!((grouped.filter.from_ms, grouped.filter.to_ms), (kept_ms - 120_000, kept_ms));
    }
}
