//! How much of a segment was delivered, on this node's disk: for an outlet that cannot be asked.
//!
//! A mark is written after a delivery. A process that ends in between delivers again, which whoever takes rows by their
//! identity does not count twice.

use super::journal::segment;
use crate::private_file;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of a mark: the place, and CRC32C of the segment's number and the place, all little endian.
const MARK_BYTES: usize = 12;

/// The marks of a journal: a file beside each segment.
pub struct Marks {
    folder: PathBuf,
}

impl Marks {
    /// Those in a journal's directory.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(segment::name(number)).with_extension("mark")
    }

    /// Up to which place the segment was delivered; 0 where nothing, or nothing sound, says so.
    #[must_use]
    pub fn read(&self, number: u64) -> u64 {
        let bytes = private_file::read(&self.path(number), MARK_BYTES as u64).ok().flatten().unwrap_or_default();
        let place = bytes.first_chunk().copied().map_or(0, u64::from_le_bytes);
        if bytes == mark(number, place) { place } else { 0 }
    }

    /// The segment is delivered up to this place.
    ///
    /// # Errors
    /// The system's; the mark then stands where it was.
    pub fn write(&self, number: u64, place: u64) -> io::Result<()> {
        private_file::replace(&self.path(number), &mark(number, place))
    }

    /// The segment is gone.
    pub fn remove(&self, number: u64) {
        // There may be none.
        let _ = fs::remove_file(self.path(number));
    }
}

fn mark(number: u64, place: u64) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    bytes[..8].copy_from_slice(&place.to_le_bytes());
    let check = crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &place.to_le_bytes());
    bytes[8..].copy_from_slice(&check.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_written_and_a_damaged_one_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let marks = Marks::new(folder.path());
        assert_eq!(marks.read(7), 0, "there is none");
        marks.write(7, 300).expect("written");
        marks.write(7, 600).expect("written");
        assert_eq!((marks.read(7), marks.read(8)), (600, 0));
        let whole = fs::read(marks.path(7)).expect("a file");
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(marks.path(7), flipped).expect("written");
            assert_eq!(marks.read(7), 0, "bit {bit}");
        }
        fs::copy(marks.path(7), marks.path(8)).expect("copied");
        fs::write(marks.path(7), &whole).expect("written");
        assert_eq!((marks.read(7), marks.read(8)), (600, 0), "a mark is one segment's");
        fs::rename(marks.path(7), marks.path(9)).expect("renamed");
        assert_eq!(marks.read(9), 0);
        marks.remove(9);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
