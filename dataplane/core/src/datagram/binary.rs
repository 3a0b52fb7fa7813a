//! The binary datagram: 64 bytes each way, proven by a MAC under the key's own UDP secret.
//!
//! Nothing is answered before the MAC has been found good, and nothing is charged before the request's time has been:
//! a replayed datagram older than the permitted skew costs its key nothing.

use super::known::{Known, KnownKeys};
use super::waiting::Waited;
use crate::access::Caller;
use crate::lookups::Sought;
use crate::shard::{DatagramStep, DatagramTicket, Missing, Shard};
use crate::waiters::Awaited;
use shared::asset::{AssetId, Symbol};
use shared::code::Code;
use shared::key::KeyId;
use shared::moment::Moment;
use shared::tick::{TICK_CONVERTED, TICK_SIMULATED, TICK_STALE, Tick};
use shared::usage::Endpoint;
use shared::wire::{
    CLOCK_SKEW_MS_MAX, FLAG_CONVERTED, FLAG_SIMULATED, FLAG_STALE, FRAME_SIZE, KIND_PRICE, REPLY_MAC_COVERS,
    REPLY_MAGIC, REQUEST_MAC_COVERS, REQUEST_MAGIC, VERSION,
};

/// Words of a frame. A frame is read and written as words: it fits the registers, and its MAC is over words.
const WORDS: usize = FRAME_SIZE / size_of::<u64>();

/// Words that the MACs cover.
const REQUEST_COVERED: usize = REQUEST_MAC_COVERS / size_of::<u64>();
const REPLY_COVERED: usize = REPLY_MAC_COVERS / size_of::<u64>();

/// What the first half of a good request's first word is: magic, version, kind. The other half is the key's number.
const REQUEST_HEAD: u32 = REQUEST_MAGIC as u32 | (VERSION as u32) << 16 | (KIND_PRICE as u32) << 24;

/// What the first word of every reply begins with: magic, version.
const REPLY_HEAD: u64 = REPLY_MAGIC as u64 | (VERSION as u64) << 16;

/// The words of a request, in the order of the wire: the layout is that of `shared::wire::RequestFrame`.
struct Request {
    words: [u64; WORDS],
}

/// What a frame is answered with.
struct Outcome {
    caller: Caller,
    asset: Option<AssetId>,
    /// The price's words, or why there is none.
    given: Result<[u64; REPLY_COVERED], Code>,
}

impl Shard {
    /// Answers a datagram with the request magic.
    pub(super) fn answer_binary(
        &mut self,
        now: Moment,
        bytes: &[u8],
        waited: Option<Waited>,
        reply: &mut [u8],
    ) -> DatagramStep {
        let Some(request) = Request::read(bytes) else { return self.stay_silent(Code::RequestMalformed) };
        let Some(place) = self.prove(&request) else { return self.stay_silent(Code::KeyInvalid) };
        let known = self.known_keys.at(place);
        let mac = known.mac;
        // One that has waited was good when it came, and is charged.
        let fault = if waited.is_some() { None } else { request.fault(now) };
        let admitted = match fault {
            None if waited.is_none() => self.gate.admit(&mut known.memo, now),
            _ => self.gate.check_charged(&known.memo, now, 0),
        };
        if admitted.refused == Some(Code::KeyInvalid) {
            return self.stay_silent(Code::KeyInvalid);
        }
        let (asset, mut given) = match fault.or(admitted.refused) {
            Some(code) => (None, Err(code)),
            None => self.find_words(&request),
        };
        // Only looking for the price ends in these.
        if let Err(code @ (Code::AssetUnknown | Code::PriceUnavailable | Code::PriceStale)) = given {
            match self.seek_binary(now, admitted.caller, &request, (code, asset), bytes, waited) {
                Ok(ticket) => return DatagramStep::Wait(ticket),
                Err(code) => given = Err(code),
            }
        }
        let outcome = Outcome { caller: admitted.caller, asset, given };
        let Some(target) = reply.first_chunk_mut::<FRAME_SIZE>() else { return self.stay_silent(Code::Overloaded) };
        // A refusal has nothing in it but its status and the request's id.
        let refusal = |code: Code| [REPLY_HEAD | u64::from(code.number()) << 24, 0, 0, 0, 0, 0, 0];
        let mut words = outcome.given.unwrap_or_else(refusal);
        words[1] = request.id();
        write(target, &words, mac.half(&words));
        self.book_datagram(now, outcome.caller, outcome.asset, outcome.given.err(), Endpoint::DatagramBinary);
        DatagramStep::Reply(FRAME_SIZE)
    }

    /// Has the asset looked up, and lets the request wait for it.
    ///
    /// # Errors
    /// What to answer when nothing comes of waiting.
    #[cold]
    fn seek_binary(
        &mut self,
        now: Moment,
        caller: Caller,
        request: &Request,
        missing: Missing,
        bytes: &[u8],
        waited: Option<Waited>,
    ) -> Result<DatagramTicket, Code> {
        let symbol = Symbol::from_padded(request.asset()).ok_or(Code::AssetInvalid)?;
        let seeker = self.seeker_of_datagram(caller.key, waited);
        match self.seek(now, seeker, &symbol, missing) {
            Sought::UnderWay(place) => {
                self.wait_datagram(now, caller.key, bytes, waited, Awaited::Lookup(place, false))
            }
            Sought::Over(code) => Err(code),
        }
    }

    /// The place where the key of this request is remembered from now on; `None` for an unknown number or a wrong MAC,
    /// either of which leaves that place as it was.
    #[inline]
    fn prove(&mut self, request: &Request) -> Option<usize> {
        let id = request.key();
        let place = KnownKeys::place(id);
        let known = self.known_keys.at(place);
        let mut newcomer = None;
        if !(known.is(id) && self.gate.is_current(&mut known.memo)) {
            let (memo, record) = self.gate.identify_id(id)?;
            newcomer = Some(Known::new(id, memo, &record.udp_secret));
        }
        let mac = newcomer.as_ref().unwrap_or(known).mac;
        if !request.is_proven(mac.full(request.covered())) {
            return None;
        }
        if let Some(newcomer) = newcomer {
            *known = newcomer;
        }
        Some(place)
    }

    /// The asset a request is about, as far as it is known, and the words of its price.
    #[inline]
    fn find_words(&self, request: &Request) -> (Option<AssetId>, Result<[u64; REPLY_COVERED], Code>) {
        let asset = request.asset();
        // Sixteen bytes that the directory has are a symbol. Only of others it must be told what is wrong with them.
        match self.find_price(&bytemuck::cast(asset), false) {
            Ok(asset) => {
                let words = self.table.row(asset).map(|row| reply_words(row.tick()));
                (Some(asset), words.ok_or(Code::PriceUnavailable))
            }
            Err((Code::AssetUnknown, None)) if Symbol::from_padded(asset).is_none() => (None, Err(Code::AssetInvalid)),
            Err((code, asset)) => (asset, Err(code)),
        }
    }
}

impl Request {
    /// Reads a frame; `None` when that is not its length.
    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
        let words: [u64; WORDS] = bytemuck::try_pod_read_unaligned(bytes).ok()?;
        Some(Self { words: words.map(u64::from_le) })
    }

    #[inline]
    const fn key(&self) -> KeyId {
        KeyId((self.words[0] >> 32) as u32)
    }

    #[inline]
    const fn id(&self) -> u64 {
        self.words[1]
    }

    #[inline]
    fn asset(&self) -> [u8; 16] {
        bytemuck::cast([self.words[3].to_le(), self.words[4].to_le()])
    }

    #[inline]
    fn covered(&self) -> &[u64; REQUEST_COVERED] {
        let [covered @ .., _, _, _] = &self.words;
        covered
    }

    /// Whether this MAC is the one the request bears: in a time that does not depend on where they differ.
    #[inline]
    const fn is_proven(&self, mac: [u64; 2]) -> bool {
        (mac[0] ^ self.words[5]) | (mac[1] ^ self.words[6]) == 0
    }

    /// What is wrong with a request whose MAC is good.
    #[inline]
    fn fault(&self, now: Moment) -> Option<Code> {
        if self.words[0] as u32 != REQUEST_HEAD || self.words[7] != 0 {
            return Some(Code::RequestMalformed);
        }
        (self.words[2].abs_diff(now.wall_ms) > CLOCK_SKEW_MS_MAX).then_some(Code::ClockSkew)
    }
}

/// The words of a price, the request's id left out: the layout is that of `shared::wire::ReplyFrame`.
#[inline]
fn reply_words(tick: &Tick) -> [u64; REPLY_COVERED] {
    // The price's own exponent, which is the tick's brought into the range that prices have.
    let exponent = tick.price().exponent().to_le_bytes()[0];
    let shown = u64::from(wire_flags(tick.flags)) << 32 | u64::from(exponent) << 48 | (tick.currency() as u64) << 56;
    let venues = tick.venue_set();
    let behind = u64::from(venues.len()) | u64::from(venues.bits()) << 16 | u64::from(tick.spread_centibps) << 32;
    let mantissa = tick.mantissa.cast_unsigned();
    [REPLY_HEAD | shown, 0, tick.sequence, mantissa, tick.exchange_time_ms, tick.received_time_ms, behind]
}

#[inline]
fn write(target: &mut [u8; FRAME_SIZE], words: &[u64; REPLY_COVERED], mac: u64) {
    for (bytes, word) in target.chunks_exact_mut(size_of::<u64>()).zip(words.iter().chain([&mac])) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

const fn wire_flags(flags: u16) -> u16 {
    // The same three bits in the same order: one mask.
    const SHOWN: u16 = TICK_STALE | TICK_CONVERTED | TICK_SIMULATED;
    const _: () =
        assert!(TICK_STALE == FLAG_STALE && TICK_CONVERTED == FLAG_CONVERTED && TICK_SIMULATED == FLAG_SIMULATED);
    flags & SHOWN
}
