//! The page that `html` is: what it is about, the totals and a chart above the table, and how much of it is shown below.
//!
//! It needs nothing else: no script, no font, no picture from anywhere. It follows the reader's choice of light or dark,
//! and prints with its table's head on every sheet.

use super::html::escaped;
use crate::reports::zone::Zone;
use std::io::{self, Write};

/// Width and height of the chart, in its own units.
const CHART: (u64, u64) = (1_200, 200);

/// Bars of the chart at most: each is five units wide, and so still seen.
pub const BARS_MAX: u64 = 240;

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\" />
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />
<meta name=\"color-scheme\" content=\"light dark\" /><meta name=\"robots\" content=\"noindex\" />
";

const STYLE: &str = "<style>
:root{--ink:#1c2024;--dim:#60646c;--line:#d9dbe0;--head:#f2f3f5;--bar:#2a6df4;--page:#fff;--warn:#fff3cd}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--dim:#9ba1a6;--line:#363a3f;--head:#212528;--bar:#6ea0ff;--page:#15181a;--warn:#4a3d10}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:76rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.05rem;margin:1.75rem 0 .5rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:.5rem 0}dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
.sums{display:flex;flex-wrap:wrap;gap:.5rem;padding:0;list-style:none}
.sums li{border:1px solid var(--line);border-radius:.4rem;padding:.35rem .75rem;color:var(--dim)}
.sums b{display:block;color:var(--ink);font-size:1.15rem;font-variant-numeric:tabular-nums}
figure{margin:0}svg{display:block;width:100%;height:auto}rect{fill:var(--bar)}
line{stroke:var(--line)}figcaption{display:flex;justify-content:space-between;color:var(--dim);font-size:.85rem}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}
th{background:var(--head);position:sticky;top:0}.n{text-align:right}
.note{color:var(--dim)}.cut{background:var(--warn);border-radius:.4rem;padding:.5rem .75rem}
@media print{:root{--ink:#000;--dim:#444;--line:#bbb;--head:#eee;--bar:#333;--page:#fff}body{margin:0;max-width:none;font-size:11px}
thead{display:table-header-group}tr,figure{break-inside:avoid}th{position:static}.wide{overflow:visible}}
</style>
";

/// One bar of the chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Where it begins, Unix ms.
    pub from_ms: u64,
    /// Where it ends, Unix ms.
    pub to_ms: u64,
    /// Its height.
    pub requests: u64,
}

/// What stands above the table.
#[derive(Clone, Debug)]
pub struct Opening {
    /// What it is.
    pub title: String,
    /// What it is about: names and values.
    pub facts: Vec<(String, String)>,
    /// Sums, by name.
    pub sums: Vec<(String, u64)>,
    /// The range of the chart, Unix ms.
    pub range_ms: (u64, u64),
    /// The bars, by time.
    pub bars: Vec<Bar>,
    /// What the chart's times are told in.
    pub zone: Zone,
}

/// Digits in groups of three.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Writes everything down to the table.
pub(super) fn open(opening: Option<&Opening>, into: &mut Vec<u8>) -> io::Result<()> {
    let title = opening.map_or("Report", |opening| opening.title.as_str());
    write!(into, "{HEAD}<title>{0}</title>\n{STYLE}</head><body>\n<h1>{0}</h1>\n", escaped(title))?;
    if let Some(opening) = opening {
        into.extend_from_slice(b"<dl>\n");
        for (name, value) in &opening.facts {
            writeln!(into, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value))?;
        }
        into.extend_from_slice(b"</dl>\n<ul class=\"sums\">\n");
        for (name, sum) in &opening.sums {
            writeln!(into, "<li><b>{}</b>{}</li>", grouped(*sum), escaped(name))?;
        }
        into.extend_from_slice(b"</ul>\n");
        chart(opening, into)?;
    }
    into.write_all(b"<h2>Lines</h2>\n<div class=\"wide\">\n")
}

fn chart(opening: &Opening, into: &mut Vec<u8>) -> io::Result<()> {
    let Opening { range_ms: (from_ms, to_ms), bars, zone, .. } = opening;
    let highest = bars.iter().map(|bar| bar.requests).max().unwrap_or(0);
    let length_ms = to_ms.saturating_sub(*from_ms).max(1);
    let (width, height) = CHART;
    let x = |time_ms: u64| {
        let offset_ms = time_ms.clamp(*from_ms, *to_ms).saturating_sub(*from_ms);
        // Wide numbers: ten years of ms times the width stay far below 2^64.
        offset_ms * width / length_ms
    };
    writeln!(
        into,
        "<h2>Requests over time</h2>\n<figure>\n<svg viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"Requests over time, at most {} in one bar\">\n\
         <line x1=\"0\" y1=\"{height}\" x2=\"{width}\" y2=\"{height}\" />",
        grouped(highest)
    )?;
    for bar in bars.iter().filter(|bar| bar.requests > 0) {
        let (begin, end) = (x(bar.from_ms), x(bar.to_ms));
        // One unit between two bars where there is room; a bar that is there is seen, however low.
        let wide = end.saturating_sub(begin).saturating_sub(1).max(1);
        let high = scaled(bar.requests, highest, height).max(1);
        let when = escaped(&zone.rfc3339(bar.from_ms));
        writeln!(
            into,
            "<rect x=\"{begin}\" y=\"{}\" width=\"{wide}\" height=\"{high}\"><title>{when}: {}</title></rect>",
            height - high,
            grouped(bar.requests)
        )?;
    }
    writeln!(
        into,
        "</svg>\n<figcaption><span>{}</span><span>highest bar: {}</span><span>{}</span></figcaption>\n</figure>",
        escaped(&zone.rfc3339(*from_ms)),
        grouped(highest),
        escaped(&zone.rfc3339(*to_ms))
    )
}

/// `part` of `whole` on a scale up to `height`.
fn scaled(part: u64, whole: u64, height: u64) -> u64 {
    let scaled = u128::from(part) * u128::from(height) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(height).min(height)
}

/// Writes what stands below the table, and the page's end.
pub(super) fn close(lines: u64, requests: u64, was_cut: bool, into: &mut Vec<u8>) -> io::Result<()> {
    let (lines, requests) = (grouped(lines), grouped(requests));
    into.extend_from_slice(b"</div>\n");
    match was_cut {
        true => writeln!(
            into,
            "<p class=\"cut\">Only the first {lines} lines are shown here. The sums and the chart are of all of them; for \
             every line ask with <code>format=csv</code>, <code>tsv</code>, <code>ndjson</code> or <code>text</code>, or \
             make the range shorter.</p>"
        )?,
        false => writeln!(into, "<p class=\"note\">{lines} lines, {requests} requests.</p>")?,
    }
    into.write_all(b"</body></html>\n")
}
