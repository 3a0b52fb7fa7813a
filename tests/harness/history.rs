//! The history checker: what clients were answered, held against what the service says it counted.
//!
//! [`client`] asks over TCP and UDP and writes down what came back and when; [`segments`] reads the journal's files by
//! their documented form alone; [`database`] reads the rows and sums that a report is made of, [`reports`] the reports
//! themselves, and [`pulse`] tells when the machine, not the service, was late. This file judges. It
//! knows the promises and nothing of how they are kept: an answered request is counted once, as what it was, unless the
//! process was killed within [`LOSS_WINDOW`] of the answer; what is in the journal is in the database exactly once; the
//! sums are the rows'.

pub mod client;
pub mod database;
pub mod pulse;
pub mod reports;
pub mod segments;

use self::client::Asked;
use self::database::Row;
use self::segments::Segment;
use crate::service::Service;
use shared::usage::{Endpoint, UsageRecord, protocol_name};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a process that is killed may take with it.
pub const LOSS_WINDOW: Duration = Duration::from_millis(100);

/// What requests have in common that are one line of a report grouped by everything a client knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// The key's number; 0 for nobody's.
    pub key: u32,
    /// NUL padded; all NUL where the answer was not about one asset.
    pub asset: [u8; 16],
    /// As in a usage record.
    pub protocol: u8,
    /// HTTP status.
    pub status: u16,
}

impl Class {
    fn of(record: &UsageRecord) -> Self {
        let UsageRecord { key, asset, protocol, status, .. } = *record;
        Self { key, asset, protocol, status }
    }

    /// The asset as text.
    #[must_use]
    pub fn asset(&self) -> String {
        text(&self.asset)
    }
}

fn text(padded: &[u8; 16]) -> String {
    String::from_utf8_lossy(padded).trim_end_matches('\0').to_owned()
}

/// Numbers that follow from a seed.
pub struct Chance {
    seed: u64,
    drawn: u64,
}

impl Chance {
    /// The same numbers for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        use std::hash::Hasher;
        self.drawn += 1;
        let mut hasher = siphasher::sip::SipHasher13::new_with_keys(self.seed, self.drawn);
        hasher.write_u64(bound);
        hasher.finish() % bound
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Processes that were killed.
    pub rounds: u64,
    /// Requests sent.
    pub asked: u64,
    /// Requests answered.
    pub answered: u64,
    /// Requests in the journal.
    pub journaled: u64,
    /// The records they came in.
    pub records: u64,
    /// Answers that are not in the journal.
    pub unjournaled: u64,
    /// How long before its process was killed the earliest of them was given.
    pub loss_window: Duration,
    /// The longest that the machine stood still before a kill, which the window is longer by.
    pub stall: Duration,
}

/// Everything that every process of a run has journaled.
#[derive(Default)]
pub struct History {
    /// By segment and place.
    records: BTreeMap<(u64, u64), UsageRecord>,
    node: String,
    /// What the run came to so far.
    pub tally: Tally,
}

impl History {
    /// Takes in one process's end: what its clients were told, the segments that it has left, when it was killed, and
    /// how long the machine had stood still in the time of a window before.
    ///
    /// # Panics
    /// Where an answer is missing that was given before the window, or more is counted than was asked.
    pub fn close_round(&mut self, asked: &[Asked], segments: &[Segment], killed: Instant, stall: Duration) {
        let mut counted = Vec::new();
        for segment in segments {
            assert!(self.node.is_empty() || self.node == segment.node, "another node's segment: {}", segment.node);
            self.node.clone_from(&segment.node);
            for (place, record) in (0..).zip(&segment.entries) {
                let record = record.unwrap_or_else(|| panic!("a bad entry in {}, {place}", segment.number));
                counted.push(record);
                assert!(
                    self.records.insert((segment.number, place), record).is_none(),
                    "a segment's number came again"
                );
            }
        }
        let round = judge(asked, &counted, killed, LOSS_WINDOW + stall);
        let tally = &mut self.tally;
        tally.rounds += 1;
        tally.asked += round.asked;
        tally.answered += round.answered;
        tally.journaled += round.journaled;
        tally.records += counted.len() as u64;
        tally.unjournaled += round.unjournaled;
        tally.loss_window = tally.loss_window.max(round.loss_window);
        tally.stall = tally.stall.max(stall);
    }

    /// Strikes out entries that were damaged before anybody could have read them; how many requests they stood for.
    ///
    /// # Panics
    /// Where there is no such entry.
    pub fn strike(&mut self, segment: u64, places: impl IntoIterator<Item = u64>) -> u64 {
        let strike = |place| self.records.remove(&(segment, place)).expect("an entry to strike out").requests;
        places.into_iter().map(strike).sum()
    }

    /// How many records the database must have in the end.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.len() as u64
    }

    /// Holds the reports against the journal: those grouped by class, and those in full, line by line.
    ///
    /// # Panics
    /// Where they differ.
    pub fn judge_reports(&self, service: &Service) {
        let of_prices = || self.records.values().filter(|record| is_price(record));
        let expected = sums(of_prices());
        assert_eq!(reports::detailed(service), (of_prices().count(), expected.clone()));
        let mut grouped = reports::grouped(service);
        // Administration and the reports themselves are counted too.
        grouped.retain(|class, _| expected.contains_key(class));
        assert_eq!(grouped, expected);
    }

    /// Holds the rows of the database against the journal: each record once, as it was written, and nothing else.
    ///
    /// # Panics
    /// Where they differ.
    pub fn judge_rows(&self, rows: &[Row]) {
        let mut found: BTreeMap<(u64, u64), &Row> = BTreeMap::new();
        for row in rows {
            let twice = found.insert((row.segment, row.offset), row);
            assert!(twice.is_none(), "a duplicate: {row:?} and {twice:?}");
            let record = self.records.get(&(row.segment, row.offset));
            let record = record.unwrap_or_else(|| panic!("a row that nothing in the journal stands for: {row:?}"));
            assert_eq!(*row, Row::of(record, &self.node, row.segment, row.offset));
        }
        let missing: Vec<_> = self.records.keys().filter(|place| !found.contains_key(place)).take(5).collect();
        assert!(missing.is_empty(), "{} of {} records, such as {missing:?}", found.len(), self.records.len());
    }
}

/// What one process's clients and its journal say.
struct Round {
    asked: u64,
    answered: u64,
    journaled: u64,
    unjournaled: u64,
    loss_window: Duration,
}

fn is_price(record: &UsageRecord) -> bool {
    matches!(
        Endpoint::from_number(record.endpoint),
        Endpoint::Price | Endpoint::DatagramJson | Endpoint::DatagramBinary
    )
}

fn sums<'a>(records: impl Iterator<Item = &'a UsageRecord>) -> BTreeMap<Class, u64> {
    let mut sums = BTreeMap::new();
    records.for_each(|record| *sums.entry(Class::of(record)).or_default() += record.requests);
    sums
}

/// For each class: answered before the window ≤ counted ≤ answered, and what was sent and never answered.
fn judge(asked: &[Asked], records: &[UsageRecord], killed: Instant, most: Duration) -> Round {
    let counted = sums(records.iter().filter(|record| is_price(record)));
    let mut answers: BTreeMap<Class, Vec<Instant>> = counted.keys().map(|class| (*class, Vec::new())).collect();
    // Of an unanswered request nobody knows what would have been the answer.
    let mut unanswered: BTreeMap<(u32, u8), u64> = BTreeMap::new();
    for request in asked {
        match request.answer {
            Some((class, at)) => answers.entry(class).or_default().push(at),
            None => *unanswered.entry((request.key, request.protocol)).or_default() += 1,
        }
    }
    let mut round =
        Round { asked: asked.len() as u64, answered: 0, journaled: 0, unjournaled: 0, loss_window: Duration::ZERO };
    let mut spare = unanswered;
    for (class, mut at) in answers {
        at.sort_unstable();
        let (answered, reported) = (at.len() as u64, counted.get(&class).copied().unwrap_or(0));
        round.answered += answered;
        round.journaled += reported;
        let beyond = reported.saturating_sub(answered);
        let left = spare.entry((class.key, class.protocol)).or_default();
        let told = format!("{} {class:?}: {answered} answered, {reported} counted", class.asset());
        assert!(beyond <= *left, "counted more than was asked: {told}");
        *left -= beyond;
        let Some(first_lost) = usize::try_from(reported).ok().and_then(|reported| at.get(reported)) else { continue };
        round.unjournaled += answered - reported;
        let window = killed.saturating_duration_since(*first_lost);
        assert!(window <= most, "an answer that was given {window:?} before the kill is lost: {told}");
        round.loss_window = round.loss_window.max(window);
    }
    round
}

impl Row {
    fn of(record: &UsageRecord, node: &str, segment: u64, offset: u64) -> Self {
        let tier = shared::tick::Tier::from_number(record.tier).map_or("", shared::tick::Tier::name);
        Self {
            node: node.to_owned(),
            segment,
            offset,
            time_ms: record.first_time_ms,
            key: record.key,
            asset: text(&record.asset),
            protocol: protocol_name(record.protocol).to_owned(),
            endpoint: Endpoint::from_number(record.endpoint).name().to_owned(),
            status: record.status,
            tier: tier.to_owned(),
            requests: record.requests,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::usage::PROTOCOL_UDP;

    fn class(status: u16) -> Class {
        Class { key: 7, asset: [0; 16], protocol: PROTOCOL_UDP, status }
    }

    fn record(class: Class, requests: u64) -> UsageRecord {
        let Class { key, asset, protocol, status } = class;
        let endpoint = Endpoint::DatagramJson as u8;
        UsageRecord { key, asset, protocol, status, requests, endpoint, ..UsageRecord::default() }
    }

    /// Answers at these ms before the kill, so many without an answer, and what was counted of each status.
    fn round(answers: &[(u16, u64)], unanswered: usize, counted: &[(u16, u64)]) -> Round {
        let killed = Instant::now() + Duration::from_secs(10);
        let answer = |&(status, ms): &(u16, u64)| Asked {
            key: 7,
            protocol: PROTOCOL_UDP,
            answer: Some((class(status), killed - Duration::from_millis(ms))),
        };
        let mut asked: Vec<Asked> = answers.iter().map(answer).collect();
        asked.extend((0..unanswered).map(|_| Asked { key: 7, protocol: PROTOCOL_UDP, answer: None }));
        let records: Vec<_> = counted.iter().map(|(status, requests)| record(class(*status), *requests)).collect();
        judge(&asked, &records, killed, LOSS_WINDOW)
    }

    #[track_caller]
    fn refused(answers: &[(u16, u64)], unanswered: usize, counted: &[(u16, u64)]) {
        assert!(std::panic::catch_unwind(|| round(answers, unanswered, counted)).is_err());
    }

    #[test]
    fn what_is_counted_lies_between_answered_in_time_and_asked() {
        let answers = [(200, 900), (200, 500), (200, 60), (404, 300)];
        let all = round(&answers, 1, &[(200, 2), (200, 1), (404, 1)]);
        assert_eq!((all.asked, all.answered, all.journaled, all.unjournaled), (5, 4, 4, 0));
        let late = round(&answers, 1, &[(200, 2), (404, 1)]);
        assert_eq!((late.unjournaled, late.loss_window), (1, Duration::from_millis(60)));
        assert_eq!(round(&answers, 1, &[(200, 4), (404, 1)]).journaled, 5, "counted, killed, never answered");
        refused(&answers, 1, &[(200, 1), (404, 1)]);
        refused(&answers, 1, &[(200, 3)]);
        refused(&answers, 1, &[(200, 4), (404, 2)]);
        refused(&answers, 0, &[(200, 3), (404, 1), (429, 1)]);
    }

    #[test]
    fn rows_are_the_journal_s_records_once_each() {
        let mut history = History { node: "n".to_owned(), ..History::default() };
        history.records.insert((5, 0), record(class(200), 3));
        history.records.insert((5, 2), record(class(404), 1));
        let rows: Vec<Row> = history.records.iter().map(|(at, record)| Row::of(record, "n", at.0, at.1)).collect();
        history.judge_rows(&rows);
        let mut other = rows.clone();
        other[0].requests = 4;
        for wrong in [&rows[..1], &[rows[0].clone(), rows[1].clone(), rows[1].clone()], &other] {
            assert!(std::panic::catch_unwind(|| history.judge_rows(wrong)).is_err(), "{wrong:?}");
        }
        assert_eq!(history.strike(5, [2]), 1);
        history.judge_rows(&rows[..1]);
    }
}
