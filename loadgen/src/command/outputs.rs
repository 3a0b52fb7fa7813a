//! The files that reports go to: opened before the run, so that what cannot be written is known before an hour is
//! spent, and left as they were when there is nothing to write.

use anyhow::{Context, bail};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Places of the three reports among the outputs.
pub const JSON: usize = 0;
/// See [`JSON`].
pub const HTML: usize = 1;
/// See [`JSON`].
pub const HDR: usize = 2;

/// One report's file.
struct Output {
    path: PathBuf,
    /// `None`: stdout.
    file: Option<File>,
    /// It was not there before.
    is_new: bool,
    is_written: bool,
}

/// The reports' files, by [`JSON`], [`HTML`] and [`HDR`].
pub struct Outputs([Option<Output>; 3]);

impl Outputs {
    /// Opens those that are asked for: option and path.
    ///
    /// # Errors
    /// When one cannot be written, or two are the same.
    pub fn open(wanted: [(&'static str, Option<&PathBuf>); 3]) -> anyhow::Result<Self> {
        let mut outputs = Self([None, None, None]);
        for (index, (option, path)) in wanted.iter().enumerate() {
            let Some(path) = path else { continue };
            let twin = wanted[..index].iter().find(|(_, other)| other.is_some_and(|other| other == *path));
            if let Some((other, _)) = twin {
                bail!("{option} and {other} are both {}: give each a file of its own", path.display());
            }
            let remedy =
                || format!("cannot write {option} {}: give a file in a folder that can be written", path.display());
            outputs.0[index] = Some(Output::open(path).with_context(remedy)?);
        }
        Ok(outputs)
    }

    /// Whether this report is wanted.
    pub fn has(&self, which: usize) -> bool {
        self.0[which].is_some()
    }

    /// Whether this report goes to stdout, where tables would spoil it.
    pub fn is_stdout(&self, which: usize) -> bool {
        self.0[which].as_ref().is_some_and(|output| output.file.is_none())
    }

    /// Writes a report, if it is wanted.
    ///
    /// # Errors
    /// When it cannot be written after all.
    pub fn write(&mut self, which: usize, bytes: &[u8]) -> anyhow::Result<()> {
        let Some(output) = &mut self.0[which] else { return Ok(()) };
        output.write(bytes).with_context(|| format!("cannot write {}: is the disk full?", output.path.display()))
    }
}

impl Output {
    fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { path: path.to_owned(), file: None, is_new: false, is_written: false });
        }
        let is_new = !path.try_exists()?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        Ok(Self { path: path.to_owned(), file: Some(file), is_new, is_written: false })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.is_written = true;
        match &mut self.file {
            Some(file) => {
                // What is not an ordinary file (a pipe, a terminal) has nothing to cut.
                if file.metadata()?.is_file() {
                    file.set_len(0)?;
                }
                file.write_all(bytes)
            }
            None => super::print(bytes),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_new && !self.is_written {
            // Our own empty file; nothing is lost if it stays.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(json: &Path, html: Option<&Path>) -> anyhow::Result<Outputs> {
        let html = html.map(Path::to_owned);
        Outputs::open([("--json", Some(&json.to_owned())), ("--html", html.as_ref()), ("--hdr", None)])
    }

    #[test]
    fn an_old_file_is_replaced_only_by_a_report() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report");
        std::fs::write(&path, "of an earlier run").expect("an old file");
        drop(open(&path, None).expect("opened"));
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "of an earlier run");
        let mut outputs = open(&path, None).expect("opened");
        outputs.write(JSON, b"new").expect("written");
        outputs.write(HDR, b"not wanted").expect("left out");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "new");
    }

    #[test]
    fn a_run_that_never_began_leaves_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(open(&folder.path().join("report"), None).expect("opened"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let told = |failed: anyhow::Result<Outputs>| format!("{:#}", failed.err().expect("refused"));
        assert!(told(open(Path::new("/no/such/folder/x"), None)).contains("--json /no/such/folder/x"));
        let folder = tempfile::tempdir().expect("a folder");
        assert!(told(open(folder.path(), None)).contains("cannot write"));
        let path = folder.path().join("x");
        assert!(told(open(&path, Some(&path))).contains("--html and --json"));
    }
}
