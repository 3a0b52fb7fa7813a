//! What the rounds found, as tables for people and as JSON for machines: medians over rounds.

use crate::cell::{Cell, Row};
use crate::listing::Listing;
use crate::median::median;
use crate::settings::Settings;
use crate::{CLIFF, Sample, Subject};
use serde_json::{Value, json};
use std::io;

/// One cell of a row, seen from the row's first.
struct Found {
    cpu_ns: f64,
    rate: f64,
    /// Median over rounds of this cell over the first, CPU per request; and its extremes.
    ratio: f64,
    ratio_range: (f64, f64),
}

pub fn show(settings: &Settings, rows: &[Row], subjects: &[Subject]) -> io::Result<()> {
    let listing = listing(settings, rows, subjects);
    listing.print()?;
    if let Some(path) = &settings.write {
        listing.append_to(path)?;
    }
    if let Some(path) = &settings.json {
        std::fs::write(path, to_json(settings, rows, subjects).to_string())?;
    }
    Ok(())
}

fn samples(subject: &Subject, cell: Cell) -> &[Sample] {
    subject.cells.iter().find(|(one, _)| *one == cell).map_or(&[], |(_, samples)| samples)
}

fn find(subject: &Subject, first: Cell, cell: Cell) -> Found {
    let (base, own) = (samples(subject, first), samples(subject, cell));
    let ratios: Vec<f64> = own.iter().zip(base).map(|(own, base)| own.cpu_ns / base.cpu_ns).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    Found {
        cpu_ns: median(own.iter().map(|sample| sample.cpu_ns).collect()),
        rate: median(own.iter().map(|sample| sample.rate).collect()),
        ratio: median(ratios),
        ratio_range: (least, most),
    }
}

fn listing(settings: &Settings, rows: &[Row], subjects: &[Subject]) -> Listing {
    let title = format!(
        "What a request costs as things grow: CPU of the serving thread per right answer, and its ratio to the least (and the \
         ratio's range), medians of {} rounds of {} ms",
        settings.rounds,
        settings.duration.as_millis()
    );
    let mut listing = Listing::new(title, &["what grows", "protocol", "engine", "least of it", "more", "most"]);
    for row in rows {
        let Some((_, first)) = row.cells.first() else { continue };
        for subject in subjects {
            let mut line = [row.name, row.protocol.name(), subject.engine].map(str::to_owned).to_vec();
            let mut is_cliff = false;
            for (size, cell) in &row.cells {
                let Found { cpu_ns, ratio, ratio_range: (least, most), .. } = find(subject, *first, *cell);
                is_cliff |= ratio > CLIFF;
                let mark = if ratio > CLIFF { " CLIFF" } else { "" };
                line.push(if cell == first {
                    format!("{size}: {cpu_ns:.0} ns")
                } else {
                    format!("{size}: {cpu_ns:.0} ns, {ratio:.3} ({least:.2}-{most:.2}){mark}")
                });
            }
            line.resize(listing.head.len(), String::new());
            listing.rows.push(line);
            if is_cliff {
                let (protocol, engine) = (row.protocol.name(), subject.engine);
                listing.remarks.push(format!("cliff: {}, {protocol}, {engine}. {}", row.name, row.reason));
            }
        }
    }
    for Subject { engine, memory, .. } in subjects {
        let told = [
            (memory.of_keys(), "a key"),
            (memory.of_connections(false), "a connection, when they come and ask in turn"),
            (memory.of_connections(true), "a connection, when all ask at once for the first time"),
        ];
        for (count, bytes, what) in
            told.into_iter().filter_map(|(one, what)| one.map(|(count, bytes)| (count, bytes, what)))
        {
            listing.remarks.push(format!("memory of the process, {engine}: {bytes:.0} bytes {what}, of {count}"));
        }
    }
    listing
}

fn to_json(settings: &Settings, rows: &[Row], subjects: &[Subject]) -> Value {
    let mut cells = Vec::new();
    for row in rows {
        let Some((_, first)) = row.cells.first() else { continue };
        for subject in subjects {
            for (size, cell) in &row.cells {
                let found = find(subject, *first, *cell);
                cells.push(json!({
                    "row": row.name, "protocol": row.protocol.name(), "engine": subject.engine, "size": size,
                    "cpu_ns": found.cpu_ns, "requests_per_second": found.rate, "ratio": found.ratio,
                    "ratio_min": found.ratio_range.0, "ratio_max": found.ratio_range.1,
                }));
            }
        }
    }
    let memory = |subject: &Subject| {
        let bytes = |of: Option<(usize, f64)>| of.map(|(_, bytes)| bytes);
        json!({
            "engine": subject.engine, "bytes_per_key": bytes(subject.memory.of_keys()),
            "bytes_per_connection": bytes(subject.memory.of_connections(false)),
            "more_bytes_per_connection_at_once": bytes(subject.memory.of_connections(true)),
        })
    };
    let memory: Vec<Value> = subjects.iter().map(memory).collect();
    json!({"rounds": settings.rounds, "millis": settings.duration.as_millis(), "cells": cells, "memory": memory})
}
