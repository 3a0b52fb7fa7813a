//! What can be made to go wrong at a simulated exchange, and what is going wrong now.
//!
//! Pure: parsing and bookkeeping. `client` and `answer` act on it.

use serde::Serialize;
use std::collections::BTreeSet;

/// Names that may be silenced or refused at one exchange; more than it lists are of no use.
const NAMES_MAX: usize = 256;

/// Frames that one order may lose or repeat.
const FRAMES_MAX: u32 = 10_000;

/// Longest time that REST can be told to take, ms: longer than anybody waits.
const DELAY_MS_MAX: u32 = 600_000;

/// Longest text that can be said, bytes.
const TEXT_MAX: usize = 64 << 10;

/// One order to a simulated exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Sends nothing any more but WebSocket pongs: no quotes, no acks, no heartbeats. With a name: that instrument is
    /// acknowledged but never quoted.
    Silent(Option<String>),
    /// Heartbeats and acks go on, quotes stop.
    QuotesStop,
    /// Refuses this instrument, and quotes it no longer to those who have it.
    Refuse(String),
    /// Closes every connection, and every new one at once.
    Down,
    /// Closes every present connection without a word.
    Drop,
    /// Present connections stay open, but nothing is read from them or sent to them any more.
    HalfOpen,
    /// Sends one of each kind of garbage to every client.
    Garbage(Garbage),
    /// From now on shows its prices, alone, at this many thousandths of the market's.
    Jump(u32),
    /// Multiplies the price of everything at every simulated exchange by this many thousandths.
    Crash(u32),
    /// Loses this many of the next frames of every present connection.
    Lose(u32),
    /// Sends the last frames, up to this many, once more to every client.
    Replay(u32),
    /// Sends this text frame to every client.
    Say(String),
    /// REST answers 503.
    RestDown,
    /// REST answers 200 with a page of HTML.
    RestGarbage,
    /// REST answers 429 with `Retry-After` of this many seconds.
    RestLimited(u32),
    /// REST gives a head and half a body, and then nothing more.
    RestHang,
    /// REST answers in its usual shape with what cannot be.
    RestNonsense(Nonsense),
    /// REST takes this long with every answer, ms, whatever else is wrong with it.
    RestDelay(u32),
    /// Ends everything that is wrong.
    Resume,
}

/// A kind of garbage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Garbage {
    /// Well-formed text frames whose content is not the protocol.
    #[default]
    Text,
    /// A text frame that is not UTF-8: the client must end the connection.
    Utf8,
    /// A frame of 10 MB.
    Huge,
    /// A binary frame.
    Binary,
}

/// What a REST answer of the right shape says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Nonsense {
    /// One after the other, by request.
    #[default]
    All,
    /// Every price is 0.
    Zero,
    /// Every price is below 0.
    Negative,
    /// Every price is 1e308.
    Huge,
    /// The prices of another instrument, under that one's name.
    Wrong,
}

impl Nonsense {
    /// Every kind but `All`.
    const KINDS: [(&'static str, Self); 4] =
        [("zero", Self::Zero), ("negative", Self::Negative), ("huge", Self::Huge), ("wrong", Self::Wrong)];

    fn parse(what: Option<&str>) -> Result<Self, String> {
        let Some(what) = what.filter(|what| !what.is_empty()) else { return Ok(Self::All) };
        let kind = Self::KINDS.into_iter().find(|(name, _)| *name == what);
        kind.map(|(_, kind)| kind)
            .ok_or_else(|| format!("what={what} is not known; there are: zero, negative, huge, wrong"))
    }

    /// The kind for the request with this number.
    #[must_use]
    pub const fn of(self, number: u64) -> Self {
        match self {
            Self::All => Self::KINDS[(number % 4) as usize].1,
            kind => kind,
        }
    }
}

impl Fault {
    /// Reads the query of `POST /simulator/fault`: `kind` and what it needs.
    ///
    /// # Errors
    /// What is missing or wrong, and the kinds there are.
    pub fn parse(pairs: &[(String, String)]) -> Result<Self, String> {
        let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let needed =
            |name: &str| value(name).filter(|value| !value.is_empty()).ok_or_else(|| format!("{name}= is missing"));
        let number = |name: &str, default: u32| match value(name) {
            Some(text) => text.parse().map_err(|_| format!("{name}={text} is not a whole number")),
            None => Ok(default),
        };
        let frames = |default| number("frames", default).map(|frames: u32| frames.min(FRAMES_MAX));
        Ok(match needed("kind")?.as_str() {
            "silent" => Self::Silent(value("name").filter(|name| !name.is_empty())),
            "quotes_stop" => Self::QuotesStop,
            "refuse" => Self::Refuse(needed("name")?),
            "down" => Self::Down,
            "drop" => Self::Drop,
            "half_open" => Self::HalfOpen,
            "garbage" => Self::Garbage(Garbage::parse(value("what").as_deref())?),
            "jump" => Self::Jump(permille(&needed("percent")?)?),
            "crash" => Self::Crash(permille(&needed("percent")?)?),
            "lose" => Self::Lose(frames(1)?),
            "replay" => Self::Replay(frames(10)?),
            "say" => Self::Say(needed("text")?.chars().take(TEXT_MAX).collect()),
            "rest_down" => Self::RestDown,
            "rest_garbage" => Self::RestGarbage,
            "rest_limited" => Self::RestLimited(number("retry_after", 5)?),
            "rest_hang" => Self::RestHang,
            "rest_nonsense" => Self::RestNonsense(Nonsense::parse(value("what").as_deref())?),
            "rest_delay" => {
                needed("ms")?;
                Self::RestDelay(number("ms", 0)?.min(DELAY_MS_MAX))
            }
            "resume" => Self::Resume,
            other => return Err(format!("kind={other} is not known; there are: {KINDS}")),
        })
    }
}

/// The kinds of faults, for people.
pub const KINDS: &str = "silent[&name=], quotes_stop, refuse&name=, down, drop, half_open, \
    garbage[&what=text|utf8|huge|binary], jump&percent=, crash&percent=, lose[&frames=], replay[&frames=], say&text=, \
    rest_down, rest_garbage, rest_limited[&retry_after=], rest_hang, rest_nonsense[&what=zero|negative|huge|wrong], \
    rest_delay&ms=, resume";

impl Garbage {
    fn parse(what: Option<&str>) -> Result<Self, String> {
        match what {
            None | Some("" | "text") => Ok(Self::Text),
            Some("utf8") => Ok(Self::Utf8),
            Some("huge") => Ok(Self::Huge),
            Some("binary") => Ok(Self::Binary),
            Some(other) => Err(format!("what={other} is not known; there are: text, utf8, huge, binary")),
        }
    }
}

/// `-40` percent as 600 thousandths.
fn permille(percent: &str) -> Result<u32, String> {
    let change: i32 = percent.parse().map_err(|_| format!("percent={percent} is not a whole number"))?;
    let permille = change.checked_mul(10).and_then(|change| change.checked_add(1_000));
    let permille = permille.and_then(|permille| u32::try_from(permille).ok()).filter(|permille| *permille > 0);
    permille.ok_or_else(|| format!("percent={percent} leaves no price: it must be above -100"))
}

/// How REST answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RestCondition {
    /// As the venue does.
    #[default]
    Good,
    /// 503.
    Down,
    /// 200 and HTML.
    Garbage,
    /// 429, to be asked again after so many seconds.
    Limited(u32),
    /// Half an answer.
    Hang,
    /// Well-formed, and impossible.
    Nonsense(Nonsense),
}

/// What is wrong at an exchange until `Resume`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Conditions {
    /// Sends nothing at all.
    pub silent: bool,
    /// Sends no quotes.
    pub quotes_stopped: bool,
    /// Instruments without quotes.
    pub silent_names: BTreeSet<String>,
    /// Instruments refused.
    pub refused: Vec<String>,
    /// Takes no connections.
    pub down: bool,
    /// REST.
    pub rest: RestCondition,
    /// How long REST takes, ms.
    pub rest_delay_ms: u32,
}

impl Conditions {
    /// Takes an order as far as it lasts; answers whether it does.
    pub fn take(&mut self, fault: &Fault) -> bool {
        match fault {
            Fault::Silent(None) => self.silent = true,
            Fault::Silent(Some(name)) => {
                if self.silent_names.len() < NAMES_MAX {
                    self.silent_names.insert(name.clone());
                }
            }
            Fault::QuotesStop => self.quotes_stopped = true,
            Fault::Refuse(name) => {
                if self.refused.len() < NAMES_MAX && !self.refused.contains(name) {
                    self.refused.push(name.clone());
                }
            }
            Fault::Down => self.down = true,
            Fault::RestDown => self.rest = RestCondition::Down,
            Fault::RestGarbage => self.rest = RestCondition::Garbage,
            Fault::RestLimited(seconds) => self.rest = RestCondition::Limited(*seconds),
            Fault::RestHang => self.rest = RestCondition::Hang,
            Fault::RestNonsense(what) => self.rest = RestCondition::Nonsense(*what),
            Fault::RestDelay(ms) => self.rest_delay_ms = *ms,
            Fault::Resume => *self = Self::default(),
            _ => return false,
        }
        true
    }

    /// Whether `name` is quoted.
    #[must_use]
    pub fn quotes(&self, name: &str) -> bool {
        let named = self.silent_names.contains(name) || self.refused.iter().any(|refused| refused == name);
        !self.silent && !self.quotes_stopped && !named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Result<Fault, &str>) {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let pairs: Vec<_> = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        match (Fault::parse(&pairs), expected) {
            (Ok(fault), Ok(wanted)) => assert_eq!(fault, wanted, "{query}"),
            (Err(fault), Err(part)) => assert!(fault.contains(part), "{query}: {fault}"),
            (got, _) => panic!("{query}: {got:?}"),
        }
    }

    #[test]
    fn orders_are_read_or_refused_with_what_is_wanted() {
        check("kind=silent", Ok(Fault::Silent(None)));
        check("kind=silent&name=BTC-USD", Ok(Fault::Silent(Some("BTC-USD".to_owned()))));
        check("kind=jump&percent=-40", Ok(Fault::Jump(600)));
        check("kind=crash&percent=25", Ok(Fault::Crash(1_250)));
        check("kind=garbage&what=huge", Ok(Fault::Garbage(Garbage::Huge)));
        check("kind=lose&frames=99999999", Ok(Fault::Lose(FRAMES_MAX)));
        check("kind=rest_limited&retry_after=2", Ok(Fault::RestLimited(2)));
        check("kind=rest_hang", Ok(Fault::RestHang));
        check("kind=rest_nonsense", Ok(Fault::RestNonsense(Nonsense::All)));
        check("kind=rest_nonsense&what=huge", Ok(Fault::RestNonsense(Nonsense::Huge)));
        check("kind=rest_nonsense&what=odd", Err("wrong"));
        check("kind=rest_delay&ms=40", Ok(Fault::RestDelay(40)));
        check("kind=rest_delay&ms=4000000000", Ok(Fault::RestDelay(DELAY_MS_MAX)));
        check("kind=rest_delay", Err("ms="));
        check("kind=refuse", Err("name="));
        check("kind=jump&percent=-100", Err("above -100"));
        check("kind=jump&percent=2147483647", Err("above -100"));
        check("kind=jump&percent=many", Err("whole number"));
        check("kind=explode", Err("half_open"));
        check("", Err("kind="));
    }

    #[test]
    fn what_lasts_lasts_until_resume() {
        let mut conditions = Conditions::default();
        assert!(conditions.take(&Fault::Silent(Some("A".to_owned()))));
        assert!(conditions.take(&Fault::Refuse("B".to_owned())));
        assert!(!conditions.take(&Fault::Drop), "over at once");
        assert_eq!(["A", "B", "C"].map(|name| conditions.quotes(name)), [false, false, true]);
        conditions.take(&Fault::QuotesStop);
        assert!(!conditions.quotes("C"));
        assert!(conditions.take(&Fault::Resume));
        assert_eq!(conditions, Conditions::default());
    }
}
