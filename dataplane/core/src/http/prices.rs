//! Answers to `/prices`: many prices of one table generation, whatever the size of the body.
//!
//! A named asset that has no price to give is looked up, and the call waits for it. One that nobody knows, or whose price
//! cannot be given, fails the whole call, naming itself, unless `ignore_unknown=1` is said or `all` assets are asked for:
//! then it is among the `missing`. One that could not be looked for (`overloaded`, `draining`) fails the call
//! even so, as nothing is known of it.
//!
//! To be missing is to have no price that can be given now, and not to be unknown: of `all` assets none is. Whether nobody
//! knows it, its price is stale, or none came in time, is told to whoever asks for it alone, or without `ignore_unknown`.

use super::Progress;
use super::answer::{Asked, append_head, rate_fields};
use super::connection::{HttpConnection, Pending};
use super::route::PricesQuery;
use super::wait::Refusal;
use crate::access::{Admitted, Caller};
use crate::render::head::{Head, JSON};
use crate::render::problem::Problem;
use crate::reply::ReplyBuffer;
use crate::shard::{Shard, find_price};
use core::ops::ControlFlow;
use shared::asset::{AssetDirectory, AssetId, Symbol};
use shared::code::Code;
use shared::moment::Moment;
use shared::tick::Tier;
use shared::usage::Endpoint;

/// A body that was written.
struct Drafted {
    /// The asset, if it is about a single one that is known.
    asset: Option<AssetId>,
    /// How many have no price to give.
    missing: usize,
}

impl Shard {
    /// Answers `/prices`.
    pub(crate) fn answer_prices(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        asked: &Asked<'_>,
        admitted: Admitted,
        query: &Result<PricesQuery, Problem>,
        output: &mut ReplyBuffer,
    ) -> Progress {
        let caller = admitted.caller;
        let drafted = match (admitted.refused, query) {
            (Some(code), _) => Err((self.governor.problem(code), None)),
            (None, Err(problem)) => Err((*problem, None)),
            (None, Ok(query)) => match self.draft_or_wait(now, connection, asked, caller, query) {
                Ok(ControlFlow::Break(waiting)) => return waiting,
                Ok(ControlFlow::Continue(asset)) => Ok(asset),
                Err(refusal) => Err(refusal),
            },
        };
        match drafted {
            Ok(asset) => self.give_prices(now, connection, asked, caller, asset, output),
            Err((problem, asset)) => self.refuse(now, asked, caller, problem, asset, Endpoint::Prices, output),
        }
    }

    /// Writes the body and answers the asset, if it is about a single one that is known; or lets the request wait for what
    /// is missing. One that has waited looks for that first: it is named for each of its assets that were looked up, and
    /// its body is written for the last of them only.
    ///
    /// # Errors
    /// What is wrong with the first asset that fails the call.
    fn draft_or_wait(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        asked: &Asked<'_>,
        caller: Caller,
        query: &PricesQuery,
    ) -> Result<ControlFlow<Progress, Option<AssetId>>, Refusal> {
        let has_waited = asked.waited.is_some();
        if has_waited && let Some(waiting) = self.wait_for_prices(now, connection, asked, caller, query)? {
            return Ok(ControlFlow::Break(waiting));
        }
        let Drafted { missing, asset } = self.draft(now, query);
        // All there are is what there is now.
        let may_wait = missing > 0 && !query.all && !has_waited;
        if may_wait && let Some(waiting) = self.wait_for_prices(now, connection, asked, caller, query)? {
            return Ok(ControlFlow::Break(waiting));
        }
        Ok(ControlFlow::Continue(asset))
    }

    /// Has the assets looked up whose prices are missing, and lets the request wait for one of them. Answers nothing if
    /// there is nothing to wait for, and what is missing may be.
    ///
    /// # Errors
    /// What is wrong with the first asset that fails the call.
    fn wait_for_prices(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        asked: &Asked<'_>,
        caller: Caller,
        query: &PricesQuery,
    ) -> Result<Option<Progress>, Refusal> {
        let symbols = query.assets.symbols().iter().copied();
        let seeker = self.seeker(caller, asked.since_mono_ms());
        let sought = self.seek_each(now, seeker, symbols, query.allow_stale, !query.ignore_unknown);
        let refusal = |(symbol, (code, asset))| (Problem::of_lookup(code).about(symbol), asset);
        let Some(place) = sought.map_err(refusal)? else { return Ok(None) };
        let waiting = self.wait_for_lookup(now, connection, asked, caller, place, query.allow_stale);
        waiting.map(Some).ok_or((Problem::of_lookup(Code::Overloaded), None))
    }

    /// Writes the body.
    fn draft(&mut self, now: Moment, query: &PricesQuery) -> Drafted {
        let Self { assets, table, long, .. } = self;
        let body = long.begin();
        body.extend_from_slice(b"{\"generation\":");
        body.extend_from_slice(itoa::Buffer::new().format(table.generation()).as_bytes());
        body.extend_from_slice(b",\"prices\":[");
        let (mut given, mut missing) = (0, 0);
        for symbol in wanted(assets, query) {
            let found = find_price(assets, table, &symbol, query.allow_stale);
            if let Ok(asset) = found {
                let _hint = table.note_use(asset);
            }
            match found.map(|asset| table.ready_row(asset, assets)) {
                Ok(Some(row)) => {
                    body.extend_from_slice(if given == 0 { b"" } else { b"," });
                    row.reply().extend_body(body, row.age_ms(now));
                    given += 1;
                }
                Ok(None) | Err(_) => missing += 1,
            }
        }
        body.extend_from_slice(b"],\"missing\":[");
        if missing > 0 {
            let is_missing = |symbol: &Symbol| find_price(assets, table, symbol, query.allow_stale).is_err();
            for (place, symbol) in wanted(assets, query).filter(is_missing).enumerate() {
                body.extend_from_slice(if place == 0 { b"\"" } else { b",\"" });
                body.extend_from_slice(symbol.as_str().as_bytes());
                body.push(b'"');
            }
        }
        body.extend_from_slice(b"]}");
        let asset = match query.assets.symbols() {
            [single] if !query.all => assets.find(single),
            _ => None,
        };
        Drafted { asset, missing }
    }

    /// Sends the drafted body, in pieces if it must be.
    fn give_prices(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        asked: &Asked<'_>,
        caller: Caller,
        asset: Option<AssetId>,
        output: &mut ReplyBuffer,
    ) -> Progress {
        let generation = self.table.generation();
        if asked.request.is_some_and(|request| request.has_etag(generation)) {
            return self.answer_unchanged(now, asked, caller, asset, generation, Endpoint::Prices, output);
        }
        let date = self.date(now);
        let head = Head {
            status: 200,
            date: &date,
            content: Some((JSON, self.long.draft().len())),
            etag: Some(generation),
            rate: rate_fields(caller),
            retry_after_s: None,
            connection: asked.connection,
        };
        let before = output.bytes().len();
        append_head(&head, output);
        if !asked.is_head && !output.append(self.long.draft()) {
            let Some(place) = self.long.keep() else {
                output.truncate(before);
                let problem = Problem::saying(Code::Overloaded, "Too many long answers are on their way. Try again.");
                return self.refuse(now, asked, caller, problem, asset, Endpoint::Prices, output);
            };
            let closes = matches!(asked.done(), Progress::Closing);
            connection.pending = Pending::Long { place, sent: 0, head: asked.length as u16, closes };
        }
        let tier = asset.and_then(|asset| self.table.row(asset)).map_or(Tier::Local as u8, |row| row.tick().tier);
        self.close_books(now, caller, asset, 200, None, tier, Endpoint::Prices);
        if connection.pending == Pending::Nothing { asked.done() } else { self.send_long(connection, output) }
    }

    /// Sends the next piece of a long body.
    pub(crate) fn send_long(&mut self, connection: &mut HttpConnection, output: &mut ReplyBuffer) -> Progress {
        let Pending::Long { place, sent, head, closes } = connection.pending else { return Progress::Partial };
        let body = self.long.body(place);
        let start = sent as usize;
        let end = body.len().min(start + output.room());
        let fits = output.append(&body[start..end]);
        debug_assert!(fits, "a piece is as long as the room there is");
        if end < body.len() {
            connection.pending = Pending::Long { place, sent: end as u32, head, closes };
            return Progress::NoRoom;
        }
        self.long.release(place);
        connection.pending = Pending::Nothing;
        if closes { Progress::Closing } else { Progress::Done(usize::from(head)) }
    }
}

/// The symbols asked for: those named, or those of all prewarmed assets.
fn wanted<'a>(assets: &'a AssetDirectory, query: &'a PricesQuery) -> impl Iterator<Item = Symbol> + 'a {
    let (named, every): (&[Symbol], usize) = if query.all { (&[], usize::MAX) } else { (query.assets.symbols(), 0) };
    let prewarmed = assets.prewarmed().take(every).map(|(_, entry)| entry.symbol);
    named.iter().copied().chain(prewarmed)
}
