//! Usage on its way: counted, journaled, delivered.
//!
//! `tb_usage_spool_bytes` against `tb_usage_spool_bytes_max` and `tb_usage_oldest_seconds` tell early that a database is
//! away; `tb_usage_journal_up` that the disk is.

use super::{Exposition, Kind, Nanoseconds, Seconds};
use crate::usage::UsageLedger;
use crate::usage::journal::tally::Tallied;
use crate::usage::mirror::MirrorCounters;
use crate::usage::pipeline::PipelineStatus;
use crate::usage::shipper::Progressed;
use tuning::clock;

/// What was counted.
pub(super) fn counted(text: &mut Exposition, ledger: &UsageLedger) {
    let (requests, records) = ledger.total();
    text.one("tb_usage_requests_total", Kind::Counter, "Requests counted as usage.", requests);
    text.one("tb_usage_records_total", Kind::Counter, "Usage records they came in.", records);
}

/// What is in the journal.
pub(super) fn journal(text: &mut Exposition, status: &PipelineStatus) {
    let Tallied {
        records,
        requests,
        merged,
        append_failures,
        syncs,
        sync_failures,
        sync_ns,
        sync_ns_max,
        damaged,
        torn,
        unread,
        in_trouble,
    } = status.tallied();
    let (waiting, bytes_max) = status.waiting();
    let (held, given_up) = status.held();
    let mut one = |name, kind, help, value| text.one(name, kind, help, value);
    one("tb_usage_journal_up", Kind::Gauge, "Whether the journal takes records.", u64::from(!in_trouble));
    one("tb_usage_journaled_records_total", Kind::Counter, "Records in the journal.", records);
    one("tb_usage_journaled_requests_total", Kind::Counter, "Requests they stand for.", requests);
    one("tb_usage_merged_total", Kind::Counter, "Records merged because many came at once.", merged);
    one("tb_usage_held_records", Kind::Gauge, "Records in memory that are not in the journal.", held as u64);
    let help = "Records merged, with less detail, because the journal did not take them; no count is lost.";
    one("tb_usage_detail_given_up_total", Kind::Counter, help, given_up);
    one("tb_usage_append_failures_total", Kind::Counter, "Appends to the journal that failed.", append_failures);
    one("tb_usage_syncs_total", Kind::Counter, "Syncs of the journal.", syncs);
    one("tb_usage_sync_failures_total", Kind::Counter, "Syncs of the journal that failed.", sync_failures);
    one("tb_usage_segments", Kind::Gauge, "Segments of the journal.", waiting.segments);
    one("tb_usage_spool_bytes", Kind::Gauge, "Bytes of the journal's segments.", waiting.bytes);
    one("tb_usage_spool_bytes_max", Kind::Gauge, "Bytes that they may have.", bytes_max);
    one("tb_usage_spool_records", Kind::Gauge, "Records in the journal that are not delivered.", waiting.records);
    one("tb_usage_damaged_total", Kind::Counter, "Entries of the journal that were found damaged.", damaged);
    one("tb_usage_torn_total", Kind::Counter, "Segments with an end that was not wholly written.", torn);
    one("tb_usage_unread_files_total", Kind::Counter, "Files in the journal's directory left alone.", unread);
    let times = [
        ("tb_usage_sync_seconds_total", Kind::Counter, sync_ns),
        ("tb_usage_sync_seconds_max", Kind::Gauge, sync_ns_max),
    ];
    for (name, kind, ns) in times {
        text.one(name, kind, "Time that syncs of the journal took.", Nanoseconds(ns));
    }
}

/// What left the journal.
pub(super) fn shipper(text: &mut Exposition, progressed: Progressed) {
    let Progressed { kind, deliveries, rows, failures, mark_failures, away_since_ms, oldest_time_ms } = progressed;
    let now_ms = clock::now().wall_ms;
    let since = |ms: u64| Seconds::of_ms(if ms == 0 { 0 } else { now_ms.saturating_sub(ms) });
    let up = [(format!("to=\"{kind}\""), u8::from(away_since_ms == 0))];
    text.family("tb_usage_outlet_up", Kind::Gauge, "Whether usage is delivered.", up);
    let help = "Since when usage is not delivered; 0: it is.";
    text.one("tb_usage_away_seconds", Kind::Gauge, help, since(away_since_ms));
    text.one("tb_usage_deliveries_total", Kind::Counter, "Deliveries that were taken.", deliveries);
    text.one("tb_usage_delivered_rows_total", Kind::Counter, "Rows in them.", rows);
    text.one("tb_usage_delivery_failures_total", Kind::Counter, "Deliveries that were not taken.", failures);
    let help = "Marks of deliveries that could not be written beside the journal.";
    text.one("tb_usage_mark_failures_total", Kind::Counter, help, mark_failures);
    let help = "Age of the oldest record that is not delivered; 0: there is none.";
    text.one("tb_usage_oldest_seconds", Kind::Gauge, help, since(oldest_time_ms));
}

/// What was copied to the cache.
pub(super) fn mirror(text: &mut Exposition, counters: MirrorCounters) {
    let MirrorCounters { written, dropped, waiting } = counters;
    let help = "Rows copied to the cache, and rows left out because it was away or slow.";
    let rows =
        [("written", written), ("dropped", dropped)].map(|(became, rows)| (format!("became=\"{became}\""), rows));
    text.family("tb_usage_mirrored_rows_total", Kind::Counter, help, rows);
    text.one("tb_usage_mirror_waiting_rows", Kind::Gauge, "Rows that wait to be copied to the cache.", waiting);
}
