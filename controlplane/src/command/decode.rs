//! `decode`: recorded WebSocket frames in, one JSON line per event out.
//!
//! Lines are read and answered one by one, so a recording of any size, or a live pipe, goes through in constant memory.

use super::{gemini_api, venue};
use anyhow::Context;
use clap::Args;
use serde::Deserialize;
use shared::venue::Venue;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use venues::VenueSettings;
use venues::decode_line::decode_line;
use venues::gemini::GeminiApi;

/// Longest line that is read: the largest frame a session takes, and one byte to notice a longer one.
const LINE_BYTES_MAX: u64 = (1 << 20) + 1;

/// Arguments of `decode`.
#[derive(Debug, Args)]
pub struct DecodeArgs {
    /// Whose frames they are
    #[arg(long, value_parser = venue)]
    venue: Venue,
    /// Which of Gemini's interfaces they were recorded from
    #[arg(long, value_parser = gemini_api, default_value = "new")]
    gemini_api: GeminiApi,
    /// After the events, a table of kinds and counts on stderr
    #[arg(long)]
    summary: bool,
    /// One frame per line; stdin when left out
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Decodes until the end of the input.
pub fn run(args: &DecodeArgs) -> anyhow::Result<()> {
    let mut input: Box<dyn BufRead> = match &args.file {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot read {}: check the path", path.display()))?;
            Box::new(BufReader::new(file))
        }
        None => Box::new(io::stdin().lock()),
    };
    let mut protocol = venues::protocol(args.venue, VenueSettings { gemini: args.gemini_api });
    let mut output = BufWriter::new(io::stdout().lock());
    let mut kinds = BTreeMap::new();
    let mut line = Vec::new();
    let mut number = 0;
    while read_line(&mut *input, &mut line)
        .context("the input cannot be read: give a file of frames, or pipe them in")?
    {
        number += 1;
        let frame = line.trim_ascii();
        if frame.is_empty() {
            continue;
        }
        for event in decode_line(&mut *protocol, number, frame) {
            if args.summary {
                *kinds.entry(kind_of(&event)).or_insert(0_u64) += 1;
            }
            output.write_all(event.as_bytes())?;
            output.write_all(b"\n")?;
        }
        // A pipe's reader sees events as they come; a file's buffer empties itself.
        if args.file.is_none() {
            output.flush()?;
        }
    }
    output.flush()?;
    if args.summary {
        io::stderr().write_all(table(args.venue, number, &kinds).as_bytes())?;
    }
    Ok(())
}

/// Reads one line without its end; `false` at the end of the input. A line longer than `LINE_BYTES_MAX` comes cut to
/// that length, which no decoder takes for a frame, and its rest is skipped.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    if (&mut *input).take(LINE_BYTES_MAX).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.last() != Some(&b'\n') && line.len() as u64 == LINE_BYTES_MAX {
        input.skip_until(b'\n')?;
    }
    Ok(true)
}

/// The kind of an event, out of its own JSON.
fn kind_of(event: &str) -> String {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    serde_json::from_str::<Kind>(event).map_or_else(|_| "?".to_owned(), |event| event.kind)
}

fn table(venue: Venue, lines: u64, kinds: &BTreeMap<String, u64>) -> String {
    let mut text = format!("{venue}: {lines} lines\n");
    for (kind, count) in kinds {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {kind:<12} {count:>10}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_any_length_are_told_apart() {
        let long = "x".repeat(3 << 20);
        let text = format!("one\n\n{long}\ntwo\r\nlast");
        let mut input = text.as_bytes();
        let mut line = Vec::new();
        let mut lengths = Vec::new();
        while read_line(&mut input, &mut line).expect("memory reads") {
            lengths.push(line.trim_ascii().len());
        }
        assert_eq!(lengths, [3, 0, (1 << 20) + 1, 3, 4]);
    }

    #[test]
    fn kinds_are_counted() {
        assert_eq!(kind_of("{\"line\":1,\"kind\":\"quote\"}"), "quote");
        assert_eq!(
            table(Venue::Okx, 2, &BTreeMap::from([("quote".to_owned(), 2)])),
            "okx: 2 lines\n  quote                 2\n"
        );
    }
}
