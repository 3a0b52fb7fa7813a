//! Reports as metrics: how many are being made, and what became of those that did not come to their end.

use super::{Exposition, Kind};
use crate::reports::desk::ReportDesk;

/// Kinds of work, in the order in which the desk counts them.
const WORK: [&str; 3] = ["stream", "page", "datagram"];

pub(super) fn reports(text: &mut Exposition, desk: &ReportDesk) {
    let counts = desk.counts();
    let open = WORK.into_iter().zip(counts.open).map(|(work, open)| (format!("work=\"{work}\""), open));
    text.family("tb_reports_open", Kind::Gauge, "Reports being made now.", open);
    let ended = [("overloaded", counts.overloaded), ("broken", counts.broken), ("abandoned", counts.abandoned)];
    text.family(
        "tb_reports_unfinished_total",
        Kind::Counter,
        "Reports turned away, broken off by the database, or left by their readers.",
        ended.map(|(why, count)| (format!("why=\"{why}\""), count)),
    );
    let noted = [("written", counts.log.written), ("lost", counts.log.lost)];
    text.family(
        "tb_reports_noted_total",
        Kind::Counter,
        "Reports noted in the database, and notes given up.",
        noted.map(|(outcome, count)| (format!("outcome=\"{outcome}\""), count)),
    );
}
