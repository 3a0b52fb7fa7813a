//! Lookups as metrics: what came of them, from which tier and how soon, and what the cache had to say.
//!
//! `tb_lookup_cache_odd_total` above nothing tells that somebody writes prices that are none.

use super::{Exposition, Kind};
use crate::lookup::counters::{CODES, CacheGave, Counters, DURATIONS_MS, Durations, TIERS};
use crate::lookup::desk::LookupState;
use crate::lookup::entry::Odd;
use dataplane_core::feed::RemoteCounters;
use std::fmt::{self, Display};
use std::sync::atomic::{AtomicU64, Ordering};

/// Microseconds as seconds, exactly.
struct Microseconds(u64);

impl Display for Microseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

fn labelled<'a>(
    label: &'a str,
    names: impl IntoIterator<Item = &'a str> + 'a,
    counts: &'a [AtomicU64],
) -> impl Iterator<Item = (String, u64)> + 'a {
    let of = move |(name, count): (&str, &AtomicU64)| (format!("{label}=\"{name}\""), count.load(Ordering::Relaxed));
    names.into_iter().zip(counts).map(of)
}

pub(super) fn lookups(text: &mut Exposition, counters: &Counters, now: LookupState) {
    text.one("tb_lookups_in_flight", Kind::Gauge, "Assets being looked up.", now.in_flight);
    text.one("tb_on_demand_assets", Kind::Gauge, "Assets subscribed because they were asked for.", now.kept);
    durations(text, counters);
    let codes = || CODES.map(|code| code.name());
    let help = "Questions answered without a lookup: it came to nothing a moment ago, or there was no room.";
    text.family("tb_lookups_answered_total", Kind::Counter, help, labelled("code", codes(), &counters.answered));
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    text.one("tb_lookups_joined_total", Kind::Counter, "Questions that joined a lookup.", of(&counters.joined));
    let help = "Answers that a shard could not be given: it answers at the deadline.";
    text.one("tb_lookups_untold_total", Kind::Counter, help, of(&counters.untold));
    let gave = labelled("gave", CacheGave::ALL.map(CacheGave::name), &counters.cache);
    text.family("tb_lookup_cache_total", Kind::Counter, "What the cache gave when asked for a price.", gave);
    let odd = labelled("what", Odd::ALL.map(Odd::name), &counters.odd);
    text.family("tb_lookup_cache_odd_total", Kind::Counter, "What stood in the cache and is no price, by what.", odd);
    let written = labelled("outcome", ["written", "given_up"], &counters.written);
    text.family("tb_lookup_cache_writes_total", Kind::Counter, "Prices that lookups left in the cache.", written);
}

fn durations(text: &mut Exposition, counters: &Counters) {
    const NAME: &str = "tb_lookup_seconds";
    text.family::<u64>(NAME, Kind::Histogram, "How long lookups took, by what they came to.", []);
    let found = TIERS.into_iter().map(|tier| tier.name()).zip(&counters.found);
    let nothing = CODES.into_iter().map(|code| code.name()).zip(&counters.nothing);
    for (outcome, durations) in found.chain(nothing) {
        one_duration(text, NAME, outcome, durations);
    }
}

fn one_duration(text: &mut Exposition, name: &str, outcome: &str, durations: &Durations) {
    let (below, all, micros) = durations.cumulated();
    let outcome = format!("outcome=\"{outcome}\"");
    for (bound_ms, count) in DURATIONS_MS.into_iter().zip(below) {
        let labels = format!("{outcome},le=\"{}\"", super::Seconds::of_ms(bound_ms));
        text.sample(&format!("{name}_bucket"), &labels, count);
    }
    text.sample(&format!("{name}_bucket"), &format!("{outcome},le=\"+Inf\""), all);
    text.sample(&format!("{name}_sum"), &outcome, Microseconds(micros));
    text.sample(&format!("{name}_count"), &outcome, all);
}

/// What the feed thread made of other nodes' prices.
pub(super) fn remote(text: &mut Exposition, counters: &RemoteCounters) {
    text.one("tb_feed_remote_taken_total", Kind::Counter, "Prices of other nodes taken.", counters.taken);
    let refused = [
        ("price", counters.refused_price),
        ("time", counters.refused_time),
        ("stale", counters.refused_stale),
        ("older", counters.refused_older),
        ("apart", counters.refused_apart),
    ];
    text.family(
        "tb_feed_remote_refused_total",
        Kind::Counter,
        "Prices of other nodes refused, by why.",
        refused.map(|(why, count)| (format!("why=\"{why}\""), count)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_samples_from_the_start() {
        let mut text = Exposition::default();
        lookups(&mut text, &Counters::default(), LookupState { in_flight: 3, kept: 2 });
        remote(&mut text, &RemoteCounters { refused_apart: 7, ..RemoteCounters::default() });
        for line in [
            "tb_lookups_in_flight 3",
            "tb_on_demand_assets 2",
            r#"tb_lookup_seconds_bucket{outcome="rest",le="0.060"} 0"#,
            r#"tb_lookup_seconds_bucket{outcome="asset_unknown",le="+Inf"} 0"#,
            r#"tb_lookup_seconds_sum{outcome="valkey"} 0.000000"#,
            r#"tb_lookups_answered_total{code="overloaded"} 0"#,
            r#"tb_lookup_cache_total{gave="old"} 0"#,
            r#"tb_lookup_cache_odd_total{what="simulated"} 0"#,
            r#"tb_feed_remote_refused_total{why="apart"} 7"#,
        ] {
            assert!(text.0.lines().any(|one| one == line), "{line} in:\n{}", text.0);
        }
    }
}
