//! The latencies as an HdrHistogram interval log (V2, text): one interval for each level and protocol, told apart by
//! its tag (`L3-tcp`), values in ns. HdrHistogram's own tools, and plotters made for it, read it.

use super::run::{Protocol, Run};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::io;

/// Divides the maximum that stands beside each histogram for people: ns to ms, as HdrHistogram's own tools do.
const NS_PER_MS: f64 = 1e6;

/// The tag of a level over a protocol.
fn tag(level: u32, protocol: Protocol) -> String {
    format!("L{level}-{}", protocol.name())
}

/// The log.
///
/// # Errors
/// When a histogram cannot be written down.
pub fn render(run: &Run) -> io::Result<Vec<u8>> {
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("[Latencies of trinity-stress in ns, one interval per level and protocol]")
        .add_comment("[Histogram log format version 1.3]")
        .with_start_time(run.began)
        .with_base_time(run.began)
        .with_max_value_divisor(NS_PER_MS)
        .begin_log_with(&mut log, &mut serializer)?;
    for level in &run.levels {
        for (protocol, tally) in level.totals() {
            let tag = tag(level.outcome.level.number, protocol);
            let written =
                writer.write_histogram(&tally.latency_ns, level.began_after, level.outcome.elapsed, Tag::new(&tag));
            written.map_err(io::Error::other)?;
        }
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let run = sample::run(&[1, 2, 11], &Protocol::ALL, 2);
        let log = render(&run).expect("written");
        let mut expected = run.levels.iter().flat_map(|level| {
            level.totals().map(|(protocol, tally)| (tag(level.outcome.level.number, protocol), &tally.latency_ns))
        });
        for entry in IntervalLogIterator::new(&log) {
            let LogEntry::Interval(interval) = entry.expect("a good log") else { continue };
            let (tag, histogram) = expected.next().expect("no more intervals than tallies");
            assert_eq!(interval.tag().map(|tag| tag.as_str()), Some(tag.as_str()));
            let bytes = STANDARD.decode(interval.encoded_histogram()).expect("base 64");
            let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).expect("a histogram");
            assert_eq!(&read, histogram, "{tag}");
        }
        assert!(expected.next().is_none(), "every tally is in the log");
    }
}
