//! Segments as a crash or a bad disk leaves them: what is sound is read, what is not is counted, nothing panics.

use super::*;

/// A segment of records with keys 1, 2, 3, …, as an ended process leaves it; its path.
fn segment_of(folder: &Path, records: u32) -> PathBuf {
    let shelf = Arc::new(Shelf::new(folder.to_owned()));
    let setup = AppendSetup {
        disk: Arc::new(SystemDisk),
        node: "n1".into(),
        shelf: Arc::clone(&shelf),
        tally: Arc::new(Tally::default()),
        bytes_max: BYTES_MAX,
        last_number: 0,
    };
    let mut appender = Appender::new(setup).expect("a thread");
    let record = |key| UsageRecord { key, requests: 1, first_time_ms: 5, ..UsageRecord::default() };
    let mut records: Vec<_> = (1..=records).map(record).collect();
    assert_eq!(appender.append(&mut records, 1_790_000_000_000), records.len());
    folder.join(segment::name(shelf.first().expect("a segment").number))
}

/// Reads a segment after `change` was made to its bytes, in parts of 4 entries: the keys, damaged entries, torn tails.
fn read_after(records: u32, change: impl FnOnce(&mut Vec<u8>)) -> (Vec<u32>, u64, u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = segment_of(folder.path(), records);
    let mut bytes = fs::read(&path).expect("a segment");
    change(&mut bytes);
    fs::write(&path, bytes).expect("written");
    let (shelf, tally) = shelf_of(folder.path());
    let mut keys = Vec::new();
    if let Some(first) = shelf.first() {
        let mut reader = SegmentReader::open(&shelf, &first, 0).expect("a segment");
        while reader.place() < first.readable {
            let part = reader.read(first.readable.min(reader.place() + 4)).expect("readable");
            reader.pass(&part);
            keys.extend(part.rows.iter().map(|row| (row.record.key, row.offset)));
        }
        reader.flaws().expect("its length").tell(&tally);
    }
    assert!(keys.iter().all(|(key, place)| u64::from(*key) == place + 1), "a row keeps its place");
    (keys.into_iter().map(|(key, _)| key).collect(), tally.read().damaged, tally.read().torn)
}

fn without(records: u32, gone: &[u32]) -> Vec<u32> {
    (1..=records).filter(|key| !gone.contains(key)).collect()
}

fn entry(place: usize) -> usize {
    segment::at(place as u64) as usize
}

#[test]
fn a_tail_that_is_torn_anywhere_costs_that_entry_alone() {
    for cut in 0..=3 * 64 {
        let (keys, damaged, torn) = read_after(10, |bytes| bytes.truncate(bytes.len() - cut));
        let whole = 10 - (cut as u32).div_ceil(64);
        assert_eq!((keys, damaged, torn), (without(whole, &[]), 0, u64::from(!cut.is_multiple_of(64))), "{cut} bytes");
    }
}

#[test]
fn a_tail_of_zeros_or_noise_is_a_torn_one() {
    for fill in [0_u8, 0xff, 0x5a] {
        for length in [1, 63, 64, 65, 200, 4_096] {
            let (keys, damaged, torn) = read_after(10, |bytes| bytes.resize(bytes.len() + length, fill));
            assert_eq!((keys, damaged, torn), (without(10, &[]), 0, 1), "{length} bytes of {fill}");
        }
    }
}

#[test]
fn a_bit_flipped_at_any_byte_of_an_entry_costs_that_entry_and_is_told() {
    for byte in 0..64 {
        for (place, expected) in [(0, (1, 0)), (5, (1, 0)), (9, (0, 1))] {
            let (keys, damaged, torn) = read_after(10, |bytes| bytes[entry(place) + byte] ^= 1 << (byte % 8));
            assert_eq!((keys, (damaged, torn)), (without(10, &[place as u32 + 1]), expected), "byte {byte} of {place}");
        }
    }
}

#[test]
fn damage_in_several_places_is_counted_by_entries() {
    let (keys, damaged, torn) = read_after(20, |bytes| {
        bytes[entry(2)..entry(5)].fill(0);
        bytes[entry(11)] ^= 1;
        bytes[entry(18)..].fill(7);
    });
    assert_eq!((keys, damaged, torn), (without(20, &[3, 4, 5, 12, 19, 20]), 4, 1));
}

#[test]
fn what_is_read_again_is_not_counted_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = segment_of(folder.path(), 20);
    let mut bytes = fs::read(&path).expect("a segment");
    bytes[entry(3)..entry(5)].fill(0);
    bytes[entry(9)] ^= 1;
    fs::write(&path, bytes).expect("written");
    // Where the outlet is set back to, after which part, and whether that part's end is not judged yet.
    for (back, after) in [(0, 20), (3, 20), (4, 20), (0, 4), (2, 5), (0, 10), (7, 10), (12, 15)] {
        let (shelf, tally) = shelf_of(folder.path());
        let first = shelf.first().expect("a segment");
        let mut reader = SegmentReader::open(&shelf, &first, 0).expect("a segment");
        for to in [after, 20] {
            while reader.place() < to {
                let part = reader.read(to.min(reader.place() + 4)).expect("readable");
                reader.pass(&part);
            }
            if to == after {
                reader.seek(back);
            }
        }
        while reader.place() < 20 {
            let part = reader.read(20).expect("readable");
            reader.pass(&part);
        }
        reader.flaws().expect("its length").tell(&tally);
        assert_eq!((tally.read().damaged, tally.read().torn), (3, 0), "back to {back} after {after}");
    }
}

#[test]
fn what_an_earlier_file_or_another_place_left_is_no_entry() {
    let other = tempfile::tempdir().expect("a folder");
    let stale = fs::read(segment_of(other.path(), 30)).expect("a segment");
    let (keys, _, torn) = read_after(10, |bytes| bytes.extend_from_slice(&stale[bytes.len()..]));
    assert_eq!((keys, torn), (without(10, &[]), 1), "another segment's entries in their own places");
    let (keys, damaged, _) = read_after(10, |bytes| {
        let moved = bytes[entry(2)..entry(3)].to_vec();
        bytes[entry(6)..entry(7)].copy_from_slice(&moved);
    });
    assert_eq!((keys, damaged), (without(10, &[7]), 1), "an entry twice");
}

#[test]
fn a_damaged_head_costs_no_entry() {
    for byte in [0, 9, 17, 30, 40, 127] {
        let (keys, damaged, torn) = read_after(5, |bytes| bytes[byte] ^= 4);
        assert_eq!((keys, damaged, torn), (without(5, &[]), 0, 0), "byte {byte}");
    }
}

#[test]
fn a_file_shorter_than_a_head_is_removed() {
    for length in [0, 1, 127] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = segment_of(folder.path(), 3);
        let bytes = fs::read(&path).expect("a segment");
        fs::write(&path, &bytes[..length]).expect("written");
        let (shelf, tally) = shelf_of(folder.path());
        assert_eq!((shelf.waiting().segments, tally.read().torn, path.exists()), (0, 1, false), "{length} bytes");
    }
}

#[test]
fn what_is_no_segment_of_ours_is_left_alone_and_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = segment_of(folder.path(), 3);
    let number = shelf_of(folder.path()).0.first().expect("a segment").number;
    let bytes = fs::read(&path).expect("a segment");
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("written");
    put("notes.txt", b"somebody's");
    put(&segment::name(number + 1), &bytes);
    let mut newer = bytes[..128].to_vec();
    newer[8] = 2;
    let check = crc32c::crc32c(&newer[..124]);
    newer[124..].copy_from_slice(&check.to_le_bytes());
    put(&segment::name(number - 1), &newer);
    fs::create_dir(folder.path().join(segment::name(7))).expect("a folder");
    std::os::unix::fs::symlink(&path, folder.path().join(segment::name(8))).expect("a link");
    let marks = segment::name(number).replace("usage", "mark");
    put(&marks, b"a mark");
    let (shelf, tally) = shelf_of(folder.path());
    assert_eq!((shelf.waiting().segments, shelf.waiting().records, tally.read().unread), (1, 3, 5));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 7, "nothing is removed");
    let last = replay::replay(&Shelf::new(folder.path().to_owned()), &Tally::default(), &"n1".into());
    assert_eq!(last.expect("a directory"), number + 1, "no number is taken again, whoever has it");
}

#[test]
fn marks_of_segments_that_are_gone_are_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = segment_of(folder.path(), 3);
    let own = path.with_extension("mark");
    let names = ["0000000000000007.mark", "0000000000000007.mark.12.new", "0000000000000007.market.new"];
    let paths = names.map(|name| folder.path().join(name));
    paths.iter().chain([&own]).for_each(|path| fs::write(path, "a mark").expect("written"));
    let (_, tally) = shelf_of(folder.path());
    assert_eq!(paths.map(|path| path.exists()), [false, false, true]);
    assert_eq!((tally.read().unread, own.exists(), path.exists()), (1, true, true));
}

#[test]
fn a_segment_keeps_the_name_of_the_node_that_wrote_it() {
    let folder = tempfile::tempdir().expect("a folder");
    segment_of(folder.path(), 1);
    let shelf = Shelf::new(folder.path().to_owned());
    replay::replay(&shelf, &Tally::default(), &"renamed".into()).expect("a directory");
    assert_eq!(&*shelf.first().expect("a segment").node, "n1");
}
