//! The 64-byte signed frames as a client sees them: made, and known to be genuine.
//!
//! The layouts are in `shared::wire`. Nothing here sends anything or remembers what was asked.

use shared::wire::{
    FRAME_SIZE, KIND_PRICE, REPLY_MAC_COVERS, REPLY_MAGIC, REQUEST_MAC_COVERS, REQUEST_MAGIC, ReplyFrame, RequestFrame,
    VERSION,
};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::fmt;
use std::hash::Hasher;

/// A key that signs requests. Shows no secret.
#[derive(Clone, Copy)]
pub struct UdpKey {
    /// Its number.
    pub id: u32,
    /// Its UDP secret.
    pub secret: [u8; 16],
}

impl fmt::Debug for UdpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl UdpKey {
    /// A signed request for the price of `asset` (upper case, NUL padded).
    #[must_use]
    pub fn request(&self, asset: [u8; 16], request_id: u64, wall_ms: u64) -> [u8; FRAME_SIZE] {
        let mut frame = RequestFrame {
            magic: REQUEST_MAGIC.to_le_bytes(),
            version: VERSION,
            kind: KIND_PRICE,
            key_id: self.id.to_le_bytes(),
            request_id: request_id.to_le_bytes(),
            client_time_ms: wall_ms.to_le_bytes(),
            asset,
            mac: [0; 16],
            zero: [0; 8],
        };
        frame.mac = self.mac(&bytemuck::bytes_of(&frame)[..REQUEST_MAC_COVERS]);
        bytemuck::cast(frame)
    }

    /// Whether `reply` is one that a holder of the secret made.
    #[must_use]
    pub fn signed(&self, reply: &ReplyFrame) -> bool {
        reply.magic == REPLY_MAGIC.to_le_bytes()
            && reply.version == VERSION
            && reply.mac[..] == self.mac(&bytemuck::bytes_of(reply)[..REPLY_MAC_COVERS])[..reply.mac.len()]
    }

    fn mac(&self, bytes: &[u8]) -> [u8; 16] {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(bytes);
        hasher.finish128().as_bytes()
    }
}
