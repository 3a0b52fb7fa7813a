//! Reports that were asked for: `report_usage:<id>`, each until 93 days after its own time.

use super::{KEPT_MS, Part, Round, SyncError, since_ms};
use crate::cache::load::{Loads, Shown};
use crate::cache::names::{CacheKey, REPORT_USAGE};
use crate::store::{PAGE_MAX, ReportLog, SyncMarks};
use std::time::Instant;

/// Writes those that have come.
pub async fn write(round: &Round, marks: &SyncMarks) -> Result<Part, SyncError> {
    let began = Instant::now();
    let mut part = Part::default();
    let mut after = (round.since.as_ref().map_or(0, |cursor| cursor.reports), String::new());
    let from_ms = round.now_ms.saturating_sub(KEPT_MS);
    // A full copy has them all: changes that came along with a copy of the database from elsewhere may be above the bound.
    let before = if round.since.is_some() { marks.reports } else { i64::MAX };
    while after.0 < before {
        let page = round.store.reports_arrived(&after, before, from_ms, PAGE_MAX).await?;
        let mut loads = Loads::default();
        for (_, report) in &page {
            // Its number is a UUID; whatever else somebody has put there has no place in a name.
            if let Ok(key) = CacheKey::new(REPORT_USAGE, &report.id) {
                loads.fields(&key, &fields(report), report.time_ms.min(round.now_ms) + KEPT_MS)?;
                part.written += 1;
            }
        }
        if loads.count() > 0 {
            round.cache.load(loads).await?;
        }
        match page.last() {
            Some((change, report)) if page.len() == PAGE_MAX => after = (*change, report.id.clone()),
            _ => break,
        }
    }
    part.took_ms = since_ms(began);
    Ok(part)
}

fn fields(report: &ReportLog) -> [(&'static str, Shown<'_>); 12] {
    [
        ("time_ms", Shown::Number(report.time_ms)),
        ("key_id", Shown::Number(report.key.into())),
        ("report", Shown::Text(&report.report)),
        ("protocol", Shown::Text(&report.protocol)),
        ("format", Shown::Text(&report.format)),
        ("query", Shown::Text(&report.query)),
        ("status", Shown::Number(report.status.into())),
        ("lines", Shown::Number(report.lines)),
        ("bytes", Shown::Number(report.bytes)),
        ("took_ms", Shown::Number(report.took_ms)),
        ("complete", Shown::Number(report.complete.into())),
        ("node", Shown::Text(&report.node)),
    ]
}
