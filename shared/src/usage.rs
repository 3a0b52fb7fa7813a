//! What one key asked of one shard: one or more requests merged, 64 bytes.

/// The request came over HTTP.
pub const PROTOCOL_TCP: u8 = 0;
/// The request came as a datagram.
pub const PROTOCOL_UDP: u8 = 1;

/// `asset` of a record that names no single asset.
pub const ASSET_NONE: u16 = u16::MAX;

/// Requests of one key for one asset with one outcome, in one window of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct UsageRecord {
    /// Number of this record among its shard's, from 0 without a gap.
    pub number: u64,
    /// When the window began, Unix ms.
    pub first_time_ms: u64,
    /// When its last request came, Unix ms.
    pub last_time_ms: u64,
    /// How many requests it stands for, at least 1.
    pub requests: u64,
    /// The asset's symbol, NUL padded; all NUL where no single asset was named.
    pub asset: [u8; 16],
    /// The key's number; 0 for nobody.
    pub key: u32,
    /// The shard.
    pub shard: u16,
    /// HTTP status of the outcome (datagrams: the status their code maps to).
    pub status: u16,
    /// `PROTOCOL_TCP` or `PROTOCOL_UDP`.
    pub protocol: u8,
    /// `Code` number, 0 for ok.
    pub code: u8,
    /// `Tier` number.
    pub tier: u8,
    /// Which interface: see `Endpoint`.
    pub endpoint: u8,
    /// Zero.
    pub reserved: [u8; 4],
}

const _: () = assert!(size_of::<UsageRecord>() == 64);

/// Which interface was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Endpoint {
    /// `GET /price`.
    Price = 0,
    /// `GET /prices`.
    Prices = 1,
    /// The JSON datagram.
    DatagramJson = 2,
    /// The binary datagram.
    DatagramBinary = 3,
    /// Anything else.
    Other = 4,
}

impl Endpoint {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Price => "/price",
            Self::Prices => "/prices",
            Self::DatagramJson => "udp-json",
            Self::DatagramBinary => "udp-binary",
            Self::Other => "other",
        }
    }
}
