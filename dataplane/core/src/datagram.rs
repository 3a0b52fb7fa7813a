//! Datagrams: which are answered at all, and in which of the two encodings.
//!
//! Nobody's address is proven here, so silence is the usual refusal: who has not shown a key gets nothing, and an error
//! is never longer than the request that caused it.

mod binary;
mod json;
mod json_reader;
mod known;
mod mac;
mod waiting;

pub(crate) use known::KnownKeys;
pub(crate) use waiting::WaitingDatagrams;

use crate::access::Caller;
use crate::limits::LOOKUP_WAIT_MS;
use crate::lookups::Seeker;
use crate::shard::{Answered, DatagramStep, DatagramTicket, Shard};
use crate::waiters::{Awaited, Who};
use core::net::SocketAddr;
use shared::asset::AssetId;
use shared::code::Code;
use shared::key::KeyId;
use shared::limits::DATAGRAM_IN_MAX;
use shared::moment::Moment;
use shared::usage::{Endpoint, PROTOCOL_UDP};
use shared::wire::{REPLY_MAGIC, REQUEST_MAGIC};
use waiting::Waited;

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
            return self.answer_binary(now, request, None, reply);
        }
        match request.first() {
            Some(b'{') => self.answer_json(now, request, None, reply),
            _ => self.stay_silent(Code::RequestMalformed),
        }
    }

    /// Takes a datagram up that has waited.
    pub(crate) fn answer_waiting(&mut self, now: Moment, ticket: DatagramTicket, reply: &mut [u8]) -> DatagramStep {
        let Some((kept, waited, wait)) = self.waiting_datagrams.find(ticket) else { return DatagramStep::Silent };
        if self.waiters.is_waiting(wait) {
            return DatagramStep::Wait(ticket);
        }
        self.waiters.end(wait);
        let request = kept.request();
        let step = match request.first() {
            Some(b'{') => self.answer_json(now, request, Some(waited), reply),
            _ => self.answer_binary(now, request, Some(waited), reply),
        };
        if !matches!(step, DatagramStep::Wait(_)) {
            self.waiting_datagrams.release(ticket);
        }
        self.gauge_waiting();
        step
    }

    /// A datagram of `key` that has something looked up.
    fn seeker_of_datagram(&self, key: KeyId, waited: Option<Waited>) -> Seeker {
        let since_mono_ms = waited.map(|waited| waited.since_mono_ms);
        // One that has waited holds its place.
        Seeker { key, since_mono_ms, may_wait: waited.is_some() || self.waiting_datagrams.have_room_for(key) }
    }

    /// Lets a datagram wait for a lookup.
    ///
    /// # Errors
    /// `overloaded` when as many wait as may, or as many of this key.
    fn wait_datagram(
        &mut self,
        now: Moment,
        key: KeyId,
        request: &[u8],
        waited: Option<Waited>,
        awaited: Awaited,
    ) -> Result<DatagramTicket, Code> {
        let mono_ms = now.mono_ms();
        let kept = waited.map(|waited| waited.ticket).or_else(|| self.waiting_datagrams.keep(key, request, mono_ms));
        let ticket = kept.ok_or(Code::Overloaded)?;
        let deadline_mono_ms = waited.map_or(mono_ms, |waited| waited.since_mono_ms) + LOOKUP_WAIT_MS;
        match self.waiters.begin(Who::Datagram(ticket), awaited, deadline_mono_ms) {
            Some(wait) => self.waiting_datagrams.set_wait(ticket, wait),
            // It cannot be: there are as many places as tickets.
            None if waited.is_none() => {
                self.waiting_datagrams.release(ticket);
                return Err(Code::Overloaded);
            }
            None => return Err(Code::Overloaded),
        }
        self.gauge_waiting();
        Ok(ticket)
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
