//! `usage-writer`: brings what nodes have sent to the queue into the database.
//!
//! Any number of them may run at once, and beside nodes that write to the database themselves: rows count once. What is
//! written when is the writer's to know; here are its start, its end, and how others see that it is well.

use super::{environment, print};
use crate::api::listen;
use crate::config;
use crate::config::Settings;
use crate::config::layers::{Profile, SettingArgs};
use crate::logging;
use crate::store::{self, Store};
use crate::supervisor::{Signals, make_data_dir};
use crate::usage::queue;
use crate::usage::queue::writer::{QueueWriter, WriterCounters};
use anyhow::{Context, anyhow, bail};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use clap::Args;
use std::fmt::Write;
use std::sync::Arc;
use tokio::runtime::Builder;
use tokio::sync::watch;

/// Arguments of `usage-writer`.
#[derive(Debug, Args)]
pub struct UsageWriterArgs {
    /// Write what is in the queue now, tell what was done, and end
    #[arg(long)]
    once: bool,
    /// Answer /livez, /readyz and /metrics on this TCP port of BIND_ADDRESS; 0: any free port, which the log tells
    #[arg(long, value_name = "PORT", conflicts_with = "once")]
    health_port: Option<u16>,
    #[command(flatten)]
    settings: SettingArgs,
}

/// Writes until told to stop, or until the queue is empty.
pub fn run(args: &UsageWriterArgs) -> anyhow::Result<()> {
    let settings = config::load(Profile::Serve, &args.settings, environment)?;
    logging::start(&settings);
    if settings.database.is_in_data_dir() {
        make_data_dir(settings.data_dir.as_deref())?;
    }
    let runtime =
        Builder::new_multi_thread().worker_threads(1).enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let url = settings.usage.queue_url.as_deref();
        // What the program lacks is told before what the settings lack.
        let queue = queue::open(url.unwrap_or_default(), &settings.region)?;
        if url.is_none() {
            bail!("SQS_USAGE_LOG_QUEUE_URL is not set: there is no queue to write from");
        }
        let store = store::open(&settings.database, settings.data_dir.as_deref())?;
        if store.kind() == "sqlite" {
            store.migrate().await.context("cannot use the SQLite database; see DATABASE_URL and TB_DATA_DIR")?;
        }
        let writer = Arc::new(QueueWriter::new(queue, Arc::<dyn Store>::clone(&store)));
        let done = match args.once {
            true => once(&writer, &mut signals).await,
            false => until_told(&writer, args.health_port, &settings, signals).await,
        };
        store.close().await;
        done
    })
}

/// Empties the queue.
async fn once(writer: &Arc<QueueWriter>, signals: &mut Signals) -> anyhow::Result<()> {
    let (stop, stops) = watch::channel(false);
    let drained = writer.drain(stops);
    tokio::pin!(drained);
    let drained = tokio::select! {
        drained = &mut drained => drained,
        _ = signals.next() => {
            // The batch under way is finished.
            let _ = stop.send(true);
            drained.await
        }
    };
    print(&summary(writer.counters()))?;
    drained.map_err(|why| anyhow!("{why}; what is not written is still in the queue"))
}

/// Writes until a signal comes; the batch under way is finished.
async fn until_told(
    writer: &Arc<QueueWriter>,
    health_port: Option<u16>,
    settings: &Settings,
    mut signals: Signals,
) -> anyhow::Result<()> {
    let health = match health_port {
        None => None,
        Some(port) => {
            let listener = listen::bind(settings.bind, port, "--health-port").map_err(|why| anyhow!(why))?;
            tracing::info!(health = %listener.local_addr().context("the port has no address")?, "health is told");
            Some(tokio::spawn(listen::accept(listener, health_router(writer))))
        }
    };
    let (stop, stops) = watch::channel(false);
    let runs = tokio::spawn({
        let writer = Arc::clone(writer);
        async move { writer.run(stops).await }
    });
    tracing::info!("writing usage from the queue");
    let signal = signals.next().await;
    signals.exit_at_the_next();
    tracing::info!(signal, "told to stop: the batch under way is finished");
    let _ = stop.send(true);
    let ended = runs.await;
    if let Some(health) = health {
        health.abort();
    }
    tracing::info!("{}", summary(writer.counters()).trim_end());
    ended.context("the writer ended by itself, which is a bug: report it with the log")
}

/// What was done, in a line.
fn summary(counters: WriterCounters) -> String {
    let WriterCounters { received, written, left_alone, rows, rows_known, .. } = counters;
    format!(
        "usage-writer: {received} messages received, {written} written and deleted, {left_alone} left alone; \
         {rows} rows new, {rows_known} known already\n"
    )
}

fn health_router(writer: &Arc<QueueWriter>) -> Router {
    let (ready, metrics) = (Arc::clone(writer), Arc::clone(writer));
    let readyz = move || async move {
        match ready.is_well() {
            true => (StatusCode::OK, "ready\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "the queue or the database is away; the log says why\n"),
        }
    };
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(move || async move { (kind, exposition(metrics.counters())) }))
}

/// The counters in Prometheus' text form.
fn exposition(counters: WriterCounters) -> String {
    let WriterCounters { received, written, left_alone, rows, rows_known, queue_failures, store_failures } = counters;
    let mut text = String::new();
    for (name, help, value) in [
        ("messages_received", "Messages received.", received),
        ("messages_written", "Messages committed and deleted.", written),
        ("messages_left_alone", "Messages that could not be written, each time they came.", left_alone),
        ("rows_new", "Rows that were new.", rows),
        ("rows_known", "Rows that the database had already.", rows_known),
        ("queue_failures", "Requests that the queue did not answer, or refused.", queue_failures),
        ("store_failures", "Commits that failed.", store_failures),
    ] {
        let name = format!("tb_usage_writer_{name}_total");
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
    }
    text
}
