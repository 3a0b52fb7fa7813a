//! The JSON datagram: an object with a key, a price or up to eight of them back.
//!
//! A reply is never more than three times its request, and an error never longer than its request; what would be is
//! `reply_too_long`, or silence. Several assets are looked up and answered as far as they can be: the others are `missing`,
//! which is not to say unknown (see `http::prices`), unless one of them could not be looked for (`overloaded`, `draining`).

use super::json_reader::{AssetSpace, JsonRequest, RawText, decode};
use super::waiting::Waited;
use crate::access::Caller;
use crate::render::problem::push_datagram_error;
use crate::render::{Writer, push_short_form};
use crate::shard::{DatagramStep, DatagramTicket, Missing, Shard};
use crate::waiters::Awaited;
use shared::asset::{AssetId, Symbol};
use shared::code::Code;
use shared::limits::{ASSETS_PER_DATAGRAM_MAX, DATAGRAM_OUT_MAX, KEY_TEXT_MAX, SYMBOL_MAX};
use shared::moment::Moment;
use shared::usage::Endpoint;

/// How many times its request a reply may be.
const REPLY_FACTOR_MAX: usize = 3;

/// Why there is no answer, and about which asset.
type Refused = Missing;

/// An answer that was written.
struct Written {
    /// The asset, if it is about a single one.
    asset: Option<AssetId>,
    length: usize,
    /// How many of the assets have no price to give.
    missing: usize,
}

impl Shard {
    /// Answers a datagram that begins with a brace.
    pub(super) fn answer_json(
        &mut self,
        now: Moment,
        bytes: &[u8],
        waited: Option<Waited>,
        reply: &mut [u8],
    ) -> DatagramStep {
        let mut space: AssetSpace<'_> = [&[]; ASSETS_PER_DATAGRAM_MAX];
        let Some(request) = JsonRequest::read(bytes, &mut space) else {
            return self.stay_silent(Code::RequestMalformed);
        };
        let mut key_space = [0; KEY_TEXT_MAX];
        let memo = match request.key.map(|raw| decode(raw, &mut key_space).and_then(|text| self.gate.identify(text))) {
            None => return self.stay_silent(Code::KeyMissing),
            Some(None) => return self.stay_silent(Code::KeyInvalid),
            Some(Some(memo)) => memo,
        };
        let mut memo = memo;
        let admitted = match waited {
            Some(_) => self.gate.check_charged(&memo, now, 0),
            None => self.gate.admit(&mut memo, now),
        };
        let refused = admitted.refused.or(request.fault);
        let room = (bytes.len() * REPLY_FACTOR_MAX).min(DATAGRAM_OUT_MAX).min(reply.len());
        let outcome = match refused {
            Some(Code::KeyInvalid) => return self.stay_silent(Code::KeyInvalid),
            Some(code) => Err((code, None)),
            None => match self.write_prices(now, &request, &mut reply[..room]) {
                written if is_whole(&written) => written.map(|written| (written.asset, written.length)),
                written => match self.seek_json(now, admitted.caller, &request, written, bytes, waited) {
                    Ok(ticket) => return DatagramStep::Wait(ticket),
                    Err(outcome) => outcome,
                },
            },
        };
        match outcome {
            Ok((asset, length)) => {
                self.book_datagram(now, admitted.caller, asset, None, Endpoint::DatagramJson);
                DatagramStep::Reply(length)
            }
            Err(refused) => self.write_error(now, admitted.caller, request.id, refused, bytes.len(), reply),
        }
    }

    /// Has what is missing looked up, and lets the request wait for it.
    ///
    /// # Errors
    /// What to answer when nothing comes of waiting.
    #[cold]
    fn seek_json(
        &mut self,
        now: Moment,
        caller: Caller,
        request: &JsonRequest<'_>,
        written: Result<Written, Refused>,
        bytes: &[u8],
        waited: Option<Waited>,
    ) -> Result<DatagramTicket, Result<(Option<AssetId>, usize), Refused>> {
        let seeker = self.seeker_of_datagram(caller.key, waited);
        let outcome = written.map(|written| (written.asset, written.length));
        let single = request.asset.as_ref().map(core::slice::from_ref);
        let raws = single.or(request.assets).unwrap_or_default();
        let symbols = raws.iter().filter_map(|raw| symbol(raw).ok());
        match self.seek_each(now, seeker, symbols, request.allow_stale, single.is_some()) {
            Ok(Some(place)) => {
                let asset = outcome.map_or_else(|(_, asset)| asset, |(asset, _)| asset);
                let awaited = Awaited::Lookup(place, request.allow_stale);
                self.wait_datagram(now, caller.key, bytes, waited, awaited).map_err(|code| Err((code, asset)))
            }
            Ok(None) => Err(outcome),
            Err((_, refused)) => Err(Err(refused)),
        }
    }

    /// Writes the answer.
    fn write_prices(&mut self, now: Moment, request: &JsonRequest<'_>, reply: &mut [u8]) -> Result<Written, Refused> {
        let mut writer = Writer::new(reply);
        writer.push(b"{");
        if let Some(id) = request.id {
            writer.push(b"\"id\":");
            writer.push_number(id);
            writer.push(b",");
        }
        let (asset, missing) = match (request.asset, request.assets) {
            (Some(raw), _) => (Some(self.write_one(now, raw, request.allow_stale, &mut writer)?), 0),
            (None, Some([])) | (None, None) => return Err((Code::AssetMissing, None)),
            (None, Some(several)) => (None, self.write_several(now, several, request.allow_stale, &mut writer)?),
        };
        let length = writer.finish().ok_or((Code::ReplyTooLong, asset))?;
        Ok(Written { asset, length, missing })
    }

    fn write_one(
        &self,
        now: Moment,
        raw: RawText<'_>,
        allow_stale: bool,
        writer: &mut Writer<'_>,
    ) -> Result<AssetId, Refused> {
        let asset = self.find_price(&symbol(raw)?, allow_stale)?;
        self.push_price(now, asset, writer);
        Ok(asset)
    }

    /// Appends the price of an asset that has one, from behind its opening brace.
    fn push_price(&self, now: Moment, asset: AssetId, writer: &mut Writer<'_>) {
        if let (Some(row), Some(entry)) = (self.table.row(asset), self.assets.entry(asset)) {
            push_short_form(writer, &entry.symbol, row.tick(), row.age_ms(now));
        }
    }

    /// Answers how many are missing.
    fn write_several(
        &mut self,
        now: Moment,
        several: &[RawText<'_>],
        allow_stale: bool,
        writer: &mut Writer<'_>,
    ) -> Result<usize, Refused> {
        writer.push(b"\"generation\":");
        writer.push_number(self.table.generation());
        writer.push(b",\"prices\":[");
        let mut given = 0;
        for raw in several {
            if let Ok(asset) = self.find_price(&symbol(raw)?, allow_stale) {
                writer.push(if given == 0 { b"{" } else { b",{" });
                self.push_price(now, asset, writer);
                let _hint = self.table.note_use(asset);
                given += 1;
            }
        }
        writer.push(b"],\"missing\":[");
        let mut missing = 0;
        for raw in several {
            let symbol = symbol(raw)?;
            if self.find_price(&symbol, allow_stale).is_err() {
                writer.push(if missing == 0 { b"\"" } else { b",\"" });
                writer.push(symbol.as_str().as_bytes());
                writer.push(b"\"");
                missing += 1;
            }
        }
        writer.push(b"]}");
        Ok(missing)
    }

    /// Answers with an error, if that is not longer than the request.
    fn write_error(
        &mut self,
        now: Moment,
        caller: Caller,
        id: Option<u64>,
        (code, asset): Refused,
        request_length: usize,
        reply: &mut [u8],
    ) -> DatagramStep {
        let room = request_length.min(reply.len());
        let mut writer = Writer::new(&mut reply[..room]);
        push_datagram_error(&mut writer, id, code);
        match writer.finish() {
            Some(length) => {
                self.book_datagram(now, caller, asset, Some(code), Endpoint::DatagramJson);
                DatagramStep::Reply(length)
            }
            None => self.stay_silent(code),
        }
    }
}

/// Whether nothing is left to look up: all prices are there, or what is wrong would be so with any price.
const fn is_whole(written: &Result<Written, Refused>) -> bool {
    match written {
        Ok(written) => written.missing == 0,
        Err((code, _)) => !matches!(code, Code::AssetUnknown | Code::PriceUnavailable | Code::PriceStale),
    }
}

fn symbol(raw: RawText<'_>) -> Result<Symbol, Refused> {
    if raw.is_empty() {
        return Err((Code::AssetMissing, None));
    }
    let mut space = [0; SYMBOL_MAX];
    decode(raw, &mut space).and_then(Symbol::new).ok_or((Code::AssetInvalid, None))
}
