//! What one key asked of one shard: one or more requests merged, 64 bytes.

/// The request came over HTTP.
pub const PROTOCOL_TCP: u8 = 0;
/// The request came as a datagram.
pub const PROTOCOL_UDP: u8 = 1;

/// The protocol's name in reports.
#[must_use]
pub const fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        PROTOCOL_TCP => "tcp",
        PROTOCOL_UDP => "udp",
        _ => "other",
    }
}

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
    /// Zero until the record is journaled; from then on the journal's check of the other 60 bytes and of the record's
    /// place, little endian.
    pub check: [u8; 4],
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
    /// `GET /reports/…`, and the report datagrams.
    Report = 5,
}

impl Endpoint {
    /// Every endpoint, by number.
    pub const ALL: [Self; 6] =
        [Self::Price, Self::Prices, Self::DatagramJson, Self::DatagramBinary, Self::Other, Self::Report];

    /// The endpoint of a record's number; `Other` for numbers that are none, as a newer node may write.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Other)
    }

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Price => "/price",
            Self::Prices => "/prices",
            Self::DatagramJson => "udp-json",
            Self::DatagramBinary => "udp-binary",
            Self::Other => "other",
            Self::Report => "/reports",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_found_by_its_number() {
        for (number, endpoint) in (0..).zip(Endpoint::ALL) {
            assert_eq!((endpoint as u8, Endpoint::from_number(number)), (number, endpoint));
        }
        assert_eq!(Endpoint::from_number(6), Endpoint::Other);
        assert_eq!(Endpoint::from_number(u8::MAX), Endpoint::Other);
    }
}
