//! Every time and count that a venue feed runs by, with the reason for its value.
//!
//! They are values rather than constants so that a test can run a day's patience in a second; production uses
//! [`Timing::default`]. What a venue itself permits (frames a second, connects, REST requests) is not here: that is
//! `venues::protocol::VenueLimits`.

use std::time::Duration;

/// Largest WebSocket message we take. The largest recorded one is a 100-trade snapshot of 25 KiB.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Largest WebSocket frame we take.
pub const FRAME_BYTES_MAX: usize = 256 << 10;

/// Largest instrument list we read: the largest venue's is under 3 MiB.
pub const LIST_BYTES_MAX: usize = 8 << 20;

/// Largest answer to a price request we read. Several stale assets of a venue are asked for as its list of all tickers:
/// Gate.io's has about 2,500 rows of 300 bytes.
pub const TICKER_BYTES_MAX: usize = 2 << 20;

/// Connections one venue may need: 16 of the smallest published capacity (100 names) hold 1,600 markets.
pub const CONNECTIONS_MAX: usize = 16;

/// Resubscriptions in an hour on one connection. OKX permits 480 operations an hour, and one of ours is two of them
/// (unsubscribe, subscribe), so 200 of the 480 are used.
pub const RESUBSCRIBES_PER_HOUR_MAX: u32 = 100;

/// Resubscriptions of one silent name before its connection is made anew.
pub const RESUBSCRIBES_MAX: u32 = 3;

/// Frames in a row that break the protocol before the connection is given up. Gate.io's frames were seen corrupted
/// from one point on when a client read too slowly; a single bad frame is only counted.
pub const MALFORMED_IN_A_ROW_MAX: u32 = 50;

/// How patient a feed is. All in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Name lookup, TCP, TLS and WebSocket handshake together.
    pub connect_ms: u64,
    /// Least time between two connects to one venue, whatever the venue permits.
    pub connect_gap_ms: u64,
    /// Shortest wait before a reconnect.
    pub backoff_min_ms: u64,
    /// Longest wait before a reconnect.
    pub backoff_max_ms: u64,
    /// A connection that lived this long and delivered starts the back-off afresh.
    pub settled_ms: u64,
    /// Silence after which we send a WebSocket ping.
    pub ping_after_ms: u64,
    /// Further silence after which the connection is dead: 5 s less the tick that notices it, so that with
    /// `ping_after_ms` a half-open TCP connection is ended within 10 s, and so is unacknowledged data
    /// (`TCP_USER_TIMEOUT`).
    pub pong_within_ms: u64,
    /// How long a subscription may stay without its first quote.
    pub first_quote_ms: u64,
    /// After one name of a frame is refused: how long the others may take to be acknowledged or delivered before they
    /// are asked for again. Venues answer within a round trip.
    pub refusal_settle_ms: u64,
    /// A refused or silent name is asked for again, alone, this often (and at each instrument refresh).
    pub refused_retry_ms: u64,
    /// Least silence of a delivered subscription that is worth a REST check.
    pub quiet_ms: u64,
    /// Least silence of all subscriptions of a connection together that means its quotes have stopped.
    pub quotes_stopped_ms: u64,
    /// Age after which an asset whose subscription is not proven alive is polled over REST (the old system's cache TTL).
    pub stale_ms: u64,
    /// Least time between two REST polls of one stale asset: half of `stale_ms`, so that a polled price stays fresh.
    pub poll_ms: u64,
    /// How often watchdogs look.
    pub tick_ms: u64,
    /// Least time between two planned changes of connection (a venue in maintenance announces it on each new one).
    pub handover_gap_ms: u64,
    /// How long the old connection waits for its successor's first quote.
    pub successor_ms: u64,
    /// How long the start waits for instrument lists.
    pub lists_ms: u64,
    /// Time between reads of the instrument lists.
    pub refresh_ms: u64,
    /// First wait after a failed read of an instrument list; doubles up to `refresh_ms`.
    pub refresh_retry_ms: u64,
    /// Time the supervisor has to publish a grown directory before its new assets are subscribed.
    pub directory_settle_ms: u64,
    /// One REST request for prices, whole.
    pub rest_ms: u64,
    /// One REST request for an instrument list, whole: megabytes, and nobody waits for it.
    pub list_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_ms: 10_000,
            connect_gap_ms: 1_000,
            backoff_min_ms: 500,
            backoff_max_ms: 30_000,
            settled_ms: 30_000,
            ping_after_ms: 5_000,
            pong_within_ms: 4_750,
            first_quote_ms: 20_000,
            refusal_settle_ms: 2_000,
            refused_retry_ms: 600_000,
            quiet_ms: 30_000,
            quotes_stopped_ms: 15_000,
            stale_ms: 9_000,
            poll_ms: 4_500,
            tick_ms: 250,
            handover_gap_ms: 60_000,
            successor_ms: 30_000,
            lists_ms: 5_000,
            refresh_ms: 86_400_000,
            refresh_retry_ms: 60_000,
            directory_settle_ms: 1_000,
            rest_ms: 3_000,
            list_ms: 20_000,
        }
    }
}

/// `ms` as a duration.
#[must_use]
pub const fn duration_ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
