//! The binary datagram: 64 bytes each way, proven by a MAC under the key's own UDP secret.
//!
//! Nothing is answered before the MAC has been found good, and nothing is charged before the request's time has been:
//! a replayed datagram older than the permitted skew costs its key nothing.

use crate::access::{Caller, same_secret};
use crate::shard::{DatagramStep, Shard};
use core::hash::Hasher;
use shared::asset::{AssetId, Symbol};
use shared::code::Code;
use shared::key::KeyId;
use shared::moment::Moment;
use shared::tick::{TICK_CONVERTED, TICK_SIMULATED, TICK_STALE, Tick};
use shared::usage::Endpoint;
use shared::wire::{
    CLOCK_SKEW_MS_MAX, FLAG_CONVERTED, FLAG_SIMULATED, FLAG_STALE, FRAME_SIZE, KIND_PRICE, REPLY_MAC_COVERS,
    REPLY_MAGIC, REQUEST_MAC_COVERS, ReplyFrame, RequestFrame, VERSION,
};
use siphasher::sip128::{Hasher128, SipHasher24};

/// SipHash-2-4 with 128-bit output, in the reference implementation's byte order.
pub(crate) fn mac(secret: &[u8; 16], covered: &[u8]) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write(covered);
    hasher.finish128().as_bytes()
}

/// What a frame is answered with.
struct Outcome {
    caller: Caller,
    asset: Option<AssetId>,
    /// The price, or why there is none.
    given: Result<Tick, Code>,
}

impl Shard {
    /// Answers a datagram with the request magic.
    pub(crate) fn answer_binary(&mut self, now: Moment, request: &[u8], reply: &mut [u8]) -> DatagramStep {
        let Ok(frame) = bytemuck::try_pod_read_unaligned::<RequestFrame>(request) else {
            return self.stay_silent(Code::RequestMalformed);
        };
        let Some((memo, record)) = self.gate.identify_id(KeyId(u32::from_le_bytes(frame.key_id))) else {
            return self.stay_silent(Code::KeyInvalid);
        };
        let secret = record.udp_secret;
        if !same_secret(&mac(&secret, &request[..REQUEST_MAC_COVERS]), &frame.mac) {
            return self.stay_silent(Code::KeyInvalid);
        }
        let checked = self.gate.check(&memo, now);
        if checked.refused == Some(Code::KeyInvalid) {
            return self.stay_silent(Code::KeyInvalid);
        }
        let mut memo = memo;
        let outcome = match frame_fault(&frame, now) {
            Some(code) => Outcome { caller: checked.caller, asset: None, given: Err(code) },
            None => {
                let admitted = self.gate.admit(&mut memo, now);
                let (asset, given) = match admitted.refused {
                    Some(code) => (None, Err(code)),
                    None => self.find_tick(&frame),
                };
                Outcome { caller: admitted.caller, asset, given }
            }
        };
        let Some(target) = reply.get_mut(..FRAME_SIZE) else {
            return self.stay_silent(Code::Overloaded);
        };
        target.copy_from_slice(bytemuck::bytes_of(&reply_frame(&frame, &outcome.given, &secret)));
        self.book_datagram(now, outcome.caller, outcome.asset, outcome.given.err(), Endpoint::DatagramBinary);
        DatagramStep::Reply(FRAME_SIZE)
    }

    fn find_tick(&self, frame: &RequestFrame) -> (Option<AssetId>, Result<Tick, Code>) {
        let Some(symbol) = Symbol::from_padded(frame.asset) else { return (None, Err(Code::AssetInvalid)) };
        match self.find_price(&symbol, false) {
            Ok(asset) => {
                let tick = self.table.row(asset).map(|row| *row.tick());
                (Some(asset), tick.ok_or(Code::PriceUnavailable))
            }
            Err((code, asset)) => (asset, Err(code)),
        }
    }
}

/// What is wrong with a frame whose MAC is good.
fn frame_fault(frame: &RequestFrame, now: Moment) -> Option<Code> {
    if frame.version != VERSION || frame.kind != KIND_PRICE || frame.zero != [0; 8] {
        return Some(Code::RequestMalformed);
    }
    let skew_ms = u64::from_le_bytes(frame.client_time_ms).abs_diff(now.wall_ms);
    (skew_ms > CLOCK_SKEW_MS_MAX).then_some(Code::ClockSkew)
}

/// The answer: a refusal has nothing in it but its status and the request's id.
fn reply_frame(request: &RequestFrame, given: &Result<Tick, Code>, secret: &[u8; 16]) -> ReplyFrame {
    let mut frame = ReplyFrame {
        magic: REPLY_MAGIC.to_le_bytes(),
        version: VERSION,
        status: 0,
        flags: [0; 2],
        exponent: 0,
        currency: 0,
        request_id: request.request_id,
        sequence: [0; 8],
        mantissa: [0; 8],
        exchange_time_ms: [0; 8],
        received_time_ms: [0; 8],
        sources: [0; 2],
        venues: [0; 2],
        spread_centibps: [0; 4],
        mac: [0; 8],
    };
    match given {
        Ok(tick) => {
            frame.flags = wire_flags(tick.flags).to_le_bytes();
            // The price's own exponent, which is the tick's brought into the range that prices have.
            frame.exponent = tick.price().exponent().to_le_bytes()[0];
            frame.currency = tick.currency() as u8;
            frame.sequence = tick.sequence.to_le_bytes();
            frame.mantissa = tick.mantissa.to_le_bytes();
            frame.exchange_time_ms = tick.exchange_time_ms.to_le_bytes();
            frame.received_time_ms = tick.received_time_ms.to_le_bytes();
            frame.sources = tick.venue_set().len().to_le_bytes();
            frame.venues = tick.venue_set().bits().to_le_bytes();
            frame.spread_centibps = tick.spread_centibps.to_le_bytes();
        }
        Err(code) => frame.status = code.number(),
    }
    let full = mac(secret, &bytemuck::bytes_of(&frame)[..REPLY_MAC_COVERS]);
    frame.mac.copy_from_slice(&full[..8]);
    frame
}

fn wire_flags(flags: u16) -> u16 {
    [(TICK_STALE, FLAG_STALE), (TICK_CONVERTED, FLAG_CONVERTED), (TICK_SIMULATED, FLAG_SIMULATED)]
        .into_iter()
        .filter(|(tick, _)| flags & tick != 0)
        .fold(0, |bits, (_, wire)| bits | wire)
}

#[cfg(test)]
mod tests {
    use super::mac;

    /// From the reference implementation's `vectors_sip128`: key 00 01 … 0f, message 00 01 … of this length.
    #[test]
    fn macs_are_in_the_reference_byte_order() {
        let bytes: [u8; 64] = core::array::from_fn(|at| at as u8);
        let secret: [u8; 16] = core::array::from_fn(|at| at as u8);
        for (length, expected) in [
            (0, 0xa381_7f04_ba25_a8e6_6df6_7214_c755_0293_u128),
            (1, 0xda87_c1d8_6b99_af44_3476_5911_9b22_fc45),
            (2, 0x8177_228d_a4a4_5dc7_fca3_8bde_f60a_ffe4),
            (3, 0x9c70_b60c_5267_a94e_5f33_b6b0_2985_ed51),
        ] {
            assert_eq!(u128::from_be_bytes(mac(&secret, &bytes[..length])), expected, "length {length}");
        }
    }
}
