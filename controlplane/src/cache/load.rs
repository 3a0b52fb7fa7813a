//! Much that is written at once: made ready in one buffer, each thing by itself, and then sent or taken in.
//!
//! Unlike what [`super::Cache::write_all`] writes, a thing here says when it ends, so that it ends at the same time however
//! often and whenever it is loaded. Which server has it, and how it gets there, is not known here.

use super::names::{CacheKey, Kind, Pattern};
use super::{CacheError, Cached, SCORE_MAX, VALUE_PARTS_MAX};
use std::ops::Range;

/// Things in one [`Loads`]: ten thousand rows with a set for each, and those around them.
pub const LOADS_MAX: usize = 32_768;

/// A text in the buffer.
pub type Word = (u32, u32);

/// A number or a text, as a value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown<'a> {
    /// A number.
    Number(u64),
    /// A text.
    Text(&'a str),
}

/// What is done with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A string is written, to end at this time, Unix ms.
    Text(u64),
    /// Fields of a hash are written, to end at this time, Unix ms. Other fields that it has stay.
    Fields(u64),
    /// Members are added to a sorted set with their scores; its lifetime begins anew.
    Members,
    /// Members of a sorted set below this score go, and all but so many of the highest scores.
    Trim(i64, usize),
    /// What stands there goes.
    Delete,
}

/// One thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// What is done.
    pub act: Act,
    /// Its type.
    pub kind: Kind,
    /// Lifetime that the name's pattern has, s.
    pub lifetime_s: Option<u64>,
    words: Range<usize>,
}

/// Things to be loaded, at most [`LOADS_MAX`], each name once.
#[derive(Default)]
pub struct Loads {
    texts: Vec<u8>,
    words: Vec<Word>,
    loads: Vec<Load>,
}

impl Loads {
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.loads.len()
    }

    /// Writes a string that ends at `ends_ms`, Unix ms.
    ///
    /// # Errors
    /// [`CacheError::Refused`] when another type stands under such a name; the same below, and when there are too many
    /// things, or of one thing too many parts.
    pub fn text(&mut self, key: &CacheKey, text: &str, ends_ms: u64) -> Cached<()> {
        self.begin(key, Kind::Text, 1)?;
        let from = self.words.len();
        self.word(key.name());
        self.word(text);
        self.end(Act::Text(ends_ms), key, from);
        Ok(())
    }

    /// Writes fields of a hash that ends at `ends_ms`, Unix ms. What has other fields keeps them.
    ///
    /// # Errors
    /// As [`Loads::text`].
    pub fn fields(&mut self, key: &CacheKey, fields: &[(&str, Shown<'_>)], ends_ms: u64) -> Cached<()> {
        self.begin(key, Kind::Hash, fields.len())?;
        let from = self.words.len();
        self.word(key.name());
        for (name, value) in fields {
            self.word(name);
            match value {
                Shown::Text(text) => self.word(text),
                Shown::Number(number) => self.word(itoa::Buffer::new().format(*number)),
            }
        }
        self.end(Act::Fields(ends_ms), key, from);
        Ok(())
    }

    /// Adds members to a sorted set, whose lifetime begins anew.
    ///
    /// # Errors
    /// As [`Loads::text`], and for a score beyond [`SCORE_MAX`].
    pub fn members(&mut self, key: &CacheKey, members: &[(&str, i64)]) -> Cached<()> {
        self.begin(key, Kind::Sorted, members.len())?;
        if members.iter().any(|(_, score)| score.abs() > SCORE_MAX) {
            return Err(CacheError::Refused(format!("a score is beyond {SCORE_MAX}, exact no more")));
        }
        let from = self.words.len();
        self.word(key.name());
        for (member, score) in members {
            self.word(itoa::Buffer::new().format(*score));
            self.word(member);
        }
        self.end(Act::Members, key, from);
        Ok(())
    }

    /// Lets members of a sorted set go whose score is below `since`, and all but the `keep` highest, at least 1.
    ///
    /// # Errors
    /// As [`Loads::text`].
    pub fn trim(&mut self, key: &CacheKey, since: i64, keep: usize) -> Cached<()> {
        self.begin(key, Kind::Sorted, 1)?;
        let from = self.words.len();
        self.word(key.name());
        self.end(Act::Trim(since, keep.max(1)), key, from);
        Ok(())
    }

    /// Deletes what stands there.
    ///
    /// # Errors
    /// As [`Loads::text`].
    pub fn delete(&mut self, key: &CacheKey) -> Cached<()> {
        self.begin(key, key.pattern().kind, 1)?;
        let from = self.words.len();
        self.word(key.name());
        self.end(Act::Delete, key, from);
        Ok(())
    }

    fn begin(&self, key: &CacheKey, kind: Kind, parts: usize) -> Cached<()> {
        let known = key.pattern().kind;
        let why = if known != kind {
            format!("{key} holds {}, not {}", known.name(), kind.name())
        } else if parts == 0 || parts > VALUE_PARTS_MAX {
            format!("{parts} parts of {key}: 1 to {VALUE_PARTS_MAX} can be loaded")
        } else if self.loads.len() >= LOADS_MAX || self.texts.len() > u32::MAX as usize / 2 {
            format!("more than {LOADS_MAX} things cannot be loaded at once")
        } else {
            return Ok(());
        };
        Err(CacheError::Refused(why))
    }

    fn word(&mut self, text: &str) {
        // The buffer is below half of what these tell when a thing begins, and no thing is as large as the other half.
        let place = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let from = place(self.texts.len());
        self.texts.extend_from_slice(text.as_bytes());
        self.words.push((from, place(self.texts.len())));
    }

    fn end(&mut self, act: Act, key: &CacheKey, from: usize) {
        let words = from..self.words.len();
        let Pattern { kind, lifetime_s, .. } = *key.pattern();
        self.loads.push(Load { act, kind, lifetime_s, words });
    }

    /// The buffer, and each thing with where its words are in it: its name, then a text, or names and values of fields,
    /// or scores and members.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<(Load, Vec<Word>)>) {
        let Self { texts, words, loads } = self;
        let with_words = |load: Load| {
            let own = words[load.words.clone()].to_vec();
            (load, own)
        };
        (texts, loads.into_iter().map(with_words).collect())
    }
}
