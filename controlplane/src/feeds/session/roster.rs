//! The subscriptions of one connection: what was asked, acknowledged, refused, delivered.
//!
//! Pure bookkeeping over a `Moment`: this file sends nothing. Names are asked for in batches, one subscribe call
//! each. Some venues refuse a whole frame for one bad name and some only that name, so after any refusal the others
//! of its batch have a short time to settle; those that have not are asked for again in halves, until the bad name
//! stands alone. Nobody is silenced by another's refusal.

use crate::feeds::plan::Market;
use shared::asset::{AssetId, resolve_alias};
use shared::moment::Moment;
use std::collections::{BTreeMap, HashMap, VecDeque};
use venues::protocol::{VenueProtocol, VenueQuote};

/// Nameless refusals of a name that was asked for alone before it counts as refused: one may be a rate limit.
const NAMELESS_MAX: u32 = 2;

/// How far a subscription has come on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In a batch that has not been sent.
    Queued,
    /// Asked for.
    Asked,
    /// Acknowledged; nothing delivered yet. Not a working subscription.
    Acked,
    /// Delivered.
    Live,
    /// Refused or hopeless: asked for again, alone, at `again_ns`.
    Resting,
}

#[derive(Debug)]
struct Entry {
    market: Market,
    standing: Standing,
    /// First request number of the batch it was last asked in.
    group: u64,
    asked_ns: u64,
    again_ns: u64,
    resubscribes: u32,
    nameless: u32,
}

/// Names for one subscribe call.
#[derive(Debug)]
struct Batch {
    assets: Vec<AssetId>,
    /// End the old subscription first: the venue believes that it has one.
    anew: bool,
}

/// A batch that was sent.
#[derive(Debug)]
struct Group {
    first: u64,
    /// One past its last request number.
    end: u64,
    /// When its unsettled members are asked for again, after a refusal.
    settle_ns: Option<u64>,
}

/// The subscriptions of one connection.
pub struct Roster {
    names_per_frame: usize,
    entries: BTreeMap<AssetId, Entry>,
    by_name: HashMap<String, AssetId>,
    by_base: HashMap<[u8; 32], AssetId>,
    batches: VecDeque<Batch>,
    ended: VecDeque<String>,
    groups: Vec<Group>,
    next_request: u64,
}

impl Roster {
    /// A roster of `markets`, nothing asked yet. `rests` names those known to be refused: they wait until the given
    /// monotonic time, ns.
    #[must_use]
    pub fn new(markets: &[Market], names_per_frame: usize, rests: &dyn Fn(AssetId) -> Option<u64>) -> Self {
        let mut roster = Self {
            names_per_frame: names_per_frame.max(1),
            entries: BTreeMap::new(),
            by_name: HashMap::new(),
            by_base: HashMap::new(),
            batches: VecDeque::new(),
            ended: VecDeque::new(),
            groups: Vec::new(),
            next_request: 1,
        };
        roster.add(markets.iter(), rests);
        roster
    }

    fn add<'a>(&mut self, markets: impl Iterator<Item = &'a Market>, rests: &dyn Fn(AssetId) -> Option<u64>) {
        let mut asked = Vec::new();
        for market in markets {
            let again_ns = rests(market.asset);
            let standing = if again_ns.is_some() { Standing::Resting } else { Standing::Queued };
            self.by_name.insert(market.instrument.name.to_ascii_uppercase(), market.asset);
            self.by_base.insert(pair(&market.instrument.base, &market.instrument.quote), market.asset);
            let entry = Entry {
                market: market.clone(),
                standing,
                group: 0,
                asked_ns: 0,
                again_ns: again_ns.unwrap_or(0),
                resubscribes: 0,
                nameless: 0,
            };
            self.entries.insert(market.asset, entry);
            if standing == Standing::Queued {
                asked.push(market.asset);
            }
        }
        for assets in asked.chunks(self.names_per_frame) {
            self.batches.push_back(Batch { assets: assets.to_vec(), anew: false });
        }
    }

    /// Makes the roster one of `markets`: what is new is asked for, what is gone is ended. Where the
    /// lists are new (`renewed`), refused ones are tried again.
    pub fn change(&mut self, markets: &[Market], renewed: bool) {
        let wanted: BTreeMap<AssetId, &Market> = markets.iter().map(|market| (market.asset, market)).collect();
        let gone: Vec<AssetId> = self
            .entries
            .iter()
            .filter(|(asset, entry)| wanted.get(asset).is_none_or(|market| **market != entry.market))
            .map(|(asset, _)| *asset)
            .collect();
        for asset in gone {
            let Some(entry) = self.entries.remove(&asset) else { continue };
            let instrument = entry.market.instrument;
            self.by_name.remove(&instrument.name.to_ascii_uppercase());
            self.by_base.remove(&pair(&instrument.base, &instrument.quote));
            if !matches!(entry.standing, Standing::Queued | Standing::Resting) {
                self.ended.push_back(instrument.name);
            }
        }
        let fresh: Vec<&Market> = markets.iter().filter(|market| !self.entries.contains_key(&market.asset)).collect();
        self.add(fresh.into_iter(), &|_| None);
        for entry in self.entries.values_mut().filter(|entry| renewed && entry.standing == Standing::Resting) {
            entry.again_ns = 0;
        }
    }

    /// Frames of the next thing to ask: an ended subscription first, else the next batch.
    pub fn next_frames(&mut self, protocol: &dyn VenueProtocol, now: Moment) -> Vec<String> {
        if !self.ended.is_empty() {
            let ended: Vec<String> = (0..self.names_per_frame).map_while(|_| self.ended.pop_front()).collect();
            let names: Vec<&str> = ended.iter().map(String::as_str).collect();
            let frames = protocol.unsubscribe(&names, self.next_request);
            self.next_request += frames.len() as u64;
            return frames;
        }
        while let Some(batch) = self.batches.pop_front() {
            let queued =
                |asset: &&AssetId| self.entries.get(asset).is_some_and(|entry| entry.standing == Standing::Queued);
            let assets: Vec<AssetId> = batch.assets.iter().filter(queued).copied().collect();
            if !assets.is_empty() {
                return self.ask(&assets, batch.anew, protocol, now);
            }
        }
        Vec::new()
    }

    fn ask(&mut self, assets: &[AssetId], anew: bool, protocol: &dyn VenueProtocol, now: Moment) -> Vec<String> {
        let name = |asset| self.entries.get(asset).map(|entry| entry.market.instrument.name.as_str());
        let names: Vec<&str> = assets.iter().filter_map(name).collect();
        let mut frames = if anew { protocol.unsubscribe(&names, self.next_request) } else { Vec::new() };
        let first = self.next_request + frames.len() as u64;
        let asking = protocol.subscribe(&names, first);
        let end = first + asking.len() as u64;
        frames.extend(asking);
        for asset in assets {
            if let Some(entry) = self.entries.get_mut(asset) {
                (entry.standing, entry.group, entry.asked_ns) = (Standing::Asked, first, now.mono_ns);
            }
        }
        self.next_request = end;
        self.groups.push(Group { first, end, settle_ns: None });
        frames
    }

    /// Number for a request that is not a subscription.
    pub const fn take_request(&mut self) -> u64 {
        let request = self.next_request;
        self.next_request += 1;
        request
    }

    /// The market a quote is about, if it was asked for.
    #[must_use]
    pub fn market_of(&self, quote: &VenueQuote) -> Option<&Market> {
        let asset = self.by_base.get(&pair(&quote.base, &quote.quote))?;
        self.entries.get(asset).map(|entry| &entry.market)
    }

    /// Notes a delivery; answers whether it is the first since the asset was asked for.
    pub fn delivered(&mut self, asset: AssetId) -> bool {
        let Some(entry) = self.entries.get_mut(&asset) else { return false };
        let first = entry.standing != Standing::Live;
        if first {
            (entry.standing, entry.resubscribes, entry.nameless) = (Standing::Live, 0, 0);
        }
        first
    }

    /// Notes an acknowledgement: of one name, or of every name of a request.
    pub fn acked(&mut self, name: Option<&str>, request: Option<u64>) {
        if let Some(name) = name {
            let asset = self.by_name.get(&name.to_ascii_uppercase()).copied();
            if let Some(entry) = asset.and_then(|asset| self.entries.get_mut(&asset)) {
                ack(entry);
            }
            return;
        }
        if let Some(first) = self.group_meant(request) {
            self.entries.values_mut().filter(|entry| entry.group == first).for_each(ack);
        }
    }

    /// Notes a refusal. Answers the asset that is thereby known to be refused, if one is.
    pub fn refused(
        &mut self,
        name: Option<&str>,
        request: Option<u64>,
        now: Moment,
        settle_ms: u64,
        retry_ms: u64,
    ) -> Option<AssetId> {
        let named = name.and_then(|name| self.by_name.get(&name.to_ascii_uppercase()).copied());
        let group = match named.and_then(|asset| self.entries.get(&asset)) {
            Some(entry) => Some(entry.group),
            None => self.group_meant(request),
        };
        let unsettled = group.map(|group| self.unsettled(group)).unwrap_or_default();
        let refused = match (named, unsettled.as_slice()) {
            (Some(asset), _) => Some(asset),
            (None, [alone]) => self.refused_alone(*alone, now, settle_ms),
            (None, _) => None,
        };
        if let Some(entry) = refused.and_then(|asset| self.entries.get_mut(&asset)) {
            entry.standing = Standing::Resting;
            entry.again_ns = now.plus_ms(retry_ms).mono_ns;
        }
        let others = unsettled.iter().any(|asset| refused != Some(*asset));
        if others && let Some(group) = self.groups.iter_mut().find(|found| Some(found.first) == group) {
            group.settle_ns = Some(now.plus_ms(settle_ms).mono_ns);
        }
        refused
    }

    /// A nameless refusal of a name that was asked for alone.
    fn refused_alone(&mut self, asset: AssetId, now: Moment, settle_ms: u64) -> Option<AssetId> {
        let entry = self.entries.get_mut(&asset)?;
        entry.nameless += 1;
        if entry.nameless >= NAMELESS_MAX {
            return Some(asset);
        }
        (entry.standing, entry.again_ns) = (Standing::Resting, now.plus_ms(settle_ms).mono_ns);
        None
    }

    /// Asks for `asset` anew, alone.
    pub fn ask_anew(&mut self, asset: AssetId) {
        let Some(entry) = self.entries.get_mut(&asset) else { return };
        if entry.standing != Standing::Queued {
            let anew = entry.standing != Standing::Resting;
            entry.standing = Standing::Queued;
            self.batches.push_back(Batch { assets: vec![asset], anew });
        }
    }

    /// Leaves a silent `asset` alone until `again_ns`.
    pub fn rest(&mut self, asset: AssetId, again_ns: u64) {
        if let Some(entry) = self.entries.get_mut(&asset) {
            (entry.standing, entry.again_ns, entry.resubscribes) = (Standing::Resting, again_ns, 0);
        }
    }

    /// Splits the batches whose time to settle is over, and forgets those that nobody is waiting in.
    pub fn settle(&mut self, now: Moment) {
        let mut groups = std::mem::take(&mut self.groups);
        groups.retain(|group| {
            let unsettled = self.unsettled(group.first);
            if unsettled.is_empty() {
                return false;
            }
            let split = group.settle_ns.is_some_and(|at| at <= now.mono_ns);
            if split {
                for assets in unsettled.chunks(unsettled.len().div_ceil(2)) {
                    self.requeue(assets);
                }
            }
            !split
        });
        self.groups = groups;
    }

    fn requeue(&mut self, assets: &[AssetId]) {
        for asset in assets {
            if let Some(entry) = self.entries.get_mut(asset) {
                entry.standing = Standing::Queued;
            }
        }
        self.batches.push_back(Batch { assets: assets.to_vec(), anew: false });
    }

    /// Assets asked for (perhaps acknowledged) at least `wait_ms` ago that never delivered, each with how often it
    /// was asked for anew because of that.
    #[must_use]
    pub fn silent(&self, now: Moment, wait_ms: u64) -> Vec<(AssetId, u32)> {
        let silent = |entry: &Entry| {
            matches!(entry.standing, Standing::Asked | Standing::Acked) && now.ms_since(entry.asked_ns) >= wait_ms
        };
        let silent = self.entries.iter().filter(|(_, entry)| silent(entry));
        silent.map(|(asset, entry)| (*asset, entry.resubscribes)).collect()
    }

    /// Counts that `asset` was asked for anew because it was silent.
    pub fn count_resubscribe(&mut self, asset: AssetId) {
        if let Some(entry) = self.entries.get_mut(&asset) {
            entry.resubscribes += 1;
        }
    }

    /// Resting assets whose time has come.
    #[must_use]
    pub fn rested(&self, now: Moment) -> Vec<AssetId> {
        let rested = |entry: &Entry| entry.standing == Standing::Resting && entry.again_ns <= now.mono_ns;
        self.entries.iter().filter(|(_, entry)| rested(entry)).map(|(asset, _)| *asset).collect()
    }

    /// How many stand as `standing`.
    #[must_use]
    pub fn count(&self, standing: Standing) -> usize {
        self.entries.values().filter(|entry| entry.standing == standing).count()
    }

    /// The standing of `asset`.
    #[must_use]
    pub fn standing(&self, asset: AssetId) -> Option<Standing> {
        self.entries.get(&asset).map(|entry| entry.standing)
    }

    /// The venue's name for `asset`.
    #[must_use]
    pub fn name(&self, asset: AssetId) -> Option<&str> {
        self.entries.get(&asset).map(|entry| entry.market.instrument.name.as_str())
    }

    /// Whether something waits to be asked.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        !self.batches.is_empty() || !self.ended.is_empty()
    }

    /// The batch that an answer is about: the one of the request number, or the oldest still waiting for an answer (one
    /// that was refused has had its answer).
    fn group_meant(&self, request: Option<u64>) -> Option<u64> {
        let mut groups = self.groups.iter();
        let meant = match request {
            Some(request) => groups.find(|group| (group.first..group.end).contains(&request)),
            None => groups.find(|group| group.settle_ns.is_none() && !self.unsettled(group.first).is_empty()),
        };
        meant.map(|group| group.first)
    }

    fn unsettled(&self, group: u64) -> Vec<AssetId> {
        let waits = |entry: &Entry| entry.group == group && entry.standing == Standing::Asked;
        self.entries.iter().filter(|(_, entry)| waits(entry)).map(|(asset, _)| *asset).collect()
    }
}

fn ack(entry: &mut Entry) {
    if entry.standing == Standing::Asked {
        entry.standing = Standing::Acked;
    }
}

/// The key of a market in frames: venues may spell a base by an alias in one place and not in another.
fn pair(base: &shared::asset::Symbol, quote: &shared::asset::Symbol) -> [u8; 32] {
    let mut key = [0; 32];
    key[..16].copy_from_slice(resolve_alias(*base).padded());
    key[16..].copy_from_slice(quote.padded());
    key
}

#[cfg(test)]
mod tests;
