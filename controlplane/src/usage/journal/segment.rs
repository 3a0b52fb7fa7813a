//! The form of a segment, one file of the journal, to the byte. Nothing here opens a file.
//!
//! A segment is `journal/<number as 16 lower-case hexadecimal digits>.usage` below `TB_DATA_DIR`. Every number in it is
//! little endian. CRC32C is Castagnoli's (as in iSCSI: reflected 0x82F63B78, all ones at the start, inverted at the
//! end; of `123456789` it is 0xE3069283). It begins with a head of 128 bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `TBUSAGE\n` |
//! | 8..12 | version: 1 |
//! | 12..16 | length of the node's name, 1 to 64 |
//! | 16..24 | the segment's number, below 2^63; the file's name says the same |
//! | 24..32 | when it was begun, Unix ms |
//! | 32..96 | the node's name, UTF-8, NUL behind it |
//! | 96..124 | zero |
//! | 124..128 | CRC32C of bytes 0..124 |
//!
//! Entries follow, 64 bytes each, to the file's end; an entry's place is its index from 0. An entry is a
//! `shared::usage::UsageRecord`:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | the record's number among its shard's |
//! | 8..16, 16..24 | when its first and its last request came, Unix ms |
//! | 24..32 | how many requests it stands for |
//! | 32..48 | the asset's symbol, NUL behind it |
//! | 48..52, 52..54 | the key's number; the shard |
//! | 54..56 | HTTP status |
//! | 56, 57, 58, 59 | protocol; code; tier; endpoint |
//! | 60..64 | CRC32C of: the segment's number (8 bytes), the place (8 bytes), bytes 0..60 |
//!
//! The check binds an entry to its segment and its place: what an earlier file left on the disk, or what came to the
//! wrong place, is no entry. An entry that fails is skipped. If valid ones follow it is damage; at the file's end it is a
//! tail that was not wholly written, which is no loss of anything that was synced.

use shared::usage::UsageRecord;

/// Bytes of the head.
pub const HEAD_BYTES: u64 = 128;
/// Bytes of an entry.
pub const ENTRY_BYTES: u64 = 64;
/// Bytes in a node's name.
pub const NODE_BYTES_MAX: usize = 64;

const MAGIC: [u8; 8] = *b"TBUSAGE\n";
const VERSION: u32 = 1;
const CHECKED: usize = HEAD_BYTES as usize - 4;

const _: () = assert!(size_of::<UsageRecord>() as u64 == ENTRY_BYTES);
const _: () = assert!(cfg!(target_endian = "little"), "records are written as they stand in memory");

/// Bits of chance below the time in a segment's number.
pub const CHANCE_BITS: u32 = 20;

/// When a segment of this number was begun, Unix ms, by the clock of then; later where a clock was set back.
#[must_use]
pub const fn begun_ms(number: u64) -> u64 {
    number >> CHANCE_BITS
}

/// The file's name.
#[must_use]
pub fn name(number: u64) -> String {
    format!("{number:016x}.usage")
}

/// The number in a file's name, if it is a segment's (`usage`) or belongs to one.
#[must_use]
pub fn number_in(name: &str, extension: &str) -> Option<u64> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    let is_form = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(digits, 16).ok().filter(|number| is_form && *number < 1 << 63)
}

/// What a head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The segment's number.
    pub number: u64,
    /// The node that wrote it.
    pub node: String,
    /// When it was begun, Unix ms.
    pub begun_time_ms: u64,
}

/// What stands where a head should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadFound {
    /// A head.
    Good(Head),
    /// A head of a version that this program does not know.
    Newer(u32),
    /// Not all that was written once.
    Damaged,
}

impl Head {
    /// Its bytes. The node's name has at most `NODE_BYTES_MAX`; more is cut off.
    #[must_use]
    pub fn bytes(&self) -> [u8; HEAD_BYTES as usize] {
        let mut bytes = [0; HEAD_BYTES as usize];
        let node = &self.node.as_bytes()[..self.node.len().min(NODE_BYTES_MAX)];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(node.len() as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.begun_time_ms.to_le_bytes());
        bytes[32..32 + node.len()].copy_from_slice(node);
        let check = crc32c::crc32c(&bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads one.
    #[must_use]
    pub fn read(bytes: &[u8; HEAD_BYTES as usize]) -> HeadFound {
        let four = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        let eight = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        if bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..CHECKED]) != four(CHECKED) {
            return HeadFound::Damaged;
        }
        if four(8) != VERSION {
            return HeadFound::Newer(four(8));
        }
        let node = bytes[32..96].get(..four(12) as usize).and_then(|node| std::str::from_utf8(node).ok());
        match node {
            Some(node) if !node.is_empty() => {
                HeadFound::Good(Self { number: eight(16), node: node.to_owned(), begun_time_ms: eight(24) })
            }
            _ => HeadFound::Damaged,
        }
    }
}

/// Where an entry stands in the file.
#[must_use]
pub const fn at(place: u64) -> u64 {
    HEAD_BYTES + place * ENTRY_BYTES
}

/// How many entries a file of this many bytes holds.
#[must_use]
pub const fn entries(bytes: u64) -> u64 {
    bytes.saturating_sub(HEAD_BYTES) / ENTRY_BYTES
}

/// Makes an entry of a record: gives it the check of its place.
#[inline]
pub fn seal(record: &mut UsageRecord, number: u64, place: u64) {
    record.check = check(record, number, place).to_le_bytes();
}

/// Whether it is the entry of this place.
#[inline]
#[must_use]
pub fn is_entry(record: &UsageRecord, number: u64, place: u64) -> bool {
    record.check == check(record, number, place).to_le_bytes()
}

#[inline]
fn check(record: &UsageRecord, number: u64, place: u64) -> u32 {
    // In one piece: the sum of three is three times as dear.
    let mut bytes = [0; 76];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..16].copy_from_slice(&place.to_le_bytes());
    bytes[16..].copy_from_slice(&bytemuck::bytes_of(record)[..60]);
    crc32c::crc32c(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head { number: 0x1234_5678_9abc_def0, node: "node-1.local".to_owned(), begun_time_ms: 1_790_000_000_000 }
    }

    #[test]
    fn a_head_is_read_as_written_and_any_flipped_bit_is_seen() {
        let bytes = head().bytes();
        assert_eq!(Head::read(&bytes), HeadFound::Good(head()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::read(&flipped), HeadFound::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let mut bytes = head().bytes();
        bytes[8] = 2;
        let check = crc32c::crc32c(&bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&check.to_le_bytes());
        assert_eq!(Head::read(&bytes), HeadFound::Newer(2));
    }

    #[test]
    fn the_sum_is_the_one_that_the_form_names() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
        let mut record = UsageRecord { key: 7, requests: 3, ..UsageRecord::default() };
        seal(&mut record, 9, 4);
        let parts = crc32c::crc32c_append(crc32c::crc32c(&9_u64.to_le_bytes()), &4_u64.to_le_bytes());
        let whole = crc32c::crc32c_append(parts, &bytemuck::bytes_of(&record)[..60]);
        assert_eq!(record.check, whole.to_le_bytes());
    }

    #[test]
    fn an_entry_is_one_in_its_place_alone_and_any_flipped_bit_is_seen() {
        let mut record =
            UsageRecord { key: 7, requests: 3, first_time_ms: 1_790_000_000_000, ..UsageRecord::default() };
        seal(&mut record, 9, 4);
        assert!(is_entry(&record, 9, 4));
        for (number, place) in [(9, 3), (9, 5), (8, 4), (4, 9)] {
            assert!(!is_entry(&record, number, place), "segment {number}, place {place}");
        }
        for bit in 0..64 * 8 {
            let mut flipped = record;
            bytemuck::bytes_of_mut(&mut flipped)[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_entry(&flipped, 9, 4), "bit {bit}");
        }
        assert!(!is_entry(&UsageRecord::default(), 9, 4), "zeros are no entry");
    }

    #[test]
    fn names_are_numbers_of_one_form() {
        let check = |name: &str, expected: Option<u64>| assert_eq!(number_in(name, "usage"), expected, "{name}");
        check(&name(0), Some(0));
        check(&name(0x7fff_ffff_ffff_ffff), Some((1 << 63) - 1));
        check("00000000000000ff.usage", Some(255));
        for other in [
            "ff.usage",
            "00000000000000FF.usage",
            "00000000000000ff.mark",
            "8000000000000000.usage",
            "+0000000000000ff.usage",
        ] {
            check(other, None);
        }
    }
}
