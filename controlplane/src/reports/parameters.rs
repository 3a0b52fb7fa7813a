//! Reads the parameters of a request for a report one by one, and gathers what is wrong with them.
//!
//! A value that will not do is quoted in its fault, shortened; the value of a name that means nothing is not, since it
//! may be a key. What comes of the values together is not known here.

use super::cursor::{Cursor, CursorFault};
use super::lines::Column;
use super::query::{Format, Interval, LIMIT_MAX, Report, Scope};
use super::zone::Zone;
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

/// A range of time as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From this time on, Unix ms.
    pub from_ms: u64,
    /// Up to and without this time, Unix ms.
    pub to_ms: u64,
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
