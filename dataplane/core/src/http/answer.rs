//! Answers to one request: the price, its refusals, and the methods there are. Every one of them is entered in the books
//! here, together with its bytes, so that what was answered and what was counted are the same.

use super::Progress;
use super::connection::{HttpConnection, Waited};
use super::request::Request;
use super::route::PriceQuery;
use crate::access::{Admitted, Caller};
use crate::render::Writer;
use crate::render::head::{ConnectionField, Head, JSON, PROBLEM, RateFields};
use crate::render::problem::Problem;
use crate::reply::ReplyBuffer;
use crate::shard::{Answered, Shard};
use shared::asset::AssetId;
use shared::code::Code;
use shared::moment::Moment;
use shared::tick::Tier;
use shared::usage::{Endpoint, PROTOCOL_TCP};

/// Longest problem document.
const DOCUMENT_MAX: usize = 512;

/// How a request wants to be answered.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Its head, unless it was answered unread.
    pub(crate) request: Option<&'a Request<'a, 'a>>,
    /// The head of the answer is wanted, its body is not.
    pub(crate) is_head: bool,
    pub(crate) connection: ConnectionField,
    /// Since when it waits, if it has waited: it was charged then, and how long it may wait on counts from then.
    pub(crate) waited: Option<Waited>,
    /// Bytes of its head.
    pub(crate) length: usize,
}

impl Asked<'_> {
    /// A `GET` of HTTP/1.1 without conditions.
    #[inline]
    pub(crate) const fn plainly(closes: bool, length: usize) -> Self {
        let connection = if closes { ConnectionField::Close } else { ConnectionField::None };
        Self { request: None, is_head: false, connection, waited: None, length }
    }

    /// When it began to wait, if it has waited.
    pub(crate) fn since_mono_ms(&self) -> Option<u64> {
        self.waited.map(|waited| waited.since_mono_ms)
    }

    fn has_etag(&self, sequence: u64) -> bool {
        self.request.is_some_and(|request| request.has_etag(sequence))
    }

    /// What becomes of the connection once the answer is written.
    #[inline]
    pub(crate) const fn done(&self) -> Progress {
        match self.connection {
            ConnectionField::Close => Progress::Closing,
            _ => Progress::Done(self.length),
        }
    }
}

/// What a caller is told of its limit: nothing while it has a fifth of it or more left.
#[inline]
pub(crate) const fn rate_fields(caller: Caller) -> Option<RateFields> {
    if (caller.left as u64) * 5 < caller.limit as u64 {
        Some(RateFields { limit: caller.limit, left: caller.left })
    } else {
        None
    }
}

impl Shard {
    /// Answers `/price`.
    pub(crate) fn answer_price(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        asked: &Asked<'_>,
        admitted: Admitted,
        query: &Result<PriceQuery, Problem>,
        output: &mut ReplyBuffer,
    ) -> Progress {
        let caller = admitted.caller;
        let refusal = match (admitted.refused, query) {
            (Some(code), _) => (self.governor.problem(code), None),
            (None, Err(problem)) => (*problem, None),
            (None, Ok(PriceQuery { asset: None, .. })) => (Problem::of(Code::AssetMissing), None),
            (None, Ok(query @ PriceQuery { asset: Some(symbol), newer_than: None, .. })) => {
                match self.find_price(symbol, query.allow_stale) {
                    Ok(asset) => return self.give_price(now, asked, caller, asset, output),
                    Err(missing) => match self.wait_for_price(now, connection, asked, caller, query, missing) {
                        Ok(waiting) => return waiting,
                        Err(refusal) => refusal,
                    },
                }
            }
            (None, Ok(query)) => match self.answer_newer(now, connection, asked, caller, query, output) {
                Ok(progress) => return progress,
                Err(refusal) => refusal,
            },
        };
        self.refuse(now, asked, caller, refusal.0, refusal.1, Endpoint::Price, output)
    }

    /// Answers `GET /price?asset=SYMBOL` of a caller who is admitted, if there is nothing special about any of it.
    #[inline]
    pub(crate) fn give_plainly(
        &mut self,
        now: Moment,
        caller: Caller,
        asset: AssetId,
        output: &mut ReplyBuffer,
    ) -> Option<()> {
        self.head.keep_current(now.wall_ms);
        let row = self.table.ready_row(asset, &self.assets)?;
        if row.tick().is_stale() || rate_fields(caller).is_some() {
            return None;
        }
        let tier = row.tick().tier;
        row.reply().append_to(output, &self.head, row.age_ms(now)).then_some(())?;
        self.close_books(now, caller, Some(asset), 200, None, tier, Endpoint::Price);
        Some(())
    }

    /// Answers with the price of an asset that has one.
    pub(super) fn give_price(
        &mut self,
        now: Moment,
        asked: &Asked<'_>,
        caller: Caller,
        asset: AssetId,
        output: &mut ReplyBuffer,
    ) -> Progress {
        let date = self.date(now);
        let Some(row) = self.table.ready_row(asset, &self.assets) else {
            let problem = Problem::of(Code::PriceUnavailable);
            return self.refuse(now, asked, caller, problem, Some(asset), Endpoint::Price, output);
        };
        let (tier, sequence, age_ms) = (row.tick().tier, row.tick().sequence, row.age_ms(now));
        if asked.has_etag(sequence) {
            return self.answer_unchanged(now, asked, caller, Some(asset), sequence, Endpoint::Price, output);
        }
        let mut writer = Writer::new(output.tail());
        let head = Head {
            status: 200,
            date: &date,
            content: Some((JSON, row.reply().body_length(age_ms))),
            etag: Some(sequence),
            rate: rate_fields(caller),
            retry_after_s: None,
            connection: asked.connection,
        };
        head.push(&mut writer);
        if !asked.is_head {
            row.reply().push_body(&mut writer, age_ms);
        }
        let written = writer.finish();
        debug_assert!(written.is_some(), "SMALL_REPLY_MAX holds every answer with one price");
        output.advance(written.unwrap_or(0));
        self.close_books(now, caller, Some(asset), 200, None, tier, Endpoint::Price);
        asked.done()
    }

    /// Answers 304: what the client has is what there is.
    #[expect(clippy::too_many_arguments, reason = "the request, its outcome, and where it goes")]
    pub(crate) fn answer_unchanged(
        &mut self,
        now: Moment,
        asked: &Asked<'_>,
        caller: Caller,
        asset: Option<AssetId>,
        sequence: u64,
        endpoint: Endpoint,
        output: &mut ReplyBuffer,
    ) -> Progress {
        let date = self.date(now);
        let head = Head {
            status: 304,
            date: &date,
            content: None,
            etag: Some(sequence),
            rate: rate_fields(caller),
            retry_after_s: None,
            connection: asked.connection,
        };
        append_head(&head, output);
        let tier = asset.and_then(|asset| self.table.row(asset)).map_or(Tier::Local as u8, |row| row.tick().tier);
        self.close_books(now, caller, asset, 304, None, tier, endpoint);
        asked.done()
    }

    /// Answers `OPTIONS`.
    pub(crate) fn answer_options(
        &mut self,
        now: Moment,
        asked: &Asked<'_>,
        endpoint: Endpoint,
        output: &mut ReplyBuffer,
    ) -> Progress {
        let date = self.date(now);
        let head = Head {
            status: 204,
            date: &date,
            content: None,
            etag: None,
            rate: None,
            retry_after_s: None,
            connection: asked.connection,
        };
        append_head(&head, output);
        self.close_books(now, Caller::NOBODY, None, 204, None, Tier::Local as u8, endpoint);
        asked.done()
    }

    /// Answers with a problem document.
    #[expect(clippy::too_many_arguments, reason = "the request, its outcome, and where it goes")]
    pub(crate) fn refuse(
        &mut self,
        now: Moment,
        asked: &Asked<'_>,
        caller: Caller,
        problem: Problem,
        asset: Option<AssetId>,
        endpoint: Endpoint,
        output: &mut ReplyBuffer,
    ) -> Progress {
        let mut document = [0; DOCUMENT_MAX];
        let mut writer = Writer::new(&mut document);
        problem.push_document(&mut writer);
        let length = writer.finish().unwrap_or(0);
        let status = problem.code.status();
        let date = self.date(now);
        let head = Head {
            status,
            date: &date,
            content: Some((PROBLEM, length)),
            etag: None,
            rate: if status == 429 { Some(RateFields { limit: caller.limit, left: 0 }) } else { rate_fields(caller) },
            retry_after_s: problem.retry_after_s(now.wall_ms),
            connection: asked.connection,
        };
        append_head(&head, output);
        if !asked.is_head {
            let fits = output.append(&document[..length]);
            debug_assert!(fits, "SMALL_REPLY_MAX holds every refusal");
        }
        if problem.code == Code::Overloaded && !problem.is_of_lookup {
            self.counters.http_overloaded += 1;
        }
        self.close_books(now, caller, asset, status, Some(problem.code), Tier::Local as u8, endpoint);
        asked.done()
    }

    /// Counts one answered request.
    #[expect(clippy::too_many_arguments, reason = "one for each field of the books")]
    #[inline]
    pub(crate) fn close_books(
        &mut self,
        now: Moment,
        caller: Caller,
        asset: Option<AssetId>,
        status: u16,
        code: Option<Code>,
        tier: u8,
        endpoint: Endpoint,
    ) {
        self.counters.http_requests += 1;
        self.book(now, Answered { key: caller.key, asset, status, code, tier, protocol: PROTOCOL_TCP, endpoint });
    }
}

/// Appends a head; there is always room for one.
pub(crate) fn append_head(head: &Head<'_>, output: &mut ReplyBuffer) {
    let mut writer = Writer::new(output.tail());
    head.push(&mut writer);
    let written = writer.finish();
    debug_assert!(written.is_some(), "a request is only read when SMALL_REPLY_MAX bytes are free");
    output.advance(written.unwrap_or(0));
}
