//! `GET /metrics`: the counters in Prometheus' text form.
//!
//! Labels are shards, venues, codes, ranks and kinds, all few; never a key, an address or an asset.

mod backing;
mod lookups;
mod reports;
mod usage;
mod warm;

use super::{ApiState, Shared, health};
use crate::feeds::status::VenueStatus;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use dataplane_core::counters::ShardCounters;
use dataplane_core::feed::VenueCounters;
use dataplane_core::governor::RANKS;
use dataplane_engine::{LagHistogram, ShardStats};
use shared::code::Code;
use shared::venue::Venue;
use std::fmt::{Display, Write};

/// Every family of metrics, in Prometheus' text form 0.0.4.
pub async fn metrics(State(state): Shared) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], render(&state)).into_response()
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The text under construction.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    /// One family: its help, its kind and its samples, each with its labels (`a="b"`, or nothing).
    fn family<V: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            self.sample(name, &labels, value);
        }
    }

    /// One sample of the family begun last.
    fn sample<V: Display>(&mut self, name: &str, labels: &str, value: V) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn one<V: Display>(&mut self, name: &str, kind: Kind, help: &str, value: V) {
        self.family(name, kind, help, [(String::new(), value)]);
    }
}

fn render(state: &ApiState) -> String {
    let mut text = Exposition::default();
    node(&mut text, state);
    shards(&mut text, &state.plane.stats());
    feeds(&mut text, state);
    if let Some((counters, now)) = state.lookups.figures() {
        lookups::lookups(&mut text, counters, now);
    }
    warm::warm(&mut text, state.warm.counters());
    lookups::remote(&mut text, &state.plane.feed_counters().remote);
    backing::governor(&mut text, state.governor.status());
    backing::store(&mut text, &*state.store);
    backing::cache(&mut text, &*state.cache);
    backing::params(&mut text, &state.params);
    backing::keys(&mut text, &state.keys);
    backing::cluster(&mut text, &state.cluster.watch().borrow());
    backing::limits(&mut text, &state.limits);
    usage::counted(&mut text, &state.usage);
    if let Some(desk) = &state.reports {
        reports::reports(&mut text, desk);
    }
    if let Some(journal) = &state.journal {
        usage::journal(&mut text, journal);
        usage::shipper(&mut text, journal.progressed());
    }
    if let Some(mirror) = &state.mirror {
        usage::mirror(&mut text, mirror.counters());
    }
    let turned_away = state.admin.turned_away();
    text.one("tb_admin_refused_total", Kind::Counter, "Requests to /admin with a wrong key.", turned_away);
    text.0
}

fn node(text: &mut Exposition, state: &ApiState) {
    let facts = &state.facts;
    let build = format!("version=\"{}\",role=\"{}\",node=\"{}\"", facts.version, facts.role, facts.node);
    text.family("tb_build_info", Kind::Gauge, "Program and node.", [(build, 1)]);
    let backend = format!("backend=\"{}\"", state.plane.engine().0.name());
    text.family("tb_io_backend_info", Kind::Gauge, "What moves bytes for the shards.", [(backend, 1)]);
    let started_s = facts.started_time_ms / 1_000;
    text.one("tb_start_time_seconds", Kind::Gauge, "When the process started, Unix time.", started_s);
    let ready = u8::from(health::unready_reasons(state).is_empty());
    text.one("tb_ready", Kind::Gauge, "Whether the node is ready.", ready);
}

/// A metric that several things of a kind have: its name, kind, help, and where it stands.
type Each<T> = (&'static str, Kind, &'static str, fn(&T) -> u64);

const PER_SHARD: [Each<ShardStats>; 30] = [
    ("tb_http_requests_total", Kind::Counter, "HTTP requests answered.", |shard| shard.counters.http_requests),
    ("tb_answered_total", Kind::Counter, "Requests answered with a price.", |shard| shard.counters.answered),
    ("tb_datagrams_total", Kind::Counter, "Datagrams received.", |shard| shard.counters.datagrams),
    ("tb_datagram_replies_total", Kind::Counter, "Datagrams answered.", |shard| shard.counters.datagram_replies),
    ("tb_datagrams_silent_total", Kind::Counter, "Datagrams met with silence.", |shard| {
        shard.counters.datagrams_silent
    }),
    ("tb_ticks_total", Kind::Counter, "Prices taken from the feed.", |shard| shard.counters.ticks),
    ("tb_hand_overs_total", Kind::Counter, "Sockets handed to the control plane.", |shard| shard.counters.hand_overs),
    ("tb_waiting", Kind::Gauge, "Requests waiting for a price.", |shard| shard.counters.waiting),
    ("tb_datagrams_waiting", Kind::Gauge, "Datagrams waiting for a lookup.", |shard| shard.counters.datagrams_waiting),
    ("tb_shard_lookups_total", Kind::Counter, "Lookups asked of the desk.", |shard| shard.counters.lookups_begun),
    ("tb_shard_lookups_found_total", Kind::Counter, "Of these, found a price.", |shard| shard.counters.lookups_found),
    ("tb_shard_lookups_fruitless_total", Kind::Counter, "Of these, told that there is none.", |shard| {
        shard.counters.lookups_fruitless
    }),
    ("tb_shard_lookups_expired_total", Kind::Counter, "Of these, ended by the deadline.", |shard| {
        shard.counters.lookups_expired
    }),
    ("tb_shard_lookups_refused_total", Kind::Counter, "Lookups not begun for want of room.", |shard| {
        shard.counters.lookups_refused
    }),
    ("tb_shard_lookups", Kind::Gauge, "Lookups under way.", |shard| shard.counters.lookups_under_way),
    ("tb_generation", Kind::Gauge, "Highest sequence in the table.", |shard| shard.counters.generation),
    ("tb_datagrams_unsent_total", Kind::Counter, "Replies the kernel did not take.", |shard| shard.datagrams_unsent),
    ("tb_datagrams_grouped_total", Kind::Counter, "Replies sent together.", |shard| shard.datagrams_grouped),
    ("tb_usage_ring_full_total", Kind::Counter, "Usage records that had to wait.", |shard| {
        shard.counters.usage_ring_full
    }),
    (
        "tb_usage_coarser_total",
        Kind::Counter,
        "Requests counted without their asset or key, for want of places.",
        |shard| shard.counters.usage_coarser,
    ),
    ("tb_connections", Kind::Gauge, "Open TCP connections.", |shard| shard.connections),
    ("tb_accepted_total", Kind::Counter, "TCP connections accepted.", |shard| shard.accepted),
    ("tb_closed_by_us_total", Kind::Counter, "Connections closed for time or room.", |shard| shard.closed_by_us),
    ("tb_parks_total", Kind::Counter, "Waits in the kernel.", |shard| shard.parks),
    ("tb_receive_buffers_short_total", Kind::Counter, "Receives without a buffer.", |shard| {
        shard.receive_buffers_short
    }),
    ("tb_completion_overflows_total", Kind::Counter, "Completion queue overflows.", |shard| shard.completion_overflows),
    (
        "tb_http_overloaded_total",
        Kind::Counter,
        "HTTP requests answered overloaded, those shed by the governor among them, those short of a lookup not.",
        |shard| shard.counters.http_overloaded,
    ),
    ("tb_active_connections", Kind::Gauge, "Connections with a request in the last 200 to 400 ms.", |shard| {
        shard.counters.active
    }),
    ("tb_active_connections_max", Kind::Gauge, "Active connections a shard may have now.", |shard| {
        shard.counters.active_max
    }),
    ("tb_shard_turned_mono_ms", Kind::Gauge, "When the loop last turned, ms since boot.", |shard| shard.turned_mono_ms),
];

fn shards(text: &mut Exposition, stats: &[ShardStats]) {
    let label = |shard: &ShardStats| format!("shard=\"{}\"", shard.index);
    for (name, kind, help, value) in PER_SHARD {
        text.family(name, kind, help, stats.iter().map(|shard| (label(shard), value(shard))));
    }
    let cpu = stats.iter().map(|shard| (label(shard), Seconds::of_ns(shard.cpu_ns)));
    text.family("tb_shard_cpu_seconds_total", Kind::Counter, "CPU time of the shard's thread.", cpu);
    feed_lag(text, stats);
    let refused = |code: Code| {
        let count = |counters: &ShardCounters| counters.refused[usize::from(code.number())];
        stats.iter().map(|shard| count(&shard.counters)).sum::<u64>()
    };
    let refused = Code::ALL.into_iter().map(|code| (format!("code=\"{}\"", code.name()), refused(code)));
    text.family("tb_refused_total", Kind::Counter, "Requests refused, by code.", refused);
    let shed = |rank: usize| stats.iter().map(|shard| shard.counters.shed[rank]).sum::<u64>();
    let shed = (0..RANKS).map(|rank| (format!("rank=\"{rank}\""), shed(rank)));
    text.family("tb_shed_total", Kind::Counter, "Requests shed by the governor, by the tier's rank.", shed);
}

/// From the receipt of a venue's frame until a shard had the price made of it, over all shards.
fn feed_lag(text: &mut Exposition, stats: &[ShardStats]) {
    const NAME: &str = "tb_feed_lag_seconds";
    let lag = stats.iter().fold(LagHistogram::default(), |sum, shard| sum.with(&shard.feed_lag));
    let help = "From a frame's receipt until a shard had its price.";
    text.family::<u64>(NAME, Kind::Histogram, help, []);
    for (bound_ns, below) in lag.below_powers() {
        text.sample(&format!("{NAME}_bucket"), &format!("le=\"{}\"", Nanoseconds(bound_ns)), below);
    }
    text.sample(&format!("{NAME}_bucket"), "le=\"+Inf\"", lag.count());
    text.sample(&format!("{NAME}_sum"), "", Nanoseconds(lag.sum_ns()));
    text.sample(&format!("{NAME}_count"), "", lag.count());
}

const PER_VENUE: [Each<VenueCounters>; 6] = [
    ("tb_feed_quotes_total", Kind::Counter, "Quotes taken.", |venue| venue.quotes),
    ("tb_feed_refused_price_total", Kind::Counter, "Quotes with an impossible price.", |venue| venue.refused_price),
    ("tb_feed_refused_order_total", Kind::Counter, "Quotes out of order.", |venue| venue.refused_order),
    ("tb_feed_refused_time_total", Kind::Counter, "Quotes of a wrong time.", |venue| venue.refused_time),
    ("tb_feed_quarantines_total", Kind::Counter, "Assets that went into quarantine.", |venue| venue.quarantines),
    ("tb_feed_quarantined", Kind::Gauge, "Assets in quarantine.", |venue| venue.quarantined),
];

fn feeds(text: &mut Exposition, state: &ApiState) {
    let counters = state.plane.feed_counters();
    text.one("tb_feed_ticks_total", Kind::Counter, "Prices published.", counters.ticks);
    text.one("tb_feed_conflated_total", Kind::Counter, "Prices replaced before a shard took them.", counters.conflated);
    let help = "Prices of USDT over REST alone that are too far from our own, or from a dollar, to convert others.";
    text.one("tb_feed_rates_refused_total", Kind::Counter, help, counters.rates_refused);
    let sessions = state.feeds.status().venues;
    let age = |session: &VenueStatus| Some((exchange(session.venue), Seconds::of_ms(session.last_frame_age_ms?)));
    text.family("tb_feed_age_seconds", Kind::Gauge, "Since the venue's last frame.", sessions.iter().filter_map(age));
    let connected = sessions.iter().map(|session| (exchange(session.venue), u8::from(session.connected)));
    text.family("tb_feed_connected", Kind::Gauge, "Whether a connection to the venue is open.", connected);
    for (name, kind, help, value) in PER_VENUE {
        let samples =
            Venue::ALL.into_iter().map(|venue| (exchange(venue.name()), value(&counters.venues[venue.index()])));
        text.family(name, kind, help, samples);
    }
    let board = state.prices.state();
    text.one("tb_prices", Kind::Gauge, "Assets with a price.", board.priced);
    text.one("tb_prices_fresh", Kind::Gauge, "Assets with a price that is not stale.", board.fresh);
}

fn exchange(venue: &str) -> String {
    format!("exchange=\"{venue}\"")
}

/// Seconds with milliseconds, exactly.
struct Seconds(u64);

impl Seconds {
    const fn of_ms(ms: u64) -> Self {
        Self(ms)
    }

    const fn of_ns(ns: u64) -> Self {
        Self(ns / 1_000_000)
    }
}

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

/// Nanoseconds as seconds, exactly.
struct Nanoseconds(u64);

impl Display for Nanoseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
