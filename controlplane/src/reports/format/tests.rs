//! Every format, byte for byte, and strict readers over what spreadsheets and terminals get wrong.

use super::*;
use crate::reports::query::{Asking, Report, Scope};
use crate::reports::summary::{Percentiles, Summary, TopAsset};
use std::collections::BTreeMap;

/// A query with these parameters, by the administrator.
fn query(report: Report, text: &str) -> ReportQuery {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    let pairs: Vec<(String, String)> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let asking = Asking { scope: Scope::Admin, now_ms: 1_793_500_060_000, retention_days: 93 };
    ReportQuery::parse(report, &pairs, &asking).expect("a good query")
}

fn line(time_ms: u64, asset: &str, node: &str, requests: u64) -> UsageLine {
    UsageLine {
        time_ms,
        key: 7,
        asset: asset.into(),
        protocol: "tcp".into(),
        endpoint: "/price".into(),
        status: 200,
        tier: "local".into(),
        node: node.into(),
        requests,
        segment: 1,
        offset: 2,
    }
}

fn opening() -> Opening {
    Opening {
        title: "Usage <b>".to_owned(),
        facts: vec![("key".to_owned(), "7 & 8".to_owned())],
        sums: vec![("requests".to_owned(), 1_234_567)],
        range_ms: (1_000, 5_000),
        bars: vec![
            Bar { from_ms: 1_000, to_ms: 2_000, requests: 4 },
            Bar { from_ms: 4_000, to_ms: 9_000, requests: 1 },
        ],
        zone: Zone::utc(),
    }
}

/// The report in a format, its pages written one after the other.
fn write(format: Format, parameters: &str, pages: &[&[UsageLine]]) -> String {
    let query = query(Report::Usage, parameters);
    let mut writer = LineWriter::new(format, &query);
    let mut bytes = Vec::new();
    writer.begin(pages.first().copied().unwrap_or_default(), Some(&opening()), &mut bytes).expect("memory");
    for page in pages {
        writer.write(page, &mut bytes).expect("memory");
    }
    writer.end(&mut bytes).expect("memory");
    String::from_utf8(bytes).expect("text")
}

#[track_caller]
fn check(format: Format, parameters: &str, expected: &str) {
    let (first, second) = (line(1_793_500_000_123, "BTC", "n1", 1), line(1_793_500_000_200, "", "n2", 70_000));
    assert_eq!(write(format, parameters, &[&[first], &[second]]), expected);
}

#[test]
fn every_format_has_the_same_columns_in_the_same_order() {
    check(
        Format::Csv,
        "",
        "time_ms,key_id,asset,protocol,endpoint,status,tier,node,requests\r\n\
         1793500000123,7,BTC,tcp,/price,200,local,n1,1\r\n1793500000200,7,,tcp,/price,200,local,n2,70000\r\n",
    );
    check(
        Format::Tsv,
        "",
        "time_ms\tkey_id\tasset\tprotocol\tendpoint\tstatus\ttier\tnode\trequests\n\
         1793500000123\t7\tBTC\ttcp\t/price\t200\tlocal\tn1\t1\n1793500000200\t7\t\ttcp\t/price\t200\tlocal\tn2\t70000\n",
    );
    check(
        Format::Ndjson,
        "",
        "{\"time_ms\":1793500000123,\"key_id\":7,\"asset\":\"BTC\",\"protocol\":\"tcp\",\"endpoint\":\"/price\",\
         \"status\":200,\"tier\":\"local\",\"node\":\"n1\",\"requests\":1}\n\
         {\"time_ms\":1793500000200,\"key_id\":7,\"asset\":\"\",\"protocol\":\"tcp\",\"endpoint\":\"/price\",\
         \"status\":200,\"tier\":\"local\",\"node\":\"n2\",\"requests\":70000}\n",
    );
}

#[test]
fn groups_show_their_columns_alone() {
    check(
        Format::Csv,
        "group_by=asset&interval=minute",
        "time_ms,asset,requests\r\n1793500000123,BTC,1\r\n1793500000200,,70000\r\n",
    );
    check(
        Format::Text,
        "group_by=asset&interval=minute&tz=Europe/Berlin",
        "time                           asset  requests\n\
         -----------------------------  -----  --------\n\
         2026-11-01T03:26:40.123+01:00  BTC           1\n\
         2026-11-01T03:26:40.200+01:00            70000\n\
         \n2 lines, 70001 requests\n",
    );
    check(Format::Ndjson, "group_by=status", "{\"status\":200,\"requests\":1}\n{\"status\":200,\"requests\":70000}\n");
}

/// Texts that must not do what they would.
const BAD: [&str; 12] = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\0x",
    "a,b",
    "say \"x\"",
    "two\nlines",
    "back\\slash",
    "<b>&'\u{1b}[31m",
];

#[test]
fn a_strict_reader_gets_every_text_back_and_a_spreadsheet_no_formula() {
    let lines: Vec<UsageLine> = BAD.iter().map(|text| line(5, text, text, 1)).collect();
    for (parameters, is_raw) in [("", false), ("raw=1", true), ("raw=0", false)] {
        let text = write(Format::Csv, parameters, &[&lines]);
        assert!(!text.replace("\r\n", "").replace("\"two\nlines\"", "").contains('\n'), "{text:?}");
        let mut reader = ::csv::ReaderBuilder::new().terminator(::csv::Terminator::CRLF).from_reader(text.as_bytes());
        assert_eq!(reader.headers().expect("a head").len(), 9);
        let records: Vec<_> = reader.records().collect::<Result<_, _>>().expect("every row has as many cells");
        assert_eq!(records.len(), BAD.len());
        for (record, bad) in records.iter().zip(BAD) {
            let expected = if is_raw || !is_formula(bad) { bad.to_owned() } else { format!("'{bad}") };
            assert_eq!((&record[2], &record[7], &record[8]), (expected.as_str(), expected.as_str(), "1"));
            assert_eq!(is_raw && is_formula(bad), is_formula(&record[2]), "{bad:?}");
        }
    }
}

#[test]
fn tabs_and_ends_of_lines_in_cells_are_escaped() {
    let lines: Vec<UsageLine> = BAD.iter().map(|text| line(5, text, "n", 1)).collect();
    let text = write(Format::Tsv, "raw=1", &[&lines]);
    let cells: Vec<&str> = text.lines().skip(1).map(|line| line.split('\t').nth(2).expect("a third cell")).collect();
    assert!(text.lines().all(|line| line.split('\t').count() == 9), "{text:?}");
    let back = |cell: &str| {
        let mut characters = cell.chars();
        let mut text = String::new();
        while let Some(character) = characters.next() {
            text.push(match (character, character == '\\') {
                (other, false) => other,
                _ => match characters.next().expect("something escaped") {
                    't' => '\t',
                    'n' => '\n',
                    'r' => '\r',
                    other => other,
                },
            });
        }
        text
    };
    assert_eq!(cells.iter().map(|cell| back(cell)).collect::<Vec<_>>(), BAD);
    assert!(write(Format::Tsv, "", &[&lines]).contains("\t'=1+1\t"));
}

#[test]
fn a_terminal_gets_no_commands() {
    let lines: Vec<UsageLine> = BAD.iter().map(|text| line(5, text, "n", 1)).collect();
    let text = write(Format::Text, "", &[&lines]);
    assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
    assert_eq!(text.lines().count(), BAD.len() + 4, "{text}");
    // Wider than the first page: pushed, not cut.
    let wide = "W".repeat(100);
    let text = write(Format::Text, "group_by=node", &[&[line(1, "", "n", 1)], &[line(1, "", &wide, 1)]]);
    assert!(text.contains(&wide), "{text}");
}

/// Reads the page as XML would: every element closed where it was opened, and no bare `&`. Its texts.
fn well_formed(page: &str) -> Vec<String> {
    let mut rest = page.strip_prefix("<!doctype html>\n").expect("HTML");
    let (mut open, mut texts) = (Vec::new(), Vec::new());
    while let Some(at) = rest.find('<') {
        let (text, tail) = rest.split_at(at);
        for after in text.split('&').skip(1) {
            let name = after.split(';').next().expect("an entity");
            assert!(["amp", "lt", "gt", "quot", "#39"].contains(&name), "{text:?}");
        }
        texts.push(text.to_owned());
        let (tag, tail) = tail[1..].split_once('>').expect("a tag ends");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().expect("a name").to_owned()),
        }
        rest = tail;
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest:?}");
    texts
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_else() {
    let lines: Vec<UsageLine> = BAD.iter().map(|text| line(5, text, "n", 1)).collect();
    let page = write(Format::Html, "tz=Europe/Berlin", &[&lines]);
    let texts = well_formed(&page);
    for expected in
        ["Usage &lt;b&gt;", "7 &amp; 8", "1,234,567", "1970-01-01T01:00:00.005+01:00", "12 lines, 12 requests."]
    {
        assert!(texts.iter().any(|text| text == expected), "{expected} in {page}");
    }
    assert_eq!(page.matches("<rect ").count(), 2);
    assert!(page.contains("<rect x=\"0\" y=\"0\" width=\"299\" height=\"200\">"), "{page}");
    assert!(page.contains("<rect x=\"900\" y=\"150\" width=\"299\" height=\"50\">"), "cut at the range's end: {page}");
    for outside in ["http:", "https:", "src=", "url(", "@import", "<link", "<script", "\u{1b}", "\0"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn a_page_says_where_it_was_cut() {
    let page: Vec<UsageLine> = (0..HTML_LINES_MAX).map(|time| line(time, "BTC", "n", 1)).collect();
    let whole = write(Format::Html, "", &[&page]);
    assert!(!whole.contains("class=\"cut\""));
    let cut = write(Format::Html, "", &[&page, &page[..1]]);
    assert_eq!(cut.matches("<tr><td>").count() as u64, HTML_LINES_MAX);
    assert!(cut.contains("Only the first 5,000 lines are shown here"));
    well_formed(&cut);
}

#[test]
fn no_lines_are_a_report_too() {
    check_empty(Format::Csv, "time_ms,status,requests\r\n");
    check_empty(Format::Tsv, "time_ms\tstatus\trequests\n");
    check_empty(Format::Ndjson, "");
    check_empty(Format::Text, "time  status  requests\n----  ------  --------\n\n0 lines, 0 requests\n");
}

#[track_caller]
fn check_empty(format: Format, expected: &str) {
    assert_eq!(write(format, "group_by=status&interval=day", &[]), expected);
}

fn summary() -> Summary {
    Summary {
        report: "summary",
        from_ms: 1_793_500_000_000,
        to_ms: 1_793_500_060_000,
        requests: 12,
        first_time_ms: Some(1_793_500_000_123),
        last_time_ms: None,
        by_protocol: BTreeMap::from([("tcp".to_owned(), 12)]),
        by_status: BTreeMap::from([("200".to_owned(), 11), ("404".to_owned(), 1)]),
        by_tier: BTreeMap::new(),
        per_minute: Percentiles { p50: 12, p90: 12, p99: 12, max: 12, minutes: 1 },
        top_assets: vec![TopAsset { asset: "=BTC".to_owned(), requests: 11 }],
        top_keys: None,
    }
}

#[test]
fn a_summary_has_its_numbers_in_every_format() {
    let query = query(Report::Summary, "");
    for format in Format::ALL {
        let mut bytes = Vec::new();
        summary::write(format, &query, &summary(), Some(&opening()), &mut bytes).expect("memory");
        let text = String::from_utf8(bytes).expect("text");
        let expected: &[&str] = match format {
            Format::Json => {
                &["{\"report\":\"summary\",\"from_ms\":1793500000000,", "\"by_status\":{\"200\":11,\"404\":1}"]
            }
            Format::Ndjson => &["{\"section\":\"total\",\"name\":\"requests\",\"value\":12}\n"],
            Format::Csv => &["section,name,value\r\n", "status,404,1\r\n", "top_asset,'=BTC,11\r\n"],
            Format::Tsv => &["section\tname\tvalue\n", "status\t404\t1\n", "top_asset\t'=BTC\t11\n"],
            Format::Text => &["section     name", "range       from_ms        2026-11-01T02:26:40.000+00:00\n"],
            Format::Html => &["<td>total</td><td>requests</td><td class=\"n\">12</td>"],
        };
        for part in expected {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        if format == Format::Html {
            well_formed(&text);
        }
    }
}
