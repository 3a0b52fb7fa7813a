//! What one simulated connection is subscribed to: the memory all seven simulators share.
//!
//! It knows names, nothing of what a venue says about them.

use crate::protocol::Instrument;
use std::collections::BTreeMap;

/// Instruments one simulated connection takes. The most any venue's real connection is known to take is 400.
pub const SUBSCRIPTIONS_MAX: usize = 1_024;

/// The subscribed names of one connection, and whether each had its snapshot.
#[derive(Debug, Default)]
pub struct Subscriptions {
    names: BTreeMap<String, bool>,
}

impl Subscriptions {
    /// Adds `name`; a name that is there already keeps its state. `false` when there is no room.
    pub fn add(&mut self, name: &str) -> bool {
        let room = self.names.len() < SUBSCRIPTIONS_MAX || self.names.contains_key(name);
        if room {
            self.names.entry(name.to_owned()).or_insert(false);
        }
        room
    }

    /// Ends the subscription to `name`. Whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.names.remove(name).is_some()
    }

    /// Whether `name` is subscribed.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// `None` when `name` is not subscribed; else whether its next frame is the snapshot, true once.
    pub fn next_is_snapshot(&mut self, name: &str) -> Option<bool> {
        self.names.get_mut(name).map(|sent| !std::mem::replace(sent, true))
    }

    /// The subscribed names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// How many names are subscribed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nothing is subscribed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// The instrument called `name` in frames, if the simulated venue offers it: listed, trading, and not `refused`.
#[must_use]
pub fn offered<'a>(listed: &'a [Instrument], refused: &[String], name: &str) -> Option<&'a Instrument> {
    let refused = refused.iter().any(|refused| refused == name);
    listed.iter().find(|instrument| instrument.name == name && instrument.trading && !refused)
}
