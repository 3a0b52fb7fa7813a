//! Datagrams: which are answered at all, and in which of the two encodings.
//!
//! Nobody's address is proven here, so silence is the usual refusal: who has not shown a key gets nothing, and an error
//! is never longer than the request that caused it.

mod binary;
mod json;
mod json_reader;
mod known;
mod mac;

pub(crate) use known::KnownKeys;

use crate::access::Caller;
use crate::shard::{Answered, DatagramStep, Shard};
use core::net::SocketAddr;
use shared::asset::AssetId;
use shared::code::Code;
use shared::limits::DATAGRAM_IN_MAX;
use shared::moment::Moment;
use shared::usage::{Endpoint, PROTOCOL_UDP};
use shared::wire::{REPLY_MAGIC, REQUEST_MAGIC};

/// Source ports of services that answer anything: an answer to them would come back as a request.
const REFLECTOR_PORTS: [u16; 9] = [0, 7, 13, 17, 19, 53, 123, 1_900, 11_211];

impl Shard {
    /// Answers one datagram, or stays silent.
    pub(crate) fn answer_datagram(
        &mut self,
        now: Moment,
        from: SocketAddr,
        request: &[u8],
        reply: &mut [u8],
    ) -> DatagramStep {
        let is_reflected = REFLECTOR_PORTS.contains(&from.port()) || request.starts_with(&REPLY_MAGIC.to_le_bytes());
        if is_reflected || request.len() > DATAGRAM_IN_MAX {
            return self.stay_silent(Code::RequestMalformed);
        }
        if request.starts_with(&REQUEST_MAGIC.to_le_bytes()) {
            return self.answer_binary(now, request, reply);
        }
        match request.first() {
            Some(b'{') => self.answer_json(now, request, reply),
            _ => self.stay_silent(Code::RequestMalformed),
        }
    }

    /// Says nothing, and counts why.
    pub(crate) fn stay_silent(&mut self, code: Code) -> DatagramStep {
        self.counters.refuse(code);
        DatagramStep::Silent
    }

    /// Counts one datagram that is answered.
    pub(crate) fn book_datagram(
        &mut self,
        now: Moment,
        caller: Caller,
        asset: Option<AssetId>,
        code: Option<Code>,
        endpoint: Endpoint,
    ) {
        let row = asset.and_then(|asset| self.table.row(asset));
        let answered = Answered {
            key: caller.key,
            asset,
            status: code.map_or(200, Code::status),
            code,
            tier: row.map_or(0, |row| row.tick().tier),
            protocol: PROTOCOL_UDP,
            endpoint,
        };
        self.book(now, answered);
    }
}
