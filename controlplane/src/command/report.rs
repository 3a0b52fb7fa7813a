//! `report`: a client that fetches reports of usage, to a file or to stdout.
//!
//! What a report may be asked for is the service's to say: its refusals are shown as they are. Here is known how to ask,
//! and that a body which broke off is no report: FILE is there whole or not at all.

mod download;
mod time;

use self::time::Time;
use super::service::ServiceArgs;
use anyhow::Context;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use tuning::clock;

/// Port of reports over HTTP.
const PORT: u16 = 9_090;

/// Rows of one page when all are wanted: the most that a page has.
const PAGE_ROWS: &str = "1000";

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Rows of usage, or their totals
    #[arg(value_enum)]
    what: What,
    /// From when on: RFC 3339, Unix ms, or so long ago: -24h, -7d, -30m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time::read)]
    from: Option<Time>,
    /// Until when, in the same forms
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time::read)]
    to: Option<Time>,
    /// About this asset alone
    #[arg(long)]
    asset: Option<String>,
    /// tcp or udp alone
    #[arg(long)]
    protocol: Option<String>,
    /// With this HTTP status alone
    #[arg(long)]
    status: Option<String>,
    /// From this tier alone: local, valkey, rest
    #[arg(long)]
    tier: Option<String>,
    /// From this node alone
    #[arg(long)]
    node: Option<String>,
    /// Of the key with this number; with the admin key
    #[arg(long)]
    key_id: Option<String>,
    /// Sums by key, asset, protocol, status, tier or node
    #[arg(long, value_name = "FIELD")]
    group_by: Option<String>,
    /// Sums by minute, hour or day
    #[arg(long)]
    interval: Option<String>,
    /// Time zone of times and days, such as Europe/Berlin
    #[arg(long)]
    tz: Option<String>,
    /// Rows of one page; json alone has pages
    #[arg(long)]
    limit: Option<String>,
    /// The page behind this cursor, of the page before it
    #[arg(long)]
    cursor: Option<String>,
    /// The form of the report
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// With json: every page, as one document
    #[arg(long)]
    all: bool,
    /// Write to this file, which is there only when the report is whole; without it: to stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    service: ServiceArgs,
}

/// Which report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Rows, or sums of them
    Usage,
    /// Totals
    Summary,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Csv,
    Tsv,
    Text,
    Ndjson,
    Html,
}

/// A value's name on the command line, which is its name in the query too.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl ReportArgs {
    /// The address of the report, and what is asked of it.
    fn question(&self, now_ms: u64) -> (String, Vec<(&'static str, String)>) {
        let time = |time: &Option<Time>| time.as_ref().map(|time| time.text(now_ms));
        let limit = self.limit.clone().or_else(|| self.all.then(|| PAGE_ROWS.to_owned()));
        let members = [
            ("format", Some(name(&self.format))),
            ("from", time(&self.from)),
            ("to", time(&self.to)),
            ("asset", self.asset.clone()),
            ("protocol", self.protocol.clone()),
            ("status", self.status.clone()),
            ("tier", self.tier.clone()),
            ("node", self.node.clone()),
            ("key_id", self.key_id.clone()),
            ("group_by", self.group_by.clone()),
            ("interval", self.interval.clone()),
            ("tz", self.tz.clone()),
            ("limit", limit),
            ("cursor", self.cursor.clone()),
        ];
        let members = members.into_iter().filter_map(|(name, value)| Some((name, value?)));
        (format!("{}/reports/{}", self.service.base(PORT), name(&self.what)), members.collect())
    }
}

/// Fetches a report.
pub fn run(args: &ReportArgs) -> anyhow::Result<()> {
    if args.all && (args.what, args.format) != (What::Usage, Format::Json) {
        let why = "--all is for `report usage --format json`: nothing else has pages\n";
        clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, why).exit();
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let (url, members) = args.question(clock::now().wall_ms);
    let mut sink = download::Sink::open(args.output.as_deref())?;
    let done = runtime.block_on(async {
        let asks = download::Asks::new(url, members, &args.service.key)?;
        tokio::select! {
            done = fetch(&asks, args.all, &mut sink) => done,
            // Without a file nothing is to be tidied up, and a reader of stdout that reads no more would be waited for.
            _ = tokio::signal::ctrl_c(), if args.output.is_some() => Err(anyhow::anyhow!("interrupted")),
        }
    });
    sink.end(done)
}

async fn fetch(asks: &download::Asks, all: bool, sink: &mut download::Sink) -> anyhow::Result<()> {
    if all { asks.pages(sink).await } else { asks.body(sink).await }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ReportArgs,
    }

    #[track_caller]
    fn check(line: &str, path: &str, expected: &[(&'static str, &str)]) {
        let words = ["report"].into_iter().chain(line.split(' ')).chain(["--key", "k", "--url", "http://h"]);
        let args = Line::try_parse_from(words).unwrap_or_else(|why| panic!("{why}")).args;
        let (url, members) = args.question(1_793_500_000_000);
        let members: Vec<(&str, &str)> = members.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!((url.as_str(), members.as_slice()), (format!("http://h{path}").as_str(), expected));
    }

    #[test]
    fn a_question_says_what_was_asked_and_nothing_else() {
        check("usage", "/reports/usage", &[("format", "json")]);
        check("summary --format html", "/reports/summary", &[("format", "html")]);
        check(
            "usage --from -24h --to 1793500000000 --group-by asset --interval hour --tz Europe/Berlin --all",
            "/reports/usage",
            &[
                ("format", "json"),
                ("from", "1793413600000"),
                ("to", "1793500000000"),
                ("group_by", "asset"),
                ("interval", "hour"),
                ("tz", "Europe/Berlin"),
                ("limit", "1000"),
            ],
        );
        check(
            "usage --asset BTC --status 200 --key-id 7 --limit 5 --cursor c",
            "/reports/usage",
            &[
                ("format", "json"),
                ("asset", "BTC"),
                ("status", "200"),
                ("key_id", "7"),
                ("limit", "5"),
                ("cursor", "c"),
            ],
        );
    }
}
