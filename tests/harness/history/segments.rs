//! The journal's files, read by their documented form (`usage/journal/segment.rs`) and by none of the service's code; and
//! what a bad disk does to them.

use shared::usage::UsageRecord;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const HEAD_BYTES: usize = 128;
const ENTRY_BYTES: usize = 64;

/// One file.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Where it is.
    pub path: PathBuf,
    /// Its number.
    pub number: u64,
    /// Who wrote it.
    pub node: String,
    /// By place; `None`: not an entry of this place, or not all of one.
    pub entries: Vec<Option<UsageRecord>>,
}

/// A journal's directory, and what was read of it already.
pub struct Folder {
    path: PathBuf,
    seen: BTreeSet<PathBuf>,
}

impl Folder {
    /// The journal below this data directory.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self { path: data.join("journal"), seen: BTreeSet::new() }
    }

    /// The segments that were not there the last time, in order. Nobody may write to them any longer.
    ///
    /// # Panics
    /// When a head is not as documented.
    pub fn read_new(&mut self) -> Vec<Segment> {
        let Ok(listed) = fs::read_dir(&self.path) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = listed.map(|file| file.expect("a directory that can be read").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "usage"));
        paths.sort();
        paths.retain(|path| self.seen.insert(path.clone()));
        // A file of which not even the head was written holds nothing.
        paths.iter().filter_map(|path| read(path)).collect()
    }
}

fn read(path: &Path) -> Option<Segment> {
    let bytes = fs::read(path).expect("a segment that can be read");
    let head: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
    let four = |at: usize| u32::from_le_bytes(*head[at..].first_chunk().expect("four bytes"));
    let number = u64::from_le_bytes(*head[16..].first_chunk().expect("eight bytes"));
    assert_eq!(&head[..8], b"TBUSAGE\n", "{}", path.display());
    assert_eq!((four(8), four(124)), (1, crc32c::crc32c(&head[..124])), "{}", path.display());
    assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(format!("{number:016x}.usage").as_str()));
    let node = head[32..].get(..four(12) as usize).expect("a name's length");
    let node = String::from_utf8(node.to_vec()).expect("a name in UTF-8");
    let entry = |(place, bytes): (u64, &[u8])| {
        let (record, check) = bytes.split_last_chunk::<4>()?;
        let mut covered = [&number.to_le_bytes()[..], &place.to_le_bytes()[..], record].concat();
        covered.truncate(16 + ENTRY_BYTES - 4);
        let is_good = bytes.len() == ENTRY_BYTES && crc32c::crc32c(&covered).to_le_bytes() == *check;
        is_good.then(|| bytemuck::pod_read_unaligned(bytes))
    };
    let entries = (0..).zip(bytes[HEAD_BYTES..].chunks(ENTRY_BYTES)).map(entry).collect();
    Some(Segment { path: path.to_owned(), number, node, entries })
}

impl Segment {
    /// Leaves out what was not wholly written when the process was killed; how many entries that is, 1 at the most
    /// unless the machine lost power as well.
    pub fn drop_tail(&mut self) -> usize {
        let good = self.entries.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.entries.drain(good..).count()
    }

    fn file(&self) -> File {
        OpenOptions::new().read(true).write(true).open(&self.path).expect("a segment that can be written")
    }

    /// Turns one bit of the entry at this place.
    pub fn flip(&self, place: u64, bit: u64) {
        let at = HEAD_BYTES as u64 + place * ENTRY_BYTES as u64 + bit / 8;
        let mut byte = [0];
        let file = self.file();
        file.read_exact_at(&mut byte, at).expect("a byte");
        byte[0] ^= 1 << (bit % 8);
        file.write_all_at(&byte, at).expect("a byte");
    }

    /// Cuts the file within the entry at this place, `bytes` behind its beginning.
    pub fn tear(&self, place: u64, bytes: u64) {
        let length = HEAD_BYTES as u64 + place * ENTRY_BYTES as u64 + bytes;
        self.file().set_len(length).expect("a file that can be cut");
    }
}
