//! Which instruments each venue has: read from the venue at start and daily, else the last good copy, else assumed.
//!
//! [`load`] gives the first asset directory within a bounded time, before the data plane starts; what was late then,
//! and every later change, comes from `refresh`. Which of the instruments are used is decided in `plan`.

pub mod copy;
pub mod refresh;

use self::copy::{Copies, Fetched, INSTRUMENTS_MAX};
use super::connect::Trust;
use super::endpoint::{Endpoint, EndpointOverrides};
use super::plan::{Listing, Offers, Plan, Wanted, Wishes};
use super::rest::{RestClient, http_client};
use super::timing::{LIST_BYTES_MAX, Timing, duration_ms};
use shared::asset::{AssetDirectory, Symbol};
use shared::quote::Currency;
use shared::venue::{VENUE_COUNT, Venue, VenueSet};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use venues::VenueSettings;
use venues::assets::{ALWAYS, default_assets};
use venues::protocol::Instrument;

/// Refreshes a list may be refused for having shrunk to less than half: then the venue means it.
const SHRUNK_REFRESHES_MAX: u64 = 3;

/// What the feeds are to be made of.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Assets to price. See [`default_wanted`].
    pub wanted: Vec<Wanted>,
    /// Venues to use.
    pub venues: VenueSet,
    /// Choices within the venues' protocols.
    pub settings: VenueSettings,
    /// Addresses in place of the public ones.
    pub overrides: EndpointOverrides,
    /// Least time between two REST requests to one venue, ms, in place of what each permits the public.
    pub rest_gap_ms: Option<u64>,
    /// Where copies of instrument lists are kept (`TB_DATA_DIR`); `None`: nowhere.
    pub data_dir: Option<PathBuf>,
    /// Patience.
    pub timing: Timing,
}

impl Sources {
    /// All seven venues at their public addresses, the default assets, nothing kept on disk.
    #[must_use]
    pub fn new() -> Self {
        Self {
            wanted: default_wanted(),
            venues: Venue::ALL.into_iter().fold(VenueSet::EMPTY, VenueSet::with),
            settings: VenueSettings::default(),
            overrides: EndpointOverrides::default(),
            rest_gap_ms: None,
            data_dir: None,
            timing: Timing::default(),
        }
    }
}

impl Default for Sources {
    fn default() -> Self {
        Self::new()
    }
}

/// The default assets of all venues, prewarmed, and what is always needed (USDT, for conversion).
#[must_use]
pub fn default_wanted() -> Vec<Wanted> {
    wanted(&[const { None }; VENUE_COUNT])
}

/// Every asset of every venue's list, set or built in, and those that are always needed. Who lists an asset decides who
/// prices it: that lists stand by venue has no other meaning than that the replaced system kept them so.
#[must_use]
pub fn wanted(lists: &[Option<Vec<Symbol>>; VENUE_COUNT]) -> Vec<Wanted> {
    let symbol = |name: &&str| Symbol::new(name.as_bytes());
    let mut wanted = Vec::new();
    for (venue, list) in Venue::ALL.into_iter().zip(lists) {
        let symbols = match list {
            Some(list) => list.clone(),
            None => default_assets(venue).iter().filter_map(symbol).collect(),
        };
        wanted.extend(symbols.into_iter().map(|symbol| Wanted { symbol, prewarmed: true }));
    }
    wanted.extend(ALWAYS.iter().filter_map(symbol).map(|symbol| Wanted { symbol, prewarmed: false }));
    wanted
}

/// Where a venue's present list came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ListSource {
    /// The venue, in this process's life.
    Venue,
    /// The last good copy.
    Copy,
    /// Nowhere: the venue is assumed to trade its own default assets.
    Assumed,
}

/// One venue's list and how it is read.
pub struct ListReader {
    /// Which venue.
    pub venue: Venue,
    /// Where the venue is reached.
    pub endpoint: Endpoint,
    /// Its REST interface.
    pub client: Arc<RestClient>,
    settings: VenueSettings,
    copies: Copies,
    timing: Timing,
    known: Option<Fetched>,
    source: ListSource,
}

/// The venues' lists and the plan made of them.
pub struct Catalogue {
    /// Who prices what.
    pub(super) plan: Plan,
    /// One reader for each venue in use.
    pub(super) readers: Vec<ListReader>,
    /// What TLS trusts.
    pub(super) trust: Trust,
}

impl Catalogue {
    /// Every asset, for the start of the data plane.
    #[must_use]
    pub fn directory(&self) -> Arc<AssetDirectory> {
        Arc::clone(&self.plan.directory)
    }

    /// Wanted assets that no venue lists.
    #[must_use]
    pub fn unlisted(&self) -> &[Symbol] {
        &self.plan.unlisted
    }
}

/// Reads the venues' lists, waiting at most `Timing::lists_ms`; venues that do not answer by then are taken at their
/// last good copy, else assumed to list their own default assets.
///
/// # Errors
/// All faults of the settings (an address that cannot be used), or TLS that cannot be set up; each says what to do.
pub async fn load(sources: &Sources) -> Result<Catalogue, String> {
    let endpoints = endpoints(sources)?;
    let simulated = endpoints.iter().all(|(_, endpoint)| !endpoint.ws.tls && !endpoint.rest.starts_with("https"));
    let trust = if simulated { Trust::nobody()? } else { Trust::platform()? };
    let http = http_client(&trust, &sources.timing)?;
    let readers = endpoints.into_iter().map(|(venue, endpoint)| ListReader::new(venue, endpoint, sources, &http));
    let deadline = Instant::now() + duration_ms(sources.timing.lists_ms);
    let reads = readers.map(|mut reader| {
        tokio::spawn(async move {
            reader.read_copy().await;
            // A request cut short here is made again by the refresh, soon.
            drop(timeout_at(deadline, reader.read()).await);
            reader
        })
    });
    let mut readers = Vec::new();
    for read in reads.collect::<Vec<_>>() {
        readers.push(read.await.map_err(|fault| format!("reading an instrument list failed: {fault}"))?);
    }
    let wishes = Wishes { wanted: sources.wanted.clone(), ..Wishes::default() };
    let plan = Plan::new(&wishes, &Arc::new(Offers::new(&listings(&readers))), &Arc::default(), 0);
    Ok(Catalogue { plan, readers, trust })
}

/// Where each venue in use is reached.
fn endpoints(sources: &Sources) -> Result<Vec<(Venue, Endpoint)>, String> {
    let mut endpoints = Vec::new();
    let mut faults = Vec::new();
    for venue in sources.venues.iter() {
        let protocol = venues::protocol(venue, sources.settings);
        let overrides = &sources.overrides;
        match Endpoint::new(&*protocol, overrides.ws(venue), overrides.rest(venue)) {
            Ok(endpoint) => endpoints.push((venue, endpoint)),
            Err(fault) => faults.push(format!("{venue}: {fault}")),
        }
    }
    if faults.is_empty() { Ok(endpoints) } else { Err(faults.join("; ")) }
}

/// The lists that `readers` have now.
fn listings(readers: &[ListReader]) -> [Listing; VENUE_COUNT] {
    let mut listings: [Listing; VENUE_COUNT] = Default::default();
    for reader in readers {
        listings[reader.venue.index()] = reader.listing();
    }
    listings
}

impl ListReader {
    fn new(venue: Venue, endpoint: Endpoint, sources: &Sources, http: &reqwest::Client) -> Self {
        let limits = venues::protocol(venue, sources.settings).limits();
        let (names, gap_ms) = (limits.names_per_rest_request, sources.rest_gap_ms.unwrap_or(limits.rest_gap_ms));
        let client = RestClient::new(http.clone(), endpoint.rest.clone(), names, gap_ms, &sources.timing);
        Self {
            venue,
            endpoint,
            client: Arc::new(client),
            settings: sources.settings,
            copies: Copies::new(sources.data_dir.as_deref()),
            timing: sources.timing,
            known: None,
            source: ListSource::Assumed,
        }
    }

    /// Where the present list came from.
    #[must_use]
    pub const fn source(&self) -> ListSource {
        self.source
    }

    /// When the present list was read from the venue, Unix ms, and how many instruments it has.
    #[must_use]
    pub fn present(&self) -> Option<(u64, usize)> {
        self.known.as_ref().map(|fetched| (fetched.fetched_ms, fetched.instruments.len()))
    }

    fn listing(&self) -> Listing {
        match &self.known {
            Some(fetched) => Listing::Known(Arc::new(fetched.instruments.clone())),
            None => Listing::Assumed(Arc::new(assumed(self.venue, self.settings))),
        }
    }

    async fn read_copy(&mut self) {
        let (copies, venue, base) = (self.copies.clone(), self.venue, self.client.base().to_owned());
        let copy = spawn_blocking(move || copies.read(venue, &base)).await;
        if let Ok(Some(copy)) = copy {
            (self.known, self.source) = (Some(copy), ListSource::Copy);
        }
    }

    /// Reads the list from the venue and keeps it; answers whether the read brought another list than before.
    ///
    /// # Errors
    /// Why the present list stays in force, for a person.
    pub async fn read(&mut self) -> Result<bool, String> {
        let instruments = self.fetch().await?;
        let now_ms = tuning::clock::now().wall_ms;
        if let Some(known) = &self.known {
            let (before, after) = (known.instruments.len(), instruments.len());
            let age_ms = now_ms.saturating_sub(known.fetched_ms);
            if after * 2 < before && age_ms < SHRUNK_REFRESHES_MAX * self.timing.refresh_ms {
                return Err(format!(
                    "the list shrank from {before} to {after} instruments: the old one is kept for now"
                ));
            }
        }
        let changed = self.known.as_ref().is_none_or(|known| known.instruments != instruments);
        let fetched = Fetched { fetched_ms: now_ms, instruments };
        let (copies, venue, base) = (self.copies.clone(), self.venue, self.client.base().to_owned());
        let copy = fetched.clone();
        drop(spawn_blocking(move || copies.write(venue, &base, &copy)).await);
        (self.known, self.source) = (Some(fetched), ListSource::Venue);
        Ok(changed)
    }

    async fn fetch(&self) -> Result<Vec<Instrument>, String> {
        let (venue, settings) = (self.venue, self.settings);
        let requests = venues::protocol(venue, settings).instruments();
        let (mut instruments, patience) = (Vec::new(), duration_ms(self.timing.list_ms));
        for request in requests {
            let answer =
                self.client.get(&request, LIST_BYTES_MAX, patience).await.map_err(|fault| fault.to_string())?;
            // Megabytes of JSON: not on a thread that serves connections.
            let decoded = spawn_blocking(move || {
                venues::protocol(venue, settings).decode_instruments(answer.status, &answer.body)
            });
            let list = decoded.await.map_err(|fault| fault.to_string())?;
            let list = list.map_err(|fault| format!("instrument list: {fault}"))?;
            instruments.extend(list.into_iter().filter(|one| Currency::from_code(one.quote.as_str()).is_some()));
        }
        instruments.truncate(INSTRUMENTS_MAX);
        if instruments.is_empty() {
            return Err("instrument list: nothing is priced in USD or USDT".to_owned());
        }
        Ok(instruments)
    }
}

/// What `venue` is assumed to trade when nobody can say: its own default assets in its usual currency.
fn assumed(venue: Venue, settings: VenueSettings) -> Vec<Instrument> {
    let protocol = venues::protocol(venue, settings);
    let currency = match venue {
        Venue::Coinbase | Venue::Gemini | Venue::Kraken | Venue::Cryptocom => Currency::Usd,
        Venue::Gateio | Venue::Bybit | Venue::Okx => Currency::Usdt,
    };
    let instrument = |name: &&str| {
        let (base, quote) = (Symbol::new(name.as_bytes())?, Symbol::new(currency.code().as_bytes())?);
        let name = protocol.spell(&base, &quote);
        Some(Instrument { rest_name: name.clone(), name, base, quote, trading: true })
    };
    default_assets(venue).iter().filter_map(instrument).collect()
}
