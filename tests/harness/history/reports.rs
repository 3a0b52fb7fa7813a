//! The reports' side of a history: sums of the requests of each class, as whoever may see every key's usage is told.

use super::Class;
use super::client::padded;
use crate::http;
use crate::service::Service;
use serde_json::Value;
use shared::usage::{PROTOCOL_TCP, PROTOCOL_UDP};
use std::collections::BTreeMap;

/// A range that holds every run, and lies in what may be asked for.
const RANGE: &str = "from=1700000000000&to=2000000000000";

/// Lines of a page.
const PAGE_LINES: usize = 1_000;

/// Sums by class in a report grouped by what a class has.
///
/// # Panics
/// When it is not given.
#[must_use]
pub fn grouped(service: &Service) -> BTreeMap<Class, u64> {
    sums(&lines(service, "group_by=key,asset,protocol,status"))
}

/// How many lines the report has that are about prices, and their sums by class.
///
/// # Panics
/// When it is not given.
#[must_use]
pub fn detailed(service: &Service) -> (usize, BTreeMap<Class, u64>) {
    let mut lines = lines(service, "");
    lines.retain(|line| !matches!(line["endpoint"].as_str(), Some("/reports" | "other")));
    (lines.len(), sums(&lines))
}

/// Every line, page by page.
fn lines(service: &Service, what: &str) -> Vec<Value> {
    let asked = format!("/reports/usage?format=json&{RANGE}&limit={PAGE_LINES}&{what}");
    let bearer = format!("Bearer {}", service.admin_key());
    let (mut lines, mut path) = (Vec::new(), asked.clone());
    loop {
        let reply = http::get(service.address("lrs_tcp"), path.trim_end_matches('&'), &[("Authorization", &bearer)]);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let mut page = reply.json();
        let rows = page["rows"].as_array_mut().map(std::mem::take).expect("rows");
        assert!(rows.len() <= PAGE_LINES, "{} lines in a page of {PAGE_LINES}", rows.len());
        lines.extend(rows);
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("{}&cursor={cursor}", asked.trim_end_matches('&')),
            None => return lines,
        }
    }
}

fn sums(lines: &[Value]) -> BTreeMap<Class, u64> {
    let mut sums = BTreeMap::new();
    for line in lines {
        let (class, requests) = class_of(line).unwrap_or_else(|| panic!("no line of a report: {line}"));
        *sums.entry(class).or_default() += requests;
    }
    sums
}

fn class_of(line: &Value) -> Option<(Class, u64)> {
    let protocol = match line["protocol"].as_str()? {
        "tcp" => PROTOCOL_TCP,
        "udp" => PROTOCOL_UDP,
        _ => return None,
    };
    let key = u32::try_from(line["key_id"].as_u64()?).ok()?;
    let status = u16::try_from(line["status"].as_u64()?).ok()?;
    // Told as null where there is none, or as no text.
    let asset = padded(line["asset"].as_str().unwrap_or_default());
    Some((Class { key, asset, protocol, status }, line["requests"].as_u64()?))
}
