//! Which levels are run: the plan's, some of them, or the user's own.

use super::fault::Faults;
use super::options::Options;
use loadgen::plan::{LEVELS, Level};

/// Levels of a user's own: a run of more is several runs.
const OWN_LEVELS_MAX: usize = 64;
/// Connections of a level: what one address has ports for, with room for others.
const CONNECTIONS_MAX: usize = 60_000;
/// Requests a second of a level: beyond what one machine generates.
const RATE_MAX: u64 = 100_000_000;

/// The levels that `options` ask for.
pub fn chosen(options: &Options, faults: &mut Faults) -> Vec<Level> {
    if !options.level.is_empty() {
        return own(&options.level, faults);
    }
    let Some(text) = &options.levels else { return LEVELS.to_vec() };
    let picked = numbers(text, 1, LEVELS.len());
    match picked {
        Some(numbers) => LEVELS.into_iter().filter(|level| numbers.contains(&(level.number as usize))).collect(),
        None => {
            faults.add("--levels", text, &format!("numbers and ranges from 1 to {}, such as 1-5,13", LEVELS.len()));
            Vec::new()
        }
    }
}

fn own(texts: &[String], faults: &mut Faults) -> Vec<Level> {
    if texts.len() > OWN_LEVELS_MAX {
        faults.add("--level", "", &format!("{} times, where at most {OWN_LEVELS_MAX} are run", texts.len()));
        return Vec::new();
    }
    let read = |(number, text): (u32, &String)| {
        let level = own_level(number, text);
        if level.is_none() {
            let bound = format!(
                "CONNECTIONS@RATE, 1 to {CONNECTIONS_MAX} connections and 1 to {RATE_MAX} requests a second, such as 64@20000"
            );
            faults.add("--level", text, &bound);
        }
        level
    };
    (1..).zip(texts).filter_map(read).collect()
}

fn own_level(number: u32, text: &str) -> Option<Level> {
    let (connections, rate) = text.split_once('@')?;
    let connections = connections.trim().parse().ok().filter(|it| (1..=CONNECTIONS_MAX).contains(it))?;
    let rate = rate.trim().parse().ok().filter(|it| (1..=RATE_MAX).contains(it))?;
    Some(Level { number, connections, rate })
}

/// Reads numbers and ranges from `first` to `last`; `None` when the text is not that.
pub fn numbers(text: &str, first: usize, last: usize) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        if from < first || to > last || from > to {
            return None;
        }
        numbers.extend((from..=to).filter(|number| !numbers.contains(number)).collect::<Vec<_>>());
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_are_read() {
        for (text, expected) in [
            ("1", Some(vec![1])),
            ("1-3,13", Some(vec![1, 2, 3, 13])),
            ("3, 1 - 3", Some(vec![3, 1, 2])),
            ("", None),
            ("0", None),
            ("14", None),
            ("3-1", None),
            ("1,,2", None),
            ("a", None),
        ] {
            assert_eq!(numbers(text, 1, 13), expected, "{text}");
        }
    }

    #[test]
    fn own_levels_are_read() {
        for (text, expected) in [
            ("64@20000", Some((64, 20_000))),
            (" 1 @ 1 ", Some((1, 1))),
            ("64", None),
            ("0@1", None),
            ("1@0", None),
            ("60001@1", None),
            ("-1@1", None),
        ] {
            assert_eq!(own_level(1, text).map(|level| (level.connections, level.rate)), expected, "{text}");
        }
    }
}
