//! The last good copy of each venue's instrument list, on disk.
//!
//! A venue that does not answer at start must not cost its prices: yesterday's list is nearly always today's. A copy is
//! written whole beside the old one and renamed over it, so a crash leaves one or the other. A copy of another address
//! (a simulator's, a sandbox's) is not this venue's and is not read.

use serde::{Deserialize, Serialize};
use shared::asset::Symbol;
use shared::venue::Venue;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use venues::protocol::Instrument;

/// Largest copy we read: 20,000 instruments of about 100 bytes are 2 MiB.
const COPY_BYTES_MAX: u64 = 8 << 20;

/// Instruments we keep of one venue; the largest lists about 5,000.
pub const INSTRUMENTS_MAX: usize = 20_000;

#[derive(Serialize, Deserialize)]
struct Row {
    name: String,
    rest_name: String,
    base: String,
    quote: String,
    trading: bool,
}

#[derive(Serialize, Deserialize)]
struct Copy {
    base_url: String,
    fetched_ms: u64,
    instruments: Vec<Row>,
}

/// A list as it was read from the venue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// When, Unix ms.
    pub fetched_ms: u64,
    /// The instruments.
    pub instruments: Vec<Instrument>,
}

/// Where copies are kept.
#[derive(Clone, Debug)]
pub struct Copies {
    folder: Option<PathBuf>,
}

impl Copies {
    /// Copies below the data directory; `None`: none are kept.
    #[must_use]
    pub fn new(data_dir: Option<&Path>) -> Self {
        Self { folder: data_dir.map(|data_dir| data_dir.join("instruments")) }
    }

    /// The copy of `venue` as it was read from `base_url`, if there is a good one.
    #[must_use]
    pub fn read(&self, venue: Venue, base_url: &str) -> Option<Fetched> {
        let path = self.path(venue)?;
        match read_file(&path) {
            Ok(copy) if copy.base_url == base_url => {
                let instruments = copy.instruments.into_iter().filter_map(instrument).take(INSTRUMENTS_MAX).collect();
                Some(Fetched { fetched_ms: copy.fetched_ms, instruments })
            }
            Ok(_) => None,
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => None,
            Err(fault) => {
                tracing::warn!(%venue, %fault, path = %path.display(), "instrument list copy not read; it will be replaced");
                None
            }
        }
    }

    /// Keeps `fetched` as the copy of `venue`. A failure is logged: the list itself is in force all the same.
    pub fn write(&self, venue: Venue, base_url: &str, fetched: &Fetched) {
        let Some(path) = self.path(venue) else { return };
        let copy = Copy {
            base_url: base_url.to_owned(),
            fetched_ms: fetched.fetched_ms,
            instruments: fetched.instruments.iter().map(row).collect(),
        };
        if let Err(fault) = write_file(&path, &copy) {
            tracing::warn!(%venue, %fault, path = %path.display(), "instrument list copy not written: check TB_DATA_DIR");
        }
    }

    fn path(&self, venue: Venue) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(format!("{venue}.json")))
    }
}

fn read_file(path: &Path) -> io::Result<Copy> {
    let mut bytes = Vec::new();
    File::open(path)?.take(COPY_BYTES_MAX).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(io::Error::from)
}

fn write_file(path: &Path, copy: &Copy) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("json.new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(copy)?)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

fn row(instrument: &Instrument) -> Row {
    Row {
        name: instrument.name.clone(),
        rest_name: instrument.rest_name.clone(),
        base: instrument.base.to_string(),
        quote: instrument.quote.to_string(),
        trading: instrument.trading,
    }
}

fn instrument(row: Row) -> Option<Instrument> {
    Some(Instrument {
        base: Symbol::new(row.base.as_bytes())?,
        quote: Symbol::new(row.quote.as_bytes())?,
        name: row.name,
        rest_name: row.rest_name,
        trading: row.trading,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched() -> Fetched {
        let symbol = |text: &str| Symbol::new(text.as_bytes()).expect("good");
        let instrument = |base: &str, trading| Instrument {
            name: format!("{base}/USD"),
            rest_name: format!("{base}USD"),
            base: symbol(base),
            quote: symbol("USD"),
            trading,
        };
        Fetched { fetched_ms: 7, instruments: vec![instrument("BTC", true), instrument("EOS", false)] }
    }

    #[test]
    fn a_copy_comes_back_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let copies = Copies::new(Some(folder.path()));
        copies.write(Venue::Kraken, "https://api.kraken.com", &fetched());
        assert_eq!(copies.read(Venue::Kraken, "https://api.kraken.com"), Some(fetched()));
        assert_eq!(copies.read(Venue::Kraken, "http://127.0.0.1:1"), None, "another address is another venue");
        assert_eq!(copies.read(Venue::Okx, "https://api.kraken.com"), None);
    }

    #[test]
    fn a_damaged_copy_is_no_copy() {
        let folder = tempfile::tempdir().expect("a folder");
        let copies = Copies::new(Some(folder.path()));
        copies.write(Venue::Kraken, "x", &fetched());
        let path = folder.path().join("instruments/kraken.json");
        let whole = fs::read(&path).expect("written");
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..length]).expect("room");
            assert_eq!(copies.read(Venue::Kraken, "x"), None, "{length} bytes of it");
        }
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let copies = Copies::new(None);
        copies.write(Venue::Kraken, "x", &fetched());
        assert_eq!(copies.read(Venue::Kraken, "x"), None);
    }
}
