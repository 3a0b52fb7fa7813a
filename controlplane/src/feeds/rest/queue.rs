//! Who waits for a venue's REST interface to be asked: clients first, in turns by key; then what is asked in advance.
//!
//! Nothing here sends anything. Whoever sends takes from here what a request can carry, so that several share one, and
//! what nobody waits for any more is never sent.

use crate::feeds::plan::Market;
use shared::asset::AssetId;
use shared::quote::Quote;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// Questions that may wait at one venue: as many as lookups may be under way. Each is about 250 bytes.
pub const WAITING_MAX: usize = 4_096;

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The venue gave a price. The feed thread has it; or, where nobody listens to the asset at this venue, it is here
    /// to be handed on.
    Priced(Option<Box<Quote>>),
    /// The venue has no price for it: no fault of the venue's.
    Refused,
    /// The venue did not answer, or not as it should.
    Failed,
}

/// Whose turn a question waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A client waits; the number is its key's. Keys take turns.
    Client(u32),
    /// Nobody waits: after everybody else.
    Ahead,
}

/// A question that waits.
#[derive(Debug)]
pub struct Question {
    /// The market asked about.
    pub market: Market,
    /// After it nobody wants the answer.
    pub until: Instant,
    answer: oneshot::Sender<Answered>,
}

impl Question {
    /// Tells what became of it.
    pub fn answer(self, answered: Answered) {
        // Whoever asked may have given up.
        let _ = self.answer.send(answered);
    }

    fn is_wanted(&self, now: Instant) -> bool {
        !self.answer.is_closed() && now < self.until
    }
}

/// Questions in turns: one of each key, then the next of each.
#[derive(Debug, Default)]
struct Turns {
    keys: VecDeque<u32>,
    waiting: HashMap<u32, VecDeque<Question>>,
    count: usize,
}

impl Turns {
    fn push(&mut self, key: u32, question: Question) {
        let of_key = self.waiting.entry(key).or_default();
        if of_key.is_empty() {
            self.keys.push_back(key);
        }
        of_key.push_back(question);
        self.count += 1;
    }

    fn pop(&mut self) -> Option<(u32, Question)> {
        let key = self.keys.pop_front()?;
        let of_key = self.waiting.get_mut(&key)?;
        let question = of_key.pop_front()?;
        if of_key.is_empty() {
            self.waiting.remove(&key);
        } else {
            self.keys.push_back(key);
        }
        self.count -= 1;
        Some((key, question))
    }

    /// How many go before the next question of `key`: its own, and as many of each other key and one more.
    fn before(&self, key: u32) -> usize {
        let own = self.waiting.get(&key).map_or(0, VecDeque::len);
        let others = self.waiting.iter().filter(|(other, _)| **other != key);
        own + others.map(|(_, of_key)| of_key.len().min(own + 1)).sum::<usize>()
    }

    /// Keeps those that `is_kept`; gives the others, in no order. What is before a key's first of them is not moved.
    fn retain(&mut self, is_kept: impl Fn(&Question) -> bool) -> Vec<Question> {
        let mut gone = Vec::new();
        for of_key in self.waiting.values_mut() {
            let Some(first) = of_key.iter().position(|question| !is_kept(question)) else { continue };
            let mut rest = of_key.split_off(first).into_iter();
            gone.extend(rest.next());
            let (kept, others): (VecDeque<_>, VecDeque<_>) = rest.partition(&is_kept);
            of_key.extend(kept);
            gone.extend(others);
        }
        if !gone.is_empty() {
            self.waiting.retain(|_, of_key| !of_key.is_empty());
            self.keys.retain(|key| self.waiting.contains_key(key));
            self.count -= gone.len();
        }
        gone
    }
}

#[derive(Debug, Default)]
struct Lines {
    clients: Turns,
    ahead: Turns,
}

/// The questions that wait for one venue.
#[derive(Debug, Default)]
pub struct Queue {
    lines: Mutex<Lines>,
    asked: Notify,
}

impl Queue {
    /// Puts a question; the answer comes by what is returned, which being dropped withdraws the question. `None`: too many
    /// wait already.
    pub fn ask(&self, market: Market, class: Class, until: Instant) -> Option<oneshot::Receiver<Answered>> {
        let (answer, answered) = oneshot::channel();
        let mut lines = self.lock();
        if lines.clients.count + lines.ahead.count >= WAITING_MAX {
            let now = Instant::now();
            lines.clients.retain(|question| question.is_wanted(now));
            lines.ahead.retain(|question| question.is_wanted(now));
            if lines.clients.count + lines.ahead.count >= WAITING_MAX {
                return None;
            }
        }
        let question = Question { market, until, answer };
        match class {
            Class::Client(key) => lines.clients.push(key, question),
            Class::Ahead => lines.ahead.push(0, question),
        }
        drop(lines);
        self.asked.notify_one();
        Some(answered)
    }

    /// Waits until something is asked; at once when something was since the last time.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Questions that go before one of this class that is put now, those included that nobody wants an answer to any more.
    #[must_use]
    pub fn waiting_before(&self, class: Class) -> usize {
        let lines = self.lock();
        match class {
            Class::Client(key) => lines.clients.before(key),
            Class::Ahead => lines.clients.count + lines.ahead.count,
        }
    }

    /// Questions of all clients, those included that nobody wants an answer to any more.
    #[must_use]
    pub fn clients_waiting(&self) -> usize {
        self.lock().clients.count
    }

    /// Takes up to `most` questions for one request: of clients, or with `ahead` of those asked in advance. Such for an
    /// asset that `is_in_air` stay: its answer is on its way.
    pub fn take(&self, ahead: bool, most: usize, is_in_air: &dyn Fn(AssetId) -> bool) -> Vec<Question> {
        let now = Instant::now();
        let mut lines = self.lock();
        let turns = if ahead { &mut lines.ahead } else { &mut lines.clients };
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        while taken.len() < most {
            let Some((key, question)) = turns.pop() else { break };
            if !question.is_wanted(now) {
                continue;
            }
            if is_in_air(question.market.asset) {
                kept.push((key, question));
            } else {
                taken.push(question);
            }
        }
        kept.into_iter().for_each(|(key, question)| turns.push(key, question));
        taken
    }

    /// Takes every question about an asset that `is_answered`: another's answer has come. Each that waits is looked at
    /// once, for however many assets the answer is.
    pub fn take_about(&self, is_answered: &dyn Fn(AssetId) -> bool) -> Vec<Question> {
        let is_other = |question: &Question| !is_answered(question.market.asset);
        let mut lines = self.lock();
        let mut about = lines.clients.retain(is_other);
        about.extend(lines.ahead.retain(is_other));
        about
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::asset::Symbol;
    use shared::quote::Currency;
    use std::time::Duration;
    use venues::protocol::Instrument;

    fn market(asset: usize) -> Market {
        let symbol = |text: &[u8]| Symbol::new(text).expect("a good symbol");
        let name = format!("A{asset}-USD");
        let (base, quote) = (symbol(format!("A{asset}").as_bytes()), symbol(b"USD"));
        let instrument = Instrument { rest_name: name.clone(), name, base, quote, trading: true };
        Market { asset: AssetId::new(asset).expect("small"), currency: Currency::Usd, instrument }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    fn assets(questions: &[Question]) -> Vec<usize> {
        questions.iter().map(|question| question.market.asset.index()).collect()
    }

    const NOTHING_IN_AIR: &dyn Fn(AssetId) -> bool = &|_| false;

    #[tokio::test(start_paused = true)]
    async fn keys_take_turns_whoever_came_first() {
        let queue = Queue::default();
        let flood: Vec<_> = (0..1_000).map(|asset| queue.ask(market(asset), Class::Client(1), soon())).collect();
        let others: Vec<_> =
            [(2_001, 2), (2_002, 3)].map(|(asset, key)| queue.ask(market(asset), Class::Client(key), soon())).into();
        assert!(flood.iter().chain(&others).all(Option::is_some));
        for (class, before) in [(1, 1_002), (2, 4), (9, 3)] {
            assert_eq!(queue.waiting_before(Class::Client(class)), before, "a flood delays itself, not key {class}");
        }
        assert_eq!(queue.waiting_before(Class::Ahead), 1_002);
        assert_eq!(assets(&queue.take(false, 5, NOTHING_IN_AIR)), [0, 2_001, 2_002, 1, 2]);
        assert_eq!(queue.clients_waiting(), 997);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_is_not_asked() {
        let queue = Queue::default();
        let withdrawn = queue.ask(market(1), Class::Client(1), soon());
        let late = queue.ask(market(2), Class::Client(1), Instant::now() + Duration::from_millis(10));
        let good = queue.ask(market(3), Class::Client(1), soon());
        drop(withdrawn);
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(assets(&queue.take(false, 9, NOTHING_IN_AIR)), [3]);
        assert!(late.is_some_and(|mut late| late.try_recv().is_err()) && good.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_asset_in_the_air_is_not_asked_again_and_its_answer_is_for_all() {
        let queue = Queue::default();
        let waiting = [
            queue.ask(market(1), Class::Client(1), soon()),
            queue.ask(market(2), Class::Client(1), soon()),
            queue.ask(market(1), Class::Ahead, soon()),
        ];
        assert_eq!(assets(&queue.take(false, 9, &|asset| asset.index() == 1)), [2]);
        assert_eq!(assets(&queue.take(true, 9, &|asset| asset.index() == 1)), [0; 0]);
        for question in queue.take_about(&|asset| asset.index() == 1) {
            question.answer(Answered::Refused);
        }
        let told = waiting.map(|waiting| waiting.expect("room").try_recv().ok());
        assert_eq!(told, [Some(Answered::Refused), None, Some(Answered::Refused)]);
        assert_eq!(queue.clients_waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_about_many_looks_at_each_that_waits_once() {
        let queue = Queue::default();
        let answered: std::collections::HashSet<usize> = (0..400).map(|number| number * 3).collect();
        let looked = std::cell::Cell::new(0);
        let is_answered = |asset: AssetId| {
            looked.set(looked.get() + 1);
            answered.contains(&asset.index())
        };
        assert!(queue.take_about(&is_answered).is_empty());
        assert_eq!(looked.get(), 0, "nobody waits");
        let class = |number: usize| match number % 16 {
            15 => Class::Ahead,
            key => Class::Client(u32::try_from(key).expect("small")),
        };
        let waiting: Vec<_> = (0..WAITING_MAX).map(|number| queue.ask(market(number), class(number), soon())).collect();
        let mut about = assets(&queue.take_about(&is_answered));
        about.sort_unstable();
        assert_eq!(about, (0..400).map(|number| number * 3).collect::<Vec<_>>());
        assert_eq!(looked.get(), WAITING_MAX);
        let left = assets(&queue.take(false, WAITING_MAX, NOTHING_IN_AIR));
        let ahead = assets(&queue.take(true, WAITING_MAX, NOTHING_IN_AIR));
        assert_eq!(left.len() + ahead.len(), WAITING_MAX - 400);
        assert!(ahead.is_sorted() && ahead.iter().all(|number| number % 16 == 15), "and they keep their turns");
        let of_one_key: Vec<_> = left.iter().filter(|number| *number % 16 == 2).collect();
        assert!(of_one_key.len() > 200 && of_one_key.is_sorted());
        drop(waiting);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many_and_what_is_given_up_makes_room() {
        let queue = Queue::default();
        let mut waiting: Vec<_> =
            (0..WAITING_MAX).map(|_| queue.ask(market(1), Class::Ahead, soon()).expect("room")).collect();
        assert!(queue.ask(market(2), Class::Client(1), soon()).is_none());
        waiting.truncate(WAITING_MAX - 1);
        assert!(queue.ask(market(2), Class::Client(1), soon()).is_some());
        assert!(tokio::time::timeout(Duration::ZERO, queue.asked()).await.is_ok(), "whoever sends is told");
    }
}
