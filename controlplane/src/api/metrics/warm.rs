//! What is kept ready: this node's prices for the others, and what was looked up before anybody asked.

use super::{Exposition, Kind};
use crate::warm::{FlushCounters, PrewarmCounters, WarmCounters};

/// Nothing of flushes where the cache is in this process.
pub(super) fn warm(text: &mut Exposition, counters: WarmCounters) {
    if let Some(FlushCounters { rounds, failures, prices, last_ms }) = counters.flush {
        let results = [("ok", rounds), ("failed", failures)];
        let results = results.map(|(result, count)| (format!("result=\"{result}\""), count));
        text.family("tb_flush_rounds_total", Kind::Counter, "Writes of all own fresh prices to the cache.", results);
        text.one("tb_flush_prices_total", Kind::Counter, "Prices written in them.", prices);
        let help = "When all own fresh prices were written last, Unix time; 0: never.";
        text.one("tb_flush_last_seconds", Kind::Gauge, help, last_ms / 1_000);
    }
    let PrewarmCounters { rounds, from_cache, from_rest, missing, unfinished } = counters.prewarm;
    let results = [("ended", rounds), ("given_up", unfinished)];
    let results = results.map(|(result, count)| (format!("result=\"{result}\""), count));
    text.family("tb_prewarm_rounds_total", Kind::Counter, "Looks for what is kept warm and has no price.", results);
    let outcomes = [("valkey", from_cache), ("rest", from_rest), ("missing", missing)];
    let outcomes = outcomes.map(|(outcome, count)| (format!("outcome=\"{outcome}\""), count));
    text.family("tb_prewarm_assets_total", Kind::Counter, "Assets looked for, by what was found.", outcomes);
}
