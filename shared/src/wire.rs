//! The 64-byte binary UDP frames. Little-endian on the wire; the layouts are the contract's tables, to the byte.
//!
//! Multi-byte fields are kept as byte arrays, so that a frame is the same bytes on every machine and has no padding.

/// First two bytes of a request, as a little-endian number.
pub const REQUEST_MAGIC: u16 = 0x4254;
/// First two bytes of a reply.
pub const REPLY_MAGIC: u16 = 0x5254;
/// The only version there is.
pub const VERSION: u8 = 1;
/// Request kind: one price.
pub const KIND_PRICE: u8 = 1;
/// Bytes of a frame, each way.
pub const FRAME_SIZE: usize = 64;
/// Bytes of a request that its MAC covers.
pub const REQUEST_MAC_COVERS: usize = 40;
/// Bytes of a reply that its MAC covers.
pub const REPLY_MAC_COVERS: usize = 56;
/// Furthest a request's time may be from ours, ms.
pub const CLOCK_SKEW_MS_MAX: u64 = 30_000;

/// Reply flag: the price is stale.
pub const FLAG_STALE: u16 = 1;
/// Reply flag: a contributor was converted from USDT.
pub const FLAG_CONVERTED: u16 = 2;
/// Reply flag: simulated exchanges.
pub const FLAG_SIMULATED: u16 = 4;

/// A request for one price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct RequestFrame {
    /// `REQUEST_MAGIC`.
    pub magic: [u8; 2],
    /// `VERSION`.
    pub version: u8,
    /// `KIND_PRICE`.
    pub kind: u8,
    /// Number of the key.
    pub key_id: [u8; 4],
    /// Chosen by the client, given back.
    pub request_id: [u8; 8],
    /// The client's clock, Unix ms.
    pub client_time_ms: [u8; 8],
    /// Upper case, NUL padded.
    pub asset: [u8; 16],
    /// SipHash-2-4-128 of bytes 0..40 under the key's UDP secret.
    pub mac: [u8; 16],
    /// Zero.
    pub zero: [u8; 8],
}

/// The answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct ReplyFrame {
    /// `REPLY_MAGIC`.
    pub magic: [u8; 2],
    /// `VERSION`.
    pub version: u8,
    /// 0 for ok, else a `Code` number up to 13.
    pub status: u8,
    /// `FLAG_*` bits.
    pub flags: [u8; 2],
    /// Power of ten of the mantissa, an `i8`.
    pub exponent: u8,
    /// 1 USD, 2 USDT.
    pub currency: u8,
    /// The request's.
    pub request_id: [u8; 8],
    /// The price's sequence.
    pub sequence: [u8; 8],
    /// The price's digits, an `i64`.
    pub mantissa: [u8; 8],
    /// The newest contributing venue time, Unix ms.
    pub exchange_time_ms: [u8; 8],
    /// Our clock at the newest contributing frame, Unix ms.
    pub received_time_ms: [u8; 8],
    /// How many venues are behind the price.
    pub sources: [u8; 2],
    /// Which.
    pub venues: [u8; 2],
    /// Spread in 1/100 basis points; `u32::MAX` where not known.
    pub spread_centibps: [u8; 4],
    /// First 8 bytes of SipHash-2-4-128 of bytes 0..56.
    pub mac: [u8; 8],
}

const _: () = assert!(size_of::<RequestFrame>() == FRAME_SIZE);
const _: () = assert!(size_of::<ReplyFrame>() == FRAME_SIZE);
const _: () = assert!(core::mem::offset_of!(RequestFrame, mac) == REQUEST_MAC_COVERS);
const _: () = assert!(core::mem::offset_of!(RequestFrame, asset) == 24);
const _: () = assert!(core::mem::offset_of!(ReplyFrame, mac) == REPLY_MAC_COVERS);
const _: () = assert!(core::mem::offset_of!(ReplyFrame, mantissa) == 24);
const _: () = assert!(core::mem::offset_of!(ReplyFrame, received_time_ms) == 40);
