//! What an earlier process left: every segment of the directory, put on the shelf for the shipper.
//!
//! Only heads are read here, so that a start does not wait for gigabytes; entries are checked as they are read. What is
//! no segment is left alone, and said; marks of segments that are gone are removed.

use super::segment::{self, HEAD_BYTES, Head, HeadFound};
use super::shelf::Shelf;
use super::tally::Tally;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Puts the directory's segments on the shelf; the highest number among them, 0 where there is none. `node` is this
/// node's name, for a segment whose head is damaged.
///
/// # Errors
/// When the directory cannot be read.
pub fn replay(shelf: &Shelf, tally: &Tally, node: &Arc<str>) -> io::Result<u64> {
    let mut last = 0;
    let (mut found, mut marks) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(shelf.folder())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(number) = segment::number_in(&name, "usage") {
            last = last.max(number);
            found.push((number, entry.path()));
        } else if let Some(number) = segment::number_in(&name, "mark") {
            marks.push((number, entry.path()));
        } else if is_unfinished_mark(&name) {
            // The directory is this process's: nobody writes it.
            let _ = fs::remove_file(entry.path());
        } else {
            left_alone(tally, &entry.path(), "its name is none of the journal's");
        }
    }
    let is_there = |number: &u64| found.iter().any(|(there, _)| there == number);
    for (_, path) in marks.iter().filter(|(number, _)| !is_there(number)) {
        // Where it cannot be removed it does no harm.
        let _ = fs::remove_file(path);
    }
    for (number, path) in found {
        let shelved = look(&path, number, node);
        match shelved {
            Ok(Look::Segment { node, entries }) => shelf.add_sealed(number, node, entries),
            Ok(Look::Empty) => {
                // Begun by a process that ended before it could write into it.
                tally.torn();
                let _ = fs::remove_file(&path);
            }
            Ok(Look::LeftAlone(why)) => left_alone(tally, &path, &why),
            Err(fault) => left_alone(tally, &path, &fault.to_string()),
        }
    }
    let waiting = shelf.waiting();
    if waiting.segments > 0 {
        tracing::info!(segments = waiting.segments, records = waiting.records, "usage of an earlier process waits");
    }
    Ok(last)
}

enum Look {
    Segment { node: Arc<str>, entries: u64 },
    Empty,
    LeftAlone(String),
}

fn look(path: &Path, number: u64, own: &Arc<str>) -> io::Result<Look> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Ok(Look::LeftAlone("it is no file".to_owned()));
    }
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes < HEAD_BYTES {
        return Ok(Look::Empty);
    }
    let mut head = [0; HEAD_BYTES as usize];
    file.read_exact_at(&mut head, 0)?;
    let entries = segment::entries(bytes);
    Ok(match Head::read(&head) {
        HeadFound::Good(head) if head.number != number => {
            Look::LeftAlone(format!("it is segment {:016x} by its head: name it so", head.number))
        }
        HeadFound::Good(head) if head.node == **own => Look::Segment { node: Arc::clone(own), entries },
        HeadFound::Good(head) => Look::Segment { node: head.node.into(), entries },
        HeadFound::Newer(version) => {
            Look::LeftAlone(format!("version {version} of the form is not known: start the program that wrote it"))
        }
        HeadFound::Damaged => {
            tracing::error!(path = %path.display(), "the head of a usage segment is damaged: its entries name themselves");
            Look::Segment { node: Arc::clone(own), entries }
        }
    })
}

/// Whether a process ended while it wrote this beside a mark.
fn is_unfinished_mark(name: &str) -> bool {
    let (mark, beside) = name.split_at_checked("0123456789abcdef.mark".len()).unwrap_or_default();
    segment::number_in(mark, "mark").is_some() && beside.starts_with('.') && beside.ends_with(".new")
}

fn left_alone(tally: &Tally, path: &Path, why: &str) {
    tally.unread();
    tracing::warn!(path = %path.display(), why, "a file in the journal's directory is left alone");
}
