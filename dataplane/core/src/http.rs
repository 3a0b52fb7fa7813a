//! HTTP/1.1 on one connection: which requests there are in the bytes, in which order they are judged, and what happens
//! to the connection afterwards. Heads are read in `request`, targets in `route`; answers are made in `answer`.
//!
//! A request is judged in this order, and the first objection is the answer: framing (400, 431), route (anything but a
//! price read is handed over), method (405), body (413), key (401), permission (403), month (429), too many active
//! connections (503), second (429), parameters (400), asset (404), price (503). The last two are no objection yet when the
//! price may be found elsewhere: the request waits, as one for a newer price does, until a tick comes, nothing is found,
//! or its time is over, and is judged again; it is charged and counted once. The bytes of a request stay in front of the
//! input until it is answered for good, so a waiting request and one whose reply is sent in pieces are read again when they
//! are taken up.

pub(crate) mod answer;
pub(crate) mod connection;
pub(crate) mod long;
pub(crate) mod prices;
pub(crate) mod request;
pub(crate) mod route;
mod wait;

use crate::access::{Admitted, Caller};
use crate::limits::SMALL_REPLY_MAX;
use crate::render::head::ConnectionField;
use crate::render::problem::Problem;
use crate::reply::ReplyBuffer;
use crate::shard::{Shard, StreamStep, Then};
use answer::Asked;
use connection::{HttpConnection, Pending, Waited};
use core::mem::MaybeUninit;
use request::{FieldSpace, KeyText, Method, Request, Scanned};
use route::{PriceQuery, Route};
use shared::asset::{AssetDirectory, AssetId, Symbol};
use shared::code::Code;
use shared::limits::ASSETS_PER_REQUEST_MAX;
use shared::moment::Moment;
use shared::usage::Endpoint;

/// How far the foremost request got.
pub(crate) enum Progress {
    /// It is answered; so many input bytes were its.
    Done(usize),
    /// It is answered, and the connection ends with that.
    Closing,
    /// More of it must come.
    Partial,
    /// Its answer, or the rest of it, needs an emptier output.
    NoRoom,
    /// It waits for a tick or a lookup, at the longest until this time.
    Waiting { deadline_mono_ms: u64 },
    /// It is not a price read.
    HandOver,
}

impl Shard {
    /// Answers every complete request of `input`, in order, as far as `output` has room.
    pub(crate) fn serve_requests(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        input: &[u8],
        output: &mut ReplyBuffer,
    ) -> StreamStep {
        let mono_ms = now.mono_ms();
        let mut consumed = 0;
        let (then, deadline_mono_ms) = loop {
            let rest = &input[consumed..];
            match self.serve_one(now, connection, rest, output) {
                Progress::Done(length) => {
                    consumed += length;
                    connection.begin_anew();
                }
                Progress::Closing => {
                    consumed = input.len();
                    connection.pending = Pending::Closed;
                    break (Then::WriteAndClose, mono_ms + self.parameters.write_stall_ms);
                }
                Progress::Partial if rest.is_empty() => break (Then::Read, mono_ms + self.parameters.keep_alive_ms),
                Progress::Partial => {
                    if connection.head_began_mono_ms == 0 {
                        connection.head_began_mono_ms = mono_ms.max(1);
                    }
                    break (Then::Read, connection.head_began_mono_ms + self.parameters.head_timeout_ms);
                }
                Progress::NoRoom => break (Then::Write, mono_ms + self.parameters.write_stall_ms),
                // The wait ends by itself; the connection is given up only if its client then takes no answer.
                Progress::Waiting { deadline_mono_ms } => {
                    break (Then::Wait, deadline_mono_ms.max(mono_ms) + self.parameters.keep_alive_ms);
                }
                Progress::HandOver => {
                    self.counters.hand_overs += 1;
                    break (Then::HandOver, mono_ms + self.parameters.write_stall_ms);
                }
            }
        };
        StreamStep { consumed, then, deadline_mono_ms }
    }

    /// Gives back what a connection that is gone was holding.
    pub(crate) fn abandon(&mut self, connection: &mut HttpConnection) {
        match connection.pending {
            Pending::Wait { place, .. } => {
                self.waiters.end(place);
                self.gauge_waiting();
            }
            Pending::Long { place, .. } => self.long.release(place),
            Pending::Nothing | Pending::Closed => {}
        }
        connection.pending = Pending::Closed;
    }

    /// Gets the foremost request as far as it will go.
    #[inline]
    fn serve_one(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        rest: &[u8],
        output: &mut ReplyBuffer,
    ) -> Progress {
        if connection.pending != Pending::Nothing {
            return self.resume(now, connection, rest, output);
        }
        if rest.is_empty() {
            return Progress::Partial;
        }
        if output.room() < SMALL_REPLY_MAX {
            return Progress::NoRoom;
        }
        if let Some((asset, symbol, length)) = recognise(&self.assets, connection, rest)
            && self.gate.is_current(&mut connection.memory.memo)
        {
            let admitted = self.admit_one(now, connection);
            let is_usual = admitted.refused.is_none() && !self.is_draining;
            if is_usual && self.give_plainly(now, admitted.caller, asset, output).is_some() {
                return Progress::Done(length);
            }
            let asked = Asked::plainly(self.is_draining, length);
            return self.answer_price(
                now,
                connection,
                &asked,
                admitted,
                &Ok(PriceQuery::plain(Symbol::new(symbol))),
                output,
            );
        }
        self.read_request(now, connection, rest, None, output)
    }

    /// Goes on with the request that the connection is in the middle of.
    fn resume(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        rest: &[u8],
        output: &mut ReplyBuffer,
    ) -> Progress {
        match connection.pending {
            Pending::Closed => Progress::Closing,
            Pending::Long { .. } => self.send_long(connection, output),
            Pending::Wait { place, deadline_mono_ms, .. } if self.waiters.is_waiting(place) => {
                Progress::Waiting { deadline_mono_ms }
            }
            // Once it is taken up it is answered or waits on: no answer may need more room than there is.
            Pending::Wait { .. } if !output.is_empty() => Progress::NoRoom,
            Pending::Wait { waited, .. } => {
                self.abandon(connection);
                connection.begin_anew();
                self.read_request(now, connection, rest, Some(waited), output)
            }
            Pending::Nothing => Progress::Partial,
        }
    }

    /// Reads the foremost request from its first byte. `waited`: it was admitted before, and has waited.
    fn read_request(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        rest: &[u8],
        waited: Option<Waited>,
        output: &mut ReplyBuffer,
    ) -> Progress {
        // An empty line before a request is a leftover of the one before it.
        if rest.starts_with(b"\r\n") {
            return Progress::Done(2);
        }
        if let Some((request, length)) = Request::recall(rest)
            && self.gate.is_current(&mut connection.memory.memo)
            && let Some(block) = connection.memory.recognise(&rest[length..])
        {
            return self.judge(now, connection, &request, &rest[..length + block], waited, output);
        }
        let length = match connection.scan.advance(rest) {
            Scanned::Partial => return Progress::Partial,
            Scanned::Refused(problem) => return self.refuse_framing(now, problem, output),
            Scanned::Whole(length) => length,
        };
        connection.scan = request::HeadScan::default();
        let mut space: FieldSpace<'_> = [const { MaybeUninit::uninit() }; _];
        match Request::parse(&rest[..length], &mut space) {
            Ok(request) => self.judge(now, connection, &request, &rest[..length], waited, output),
            Err(problem) => self.refuse_framing(now, problem, output),
        }
    }

    /// Judges a request whose framing is good, and answers it.
    fn judge(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        request: &Request<'_, '_>,
        head: &[u8],
        waited: Option<Waited>,
        output: &mut ReplyBuffer,
    ) -> Progress {
        let asked = Asked {
            request: Some(request),
            is_head: request.method == Method::Head,
            connection: match () {
                () if request.closes() || self.is_draining => ConnectionField::Close,
                () if !request.is_version_11 => ConnectionField::KeepAlive,
                () => ConnectionField::None,
            },
            waited,
            length: head.len(),
        };
        match Route::of(request.target) {
            Route::Elsewhere => Progress::HandOver,
            Route::Price(query) => match self.admit(now, connection, &asked, request, head) {
                Ok(admitted) => self.answer_price(now, connection, &asked, admitted, &query, output),
                Err(objection) => self.object(now, &asked, objection, Endpoint::Price, output),
            },
            Route::Prices(query) => {
                let query = route::PricesQuery::parse(query);
                let is_tight = output.room() < self.prices_reply_max(&query);
                if is_tight && !output.is_empty() {
                    return Progress::NoRoom;
                }
                match self.admit(now, connection, &asked, request, head) {
                    Ok(admitted) => self.answer_prices(now, connection, &asked, admitted, &query, output),
                    Err(objection) => self.object(now, &asked, objection, Endpoint::Prices, output),
                }
            }
        }
    }

    /// Judges method, body and key, and charges the key one request unless that has been done.
    ///
    /// # Errors
    /// The answer to give instead: an error, or (`None`) the methods there are.
    fn admit(
        &mut self,
        now: Moment,
        connection: &mut HttpConnection,
        asked: &Asked<'_>,
        request: &Request<'_, '_>,
        head: &[u8],
    ) -> Result<Admitted, Option<Code>> {
        match request.method {
            Method::Other => return Err(Some(Code::MethodNotAllowed)),
            _ if request.has_body => return Err(Some(Code::BodyNotAllowed)),
            Method::Options => return Err(None),
            Method::Get | Method::Head => {}
        }
        match request.key {
            KeyText::Missing => return Err(Some(Code::KeyMissing)),
            KeyText::Conflicting => return Err(Some(Code::KeyInvalid)),
            KeyText::Remembered => {}
            KeyText::Given(text) => self.identify(connection, request, text, head).ok_or(Some(Code::KeyInvalid))?,
        }
        Ok(match asked.waited {
            Some(waited) => self.gate.check_charged(&connection.memory.memo, now, waited.left),
            None => self.admit_one(now, connection),
        })
    }

    /// Charges the key of the connection's memory one request, unless it is refused or the connection is shed.
    #[inline]
    fn admit_one(&mut self, now: Moment, connection: &mut HttpConnection) -> Admitted {
        if !self.governor.is_counted(connection.counted_in)
            && let Some(shed) = self.count_active(now, connection)
        {
            return shed;
        }
        self.gate.admit(&mut connection.memory.memo, now)
    }

    /// Counts the connection as active in this window, if its key may ask at all. Answers the refusal when it is shed:
    /// nothing is charged for it.
    #[cold]
    fn count_active(&mut self, now: Moment, connection: &mut HttpConnection) -> Option<Admitted> {
        let checked = self.gate.check(&connection.memory.memo, now);
        let rank = self.gate.rank(&connection.memory.memo);
        let is_in = checked.refused.is_some() || self.governor.enter(&mut connection.counted_in, rank);
        (!is_in).then_some(Admitted { refused: Some(Code::Overloaded), ..checked })
    }

    /// Finds the key with this text, unless it is the one of the connection's last request; and remembers it.
    fn identify(
        &self,
        connection: &mut HttpConnection,
        request: &Request<'_, '_>,
        text: &[u8],
        head: &[u8],
    ) -> Option<()> {
        let memory = &mut connection.memory;
        let is_known = self.gate.is_current(&mut memory.memo) && memory.key_text() == text;
        if !is_known || request.is_memorable {
            let memo = if is_known { memory.memo } else { self.gate.identify(text)? };
            let line_end = head.iter().position(|byte| *byte == b'\n').map_or(head.len(), |at| at + 1);
            let block = (request.is_memorable && request.is_version_11).then_some(&head[line_end..]);
            memory.remember(block, text, memo);
        }
        Some(())
    }

    fn object(
        &mut self,
        now: Moment,
        asked: &Asked<'_>,
        objection: Option<Code>,
        endpoint: Endpoint,
        output: &mut ReplyBuffer,
    ) -> Progress {
        let Some(code) = objection else {
            return self.answer_options(now, asked, endpoint, output);
        };
        let mut asked = *asked;
        // A body that nobody reads would be taken for the next request.
        if asked.request.is_some_and(|request| request.has_body) {
            asked.connection = ConnectionField::Close;
        }
        self.refuse(now, &asked, Caller::NOBODY, Problem::of(code), None, endpoint, output)
    }

    pub(crate) fn refuse_framing(&mut self, now: Moment, problem: Problem, output: &mut ReplyBuffer) -> Progress {
        let asked = Asked { connection: ConnectionField::Close, ..Asked::plainly(true, 0) };
        self.refuse(now, &asked, Caller::NOBODY, problem, None, Endpoint::Other, output)
    }

    /// Longest reply to this request, unless it is kept and sent in pieces.
    fn prices_reply_max(&self, query: &Result<route::PricesQuery, Problem>) -> usize {
        let assets = match query {
            Ok(query) if query.all => ASSETS_PER_REQUEST_MAX,
            Ok(query) => query.assets.symbols().len(),
            Err(_) => 0,
        };
        SMALL_REPLY_MAX + assets * crate::limits::PRICE_BODY_MAX
    }
}

/// The most frequent request by far, without reading it: `GET /price?asset=SYMBOL` with the very header block that the
/// connection's last request had. Answers the asset, its symbol as it was written, and the length of the head.
#[inline]
fn recognise<'a>(
    assets: &AssetDirectory,
    connection: &HttpConnection,
    rest: &'a [u8],
) -> Option<(AssetId, &'a [u8], usize)> {
    const BEFORE: &[u8] = b"GET /price?asset=";
    const AFTER: &[u8] = b" HTTP/1.1\r\n";
    let text = rest.strip_prefix(BEFORE)?;
    // So many bytes always follow in a whole request.
    let (asset, end) = assets.find_before_space(text.first_chunk()?)?;
    let (symbol, after) = text.split_at(end);
    let block = connection.memory.recognise(after.strip_prefix(AFTER)?)?;
    Some((asset, symbol, BEFORE.len() + end + AFTER.len() + block))
}
