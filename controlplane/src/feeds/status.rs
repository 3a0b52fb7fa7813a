//! What `/admin/feeds` shows of the feeds. Serialised as it stands; it holds no secret, because market data has none.

use super::board::{Board, Counters, ListShown};
use super::slot::VenueContext;
use serde::Serialize;
use shared::asset::AssetDirectory;
use shared::moment::Moment;

/// Names listed of each kind; more are only counted.
const NAMES_MAX: usize = 64;

/// All venues.
#[derive(Clone, Debug, Serialize)]
pub struct FeedsStatus {
    /// One for each venue in use.
    pub venues: Vec<VenueStatus>,
    /// Wanted assets that no venue lists.
    pub unlisted: Vec<String>,
}

/// One venue.
#[derive(Clone, Debug, Serialize)]
pub struct VenueStatus {
    /// Its name.
    pub venue: &'static str,
    /// The host that its connections go to.
    pub host: String,
    /// Whether a connection is open.
    pub connected: bool,
    /// Open connections: more than one while one replaces another, or where a venue's capacity asks for it.
    pub connections: usize,
    /// How long the oldest of them has been open, ms.
    pub connected_for_ms: Option<u64>,
    /// Assets subscribed, or to be: all that the venue lists and we want, but for those it refuses.
    pub subscribed: usize,
    /// Of these, how many have delivered on the present connection.
    pub live: usize,
    /// Instruments the venue refuses, and why.
    pub refused_symbols: Vec<RefusedSymbol>,
    /// Instruments subscribed that have not delivered; empty while there is no connection.
    pub silent_symbols: Vec<String>,
    /// Age of the last frame of any kind, ms; `None`: there was none.
    pub last_frame_age_ms: Option<u64>,
    /// Text frames a second over the last ten seconds, one decimal.
    pub frames_per_second: String,
    /// Quotes replaced by newer ones before the feed thread took them.
    pub conflated: u64,
    /// What has been counted since the start.
    #[serde(flatten)]
    pub counters: Counters,
    /// The last fault: a refused connection, a broken frame, an end.
    pub last_error: Option<String>,
    /// When it was noted, Unix ms.
    pub last_error_time_ms: Option<u64>,
    /// Where the list of the venue's instruments came from.
    pub instrument_list: Option<ListShown>,
}

/// An instrument that the venue refuses.
#[derive(Clone, Debug, Serialize)]
pub struct RefusedSymbol {
    /// The asset.
    pub asset: String,
    /// The venue's name for the instrument.
    pub instrument: String,
    /// The venue's words.
    pub reason: String,
}

/// The venue's status now.
#[must_use]
pub fn venue_status(context: &VenueContext, directory: &AssetDirectory, now: Moment) -> VenueStatus {
    let board: &Board = &context.board;
    let mut state = board.lock();
    let tenths = state.frames_in_ten_seconds(now);
    let symbol = |asset| directory.entry(asset).map(|entry| entry.symbol.to_string()).unwrap_or_default();
    let refused = state.heard().filter_map(|heard| {
        let (asset, instrument) = (symbol(heard.market.asset), heard.market.instrument.name.clone());
        Some(RefusedSymbol { asset, instrument, reason: heard.refused.as_ref()?.reason.clone() })
    });
    let connected = !state.connections().is_empty();
    let silent = state.heard().filter(|heard| connected && heard.live_on.is_none() && heard.refused.is_none());
    let oldest = state.connections().values().min();
    let fault = state.last_fault().cloned();
    VenueStatus {
        venue: context.venue.name(),
        host: context.endpoint.ws.host.clone(),
        connected,
        connections: state.connections().len(),
        connected_for_ms: oldest.map(|opened_ns| now.ms_since(*opened_ns)),
        subscribed: state.heard().filter(|heard| heard.refused.is_none()).count(),
        live: state.heard().filter(|heard| heard.live_on.is_some()).count(),
        refused_symbols: refused.take(NAMES_MAX).collect(),
        silent_symbols: silent.take(NAMES_MAX).map(|heard| heard.market.instrument.name.clone()).collect(),
        last_frame_age_ms: state.silence_ms(now),
        frames_per_second: format!("{}.{}", tenths / 10, tenths % 10),
        conflated: state.conflated(),
        counters: state.counters,
        last_error_time_ms: fault.as_ref().map(|fault| fault.time_ms),
        last_error: fault.map(|fault| fault.text),
        instrument_list: state.list(),
    }
}
