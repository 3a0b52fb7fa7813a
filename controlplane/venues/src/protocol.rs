//! What every venue's protocol offers to a session, and the events it yields.

use shared::asset::Symbol;
use shared::quote::Field;
use shared::venue::Venue;

/// A market on a venue, in the venue's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instrument {
    /// The name in subscriptions and frames, as the venue spells it in its WebSocket interface (`BTC-USD`).
    pub name: String,
    /// The name in the REST interface, where it differs (Kraken's `XBTUSD`); otherwise the same.
    pub rest_name: String,
    /// What is priced, in the venue's spelling, upper case (aliases are resolved by the caller).
    pub base: Symbol,
    /// What the price is in: `USD`, `USDT`, `EUR`, …
    pub quote: Symbol,
    /// Whether it trades now (neither delisted, halted nor not yet open).
    pub trading: bool,
}

/// Something that happened on a connection (or stood in a REST body). Text borrowed from the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VenueEvent<'a> {
    /// Prices of one instrument.
    Quote(VenueQuote),
    /// A subscription is acknowledged; `name` where the venue says which.
    Subscribed {
        /// The instrument, in the venue's spelling; `None`: the request as a whole.
        name: Option<&'a str>,
        /// The number of our request, where the venue echoes it.
        request: Option<u64>,
    },
    /// A subscription is refused.
    Refused {
        /// The instrument, where the venue says which.
        name: Option<&'a str>,
        /// The number of our request, where the venue echoes it.
        request: Option<u64>,
        /// What the venue says.
        reason: &'a str,
    },
    /// A sign of life that carries no price. `answer` must be sent back, where the venue asks for it.
    Heartbeat {
        /// Text to send.
        answer: Option<String>,
    },
    /// A notice about the venue or the connection.
    Status {
        /// What it says.
        text: &'a str,
        /// Whether the connection will be closed, or prices are not to be had: open another.
        reconnect: bool,
    },
    /// A message was lost: a gap in the venue's per-connection sequence. Reconnect.
    Gap {
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// A well-formed frame that is not for us.
    Ignored {
        /// What it is, in a few words (`channel candles`, `quote currency EUR`).
        what: &'a str,
    },
    /// A frame that breaks the protocol. Nothing of it was used.
    Malformed {
        /// Why, for a person.
        reason: String,
    },
}

/// Prices of one instrument as one frame gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VenueQuote {
    /// What is priced, in the venue's spelling.
    pub base: Symbol,
    /// What the price is in: `USD`, `USDT`, or something we do not price in.
    pub quote: Symbol,
    /// Whether it restates the market rather than reporting a change.
    pub snapshot: bool,
    /// Price of the last trade.
    pub last: Field,
    /// Highest buy order.
    pub bid: Field,
    /// Lowest sell order.
    pub ask: Field,
    /// The venue's time, Unix ms.
    pub exchange_time_ms: Option<u64>,
    /// The venue's own order of events for this instrument and channel, where it has one that only grows.
    pub sequence: Option<u64>,
}

/// Who keeps the connection alive, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// The server sends something by itself at least this often (ms) on a live connection; we only listen
    /// (and answer what asks for an answer).
    Server {
        /// Longest silence of a live connection, ms.
        silence_ms_max: u64,
    },
    /// We send [`VenueProtocol::ping`] this often (ms); the answer comes as a heartbeat.
    Client {
        /// Time between pings, ms.
        every_ms: u64,
    },
}

/// What a venue permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VenueLimits {
    /// Instruments in one subscribe frame: small where one bad name refuses the whole frame.
    pub names_per_frame: usize,
    /// Instruments on one connection.
    pub names_per_connection: usize,
    /// Least time between frames we send, ms.
    pub frame_gap_ms: u64,
    /// Wait after connecting before the first frame, ms.
    pub first_frame_wait_ms: u64,
    /// Least time between two connection attempts, ms.
    pub connect_gap_ms: u64,
    /// Least time between two REST requests, ms.
    pub rest_gap_ms: u64,
    /// Instruments in one REST ticker request; 1 where one bad name fails the whole request.
    pub names_per_rest_request: usize,
    /// Subscribe and unsubscribe operations, one name each, of one connection in an hour; `None`: not bounded so.
    pub operations_per_hour: Option<usize>,
}

/// A REST request: always a GET below the venue's base address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestRequest {
    /// Path and query.
    pub path: String,
}

/// One connection's protocol state.
pub trait VenueProtocol: Send {
    /// Which venue.
    fn venue(&self) -> Venue;

    /// The venue's public WebSocket address.
    fn ws_url(&self) -> &'static str;

    /// The venue's public REST base address, without a trailing slash.
    fn rest_url(&self) -> &'static str;

    /// What the venue permits.
    fn limits(&self) -> VenueLimits;

    /// Who keeps the connection alive.
    fn keep_alive(&self) -> KeepAlive;

    /// Tells the time, Unix ms, before frames are asked for: some venues want it in each request.
    fn tell_time(&mut self, wall_ms: u64) {
        let _ = wall_ms;
    }

    /// Text frames that subscribe to quotes (last, bid and ask) of `names`, at most `names_per_frame` of them; several
    /// frames where the venue takes one channel a frame. `request` numbers the first; further frames count on from it.
    fn subscribe(&self, names: &[&str], request: u64) -> Vec<String>;

    /// Text frames that end the subscription to `names`.
    fn unsubscribe(&self, names: &[&str], request: u64) -> Vec<String>;

    /// Text frames to send once, right after connecting (Coinbase's `heartbeats` channel).
    fn greeting(&self) -> Vec<String> {
        Vec::new()
    }

    /// The application's ping, where we keep the connection alive.
    fn ping(&self, request: u64) -> Option<String> {
        let _ = request;
        None
    }

    /// Decodes one text frame into events, in the frame's order. Never panics, whatever the bytes.
    fn decode(&mut self, frame: &[u8], sink: &mut dyn FnMut(VenueEvent<'_>));

    /// Forgets what belongs to the connection (sequence, books): called when a new one is made.
    fn reset(&mut self);

    /// The venue's spelling of `base` priced in `quote` for WebSocket frames.
    fn spell(&self, base: &Symbol, quote: &Symbol) -> String;

    /// Requests that together list every instrument.
    fn instruments(&self) -> Vec<RestRequest>;

    /// Reads an instrument list.
    ///
    /// # Errors
    /// What is wrong with the body, for a person.
    fn decode_instruments(&self, status: u16, body: &[u8]) -> Result<Vec<Instrument>, String>;

    /// A request for the present prices of `instruments`, at most `names_per_rest_request` of them.
    fn tickers(&self, instruments: &[&Instrument]) -> RestRequest;

    /// Reads its answer. `asked` are the instruments of the request (a body may spell them its own way, or not name
    /// them at all). Yields `Quote`, `Refused` (unknown or halted instrument, rate limit) and `Malformed`.
    fn decode_tickers(&self, status: u16, body: &[u8], asked: &[&Instrument], sink: &mut dyn FnMut(VenueEvent<'_>));
}
