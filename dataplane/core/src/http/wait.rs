//! Requests that wait: for a lookup of what the shard has no price of, or for a price newer than one they know.
//!
//! A request that waits is charged already. It is judged again whenever what it waits for may have come, and may wait on,
//! for another of its assets too, but all of that counts from when it began to wait.

use super::Progress;
use super::answer::Asked;
use super::connection::{HttpConnection, Pending, Waited};
use super::route::PriceQuery;
use crate::access::Caller;
use crate::limits::LOOKUP_WAIT_MS;
use crate::lookups::{LookupPlace, Seeker, Sought};
use crate::render::problem::Problem;
use crate::reply::ReplyBuffer;
use crate::shard::{Missing, Shard};
use crate::waiters::{Awaited, Who};
use shared::asset::AssetId;
use shared::code::Code;
use shared::moment::Moment;
use shared::tick::is_of_another_node;
use shared::usage::Endpoint;

/// What to answer instead of a price, and the asset where it is known.
pub(super) type Refusal = (Problem, Option<AssetId>);

impl Shard {
    /// Lets a request wait for the lookup of the one asset that it is about.
    ///
    /// # Errors
    /// The refusal to answer with, when nothing comes of waiting.
    pub(super) fn wait_for_price(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        asked: &Asked<'_>,
        caller: Caller,
        query: &PriceQuery,
        missing: Missing,
    ) -> Result<Progress, Refusal> {
        let Some(symbol) = query.asset else { return Err((Problem::of(Code::AssetMissing), None)) };
        let seeker = self.seeker(caller, asked.since_mono_ms());
        let code = match self.seek(now, seeker, &symbol, missing) {
            Sought::UnderWay(place) => {
                match self.wait_for_lookup(now, connection, asked, caller, place, query.allow_stale) {
                    Some(waiting) => return Ok(waiting),
                    None => Code::Overloaded,
                }
            }
            Sought::Over(code) => code,
        };
        Err((Problem::of_lookup(code).about(symbol), missing.1))
    }

    /// A request that has something looked up, and has waited since then if it has.
    pub(super) fn seeker(&self, caller: Caller, since_mono_ms: Option<u64>) -> Seeker {
        Seeker { key: caller.key, since_mono_ms, may_wait: self.waiters.have_room_for_a_stream() }
    }

    /// Lets a request wait for a lookup; `None` when every place is held.
    pub(super) fn wait_for_lookup(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        asked: &Asked<'_>,
        caller: Caller,
        place: LookupPlace,
        takes_stale: bool,
    ) -> Option<Progress> {
        self.wait(now, connection, asked, caller, Awaited::Lookup(place, takes_stale), LOOKUP_WAIT_MS)
    }

    fn wait(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        asked: &Asked<'_>,
        caller: Caller,
        awaited: Awaited,
        most_ms: u64,
    ) -> Option<Progress> {
        let waited = Waited { since_mono_ms: asked.since_mono_ms().unwrap_or(now.mono_ms()), left: caller.left };
        let deadline_mono_ms = waited.since_mono_ms + most_ms;
        let place = self.waiters.begin(Who::Stream(connection.token()), awaited, deadline_mono_ms)?;
        self.gauge_waiting();
        connection.pending = Pending::Wait { place, deadline_mono_ms, waited };
        Some(Progress::Waiting { deadline_mono_ms })
    }

    /// Answers a request that takes only a price with a higher sequence, or lets it wait. An asset without a price, or
    /// with a stale one, is looked up meanwhile: nothing newer would come of it by itself.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub(super) fn answer_newer(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        asked: &Asked<'_>,
        caller: Caller,
        query: &PriceQuery,
        output: &mut ReplyBuffer,
    ) -> Result<Progress, Refusal> {
        let (Some(symbol), Some(newer_than)) = (query.asset, query.newer_than) else {
            return Err((Problem::of(Code::AssetMissing), None));
        };
        let found = self.find_price(&symbol, query.allow_stale);
        let known = found.map_or_else(|missing| missing.1, Some);
        let sequence = known.and_then(|asset| self.table.row(asset)).map(|row| row.tick().sequence);
        let since_mono_ms = asked.since_mono_ms().unwrap_or(now.mono_ms());
        // Whoever comes from another node with its sequence knows none of ours.
        let waited_ms = now.mono_ms().saturating_sub(since_mono_ms);
        let is_known = !is_of_another_node(newer_than, self.table.generation(), waited_ms);
        let newer_than = if is_known { newer_than } else { 0 };
        let waits = now.mono_ms() < since_mono_ms + query.wait_ms && !self.is_waiting_over;
        let asset = match (known, found) {
            (Some(asset), Ok(_)) if sequence.is_some_and(|sequence| sequence > newer_than) => {
                return Ok(self.give_price(now, asked, caller, asset, output));
            }
            (Some(asset), _) if sequence.is_none_or(|sequence| sequence <= newer_than) => asset,
            // It waited, and what came is stale: what is left of its time is for the lookup.
            (_, Err(missing)) if waits && asked.waited.is_some() => {
                let code = match self.seek(now, self.seeker(caller, None), &symbol, missing) {
                    Sought::UnderWay(place) => {
                        let most_ms = query.wait_ms.min(now.mono_ms() - since_mono_ms + LOOKUP_WAIT_MS);
                        let awaited = Awaited::Lookup(place, query.allow_stale);
                        let waiting = self.wait(now, connection, asked, caller, awaited, most_ms);
                        return waiting.ok_or((Problem::of_lookup(Code::Overloaded).about(symbol), missing.1));
                    }
                    Sought::Over(code) => code,
                };
                return Err((Problem::of_lookup(code).about(symbol), missing.1));
            }
            (_, Err(missing)) => return self.wait_for_price(now, connection, asked, caller, query, missing),
            (_, Ok(_)) => return Err((Problem::of(Code::PriceUnavailable).about(symbol), known)),
        };
        let refusal = |code| (Problem::of_lookup(code).about(symbol), Some(asset));
        let mut code = Code::PriceUnavailable;
        if let Err(missing) = found
            && (waits || query.wait_ms == 0)
        {
            match self.seek(now, self.seeker(caller, asked.since_mono_ms()), &symbol, missing) {
                Sought::UnderWay(place) if !waits => {
                    let stale = query.allow_stale;
                    let waiting = self.wait_for_lookup(now, connection, asked, caller, place, stale);
                    return waiting.ok_or(refusal(Code::Overloaded));
                }
                Sought::UnderWay(_) => {}
                Sought::Over(why) => code = why,
            }
        }
        if waits {
            let awaited = Awaited::Newer(asset, newer_than);
            let waiting = self.wait(now, connection, asked, caller, awaited, query.wait_ms);
            return waiting.ok_or((Problem::of(Code::Overloaded).about(symbol), Some(asset)));
        }
        let sequence = sequence.ok_or(refusal(code))?;
        Ok(self.answer_unchanged(now, asked, caller, Some(asset), sequence, Endpoint::Price, output))
    }
}
