//! The JSON datagram: an object with a key, a price or up to eight of them back.
//!
//! A reply is never more than three times its request, and an error never longer than its request; what would be is
//! `reply_too_long`, or silence. Several assets are answered as far as they can be: the others are `missing`.

use super::json_reader::{AssetSpace, JsonRequest, RawText, decode};
use crate::access::Caller;
use crate::render::problem::push_datagram_error;
use crate::render::{Writer, push_short_form};
use crate::shard::{DatagramStep, Shard};
use shared::asset::{AssetId, Symbol};
use shared::code::Code;
use shared::limits::{ASSETS_PER_DATAGRAM_MAX, DATAGRAM_OUT_MAX, KEY_TEXT_MAX, SYMBOL_MAX};
use shared::moment::Moment;
use shared::usage::Endpoint;

/// How many times its request a reply may be.
const REPLY_FACTOR_MAX: usize = 3;

/// Why there is no answer, and about which asset.
type Refused = (Code, Option<AssetId>);

impl Shard {
    /// Answers a datagram that begins with a brace.
    pub(crate) fn answer_json(&mut self, now: Moment, bytes: &[u8], reply: &mut [u8]) -> DatagramStep {
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
        let admitted = self.gate.admit(&mut memo, now);
        let refused = admitted.refused.or(request.fault);
        let room = (bytes.len() * REPLY_FACTOR_MAX).min(DATAGRAM_OUT_MAX).min(reply.len());
        let outcome = match refused {
            Some(Code::KeyInvalid) => return self.stay_silent(Code::KeyInvalid),
            Some(code) => Err((code, None)),
            None => self.write_prices(now, &request, &mut reply[..room]),
        };
        match outcome {
            Ok((asset, length)) => {
                self.book_datagram(now, admitted.caller, asset, None, Endpoint::DatagramJson);
                DatagramStep::Reply(length)
            }
            Err(refused) => self.write_error(now, admitted.caller, request.id, refused, bytes.len(), reply),
        }
    }

    /// Writes the answer. Answers its length, and the asset if it is about a single one.
    fn write_prices(
        &self,
        now: Moment,
        request: &JsonRequest<'_>,
        reply: &mut [u8],
    ) -> Result<(Option<AssetId>, usize), Refused> {
        let mut writer = Writer::new(reply);
        writer.push(b"{");
        if let Some(id) = request.id {
            writer.push(b"\"id\":");
            writer.push_number(id);
            writer.push(b",");
        }
        let asset = match (request.asset, request.assets) {
            (Some(raw), _) => Some(self.write_one(now, raw, request.allow_stale, &mut writer)?),
            (None, Some([])) | (None, None) => return Err((Code::AssetMissing, None)),
            (None, Some(several)) => {
                self.write_several(now, several, request.allow_stale, &mut writer)?;
                None
            }
        };
        let length = writer.finish().ok_or((Code::ReplyTooLong, asset))?;
        Ok((asset, length))
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

    fn write_several(
        &self,
        now: Moment,
        several: &[RawText<'_>],
        allow_stale: bool,
        writer: &mut Writer<'_>,
    ) -> Result<(), Refused> {
        writer.push(b"\"generation\":");
        writer.push_number(self.table.generation());
        writer.push(b",\"prices\":[");
        let mut given = 0;
        for raw in several {
            if let Ok(asset) = self.find_price(&symbol(raw)?, allow_stale) {
                writer.push(if given == 0 { b"{" } else { b",{" });
                self.push_price(now, asset, writer);
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
        Ok(())
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

fn symbol(raw: RawText<'_>) -> Result<Symbol, Refused> {
    if raw.is_empty() {
        return Err((Code::AssetMissing, None));
    }
    let mut space = [0; SYMBOL_MAX];
    decode(raw, &mut space).and_then(Symbol::new).ok_or((Code::AssetInvalid, None))
}
