//! One connection's conversation with a venue: what to say, what was heard, and when to give up.
//!
//! Pure: it reads no clock and owns no socket. `session` brings frames and moments and sends what it is told to.

use super::roster::{Roster, Standing};
use super::verdict::{End, Verdict};
use crate::feeds::board::{Board, BoardState};
use crate::feeds::plan::Market;
use crate::feeds::timing::{MALFORMED_IN_A_ROW_MAX, RESUBSCRIBES_MAX, RESUBSCRIBES_PER_HOUR_MAX, Timing};
use shared::asset::AssetId;
use shared::moment::Moment;
use std::collections::VecDeque;
use std::sync::Arc;
use venues::protocol::{KeepAlive, VenueEvent, VenueLimits, VenueProtocol};

/// Answers and pings that may wait to be sent: heartbeats come at most once a second and sending is stalled for 5 s
/// at most before the connection is dead.
const URGENT_MAX: usize = 32;

/// Live subscriptions from which on a common silence says something: one or two assets may well be quiet together.
const COMMON_SILENCE_MIN: usize = 5;

/// Quotes after which the usual gap between two of them is known.
const COMMON_QUOTES_MIN: u64 = 64;

/// A common silence this many times the usual gap between two quotes means that quotes have stopped.
const COMMON_SILENCE_FACTOR: u64 = 50;

/// How long an application's ping may stay unanswered, beyond the time to the next, ms.
const PONG_GRACE_MS: u64 = 10_000;

/// One connection's conversation.
pub struct Conversation {
    protocol: Box<dyn VenueProtocol>,
    talk: Talk,
}

/// The conversation without its protocol, so that decoding can write into it.
struct Talk {
    number: u32,
    board: Arc<Board>,
    timing: Timing,
    limits: VenueLimits,
    keep_alive: KeepAlive,
    roster: Roster,
    urgent: VecDeque<String>,
    ready: VecDeque<String>,
    may_send_ns: u64,
    opened_ns: u64,
    /// Anything at all came.
    heard_ns: u64,
    /// Something came that was not merely the pong to our ping.
    spoke_ns: u64,
    pinged: bool,
    app_pinged_ns: u64,
    quote_ns: u64,
    /// The last time that an asset delivered for the first time.
    first_quote_ns: u64,
    quotes: u64,
    usual_gap_ms: u64,
    malformed_in_a_row: u32,
    hour_ns: u64,
    resubscribes_this_hour: u32,
    handover_ns: u64,
    verdict: Option<Verdict>,
}

impl Conversation {
    /// Begins the conversation of connection `number`, opened just now.
    #[must_use]
    pub fn new(
        mut protocol: Box<dyn VenueProtocol>,
        number: u32,
        markets: &[Market],
        board: Arc<Board>,
        timing: Timing,
        now: Moment,
    ) -> Self {
        protocol.reset();
        let limits = protocol.limits();
        let roster = {
            let state = board.lock();
            Roster::new(markets, limits.names_per_frame, &|asset| state.rests_until_ns(asset, now))
        };
        let talk = Talk {
            number,
            board,
            timing,
            limits,
            keep_alive: protocol.keep_alive(),
            roster,
            urgent: VecDeque::new(),
            ready: protocol.greeting().into(),
            may_send_ns: now.plus_ms(limits.first_frame_wait_ms).mono_ns,
            opened_ns: now.mono_ns,
            heard_ns: now.mono_ns,
            spoke_ns: now.mono_ns,
            pinged: false,
            app_pinged_ns: now.mono_ns,
            quote_ns: 0,
            first_quote_ns: 0,
            quotes: 0,
            usual_gap_ms: 0,
            malformed_in_a_row: 0,
            hour_ns: now.mono_ns,
            resubscribes_this_hour: 0,
            handover_ns: 0,
            verdict: None,
        };
        Self { protocol, talk }
    }

    /// Takes a text frame.
    pub fn text(&mut self, frame: &[u8], now: Moment) {
        let Self { protocol, talk } = self;
        talk.heard(now);
        talk.spoke_ns = now.mono_ns;
        let board = Arc::clone(&talk.board);
        let mut state = board.lock();
        state.frame(frame.len(), now);
        protocol.decode(frame, &mut |event| talk.event(event, &mut state, now));
        state.flush();
    }

    /// Takes a frame that carries nothing for us: WebSocket pings and pongs. `asked`: it is the answer to our ping.
    pub fn sign_of_life(&mut self, asked: bool, now: Moment) {
        self.talk.heard(now);
        if !asked {
            self.talk.spoke_ns = now.mono_ns;
        }
        self.talk.board.lock().alive(now);
    }

    /// Takes what is not a text frame of the protocol at all: binary, too long, not UTF-8.
    pub fn broken(&mut self, reason: &str, now: Moment) {
        self.talk.heard(now);
        let board = Arc::clone(&self.talk.board);
        self.talk.malformed(reason, &mut board.lock(), now);
    }

    /// Looks after everything that depends on time passing. To be called every `Timing::tick_ms`.
    pub fn tick(&mut self, now: Moment) {
        self.talk.watch_connection(now);
        self.talk.watch_subscriptions(now);
        self.talk.watch_suspects();
        self.talk.watch_common_silence(now);
        if let KeepAlive::Client { every_ms } = self.talk.keep_alive
            && now.ms_since(self.talk.app_pinged_ns) >= every_ms
        {
            self.talk.app_pinged_ns = now.mono_ns;
            let request = self.talk.roster.take_request();
            self.protocol.tell_time(now.wall_ms);
            if let Some(ping) = self.protocol.ping(request) {
                self.talk.say_soon(ping);
            }
        }
        self.talk.board.lock().flush();
    }

    /// The next text frame to send, if one may be sent now.
    pub fn next_text(&mut self, now: Moment) -> Option<String> {
        let talk = &mut self.talk;
        if now.mono_ns < talk.may_send_ns {
            return None;
        }
        if talk.urgent.is_empty() && talk.ready.is_empty() {
            self.protocol.tell_time(now.wall_ms);
            talk.ready.extend(talk.roster.next_frames(&*self.protocol, now));
        }
        let text = talk.urgent.pop_front().or_else(|| talk.ready.pop_front())?;
        talk.may_send_ns = now.plus_ms(talk.limits.frame_gap_ms).mono_ns;
        Some(text)
    }

    /// How long until `next_text` or `tick` should be called again, ms.
    #[must_use]
    pub fn wake_in_ms(&self, now: Moment) -> u64 {
        let talk = &self.talk;
        let waiting = !talk.urgent.is_empty() || !talk.ready.is_empty() || talk.roster.has_frames();
        let send_in_ms = (talk.may_send_ns.saturating_sub(now.mono_ns)).div_ceil(1_000_000);
        if waiting { send_in_ms.min(talk.timing.tick_ms) } else { talk.timing.tick_ms }
    }

    /// Whether a WebSocket ping is due; asking counts as sending.
    pub fn take_ping(&mut self, now: Moment) -> bool {
        let talk = &mut self.talk;
        let due = !talk.pinged && now.ms_since(talk.heard_ns) >= talk.timing.ping_after_ms;
        talk.pinged |= due;
        due
    }

    /// Subscribes to `markets` instead of the present ones; `renewed` as in [`Roster::change`].
    pub fn change_markets(&mut self, markets: &[Market], renewed: bool) {
        self.talk.roster.change(markets, renewed);
    }

    /// What the conversation has come to, if it has; told once.
    pub const fn take_verdict(&mut self) -> Option<Verdict> {
        self.talk.verdict.take()
    }

    /// Whether it can take over from another connection: everything delivers, or has stopped becoming more.
    #[must_use]
    pub fn is_ready(&self, now: Moment) -> bool {
        let talk = &self.talk;
        let waiting = |standing| talk.roster.count(standing);
        let open = waiting(Standing::Asked) + waiting(Standing::Acked);
        let settled = now.ms_since(talk.first_quote_ns) >= talk.timing.refusal_settle_ms;
        self.has_delivered() && waiting(Standing::Queued) == 0 && (open == 0 || settled)
    }

    /// Whether a subscription has delivered.
    #[must_use]
    pub fn has_delivered(&self) -> bool {
        self.talk.quote_ns != 0
    }

    /// How long it has lasted, ms.
    #[must_use]
    pub const fn lasted_ms(&self, now: Moment) -> u64 {
        now.ms_since(self.talk.opened_ns)
    }
}

impl Talk {
    fn heard(&mut self, now: Moment) {
        self.heard_ns = now.mono_ns;
        self.pinged = false;
    }

    fn event(&mut self, event: VenueEvent<'_>, state: &mut BoardState, now: Moment) {
        if !matches!(event, VenueEvent::Malformed { .. }) {
            self.malformed_in_a_row = 0;
        }
        let counters = &mut state.counters;
        match event {
            VenueEvent::Quote(quote) => match self.roster.market_of(&quote).map(|market| market.asset) {
                Some(asset) => {
                    if self.roster.delivered(asset) {
                        self.first_quote_ns = now.mono_ns;
                    }
                    self.note_quote(now);
                    state.quote(self.number, asset, &quote, now);
                }
                None => counters.ignored += 1,
            },
            VenueEvent::Subscribed { name, request } => {
                counters.acknowledged += 1;
                self.roster.acked(name, request);
            }
            VenueEvent::Refused { name, request, reason } => {
                counters.refusals += 1;
                self.refused(name, request, reason, state, now);
            }
            VenueEvent::Heartbeat { answer } => {
                counters.heartbeats += 1;
                answer.into_iter().for_each(|text| self.say_soon(text));
            }
            VenueEvent::Status { text, reconnect } => {
                counters.statuses += 1;
                if reconnect {
                    state.fault(text, now);
                    self.want_successor(text, now);
                }
            }
            VenueEvent::Gap { expected, got } => {
                counters.gaps += 1;
                self.end(End::Gap { expected, got });
            }
            VenueEvent::Ignored { .. } => counters.ignored += 1,
            VenueEvent::Malformed { reason } => self.malformed(&reason, state, now),
        }
    }

    fn note_quote(&mut self, now: Moment) {
        if self.quote_ns != 0 {
            let gap_ms = now.ms_since(self.quote_ns);
            self.usual_gap_ms = (self.usual_gap_ms * 31 + gap_ms) / 32;
        }
        self.quotes += 1;
        self.quote_ns = now.mono_ns;
    }

    fn refused(&mut self, name: Option<&str>, request: Option<u64>, reason: &str, state: &mut BoardState, now: Moment) {
        let (settle_ms, retry_ms) = (self.timing.refusal_settle_ms, self.timing.refused_retry_ms);
        match self.roster.refused(name, request, now, settle_ms, retry_ms) {
            Some(asset) => state.refused(asset, reason, now.plus_ms(retry_ms).mono_ns),
            // Nobody is refused by it (yet), so nobody's line shows it.
            None => state.fault(reason, now),
        }
    }

    fn malformed(&mut self, reason: &str, state: &mut BoardState, now: Moment) {
        state.counters.malformed += 1;
        state.fault(reason, now);
        self.malformed_in_a_row += 1;
        if self.malformed_in_a_row >= MALFORMED_IN_A_ROW_MAX {
            self.end(End::Malformed);
        }
    }

    fn say_soon(&mut self, text: String) {
        if self.urgent.len() < URGENT_MAX {
            self.urgent.push_back(text);
        }
    }

    /// The first verdict stands, but an end outweighs the wish for a successor.
    fn end(&mut self, end: End) {
        if !matches!(self.verdict, Some(Verdict::End(_))) {
            self.verdict = Some(Verdict::End(end));
        }
    }

    fn want_successor(&mut self, why: &str, now: Moment) {
        let again = self.handover_ns == 0 || now.ms_since(self.handover_ns) >= self.timing.handover_gap_ms;
        // A venue in maintenance says so on every new connection: the next one is not made for that at once.
        let young = now.ms_since(self.opened_ns) < self.timing.handover_gap_ms && self.quote_ns == 0;
        if again && !young && self.verdict.is_none() {
            self.handover_ns = now.mono_ns;
            self.verdict = Some(Verdict::Successor(why.to_owned()));
        }
    }

    /// Half-open TCP, and a venue that has stopped talking.
    fn watch_connection(&mut self, now: Moment) {
        let silent_ms = now.ms_since(self.heard_ns);
        if silent_ms >= self.timing.ping_after_ms + self.timing.pong_within_ms {
            self.end(End::Dead { silent_ms });
        }
        let unspoken_ms = now.ms_since(self.spoke_ns);
        let bound_ms = match self.keep_alive {
            KeepAlive::Server { silence_ms_max } => silence_ms_max,
            KeepAlive::Client { every_ms } => every_ms + PONG_GRACE_MS,
        };
        if unspoken_ms > bound_ms {
            self.end(End::Mute { silent_ms: unspoken_ms });
        }
    }

    /// Subscriptions that never delivered, refusals to settle, and rests that are over.
    fn watch_subscriptions(&mut self, now: Moment) {
        self.roster.settle(now);
        if now.ms_since(self.hour_ns) >= 3_600_000 {
            (self.hour_ns, self.resubscribes_this_hour) = (now.mono_ns, 0);
        }
        for asset in self.roster.rested(now) {
            if self.take_resubscribe() {
                self.roster.ask_anew(asset);
            }
        }
        let silent = self.roster.silent(now, self.timing.first_quote_ms);
        if silent.is_empty() {
            return;
        }
        let board = Arc::clone(&self.board);
        let mut state = board.lock();
        // Nobody delivers: that is the connection's fault, not a name's.
        let nobody = self.roster.count(Standing::Live) == 0 && silent.len() > 1;
        for (asset, resubscribes) in silent {
            if !nobody && resubscribes < RESUBSCRIBES_MAX {
                self.ask_silent_anew(asset, &mut state);
            } else if state.take_reconnect_for(asset) {
                self.give_up(nobody, asset, &mut state, now);
            } else if resubscribes < RESUBSCRIBES_MAX {
                self.ask_silent_anew(asset, &mut state);
            } else {
                self.roster.rest(asset, now.plus_ms(self.timing.refused_retry_ms).mono_ns);
            }
        }
    }

    fn ask_silent_anew(&mut self, asset: AssetId, state: &mut BoardState) {
        if self.take_resubscribe() {
            state.counters.resubscribes += 1;
            self.roster.count_resubscribe(asset);
            self.roster.ask_anew(asset);
        }
    }

    /// A silent name that asking again did not help: another connection may.
    fn give_up(&mut self, nobody: bool, asset: AssetId, state: &mut BoardState, now: Moment) {
        let name = self.roster.name(asset).unwrap_or_default();
        let text = format!("{name} is acknowledged but silent");
        state.fault(&text, now);
        if nobody {
            self.end(End::NothingDelivered);
        } else {
            // The others deliver: they are not interrupted.
            self.want_successor(&text, now);
            self.roster.rest(asset, now.plus_ms(self.timing.refused_retry_ms).mono_ns);
        }
    }

    fn take_resubscribe(&mut self) -> bool {
        let may = self.resubscribes_this_hour < RESUBSCRIBES_PER_HOUR_MAX;
        self.resubscribes_this_hour += u32::from(may);
        may
    }

    /// Subscriptions that REST contradicted.
    fn watch_suspects(&mut self) {
        let board = Arc::clone(&self.board);
        let mut state = board.lock();
        let suspects = state.take_suspects(&|asset| self.roster.standing(asset).is_some());
        for asset in suspects {
            self.ask_silent_anew(asset, &mut state);
        }
    }

    /// Quotes of all subscriptions stopping together while the venue still sends heartbeats.
    fn watch_common_silence(&mut self, now: Moment) {
        let silent_ms = now.ms_since(self.quote_ns);
        let bound_ms = self.timing.quotes_stopped_ms.max(self.usual_gap_ms * COMMON_SILENCE_FACTOR);
        let telling = self.quotes >= COMMON_QUOTES_MIN && self.roster.count(Standing::Live) >= COMMON_SILENCE_MIN;
        if telling && silent_ms >= bound_ms {
            self.end(End::QuotesStopped { silent_ms });
        }
    }
}

#[cfg(test)]
mod tests;
